/*
 * plain_gptq_impl.h - GPTQ as its first programs have it, for the passes that carry their
 * names: grids from min and max, no scaling before, no bias after.
 */
#ifndef DRUPE_PASS_PLAIN_GPTQ_IMPL_H
#define DRUPE_PASS_PLAIN_GPTQ_IMPL_H

#include "pass/quantize_impl.h"

typedef struct {
    pass_grid grid;
    double damp_percent;
    bool static_groups, true_sequential, desc_act;
} pass_plain_gptq;

/* Defaults as text. */
#define PASS_PLAIN_GPTQ_ROWS(group, symmetric, damp, ordered)                              \
    DR_INT(pass_grid, bits, .dflt = "4", .min = 2, .max = 8,                               \
           .help = "bits per weight: 2, 3 (stored as 4), 4, 8"),                           \
        DR_INT(pass_grid, group_size, .dflt = group, .min = -1, .max = 1024,               \
               .help = "input channels that share a scale; -1: a whole row"),              \
        DR_BOOL(pass_grid, sym, .dflt = symmetric, .help = "symmetric grid"),              \
        PASS_MODULES_ROWS(pass_grid, "gptq"),                                              \
        DR_FLOAT(pass_plain_gptq, damp_percent, .dflt = damp, .min = 0.0001, .max = 1,     \
                 .help = "share of the mean diagonal that is added"),                      \
        DR_BOOL(pass_plain_gptq, static_groups, .dflt = "false",                           \
                .help = "all grids from the original weights"),                            \
        DR_BOOL(pass_plain_gptq, true_sequential, .dflt = "true",                          \
                .help = "a linear is rounded for what those before it in its layer give, " \
                        "rounded; false is refused"),                                      \
        DR_BOOL(pass_plain_gptq, desc_act, .dflt = ordered,                                \
                .help = "columns by descending activation, groups kept whole"),            \
        DR_REFUSED("data_config", "data sets by name are those of workflow files", NULL)

DR_MUST_USE dr_status pass_plain_gptq_validate(const void *config,
                                               const unsigned char *given);
pass_quant_plan pass_plain_gptq_plan(const void *config);

/* The rest of such a pass's file. */
#define PASS_PLAIN_GPTQ(symbol, title, says)                                               \
    extern const pass_def pass_##symbol; /* PASS(symbol) in pass/passes.def */             \
    const pass_def pass_##symbol = {                                                       \
        .name = title,                                                                     \
        .version = 1,                                                                      \
        .summary = says,                                                                   \
        .takes = PASS_MODEL_HF,                                                            \
        .gives = PASS_MODEL_HF,                                                            \
        .needs_data = true,                                                                \
        .config_size = sizeof(pass_plain_gptq),                                            \
        .params = params,                                                                  \
        .params_count = DR_COUNT(params),                                                  \
        .validate = pass_plain_gptq_validate,                                              \
        .estimate = pass_quantize_estimate,                                                \
        .run = pass_quantize,                                                              \
        .quant_plan = pass_plain_gptq_plan,                                                \
    }

#endif
