/*
 * loftq_pass.c - the LoftQ pass: a base rounded to nf4, and a low-rank adapter that begins
 * as the best one to what the rounding lost (finetune.c, train/start.c).
 */
#include "pass/train_rows_impl.h"

static const dr_param params[] = {
    PASS_ADAPTER_ROWS,
    PASS_LORA_ROWS,
    DR_STR(pass_lora_config, target_modules, .dflt = "all-linear",
           .help = "comma list of linears, or all-linear"),
    DR_INT(pass_lora_config, loftq_iter, .dflt = "1", .search = "[1, 2, 4]", .min = 1,
           .max = 100, .help = "roundings of what the adapter leaves of the weights"),
    PASS_TRAINER_ROWS,
    DR_REFUSED("compute_dtype", "products are as torch_dtype says", "torch_dtype"),
    PASS_TRAIN_REFUSED,
};

PASS_TRAINING(loftq, "LoftQ", 1,
              "a base rounded to nf4, adapters that begin as what it lost",
              PASS_KIND_LOFTQ);
