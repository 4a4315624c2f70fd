/*
 * hqq_pass.c - the Hqq pass: half-quadratic rounding, no data.
 */
#include "pass/quantize_impl.h"

static const dr_param params[] = {
    PASS_GRID_ROWS("128"),
    PASS_GRID_REFUSED,
};

static dr_status quantize(const quant_site *site, const quant_grid *grid,
                          const quant_calib *calib, const void *config)
{
    (void)calib, (void)config;
    return quant_hqq(site, grid);
}

static pass_quant_plan quant_plan(const void *config)
{
    return pass_grid_plan(config, quantize);
}

extern const pass_def pass_hqq; /* PASS(hqq) in pass/passes.def */
const pass_def pass_hqq = {
    .name = "Hqq",
    .version = 1,
    .summary = "half-quadratic rounding",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .config_size = sizeof(pass_grid),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = pass_grid_validate,
    .estimate = pass_quantize_estimate,
    .run = pass_quantize,
    .quant_plan = quant_plan,
};
