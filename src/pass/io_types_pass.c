/*
 * io_types_pass.c - the OnnxIODataTypeConverter pass: inputs and outputs of another type.
 */
#include "pass/rewrite_impl.h"

typedef struct {
    pass_external external;
    const char *name_pattern;
    int source_dtype, target_dtype;
} io_types;

static const dr_param params[] = {
    DR_STR(io_types, name_pattern, .dflt = "logits",
           .help = "expression that a name has; empty: all inputs and outputs"),
    DR_INT(io_types, source_dtype, .dflt = "10", .min = 1, .max = 16,
           .help = "TensorProto's number of the type that is converted (10: float16)"),
    DR_INT(io_types, target_dtype, .dflt = "1", .min = 1, .max = 16,
           .help = "and of what it becomes (1: float32)"),
    PASS_EXTERNAL_ROWS,
};

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const io_types *c = job->config;

    return pass_convert_io(e, in, c->name_pattern, c->source_dtype, c->target_dtype);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_rewrite(job, out, in, change);
}

extern const pass_def pass_io_types; /* PASS(io_types) */
const pass_def pass_io_types = {
    .name = "OnnxIODataTypeConverter",
    .version = 1,
    .summary = "inputs and outputs of another type",
    PASS_REWRITE_EACH(io_types, params),
    .validate = pass_external_validate,
    .run = run,
};
