/*
 * lora_pass.c - the LoRA pass: a plain or packed base gets a low-rank adapter (finetune.c).
 */
#include "pass/train_rows_impl.h"

const char *const pass_inits[] = {"true", "gaussian", "pissa", NULL};

static const dr_param params[] = {
    PASS_ADAPTER_ROWS,
    PASS_LORA_ROWS,
    PASS_TARGET_ROW,
    DR_CHOICE(pass_lora_config, init_lora_weights, .dflt = "true", .choices = pass_inits,
              .help = "how it begins: as nothing, A uniform or gaussian; pissa: as the "
                      "largest part of the weights"),
    PASS_TRAINER_ROWS,
    PASS_TRAIN_REFUSED,
};

static dr_status validate(const void *config, const unsigned char *given)
{
    return pass_finetune_check(config, params, DR_COUNT(params), given);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_finetune(job, out, in, PASS_KIND_LORA);
}

extern const pass_def pass_lora; /* PASS(lora) in pass/passes.def */
const pass_def pass_lora = {
    .name = "LoRA",
    .version = 3,
    .summary = "low-rank adapters on a plain or a packed base",
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
