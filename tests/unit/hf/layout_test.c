/* layout_test.c - checkpoints that drupe wrote, against what the readers of their formats
 * make of them (tools/oracle/layout_goldens.py): the very floats, and packed. */
#include "make_model.h"

static dr_arena arena;

#define LAYOUTS GOLDEN "layouts/"

typedef struct {
    const char *name;
    hf_quant_method method;
    int bits, packed; /* of the base; linears, the head too */
    bool symmetric;
} layout;

static const layout layouts[] = {
    {"awq", HF_QUANT_AWQ, 4, 7, false},
    {"awq_symmetric", HF_QUANT_AWQ, 4, 7, true},
    {"gptq", HF_QUANT_GPTQ, 4, 7, false},
    {"gptq_8", HF_QUANT_GPTQ, 8, 7, true},
    {"olive", HF_QUANT_OLIVE, 4, 7, false},
    {"olive_symmetric", HF_QUANT_OLIVE, 4, 7, true},
    {"olive_mixed", HF_QUANT_OLIVE, 4, 6, false},
    {"olive_head", HF_QUANT_OLIVE, 4, 8, false},
    {"compressed", HF_QUANT_COMPRESSED, 4, 7, false},
    {"compressed_symmetric", HF_QUANT_COMPRESSED, 4, 7, true},
    {"compressed_rows", HF_QUANT_COMPRESSED, 4, 7, false},
    {"compressed_mixed", HF_QUANT_COMPRESSED, 4, 6, false},
    {"compressed_mixed_symmetric", HF_QUANT_COMPRESSED, 4, 6, true},
    {"compressed_head", HF_QUANT_COMPRESSED, 8, 8, false},
    {"compressed_2", HF_QUANT_COMPRESSED, 2, 7, false},
};

/* A plain model of those floats: expected.safetensors is no folder of its own. */
static hf_model *open_expected(const char *name)
{
    const char *dir = tmp_dir(&arena, dr_arena_printf(&arena, "expected-%s", name));
    const char *from = dr_arena_printf(&arena, LAYOUTS "%s/expected.safetensors", name);
    const char *first = dr_path_join(&arena, dir, "model-1.safetensors");
    json_t *map = json_object(), *index = NULL;
    hf_model *source = NULL, *given = NULL, *m = NULL;
    dr_tensor rest[32];
    size_t n = 0;

    CHECK_OK(dr_copy_file(first, from));
    CHECK_OK(hf_model_open(&source, GOLDEN "packed_f32"));
    CHECK_OK(hf_model_open(&given, dr_arena_printf(&arena, LAYOUTS "%s", name)));
    for (size_t i = 0; source != NULL && given != NULL && i < hf_tensor_count(source);
         i++) {
        const dr_tensor *t = hf_tensor_at(source, i);
        bool left = hf_tensor_find(given, t->name) != NULL;
        json_object_set_new(
            map, t->name,
            json_string(left ? "model-2.safetensors" : "model-1.safetensors"));
        if (left)
            rest[n++] = *t;
    }
    CHECK_OK(hf_st_write(dr_path_join(&arena, dir, "model-2.safetensors"), rest, n));
    CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, "config.json"),
                          GOLDEN "packed_f32/config.json"));
    index = json_pack("{s:o}", "weight_map", map);
    CHECK_OK(
        dr_json_write(dr_path_join(&arena, dir, "model.safetensors.index.json"), index));
    json_decref(index);
    hf_model_close(source);
    hf_model_close(given);
    CHECK_OK(hf_model_open(&m, dir));
    return m;
}

/* The linear's floats as they are meant; true: it is packed. */
static bool check_linear(const hf_model *m, const hf_linear *l, const hf_model *want,
                         const hf_linear *k)
{
    float x[4096], y[4096];

    CHECK_STR(l->path, k->path);
    CHECK_OK(hf_linear_read(m, l, x, 0, l->n_out));
    CHECK_OK(hf_linear_read(want, k, y, 0, k->n_out));
    CHECK_MEM(x, y, l->n_out * l->n_in * sizeof(float));
    return l->packed;
}

static void test_layout(const layout *f)
{
    hf_model *m = NULL, *want = open_expected(f->name);
    const hf_linear *l = NULL, *k = NULL;
    int packed = 0;

    if (want == NULL ||
        !CHECK_OK(hf_model_open(&m, dr_arena_printf(&arena, LAYOUTS "%s", f->name))))
        return;
    hf_quant q = hf_model_quant(m);
    CHECK_EQ_INT(q.method, f->method);
    CHECK_EQ_INT(q.bits, f->bits);
    CHECK_EQ_INT(q.symmetric, f->symmetric);
    size_t n = hf_layer_linears(m, 0, &l);
    CHECK_EQ_INT(hf_layer_linears(want, 0, &k), n);
    for (size_t i = 0; i < n; i++)
        packed += check_linear(m, &l[i], want, &k[i]);
    packed += check_linear(m, hf_head_linear(m), want, hf_head_linear(want));
    CHECK_EQ_INT(packed, f->packed);
    hf_model_close(m);
    hf_model_close(want);
}

int main(void)
{
    for (size_t i = 0; i < DR_COUNT(layouts); i++)
        test_layout(&layouts[i]);
    dr_arena_release(&arena);
    return check_done();
}
