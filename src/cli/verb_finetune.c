/*
 * verb_finetune.c - drupe finetune.
 */
#include "cli/cli_impl.h"

typedef struct {
    cli_common common;
    cli_model model;
    cli_data data;
    const char *adapter_path;
    int method;
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
    int seed;
    bool shuffle;
    int logging_steps;
} options;

static const char *const methods[] = {"lora", NULL};
static const char *const dtypes[] = {"float32", NULL};
static const char *const schedules[] = {"constant", "linear", "cosine", NULL};

static const dr_param params[] = {
    CLI_MODEL(options, "finetuned-adapter"),
    CLI_DATA(options, "tokens a block (default: 1024)", "blocks (default: 256)"),
    DR_CHOICE(options, method, .dflt = "lora", .choices = methods,
              .help = "lora works on plain and on quantized models"),
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
    DR_FLOAT(options, warmup_ratio, .dflt = "0.03", .max = 1,
             .help = "share of the steps that warm up (not with constant)"),
    DR_INT(options, warmup_steps, .dflt = "0", .max = 1e9, .help = "wins over warmup_ratio"),
    DR_FLOAT(options, weight_decay, .dflt = "0", .max = 100, .help = "of AdamW"),
    DR_FLOAT(options, adam_beta1, .dflt = "0.9", .max = 0.999999, .help = "of AdamW"),
    DR_FLOAT(options, adam_beta2, .dflt = "0.999", .max = 0.999999, .help = "of AdamW"),
    DR_FLOAT(options, adam_epsilon, .dflt = "1e-8", .max = 1, .help = "of AdamW"),
    DR_FLOAT(options, max_grad_norm, .dflt = "1", .max = 1e9,
             .help = "gradients are clipped to it; 0: never"),
    DR_INT(options, seed, .dflt = "42", .max = 2147483647,
           .help = "of order, start and dropout"),
    DR_BOOL(options, shuffle, .dflt = "true", .help = "a new order each epoch"),
    DR_INT(options, logging_steps, .dflt = "0", .max = 1e9,
           .help = "log the loss every so many steps"),
    DR_CHOICE(options, torch_dtype, .dflt = "float32", .choices = dtypes,
              .help = "of the computation"),
    CLI_THREADS(options),
    CLI_COMMON(options),
    DR_REFUSED("batch_size", "in Olive it changes nothing here",
               "per_device_train_batch_size"),
    CLI_REFUSED_COMMON,
};

/* Our struct's fields under the pass's names. */
static json_t *config(const options *o)
{
    json_t *j = json_object();

    json_object_set_new(j, "r", json_integer(o->lora_r));
    json_object_set_new(j, "alpha", json_real(o->lora_alpha));
    json_object_set_new(j, "lora_dropout", json_real(o->lora_dropout));
    json_object_set_new(j, "use_rslora", json_boolean(o->use_rslora));
    if (o->target_modules != NULL)
        json_object_set_new(j, "target_modules", json_string(o->target_modules));
    json_object_set_new(j, "max_steps", json_integer(o->max_steps));
    json_object_set_new(j, "num_train_epochs", json_real(o->num_train_epochs));
    json_object_set_new(j, "per_device_train_batch_size",
                        json_integer(o->per_device_train_batch_size));
    json_object_set_new(j, "gradient_accumulation_steps",
                        json_integer(o->gradient_accumulation_steps));
    json_object_set_new(j, "learning_rate", json_real(o->learning_rate));
    json_object_set_new(j, "lr_scheduler_type", json_string(schedules[o->lr_scheduler_type]));
    json_object_set_new(j, "warmup_ratio", json_real(o->warmup_ratio));
    json_object_set_new(j, "warmup_steps", json_integer(o->warmup_steps));
    json_object_set_new(j, "weight_decay", json_real(o->weight_decay));
    json_object_set_new(j, "adam_beta1", json_real(o->adam_beta1));
    json_object_set_new(j, "adam_beta2", json_real(o->adam_beta2));
    json_object_set_new(j, "adam_epsilon", json_real(o->adam_epsilon));
    json_object_set_new(j, "max_grad_norm", json_real(o->max_grad_norm));
    json_object_set_new(j, "seed", json_integer(o->seed));
    json_object_set_new(j, "shuffle", json_boolean(o->shuffle));
    json_object_set_new(j, "logging_steps", json_integer(o->logging_steps));
    return j;
}

static dr_status run(const void *cfg, const unsigned char *given, dr_arena *a)
{
    const options *o = cfg;
    drupe_job job = {.model = o->model.model_name_or_path,
                     .adapters = o->adapter_path,
                     .output = o->model.output_path,
                     .data = cli_data_of(&o->data)};

    (void)given, (void)a;
    cli_model_notes(&o->model);
    if (job.data.max_samples == 0)
        job.data.max_samples = 256; /* Olive's default */
    return cli_run_job(&o->common, &job, "LoRA", config(o), "trained");
}

extern const cli_verb verb_finetune; /* VERB(finetune, ...) in cli/verbs.def */
const cli_verb verb_finetune = {
    "drupe finetune -m MODEL -d json --data_files FILE --text_template TEXT [-o FOLDER]",
    sizeof(options), params, DR_COUNT(params), run};
