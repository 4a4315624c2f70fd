/*
 * rtn_pass.c - the Rtn pass: rounding to nearest, no data.
 */
#include "pass/quantize_impl.h"

typedef struct {
    int bits;
    int group_size;
    bool sym;
} rtn;

static const dr_param params[] = {
    DR_INT(rtn, bits, .dflt = "4", .min = 4, .max = 4, .help = "bits per weight"),
    DR_INT(rtn, group_size, .dflt = "128", .search = "[-1, 16, 32, 64, 128]", .min = -1,
           .max = 1024, .help = "input channels that share a scale; -1: a whole row"),
    DR_BOOL(rtn, sym, .dflt = "false", .search = "[true, false]", .help = "symmetric grid"),
};

static dr_status validate(const void *config)
{
    const rtn *c = config;

    if (c->group_size == 0)
        return dr_fail(DR_EUSAGE, "group_size: 0 is no size; -1 means a whole row");
    return DR_OK;
}

static dr_status quantize(const quant_site *site, const quant_grid *grid,
                          const quant_calib *calib, const void *config)
{
    (void)calib, (void)config;
    return quant_rtn(site, grid);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const rtn *c = job->config;
    const pass_quant_plan plan = {.layout = HF_QUANT_GPTQ,
                                  .grid = {c->bits, c->group_size, c->sym},
                                  .quantize = quantize};

    return pass_quantize(job, out, in, &plan);
}

static dr_status estimate(const pass_job *job, const pass_model *in, pass_need *need)
{
    return pass_quantize_estimate(job, in, need, false);
}

extern const pass_def pass_rtn; /* PASS(rtn) in pass/passes.def */
const pass_def pass_rtn = {
    .name = "Rtn",
    .version = 1,
    .summary = "rounding to nearest",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .config_size = sizeof(rtn),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .estimate = estimate,
    .run = run,
};
