/*
 * written.c - what a model writes after a context, beside what it should: exact matches and
 * word errors.
 *
 * It goes on greedily from the context without the white space at its end; its answer is
 * what it writes up to its first line's end, without white space around it.  Of several
 * targets the nearest one counts.  An ONNX model writes in ONNX Runtime GenAI, a Hugging
 * Face model by nn_sample.
 */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/mem.h"
#include "pass/eval_impl.h"

enum { NEW_TOKENS = 32 };

typedef struct {
    const eval_question *list; /* borrowed */
    size_t count;
    tok_ids *prompts;           /* owned: [count] */
    size_t longest, new_tokens; /* prompt, answer */
    const char **texts[2];      /* arena: of the reference, of the model */
} answers;

static dr_status make_prompts(answers *w, const tok_tokenizer *tok, const data_options *o,
                              size_t most)
{
    int32_t first = tok_bos(tok) >= 0 ? tok_bos(tok) : tok_eos(tok);
    dr_status st = DR_OK;

    w->prompts = dr_calloc(w->count, sizeof(*w->prompts));
    for (size_t i = 0; i < w->count; i++) {
        const eval_question *q = &w->list[i];
        size_t n = eval_without_end(q->context, strlen(q->context));
        if ((o->add_special_tokens || n == 0) && first < 0)
            DR_FAIL(DR_EUSAGE,
                    "question of line %zu: the tokenizer has no token that begins a text",
                    q->line);
        if (o->add_special_tokens || n == 0)
            DR_TRY(tok_ids_add(&w->prompts[i], first));
        DR_TRY(tok_encode(tok, &w->prompts[i], q->context, n, false));
        if (w->prompts[i].count + w->new_tokens > most)
            DR_FAIL(DR_EUSAGE,
                    "question of line %zu: %zu tokens and an answer of %zu are more than "
                    "the %zu that the model can see",
                    q->line, w->prompts[i].count, w->new_tokens, most);
        w->longest = w->prompts[i].count > w->longest ? w->prompts[i].count : w->longest;
    }
done:
    return st;
}

/* The first line of what the ids say, without white space around it. */
static dr_status text_of(const char **out, dr_arena *a, const tok_tokenizer *tok,
                         const int32_t *ids, size_t count)
{
    dr_buf b;
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++)
        if (ids[i] == tok_eos(tok))
            count = i;
    dr_buf_init(&b, 1 << 24);
    DR_TRY(tok_decode(tok, &b, ids, count, true));
    *out = eval_trimmed(a, b.len > 0 ? b.data : "", "\n");
done:
    dr_buf_release(&b);
    return st;
}

static dr_status write_onnx(answers *w, int side, const eval_model *m,
                            const tok_tokenizer *tok, const pass_evaluation *e)
{
    const char *dir = dr_path_dir(e->arena, m->file);
    ort_generate_options o = ORT_GENERATE_DEFAULTS;
    ort_generator *g = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    o.adapter_path = m->adapter;
    o.threads = e->threads;
    DR_TRYF(ort_generator_open(&g, dir, &o), "loading %s, to let it write", m->name);
    for (size_t i = 0; i < w->count; i++) {
        o.max_length = (int)(w->prompts[i].count + w->new_tokens);
        ort_generator_set(g, &o);
        DR_TRY(ort_generate(g, w->prompts[i].ids, w->prompts[i].count, NULL, NULL, &ids, &n,
                            NULL));
        DR_TRY(text_of(&w->texts[side][i], e->arena, tok, ids, n));
        free(ids);
        ids = NULL;
    }
done:
    free(ids);
    ort_generator_close(g);
    return st;
}

static dr_status write_hf(answers *w, int side, const eval_model *m,
                          const tok_tokenizer *tok, nn_device *dev,
                          const pass_evaluation *e)
{
    nn_prompt *prompts = dr_arena_alloc(e->arena, w->count, sizeof(*prompts));
    const nn_sample_options o = {
        .count = w->count, .len = w->longest + w->new_tokens, .prompts = prompts};
    nn_decoder *d = NULL;
    void *ids = NULL;
    dr_status st = DR_OK;

    if (m->peft.path != NULL) {
        st = dr_fail(DR_EUNSUPPORTED,
                     "%s has an adapter beside it, with which it writes no answers",
                     m->name);
        dr_hint("drupe convert -a makes one model of both");
        goto done;
    }
    for (size_t i = 0; i < w->count; i++)
        prompts[i] = (nn_prompt){w->prompts[i].ids, w->prompts[i].count};
    DR_TRY(dr_big_alloc(&ids, o.count, o.len * sizeof(int32_t), "answers"));
    DR_TRY(nn_decoder_open(&d, dev, m->hf, SIZE_MAX));
    DR_TRY(nn_sample(d, ids, &o, NULL));
    for (size_t i = 0; i < w->count; i++)
        DR_TRY(text_of(&w->texts[side][i], e->arena, tok,
                       (int32_t *)ids + i * o.len + w->prompts[i].count, w->new_tokens));
done:
    nn_decoder_close(d);
    dr_big_free(ids);
    return st;
}

/* Words wrong in the nearest target. */
static eval_words nearest(const eval_question *q, const char *text)
{
    eval_words best = eval_word_errors(text, q->targets[0]);

    for (size_t k = 1; k < q->target_count; k++) {
        const eval_words w = eval_word_errors(text, q->targets[k]);
        if (w.wrong < best.wrong)
            best = w;
    }
    return best;
}

static bool exact(const eval_question *q, const char *text)
{
    for (size_t k = 0; k < q->target_count; k++)
        if (strcmp(text, q->targets[k]) == 0)
            return true;
    return false;
}

static dr_status tell(const answers *w, const pass_evaluation *e, int side, bool both)
{
    const char *of = !both ? "" : side == 0 ? ", reference" : ", model";
    const char *key = side == 0 ? "reference_" : "";
    double *hit = dr_arena_alloc(e->arena, w->count, sizeof(*hit));
    json_t *list = json_array();
    size_t wrong = 0, words = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < w->count; i++) {
        const eval_words found = nearest(&w->list[i], w->texts[side][i]);
        hit[i] = exact(&w->list[i], w->texts[side][i]);
        wrong += found.wrong;
        words += found.words;
        json_array_append_new(list, json_string(w->texts[side][i]));
    }
    json_object_set_new(e->report, dr_arena_printf(e->arena, "%sanswers", key), list);
    DR_TRY(eval_share_row(e->text, e->report,
                          dr_arena_printf(e->arena, "exact match%s", of),
                          dr_arena_printf(e->arena, "%sexact_match", key), 0,
                          quant_mean_of(hit, w->count, 1)));
    double wer = (double)wrong / (double)(words > 0 ? words : 1);
    DR_TRY(dr_buf_addf(e->text, "%-20s %12.4f\n",
                       dr_arena_printf(e->arena, "word errors%s", of), 100 * wer));
    json_object_set_new(e->report, dr_arena_printf(e->arena, "%swer", key), json_real(wer));
done:
    return st;
}

dr_status eval_answers(const pass_evaluation *e, eval_model *const models[2],
                       const eval_question *list, size_t count, const tok_tokenizer *tok,
                       nn_device *dev)
{
    const bool both = models[0] != NULL;
    size_t most = e->data->max_seq_len > 0 ? e->data->max_seq_len : SIZE_MAX;
    answers w = {.list = list,
                 .count = count,
                 .new_tokens = e->max_new_tokens > 0 ? (size_t)e->max_new_tokens
                                                     : (size_t)NEW_TOKENS};
    dr_status st = DR_OK;

    for (int side = both ? 0 : 1; side < 2; side++)
        most = models[side]->context < most ? models[side]->context : most;
    DR_TRY(make_prompts(&w, tok, e->data, most));
    DR_TRY(eval_head(e->text));
    for (int side = both ? 0 : 1; side < 2; side++) {
        w.texts[side] = dr_arena_alloc(e->arena, count, sizeof(**w.texts));
        DR_TRY(models[side]->hf != NULL ? write_hf(&w, side, models[side], tok, dev, e)
                                        : write_onnx(&w, side, models[side], tok, e));
        DR_TRY(tell(&w, e, side, both));
    }
    DR_TRY(
        dr_buf_addf(e->text, "judged on %zu answers to %s, in percent\n", count, e->task));
    json_object_set_new(e->report, "questions", json_integer((json_int_t)count));
done:
    for (size_t i = 0; w.prompts != NULL && i < count; i++)
        tok_ids_release(&w.prompts[i]);
    free(w.prompts);
    return st;
}
