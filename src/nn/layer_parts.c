/*
 * layer_parts.c - the steps between a layer's products, as the family has them (hf_config.h
 * draws the layer): norms before and after, norms of q and k, rotations, what is added to
 * the residual.
 */
#include "nn/decoder_impl.h"

/* ---- norms ---- */

dr_status nn_norm(const nn_decoder *d, float *y, const float *x, const float *w,
                  const float *bias, size_t m)
{
    float eps = (float)d->c->norm_eps;

    if (d->c->norm_kind == HF_NORM_KIND_LAYER)
        return nn_layernorm(d->dev, y, x, w, bias, m, d->dims.d, eps);
    return nn_rmsnorm(d->dev, y, x, w, m, d->dims.d, eps);
}

dr_status nn_norm_back(const nn_decoder *d, float *dx, const float *dy, const float *x,
                       const float *w, size_t m)
{
    float eps = (float)d->c->norm_eps;

    if (d->c->norm_kind == HF_NORM_KIND_LAYER)
        return nn_layernorm_back(d->dev, dx, dy, x, w, m, d->dims.d, eps);
    return nn_rmsnorm_back(d->dev, dx, dy, x, w, m, d->dims.d, eps);
}

dr_status nn_layer_norm(nn_decoder *d, const nn_layer *w, hf_norm which, float *y,
                        const float *x, size_t m)
{
    if (w->norm[which] != NULL)
        return nn_norm(d, y, x, w->norm[which], w->norm_bias[which], m);
    return nn_copy(d->dev, y, x, m * d->dims.d * sizeof(*x));
}

dr_status nn_layer_norm_back(const nn_decoder *d, const nn_layer *w, hf_norm which,
                             float *dx, const float *dy, const float *x, size_t m)
{
    if (w->norm[which] != NULL)
        return nn_norm_back(d, dx, dy, x, w->norm[which], m);
    return nn_add(d->dev, dx, dy, m * d->dims.d);
}

hf_norm nn_norm_behind(hf_slot slot)
{
    DR_BUG_IF(slot != HF_SLOT_O && slot != HF_SLOT_DOWN);
    return slot == HF_SLOT_O ? HF_NORM_ATTN_OUT : HF_NORM_MLP_OUT;
}

/* ---- q and k ---- */

/* One of the two within a row of qkv. */
typedef struct {
    hf_norm which;
    size_t at;         /* where its values begin */
    size_t heads, dim; /* runs that are normed by themselves */
} qk_part;

static void qk_parts(qk_part out[2], const nn_decoder *d)
{
    const nn_dims *s = &d->dims;
    bool by_row = d->c->qk_norm == HF_QK_NORM_ROW;

    out[0] = (qk_part){HF_NORM_Q, 0, by_row ? 1 : s->h, by_row ? s->hc : s->c};
    out[1] = (qk_part){HF_NORM_K, s->hc, by_row ? 1 : s->g, by_row ? s->g * s->c : s->c};
}

dr_status nn_qk_forward(const nn_decoder *d, const nn_layer *w, float *qkv, float *q_raw,
                        float *k_raw, const nn_attn_shape *s)
{
    dr_status st = DR_OK;
    qk_part parts[2];

    qk_parts(parts, d);
    for (int i = 0; i < 2 && d->c->qk_norm != HF_QK_NORM_NONE; i++) {
        const qk_part *p = &parts[i];
        DR_TRY(nn_rmsnorm_heads(d->dev, qkv + p->at, i == 0 ? q_raw : k_raw,
                                w->norm[p->which], s->b * s->t, d->dims.qkv, p->heads,
                                p->dim, (float)d->c->norm_eps));
    }
    if (s->rotary_dim > 0)
        DR_TRY(nn_rope(d->dev, qkv, s, 1));
done:
    return st;
}

dr_status nn_qk_back(const nn_decoder *d, const nn_layer *w, float *dqkv,
                     const float *q_raw, const float *k_raw, const nn_attn_shape *s,
                     bool turned)
{
    dr_status st = DR_OK;
    qk_part parts[2];

    qk_parts(parts, d);
    if (s->rotary_dim > 0 && !turned)
        DR_TRY(nn_rope(d->dev, dqkv, s, -1));
    for (int i = 0; i < 2 && d->c->qk_norm != HF_QK_NORM_NONE; i++) {
        const qk_part *p = &parts[i];
        DR_TRY(nn_rmsnorm_heads_back(d->dev, dqkv + p->at, i == 0 ? q_raw : k_raw,
                                     w->norm[p->which], s->b * s->t, d->dims.qkv, p->heads,
                                     p->dim, (float)d->c->norm_eps));
    }
done:
    return st;
}

dr_status nn_layer_attention(const nn_decoder *d, const nn_layer *w, float *out, float *lse,
                             const float *qkv, const nn_attn_shape *s)
{
    if (w->rough[HF_SLOT_QKV] != NULL)
        return nn_rough_attention(d->dev, out, lse, qkv, s);
    return nn_attention(d->dev, out, lse, qkv, s);
}

/* ---- for quantizers ---- */

dr_status nn_layer_attend(nn_decoder *d, const nn_layer *w, float *out, float *qkv,
                          size_t b, size_t t)
{
    dr_status st = DR_OK;
    nn_attn_shape shape;

    DR_TRY(nn_decoder_shape(d, &shape, w, b, t));
    DR_TRY(nn_qk_forward(d, w, qkv, NULL, NULL, &shape));
    DR_TRY(nn_layer_attention(d, w, out, NULL, qkv, &shape));
done:
    return st;
}

dr_status nn_layer_residual(nn_decoder *d, const nn_layer *w, hf_slot slot, float *x,
                            const float *in, size_t m)
{
    dr_status st = DR_OK;
    hf_norm behind = nn_norm_behind(slot);
    size_t n = m * d->dims.d;
    float *y = NULL;

    if (w->norm[behind] == NULL && d->c->residual_scale == 1)
        return nn_layer_linear(d, w, slot, x, in, m, true);
    DR_TRY(nn_scratch(d, &y, 2 * n));
    DR_TRY(nn_layer_linear(d, w, slot, y, in, m, false));
    DR_TRY(nn_layer_norm(d, w, behind, y + n, y, m));
    DR_TRY(nn_residual(d->dev, y + n, x, n, (float)d->c->residual_scale));
    DR_TRY(nn_copy(d->dev, x, y + n, n * sizeof(*x)));
done:
    return st;
}

nn_act nn_layer_act(const nn_decoder *d)
{
    return (nn_act){d->c->act, d->c->gated};
}
