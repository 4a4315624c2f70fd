/*
 * gptq_pass.c - the Gptq pass: Hugging Face model in, packed 4-bit model out.
 */
#include "pass/quantize_impl.h"

typedef struct {
    int bits;
    int group_size;
    bool sym;
    double damp_percent;
    bool desc_act;
} gptq;

static const dr_param params[] = {
    DR_INT(gptq, bits, .dflt = "4", .min = 4, .max = 4, .help = "bits per weight"),
    DR_INT(gptq, group_size, .dflt = "128", .search = "[-1, 16, 32, 64, 128]", .min = -1,
           .max = 1024, .help = "input channels that share a scale; -1: a whole row"),
    DR_BOOL(gptq, sym, .dflt = "false", .search = "[true, false]", .help = "symmetric grid"),
    DR_FLOAT(gptq, damp_percent, .dflt = "0.01", .search = "[0.001, 0.01, 0.1]",
             .min = 0.0001, .max = 1, .help = "share of the mean diagonal that is added"),
    DR_BOOL(gptq, desc_act, .dflt = "true",
            .help = "columns by descending activation, groups kept whole"),
};

static dr_status validate(const void *config)
{
    const gptq *c = config;

    if (c->group_size == 0)
        return dr_fail(DR_EUSAGE, "group_size: 0 is no size; -1 means a whole row");
    return DR_OK;
}

static dr_status quantize(const quant_site *site, const quant_grid *grid,
                          const quant_calib *calib, const void *config)
{
    const gptq *c = config;
    const quant_gptq_options o = {c->damp_percent, c->desc_act};

    return quant_gptq(site, grid, calib, &o);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const gptq *c = job->config;
    const pass_quant_plan plan = {.layout = HF_QUANT_GPTQ,
                                  .grid = {c->bits, c->group_size, c->sym},
                                  .calib_samples = 32,
                                  .calib_seq_len = 512,
                                  .quantize = quantize};

    return pass_quantize(job, out, in, &plan);
}

static dr_status estimate(const pass_job *job, const pass_model *in, pass_need *need)
{
    return pass_quantize_estimate(job, in, need, true);
}

extern const pass_def pass_gptq; /* PASS(gptq) in pass/passes.def */
const pass_def pass_gptq = {
    .name = "Gptq",
    .version = 1,
    .summary = "rounding with error feedback through the inverse Hessian",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .needs_data = true,
    .config_size = sizeof(gptq),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .estimate = estimate,
    .run = run,
};
