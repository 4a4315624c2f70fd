/*
 * verb_finetune.c - drupe finetune.
 */
#include <string.h>
#include <strings.h>

#include "cli/cli_impl.h"

typedef struct {
    cli_common common;
    cli_model model;
    cli_data data;
    const char *adapter_path;
    int method;
    int init_lora_weights;
    int pissa_niter;
    int loftq_iter;
    const char *reference_model;
    int torch_dtype;
    int lora_r;
    double lora_alpha;
    double lora_dropout;
    bool use_rslora;
    const char *target_modules;
    int max_steps;
    double num_train_epochs;
    int per_device_train_batch_size;
    int gradient_accumulation_steps;
    double learning_rate;
    int lr_scheduler_type;
    double warmup_ratio;
    int warmup_steps;
    double weight_decay;
    double adam_beta1;
    double adam_beta2;
    double adam_epsilon;
    double max_grad_norm;
    double label_smoothing_factor;
    int seed;
    bool shuffle;
    double logging_steps;
    int logging_strategy;
    bool logging_first_step;
    const char *lr_scheduler_kwargs;
    bool completion_only_loss;
    const char *train_split;
    const char *eval_split;
    const char *eval_data_files;
    int eval_strategy;
    double eval_steps;
    bool load_best_model_at_end;
    int metric_for_best_model;
    int early_stopping_patience;
    double early_stopping_threshold;
    int save_strategy;
    double save_steps;
    int save_total_limit;
    const char *resume_from_checkpoint;
    const char *memory;
} options;

enum { MAX_SAMPLES = 256 }; /* Olive's default */

static const char *const methods[] = {"lora", "qlora", "dora", "loftq",
                                      "loha", "lokr",  NULL};
static const char *const passes[] = {"LoRA", "QLoRA", "DoRA", "LoftQ", "LoHa", "LoKr"};
static const char *const inits[] = {"true", "gaussian", "pissa", NULL};
static const char *const dtypes[] = {"float32", "bfloat16", "int8", NULL};
static const char *const schedules[] = {"constant",
                                        "linear",
                                        "cosine",
                                        "cosine_with_restarts",
                                        "polynomial",
                                        "constant_with_warmup",
                                        "inverse_sqrt",
                                        "cosine_with_min_lr",
                                        "warmup_stable_decay",
                                        "reduce_lr_on_plateau",
                                        NULL};
static const char *const whens[] = {"no", "steps", "epoch", NULL};
static const char *const metrics[] = {"eval_loss", "loss", NULL};

/* Fields of the Hugging Face Trainer, which Olive passes through; the common ones. */
#define TRAINER_REFUSED                                                                    \
    DR_REFUSED("bf16", "training is in float32", "torch_dtype"),                           \
        DR_REFUSED("fp16", "training is in float32", "torch_dtype"),                       \
        DR_REFUSED("tf32", "training is in float32", "torch_dtype"),                       \
        DR_REFUSED("optim", "it is AdamW", "weight_decay"),                                \
        DR_REFUSED("gradient_checkpointing", "chosen by the memory there is", "memory"),   \
        DR_REFUSED("auto_find_batch_size", "memory does not depend on the batch",          \
                   "per_device_train_batch_size"),                                         \
        DR_REFUSED("output_dir", "there is one output folder", "output_path"),             \
        DR_REFUSED("overwrite_output_dir", "a folder that drupe made is replaced",         \
                   "output_path"),                                                         \
        DR_REFUSED("save_only_model", "a checkpoint is for going on", "save_steps"),       \
        DR_REFUSED("save_safetensors", "there is no other form", NULL),                    \
        DR_REFUSED("save_on_each_node", "one machine a run", NULL),                        \
        DR_REFUSED("ignore_data_skip", "a run that goes on sees what it would have seen",  \
                   "resume_from_checkpoint"),                                              \
        DR_REFUSED("restore_callback_states_from_checkpoint", "they always are",           \
                   "resume_from_checkpoint"),                                              \
        DR_REFUSED("evaluation_strategy", "it has a new name", "eval_strategy"),           \
        DR_REFUSED("do_train", "it always trains", NULL),                                  \
        DR_REFUSED("do_eval", "it evaluates what it is given", "eval_split"),              \
        DR_REFUSED("do_predict", "it evaluates what it is given", "eval_split"),           \
        DR_REFUSED("eval_on_start", "the base is always evaluated first", NULL),           \
        DR_REFUSED("eval_delay", "evaluations begin at once", "eval_steps"),               \
        DR_REFUSED("eval_accumulation_steps", "only the loss is computed", "eval_steps"),  \
        DR_REFUSED("prediction_loss_only", "only the loss is computed", NULL),             \
        DR_REFUSED("include_for_metrics", "only the loss is computed", NULL),              \
        DR_REFUSED("batch_eval_metrics", "only the loss is computed", NULL),               \
        DR_REFUSED("greater_is_better", "a smaller loss is better",                        \
                   "metric_for_best_model"),                                               \
        DR_REFUSED("per_device_eval_batch_size",                                           \
                   "the loss is a mean over tokens, "                                      \
                   "whatever the batch",                                                   \
                   "per_device_train_batch_size"),                                         \
        DR_REFUSED("report_to", "losses are in the result", "json"),                       \
        DR_REFUSED("logging_dir", "losses are in the result", "json"),                     \
        DR_REFUSED("logging_nan_inf_filter", "a loss that is no number ends the run",      \
                   NULL),                                                                  \
        DR_REFUSED("data_seed", "one seed is for all", "seed"),                            \
        DR_REFUSED("full_determinism", "every run is deterministic", "seed"),              \
        DR_REFUSED("group_by_length", "joined blocks have one length", "shuffle"),         \
        DR_REFUSED("dataloader_num_workers", "data is read at once", "threads"),           \
        DR_REFUSED("dataloader_drop_last", "the last batch is trained on", NULL),          \
        DR_REFUSED("remove_unused_columns", "columns are chosen by name",                  \
                   "text_template"),                                                       \
        DR_REFUSED("neftune_noise_alpha", "it comes later", "lora_dropout"),               \
        DR_REFUSED("torch_compile", "no Python is run", NULL),                             \
        DR_REFUSED("use_cpu", "training is on the CPU", NULL),                             \
        DR_REFUSED("no_cuda", "training is on the CPU", NULL),                             \
        DR_REFUSED("deepspeed", "mpirun shares a run among GPUs", NULL),                   \
        DR_REFUSED("fsdp", "mpirun shares a run among GPUs", NULL),                        \
        DR_REFUSED("push_to_hub", "nothing is sent anywhere", NULL)

static const dr_param params[] = {
    CLI_MODEL(options, "finetuned-adapter"),
    CLI_DATA_OF(options, "tokens a block (default: 1024)", "blocks (default: 256)",
                cli_train_strategies),
    DR_CHOICE(options, method, .dflt = "lora", .choices = methods,
              .help = "lora; qlora: on a base rounded to nf4; dora: with magnitudes; "
                      "loftq: on nf4, from what it lost; loha, lokr: products"),
    DR_STR(options, adapter_path, .short_name = 'a', .help = "adapter to start from"),
    DR_INT(options, lora_r, .dflt = "64", .min = 1, .max = 4096, .help = "rank"),
    DR_FLOAT(options, lora_alpha, .dflt = "16", .min = 1e-6, .max = 1e6,
             .help = "the adapter counts alpha / r times"),
    DR_FLOAT(options, lora_dropout, .dflt = "0.05", .max = 0.95,
             .help = "share of the adapter's inputs dropped"),
    DR_BOOL(options, use_rslora, .dflt = "false", .help = "alpha / sqrt(r) instead"),
    DR_STR(options, target_modules,
           .help = "comma list of linears, or all-linear (default: q_proj,v_proj; Phi-3: "
                   "o_proj,qkv_proj)"),
    DR_CHOICE(options, init_lora_weights, .dflt = "true", .choices = inits,
              .help = "of lora: as nothing, A uniform or gaussian; pissa: as the largest "
                      "part of the weights"),
    DR_INT(options, pissa_niter, .dflt = "0", .max = 1000,
           .help = "of pissa: find that part by so many iterations; 0: exactly"),
    DR_INT(options, loftq_iter, .dflt = "1", .min = 1, .max = 100,
           .help = "of loftq: roundings of what the adapter leaves"),
    DR_INT(options, max_steps, .dflt = "-1", .min = -1, .max = 1e9,
           .help = "optimizer steps; -1: from num_train_epochs"),
    DR_FLOAT(options, num_train_epochs, .dflt = "3", .min = 1e-6, .max = 1e6,
             .help = "passes over the data"),
    DR_INT(options, per_device_train_batch_size, .dflt = "8", .min = 1, .max = 65536,
           .help = "blocks a micro-batch"),
    DR_INT(options, gradient_accumulation_steps, .dflt = "1", .min = 1, .max = 65536,
           .help = "micro-batches a step"),
    DR_FLOAT(options, learning_rate, .dflt = "2e-4", .max = 1000, .help = "of AdamW"),
    DR_CHOICE(options, lr_scheduler_type, .dflt = "constant", .choices = schedules,
              .help = "how the rate changes"),
    DR_STR(options, lr_scheduler_kwargs, .json = true,
           .help = "what the schedule takes: '{\"num_cycles\": 2}'"),
    DR_FLOAT(options, warmup_ratio, .dflt = "0.03", .max = 1,
             .help = "share of the steps that warm up (not with constant)"),
    DR_INT(options, warmup_steps, .dflt = "0", .max = 1e9,
           .help = "wins over warmup_ratio"),
    DR_FLOAT(options, weight_decay, .dflt = "0", .max = 100, .help = "of AdamW"),
    DR_FLOAT(options, adam_beta1, .dflt = "0.9", .max = 0.999999, .help = "of AdamW"),
    DR_FLOAT(options, adam_beta2, .dflt = "0.999", .max = 0.999999, .help = "of AdamW"),
    DR_FLOAT(options, adam_epsilon, .dflt = "1e-8", .max = 1, .help = "of AdamW"),
    DR_FLOAT(options, max_grad_norm, .dflt = "1", .max = 1e9,
             .help = "gradients are clipped to it; 0: never"),
    DR_FLOAT(options, label_smoothing_factor, .dflt = "0", .max = 0.99,
             .help = "share of a target's probability that is spread over all"),
    DR_INT(options, seed, .dflt = "42", .max = 2147483647,
           .help = "of order, start and dropout"),
    DR_BOOL(options, shuffle, .dflt = "true", .help = "a new order each epoch"),
    DR_FLOAT(options, logging_steps, .dflt = "0", .max = 1e9,
             .help = "log the loss every so many steps, or share of all"),
    DR_CHOICE(options, logging_strategy, .dflt = "steps", .choices = whens,
              .help = "when the loss is logged"),
    DR_BOOL(options, logging_first_step, .dflt = "false", .help = "log the first, too"),
    DR_BOOL(options, completion_only_loss, .dflt = "false",
            .help =
                "loss on answers only: the template's {response} or last column, or the "
                "assistant's messages"),
    DR_STR(options, train_split,
           .help = "rows of the files to train on: \"train[:90%]\" (default: all)"),
    DR_STR(options, eval_split, .help = "rows of them to evaluate on: \"train[90%:]\""),
    DR_STR(options, eval_data_files, .help = "other files to evaluate on, read the same"),
    DR_CHOICE(options, eval_strategy, .choices = whens,
              .help = "when to evaluate between before and after (default: steps)"),
    DR_FLOAT(options, eval_steps, .dflt = "0", .max = 1e9,
             .help = "evaluate every so many steps, or share of all; 0: logging_steps, or "
                     "500"),
    DR_BOOL(options, load_best_model_at_end, .dflt = "false",
            .help = "keep the adapter whose evaluation was best, not the last"),
    DR_CHOICE(options, metric_for_best_model, .dflt = "eval_loss", .choices = metrics,
              .help = "what is best"),
    DR_INT(options, early_stopping_patience, .dflt = "0", .max = 1e9,
           .help = "stop after so many evaluations without a better one; 0: never"),
    DR_FLOAT(options, early_stopping_threshold, .dflt = "0", .max = 1000,
             .help = "better by no more than this is not better"),
    DR_STR(options, reference_model,
           .help = "what the base was made from: folder, GGUF file or hub id, evaluated "
                   "beside it"),
    DR_CHOICE(options, save_strategy, .dflt = "steps", .choices = whens,
              .help = "when a checkpoint is written"),
    DR_FLOAT(options, save_steps, .dflt = "500", .min = 1e-9, .max = 1e9,
             .help = "a checkpoint every so many steps, or share of all"),
    DR_INT(options, save_total_limit, .dflt = "0", .max = 1e9,
           .help = "so many checkpoints are kept; 0: all"),
    DR_STR(options, resume_from_checkpoint,
           .help = "true: the last one of this output; or a checkpoint's folder"),
    DR_STR(options, memory,
           .help = "memory to keep to, beside the model's file: 4GB (default: half of what "
                   "is free)"),
    DR_CHOICE(options, torch_dtype, .dflt = "float32", .choices = dtypes,
              .help = "of the operands of products; bfloat16: on a GPU; int8: on the cpu, "
                      "products with the base, at twice the speed"),
    CLI_COMPUTE(options),
    CLI_THREADS(options),
    CLI_COMMON(options),
    DR_REFUSED("batch_size", "in Olive it changes nothing here",
               "per_device_train_batch_size"),
    DR_REFUSED("packing", "it is a strategy", "strategy"),
    DR_REFUSED("train_subset", "data sets of the hub are not read yet", "data_files"),
    DR_REFUSED("eval_subset", "data sets of the hub are not read yet", "eval_split"),
    DR_REFUSED("subset", "data sets of the hub are not read yet", "data_files"),
    DR_REFUSED("split", "there are two", "train_split"),
    CLI_MODEL_REFUSED,
    TRAINER_REFUSED,
};

static const cli_key keys[] = {{"r", "lora_r"},
                               {"alpha", "lora_alpha"},
                               {"lora_dropout", NULL},
                               {"use_rslora", NULL},
                               {"target_modules", NULL},
                               {"init_lora_weights", NULL},
                               {"pissa_niter", NULL},
                               {"loftq_iter", NULL},
                               {"max_steps", NULL},
                               {"num_train_epochs", NULL},
                               {"per_device_train_batch_size", NULL},
                               {"gradient_accumulation_steps", NULL},
                               {"learning_rate", NULL},
                               {"lr_scheduler_type", NULL},
                               {"warmup_ratio", NULL},
                               {"warmup_steps", NULL},
                               {"weight_decay", NULL},
                               {"adam_beta1", NULL},
                               {"adam_beta2", NULL},
                               {"adam_epsilon", NULL},
                               {"max_grad_norm", NULL},
                               {"label_smoothing_factor", NULL},
                               {"seed", NULL},
                               {"shuffle", NULL},
                               {"logging_steps", NULL},
                               {"logging_strategy", NULL},
                               {"logging_first_step", NULL},
                               {"lr_scheduler_kwargs", NULL},
                               {"eval_strategy", NULL},
                               {"eval_steps", NULL},
                               {"load_best_model_at_end", NULL},
                               {"metric_for_best_model", NULL},
                               {"early_stopping_patience", NULL},
                               {"early_stopping_threshold", NULL},
                               {"save_strategy", NULL},
                               {"save_steps", NULL},
                               {"save_total_limit", NULL},
                               {"reference_model", NULL},
                               {"torch_dtype", NULL}};

static dr_status run(const void *cfg, const unsigned char *given)
{
    const options *o = cfg;
    json_t *config = NULL;
    drupe_job job = cli_model_job(&o->model);
    dr_status st = DR_OK;

    job.adapters = o->adapter_path;
    job.data = cli_data_of(&o->data);
    cli_model_notes(&o->model);
    if (o->data.data_name == NULL) {
        st = dr_fail(DR_EUSAGE, "--data_name is required");
        dr_hint("--data_name json --data_files data.jsonl --text_template \"{prompt} "
                "{response}\"");
        goto done;
    }
    if (job.data.max_samples == 0)
        job.data.max_samples = MAX_SAMPLES;
    job.data.split = o->train_split;
    job.memory = o->memory;
    job.device = cli_computes[o->common.compute];
    job.data.completion_only = o->completion_only_loss;
    if (o->resume_from_checkpoint != NULL &&
        strcasecmp(o->resume_from_checkpoint, "false") != 0)
        job.resume = o->resume_from_checkpoint;
    if (o->eval_split != NULL || o->eval_data_files != NULL) {
        job.eval = job.data;
        job.eval.split = o->eval_split;
        if (o->eval_data_files != NULL)
            job.eval.files = o->eval_data_files;
    }
    DR_TRY(
        cli_pass_config(&config, params, DR_COUNT(params), o, given, keys, DR_COUNT(keys)));
    if (strcmp(methods[o->method], "qlora") == 0) /* as olive finetune has it */
        json_object_set_new(config, "save_quant_config", json_false());
    DR_TRY(cli_run_job(&o->common, &job, passes[o->method], config, "trained"));
done:
    return st;
}

extern const cli_verb verb_finetune; /* VERB(finetune, ...) in cli/verbs.def */
const cli_verb verb_finetune = {
    "drupe finetune -m MODEL -d json --data_files FILE --text_template TEXT",
    sizeof(options), params, DR_COUNT(params), run};
