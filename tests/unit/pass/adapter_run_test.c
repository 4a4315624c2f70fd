/*
 * adapter_run_test.c - adapters in ONNX Runtime, where it is at hand: the logits of
 * exported graphs against PEFT's (tools/oracle/adapter_goldens.py), in every form of the
 * inputs.
 *
 * A packed adapter must give what the floats give that it unpacks to: those are unpacked
 * here, by hand, and run on a graph that takes floats.
 */
#include "hf/hf.h"
#include "onnx/onnx.h"
#include "ort/ort.h"
#include "st_golden.h"

#define GOLDEN DRUPE_SOURCE_DIR "/tests/golden/"

enum { LAYERS = 2 };

static dr_arena arena;

static const struct {
    const char *name, *family;
} cases[] = {{"lora", "llama"},
             {"patterns", "llama"},
             {"dora", "llama"},
             {"dora_phi3", "phi3"},
             {"dora_qwen2", "qwen2"}};

static const char *golden_of(const char *name)
{
    return dr_arena_printf(&arena, GOLDEN "adapters/%s", name);
}

/* The model in float with this adapter's inputs, in a folder. */
static const char *export(const char *name, const char *family,
                          const onnx_adapter_form *form)
{
    const char *dir = dr_path_join(&arena, check_tmp(), "export");
    hf_adapter ad = {0};
    const onnx_named_adapter named = {"a", &ad};
    const onnx_options o = {.precision = ONNX_FP32,
                            .adapters = &named,
                            .adapter_count = 1,
                            .adapter_form = form};
    onnx_report report = {0};
    hf_model *m = NULL;
    dr_pool *pool = NULL;

    CHECK_OK(dr_remove_tree(dir));
    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(hf_model_open(&m, dr_arena_printf(&arena, GOLDEN "tiny/%s", family)));
    CHECK_OK(hf_adapter_open(&ad, golden_of(name), m));
    CHECK_OK(dr_pool_open(&pool, 1));
    CHECK_OK(hf_adapter_factors(&ad, m, pool));
    CHECK_OK(onnx_build(&report, dir, m, pool, &o));
    onnx_report_release(&report);
    hf_adapter_release(&ad);
    dr_pool_close(pool);
    hf_model_close(m);
    return dir;
}

/* ---- a run ---- */

/* logits [n][V] of ids[n], arena memory; adapter: a file, NULL: none. */
static const float *run(const char *dir, const char *adapter, const int32_t *ids, size_t n,
                        size_t *count)
{
    static const char *const outputs[] = {"logits"};
    int64_t *tokens = dr_arena_alloc(&arena, n, sizeof(*tokens));
    int64_t *mask = dr_arena_alloc(&arena, n, sizeof(*mask));
    ort_value in[64], out = {0};
    float *logits = NULL;
    ort_session *s = NULL;
    size_t used = 0;
    bool optional = false;

    *count = 0;
    for (size_t i = 0; i < n; i++) {
        tokens[i] = ids[i];
        mask[i] = 1;
    }
    if (!CHECK_OK(ort_session_open(&s, dr_path_join(&arena, dir, "model.onnx"), 1, true)) ||
        !CHECK_OK(ort_session_adapter(s, adapter)))
        return NULL;
    for (size_t i = 0; i < ort_session_input_count(s); i++) {
        ort_value *v = &in[used];
        CHECK_OK(ort_session_input(s, i, v, &optional));
        if (optional)
            continue;
        bool cache = strncmp(v->name, "past", 4) == 0;
        v->dims[0] = 1;
        v->dims[cache ? 2 : 1] = cache ? 0 : (int64_t)n;
        v->data = strcmp(v->name, "input_ids") == 0 ? tokens : mask;
        v->bytes = cache ? 0 : n * sizeof(int64_t);
        used++;
    }
    CHECK_EQ_INT(used, 2 + 2 * LAYERS);
    if (CHECK_OK(ort_session_run(s, in, used, outputs, &out, 1))) {
        logits = dr_arena_alloc(&arena, out.bytes, 1);
        memcpy(logits, out.data, out.bytes);
        *count = out.bytes / sizeof(float);
        ort_values_release(&out, 1);
    }
    ort_session_close(s);
    return logits;
}

static double far(const float *a, const float *b, size_t count)
{
    double worst = 0, largest = 0;

    for (size_t i = 0; i < count; i++) {
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
        largest = fmax(largest, fabs((double)b[i]));
    }
    return worst / largest;
}

typedef struct {
    st_golden g;
    dr_tensor ids, logits;
} expected;

static bool expect(expected *e, const char *path)
{
    return st_golden_open(&e->g, path) &&
           (st_golden_find(&e->g, "input_ids", &e->ids) ||
            CHECK(st_golden_find(&e->g, "ids", &e->ids))) &&
           CHECK(st_golden_find(&e->g, "logits", &e->logits));
}

/* A run against what is expected, or (other) that it is not that. */
static void compare(const char *what, const expected *e, const char *dir,
                    const char *adapter, double tol, bool other)
{
    size_t count = 0;
    const float *got =
        run(dir, adapter, e->ids.data, e->ids.bytes / sizeof(int32_t), &count);

    if (got == NULL || !CHECK_EQ_INT(count, dr_tensor_count(&e->logits)))
        return;
    double d = far(got, e->logits.data, count);
    if (!CHECK(other ? d > tol : d < tol))
        (void)printf("  %s: %g\n", what, d);
}

/* ---- the cases ---- */

static void floats(size_t i)
{
    const char *dir = export(cases[i].name, cases[i].family, NULL);
    const char *file = dr_path_join(&arena, dir, "a.onnx_adapter");
    expected e;

    if (!expect(&e, dr_path_join(&arena, golden_of(cases[i].name), "expected.safetensors")))
        return;
    compare(cases[i].name, &e, dir, file, 2e-5, false);
    compare("without the adapter", &e, dir, NULL, 1e-2, true);
    st_golden_close(&e.g);
}

/* The base model's own logits, with the adapter's inputs left alone. */
static void base(size_t i, const onnx_adapter_form *form)
{
    const char *dir = export(cases[i].name, cases[i].family, form);
    expected e;

    if (!expect(&e, dr_arena_printf(&arena, GOLDEN "tiny/%s/logits.safetensors",
                                    cases[i].family)))
        return;
    compare("the base alone", &e, dir, NULL, 2e-5, false);
    st_golden_close(&e.g);
}

static void halves(size_t i)
{
    const onnx_adapter_form form = {.dtype = DR_DTYPE_F16};
    const char *dir = export(cases[i].name, cases[i].family, &form);
    expected e;

    if (!expect(&e, dr_path_join(&arena, golden_of(cases[i].name), "expected.safetensors")))
        return;
    compare("float16", &e, dir, dr_path_join(&arena, dir, "a.onnx_adapter"), 5e-3, false);
    st_golden_close(&e.g);
}

/* ---- int4 ---- */

static const dr_tensor *find(const onnx_adapter_file *f, const char *name)
{
    for (size_t i = 0; i < f->count; i++) {
        if (strcmp(f->tensors[i].name, name) == 0)
            return &f->tensors[i];
    }
    return NULL;
}

/* "NAME.quant.weight" and what belongs to it as "NAME.weight" [k][n]. */
static dr_tensor unpack(const onnx_adapter_file *f, const dr_tensor *codes, size_t k)
{
    const char *end = strstr(codes->name, ".quant.weight");
    const char *name = dr_arena_strndup(&arena, codes->name, (size_t)(end - codes->name));
    const dr_tensor *scale = find(f, dr_arena_printf(&arena, "%s.quant.scale", name));
    const dr_tensor *zero = find(f, dr_arena_printf(&arena, "%s.quant.zero_point", name));
    size_t n = (size_t)codes->dims[0], kb = (size_t)codes->dims[1];
    size_t block = (size_t)codes->dims[2] * 2;
    float *v = dr_arena_alloc(&arena, k * n, sizeof(float));
    const unsigned char *c = codes->data, *z = zero != NULL ? zero->data : NULL;

    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < k; j++) {
            size_t b = j / block;
            int code = c[(i * kb + b) * block / 2 + j % block / 2] >> (j % 2 * 4) & 15;
            int middle = z != NULL ? z[i * ((kb + 1) / 2) + b / 2] >> (b % 2 * 4) & 15 : 8;
            v[j * n + i] =
                (float)(code - middle) * ((const float *)scale->data)[i * kb + b];
        }
    }
    return (dr_tensor){.name = dr_arena_printf(&arena, "%s.weight", name),
                       .dtype = DR_DTYPE_F32,
                       .ndim = 2,
                       .dims = {(int64_t)k, (int64_t)n},
                       .data = v,
                       .bytes = k * n * sizeof(float)};
}

/* The file of packed values as one of floats; want: the golden, for their sizes. */
static void unpack_file(const char *out, const char *packed, const st_golden *want)
{
    onnx_adapter_file f = {0};
    dr_tensor size = {0};
    size_t count = 0;

    if (!CHECK_OK(onnx_adapter_open(&f, packed)))
        return;
    dr_tensor *list = dr_arena_alloc(&arena, f.count + 1, sizeof(*list));
    for (size_t i = 0; i < f.count; i++) {
        const dr_tensor *t = &f.tensors[i];
        const char *end = strstr(t->name, ".quant.weight");
        if (end != NULL) {
            const char *name =
                dr_arena_printf(&arena, "%.*s.weight", (int)(end - t->name), t->name);
            CHECK(st_golden_find(want, name, &size));
            list[count++] = unpack(&f, t, (size_t)size.dims[0]);
        } else if (strstr(t->name, ".quant.") == NULL) {
            list[count++] = *t;
        }
    }
    CHECK_OK(onnx_adapter_save(out, list, count, ONNX_ADAPTER_FILE));
    onnx_adapter_close(&f);
}

static void packed(size_t i, bool symmetric, int block)
{
    const onnx_adapter_form form = {
        .dtype = DR_DTYPE_F32, .int4 = true, .block = block, .symmetric = symmetric};
    const char *copy = dr_path_join(&arena, check_tmp(), "copy.onnx_adapter");
    const char *plain = dr_path_join(&arena, check_tmp(), "plain.onnx_adapter");
    size_t n = 0, m = 0;
    expected e;

    if (!expect(&e, dr_path_join(&arena, golden_of(cases[i].name), "expected.safetensors")))
        return;
    size_t tokens = e.ids.bytes / sizeof(int32_t);
    const char *dir = export(cases[i].name, cases[i].family, &form);
    CHECK_OK(dr_copy_file(copy, dr_path_join(&arena, dir, "a.onnx_adapter")));
    const float *got = run(dir, copy, e.ids.data, tokens, &n);
    unpack_file(plain, copy, &e.g);
    dir = export(cases[i].name, cases[i].family, NULL);
    const float *want = run(dir, plain, e.ids.data, tokens, &m);
    if (CHECK(got != NULL && want != NULL) && CHECK_EQ_INT(n, m)) {
        CHECK_NEAR(far(got, want, n), 0, 1e-5);
        CHECK_NEAR(far(got, e.logits.data, n), 0, 0.5); /* and near the floats */
    }
    st_golden_close(&e.g);
}

int main(void)
{
    const onnx_adapter_form int4 = {
        .dtype = DR_DTYPE_F32, .int4 = true, .block = 32, .symmetric = true};
    ort_info info = {0};

    ort_probe(&arena, &info);
    if (!info.ort_found || !dr_is_dir(GOLDEN "adapters")) {
        SKIP(info.ort_found ? GOLDEN "adapters" : info.why);
        dr_arena_release(&arena);
        return check_done();
    }
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        floats(i);
        halves(i);
        packed(i, true, 32);
        packed(i, false, 16);
        base(i, i % 2 ? &int4 : NULL);
    }
    dr_arena_release(&arena);
    return check_done();
}
