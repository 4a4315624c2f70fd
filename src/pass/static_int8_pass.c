/*
 * static_int8_pass.c - the OnnxStaticQuantization pass: weights and activations of 8 bits,
 * activations by the ranges that calibration text shows.
 */
#include "pass/int8_impl.h"

typedef struct {
    pass_external external;
    pass_int8 int8;
    pass_static fixed;
} static_int8;

static const dr_param params[] = {
    PASS_INT8_ROWS(static_int8),
    PASS_STATIC_ROWS(static_int8),
    PASS_EXTERNAL_ROWS,
};

static dr_status validate(const void *config, const unsigned char *given)
{
    const static_int8 *c = config;
    dr_status st = DR_OK;

    DR_TRY(pass_int8_validate(&c->int8, given));
    DR_TRY(pass_static_validate(&c->fixed));
    DR_TRY(pass_external_validate(config, given));
done:
    return st;
}

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const static_int8 *c = job->config;

    return pass_static_change(e, job, in, &c->int8, &c->fixed);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const static_int8 *c = job->config;

    return pass_optimized(job, out, in, c->int8.quant_preprocess ? ORT_LEVEL_BASIC : -1,
                          change);
}

extern const pass_def pass_static_int8; /* PASS(static_int8) */
const pass_def pass_static_int8 = {
    .name = "OnnxStaticQuantization",
    .version = 1,
    .summary = "weights and activations of 8 bits, by calibration text",
    PASS_REWRITE(static_int8, params),
    .needs_data = true,
    .validate = validate,
    .run = run,
};
