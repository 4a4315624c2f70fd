/*
 * onnx_bnb4_pass.c - the OnnxBnb4Quantization pass: weights of a graph in bitsandbytes' 4
 * bits.
 */
#include "pass/rewrite_impl.h"

typedef struct {
    pass_external external;
    int precision;
    const char *quantized_modules, *nodes_to_exclude;
} onnx_bnb4;

static const char *const precisions[] = {"nf4", "fp4", NULL};

static const dr_param params[] = {
    DR_CHOICE(onnx_bnb4, precision, .dflt = "nf4", .choices = precisions,
              .help = "quantiles of the normal distribution, or a float of 4 bits"),
    DR_STR(onnx_bnb4, quantized_modules, .dflt = "null", .listed = true,
           .help = "modules (q_proj, ...) that are rounded; default: all"),
    DR_STR(onnx_bnb4, nodes_to_exclude, .dflt = "null", .listed = true,
           .help = "MatMuls that stay"),
    PASS_EXTERNAL_ROWS,
};

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const onnx_bnb4 *c = job->config;
    const onnx_bnb4_options o = {.fp4 = c->precision == 1,
                                 .modules = pass_names(job->arena, c->quantized_modules),
                                 .exclude = pass_names(job->arena, c->nodes_to_exclude)};

    (void)in;
    return onnx_to_bnb4(e, &o);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_rewrite(job, out, in, change);
}

extern const pass_def pass_onnx_bnb4; /* PASS(onnx_bnb4) */
const pass_def pass_onnx_bnb4 = {
    .name = "OnnxBnb4Quantization",
    .version = 1,
    .summary = "MatMul to MatMulBnb4",
    PASS_REWRITE_EACH(onnx_bnb4, params),
    .validate = pass_external_validate,
    .run = run,
};
