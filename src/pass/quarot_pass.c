/*
 * quarot_pass.c - the QuaRot pass: Hugging Face model in, the same function in another
 * basis out, in the source's own type, for a quantizer after it.
 */
#include "pass/quantize_impl.h"

typedef struct {
    int seed;
    int rotate_mode;
} quarot;

enum { HADAMARD, RANDOM };
static const char *const modes[] = {"hadamard", "random", NULL};

static const dr_param params[] = {
    DR_INT(quarot, seed, .dflt = "0", .max = 2147483647,
           .help = "of the signs, or of the whole matrices"),
    DR_CHOICE(quarot, rotate_mode, .dflt = "hadamard", .choices = modes,
              .help = "hadamard: with random signs; random: uniform orthogonal matrices"),
};

static dr_status quantize(const quant_site *site, const quant_grid *grid,
                          const quant_calib *calib, const void *config)
{
    const quarot *c = config;

    (void)grid;
    (void)calib;
    return quant_rotate(
        site, &(quant_rotate_options){(uint64_t)c->seed, c->rotate_mode == RANDOM});
}

static pass_quant_plan quant_plan(const void *config)
{
    static const pass_modules all = {.format = -1, .mixed = -1};

    (void)config;
    return (pass_quant_plan){.layout = HF_QUANT_NONE,
                             .modules = &all,
                             .grid = {8, -1, false}, /* not used: floats stay floats */
                             .rotates = true,
                             .quantize = quantize};
}

extern const pass_def pass_quarot; /* PASS(quarot) in pass/passes.def */
const pass_def pass_quarot = {
    .name = "QuaRot",
    .version = 1,
    .summary = "weights in a basis without outliers, for a quantizer after it",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .config_size = sizeof(quarot),
    .params = params,
    .params_count = DR_COUNT(params),
    .estimate = pass_quantize_estimate,
    .run = pass_quantize,
    .quant_plan = quant_plan,
};
