/*
 * gram.c - X^T X of a linear's inputs, summed over chunks of tokens.
 *
 * Whole (for GPTQ): the lower triangle in the strips that nn_i8_gram makes, 53 % of a
 * square of 1,536.
 * In blocks (for clip and scale searches): only the diagonal blocks of a group's width.
 */
#include "core/mem.h"
#include "quant/quant_impl.h"

enum { STRIP = NN_GRAM_STRIP, SQUARE = 32 };

/* Columns of the strip that begins at row r. */
static size_t strip_cols(size_t n, size_t r)
{
    return n - r < STRIP ? n : r + STRIP;
}

static size_t strip_rows(size_t n, size_t r)
{
    return n - r < STRIP ? n - r : STRIP;
}

typedef struct {
    float *h;
    const float *strips;
    size_t n;
    float rest;
} expand_job;

/* One strip and its mirror image, in squares, so that both stay in the cache. */
static dr_status expand_strip(void *ctx, size_t task, int worker)
{
    const expand_job *job = ctx;
    size_t n = job->n, r = task * STRIP, rows = strip_rows(n, r), cols = strip_cols(n, r);
    const float *from = job->strips;

    (void)worker;
    for (size_t before = 0; before < r; before += STRIP)
        from += STRIP * strip_cols(n, before);
    for (size_t c = 0; c < cols; c += SQUARE) {
        size_t end = c + SQUARE < cols ? c + SQUARE : cols;
        for (size_t i = 0; i < rows; i++) {
            for (size_t j = c; j < end && j <= r + i; j++)
                job->h[(r + i) * n + j] =
                    from[i * cols + j] * (j < r + i ? job->rest : 1.0f);
        }
        for (size_t j = c; j < end; j++) {
            for (size_t i = j > r ? j - r : 0; i < rows; i++)
                job->h[j * n + r + i] = job->h[(r + i) * n + j];
        }
    }
    return DR_OK;
}

dr_status quant_gram_expand(nn_device *dev, float *h, const float *strips, size_t n,
                            float rest)
{
    expand_job job = {h, strips, n, rest};

    if (quant_there(dev) != NULL)
        return nn_expand_gram(dev, h, strips, n, rest);
    return dr_pool_run(nn_device_pool(dev), (n + STRIP - 1) / STRIP, expand_strip, &job);
}

dr_status quant_gram_blocks_add(nn_device *dev, float *grams, const float *x, size_t m,
                                size_t n, size_t block, bool first)
{
    dr_status st = DR_OK;

    if (quant_there(dev) != NULL)
        return nn_gram_blocks(dev, grams, x, m, n, n, block, first);
    for (size_t c = 0; c < n; c += block)
        DR_TRY(nn_matmul_tn(dev, grams + c * block, x + c, x + c, block, block, m, n, n,
                            !first));
done:
    return st;
}
