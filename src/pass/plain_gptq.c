/*
 * plain_gptq.c - what the passes GptqModel and GptqQuantizer do.
 */
#include "pass/plain_gptq_impl.h"

dr_status pass_plain_gptq_validate(const void *config, const unsigned char *given)
{
    const pass_plain_gptq *c = config;

    if (!c->true_sequential)
        return dr_fail(
            DR_EUNSUPPORTED,
            "true_sequential false: linears are rounded for what is before them; "
            "the nearest is true");
    return pass_grid_validate(config, given);
}

static dr_status quantize(const quant_site *site, const quant_grid *grid,
                          const quant_calib *calib, const void *config)
{
    const pass_plain_gptq *c = config;
    const quant_gptq_options o = {.damp_percent = c->damp_percent,
                                  .desc_act = c->desc_act,
                                  .static_groups = c->static_groups,
                                  .minmax = true};

    return quant_gptq(site, grid, calib, &o);
}

pass_quant_plan pass_plain_gptq_plan(const void *config)
{
    pass_quant_plan plan = pass_grid_plan(config, quantize);

    plan.calib_samples = 32;
    plan.calib_seq_len = 512;
    plan.forwards = 2.5; /* a layer before and after; its Hessians */
    return plan;
}
