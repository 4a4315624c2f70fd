/*
 * io_float32_pass.c - the OnnxIOFloat16ToFloat32 pass of Olive 0.7: what
 * OnnxIODataTypeConverter does from float16 to float32.
 */
#include "pass/rewrite_impl.h"

typedef struct {
    pass_external external;
    const char *name_pattern;
} io_float32;

static const dr_param params[] = {
    DR_STR(io_float32, name_pattern, .dflt = "logits",
           .help = "expression that a name has; empty: all inputs and outputs"),
    PASS_EXTERNAL_ROWS,
};

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const io_float32 *c = job->config;

    return pass_convert_io(e, in, c->name_pattern, 10, 1);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_rewrite(job, out, in, change);
}

extern const pass_def pass_io_float32; /* PASS(io_float32) */
const pass_def pass_io_float32 = {
    .name = "OnnxIOFloat16ToFloat32",
    .version = 1,
    .summary = "float16 inputs and outputs as float32",
    PASS_REWRITE_EACH(io_float32, params),
    .validate = pass_external_validate,
    .run = run,
};
