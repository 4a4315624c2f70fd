/*
 * selective_mixed_precision_pass.c - the SelectiveMixedPrecision pass: which linears get 8
 * bits, for the quantizer that comes next, which takes the grid of all others from here,
 * too. It writes nothing; the quantizer's own row mixed is the same without a pass.
 */
#include "pass/quantize_impl.h"

typedef struct {
    int algorithm;
    int bits;
    int group_size;
    bool sym;
    double ratio;
} selective;

static const dr_param params[] = {
    DR_CHOICE(selective, algorithm, .dflt = "k_quant_mixed", .choices = pass_mixes,
              .help = "by place (k_quant_*) or by what rounding costs the weights"),
    DR_INT(selective, bits, .dflt = "4", .min = 2, .max = 4,
           .help = "of the others: 2, 3 (stored as 4), 4"),
    DR_INT(selective, group_size, .dflt = "128", .search = "[-1, 16, 32, 64, 128]",
           .min = -1, .max = 1024,
           .help = "input channels that share a scale, of all; -1: a whole row"),
    DR_BOOL(selective, sym, .dflt = "false", .help = "symmetric grids"),
    DR_FLOAT(selective, ratio, .dflt = "0", .max = 1,
             .help = "share of weights that keeps bits (snr, iqe: 0.8)"),
    DR_REFUSED("high_bits", "the finer grid has 8 bits", NULL),
    DR_REFUSED("high_group_size", "both grids have one group size", "group_size"),
    DR_REFUSED("high_sym", "both grids are of one kind", "sym"),
    DR_REFUSED("kld_memory_mode",
               "there is no kld_gradient; max_size of a quantizer chooses "
               "by measured error",
               NULL),
};

static dr_status validate(const void *config, const unsigned char *given)
{
    const selective *c = config;
    const pass_modules w = {.format = -1, .mixed = c->algorithm, .ratio = c->ratio};
    const quant_grid grid = {c->bits, c->group_size, c->sym};
    dr_status st = DR_OK;

    (void)given;
    DR_TRY(pass_check_group("group_size", c->group_size));
    DR_TRY(pass_modules_check(&w, &grid, HF_QUANT_OLIVE));
done:
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const selective *c = job->config;
    pass_mix_choice *mix = dr_arena_alloc(job->arena, 1, sizeof(*mix));

    *mix = (pass_mix_choice){c->algorithm, c->ratio, c->bits, c->group_size, c->sym};
    *out = *in;
    out->mix = mix;
    return DR_OK;
}

extern const pass_def
    pass_selective_mixed_precision; /* PASS(selective_mixed_precision) in pass/passes.def */
const pass_def pass_selective_mixed_precision = {
    .name = "SelectiveMixedPrecision",
    .version = 1,
    .summary = "8 bits for some linears, for the quantizer after it",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .chooses = true,
    .config_size = sizeof(selective),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .run = run,
};
