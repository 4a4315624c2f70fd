/*
 * lora.c - low-rank adapters on the linears of a layer, forward and backward.
 *
 *     U = drop(x) A^T                    y += s U B^T
 *     dU = s dy B                        dB += s dy^T U      dA += dU^T drop(x)
 *     dx += mask/(1-p) (dU A)
 *
 * As PEFT 0.21 computes it.  The dropout mask is found again from its counter, so drop(x)
 * is not kept between the two directions.  A DoRA module's dy is that behind its factor
 * (lora_dora.c).
 */
#include <math.h>

#include "nn/decoder_impl.h"

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t nn_lora_kept(const nn_lora *l)
{
    return l->r + (l->magnitude != NULL ? l->n_out : 0);
}

size_t nn_lora_place(nn_lora_work *work, size_t m, size_t n, const nn_lora *loras,
                     size_t count, float *at)
{
    size_t wide = 0, r = 0, sb = 0, dy = 0;

    for (size_t i = 0; i < count; i++) {
        if (loras[i].dropout > 0.0f)
            wide = most(wide, m * loras[i].n_in);
        if (loras[i].magnitude != NULL)
            dy = m * n;
        r = most(r, m * loras[i].r);
        sb = most(sb, loras[i].n_out * loras[i].r);
    }
    const nn_part parts[] = {
        {&work->dropped, wide}, {&work->wide, wide}, {&work->du, r},
        {&work->su, r},         {&work->sb, sb},     {&work->dy, dy},
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

/* A as products take it. */
static const float *factor_a(const nn_lora *l)
{
    return l->a_rounded != NULL ? l->a_rounded : l->a;
}

static dr_status scaled(nn_device *dev, float *dst, const float *src, size_t count,
                        float scale)
{
    dr_status st = DR_OK;

    DR_TRY(nn_copy(dev, dst, src, count * sizeof(*src)));
    DR_TRY(nn_scale_cap(dev, dst, count, scale, 0.0f));
done:
    return st;
}

static size_t sequences_of(const nn_lora *l)
{
    return l->sequences > 1 ? l->sequences : 1;
}

/* y = (acc: +=) the rows of x[M][K] masked, sequence by sequence. */
static dr_status mask_rows(const nn_lora_site *s, float *y, const float *x,
                           const nn_lora *l, bool acc)
{
    size_t sequences = sequences_of(l);
    size_t count = s->m / sequences * l->n_in;
    nn_mask mask = mask_of(l);
    dr_status st = DR_OK;

    DR_BUG_IF(s->m % sequences != 0);
    for (size_t i = 0; i < sequences; i++, mask.stream += l->stream_step)
        DR_TRY(nn_dropout(s->dev, y + i * count, x + i * count, count, &mask, acc));
done:
    return st;
}

/* u = drop(x) A^T by one operation, where the device has it. */
static dr_status masked_factor(const nn_lora_site *s, bool *taken, float *u, const float *x,
                               const nn_lora *l)
{
    const nn_backend *b = s->dev->backend;

    if (b->masked_factor == NULL || l->dropout == 0.0f || l->magnitude != NULL)
        return DR_OK;
    const nn_mask mask = mask_of(l);
    return b->masked_factor(s->dev, taken, u, x, factor_a(l), s->m, l->n_in, l->r, &mask,
                            sequences_of(l), l->stream_step);
}

/* *out = drop(x): x itself without dropout. */
static dr_status drop(const nn_lora_site *s, const float **out, const float *x,
                      const nn_lora *l)
{
    *out = x;
    if (l->dropout == 0.0f)
        return DR_OK;
    *out = s->work->dropped;
    return mask_rows(s, s->work->dropped, x, l, false);
}

/* scale B as products take it. */
static dr_status factor_b(const nn_lora_site *s, const float **out, const nn_lora *l)
{
    *out = l->sb_rounded != NULL ? l->sb_rounded : s->work->sb;
    if (l->sb_rounded != NULL)
        return DR_OK;
    return scaled(s->dev, s->work->sb, l->b, l->n_out * l->r, l->scale);
}

dr_status nn_lora_round(nn_device *dev, const nn_lora *l)
{
    dr_status st = DR_OK;

    DR_TRY(nn_copy(dev, l->a_rounded, l->a, l->r * l->n_in * sizeof(*l->a)));
    DR_TRY(scaled(dev, l->sb_rounded, l->b, l->n_out * l->r, l->scale));
done:
    return st;
}

/* y of one module; u: its place in what is kept. */
static dr_status module_forward(const nn_lora_site *s, float *y, const float *bias,
                                float *u, const float *x, const nn_lora *l)
{
    float *to = y + l->row0, *z = u + s->m * l->r;
    size_t ld = s->n;
    const float *in = NULL, *sb = NULL;
    bool taken = false;
    dr_status st = DR_OK;

    DR_BUG_IF(l->row0 + l->n_out > s->n || l->r == 0);
    DR_TRY(masked_factor(s, &taken, u, x, l));
    if (!taken)
        DR_TRY(drop(s, &in, x, l));
    if (l->magnitude != NULL) {
        if (l->dropout > 0.0f)
            DR_TRY(nn_matmul_nt(s->dev, z, in, s->w + l->row0 * l->n_in, NULL, s->m,
                                l->n_out, l->n_in, l->n_out, false));
        DR_TRY(nn_dora_take(s->dev, to, s->n, z, bias, s->m, l));
        to = z;
        ld = l->n_out;
    }
    if (!taken)
        DR_TRY(nn_matmul_nt(s->dev, u, in, factor_a(l), NULL, s->m, l->r, l->n_in, l->r,
                            false));
    DR_TRY(factor_b(s, &sb, l));
    DR_TRY(nn_matmul_nt(s->dev, to, u, sb, NULL, s->m, l->n_out, l->r, ld, true));
    if (l->magnitude != NULL)
        DR_TRY(nn_dora_put(s->dev, y + l->row0, s->n, z, s->m, l));
done:
    return st;
}

dr_status nn_lora_forward(const nn_lora_site *s, float *y, const float *bias, float *u,
                          const float *x)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < s->count; u += s->m * nn_lora_kept(&s->loras[i]), i++)
        if (s->loras[i].slot == s->slot)
            DR_TRY(module_forward(s, y, bias, u, x, &s->loras[i]));
done:
    return st;
}

static dr_status grads(const nn_lora_site *s, const float *dy, const float *u,
                       const float *x, const nn_lora *l)
{
    dr_status st = DR_OK;
    const float *in = NULL;

    if (l->da != NULL) {
        DR_TRY(drop(s, &in, x, l));
        DR_TRY(nn_matmul_tn(s->dev, l->da, s->work->du, in, l->r, l->n_in, s->m, l->r,
                            l->n_in, true));
    }
    if (l->db != NULL) {
        DR_TRY(scaled(s->dev, s->work->su, u, s->m * l->r, l->scale));
        DR_TRY(nn_matmul_tn(s->dev, l->db, dy, s->work->su, l->n_out, l->r, s->m, s->n,
                            l->r, true));
    }
done:
    return st;
}

/* The same of a module with dropout by one operation, where the device has it. */
static dr_status masked_input(const nn_lora_site *s, bool *taken, float *dx,
                              const nn_lora *l)
{
    const nn_mask mask = mask_of(l);
    const nn_backend *b = s->dev->backend;

    if (b->masked_product == NULL)
        return DR_OK;
    return b->masked_product(s->dev, taken, dx, s->work->du, factor_a(l), s->m, l->n_in,
                             l->r, &mask, sequences_of(l), l->stream_step);
}

/* dx += what comes through the module's input; dy: behind DoRA's factor less one. */
static dr_status input_grad(const nn_lora_site *s, float *dx, const float *dy,
                            const nn_lora *l)
{
    dr_status st = DR_OK;
    bool plain = l->dropout == 0.0f, taken = false;
    float *wide = plain ? dx : s->work->wide;

    if (!plain && l->magnitude == NULL)
        DR_TRY(masked_input(s, &taken, dx, l));
    if (taken)
        return DR_OK;
    DR_TRY(nn_matmul_nn(s->dev, wide, s->work->du, factor_a(l), s->m, l->n_in, l->r, l->r,
                        plain));
    if (l->magnitude != NULL && nn_dora_masked(s))
        DR_TRY(nn_matmul_nn(s->dev, wide, dy, s->w + l->row0 * l->n_in, s->m, l->n_in,
                            l->n_out, s->n, true));
    if (!plain)
        DR_TRY(mask_rows(s, dx, wide, l, true));
done:
    return st;
}

static dr_status module_backward(const nn_lora_site *s, float *dx, const float *dy,
                                 const float *u, const float *x, const nn_lora *l)
{
    dr_status st = DR_OK;
    const float *behind = l->magnitude != NULL ? s->work->dy + l->row0 : dy + l->row0;
    const float *sb = NULL;

    DR_TRY(factor_b(s, &sb, l));
    DR_TRY(
        nn_matmul_nn(s->dev, s->work->du, behind, sb, s->m, l->r, l->n_out, s->n, false));
    DR_TRY(grads(s, behind, u, x, l));
    if (l->magnitude != NULL)
        DR_TRY(nn_dora_grads(s, l, dy, u + s->m * l->r));
    if (dx != NULL)
        DR_TRY(input_grad(s, dx, behind, l));
done:
    return st;
}

dr_status nn_lora_backward(const nn_lora_site *s, float *dx, const float *dy,
                           const float *u, const float *x)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < s->count; u += s->m * nn_lora_kept(&s->loras[i]), i++)
        if (s->loras[i].slot == s->slot)
            DR_TRY(module_backward(s, dx, dy, u, x, &s->loras[i]));
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
