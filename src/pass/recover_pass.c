/*
 * recover_pass.c - the Recover pass: a quantized model gets an adapter that brings it back
 * towards its original, in closed form, then by a few steps of training where they are
 * asked for.  Olive has no such pass.
 */
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "pass/eval_impl.h"
#include "pass/lora_impl.h"
#include "pass/quantize_impl.h"
#include "pass/shared_impl.h"

typedef struct {
    const char *reference_model;
    int r;
    double upstream;
    int steps;
    double learning_rate;
} recover;

enum { SAMPLES = 64, SEQ_LEN = 512, BATCH = 8, JUDGE_BLOCKS = 16 };

static const dr_param params[] = {
    DR_STR(recover, reference_model, .required = true,
           .help = "the model that was quantized"),
    DR_INT(recover, r, .dflt = "16", .search = "[8, 16, 32, 64]", .min = 1, .max = 4096,
           .help = "rank"),
    DR_FLOAT(recover, upstream, .dflt = "0.5", .search = "[0, 0.5, 1]", .min = 0, .max = 1,
             .help = "share of what the layers before did to a linear's inputs that it "
                     "takes back"),
    DR_INT(recover, steps, .dflt = "0", .max = 1e6,
           .help = "steps of training towards the original's logits behind it"),
    DR_FLOAT(recover, learning_rate, .dflt = "0.0005", .min = 1e-9, .max = 1,
             .help = "of these steps"),
};

/* What is open while the pass runs. */
typedef struct {
    hf_model *m, *original; /* owned */
    tok_tokenizer *tok;     /* owned */
    nn_device *dev;         /* borrowed */
    data_blocks blocks;     /* owned */
    hf_adapter adapter;     /* owned */
} work;

static void work_release(work *w)
{
    hf_adapter_release(&w->adapter);
    data_blocks_release(&w->blocks);
    tok_close(w->tok);
    hf_model_close(w->original);
    hf_model_close(w->m);
}

static dr_status open_models(work *w, const pass_job *job, const pass_model *in)
{
    const recover *c = job->config;
    dr_status st = DR_OK;

    if (in->adapter_count > 0)
        DR_FAIL(DR_EUSAGE, "%s has an adapter; recover makes one for a base alone",
                in->name);
    DR_TRYF(hf_model_open(&w->m, in->path), "opening the quantized model");
    DR_TRY(pass_open_reference(&w->original, job->arena, c->reference_model));
done:
    return st;
}

static dr_status closed_form(work *w, const pass_job *job)
{
    const recover *c = job->config;
    const quant_calib calib = {w->blocks.ids, w->blocks.count, w->blocks.seq_len};
    const quant_recover_options o = {.r = c->r, .upstream = c->upstream};
    dr_progress progress;
    const quant_site site = {.dev = w->dev, .in = w->m, .progress = &progress};
    dr_status st = DR_OK;

    dr_progress_begin(&progress, "recovering", "layers",
                      (size_t)hf_model_config(w->m)->layers);
    DR_TRYF(quant_recover(&w->adapter, &site, w->original, &calib, &o), "recovering");
    dr_progress_end(&progress);
done:
    return st;
}

/* The adapter as dir; leaf names as PEFT's target_modules. */
static dr_status write_adapter(const work *w, const pass_job *job, const char *dir)
{
    const char *base = dr_path_join(job->arena, job->final_dir, "model");
    const char **targets =
        dr_arena_alloc(job->arena, QUANT_LAYER_LINEARS, sizeof(*targets));
    const hf_linear *l = NULL;
    size_t n = hf_layer_linears(w->m, 0, &l);

    for (size_t i = 0; i < n; i++)
        targets[i] = l[i].leaf;
    return hf_adapter_write(&w->adapter, dir, base, targets, n);
}

/* Steps from the adapter in start; the result is in dir and w->adapter. */
static dr_status train(work *w, const pass_job *job, const char *dir, const char *start)
{
    const recover *c = job->config;
    const train_blocks text = {.ids = w->blocks.ids,
                               .lengths = w->blocks.lengths,
                               .count = w->blocks.count,
                               .seq_len = w->blocks.seq_len};
    train_report report = {0};
    train_options o;
    dr_status st = DR_OK;

    train_options_default(&o);
    o.from_adapter = start;
    o.teacher = w->original;
    o.dropout = 0;
    o.max_steps = (size_t)c->steps;
    o.batch = BATCH;
    o.learning_rate = c->learning_rate;
    o.schedule = TRAIN_COSINE;
    o.warmup_ratio = 0;
    o.keep_bytes = (size_t)job->memory_bytes / 2;
    o.integers = !nn_mem_apart(w->dev); /* noise beside what 4 bits lose */
    DR_TRYF(train_lora(&report, w->dev, w->m,
                       dr_path_join(job->arena, job->final_dir, "model"), &text, &o, dir),
            "training the adapter");
    hf_adapter_release(&w->adapter);
    DR_TRY(hf_adapter_open(&w->adapter, dir, w->m));
    DR_TRY(dr_remove_tree(start));
done:
    train_report_release(&report);
    return st;
}

static dr_status tell_kl(const pass_job *job, const quant_quality *before,
                         const quant_quality *after)
{
    double share = before->kl > 0 ? 1 - after->kl / before->kl : 0;
    dr_status st = DR_OK;

    DR_TRY(eval_head(job->text));
    DR_TRY(eval_exp_row(job->text, job->report, "perplexity, original",
                        "perplexity_original", before->loss_before));
    DR_TRY(eval_exp_row(job->text, job->report, "perplexity before", "perplexity_before",
                        before->loss_after));
    DR_TRY(eval_exp_row(job->text, job->report, "perplexity after", "perplexity_after",
                        after->loss_after));
    DR_TRY(eval_row(job->text, job->report, "KL before (nats)", "kl_before", 1,
                    before->kl_mean));
    DR_TRY(
        eval_row(job->text, job->report, "KL after (nats)", "kl_after", 1, after->kl_mean));
    DR_TRY(dr_buf_addf(job->text, "won back       %.1f %% of the KL\n", 100 * share));
    json_object_set_new(job->report, "kl_won_back", json_real(share));
    DR_TRY(dr_buf_addf(job->text,
                       "judged on %zu tokens of built-in text that did not calibrate, %zu "
                       "blocks\n",
                       after->tokens, after->blocks));
    DR_TRY(eval_limit(job->text, job->report, "KL", after->kl, job->max_kl));
done:
    return st;
}

/* With and without, beside the original, on built-in text that never calibrates. */
static dr_status judge(const work *w, const pass_job *job)
{
    const data_options o = {.max_seq_len = pass_at_most_context(SEQ_LEN, w->m),
                            .max_samples = JUDGE_BLOCKS,
                            .held_out = true};
    quant_quality before = {0}, after = {0};
    data_blocks blocks = {0};
    data_texts texts = {0};
    dr_status st = DR_OK;

    DR_TRY(pass_text_blocks(&blocks, &texts, job->arena, &o, w->tok));
    const quant_calib text = {blocks.ids, blocks.count, blocks.seq_len};
    DR_TRYF(quant_compare(&before, w->dev, w->original, w->m, &text), "judging the base");
    DR_TRYF(quant_compare_adapter(&after, w->dev, w->original, w->m, &w->adapter, &text),
            "judging the adapter");
    DR_TRY(tell_kl(job, &before, &after));
done:
    data_blocks_release(&blocks);
    return st;
}

static dr_status tell(const work *w, const pass_job *job, const char *how)
{
    size_t numbers = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < w->adapter.count; i++)
        numbers += (size_t)w->adapter.modules[i].r *
                   (w->adapter.modules[i].n_in + w->adapter.modules[i].n_out);
    DR_TRY(dr_buf_addf(job->text, "weights        %s\n", hf_model_origin(w->m)));
    DR_TRY(dr_buf_addf(job->text, "modules        %zu, %zu numbers\n", w->adapter.count,
                       numbers));
    DR_TRY(dr_buf_addf(job->text, "base model     %s\n", how));
    json_object_set_new(job->report, "modules", json_integer((json_int_t)w->adapter.count));
    json_object_set_new(job->report, "parameters", json_integer((json_int_t)numbers));
    if (job->evaluate)
        DR_TRY(judge(w, job));
done:
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const recover *c = job->config;
    const char *model_dir = dr_path_join(job->arena, job->out_dir, "model"), *how = "";
    const char *dir = dr_path_join(job->arena, job->out_dir, "adapter");
    const char *start = dr_path_join(job->arena, job->out_dir, "start");
    work w = {0};
    dr_status st = DR_OK;

    DR_TRY(open_models(&w, job, in));
    DR_TRY(pass_open_device(&w.dev, job->device));
    DR_TRYF(pass_open_tokenizer(&w.tok, w.m, "the text to recover on needs one"),
            "reading the tokenizer");
    const data_options data = pass_calibration_options(job, w.m, SAMPLES, SEQ_LEN);
    DR_TRYF(pass_calibration(&w.blocks, job, &data, w.dev, w.m, w.tok),
            "reading the text to recover on");
    DR_TRY(closed_form(&w, job));
    DR_TRY(write_adapter(&w, job, c->steps > 0 ? start : dir));
    if (c->steps > 0)
        DR_TRY(train(&w, job, dir, start));
    DR_TRYF(pass_place_base(job, model_dir, w.m, &how), "placing the base model");
    DR_TRY(tell(&w, job, how));
    pass_adapter *adapter = dr_arena_alloc(job->arena, 1, sizeof(*adapter));
    adapter->path = dir;
    *out = (pass_model){.kind = PASS_MODEL_HF,
                        .path = model_dir,
                        .name = in->name,
                        .adapters = adapter,
                        .adapter_count = 1};
done:
    work_release(&w);
    return st;
}

/* Rows that count only with steps. */
static dr_status validate(const void *config, const unsigned char *given)
{
    const recover *c = config;

    if (given != NULL && c->steps == 0 &&
        dr_param_given(params, DR_COUNT(params), given, "learning_rate"))
        return dr_fail(DR_EUSAGE, "learning_rate has no effect without steps");
    return DR_OK;
}

static dr_status estimate(const pass_job *job, const pass_model *in, pass_need *need)
{
    const recover *c = job->config;
    hf_model *m = NULL;
    dr_status st = DR_OK;

    DR_TRYF(hf_model_open(&m, in->path), "opening the quantized model");
    const hf_config *config = hf_model_config(m);
    const data_options data = pass_calibration_options(job, m, SAMPLES, SEQ_LEN);
    uint64_t layer = pass_layer_elements(config), embed = pass_embed_elements(config);
    uint64_t body = layer * (uint64_t)config->layers;
    uint64_t tokens = (uint64_t)data.max_samples * data.max_seq_len;
    uint64_t widest = (uint64_t)hf_slot_in(config, HF_SLOT_DOWN);
    /* layers of both models, both streams, matrices of the widest input, the head */
    need->memory = 8 * 4 * layer + 16 * tokens * (uint64_t)config->hidden +
                   24 * widest * widest + 4 * embed;
    need->disk = 4 * body / 64 * (uint64_t)c->r / 8;
    need->seconds = pass_seconds(job, 2 * (double)body * 6 * (double)tokens +
                                          8 * (double)(body + embed) * c->steps * BATCH *
                                              (double)data.max_seq_len);
done:
    hf_model_close(m);
    return st;
}

extern const pass_def pass_recover; /* PASS(recover) in pass/passes.def */
const pass_def pass_recover = {
    .name = "Recover",
    .version = 3,
    .summary = "an adapter from what quantizing did, towards the original",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .needs_data = true,
    .judges = true,
    .config_size = sizeof(recover),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .estimate = estimate,
    .run = run,
};
