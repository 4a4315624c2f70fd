/*
 * kquant_pass.c - the KQuant pass: weighted least squares, no data.
 */
#include "pass/quantize_impl.h"

typedef struct {
    int bits;
    int group_size;
    bool sym;
} kquant;

static const dr_param params[] = {
    DR_INT(kquant, bits, .dflt = "4", .min = 4, .max = 4, .help = "bits per weight"),
    DR_INT(kquant, group_size, .dflt = "32", .search = "[-1, 16, 32, 64, 128]", .min = -1,
           .max = 1024, .help = "input channels that share a scale; -1: a whole row"),
    DR_BOOL(kquant, sym, .dflt = "false", .search = "[true, false]",
            .help = "symmetric grid"),
    DR_REFUSED("lm_head", "the head is quantized by the export", NULL),
    DR_REFUSED("embeds", "the embedding is quantized by the export", NULL),
    DR_REFUSED("modules_to_not_convert", "choosing modules comes later", NULL),
    DR_REFUSED("overrides", "choosing modules comes later", NULL),
    DR_REFUSED("quantize_vision", "vision models come later", NULL),
    DR_REFUSED("moe", "mixtures of experts come later", NULL),
};

static dr_status validate(const void *config, const unsigned char *given)
{
    const kquant *c = config;

    (void)given;
    return pass_check_group("group_size", c->group_size);
}

static dr_status quantize(const quant_site *site, const quant_grid *grid,
                          const quant_calib *calib, const void *config)
{
    (void)calib, (void)config;
    return quant_kquant(site, grid);
}

static pass_quant_plan plan_of(const kquant *c)
{
    return (pass_quant_plan){.layout = HF_QUANT_GPTQ,
                             .grid = {c->bits, c->group_size, c->sym},
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

extern const pass_def pass_kquant; /* PASS(kquant) in pass/passes.def */
const pass_def pass_kquant = {
    .name = "KQuant",
    .version = 1,
    .summary = "grids by weighted least squares",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .config_size = sizeof(kquant),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .estimate = estimate,
    .run = run,
};
