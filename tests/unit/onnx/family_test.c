/*
 * family_test.c - exports of every family in ONNX Runtime against transformers: prompts of
 * several lengths and token by token, all spellings of config.json, and changed configs,
 * which must show.
 */
#include "check.h"
#include "family.h"
#include "onnx/onnx.h"
#include "ort/ort.h"

enum { MOE_MINOR = 32, LAYERS_MAX = 4, TOKENS_MAX = 16, VOCAB_MAX = 64 };

static dr_arena arena;
static int minor;  /* the runtime's; 0: today's */
static bool genai; /* it is here */

/* ---- running ---- */

/* A session with what it keeps from token to token. */
typedef struct {
    ort_session *s;
    const hf_config *c;
    hf_model *m;
    ort_value out[1 + 2 * LAYERS_MAX]; /* logits, then keys and values of the last run */
    const char *past[2 * LAYERS_MAX], *present[1 + 2 * LAYERS_MAX];
    size_t seen;
} runner;

static dr_status export_model(const char **dir, const char *path, const hf_model *m,
                              onnx_precision precision)
{
    onnx_options o = {.precision = precision,
                      .genai = true,
                      .block_size = 32,
                      .symmetric = true,
                      .min_ort_minor = minor};
    onnx_report report = {0};
    dr_pool *pool = NULL;
    dr_status st = DR_OK;

    *dir = dr_arena_printf(&arena, "%s-onnx", path);
    DR_TRY(dr_pool_open(&pool, 1));
    DR_TRY(dr_make_dirs(*dir));
    DR_TRY(onnx_build(&report, *dir, m, pool, &o));
done:
    onnx_report_release(&report);
    dr_pool_close(pool);
    return st;
}

static void runner_close(runner *r)
{
    ort_values_release(r->out, DR_COUNT(r->out));
    ort_session_close(r->s);
    hf_model_close(r->m);
    *r = (runner){0};
}

static dr_status runner_open(runner *r, const char *path, onnx_precision precision)
{
    const char *dir = NULL;
    dr_status st = DR_OK;

    *r = (runner){0};
    DR_TRY(hf_model_open(&r->m, path));
    r->c = hf_model_config(r->m);
    DR_TRY(export_model(&dir, path, r->m, precision));
    DR_TRY(ort_session_open(&r->s, dr_path_join(&arena, dir, "model.onnx"), 1, true));
    r->present[0] = "logits";
    for (int i = 0; i < 2 * r->c->layers; i++) {
        const char *kv = i % 2 == 0 ? "key" : "value";
        r->past[i] = dr_arena_printf(&arena, "past_key_values.%d.%s", i / 2, kv);
        r->present[1 + i] = dr_arena_printf(&arena, "present.%d.%s", i / 2, kv);
    }
done:
    return st;
}

static void restart(runner *r)
{
    ort_values_release(r->out, DR_COUNT(r->out));
    memset(r->out, 0, sizeof(r->out));
    r->seen = 0;
}

static ort_value int64s(const char *name, int64_t *data, size_t n)
{
    return (ort_value){.name = name,
                       .dtype = DR_DTYPE_I64,
                       .ndim = 2,
                       .dims = {1, (int64_t)n},
                       .data = data,
                       .bytes = n * sizeof(*data)};
}

/* Feeds ids after what was seen; *logits [count][V] is good until the next call. */
static dr_status feed(runner *r, const float **logits, int64_t *ids, size_t count)
{
    size_t caches = 2 * (size_t)r->c->layers;
    ort_value in[2 + 2 * LAYERS_MAX], out[1 + 2 * LAYERS_MAX] = {0};
    int64_t mask[TOKENS_MAX];
    static float none[1];
    dr_status st = DR_OK;

    r->seen += count;
    for (size_t i = 0; i < r->seen; i++)
        mask[i] = 1;
    in[0] = int64s("input_ids", ids, count);
    in[1] = int64s("attention_mask", mask, r->seen);
    for (size_t i = 0; i < caches; i++) {
        in[2 + i] = r->out[1 + i];
        if (r->seen == count)
            in[2 + i] = (ort_value){.dtype = DR_DTYPE_F32,
                                    .ndim = 4,
                                    .dims = {1, r->c->kv_heads, 0, r->c->head_dim},
                                    .data = none};
        in[2 + i].name = r->past[i];
    }
    DR_TRY(ort_session_run(r->s, in, 2 + caches, r->present, out, 1 + caches));
    ort_values_release(r->out, DR_COUNT(r->out));
    memcpy(r->out, out, sizeof(out));
    *logits = r->out[0].data;
done:
    return st;
}

/* ---- comparing ---- */

static size_t ids_of(int64_t *ids, const json_t *golden)
{
    const json_t *list = json_object_get(golden, "ids");
    size_t n = json_array_size(list);

    DR_BUG_IF(n > TOKENS_MAX);
    for (size_t i = 0; i < n; i++)
        ids[i] = json_integer_value(json_array_get(list, i));
    return n;
}

static double row_difference(const float *got, const json_t *want)
{
    float row[VOCAB_MAX];
    double worst = 0;

    family_floats(row, want);
    for (size_t i = 0; i < json_array_size(want); i++)
        worst = fmax(worst, fabs((double)got[i] - (double)row[i]));
    return worst;
}

/* The whole prompt at once. */
static double prompt_difference(runner *r, const json_t *golden)
{
    const json_t *rows = json_object_get(golden, "logits");
    int64_t ids[TOKENS_MAX];
    size_t n = ids_of(ids, golden);
    const float *logits = NULL;
    double worst = 0;

    restart(r);
    if (!CHECK_OK(feed(r, &logits, ids, n)))
        return INFINITY;
    for (size_t i = 0; i < n; i++)
        worst = fmax(worst, row_difference(logits + i * (size_t)r->c->vocab,
                                           json_array_get(rows, i)));
    return worst;
}

/* Shorter prompts: the last token's logits. */
static double lengths_difference(runner *r, const json_t *golden)
{
    const json_t *want = NULL;
    const char *length = NULL;
    int64_t ids[TOKENS_MAX];
    const float *logits = NULL;
    double worst = 0;

    (void)ids_of(ids, golden);
    json_object_foreach(json_object_get(golden, "runs"), length, want)
    {
        size_t n = strtoul(length, NULL, 10);
        restart(r);
        if (!CHECK_OK(feed(r, &logits, ids, n)))
            return INFINITY;
        worst = fmax(worst, row_difference(logits + (n - 1) * (size_t)r->c->vocab, want));
    }
    return worst;
}

static double steps_difference(runner *r, const json_t *golden)
{
    const json_t *rows = json_object_get(golden, "logits");
    size_t from = (size_t)json_integer_value(json_object_get(golden, "step_from"));
    int64_t ids[TOKENS_MAX];
    size_t n = ids_of(ids, golden);
    const float *logits = NULL;
    double worst = 0;

    restart(r);
    if (!CHECK_OK(feed(r, &logits, ids, from)))
        return INFINITY;
    for (size_t i = from; i < n; i++) {
        if (!CHECK_OK(feed(r, &logits, ids + i, 1)))
            return INFINITY;
        worst = fmax(worst, row_difference(logits, json_array_get(rows, i)));
    }
    return worst;
}

static void check_same(const char *what, double difference)
{
    if (!CHECK(difference <= 1e-4))
        (void)printf("  %s: logits differ by %.3g\n", what, difference);
}

/* ---- the tests ---- */

static void test_spelling(const char *name, const json_t *golden, const char *spelling)
{
    const json_t *config = json_object_get(json_object_get(golden, "configs"), spelling);
    const char *label = dr_arena_printf(&arena, "%s-%s", name, spelling);
    size_t files = strcmp(name, "mistral") == 0 ? 3 : 1;
    runner r;

    if (CHECK_OK(runner_open(&r, family_model(&arena, label, golden, config, files),
                             ONNX_FP32))) {
        check_same(label, prompt_difference(&r, golden));
        if (strcmp(spelling, "5") == 0) {
            check_same(label, lengths_difference(&r, golden));
            check_same(label, steps_difference(&r, golden));
        }
    }
    runner_close(&r);
}

/* One number of the config changed: logits must be others. */
static void test_mutation(const char *name, const json_t *golden, size_t index)
{
    const json_t *change = json_array_get(json_object_get(golden, "mutations"), index);
    const json_t *path = json_array_get(change, 0);
    double factor = json_number_value(json_array_get(change, 1));
    json_t *config =
        json_deep_copy(json_object_get(json_object_get(golden, "configs"), "5"));
    size_t depth = json_array_size(path);
    const char *key = json_string_value(json_array_get(path, depth - 1));
    const char *label = dr_arena_printf(&arena, "%s-changed-%zu", name, index);
    json_t *o = config;
    runner r;

    for (size_t i = 0; i + 1 < depth; i++)
        o = json_object_get(o, json_string_value(json_array_get(path, i)));
    const json_t *old = json_object_get(o, key);
    double value = json_number_value(old) * factor;
    json_object_set_new(
        o, key, json_is_integer(old) ? json_integer(lround(value)) : json_real(value));
    if (CHECK_OK(
            runner_open(&r, family_model(&arena, label, golden, config, 1), ONNX_FP32))) {
        double difference = prompt_difference(&r, golden);
        if (!CHECK(difference > 1e-3))
            (void)printf("  %s: %s times %g changes logits by %.3g only\n", name, key,
                         factor, difference);
    }
    runner_close(&r);
    json_decref(config);
}

/* GenAI goes on from three tokens. */
static void run_genai(const char *dir)
{
    const int32_t ids[] = {5, 9, 30};
    ort_generate_options o = ORT_GENERATE_DEFAULTS;
    ort_generator *g = NULL;
    size_t n = 0;

    o.max_length = 6;
    o.threads = 1;
    if (CHECK_OK(ort_generator_open(&g, dir, &o)) &&
        CHECK_OK(ort_generate(g, ids, DR_COUNT(ids), NULL, NULL, NULL, &n, NULL)))
        CHECK(n <= 3);
    ort_generator_close(g);
}

/* Rounded to 4 bits it loads and runs; how near it comes is the quantizer's matter. */
static void test_int4(const char *name, const json_t *golden)
{
    const json_t *config = json_object_get(json_object_get(golden, "configs"), "5");
    const char *label = dr_arena_printf(&arena, "%s-int4", name);
    runner r;

    if (CHECK_OK(
            runner_open(&r, family_model(&arena, label, golden, config, 1), ONNX_INT4)))
        CHECK(isfinite(prompt_difference(&r, golden)));
    runner_close(&r);
    if (genai)
        run_genai(dr_arena_printf(&arena, "%s/%s-onnx", check_tmp(), label));
}

/* Greedy tokens in GenAI, past the window, with a cache of max_length and a growing one. */
static void test_genai(const char *name, const json_t *golden)
{
    const json_t *greedy = json_object_get(golden, "greedy");
    const json_t *want = json_object_get(greedy, "ids");
    size_t prompt = (size_t)json_integer_value(json_object_get(greedy, "prompt"));
    const char *dir = dr_arena_printf(&arena, "%s/%s-5-onnx", check_tmp(), name);
    size_t count = json_array_size(want);
    int64_t ids64[TOKENS_MAX];
    int32_t ids[TOKENS_MAX];

    (void)ids_of(ids64, golden);
    for (size_t i = 0; i < prompt; i++)
        ids[i] = (int32_t)ids64[i];
    for (int share = 0; share < 2 && count > 0; share++) {
        ort_generate_options o = ORT_GENERATE_DEFAULTS;
        ort_generator *g = NULL;
        int32_t *got = NULL;
        size_t n = 0;
        o.max_length = (int)(prompt + count);
        o.share_buffer = share;
        o.threads = 1;
        if (CHECK_OK(ort_generator_open(&g, dir, &o)) &&
            CHECK_OK(ort_generate(g, ids, prompt, NULL, NULL, &got, &n, NULL))) {
            /* An end of sequence is in the golden, but is not handed out. */
            CHECK(n == count || (n == count - 1 && count < 8));
            for (size_t i = 0; i < n && i < count; i++)
                if (!CHECK_EQ_INT(got[i], json_integer_value(json_array_get(want, i))))
                    (void)printf("  %s, share %d, token %zu\n", name, share, i);
        }
        free(got);
        ort_generator_close(g);
    }
}

/* Mixtures of experts in a runtime that cannot hold them: an error that says which can. */
static bool refused_here(const char *name, const json_t *golden)
{
    const json_t *config = json_object_get(json_object_get(golden, "configs"), "5");
    bool experts = dr_json_get(config, "num_experts_per_tok") != NULL;
    const char *label = dr_arena_printf(&arena, "%s-old", name);
    runner r;

    if (!experts || minor >= MOE_MINOR)
        return false;
    CHECK_STATUS(runner_open(&r, family_model(&arena, label, golden, config, 1), ONNX_FP32),
                 DR_EUNSUPPORTED);
    CHECK_TRAIL("need onnxruntime 1.32");
    runner_close(&r);
    return true;
}

static void test_family(const char *name)
{
    static const char *const spellings[] = {"5", "4", "old"};
    json_t *golden = family_golden(&arena, name);

    if (golden == NULL || refused_here(name, golden)) {
        json_decref(golden);
        return;
    }
    for (size_t i = 0; i < DR_COUNT(spellings); i++)
        test_spelling(name, golden, spellings[i]);
    for (size_t i = 0; i < json_array_size(json_object_get(golden, "mutations")); i++)
        test_mutation(name, golden, i);
    test_int4(name, golden);
    if (genai)
        test_genai(name, golden);
    json_decref(golden);
}

int main(void)
{
    ort_info info = {0};

    ort_probe(&arena, &info);
    if (!info.ort_found) {
        SKIP("runtime: no onnxruntime");
        return check_done();
    }
    const char *dot = strchr(info.ort_version, '.');
    minor = dot != NULL ? (int)strtol(dot + 1, NULL, 10) : 0;
    if (!info.genai_found)
        SKIP("runtime: no onnxruntime-genai");
    genai = info.genai_found;
    for (size_t i = 0; i < DR_COUNT(family_names); i++)
        test_family(family_names[i]);
    dr_arena_release(&arena);
    return check_done();
}
