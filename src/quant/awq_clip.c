/*
 * awq_clip.c - clips, rounds and packs scaled weights.
 *
 * Clipping is AutoAWQ's: each row's group is clamped to a share 1, 0.95, ..., 0.55 of its
 * greatest magnitude, by the least error of the group's own outputs.  That error over
 * tokens is e^T G e with the group's Gram matrix, so no tokens are looked at here.
 */
#include "core/mem.h"
#include "quant/awq_impl.h"

enum { L = QUANT_LANES };

static const quant_shrink awq_shrink = {QUANT_SHRINK_CLIP, 10, 20};

typedef struct {
    awq_rounding job;
    size_t row0, rows;
    float *scratch; /* owned: per worker three tiles of a group */
} clip_work;

/* tile[n][lane] *= scale[n], then / row_scale[lane]: the order in which AutoAWQ scales. */
static void scale_tile(float *tile, const awq_rounding *job, size_t col0, size_t n,
                       size_t row0, size_t rows)
{
    for (size_t c = 0; c < n; c++) {
        for (size_t l = 0; l < rows; l++) {
            float v = tile[c * L + l] * job->scale[col0 + c];
            tile[c * L + l] = job->row_scale == NULL ? v : v / job->row_scale[row0 + l];
        }
    }
}

static dr_status round_tile(void *ctx, size_t task, int worker)
{
    const clip_work *work = ctx;
    const awq_rounding *job = &work->job;
    const dr_qtensor *q = job->q;
    size_t at = task * L, row0 = work->row0 + at, cols = q->cols, block = (size_t)q->block;
    size_t rows = work->rows - at < L ? work->rows - at : L, gram = quant_gram_cols(block);
    float *tile = work->scratch + (size_t)worker * 3 * block * L, *codes = tile + block * L;
    float lo[L], hi[L], limit[L];
    quant_lanes g = {{0}, {0}};

    for (size_t c = 0; c < cols; c += block) {
        quant_tile_load(tile, job->w + row0 * cols + c, cols, rows, block);
        scale_tile(tile, job, c, block, row0, rows);
        if (job->grams != NULL) {
            quant_shrink_search(&g, limit, &job->search, &awq_shrink, tile, block,
                                job->grams + c * gram, gram, codes);
            quant_tile_clamp(tile, limit, block);
        }
        if (!quant_tile_range(lo, hi, tile, block))
            return dr_fail(DR_EFORMAT, "rows %zu to %zu hold a weight that is not finite",
                           row0, row0 + rows - 1);
        quant_rule_fit(&g, &job->final, lo, hi);
        quant_tile_codes(codes, &job->final, &g, tile, block);
        quant_tile_pack(job->q, row0, rows, c / block, codes, block, &g);
        for (size_t l = 0; job->limits != NULL && job->grams != NULL && l < rows; l++)
            job->limits[(row0 + l) * (cols / block) + c / block] = limit[l];
    }
    return DR_OK;
}

dr_status awq_round_rows(nn_device *dev, const awq_rounding *job, size_t row0, size_t rows)
{
    dr_pool *pool = nn_device_pool(dev);
    clip_work work = {.job = *job, .row0 = row0, .rows = rows};
    dr_status st = DR_OK;
    void *p = NULL;

    DR_TRY(dr_big_alloc(&p, (size_t)dr_pool_threads(pool),
                        3 * (size_t)job->q->block * L * sizeof(float), "rounding scratch"));
    work.scratch = p;
    DR_TRY(dr_pool_run(pool, (rows + L - 1) / L, round_tile, &work));
done:
    dr_big_free(p);
    return st;
}
