/*
 * npu_calibrate.c - what the values of a model range over, and how near its fixed graphs
 * are to each other.
 *
 * Least and largest over calibration text (MinMax, ORT's default): the prompt graph in
 * floats runs window after window, with its cache, so that late positions are seen, too.
 */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "ort/ort.h"
#include "pass/export_impl.h"
#include "pass/npu_export_impl.h"
#include "pass/shared_impl.h"

enum {
    CALIB_TOKENS = 2048,
    JUDGE_TOKENS = 256,   /* fixed graph against float graph, both on the CPU */
    PROVIDER_WINDOWS = 2, /* provider against CPU: some are simulated */
    PROVIDER_STEPS = 4,   /* of the token graph */
    CALIB_WINDOW = 32,    /* where the graphs have one token */
    TIMEOUT_S = 3600
};

/* Ids of text, `count` of them, a multiple of window; fewer where the text ends. */
static dr_status text_ids(const pass_job *job, const int32_t **ids, size_t *count,
                          const data_options *o, const tok_tokenizer *t)
{
    data_texts texts = {0};
    data_blocks blocks = {0};
    int32_t *all = NULL;
    dr_status st = DR_OK;

    DR_TRY(pass_text_blocks(&blocks, &texts, job->arena, o, t));
    all = dr_arena_alloc(job->arena, blocks.count * blocks.seq_len, sizeof(*all));
    memcpy(all, blocks.ids, blocks.count * blocks.seq_len * sizeof(*all));
    *ids = all;
    *count = blocks.count * blocks.seq_len;
done:
    data_blocks_release(&blocks);
    return st;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const onnx_range *)a)->name, ((const onnx_range *)b)->name);
}

/* Whole windows of a context, as many of them as make up `tokens`. */
static data_options windows(const data_options *given, const onnx_npu_options *o,
                            size_t tokens)
{
    const size_t s = (size_t)o->sequence, whole = (size_t)o->total / s * s;
    data_options d = *given;

    if (d.max_seq_len == 0 || d.max_seq_len > whole)
        d.max_seq_len = whole;
    d.max_seq_len = d.max_seq_len < s ? s : d.max_seq_len / s * s;
    if (d.max_samples == 0)
        d.max_samples = (tokens + d.max_seq_len - 1) / d.max_seq_len;
    return d;
}

dr_status npu_calibrate(const pass_job *job, const char *dir, const char **file,
                        onnx_npu_options *o, const hf_model *m, dr_pool *pool,
                        const tok_tokenizer *t)
{
    onnx_npu_options plain = {.form = ONNX_NPU_CALIBRATE,
                              .batch = 1,
                              .sequence = o->sequence,
                              .total = o->total,
                              .weight_bits = 32};
    ort_fixed_request q = {.threads = job->threads, .timeout_s = TIMEOUT_S};
    onnx_report report = {0};
    dr_status st = DR_OK;

    if (plain.sequence == 1)
        plain.sequence = o->total > CALIB_WINDOW ? CALIB_WINDOW : o->total - 1;
    const data_options d = windows(job->data, &plain, CALIB_TOKENS);
    DR_TRYF(text_ids(job, &q.ids, &q.count, &d, t), "reading calibration text");
    DR_TRY(dr_make_dirs(dir));
    DR_TRYF(onnx_npu_build(&report, dir, m, pool, &plain), "writing the graph to measure");
    *file = dr_path_join(job->arena, dir,
                         onnx_npu_file(job->arena, &plain, plain.sequence == 1));
    q.model.model_path = *file;
    const size_t n = report.value_count;
    onnx_range *ranges = dr_arena_alloc(job->arena, n, sizeof(*ranges));
    float *least = dr_arena_alloc(job->arena, n, sizeof(*least));
    float *largest = dr_arena_alloc(job->arena, n, sizeof(*largest));
    DR_TRYF(ort_fixed_ranges(least, largest, report.values, n, &q), "measuring values");
    for (size_t i = 0; i < n; i++)
        ranges[i] = (onnx_range){dr_arena_strdup(job->arena, report.values[i]), least[i],
                                 largest[i]};
    qsort(ranges, n, sizeof(*ranges), by_name);
    o->ranges = ranges;
    o->range_count = n;
    DR_TRY(dr_buf_addf(job->text, "calibrated     %zu values on %zu tokens\n", n, q.count));
    json_object_set_new(job->report, "calibrated_values", json_integer((json_int_t)n));
    json_object_set_new(job->report, "calibration_tokens",
                        json_integer((json_int_t)q.count));
done:
    onnx_report_release(&report);
    return st;
}

/* ---- looking at the result ---- */

static dr_status load_and_run(const pass_job *job, const npu_check *c, bool *checked)
{
    ort_check_result r = {0};
    dr_status st = DR_OK;

    *checked = false;
    for (int token = c->o->sequence == 1; token < 2; token++) {
        const ort_check_request q = {.dir = c->dir,
                                     .model_file =
                                         onnx_npu_file(job->arena, c->o, token == 1),
                                     .timeout_s = TIMEOUT_S};
        DR_TRYF(ort_check(&r, &q), "checking %s", q.model_file);
        if (!r.checked) {
            DR_TRY(pass_tell_not_checked(job, r.why));
            goto done;
        }
        DR_TRY(dr_buf_addf(job->text, "check          %s: loaded and run in %.2f s\n",
                           q.model_file, r.seconds));
    }
    *checked = true;
done:
    return st;
}

static dr_status tell(const pass_job *job, const char *key, const char *what,
                      const char *against, const ort_fixed_result *r)
{
    json_t *j = json_object();
    dr_status st = DR_OK;

    json_object_set_new(j, "tokens", json_integer((json_int_t)r->tokens));
    json_object_set_new(j, "same_top", json_integer((json_int_t)r->same_top));
    json_object_set_new(j, "max_logit_difference", json_real(r->max_diff));
    json_object_set_new(j, "wholly", json_boolean(r->wholly));
    json_object_set_new(job->report, key, j);
    DR_TRY(dr_buf_addf(
        job->text, "check          %s: max |dlogit| %.4g, same top token as %s %zu/%zu\n",
        what, r->max_diff, against, r->same_top, r->tokens));
done:
    return st;
}

/* A graph on the provider against the same on the CPU; count: tokens. */
static dr_status on_provider(const pass_job *job, const npu_check *c, bool token,
                             const int32_t *ids, size_t count)
{
    const char *file = onnx_npu_file(job->arena, c->o, token);
    const char *path = dr_path_join(job->arena, c->dir, file);
    const ort_fixed_request q = {.model = {path, c->provider},
                                 .ids = ids,
                                 .count = count,
                                 .threads = job->threads,
                                 .timeout_s = TIMEOUT_S};
    const ort_fixed_model cpu = {.model_path = path};
    ort_fixed_result r = {0};
    dr_status st = DR_OK;

    DR_TRYF(ort_fixed_compare(&r, &q, &cpu), "running on %s", c->provider);
    if (r.tokens == 0) {
        json_object_set_new(job->report, "provider_not_run", json_string(r.why));
        if (!token || c->o->sequence == 1)
            DR_TRY(dr_buf_addf(job->text, "check          not run on %s: %s\n", c->provider,
                               r.why));
        goto done;
    }
    const char *what = dr_arena_printf(
        job->arena, "%s run %s on %s (%.1f s)", token ? "token graph" : "prompt graph",
        r.wholly ? "wholly" : "in part", c->provider, r.seconds);
    DR_TRY(tell(job, token ? "provider_token" : "provider_prompt", what, "CPU", &r));
done:
    return st;
}

dr_status npu_check_run(const pass_job *job, const npu_check *c)
{
    const size_t s = (size_t)c->o->sequence;
    const data_options held_out = {.held_out = true};
    ort_fixed_request q = {.threads = job->threads, .timeout_s = TIMEOUT_S};
    ort_fixed_result r = {0};
    bool checked = false;
    dr_status st = DR_OK;

    DR_TRY(load_and_run(job, c, &checked));
    if (checked && c->t == NULL)
        DR_TRY(dr_buf_addf(job->text, "check          not compared: %s\n",
                           "the model has no tokenizer"));
    if (!checked || c->t == NULL)
        goto done;
    data_options d = windows(&held_out, c->o, JUDGE_TOKENS);
    DR_TRY(text_ids(job, &q.ids, &q.count, &d, c->t));
    if (q.count > JUDGE_TOKENS)
        q.count = JUDGE_TOKENS / s > 0 ? JUDGE_TOKENS / s * s : s;
    if (c->float_graph != NULL && s > 1) {
        const ort_fixed_model other = {.model_path = c->float_graph};
        q.model.model_path =
            dr_path_join(job->arena, c->dir, onnx_npu_file(job->arena, c->o, false));
        DR_TRYF(ort_fixed_compare(&r, &q, &other), "comparing with floats");
        DR_TRY(tell(job, "rounding", "rounded against float", "float", &r));
        if (2 * r.same_top < r.tokens)
            dr_warn_result(
                "rounding changes most of this model's tokens: %zu of %zu are left",
                r.same_top, r.tokens);
    }
    if (s > 1)
        DR_TRY(
            on_provider(job, c, false, q.ids,
                        q.count < PROVIDER_WINDOWS * s ? q.count : PROVIDER_WINDOWS * s));
    DR_TRY(on_provider(job, c, true, q.ids,
                       q.count < PROVIDER_STEPS ? q.count : PROVIDER_STEPS));
done:
    return st;
}
