/*
 * best_pass.c - the Best pass: everything that a packed 4-bit checkpoint can hold, decided
 * from one calibration text; never worse than Gptq or Rtn in any linear, by its own inputs.
 */
#include "pass/quantize_impl.h"

typedef struct {
    pass_grid grid;
    double damp_percent;
    bool desc_act;
    int sweeps;
    bool bias_correction;
    double upstream;
} best;

static const dr_param params[] = {
    PASS_GRID_ROWS("128"),
    DR_FLOAT(best, damp_percent, .dflt = "0.2", .search = "[0.05, 0.2, 0.5]", .min = 0.0001,
             .max = 1, .help = "share of the mean diagonal that is added"),
    DR_BOOL(best, desc_act, .dflt = "true",
            .help = "columns by descending activation, groups kept whole"),
    DR_INT(best, sweeps, .dflt = "3", .min = 0, .max = 100,
           .help = "times that codes, scales and zero points are improved one by one"),
    DR_BOOL(best, bias_correction, .dflt = "true", .search = "[true, false]",
            .help = "a linear's mean error goes into its bias, if it has one"),
    DR_FLOAT(best, upstream, .dflt = "0.5", .search = "[0.25, 0.5]", .min = 0, .max = 1,
             .help = "share of the rounded layers' effect on a linear's inputs that the "
                     "linear takes back"),
    PASS_GRID_REFUSED,
    DR_REFUSED("data_config", "data sets by name are those of workflow files", NULL),
};

static dr_status quantize(const quant_site *site, const quant_grid *grid,
                          const quant_calib *calib, const void *config)
{
    const best *c = config;
    const quant_gptq_options o = {.damp_percent = c->damp_percent,
                                  .desc_act = c->desc_act,
                                  .sweeps = c->sweeps,
                                  .bias = c->bias_correction,
                                  .upstream = c->upstream};

    return quant_best(site, grid, calib, &o);
}

static pass_quant_plan quant_plan(const void *config)
{
    pass_quant_plan plan = pass_grid_plan(config, quantize);

    plan.calib_samples = 64;
    plan.calib_seq_len = 512;
    plan.forwards = 10; /* Gptq's 2.5, the original's; each weight solved twice */
    plan.twice = ((const best *)config)->upstream > 0;
    return plan;
}

extern const pass_def pass_best; /* PASS(best) in pass/passes.def */
const pass_def pass_best = {
    .name = "Best",
    .version = 4,
    .summary = "scales, error feedback and descent over codes, scales and zero points",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .needs_data = true,
    .shared = true,
    .config_size = sizeof(best),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = pass_grid_validate,
    .estimate = pass_quantize_estimate,
    .run = pass_quantize,
    .quant_plan = quant_plan,
};
