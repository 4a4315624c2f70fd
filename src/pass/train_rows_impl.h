/*
 * train_rows_impl.h - the parameters that training passes share, as rows for their tables.
 */
#ifndef DRUPE_PASS_TRAIN_ROWS_IMPL_H
#define DRUPE_PASS_TRAIN_ROWS_IMPL_H

#include "pass/lora_impl.h"

/* Of every adapter. */
#define PASS_ADAPTER_ROWS                                                                  \
    DR_INT(pass_lora_config, r, .dflt = "64", .search = "[16, 32, 64]", .min = 1,          \
           .max = 4096, .help = "rank of the adapter"),                                    \
        DR_FLOAT(pass_lora_config, alpha, .dflt = "16", .min = 1e-6, .max = 1e6,           \
                 .help = "the adapter counts alpha / r times")

#define PASS_TARGET_ROW                                                                    \
    DR_STR(pass_lora_config, target_modules, .dflt = "null",                               \
           .help = "comma list of linears, or all-linear; default: the family's")

/* Of LoRA's own form. */
#define PASS_LORA_ROWS                                                                     \
    DR_FLOAT(pass_lora_config, lora_dropout, .dflt = "0.05", .max = 0.95,                  \
             .help = "share of the adapter's inputs dropped in training"),                 \
        DR_BOOL(pass_lora_config, use_rslora, .dflt = "false",                             \
                .help = "count alpha / sqrt(r) times")

/* Of LoHa and LoKr. */
#define PASS_LYCORIS_ROWS                                                                  \
    DR_FLOAT(pass_lora_config, rank_dropout, .dflt = "0", .max = 0.95,                     \
             .help = "share of the rows of dW dropped in training"),                       \
        DR_FLOAT(pass_lora_config, module_dropout, .dflt = "0", .max = 0.95,               \
                 .help = "share of the modules dropped in training"),                      \
        DR_BOOL(pass_lora_config, init_weights, .dflt = "true",                            \
                .help = "begin as nothing; false: as something random"),                   \
        DR_STR(pass_lora_config, target_modules, .dflt = "all-linear",                     \
               .help = "comma list of linears, or all-linear"),                            \
        DR_STR(pass_lora_config, exclude_modules, .dflt = "null",                          \
               .help = "comma list of linears that get none")

#define PASS_LYCORIS_REFUSED                                                               \
    DR_REFUSED("use_effective_conv2d", "decoders have no convolutions", NULL),             \
        DR_REFUSED("layers_to_transform", "every layer gets an adapter",                   \
                   "target_modules"),                                                      \
        DR_REFUSED("layers_pattern", "every layer gets an adapter", "target_modules"),     \
        DR_REFUSED("rank_pattern", "modules have one rank", "r"),                          \
        DR_REFUSED("alpha_pattern", "modules have one alpha", "alpha")

/* The Trainer's, in Olive's training_args. */
#define PASS_TRAINER_ROWS                                                                  \
    DR_INT(pass_lora_config, max_steps, .dflt = "-1", .min = -1, .max = 1e9,               \
           .help = "optimizer steps; -1: from num_train_epochs"),                          \
        DR_FLOAT(pass_lora_config, num_train_epochs, .dflt = "3", .min = 1e-6, .max = 1e6, \
                 .help = "passes over the data"),                                          \
        DR_INT(pass_lora_config, per_device_train_batch_size, .dflt = "8", .min = 1,       \
               .max = 65536, .help = "blocks a micro-batch"),                              \
        DR_INT(pass_lora_config, gradient_accumulation_steps, .dflt = "1", .min = 1,       \
               .max = 65536, .help = "micro-batches a step"),                              \
        DR_FLOAT(pass_lora_config, learning_rate, .dflt = "2e-4", .max = 1000,             \
                 .help = "of AdamW"),                                                      \
        DR_CHOICE(pass_lora_config, lr_scheduler_type, .dflt = "constant",                 \
                  .choices = train_schedule_names, .help = "how the rate changes"),        \
        DR_STR(pass_lora_config, lr_scheduler_kwargs, .dflt = "null", .json = true,        \
               .help = "what the schedule takes: {\"num_cycles\": 2}"),                    \
        DR_FLOAT(pass_lora_config, warmup_ratio, .dflt = "0.03", .max = 1,                 \
                 .help = "share of the steps that warm up (not with constant)"),           \
        DR_INT(pass_lora_config, warmup_steps, .dflt = "0", .max = 1e9,                    \
               .help = "wins over warmup_ratio"),                                          \
        DR_FLOAT(pass_lora_config, weight_decay, .dflt = "0", .max = 100,                  \
                 .help = "of AdamW"),                                                      \
        DR_FLOAT(pass_lora_config, adam_beta1, .dflt = "0.9", .max = 0.999999,             \
                 .help = "of AdamW"),                                                      \
        DR_FLOAT(pass_lora_config, adam_beta2, .dflt = "0.999", .max = 0.999999,           \
                 .help = "of AdamW"),                                                      \
        DR_FLOAT(pass_lora_config, adam_epsilon, .dflt = "1e-8", .max = 1,                 \
                 .help = "of AdamW"),                                                      \
        DR_FLOAT(pass_lora_config, max_grad_norm, .dflt = "1", .max = 1e9,                 \
                 .help = "gradients are clipped to it; 0: never"),                         \
        DR_INT(pass_lora_config, seed, .dflt = "42", .max = 2147483647,                    \
               .help = "of order, init and dropout"),                                      \
        DR_BOOL(pass_lora_config, shuffle, .dflt = "true",                                 \
                .help = "blocks in a new order each epoch"),                               \
        DR_FLOAT(pass_lora_config, label_smoothing_factor, .dflt = "0", .max = 0.99,       \
                 .help = "share of a target's probability that is spread over all"),       \
        DR_FLOAT(pass_lora_config, logging_steps, .dflt = "0", .max = 1e9,                 \
                 .help = "log the loss every so many steps, or share of all; 0: at the "   \
                         "end"),                                                           \
        DR_CHOICE(pass_lora_config, logging_strategy, .dflt = "steps",                     \
                  .choices = pass_trainer_whens, .help = "when the loss is logged"),       \
        DR_BOOL(pass_lora_config, logging_first_step, .dflt = "false",                     \
                .help = "log the first, too"),                                             \
        DR_CHOICE(pass_lora_config, eval_strategy, .dflt = "null",                         \
                  .choices = pass_trainer_whens,                                           \
                  .help = "when to evaluate between before and after (steps)"),            \
        DR_FLOAT(pass_lora_config, eval_steps, .dflt = "0", .max = 1e9,                    \
                 .help = "evaluate every so many steps, or share of all; 0: "              \
                         "logging_steps, or 500"),                                         \
        DR_BOOL(pass_lora_config, load_best_model_at_end, .dflt = "false",                 \
                .help = "keep the adapter whose evaluation was best, not the last"),       \
        DR_CHOICE(pass_lora_config, metric_for_best_model, .dflt = "eval_loss",            \
                  .choices = pass_trainer_metrics, .help = "what is best"),                \
        DR_INT(pass_lora_config, early_stopping_patience, .dflt = "0", .max = 1e9,         \
               .help = "stop after so many evaluations without a better one; 0: never"),   \
        DR_FLOAT(pass_lora_config, early_stopping_threshold, .dflt = "0", .max = 1000,     \
                 .help = "better by no more than this is not better"),                     \
        DR_CHOICE(pass_lora_config, save_strategy, .dflt = "steps",                        \
                  .choices = pass_trainer_whens, .help = "when a checkpoint is written"),  \
        DR_FLOAT(pass_lora_config, save_steps, .dflt = "500", .min = 1e-9, .max = 1e9,     \
                 .help = "a checkpoint every so many steps, or share of all"),             \
        DR_INT(pass_lora_config, save_total_limit, .dflt = "0", .max = 1e9,                \
               .help = "so many checkpoints are kept; 0: all"),                            \
        DR_STR(pass_lora_config, reference_model, .dflt = "null",                          \
               .help = "what the base was made from: folder, GGUF file or hub id, "        \
                       "evaluated beside it"),                                             \
        DR_CHOICE(pass_lora_config, torch_dtype, .dflt = "float32",                        \
                  .choices = pass_train_dtypes,                                            \
                  .help = "of the operands of products; bfloat16: on a GPU; int8: on the " \
                          "cpu, products with the base")

#define PASS_TRAIN_REFUSED                                                                 \
    DR_REFUSED("modules_to_save", "modules beside the adapter come later",                 \
               "target_modules"),                                                          \
        DR_REFUSED("device_map", "one device a run", NULL),                                \
        DR_REFUSED("allow_tf32", "sums are in float32", NULL),                             \
        DR_REFUSED("ephemeral_gpu_offload", "adapters stay where they train", NULL),       \
        DR_REFUSED("train_data_config", "data sets by name are those of workflow files",   \
                   NULL),                                                                  \
        DR_REFUSED("eval_data_config", "data sets by name are those of workflow files",    \
                   NULL),                                                                  \
        DR_REFUSED("training_args", "its members are parameters of their own",             \
                   "max_steps")

/* The rest of a training pass's file: what it does is finetune.c's, by its kind. */
#define PASS_TRAINING(symbol, title, number, says, kind)                                   \
    static dr_status validate(const void *config, const unsigned char *given)              \
    {                                                                                      \
        return pass_finetune_check(config, params, DR_COUNT(params), given);               \
    }                                                                                      \
                                                                                           \
    static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)       \
    {                                                                                      \
        return pass_finetune(job, out, in, kind);                                          \
    }                                                                                      \
                                                                                           \
    extern const pass_def pass_##symbol; /* PASS(symbol) in pass/passes.def */             \
    const pass_def pass_##symbol = {                                                       \
        .name = title,                                                                     \
        .version = number,                                                                 \
        .summary = says,                                                                   \
        .takes = PASS_MODEL_HF,                                                            \
        .gives = PASS_MODEL_HF,                                                            \
        .needs_data = true,                                                                \
        .trains = true,                                                                    \
        .shared = true,                                                                    \
        .config_size = sizeof(pass_lora_config),                                           \
        .params = params,                                                                  \
        .params_count = DR_COUNT(params),                                                  \
        .validate = validate,                                                              \
        .estimate = pass_finetune_estimate,                                                \
        .run = run,                                                                        \
    }

#endif
