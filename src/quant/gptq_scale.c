/*
 * gptq_scale.c - AWQ's scaling in front of GPTQ: a scale for each input of a slot, so that
 * channels with large activations get finer steps.
 *
 * GPTQ spreads an error over other columns, scaling makes it small where it would cost
 * most; the two complement each other.  Candidates are rms(x)^ratio, ranked by rounding to
 * nearest and the block-diagonal of the Hessian, which needs no more passes over text; and
 * by SAMPLE rows, evenly taken: a ratio is one number for all of them.
 * SmolLM2-135M, g64, 16k tokens, KL on held-out text: 0.147 without, 0.116 with the scales
 * of QKV and GATE_UP only.
 */
#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "quant/awq_impl.h"
#include "quant/tile_impl.h"

enum { ROWS = 64, SAMPLE = 256 };

/* Diagonal blocks of h, one below the other, and its diagonal. */
static dr_status cut_blocks(nn_device *dev, float *grams, float *diagonal, const float *h,
                            size_t k, size_t m)
{
    dr_status st = DR_OK;

    if (quant_there(dev) != NULL) {
        DR_TRY(nn_cut_blocks(dev, grams, h, NULL, k, m));
        DR_TRY(nn_cut_blocks(dev, diagonal, h, NULL, k, 1));
    }
    for (size_t i = 0; quant_there(dev) == NULL && i < k; i++) {
        memcpy(grams + i * m, h + i * k + i / m * m, m * sizeof(*grams));
        diagonal[i] = h[i * k + i];
    }
done:
    return st;
}

/* The diagonal becomes its root over the mean of all roots. */
static void relative_roots(float *rms, size_t k)
{
    double mean = 0;

    for (size_t i = 0; i < k; i++) {
        rms[i] = sqrtf(rms[i]);
        mean += (double)rms[i] / (double)k;
    }
    for (size_t i = 0; i < k && mean > 0; i++)
        rms[i] = (float)((double)rms[i] / mean);
}

/* count of the n rows of w, evenly. */
static dr_status sample_rows(nn_device *dev, float *to, const float *w, size_t n,
                             size_t count, size_t k)
{
    dr_status st = DR_OK;

    if (quant_there(dev) != NULL && n % count == 0) /* one copy of rows far apart */
        return nn_copy_matrix(dev, to, k, w, n / count * k, count, k, 1.0f);
    for (size_t i = 0; i < count; i++)
        DR_TRY(nn_copy(dev, to + i * k, w + i * n / count * k, k * sizeof(*to)));
done:
    return st;
}

dr_status quant_gptq_scale(float *scale, nn_device *dev, const float *w, const float *h,
                           size_t n, size_t k, const quant_grid *grid,
                           const hf_config *tied)
{
    const quant_rule rule = quant_rule_of(grid);
    double loss[AWQ_CANDIDATES] = {0};
    float *grams = NULL, *scales = NULL, *rms = NULL, *sample = NULL;
    size_t block = 0, best = 0, m = 0, count = n < SAMPLE ? n : SAMPLE;
    nn_device *mem = quant_there(dev);
    dr_status st = DR_OK;

    DR_TRY(quant_grid_block(&block, grid, k, "a linear"));
    m = quant_gram_cols(block);
    DR_TRY(quant_floats_at(mem, &grams, k, m, "Hessian blocks"));
    DR_TRY(quant_floats(&scales, AWQ_CANDIDATES + 1, k, "candidate scales"));
    DR_TRY(quant_floats_at(mem, &sample, count, k, "sampled rows"));
    rms = scales + AWQ_CANDIDATES * k;
    DR_TRY(cut_blocks(dev, grams, rms, h, k, m));
    relative_roots(rms, k);
    if (tied != NULL)
        quant_tie_heads(rms, tied);
    awq_candidates(scales, rms, NULL, k, false);
    DR_TRY(sample_rows(dev, sample, w, n, count, k));
    DR_TRY(awq_rank_ratios(dev, loss, sample, count, k, block, &rule, scales, grams, NULL));
    for (size_t i = 1; i < AWQ_CANDIDATES; i++) {
        if (loss[i] < loss[best])
            best = i;
    }
    memcpy(scale, scales + best * k, k * sizeof(*scale));
done:
    nn_mem_free(mem, grams);
    dr_big_free(scales);
    nn_mem_free(mem, sample);
    return st;
}

typedef struct {
    float *a;
    size_t rows, k;
    const float *scale;
    const float *row_scale; /* NULL: ones */
    bool divide;
} scale_job;

/* a[k] times by[k], or over by[k] times row. */
QUANT_CLONES
static void scale_row(float *restrict a, const float *restrict by, float row, bool divide,
                      size_t k)
{
    if (divide) {
        for (size_t i = 0; i < k; i++)
            a[i] = a[i] / (by[i] * row);
    } else {
        for (size_t i = 0; i < k; i++)
            a[i] = a[i] * by[i];
    }
}

static dr_status scale_rows(void *ctx, size_t task, int worker)
{
    const scale_job *job = ctx;
    size_t from = task * ROWS, to = from + ROWS < job->rows ? from + ROWS : job->rows;

    (void)worker;
    for (size_t r = from; r < to; r++)
        scale_row(job->a + r * job->k, job->scale,
                  job->row_scale == NULL ? 1.0f : job->row_scale[r], job->divide, job->k);
    return DR_OK;
}

static dr_status scale_matrix(nn_device *dev, const scale_job *job)
{
    scale_job copy = *job;

    if (quant_there(dev) != NULL)
        return nn_scale_matrix(dev, job->a, job->a, job->rows, job->k, job->scale,
                               job->row_scale, job->divide);
    return dr_pool_run(nn_device_pool(dev), (job->rows + ROWS - 1) / ROWS, scale_rows,
                       &copy);
}

dr_status quant_gptq_apply(nn_device *dev, float *w, float *h, size_t n, size_t k,
                           const float *scale)
{
    dr_status st = DR_OK;

    DR_TRY(scale_matrix(dev, &(scale_job){w, n, k, scale, NULL, false}));
    DR_TRY(scale_matrix(dev, &(scale_job){h, k, k, scale, scale, true}));
done:
    return st;
}

dr_status quant_gptq_unapply(nn_device *dev, float *w, size_t n, size_t k,
                             const float *scale)
{
    return scale_matrix(dev, &(scale_job){w, n, k, scale, NULL, true});
}
