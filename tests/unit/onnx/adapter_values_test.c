/*
 * adapter_values_test.c - adapters as values: names, shapes and numbers against PEFT's own
 * scales and ONNX Runtime's own quantizer (tools/oracle/adapter_goldens.py).
 */
#include "core/pool.h"
#include "onnx/onnx.h"
#include "st_golden.h"

#define GOLDEN DRUPE_SOURCE_DIR "/tests/golden/"

static dr_arena arena;

typedef struct {
    hf_model *m;
    hf_adapter ad;
    st_golden want;
} loaded;

static bool load(loaded *l, const char *name, const char *family, int threads)
{
    const char *dir = dr_arena_printf(&arena, GOLDEN "adapters/%s", name);
    dr_pool *pool = NULL;

    *l = (loaded){0};
    if (!CHECK_OK(
            hf_model_open(&l->m, dr_arena_printf(&arena, GOLDEN "tiny/%s", family))) ||
        !CHECK_OK(hf_adapter_open(&l->ad, dir, l->m)) ||
        !CHECK_OK(dr_pool_open(&pool, threads)))
        return false;
    CHECK_OK(hf_adapter_factors(&l->ad, l->m, pool));
    dr_pool_close(pool);
    return st_golden_open(&l->want, dr_path_join(&arena, dir, "expected.safetensors"));
}

static void unload(loaded *l)
{
    st_golden_close(&l->want);
    hf_adapter_release(&l->ad);
    hf_model_close(l->m);
}

static void same_shape(const dr_tensor *a, const dr_tensor *b)
{
    if (CHECK_EQ_INT(a->ndim, b->ndim)) {
        for (int i = 0; i < a->ndim; i++)
            CHECK_EQ_INT(a->dims[i], b->dims[i]);
    }
}

/* ---- floats ---- */

static void near_golden(const dr_tensor *t, const dr_tensor *want, double tol)
{
    float *x = dr_arena_alloc(&arena, dr_tensor_count(t), sizeof(float));
    float *y = dr_arena_alloc(&arena, dr_tensor_count(want), sizeof(float));
    double worst = 0;

    dr_to_f32(x, t->data, t->dtype, dr_tensor_count(t));
    dr_to_f32(y, want->data, want->dtype, dr_tensor_count(want));
    for (size_t i = 0; i < dr_tensor_count(t); i++)
        worst = fmax(worst, fabs((double)x[i] - (double)y[i]) / (1 + fabs((double)y[i])));
    CHECK_NEAR(worst, 0, tol);
}

static void floats(const char *name, const char *family, dr_dtype dtype, double tol)
{
    const onnx_adapter_form form = {.dtype = dtype};
    dr_tensor *list = NULL, want;
    size_t count = 0;
    loaded l;

    if (!load(&l, name, family, 2) ||
        !CHECK_OK(onnx_adapter_tensors(&arena, &list, &count, &l.ad, &form)))
        return;
    CHECK_EQ_INT(count, st_golden_count(&l.want, "model."));
    for (size_t i = 0; i < count; i++) {
        if (!CHECK(st_golden_find(&l.want, list[i].name, &want))) {
            (void)printf("  %s: %s\n", name, list[i].name);
            continue;
        }
        CHECK_EQ_INT(list[i].dtype, dtype);
        same_shape(&list[i], &want);
        near_golden(&list[i], &want, tol);
    }
    unload(&l);
}

/* The factors of DoRA are the same bytes for any number of threads. */
static void threads(void)
{
    loaded a, b;

    if (!load(&a, "dora", "llama", 1) || !load(&b, "dora", "llama", 3))
        return;
    for (size_t i = 0; i < a.ad.count; i++)
        CHECK_MEM(a.ad.modules[i].factor, b.ad.modules[i].factor,
                  a.ad.modules[i].n_out * sizeof(float));
    unload(&a);
    unload(&b);
}

/* ---- int4 ---- */

/* Codes [n][blocks][8] of rows of k values; what fills up a last block is anybody's. */
static void same_codes(const dr_tensor *t, const dr_tensor *want, size_t k)
{
    const unsigned char *a = t->data, *b = want->data;
    size_t row = (size_t)t->dims[1] * (size_t)t->dims[2], wrong = 0;

    for (size_t i = 0; i < (size_t)t->dims[0]; i++) {
        for (size_t j = 0; j < k; j++) {
            size_t at = i * row + j / 2;
            wrong += (a[at] >> (j % 2 * 4) & 15) != (b[at] >> (j % 2 * 4) & 15);
        }
    }
    CHECK_EQ_INT(wrong, 0);
}

/* As many values as a packed matrix's rows have: the first size of the one it is made of.
 * */
static size_t row_length(const loaded *l, const char *name)
{
    const char *end = strstr(name, ".quant");
    dr_tensor t = {0};

    CHECK(st_golden_find(
        &l->want, dr_arena_printf(&arena, "%.*s.weight", (int)(end - name), name), &t));
    return (size_t)t.dims[0];
}

static void packed(bool symmetric)
{
    const onnx_adapter_form form = {
        .dtype = DR_DTYPE_F32, .int4 = true, .block = 16, .symmetric = symmetric};
    const char *prefix = symmetric ? "q4." : "q4a.";
    dr_tensor *list = NULL, want;
    size_t count = 0;
    loaded l;

    if (!load(&l, "patterns", "llama", 1) ||
        !CHECK_OK(onnx_adapter_tensors(&arena, &list, &count, &l.ad, &form)))
        return;
    CHECK_EQ_INT(count, st_golden_count(&l.want, prefix));
    for (size_t i = 0; i < count; i++) {
        if (!CHECK(st_golden_find(
                &l.want, dr_arena_printf(&arena, "%s%s", prefix, list[i].name), &want)))
            continue;
        same_shape(&list[i], &want);
        if (!CHECK_EQ_INT(list[i].bytes, want.bytes))
            continue;
        if (strstr(list[i].name, "quant.weight") != NULL)
            same_codes(&list[i], &want, row_length(&l, list[i].name));
        else
            CHECK_MEM(list[i].data, want.data, want.bytes);
    }
    unload(&l);
}

/* ---- what does not fit ---- */

static void refused(void)
{
    static const float huge[4] = {1, 2, 70000, 3}, nan_b[4] = {1, NAN, 0, 0};
    hf_lora_module m = {
        .module = "m", .r = 2, .scale = 1, .n_in = 2, .n_out = 2, .a = huge, .b = huge};
    const hf_adapter ad = {.modules = &m, .count = 1};
    onnx_adapter_form form = {.dtype = DR_DTYPE_F16, .block = 16};
    dr_tensor *list = NULL;
    size_t count = 0;

    CHECK_STATUS(onnx_adapter_tensors(&arena, &list, &count, &ad, &form), DR_EFORMAT);
    CHECK_TRAIL("m.lora_A.weight: the value 70000 does not fit float16");
    CHECK_TRAIL("float32 holds it");
    form.dtype = DR_DTYPE_F32;
    CHECK_OK(onnx_adapter_tensors(&arena, &list, &count, &ad, &form));
    m.b = nan_b;
    CHECK_STATUS(onnx_adapter_tensors(&arena, &list, &count, &ad, &form), DR_EFORMAT);
    CHECK_TRAIL("m.lora_B.weight: the value nan");
    form.int4 = true;
    CHECK_STATUS(onnx_adapter_tensors(&arena, &list, &count, &ad, &form), DR_EFORMAT);
    CHECK_TRAIL("not finite");
    m.b = huge;
    m.magnitude = huge;
    CHECK_STATUS(onnx_adapter_tensors(&arena, &list, &count, &ad, &form), DR_EUSAGE);
    CHECK_TRAIL("with its base model");
}

int main(void)
{
    refused();
    if (!dr_is_dir(GOLDEN "adapters")) {
        SKIP(GOLDEN "adapters");
        return check_done();
    }
    floats("lora", "llama", DR_DTYPE_F32, 1e-7);
    floats("patterns", "llama", DR_DTYPE_F32, 1e-7);
    floats("patterns", "llama", DR_DTYPE_F16, 1e-3);
    floats("patterns", "llama", DR_DTYPE_BF16, 8e-3);
    floats("dora", "llama", DR_DTYPE_F32, 1e-6);
    floats("dora_phi3", "phi3", DR_DTYPE_F32, 1e-6);
    floats("dora_qwen2", "qwen2", DR_DTYPE_F32, 1e-6);
    threads();
    packed(true);
    packed(false);
    dr_arena_release(&arena);
    return check_done();
}
