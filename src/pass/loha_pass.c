/*
 * loha_pass.c - the LoHa pass: a product, element by element, of two low-rank matrices
 * (finetune.c, train/delta.c).
 */
#include "pass/train_rows_impl.h"

static const dr_param params[] = {
    PASS_ADAPTER_ROWS,    PASS_LYCORIS_ROWS,  PASS_TRAINER_ROWS,
    PASS_LYCORIS_REFUSED, PASS_TRAIN_REFUSED,
};

PASS_TRAINING(loha, "LoHa", 1,
              "adapters that are products of two low-rank ones, by elements",
              PASS_KIND_LOHA);
