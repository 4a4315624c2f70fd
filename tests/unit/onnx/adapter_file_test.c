/*
 * adapter_file_test.c - .onnx_adapter files through a small FlatBuffers verifier: every
 * reference inside the file, alignment, names, shapes, values.
 */
#include "check.h"
#include "core/file.h"
#include "core/rng.h"
#include "onnx/onnx.h"

enum { COUNT = 3 };

static const struct {
    const char *module;
    int r;
    size_t n_in, n_out;
    float scale;
} shapes[COUNT] = {
    {"model.layers.0.self_attn.q_proj", 4, 6, 5, 2.0f},
    {"model.layers.0.mlp.gate_up_proj", 1, 7, 3, 0.5f},
    {"model.layers.11.mlp.down_proj", 9, 1, 11, 1.0f},
};

static dr_arena arena;
static dr_map file;

/* ---- a verifier ---- */

static uint64_t get(size_t at, size_t bytes)
{
    uint64_t v = 0;

    if (!CHECK(at <= file.size && bytes <= file.size - at) || !CHECK(at % bytes == 0))
        return 0;
    for (size_t i = 0; i < bytes; i++)
        v |= (uint64_t)file.data[at + i] << (8 * i);
    return v;
}

static size_t follow(size_t at)
{
    return at + (size_t)get(at, 4);
}

/* Where field id of a table lies; 0: left out. */
static size_t field(size_t table, size_t id)
{
    size_t vtable = table - (size_t)(int32_t)get(table, 4);
    size_t size = (size_t)get(vtable, 2), inside = (size_t)get(vtable + 2, 2);

    CHECK(size >= 4 && size % 2 == 0 && inside >= 4 && table + inside <= file.size);
    if (4 + 2 * id >= size)
        return 0;
    size_t offset = (size_t)get(vtable + 4 + 2 * id, 2);
    CHECK(offset < inside);
    return offset != 0 ? table + offset : 0;
}

static const char *text(size_t at)
{
    size_t n = (size_t)get(at, 4);

    if (!CHECK(n < file.size - at - 4) || !CHECK(file.data[at + 4 + n] == '\0'))
        return "";
    return (const char *)file.data + at + 4;
}

/* ---- what must be in it ---- */

static void parameter(size_t table, const char *name, size_t rows, size_t cols,
                      const float *values)
{
    size_t dims = follow(field(table, 1)), data = follow(field(table, 3));

    CHECK_STR(text(follow(field(table, 0))), name);
    CHECK_EQ_INT(get(dims, 4), 2);
    CHECK_EQ_INT(get(dims + 4, 8), rows);
    CHECK_EQ_INT(get(dims + 12, 8), cols);
    CHECK_EQ_INT(get(field(table, 2), 4), 1);
    CHECK_EQ_INT(get(data, 4), rows * cols * 4);
    CHECK_EQ_INT((data + 4) % 8, 0);
    if (CHECK(data + 4 + rows * cols * 4 <= file.size))
        CHECK_MEM(file.data + data + 4, values, rows * cols * 4);
}

static float *values(dr_rng *rng, size_t n)
{
    float *v = dr_arena_alloc(&arena, n, sizeof(float));

    for (size_t i = 0; i < n; i++)
        v[i] = dr_rng_normal(rng);
    return v;
}

static float *transposed(const float *v, size_t rows, size_t cols, float scale)
{
    float *t = dr_arena_alloc(&arena, rows * cols, sizeof(float));

    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < cols; j++)
            t[j * rows + i] = v[i * cols + j] * scale;
    }
    return t;
}

static void check_head(size_t count, size_t *list)
{
    size_t root = follow(0);

    CHECK_MEM(file.data + 4, "TORT", 4);
    CHECK_EQ_INT(get(field(root, 0), 4), 1);
    CHECK_EQ_INT(get(field(root, 1), 4), 1);
    CHECK_EQ_INT(get(field(root, 2), 4), 1);
    *list = follow(field(root, 3));
    CHECK_EQ_INT(get(*list, 4), count);
}

static dr_status save(const char *path, const hf_adapter *a)
{
    dr_tensor *tensors = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    DR_TRY(onnx_adapter_tensors(&arena, &tensors, &count, a, &ONNX_ADAPTER_FLOATS));
    DR_TRY(onnx_adapter_save(path, tensors, count, ONNX_ADAPTER_FILE));
done:
    return st;
}

static void three_modules(void)
{
    const char *path = dr_path_join(&arena, check_tmp(), "a.onnx_adapter");
    hf_lora_module modules[COUNT];
    hf_adapter a = {.modules = modules, .count = COUNT};
    size_t list = 0;
    dr_rng rng;

    dr_rng_init(&rng, 5, 1);
    for (size_t i = 0; i < COUNT; i++) {
        size_t r = (size_t)shapes[i].r;
        modules[i] = (hf_lora_module){.module = shapes[i].module,
                                      .r = shapes[i].r,
                                      .scale = shapes[i].scale,
                                      .n_in = shapes[i].n_in,
                                      .n_out = shapes[i].n_out,
                                      .a = values(&rng, r * shapes[i].n_in),
                                      .b = values(&rng, shapes[i].n_out * r)};
    }
    CHECK_OK(save(path, &a));
    CHECK_OK(dr_map_open(&file, path));
    check_head(2 * COUNT, &list);
    for (size_t i = 0; i < COUNT; i++) {
        const hf_lora_module *m = &modules[i];
        size_t r = (size_t)m->r, at = list + 4 + 8 * i;
        parameter(follow(at), dr_arena_printf(&arena, "%s.lora_A.weight", m->module),
                  m->n_in, r, transposed(m->a, r, m->n_in, 1.0f));
        parameter(follow(at + 4), dr_arena_printf(&arena, "%s.lora_B.weight", m->module), r,
                  m->n_out, transposed(m->b, m->n_out, r, m->scale));
    }
    dr_map_close(&file);
}

static void edges(void)
{
    const char *path = dr_path_join(&arena, check_tmp(), "b.onnx_adapter");
    dr_tensor big = {.name = "m", .dtype = DR_DTYPE_F32, .ndim = 1, .dims = {1 << 30}};
    size_t list = 0;

    CHECK_OK(onnx_adapter_save(path, NULL, 0, ONNX_ADAPTER_FILE));
    CHECK_OK(dr_map_open(&file, path));
    check_head(0, &list);
    dr_map_close(&file);
    big.bytes = (size_t)1 << 32;
    CHECK_STATUS(onnx_adapter_save(path, &big, 1, ONNX_ADAPTER_FILE), DR_EUNSUPPORTED);
    CHECK_TRAIL("2 GiB");
    CHECK_STATUS(onnx_adapter_save("/nonexistent/x.onnx_adapter", NULL, 0, 0), DR_EIO);
}

int main(void)
{
    three_modules();
    edges();
    dr_arena_release(&arena);
    return check_done();
}
