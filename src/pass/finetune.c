/*
 * finetune.c - what training passes do: a base model, plain or packed, gets an adapter.
 *
 * model/ is the base again: its files are hard-linked, else cloned, else copied, and the
 * result says which; a GGUF base is written out as a folder, since PEFT and the next
 * command want one; QLoRA's and LoftQ's is written rounded.  adapter/ is a PEFT folder.
 */
#include <string.h>

#include "core/file.h"
#include "nn/nn.h"
#include "pass/lora_impl.h"
#include "pass/shared_impl.h"

enum { MARGIN_BYTES = 64 << 20 }; /* room for an adapter and side files */

/* Rows that count only with a schedule that moves, or without max_steps. */
dr_status pass_finetune_check(const pass_lora_config *c, const dr_param *params,
                              size_t count, const unsigned char *given)
{
    for (size_t i = 0; i < count && given != NULL; i++) {
        if (!given[i])
            continue;
        if ((c->lr_scheduler_type == TRAIN_CONSTANT ||
             c->lr_scheduler_type == TRAIN_PLATEAU) &&
            strncmp(params[i].name, "warmup_", 7) == 0)
            return dr_fail(DR_EUSAGE,
                           "%s has no effect with lr_scheduler_type %s; choose linear or "
                           "cosine",
                           params[i].name, train_schedule_names[c->lr_scheduler_type]);
        if (c->max_steps > 0 && strcmp(params[i].name, "num_train_epochs") == 0)
            return dr_fail(DR_EUSAGE,
                           "num_train_epochs has no effect with max_steps %d; give "
                           "one of them",
                           c->max_steps);
    }
    if (dr_param_given(params, count, given, "rank_dropout_scale") && c->rank_dropout == 0)
        return dr_fail(DR_EUSAGE, "rank_dropout_scale needs rank_dropout");
    if (c->pissa_niter > 0 && c->init_lora_weights != TRAIN_INIT_PISSA)
        return dr_fail(DR_EUSAGE, "pissa_niter needs init_lora_weights pissa");
    if (c->max_steps == 0)
        return dr_fail(DR_EUSAGE, "max_steps: 0 trains nothing; -1 means num_train_epochs");
    return pass_trainer_check(c, params, count, given);
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

/* The base on its way from what came to what is trained on. */
typedef struct {
    hf_model *m;         /* owned: what is trained on */
    hf_model *plain;     /* owned: what came, where that is another */
    hf_model *reference; /* owned: of reference_model */
    hf_bnb grid;         /* that it is rounded to */
    hf_adapter start;    /* owned: LoftQ's */
    const char *how;     /* it got to its folder */
} base_model;

static void base_release(base_model *b)
{
    hf_adapter_release(&b->start);
    hf_model_close(b->m);
    hf_model_close(b->plain);
    hf_model_close(b->reference);
}

/* A rounded base, as files; LoftQ's start with it. */
static dr_status round_base(base_model *b, const char *dir, train_options *o, bool loftq,
                            dr_pool *pool)
{
    hf_writer *w = NULL;
    dr_status st = DR_OK;

    b->plain = b->m;
    b->m = NULL;
    b->how = "rounded to 4 bits";
    DR_TRY(hf_writer_open(&w, dir, b->plain, NULL));
    hf_writer_bnb(w, &b->grid);
    if (loftq) {
        DR_TRY(train_loftq(&b->start, b->plain, o, pool, w));
        o->start = &b->start;
    }
    DR_TRY(hf_writer_finish(w));
    DR_TRY(hf_model_open(&b->m, dir));
done:
    hf_writer_close(w);
    return st;
}

static dr_status place_base(const pass_job *job, base_model *b, const char *dir,
                            train_options *o, pass_adapter_kind kind, nn_device *dev)
{
    const pass_lora_config *c = job->config;
    bool loftq = kind == PASS_KIND_LOFTQ;
    dr_status st = DR_OK;

    b->grid = pass_base_grid(c);
    if (loftq || (kind == PASS_KIND_QLORA && c->save_quant_config)) {
        DR_TRYF(round_base(b, dir, o, loftq, nn_device_pool(dev)),
                "rounding the base model");
        return DR_OK;
    }
    if (kind == PASS_KIND_QLORA)
        o->base_grid = &b->grid;
    if (dr_ranks_first(job->device->ranks)) /* the others train on it where it is */
        DR_TRYF(pass_place_base(job, dir, b->m, &b->how), "placing the base model");
done:
    return st;
}

dr_status pass_finetune(const pass_job *job, pass_model *out, const pass_model *in,
                        pass_adapter_kind kind)
{
    const char *model_dir = dr_path_join(job->arena, job->out_dir, "model");
    const char *adapter_dir = dr_path_join(job->arena, job->out_dir, "adapter");
    const char *base = dr_path_join(job->arena, job->final_dir, "model");
    const pass_lora_config *c = job->config;
    base_model b = {.how = ""};
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
    DR_TRYF(hf_model_open(&b.m, in->path), "opening the base model");
    if (kind == PASS_KIND_QLORA || kind == PASS_KIND_LOFTQ)
        DR_TRY(pass_check_plain(b.m, job->def->name));
    DR_TRY(pass_lora_options(&o, job, in, b.m, kind));
    DR_TRY(pass_training_blocks(job, &blocks, &eval, b.m));
    DR_TRY(pass_open_device(&dev, job->device));
    DR_TRY(place_base(job, &b, model_dir, &o, kind, dev));
    DR_TRY(dr_make_dirs(adapter_dir));

    const train_blocks tb = blocks_of(&blocks), te = blocks_of(&eval);
    o.eval = eval.count > 0 ? &te : NULL;
    if (c->reference_model != NULL)
        DR_TRY(pass_open_reference(&b.reference, job->arena, c->reference_model));
    o.original = b.reference != NULL ? b.reference : o.base_grid != NULL ? b.m : b.plain;
    DR_TRY(pass_trainer_settings(&settings, job));
    o.settings = settings;
    DR_TRYF(train_lora(&report, dev, b.m, base, &tb, &o, adapter_dir), "training");
    if (!dr_ranks_first(job->device->ranks)) {
        *out = (pass_model){.kind = PASS_MODEL_HF, .path = model_dir, .name = in->name};
        goto done;
    }
    const pass_training made = {&report, &blocks, &eval, b.m, b.how};
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
    base_release(&b);
    return st;
}

dr_status pass_finetune_estimate(const pass_job *job, const pass_model *in, pass_need *need)
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
    if (c->save_quant_config || c->loftq_iter > 0) /* 4 bits and a scale for 64 */
        need->disk += layer * layers * 9 / 16 + 2 * embed * dr_dtype_bytes(config->dtype);
    /* forward, the gradient at the inputs, and the forward again where it was not kept */
    need->seconds = pass_seconds(job, 6 * tokens * (double)(layer * layers + embed));
done:
    hf_model_close(m);
    return st;
}
