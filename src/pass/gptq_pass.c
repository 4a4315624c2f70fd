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
    bool static_groups;
    bool prescale;
    bool minmax;
} gptq;

static const dr_param params[] = {
    DR_INT(gptq, bits, .dflt = "4", .min = 4, .max = 4, .help = "bits per weight"),
    DR_INT(gptq, group_size, .dflt = "128", .search = "[-1, 16, 32, 64, 128]", .min = -1,
           .max = 1024, .help = "input channels that share a scale; -1: a whole row"),
    DR_BOOL(gptq, sym, .dflt = "false", .search = "[true, false]",
            .help = "symmetric grid"),
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
    DR_REFUSED("lm_head", "the head is quantized by the export", NULL),
    DR_REFUSED("modules_to_not_convert", "choosing modules comes later", NULL),
    DR_REFUSED("overrides", "choosing modules comes later", NULL),
    DR_REFUSED("quantize_vision", "vision models come later", NULL),
    DR_REFUSED("moe", "mixtures of experts come later", NULL),
    DR_REFUSED("data_config", "data sets by name come with the workflow engine", NULL),
};

static dr_status validate(const void *config, const unsigned char *given)
{
    const gptq *c = config;

    (void)given;
    return pass_check_group("group_size", c->group_size);
}

static dr_status quantize(const quant_site *site, const quant_grid *grid,
                          const quant_calib *calib, const void *config)
{
    const gptq *c = config;
    const quant_gptq_options o = {.damp_percent = c->damp_percent,
                                  .desc_act = c->desc_act,
                                  .static_groups = c->static_groups,
                                  .prescale = c->prescale,
                                  .minmax = c->minmax};

    return quant_gptq(site, grid, calib, &o);
}

static pass_quant_plan plan_of(const gptq *c)
{
    return (pass_quant_plan){.layout = HF_QUANT_GPTQ,
                             .grid = {c->bits, c->group_size, c->sym},
                             .calib_samples = 32,
                             .calib_seq_len = 512,
                             .forwards = 2.5, /* a layer before and after; its Hessians */
                             .quantize = quantize};
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const pass_quant_plan plan = plan_of(job->config);

    return pass_quantize(job, out, in, &plan);
}

static dr_status estimate(const pass_job *job, const pass_model *in, pass_need *need)
{
    const pass_quant_plan plan = plan_of(job->config);

    return pass_quantize_estimate(job, in, need, &plan);
}

extern const pass_def pass_gptq; /* PASS(gptq) in pass/passes.def */
const pass_def pass_gptq = {
    .name = "Gptq",
    .version = 4,
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
