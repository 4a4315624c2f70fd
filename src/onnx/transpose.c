/*
 * transpose.c - rows into columns, by squares of 16 that stay in the first-level cache.
 */
#include "core/status.h"
#include "onnx/weight_impl.h"

enum { SIDE = 16 };

/* One function a width of values: T is its type. */
#define TRANSPOSE(NAME, T)                                                                 \
    static void NAME##_square(T *dst, size_t stride, const T *src, size_t cols)            \
    {                                                                                      \
        for (size_t k = 0; k < SIDE; k++) {                                                \
            for (size_t r = 0; r < SIDE; r++)                                              \
                dst[k * stride + r] = src[r * cols + k];                                   \
        }                                                                                  \
    }                                                                                      \
    static void NAME##_edge(T *dst, size_t stride, const T *src, size_t cols, size_t rows, \
                            size_t ks)                                                     \
    {                                                                                      \
        for (size_t k = 0; k < ks; k++) {                                                  \
            for (size_t r = 0; r < rows; r++)                                              \
                dst[k * stride + r] = src[r * cols + k];                                   \
        }                                                                                  \
    }                                                                                      \
    static void NAME(T *dst, size_t stride, size_t col0, const T *src, size_t rows,        \
                     size_t cols, size_t k0, size_t k1)                                    \
    {                                                                                      \
        for (size_t k = k0; k < k1; k += SIDE) {                                           \
            size_t ks = k1 - k < SIDE ? k1 - k : SIDE;                                     \
            for (size_t r = 0; r < rows; r += SIDE) {                                      \
                size_t rs = rows - r < SIDE ? rows - r : SIDE;                             \
                T *to = dst + (k - k0) * stride + col0 + r;                                \
                const T *from = src + r * cols + k;                                        \
                if (ks == SIDE && rs == SIDE)                                              \
                    NAME##_square(to, stride, from, cols);                                 \
                else                                                                       \
                    NAME##_edge(to, stride, from, cols, rs, ks);                           \
            }                                                                              \
        }                                                                                  \
    }

TRANSPOSE(words, uint32_t)
TRANSPOSE(halves, uint16_t)

void onnx_transpose(void *dst, size_t stride, size_t col0, const void *src, size_t rows,
                    size_t cols, size_t k0, size_t k1, size_t bytes)
{
    DR_BUG_IF(bytes != sizeof(uint32_t) && bytes != sizeof(uint16_t));
    if (bytes == sizeof(uint32_t))
        words(dst, stride, col0, src, rows, cols, k0, k1);
    else
        halves(dst, stride, col0, src, rows, cols, k0, k1);
}
