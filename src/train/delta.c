/*
 * delta.c - LoHa and LoKr: adapters whose dW is as large as the weights.
 *
 *     LoHa   dW = s (P o Q), P = w1_a w1_b, Q = w2_a w2_b
 *            T = s G o Q:  dw1_a += T w1_b^T, dw1_b += w1_a^T T;  T = s G o P for w2
 *     LoKr   dW[i k][j n] = s w1[i][j] w2[k][n];  dw1 and dw2: sums of s G with the other
 *
 * G, the gradient of the weights, is what nn_layer_backward leaves in dw.  A layer's
 * weights with dW added exist once, made anew for each block: that costs r to 2 r rows of
 * its products.  Dropouts are PEFT's: of rows of dW (LoHa's others grow for it, LoKr's with
 * rank_dropout_scale), and of a whole module; for each block its own.
 *
 * Rows are tasks; sums over rows are in the order of rows.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"
#include "train/train_impl.h"

enum { ROWS = 8 };

/* Floats of the slots that have modules in any layer, and of the largest module. */
static void sizes(size_t slots[HF_SLOT_COUNT], size_t *module, const train_state *s,
                  const hf_config *c)
{
    memset(slots, 0, HF_SLOT_COUNT * sizeof(*slots));
    *module = 0;
    for (int layer = 0; layer < c->layers; layer++) {
        for (size_t i = 0; i < s->layer_trained[layer]; i++) {
            const train_delta *d = &s->deltas[layer][i];
            size_t n = d->mod->n_out * d->mod->n_in;
            slots[d->slot] = hf_slot_out(c, d->slot) * hf_slot_in(c, d->slot);
            *module = n > *module ? n : *module;
        }
    }
}

size_t train_delta_floats(const train_state *s, const hf_config *c)
{
    size_t slots[HF_SLOT_COUNT], module = 0, sum = 0;

    if (s->deltas == NULL)
        return 0;
    sizes(slots, &module, s, c);
    for (size_t i = 0; i < HF_SLOT_COUNT; i++)
        sum += 2 * slots[i];
    return sum + 3 * module;
}

dr_status train_delta_open(train_delta_work *k, const train_state *s, const hf_config *c)
{
    size_t slots[HF_SLOT_COUNT], module = 0;
    void *p = NULL;
    dr_status st = DR_OK;

    *k = (train_delta_work){0};
    if (s->deltas == NULL)
        return DR_OK;
    sizes(slots, &module, s, c);
    DR_TRY(dr_big_alloc(&p, train_delta_floats(s, c), sizeof(float),
                        "weights with the adapter"));
    k->block = p;
    float *at = p;
    for (size_t i = 0; i < HF_SLOT_COUNT; i++) {
        k->w[i] = slots[i] > 0 ? at : NULL;
        k->dw[i] = slots[i] > 0 ? at + slots[i] : NULL;
        at += 2 * slots[i];
    }
    for (size_t i = 0; i < DR_COUNT(k->full); i++, at += module)
        k->full[i] = at;
done:
    return st;
}

/* ---- one module ---- */

typedef struct {
    const train_delta *d;
    const float *p, *q; /* P and Q, or w1 and w2 */
    float *w;           /* [n_out][n_in]: dW is added to it */
    const float *g;     /* likewise: the gradient of the weights */
    float *t;
    size_t q_rows, q_cols;
} module;

/* *out = the product of two factors, or the one there is. */
static dr_status product(nn_device *dev, const float **out, float *room, const hf_factor *f)
{
    *out = f[0].data;
    if (f[1].rows == 0)
        return DR_OK;
    *out = room;
    return nn_matmul_nn(dev, room, f[0].data, f[1].data, f[0].rows, f[1].cols, f[0].cols,
                        f[0].cols, false);
}

static dr_status begin(module *m, const train_delta *d, nn_device *dev, train_delta_work *k)
{
    const hf_factor *f = d->mod->f;
    dr_status st = DR_OK;

    *m = (module){.d = d, .t = k->full[2]};
    DR_TRY(product(dev, &m->p, k->full[0], &f[0]));
    DR_TRY(product(dev, &m->q, k->full[1], &f[2]));
    m->q_rows = f[2].rows;
    m->q_cols = f[3].rows > 0 ? f[3].cols : f[2].cols;
done:
    return st;
}

static size_t end_of(size_t task, size_t all)
{
    return (task + 1) * ROWS < all ? (task + 1) * ROWS : all;
}

/* What row i counts: the scale, and what dropout leaves of it. */
static float weight_of(const train_delta *d, size_t i)
{
    return d->mod->scale * (d->masked ? d->rows[i] : 1.0f);
}

static dr_status add_task(void *ctx, size_t task, int worker)
{
    const module *m = ctx;
    const train_delta *d = m->d;
    size_t n = d->mod->n_in;

    (void)worker;
    for (size_t i = task * ROWS; i < end_of(task, d->mod->n_out); i++) {
        float s = weight_of(d, i), *w = m->w + i * n;
        if (!d->kron) {
            for (size_t k = 0; k < n; k++)
                w[k] += m->p[i * n + k] * m->q[i * n + k] * s;
            continue;
        }
        const float *left = m->p + i / m->q_rows * (n / m->q_cols);
        const float *right = m->q + i % m->q_rows * m->q_cols;
        for (size_t j = 0; j < n / m->q_cols; j++)
            for (size_t k = 0; k < m->q_cols; k++)
                w[j * m->q_cols + k] += left[j] * right[k] * s;
    }
    return DR_OK;
}

static size_t tasks(size_t rows)
{
    return (rows + ROWS - 1) / ROWS;
}

dr_status train_delta_apply(nn_layer *own, nn_device *dev, train_delta_work *k,
                            const train_state *s, const nn_layer *w, const hf_config *c)
{
    const train_delta *deltas = s->deltas[w->index];
    size_t count = s->layer_trained[w->index];
    module m;
    dr_status st = DR_OK;

    *own = *w;
    for (size_t i = 0; i < count; i++) {
        hf_slot slot = deltas[i].slot;
        if (own->w[slot] == k->w[slot])
            continue;
        memcpy(k->w[slot], w->w[slot],
               hf_slot_out(c, slot) * hf_slot_in(c, slot) * sizeof(float));
        own->w[slot] = k->w[slot];
        own->dw[slot] = k->dw[slot];
    }
    for (size_t i = 0; i < count; i++) {
        const train_delta *d = &deltas[i];
        DR_TRY(begin(&m, d, dev, k));
        m.w = k->w[d->slot] + d->row0 * d->mod->n_in;
        DR_TRY(dr_pool_run(nn_device_pool(dev), tasks(d->mod->n_out), add_task, &m));
    }
done:
    return st;
}

/* ---- gradients ---- */

/* t = s G o other */
static dr_status other_task(void *ctx, size_t task, int worker)
{
    const module *m = ctx;
    size_t n = m->d->mod->n_in;

    (void)worker;
    for (size_t i = task * ROWS; i < end_of(task, m->d->mod->n_out); i++) {
        float s = weight_of(m->d, i);
        for (size_t k = 0; k < n; k++)
            m->t[i * n + k] = m->g[i * n + k] * s * m->q[i * n + k];
    }
    return DR_OK;
}

/* Gradients of two factors from t, that of their product. */
static dr_status factor_grads(nn_device *dev, float *grad, const hf_factor f[2],
                              const float *t)
{
    size_t rows = f[0].rows, r = f[0].cols, cols = f[1].cols;
    dr_status st = DR_OK;

    if (f[1].rows == 0) {
        for (size_t i = 0; i < rows * r; i++)
            grad[i] += t[i];
        return DR_OK;
    }
    DR_TRY(nn_matmul_nt(dev, grad, t, f[1].data, NULL, rows, r, cols, r, true));
    DR_TRY(nn_matmul_tn(dev, grad + rows * r, f[0].data, t, r, cols, rows, r, cols, true));
done:
    return st;
}

static size_t pair_count(const hf_factor f[2])
{
    return f[0].rows * f[0].cols + f[1].rows * f[1].cols;
}

static dr_status hada_grads(module *m, nn_device *dev)
{
    const train_delta *d = m->d;
    const hf_factor *f = d->mod->f;
    const float *p = m->p;
    dr_status st = DR_OK;

    DR_TRY(dr_pool_run(nn_device_pool(dev), tasks(d->mod->n_out), other_task, m));
    DR_TRY(factor_grads(dev, d->grad, &f[0], m->t));
    m->q = p;
    DR_TRY(dr_pool_run(nn_device_pool(dev), tasks(d->mod->n_out), other_task, m));
    DR_TRY(factor_grads(dev, d->grad + pair_count(f), &f[2], m->t));
done:
    return st;
}

/* t[i][..]: gradient of row i of w1. */
static dr_status left_task(void *ctx, size_t i, int worker)
{
    const module *m = ctx;
    size_t n = m->d->mod->n_in, wide = n / m->q_cols;

    (void)worker;
    for (size_t j = 0; j < wide; j++) {
        double sum = 0;
        for (size_t a = 0; a < m->q_rows; a++) {
            const float *g = m->g + (i * m->q_rows + a) * n + j * m->q_cols;
            double row = 0;
            for (size_t k = 0; k < m->q_cols; k++)
                row += (double)g[k] * (double)m->q[a * m->q_cols + k];
            sum += row * (double)weight_of(m->d, i * m->q_rows + a);
        }
        m->t[i * wide + j] = (float)sum;
    }
    return DR_OK;
}

/* t[a][..]: gradient of row a of w2. */
static dr_status right_task(void *ctx, size_t a, int worker)
{
    const module *m = ctx;
    size_t n = m->d->mod->n_in, wide = n / m->q_cols, high = m->d->mod->n_out / m->q_rows;
    double *sums = dr_calloc(m->q_cols, sizeof(*sums));

    (void)worker;
    for (size_t i = 0; i < high; i++) {
        double s = (double)weight_of(m->d, i * m->q_rows + a);
        const float *g = m->g + (i * m->q_rows + a) * n;
        for (size_t j = 0; j < wide; j++) {
            double left = s * (double)m->p[i * wide + j];
            for (size_t k = 0; k < m->q_cols; k++)
                sums[k] += left * (double)g[j * m->q_cols + k];
        }
    }
    for (size_t k = 0; k < m->q_cols; k++)
        m->t[a * m->q_cols + k] = (float)sums[k];
    free(sums);
    return DR_OK;
}

static dr_status kron_grads(module *m, nn_device *dev)
{
    const train_delta *d = m->d;
    const hf_factor *f = d->mod->f;
    dr_pool *pool = nn_device_pool(dev);
    dr_status st = DR_OK;

    DR_TRY(dr_pool_run(pool, d->mod->n_out / m->q_rows, left_task, m));
    DR_TRY(factor_grads(dev, d->grad, &f[0], m->t));
    DR_TRY(dr_pool_run(pool, m->q_rows, right_task, m));
    DR_TRY(factor_grads(dev, d->grad + pair_count(f), &f[2], m->t));
done:
    return st;
}

dr_status train_delta_grads(nn_device *dev, train_delta_work *k, const train_state *s,
                            int layer)
{
    module m;
    dr_status st = DR_OK;

    for (size_t i = 0; i < s->layer_trained[layer]; i++) {
        const train_delta *d = &s->deltas[layer][i];
        DR_TRY(begin(&m, d, dev, k));
        m.g = k->dw[d->slot] + d->row0 * d->mod->n_in;
        DR_TRY(d->kron ? kron_grads(&m, dev) : hada_grads(&m, dev));
    }
done:
    return st;
}

/* ---- dropouts ---- */

void train_delta_masks(train_delta *d, const hf_adapter *a, uint64_t seed, uint64_t stream)
{
    size_t n = d->mod->n_out, kept = 0;
    bool grow = a->kind == HF_ADAPTER_LOHA || a->rank_dropout_scale;
    dr_rng rng;

    d->masked = a->dropout > 0 || a->module_dropout > 0;
    if (!d->masked)
        return;
    dr_rng_init(&rng, seed, stream);
    bool off = (double)dr_rng_uniform(&rng) < a->module_dropout;
    for (size_t i = 0; i < n; i++) {
        bool keep = !off && (double)dr_rng_uniform(&rng) >= a->dropout;
        d->rows[i] = keep ? 1.0f : 0.0f;
        kept += keep;
    }
    for (size_t i = 0; i < n && grow && kept > 0; i++)
        d->rows[i] *= (float)n / (float)kept;
}
