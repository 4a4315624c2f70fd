/*
 * model_builder_pass.c - the ModelBuilder pass: Hugging Face model and adapters in, an ONNX
 * folder for ONNX Runtime (GenAI) out, loaded and run before it is handed on.
 */
#include <stdlib.h>

#include "core/file.h"
#include "core/log.h"
#include "core/mem.h"
#include "pass/annotations_impl.h"
#include "pass/builder_impl.h"
#include "pass/export_impl.h"
#include "pass/shared_impl.h"
#include "pass/splits_impl.h"

enum { MARGIN_BYTES = 16 << 20 }; /* the graph, side files, buffers */

static dr_status validate(const void *config, const unsigned char *given)
{
    onnx_options o;
    dr_arena a = {0};
    /* without a precision, what a packed model allows is let through until there is one */
    dr_status st = builder_read(&o, &a, config, given, true);

    dr_arena_release(&a);
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
    const char *precision = onnx_precision_name(o->precision);
    const char *provider = onnx_provider_name(o->provider);
    DR_TRY(dr_buf_addf(job->text, "precision      %s\n", precision));
    if (o->provider != ONNX_CPU)
        DR_TRY(dr_buf_addf(job->text, "provider       %s\n", provider));
    DR_TRY(dr_buf_addf(job->text, "graph          %zu nodes, opset %d, %llu bytes\n",
                       r->nodes, r->opset, (unsigned long long)r->graph_bytes));
    DR_TRY(dr_buf_addf(job->text, "weights        %llu bytes\n",
                       (unsigned long long)r->data_bytes));
    if (o->adapter_count > 0)
        DR_TRY(dr_buf_addf(job->text, "adapters       %zu, %llu bytes\n", o->adapter_count,
                           (unsigned long long)r->adapter_bytes));
    json_object_set_new(j, "precision", json_string(precision));
    json_object_set_new(j, "provider", json_string(provider));
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
    const builder_config *c = job->config;
    const char *dir = dr_path_join(job->arena, job->out_dir, "model");
    hf_adapter *adapters = dr_calloc(in->adapter_count, sizeof(*adapters));
    onnx_named_adapter *named =
        dr_arena_alloc(job->arena, in->adapter_count, sizeof(*named));
    const onnx_adapter_form form = {
        .dtype = c->adapter_precision == BUILDER_ADAPTER_FP16 ? DR_DTYPE_F16 : DR_DTYPE_F32,
        .int4 = c->adapter_precision == BUILDER_ADAPTER_INT4,
        .block = c->adapter_int4_block_size,
        .symmetric = c->adapter_int4_is_symmetric};
    onnx_report report = {0};
    onnx_options o = {0};
    tok_tokenizer *tok = NULL;
    hf_model *m = NULL;
    dr_pool *pool = NULL;
    dr_status st = DR_OK;

    DR_TRYF(hf_model_open(&m, in->path), "opening the model to export");
    DR_TRY(open_adapters(in, m, adapters, named));
    if (c->adapter_precision >= 0 && in->adapter_count == 0)
        DR_FAIL(DR_EUSAGE, "adapter_precision has no effect without adapter_path");
    bool packed = hf_model_quant(m).method != HF_QUANT_NONE;
    DR_TRY(builder_read(&o, job->arena, c, job->given, packed));
    if (packed && o.precision <= ONNX_BF16)
        DR_FAIL(DR_EUSAGE, "precision %s: %s is quantized (%s); leave precision out",
                onnx_precision_name(o.precision), in->name, hf_model_origin(m));
    const hf_linear *head =
        hf_head_linear(m) != NULL ? hf_head_linear(m) : hf_embed_linear(m);
    if (head->packed && o.mix == ONNX_MIX_HEAD)
        DR_FAIL(DR_EUSAGE, "8 bits for the last product: %s of %s is packed already",
                head->path, in->name);
    if (!packed && o.precision == ONNX_INT4 && o.mix == ONNX_MIX_LAYERS)
        dr_log(DR_INFO, "the head and the layers that matter most have 8 bits");
    DR_TRY(pass_read_splits(&o.splits, job->arena, in->attributes));
    o.adapters = named;
    o.adapter_count = in->adapter_count;
    o.adapter_form = c->adapter_precision >= 0 ? &form : NULL;
    if (hf_unordered_linears(m) > 0)
        dr_warn_result("%s: %zu linears have their inputs out of the order of their groups "
                       "(desc_act); they become floats and are rounded again",
                       in->name, hf_unordered_linears(m));
    if (o.genai && job->check)
        DR_TRYF(pass_open_tokenizer(&tok, m,
                                    "without it GenAI takes and gives ids only: leave "
                                    "use_ort_genai out, or give --no_check"),
                "reading the tokenizer, which use_ort_genai needs");
    DR_TRY(dr_pool_open(&pool, job->threads));
    for (size_t i = 0; i < in->adapter_count; i++)
        DR_TRY(hf_adapter_factors(&adapters[i], m, pool));
    DR_TRY(dr_make_dirs(dir));
    DR_TRYF(onnx_build(&report, dir, m, pool, &o), "writing ONNX");
    DR_TRYF(pass_annotate(job, dir, in->attributes), "annotating nodes");
    DR_TRY(tell(job, &report, &o));
    bool whole = !o.exclude_embeds && !o.exclude_lm_head; /* GenAI runs it alone */
    if (job->check && o.provider != ONNX_CPU)
        DR_TRY(pass_tell_not_run(job, onnx_provider_name(o.provider)));
    else if (job->check)
        DR_TRY(pass_check_export(job, dir, named, in->adapter_count, whole ? tok : NULL));
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
    const builder_config *c = job->config;
    hf_model *m = NULL;
    dr_status st = DR_OK;

    DR_TRY(hf_model_open(&m, in->path));
    const hf_config *cfg = hf_model_config(m);
    bool packed = hf_model_quant(m).method != HF_QUANT_NONE;
    uint64_t embed = pass_embed_elements(cfg);
    uint64_t linears = pass_layer_elements(cfg) * (uint64_t)cfg->layers;
    uint64_t tables = (cfg->tied ? 1 : 2) * embed;
    if (packed || c->precision == ONNX_INT4 || c->precision == ONNX_INT2)
        need->disk = 4 * embed + (linears + embed) * 5 / 8; /* the table may stay float */
    else if (c->precision == ONNX_INT8)
        need->disk = 4 * embed + (linears + embed) * 9 / 8;
    else if (c->precision == ONNX_FP16 || c->precision == ONNX_BF16)
        need->disk = 2 * (linears + tables);
    else
        need->disk = 4 * (linears + tables);
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
    .version = 2,
    .summary = "decoder models as ONNX graphs for ONNX Runtime GenAI",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_ONNX,
    .config_size = sizeof(builder_config),
    .params = builder_params,
    .params_count = BUILDER_PARAMS,
    .validate = validate,
    .estimate = estimate,
    .run = run,
};
