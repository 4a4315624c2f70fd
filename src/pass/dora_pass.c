/*
 * dora_pass.c - the DoRA pass: a low-rank adapter with magnitudes (finetune.c).
 */
#include "pass/train_rows_impl.h"

static const dr_param params[] = {
    PASS_ADAPTER_ROWS, PASS_LORA_ROWS,     PASS_TARGET_ROW,
    PASS_TRAINER_ROWS, PASS_TRAIN_REFUSED,
};

static dr_status validate(const void *config, const unsigned char *given)
{
    return pass_finetune_check(config, params, DR_COUNT(params), given);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_finetune(job, out, in, PASS_KIND_DORA);
}

extern const pass_def pass_dora; /* PASS(dora) in pass/passes.def */
const pass_def pass_dora = {
    .name = "DoRA",
    .version = 2,
    .summary = "low-rank adapters with a magnitude for each output (DoRA)",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .needs_data = true,
    .trains = true,
    .config_size = sizeof(pass_lora_config),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .estimate = pass_finetune_estimate,
    .run = run,
};
