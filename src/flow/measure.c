/*
 * measure.c - the figures of a workflow's evaluator, of one model.
 *
 * Perplexity and the like come from pass_evaluate, whatever kind the model is.  Times come
 * from ONNX Runtime GenAI, so a model is timed as it is used; a Hugging Face model has
 * none, and its figures stay NAN.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "flow/run_impl.h"
#include "ort/ort.h"

extern char **environ;

/* ---- accuracy ---- */

/* The member of the report that a figure is. */
static const struct {
    const char *figure, *key;
} reported[] = {{"perplexity", "perplexity"},
                {"kl", "kl"},
                {"top_1_agreement", "top1_agreement"},
                {"accuracy_score", "acc"}};

static double from_report(const json_t *report, const char *figure)
{
    for (size_t i = 0; i < DR_COUNT(reported); i++) {
        const json_t *v = json_object_get(report, reported[i].key);
        if (strcmp(reported[i].figure, figure) == 0 && json_is_number(v))
            return json_number_value(v);
    }
    return NAN;
}

static bool against_input(const wf_metric *m)
{
    for (size_t i = 0; i < m->figure_count; i++)
        if (strcmp(m->figures[i].name, "kl") == 0 ||
            strcmp(m->figures[i].name, "top_1_agreement") == 0)
            return true;
    return false;
}

/* A graph without GenAI's files has no tokenizer beside it: the input's is taken. */
static bool lacks_tokenizer(const run_model *m)
{
    dr_arena a = {0};
    const char *folder = dr_path_join(&a, m->path, "model");
    bool lacks = m->parent != NULL && m->kind == PASS_MODEL_ONNX &&
                 !dr_is_file(dr_path_join(&a, folder, "tokenizer.json"));

    dr_arena_release(&a);
    return lacks;
}

static dr_status measure_accuracy(double *values, const run *r, const wf_metric *m,
                                  const run_model *model)
{
    const bool beside = against_input(m) || lacks_tokenizer(model);
    const flow_evaluation e = {.model = model->path,
                               .reference = beside ? r->input.path : NULL,
                               .data = m->data,
                               .task = m->task,
                               .threads = r->o->threads};
    flow_result made = {0};
    dr_status st = DR_OK;

    DR_TRY(flow_evaluate(&made, &e));
    for (size_t i = 0; i < m->figure_count; i++)
        values[i] = from_report(made.report, m->figures[i].name);
done:
    flow_result_release(&made);
    return st;
}

/* ---- sizes ---- */

/* Bytes of a file, or of all files below a folder. */
static dr_status bytes_below(double *sum, const char *path)
{
    char **names = NULL;
    size_t count = 0;
    uint64_t bytes = 0;
    dr_arena a = {0};
    dr_status st = DR_OK;

    if (!dr_is_dir(path)) {
        DR_TRY(dr_file_size(&bytes, path));
        *sum += (double)bytes;
        goto done;
    }
    DR_TRY(dr_list_dir(&a, path, &names, &count));
    for (size_t i = 0; i < count; i++)
        if (!flow_no_model_file(names[i]))
            DR_TRY(bytes_below(sum, dr_path_join(&a, path, names[i])));
done:
    dr_arena_release(&a);
    return st;
}

static dr_status measure_size(double *value, const run_model *model)
{
    dr_arena a = {0};
    const char *own = dr_path_join(&a, model->path, "model");
    const char *adapter = dr_path_join(&a, model->path, "adapter");
    const char *data = dr_arena_printf(&a, "%s.data", model->path);
    bool result = model->parent != NULL;
    dr_status st = DR_OK;

    *value = 0;
    DR_TRY(bytes_below(value, result ? own : model->path));
    if (result && dr_is_dir(adapter))
        DR_TRY(bytes_below(value, adapter));
    if (!result && dr_is_file(data)) /* of a graph's file */
        DR_TRY(bytes_below(value, data));
done:
    dr_arena_release(&a);
    return st;
}

/* ---- times ---- */

static const char *graph_folder(dr_arena *a, const run_model *model)
{
    const char *inside = dr_path_join(a, model->path, "model");

    return dr_is_file(dr_path_join(a, inside, "genai_config.json")) ? inside : model->path;
}

static dr_status need_genai(dr_arena *a, const char *folder)
{
    dr_status st;

    if (dr_is_file(dr_path_join(a, folder, "genai_config.json")))
        return DR_OK;
    st = dr_fail(DR_EUSAGE,
                 "%s has no genai_config.json: models are timed in ONNX Runtime "
                 "GenAI",
                 folder);
    dr_hint("ModelBuilder writes it with \"use_ort_genai\": true");
    return st;
}

static dr_status make_prompt(int32_t **ids, ort_generator *g, size_t count)
{
    static const char text[] =
        "The history of computing is longer than that of computers. ";
    int32_t *one = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    DR_TRY(ort_generator_encode(g, text, &one, &n));
    if (n == 0)
        DR_FAIL(DR_EUNSUPPORTED, "the tokenizer has no tokens for plain words");
    *ids = dr_calloc(count, sizeof(**ids));
    for (size_t i = 0; i < count; i++)
        (*ids)[i] = one[i % n];
done:
    free(one);
    return st;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Of sorted values, between neighbours as numpy has it. */
static double quantile(const double *sorted, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t i = (size_t)at;

    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i])
                     : sorted[i];
}

double run_statistic(const char *name, const double *sorted, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += sorted[i];
    if (strcmp(name, "avg") == 0)
        return sum / (double)n;
    if (strcmp(name, "min") == 0)
        return sorted[0];
    if (strcmp(name, "max") == 0)
        return sorted[n - 1];
    double digits = strtod(name + 1, NULL); /* p50, p999 */
    return quantile(sorted, n, digits > 99 ? digits / 1000 : digits / 100);
}

/* Seconds to the first token, and of a token after it, of each run; [repeats]. */
static dr_status time_runs(double *first, double *later, const run *r, const wf_metric *m,
                           const char *folder, bool decode)
{
    const ort_generate_options o = {.max_length = m->prompt_tokens + m->new_tokens,
                                    .seed = -1,
                                    .share_buffer = -1,
                                    .threads = r->o->threads};
    ort_generator *g = NULL;
    ort_generate_options now = o;
    ort_generate_stats s = {0};
    int32_t *prompt = NULL;
    dr_status st = DR_OK;

    if (!decode)
        now.max_length = m->prompt_tokens + 1;
    DR_TRYF(ort_generator_open(&g, folder, &now), "loading %s", folder);
    DR_TRY(make_prompt(&prompt, g, (size_t)m->prompt_tokens));
    for (int i = -m->warmup; i < m->repeats; i++) {
        DR_TRY(
            ort_generate(g, prompt, (size_t)m->prompt_tokens, NULL, NULL, NULL, NULL, &s));
        DR_TRY(dr_cancelled_check());
        if (m->sleep_s > 0)
            (void)usleep((useconds_t)(m->sleep_s * 1e6));
        if (i < 0)
            continue;
        first[i] = s.prefill_s;
        later[i] = s.new_tokens > 1 ? s.decode_s / (double)(s.new_tokens - 1) : (double)NAN;
    }
done:
    ort_generator_close(g);
    free(prompt);
    return st;
}

static dr_status measure_times(double *values, const run *r, const wf_metric *m,
                               const run_model *model)
{
    const size_t n = (size_t)m->repeats;
    double *first = dr_calloc(n, sizeof(double)), *later = dr_calloc(n, sizeof(double));
    dr_arena a = {0};
    const char *folder = graph_folder(&a, model);
    bool decode = false;
    dr_status st = DR_OK;

    for (size_t i = 0; i < m->figure_count; i++)
        decode = decode || strcmp(m->figures[i].name, "decode") == 0;
    DR_TRY(need_genai(&a, folder));
    DR_TRY(time_runs(first, later, r, m, folder, decode));
    if (decode && isnan(later[0]))
        DR_FAIL(DR_EUNSUPPORTED, "%s ends after one token: nothing to time", folder);
    qsort(first, n, sizeof(double), by_value);
    qsort(later, n, sizeof(double), by_value);
    for (size_t i = 0; i < m->figure_count; i++) {
        const char *name = m->figures[i].name;
        double *list = decode && strcmp(name, "decode") == 0 ? later : first;
        bool per_token = strcmp(name, "decode") == 0 || strcmp(name, "prefill") == 0;
        double tokens = strcmp(name, "prefill") == 0 ? m->prompt_tokens : 1;
        if (m->kind == WF_LATENCY) { /* milliseconds, five decimals */
            values[i] = round(run_statistic(name, list, n) * 1e8) / 1e5;
        } else { /* a rate of each run, least first */
            double *rates = dr_calloc(n, sizeof(double));
            for (size_t k = 0; k < n; k++)
                rates[k] = tokens / list[n - 1 - k];
            values[i] = run_statistic(per_token ? "p50" : name, rates, n);
            free(rates);
        }
    }
done:
    free(first);
    free(later);
    dr_arena_release(&a);
    return st;
}

/* What one run with it adds to a process. */
static dr_status measure_memory(double *value, const run_model *model)
{
    ort_check_result got = {0};
    dr_arena a = {0};
    ort_check_request ask = {.dir = graph_folder(&a, model), .genai = true};
    dr_status st = DR_OK;

    ask.genai = dr_is_file(dr_path_join(&a, ask.dir, "genai_config.json"));
    DR_TRY(ort_check(&got, &ask));
    if (!got.checked)
        DR_FAIL(DR_EDEVICE, "no runtime to measure memory in: %s", got.why);
    *value = (double)got.peak_bytes;
done:
    dr_arena_release(&a);
    return st;
}

/* ---- a user's command ---- */

/* Runs it with in as standard input and out as its output. */
static dr_status spawn(const wf_metric *m, const char *in, const char *out)
{
    posix_spawn_file_actions_t files;
    pid_t child = 0;
    int status = 0;
    dr_status st = DR_OK;

    (void)posix_spawn_file_actions_init(&files);
    (void)posix_spawn_file_actions_addopen(&files, STDIN_FILENO, in, O_RDONLY, 0);
    (void)posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, out,
                                           O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int failed = posix_spawnp(&child, m->command[0], &files, NULL,
                              (char **)(uintptr_t)m->command, environ);
    if (failed != 0)
        DR_FAIL(DR_EUSAGE, "%s: %s", m->command[0], strerror(failed));
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        if (dr_cancelled_check() != DR_OK)
            (void)kill(child, SIGTERM);
    DR_TRY(dr_cancelled_check());
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        DR_FAIL(DR_EDEVICE, "%s ended with status %d", m->command[0],
                WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
done:
    (void)posix_spawn_file_actions_destroy(&files);
    return st;
}

static dr_status measure_command(double *values, const run *r, const wf_metric *m,
                                 const run_model *model)
{
    dr_arena a = {0};
    const char *in = dr_arena_printf(&a, "%s/ask-%d.json", r->cache.dir, (int)getpid());
    const char *out = dr_arena_printf(&a, "%s/answer-%d.json", r->cache.dir, (int)getpid());
    const char *inside = dr_path_join(&a, model->path, "model");
    json_t *names = json_array(), *answer = NULL;
    bool folder = model->parent != NULL && dr_exists(inside);
    json_t *ask = json_pack("{s:s, s:s, s:o}", "metric", m->name, "model_path",
                            folder ? inside : model->path, "figures", names);
    dr_status st = DR_OK;

    for (size_t i = 0; i < m->figure_count; i++)
        json_array_append_new(names, json_string(m->figures[i].name));
    DR_TRY(dr_json_write(in, ask));
    DR_TRY(spawn(m, in, out));
    DR_TRYF(dr_json_read(&answer, out), "what %s printed", m->command[0]);
    for (size_t i = 0; i < m->figure_count; i++) {
        const json_t *v = json_object_get(answer, m->figures[i].name);
        if (!json_is_number(v))
            DR_FAIL(DR_EFORMAT, "%s gave no number \"%s\"", m->command[0],
                    m->figures[i].name);
        values[i] = json_number_value(v);
    }
done:
    (void)unlink(in);
    (void)unlink(out);
    json_decref(ask);
    json_decref(answer);
    dr_arena_release(&a);
    return st;
}

/* ---- all of it ---- */

bool run_is_timed(const wf_metric *m)
{
    return m->kind == WF_LATENCY || m->kind == WF_THROUGHPUT || m->kind == WF_MEMORY;
}

dr_status run_measure(double *values, const run *r, const wf_metric *m,
                      const run_model *model)
{
    for (size_t i = 0; i < m->figure_count; i++)
        values[i] = NAN;
    if (run_is_timed(m) && model->kind != PASS_MODEL_ONNX)
        return DR_OK;
    switch (m->kind) {
    case WF_ACCURACY:
        return measure_accuracy(values, r, m, model);
    case WF_LATENCY:
    case WF_THROUGHPUT:
        return measure_times(values, r, m, model);
    case WF_SIZE:
        return measure_size(values, model);
    case WF_MEMORY:
        return measure_memory(values, model);
    case WF_CUSTOM:
        break;
    }
    return measure_command(values, r, m, model);
}
