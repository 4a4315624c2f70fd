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

PASS_TRAINING(lokr, "LoKr", 1, "adapters that are Kronecker products", PASS_KIND_LOKR);
