/*
 * gptq_quantizer_pass.c - the GptqQuantizer pass: GPTQ with AutoGPTQ's options and
 * defaults, but that linears are always rounded for what is before them (true_sequential).
 */
#include "pass/plain_gptq_impl.h"

static const dr_param params[] = {
    PASS_PLAIN_GPTQ_ROWS("128", "false", "0.01", "false"),
    DR_REFUSED("layers_block_name", "families are known", NULL),
    DR_REFUSED("outside_layer_modules", "families are known", NULL),
    DR_REFUSED("inside_layer_modules", "families are known", NULL),
};

extern const pass_def pass_gptq_quantizer; /* PASS(gptq_quantizer) */
const pass_def pass_gptq_quantizer = {
    .name = "GptqQuantizer",
    .version = 1,
    .summary = "GPTQ with the options of AutoGPTQ",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .needs_data = true,
    .config_size = sizeof(pass_plain_gptq),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = pass_plain_gptq_validate,
    .estimate = pass_quantize_estimate,
    .run = pass_quantize,
    .quant_plan = pass_plain_gptq_plan,
};
