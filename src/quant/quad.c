/*
 * quad.c - the quadratic form e^T G e of sixteen rows: the inner loop of every search
 * (clip, group scale, AWQ ratio).
 *
 * G is symmetric, so only j < i is multiplied and counted twice; several rows of G are
 * taken at once, so that each e[j] is loaded for all of them: n^2/2 multiply-adds a lane,
 * and no error matrix goes through memory as it would with a matrix product.
 *
 * Sixteen-wide vectors where the processor has AVX-512 (eight rows of G at once),
 * eight-wide with AVX2 (four): both add the same fused products in the same order, hence
 * the same bytes.  Plain loops elsewhere, which do not fuse, as in nn's products.  One core
 * of a Sapphire Rapids, n = 64, counting 2 n^2 operations a lane: 287 GFLOP/s with AVX-512,
 * 164 with AVX2, 61 plain.
 *
 * Two errors under one G at once (a search's candidates) load G half as often: a tenth less
 * time with AVX-512 on a core of its own, up to half on a shared one; the same sums.
 */
#if defined(__x86_64__)
#    include <immintrin.h>
#endif
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
#    define AVX2   __attribute__((target("avx2,fma")))
#    define AVX512 __attribute__((target("avx512f")))
#    define INLINE __attribute__((always_inline)) static inline

enum { STEP = 8 }; /* rows past the last whole step are left to quad_row by both */

AVX2 INLINE __m256 madd8(__m256 sum, const float *g, __m256 x)
{
    return _mm256_fmadd_ps(_mm256_broadcast_ss(g), x, sum);
}

/* The rest of rows i .. i+3, eight lanes: their own triangle and the diagonal. */
AVX2 INLINE void triangle(__m256 *sum, const __m256 *acc, const float *e, const float *g,
                          size_t ld, size_t i)
{
    for (size_t r = 0; r < 4; r++) {
        __m256 a = acc[r], x = _mm256_loadu_ps(e + (i + r) * L);
        for (size_t j = i; j < i + r; j++)
            a = madd8(a, g + r * ld + j, _mm256_loadu_ps(e + j * L));
        a = madd8(_mm256_add_ps(a, a), g + r * ld + i + r, x);
        *sum = _mm256_fmadd_ps(x, a, *sum);
    }
}

/* Named vectors, not arrays: gcc 12 keeps arrays of them in memory. */
AVX2 static void quad_avx2(float *restrict sum, const float *restrict e,
                           const float *restrict g, size_t ld, size_t n)
{
    __m256 low = {0}, high = {0};

    for (size_t i = 0; i < n / STEP * STEP; i += 4, g += 4 * ld) {
        __m256 a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0};
        __m256 b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};
        for (size_t j = 0; j < i; j++) {
            __m256 x = _mm256_loadu_ps(e + j * L), y = _mm256_loadu_ps(e + j * L + 8);
            a0 = madd8(a0, g + j, x);
            b0 = madd8(b0, g + j, y);
            a1 = madd8(a1, g + ld + j, x);
            b1 = madd8(b1, g + ld + j, y);
            a2 = madd8(a2, g + 2 * ld + j, x);
            b2 = madd8(b2, g + 2 * ld + j, y);
            a3 = madd8(a3, g + 3 * ld + j, x);
            b3 = madd8(b3, g + 3 * ld + j, y);
        }
        const __m256 acc[2][4] = {{a0, a1, a2, a3}, {b0, b1, b2, b3}};
        triangle(&low, acc[0], e, g, ld, i);
        triangle(&high, acc[1], e + 8, g, ld, i);
    }
    _mm256_storeu_ps(sum, low);
    _mm256_storeu_ps(sum + 8, high);
}

AVX512 INLINE __m512 madd16(__m512 sum, const float *g, __m512 x)
{
    return _mm512_fmadd_ps(_mm512_set1_ps(*g), x, sum);
}

AVX512 static void quad_avx512(float *restrict sum, const float *restrict e,
                               const float *restrict g, size_t ld, size_t n)
{
    __m512 all = {0};

    for (size_t i = 0; i + STEP <= n; i += STEP, g += STEP * ld) {
        __m512 a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, a4 = {0}, a5 = {0}, a6 = {0},
               a7 = {0};
        for (size_t j = 0; j < i; j++) {
            __m512 x = _mm512_loadu_ps(e + j * L);
            a0 = madd16(a0, g + j, x);
            a1 = madd16(a1, g + ld + j, x);
            a2 = madd16(a2, g + 2 * ld + j, x);
            a3 = madd16(a3, g + 3 * ld + j, x);
            a4 = madd16(a4, g + 4 * ld + j, x);
            a5 = madd16(a5, g + 5 * ld + j, x);
            a6 = madd16(a6, g + 6 * ld + j, x);
            a7 = madd16(a7, g + 7 * ld + j, x);
        }
        const __m512 acc[STEP] = {a0, a1, a2, a3, a4, a5, a6, a7};
        for (size_t r = 0; r < STEP; r++) {
            __m512 a = acc[r], x = _mm512_loadu_ps(e + (i + r) * L);
            for (size_t j = i; j < i + r; j++)
                a = madd16(a, g + r * ld + j, _mm512_loadu_ps(e + j * L));
            a = madd16(_mm512_add_ps(a, a), g + r * ld + i + r, x);
            all = _mm512_fmadd_ps(x, a, all);
        }
    }
    _mm512_storeu_ps(sum, all);
}

#    define PAIR_STEP(r)                                                                   \
        do {                                                                               \
            const __m512 w = _mm512_set1_ps(g[(r)*ld + j]);                                \
            a##r = _mm512_fmadd_ps(w, x, a##r);                                            \
            b##r = _mm512_fmadd_ps(w, y, b##r);                                            \
        } while (0)

/* The rest of a row for both: its own triangle and the diagonal; acc: what lies before. */
AVX512 INLINE void pair_row(__m512 *all, __m512 *all2, __m512 acc, __m512 acc2,
                            const float *e, const float *f, const float *row, size_t from,
                            size_t i)
{
    const __m512 x = _mm512_loadu_ps(e + i * L), y = _mm512_loadu_ps(f + i * L);

    for (size_t j = from; j < i; j++) {
        acc = madd16(acc, row + j, _mm512_loadu_ps(e + j * L));
        acc2 = madd16(acc2, row + j, _mm512_loadu_ps(f + j * L));
    }
    *all = _mm512_fmadd_ps(x, madd16(_mm512_add_ps(acc, acc), row + i, x), *all);
    *all2 = _mm512_fmadd_ps(y, madd16(_mm512_add_ps(acc2, acc2), row + i, y), *all2);
}

AVX512 static void pair_avx512(float *restrict sum, const float *restrict e,
                               const float *restrict f, const float *restrict g, size_t ld,
                               size_t n)
{
    __m512 all = {0}, all2 = {0};

    for (size_t i = 0; i + STEP <= n; i += STEP, g += STEP * ld) {
        __m512 a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, a4 = {0}, a5 = {0}, a6 = {0},
               a7 = {0};
        __m512 b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0}, b4 = {0}, b5 = {0}, b6 = {0},
               b7 = {0};
        for (size_t j = 0; j < i; j++) {
            const __m512 x = _mm512_loadu_ps(e + j * L), y = _mm512_loadu_ps(f + j * L);
            PAIR_STEP(0);
            PAIR_STEP(1);
            PAIR_STEP(2);
            PAIR_STEP(3);
            PAIR_STEP(4);
            PAIR_STEP(5);
            PAIR_STEP(6);
            PAIR_STEP(7);
        }
        const __m512 a[STEP] = {a0, a1, a2, a3, a4, a5, a6, a7};
        const __m512 b[STEP] = {b0, b1, b2, b3, b4, b5, b6, b7};
        for (size_t r = 0; r < STEP; r++)
            pair_row(&all, &all2, a[r], b[r], e, f, g + r * ld, i, i + r);
    }
    _mm512_storeu_ps(sum, all);
    _mm512_storeu_ps(sum + L, all2);
}
#endif

/* The rows from `from` on, and all into loss. */
static void finish(float *restrict loss, float *restrict sum, const float *restrict e,
                   const float *restrict gram, size_t ld, size_t from, size_t n)
{
    for (size_t i = from; i < n; i++) {
        float acc[L] = {0};
        quad_row(sum, acc, e, gram + i * ld, 0, i);
    }
    for (int l = 0; l < L; l++)
        loss[l] += sum[l];
}

void quant_tile_quad(float *restrict loss, const float *restrict e,
                     const float *restrict gram, size_t ld, size_t n)
{
    float sum[L] = {0};
    size_t step = 4;

#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        quad_avx512(sum, e, gram, ld, n);
        step = STEP;
    } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        quad_avx2(sum, e, gram, ld, n);
        step = STEP;
    } else
#endif
        quad_plain(sum, e, gram, ld, n);
    finish(loss, sum, e, gram, ld, n / step * step, n);
}

void quant_tile_quad_pair(float *restrict loss, const float *restrict e,
                          const float *restrict f, const float *restrict gram, size_t ld,
                          size_t n)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        float sum[2 * L];
        pair_avx512(sum, e, f, gram, ld, n);
        finish(loss, sum, e, gram, ld, n / STEP * STEP, n);
        finish(loss + L, sum + L, f, gram, ld, n / STEP * STEP, n);
        return;
    }
#endif
    quant_tile_quad(loss, e, gram, ld, n);
    quant_tile_quad(loss + L, f, gram, ld, n);
}
