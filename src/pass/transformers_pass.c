/*
 * transformers_pass.c - the OrtTransformersOptimization pass with only_onnxruntime: the
 * runtime's own fusions (attention, norms, GELU, ...) written as a model.
 */
#include "pass/optimized_impl.h"

typedef struct {
    pass_external external;
    int opt_level;
    bool only_onnxruntime, float16, keep_io_types;
    const char *force_fp32_ops, *force_fp32_nodes;
} transformers;

static const dr_param params[] = {
    DR_INT(transformers, opt_level, .dflt = "2", .search = "[1, 2]", .max = 99,
           .help = "0 none, 1 basic, 2 extended; 99 is refused"),
    DR_BOOL(transformers, only_onnxruntime, .dflt = "true",
            .help = "fusions are the runtime's; false is refused"),
    DR_BOOL(transformers, float16, .dflt = "false", .help = "then in float16"),
    DR_BOOL(transformers, keep_io_types, .dflt = "true",
            .help = "with float16: inputs and outputs stay float32"),
    DR_STR(transformers, force_fp32_ops, .dflt = "null", .listed = true,
           .help = "with float16: operators that stay float32"),
    DR_STR(transformers, force_fp32_nodes, .dflt = "null", .listed = true,
           .help = "with float16: nodes that stay float32"),
    DR_REFUSED("model_type", "the runtime sees it in the graph", NULL),
    DR_REFUSED("num_heads", "the runtime sees them in the graph", NULL),
    DR_REFUSED("num_key_value_heads", "the runtime sees them in the graph", NULL),
    DR_REFUSED("hidden_size", "the runtime sees it in the graph", NULL),
    DR_REFUSED("optimization_options", "fusions are chosen by level", "opt_level"),
    DR_REFUSED("use_gpu", "what is written holds for any provider", NULL),
    DR_REFUSED("force_fp16_inputs", "a node's inputs are of one type", NULL),
    DR_REFUSED("use_gqa", "export with ModelBuilder, which uses GroupQueryAttention", NULL),
    DR_REFUSED("input_int32", "OnnxIODataTypeConverter does that", NULL),
    PASS_EXTERNAL_ROWS,
};

static dr_status validate(const void *config, const unsigned char *given)
{
    const transformers *c = config;

    if (c->opt_level > ORT_LEVEL_EXTENDED)
        return dr_fail(
            DR_EUNSUPPORTED,
            "opt_level %d: layouts of this processor do not go into a model; the "
            "nearest is 2",
            c->opt_level);
    if (!c->only_onnxruntime)
        return dr_fail(DR_EUNSUPPORTED, "only_onnxruntime false: fusions are the "
                                        "runtime's; the nearest is true");
    if (!c->float16 && (c->force_fp32_ops != NULL || c->force_fp32_nodes != NULL))
        return dr_fail(DR_EUSAGE, "force_fp32_ops and force_fp32_nodes go with float16");
    return pass_external_validate(config, given);
}

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const transformers *c = job->config;
    const onnx_half_options half = {.min_positive = 1e-7,
                                    .max_finite = 1e4,
                                    .keep_io = c->keep_io_types,
                                    .op_block = pass_names(job->arena, c->force_fp32_ops),
                                    .node_block =
                                        pass_names(job->arena, c->force_fp32_nodes)};
    dr_status st = DR_OK;

    (void)in;
    DR_TRY(onnx_tidy(e, &(onnx_tidy_options){.general = true}));
    if (c->float16)
        DR_TRY(onnx_to_half(e, &half));
done:
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const transformers *c = job->config;

    return pass_optimized(job, out, in, c->opt_level > 0 ? c->opt_level : -1, change);
}

extern const pass_def pass_transformers; /* PASS(transformers) */
const pass_def pass_transformers = {
    .name = "OrtTransformersOptimization",
    .version = 1,
    .summary = "the runtime's own fusions, written as a model",
    PASS_REWRITE_EACH(transformers, params),
    .validate = validate,
    .run = run,
};
