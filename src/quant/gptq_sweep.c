/*
 * gptq_sweep.c - the columns of one block, one by one, for sixteen rows.
 *
 * Column k is rounded at w_k + sum_{i<k} (w_i - q_i) A_ik / A_kk, where H = A A^T with A
 * upper triangular: the value that makes up best for the columns rounded before.  (GPTQ's
 * usual form with U = A^-1 spreads (w_k - q_k) / U_kk times U's row; it is the same number,
 * but needs the inverse.)  Sums over earlier blocks are in adj already.
 *
 * Eight columns are finished at a time and then spread over the rest of the block together,
 * so that each later column is loaded and stored once for eight errors.
 */
#include <string.h>

#include "quant/quant_impl.h"
#include "quant/tile_impl.h"

enum { L = QUANT_LANES, NB = QUANT_SWEEP, STEP = 8 };

/* Candidate ranges: 36/36, 35/36, ..., 20/36 of the full one. */
static const quant_shrink sweep_shrink = {NN_SHRINK_BOTH, 17, 36};

size_t quant_sweep_floats(size_t group)
{
    return (4 * NB + 3 * group) * L;
}

/* cur[k] += delta[i] * spread[i][k] for i in [i0, i1), k in [k0, n). */
QUANT_CLONES
static void spread_errors(float *restrict cur, const float *restrict delta,
                          const float *restrict spread, size_t n, size_t i0, size_t i1,
                          size_t k0)
{
    for (size_t k = k0; k < n; k++) {
        float acc[L];
        memcpy(acc, cur + k * L, sizeof(acc));
        for (size_t i = i0; i < i1; i++) {
            float f = spread[i * n + k];
            for (int l = 0; l < L; l++)
                acc[l] += delta[i * L + l] * f;
        }
        memcpy(cur + k * L, acc, sizeof(acc));
    }
}

/*
 * w[n] = what the group's columns would be if none of them were rounded: each takes over
 * the errors of all columns before the group (cur) and the changes of those before it
 * within the group.  This is the weight as GPTQ's usual form has it at this point.
 */
QUANT_CLONES
static void complete_group(float *restrict w, const float *restrict cur,
                           const float *restrict orig, const float *restrict spread,
                           size_t ld, size_t n)
{
    memcpy(w, cur, n * L * sizeof(*w));
    for (size_t i = 0; i < n; i++) {
        float delta[L];
        for (int l = 0; l < L; l++)
            delta[l] = orig[i * L + l] - w[i * L + l];
        for (size_t k = i + 1; k < n; k++) {
            float f = spread[i * ld + k];
            for (int l = 0; l < L; l++)
                w[k * L + l] += delta[l] * f;
        }
    }
}

/* The weights that the grid of the group at column p is made for, into w; j: p within the
 * block, whose tiles are cur and orig. */
static void group_weights(const quant_sweep *s, float *w, size_t tile, size_t j,
                          const float *cur, const float *orig, float *scratch)
{
    size_t block = (size_t)s->q->block, cols = s->q->cols, at = tile * L * cols + s->p0 + j;
    size_t rows = s->q->rows - tile * L < L ? s->q->rows - tile * L : L;

    if (s->static_groups || s->p0 + j == 0) {
        quant_tile_load(w, s->orig + at, cols, rows, block);
    } else if (block <= s->n) {
        complete_group(w, cur + j * L, orig + j * L, s->spread + j * s->n + j, s->n, block);
    } else {
        float *far_orig = scratch + block * L;
        quant_tile_load(scratch, s->adj + at, cols, rows, block);
        quant_tile_load(far_orig, s->orig + at, cols, rows, block);
        complete_group(w, scratch, far_orig, s->group_spread, block, block);
    }
}

/* The grid of the group that begins at column j of the block. */
static void open_group(const quant_sweep *s, quant_lanes *g, size_t tile, size_t j,
                       const float *cur, const float *orig, float *scratch)
{
    size_t block = (size_t)s->q->block, blocks = dr_qtensor_blocks(s->q), p = s->p0 + j;
    size_t row0 = tile * L, rows = s->q->rows - row0 < L ? s->q->rows - row0 : L;
    size_t at = s->order[p] / block;
    float *w = scratch, lo[L], hi[L];

    scratch += block * L;
    group_weights(s, w, tile, j, cur, orig, scratch);
    if (s->grams != NULL) {
        quant_shrink_search(g, NULL, &s->rule, &sweep_shrink, w, block,
                            s->grams + p * s->gram, s->gram, scratch);
    } else {
        (void)quant_tile_range(lo, hi, w, block);
        quant_rule_fit(g, &s->rule, lo, hi);
    }
    for (size_t l = 0; l < rows; l++) {
        s->q->scales[(row0 + l) * blocks + at] = g->scale[l];
        if (s->q->zeros != NULL)
            dr_qtensor_set_zero(s->q, row0 + l, at, (int)g->zero[l]);
    }
}

/* Rounds cur[k] to value[k] and sets delta[k]; adds the squared errors to loss. */
QUANT_INLINE void round_column(float *restrict value, float *restrict delta,
                               float *restrict loss, const float *restrict cur,
                               const float *restrict orig, const quant_lanes *g, float top,
                               float pivot)
{
    for (int l = 0; l < L; l++) {
        float code = nn_grid_code(cur[l], g->scale[l], g->zero[l], top);
        float v = (code - g->zero[l]) * g->scale[l], e = (cur[l] - v) * pivot;
        value[l] = v;
        delta[l] = orig[l] - v;
        loss[l] += e * e;
    }
}

QUANT_CLONES
static void round_step(float *restrict value, float *restrict delta, float *restrict loss,
                       float *restrict cur, const float *restrict orig,
                       const quant_sweep *s, const quant_lanes *g, size_t j, size_t end)
{
    const float top = (float)((1 << s->rule.bits) - 1);

    for (; j < end; j++) {
        round_column(value + j * L, delta + j * L, loss, cur + j * L, orig + j * L, g, top,
                     s->pivot[j]);
        for (size_t k = j + 1; k < end; k++) {
            float f = s->spread[j * s->n + k];
            for (int l = 0; l < L; l++)
                cur[k * L + l] += delta[j * L + l] * f;
        }
    }
}

dr_status quant_sweep_tile(void *ctx, size_t task, int worker)
{
    const quant_sweep *s = ctx;
    size_t block = (size_t)s->q->block, cols = s->q->cols, n = s->n;
    size_t row0 = task * L, rows = s->q->rows - row0 < L ? s->q->rows - row0 : L;
    float *cur = s->scratch + (size_t)worker * quant_sweep_floats(block);
    float *orig = cur + NB * L, *value = orig + NB * L, *delta = value + NB * L;
    float loss[L] = {0};
    quant_lanes *g = &s->grids[task];

    quant_tile_load(cur, s->adj + row0 * cols + s->p0, cols, rows, n);
    quant_tile_load(orig, s->orig + row0 * cols + s->p0, cols, rows, n);
    for (size_t j = 0; j < n; j += STEP) {
        size_t end = j + STEP < n ? j + STEP : n;
        if ((s->p0 + j) % block == 0)
            open_group(s, g, task, j, cur, orig, delta + NB * L);
        round_step(value, delta, loss, cur, orig, s, g, j, end);
        spread_errors(cur, delta, s->spread, n, j, end, end);
    }
    for (size_t l = 0; l < rows; l++) {
        float *to = s->values + (row0 + l) * cols;
        for (size_t j = 0; j < n; j++)
            to[s->order[s->p0 + j]] = value[j * L + l];
    }
    quant_tile_unload(s->delta + row0 * n, n, rows, delta, n);
    for (size_t l = 0; l < rows; l++)
        s->loss[task] += (double)loss[l];
    return DR_OK;
}
