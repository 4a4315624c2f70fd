/*
 * session_tuning_pass.c - the OrtSessionParamsTuning pass: which settings of a session run
 * a graph fastest on this machine.
 *
 * Each combination takes turns with the runtime's defaults (ort/tune.c).  The one with the
 * least median, as a share of the default's beside it, is taken where it saves MARGIN or
 * more.  The graph stays as it is; the settings are Olive's inference_settings in
 * model_config.json, and session_options of genai_config.json where there is one.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "ort/ort.h"
#include "pass/rewrite_impl.h"

enum { COMBINATIONS_MAX = 64, WARMUP = 5, REPEATS = 20, TOKENS = 16, THREADS_MAX = 1024 };
#define MARGIN 0.02

typedef struct {
    pass_external external;
    const char *intra_thread_num_list, *inter_thread_num_list;
    const char *execution_mode_list, *opt_level_list;
    int cpu_cores, device;
    const char *providers_list;
    bool io_bind, enable_cuda_graph, trt_fp16_enable;
} tuning;

static const char *const devices[] = {"cpu", "gpu", "npu", NULL};

static const dr_param params[] = {
    DR_STR(tuning, intra_thread_num_list, .dflt = "null", .listed = true,
           .help = "threads within a node; null: 1, 2, 4 and so on, and cpu_cores"),
    DR_STR(tuning, inter_thread_num_list, .dflt = "null", .listed = true,
           .help = "threads among nodes, for execution mode 1; null: the runtime's"),
    DR_STR(tuning, execution_mode_list, .dflt = "null", .listed = true,
           .help = "0 nodes in order, 1 beside each other; null: 0"),
    DR_STR(tuning, opt_level_list, .dflt = "null", .listed = true,
           .help = "graph optimizations, 0, 1, 2 or 99 (all); null: 99"),
    DR_INT(tuning, cpu_cores, .dflt = "0", .max = THREADS_MAX,
           .help = "most threads that are tried by themselves; 0: the machine's cores"),
    DR_CHOICE(tuning, device, .dflt = "cpu", .choices = devices,
              .help = "cpu; others are refused"),
    DR_STR(tuning, providers_list, .dflt = "null", .listed = true,
           .help = "CPUExecutionProvider; others are refused"),
    DR_BOOL(tuning, io_bind, .dflt = "false", .help = "true is refused"),
    DR_BOOL(tuning, enable_cuda_graph, .dflt = "false", .help = "true is refused"),
    DR_BOOL(tuning, trt_fp16_enable, .dflt = "false", .help = "true is refused"),
    DR_REFUSED("provider_options_list", "the CPU's provider has none", NULL),
    DR_REFUSED("extra_session_config", "four settings are tried", NULL),
    DR_REFUSED("force_evaluate_other_eps", "one provider is tried", NULL),
    DR_REFUSED("enable_profiling", "profiles are not kept", NULL),
    PASS_EXTERNAL_ROWS,
};

/* ---- what is tried ---- */

typedef struct {
    const int64_t *list; /* arena */
    size_t count;
} numbers;

/* NULL text: the values of `own`.  Each is one of `allowed` (ends with -1), or, where that
 * is NULL, from 1 to THREADS_MAX. */
static dr_status read_list(numbers *out, dr_arena *a, const char *text, const char *name,
                           numbers own, const int64_t *allowed)
{
    dr_status st = DR_OK;

    *out = own;
    if (text == NULL)
        return DR_OK;
    DR_TRY(pass_integers(a, &out->list, &out->count, text, name));
    for (size_t i = 0; i < out->count; i++) {
        const int64_t v = out->list[i];
        bool good = allowed == NULL && v >= 1 && v <= THREADS_MAX;
        for (const int64_t *k = allowed; k != NULL && *k >= 0; k++)
            good = good || *k == v;
        if (!good)
            DR_FAIL(DR_EUSAGE, "%s: %lld is none of its values", name, (long long)v);
        for (size_t k = 0; k < i; k++)
            if (out->list[k] == v)
                DR_FAIL(DR_EUSAGE, "%s: %lld is there twice", name, (long long)v);
    }
done:
    return st;
}

/* 1, 2, 4, ..., and all cores. */
static numbers all_threads(dr_arena *a, const tuning *c)
{
    long cores = c->cpu_cores > 0 ? c->cpu_cores : sysconf(_SC_NPROCESSORS_ONLN);
    int64_t *list = dr_arena_alloc(a, 16, sizeof(*list));
    size_t count = 0;

    cores = cores < 1 ? 1 : cores > THREADS_MAX ? THREADS_MAX : cores;
    for (int64_t n = 1; n < cores; n *= 2)
        list[count++] = n;
    list[count++] = cores;
    return (numbers){list, count};
}

static dr_status list_settings(ort_settings **out, size_t *count, dr_arena *a,
                               const tuning *c)
{
    static const int64_t zero[] = {0}, minus[] = {-1};
    static const int64_t modes[] = {0, 1, -1}, levels[] = {0, 1, 2, 99, -1};
    numbers intra, inter, mode, level;
    dr_status st = DR_OK;

    DR_TRY(read_list(&intra, a, c->intra_thread_num_list, "intra_thread_num_list",
                     all_threads(a, c), NULL));
    DR_TRY(read_list(&inter, a, c->inter_thread_num_list, "inter_thread_num_list",
                     (numbers){zero, 1}, NULL));
    DR_TRY(read_list(&mode, a, c->execution_mode_list, "execution_mode_list",
                     (numbers){zero, 1}, modes));
    DR_TRY(read_list(&level, a, c->opt_level_list, "opt_level_list", (numbers){minus, 1},
                     levels));
    *count = intra.count * inter.count * mode.count * level.count;
    if (*count > COMBINATIONS_MAX)
        DR_FAIL(DR_EUSAGE, "%zu combinations of settings; %d at most", *count,
                COMBINATIONS_MAX);
    ort_settings *list = dr_arena_alloc(a, *count, sizeof(*list));
    for (size_t i = 0; i < *count; i++) {
        size_t k = i;
        list[i].level = (int)level.list[k % level.count];
        k /= level.count;
        list[i].parallel = mode.list[k % mode.count] == 1;
        k /= mode.count;
        list[i].inter_threads = (int)inter.list[k % inter.count];
        list[i].intra_threads = (int)intra.list[k / inter.count];
    }
    *out = list;
done:
    return st;
}

static dr_status validate(const void *config, const unsigned char *given)
{
    const tuning *c = config;
    ort_settings *list = NULL;
    size_t count = 0;
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(pass_external_validate(config, given));
    if (c->device > 0 || (c->providers_list != NULL &&
                          strcmp(c->providers_list, "CPUExecutionProvider") != 0))
        DR_FAIL(DR_EUNSUPPORTED, "%s: sessions are tuned for CPUExecutionProvider",
                c->device > 0 ? devices[c->device] : c->providers_list);
    if (c->io_bind || c->enable_cuda_graph || c->trt_fp16_enable)
        DR_FAIL(DR_EUNSUPPORTED, "%s: CPUExecutionProvider has no such setting",
                c->io_bind             ? "io_bind"
                : c->enable_cuda_graph ? "enable_cuda_graph"
                                       : "trt_fp16_enable");
    DR_TRY(list_settings(&list, &count, &a, c));
done:
    dr_arena_release(&a);
    return st;
}

/* ---- which is best ---- */

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* Sorts them. */
static double median(double *values, size_t n)
{
    qsort(values, n, sizeof(*values), by_value);
    return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

static json_t *options_json(const ort_settings *s)
{
    json_t *j = json_pack("{s:i}", "execution_mode", s->parallel ? 1 : 0);

    if (s->level >= 0)
        json_object_set_new(j, "graph_optimization_level", json_integer(s->level));
    if (s->inter_threads > 0)
        json_object_set_new(j, "inter_op_num_threads", json_integer(s->inter_threads));
    json_object_set_new(j, "intra_op_num_threads", json_integer(s->intra_threads));
    return j;
}

/* A line and an entry for each; *best: the fastest, NULL where the defaults are as fast. */
static dr_status judge(const ort_settings **best, const pass_job *job,
                       const ort_settings *list, size_t count, double *seconds)
{
    json_t *all = json_array();
    double least = 1 - MARGIN;
    dr_status st = DR_OK;

    *best = NULL;
    for (size_t i = 0; i < count; i++) {
        double plain = median(seconds + 2 * i * REPEATS, REPEATS);
        double own = median(seconds + (2 * i + 1) * REPEATS, REPEATS);
        json_t *one =
            json_pack("{s:o, s:f, s:f}", "session_options", options_json(&list[i]),
                      "milliseconds", 1e3 * own, "default_milliseconds", 1e3 * plain);
        json_array_append_new(all, one);
        DR_TRY(dr_buf_addf(job->text,
                           "setting        %d threads, %d among nodes, mode %d, level %d: "
                           "%.3f ms (default %.3f)\n",
                           list[i].intra_threads, list[i].inter_threads, list[i].parallel,
                           list[i].level < 0 ? 99 : list[i].level, 1e3 * own, 1e3 * plain));
        if (own < plain * least) {
            least = own / plain;
            *best = &list[i];
        }
    }
    DR_TRY(dr_buf_addf(job->text, "chosen         %s\n",
                       *best == NULL
                           ? "the runtime's defaults"
                           : dr_arena_printf(job->arena, "setting %zu, %.0f %% faster",
                                             (size_t)(*best - list) + 1,
                                             100 * (1 / least - 1))));
    json_object_set(job->report, "settings", all);
done:
    json_decref(all);
    return st;
}

/* ---- where it is written ---- */

static const char *settings_text(dr_arena *a, const ort_settings *best)
{
    json_t *j = json_pack("{s:[s], s:[{}], s:b}", "execution_provider",
                          "CPUExecutionProvider", "provider_options", "io_bind", 0);

    if (best != NULL)
        json_object_set_new(j, "session_options", options_json(best));
    char *text = json_dumps(j, JSON_COMPACT);
    const char *copy = dr_arena_strdup(a, text);
    free(text);
    json_decref(j);
    return copy;
}

/* GenAI reads them where it makes its sessions. */
static dr_status tell_genai(const pass_job *job, const char *dir, const ort_settings *best)
{
    static const char *const levels[] = {"ORT_DISABLE_ALL", "ORT_ENABLE_BASIC",
                                         "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"};
    const char *path = dr_path_join(job->arena, dir, "genai_config.json");
    json_t *j = NULL;
    dr_status st = DR_OK;

    if (best == NULL || !dr_is_file(path))
        return DR_OK;
    DR_TRY(dr_json_read(&j, path));
    json_t *decoder = json_object_get(json_object_get(j, "model"), "decoder");
    json_t *options = json_object_get(decoder, "session_options");
    if (!json_is_object(options))
        DR_FAIL(DR_EFORMAT, "%s: no session_options of a decoder", path);
    json_object_set_new(options, "intra_op_num_threads", json_integer(best->intra_threads));
    if (best->inter_threads > 0)
        json_object_set_new(options, "inter_op_num_threads",
                            json_integer(best->inter_threads));
    if (best->level >= 0)
        json_object_set_new(options, "graph_optimization_level",
                            json_string(levels[best->level > 2 ? 3 : best->level]));
    DR_TRY(dr_json_write(path, j));
done:
    json_decref(j);
    return st;
}

static dr_status nothing(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    (void)e;
    (void)job;
    (void)in;
    return DR_OK;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const tuning *c = job->config;
    const bool genai = dr_is_file(dr_path_join(job->arena, in->path, "genai_config.json"));
    const ort_settings *best = NULL;
    ort_settings *list = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    DR_TRY(list_settings(&list, &count, job->arena, c));
    for (size_t i = 0; i < count; i++)
        if (genai && list[i].parallel)
            DR_FAIL(DR_EUSAGE,
                    "execution_mode_list: %s is for GenAI, which has mode 0 only",
                    in->name);
    double *seconds = dr_arena_alloc(job->arena, 2 * count * REPEATS, sizeof(*seconds));
    const ort_tune_request q = {.model_path = pass_graph_path(job, in),
                                .list = list,
                                .count = count,
                                .warmup = WARMUP,
                                .repeats = REPEATS,
                                .tokens = TOKENS};
    DR_TRYF(ort_tune(seconds, &q), "timing %zu settings", count);
    DR_TRY(judge(&best, job, list, count, seconds));
    DR_TRY(pass_rewrite(job, out, in, nothing));
    DR_TRY(tell_genai(job, out->path, best));
    out->settings = settings_text(job->arena, best);
done:
    return st;
}

extern const pass_def pass_session_tuning; /* PASS(session_tuning) */
const pass_def pass_session_tuning = {
    .name = "OrtSessionParamsTuning",
    .version = 1,
    .summary = "the fastest settings of a session on this machine",
    PASS_REWRITE(tuning, params),
    .clocked = true,
    .validate = validate,
    .run = run,
};
