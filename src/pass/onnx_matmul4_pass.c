/*
 * onnx_matmul4_pass.c - the OnnxMatMul4Quantizer pass of Olive before 0.9.3, which the
 * block quantizations by algorithm have replaced.
 */
#include "pass/block_passes_impl.h"

typedef struct {
    pass_blocks blocks;
    int algorithm;
    bool is_symmetric;
} onnx_matmul4;

enum { DEFAULT, RTN, HQQ, GPTQ };
static const char *const algorithms[] = {"DEFAULT", "RTN", "HQQ", "GPTQ", NULL};

static const dr_param params[] = {
    DR_CHOICE(onnx_matmul4, algorithm, .dflt = "DEFAULT", .choices = algorithms,
              .help = "DEFAULT: the runtime's own; RTN, HQQ; GPTQ is refused"),
    DR_BOOL(onnx_matmul4, is_symmetric, .dflt = "true", .search = "[true, false]",
            .help = "no zero points; HQQ has them"),
    DR_REFUSED("quant_axes", "blocks lie along a product's inputs", NULL),
    DR_REFUSED("weight_only_quant_configs", "the options are parameters here", NULL),
    PASS_BLOCKS_ROWS("32"),
};

static dr_status validate(const void *config, const unsigned char *given)
{
    const onnx_matmul4 *c = config;

    if (c->algorithm == GPTQ)
        return dr_fail(DR_EUNSUPPORTED,
                       "algorithm GPTQ needs activations: run the pass Gptq on the Hugging "
                       "Face model; the nearest here is HQQ");
    return pass_blocks_validate(config, given);
}

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const onnx_matmul4 *c = job->config;
    onnx_blocks_options o = pass_blocks_options(job);

    (void)in;
    o.symmetric = c->is_symmetric;
    if (c->algorithm == RTN)
        o.rounding = ONNX_ROUND_RTN;
    if (c->algorithm == HQQ) {
        o.symmetric = false;
        pass_round_hqq(&o, job);
    }
    return onnx_to_blocks(e, &o);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_rewrite(job, out, in, change);
}

extern const pass_def pass_onnx_matmul4; /* PASS(onnx_matmul4) */
const pass_def pass_onnx_matmul4 = {
    .name = "OnnxMatMul4Quantizer",
    .version = 1,
    .summary = "MatMul to MatMulNBits of 4 bits",
    PASS_REWRITE_EACH(onnx_matmul4, params),
    .validate = validate,
    .run = run,
};
