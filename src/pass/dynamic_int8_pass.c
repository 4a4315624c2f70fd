/*
 * dynamic_int8_pass.c - the OnnxDynamicQuantization pass: weights of 8 bits, activations
 * rounded as they come.
 */
#include "pass/int8_impl.h"

typedef struct {
    pass_external external;
    pass_int8 int8;
} dynamic_int8;

static const dr_param params[] = {
    PASS_INT8_ROWS(dynamic_int8),
    DR_REFUSED("activation_symmetric", "DynamicQuantizeLinear has zero points", NULL),
    PASS_EXTERNAL_ROWS,
};

static dr_status validate(const void *config, const unsigned char *given)
{
    const dynamic_int8 *c = config;
    dr_status st = DR_OK;

    DR_TRY(pass_int8_validate(&c->int8, given));
    DR_TRY(pass_external_validate(config, given));
done:
    return st;
}

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const dynamic_int8 *c = job->config;
    const onnx_int8_options o = pass_int8_options(job->arena, &c->int8);

    (void)in;
    return onnx_dynamic_int8(e, &o);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const dynamic_int8 *c = job->config;

    return pass_optimized(job, out, in, c->int8.quant_preprocess ? ORT_LEVEL_BASIC : -1,
                          change);
}

extern const pass_def pass_dynamic_int8; /* PASS(dynamic_int8) */
const pass_def pass_dynamic_int8 = {
    .name = "OnnxDynamicQuantization",
    .version = 1,
    .summary = "weights of 8 bits, activations rounded as they come",
    PASS_REWRITE_EACH(dynamic_int8, params),
    .validate = validate,
    .run = run,
};
