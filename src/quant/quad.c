/*
 * quad.c - the quadratic form e^T G e of sixteen rows: the inner loop of every search
 * (clip, group scale, AWQ ratio).
 *
 * G is symmetric, so only j < i is multiplied and counted twice; four rows of G are taken
 * at once, so that each e[j] is loaded for four products: n^2/2 multiply-adds a lane, and
 * no error matrix goes through memory as it would with a matrix product.
 *
 * Three versions with the same order of sums, hence the same bytes: sixteen-wide vectors
 * where the processor has AVX-512 (eight rows of G at once), eight-wide with AVX2, plain
 * loops elsewhere.  One core of a Zen 4, n = 64, counting 2 n^2 operations a lane: 160
 * GFLOP/s with AVX2, 60 plain.
 */
#include <string.h>

#include "quant/quant_impl.h"
#include "quant/tile_impl.h"

enum { L = QUANT_LANES };

/* sum += e[i] * (2 (G[i] . e)[from..i) + 2 acc + G[i][i] e[i]) for one row i. */
QUANT_INLINE void quad_row(float *restrict sum, float *restrict acc,
                           const float *restrict e, const float *restrict row, size_t from,
                           size_t i)
{
    for (size_t j = from; j < i; j++) {
        for (int l = 0; l < L; l++)
            acc[l] += row[j] * e[j * L + l];
    }
    for (int l = 0; l < L; l++)
        sum[l] += e[i * L + l] * (2.0f * acc[l] + row[i] * e[i * L + l]);
}

QUANT_CLONES
static void quad_plain(float *restrict sum, const float *restrict e,
                       const float *restrict g, size_t ld, size_t n)
{
    for (size_t i = 0; i + 4 <= n; i += 4, g += 4 * ld) {
        float acc[4][L] = {{0}};
        for (size_t j = 0; j < i; j++) {
            for (size_t r = 0; r < 4; r++) {
                for (int l = 0; l < L; l++)
                    acc[r][l] += g[r * ld + j] * e[j * L + l];
            }
        }
        for (size_t r = 0; r < 4; r++)
            quad_row(sum, acc[r], e, g + r * ld, i, i + r);
    }
}

#if defined(__x86_64__)
typedef float v8 __attribute__((vector_size(32), aligned(4), may_alias));

/* The rest of rows i .. i+3, eight lanes: their own triangle and the diagonal. */
__attribute__((target("avx2"), always_inline)) static inline void
triangle(v8 *sum, const v8 *acc, const float *e, const float *g, size_t ld, size_t i)
{
    for (size_t r = 0; r < 4; r++) {
        v8 a = acc[r], x = *(const v8 *)(e + (i + r) * L);
        for (size_t j = i; j < i + r; j++)
            a += g[r * ld + j] * *(const v8 *)(e + j * L);
        *sum += x * (2.0f * a + g[r * ld + i + r] * x);
    }
}

/* Named vectors, not arrays: gcc 12 keeps arrays of them in memory. */
__attribute__((target("avx2"))) static void quad_avx2(float *restrict sum,
                                                      const float *restrict e,
                                                      const float *restrict g, size_t ld,
                                                      size_t n)
{
    v8 low = {0}, high = {0};

    for (size_t i = 0; i + 4 <= n; i += 4, g += 4 * ld) {
        v8 a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};
        for (size_t j = 0; j < i; j++) {
            v8 x = *(const v8 *)(e + j * L), y = *(const v8 *)(e + j * L + 8);
            float g0 = g[j], g1 = g[ld + j], g2 = g[2 * ld + j], g3 = g[3 * ld + j];
            a0 += g0 * x;
            b0 += g0 * y;
            a1 += g1 * x;
            b1 += g1 * y;
            a2 += g2 * x;
            b2 += g2 * y;
            a3 += g3 * x;
            b3 += g3 * y;
        }
        const v8 acc[2][4] = {{a0, a1, a2, a3}, {b0, b1, b2, b3}};
        triangle(&low, acc[0], e, g, ld, i);
        triangle(&high, acc[1], e + 8, g, ld, i);
    }
    memcpy(sum, &low, sizeof(low));
    memcpy(sum + 8, &high, sizeof(high));
}

typedef float v16 __attribute__((vector_size(64), aligned(4), may_alias));

__attribute__((target("avx512f"))) static void quad_avx512(float *restrict sum,
                                                           const float *restrict e,
                                                           const float *restrict g,
                                                           size_t ld, size_t n)
{
    v16 all = {0};

    for (size_t i = 0; i + 8 <= n; i += 8, g += 8 * ld) {
        v16 a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, a4 = {0}, a5 = {0}, a6 = {0}, a7 = {0};
        for (size_t j = 0; j < i; j++) {
            v16 x = *(const v16 *)(e + j * L);
            a0 += g[j] * x;
            a1 += g[ld + j] * x;
            a2 += g[2 * ld + j] * x;
            a3 += g[3 * ld + j] * x;
            a4 += g[4 * ld + j] * x;
            a5 += g[5 * ld + j] * x;
            a6 += g[6 * ld + j] * x;
            a7 += g[7 * ld + j] * x;
        }
        const v16 acc[8] = {a0, a1, a2, a3, a4, a5, a6, a7};
        for (size_t r = 0; r < 8; r++) {
            v16 a = acc[r], x = *(const v16 *)(e + (i + r) * L);
            for (size_t j = i; j < i + r; j++)
                a += g[r * ld + j] * *(const v16 *)(e + j * L);
            all += x * (2.0f * a + g[r * ld + i + r] * x);
        }
    }
    memcpy(sum, &all, sizeof(all));
}
#endif

void quant_tile_quad(float *restrict loss, const float *restrict e,
                     const float *restrict gram, size_t ld, size_t n)
{
    float sum[L] = {0};
    size_t step = 4;

#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        quad_avx512(sum, e, gram, ld, n);
        step = 8;
    } else if (__builtin_cpu_supports("avx2")) {
        quad_avx2(sum, e, gram, ld, n);
    } else
#endif
        quad_plain(sum, e, gram, ld, n);
    for (size_t i = n / step * step; i < n; i++) {
        float acc[L] = {0};
        quad_row(sum, acc, e, gram + i * ld, 0, i);
    }
    for (int l = 0; l < L; l++)
        loss[l] += sum[l];
}
