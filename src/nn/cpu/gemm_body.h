/*
 * gemm_body.h - the kernels of matrix products, for vectors of LANES floats and a register
 * tile of MR rows by NRV vectors.  gemm_plain.c, gemm_avx2.c and gemm_avx512.c define the
 * three, and CPU_GEMM_KERNELS, the name of the table, and include this.
 *
 * GCC's vector types say what is meant and compile to any machine's vectors; the loops over
 * MR and NRV are unrolled whole and the sums live in registers.  The file's own flags let
 * the compiler fuse s += a * b.
 */
#include <stddef.h>
#include <string.h>

#include "nn/cpu/cpu_impl.h"

enum { STRIP = 16 }; /* columns */

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef float vec_any __attribute__((vector_size(LANES * 4), aligned(4)));
typedef float vec4 __attribute__((vector_size(16)));
typedef float vec4_any __attribute__((vector_size(16), aligned(4)));

static inline void store(float *c, size_t ldc, vec s[MR][NRV], bool acc)
{
    for (int i = 0; i < MR; i++) {
        for (int j = 0; j < NRV; j++) {
            vec_any *to = (vec_any *)(c + i * ldc + j * LANES);
            *to = acc ? s[i][j] + *to : s[i][j];
        }
    }
}

static void tile(float *restrict c, size_t ldc, const float *restrict a,
                 const float *restrict b, size_t kc, bool acc)
{
    vec s[MR][NRV] = {{{0}}};

    for (size_t k = 0; k < kc; k++, a += MR, b += NRV * LANES) {
        vec bv[NRV];
        for (int j = 0; j < NRV; j++)
            bv[j] = ((const vec *)b)[j];
        for (int i = 0; i < MR; i++)
            for (int j = 0; j < NRV; j++)
                s[i][j] += a[i] * bv[j];
    }
    store(c, ldc, s, acc);
}

static void tile_rows(float *restrict c, size_t ldc, const float *restrict a, size_t lda,
                      const float *restrict b, size_t kc, bool acc)
{
    vec s[MR][NRV] = {{{0}}};

    for (size_t k = 0; k < kc; k++, b += NRV * LANES) {
        vec bv[NRV];
        for (int j = 0; j < NRV; j++)
            bv[j] = ((const vec *)b)[j];
        for (int i = 0; i < MR; i++)
            for (int j = 0; j < NRV; j++)
                s[i][j] += a[i * lda + k] * bv[j];
    }
    store(c, ldc, s, acc);
}

/* Four rows by four columns at a time, two steps of exchanging pairs. */
static void transpose_quad(float *restrict dst, size_t ldd, const float *restrict src,
                           size_t lds, size_t cols, float scale)
{
    size_t c = 0;

    for (; c + 4 <= cols; c += 4, src += 4, dst += 4 * ldd) {
        vec4 r0 = *(const vec4_any *)src, r1 = *(const vec4_any *)(src + lds);
        vec4 r2 = *(const vec4_any *)(src + 2 * lds),
             r3 = *(const vec4_any *)(src + 3 * lds);
        vec4 a = __builtin_shufflevector(r0, r1, 0, 4, 1, 5);
        vec4 b = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
        vec4 d = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
        vec4 e = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
        *(vec4_any *)dst = scale * __builtin_shufflevector(a, b, 0, 1, 4, 5);
        *(vec4_any *)(dst + ldd) = scale * __builtin_shufflevector(a, b, 2, 3, 6, 7);
        *(vec4_any *)(dst + 2 * ldd) = scale * __builtin_shufflevector(d, e, 0, 1, 4, 5);
        *(vec4_any *)(dst + 3 * ldd) = scale * __builtin_shufflevector(d, e, 2, 3, 6, 7);
    }
    for (; c < cols; c++, src++, dst += ldd)
        for (size_t r = 0; r < 4; r++)
            dst[r] = scale * src[r * lds];
}

/* In strips of columns, so that the lines of dst that several quads of rows share are still
 * in the first cache. */
static void transpose(float *dst, size_t ldd, const float *src, size_t lds, size_t rows,
                      size_t cols, float scale)
{
    for (size_t c = 0; c < cols; c += STRIP, dst += STRIP * ldd, src += STRIP) {
        size_t n = cpu_min(STRIP, cols - c), r = 0;
        for (; r + 4 <= rows; r += 4)
            transpose_quad(dst + r, ldd, src + r * lds, lds, n, scale);
        for (; r < rows; r++)
            for (size_t i = 0; i < n; i++)
                dst[i * ldd + r] = scale * src[r * lds + i];
    }
}

const cpu_gemm_kernels CPU_GEMM_KERNELS = {
    .name = CPU_GEMM_NAME,
    .mr = MR,
    .nr = NRV * LANES,
    .tile = tile,
    .tile_rows = tile_rows,
    .transpose = transpose,
};
