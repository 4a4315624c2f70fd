/*
 * best_pass.c - the Best pass: everything that a packed 4-bit checkpoint can hold, decided
 * from one calibration text; never worse than Gptq or Rtn in any linear, by its own inputs.
 */
#include "pass/quantize_impl.h"

typedef struct {
    int bits;
    int group_size;
    bool sym;
    double damp_percent;
    bool desc_act;
    int sweeps;
} best;

static const dr_param params[] = {
    DR_INT(best, bits, .dflt = "4", .min = 4, .max = 4, .help = "bits per weight"),
    DR_INT(best, group_size, .dflt = "128", .search = "[-1, 16, 32, 64, 128]", .min = -1,
           .max = 1024, .help = "input channels that share a scale; -1: a whole row"),
    DR_BOOL(best, sym, .dflt = "false", .search = "[true, false]",
            .help = "symmetric grid"),
    DR_FLOAT(best, damp_percent, .dflt = "0.01", .search = "[0.001, 0.01, 0.1]",
             .min = 0.0001, .max = 1, .help = "share of the mean diagonal that is added"),
    DR_BOOL(best, desc_act, .dflt = "true",
            .help = "columns by descending activation, groups kept whole"),
    DR_INT(best, sweeps, .dflt = "3", .min = 0, .max = 100,
           .help = "times that codes, scales and zero points are improved one by one"),
    DR_REFUSED("lm_head", "the head is quantized by the export", NULL),
    DR_REFUSED("modules_to_not_convert", "choosing modules comes later", NULL),
    DR_REFUSED("overrides", "choosing modules comes later", NULL),
    DR_REFUSED("quantize_vision", "vision models come later", NULL),
    DR_REFUSED("moe", "mixtures of experts come later", NULL),
    DR_REFUSED("data_config", "data sets by name come with the workflow engine", NULL),
};

static dr_status validate(const void *config, const unsigned char *given)
{
    const best *c = config;

    (void)given;
    return pass_check_group("group_size", c->group_size);
}

static dr_status quantize(const quant_site *site, const quant_grid *grid,
                          const quant_calib *calib, const void *config)
{
    const best *c = config;
    const quant_gptq_options o = {
        .damp_percent = c->damp_percent, .desc_act = c->desc_act, .sweeps = c->sweeps};

    return quant_best(site, grid, calib, &o);
}

static pass_quant_plan plan_of(const best *c)
{
    return (pass_quant_plan){.layout = HF_QUANT_GPTQ,
                             .grid = {c->bits, c->group_size, c->sym},
                             .calib_samples = 64,
                             .calib_seq_len = 512,
                             .forwards =
                                 6, /* Gptq's 2.5; each weight solved twice, with descent */
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

extern const pass_def pass_best; /* PASS(best) in pass/passes.def */
const pass_def pass_best = {
    .name = "Best",
    .version = 1,
    .summary = "scales, error feedback and descent over codes, scales and zero points",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .needs_data = true,
    .config_size = sizeof(best),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .estimate = estimate,
    .run = run,
};
