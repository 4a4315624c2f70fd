/*
 * preprocess_pass.c - the OnnxQuantizationPreprocess pass: constants folded and shapes
 * written, for a quantizer after it.
 */
#include "pass/optimized_impl.h"

typedef struct {
    pass_external external;
    bool skip_optimization, skip_onnx_shape, skip_symbolic_shape;
} preprocess;

static const dr_param params[] = {
    DR_BOOL(preprocess, skip_optimization, .dflt = "false",
            .help = "constants are not folded"),
    DR_BOOL(preprocess, skip_onnx_shape, .dflt = "false",
            .help = "with skip_symbolic_shape: shapes are not written"),
    DR_BOOL(preprocess, skip_symbolic_shape, .dflt = "false",
            .help = "with skip_onnx_shape: shapes are not written"),
    PASS_EXTERNAL_ROWS,
};

static bool no_shapes(const preprocess *c)
{
    return c->skip_onnx_shape && c->skip_symbolic_shape;
}

static dr_status validate(const void *config, const unsigned char *given)
{
    const preprocess *c = config;

    if (c->skip_optimization && no_shapes(c))
        return dr_fail(DR_EUSAGE, "skip_optimization, skip_onnx_shape and "
                                  "skip_symbolic_shape: nothing is left to do");
    return pass_external_validate(config, given);
}

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    (void)in;
    if (no_shapes(job->config))
        onnx_drop_shapes(e);
    return DR_OK;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const preprocess *c = job->config;

    return pass_optimized(job, out, in,
                          c->skip_optimization ? ORT_LEVEL_NONE : ORT_LEVEL_BASIC, change);
}

extern const pass_def pass_preprocess; /* PASS(preprocess) */
const pass_def pass_preprocess = {
    .name = "OnnxQuantizationPreprocess",
    .version = 1,
    .summary = "constants folded and shapes written, for a quantizer after it",
    PASS_REWRITE_EACH(preprocess, params),
    .validate = validate,
    .run = run,
};
