/*
 * lora.c - low-rank adapters on the linears of a layer, forward and backward.
 *
 *     U = drop(x) A^T                    y += s U B^T
 *     dU = s dy B                        dB += s dy^T U      dA += dU^T drop(x)
 *     dx += mask/(1-p) (dU A)
 *
 * As PEFT 0.21 computes it.  The dropout mask is found again from its counter, so drop(x)
 * is not kept between the two directions.
 */
#include <math.h>

#include "nn/decoder_impl.h"

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t nn_lora_place(nn_lora_work *work, size_t m, const nn_lora *loras, size_t count,
                     float *at)
{
    size_t wide = 0, r = 0, sb = 0;

    for (size_t i = 0; i < count; i++) {
        if (loras[i].dropout > 0.0f)
            wide = most(wide, m * loras[i].n_in);
        r = most(r, m * loras[i].r);
        sb = most(sb, loras[i].n_out * loras[i].r);
    }
    const nn_part parts[] = {
        {&work->dropped, wide}, {&work->wide, wide}, {&work->du, r},
        {&work->su, r},         {&work->sb, sb},
    };
    return nn_place(parts, DR_COUNT(parts), at);
}

static nn_mask mask_of(const nn_lora *l)
{
    double p = (double)l->dropout;

    DR_BUG_IF(!(p >= 0.0 && p < 1.0));
    return (nn_mask){.seed = l->seed,
                     .stream = l->stream,
                     .threshold = (uint32_t)lround(p * 65536.0),
                     .scale = (float)(1.0 / (1.0 - p))};
}

static void scaled(float *dst, const float *src, size_t count, float scale)
{
    for (size_t i = 0; i < count; i++)
        dst[i] = scale * src[i];
}

/* *out = drop(x): x itself without dropout. */
static dr_status drop(nn_device *dev, const float **out, const float *x, size_t m,
                      const nn_lora *l, const nn_lora_work *work)
{
    const nn_mask mask = mask_of(l);

    *out = x;
    if (l->dropout == 0.0f)
        return DR_OK;
    *out = work->dropped;
    return nn_dropout(dev, work->dropped, x, m * l->n_in, &mask, false);
}

dr_status nn_lora_forward(nn_device *dev, float *y, size_t ldy, float *u, const float *x,
                          size_t m, hf_slot slot, const nn_lora *loras, size_t count,
                          const nn_lora_work *work)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; u += m * loras[i].r, i++) {
        const nn_lora *l = &loras[i];
        const float *in = NULL;
        if (l->slot != slot)
            continue;
        DR_BUG_IF(l->row0 + l->n_out > ldy || l->r == 0);
        DR_TRY(drop(dev, &in, x, m, l, work));
        DR_TRY(nn_matmul_nt(dev, u, in, l->a, NULL, m, l->r, l->n_in, l->r, false));
        scaled(work->sb, l->b, l->n_out * l->r, l->scale);
        DR_TRY(nn_matmul_nt(dev, y + l->row0, u, work->sb, NULL, m, l->n_out, l->r, ldy,
                            true));
    }
done:
    return st;
}

static dr_status grads(nn_device *dev, const float *dy, size_t ldy, const float *u,
                       const float *x, size_t m, const nn_lora *l, const nn_lora_work *work)
{
    dr_status st = DR_OK;
    const float *in = NULL;

    if (l->da != NULL) {
        DR_TRY(drop(dev, &in, x, m, l, work));
        DR_TRY(
            nn_matmul_tn(dev, l->da, work->du, in, l->r, l->n_in, m, l->r, l->n_in, true));
    }
    if (l->db != NULL) {
        scaled(work->su, u, m * l->r, l->scale);
        DR_TRY(nn_matmul_tn(dev, l->db, dy, work->su, l->n_out, l->r, m, ldy, l->r, true));
    }
done:
    return st;
}

static dr_status input_grad(nn_device *dev, float *dx, size_t m, const nn_lora *l,
                            const nn_lora_work *work)
{
    dr_status st = DR_OK;
    const nn_mask mask = mask_of(l);

    if (l->dropout == 0.0f)
        return nn_matmul_nn(dev, dx, work->du, l->a, m, l->n_in, l->r, l->r, true);
    DR_TRY(nn_matmul_nn(dev, work->wide, work->du, l->a, m, l->n_in, l->r, l->r, false));
    DR_TRY(nn_dropout(dev, dx, work->wide, m * l->n_in, &mask, true));
done:
    return st;
}

static dr_status module_backward(nn_device *dev, float *dx, const float *dy, size_t ldy,
                                 const float *u, const float *x, size_t m, const nn_lora *l,
                                 const nn_lora_work *work)
{
    dr_status st = DR_OK;

    scaled(work->sb, l->b, l->n_out * l->r, l->scale);
    DR_TRY(nn_matmul_nn(dev, work->du, dy, work->sb, m, l->r, l->n_out, ldy, false));
    DR_TRY(grads(dev, dy, ldy, u, x, m, l, work));
    if (dx != NULL)
        DR_TRY(input_grad(dev, dx, m, l, work));
done:
    return st;
}

dr_status nn_lora_backward(nn_device *dev, float *dx, const float *dy, size_t ldy,
                           const float *u, const float *x, size_t m, hf_slot slot,
                           const nn_lora *loras, size_t count, const nn_lora_work *work)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; u += m * loras[i].r, i++) {
        const nn_lora *l = &loras[i];
        if (l->slot == slot)
            DR_TRY(module_backward(dev, dx, dy + l->row0, ldy, u, x, m, l, work));
    }
done:
    return st;
}

bool nn_lora_trains_below(const nn_lora *loras, size_t count, hf_slot slot)
{
    for (size_t i = 0; i < count; i++)
        if (loras[i].slot < slot && (loras[i].da != NULL || loras[i].db != NULL))
            return true;
    return false;
}
