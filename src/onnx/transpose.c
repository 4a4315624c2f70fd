/*
 * transpose.c - rows into columns, by squares of 16 that stay in the first-level cache.
 */
#include "onnx/weight_impl.h"

enum { SIDE = 16 };

static void square(float *dst, size_t stride, const float *src, size_t cols)
{
    for (size_t k = 0; k < SIDE; k++) {
        for (size_t r = 0; r < SIDE; r++)
            dst[k * stride + r] = src[r * cols + k];
    }
}

static void edge(float *dst, size_t stride, const float *src, size_t cols, size_t rows,
                 size_t ks)
{
    for (size_t k = 0; k < ks; k++) {
        for (size_t r = 0; r < rows; r++)
            dst[k * stride + r] = src[r * cols + k];
    }
}

void onnx_transpose(float *dst, size_t stride, size_t col0, const float *src, size_t rows,
                    size_t cols, size_t k0, size_t k1)
{
    for (size_t k = k0; k < k1; k += SIDE) {
        size_t ks = k1 - k < SIDE ? k1 - k : SIDE;
        for (size_t r = 0; r < rows; r += SIDE) {
            size_t rs = rows - r < SIDE ? rows - r : SIDE;
            float *to = dst + (k - k0) * stride + col0 + r;
            const float *from = src + r * cols + k;
            if (ks == SIDE && rs == SIDE)
                square(to, stride, from, cols);
            else
                edge(to, stride, from, cols, rs, ks);
        }
    }
}
