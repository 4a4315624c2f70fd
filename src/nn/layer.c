/*
 * layer.c - a decoder layer forward, and its two halves for quantizers.
 *
 *     norm1 = norm(x)       qkv = norm1 Wqkv^T, rotated       mid = x + attn Wo^T
 *     norm2 = norm(mid)     gate_up = norm2 Wgu^T             x = mid + act Wdown^T
 *
 * What families do otherwise is in hf_config.h and layer_parts.c; a parallel layer's norm2
 * is norm1.  The residual stream is x throughout; what the backward needs of it is copied.
 * Products add to it themselves (acc) unless a norm or a multiplier stands between.
 */
#include "nn/decoder_impl.h"

enum { BLOCK_ROWS = 2048 }; /* of a half at once: bounds its scratch */

/* One layer's forward: what its steps share. */
typedef struct {
    nn_decoder *d;
    const nn_layer *w;
    size_t m;
    const nn_acts *acts;
    const nn_lora *loras;
    size_t lora_count;
    nn_lora_work work;
    float *added; /* [M][D] what a block adds, where its product does not do that itself */
} pass;

dr_status nn_layer_linear(nn_decoder *d, const nn_layer *w, hf_slot slot, float *y,
                          const float *x, size_t m, bool acc)
{
    size_t n = hf_slot_out(d->c, slot), k = hf_slot_in(d->c, slot);

    if (w->rough[slot] != NULL)
        return nn_rough_matmul(d->dev, y, x, w->rough[slot], w->bias[slot], m, n, k, n,
                               acc);
    if (w->packed[slot] != NULL)
        return nn_i8_matmul(d->dev, y, x, w->packed[slot], w->bias[slot], m, n, k, n, acc);
    return nn_matmul_nt(d->dev, y, x, w->w[slot], w->bias[slot], m, n, k, n, acc);
}

dr_status nn_layer_up(nn_decoder *d, const nn_layer *w, float *y, float *wide,
                      const float *x, size_t m)
{
    const hf_slot slot = HF_SLOT_GATE_UP;
    dr_status st = DR_OK;

    if (w->rough[slot] != NULL)
        return nn_rough_act(d->dev, y, wide, x, w->rough[slot], w->bias[slot], m, d->dims.i,
                            hf_slot_in(d->c, slot), nn_layer_act(d));
    DR_TRY(nn_layer_linear(d, w, slot, wide, x, m, false));
    DR_TRY(nn_activate(d->dev, y, wide, m, d->dims.i, nn_layer_act(d)));
done:
    return st;
}

/* y = or += x W^T + bias + LoRA of one slot. */
static dr_status linear(const pass *p, float *y, const float *x, hf_slot slot, bool acc)
{
    dr_status st = DR_OK;
    const nn_lora_site site = {.dev = p->d->dev,
                               .slot = slot,
                               .m = p->m,
                               .n = hf_slot_out(p->d->c, slot),
                               .w = p->w->w[slot],
                               .loras = p->loras,
                               .count = p->lora_count,
                               .work = &p->work};

    DR_TRY(nn_layer_linear(p->d, p->w, slot, y, x, p->m, acc));
    DR_TRY(nn_lora_forward(&site, y, p->w->bias[slot], p->acts->lora_u, x));
done:
    return st;
}

/* Does the slot's product, O's or DOWN's, add to the residual itself? */
static bool adds_itself(const pass *p, hf_slot slot)
{
    return p->w->norm[nn_norm_behind(slot)] == NULL && p->d->c->residual_scale == 1 &&
           !nn_dora_on(p->loras, p->lora_count, slot);
}

/* x += what the slot, O or DOWN, gives for in; raw: room for it before its norm. */
static dr_status block_end(const pass *p, float *x, float *raw, const float *in,
                           hf_slot slot)
{
    dr_status st = DR_OK;
    hf_norm behind = nn_norm_behind(slot);
    size_t n = p->m * p->d->dims.d;
    float *y = p->added;

    if (adds_itself(p, slot))
        return linear(p, x, in, slot, true);
    DR_TRY(linear(p, p->w->norm[behind] != NULL ? raw : y, in, slot, false));
    if (p->w->norm[behind] != NULL)
        DR_TRY(nn_layer_norm(p->d, p->w, behind, y, raw, p->m));
    DR_TRY(nn_residual(p->d->dev, y, x, n, (float)p->d->c->residual_scale));
    DR_TRY(nn_copy(p->d->dev, x, y, n * sizeof(*x)));
done:
    return st;
}

/* kept = x, and, where there is that norm, y = the norm of x. */
static dr_status keep_and_norm(const pass *p, hf_norm which, float *y, float *kept,
                               const float *x)
{
    const nn_backend *b = p->d->dev->backend;
    const float *w = p->w->norm[which];
    size_t d = p->d->dims.d;
    bool taken = false;
    dr_status st = DR_OK;

    if (w != NULL && p->d->c->norm_kind == HF_NORM_KIND_RMS && b->norm_keep != NULL)
        DR_TRY(b->norm_keep(p->d->dev, &taken, y, kept, x, w, p->m, d,
                            (float)p->d->c->norm_eps));
    if (taken)
        return DR_OK;
    DR_TRY(nn_copy(p->d->dev, kept, x, p->m * d * sizeof(*x)));
    if (w != NULL)
        DR_TRY(nn_layer_norm(p->d, p->w, which, y, x, p->m));
done:
    return st;
}

/* x += attention of it. */
static dr_status attn_half(const pass *p, float *x, const nn_attn_shape *shape)
{
    dr_status st = DR_OK;
    const nn_acts *a = p->acts;

    DR_TRY(keep_and_norm(p, HF_NORM_ATTN, a->norm1, a->x, x));
    DR_TRY(linear(p, a->qkv, a->norm1, HF_SLOT_QKV, false));
    DR_TRY(nn_qk_forward(p->d, p->w, a->qkv, a->q_raw, a->k_raw, shape));
    DR_TRY(nn_layer_attention(p->d, p->w, a->attn, a->lse, a->qkv, shape));
    DR_TRY(block_end(p, x, a->attn_raw, a->attn, HF_SLOT_O));
done:
    return st;
}

/* x += MLP of it, or of norm1. */
static dr_status mlp_half(const pass *p, float *x)
{
    dr_status st = DR_OK;
    const nn_acts *a = p->acts;

    DR_TRY(keep_and_norm(p, HF_NORM_MLP, a->norm2, a->mid, x));
    DR_TRY(linear(p, a->gate_up, a->norm2, HF_SLOT_GATE_UP, false));
    DR_TRY(
        nn_activate(p->d->dev, a->act, a->gate_up, p->m, p->d->dims.i, nn_layer_act(p->d)));
    DR_TRY(block_end(p, x, a->mlp_raw, a->act, HF_SLOT_DOWN));
done:
    return st;
}

/* Room for LoRA, and for what blocks add. */
static dr_status plan(pass *p)
{
    bool straight = adds_itself(p, HF_SLOT_O) && adds_itself(p, HF_SLOT_DOWN);
    size_t lora = nn_lora_place(&p->work, p->m, 0, p->loras, p->lora_count, NULL);
    float *scratch = NULL;
    dr_status st = DR_OK;

    DR_TRY(nn_scratch_rounded(p->d, &scratch, lora + (straight ? 0 : p->m * p->d->dims.d)));
    (void)nn_lora_place(&p->work, p->m, 0, p->loras, p->lora_count, scratch);
    p->added = scratch + lora;
done:
    return st;
}

dr_status nn_layer_forward(nn_decoder *d, const nn_layer *w, size_t b, size_t t, float *x,
                           nn_acts *acts, const nn_lora *loras, size_t lora_count)
{
    dr_status st = DR_OK;
    nn_attn_shape shape;
    pass p = {
        .d = d, .w = w, .m = b * t, .acts = acts, .loras = loras, .lora_count = lora_count};

    DR_TRY(nn_decoder_shape(d, &shape, w, b, t));
    DR_TRY(plan(&p));
    DR_TRY(attn_half(&p, x, &shape));
    DR_TRY(mlp_half(&p, x));
done:
    return st;
}

/* ---- halves ---- */

/* The weights of a half and its scratch. */
typedef struct {
    const nn_layer *w;
    float *wide, *inner; /* qkv and attention; gate_up and act */
} half;

static dr_status attn_rows(nn_decoder *d, float *out, const float *x, const half *h,
                           size_t b, size_t t)
{
    dr_status st = DR_OK;
    size_t m = b * t;

    DR_TRY(nn_layer_linear(d, h->w, HF_SLOT_QKV, h->wide, x, m, false));
    DR_TRY(nn_layer_attend(d, h->w, h->inner, h->wide, b, t));
    DR_TRY(nn_layer_linear(d, h->w, HF_SLOT_O, out, h->inner, m, false));
done:
    return st;
}

static dr_status mlp_rows(nn_decoder *d, float *out, const float *x, const half *h,
                          size_t m)
{
    dr_status st = DR_OK;

    DR_TRY(nn_layer_up(d, h->w, h->inner, h->wide, x, m));
    DR_TRY(nn_layer_linear(d, h->w, HF_SLOT_DOWN, out, h->inner, m, false));
done:
    return st;
}

static dr_status half_room(nn_decoder *d, half *h, size_t wide, size_t inner)
{
    dr_status st = DR_OK;
    float *scratch = NULL;
    const nn_part parts[] = {{&h->wide, wide}, {&h->inner, inner}};

    DR_TRY(nn_scratch(d, &scratch, nn_place(parts, DR_COUNT(parts), NULL)));
    (void)nn_place(parts, DR_COUNT(parts), scratch);
done:
    return st;
}

dr_status nn_attn_block(nn_decoder *d, float *out, const float *norm1, const nn_layer *w,
                        size_t b, size_t t)
{
    dr_status st = DR_OK;
    size_t step = t < BLOCK_ROWS ? BLOCK_ROWS / (t > 0 ? t : 1) : 1;
    half h = {.w = w};

    step = step < b ? step : b;
    DR_TRY(half_room(d, &h, step * t * d->dims.qkv, step * t * d->dims.hc));
    for (size_t i = 0; i < b; i += step) {
        size_t at = i * t * d->dims.d;
        DR_TRY(attn_rows(d, out + at, norm1 + at, &h, b - i < step ? b - i : step, t));
    }
done:
    return st;
}

dr_status nn_mlp_block(nn_decoder *d, float *out, const float *norm2, const nn_layer *w,
                       size_t m)
{
    dr_status st = DR_OK;
    size_t step = m < BLOCK_ROWS ? m : BLOCK_ROWS;
    half h = {.w = w};

    DR_TRY(half_room(d, &h, step * d->dims.gu, step * d->dims.i));
    for (size_t i = 0; i < m; i += step) {
        size_t at = i * d->dims.d;
        DR_TRY(mlp_rows(d, out + at, norm2 + at, &h, m - i < step ? m - i : step));
    }
done:
    return st;
}
