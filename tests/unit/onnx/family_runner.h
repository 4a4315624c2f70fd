/*
 * family_runner.h - a tiny model of tests/golden/families exported, run in ONNX Runtime at
 * once or token by token, and compared with the golden's logits.
 */
#ifndef DRUPE_TESTS_FAMILY_RUNNER_H
#define DRUPE_TESTS_FAMILY_RUNNER_H

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

static inline dr_status export_model(const char **dir, const char *path, const hf_model *m,
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

static inline void runner_close(runner *r)
{
    ort_values_release(r->out, DR_COUNT(r->out));
    ort_session_close(r->s);
    hf_model_close(r->m);
    *r = (runner){0};
}

static inline dr_status runner_open(runner *r, const char *path, onnx_precision precision)
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

static inline void restart(runner *r)
{
    ort_values_release(r->out, DR_COUNT(r->out));
    memset(r->out, 0, sizeof(r->out));
    r->seen = 0;
}

static inline ort_value int64s(const char *name, int64_t *data, size_t n)
{
    return (ort_value){.name = name,
                       .dtype = DR_DTYPE_I64,
                       .ndim = 2,
                       .dims = {1, (int64_t)n},
                       .data = data,
                       .bytes = n * sizeof(*data)};
}

/* Feeds ids after what was seen; *logits [count][V] is good until the next call. */
static inline dr_status feed(runner *r, const float **logits, int64_t *ids, size_t count)
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

static inline size_t ids_of(int64_t *ids, const json_t *golden)
{
    const json_t *list = json_object_get(golden, "ids");
    size_t n = json_array_size(list);

    DR_BUG_IF(n > TOKENS_MAX);
    for (size_t i = 0; i < n; i++)
        ids[i] = json_integer_value(json_array_get(list, i));
    return n;
}

static inline double row_difference(const float *got, const json_t *want)
{
    float row[VOCAB_MAX];
    double worst = 0;

    family_floats(row, want);
    for (size_t i = 0; i < json_array_size(want); i++)
        worst = fmax(worst, fabs((double)got[i] - (double)row[i]));
    return worst;
}

/* The whole prompt at once. */
static inline double prompt_difference(runner *r, const json_t *golden)
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

/* Prompts of the lengths that rows has ({"5": logits}): the last token's logits. */
static inline double lengths_difference(runner *r, const json_t *golden, json_t *rows)
{
    const json_t *want = NULL;
    const char *length = NULL;
    int64_t ids[TOKENS_MAX];
    const float *logits = NULL;
    double worst = 0;

    (void)ids_of(ids, golden);
    CHECK(json_object_size(rows) == 4);
    json_object_foreach(rows, length, want)
    {
        size_t n = strtoul(length, NULL, 10);
        restart(r);
        if (!CHECK_OK(feed(r, &logits, ids, n)))
            return INFINITY;
        worst = fmax(worst, row_difference(logits + (n - 1) * (size_t)r->c->vocab, want));
    }
    return worst;
}

/* A prompt of `from` tokens, then one by one; rows: a list of logits, or {"5": logits} for
 * some of the lengths. */
static inline double steps_difference(runner *r, const json_t *golden, size_t from,
                                      const json_t *rows)
{
    int64_t ids[TOKENS_MAX];
    size_t n = ids_of(ids, golden);
    const float *logits = NULL;
    double worst = 0;
    char length[24];

    restart(r);
    if (from > 0 && !CHECK_OK(feed(r, &logits, ids, from)))
        return INFINITY;
    for (size_t i = from; i < n; i++) {
        if (!CHECK_OK(feed(r, &logits, ids + i, 1)))
            return INFINITY;
        (void)snprintf(length, sizeof(length), "%zu", i + 1);
        const json_t *want =
            json_is_array(rows) ? json_array_get(rows, i) : json_object_get(rows, length);
        if (want != NULL)
            worst = fmax(worst, row_difference(logits, want));
    }
    return worst;
}

static inline void check_same(const char *what, double difference)
{
    if (!CHECK(difference <= 1e-4))
        (void)printf("  %s: logits differ by %.3g\n", what, difference);
}

/* All that the golden has of this model: at once, at every length, step by step. */
static inline void check_logits(const char *label, runner *r, const json_t *golden)
{
    const json_t *rows = json_object_get(golden, "logits");
    const json_t *one_by_one = json_object_get(golden, "steps");
    size_t from = (size_t)json_integer_value(json_object_get(golden, "step_from"));

    check_same(label, prompt_difference(r, golden));
    check_same(label, lengths_difference(r, golden, json_object_get(golden, "runs")));
    check_same(label, steps_difference(r, golden, from, rows));
    check_same(label, steps_difference(r, golden, 0, one_by_one ? one_by_one : rows));
}

/* ---- the runtime ---- */

/* Mixtures of experts in a runtime that cannot hold them. */
static inline bool too_old_for(const json_t *golden)
{
    const json_t *config = json_object_get(json_object_get(golden, "configs"), "5");

    return dr_json_get(config, "num_experts_per_tok") != NULL && minor < MOE_MINOR;
}

/* false: there is none, which is counted. */
static inline bool runtime_found(void)
{
    ort_info info = {0};

    ort_probe(&arena, &info);
    if (!info.ort_found) {
        SKIP("runtime: no onnxruntime");
        return false;
    }
    const char *dot = strchr(info.ort_version, '.');
    minor = dot != NULL ? (int)strtol(dot + 1, NULL, 10) : 0;
    genai = info.genai_found;
    return true;
}

#endif
