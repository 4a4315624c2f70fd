/*
 * layer_back.c - a decoder layer backward: gradients at its input and of its adapters.
 *
 * Base weights are frozen: only products with them, and their gradients where the caller
 * wants them (nn_layer.dw; with need_dx, which a whole pass takes).  Everything
 * needed was kept by the forward pass; where to give that up for memory is the trainer's
 * affair.  Without need_dx the pass ends at the lowest slot that trains.
 *
 * Scratch, planned in one list: gradients of gate_up or qkv (wide), of act or attention
 * (inner), of a norm's output (norm), of what a block adds where that is not dx itself
 * (added), in a parallel layer of the MLP's input (shared), and what LoRA and gradients of
 * weights need.
 */
#include "nn/decoder_impl.h"

typedef struct {
    nn_decoder *d;
    const nn_layer *w;
    size_t m;
    const nn_acts *acts;
    const nn_lora *loras;
    size_t lora_count;
    bool need_dx;
    bool rounded;               /* added has what O's gradient is to be */
    float *wide, *inner, *norm; /* [M][max(2I, (H+2G)C)], [M][max(I, HC)], [M][D] */
    float *added, *shared;      /* [M][D] */
    float *dy_turned, *x_turned, *x_packed; /* for dw of integers: [N][M], [K][M], packed */
    nn_lora_work work;
} pass;

/* Is the gradient of what the slot, O or DOWN, adds to the residual the residual's own? */
static bool adds_dx(const pass *p, hf_slot slot)
{
    return p->w->norm[nn_norm_behind(slot)] == NULL && p->d->c->residual_scale == 1;
}

/* Is that gradient another array than dx?  Where products round dx, it is rounded once for
 * all of them. */
static bool own_dy(const pass *p, hf_slot slot)
{
    return !adds_dx(p, slot) || nn_device_rounds(p->d->mem);
}

static dr_status plan(pass *p)
{
    dr_status st = DR_OK;
    const nn_dims *s = &p->d->dims;
    size_t out = 0, in = 0, packed = 0;

    for (hf_slot i = 0; i < HF_SLOT_COUNT; i++) {
        size_t n = hf_slot_out(p->d->c, i), k = hf_slot_in(p->d->c, i);
        if (p->w->dw[i] == NULL || p->w->packed_back[i] == NULL)
            continue;
        out = n > out ? n : out;
        in = k > in ? k : in;
        packed = nn_i8_packed_bytes(in, p->m) / sizeof(float);
    }
    size_t wide = s->gu > s->qkv ? s->gu : s->qkv, inner = s->i > s->hc ? s->i : s->hc;
    size_t row = p->m * s->d;
    const nn_part parts[] = {
        {&p->wide, p->m * wide},
        {&p->inner, p->m * inner},
        {&p->norm, row},
        {&p->added, own_dy(p, HF_SLOT_O) || own_dy(p, HF_SLOT_DOWN) ? row : 0},
        {&p->shared, p->d->c->parallel ? row : 0},
        {&p->dy_turned, out * p->m},
        {&p->x_turned, in * p->m},
        {&p->x_packed, packed},
    };
    size_t own = nn_place(parts, DR_COUNT(parts), NULL);
    size_t widest = wide > s->d ? wide : s->d;
    size_t lora = nn_lora_place(&p->work, p->m, widest, p->loras, p->lora_count, NULL);
    float *scratch = NULL;

    DR_TRY(nn_scratch_rounded(p->d, &scratch, own + lora));
    (void)nn_place(parts, DR_COUNT(parts), scratch);
    (void)nn_lora_place(&p->work, p->m, widest, p->loras, p->lora_count, scratch + own);
done:
    return st;
}

/* The slot's dw[N][K] = dy[M][N]^T x[M][K]. */
static dr_status weight_back(const pass *p, const float *dy, const float *x, hf_slot slot)
{
    nn_device *dev = p->d->dev;
    float *dw = p->w->dw[slot];
    size_t n = hf_slot_out(p->d->c, slot), k = hf_slot_in(p->d->c, slot), m = p->m;
    dr_status st = DR_OK;

    if (dw == NULL)
        return DR_OK;
    if (p->w->packed_back[slot] == NULL)
        return nn_matmul_tn(dev, dw, dy, x, n, k, m, n, k, false);
    DR_TRY(nn_transpose(dev, p->x_turned, x, m, k));
    DR_TRY(nn_i8_pack(dev, p->x_packed, p->x_turned, k, m));
    DR_TRY(nn_transpose(dev, p->dy_turned, dy, m, n));
    DR_TRY(nn_i8_matmul(dev, dw, p->dy_turned, p->x_packed, NULL, n, k, m, k, false));
done:
    return st;
}

/* dx[M][K] = dy[M][N] W, and LoRA's part; x: the slot's input.  dx is left alone when
 * nothing below needs it. */
static dr_status linear_back(const pass *p, float *dx, const float *dy, const float *x,
                             hf_slot slot)
{
    dr_status st = DR_OK;
    nn_device *dev = p->d->dev;
    size_t n = hf_slot_out(p->d->c, slot), k = hf_slot_in(p->d->c, slot);
    bool go_on = p->need_dx || nn_lora_trains_below(p->loras, p->lora_count, slot);
    const float *base = dy;
    const nn_lora_site site = {.dev = dev,
                               .slot = slot,
                               .m = p->m,
                               .n = n,
                               .w = p->w->w[slot],
                               .loras = p->loras,
                               .count = p->lora_count,
                               .work = &p->work};

    DR_TRY(nn_dora_back(&site, &base, dy));
    DR_TRY(weight_back(p, base, x, slot));
    if (go_on && p->w->packed_back[slot] != NULL)
        DR_TRY(nn_i8_matmul(dev, dx, base, p->w->packed_back[slot], NULL, p->m, k, n, k,
                            false));
    else if (go_on)
        DR_TRY(nn_matmul_nn(dev, dx, base, p->w->w[slot], p->m, k, n, n, false));
    DR_TRY(nn_lora_backward(&site, go_on ? dx : NULL, dy, p->acts->lora_u, x));
done:
    return st;
}

/* *dy = gradient of the slot's output; raw: that output, where a norm is behind it. */
static dr_status block_end_back(const pass *p, const float **dy, const float *dx,
                                const float *raw, hf_slot slot)
{
    dr_status st = DR_OK;
    hf_norm behind = nn_norm_behind(slot);
    size_t n = p->m * p->d->dims.d;

    *dy = dx;
    if (!own_dy(p, slot))
        return DR_OK;
    *dy = p->added;
    if (adds_dx(p, slot) && p->rounded)
        return DR_OK;
    if (adds_dx(p, slot))
        return nn_copy(p->d->dev, p->added, dx, n * sizeof(*dx));
    DR_TRY(nn_zero(p->d->dev, p->added, n * sizeof(*p->added)));
    DR_TRY(nn_layer_norm_back(p->d, p->w, behind, p->added, dx, raw, p->m));
    if (p->d->c->residual_scale != 1)
        DR_TRY(nn_scale_cap(p->d->dev, p->added, n, (float)p->d->c->residual_scale, 0.0f));
done:
    return st;
}

/* The norm, and added = the dx that it leaves, by one operation, where the device has it
 * and that is what O's product takes: p->rounded. */
static dr_status mlp_norm_back(pass *p, float *dx)
{
    const nn_backend *b = p->d->dev->backend;
    const float *w = p->w->norm[HF_NORM_MLP];

    if (w == NULL || p->d->c->norm_kind != HF_NORM_KIND_RMS || b->norm_back_keep == NULL ||
        !own_dy(p, HF_SLOT_O) || !adds_dx(p, HF_SLOT_O))
        return DR_OK;
    return b->norm_back_keep(p->d->dev, &p->rounded, dx, p->added, p->norm, p->acts->mid, w,
                             p->m, p->d->dims.d, (float)p->d->c->norm_eps);
}

/* dx from that of the layer's output to that of mid; in a parallel layer p->shared gets the
 * gradient of the norm's output instead. */
static dr_status mlp_back(pass *p, float *dx)
{
    dr_status st = DR_OK;
    const nn_acts *a = p->acts;
    const float *dy = NULL;
    bool parallel = p->d->c->parallel;
    float *below = parallel ? p->shared : p->norm;

    DR_TRY(block_end_back(p, &dy, dx, a->mlp_raw, HF_SLOT_DOWN));
    DR_TRY(linear_back(p, p->inner, dy, a->act, HF_SLOT_DOWN));
    if (!p->need_dx && !nn_lora_trains_below(p->loras, p->lora_count, HF_SLOT_DOWN))
        return DR_OK;
    DR_TRY(nn_activate_back(p->d->dev, p->wide, p->inner, a->gate_up, p->m, p->d->dims.i,
                            nn_layer_act(p->d)));
    DR_TRY(linear_back(p, below, p->wide, a->norm2, HF_SLOT_GATE_UP));
    if (parallel ||
        (!p->need_dx && !nn_lora_trains_below(p->loras, p->lora_count, HF_SLOT_GATE_UP)))
        return DR_OK;
    DR_TRY(mlp_norm_back(p, dx));
    if (!p->rounded)
        DR_TRY(nn_layer_norm_back(p->d, p->w, HF_NORM_MLP, dx, p->norm, a->mid, p->m));
done:
    return st;
}

static dr_status attn_back(const pass *p, float *dx, const nn_attn_shape *shape)
{
    dr_status st = DR_OK;
    const nn_backend *b = p->d->dev->backend;
    const nn_acts *a = p->acts;
    const float *dy = NULL;
    bool turned = false;

    DR_TRY(block_end_back(p, &dy, dx, a->attn_raw, HF_SLOT_O));
    DR_TRY(linear_back(p, p->inner, dy, a->attn, HF_SLOT_O));
    if (!p->need_dx && !nn_lora_trains_below(p->loras, p->lora_count, HF_SLOT_O))
        return DR_OK;
    if (b->attention_back_turned != NULL && shape->rotary_dim > 0)
        DR_TRY(b->attention_back_turned(p->d->dev, &turned, p->wide, p->inner, a->attn,
                                        a->lse, a->qkv, shape));
    if (!turned)
        DR_TRY(nn_attention_back(p->d->dev, p->wide, p->inner, a->attn, a->lse, a->qkv,
                                 shape));
    DR_TRY(nn_qk_back(p->d, p->w, p->wide, a->q_raw, a->k_raw, shape, turned));
    DR_TRY(linear_back(p, p->norm, p->wide, a->norm1, HF_SLOT_QKV));
    if (p->need_dx && p->d->c->parallel)
        DR_TRY(nn_add(p->d->dev, p->norm, p->shared, p->m * p->d->dims.d));
    if (p->need_dx)
        DR_TRY(nn_layer_norm_back(p->d, p->w, HF_NORM_ATTN, dx, p->norm, a->x, p->m));
done:
    return st;
}

dr_status nn_layer_backward(nn_decoder *d, const nn_layer *w, size_t b, size_t t, float *dx,
                            const nn_acts *acts, const nn_lora *loras, size_t lora_count,
                            bool need_dx)
{
    dr_status st = DR_OK;
    nn_attn_shape shape;
    pass p = {.d = d,
              .w = w,
              .m = b * t,
              .acts = acts,
              .loras = loras,
              .lora_count = lora_count,
              .need_dx = need_dx};

    DR_TRY(nn_decoder_shape(d, &shape, w, b, t));
    DR_TRY(plan(&p));
    DR_TRY(mlp_back(&p, dx));
    if (need_dx || nn_lora_trains_below(loras, lora_count, HF_SLOT_GATE_UP))
        DR_TRY(attn_back(&p, dx, &shape));
done:
    return st;
}
