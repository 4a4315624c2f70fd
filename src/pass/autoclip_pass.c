/*
 * autoclip_pass.c - the AutoClip pass: Hugging Face model in, the same with clipped weights
 * out, in the source's own type, for a quantizer with this grid.
 */
#include "pass/quantize_impl.h"

typedef struct {
    int bits, group_size;
    bool sym;
    int n_grid;
    double max_shrink;
} autoclip;

static const dr_param params[] = {
    DR_INT(autoclip, bits, .dflt = "4", .search = "[2, 4, 8]", .min = 2, .max = 8,
           .help = "bits of the quantizer that comes after it: 2, 3, 4 or 8"),
    DR_INT(autoclip, group_size, .dflt = "128", .search = "[-1, 16, 32, 64, 128]",
           .min = -1, .max = 1024,
           .help = "its inputs that share a scale; -1: a whole row"),
    DR_BOOL(autoclip, sym, .dflt = "false", .search = "[true, false]",
            .help = "its grid is symmetric"),
    DR_INT(autoclip, n_grid, .dflt = "20", .min = 1, .max = 1000,
           .help = "steps from a whole range to nothing"),
    DR_FLOAT(autoclip, max_shrink, .dflt = "0.5", .min = 0, .max = 1,
             .help = "share of a range that may go"),
    DR_REFUSED("n_sample_token", "all tokens count, by their Gram matrix", NULL),
    DR_REFUSED("modules_to_not_convert", "all but q, k and v are clipped", NULL),
    DR_REFUSED("overrides", "one grid is clipped for", NULL),
    DR_REFUSED("lm_head", "the head is not clipped", NULL),
    DR_REFUSED("quantize_vision", "vision models come later", NULL),
    DR_REFUSED("moe", "mixtures of experts come later", NULL),
    DR_REFUSED("data_config", "data sets by name are those of workflow files", NULL),
};

static const pass_modules all = {.format = -1, .mixed = -1};

static dr_status validate(const void *config, const unsigned char *given)
{
    const autoclip *c = config;
    const quant_grid grid = {c->bits, c->group_size, c->sym};
    dr_status st = DR_OK;

    (void)given;
    DR_TRY(pass_check_group("group_size", c->group_size));
    DR_TRY(pass_modules_check(&all, &grid, HF_QUANT_NONE));
    if ((int)(c->max_shrink * c->n_grid) < 1)
        return dr_fail(DR_EUSAGE, "max_shrink: %g of %d steps is none", c->max_shrink,
                       c->n_grid);
done:
    return st;
}

static dr_status quantize(const quant_site *site, const quant_grid *grid,
                          const quant_calib *calib, const void *config)
{
    const autoclip *c = config;

    return quant_clip(site, grid, calib, &(quant_clip_options){c->n_grid, c->max_shrink});
}

static pass_quant_plan quant_plan(const void *config)
{
    const autoclip *c = config;

    return (pass_quant_plan){.layout = HF_QUANT_NONE,
                             .modules = &all,
                             .grid = {c->bits, c->group_size, c->sym},
                             .calib_samples = 16,
                             .calib_seq_len = 512,
                             .forwards = 3,
                             .quantize = quantize};
}

extern const pass_def pass_autoclip; /* PASS(autoclip) in pass/passes.def */
const pass_def pass_autoclip = {
    .name = "AutoClip",
    .version = 1,
    .summary = "weights clipped where that costs a grid's outputs least",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .needs_data = true,
    .config_size = sizeof(autoclip),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .estimate = pass_quantize_estimate,
    .run = pass_quantize,
    .quant_plan = quant_plan,
};
