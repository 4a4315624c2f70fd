/*
 * distill.c - scales of a packed model trained end to end: what they are worth to the whole
 * model, not to one linear's output.
 *
 * Codes, zero points and everything else stand still (learner.c has the gradients).  Adam
 * (Kingma and Ba 2015) moves each linear's scales by a rate in units of their mean, falling
 * to 0 over the steps; it runs on the host on every device: of 64 weights it sees one
 * value.  The file's form does not change, nor does the cost of running it.
 *
 * Why KL and not the text's own cross entropy: with that the model drifts to the text.
 *
 * After a step the state is kept (resume.h) when that takes little of the time; a run that
 * was killed goes on behind it and ends with the same bytes.  The original runs again.
 *
 * Part of the text is not trained on but validates: the scales that did best there are
 * kept, the first ones included, so a run that only overfits changes nothing.
 *
 * Memory: the original's last hidden states of all tokens (it runs once), packed weights,
 * scales seven times, and what learner.c keeps.
 * Cost of a step, in forwards of its tokens: 3 (4 where activations are not kept), and
 * three times the head.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "quant/learner_impl.h"

#define KEEP_SHARE 0.02 /* of the time, for keeping; and FREE_S beside that */
#define FREE_S     0.1

enum { LOOKS = 6, PART_VALIDATES = 8 };

static const double beta1 = 0.9, beta2 = 0.95, eps = 1e-10;
static const char piece[] = "distill";

/* What a kept state begins with. */
typedef struct {
    uint64_t steps; /* done */
    uint64_t best_step;
    double kl_before, kl_after;
} progress;

/* The state: arrays of all scales, one after another. */
enum { SCALES, MEAN, SQUARE, BEST, ARRAYS };

typedef struct {
    const quant_site *site;
    const quant_calib *calib;
    const quant_distill_options *o;
    quant_learner s;
    float *state; /* owned: [ARRAYS][n] */
    float *grad;  /* borrowed, behind state: [n] */
    size_t n, train_count;
} distiller;

static void distiller_close(distiller *d)
{
    quant_learner_close(&d->s);
    dr_big_free(d->state);
}

static float *array(const distiller *d, int which)
{
    return d->state + (size_t)which * d->n;
}

static dr_status distiller_open(distiller *d, const hf_model *teacher)
{
    dr_status st = DR_OK;

    DR_TRY(quant_learner_open(&d->s, d->site, teacher, d->calib, d->o->batch,
                              d->o->keep_bytes, !d->o->exact));
    d->n = d->s.scale_count;
    d->train_count = d->calib->count - d->calib->count / PART_VALIDATES;
    DR_TRY(quant_floats(&d->state, ARRAYS + 1, d->n, "training of scales"));
    d->grad = array(d, ARRAYS);
    for (size_t i = 0; i < d->s.first[d->s.c->layers]; i++) {
        const quant_trained *t = &d->s.linears[i];
        memcpy(array(d, SCALES) + t->at, t->q.scales, t->count * sizeof(float));
    }
    memcpy(array(d, BEST), array(d, SCALES), d->n * sizeof(float));
done:
    return st;
}

/* ---- a step ---- */

typedef struct {
    distiller *d;
    double rate, rest1, rest2; /* 1 - beta^k */
} adam_job;

static dr_status adam_linear(void *ctx, size_t task, int worker)
{
    const adam_job *j = ctx;
    distiller *d = j->d;
    const quant_trained *t = &d->s.linears[task];
    double rate = 0;

    (void)worker;
    for (size_t i = 0; i < t->count; i++)
        rate += (double)t->q.scales[i];
    rate *= j->rate / (double)t->count;
    for (size_t i = t->at; i < t->at + t->count; i++) {
        float *s = array(d, SCALES) + i, *mean = array(d, MEAN) + i;
        float *square = array(d, SQUARE) + i;
        double g = (double)d->grad[i];
        double m = beta1 * (double)*mean + (1 - beta1) * g;
        double v = beta2 * (double)*square + (1 - beta2) * g * g;
        double to = (double)*s - rate * (m / j->rest1) / (sqrt(v / j->rest2) + eps);
        *mean = (float)m;
        *square = (float)v;
        /* a scale keeps its sign and a tenth of its size: a zero could not come back */
        if (*s > 0)
            *s = (float)(to > (double)*s / 10 ? to : (double)*s / 10);
    }
    return DR_OK;
}

static dr_status step(distiller *d, size_t k)
{
    const size_t batch = d->o->batch;
    const float scale = 1.0f / (float)(batch * d->calib->seq_len);
    adam_job adam = {d, d->o->learning_rate * (1 - (double)k / (double)d->o->steps),
                     1 - pow(beta1, (double)k + 1), 1 - pow(beta2, (double)k + 1)};
    double kl = 0;
    dr_status st = DR_OK;

    DR_TRY(quant_learner_set(&d->s, array(d, SCALES)));
    for (size_t i = 0, n; i < batch; i += n) {
        size_t from = (k * batch + i) % d->train_count, left = d->train_count - from;
        n = batch - i < left ? batch - i : left;
        DR_TRYF(quant_learner_run(&d->s, &kl, from, n, scale), "step %zu of %zu", k + 1,
                d->o->steps);
    }
    kl *= (double)scale;
    if (!isfinite(kl))
        DR_FAIL(DR_EDEVICE, "distilling, step %zu: KL is %g; try a lower rate", k + 1, kl);
    dr_log(DR_INFO, "distilling, step %zu: KL %.5f", k + 1, kl);
    DR_TRY(quant_learner_gradients(&d->s, d->grad));
    DR_TRY(dr_pool_run(nn_device_pool(d->site->dev), d->s.first[d->s.c->layers],
                       adam_linear, &adam));
done:
    return st;
}

/* KL a token on what is not trained on (on what is, where there is nothing else). */
static dr_status look(distiller *d, progress *p, double *kl)
{
    size_t from = d->train_count < d->calib->count ? d->train_count : 0;
    size_t count = d->calib->count - from;
    double sum = 0;
    dr_status st = DR_OK;

    DR_TRY(quant_learner_set(&d->s, array(d, SCALES)));
    DR_TRY(quant_learner_run(&d->s, &sum, from, count, 0.0f));
    *kl = sum / (double)(count * d->calib->seq_len);
    dr_log(DR_INFO, "distilling, step %zu: KL %.5f on text not trained on",
           (size_t)p->steps, *kl);
    if (!(*kl < p->kl_after))
        goto done;
    p->kl_after = *kl;
    p->best_step = p->steps;
    memcpy(array(d, BEST), array(d, SCALES), d->n * sizeof(float));
done:
    return st;
}

/* ---- what a killed run had done ---- */

enum { PART_PROGRESS, PART_STATE, PARTS };

typedef struct {
    double start_s, spent_s, last_s;
    bool off;
} keeper;

static void keep(keeper *k, distiller *d, const progress *p)
{
    const double now = dr_now_s();
    const dr_part parts[PARTS] = {{p, sizeof(*p)},
                                  {d->state, ARRAYS * d->n * sizeof(*d->state)}};

    if (d->site->resume == NULL || k->off ||
        k->spent_s + k->last_s > FREE_S + KEEP_SHARE * (now - k->start_s))
        return;
    k->off = !dr_resume_keep(d->site->resume, piece, parts, PARTS);
    k->last_s = dr_now_s() - now;
    k->spent_s += k->last_s;
}

static bool take_up(distiller *d, progress *p)
{
    dr_part parts[PARTS];
    dr_map map = {0};

    if (d->site->resume == NULL ||
        !dr_resume_get(d->site->resume, piece, &map, parts, PARTS))
        return false;
    bool fits = parts[PART_PROGRESS].bytes == sizeof(*p) &&
                parts[PART_STATE].bytes == ARRAYS * d->n * sizeof(*d->state);
    if (fits) {
        memcpy(p, parts[PART_PROGRESS].data, sizeof(*p));
        memcpy(d->state, parts[PART_STATE].data, parts[PART_STATE].bytes);
        dr_tell("resuming after step %zu of %zu", (size_t)p->steps, d->o->steps);
    }
    dr_map_close(&map);
    return fits;
}

/* ---- all steps ---- */

static dr_status run_steps(distiller *d, quant_distill_report *r)
{
    size_t steps = d->o->steps, every = (steps + LOOKS - 1) / LOOKS;
    keeper kept = {.start_s = dr_now_s()};
    progress p = {.kl_after = INFINITY};
    char text[64];
    double kl = 0;
    dr_status st = DR_OK;

    if (!take_up(d, &p)) {
        DR_TRY(look(d, &p, &p.kl_before));
        keep(&kept, d, &p);
    }
    kl = p.kl_after;
    if (d->site->progress != NULL)
        d->site->progress->from = p.steps;
    while (p.steps < steps) {
        DR_TRY(step(d, p.steps));
        p.steps++;
        if (p.steps % every == 0 || p.steps == steps)
            DR_TRY(look(d, &p, &kl));
        keep(&kept, d, &p);
        (void)snprintf(text, sizeof(text), "held-out KL %.4f", kl);
        if (d->site->progress != NULL)
            dr_progress_step(d->site->progress, p.steps, text);
    }
    r->kl_before = p.kl_before;
    r->kl_after = p.kl_after;
    r->best_step = p.best_step;
done:
    return st;
}

static dr_status write_linears(distiller *d)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < d->s.first[d->s.c->layers]; i++) {
        quant_trained *t = &d->s.linears[i];
        const float *best = array(d, BEST) + t->at;
        for (size_t k = 0; k < t->count; k++)
            t->q.scales[k] = best[k] > 0.0f ? nn_grid_half(best[k]) : best[k];
        DR_TRY(hf_writer_packed(d->site->out, t->l, &t->q));
    }
done:
    return st;
}

dr_status quant_distill(quant_distill_report *r, const quant_site *site,
                        const hf_model *teacher, const quant_calib *calib,
                        const quant_distill_options *o)
{
    distiller d = {.site = site, .calib = calib, .o = o};
    double start = dr_now_s();
    dr_status st = DR_OK;

    *r = (quant_distill_report){0};
    if (o->steps == 0 || o->batch == 0 || !(o->learning_rate > 0))
        DR_FAIL(DR_EUSAGE,
                "distilling: expected steps, a batch and a rate, found %zu, %zu, %g",
                o->steps, o->batch, o->learning_rate);
    DR_TRY(distiller_open(&d, teacher));
    DR_TRY(run_steps(&d, r));
    DR_TRY(write_linears(&d));
    r->seconds = dr_now_s() - start;
done:
    distiller_close(&d);
    return st;
}
