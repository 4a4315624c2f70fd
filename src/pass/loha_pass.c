/*
 * loha_pass.c - the LoHa pass: a product, element by element, of two low-rank matrices
 * (finetune.c, train/delta.c).
 */
#include "pass/train_rows_impl.h"

static const dr_param params[] = {
    PASS_ADAPTER_ROWS,    PASS_LYCORIS_ROWS,  PASS_TRAINER_ROWS,
    PASS_LYCORIS_REFUSED, PASS_TRAIN_REFUSED,
};

static dr_status validate(const void *config, const unsigned char *given)
{
    return pass_finetune_check(config, params, DR_COUNT(params), given);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_finetune(job, out, in, PASS_KIND_LOHA);
}

extern const pass_def pass_loha; /* PASS(loha) in pass/passes.def */
const pass_def pass_loha = {
    .name = "LoHa",
    .version = 1,
    .summary = "adapters that are products of two low-rank ones, by elements",
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
