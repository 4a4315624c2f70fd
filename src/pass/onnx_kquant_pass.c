/*
 * onnx_kquant_pass.c - the OnnxKQuantQuantization pass: weights of a graph in blocks, by
 * weighted least squares.
 */
#include "pass/block_passes_impl.h"

typedef struct {
    pass_blocks blocks;
    int bits;
} onnx_kquant;

static const dr_param params[] = {
    DR_INT(onnx_kquant, bits, .dflt = "4", .search = "[4, 8]", .min = 4, .max = 8,
           .help = "bits of a weight: 4 or 8"),
    DR_REFUSED("customized_weight_config", "all weights have one grid", "bits"),
    PASS_BLOCKS_ROWS("32"),
};

static dr_status validate(const void *config, const unsigned char *given)
{
    const onnx_kquant *c = config;

    if (c->bits != 4 && c->bits != 8)
        return dr_fail(DR_EUSAGE, "bits: expected 4 or 8, found %d", c->bits);
    return pass_blocks_validate(config, given);
}

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const onnx_kquant *c = job->config;
    onnx_blocks_options o = pass_blocks_options(job);

    (void)in;
    o.bits = c->bits;
    o.rounding = ONNX_ROUND_K_QUANT;
    return onnx_to_blocks(e, &o);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_rewrite(job, out, in, change);
}

extern const pass_def pass_onnx_kquant; /* PASS(onnx_kquant) */
const pass_def pass_onnx_kquant = {
    .name = "OnnxKQuantQuantization",
    .version = 1,
    .summary = "MatMul to MatMulNBits by least squares",
    PASS_REWRITE_EACH(onnx_kquant, params),
    .validate = validate,
    .run = run,
};
