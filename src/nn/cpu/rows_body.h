/*
 * rows_body.h - the kernels that go over rows, for vectors of LANES floats.  rows_plain.c,
 * rows_avx2.c and rows_avx512.c define LANES and CPU_ROW_KERNELS, the name of the table,
 * and include this.
 *
 * What must hold:
 *   1. No fused multiply-add (-ffp-contract=off), sums over a row in 16 lanes joined in a
 *      fixed tree: the bytes are the same for every LANES.
 *   2. A NaN that goes in comes out, so that a diverged model shows in its loss.
 *
 * exp: Cephes' expf (Moshier) in vectors, x = n ln 2 + r, a polynomial of degree 6 in r,
 * 2^n put into the exponent.  Within 2 ulp of exp on [-86.5, 88]; 0 below, exp(88) above.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "nn/cpu/cpu_impl.h"

enum { WIDTH = 16, PARTS = WIDTH / LANES, SUM_BLOCK = 512 };

typedef float vec __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4), aligned(4)));

static inline vec splat(float x)
{
    return x + (vec){0};
}

static inline vec choose(ivec mask, vec yes, vec no)
{
    return (vec)((mask & (ivec)yes) | (~mask & (ivec)no));
}

static inline vec vmax(vec a, vec b)
{
    return choose(a > b, a, b);
}

static inline vec vexp(vec x0)
{
    const float low = -86.5f, high = 88.0f, magic = 12582912.0f; /* 1.5 * 2^23 */
    vec x = choose(x0 > high, splat(high), x0);
    vec t = x * 1.44269504088896341f + magic, n = t - magic;
    vec r = x - n * 0.693359375f;

    r = r - n * -2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    vec y = (vec)((ivec)p + ((ivec)t << 23));
    y = (vec)((ivec)y & ~(ivec)(x0 < low));
    return choose(x0 == x0, y, x0);
}

static inline float sum_lanes(const vec *v)
{
    float t[WIDTH];

    memcpy(t, v, sizeof(t));
    for (int half = WIDTH / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            t[i] += t[i + half];
    return t[0];
}

/* The last n % 16 elements of a row, filled up. */
static inline void fill_tail(float tail[WIDTH], const float *x, size_t n, float fill)
{
    for (int i = 0; i < WIDTH; i++)
        tail[i] = fill;
    memcpy(tail, x + n / WIDTH * WIDTH, n % WIDTH * sizeof(float));
}

static inline void add_products(vec acc[PARTS], const float *a, const float *b)
{
    for (int j = 0; j < PARTS; j++)
        acc[j] += ((const vec *)a)[j] * ((const vec *)b)[j];
}

static float dot(const float *a, const float *b, size_t n)
{
    vec acc[PARTS] = {{0}};
    float ta[WIDTH], tb[WIDTH];
    size_t whole = n / WIDTH * WIDTH;

    for (size_t i = 0; i < whole; i += WIDTH)
        add_products(acc, a + i, b + i);
    if (whole < n) {
        fill_tail(ta, a, n, 0.0f);
        fill_tail(tb, b, n, 0.0f);
        add_products(acc, ta, tb);
    }
    return sum_lanes(acc);
}

/* ---- norms and activations ---- */

static void rmsnorm(float *y, const float *x, const float *w, size_t m, size_t d, float eps)
{
    for (size_t r = 0; r < m; r++) {
        const float *restrict xr = x + r * d;
        float *restrict yr = y + r * d;
        float inv = 1.0f / sqrtf(dot(xr, xr, d) / (float)d + eps);
        for (size_t i = 0; i < d; i++)
            yr[i] = xr[i] * inv * w[i];
    }
}

/* With n = 1/sqrt(mean x^2 + eps) and g = dy w: dx += n g - x n^3 sum(g x) / d. */
static void rmsnorm_back(float *dx, const float *dy, const float *x, const float *w,
                         size_t m, size_t d, float eps)
{
    for (size_t r = 0; r < m; r++) {
        const float *restrict xr = x + r * d, *restrict gr = dy + r * d;
        float *restrict dr = dx + r * d;
        vec acc[PARTS] = {{0}};
        float inv = 1.0f / sqrtf(dot(xr, xr, d) / (float)d + eps), rest = 0.0f;
        size_t i = 0;

        for (; i + WIDTH <= d; i += WIDTH)
            for (int j = 0; j < PARTS; j++)
                acc[j] += ((const vec *)(gr + i))[j] * ((const vec *)(w + i))[j] *
                          ((const vec *)(xr + i))[j];
        for (; i < d; i++)
            rest += gr[i] * w[i] * xr[i];
        float f = (sum_lanes(acc) + rest) / (float)d * inv * inv * inv;
        for (i = 0; i < d; i++)
            dr[i] += gr[i] * w[i] * inv - xr[i] * f;
    }
}

static inline vec sigmoid(vec x)
{
    return 1.0f / (1.0f + vexp(-x));
}

static inline void swiglu_lanes(float *act, const float *gate, const float *up)
{
    vec g = *(const vec *)gate;

    *(vec *)act = g * sigmoid(g) * *(const vec *)up;
}

static void swiglu(float *act, const float *gate_up, size_t m, size_t i_count)
{
    float g[LANES] = {0}, u[LANES] = {0}, a[LANES];

    for (size_t r = 0; r < m; r++) {
        const float *gate = gate_up + r * 2 * i_count, *up = gate + i_count;
        float *to = act + r * i_count;
        size_t i = 0;
        for (; i + LANES <= i_count; i += LANES)
            swiglu_lanes(to + i, gate + i, up + i);
        if (i == i_count)
            continue;
        memcpy(g, gate + i, (i_count - i) * sizeof(*g));
        memcpy(u, up + i, (i_count - i) * sizeof(*u));
        swiglu_lanes(a, g, u);
        memcpy(to + i, a, (i_count - i) * sizeof(*a));
    }
}

/* With s = sigmoid(g): d up = da g s, d gate = da up s (1 + g (1 - s)). */
static inline void swiglu_back_lanes(float *dgate, float *dup, const float *dact,
                                     const float *gate, const float *up)
{
    vec g = *(const vec *)gate, s = sigmoid(g), da = *(const vec *)dact;

    *(vec *)dup = da * (g * s);
    *(vec *)dgate = da * *(const vec *)up * (s * (1.0f + g * (1.0f - s)));
}

static void swiglu_back(float *dgate_up, const float *dact, const float *gate_up, size_t m,
                        size_t i_count)
{
    float g[LANES] = {0}, u[LANES] = {0}, a[LANES] = {0}, dg[LANES], du[LANES];

    for (size_t r = 0; r < m; r++) {
        const float *gate = gate_up + r * 2 * i_count, *up = gate + i_count;
        const float *da = dact + r * i_count;
        float *to = dgate_up + r * 2 * i_count;
        size_t i = 0;
        for (; i + LANES <= i_count; i += LANES)
            swiglu_back_lanes(to + i, to + i_count + i, da + i, gate + i, up + i);
        if (i == i_count)
            continue;
        size_t bytes = (i_count - i) * sizeof(*g);
        memcpy(g, gate + i, bytes);
        memcpy(u, up + i, bytes);
        memcpy(a, da + i, bytes);
        swiglu_back_lanes(dg, du, a, g, u);
        memcpy(to + i, dg, bytes);
        memcpy(to + i_count + i, du, bytes);
    }
}

static void rope(float *x, const float *cos, const float *sin, size_t half, float sign)
{
    float *restrict lo = x, *restrict hi = x + half;
    const float *restrict c = cos, *restrict s = sin;

    for (size_t i = 0; i < half; i++) {
        float a = lo[i], b = hi[i], t = sign * s[i];
        lo[i] = a * c[i] - b * t;
        hi[i] = b * c[i] + a * t;
    }
}

static void add(float *y, const float *x, size_t count)
{
    float *restrict to = y;
    const float *restrict from = x;

    for (size_t i = 0; i < count; i++)
        to[i] += from[i];
}

/* ---- dropout ---- */

enum { CHUNK = 64, SIDE = 16 }; /* elements; Philox blocks side by side */

/* Ten rounds of Philox 4x32 (core/rng.c) in 16 blocks at once: words[j][i] is word j of
 * block first + i. */
static void philox_side(uint32_t words[4][SIDE], uint64_t seed, uint64_t stream,
                        uint64_t first)
{
    uint32_t(*restrict c)[SIDE] = words;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);

    for (int i = 0; i < SIDE; i++) {
        c[0][i] = (uint32_t)first + (uint32_t)i; /* first is a multiple of 16 */
        c[1][i] = (uint32_t)(first >> 32);
        c[2][i] = (uint32_t)stream;
        c[3][i] = (uint32_t)(stream >> 32);
    }
    for (int r = 0; r < 10; r++) {
        for (int i = 0; i < SIDE; i++) {
            uint64_t a = (uint64_t)0xD2511F53u * c[0][i],
                     b = (uint64_t)0xCD9E8D57u * c[2][i];
            uint32_t n0 = (uint32_t)(b >> 32) ^ c[1][i] ^ k0;
            uint32_t n2 = (uint32_t)(a >> 32) ^ c[3][i] ^ k1;
            c[0][i] = n0;
            c[1][i] = (uint32_t)b;
            c[2][i] = n2;
            c[3][i] = (uint32_t)a;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

static void dropout(float *y, const float *x, size_t first, size_t count,
                    const nn_mask *mask, bool acc)
{
    uint32_t words[4][SIDE];
    float *restrict to = y;
    const float *restrict from = x;

    for (size_t at = 0; at < count; at += CHUNK) {
        const uint32_t *word = words[0];
        size_t n = cpu_min(CHUNK, count - at);
        philox_side(words, mask->seed, mask->stream, (first + at) / CHUNK * SIDE);
        for (size_t i = 0; i < n; i++) {
            float v = word[i] >= mask->threshold ? from[at + i] * mask->scale : 0.0f;
            to[at + i] = acc ? to[at + i] + v : v;
        }
    }
}

/* ---- cross entropy ---- */

static float row_max(const float *x, size_t n)
{
    vec top[PARTS];
    float tail[WIDTH], t[WIDTH];

    for (int j = 0; j < PARTS; j++)
        top[j] = splat(-INFINITY);
    for (size_t i = 0; i + WIDTH <= n; i += WIDTH)
        for (int j = 0; j < PARTS; j++)
            top[j] = vmax(((const vec *)(x + i))[j], top[j]);
    fill_tail(tail, x, n, -INFINITY);
    for (int j = 0; j < PARTS; j++)
        top[j] = vmax(((const vec *)tail)[j], top[j]);
    memcpy(t, top, sizeof(t));
    for (int i = 1; i < WIDTH; i++)
        t[0] = t[i] > t[0] ? t[i] : t[0];
    return t[0];
}

/* Sum of exp(x - top): floats in blocks of 512, the blocks in double. */
static double row_sum_exp(const float *x, size_t n, float top)
{
    double sum = 0.0;
    float tail[WIDTH];
    size_t whole = n / WIDTH * WIDTH;

    for (size_t from = 0; from < whole; from += SUM_BLOCK) {
        vec acc[PARTS] = {{0}};
        size_t to = cpu_min(from + SUM_BLOCK, whole);
        for (size_t i = from; i < to; i += WIDTH)
            for (int j = 0; j < PARTS; j++)
                acc[j] += vexp(((const vec *)(x + i))[j] - top);
        sum += (double)sum_lanes(acc);
    }
    if (whole < n) {
        vec acc[PARTS];
        fill_tail(tail, x, n, -INFINITY);
        for (int j = 0; j < PARTS; j++)
            acc[j] = vexp(((const vec *)tail)[j] - top);
        sum += (double)sum_lanes(acc);
    }
    return sum;
}

static double xent(float *logits, size_t v, size_t target, float grad_scale)
{
    float top = row_max(logits, v), tail[WIDTH];
    double sum = row_sum_exp(logits, v, top);
    double loss = log(sum) + (double)top - (double)logits[target];
    float f = (float)((double)grad_scale / sum);
    size_t i = 0;

    if (grad_scale == 0.0f)
        return loss;
    for (; i + LANES <= v; i += LANES)
        *(vec *)(logits + i) = vexp(*(const vec *)(logits + i) - top) * f;
    if (i < v) {
        memset(tail, 0, sizeof(tail));
        memcpy(tail, logits + i, (v - i) * sizeof(*tail));
        *(vec *)tail = vexp(*(const vec *)tail - top) * f;
        memcpy(logits + i, tail, (v - i) * sizeof(*tail));
    }
    logits[target] -= grad_scale;
    return loss;
}

/* ---- attention ---- */

static void softmax_column(const cpu_softmax *a, size_t lane)
{
    size_t nr = a->nr;
    vec top = *(const vec *)(a->s + lane), acc[4] = {{0}};

    for (size_t k = 1; k < a->keys; k++)
        top = vmax(*(const vec *)(a->s + k * nr + lane), top);
    if (!a->first)
        top = vmax(*(const vec *)(a->max + lane), top);
    for (size_t k = 0; k < a->keys; k++) {
        vec *at = (vec *)(a->s + k * nr + lane);
        *at = vexp(*at - top);
        acc[k % 4] += *at;
    }
    vec sum = (acc[0] + acc[1]) + (acc[2] + acc[3]);
    if (!a->first) {
        vec shrink = vexp(*(const vec *)(a->max + lane) - top);
        sum += *(const vec *)(a->sum + lane) * shrink;
        for (size_t r = 0; r < a->o_rows; r++)
            *(vec *)(a->o + r * nr + lane) *= shrink;
    }
    *(vec *)(a->max + lane) = top;
    *(vec *)(a->sum + lane) = sum;
}

static void softmax(const cpu_softmax *a)
{
    for (size_t lane = 0; lane < a->nr; lane += LANES)
        softmax_column(a, lane);
}

static void softmax_back(float *p, float *ds, size_t keys, size_t nr, const float *lse,
                         const float *delta)
{
    for (size_t k = 0; k < keys; k++) {
        for (size_t lane = 0; lane < nr; lane += LANES) {
            vec *at = (vec *)(p + k * nr + lane), *to = (vec *)(ds + k * nr + lane);
            *at = vexp(*at - *(const vec *)(lse + lane));
            *to = *at * (*to - *(const vec *)(delta + lane));
        }
    }
}

static void scale_lanes(float *x, size_t rows, size_t nr, const float *f)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t lane = 0; lane < nr; lane += LANES)
            *(vec *)(x + r * nr + lane) *= *(const vec *)(f + lane);
}

const cpu_row_kernels CPU_ROW_KERNELS = {
    .rmsnorm = rmsnorm,
    .rmsnorm_back = rmsnorm_back,
    .swiglu = swiglu,
    .swiglu_back = swiglu_back,
    .rope = rope,
    .add = add,
    .dropout = dropout,
    .xent = xent,
    .softmax = softmax,
    .softmax_back = softmax_back,
    .scale_lanes = scale_lanes,
    .dot = dot,
};
