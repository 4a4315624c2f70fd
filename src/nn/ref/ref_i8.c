/*
 * ref_i8.c - integer products as nn.h defines them, in plain loops.  A packed weight is
 * its scales [N][blocks], then its codes [N][K].
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "nn/ref/ref_impl.h"

static size_t blocks_of(size_t k)
{
    return (k + NN_I8_BLOCK - 1) / NN_I8_BLOCK;
}

/* One block of values `step` apart. */
static void quantize(int8_t *codes, float *scale, const float *x, size_t step, size_t count)
{
    float max = 0.0f;
    bool finite = true;

    for (size_t i = 0; i < count; i++) {
        finite = finite && isfinite(x[i * step]);
        max = fabsf(x[i * step]) > max ? fabsf(x[i * step]) : max;
    }
    bool zero = !finite || max < 1e-30f;
    float inverse = zero ? 0.0f : (float)NN_I8_TOP / max;
    for (size_t i = 0; i < count; i++)
        codes[i] = zero ? 0 : (int8_t)lrintf(x[i * step] * inverse);
    *scale = !finite ? NAN : zero ? 0.0f : max / (float)NN_I8_TOP;
}

static void quantize_row(int8_t *codes, float *scales, const float *x, size_t step,
                         size_t k)
{
    for (size_t at = 0; at < k; at += NN_I8_BLOCK) {
        size_t n = k - at < NN_I8_BLOCK ? k - at : NN_I8_BLOCK;
        quantize(codes + at, scales + at / NN_I8_BLOCK, x + at * step, step, n);
    }
}

static float product(float value, const int8_t *a, const float *sa, const int8_t *b,
                     const float *sb, size_t k)
{
    for (size_t at = 0; at < k; at += NN_I8_BLOCK, sa++, sb++) {
        int32_t sum = 0;
        for (size_t i = at; i < k && i < at + NN_I8_BLOCK; i++)
            sum += a[i] * b[i];
        float term = (float)sum * (*sa * *sb);
        value = value + term;
    }
    return value;
}

dr_status ref_i8_pack(nn_device *dev, void *packed, const float *w, size_t n, size_t k)
{
    float *scales = packed;
    int8_t *codes = (int8_t *)(scales + n * blocks_of(k));

    (void)dev;
    for (size_t j = 0; j < n; j++)
        quantize_row(codes + j * k, scales + j * blocks_of(k), w + j * k, 1, k);
    return DR_OK;
}

dr_status ref_i8_matmul(nn_device *dev, float *y, const float *x, const void *packed,
                        const float *bias, size_t m, size_t n, size_t k, size_t ldy,
                        bool acc)
{
    size_t blocks = blocks_of(k);
    const float *scales = packed;
    const int8_t *codes = (const int8_t *)(scales + n * blocks);
    int8_t *row = dr_calloc(k, sizeof(*row));
    float *sa = dr_calloc(blocks, sizeof(*sa));

    (void)dev;
    for (size_t i = 0; i < m; i++) {
        quantize_row(row, sa, x + i * k, 1, k);
        for (size_t j = 0; j < n; j++) {
            float *to = &y[i * ldy + j];
            *to = product(acc ? *to : 0.0f, row, sa, codes + j * k, scales + j * blocks, k);
            if (bias != NULL)
                *to += bias[j];
        }
    }
    free(row);
    free(sa);
    return DR_OK;
}

dr_status ref_i8_gram(nn_device *dev, float *strips, const float *x, size_t m, size_t n,
                      bool first)
{
    size_t blocks = blocks_of(m);
    int8_t *codes = NULL;
    float *scales = dr_calloc(n * blocks, sizeof(*scales));
    void *p = NULL;
    dr_status st = DR_OK;

    (void)dev;
    DR_TRY(dr_big_alloc(&p, n * m, sizeof(*codes), "codes of a Gram matrix"));
    codes = p;
    for (size_t j = 0; j < n; j++)
        quantize_row(codes + j * m, scales + j * blocks, x + j, n, m);
    for (size_t r = 0; r < n; r += NN_GRAM_STRIP) {
        size_t end = n - r < NN_GRAM_STRIP ? n : r + NN_GRAM_STRIP;
        for (size_t i = r; i < end; i++) {
            for (size_t j = 0; j < end; j++, strips++)
                *strips =
                    product(first ? 0.0f : *strips, codes + i * m, scales + i * blocks,
                            codes + j * m, scales + j * blocks, m);
        }
    }
done:
    dr_big_free(p);
    free(scales);
    return st;
}
