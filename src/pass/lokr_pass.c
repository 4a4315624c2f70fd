/*
 * lokr_pass.c - the LoKr pass: a Kronecker product, one side of low rank (finetune.c,
 * train/delta.c).
 */
#include "pass/train_rows_impl.h"

static const dr_param params[] = {
    PASS_ADAPTER_ROWS,
    PASS_LYCORIS_ROWS,
    DR_BOOL(pass_lora_config, decompose_both, .dflt = "false",
            .help = "both sides of low rank, where that is less"),
    DR_INT(pass_lora_config, decompose_factor, .dflt = "-1", .min = -1, .max = 1 << 20,
           .help = "size of the smaller side; -1: near the root"),
    DR_BOOL(pass_lora_config, rank_dropout_scale, .dflt = "false",
            .help = "rows that stay grow for those that rank_dropout takes"),
    PASS_TRAINER_ROWS,
    PASS_LYCORIS_REFUSED,
    PASS_TRAIN_REFUSED,
};

static dr_status validate(const void *config, const unsigned char *given)
{
    return pass_finetune_check(config, params, DR_COUNT(params), given);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_finetune(job, out, in, PASS_KIND_LOKR);
}

extern const pass_def pass_lokr; /* PASS(lokr) in pass/passes.def */
const pass_def pass_lokr = {
    .name = "LoKr",
    .version = 1,
    .summary = "adapters that are Kronecker products",
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
