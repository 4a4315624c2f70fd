/*
 * nn_i8.h - products of 8-bit integers: a part of nn.h, which includes it.
 */
#ifndef DRUPE_NN_NN_I8_H
#define DRUPE_NN_NN_I8_H

#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"

typedef struct nn_device nn_device; /* as in nn.h */

/*
 * Products of 8-bit integers, for what need not be exact (calibration): three to four times
 * the rate of float products.
 *
 * Each operand is cut along the summed index into blocks of NN_I8_BLOCK; a block has a
 * scale s = max|v| / 127 and codes round(v * (127 / max|v|)), ties to even.  A block's
 * sum of code products is exact in 32 bits; y = (((0 or y) + sum_0 (s_x0 s_w0)) + ...) +
 * bias, each operation rounded to float.  Nothing else enters: all devices give the same
 * bytes.
 * A block whose maximum is below 1e-30 counts as zero; one with a value that is not finite
 * makes everything that it meets NaN.
 */
enum { NN_I8_BLOCK = 128, NN_I8_TOP = 127, NN_GRAM_STRIP = 96 };

/* Bytes of w[N][K] packed by the device, once for many products. */
size_t nn_i8_packed_bytes(size_t n, size_t k);
DR_MUST_USE dr_status nn_i8_pack(nn_device *dev, void *packed, const float *w, size_t n,
                                 size_t k);
/* Y[M][N] = X[M][K] W[N][K]^T (+ bias[N], may be NULL); acc: Y += instead of Y =. */
DR_MUST_USE dr_status nn_i8_matmul(nn_device *dev, float *y, const float *x,
                                   const void *packed, const float *bias, size_t m,
                                   size_t n, size_t k, size_t ldy, bool acc);
/* Floats of nn_i8_gram's strips. */
static inline size_t nn_gram_floats(size_t n)
{
    size_t floats = 0;

    for (size_t r = 0; r < n; r += NN_GRAM_STRIP) {
        size_t end = n - r < NN_GRAM_STRIP ? n : r + NN_GRAM_STRIP;
        floats += (end - r) * end;
    }
    return floats;
}
/*
 * X[M][N]^T X[M][N], summed over M: the lower triangle in strips of NN_GRAM_STRIP rows, one
 * after another, each as wide as the triangle needs there (the strip of rows r .. r+95 has
 * min(N, r+96) columns).  first: set, else added to.
 */
DR_MUST_USE dr_status nn_i8_gram(nn_device *dev, float *strips, const float *x, size_t m,
                                 size_t n, bool first);

#endif
