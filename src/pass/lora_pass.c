/*
 * lora_pass.c - the LoRA pass: a base model, plain or packed, gets an adapter.
 *
 * model/ is the base again: its files are hard-linked, else cloned, else copied, and the
 * result says which; a GGUF base is written out as a folder, since PEFT and the next
 * command want one.  adapter/ is a PEFT folder.
 */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "core/mem.h"
#include "hf/hf.h"
#include "nn/nn.h"
#include "pass/shared_impl.h"
#include "train/train.h"

/* data.h's default block; room for an adapter and side files. */
enum { SEQ_LEN = 1024, MARGIN_BYTES = 64 << 20 };

typedef struct {
    int r;
    double alpha;
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
} lora;

static const char *const schedules[] = {"constant", "linear", "cosine", NULL};

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
    DR_CHOICE(lora, lr_scheduler_type, .dflt = "constant", .choices = schedules,
              .help = "how the rate changes"),
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
    DR_REFUSED("modules_to_save", "modules beside the adapter come later",
               "target_modules"),
    DR_REFUSED("torch_dtype", "training is in float32", NULL),
    DR_REFUSED("device_map", "one device a run", NULL),
    DR_REFUSED("allow_tf32", "sums are in float32", NULL),
    DR_REFUSED("ephemeral_gpu_offload", "CUDA devices come later", NULL),
    DR_REFUSED("train_data_config", "data sets by name come with the workflow engine",
               NULL),
    DR_REFUSED("eval_data_config", "evaluation sets come later", NULL),
    DR_REFUSED("training_args", "its members are parameters of their own", "max_steps"),
};

/* Rows that count only with a schedule that moves, or without max_steps. */
static dr_status validate(const void *config, const unsigned char *given)
{
    const lora *c = config;

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
    return DR_OK;
}

/* "a,b" to names; all-linear to the model's own; NULL to the family's default. */
static dr_status targets(train_options *o, dr_arena *a, const lora *c, const hf_model *m)
{
    const hf_linear *linears = NULL;
    size_t n = 0, count = 0;
    dr_status st = DR_OK;

    if (c->target_modules == NULL)
        return DR_OK;
    char *list = dr_arena_strdup(a, c->target_modules);
    if (strcmp(list, "all-linear") == 0) {
        n = hf_layer_linears(m, 0, &linears);
        const char **names = dr_arena_alloc(a, n, sizeof(char *));
        for (size_t i = 0; i < n; i++)
            names[i] = linears[i].leaf;
        o->targets = names;
        o->target_count = n;
        return DR_OK;
    }
    const char **names = dr_arena_alloc(a, strlen(list) / 2 + 1, sizeof(char *));
    for (char *p = list, *next; p != NULL; p = next) {
        next = strchr(p, ',');
        if (next != NULL)
            *next++ = '\0';
        if (*p == '\0')
            DR_FAIL(DR_EUSAGE, "target_modules: an empty name in \"%s\"",
                    c->target_modules);
        names[count++] = p;
    }
    o->targets = names;
    o->target_count = count;
done:
    return st;
}

static dr_status options(train_options *o, const pass_job *job, const lora *c,
                         const pass_model *in, const hf_model *m)
{
    train_options_default(o);
    o->r = c->r;
    o->alpha = c->alpha;
    o->dropout = c->lora_dropout;
    o->rslora = c->use_rslora;
    o->max_steps = c->max_steps > 0 ? (size_t)c->max_steps : 0;
    o->epochs = c->num_train_epochs;
    o->batch = (size_t)c->per_device_train_batch_size;
    o->accumulation = (size_t)c->gradient_accumulation_steps;
    o->learning_rate = c->learning_rate;
    o->schedule = (train_schedule)c->lr_scheduler_type;
    o->warmup_ratio = c->warmup_ratio;
    o->warmup_steps = (size_t)c->warmup_steps;
    o->weight_decay = c->weight_decay;
    o->beta1 = c->adam_beta1;
    o->beta2 = c->adam_beta2;
    o->eps = c->adam_epsilon;
    o->max_grad_norm = c->max_grad_norm;
    o->seed = (uint64_t)c->seed;
    o->shuffle = c->shuffle;
    o->logging_steps = (size_t)c->logging_steps;
    o->keep_bytes = (size_t)(job->memory_bytes / 2);
    if (in->adapter_count > 1)
        return dr_fail(DR_EUSAGE, "training starts from one adapter, not from %zu",
                       in->adapter_count);
    o->from_adapter = in->adapter_count > 0 ? in->adapters[0].path : NULL;
    return targets(o, job->arena, c, m);
}

/* The base as model/; *how says how its files got there. */
static dr_status place_base(const pass_job *job, const char *dir, const hf_model *m,
                            const char **how)
{
    static const char *const ways[] = {"hard link", "clone (reflink)", "copy"};
    hf_writer *w = NULL;
    char **names = NULL;
    size_t count = 0;
    int worst = DR_PLACED_LINK;
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(dir));
    if (hf_model_is_gguf(m)) {
        DR_TRY(hf_writer_open(&w, dir, m, NULL));
        DR_TRY(hf_writer_finish(w));
        *how = "written out from the GGUF file";
        goto done;
    }
    DR_TRY(dr_list_dir(job->arena, hf_model_path(m), &names, &count));
    for (size_t i = 0; i < count; i++) {
        const char *src = dr_path_join(job->arena, hf_model_path(m), names[i]);
        const char *dot = strrchr(names[i], '.');
        dr_placed placed = DR_PLACED_LINK;
        if (!dr_is_file(src) || strcmp(names[i], "drupe.json") == 0 ||
            strcmp(names[i], "model_config.json") == 0 ||
            (dot != NULL && strcmp(dot, ".onnx") == 0))
            continue;
        DR_TRY(dr_place_file(dr_path_join(job->arena, dir, names[i]), src, &placed));
        worst = (int)placed > worst ? (int)placed : worst;
    }
    *how = ways[worst];
done:
    hf_writer_close(w);
    return st;
}

static dr_status read_blocks(const pass_job *job, data_blocks *blocks, const hf_model *m)
{
    int64_t context = hf_model_config(m)->max_position;
    tok_tokenizer *tok = NULL;
    data_texts texts = {0};
    dr_buf preview;
    dr_status st = DR_OK;

    dr_buf_init(&preview, (size_t)1 << 20);
    size_t seq = job->data->max_seq_len > 0 ? job->data->max_seq_len : SEQ_LEN;
    if (context > 0 && seq > (size_t)context)
        dr_warn_result("blocks of %zu tokens are longer than the model's context of %lld",
                       seq, (long long)context);
    DR_TRY(pass_open_tokenizer(&tok, m, "training needs the model's tokenizer.json"));
    DR_TRY(data_load(job->arena, &texts, job->data, tok));
    DR_TRY(data_tokenize(blocks, &texts, job->data, tok));
    DR_TRY(data_preview(&preview, &texts, blocks, job->data, tok));
    dr_log_text(DR_INFO, preview.data);
    if (blocks->dropped > blocks->tokens / 8)
        dr_warn_result("%zu of %zu tokens are cut off: %zu blocks of %zu are trained on",
                       blocks->dropped, blocks->tokens, blocks->count, blocks->seq_len);
    json_object_set_new(job->report, "rows", json_integer((json_int_t)texts.count));
    json_object_set_new(job->report, "tokens", json_integer((json_int_t)blocks->tokens));
    json_object_set_new(job->report, "cut_off_tokens",
                        json_integer((json_int_t)blocks->dropped));
done:
    dr_buf_release(&preview);
    tok_close(tok);
    return st;
}

static dr_status tell(const pass_job *job, const train_report *t, const char *how,
                      const data_blocks *blocks)
{
    double first = t->steps > 0 ? t->losses[0] : 0, last = 0;
    size_t tail = t->steps < 10 ? t->steps : 10;
    json_t *r = job->report, *losses = json_array();
    dr_status st = DR_OK;

    for (size_t i = t->steps - tail; i < t->steps; i++)
        last += t->losses[i] / (double)tail;
    for (size_t i = 0; i < t->steps; i++)
        json_array_append_new(losses, json_real(t->losses[i]));
    json_object_set_new(r, "losses", losses);
    json_object_set_new(r, "steps", json_integer((json_int_t)t->steps));
    json_object_set_new(r, "blocks", json_integer((json_int_t)blocks->count));
    json_object_set_new(r, "trained_tokens", json_integer((json_int_t)t->tokens));
    json_object_set_new(r, "trainable_parameters", json_integer((json_int_t)t->trainable));
    json_object_set_new(r, "seconds", json_real(t->seconds));
    json_object_set_new(r, "base", json_string(how));
    DR_TRY(dr_buf_addf(job->text, "steps          %zu over %zu blocks of %zu tokens\n",
                       t->steps, blocks->count, blocks->seq_len));
    DR_TRY(dr_buf_addf(job->text, "loss           %.4f at first, %.4f over the last %zu\n",
                       first, last, tail));
    DR_TRY(dr_buf_addf(job->text, "parameters     %zu trained\n", t->trainable));
    DR_TRY(dr_buf_addf(job->text, "time           %.1f s, %.0f tokens/s\n", t->seconds,
                       t->seconds > 0 ? (double)t->tokens / t->seconds : 0));
    DR_TRY(dr_buf_addf(job->text, "base model     %s\n", how));
done:
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const char *model_dir = dr_path_join(job->arena, job->out_dir, "model");
    const char *adapter_dir = dr_path_join(job->arena, job->out_dir, "adapter");
    const char *base = dr_path_join(job->arena, job->final_dir, "model"), *how = "";
    hf_model *m = NULL;
    nn_device *dev = NULL;
    data_blocks blocks = {0};
    train_report report = {0};
    train_options o;
    dr_status st = DR_OK;

    if (job->data->data_name == NULL) {
        st = dr_fail(DR_EUSAGE, "training needs data_name and data_files");
        dr_hint("--data_name json --data_files data.jsonl --text_template \"{prompt} "
                "{response}\"");
        goto done;
    }
    DR_TRYF(hf_model_open(&m, in->path), "opening the base model");
    DR_TRY(options(&o, job, job->config, in, m));
    DR_TRYF(read_blocks(job, &blocks, m), "reading the training data");
    DR_TRY(nn_device_open(&dev, job->device, job->threads));
    DR_TRYF(place_base(job, model_dir, m, &how), "placing the base model");
    DR_TRY(dr_make_dirs(adapter_dir));

    const train_blocks tb = {blocks.ids, blocks.lengths, blocks.count, blocks.seq_len};
    DR_TRYF(train_lora(&report, dev, m, base, &tb, &o, adapter_dir), "training");
    DR_TRY(tell(job, &report, how, &blocks));

    pass_adapter *adapter = dr_arena_alloc(job->arena, 1, sizeof(*adapter));
    adapter->path = adapter_dir;
    *out = (pass_model){PASS_MODEL_HF, model_dir, in->name, adapter, 1};
done:
    train_report_release(&report);
    data_blocks_release(&blocks);
    nn_device_close(dev);
    hf_model_close(m);
    return st;
}

static dr_status estimate(const pass_job *job, const pass_model *in, pass_need *need)
{
    const lora *c = job->config;
    size_t seq = job->data->max_seq_len > 0 ? job->data->max_seq_len : SEQ_LEN;
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
    .version = 1,
    .summary = "low-rank adapters on a plain or a packed base",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .needs_data = true,
    .config_size = sizeof(lora),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .estimate = estimate,
    .run = run,
};
