/*
 * gram.c - X^T X of a linear's inputs, summed over chunks of tokens.
 *
 * Whole (for GPTQ): the lower triangle in strips of 96 rows, each a matrix product of its
 * own with as many columns as the triangle needs there: 53 % of a square of 1,536.
 * In blocks (for clip and scale searches): only the diagonal blocks of a group's width.
 */
#include "core/mem.h"
#include "quant/quant_impl.h"

enum { STRIP = 96 };

/* Columns of the strip that begins at row r. */
static size_t strip_cols(size_t n, size_t r)
{
    return n - r < STRIP ? n : r + STRIP;
}

static size_t strip_rows(size_t n, size_t r)
{
    return n - r < STRIP ? n - r : STRIP;
}

size_t quant_gram_floats(size_t n)
{
    size_t sum = 0;

    for (size_t r = 0; r < n; r += STRIP)
        sum += strip_rows(n, r) * strip_cols(n, r);
    return sum;
}

dr_status quant_gram_add(nn_device *dev, float *strips, const float *x, size_t m, size_t n,
                         bool first)
{
    dr_status st = DR_OK;

    for (size_t r = 0; r < n; r += STRIP) {
        size_t rows = strip_rows(n, r), cols = strip_cols(n, r);
        DR_TRY(nn_matmul_tn(dev, strips, x + r, x, rows, cols, m, n, n, !first));
        strips += rows * cols;
    }
done:
    return st;
}

void quant_gram_expand(float *h, const float *strips, size_t n)
{
    for (size_t r = 0; r < n; r += STRIP) {
        size_t rows = strip_rows(n, r), cols = strip_cols(n, r);
        for (size_t i = 0; i < rows; i++) {
            for (size_t j = 0; j <= r + i; j++) {
                h[(r + i) * n + j] = strips[i * cols + j];
                h[j * n + r + i] = strips[i * cols + j];
            }
        }
        strips += rows * cols;
    }
}

dr_status quant_gram_blocks_add(nn_device *dev, float *grams, const float *x, size_t m,
                                size_t n, size_t block, bool first)
{
    dr_status st = DR_OK;

    for (size_t c = 0; c < n; c += block)
        DR_TRY(nn_matmul_tn(dev, grams + c * block, x + c, x + c, block, block, m, n, n,
                            !first));
done:
    return st;
}
