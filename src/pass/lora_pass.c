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
    DR_INT(pass_lora_config, pissa_niter, .dflt = "0", .max = 1000,
           .help = "of pissa: find that part by so many iterations; 0: exactly"),
    PASS_TRAINER_ROWS,
    PASS_TRAIN_REFUSED,
};

PASS_TRAINING(lora, "LoRA", 3, "low-rank adapters on a plain or a packed base",
              PASS_KIND_LORA);
