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

/* y = or += x W^T + bias + LoRA of one slot. */
static dr_status linear(const pass *p, float *y, const float *x, hf_slot slot, bool acc)
{
    dr_status st = DR_OK;
    nn_device *dev = p->d->dev;
    size_t n = hf_slot_out(p->d->c, slot), k = hf_slot_in(p->d->c, slot);

    DR_TRY(nn_matmul_nt(dev, y, x, p->w->w[slot], p->w->bias[slot], p->m, n, k, n, acc));
    DR_TRY(nn_lora_forward(dev, y, n, p->acts->lora_u, x, p->m, slot, p->loras,
                           p->lora_count, &p->work));
done:
    return st;
}

dr_status nn_layer_forward(nn_decoder *d, const nn_layer *w, size_t b, size_t t, float *x,
                           nn_acts *acts, const nn_lora *loras, size_t lora_count)
{
    dr_status st = DR_OK;
    const nn_dims *s = &d->dims;
    size_t m = b * t, row = m * s->d * sizeof(*x);
    float eps = (float)d->c->norm_eps, *scratch = NULL;
    nn_attn_shape shape;
    pass p = {
        .d = d, .w = w, .m = m, .acts = acts, .loras = loras, .lora_count = lora_count};

    DR_TRY(nn_decoder_shape(d, &shape, b, t));
    DR_TRY(nn_scratch(d, &scratch, nn_lora_place(&p.work, m, loras, lora_count, NULL)));
    (void)nn_lora_place(&p.work, m, loras, lora_count, scratch);

    memcpy(acts->x, x, row);
    DR_TRY(nn_rmsnorm(d->dev, acts->norm1, x, w->norm_attn, m, s->d, eps));
    DR_TRY(linear(&p, acts->qkv, acts->norm1, HF_SLOT_QKV, false));
    DR_TRY(nn_rope(d->dev, acts->qkv, &shape, 1));
    DR_TRY(nn_attention(d->dev, acts->attn, acts->lse, acts->qkv, &shape));
    memcpy(acts->mid, x, row);
    DR_TRY(linear(&p, acts->mid, acts->attn, HF_SLOT_O, true));

    DR_TRY(nn_rmsnorm(d->dev, acts->norm2, acts->mid, w->norm_mlp, m, s->d, eps));
    DR_TRY(linear(&p, acts->gate_up, acts->norm2, HF_SLOT_GATE_UP, false));
    DR_TRY(nn_swiglu(d->dev, acts->act, acts->gate_up, m, s->i));
    memcpy(x, acts->mid, row);
    DR_TRY(linear(&p, x, acts->act, HF_SLOT_DOWN, true));
done:
    return st;
}

dr_status nn_attn_block(nn_decoder *d, float *out, const float *norm1, const float *w_qkv,
                        const float *bias_qkv, const float *w_o, const float *bias_o,
                        size_t b, size_t t)
{
    dr_status st = DR_OK;
    const nn_dims *s = &d->dims;
    size_t step = t < BLOCK_ROWS ? BLOCK_ROWS / t : 1;
    float *qkv = NULL, *attn = NULL, *scratch = NULL;
    nn_attn_shape shape;

    step = step < b ? step : b;
    const nn_part parts[] = {{&qkv, step * t * s->qkv}, {&attn, step * t * s->hc}};
    DR_TRY(nn_scratch(d, &scratch, nn_place(parts, DR_COUNT(parts), NULL)));
    (void)nn_place(parts, DR_COUNT(parts), scratch);
    for (size_t i = 0; i < b; i += step) {
        size_t n = i + step < b ? step : b - i, m = n * t, at = i * t * s->d;
        DR_TRY(nn_decoder_shape(d, &shape, n, t));
        DR_TRY(nn_matmul_nt(d->dev, qkv, norm1 + at, w_qkv, bias_qkv, m, s->qkv, s->d,
                            s->qkv, false));
        DR_TRY(nn_rope(d->dev, qkv, &shape, 1));
        DR_TRY(nn_attention(d->dev, attn, NULL, qkv, &shape));
        DR_TRY(
            nn_matmul_nt(d->dev, out + at, attn, w_o, bias_o, m, s->d, s->hc, s->d, false));
    }
done:
    return st;
}

dr_status nn_mlp_block(nn_decoder *d, float *out, const float *norm2,
                       const float *w_gate_up, const float *bias_gate_up,
                       const float *w_down, const float *bias_down, size_t m)
{
    dr_status st = DR_OK;
    const nn_dims *s = &d->dims;
    size_t step = m < BLOCK_ROWS ? m : BLOCK_ROWS;
    float *gate_up = NULL, *act = NULL, *scratch = NULL;
    const nn_part parts[] = {{&gate_up, step * 2 * s->i}, {&act, step * s->i}};

    DR_TRY(nn_scratch(d, &scratch, nn_place(parts, DR_COUNT(parts), NULL)));
    (void)nn_place(parts, DR_COUNT(parts), scratch);
    for (size_t i = 0; i < m; i += step) {
        size_t n = i + step < m ? step : m - i, at = i * s->d;
        DR_TRY(nn_matmul_nt(d->dev, gate_up, norm2 + at, w_gate_up, bias_gate_up, n,
                            2 * s->i, s->d, 2 * s->i, false));
        DR_TRY(nn_swiglu(d->dev, act, gate_up, n, s->i));
        DR_TRY(nn_matmul_nt(d->dev, out + at, act, w_down, bias_down, n, s->d, s->i, s->d,
                            false));
    }
done:
    return st;
}
