/*
 * opset_pass.c - the OnnxOpVersionConversion pass: a newer version of the standard
 * operators.
 */
#include "pass/rewrite_impl.h"

typedef struct {
    pass_external external;
    int target_opset;
} opset;

static const dr_param params[] = {
    DR_INT(opset, target_opset, .dflt = "23", .min = ONNX_OPSET_OLDEST,
           .max = ONNX_OPSET_NEWEST, .help = "version of the standard operators"),
    PASS_EXTERNAL_ROWS,
};

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const opset *c = job->config;

    (void)in;
    return onnx_raise_opset(e, c->target_opset);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_rewrite(job, out, in, change);
}

extern const pass_def pass_opset; /* PASS(opset) */
const pass_def pass_opset = {
    .name = "OnnxOpVersionConversion",
    .version = 1,
    .summary = "a newer version of the standard operators",
    PASS_REWRITE_EACH(opset, params),
    .validate = pass_external_validate,
    .run = run,
};
