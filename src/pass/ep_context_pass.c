/*
 * ep_context_pass.c - the EPContextBinaryGenerator pass: a graph that its provider of ONNX
 * Runtime has compiled, so that a session on the vendor's hardware need not.
 */
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "onnx/onnx.h"
#include "ort/ort.h"
#include "pass/rewrite_impl.h"
#include "pass/vendor_impl.h"

typedef struct {
    const char *provider;
    bool embed_context, weight_sharing;
    const char *provider_options, *session_options;
    bool disable_cpu_fallback, update_genai_config;
} ep_context;

static const dr_param params[] = {
    DR_STR(ep_context, provider, .dflt = "QNNExecutionProvider",
           .help = "QNN, OpenVINO or VitisAIExecutionProvider, whose library is found "
                   "beside the runtime; a workflow's target says it, too"),
    DR_BOOL(ep_context, embed_context, .dflt = "false",
            .help = "what is compiled lies in the graph; false: in a file beside it"),
    DR_BOOL(ep_context, weight_sharing, .dflt = "false",
            .help = "of models in parts; true is refused"),
    DR_STR(ep_context, provider_options, .dflt = "null", .json = true,
           .help = "{\"soc_model\": \"60\", ...}: options of the provider"),
    DR_STR(ep_context, session_options, .dflt = "null", .json = true,
           .help = "{\"session.NAME\": \"1\", ...}: entries of the session's config"),
    DR_BOOL(ep_context, disable_cpu_fallback, .dflt = "false",
            .help = "an error where a node is left for the CPU"),
    DR_BOOL(ep_context, update_genai_config, .dflt = "false",
            .help = "of pipelines of several graphs; true is refused"),
};

typedef struct {
    ort_option *list; /* arena */
    size_t count;
} options;

static dr_status read_options(options *out, dr_arena *a, const char *text,
                              const char *label)
{
    json_t *j = NULL, *value;
    const char *key;
    dr_status st = DR_OK;

    *out = (options){0};
    if (text == NULL)
        return DR_OK;
    DR_TRY(dr_json_parse(&j, text, strlen(text), label));
    if (!json_is_object(j))
        DR_FAIL(DR_EUSAGE, "%s: expected an object, found %s", label, dr_json_type(j));
    out->list = dr_arena_alloc(a, json_object_size(j) + 1, sizeof(*out->list));
    json_object_foreach(j, key, value)
    {
        const char *one = json_string_value(value);
        if (json_is_boolean(value))
            one = json_is_true(value) ? "1" : "0";
        else if (json_is_integer(value))
            one = dr_arena_printf(a, "%lld", (long long)json_integer_value(value));
        else if (one == NULL)
            DR_FAIL(DR_EUSAGE, "%s: %s: expected text, found %s", label, key,
                    dr_json_type(value));
        if (strncmp(key, "ep.context_", strlen("ep.context_")) == 0)
            DR_FAIL(DR_EUSAGE, "%s: the pass sets %s itself", label, key);
        out->list[out->count++] =
            (ort_option){dr_arena_strdup(a, key), dr_arena_strdup(a, one)};
    }
done:
    json_decref(j);
    return st;
}

static dr_status validate(const void *config, const unsigned char *given)
{
    const ep_context *c = config;
    options o;
    dr_arena a = {0};
    dr_status st = DR_OK;

    (void)given;
    if (c->provider == NULL || ort_plugin_library(c->provider) == NULL)
        DR_FAIL(DR_EUSAGE,
                "provider: expected QNNExecutionProvider, OpenVINOExecutionProvider or "
                "VitisAIExecutionProvider, found %s",
                c->provider != NULL ? c->provider : "null");
    if (c->weight_sharing || c->update_genai_config)
        DR_FAIL(DR_EUNSUPPORTED, "%s true: graphs are compiled one by one",
                c->weight_sharing ? "weight_sharing" : "update_genai_config");
    DR_TRY(read_options(&o, &a, c->provider_options, "provider_options"));
    DR_TRY(read_options(&o, &a, c->session_options, "session_options"));
done:
    dr_arena_release(&a);
    return st;
}

/* The nodes that were compiled, and the others. */
static dr_status count_nodes(size_t *compiled, size_t *left, dr_arena *a, const char *graph)
{
    onnx_info info = {0};
    dr_status st = DR_OK;

    DR_TRY(onnx_inspect(a, &info, graph));
    for (size_t i = 0; i < info.op_count; i++)
        *(dr_ends_with(info.ops[i], "EPContext") ? compiled : left) += info.op_counts[i];
done:
    return st;
}

/* One graph, under its name. */
static dr_status compile(const pass_job *job, const pass_model *in, const char *name,
                         const char *dir)
{
    const ep_context *c = job->config;
    dr_arena *a = job->arena;
    const char *graph = dr_path_join(a, dir, name);
    options provider, session;
    size_t compiled = 0, left = 0;
    dr_status st = DR_OK;

    DR_TRY(read_options(&provider, a, c->provider_options, "provider_options"));
    DR_TRY(read_options(&session, a, c->session_options, "session_options"));
    const ort_context_request q = {.dst = graph,
                                   .src = pass_graph_path(job, in),
                                   .provider = c->provider,
                                   .embed = c->embed_context,
                                   .strict = c->disable_cpu_fallback,
                                   .provider_options = provider.list,
                                   .provider_count = provider.count,
                                   .session_options = session.list,
                                   .session_count = session.count};
    DR_TRYF(ort_context(&q), "compiling for %s", c->provider);
    DR_TRYF(count_nodes(&compiled, &left, a, graph), "reading the result");
    if (compiled == 0)
        DR_FAIL(DR_EDEVICE, "%s compiled nothing of %s", c->provider, in->name);
    DR_TRY(dr_buf_addf(job->text, "%-14s %zu EPContext nodes, %zu others, for %s\n",
                       in->parts != NULL ? name : "compiled", compiled, left, c->provider));
    json_object_set_new(job->report, in->parts != NULL ? name : "compiled",
                        json_pack("{s:I, s:I}", "contexts", (json_int_t)compiled, "others",
                                  (json_int_t)left));
done:
    return st;
}

static dr_status attributes(const char **out, const pass_job *job, const pass_model *in)
{
    const ep_context *c = job->config;
    json_t *more = json_pack("{s:s}", "ep", c->provider), *given = NULL;
    dr_status st = DR_OK;

    if (c->provider_options != NULL) {
        DR_TRY(dr_json_parse(&given, c->provider_options, strlen(c->provider_options),
                             "provider_options"));
        json_object_set(more, "provider_options", given);
        if (json_object_get(given, "soc_model") != NULL)
            json_object_set(more, "architecture", json_object_get(given, "soc_model"));
    }
    DR_TRY(vendor_attributes(out, job, in, json_incref(more)));
done:
    json_decref(more);
    json_decref(given);
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    static const char *const whole[] = {"model.onnx", NULL};
    const bool parts = in->kind == PASS_MODEL_PARTS;
    const char *const *names = parts ? in->parts : whole;
    const char *dir = dr_path_join(job->arena, job->out_dir, "model"), *more = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(dir));
    for (size_t i = 0; names[i] != NULL; i++) {
        pass_model one = *in;
        if (parts)
            one.file = names[i];
        DR_TRYF(compile(job, &one, names[i], dir), "%s", names[i]);
    }
    DR_TRY(attributes(&more, job, in));
    DR_TRY(pass_place_files(job, dir, in->path, NULL));
    *out = (pass_model){.kind = in->kind,
                        .path = dir,
                        .parts = in->parts,
                        .name = in->name,
                        .attributes = more};
done:
    return st;
}

extern const pass_def pass_ep_context; /* PASS(ep_context) */
const pass_def pass_ep_context = {
    .name = "EPContextBinaryGenerator",
    .version = 1,
    .summary = "a graph compiled by its provider of ONNX Runtime",
    .takes = PASS_MODEL_ONNX,
    .gives = PASS_MODEL_ONNX,
    .each_part = true,
    .provided = true,
    .config_size = sizeof(ep_context),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .run = run,
};
