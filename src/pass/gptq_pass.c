/*
 * gptq_pass.c - the Gptq pass: Hugging Face model in, packed 4-bit model out.
 */
#include "pass/quantize_impl.h"

typedef struct {
    pass_grid grid;
    double damp_percent;
    bool desc_act;
    bool static_groups;
    bool prescale;
    bool minmax;
    bool bias_correction;
    double upstream;
} gptq;

static const dr_param params[] = {
    PASS_GRID_ROWS("128"),
    DR_FLOAT(gptq, damp_percent, .dflt = "0.01", .search = "[0.001, 0.01, 0.1]",
             .min = 0.0001, .max = 1, .help = "share of the mean diagonal that is added"),
    DR_BOOL(gptq, desc_act, .dflt = "true",
            .help = "columns by descending activation, groups kept whole"),
    DR_BOOL(gptq, static_groups, .dflt = "false",
            .help = "all grids from the original weights"),
    DR_BOOL(gptq, prescale, .dflt = "true", .search = "[true, false]",
            .help = "AWQ's scaling before the rounding"),
    DR_BOOL(gptq, minmax, .dflt = "false",
            .help = "grids from min and max; else from the range that costs least"),
    DR_BOOL(gptq, bias_correction, .dflt = "true", .search = "[true, false]",
            .help = "a linear's mean error goes into its bias, if it has one"),
    DR_FLOAT(gptq, upstream, .dflt = "0", .search = "[0.25, 0.5]", .min = 0, .max = 1,
             .help = "share of the rounded layers' effect on a linear's inputs that the "
                     "linear takes back"),
    PASS_GRID_REFUSED,
    DR_REFUSED("data_config", "data sets by name are those of workflow files", NULL),
};

static dr_status quantize(const quant_site *site, const quant_grid *grid,
                          const quant_calib *calib, const void *config)
{
    const gptq *c = config;
    const quant_gptq_options o = {.damp_percent = c->damp_percent,
                                  .desc_act = c->desc_act,
                                  .static_groups = c->static_groups,
                                  .prescale = c->prescale,
                                  .minmax = c->minmax,
                                  .bias = c->bias_correction,
                                  .upstream = c->upstream};

    return quant_gptq(site, grid, calib, &o);
}

static pass_quant_plan quant_plan(const void *config)
{
    pass_quant_plan plan = pass_grid_plan(config, quantize);

    plan.calib_samples = 32;
    plan.calib_seq_len = 512;
    plan.forwards = 2.5; /* a layer before and after; its Hessians */
    plan.twice = ((const gptq *)config)->upstream > 0;
    return plan;
}

extern const pass_def pass_gptq; /* PASS(gptq) in pass/passes.def */
const pass_def pass_gptq = {
    .name = "Gptq",
    .version = 6,
    .summary = "rounding with error feedback through the inverse Hessian",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .needs_data = true,
    .shared = true,
    .config_size = sizeof(gptq),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = pass_grid_validate,
    .estimate = pass_quantize_estimate,
    .run = pass_quantize,
    .quant_plan = quant_plan,
};
