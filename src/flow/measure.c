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
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/child.h"
#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "flow/run_impl.h"
#include "ort/ort.h"

/* ---- accuracy ---- */

/* The member of the report that a figure is. */
static const struct {
    const char *figure, *key;
} reported[] = {{"perplexity", "perplexity"},
                {"kl", "kl"},
                {"top_1_agreement", "top1_agreement"},
                {"accuracy_score", "acc"},
                {"acc_norm", "acc_norm"},
                {"auroc", "auroc"},
                {"exact_match", "exact_match"},
                {"wer", "wer"}};

static double from_report(const json_t *report, const wf_metric *m, const char *figure)
{
    const json_t *classes = json_object_get(report, "classes");
    const char *average = m->average != NULL                   ? m->average
                          : json_object_get(classes, "binary") ? "binary"
                                                               : "macro";
    const json_t *of = json_object_get(json_object_get(classes, average), figure);

    if (json_is_number(of))
        return json_number_value(of);
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
                               .max_new_tokens = m->max_new_tokens,
                               .threads = r->o->threads};
    flow_result made = {0};
    dr_status st = DR_OK;

    DR_TRY(flow_evaluate(&made, &e));
    for (size_t i = 0; i < m->figure_count; i++)
        if (isnan(values[i] = from_report(made.report, m, m->figures[i].name)))
            DR_FAIL(DR_EUNSUPPORTED, "%s has no %s%s%s", m->task ? m->task : "the text",
                    m->figures[i].name, m->average ? ", average " : "",
                    m->average ? m->average : "");
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

dr_status run_bytes(double *value, const run_model *model)
{
    dr_arena a = {0};
    const char *own = dr_path_join(&a, model->path, "model");
    const char *adapter = dr_path_join(&a, model->path, "adapter");
    const bool vendors = pass_kind_is_vendors(model->kind);
    const char *end = strrchr(model->path, '.');
    const char *data =
        vendors && end != NULL
            ? dr_arena_printf(&a, "%.*s.bin", (int)(end - model->path), model->path)
            : dr_arena_printf(&a, "%s.data", model->path);
    bool result = model->parent != NULL;
    dr_status st = DR_OK;

    *value = 0;
    DR_TRY(bytes_below(value, result ? own : model->path));
    if (result && dr_is_dir(adapter))
        DR_TRY(bytes_below(value, adapter));
    if (!result && dr_is_file(data) && strcmp(data, model->path) != 0) /* of its file */
        DR_TRY(bytes_below(value, data));
done:
    dr_arena_release(&a);
    return st;
}

/* ---- times ---- */

const char *run_graph_folder(dr_arena *a, const run_model *model)
{
    const char *inside = dr_path_join(a, model->path, "model");

    return dr_is_dir(inside) ? inside : model->path;
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

/* A figure of one metric from what was timed. */
static run_value figure_of(const wf_metric *m, const char *name, const timing *t,
                           const run_value *own)
{
    const bool decode = strcmp(name, "decode") == 0;
    const double tokens = strcmp(name, "prefill") == 0 ? m->prompt_tokens : 1;
    double *lists[2] = {NULL, NULL};
    const size_t n = t->count;

    for (int side = 0; side < (own != NULL ? 2 : 1); side++) {
        const double *s = decode ? t->later[side] : t->first[side];
        lists[side] = dr_calloc(n, sizeof(double));
        for (size_t i = 0; i < n; i++)
            lists[side][i] = m->kind == WF_LATENCY ? s[i] * 1e3 : tokens / s[i];
    }
    const char *statistic = decode || strcmp(name, "prefill") == 0 ? "p50" : name;
    run_value v = timing_figure(statistic, lists[0], lists[1], n, own ? own->value : 0);
    free(lists[0]);
    free(lists[1]);
    return v;
}

static dr_status measure_times(run_value *values, const run *r, const wf_metric *m,
                               const run_model *model, const run_model *beside,
                               const run_value *own)
{
    dr_arena a = {0};
    timing_plan p = {.model = run_graph_folder(&a, model),
                     .beside = beside != NULL ? run_graph_folder(&a, beside) : NULL,
                     .warmup = m->warmup,
                     .repeats = m->repeats,
                     .prompt_tokens = m->prompt_tokens,
                     .sleep_s = m->sleep_s,
                     .threads = r->o->threads};
    timing t = {0};
    dr_status st = DR_OK;

    for (size_t i = 0; i < m->figure_count; i++)
        if (strcmp(m->figures[i].name, "decode") == 0)
            p.new_tokens = m->new_tokens;
    DR_TRY(need_genai(&a, p.model));
    if (p.beside != NULL)
        DR_TRY(need_genai(&a, p.beside));
    DR_TRY(timing_take(&t, &p));
    for (size_t i = 0; i < m->figure_count; i++)
        values[i] = figure_of(m, m->figures[i].name, &t, beside ? &own[i] : NULL);
done:
    timing_release(&t);
    dr_arena_release(&a);
    return st;
}

/* What one run with it adds to a process. */
dr_status run_peak_bytes(double *value, const run_model *model)
{
    ort_check_result got = {0};
    dr_arena a = {0};
    ort_check_request ask = {.dir = run_graph_folder(&a, model), .genai = true};
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
    const int from = open(in, O_RDONLY | O_CLOEXEC);
    const int to = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const dr_program program = {
        .argv = m->command, .in = from, .out = to, .err = -1, .death = SIGKILL};
    pid_t child = 0;
    int status = 0, failed = 0;
    dr_status st = DR_OK;

    if (from < 0 || to < 0)
        DR_FAIL(DR_EIO, "%s: %s", from < 0 ? in : out, strerror(errno));
    DR_TRY(dr_program_begin(&child, &failed, &program));
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
    if (from >= 0)
        (void)close(from);
    if (to >= 0)
        (void)close(to);
    return st;
}

static dr_status measure_command(double *values, const run *r, const wf_metric *m,
                                 const run_model *model)
{
    dr_arena a = {0};
    char host[64] = "";
    const char *inside = dr_path_join(&a, model->path, "model");
    json_t *names = json_array(), *answer = NULL;
    bool folder = model->parent != NULL && dr_exists(inside);
    json_t *ask = json_pack("{s:s, s:s, s:o}", "metric", m->name, "model_path",
                            folder ? inside : model->path, "figures", names);
    dr_status st = DR_OK;

    (void)gethostname(host, sizeof(host) - 1); /* a cache may be shared by hosts */
    const char *in =
        dr_arena_printf(&a, "%s/ask-%s-%d.json", r->cache.dir, host, (int)getpid());
    const char *out =
        dr_arena_printf(&a, "%s/answer-%s-%d.json", r->cache.dir, host, (int)getpid());
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

bool run_is_clocked(const wf_metric *m)
{
    return m->kind == WF_LATENCY || m->kind == WF_THROUGHPUT;
}

bool run_is_timed(const wf_metric *m)
{
    return run_is_clocked(m) || m->kind == WF_MEMORY;
}

dr_status run_measure(run_value *values, const run *r, const wf_metric *m,
                      const run_model *model, const run_model *beside, const run_value *own)
{
    double *exact = dr_calloc(m->figure_count + 1, sizeof(*exact));
    dr_status st = DR_OK;

    for (size_t i = 0; i < m->figure_count; i++)
        exact[i] = NAN;
    if (!run_is_timed(m) || model->kind == PASS_MODEL_ONNX) {
        switch (m->kind) {
        case WF_ACCURACY:
            DR_TRY(measure_accuracy(exact, r, m, model));
            break;
        case WF_LATENCY:
        case WF_THROUGHPUT:
            DR_TRY(measure_times(values, r, m, model, beside, own));
            goto done;
        case WF_SIZE:
            DR_TRY(run_bytes(exact, model));
            break;
        case WF_MEMORY:
            DR_TRY(run_peak_bytes(exact, model));
            break;
        case WF_CUSTOM:
            DR_TRY(measure_command(exact, r, m, model));
            break;
        }
    }
    for (size_t i = 0; i < m->figure_count; i++)
        values[i] = (run_value){exact[i], exact[i], exact[i]};
done:
    free(exact);
    return st;
}
