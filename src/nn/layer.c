/*
 * layer.c - a decoder layer forward, and its two halves for quantizers.
 *
 *     norm1 = rmsnorm(x)       qkv = norm1 Wqkv^T, rotated       mid = x + attn Wo^T
 *     norm2 = rmsnorm(mid)     gate_up = norm2 Wgu^T             x = mid + act Wdown^T
 *
 * Residuals are added by the products themselves (acc).
 */
#include <string.h>

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
} pass;

dr_status nn_layer_linear(nn_decoder *d, const nn_layer *w, hf_slot slot, float *y,
                          const float *x, size_t m, bool acc)
{
    size_t n = hf_slot_out(d->c, slot), k = hf_slot_in(d->c, slot);

    if (w->packed[slot] != NULL)
        return nn_i16_matmul(d->dev, y, x, w->packed[slot], w->bias[slot], m, n, k, n, acc);
    return nn_matmul_nt(d->dev, y, x, w->w[slot], w->bias[slot], m, n, k, n, acc);
}

/* y = or += x W^T + bias + LoRA of one slot. */
static dr_status linear(const pass *p, float *y, const float *x, hf_slot slot, bool acc)
{
    dr_status st = DR_OK;

    DR_TRY(nn_layer_linear(p->d, p->w, slot, y, x, p->m, acc));
    DR_TRY(nn_lora_forward(p->d->dev, y, hf_slot_out(p->d->c, slot), p->acts->lora_u, x,
                           p->m, slot, p->loras, p->lora_count, &p->work));
done:
    return st;
}

/* acts->mid = x + attention of x. */
static dr_status attn_half(const pass *p, const float *x, const nn_attn_shape *shape)
{
    dr_status st = DR_OK;
    const nn_acts *a = p->acts;
    nn_device *dev = p->d->dev;
    size_t d = p->d->dims.d;

    DR_TRY(
        nn_rmsnorm(dev, a->norm1, x, p->w->norm_attn, p->m, d, (float)p->d->c->norm_eps));
    DR_TRY(linear(p, a->qkv, a->norm1, HF_SLOT_QKV, false));
    DR_TRY(nn_rope(dev, a->qkv, shape, 1));
    DR_TRY(nn_attention(dev, a->attn, a->lse, a->qkv, shape));
    memcpy(a->mid, x, p->m * d * sizeof(*x));
    DR_TRY(linear(p, a->mid, a->attn, HF_SLOT_O, true));
done:
    return st;
}

/* x = acts->mid + MLP of it. */
static dr_status mlp_half(const pass *p, float *x)
{
    dr_status st = DR_OK;
    const nn_acts *a = p->acts;
    nn_device *dev = p->d->dev;
    size_t d = p->d->dims.d;

    DR_TRY(nn_rmsnorm(dev, a->norm2, a->mid, p->w->norm_mlp, p->m, d,
                      (float)p->d->c->norm_eps));
    DR_TRY(linear(p, a->gate_up, a->norm2, HF_SLOT_GATE_UP, false));
    DR_TRY(nn_swiglu(dev, a->act, a->gate_up, p->m, p->d->dims.i));
    memcpy(x, a->mid, p->m * d * sizeof(*x));
    DR_TRY(linear(p, x, a->act, HF_SLOT_DOWN, true));
done:
    return st;
}

dr_status nn_layer_forward(nn_decoder *d, const nn_layer *w, size_t b, size_t t, float *x,
                           nn_acts *acts, const nn_lora *loras, size_t lora_count)
{
    dr_status st = DR_OK;
    size_t m = b * t;
    float *scratch = NULL;
    nn_attn_shape shape;
    pass p = {
        .d = d, .w = w, .m = m, .acts = acts, .loras = loras, .lora_count = lora_count};

    DR_TRY(nn_decoder_shape(d, &shape, b, t));
    DR_TRY(nn_scratch(d, &scratch, nn_lora_place(&p.work, m, loras, lora_count, NULL)));
    (void)nn_lora_place(&p.work, m, loras, lora_count, scratch);
    memcpy(acts->x, x, m * d->dims.d * sizeof(*x));
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
    nn_attn_shape shape;

    DR_TRY(nn_decoder_shape(d, &shape, b, t));
    DR_TRY(nn_layer_linear(d, h->w, HF_SLOT_QKV, h->wide, x, m, false));
    DR_TRY(nn_rope(d->dev, h->wide, &shape, 1));
    DR_TRY(nn_attention(d->dev, h->inner, NULL, h->wide, &shape));
    DR_TRY(nn_layer_linear(d, h->w, HF_SLOT_O, out, h->inner, m, false));
done:
    return st;
}

static dr_status mlp_rows(nn_decoder *d, float *out, const float *x, const half *h,
                          size_t m)
{
    dr_status st = DR_OK;

    DR_TRY(nn_layer_linear(d, h->w, HF_SLOT_GATE_UP, h->wide, x, m, false));
    DR_TRY(nn_swiglu(d->dev, h->inner, h->wide, m, d->dims.i));
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

    DR_TRY(half_room(d, &h, step * 2 * d->dims.i, step * d->dims.i));
    for (size_t i = 0; i < m; i += step) {
        size_t at = i * d->dims.d;
        DR_TRY(mlp_rows(d, out + at, norm2 + at, &h, m - i < step ? m - i : step));
    }
done:
    return st;
}
