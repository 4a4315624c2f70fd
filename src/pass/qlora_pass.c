/*
 * qlora_pass.c - the QLoRA pass: a low-rank adapter on a base rounded to 4 bits (Dettmers
 * et al. 2023), as bitsandbytes rounds (finetune.c).
 *
 * Olive's pass leaves a config that has the plain base rounded again when it is loaded;
 * here model/ holds the rounded weights themselves.
 */
#include "pass/train_rows_impl.h"

const char *const pass_quant_types[] = {"nf4", "fp4", NULL};

static const dr_param params[] = {
    PASS_ADAPTER_ROWS,
    PASS_LORA_ROWS,
    DR_STR(pass_lora_config, target_modules, .dflt = "all-linear",
           .help = "comma list of linears, or all-linear"),
    DR_CHOICE(pass_lora_config, quant_type, .dflt = "nf4", .choices = pass_quant_types,
              .help = "the 16 numbers that weights are rounded to"),
    DR_BOOL(pass_lora_config, double_quant, .dflt = "false",
            .help = "scales of 8 bits, too"),
    DR_BOOL(pass_lora_config, save_quant_config, .dflt = "true",
            .help = "model/ is the rounded base; false: the base as it came"),
    PASS_TRAINER_ROWS,
    DR_REFUSED("compute_dtype", "products are as torch_dtype says", "torch_dtype"),
    PASS_TRAIN_REFUSED,
};

PASS_TRAINING(qlora, "QLoRA", 1,
              "low-rank adapters on a base that is rounded to 4 bits (nf4)",
              PASS_KIND_QLORA);
