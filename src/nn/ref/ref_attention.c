/*
 * ref_attention.c - attention by definition: one query at a time against all the keys that
 * it sees, in double.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "nn/ref/ref_impl.h"

/* One query of one head: its row, and the rows of keys and values that it sees. */
typedef struct {
    const float *q, *k, *v; /* k, v: of key 0 */
    size_t row;             /* floats between keys */
    size_t from, to;        /* keys from .. to-1 */
    size_t out;             /* where the head's output begins in [M][H*C] */
    size_t lse;             /* its place in [B][H][T] */
} view;

static view look(const nn_attn_shape *s, const float *qkv, size_t b, size_t h, size_t t)
{
    size_t c = s->head_dim, g = h / (s->heads / s->kv_heads);
    view w = {.row = (s->heads + 2 * s->kv_heads) * c, .to = t + 1};
    const float *seq = qkv + b * s->t * w.row;

    w.q = seq + t * w.row + h * c;
    w.k = seq + (s->heads + g) * c;
    w.v = seq + (s->heads + s->kv_heads + g) * c;
    w.from = s->window != 0 && t + 1 > s->window ? t + 1 - s->window : 0;
    if (w.from < nn_attn_start(s, b, t))
        w.from = nn_attn_start(s, b, t);
    w.out = (b * s->t + t) * s->heads * c + h * c;
    w.lse = (b * s->heads + h) * s->t + t;
    return w;
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0.0;

    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* p[key] = softmax of the scores; returns their log-sum-exp. */
static double probabilities(double *p, const view *w, const nn_attn_shape *s)
{
    double cap = (double)s->softcap, top = (double)-INFINITY, sum = 0.0;

    for (size_t j = w->from; j < w->to; j++) {
        p[j] = (double)s->scale * dot(w->q, w->k + j * w->row, s->head_dim);
        p[j] = cap != 0.0 ? cap * tanh(p[j] / cap) : p[j];
        top = fmax(top, p[j]);
    }
    for (size_t j = w->from; j < w->to; j++)
        sum += p[j] = exp(p[j] - top);
    for (size_t j = w->from; j < w->to; j++)
        p[j] /= sum;
    return top + log(sum);
}

dr_status ref_attention(nn_device *dev, float *out, float *lse, const float *qkv,
                        const nn_attn_shape *s)
{
    double *p = dr_calloc(s->t, sizeof(*p));

    (void)dev;
    for (size_t i = 0; i < s->b * s->heads * s->t; i++) {
        view w = look(s, qkv, i / (s->heads * s->t), i / s->t % s->heads, i % s->t);
        double sum = probabilities(p, &w, s);
        for (size_t c = 0; c < s->head_dim; c++) {
            double o = 0.0;
            for (size_t j = w.from; j < w.to; j++)
                o += p[j] * (double)w.v[j * w.row + c];
            out[w.out + c] = (float)o;
        }
        if (lse != NULL)
            lse[w.lse] = (float)sum;
    }
    free(p);
    return DR_OK;
}

/* Derivative of the cap at the score of key j. */
static double slope(const view *w, size_t j, const nn_attn_shape *s)
{
    double cap = (double)s->softcap;

    if (cap == 0.0)
        return 1.0;
    double score = (double)s->scale * dot(w->q, w->k + j * w->row, s->head_dim);
    return 1.0 - tanh(score / cap) * tanh(score / cap);
}

/* Adds one query's part to the gradients, which lie as qkv does. */
static void query_back(double *grad, double *p, const view *w, const float *qkv,
                       const float *dout, const nn_attn_shape *s)
{
    size_t c = s->head_dim;
    double *dq = grad + (w->q - qkv), *dk = grad + (w->k - qkv), *dv = grad + (w->v - qkv);
    double delta = 0.0;

    (void)probabilities(p, w, s);
    for (size_t j = w->from; j < w->to; j++)
        delta += p[j] * dot(dout, w->v + j * w->row, c);
    for (size_t j = w->from; j < w->to; j++) {
        double dp = dot(dout, w->v + j * w->row, c);
        double ds = (double)s->scale * p[j] * (dp - delta) * slope(w, j, s);
        for (size_t i = 0; i < c; i++) {
            dq[i] += ds * (double)w->k[j * w->row + i];
            dk[j * w->row + i] += ds * (double)w->q[i];
            dv[j * w->row + i] += p[j] * (double)dout[i];
        }
    }
}

dr_status ref_attention_back(nn_device *dev, float *dqkv, const float *dout,
                             const float *out, const float *lse, const float *qkv,
                             const nn_attn_shape *s)
{
    dr_status st = DR_OK;
    double *p = dr_calloc(s->t, sizeof(*p));
    size_t count = s->b * s->t * (s->heads + 2 * s->kv_heads) * s->head_dim;
    void *grad = NULL;

    (void)dev, (void)out, (void)lse; /* recomputed: the oracle trusts nothing */
    DR_TRY(dr_big_alloc(&grad, count, sizeof(double), "reference gradients of attention"));
    for (size_t i = 0; i < s->b * s->heads * s->t; i++) {
        view w = look(s, qkv, i / (s->heads * s->t), i / s->t % s->heads, i % s->t);
        query_back(grad, p, &w, qkv, dout + w.out, s);
    }
    for (size_t i = 0; i < count; i++)
        dqkv[i] = (float)((double *)grad)[i];
done:
    dr_big_free(grad);
    free(p);
    return st;
}
