/*
 * npu_test.c - graphs of fixed shapes: in floats the logits of transformers, window by
 * window and token by token; rounded near them; packed weights, refusals, and the same
 * bytes for any number of threads.
 *
 * The goldens come from tools/oracle/nn_goldens.py.
 */
#include "npu_fixture.h"

static dr_arena arena;

typedef struct {
    const char *model, *golden;
    int64_t total;
} golden_case;

/* 40 tokens are past phi3's switch of tables (32), 24 are not. */
static const golden_case cases[] = {
    {"tiny/llama", "tiny/llama/logits", 40},
    {"tiny/qwen2", "tiny/qwen2/logits", 40},
    {"tiny/phi3", "tiny/phi3/logits", 40},
    {"tiny/phi3", "tiny/phi3/logits_short", 24},
    {"nn/phi3_window", "nn/phi3_window/logits", 0},
    {"nn/llama3_rope", "nn/llama3_rope/logits", 0},
};

static hf_model *open_model(const char *name)
{
    hf_model *m = NULL;

    CHECK_OK(hf_model_open(&m, dr_arena_printf(&arena, GOLDEN "%s", name)));
    return m;
}

/* Builds into a folder of its own; its path. */
static const char *build(const hf_model *m, const onnx_npu_options *o, const char *name,
                         int threads)
{
    const char *dir = dr_path_join(&arena, check_tmp(), name);
    onnx_report report = {0};
    dr_pool *pool = NULL;

    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(dr_pool_open(&pool, threads));
    CHECK_OK(onnx_npu_build(&report, dir, m, pool, o));
    CHECK(report.nodes > 0 && report.data_bytes > 0);
    onnx_report_release(&report);
    dr_pool_close(pool);
    return dir;
}

static const char *graph(const char *dir, const onnx_npu_options *o, bool token)
{
    return dr_path_join(&arena, dir, onnx_npu_file(&arena, o, token));
}

/* ---- floats ---- */

static void test_float(const golden_case *c, size_t number)
{
    onnx_npu_options o = {.batch = 1, .sequence = 8, .weight_bits = 32};
    hf_model *m = open_model(c->model);
    npu_golden g;

    if (m == NULL || !golden_open(&g, &arena, c->golden))
        return;
    const size_t count = g.tokens / 8 * 8, n = count * g.vocab;
    o.total = c->total > 0 ? c->total : (int64_t)count;
    const char *dir = build(m, &o, dr_arena_printf(&arena, "float%zu", number), 1);
    float *logits = dr_arena_alloc(&arena, n, sizeof(*logits));
    for (int token = 0; token < 2; token++) {
        if (fixed_logits(&arena, logits, graph(dir, &o, token == 1), g.ids, count, g.vocab))
            CHECK_NEAR(farthest(logits, g.logits, n), 0, 1e-4);
    }
    dr_map_close(&g.map);
    hf_model_close(m);
}

/* A batch has the same rows; the token graph alone. */
static void test_batch(void)
{
    const onnx_npu_options o = {.batch = 2, .sequence = 1, .total = 40, .weight_bits = 32};
    hf_model *m = open_model("tiny/llama");
    const char *dir = build(m, &o, "batch", 1);

    CHECK_STR(onnx_npu_file(&arena, &o, true), "token_b2_s1_past39.onnx");
    CHECK(dr_is_file(graph(dir, &o, true)));
    CHECK(!dr_is_file(graph(dir, &o, false)));
    const ort_check_request q = {.dir = dir, .model_file = onnx_npu_file(&arena, &o, true)};
    ort_check_result r;
    CHECK_OK(ort_check(&r, &q));
    CHECK(r.checked);
    hf_model_close(m);
}

/* ---- packed weights ---- */

/* One row, rounded in place: all of it or blocks, by the rules as they are written down. */
static void round_row(float *row, size_t cols, int bits, int block)
{
    const size_t step = block > 0 ? (size_t)block : cols;
    const float middle = (float)(1 << (bits - 1));

    for (size_t at = 0; at < cols; at += step) {
        float v = 0;
        for (size_t i = at; i < at + step; i++)
            v = fabsf(row[i]) > fabsf(v) ? row[i] : v;
        const float scale = block > 0 ? -v / middle : fabsf(v) / (middle - 1);
        for (size_t i = at; v != 0 && i < at + step; i++) {
            float code = roundf(row[i] / scale);
            const float least = block > 0 ? -middle : 1 - middle;
            code = fmaxf(least, fminf(middle - 1, code));
            row[i] = code * scale;
        }
    }
}

/* A model's folder again, its linears rounded to bits and blocks, its head to 8 bits and
 * its embedding to table_bits (32: not); never tied. */
static hf_model *rounded_model(const hf_model *m, const char *name, int bits, int block,
                               int table_bits)
{
    const char *dir = dr_path_join(&arena, check_tmp(), name);
    const size_t count = hf_tensor_count(m);
    dr_tensor *list = dr_arena_alloc(&arena, count + 1, sizeof(*list));
    json_t *config = json_deep_copy(hf_model_config_json(m));
    hf_model *out = NULL;
    size_t n = 0;

    CHECK_OK(dr_make_dirs(dir));
    for (size_t i = 0; i < count; i++) {
        const dr_tensor *t = hf_tensor_at(m, i);
        const size_t cols = (size_t)t->dims[t->ndim - 1];
        const bool head = strcmp(t->name, "lm_head.weight") == 0;
        const bool embed = strcmp(t->name, "model.embed_tokens.weight") == 0;
        for (int copy = 0; copy < (embed && hf_model_config(m)->tied ? 2 : 1); copy++) {
            const size_t rows = t->ndim == 2 ? (size_t)t->dims[0] : 1;
            float *v = dr_arena_alloc(&arena, rows * cols, sizeof(*v));
            int to = t->ndim != 2 ? 32 : head || copy == 1 ? 8 : embed ? table_bits : bits;
            dr_to_f32(v, t->data, t->dtype, rows * cols);
            for (size_t r = 0; to < 32 && r < rows; r++)
                round_row(v + r * cols, cols, to, embed || head ? -1 : block);
            list[n] = *t;
            list[n].name = copy == 1 ? "lm_head.weight" : t->name;
            list[n].dtype = DR_DTYPE_F32;
            list[n].data = v;
            list[n++].bytes = rows * cols * sizeof(*v);
        }
    }
    json_object_set_new(config, "tie_word_embeddings", json_false());
    CHECK_OK(hf_st_write(dr_path_join(&arena, dir, "model.safetensors"), list, n));
    CHECK_OK(dr_json_write(dr_path_join(&arena, dir, "config.json"), config));
    json_decref(config);
    CHECK_OK(hf_model_open(&out, dir));
    return out;
}

/* The prompt graph's logits of a model in floats. */
static bool float_logits(float *logits, const hf_model *m, const npu_golden *g,
                         const char *name)
{
    const onnx_npu_options o = {
        .batch = 1, .sequence = 8, .total = (int64_t)g->tokens, .weight_bits = 32};

    return fixed_logits(&arena, logits, graph(build(m, &o, name, 1), &o, false), g->ids,
                        g->tokens, g->vocab);
}

/* Packed here, against the same weights rounded in the model. */
static void test_packed(const char *model, int bits, int block)
{
    const onnx_npu_options o = {
        .batch = 1, .sequence = 8, .total = 40, .weight_bits = bits, .block_size = block};
    const char *name =
        dr_arena_printf(&arena, "%s_%d_%d", dr_path_base(model), bits, block);
    hf_model *m = open_model(model), *r = NULL;
    npu_golden g;

    if (m == NULL || !golden_open(&g, &arena, dr_arena_printf(&arena, "%s/logits", model)))
        return;
    const size_t n = g.tokens * g.vocab;
    float *got = dr_arena_alloc(&arena, n, sizeof(*got));
    float *want = dr_arena_alloc(&arena, n, sizeof(*want));
    r = rounded_model(m, dr_arena_printf(&arena, "%s_hf", name), bits, block, 8);
    const char *dir = build(m, &o, name, 1);
    if (r != NULL && float_logits(want, r, &g, dr_arena_printf(&arena, "%s_f", name)) &&
        fixed_logits(&arena, got, graph(dir, &o, false), g.ids, g.tokens, g.vocab)) {
        CHECK(off(want, g.logits, n) > 1e-3); /* rounding did something */
        CHECK_NEAR(off(got, want, n), 0, 1e-4);
    }
    dr_map_close(&g.map);
    hf_model_close(r);
    hf_model_close(m);
}

/* ---- rounded values ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const onnx_range *)a)->name, ((const onnx_range *)b)->name);
}

/* Ranges over the golden's tokens, by the calibration graph. */
static bool calibrate(onnx_npu_options *o, const hf_model *m, const npu_golden *g,
                      const char *name)
{
    const onnx_npu_options plain = {.form = ONNX_NPU_CALIBRATE,
                                    .batch = 1,
                                    .sequence = o->sequence,
                                    .total = o->total,
                                    .weight_bits = 32};
    const char *dir = dr_path_join(&arena, check_tmp(), name);
    onnx_report report = {0};
    dr_pool *pool = NULL;

    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(dr_pool_open(&pool, 1));
    CHECK_OK(onnx_npu_build(&report, dir, m, pool, &plain));
    const size_t n = report.value_count;
    const ort_fixed_request q = {.model = {graph(dir, &plain, false), NULL},
                                 .ids = g->ids,
                                 .count = g->tokens,
                                 .threads = 1};
    float *least = dr_arena_alloc(&arena, n, sizeof(*least));
    float *largest = dr_arena_alloc(&arena, n, sizeof(*largest));
    onnx_range *ranges = dr_arena_alloc(&arena, n, sizeof(*ranges));
    bool ok =
        CHECK(n > 50) && CHECK_OK(ort_fixed_ranges(least, largest, report.values, n, &q));
    for (size_t i = 0; ok && i < n; i++)
        ranges[i] =
            (onnx_range){dr_arena_strdup(&arena, report.values[i]), least[i], largest[i]};
    qsort(ranges, n, sizeof(*ranges), by_name);
    o->ranges = ranges;
    o->range_count = n;
    /* the measured logits are the golden's own */
    const onnx_range key = {.name = "logits"};
    const onnx_range *r = ok ? bsearch(&key, ranges, n, sizeof(*r), by_name) : NULL;
    float lo = 0, hi = 0;
    for (size_t i = 0; i < g->tokens * g->vocab; i++) {
        lo = fminf(lo, g->logits[i]);
        hi = fmaxf(hi, g->logits[i]);
    }
    if (ok && CHECK(r != NULL)) {
        CHECK_NEAR(r->least, lo, 1e-2);
        CHECK_NEAR(r->largest, hi, 1e-2);
    }
    onnx_report_release(&report);
    dr_pool_close(pool);
    return ok;
}

/* Rounded values against floats, the weights rounded in both. */
static void test_rounded(const golden_case *c, onnx_npu_options o, double most)
{
    const char *name =
        dr_arena_printf(&arena, "qdq_%s_%s_%d_%d_%d", dr_path_base(c->model),
                        dr_path_base(c->golden), o.windowed, o.weight_bits, o.value_bits);
    hf_model *m = open_model(c->model), *r = NULL;
    npu_golden g;

    if (m == NULL || !golden_open(&g, &arena, c->golden))
        return;
    const size_t n = g.tokens * g.vocab;
    float *got = dr_arena_alloc(&arena, n, sizeof(*got));
    float *want = dr_arena_alloc(&arena, n, sizeof(*want));
    o.form = ONNX_NPU_QDQ;
    o.batch = 1;
    o.sequence = 8;
    o.total = (int64_t)g.tokens;
    r = rounded_model(m, dr_arena_printf(&arena, "%s_hf", name), o.weight_bits, -1, 32);
    if (r != NULL && float_logits(want, r, &g, dr_arena_printf(&arena, "%s_f", name)) &&
        calibrate(&o, m, &g, dr_arena_printf(&arena, "%s_cal", name))) {
        const char *dir = build(m, &o, name, 2);
        for (int token = 0; token < 2; token++) {
            if (!fixed_logits(&arena, got, graph(dir, &o, token == 1), g.ids, g.tokens,
                              g.vocab))
                continue;
            CHECK(off(got, want, n) > 1e-6);
            CHECK_NEAR(off(got, want, n), 0, most);
        }
    }
    dr_map_close(&g.map);
    hf_model_close(r);
    hf_model_close(m);
}

/* ---- providers that are libraries ---- */

/* Where a provider is, the prompt and the token graph run on it, all of them, and agree
 * with the CPU; DRUPE_LIB_PATH names the folders of the runtime and the provider. */
static void test_provider(const char *provider, onnx_npu_options o, size_t least)
{
    hf_model *m = open_model("tiny/llama");
    npu_golden g;

    if (m == NULL || !golden_open(&g, &arena, "tiny/llama/logits"))
        return;
    const char *name = dr_arena_printf(&arena, "%s_%d_%d", provider, o.form, o.weight_bits);
    o.batch = 1;
    o.sequence = 8;
    o.total = 40;
    if (o.form != ONNX_NPU_QDQ ||
        calibrate(&o, m, &g, dr_arena_printf(&arena, "%s_cal", name))) {
        const char *dir = build(m, &o, name, 1);
        for (int token = 0; token < 2; token++) {
            const ort_fixed_model cpu = {graph(dir, &o, token == 1), NULL};
            const ort_fixed_request q = {.model = {cpu.model_path, provider},
                                         .ids = g.ids,
                                         .count = 40,
                                         .timeout_s = 600};
            ort_fixed_result r;
            CHECK_OK(ort_fixed_compare(&r, &q, &cpu));
            if (r.tokens == 0) {
                SKIP(dr_arena_printf(&arena, "oracle: %s", r.why));
                break;
            }
            CHECK(r.wholly);
            CHECK_EQ_INT(r.tokens, 40);
            if (!CHECK(r.same_top >= least))
                (void)printf("  %zu of 40, logits differ by %g\n", r.same_top, r.max_diff);
        }
    }
    dr_map_close(&g.map);
    hf_model_close(m);
}

static void test_providers(void)
{
    static const char openvino[] = "OpenVINOExecutionProvider";

    test_provider(openvino, (onnx_npu_options){.weight_bits = 32}, 40);
    test_provider(openvino, (onnx_npu_options){.weight_bits = 4, .block_size = 16}, 36);
    test_provider(
        openvino,
        (onnx_npu_options){.form = ONNX_NPU_QDQ, .weight_bits = 8, .value_bits = 16}, 36);
    for (int bits = 4; bits <= 8; bits += 4)
        test_provider("QNNExecutionProvider",
                      (onnx_npu_options){.form = ONNX_NPU_QDQ,
                                         .weight_bits = bits,
                                         .value_bits = 16,
                                         .windowed = true},
                      34);
    test_provider("VitisAIExecutionProvider",
                  (onnx_npu_options){.form = ONNX_NPU_QDQ,
                                     .weight_bits = 8,
                                     .value_bits = 16,
                                     .windowed = true,
                                     .quant_type = "QDQ"},
                  34);
}

/* ---- comparing, bytes, refusals ---- */

/* A graph against itself, and against one of fewer bits. */
static void test_compare(void)
{
    const onnx_npu_options o = {.batch = 1, .sequence = 8, .total = 40, .weight_bits = 32};
    onnx_npu_options o4 = o;
    hf_model *m = open_model("tiny/qwen2");
    npu_golden g;
    ort_fixed_result r;

    o4.weight_bits = 4;
    o4.block_size = 16;
    if (m == NULL || !golden_open(&g, &arena, "tiny/qwen2/logits"))
        return;
    const char *one = graph(build(m, &o, "same", 1), &o, false);
    const char *two = graph(build(m, &o4, "same4", 1), &o4, false);
    ort_fixed_request q = {.model = {one, NULL}, .ids = g.ids, .count = 80 / 2};
    const ort_fixed_model self = {one, NULL}, other = {two, NULL};
    CHECK_OK(ort_fixed_compare(&r, &q, &self));
    CHECK_EQ_INT(r.tokens, 40);
    CHECK_EQ_INT(r.same_top, 40);
    CHECK_NEAR(r.max_diff, 0, 0);
    CHECK_OK(ort_fixed_compare(&r, &q, &other));
    CHECK(r.max_diff > 1e-3);
    q.count = 12;
    CHECK_STATUS(ort_fixed_compare(&r, &q, &self), DR_EUSAGE);
    CHECK_TRAIL("no multiple of its 8");
    dr_map_close(&g.map);
    hf_model_close(m);
}

static void same_files(const char *a, const char *b, const char *name)
{
    dr_map x, y;

    if (CHECK_OK(dr_map_open(&x, dr_path_join(&arena, a, name))) &&
        CHECK_OK(dr_map_open(&y, dr_path_join(&arena, b, name))) &&
        CHECK_EQ_INT(x.size, y.size))
        CHECK_MEM(x.data, y.data, x.size);
}

static void test_bytes(void)
{
    const onnx_npu_options o = {
        .batch = 1, .sequence = 8, .total = 40, .weight_bits = 4, .block_size = 16};
    hf_model *m = open_model("tiny/phi3");
    const char *one = build(m, &o, "threads1", 1), *three = build(m, &o, "threads3", 3);

    same_files(one, three, "model.onnx.data");
    same_files(one, three, onnx_npu_file(&arena, &o, false));
    same_files(one, three, onnx_npu_file(&arena, &o, true));
    hf_model_close(m);
}

static void refused(const hf_model *m, onnx_npu_options o, const char *text)
{
    onnx_report report = {0};
    dr_pool *pool = NULL;

    CHECK_OK(dr_pool_open(&pool, 1));
    CHECK_STATUS(onnx_npu_build(&report, check_tmp(), m, pool, &o), DR_EUSAGE);
    CHECK_TRAIL(text);
    dr_pool_close(pool);
}

static void test_refusals(void)
{
    const onnx_npu_options good = {
        .batch = 1, .sequence = 8, .total = 40, .weight_bits = 32};
    hf_model *m = open_model("tiny/llama");
    onnx_npu_options o = good;

    o.total = 129;
    refused(m, o, "total_sequence_length 129: expected 2 to 128");
    o = good;
    o.sequence = 40;
    refused(m, o, "sequence_length 40: expected 1 to 39");
    o = good;
    o.batch = 0;
    refused(m, o, "batch_size 0");
    hf_model_close(m);
}

int main(void)
{
    ort_info info;

    ort_probe(&arena, &info);
    if (!info.ort_found) {
        SKIP("ONNX Runtime was not found");
        return check_done();
    }
    for (size_t i = 0; i < DR_COUNT(cases); i++)
        test_float(&cases[i], i);
    test_batch();
    test_packed("tiny/llama", 8, -1);
    test_packed("tiny/qwen2", 4, 16);
    test_packed("tiny/llama", 4, 16);
    test_packed("tiny/phi3", 4, -1);
    for (size_t i = 0; i < 4; i++) {
        onnx_npu_options o = {.weight_bits = 8, .value_bits = 16};
        test_rounded(&cases[i], o, 0.005);
        o.windowed = true; /* keys and values of 8 bits */
        test_rounded(&cases[i], o, 0.05);
        o.value_bits = 8;
        test_rounded(&cases[i], o, 0.5);
    }
    /* ranges are of the float model, which 4 bits leave */
    test_rounded(&cases[0], (onnx_npu_options){.weight_bits = 4, .value_bits = 16}, 0.06);
    test_providers();
    test_compare();
    test_bytes();
    test_refusals();
    dr_arena_release(&arena);
    return check_done();
}
