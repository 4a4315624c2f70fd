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

PASS_PLAIN_GPTQ(gptq_quantizer, "GptqQuantizer", "GPTQ with the options of AutoGPTQ");
