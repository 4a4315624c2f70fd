/*
 * benchmark.c - one model on this machine: files of questions, time to the first token and
 * tokens per second, memory, bytes.  With a reference the two are timed in turns.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "flow/run_impl.h"

enum { QUESTIONS_MAX = 1 << 30 };

/* Non-empty lines of a file. */
static dr_status count_questions(size_t *count, const char *path)
{
    dr_buf b;
    dr_status st = DR_OK;

    *count = 0;
    dr_buf_init(&b, QUESTIONS_MAX);
    DR_TRYF(dr_read_file(&b, path), "reading the questions");
    for (const char *p = b.data; b.len > 0 && *p != '\0';) {
        const size_t n = strcspn(p, "\n");
        *count += strspn(p, " \t\r") < n;
        p += n + (p[n] != '\0');
    }
done:
    dr_buf_release(&b);
    return st;
}

static dr_status one_task(flow_result *out, json_t *tasks, const flow_benchmark_options *o,
                          const char *path)
{
    flow_evaluation e = {.model = o->model,
                         .reference = o->reference,
                         .adapter = o->adapter,
                         .task = path,
                         .device = o->device,
                         .threads = o->threads};
    flow_result made = {0};
    size_t count = 0;
    dr_status st = DR_OK;

    e.data.max_seq_len = (size_t)o->max_length;
    if (o->limit >= 1) {
        e.data.max_samples = (size_t)o->limit;
    } else if (o->limit > 0) {
        DR_TRY(count_questions(&count, path));
        e.data.max_samples = (size_t)ceil(o->limit * (double)count);
    }
    DR_TRY(flow_evaluate(&made, &e));
    DR_TRY(dr_buf_addf(&out->text, "%s\n", path));
    DR_TRY(dr_buf_add(&out->text, made.text.data, made.text.len));
    json_object_set(tasks, path, made.report);
done:
    flow_result_release(&made);
    return st;
}

static dr_status all_tasks(flow_result *out, const flow_benchmark_options *o)
{
    json_t *tasks = json_object();
    dr_arena *a = &out->arena;
    dr_status st = DR_OK;

    json_object_set_new(out->report, "tasks", tasks);
    for (const char *p = o->tasks; p != NULL && *p != '\0';) {
        const size_t n = strcspn(p, ",");
        DR_TRY(one_task(out, tasks, o, dr_arena_strndup(a, p, n)));
        p += n + (p[n] == ',');
    }
done:
    return st;
}

/* ---- times ---- */

static dr_status tell_time(flow_result *out, json_t *j, const char *name, const char *unit,
                           run_value v)
{
    json_object_set_new(j, name, json_real(v.value));
    json_object_set_new(j, dr_arena_printf(&out->arena, "%s_low", name), json_real(v.low));
    json_object_set_new(j, dr_arena_printf(&out->arena, "%s_high", name),
                        json_real(v.high));
    return dr_buf_addf(&out->text, "%-24s %12.4f %-9s %12.4f %12.4f\n", name, v.value, unit,
                       v.low, v.high);
}

/* Milliseconds to the first token by all statistics, then rates. */
static dr_status tell_side(flow_result *out, const char *key, const timing *t, int side,
                           int prompt_tokens)
{
    static const char *const names[] = {"avg", "min", "max", "p50", "p75",
                                        "p90", "p95", "p99", "p999"};
    double *v = dr_calloc(t->count, sizeof(*v));
    json_t *j = json_object();
    dr_status st = DR_OK;

    json_object_set_new(out->report, key, j);
    DR_TRY(dr_buf_addf(&out->text, "%-24s %12s %-9s %12s %12s\n", key, "value", "",
                       "95 % from", "to"));
    for (size_t i = 0; i < t->count; i++)
        v[i] = 1e3 * t->first[side][i];
    for (size_t k = 0; k < DR_COUNT(names); k++)
        DR_TRY(tell_time(out, j, dr_arena_printf(&out->arena, "first_token_%s", names[k]),
                         "ms", timing_figure(names[k], v, NULL, t->count, 0)));
    for (size_t i = 0; i < t->count; i++)
        v[i] = prompt_tokens / t->first[side][i];
    DR_TRY(tell_time(out, j, "prefill", "tokens/s",
                     timing_figure("p50", v, NULL, t->count, 0)));
    for (size_t i = 0; i < t->count; i++)
        v[i] = 1 / t->later[side][i];
    DR_TRY(tell_time(out, j, "decode", "tokens/s",
                     timing_figure("p50", v, NULL, t->count, 0)));
done:
    free(v);
    return st;
}

/* The model's rate over the reference's, pair by pair. */
static dr_status tell_ratio(flow_result *out, const char *name, const timing *t,
                            double *const sides[2])
{
    double *v[2] = {dr_calloc(t->count, sizeof(double)),
                    dr_calloc(t->count, sizeof(double))};
    dr_status st = DR_OK;

    for (size_t i = 0; i < t->count; i++)
        for (int side = 0; side < 2; side++)
            v[side][i] = 1 / sides[side][i];
    st = tell_time(out, out->report, name, "times",
                   timing_figure("p50", v[0], v[1], t->count, 1));
    free(v[0]);
    free(v[1]);
    return st;
}

static dr_status all_times(flow_result *out, const flow_benchmark_options *o,
                           const run_model *m, const run_model *beside)
{
    dr_arena *a = &out->arena;
    timing_plan p = {.model = run_graph_folder(a, m),
                     .beside = beside != NULL ? run_graph_folder(a, beside) : NULL,
                     .warmup = o->warmup,
                     .repeats = o->repeats,
                     .prompt_tokens = o->prompt_tokens,
                     .new_tokens = o->new_tokens,
                     .threads = o->threads};
    timing t = {.count = 0};
    dr_status st = DR_OK;

    DR_TRY(timing_take(&t, &p));
    DR_TRY(tell_side(out, "times", &t, 0, o->prompt_tokens));
    if (beside == NULL)
        goto done;
    DR_TRY(tell_side(out, "reference_times", &t, 1, o->prompt_tokens));
    DR_TRY(tell_ratio(out, "prefill_ratio", &t, t.first));
    DR_TRY(tell_ratio(out, "decode_ratio", &t, t.later));
done:
    timing_release(&t);
    return st;
}

/* ---- all of it ---- */

static bool has_genai(dr_arena *a, const run_model *m)
{
    return dr_is_file(dr_path_join(a, run_graph_folder(a, m), "genai_config.json"));
}

static dr_status tell_bytes(flow_result *out, const char *key, double bytes)
{
    json_object_set_new(out->report, key, json_integer((json_int_t)bytes));
    return dr_buf_addf(&out->text, "%-24s %12.0f\n", key, bytes);
}

dr_status flow_benchmark(flow_result *out, const flow_benchmark_options *o)
{
    const run_model made_from = {.path = NULL}, reference = {.path = o->reference};
    run_model model = {.path = o->model, .adapters = o->adapter};
    const char *backend = o->backend != NULL ? o->backend : "auto";
    double bytes = 0;
    dr_status st = DR_OK;

    *out = (flow_result){.report = json_object()};
    dr_buf_init(&out->text, (size_t)16 << 20);
    dr_arena *a = &out->arena;
    if (!dr_exists(o->model)) {
        st = dr_fail(DR_EUSAGE, "%s: no such file or folder", o->model);
        dr_hint("a model is benchmarked where it lies; convert -m downloads one");
        goto done;
    }
    if (dr_is_dir(dr_path_join(a, o->model, "model"))) /* a result: its model counts */
        model.parent = &made_from;
    bool timed = has_genai(a, &model);
    if (strcmp(backend, "ortgenai") == 0 && !timed)
        DR_FAIL(DR_EUSAGE, "--backend ortgenai: %s has no genai_config.json", o->model);
    timed = timed && strcmp(backend, "ort") != 0;
    if (timed && o->device != NULL && strcmp(o->device, "cpu") != 0) {
        st = dr_fail(DR_EUNSUPPORTED, "--device gpu: ONNX models are timed on the CPU");
        dr_hint("--backend ort leaves the times out");
        goto done;
    }
    if (!timed && o->tasks == NULL) {
        st = dr_fail(DR_EUSAGE, "nothing to do: no --tasks, and %s is not timed", o->model);
        dr_hint("models with genai_config.json are: optimize --use_ort_genai writes it");
        goto done;
    }
    DR_TRY(all_tasks(out, o));
    DR_TRY(run_bytes(&bytes, &model));
    DR_TRY(tell_bytes(out, "size_bytes", bytes));
    if (!timed)
        goto done;
    DR_TRY(run_peak_bytes(&bytes, &model));
    DR_TRY(tell_bytes(out, "peak_memory_bytes", bytes));
    DR_TRY(all_times(out, o, &model,
                     o->reference != NULL && has_genai(a, &reference) ? &reference : NULL));
done:
    return st;
}
