/*
 * train_watch.c - what the trainer does beside its steps: lines of the log, evaluations,
 * the best adapter, the end before the end.
 *
 * The evaluation's loss is a mean over its targets, without dropout; the Trainer's is a
 * mean over batches, the same for blocks of one length.  The base is evaluated before the
 * first step and never counts as the best; the last step is evaluated always.  Of equal
 * losses the first is the best, and an evaluation is no use to patience when it is better
 * by no more than the threshold (EarlyStoppingCallback).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "train/train_impl.h"

/* The share is rounded up, as the Trainer does. */
size_t train_every(double every, size_t total)
{
    return (size_t)(every < 1 ? ceil(every * (double)total) : every);
}

static bool due(const train_report *r, train_when when, double every)
{
    size_t steps = train_every(every, r->total);

    switch (when) {
    case TRAIN_NEVER:
        break;
    case TRAIN_STEPS:
        return steps > 0 && r->steps % steps == 0;
    case TRAIN_EPOCH:
        return r->steps % r->epoch_steps == 0 || r->steps == r->total;
    }
    return false;
}

bool train_watch_saves(const train_options *o, const train_report *r)
{
    if (o->checkpoints == NULL || o->save_when == TRAIN_NEVER)
        return false;
    return o->save_when == TRAIN_EPOCH || train_every(o->save_steps, r->total) <= r->total;
}

/* ---- the log ---- */

static json_t *entry(const train_report *r)
{
    return json_pack("{s:f, s:I}", "epoch", (double)r->steps / (double)r->epoch_steps,
                     "step", (json_int_t)r->steps);
}

/* The mean loss since the last entry, as the Trainer logs it. */
static void log_step(trainer *t, train_report *r)
{
    double sum = 0, rate = train_rate_of(t->o, r, r->steps - 1);
    double norm = r->grad_norms[r->steps - 1];
    json_t *e = entry(r);

    for (size_t k = t->logged; k < r->steps; k++)
        sum += r->losses[k];
    sum /= (double)(r->steps - t->logged);
    t->logged = r->steps;
    json_object_set_new(e, "loss", json_real(sum));
    json_object_set_new(e, "grad_norm", json_real(norm));
    json_object_set_new(e, "learning_rate", json_real(rate));
    json_array_append_new(r->history, e);
    dr_log(DR_INFO, "step %zu: loss %.6f, gradient norm %.4f, rate %.3g", r->steps, sum,
           norm, rate);
}

/* ---- evaluations ---- */

static void set_dropout(trainer *t, float p)
{
    for (int layer = 0; layer < t->layers; layer++)
        for (size_t i = 0; i < t->state.layer_trained[layer]; i++) {
            if (t->state.deltas != NULL)
                t->state.deltas[layer][i].masked = false; /* until the next masks */
            else
                t->state.layers[layer][i].dropout = p;
        }
}

dr_status train_block_loss(double *mean, double *sum, size_t *labels, nn_decoder *d,
                           const float *x, int32_t *targets, const train_blocks *b,
                           size_t i)
{
    size_t own = 0;
    double loss = 0;
    dr_status st = DR_OK;

    train_targets(targets, b, i);
    DR_TRY(nn_head_loss(d, x, targets, b->lengths[i], &loss, &own, NULL, 0, 0));
    *mean = own > 0 ? loss / (double)own : (double)NAN;
    *sum += loss;
    *labels += own;
done:
    return st;
}

dr_status train_share_blocks(dr_ranks *r, double *v, size_t each, size_t count)
{
    size_t n = each * count, ranks = dr_ranks_count(r);
    double *all = NULL;
    dr_status st = DR_OK;

    if (ranks == 1)
        return DR_OK;
    all = dr_calloc(ranks * n, sizeof(*all));
    DR_TRY(dr_ranks_gather(r, all, v, n * sizeof(*v), "the evaluation"));
    for (size_t i = 0; i < count; i++)
        memcpy(v + i * each, all + i % ranks * n + i * each, each * sizeof(*v));
done:
    free(all);
    return st;
}

/* Means of the blocks (NaN: no target) and over all targets. */
static dr_status evaluate(trainer *t, double *blocks, double *loss, bool adapter)
{
    const train_blocks *b = t->o->eval;
    size_t all = 0;
    double total = 0, *sums = dr_calloc(2 * b->count, sizeof(*sums)); /* and labels */
    dr_status st = DR_OK;

    set_dropout(t, 0);
    t->eval_seconds = dr_now_s();
    for (size_t i = dr_ranks_id(t->ranks); i < b->count; i += dr_ranks_count(t->ranks)) {
        size_t labels = 0;
        DR_TRY(dr_cancelled_check());
        DR_TRY(train_forward(t, b, &i, 1, adapter));
        DR_TRY(train_block_loss(&blocks[i], &sums[2 * i], &labels, t->dec, t->x, t->targets,
                                b, i));
        sums[2 * i + 1] = (double)labels;
    }
    DR_TRY(train_share_blocks(t->ranks, blocks, 1, b->count));
    DR_TRY(train_share_blocks(t->ranks, sums, 2, b->count));
    for (size_t i = 0; i < b->count; i++) {
        total += sums[2 * i];
        all += (size_t)sums[2 * i + 1];
    }
    if (all == 0)
        DR_FAIL(DR_EFORMAT, "no token of the evaluation data has a label");
    *loss = total / (double)all;
    t->eval_seconds = dr_now_s() - t->eval_seconds;
done:
    set_dropout(t, (float)t->o->dropout);
    free(sums);
    return st;
}

static void add_eval(train_report *r, double loss)
{
    json_t *e = entry(r);

    r->evals = dr_realloc(r->evals, r->eval_count + 1, sizeof(*r->evals));
    r->evals[r->eval_count++] = (train_eval){r->steps, loss};
    json_object_set_new(e, "eval_loss", json_real(loss));
    json_array_append_new(r->history, e);
    dr_log(DR_INFO, "step %zu: evaluation loss %.6f, perplexity %.4f", r->steps, loss,
           exp(loss));
}

/* Is it the best so far, and is it time to stop? */
static void weigh(trainer *t, train_report *r, double loss)
{
    bool better = r->best_step == 0 || loss < r->best_loss;

    if (r->best_step == 0 || (better && r->best_loss - loss > t->o->threshold))
        r->waited = 0;
    else
        r->waited++;
    r->stopped = t->o->patience > 0 && r->waited >= t->o->patience;
    if (!better)
        return;
    r->best_step = r->steps;
    r->best_loss = loss;
    if (t->best == NULL)
        return;
    memcpy(t->best, t->state.param, t->state.count * sizeof(*t->best));
    memcpy(t->best_losses, t->last_losses, t->o->eval->count * sizeof(double));
}

static dr_status eval_step(trainer *t, train_report *r)
{
    double loss = 0;
    dr_status st = DR_OK;

    DR_TRYF(evaluate(t, t->last_losses, &loss, true), "evaluating after step %zu",
            r->steps);
    if (!isfinite(loss))
        DR_FAIL(DR_EDEVICE,
                "step %zu: the evaluation's loss is %g; try a lower "
                "learning_rate",
                r->steps, loss);
    add_eval(r, loss);
    if (t->best != NULL)
        DR_TRY(train_state_params(&t->state));
    weigh(t, r, loss);
done:
    return st;
}

/* ---- in their order ---- */

void train_watch_open(trainer *t, train_report *r)
{
    size_t judged = t->o->eval != NULL ? t->o->eval->count : 0;

    DR_BUG_IF(judged > 0 && t->o->eval->seq_len > t->blocks->seq_len);
    t->last_losses = dr_calloc(judged, sizeof(double));
    t->best_losses = dr_calloc(judged, sizeof(double));
    r->base_losses = dr_calloc(judged, sizeof(double));
    r->history = json_array();
}

dr_status train_watch_begin(trainer *t, train_report *r)
{
    double loss = 0;
    dr_status st = DR_OK;

    if (t->o->eval == NULL)
        return DR_OK;
    DR_TRYF(evaluate(t, r->base_losses, &loss, false), "evaluating the base");
    add_eval(r, loss);
done:
    return st;
}

dr_status train_watch_step(trainer *t, train_report *r)
{
    const train_options *o = t->o;
    dr_status st = DR_OK;

    if (due(r, o->log_when, o->logging_steps) || (o->log_first && r->steps == 1))
        log_step(t, r);
    if (o->eval != NULL && due(r, o->eval_when, o->eval_steps))
        DR_TRY(eval_step(t, r));
    if (o->checkpoints != NULL && due(r, o->save_when, o->save_steps)) {
        DR_TRY(train_state_params(&t->state));
        DR_TRY(train_check_ranks(t));
        if (dr_ranks_first(t->ranks))
            DR_TRY(train_checkpoint_write(t, r));
    }
    if (r->stopped && r->steps < r->total)
        dr_log(DR_INFO, "step %zu: %zu evaluations without a better one; it stops here",
               r->steps, r->waited);
done:
    return st;
}

dr_status train_watch_end(trainer *t, train_report *r)
{
    dr_status st = DR_OK;

    DR_TRY(train_check_ranks(t));
    r->made_step = r->steps;
    if (t->o->eval == NULL)
        return DR_OK;
    if (r->evals[r->eval_count - 1].step != r->steps || r->eval_count == 1)
        DR_TRY(eval_step(t, r));
    if (t->best != NULL && r->best_step != r->steps) {
        memcpy(t->state.param, t->best, t->state.count * sizeof(*t->best));
        r->made_step = r->best_step;
    }
    r->made_losses = dr_calloc(t->o->eval->count, sizeof(double));
    memcpy(r->made_losses, r->made_step == r->steps ? t->last_losses : t->best_losses,
           t->o->eval->count * sizeof(double));
done:
    return st;
}
