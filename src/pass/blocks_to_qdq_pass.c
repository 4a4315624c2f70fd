/*
 * blocks_to_qdq_pass.c - the MatMulNBitsToQDQ pass: packed products in standard operators.
 */
#include "pass/rewrite_impl.h"

typedef struct {
    pass_external external;
    bool use_transpose_op, use_int4, use_signed_int, add_zero_point;
    const char *nodes_to_exclude;
} blocks_to_qdq;

static const dr_param params[] = {
    DR_BOOL(blocks_to_qdq, use_transpose_op, .dflt = "false",
            .help = "the weight lies as it was, before a Transpose"),
    DR_BOOL(blocks_to_qdq, use_int4, .dflt = "false",
            .help = "signed codes; older name of use_signed_int"),
    DR_BOOL(blocks_to_qdq, use_signed_int, .dflt = "false", .help = "signed codes"),
    DR_BOOL(blocks_to_qdq, add_zero_point, .dflt = "false",
            .help = "zero points of 0 are written, too"),
    DR_STR(blocks_to_qdq, nodes_to_exclude, .dflt = "null", .listed = true,
           .help = "MatMulNBits that stay"),
    PASS_EXTERNAL_ROWS,
};

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const blocks_to_qdq *c = job->config;
    const onnx_qdq_options o = {.transpose = c->use_transpose_op,
                                .is_signed = c->use_int4 || c->use_signed_int,
                                .add_zero_point = c->add_zero_point,
                                .exclude = pass_names(job->arena, c->nodes_to_exclude)};

    (void)in;
    return onnx_blocks_to_qdq(e, &o);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_rewrite(job, out, in, change);
}

extern const pass_def pass_blocks_to_qdq; /* PASS(blocks_to_qdq) */
const pass_def pass_blocks_to_qdq = {
    .name = "MatMulNBitsToQDQ",
    .version = 1,
    .summary = "MatMulNBits as DequantizeLinear and MatMul",
    PASS_REWRITE_EACH(blocks_to_qdq, params),
    .validate = pass_external_validate,
    .run = run,
};
