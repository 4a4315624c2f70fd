/*
 * float16_pass.c - the OnnxFloatToFloat16 pass: a float32 graph in float16.
 */
#include "pass/rewrite_impl.h"

typedef struct {
    pass_external external;
    double min_positive_val, max_finite_val;
    bool keep_io_types, use_symbolic_shape_infer;
    const char *op_block_list, *op_include_list, *node_block_list, *node_include_list;
} float16;

static const dr_param params[] = {
    DR_FLOAT(float16, min_positive_val, .dflt = "1e-7", .min = 0, .max = 1,
             .help = "smaller constants, but 0, become this"),
    DR_FLOAT(float16, max_finite_val, .dflt = "1e4", .min = 1, .max = 65504,
             .help = "larger constants become this"),
    DR_BOOL(float16, keep_io_types, .dflt = "false",
            .help = "inputs and outputs stay float32"),
    DR_BOOL(float16, use_symbolic_shape_infer, .dflt = "true",
            .help = "types follow from the operators; false is refused"),
    DR_STR(float16, op_block_list, .dflt = "null", .listed = true,
           .help = "operators that stay float32 (default: those without float16)"),
    DR_STR(float16, op_include_list, .dflt = "null", .listed = true,
           .help = "only these become float16"),
    DR_STR(float16, node_block_list, .dflt = "null", .listed = true,
           .help = "nodes that stay float32"),
    DR_STR(float16, node_include_list, .dflt = "null", .listed = true,
           .help = "only these nodes become float16"),
    PASS_EXTERNAL_ROWS,
};

static dr_status validate(const void *config, const unsigned char *given)
{
    const float16 *c = config;

    if (c->op_block_list != NULL && c->op_include_list != NULL)
        return dr_fail(DR_EUSAGE,
                       "op_block_list and op_include_list contradict each other");
    if (c->node_block_list != NULL && c->node_include_list != NULL)
        return dr_fail(DR_EUSAGE,
                       "node_block_list and node_include_list contradict each other");
    if (!c->use_symbolic_shape_infer)
        return dr_fail(DR_EUNSUPPORTED, "use_symbolic_shape_infer false: types follow from "
                                        "the operators; the nearest is true");
    return pass_external_validate(config, given);
}

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const float16 *c = job->config;
    dr_arena *a = job->arena;
    const onnx_half_options o = {.min_positive = c->min_positive_val,
                                 .max_finite = c->max_finite_val,
                                 .keep_io = c->keep_io_types,
                                 .op_block = pass_names(a, c->op_block_list),
                                 .op_include = pass_names(a, c->op_include_list),
                                 .node_block = pass_names(a, c->node_block_list),
                                 .node_include = pass_names(a, c->node_include_list)};

    (void)in;
    return onnx_to_half(e, &o);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_rewrite(job, out, in, change);
}

extern const pass_def pass_float16; /* PASS(float16) */
const pass_def pass_float16 = {
    .name = "OnnxFloatToFloat16",
    .version = 1,
    .summary = "weights and activations in float16",
    PASS_REWRITE_EACH(float16, params),
    .validate = validate,
    .run = run,
};
