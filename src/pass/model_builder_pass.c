/*
 * model_builder_pass.c - the ModelBuilder pass: Hugging Face model and adapters in, an ONNX
 * folder for ONNX Runtime (GenAI) out, loaded and run before it is handed on.
 */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "core/mem.h"
#include "pass/export_impl.h"
#include "pass/shared_impl.h"

enum { MARGIN_BYTES = 16 << 20 }; /* the graph, side files, buffers */

typedef struct {
    int precision;
    int int4_block_size;
    bool int4_is_symmetric;
    int int4_accuracy_level;
    const char *min_ort_version;
    bool use_ort_genai;
    int max_length;
} builder;

static const char *const precisions[] = {"fp32", "int4", NULL};

static const dr_param params[] = {
    DR_CHOICE(builder, precision, .dflt = "null", .choices = precisions,
              .help = "default: int4 on a quantized base, else fp32"),
    DR_INT(builder, int4_block_size, .dflt = "32", .search = "[32, 64, 128]", .min = 16,
           .max = 256, .help = "weights that share a scale, where the base has none"),
    DR_BOOL(builder, int4_is_symmetric, .dflt = "true", .help = "no zero points, likewise"),
    DR_INT(builder, int4_accuracy_level, .dflt = "4", .max = 4,
           .help = "0 unset, 1 float, 4 int8 activations (fastest)"),
    DR_STR(builder, min_ort_version, .dflt = "null",
           .help = "oldest onnxruntime that must load the model, such as 1.20"),
    DR_BOOL(builder, use_ort_genai, .dflt = "false",
            .help = "genai_config.json and tokenizer for onnxruntime-genai"),
    DR_INT(builder, max_length, .dflt = "0", .max = 1 << 24,
           .help = "search.max_length; 0: the context, at most 4096"),
    DR_REFUSED("metadata_only", "the graph is always written", "use_ort_genai"),
    DR_REFUSED("search", "its members come later", "max_length"),
    DR_REFUSED("int4_op_types_to_quantize", "choosing operators comes later", NULL),
    DR_REFUSED("int4_nodes_to_exclude", "choosing nodes comes later", NULL),
    DR_REFUSED("int4_algo_config", "other roundings of the graph come later", NULL),
    DR_REFUSED("use_qdq", "QDQ forms come with NPU targets", NULL),
    DR_REFUSED("use_8bits_moe", "mixtures of experts come later", NULL),
    DR_REFUSED("use_webgpu_fp32", "WebGPU targets come later", NULL),
    DR_REFUSED("use_cuda_bf16", "CUDA targets come later", NULL),
    DR_REFUSED("include_hidden_states", "other outputs come later", NULL),
    DR_REFUSED("exclude_embeds", "graphs without embeddings come later", NULL),
    DR_REFUSED("exclude_lm_head", "graphs without a head come later", NULL),
    DR_REFUSED("enable_cuda_graph", "CUDA targets come later", NULL),
    DR_REFUSED("extra_options", "the builder's options have names of their own",
               "int4_block_size"),
};

static dr_status parse_ort_version(int *minor, const char *text)
{
    char *end = NULL;
    long v = 0;

    *minor = 0;
    if (text == NULL)
        return DR_OK;
    if (strncmp(text, "1.", 2) == 0)
        v = strtol(text + 2, &end, 10);
    if (end == NULL || end == text + 2 || (*end != '\0' && *end != '.') || v < 1 || v > 999)
        return dr_fail(DR_EUSAGE, "min_ort_version: expected such as 1.20, found \"%s\"",
                       text);
    if (v < 20)
        return dr_fail(DR_EUSAGE,
                       "min_ort_version %s: 1.20 is the oldest that loads adapters", text);
    *minor = (int)v;
    return DR_OK;
}

/* What only an int4 graph has, asked of one that is fp32. */
static dr_status check_int4_rows(const unsigned char *given)
{
    size_t i = 0;
    dr_status st = DR_OK;

    for (; given != NULL && i < DR_COUNT(params); i++) {
        if (given[i] && strncmp(params[i].name, "int4_", 5) == 0)
            break;
    }
    if (given == NULL || i == DR_COUNT(params))
        return DR_OK;
    st = dr_fail(DR_EUSAGE, "%s has no effect on a graph in fp32", params[i].name);
    dr_hint("give --precision int4, or start from a quantized model");
    return st;
}

static bool was_given(const unsigned char *given, const char *name)
{
    const dr_param *p = dr_param_find(params, DR_COUNT(params), name);

    return given != NULL && given[p - params];
}

static dr_status validate(const void *config, const unsigned char *given)
{
    const builder *c = config;
    int minor = 0, b = c->int4_block_size;
    dr_status st = DR_OK;

    if ((b & (b - 1)) != 0)
        DR_FAIL(DR_EUSAGE, "int4_block_size: expected 16, 32, 64, 128 or 256, found %d", b);
    if (c->int4_accuracy_level == 2 || c->int4_accuracy_level == 3)
        DR_FAIL(
            DR_EUSAGE,
            "int4_accuracy_level: %d is a half-precision level, which no CPU kernel has; "
            "use 0, 1 or 4",
            c->int4_accuracy_level);
    if (c->precision == ONNX_FP32)
        DR_TRY(check_int4_rows(given));
    if (!c->use_ort_genai && was_given(given, "max_length"))
        DR_FAIL(DR_EUSAGE, "max_length has no effect without use_ort_genai");
    DR_TRY(parse_ort_version(&minor, c->min_ort_version));
done:
    return st;
}

/* Opens every adapter against the model and names it. */
static dr_status open_adapters(const pass_model *in, const hf_model *m,
                               hf_adapter *adapters, onnx_named_adapter *named)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < in->adapter_count; i++) {
        const pass_adapter *a = &in->adapters[i];
        if (a->name == NULL && in->adapter_count > 1)
            DR_FAIL(DR_EUSAGE, "adapter %s has no name; several need NAME=PATH each",
                    a->path);
        DR_TRY(hf_adapter_open(&adapters[i], a->path, m));
        named[i].name = a->name != NULL ? a->name : "adapter_weights";
        named[i].adapter = &adapters[i];
    }
done:
    return st;
}

static dr_status tell(const pass_job *job, const onnx_report *r, const onnx_options *o)
{
    json_t *j = job->report;
    dr_status st = DR_OK;

    for (size_t i = 0; i < r->note_count; i++)
        dr_log(DR_INFO, "%s", r->notes[i]);
    DR_TRY(dr_buf_addf(job->text, "precision      %s\n", precisions[o->precision]));
    DR_TRY(dr_buf_addf(job->text, "graph          %zu nodes, opset %d, %llu bytes\n",
                       r->nodes, r->opset, (unsigned long long)r->graph_bytes));
    DR_TRY(dr_buf_addf(job->text, "weights        %llu bytes\n",
                       (unsigned long long)r->data_bytes));
    if (o->adapter_count > 0)
        DR_TRY(dr_buf_addf(job->text, "adapters       %zu, %llu bytes\n", o->adapter_count,
                           (unsigned long long)r->adapter_bytes));
    json_object_set_new(j, "precision", json_string(precisions[o->precision]));
    json_object_set_new(j, "opset", json_integer(r->opset));
    json_object_set_new(j, "nodes", json_integer((json_int_t)r->nodes));
    json_object_set_new(j, "graph_bytes", json_integer((json_int_t)r->graph_bytes));
    json_object_set_new(j, "weight_bytes", json_integer((json_int_t)r->data_bytes));
    json_object_set_new(j, "adapter_bytes", json_integer((json_int_t)r->adapter_bytes));
done:
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const builder *c = job->config;
    const char *dir = dr_path_join(job->arena, job->out_dir, "model");
    hf_adapter *adapters = dr_calloc(in->adapter_count, sizeof(*adapters));
    onnx_named_adapter *named =
        dr_arena_alloc(job->arena, in->adapter_count, sizeof(*named));
    onnx_report report = {0};
    tok_tokenizer *tok = NULL;
    hf_model *m = NULL;
    dr_pool *pool = NULL;
    dr_status st = DR_OK;

    DR_TRYF(hf_model_open(&m, in->path), "opening the model to export");
    DR_TRY(open_adapters(in, m, adapters, named));
    bool packed = hf_model_quant(m).method != HF_QUANT_NONE;
    if (!packed && c->precision < 0)
        DR_TRY(check_int4_rows(job->given));
    if (packed && c->precision == ONNX_FP32)
        DR_FAIL(DR_EUSAGE, "precision fp32: %s is quantized (%s); leave precision out",
                in->name, hf_model_origin(m));
    if (hf_unordered_linears(m) > 0)
        dr_warn_result("%s: %zu linears have their inputs out of the order of their groups "
                       "(desc_act); they become floats and are rounded again",
                       in->name, hf_unordered_linears(m));
    onnx_options o = {.precision = packed ? ONNX_INT4 : ONNX_FP32,
                      .block_size = c->int4_block_size,
                      .symmetric = c->int4_is_symmetric,
                      .accuracy_level = c->int4_accuracy_level,
                      .genai = c->use_ort_genai,
                      .max_length = c->max_length,
                      .adapters = named,
                      .adapter_count = in->adapter_count};
    if (c->precision >= 0)
        o.precision = (onnx_precision)c->precision;
    DR_TRY(parse_ort_version(&o.min_ort_minor, c->min_ort_version));
    if (o.genai && job->check)
        DR_TRYF(pass_open_tokenizer(&tok, m,
                                    "without it GenAI takes and gives ids only: leave "
                                    "use_ort_genai out, or give --no_check"),
                "reading the tokenizer, which use_ort_genai needs");
    DR_TRY(dr_pool_open(&pool, job->threads));
    DR_TRY(dr_make_dirs(dir));
    DR_TRYF(onnx_build(&report, dir, m, pool, &o), "writing ONNX");
    DR_TRY(tell(job, &report, &o));
    if (job->check)
        DR_TRY(pass_check_export(job, dir, named, in->adapter_count, tok));
    else
        DR_TRY(pass_tell_not_checked(job, "--no_check"));
    *out = (pass_model){.kind = PASS_MODEL_ONNX, .path = dir, .name = in->name};
done:
    for (size_t i = 0; i < in->adapter_count; i++)
        hf_adapter_release(&adapters[i]);
    free(adapters);
    onnx_report_release(&report);
    dr_pool_close(pool);
    tok_close(tok);
    hf_model_close(m);
    return st;
}

static dr_status estimate(const pass_job *job, const pass_model *in, pass_need *need)
{
    const builder *c = job->config;
    hf_model *m = NULL;
    dr_status st = DR_OK;

    DR_TRY(hf_model_open(&m, in->path));
    const hf_config *cfg = hf_model_config(m);
    bool packed = hf_model_quant(m).method != HF_QUANT_NONE;
    uint64_t embed = pass_embed_elements(cfg);
    uint64_t linears = pass_layer_elements(cfg) * (uint64_t)cfg->layers;
    if (packed || c->precision == ONNX_INT4) /* the embedding may stay float */
        need->disk = 4 * embed + (linears + embed) * 5 / 8;
    else
        need->disk = 4 * (linears + (cfg->tied ? 1 : 2) * embed);
    need->disk += MARGIN_BYTES;
    need->memory = embed / 2 + MARGIN_BYTES;
    if (job->check && need->memory < need->disk) /* the runtime loads it whole */
        need->memory = need->disk;
done:
    hf_model_close(m);
    return st;
}

extern const pass_def pass_model_builder; /* PASS(model_builder) in pass/passes.def */
const pass_def pass_model_builder = {
    .name = "ModelBuilder",
    .version = 1,
    .summary = "decoder models as ONNX graphs for ONNX Runtime GenAI",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_ONNX,
    .config_size = sizeof(builder),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .estimate = estimate,
    .run = run,
};
