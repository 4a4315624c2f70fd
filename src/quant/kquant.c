/*
 * kquant.c - grids by weighted least squares: an error counts rms(w) + |w|, so large
 * weights are kept better than the many small ones.
 *
 * With zero points it is the line of core/k_quant.h, whose scale and zero point are
 * rounded to what a checkpoint holds.  Without, codes are round(f x / x_max) about the
 * middle one, f = -(mid - 0.9), ..., -(mid + 0.9): for each, the scale that fits best has a
 * closed form,
 *
 *     s = sum(w x l) / sum(w l l),  which leaves  sum(w x x) - sum(w x l)^2 / sum(w l l).
 *
 * Rounding the zero point can undo the fit (a group whose weights all have one sign has its
 * zero point clamped), so the grid of min and max stays when it loses less.
 */
#include <math.h>

#include "core/k_quant.h"
#include "quant/quant_impl.h"
#include "quant/tile_impl.h"

enum { L = QUANT_LANES, SIDE = 9 };

_Static_assert(1 + DR_K_QUANT_SCRATCH <= QUANT_CHOOSER_TILES * QUANT_LANES, "scratch");

static float rms_of(const float *v, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += (double)v[i] * (double)v[i];
    return (float)sqrt(sum / (double)n);
}

static double grid_loss(const float *v, size_t n, float rms, float scale, float zero,
                        float top)
{
    double loss = 0;

    for (size_t i = 0; i < n; i++) {
        float e = (nn_grid_code(v[i], scale, zero, top) - zero) * scale - v[i];
        loss += (double)((rms + fabsf(v[i])) * e * e);
    }
    return loss;
}

/* The better scale of codes about `mid`; 0: none. */
static float symmetric_scale(const float *v, size_t n, float rms, float mid)
{
    float far = 0.0f, scale = 0.0f;
    double best = 0;

    for (size_t i = 0; i < n; i++)
        far = fabsf(v[i]) > fabsf(far) ? v[i] : far;
    for (int k = -SIDE; k <= SIDE && far != 0.0f; k++) {
        const float f = -(mid + 0.1f * (float)k) / far;
        double xl = 0, ll = 0;
        for (size_t i = 0; i < n; i++) {
            float l = nn_grid_round(f * v[i]), w = rms + fabsf(v[i]);
            l = l > -mid ? l : -mid;
            l = l < mid - 1.0f ? l : mid - 1.0f;
            xl += (double)(w * v[i] * l);
            ll += (double)(w * l * l);
        }
        if (ll > 0 && xl > 0 && xl * xl > best * ll) {
            best = xl * xl / ll;
            scale = (float)(xl / ll);
        }
    }
    return scale;
}

void quant_choose_kquant(quant_lanes *g, const quant_rule *rule, const float *tile,
                         size_t n, float *scratch)
{
    const float top = (float)((1 << rule->bits) - 1), mid = (float)(1 << (rule->bits - 1));
    float *v = scratch;

    for (int l = 0; l < L; l++) {
        float scale = 0.0f, lo = 0.0f, zero = mid, rms;
        for (size_t i = 0; i < n; i++)
            v[i] = tile[i * L + (size_t)l];
        rms = rms_of(v, n);
        if (rule->symmetric)
            scale = symmetric_scale(v, n, rms, mid);
        else
            dr_k_quant_fit(&scale, &lo, v, n, rule->bits, v + n);
        if (!(scale > 0.0f) || !isfinite(scale))
            continue;
        scale = rule->fp16_scales ? nn_grid_half(scale) : scale;
        if (!rule->symmetric) {
            zero = rintf(-lo / scale);
            zero = zero > 0.0f ? (zero < top ? zero : top) : 0.0f;
        }
        if (grid_loss(v, n, rms, scale, zero, top) <
            grid_loss(v, n, rms, g->scale[l], g->zero[l], top)) {
            g->scale[l] = scale;
            g->zero[l] = zero;
        }
    }
}

dr_status quant_kquant(const quant_site *site, const quant_grid *grid)
{
    return quant_round_model(site, grid, quant_choose_kquant);
}
