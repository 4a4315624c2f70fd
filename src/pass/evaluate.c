/*
 * evaluate.c - any two models on one text: perplexity of each, KL, same top token.
 */
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "pass/eval_impl.h"
#include "pass/shared_impl.h"

enum { SEQ_LEN = 512, BLOCKS = 16, MEMORY_BASE = 64 << 20, HIDDEN_BYTES = 128 << 20 };

/* The two that are judged, and what both are run on. */
typedef struct {
    eval_model reference, model;
    const tok_tokenizer *tok; /* of either */
    nn_device *dev;           /* borrowed */
    data_blocks blocks;       /* owned */
    const char *source;       /* of the text */
} pair;

/* Tokens that both can see. */
static size_t context_of(const pair *p)
{
    size_t a = p->model.context, b = p->reference.name != NULL ? p->reference.context : a;

    return a < b ? a : b;
}

static dr_status open_pair(pair *p, const pass_evaluation *e)
{
    dr_status st = DR_OK;

    DR_TRY(eval_open(&p->model, e->arena, &e->model));
    if (e->reference.name != NULL) {
        DR_TRY(eval_open(&p->reference, e->arena, &e->reference));
        DR_TRY(eval_same_vocabulary(&p->reference, &p->model));
    }
    p->tok = p->model.tok != NULL ? p->model.tok : p->reference.tok;
    if (p->tok == NULL)
        DR_FAIL(DR_EUSAGE, "%s has no tokenizer.json%s", e->model.name,
                e->reference.name != NULL ? ", and neither has the reference" : "");
    DR_TRY(pass_open_device(&p->dev, e->device));
done:
    return st;
}

static void close_pair(pair *p)
{
    eval_close(&p->model);
    eval_close(&p->reference);
    data_blocks_release(&p->blocks);
}

/* Padding would be judged as text: a row that does not fill its block is left out. */
static dr_status leave_short_rows(data_blocks *b, const char *source)
{
    size_t kept = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < b->count; i++) {
        if (b->lengths[i] < b->seq_len) {
            b->dropped += b->lengths[i];
            continue;
        }
        memmove(b->ids + kept * b->seq_len, b->ids + i * b->seq_len,
                b->seq_len * sizeof(*b->ids));
        b->lengths[kept++] = b->seq_len;
    }
    b->count = kept;
    if (kept == 0) {
        st = dr_fail(DR_EFORMAT, "%s: no row has the %zu tokens of a block", source,
                     b->seq_len);
        dr_hint("give --max_seq_len below, or --strategy join");
    }
    return st;
}

static dr_status load_text(pair *p, const pass_evaluation *e)
{
    const size_t context = context_of(p);
    data_options o = *e->data;
    data_texts texts = {0};
    dr_status st = DR_OK;

    o.held_out = true;
    if (o.max_seq_len == 0)
        o.max_seq_len = context < SEQ_LEN ? context : (size_t)SEQ_LEN;
    else if (context < o.max_seq_len)
        dr_warn_result("blocks of %zu tokens are longer than the model's context of %zu",
                       o.max_seq_len, context);
    if (o.max_samples == 0)
        o.max_samples = BLOCKS;
    DR_TRY(pass_text_blocks(&p->blocks, &texts, e->arena, &o, p->tok));
    p->source = texts.source;
    DR_TRY(leave_short_rows(&p->blocks, p->source));
    DR_TRY(pass_say_losses(&texts, &p->blocks, "left out", e->data->max_samples));
    json_object_set_new(e->report, "data", pass_text_json(p->source, &texts, &p->blocks));
done:
    return st;
}

/* All ranks judge the same models on the same text. */
static dr_status same_input(const pair *p, const pass_evaluation *e)
{
    dr_ranks *r = e->device->ranks;
    dr_status st = DR_OK;

    DR_TRY(pass_same_text(r, &p->blocks));
    const char *what = dr_arena_printf(e->arena, "%s %llu, %s %llu", p->model.origin,
                                       (unsigned long long)p->model.bytes,
                                       p->reference.name != NULL ? p->reference.origin : "",
                                       (unsigned long long)p->reference.bytes);
    DR_TRY(dr_ranks_same(r, what, "model"));
done:
    return st;
}

/* Both models run over the text at once, a block or a few ahead of the judge. */
static dr_status judge(quant_quality *q, pair *p, const pass_evaluation *e)
{
    const quant_calib all = {p->blocks.ids, p->blocks.count, p->blocks.seq_len};
    const bool both = e->reference.name != NULL;
    dr_ranks *ranks = e->device->ranks;
    quant_text *texts = NULL;
    quant_calib text;
    quant_judge *judge = NULL;
    dr_progress progress;
    size_t n = 0, done_rows = 0;
    dr_status st = DR_OK;

    DR_TRY(quant_judge_share(&text, &all, ranks));
    texts = quant_texts_of(&text);
    DR_TRY(eval_begin(&p->model, p->dev, texts, text.count, e->threads));
    if (both)
        DR_TRY(eval_begin(&p->reference, p->dev, texts, text.count, e->threads));
    if (both && eval_vocab(&p->model) != eval_vocab(&p->reference))
        DR_FAIL(DR_EUSAGE, "%s gives logits of %zu tokens, %s of %zu: no KL between them",
                p->reference.name, eval_vocab(&p->reference), p->model.name,
                eval_vocab(&p->model));
    DR_TRY(quant_judge_open(&judge, p->dev, eval_vocab(&p->model), both,
                            p->model.hf != NULL && (!both || p->reference.hf != NULL),
                            &text));
    dr_progress_begin(&progress, "evaluating", "tokens", text.count * text.seq_len);
    while ((n = quant_judge_wants(judge)) > 0) {
        if (both)
            DR_TRY(eval_next(&p->reference, quant_judge_logits(judge, QUANT_BEFORE), n));
        DR_TRY(eval_next(&p->model, quant_judge_logits(judge, QUANT_AFTER), n));
        DR_TRY(quant_judge_take(judge));
        dr_progress_step(&progress, done_rows += n, NULL);
    }
    dr_progress_end(&progress);
    DR_TRY(quant_judge_gather(judge, ranks));
    quant_judge_result(judge, q);
done:
    eval_end(&p->model);
    eval_end(&p->reference);
    quant_judge_close(judge);
    free(texts);
    return st;
}

static dr_status tell_model(const pass_evaluation *e, const char *what, const eval_model *m)
{
    json_object_set_new(e->report, what,
                        json_pack("{s:s, s:s, s:I}", "name", m->name, "origin", m->origin,
                                  "bytes", (json_int_t)m->bytes));
    return dr_buf_addf(e->text, "%-14s %s (%s, %llu bytes)\n", what, m->name, m->origin,
                       (unsigned long long)m->bytes);
}

static dr_status on_task(pair *p, const pass_evaluation *e)
{
    eval_model *const models[2] = {e->reference.name != NULL ? &p->reference : NULL,
                                   &p->model};

    return eval_task(e, models, p->tok, p->dev);
}

static dr_status on_text(pair *p, const pass_evaluation *e)
{
    static const eval_names names[] = {{NULL, NULL, "perplexity", "perplexity"},
                                       {"perplexity, reference", "reference_perplexity",
                                        "perplexity, model", "perplexity"}};
    quant_quality q = {0};
    dr_status st = DR_OK;

    DR_TRYF(load_text(p, e), "reading the text");
    DR_TRY(same_input(p, e));
    DR_TRY(judge(&q, p, e));
    json_object_set_new(e->report, "text", json_string(p->source));
    DR_TRY(eval_quality(e->text, e->report, &q, &names[q.both]));
    DR_TRY(dr_buf_addf(e->text, "judged on %zu tokens of %s, %zu blocks\n", q.tokens,
                       p->source, q.blocks));
    DR_TRY(eval_limit(e->text, e->report, "KL", q.kl, e->max_kl));
    DR_TRY(eval_limit(e->text, e->report, "perplexity", q.ppl_after, e->max_perplexity));
done:
    return st;
}

/* One model's share: layers are streamed, or the runtime holds it all. */
static dr_status need_of(pass_need *need, const pass_judged *m, const pass_evaluation *e)
{
    const data_options *d = e->data;
    double tokens = (double)(d->max_samples > 0 ? d->max_samples : BLOCKS) *
                    (double)(d->max_seq_len > 0 ? d->max_seq_len : SEQ_LEN);
    uint64_t bytes = 0;
    hf_model *hf = NULL;
    dr_status st = DR_OK;

    if (m->name == NULL)
        return DR_OK;
    if (m->onnx) { /* weights are mapped, copied and packed again for the kernels */
        DR_TRY(eval_onnx_bytes(&bytes, e->arena, m->path));
        need->memory += 2 * bytes;
        goto done;
    }
    DR_TRYF(hf_model_open(&hf, m->path), "opening %s", m->name);
    const hf_config *c = hf_model_config(hf);
    uint64_t layer = pass_layer_elements(c), embed = pass_embed_elements(c);
    need->memory +=
        2 * 4 * layer + HIDDEN_BYTES + 4 * (uint64_t)QUANT_JUDGE_ROWS * (uint64_t)c->vocab;
    need->seconds += 2 * ((double)layer * c->layers + (double)embed) * tokens;
done:
    hf_model_close(hf);
    return st;
}

dr_status pass_evaluate_estimate(const pass_evaluation *e, pass_need *need)
{
    const pass_job job = {.threads = e->threads, .device = e->device};
    dr_status st = DR_OK;

    *need = (pass_need){.memory = MEMORY_BASE};
    DR_TRY(need_of(need, &e->model, e));
    DR_TRY(need_of(need, &e->reference, e));
    need->seconds = pass_seconds(&job, need->seconds);
done:
    return st;
}

dr_status pass_evaluate(const pass_evaluation *e)
{
    pair p = {0};
    dr_status st = DR_OK;

    if (e->max_kl < 0 || e->max_perplexity < 0)
        DR_FAIL(DR_EUSAGE, "max_kl and max_perplexity: expected 0 or more, found %g",
                e->max_kl < 0 ? e->max_kl : e->max_perplexity);
    if (e->max_kl != 0 && e->reference.name == NULL)
        DR_FAIL(DR_EUSAGE, "max_kl needs a reference model");
    if (e->task != NULL && (e->max_kl != 0 || e->max_perplexity != 0))
        DR_FAIL(DR_EUSAGE, "questions have neither KL nor perplexity: no max_kl");
    if (e->task != NULL && dr_ranks_count(e->device->ranks) > 1) {
        st = dr_fail(DR_EUSAGE, "questions are judged in one process, and %zu were started",
                     dr_ranks_count(e->device->ranks));
        dr_hint("run it without mpirun");
        goto done;
    }
    if (e->task == NULL)
        DR_TRY(data_check(e->data));
    if (e->data->strategy == DATA_PACKING)
        DR_FAIL(DR_EUSAGE, "strategy packing is for training; line-by-line judges rows by "
                           "themselves");
    DR_TRY(open_pair(&p, e));
    if (e->reference.name != NULL)
        DR_TRY(tell_model(e, "reference", &p.reference));
    DR_TRY(tell_model(e, "model", &p.model));
    DR_TRY(e->task != NULL ? on_task(&p, e) : on_text(&p, e));
done:
    close_pair(&p);
    return st;
}
