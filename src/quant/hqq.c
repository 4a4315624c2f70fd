/*
 * hqq.c - half-quadratic quantization: the grid with the least sum of |e|^p, p = 0.7, over
 * a group's rounding errors, without data.
 *
 * A norm below 1 forgives few large errors for many small ones.  It is minimised through
 * a second variable d, the part of the errors that is forgiven:
 *
 *     d = shrink(w - w^),  shrink(x) = sign(x) max(|x| - |x|^(p-1) / beta, 0)
 *     grid = the one that fits w - d best, for the codes at hand
 *
 * with beta growing by 1 % each time, 20 times at most.  Errors are measured in steps of
 * the grid, so that nothing depends on the size of the weights.
 *
 * The original moves zero points only, and leaves them fractions.  A checkpoint (and
 * MatMulNBits' fast form) has whole ones, whose rounding would undo all of it; here the
 * scale is fitted for the rounded zero point, and the grid with the least sum of |e|^p of
 * all seen is kept, that of min and max among them.
 */
#include <math.h>
#include <string.h>

#include "quant/quant_impl.h"
#include "quant/tile_impl.h"

enum { L = QUANT_LANES, ITERATIONS = 20 };
static const float HQQ_P = 0.7f, HQQ_BETA = 10.0f, HQQ_GROWTH = 1.01f;

/* x^y, and 0 where there is nothing to raise. */
static float power(float x, float y)
{
    return x > 0.0f ? powf(x, y) : 0.0f;
}

static double lp_loss(const float *v, size_t n, float scale, float zero, float top)
{
    double loss = 0;

    for (size_t i = 0; i < n; i++) {
        float e = (nn_grid_code(v[i], scale, zero, top) - zero) * scale - v[i];
        loss += (double)power(fabsf(e), HQQ_P);
    }
    return loss;
}

static float shrink(float x, float beta)
{
    float a = fabsf(x), left;

    left = a > 0.0f ? a - power(a, HQQ_P - 1.0f) / beta : 0.0f;
    return left > 0.0f ? copysignf(left, x) : 0.0f;
}

/* One round: the grid that fits v less its forgiven errors.  false: there is none. */
static bool refit(float *scale, float *zero, const float *v, size_t n, float beta,
                  const quant_rule *rule)
{
    const float top = (float)((1 << rule->bits) - 1);
    float s = *scale, z = *zero;
    double shift = 0, tc = 0, cc = 0;

    for (size_t i = 0; i < n; i++) {
        float code = nn_grid_code(v[i], s, z, top), x = v[i] / s;
        shift += (double)(code - (x - shrink(x - (code - z), beta)));
    }
    if (!rule->symmetric) {
        *zero = nn_grid_round((float)(shift / (double)n));
        *zero = *zero > 0.0f ? (*zero < top ? *zero : top) : 0.0f;
    }
    for (size_t i = 0; i < n; i++) {
        float code = nn_grid_code(v[i], s, *zero, top), x = v[i] / s;
        float c = code - *zero, t = x - shrink(x - c, beta);
        tc += (double)(t * c);
        cc += (double)(c * c);
    }
    if (!(cc > 0) || !(tc > 0))
        return false;
    *scale = s * (float)(tc / cc);
    *scale = rule->fp16_scales ? nn_grid_half(*scale) : *scale;
    return isfinite(*scale);
}

void quant_choose_hqq(quant_lanes *g, const quant_rule *rule, const float *tile, size_t n,
                      float *scratch)
{
    const float top = (float)((1 << rule->bits) - 1);
    float *v = scratch;

    for (int l = 0; l < L; l++) {
        float scale = g->scale[l], zero = g->zero[l], beta = HQQ_BETA;
        double best;
        for (size_t i = 0; i < n; i++)
            v[i] = tile[i * L + (size_t)l];
        best = lp_loss(v, n, scale, zero, top);
        for (int k = 0; k < ITERATIONS; k++, beta *= HQQ_GROWTH) {
            float s = scale, z = zero;
            if (!refit(&scale, &zero, v, n, beta, rule) || (s == scale && z == zero))
                break;
            double loss = lp_loss(v, n, scale, zero, top);
            if (!(loss < best))
                break;
            best = loss;
            g->scale[l] = scale;
            g->zero[l] = zero;
        }
    }
}

dr_status quant_hqq(const quant_site *site, const quant_grid *grid)
{
    return quant_round_model(site, grid, quant_choose_hqq);
}
