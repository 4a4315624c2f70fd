/*
 * awq_blocks_test.c - the exact search's checkpoint, read from AutoAWQ's layout as its
 * kernels do, stands for the very numbers of the blocks in the ONNX model that is made of
 * it.
 *
 * Both are read here from their bytes alone: qweight[K][N/8], qzeros[K/group][N/8] in the
 * nibble order 0 2 4 6 1 3 5 7 and scales[K/group][N]; B[N][blocks][block/2],
 * zero_points[N][blocks/2 rounded up] and scales[N][blocks], the low nibble first.
 */
#include "flow_fixture.h"

#include "core/dtype.h"
#include "hf/hf.h"
#include "onnx/edit_impl.h"

enum { GROUP = 32 };

static dr_arena arena;

static const dr_tensor *tensor(const hf_model *m, const char *name)
{
    for (size_t i = 0; i < hf_tensor_count(m); i++) {
        if (strcmp(hf_tensor_at(m, i)->name, name) == 0)
            return hf_tensor_at(m, i);
    }
    return NULL;
}

/* The nibble of output n in row r of words of N/8. */
static int awq_nibble(const dr_tensor *t, size_t r, size_t n, size_t outs)
{
    static const int place[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    uint32_t word = 0;

    memcpy(&word, (const unsigned char *)t->data + 4 * (r * (outs / 8) + n / 8), 4);
    return (int)(word >> 4 * place[n % 8] & 15);
}

static int nibble(const void *data, size_t i)
{
    return ((const unsigned char *)data)[i / 2] >> (i % 2 ? 4 : 0) & 15;
}

static float awq_value(const dr_tensor t[3], size_t n, size_t k, size_t outs)
{
    size_t g = k / GROUP;
    uint16_t scale = 0;

    memcpy(&scale, (const unsigned char *)t[2].data + 2 * (g * outs + n), 2);
    return (float)(awq_nibble(&t[0], k, n, outs) - awq_nibble(&t[1], g, n, outs)) *
           dr_f16_to_f32(scale);
}

static float onnx_value(const dr_tensor t[3], size_t n, size_t k, size_t ins)
{
    size_t blocks = ins / GROUP, b = k / GROUP, zero_row = (blocks + 1) / 2 * 2;

    return (float)(nibble(t[0].data, n * ins + k) - nibble(t[1].data, n * zero_row + b)) *
           ((const float *)t[2].data)[n * blocks + b];
}

static void check_linear(const hf_model *m, onnx_edit *e, const hf_linear *l)
{
    static const char *const parts[] = {"qweight", "qzeros", "scales"};
    const char *node =
        l->slot == HF_SLOT_QKV
            ? dr_arena_printf(&arena, "model.layers.%d.attn.qkv_proj", l->layer)
        : l->slot == HF_SLOT_O
            ? dr_arena_printf(&arena, "model.layers.%d.attn.o_proj", l->layer)
            : l->path;
    size_t row0 = l->slot == HF_SLOT_QKV ? l->row0 : 0, differ = 0, zeros = 0;
    dr_tensor awq[3] = {{0}}, onnx[3] = {{0}};

    for (int i = 0; i < 3; i++) {
        const dr_tensor *t = tensor(m, dr_arena_printf(&arena, "%s.%s", l->path, parts[i]));
        const struct Onnx__TensorProto *init =
            onnx_edit_init(e, dr_arena_printf(&arena, "%s.MatMulNBits.%s", node, parts[i]));
        if (!CHECK(t != NULL && init != NULL)) {
            (void)fprintf(stderr, "%s: %s\n", l->path, node);
            return;
        }
        awq[i] = *t;
        CHECK_OK(onnx_edit_values(e, &onnx[i], init));
    }
    CHECK(awq[2].dtype == DR_DTYPE_F16 && onnx[2].dtype == DR_DTYPE_F32);
    CHECK(onnx[0].bytes >= (row0 + l->n_out) * l->n_in / 2);
    for (size_t n = 0; n < l->n_out; n++) {
        for (size_t k = 0; k < l->n_in; k++) {
            float a = awq_value(awq, n, k, l->n_out);
            float b = onnx_value(onnx, row0 + n, k, l->n_in);
            differ += memcmp(&a, &b, sizeof(a)) != 0;
            zeros += a == 0.0f;
        }
    }
    CHECK_EQ_INT(differ, 0);
    CHECK(zeros < l->n_out * l->n_in / 2);
}

int main(void)
{
    const char *packed = in_tmp(&arena, "packed"), *graph = in_tmp(&arena, "graph");
    const flow_spec quantize = {.model = copy_letters(&arena, "letters"),
                                .output = packed,
                                .data = {.max_samples = 4, .max_seq_len = 32}};
    const flow_spec build = {.model = packed, .output = graph};
    hf_model *m = NULL;
    onnx_edit e = {0};

    CHECK_OK(
        run_pass("AutoAWQQuantizer", "{\"exact\": true, \"q_group_size\": 32}", quantize));
    CHECK_OK(run_pass("ModelBuilder", "{\"precision\": \"int4\"}", build));
    if (CHECK_OK(hf_model_open(&m, dr_path_join(&arena, packed, "model"))) &&
        CHECK_OK(onnx_edit_open(&e, dr_path_join(&arena, graph, "model/model.onnx")))) {
        for (int i = 0; i < hf_model_config(m)->layers; i++) {
            const hf_linear *l = NULL;
            size_t n = hf_layer_linears(m, i, &l);
            for (size_t k = 0; k < n; k++)
                check_linear(m, &e, &l[k]);
        }
    }
    onnx_edit_close(&e);
    hf_model_close(m);
    dr_arena_release(&arena);
    return check_done();
}
