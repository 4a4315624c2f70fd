/*
 * onnx_quantization_pass.c - the OnnxQuantization pass: weights and activations of 8 bits,
 * activations by the ranges that calibration text shows (static), or as they come
 * (dynamic).
 */
#include "pass/int8_impl.h"

typedef struct {
    pass_external external;
    pass_int8 int8;
    pass_static fixed;
    int quant_mode;
} onnx_quantization;

enum { STATIC, DYNAMIC };
static const char *const modes[] = {"static", "dynamic", NULL};

static const dr_param params[] = {
    DR_CHOICE(onnx_quantization, quant_mode, .dflt = "static",
              .search = "[\"dynamic\", \"static\"]", .choices = modes,
              .help = "activations by calibration text, or as they come"),
    PASS_INT8_ROWS(onnx_quantization),
    PASS_STATIC_ROWS(onnx_quantization),
    PASS_EXTERNAL_ROWS,
};

static dr_status validate(const void *config, const unsigned char *given)
{
    const onnx_quantization *c = config;
    dr_status st = DR_OK;

    if (c->quant_mode == DYNAMIC && c->fixed.activation_symmetric)
        DR_FAIL(DR_EUSAGE, "activation_symmetric: DynamicQuantizeLinear has zero points");
    DR_TRY(pass_int8_validate(&c->int8, given));
    DR_TRY(pass_static_validate(&c->fixed));
    DR_TRY(pass_external_validate(config, given));
done:
    return st;
}

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const onnx_quantization *c = job->config;
    const onnx_int8_options o = pass_int8_options(job->arena, &c->int8);

    if (c->quant_mode == DYNAMIC)
        return onnx_dynamic_int8(e, &o);
    return pass_static_change(e, job, in, &c->int8, &c->fixed);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const onnx_quantization *c = job->config;

    return pass_optimized(job, out, in, c->int8.quant_preprocess ? ORT_LEVEL_BASIC : -1,
                          change);
}

extern const pass_def pass_onnx_quantization; /* PASS(onnx_quantization) */
const pass_def pass_onnx_quantization = {
    .name = "OnnxQuantization",
    .version = 1,
    .summary = "weights and activations of 8 bits, static or dynamic",
    PASS_REWRITE(onnx_quantization, params),
    .needs_data = true,
    .validate = validate,
    .run = run,
};
