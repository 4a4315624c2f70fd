/*
 * task.c - accuracy on questions of multiple choice, as lm-evaluation-harness defines it.
 *
 * A choice's score is the sum of log p over the tokens that " " and the choice add to the
 * context; the context's white space at its end goes with the choice.  acc is the share of
 * questions whose greatest score is the answer's (the first one in a tie), acc_norm that of
 * the greatest score per character of the choice.  Standard errors are those of a mean.
 *
 * All choices of all questions are run as texts of their own, longest first, so that texts
 * of one length go through together.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "pass/eval_impl.h"

enum { ROWS = QUANT_JUDGE_ROWS };

/* One choice of one question. */
typedef struct {
    int32_t *ids;       /* owned: context and choice */
    size_t count, from; /* from: the choice's first token */
    size_t question, choice;
    double length;   /* characters */
    double score[2]; /* of the reference, of the model */
} item;

typedef struct {
    eval_question *list; /* arena */
    size_t count;
    item *items; /* owned, in order of length */
    size_t item_count, cut;
} task;

static const char blanks[] = " \t\r\n\v\f";

static size_t characters(const char *text)
{
    size_t n = 0;

    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

const char *eval_trimmed(dr_arena *a, const char *text, const char *ends)
{
    text += strspn(text, blanks);
    return dr_arena_strndup(a, text, eval_without_end(text, strcspn(text, ends)));
}

size_t eval_without_end(const char *text, size_t n)
{
    while (n > 0 && memchr(blanks, text[n - 1], 6) != NULL)
        n--;
    return n;
}

/* Ids of the context alone and with the choice behind it. */
static dr_status encode(item *it, const eval_question *q, const tok_tokenizer *tok,
                        const data_options *o)
{
    size_t n = eval_without_end(q->context, strlen(q->context));
    int32_t first = tok_bos(tok) >= 0 ? tok_bos(tok) : tok_eos(tok);
    tok_ids alone = {0}, whole = {0};
    dr_buf text;
    dr_status st = DR_OK;

    dr_buf_init(&text, (size_t)64 << 20);
    DR_TRY(dr_buf_addf(&text, "%s %s", q->context, q->choices[it->choice]));
    if (o->add_special_tokens || n == 0) { /* something must be before the choice */
        if (first < 0)
            DR_FAIL(DR_EUSAGE,
                    "question of line %zu: the tokenizer has no token that "
                    "begins a text",
                    q->line);
        DR_TRY(tok_ids_add(&alone, first));
        DR_TRY(tok_ids_add(&whole, first));
    }
    DR_TRY(tok_encode(tok, &alone, q->context, n, false));
    DR_TRY(tok_encode(tok, &whole, text.data, text.len, false));
    if (alone.count >= whole.count)
        DR_FAIL(DR_EFORMAT, "question of line %zu: choice %zu adds no token", q->line,
                it->choice + 1);
    it->ids = whole.ids;
    it->count = whole.count;
    it->from = alone.count;
    it->length = (double)characters(q->choices[it->choice]);
    whole = (tok_ids){0};
done:
    tok_ids_release(&alone);
    tok_ids_release(&whole);
    dr_buf_release(&text);
    return st;
}

/* Longest first; else as in the file. */
static int by_length(const void *a, const void *b)
{
    const item *x = a, *y = b;

    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    if (x->question != y->question)
        return x->question < y->question ? -1 : 1;
    return x->choice < y->choice ? -1 : 1;
}

/* What is longer than the context loses its beginning, never the choice. */
static dr_status cut_front(task *t, item *it, size_t most)
{
    size_t over = it->count - 1 > most ? it->count - 1 - most : 0;

    if (over == 0)
        return DR_OK;
    if (over >= it->from)
        return dr_fail(DR_EUSAGE,
                       "question of line %zu: choice %zu is longer than %zu tokens",
                       t->list[it->question].line, it->choice + 1, most);
    memmove(it->ids, it->ids + over, (it->count - over) * sizeof(*it->ids));
    it->count -= over;
    it->from -= over;
    t->cut++;
    return DR_OK;
}

static dr_status make_items(task *t, const tok_tokenizer *tok, const data_options *o,
                            size_t most)
{
    size_t n = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < t->count; i++)
        n += t->list[i].choice_count;
    t->items = dr_calloc(n, sizeof(*t->items));
    for (size_t i = 0; i < t->count; i++) {
        for (size_t k = 0; k < t->list[i].choice_count; k++) {
            item *it = &t->items[t->item_count++];
            *it = (item){.question = i, .choice = k};
            DR_TRY(encode(it, &t->list[i], tok, o));
            DR_TRY(cut_front(t, it, most));
        }
    }
    qsort(t->items, t->item_count, sizeof(*t->items), by_length);
    if (t->cut > 0)
        dr_warn_result("%zu of %zu texts are longer than %zu tokens and lost their "
                       "beginning",
                       t->cut, t->item_count, most);
done:
    return st;
}

/* The logits at from-1 .. count-2 are those of the choice's tokens. */
static dr_status score_items(task *t, eval_model *m, int side, nn_device *dev,
                             float *logits, dr_progress *progress)
{
    nn_row_stat row[ROWS];
    dr_status st = DR_OK;

    for (size_t i = 0; i < t->item_count; i++) {
        item *it = &t->items[i];
        for (size_t at = it->from; at < it->count;) {
            size_t n = it->count - at < ROWS ? it->count - at : ROWS;
            DR_TRY(dr_cancelled_check());
            DR_TRY(eval_next(m, logits, n));
            DR_TRY(nn_row_stats(dev, row, logits, NULL, it->ids + at, n, eval_vocab(m)));
            for (size_t r = 0; r < n; r++)
                it->score[side] += row[r].target - row[r].top - row[r].log_sum;
            at += n;
        }
        dr_progress_step(progress, i + 1, NULL);
    }
done:
    return st;
}

static dr_status run_model(task *t, eval_model *m, int side, nn_device *dev, int threads)
{
    quant_text *texts = dr_calloc(t->item_count, sizeof(*texts));
    dr_progress progress;
    nn_device *mem = m->hf != NULL ? dev : NULL;
    float *logits = NULL;
    dr_status st = DR_OK;

    for (size_t i = 0; i < t->item_count; i++)
        texts[i] =
            (quant_text){t->items[i].ids, t->items[i].count - 1, t->items[i].from - 1};
    DR_TRY(eval_begin(m, dev, texts, t->item_count, threads));
    for (size_t i = 0; i < t->item_count; i++)
        for (size_t k = 0; k < t->items[i].count; k++)
            if ((size_t)t->items[i].ids[k] >= eval_vocab(m))
                DR_FAIL(DR_EFORMAT, "token %d is outside of %s's vocabulary of %zu",
                        t->items[i].ids[k], m->name, eval_vocab(m));
    DR_TRY(nn_mem_new(mem, &logits, ROWS * eval_vocab(m), NN_MEM_FLOAT, "logits"));
    dr_progress_begin(&progress, m->name, "choices", t->item_count);
    DR_TRY(score_items(t, m, side, dev, logits, &progress));
    dr_progress_end(&progress);
done:
    eval_end(m);
    nn_mem_free(mem, logits);
    free(texts);
    return st;
}

/* The choice of each question with the greatest score (per character); the first one in a
 * tie. */
static void choose(size_t *chosen, const task *t, int side, bool by_characters)
{
    double *best = dr_calloc(t->count, sizeof(*best));

    for (size_t q = 0; q < t->count; q++)
        chosen[q] = SIZE_MAX;
    for (size_t i = 0; i < t->item_count; i++) {
        const item *it = &t->items[i];
        const size_t q = it->question;
        double score = it->score[side] / (by_characters ? it->length : 1);
        bool better = chosen[q] == SIZE_MAX || score > best[q] ||
                      (score == best[q] && it->choice < chosen[q]);
        if (!better)
            continue;
        best[q] = score;
        chosen[q] = it->choice;
    }
    free(best);
}

/* What each side chose, and whether that is right: [question][side]; then the difference
 * and whether both chose the same: [question][2] and [3]. */
static void compare_answers(double (*hit)[4], size_t *const chosen[2], const task *t)
{
    for (size_t q = 0; q < t->count; q++) {
        for (int side = 0; side < 2; side++)
            hit[q][side] = chosen[side][q] == t->list[q].answer;
        hit[q][2] = hit[q][1] - hit[q][0];
        hit[q][3] = chosen[0][q] == chosen[1][q];
    }
}

static json_t *list_of(const size_t *chosen, size_t count)
{
    json_t *list = json_array();

    for (size_t q = 0; q < count; q++)
        json_array_append_new(list, json_integer((json_int_t)chosen[q]));
    return list;
}

/* acc or acc_norm: of the models, question by question the difference, the share that both
 * answer alike. */
static dr_status tell(const pass_evaluation *e, const task *t, bool both, const char *acc)
{
    const bool norm = strcmp(acc, "acc_norm") == 0;
    dr_arena *a = e->arena;
    size_t *chosen[2];
    double(*hit)[4] = dr_calloc(t->count, sizeof(*hit));
    dr_status st = DR_OK;

    for (int side = 0; side < 2; side++) {
        chosen[side] = dr_arena_alloc(a, t->count, sizeof(**chosen));
        choose(chosen[side], t, side, norm);
    }
    compare_answers(hit, chosen, t);
    if (both)
        DR_TRY(eval_share_row(e->text, e->report, dr_arena_printf(a, "%s, reference", acc),
                              dr_arena_printf(a, "reference_%s", acc), 0,
                              quant_mean_of(&hit[0][0], t->count, 4)));
    DR_TRY(eval_share_row(e->text, e->report,
                          dr_arena_printf(a, both ? "%s, model" : "%s (%%)", acc), acc, 0,
                          quant_mean_of(&hit[0][1], t->count, 4)));
    json_object_set_new(e->report, dr_arena_printf(a, "%s_answers", acc),
                        list_of(chosen[1], t->count));
    if (!both)
        goto done;
    DR_TRY(eval_share_row(e->text, e->report, "  difference",
                          dr_arena_printf(a, "%s_difference", acc), -1,
                          quant_mean_of(&hit[0][2], t->count, 4)));
    DR_TRY(eval_share_row(e->text, e->report, "  same answer",
                          dr_arena_printf(a, "%s_same_answer", acc), 0,
                          quant_mean_of(&hit[0][3], t->count, 4)));
done:
    free(hit);
    return st;
}

/* ---- classes: the k-th choice is class k ---- */

static size_t most_choices(const task *t, bool *alike)
{
    size_t most = 0;

    *alike = true;
    for (size_t q = 0; q < t->count; q++) {
        *alike = *alike && t->list[q].choice_count == t->list[0].choice_count;
        most = t->list[q].choice_count > most ? t->list[q].choice_count : most;
    }
    return most;
}

/* The model's probability of each class among the choices, [question][class]; its logarithm
 * less a constant would rank another question's differently. */
static double *probabilities(dr_arena *a, const task *t, size_t classes)
{
    double *p = dr_arena_alloc(a, t->count * classes, sizeof(*p));

    for (size_t i = 0; i < t->item_count; i++)
        p[t->items[i].question * classes + t->items[i].choice] = t->items[i].score[1];
    for (size_t q = 0; q < t->count; q++) {
        double *row = p + q * classes, top = row[0], sum = 0;
        for (size_t k = 1; k < classes; k++)
            top = row[k] > top ? row[k] : top;
        for (size_t k = 0; k < classes; k++)
            sum += row[k] = exp(row[k] - top);
        for (size_t k = 0; k < classes; k++)
            row[k] /= sum;
    }
    return p;
}

/* f1, precision and recall by all averages that there are; auroc, where every question has
 * the same number of choices. */
static dr_status tell_classes(const pass_evaluation *e, const task *t)
{
    static const char *const names[] = {"binary", "macro", "micro", "weighted"};
    size_t *truth = dr_arena_alloc(e->arena, t->count, sizeof(*truth));
    size_t *chosen = dr_arena_alloc(e->arena, t->count, sizeof(*chosen));
    bool alike = false;
    const size_t classes = most_choices(t, &alike);
    json_t *all = json_object();
    dr_status st = DR_OK;

    choose(chosen, t, 1, false);
    for (size_t q = 0; q < t->count; q++)
        truth[q] = t->list[q].answer;
    for (int k = classes == 2 ? EVAL_BINARY : EVAL_MACRO; k <= EVAL_WEIGHTED; k++) {
        const eval_classes c =
            eval_class_scores(truth, chosen, t->count, classes, (eval_average)k);
        json_object_set_new(all, names[k],
                            json_pack("{s:f, s:f, s:f}", "f1_score", c.f1, "precision",
                                      c.precision, "recall", c.recall));
        if (k == EVAL_MACRO)
            DR_TRY(dr_buf_addf(e->text, "%-20s %12.4f\n%-20s %12.4f\n%-20s %12.4f\n",
                               "f1, macro", 100 * c.f1, "precision, macro",
                               100 * c.precision, "recall, macro", 100 * c.recall));
    }
    double auroc =
        alike ? eval_auroc(probabilities(e->arena, t, classes), truth, t->count, classes)
              : (double)NAN;
    json_object_set_new(e->report, "auroc",
                        isfinite(auroc) ? json_real(auroc) : json_null());
    if (isfinite(auroc))
        DR_TRY(dr_buf_addf(e->text, "%-20s %12.4f\n", "auroc", 100 * auroc));
done:
    json_object_set_new(e->report, "classes", all);
    return st;
}

/* The model's score of each choice, as in the file. */
static void tell_scores(const pass_evaluation *e, const task *t)
{
    json_t *all = json_array();

    for (size_t q = 0; q < t->count; q++) {
        json_t *list = json_array();
        for (size_t k = 0; k < t->list[q].choice_count; k++)
            json_array_append_new(list, json_real(0));
        json_array_append_new(all, list);
    }
    for (size_t i = 0; i < t->item_count; i++) {
        const item *it = &t->items[i];
        json_array_set_new(json_array_get(all, it->question), it->choice,
                           json_real(it->score[1]));
    }
    json_object_set_new(e->report, "scores", all);
}

static void task_release(task *t)
{
    for (size_t i = 0; i < t->item_count; i++)
        free(t->items[i].ids);
    free(t->items);
}

dr_status eval_task(const pass_evaluation *e, eval_model *const models[2],
                    const tok_tokenizer *tok, nn_device *dev)
{
    const bool both = models[0] != NULL;
    size_t most = e->data->max_seq_len > 0 ? e->data->max_seq_len : SIZE_MAX;
    task t = {0};
    dr_status st = DR_OK;

    DR_TRY(eval_read_task(e->arena, &t.list, &t.count, e->task, e->data));
    if (t.list[0].choices == NULL) {
        DR_TRY(eval_answers(e, models, t.list, t.count, tok, dev));
        goto done;
    }
    if (e->max_new_tokens > 0)
        DR_FAIL(DR_EUSAGE, "max_new_tokens is of written answers, and %s has choices",
                e->task);
    for (int side = both ? 0 : 1; side < 2; side++)
        most = models[side]->context < most ? models[side]->context : most;
    DR_TRY(make_items(&t, tok, e->data, most));
    for (int side = both ? 0 : 1; side < 2; side++)
        DR_TRY(run_model(&t, models[side], side, dev, e->threads));
    DR_TRY(eval_head(e->text));
    DR_TRY(tell(e, &t, both, "acc"));
    DR_TRY(tell(e, &t, both, "acc_norm"));
    DR_TRY(tell_classes(e, &t));
    tell_scores(e, &t);
    DR_TRY(dr_buf_addf(e->text, "judged on %zu questions of %s, in percent\n", t.count,
                       e->task));
    json_object_set_new(e->report, "questions", json_integer((json_int_t)t.count));
    json_object_set_new(e->report, "cut_texts", json_integer((json_int_t)t.cut));
done:
    task_release(&t);
    return st;
}
