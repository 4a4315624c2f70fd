/*
 * distill.c - scales of a packed model trained end to end: what they are worth to the whole
 * model, not to one linear's output.
 *
 * Codes, zero points and everything else stand still; a scale s of a group has the gradient
 * sum over the group of (code - zero) dL/dw = (sum w dL/dw) / s, with L the mean KL to the
 * original over tokens.  Adam (Kingma and Ba 2015) moves each linear's scales by a rate in
 * units of their mean, falling to 0 over the steps.  The file's form does not change, nor
 * does the cost of running it.
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
 * scales five times, and of float weights and activations all layers' when they fit
 * keep_bytes, else one layer's: activations are then computed twice.
 * Cost of a step, in forwards of its tokens: 4 (5), and three times the head.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "quant/quant_impl.h"

#define KEEP_SHARE 0.02 /* of the time, for keeping; and FREE_S beside that */
#define FREE_S     0.1

enum { ROWS = 32, LOOKS = 6, PART_VALIDATES = 8 };

static const double beta1 = 0.9, beta2 = 0.95, eps = 1e-10;
static const char piece[] = "distill";

/* A packed linear: its scales as they are trained, in q.scales. */
typedef struct {
    const hf_linear *l;
    dr_qtensor q;                       /* owned */
    size_t count;                       /* scales */
    float *grad, *mean, *square, *best; /* borrowed: [count] of the distiller's */
    double rate;                        /* the mean scale */
} trained;

/* What a kept state begins with. */
typedef struct {
    uint64_t steps; /* done */
    uint64_t best_step;
    double kl_before, kl_after;
} progress;

typedef struct {
    const quant_site *site;
    const quant_calib *calib;
    const quant_distill_options *o;
    const hf_config *c;
    nn_decoder *dec, *teacher;
    trained *linears; /* owned: of all layers, in order */
    size_t *first;    /* owned: [layers + 1] */
    size_t scales;    /* of all linears */
    float *grad;      /* owned: [scales]; */
    float *state;     /* borrowed, behind grad: scales, mean, square, best [4][scales] */
    float *targets;   /* owned: [count][T][D], the original's last hidden states */
    float *w;         /* owned: [kept layers][slots' weights] */
    float *bias;      /* owned: [slots' outputs], of one layer */
    float *dw;        /* owned: [slots' weights] */
    float *inputs;    /* owned: [layers][T][D], NULL when acts are kept */
    nn_acts *acts;    /* owned */
    float *x, *dx;    /* owned: [T][D] */
    size_t layer_floats, acts_count, train_count;
    bool keep_w;
    bool *fresh; /* owned: [layers] w is of the scales as they are */
} distiller;

static void distiller_close(distiller *d)
{
    float *all[] = {d->targets, d->w, d->bias, d->dw, d->inputs, d->x, d->dx, d->grad};

    for (size_t i = 0; d->first != NULL && i < d->first[d->c->layers]; i++)
        dr_qtensor_release(&d->linears[i].q);
    for (size_t i = 0; d->acts != NULL && i < d->acts_count; i++)
        dr_big_free(d->acts[i].x);
    for (size_t i = 0; i < DR_COUNT(all); i++)
        dr_big_free(all[i]);
    free(d->linears);
    free(d->first);
    free(d->acts);
    free(d->fresh);
    nn_decoder_close(d->dec);
    nn_decoder_close(d->teacher);
}

/* ---- opening ---- */

static dr_status open_linear(trained *t, const hf_model *m, const hf_linear *l)
{
    double sum = 0;
    dr_status st = DR_OK;

    t->l = l;
    DR_TRYF(hf_linear_packed(m, l, &t->q), "reading %s", l->path);
    t->count = t->q.rows * dr_qtensor_blocks(&t->q);
    for (size_t i = 0; i < t->count; i++)
        sum += (double)t->q.scales[i];
    t->rate = sum / (double)t->count;
done:
    return st;
}

/* Each linear's part of what is trained. */
static dr_status open_state(distiller *d)
{
    size_t linears = d->first[d->c->layers], at = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < linears; i++)
        d->scales += d->linears[i].count;
    DR_TRY(quant_floats(&d->grad, 5, d->scales, "training of scales"));
    d->state = d->grad + d->scales;
    for (size_t i = 0; i < linears; i++) {
        trained *t = &d->linears[i];
        t->grad = d->grad + at;
        t->mean = d->state + d->scales + at;
        t->square = t->mean + d->scales;
        t->best = t->square + d->scales;
        memcpy(t->best, t->q.scales, t->count * sizeof(float));
        at += t->count;
    }
done:
    return st;
}

static dr_status open_linears(distiller *d)
{
    const hf_model *m = d->site->in;
    const hf_linear *list = NULL;
    size_t n = 0, packed = 0;
    dr_status st = DR_OK;

    for (int i = 0; i < d->c->layers; i++)
        n += hf_layer_linears(m, i, &list);
    d->linears = dr_calloc(n + 1, sizeof(*d->linears));
    d->first = dr_calloc((size_t)d->c->layers + 1, sizeof(*d->first));
    for (int i = 0; i < d->c->layers; i++) {
        size_t count = hf_layer_linears(m, i, &list);
        for (size_t k = 0; k < count; k++) {
            trained *t = &d->linears[packed];
            if (!list[k].packed)
                continue;
            /* counted first, so that a failure releases it */
            for (int later = i + 1; later <= d->c->layers; later++)
                d->first[later]++;
            packed++;
            DR_TRY(open_linear(t, m, &list[k]));
        }
    }
    if (packed == 0)
        DR_FAIL(DR_EUSAGE, "%s has no packed linear whose scales could be trained",
                hf_model_path(m));
    DR_TRY(open_state(d));
done:
    return st;
}

/* Room for all layers' weights and activations where keep_bytes allows, else for one's. */
static dr_status plan(distiller *d)
{
    size_t t = d->calib->seq_len, width = (size_t)d->c->hidden, outs = 0;
    size_t layers = (size_t)d->c->layers, keep = d->o->keep_bytes;
    size_t acts = nn_acts_bytes(d->c, 1, t, 0);
    dr_status st = DR_OK;

    d->layer_floats = hf_layer_weights(d->c);
    for (int s = 0; s < HF_SLOT_COUNT; s++)
        outs += hf_slot_out(d->c, (hf_slot)s);
    bool keep_acts = acts * layers <= keep / 2;
    keep -= keep_acts ? acts * layers : 0;
    d->keep_w = d->layer_floats * layers * sizeof(float) <= keep;
    d->acts_count = keep_acts ? layers : 1;
    d->acts = dr_calloc(d->acts_count, sizeof(*d->acts));
    d->fresh = dr_calloc(layers, sizeof(*d->fresh));
    for (size_t i = 0; i < d->acts_count; i++)
        DR_TRY(nn_acts_new(&d->acts[i], d->c, 1, t, 0));
    if (!keep_acts)
        DR_TRY(quant_floats(&d->inputs, layers * t, width, "inputs of all layers"));
    DR_TRY(quant_floats(&d->w, d->keep_w ? layers : 1, d->layer_floats, "weights"));
    DR_TRY(quant_floats(&d->dw, 1, d->layer_floats, "gradients of weights"));
    DR_TRY(quant_floats(&d->bias, 1, outs, "biases"));
    DR_TRY(quant_floats(&d->x, t, width, "residual stream"));
    DR_TRY(quant_floats(&d->dx, t, width, "its gradient"));
done:
    return st;
}

/* A decoder that keeps no layer; its head, which every chunk of logits reads, where it
 * fits. */
static dr_status open_for_head(nn_decoder **out, const distiller *d, const hf_model *m)
{
    size_t head = (size_t)d->c->vocab * (size_t)d->c->hidden * sizeof(float);

    return nn_decoder_open(out, d->site->dev, m, head <= d->o->keep_bytes / 4 ? head : 0);
}

/* The original's last hidden states of the whole text. */
static dr_status run_teacher(distiller *d, const hf_model *teacher)
{
    size_t t = d->calib->seq_len, row = t * (size_t)d->c->hidden, n = 0;
    size_t step = QUANT_CHUNK / t > 0 ? QUANT_CHUNK / t : 1;
    dr_status st = DR_OK;

    /* its layers stay while it runs; afterwards only the head is asked for */
    DR_TRY(nn_decoder_open(&d->teacher, d->site->dev, teacher, d->o->keep_bytes / 4));
    DR_TRY(quant_floats(&d->targets, d->calib->count, row, "hidden states"));
    for (size_t i = 0; i < d->calib->count; i += n) {
        n = d->calib->count - i < step ? d->calib->count - i : step;
        DR_TRY(dr_cancelled_check());
        DR_TRYF(nn_decoder_hidden(d->teacher, d->targets + i * row, d->calib->ids + i * t,
                                  n, t),
                "running the original");
    }
    nn_decoder_close(d->teacher);
    d->teacher = NULL;
    DR_TRY(open_for_head(&d->teacher, d, teacher));
done:
    return st;
}

static dr_status distiller_open(distiller *d, const hf_model *teacher)
{
    const hf_config *c = hf_model_config(teacher);
    dr_status st = DR_OK;

    if (c->vocab != d->c->vocab || c->layers != d->c->layers || c->hidden != d->c->hidden)
        DR_FAIL(DR_EUSAGE, "%s is not what %s was made from: other sizes",
                hf_model_path(teacher), hf_model_path(d->site->in));
    if (d->calib->count == 0 || d->calib->seq_len == 0)
        DR_FAIL(DR_EUSAGE, "distilling: expected sequences of tokens, found none");
    d->train_count = d->calib->count - d->calib->count / PART_VALIDATES;
    DR_TRY(open_linears(d));
    DR_TRY(plan(d));
    DR_TRY(open_for_head(&d->dec, d, d->site->in));
    DR_TRY(run_teacher(d, teacher));
done:
    return st;
}

/* ---- a layer's weights ---- */

typedef struct {
    const trained *t;
    float *w;        /* of the linear: [n_out][n_in] */
    const float *dw; /* likewise; NULL: weights are wanted */
} rows_job;

static dr_status weight_rows(void *ctx, size_t task, int worker)
{
    const rows_job *j = ctx;
    size_t from = task * ROWS, left = j->t->q.rows - from, n = j->t->q.cols;

    (void)worker;
    dr_qtensor_to_f32(j->w + from * n, &j->t->q, from, left < ROWS ? left : ROWS);
    return DR_OK;
}

/* grad += (sum w dw) / s of each group. */
static dr_status scale_rows(void *ctx, size_t task, int worker)
{
    const rows_job *j = ctx;
    const trained *t = j->t;
    size_t n = t->q.cols, block = (size_t)t->q.block, blocks = dr_qtensor_blocks(&t->q);
    size_t end = (task + 1) * ROWS < t->q.rows ? (task + 1) * ROWS : t->q.rows;

    (void)worker;
    for (size_t r = task * ROWS; r < end; r++) {
        for (size_t b = 0; b < blocks; b++) {
            size_t from = r * n + b * block, left = n - b * block;
            size_t count = left < block ? left : block;
            float sum = 0, s = t->q.scales[r * blocks + b];
            for (size_t i = from; i < from + count; i++)
                sum += j->w[i] * j->dw[i];
            t->grad[r * blocks + b] += s != 0.0f ? sum / s : 0.0f;
        }
    }
    return DR_OK;
}

static dr_status each_linear(distiller *d, int layer, const nn_layer *w, bool gradients)
{
    dr_pool *pool = nn_device_pool(d->site->dev);
    dr_status st = DR_OK;

    for (size_t i = d->first[layer]; i < d->first[layer + 1]; i++) {
        const trained *t = &d->linears[i];
        size_t at = t->l->row0 * t->l->n_in;
        rows_job j = {t, w->w[t->l->slot] + at, w->dw[t->l->slot] + at};
        DR_TRY(dr_pool_run(pool, (t->q.rows + ROWS - 1) / ROWS,
                           gradients ? scale_rows : weight_rows, &j));
    }
done:
    return st;
}

/* Linears that are not packed keep their floats. */
static dr_status plain_linears(distiller *d, int layer, const nn_layer *w)
{
    const hf_linear *list = NULL;
    size_t n = hf_layer_linears(d->site->in, layer, &list);
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i++) {
        float *to = w->w[list[i].slot] + list[i].row0 * list[i].n_in;
        if (!list[i].packed)
            DR_TRY(hf_linear_read(d->site->in, &list[i], to, 0, list[i].n_out));
    }
done:
    return st;
}

static dr_status layer_weights(distiller *d, int layer, nn_layer *w)
{
    float *at = d->w + (d->keep_w ? (size_t)layer * d->layer_floats : 0), *dw = d->dw;
    float *bias = d->bias;
    const nn_layer *norms = NULL;
    const hf_linear *list = NULL;
    size_t n = hf_layer_linears(d->site->in, layer, &list);
    dr_status st = DR_OK;

    DR_TRY(nn_decoder_norms(d->dec, layer, &norms));
    *w = *norms;
    for (int s = 0; s < HF_SLOT_COUNT; s++) {
        size_t out = hf_slot_out(d->c, (hf_slot)s);
        size_t size = out * hf_slot_in(d->c, (hf_slot)s);
        w->w[s] = at;
        w->dw[s] = dw;
        for (size_t i = 0; i < n; i++) {
            if (list[i].slot != (hf_slot)s || !list[i].has_bias)
                continue;
            w->bias[s] = bias;
            DR_TRY(hf_linear_bias(d->site->in, &list[i], bias + list[i].row0));
        }
        at += size;
        dw += size;
        bias += out;
    }
    if (d->keep_w && d->fresh[layer])
        goto done;
    DR_TRY(plain_linears(d, layer, w));
    DR_TRY(each_linear(d, layer, w, false));
    d->fresh[layer] = true;
done:
    return st;
}

/* ---- a sequence ---- */

static dr_status run_layer(distiller *d, int layer, nn_layer *w, nn_acts **acts)
{
    dr_status st = DR_OK;

    *acts = &d->acts[d->inputs == NULL ? layer : 0];
    DR_TRY(layer_weights(d, layer, w));
    DR_TRY(nn_layer_forward(d->dec, w, 1, d->calib->seq_len, d->x, *acts, NULL, 0));
done:
    return st;
}

/* KL of sequence i, summed over tokens; with grad_scale its gradients are added. */
static dr_status run_sequence(distiller *d, size_t i, double *kl, float grad_scale)
{
    size_t t = d->calib->seq_len, row = t * (size_t)d->c->hidden;
    nn_acts *acts = NULL;
    nn_layer w = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    DR_TRY(nn_decoder_embed(d->dec, d->x, d->calib->ids + i * t, t));
    for (int layer = 0; layer < d->c->layers; layer++) {
        if (d->inputs != NULL)
            memcpy(d->inputs + (size_t)layer * row, d->x, row * sizeof(*d->x));
        DR_TRY(run_layer(d, layer, &w, &acts));
    }
    DR_TRY(nn_head_kl(d->dec, d->x, d->teacher, d->targets + i * row, t, kl,
                      grad_scale != 0.0f ? d->dx : NULL, grad_scale));
    for (int layer = d->c->layers - 1; grad_scale != 0.0f && layer >= 0; layer--) {
        if (d->inputs != NULL) {
            memcpy(d->x, d->inputs + (size_t)layer * row, row * sizeof(*d->x));
            DR_TRY(run_layer(d, layer, &w, &acts));
        } else {
            acts = &d->acts[layer];
            DR_TRY(layer_weights(d, layer, &w));
        }
        DR_TRY(nn_layer_backward(d->dec, &w, 1, t, d->dx, acts, NULL, 0, true));
        DR_TRY(each_linear(d, layer, &w, true));
    }
done:
    return st;
}

/* ---- steps ---- */

static dr_status adam_linear(void *ctx, size_t task, int worker)
{
    distiller *d = ((void **)ctx)[0];
    const double *step = ((void **)ctx)[1]; /* rate, 1 - beta1^k, 1 - beta2^k */
    trained *t = &d->linears[task];

    (void)worker;
    for (size_t i = 0; i < t->count; i++) {
        double g = (double)t->grad[i], s = (double)t->q.scales[i];
        double m = beta1 * (double)t->mean[i] + (1 - beta1) * g;
        double v = beta2 * (double)t->square[i] + (1 - beta2) * g * g;
        double to = s - step[0] * t->rate * (m / step[1]) / (sqrt(v / step[2]) + eps);
        t->mean[i] = (float)m;
        t->square[i] = (float)v;
        t->grad[i] = 0;
        /* a scale keeps its sign and a tenth of its size: a zero could not come back */
        if (s > 0)
            t->q.scales[i] = (float)(to > s / 10 ? to : s / 10);
    }
    return DR_OK;
}

static dr_status update(distiller *d, size_t k)
{
    double left = 1 - (double)k / (double)d->o->steps;
    double step[] = {d->o->learning_rate * left, 1 - pow(beta1, (double)k + 1),
                     1 - pow(beta2, (double)k + 1)};
    void *ctx[] = {d, step};

    memset(d->fresh, 0, (size_t)d->c->layers * sizeof(*d->fresh));
    return dr_pool_run(nn_device_pool(d->site->dev), d->first[d->c->layers], adam_linear,
                       ctx);
}

/* KL a token on what is not trained on; on what is, where there is nothing else. */
static dr_status validate(distiller *d, double *kl)
{
    size_t from = d->train_count < d->calib->count ? d->train_count : 0;
    double sum = 0;
    dr_status st = DR_OK;

    for (size_t i = from; i < d->calib->count; i++)
        DR_TRY(run_sequence(d, i, &sum, 0.0f));
    *kl = sum / (double)((d->calib->count - from) * d->calib->seq_len);
done:
    return st;
}

static void keep_best(distiller *d, progress *p, double kl)
{
    if (!(kl < p->kl_after))
        return;
    p->kl_after = kl;
    p->best_step = p->steps;
    for (size_t i = 0; i < d->first[d->c->layers]; i++) {
        trained *t = &d->linears[i];
        memcpy(t->best, t->q.scales, t->count * sizeof(float));
    }
}

/* ---- what a killed run had done ---- */

enum { PART_PROGRESS, PART_STATE, PARTS };

/* The scales of all linears, to or from the state's. */
static void move_scales(distiller *d, bool out)
{
    float *at = d->state;

    for (size_t i = 0; i < d->first[d->c->layers]; i++) {
        const trained *t = &d->linears[i];
        memcpy(out ? at : t->q.scales, out ? t->q.scales : at, t->count * sizeof(*at));
        at += t->count;
    }
}

typedef struct {
    double start_s, spent_s, last_s;
    bool off;
} keeper;

static void keep(keeper *k, distiller *d, const progress *p)
{
    const double now = dr_now_s();
    const dr_part parts[PARTS] = {{p, sizeof(*p)},
                                  {d->state, 4 * d->scales * sizeof(*d->state)}};

    if (d->site->resume == NULL || k->off ||
        k->spent_s + k->last_s > FREE_S + KEEP_SHARE * (now - k->start_s))
        return;
    move_scales(d, true);
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
                parts[PART_STATE].bytes == 4 * d->scales * sizeof(*d->state);
    if (fits) {
        memcpy(p, parts[PART_PROGRESS].data, sizeof(*p));
        memcpy(d->state, parts[PART_STATE].data, parts[PART_STATE].bytes);
        move_scales(d, false);
        dr_tell("resuming after step %zu of %zu", (size_t)p->steps, d->o->steps);
    }
    dr_map_close(&map);
    return fits;
}

/* ---- all steps ---- */

static dr_status step(distiller *d, size_t k)
{
    size_t batch = d->o->batch;
    float scale = 1.0f / (float)(batch * d->calib->seq_len);
    double kl = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < batch; i++)
        DR_TRYF(run_sequence(d, (k * batch + i) % d->train_count, &kl, scale),
                "step %zu of %zu", k + 1, d->o->steps);
    kl *= (double)scale;
    if (!isfinite(kl))
        DR_FAIL(DR_EDEVICE, "distilling, step %zu: KL is %g; try a lower rate", k + 1, kl);
    dr_log(DR_INFO, "distilling, step %zu: KL %.5f", k + 1, kl);
    DR_TRY(update(d, k));
done:
    return st;
}

static dr_status look(distiller *d, progress *p, double *kl)
{
    dr_status st = DR_OK;

    DR_TRY(validate(d, kl));
    dr_log(DR_INFO, "distilling, step %zu: KL %.5f on text not trained on",
           (size_t)p->steps, *kl);
    keep_best(d, p, *kl);
done:
    return st;
}

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

    for (size_t i = 0; i < d->first[d->c->layers]; i++) {
        trained *t = &d->linears[i];
        for (size_t k = 0; k < t->count; k++)
            t->q.scales[k] = t->best[k] > 0.0f ? quant_half_scale(t->best[k]) : t->best[k];
        DR_TRY(hf_writer_packed(d->site->out, t->l, &t->q));
    }
done:
    return st;
}

dr_status quant_distill(quant_distill_report *r, const quant_site *site,
                        const hf_model *teacher, const quant_calib *calib,
                        const quant_distill_options *o)
{
    distiller d = {.site = site, .calib = calib, .o = o, .c = hf_model_config(site->in)};
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
