/*
 * nhwc_pass.c - the InputNCHWtoNHWC pass: images come with their channels last.
 */
#include "pass/rewrite_impl.h"

typedef struct {
    pass_external external;
    const char *input_names;
} nhwc;

static const dr_param params[] = {
    DR_STR(nhwc, input_names, .dflt = "null", .listed = true, .required = true,
           .help = "inputs N, C, H, W that become N, H, W, C"),
    PASS_EXTERNAL_ROWS,
};

static dr_status validate(const void *config, const unsigned char *given)
{
    const nhwc *c = config;

    if (given != NULL && *c->input_names == '\0')
        return dr_fail(DR_EUSAGE, "input_names is needed");
    return pass_external_validate(config, given);
}

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const nhwc *c = job->config;

    (void)in;
    return onnx_nchw_to_nhwc(e, pass_names(job->arena, c->input_names));
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_rewrite(job, out, in, change);
}

extern const pass_def pass_nhwc; /* PASS(nhwc) */
const pass_def pass_nhwc = {
    .name = "InputNCHWtoNHWC",
    .version = 1,
    .summary = "image inputs with channels last",
    PASS_REWRITE(nhwc, params),
    .validate = validate,
    .run = run,
};
