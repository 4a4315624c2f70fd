/*
 * lora_pass.c - the LoRA pass: a base model, plain or packed, gets an adapter.
 *
 * model/ is the base again: its files are hard-linked, else cloned, else copied, and the
 * result says which; a GGUF base is written out as a folder, since PEFT and the next
 * command want one.  adapter/ is a PEFT folder.
 */
#include <string.h>

#include "core/file.h"
#include "nn/nn.h"
#include "pass/lora_impl.h"
#include "pass/shared_impl.h"

enum { MARGIN_BYTES = 64 << 20 }; /* room for an adapter and side files */

typedef pass_lora_config lora;

static const dr_param params[] = {
    DR_INT(lora, r, .dflt = "64", .search = "[16, 32, 64]", .min = 1, .max = 4096,
           .help = "rank of the adapter"),
    DR_FLOAT(lora, alpha, .dflt = "16", .min = 1e-6, .max = 1e6,
             .help = "the adapter counts alpha / r times"),
    DR_FLOAT(lora, lora_dropout, .dflt = "0.05", .max = 0.95,
             .help = "share of the adapter's inputs dropped in training"),
    DR_BOOL(lora, use_rslora, .dflt = "false", .help = "count alpha / sqrt(r) times"),
    DR_STR(lora, target_modules, .dflt = "null",
           .help = "comma list of linears, or all-linear; default: the family's"),
    DR_INT(lora, max_steps, .dflt = "-1", .min = -1, .max = 1e9,
           .help = "optimizer steps; -1: from num_train_epochs"),
    DR_FLOAT(lora, num_train_epochs, .dflt = "3", .min = 1e-6, .max = 1e6,
             .help = "passes over the data"),
    DR_INT(lora, per_device_train_batch_size, .dflt = "8", .min = 1, .max = 65536,
           .help = "blocks a micro-batch"),
    DR_INT(lora, gradient_accumulation_steps, .dflt = "1", .min = 1, .max = 65536,
           .help = "micro-batches a step"),
    DR_FLOAT(lora, learning_rate, .dflt = "2e-4", .max = 1000, .help = "of AdamW"),
    DR_CHOICE(lora, lr_scheduler_type, .dflt = "constant", .choices = train_schedule_names,
              .help = "how the rate changes"),
    DR_STR(lora, lr_scheduler_kwargs, .dflt = "null", .json = true,
           .help = "what the schedule takes: {\"num_cycles\": 2}"),
    DR_FLOAT(lora, warmup_ratio, .dflt = "0.03", .max = 1,
             .help = "share of the steps that warm up (not with constant)"),
    DR_INT(lora, warmup_steps, .dflt = "0", .max = 1e9, .help = "wins over warmup_ratio"),
    DR_FLOAT(lora, weight_decay, .dflt = "0", .max = 100, .help = "of AdamW"),
    DR_FLOAT(lora, adam_beta1, .dflt = "0.9", .max = 0.999999, .help = "of AdamW"),
    DR_FLOAT(lora, adam_beta2, .dflt = "0.999", .max = 0.999999, .help = "of AdamW"),
    DR_FLOAT(lora, adam_epsilon, .dflt = "1e-8", .max = 1, .help = "of AdamW"),
    DR_FLOAT(lora, max_grad_norm, .dflt = "1", .max = 1e9,
             .help = "gradients are clipped to it; 0: never"),
    DR_INT(lora, seed, .dflt = "42", .max = 2147483647,
           .help = "of order, init and dropout"),
    DR_BOOL(lora, shuffle, .dflt = "true", .help = "blocks in a new order each epoch"),
    DR_INT(lora, logging_steps, .dflt = "0", .max = 1e9,
           .help = "log the loss every so many steps; 0: at the end"),
    DR_CHOICE(lora, logging_strategy, .dflt = "steps", .choices = pass_trainer_whens,
              .help = "when the loss is logged"),
    DR_BOOL(lora, logging_first_step, .dflt = "false", .help = "log the first, too"),
    DR_CHOICE(lora, eval_strategy, .dflt = "null", .choices = pass_trainer_whens,
              .help = "when to evaluate between before and after (steps)"),
    DR_INT(lora, eval_steps, .dflt = "0", .max = 1e9,
           .help = "evaluate every so many steps; 0: logging_steps, or 500"),
    DR_BOOL(lora, load_best_model_at_end, .dflt = "false",
            .help = "keep the adapter whose evaluation was best, not the last"),
    DR_CHOICE(lora, metric_for_best_model, .dflt = "eval_loss",
              .choices = pass_trainer_metrics, .help = "what is best"),
    DR_INT(lora, early_stopping_patience, .dflt = "0", .max = 1e9,
           .help = "stop after so many evaluations without a better one; 0: never"),
    DR_FLOAT(lora, early_stopping_threshold, .dflt = "0", .max = 1000,
             .help = "better by no more than this is not better"),
    DR_CHOICE(lora, save_strategy, .dflt = "steps", .choices = pass_trainer_whens,
              .help = "when a checkpoint is written"),
    DR_INT(lora, save_steps, .dflt = "500", .min = 1, .max = 1e9,
           .help = "a checkpoint every so many steps"),
    DR_INT(lora, save_total_limit, .dflt = "0", .max = 1e9,
           .help = "so many checkpoints are kept; 0: all"),
    DR_REFUSED("modules_to_save", "modules beside the adapter come later",
               "target_modules"),
    DR_REFUSED("torch_dtype", "training is in float32", NULL),
    DR_REFUSED("device_map", "one device a run", NULL),
    DR_REFUSED("allow_tf32", "sums are in float32", NULL),
    DR_REFUSED("ephemeral_gpu_offload", "CUDA devices come later", NULL),
    DR_REFUSED("train_data_config", "data sets by name are those of workflow files", NULL),
    DR_REFUSED("eval_data_config", "workflow files have no evaluation set yet", NULL),
    DR_REFUSED("training_args", "its members are parameters of their own", "max_steps"),
};

/* Rows that count only with a schedule that moves, or without max_steps. */
static dr_status validate(const void *config, const unsigned char *given)
{
    const pass_lora_config *c = config;

    for (size_t i = 0; i < DR_COUNT(params) && given != NULL; i++) {
        if (!given[i])
            continue;
        if (c->lr_scheduler_type == TRAIN_CONSTANT &&
            strncmp(params[i].name, "warmup_", 7) == 0)
            return dr_fail(
                DR_EUSAGE,
                "%s has no effect with lr_scheduler_type constant; choose linear "
                "or cosine",
                params[i].name);
        if (c->max_steps > 0 && strcmp(params[i].name, "num_train_epochs") == 0)
            return dr_fail(DR_EUSAGE,
                           "num_train_epochs has no effect with max_steps %d; give "
                           "one of them",
                           c->max_steps);
    }
    if (c->max_steps == 0)
        return dr_fail(DR_EUSAGE, "max_steps: 0 trains nothing; -1 means num_train_epochs");
    return pass_trainer_check(c, params, DR_COUNT(params), given);
}

static train_blocks blocks_of(const data_blocks *b)
{
    return (train_blocks){.ids = b->ids,
                          .lengths = b->lengths,
                          .count = b->count,
                          .seq_len = b->seq_len,
                          .context = b->context,
                          .marks = b->marks,
                          .starts = b->starts};
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const char *model_dir = dr_path_join(job->arena, job->out_dir, "model");
    const char *adapter_dir = dr_path_join(job->arena, job->out_dir, "adapter");
    const char *base = dr_path_join(job->arena, job->final_dir, "model"), *how = "";
    hf_model *m = NULL;
    nn_device *dev = NULL;
    data_blocks blocks = {0}, eval = {0};
    train_report report = {0};
    json_t *settings = NULL;
    train_options o;
    dr_status st = DR_OK;

    if (job->data->data_name == NULL) {
        st = dr_fail(DR_EUSAGE, "training needs data_name and data_files");
        dr_hint("--data_name json --data_files data.jsonl --text_template \"{prompt} "
                "{response}\"");
        goto done;
    }
    DR_TRYF(hf_model_open(&m, in->path), "opening the base model");
    DR_TRY(pass_lora_options(&o, job, in, m));
    DR_TRY(pass_training_blocks(job, &blocks, &eval, m));
    DR_TRY(nn_device_open(&dev, job->device, job->threads));
    DR_TRYF(pass_place_base(job, model_dir, m, &how), "placing the base model");
    DR_TRY(dr_make_dirs(adapter_dir));

    const train_blocks tb = blocks_of(&blocks), te = blocks_of(&eval);
    o.eval = eval.count > 0 ? &te : NULL;
    DR_TRY(pass_trainer_settings(&settings, job));
    o.settings = settings;
    DR_TRYF(train_lora(&report, dev, m, base, &tb, &o, adapter_dir), "training");
    const pass_training made = {&report, &blocks, &eval, m, how};
    DR_TRY(pass_tell_training(job, &made));
    DR_TRY(pass_training_report(job, &made));

    const char *spent = NULL;
    DR_TRY(pass_place_checkpoints(&spent, job, &o));
    pass_adapter *adapter = dr_arena_alloc(job->arena, 1, sizeof(*adapter));
    adapter->path = adapter_dir;
    *out = (pass_model){.kind = PASS_MODEL_HF,
                        .path = model_dir,
                        .name = in->name,
                        .adapters = adapter,
                        .adapter_count = 1,
                        .spent = spent};
done:
    train_report_release(&report);
    json_decref(settings);
    data_blocks_release(&blocks);
    data_blocks_release(&eval);
    nn_device_close(dev);
    hf_model_close(m);
    return st;
}

static dr_status estimate(const pass_job *job, const pass_model *in, pass_need *need)
{
    const pass_lora_config *c = job->config;
    size_t seq = job->data->max_seq_len > 0 ? job->data->max_seq_len : PASS_LORA_SEQ_LEN;
    double steps = c->max_steps > 0 ? c->max_steps : 0; /* of epochs: not known yet */
    double tokens = steps * c->per_device_train_batch_size *
                    c->gradient_accumulation_steps * (double)seq;
    hf_model *m = NULL;
    dr_status st = DR_OK;

    DR_TRY(hf_model_open(&m, in->path));
    const hf_config *config = hf_model_config(m);
    uint64_t layer = pass_layer_elements(config), embed = pass_embed_elements(config);
    uint64_t layers = (uint64_t)config->layers;
    /* One layer, the head, the inputs of every layer, and one layer's activations. */
    need->memory = 2 * 4 * layer + 4 * embed + 4 * seq * (uint64_t)config->hidden * layers +
                   2 * nn_acts_bytes(config, 1, seq, (size_t)c->r);
    need->disk = hf_model_is_gguf(m)
                     ? (layer * layers + 2 * embed) * dr_dtype_bytes(config->dtype)
                     : MARGIN_BYTES;
    /* forward, the gradient at the inputs, and the forward again where it was not kept */
    need->seconds = pass_seconds(job, 6 * tokens * (double)(layer * layers + embed));
done:
    hf_model_close(m);
    return st;
}

extern const pass_def pass_lora; /* PASS(lora) in pass/passes.def */
const pass_def pass_lora = {
    .name = "LoRA",
    .version = 2,
    .summary = "low-rank adapters on a plain or a packed base",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .needs_data = true,
    .trains = true,
    .config_size = sizeof(pass_lora_config),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .estimate = estimate,
    .run = run,
};
