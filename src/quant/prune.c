/*
 * prune.c - one weight made sparse for its inputs, by SparseGPT (Frantar and Alistarh
 * 2023).
 *
 * As in GPTQ (gptq_sweep.c), with H = A A^T, A upper triangular, a column k that comes
 * after fixed ones stands best at
 *
 *     w_k + sum over i < k of (w_i - q_i) A_ik / A_kk
 *
 * and setting it to zero costs the square of that times A_kk^2.  Before each block of
 * columns all of them get their best values as if none of the block were fixed; those that
 * cost least become zero, a share of all rows' at once, or n of each m in every row.  What
 * is kept moves to its best value.
 *
 * Cost: n^3/3 + 1.5 rows n^2 multiply-adds; memory: n^2 floats, three of the weight.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "quant/quant_impl.h"

enum { TASK_ROWS = 16 };

typedef struct {
    const quant_prune_options *o;
    size_t rows, n, p0, nb;
    const float *orig; /* owned: [rows][n] */
    float *adj;        /* owned: [rows][n] best values for the errors of earlier blocks */
    float *w;          /* borrowed: [rows][n] the result */
    float *within;     /* owned: [nb][nb] A_ik / A_kk, k > i */
    float *pivot;      /* owned: [nb] A_kk */
    float *delta;      /* owned: [rows][nb] */
    float *score;      /* owned: [rows][nb] */
    float *sorted;     /* owned: [rows][nb] */
    float limit;       /* scores up to this one become zero */
} pruning;

/* best[k] for columns from `at` on, when only those before it are fixed. */
static void look_ahead(float *best, const pruning *s, const float *adj, const float *orig,
                       const float *delta, size_t at, size_t end)
{
    float err[QUANT_PRUNE_BLOCK];

    memcpy(err, delta, at * sizeof(*err));
    for (size_t k = at; k < end; k++) {
        float v = adj[k];
        for (size_t i = 0; i < k; i++)
            v += err[i] * s->within[i * s->nb + k];
        best[k] = v;
        err[k] = orig[k] - v;
    }
}

static dr_status score_rows(void *ctx, size_t task, int worker)
{
    const pruning *s = ctx;
    size_t end = (task + 1) * TASK_ROWS < s->rows ? (task + 1) * TASK_ROWS : s->rows;
    float best[QUANT_PRUNE_BLOCK];

    (void)worker;
    for (size_t r = task * TASK_ROWS; r < end; r++) {
        size_t at = r * s->n + s->p0;
        look_ahead(best, s, s->adj + at, s->orig + at, s->delta + r * s->nb, 0, s->nb);
        for (size_t k = 0; k < s->nb; k++)
            s->score[r * s->nb + k] = best[k] * best[k] * s->pivot[k] * s->pivot[k];
    }
    return DR_OK;
}

/* Marks the n cheapest of the m columns from k on; among equals the first. */
static void choose_of(bool *zero, const pruning *s, const float *best, size_t k)
{
    size_t end = k + (size_t)s->o->m < s->nb ? k + (size_t)s->o->m : s->nb;

    for (size_t i = k; i < end; i++) {
        float own = best[i] * best[i] * s->pivot[i] * s->pivot[i];
        int before = 0;
        for (size_t j = k; j < end; j++) {
            float other = best[j] * best[j] * s->pivot[j] * s->pivot[j];
            before += other < own || (other == own && j < i);
        }
        zero[i] = before < s->o->n;
    }
}

static dr_status prune_rows(void *ctx, size_t task, int worker)
{
    const pruning *s = ctx;
    size_t end = (task + 1) * TASK_ROWS < s->rows ? (task + 1) * TASK_ROWS : s->rows;
    float best[QUANT_PRUNE_BLOCK];
    bool zero[QUANT_PRUNE_BLOCK] = {false};

    (void)worker;
    for (size_t r = task * TASK_ROWS; r < end; r++) {
        size_t at = r * s->n + s->p0;
        float *delta = s->delta + r * s->nb;
        for (size_t k = 0; k < s->nb; k++) {
            if (s->o->m > 0 && k % (size_t)s->o->m == 0) {
                size_t to = k + (size_t)s->o->m < s->nb ? k + (size_t)s->o->m : s->nb;
                look_ahead(best, s, s->adj + at, s->orig + at, delta, k, to);
                choose_of(zero, s, best, k);
            }
            if (s->o->m == 0)
                zero[k] = s->score[r * s->nb + k] <= s->limit;
            look_ahead(best, s, s->adj + at, s->orig + at, delta, k, k + 1);
            s->w[at + k] = zero[k] ? 0.0f : best[k];
            delta[k] = s->orig[at + k] - s->w[at + k];
        }
    }
    return DR_OK;
}

static int by_value(const void *a, const void *b)
{
    const float *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static void find_limit(pruning *s)
{
    size_t count = s->rows * s->nb, at = (size_t)((double)count * s->o->sparsity);

    memcpy(s->sorted, s->score, count * sizeof(*s->sorted));
    qsort(s->sorted, count, sizeof(*s->sorted), by_value);
    s->limit = at > 0 ? s->sorted[at - 1] : -1.0f;
}

static dr_status prune_blocks(pruning *s, nn_device *dev, float *spread, const float *f)
{
    dr_pool *pool = nn_device_pool(dev);
    size_t tasks = (s->rows + TASK_ROWS - 1) / TASK_ROWS, block = (size_t)s->o->blocksize;
    dr_status st = DR_OK;

    for (s->p0 = 0; s->p0 < s->n; s->p0 += block) {
        s->nb = s->n - s->p0 < block ? s->n - s->p0 : block;
        size_t rest = s->n - s->p0 - s->nb;
        DR_TRY(dr_cancelled_check());
        DR_TRY(quant_gptq_cut(pool, s->within, s->pivot, spread, f, s->n, s->p0, s->nb));
        if (s->o->m == 0) {
            DR_TRY(dr_pool_run(pool, tasks, score_rows, s));
            find_limit(s);
        }
        DR_TRY(dr_pool_run(pool, tasks, prune_rows, s));
        if (rest > 0)
            DR_TRY(nn_matmul_nt(dev, s->adj + s->p0 + s->nb, s->delta, spread, NULL,
                                s->rows, rest, s->nb, s->n, true));
    }
done:
    return st;
}

dr_status quant_prune_solve(nn_device *dev, float *w, const float *h, size_t rows, size_t n,
                            const quant_prune_options *o, const char *name)
{
    pruning s = {.o = o, .rows = rows, .n = n, .w = w};
    size_t nb = (size_t)o->blocksize < n ? (size_t)o->blocksize : n;
    float *orig = NULL, *factor = NULL, *spread = NULL;
    dr_status st = DR_OK;

    DR_TRY(quant_floats(&orig, rows, n, "weight to prune"));
    DR_TRY(quant_floats(&s.adj, rows, n, "weight to prune"));
    DR_TRY(quant_floats(&factor, n, n, "factor of the Hessian"));
    DR_TRY(quant_floats(&spread, n, nb, "columns of the factor"));
    DR_TRY(quant_floats(&s.within, nb + 1, nb, "columns of the factor"));
    DR_TRY(quant_floats(&s.delta, rows, nb, "errors of a block"));
    DR_TRY(quant_floats(&s.score, rows, nb, "costs of a block"));
    DR_TRY(quant_floats(&s.sorted, rows, nb, "costs of a block"));
    s.pivot = s.within + nb * nb;
    for (size_t i = 0; i < rows * n; i++) /* columns without inputs become zero */
        orig[i] = h[i % n * n + i % n] > 0.0f ? w[i] : 0.0f;
    memcpy(s.adj, orig, rows * n * sizeof(*orig));
    s.orig = orig;
    DR_TRY(quant_gptq_factor(factor, dev, h, n, o->damp_percent, name));
    DR_TRY(prune_blocks(&s, dev, spread, factor));
done:
    dr_big_free(orig);
    dr_big_free(s.adj);
    dr_big_free(factor);
    dr_big_free(spread);
    dr_big_free(s.within);
    dr_big_free(s.delta);
    dr_big_free(s.score);
    dr_big_free(s.sorted);
    return st;
}
