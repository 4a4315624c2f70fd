/*
 * extract_adapters_pass.c - the ExtractAdapters pass: a graph with LoRA products in it,
 * made elsewhere, as a graph that takes adapters, and its own adapter as a file beside it.
 *
 * Olive's pass of this name leaves external weights and GenAI's files behind; here the
 * result is a folder that loads.
 */
#include <string.h>

#include "core/file.h"
#include "onnx/onnx.h"
#include "ort/ort.h"
#include "pass/export_impl.h"
#include "pass/rewrite_impl.h"

typedef struct {
    int adapter_type, adapter_format;
} extract;

enum { LORA };
static const char *const types[] = {"lora", "dora", "loha", NULL};
enum { ADAPTER, SAFETENSORS, NUMPY, PICKLE };
static const char *const formats[] = {"onnx_adapter", "safetensors", "numpy", "pt", NULL};

static const dr_param params[] = {
    DR_CHOICE(extract, adapter_type, .dflt = "lora", .choices = types,
              .help = "what the graph has; dora and loha are refused: their weights are "
                      "computed from factors that a graph without them lacks"),
    DR_CHOICE(extract, adapter_format, .dflt = "onnx_adapter", .choices = formats,
              .help = "of adapter_weights; pt is refused: pickled files are not written"),
};

static dr_status validate(const void *config, const unsigned char *given)
{
    const extract *c = config;

    (void)given;
    if (c->adapter_type != LORA)
        return dr_fail(DR_EUNSUPPORTED,
                       "adapter_type %s is not lifted out of graphs; the nearest is "
                       "auto-opt --adapter_path, which exports DoRA adapters as inputs",
                       types[c->adapter_type]);
    if (c->adapter_format == PICKLE)
        return dr_fail(DR_EUNSUPPORTED, "adapter_format pt: pickled files are not written; "
                                        "the nearest is safetensors");
    return DR_OK;
}

static dr_status check(const pass_job *job, const char *dir, const char *adapter)
{
    const bool genai = dr_is_file(dr_path_join(job->arena, dir, "genai_config.json"));
    const ort_check_request request = {.dir = dir,
                                       .genai = genai,
                                       .adapter_files = &adapter,
                                       .adapter_count = adapter != NULL};
    ort_check_result result = {0};
    dr_status st = DR_OK;

    if (!job->check)
        return pass_tell_not_checked(job, "--no_check");
    DR_TRYF(ort_check(&result, &request), "checking the model with lifted adapters");
    DR_TRY(pass_tell_check(job, &result));
done:
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    static const onnx_format kinds[] = {ONNX_ADAPTER_FILE, ONNX_ADAPTER_SAFETENSORS,
                                        ONNX_ADAPTER_NPZ};
    const extract *c = job->config;
    const onnx_format format = kinds[c->adapter_format];
    const char *dir = dr_path_join(job->arena, job->out_dir, "model");
    const char *adapter =
        dr_arena_printf(job->arena, "adapter_weights%s", onnx_adapter_suffix(format));
    onnx_lifted lifted = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(dir));
    DR_TRY(onnx_lift_adapter(&lifted, job->arena, pass_graph_path(job, in), dir, adapter,
                             format));
    DR_TRY(pass_place_files(job, dir, in->path, lifted.files));
    DR_TRY(dr_buf_addf(job->text, "adapter        %zu modules, rank %zu", lifted.modules,
                       lifted.rank_min));
    if (lifted.rank_max != lifted.rank_min)
        DR_TRY(dr_buf_addf(job->text, " to %zu", lifted.rank_max));
    DR_TRY(dr_buf_addf(job->text, ", %s\n", adapter));
    json_object_set_new(job->report, "adapter_modules",
                        json_integer((json_int_t)lifted.modules));
    json_object_set_new(job->report, "adapter_file", json_string(adapter));
    DR_TRY(check(job, dir, format == ONNX_ADAPTER_FILE ? adapter : NULL));
    *out = (pass_model){.kind = PASS_MODEL_ONNX, .path = dir, .name = in->name};
done:
    return st;
}

extern const pass_def pass_extract_adapters; /* PASS(extract_adapters) */
const pass_def pass_extract_adapters = {
    .name = "ExtractAdapters",
    .version = 1,
    .summary = "LoRA products of a graph as optional inputs and a file",
    .takes = PASS_MODEL_ONNX,
    .gives = PASS_MODEL_ONNX,
    .config_size = sizeof(extract),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .run = run,
};
