/*
 * lora_dora.c - what DoRA adds to a low-rank adapter (Liu et al. 2024), as PEFT 0.21
 * computes it:
 *
 *     f = magnitude / |row of W + s B A|, the norm held constant by the gradient
 *     z = W drop(x) + s B A drop(x)          y = W x + bias + f z - W drop(x)
 *     dmagnitude += sum over rows of dy z / norm
 *     dz = f dy;  dW-path: dy W, and behind the mask (f - 1) dy W
 *
 * Without dropout that is y = f z + bias, and W x is not multiplied again: z is y less the
 * bias.  z is kept for the backward, behind U.  Rows of activations and columns of
 * gradients are tasks of fixed size; a column is summed in double in the order of rows.
 */
#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "nn/decoder_impl.h"

enum { ROWS = 32, COLUMNS = 64, NORM_ROWS = 256 };

bool nn_dora_on(const nn_lora *loras, size_t count, hf_slot slot)
{
    for (size_t i = 0; i < count; i++)
        if (loras[i].slot == slot && loras[i].magnitude != NULL)
            return true;
    return false;
}

/* One of the passes over [M][N] of a module. */
typedef struct {
    const nn_lora *l;
    size_t m, ld;
    float *y;          /* [M][ld] from the module's first column on */
    const float *from; /* likewise */
    float *z;          /* [M][N] */
    const float *kept; /* likewise, as it was */
    const float *bias; /* [N] of the module, or NULL */
} pass;

static size_t end_of(size_t task, size_t size, size_t all)
{
    return (task + 1) * size < all ? (task + 1) * size : all;
}

static dr_status over_rows(nn_device *dev, pass *p, dr_task_fn fn)
{
    return dr_pool_run(nn_device_pool(dev), (p->m + ROWS - 1) / ROWS, fn, p);
}

static dr_status take_task(void *ctx, size_t task, int worker)
{
    const pass *p = ctx;
    size_t n = p->l->n_out;

    (void)worker;
    for (size_t i = task * ROWS; i < end_of(task, ROWS, p->m); i++) {
        float *y = p->y + i * p->ld, *z = p->z + i * n;
        for (size_t j = 0; j < n && p->l->dropout == 0.0f; j++)
            z[j] = y[j] - (p->bias != NULL ? p->bias[j] : 0.0f);
        for (size_t j = 0; j < n; j++)
            y[j] -= z[j];
    }
    return DR_OK;
}

dr_status nn_dora_take(nn_device *dev, float *y, size_t ldy, float *z, const float *bias,
                       size_t m, const nn_lora *l)
{
    pass p = {.l = l, .m = m, .ld = ldy, .y = y, .z = z};

    p.bias = bias != NULL ? bias + l->row0 : NULL;
    return over_rows(dev, &p, take_task);
}

static dr_status put_task(void *ctx, size_t task, int worker)
{
    const pass *p = ctx;
    size_t n = p->l->n_out;

    (void)worker;
    for (size_t i = task * ROWS; i < end_of(task, ROWS, p->m); i++)
        for (size_t j = 0; j < n; j++)
            p->y[i * p->ld + j] += p->l->magnitude[j] / p->l->norm[j] * p->kept[i * n + j];
    return DR_OK;
}

dr_status nn_dora_put(nn_device *dev, float *y, size_t ldy, const float *z, size_t m,
                      const nn_lora *l)
{
    pass p = {.l = l, .m = m, .ld = ldy, .y = y, .kept = z};

    DR_BUG_IF(l->norm == NULL);
    return over_rows(dev, &p, put_task);
}

/* ---- backward ---- */

static dr_status factor_task(void *ctx, size_t task, int worker)
{
    const pass *p = ctx;

    (void)worker;
    for (size_t i = task * ROWS; i < end_of(task, ROWS, p->m); i++)
        for (size_t j = 0; j < p->l->n_out; j++)
            p->y[i * p->ld + j] *= p->l->magnitude[j] / p->l->norm[j];
    return DR_OK;
}

bool nn_dora_masked(const nn_lora_site *s)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->loras[i].slot == s->slot && s->loras[i].magnitude != NULL &&
            s->loras[i].dropout > 0.0f)
            return true;
    return false;
}

dr_status nn_dora_back(const nn_lora_site *s, const float **base, const float *dy)
{
    dr_status st = DR_OK;

    *base = dy;
    if (!nn_dora_on(s->loras, s->count, s->slot))
        return DR_OK;
    memcpy(s->work->dy, dy, s->m * s->n * sizeof(*dy));
    for (size_t i = 0; i < s->count; i++) {
        const nn_lora *l = &s->loras[i];
        pass p = {.l = l, .m = s->m, .ld = s->n, .y = s->work->dy + l->row0};
        if (l->slot != s->slot || l->magnitude == NULL)
            continue;
        DR_TRY(over_rows(s->dev, &p, factor_task));
    }
    if (!nn_dora_masked(s))
        *base = s->work->dy;
done:
    return st;
}

static dr_status sum_task(void *ctx, size_t task, int worker)
{
    const pass *p = ctx;
    size_t n = p->l->n_out, from = task * COLUMNS, end = end_of(task, COLUMNS, n);
    double sum[COLUMNS] = {0};

    (void)worker;
    for (size_t i = 0; i < p->m; i++)
        for (size_t j = from; j < end; j++)
            sum[j - from] += (double)p->from[i * p->ld + j] * (double)p->kept[i * n + j];
    for (size_t j = from; j < end; j++)
        p->l->dmagnitude[j] += (float)(sum[j - from] / (double)p->l->norm[j]);
    return DR_OK;
}

static dr_status less_task(void *ctx, size_t task, int worker)
{
    const pass *p = ctx;

    (void)worker;
    for (size_t i = task * ROWS; i < end_of(task, ROWS, p->m); i++)
        for (size_t j = 0; j < p->l->n_out; j++)
            p->y[i * p->ld + j] -= p->from[i * p->ld + j];
    return DR_OK;
}

dr_status nn_dora_grads(const nn_lora_site *s, const nn_lora *l, const float *dy,
                        const float *z)
{
    dr_status st = DR_OK;
    dr_pool *pool = nn_device_pool(s->dev);
    pass p = {.l = l, .m = s->m, .ld = s->n, .from = dy + l->row0, .kept = z};

    p.y = s->work->dy + l->row0;
    if (l->dmagnitude != NULL)
        DR_TRY(dr_pool_run(pool, (l->n_out + COLUMNS - 1) / COLUMNS, sum_task, &p));
    if (nn_dora_masked(s))
        DR_TRY(over_rows(s->dev, &p, less_task));
done:
    return st;
}

/* ---- norms ---- */

typedef struct {
    const float *rows; /* [count][K] */
    float *norm;       /* [count] */
    size_t count, k;
} norms;

static dr_status norm_task(void *ctx, size_t task, int worker)
{
    const norms *j = ctx;

    (void)worker;
    for (size_t i = task * ROWS; i < end_of(task, ROWS, j->count); i++) {
        const float *x = j->rows + i * j->k;
        double sum = 0;
        for (size_t k = 0; k < j->k; k++)
            sum += (double)x[k] * (double)x[k];
        j->norm[i] = (float)sqrt(sum);
    }
    return DR_OK;
}

/* Rows from..from+count of a module. */
static dr_status some_norms(nn_decoder *d, const float *w, const nn_lora *l, size_t from,
                            size_t count, float *rows, float *sb)
{
    dr_status st = DR_OK;
    norms j = {rows, l->norm + from, count, l->n_in};

    memcpy(rows, w + (l->row0 + from) * l->n_in, count * l->n_in * sizeof(*rows));
    for (size_t i = 0; i < count * l->r; i++)
        sb[i] = l->scale * l->b[from * l->r + i];
    DR_TRY(nn_matmul_nn(d->dev, rows, sb, l->a, count, l->n_in, l->r, l->r, true));
    DR_TRY(dr_pool_run(nn_device_pool(d->dev), (count + ROWS - 1) / ROWS, norm_task, &j));
    for (size_t i = 0; i < count; i++)
        if (!isfinite(j.norm[i]) || j.norm[i] == 0)
            DR_FAIL(DR_EFORMAT, "the weights of output %zu have the norm %g: no DoRA",
                    from + i, (double)j.norm[i]);
done:
    return st;
}

dr_status nn_lora_norms(nn_decoder *d, const nn_layer *w, const nn_lora *loras,
                        size_t count)
{
    dr_status st = DR_OK;
    float *scratch = NULL;

    for (size_t i = 0; i < count; i++) {
        const nn_lora *l = &loras[i];
        if (l->magnitude == NULL)
            continue;
        DR_TRY(nn_scratch(d, &scratch, NORM_ROWS * (l->n_in + l->r)));
        for (size_t at = 0; at < l->n_out; at += NORM_ROWS)
            DR_TRYF(some_norms(d, w->w[l->slot], l, at,
                               l->n_out - at < NORM_ROWS ? l->n_out - at : NORM_ROWS,
                               scratch, scratch + NORM_ROWS * l->n_in),
                    "layer %d", w->index);
    }
done:
    return st;
}
