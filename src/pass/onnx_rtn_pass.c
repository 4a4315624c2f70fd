/*
 * onnx_rtn_pass.c - the OnnxBlockWiseRtnQuantization pass: weights of a graph rounded to
 * nearest in blocks, by the rule of ONNX Runtime's own quantizer.
 */
#include "pass/block_passes_impl.h"

typedef struct {
    pass_blocks blocks;
    int bits;
    bool is_symmetric;
} onnx_rtn;

static const dr_param params[] = {
    DR_INT(onnx_rtn, bits, .dflt = "4", .search = "[4, 8]", .min = 2, .max = 8,
           .help = "bits of a weight: 2, 4 or 8"),
    DR_BOOL(onnx_rtn, is_symmetric, .dflt = "true", .search = "[true, false]",
            .help = "no zero points"),
    PASS_BLOCKS_ROWS("128"),
    PASS_BLOCKS_AXIS,
};

static dr_status validate(const void *config, const unsigned char *given)
{
    const onnx_rtn *c = config;

    if (c->bits != 2 && c->bits != 4 && c->bits != 8)
        return dr_fail(DR_EUSAGE, "bits: expected 2, 4 or 8, found %d", c->bits);
    return pass_blocks_validate(config, given);
}

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const onnx_rtn *c = job->config;
    onnx_blocks_options o = pass_blocks_options(job);

    (void)in;
    o.bits = c->bits;
    o.symmetric = c->is_symmetric;
    o.gather = true;
    return onnx_to_blocks(e, &o);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_rewrite(job, out, in, change);
}

extern const pass_def pass_onnx_rtn; /* PASS(onnx_rtn) */
const pass_def pass_onnx_rtn = {
    .name = "OnnxBlockWiseRtnQuantization",
    .version = 1,
    .summary = "MatMul to MatMulNBits, Gather to GatherBlockQuantized",
    PASS_REWRITE_EACH(onnx_rtn, params),
    .validate = validate,
    .run = run,
};
