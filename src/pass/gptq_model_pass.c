/*
 * gptq_model_pass.c - the GptqModel pass: GPTQ with GPTQModel's options and defaults.
 */
#include "pass/plain_gptq_impl.h"

static const dr_param params[] = {
    PASS_PLAIN_GPTQ_ROWS("-1", "true", "0.05", "true"),
    DR_REFUSED("damp_auto_increment", "damping is raised where it has to be", NULL),
    DR_REFUSED("mse", "grids are from min and max here, and not in the pass Gptq", NULL),
    DR_REFUSED("device", "the device is the run's: --compute", NULL),
    DR_REFUSED("dynamic", "modules have overrides", "overrides"),
    DR_REFUSED("rotation", "rotating is a pass of its own: QuaRot", NULL),
};

PASS_PLAIN_GPTQ(gptq_model, "GptqModel", "GPTQ with the options of GPTQModel");
