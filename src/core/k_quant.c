/*
 * k_quant.c - the line that fits a block best by weighted least squares, byte for byte as
 * the model builder's "k_quant" on a CPU.
 *
 * Errors are weighted: w = rms(x) + |x|.  From the range [lo, hi] of the block come 21 ways
 * to choose codes l = round(f (x - lo) / (hi - lo)), f = top - 1, ..., top + 0.9 and top
 * itself; for each but the last, which keeps its line, the line s l + m that fits the block
 * best has a closed form:
 *
 *     D = sum(w) sum(w l l) - sum(w l)^2
 *     s = (sum(w) sum(w x l) - sum(w x) sum(w l)) / D
 *     m = (sum(w l l) sum(w x) - sum(w l) sum(w x l)) / D
 *
 * The line with the least sum(w (s l + m - x)^2) is kept.
 *
 * 1. lo is a running value there: a candidate's codes start at the best m so far.
 * 2. float32, every product rounded, sums in numpy's order: eight lanes, then pairs of
 *    lanes, more than 128 values as two halves.
 * 3. round() half to even is adding and taking away 1.5 * 2^23: exact below 2^22, and
 *    vectorized with plain SSE2, which rintf() is not.
 *
 * Cost: 21 passes over a block, 20 ns a value (gcc 12, SSE2, one busy core).
 */
#include <math.h>
#include <string.h>

#include "core/k_quant.h"

enum { LANES = 8, HALF = 128, STEPS = 20 };

static float round_even(float x)
{
    const float magic = 0x1.8p23f;

    return (x + magic) - magic;
}

/* numpy's sum of n values. */
static float sum(const float *v, size_t n)
{
    float lane[LANES] = {0}, all;
    size_t half = n / 2 / LANES * LANES, whole = n / LANES * LANES;

    if (n > HALF)
        return sum(v, half) + sum(v + half, n - half);
    if (whole > 0)
        memcpy(lane, v, sizeof(lane));
    for (size_t j = LANES; j < whole; j += LANES) {
        for (size_t l = 0; l < LANES; l++)
            lane[l] += v[j + l];
    }
    all = ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
          ((lane[4] + lane[5]) + (lane[6] + lane[7]));
    for (size_t j = whole; j < n; j++)
        all += v[j];
    return all;
}

/* A block, its weights and their sums. */
typedef struct {
    const float *x;
    float *w;
    float *l;  /* codes of the candidate */
    float *t;  /* terms of a sum */
    float *wl; /* w l */
    size_t n;
    float top, w_sum, wx_sum;
} fit;

static void weigh(fit *f)
{
    float squares;

    for (size_t j = 0; j < f->n; j++)
        f->t[j] = f->x[j] * f->x[j];
    squares = sum(f->t, f->n);
    float rms = sqrtf(squares / (float)f->n);
    for (size_t j = 0; j < f->n; j++)
        f->w[j] = rms + fabsf(f->x[j]);
    f->w_sum = sum(f->w, f->n);
    for (size_t j = 0; j < f->n; j++)
        f->t[j] = f->w[j] * f->x[j];
    f->wx_sum = sum(f->t, f->n);
}

static void choose(fit *f, float inverse, float lo)
{
    for (size_t j = 0; j < f->n; j++) {
        float q = inverse * (f->x[j] - lo);
        q = q > 0.0f ? q : 0.0f; /* then all are below the round's limit */
        q = q < f->top + 1.0f ? q : f->top + 1.0f;
        q = round_even(q);
        f->l[j] = q < f->top ? q : f->top;
    }
}

static float error(fit *f, float s, float m)
{
    for (size_t j = 0; j < f->n; j++) {
        float d = s * f->l[j] + m - f->x[j];
        f->t[j] = f->w[j] * (d * d);
    }
    return sum(f->t, f->n);
}

/* The best line for the codes in f->l. */
static void line(fit *f, float *s, float *m)
{
    float *wl = f->wl;

    for (size_t j = 0; j < f->n; j++)
        wl[j] = f->w[j] * f->l[j];
    float l = sum(wl, f->n);
    for (size_t j = 0; j < f->n; j++)
        f->t[j] = wl[j] * f->l[j];
    float ll = sum(f->t, f->n);
    for (size_t j = 0; j < f->n; j++)
        f->t[j] = wl[j] * f->x[j];
    float xl = sum(f->t, f->n);
    float d = f->w_sum * ll - l * l;
    *s = (f->w_sum * xl - f->wx_sum * l) / d;
    *m = (ll * f->wx_sum - l * xl) / d;
}

void dr_k_quant_fit(float *scale, float *start, const float *v, size_t n, int bits,
                    float *scratch)
{
    fit f = {v, scratch, scratch + n, scratch + 2 * n, scratch + 3 * n, n, 0, 0, 0};
    float lo = v[0], hi = v[0], best, s, m;

    f.top = (float)((1 << bits) - 1);
    for (size_t j = 1; j < n; j++) {
        lo = v[j] < lo ? v[j] : lo;
        hi = v[j] > hi ? v[j] : hi;
    }
    weigh(&f);
    float inverse = lo == hi ? 1.0f : f.top / (hi - lo);
    *scale = 1.0f / inverse;
    choose(&f, inverse, lo);
    best = error(&f, *scale, lo);
    for (int i = 0; i < STEPS; i++) {
        float factor = (float)(-1.0 + 0.1 * i + (double)f.top);
        choose(&f, lo == hi ? 1.0f : factor / (hi - lo), lo);
        line(&f, &s, &m);
        float e = error(&f, s, m);
        if (!(e < best))
            continue;
        best = e;
        *scale = s;
        lo = m;
    }
    *start = lo;
}
