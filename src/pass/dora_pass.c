/*
 * dora_pass.c - the DoRA pass: a low-rank adapter with magnitudes (finetune.c).
 */
#include "pass/train_rows_impl.h"

static const dr_param params[] = {
    PASS_ADAPTER_ROWS, PASS_LORA_ROWS,     PASS_TARGET_ROW,
    PASS_TRAINER_ROWS, PASS_TRAIN_REFUSED,
};

PASS_TRAINING(dora, "DoRA", 2, "low-rank adapters with a magnitude for each output (DoRA)",
              PASS_KIND_DORA);
