/*
 * onnx_hqq_pass.c - the OnnxHqqQuantization pass: weights of a graph in blocks, by half-
 * quadratic rounding.
 */
#include "pass/block_passes_impl.h"

static const dr_param params[] = {
    PASS_BLOCKS_ROWS("128"),
    PASS_BLOCKS_AXIS,
};

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    onnx_blocks_options o = pass_blocks_options(job);

    (void)in;
    pass_round_hqq(&o, job);
    return onnx_to_blocks(e, &o);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_rewrite(job, out, in, change);
}

extern const pass_def pass_onnx_hqq; /* PASS(onnx_hqq) */
const pass_def pass_onnx_hqq = {
    .name = "OnnxHqqQuantization",
    .version = 1,
    .summary = "MatMul to MatMulNBits by half-quadratic rounding",
    PASS_REWRITE_EACH(pass_blocks, params),
    .validate = pass_blocks_validate,
    .run = run,
};
