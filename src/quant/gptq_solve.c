/*
 * gptq_solve.c - one weight rounded by GPTQ (Frantar et al. 2023): factor of the Hessian,
 * column order, the sweep over blocks of columns, bytes.
 *
 * With H = A A^T, A upper triangular, the sweep needs A only (gptq_sweep.c says why), and A
 * is the Cholesky factor of H read backwards from its last row and column: one
 * factorisation and no inverse.  After each block of 128 columns its errors are spread
 * over all later columns by one matrix product.
 *
 * Columns that never see an input (H_jj = 0) are set to zero.  Damping adds a share of the
 * mean diagonal; when the factorisation fails all the same it is raised tenfold, four
 * times.
 *
 * Rows depend on each other in nothing: a large weight is swept in slices of them.
 *
 * Cost: n^3/3 + rows n^2 multiply-adds; memory: n^2 floats for the factor, a copy of a
 * slice of the weight (two with desc_act) and the diagonal blocks.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "quant/quant_impl.h"

enum {
    L = QUANT_LANES,
    NB = QUANT_SWEEP,
    RAISES = 4,
    TASK_ROWS = 32,
    SLICE_FLOATS = 1 << 23,
    SLICE_ROWS = 512 /* at least: fewer would cut the factor too often */
};

typedef struct {
    nn_device *dev;
    const float *h;        /* borrowed: [n][n] */
    size_t rows, n, block; /* rows: of a slice */
    const quant_gptq_options *o;
    const char *name;
    size_t *order;      /* owned: [n] */
    bool *live;         /* owned: [n] columns that see an input */
    float *factor;      /* owned: [n][n], lower factor of H backwards */
    float *orig;        /* [rows][n]; owned when the order is not the natural one */
    float *adj;         /* owned: [rows][n] */
    float *grams;       /* owned: [n][gram], or NULL */
    float *delta;       /* owned: [rows][NB] */
    float *spread;      /* owned: [n][NB] panel, then [NB][NB], then [NB] pivots */
    float *wide;        /* owned: [block][block] of a group wider than NB, or NULL */
    float *scratch;     /* owned */
    double *loss;       /* owned: [tiles of a slice] */
    quant_lanes *grids; /* owned: the same */
} solver;

static void solver_release(solver *s)
{
    void *all[] = {s->factor, s->orig,   s->adj,  s->grams,
                   s->delta,  s->spread, s->wide, s->scratch};

    for (size_t i = 0; i < DR_COUNT(all); i++)
        dr_big_free(all[i]);
    free(s->order);
    free(s->live);
    free(s->loss);
    free(s->grids);
    *s = (solver){0};
}

static dr_status solver_init(solver *s, size_t workers)
{
    size_t n = s->n, tiles = (s->rows + L - 1) / L;
    size_t gram = quant_gram_cols(s->block);
    dr_status st = DR_OK;

    s->order = dr_calloc(n, sizeof(*s->order));
    s->live = dr_calloc(n, sizeof(*s->live));
    for (size_t i = 0; i < n; i++)
        s->live[i] = s->h[i * n + i] > 0.0f;
    s->loss = dr_calloc(tiles, sizeof(*s->loss));
    s->grids = dr_calloc(tiles, sizeof(*s->grids));
    DR_TRY(quant_room(&s->factor, n, n, "factor of the Hessian"));
    DR_TRY(quant_room(&s->adj, s->rows, n, "weight to round"));
    if (s->o->desc_act)
        DR_TRY(quant_room(&s->orig, s->rows, n, "weight in order"));
    if (!s->o->minmax)
        DR_TRY(quant_room(&s->grams, n, gram, "diagonal blocks"));
    DR_TRY(quant_room(&s->delta, s->rows, NB, "errors of a block"));
    DR_TRY(quant_room(&s->spread, n + NB + 1, NB, "columns of the factor"));
    DR_TRY(quant_room(&s->scratch, workers, quant_sweep_floats(s->block), "sweep scratch"));
done:
    return st;
}

/* ---- order ---- */

typedef struct {
    float key;
    size_t at;
} ranked;

/* Greatest key first; equal ones in natural order. */
static int by_key(const void *a, const void *b)
{
    const ranked *x = a, *y = b;

    if (x->key != y->key)
        return x->key > y->key ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

void quant_gptq_order(size_t *to, const float *diagonal, size_t step, size_t n,
                      size_t block, bool desc_act)
{
    size_t groups = n / block;

    if (!desc_act) {
        for (size_t i = 0; i < n; i++)
            to[i] = i;
        return;
    }
    ranked *cols = dr_calloc(n, sizeof(*cols)), *order = dr_calloc(groups, sizeof(*order));
    for (size_t i = 0; i < n; i++)
        cols[i] = (ranked){diagonal[i * step], i};
    for (size_t g = 0; g < groups; g++) {
        qsort(cols + g * block, block, sizeof(*cols), by_key);
        order[g] = (ranked){cols[g * block].key, g};
    }
    qsort(order, groups, sizeof(*order), by_key);
    for (size_t g = 0; g < groups; g++) {
        for (size_t i = 0; i < block; i++)
            to[g * block + i] = cols[order[g].at * block + i].at;
    }
    free(cols);
    free(order);
}

/* ---- the factor ---- */

double quant_gptq_mean(const float *diagonal, size_t step, size_t n)
{
    double sum = 0;
    size_t live = 0;

    for (size_t i = 0; i < n; i++) {
        double d = (double)diagonal[i * step];
        sum += d;
        live += d > 0;
    }
    return live > 0 ? sum / (double)live : 1.0;
}

typedef struct {
    solver *s;
    double mean, damp;
    float *w;
} rows_job;

/* factor = the damped Hessian in processing order, backwards; zeros above its diagonal. */
static dr_status fill_factor(void *ctx, size_t task, int worker)
{
    const rows_job *job = ctx;
    const solver *s = job->s;
    size_t n = s->n, end = (task + 1) * TASK_ROWS < n ? (task + 1) * TASK_ROWS : n;

    (void)worker;
    for (size_t i = task * TASK_ROWS; i < end; i++) {
        const float *row = s->h + s->order[n - 1 - i] * n;
        float *to = s->factor + i * n;
        for (size_t j = 0; j < i; j++)
            to[j] = row[s->order[n - 1 - j]];
        double d = (double)row[s->order[n - 1 - i]];
        to[i] = (float)((d > 0 ? d : job->mean) + job->damp * job->mean);
        memset(to + i + 1, 0, (n - 1 - i) * sizeof(*to));
    }
    return DR_OK;
}

dr_status quant_gptq_raise(double damp, const char *name, quant_factor_try attempt,
                           void *ctx)
{
    bool definite = false;
    dr_status st = DR_OK;

    for (int i = 0; i <= RAISES; i++) {
        DR_TRY(attempt(ctx, damp, &definite));
        if (definite)
            goto done;
        damp = damp > 0 ? damp * 10 : 1e-4;
        dr_log(DR_INFO, "%s: the Hessian is not positive definite; damping raised to %g",
               name, damp);
    }
    st = dr_fail(DR_EFORMAT, "%s: the Hessian is not positive definite with damping %g",
                 name, damp / 10);
    dr_hint("the calibration text may be too short, or a weight is not finite");
done:
    return st;
}

static dr_status try_factor(void *ctx, double damp, bool *definite)
{
    solver *s = ctx;
    rows_job job = {s, quant_gptq_mean(s->h, s->n + 1, s->n), damp, NULL};
    dr_status st = DR_OK;

    DR_TRY(dr_pool_run(nn_device_pool(s->dev), (s->n + TASK_ROWS - 1) / TASK_ROWS,
                       fill_factor, &job));
    DR_TRY(quant_cholesky(s->dev, s->factor, s->n, definite));
done:
    return st;
}

static dr_status factorize(solver *s)
{
    return quant_gptq_raise(s->o->damp_percent, s->name, try_factor, s);
}

dr_status quant_gptq_factor(float *factor, nn_device *dev, const float *h, size_t n,
                            double damp_percent, const char *name)
{
    const quant_gptq_options o = {.damp_percent = damp_percent};
    solver s = {.dev = dev, .h = h, .n = n, .o = &o, .name = name, .factor = factor};
    dr_status st = DR_OK;

    s.order = dr_calloc(n, sizeof(*s.order));
    quant_gptq_order(s.order, NULL, 0, n, n, false);
    st = factorize(&s);
    free(s.order);
    return st;
}

/* ---- weights in order ---- */

static dr_status load_weights(void *ctx, size_t task, int worker)
{
    const rows_job *job = ctx;
    const solver *s = job->s;
    size_t n = s->n, row0 = task * TASK_ROWS, end = row0 + TASK_ROWS;

    (void)worker;
    end = end < s->rows ? end : s->rows;
    for (size_t r = row0; r < end; r++) {
        float *to = s->adj + r * n;
        for (size_t j = 0; j < n; j++) {
            size_t at = s->order[j];
            to[j] = s->live[at] ? job->w[r * n + at] : 0.0f;
        }
    }
    /* dead columns are zero there too */
    memcpy((s->orig != NULL ? s->orig : job->w) + row0 * n, s->adj + row0 * n,
           (end - row0) * n * sizeof(float));
    return DR_OK;
}

static void load_grams(solver *s)
{
    size_t n = s->n, m = quant_gram_cols(s->block);

    if (s->grams == NULL)
        return;
    for (size_t i = 0; i < n; i++) {
        const float *row = s->h + s->order[i] * n;
        for (size_t j = 0; j < m; j++)
            s->grams[i * m + j] = row[s->order[i / m * m + j]];
    }
}

/* ---- the sweep ---- */

typedef struct {
    float *spread;
    const float *factor;
    size_t n, last, nb; /* last: the factor is read backwards from there */
} cut_job;

/* TASK_ROWS of the columns after the block: a row of them at a time lies in the first cache
 * with where it goes. */
static dr_status cut_task(void *ctx, size_t task, int worker)
{
    const cut_job *j = ctx;
    size_t from = j->nb + task * TASK_ROWS, end = from + TASK_ROWS;
    float diagonal[TASK_ROWS];

    (void)worker;
    end = end < j->last + 1 ? end : j->last + 1;
    for (size_t k = from; k < end; k++)
        diagonal[k - from] = j->factor[(j->last - k) * (j->n + 1)];
    for (size_t i = 0; i < j->nb; i++) {
        const float *row = j->factor + (j->last - i) * j->n + j->last;
        for (size_t k = from; k < end; k++)
            j->spread[(k - j->nb) * j->nb + i] = *(row - k) / diagonal[k - from];
    }
    return DR_OK;
}

dr_status quant_gptq_cut(dr_pool *pool, float *within, float *pivot, float *spread,
                         const float *factor, size_t n, size_t p0, size_t nb)
{
    cut_job job = {spread, factor, n, n - 1 - p0, nb};

    for (size_t k = 0; k < nb; k++)
        pivot[k] = factor[(job.last - k) * (n + 1)];
    for (size_t i = 0; i < nb; i++) {
        const float *row = factor + (job.last - i) * n + job.last;
        for (size_t k = 0; k < nb; k++)
            within[i * nb + k] = k > i ? *(row - k) / pivot[k] : 0.0f;
    }
    return dr_pool_run(pool, (n - p0 - nb + TASK_ROWS - 1) / TASK_ROWS, cut_task, &job);
}

/* A_ik / A_kk within the group at p0, when it is wider than a block. */
static void cut_group(const solver *s, size_t p0)
{
    size_t n = s->n;
    const float *f = s->factor;

    for (size_t i = 0; s->wide != NULL && p0 % s->block == 0 && i < s->block; i++) {
        for (size_t k = i + 1; k < s->block; k++) {
            size_t r = n - 1 - p0 - i, c = n - 1 - p0 - k;
            s->wide[i * s->block + k] = f[r * n + c] / f[c * n + c];
        }
    }
}

static dr_status sweep(solver *s, dr_qtensor *q, float *values, const quant_rule *rule)
{
    size_t n = s->n, tiles = (s->rows + L - 1) / L;
    float *within = s->spread + n * NB, *pivot = within + NB * NB;
    quant_sweep job = {.q = q,
                       .rule = *rule,
                       .order = s->order,
                       .orig = s->orig != NULL ? s->orig : values,
                       .adj = s->adj,
                       .values = values,
                       .grams = s->grams,
                       .gram = quant_gram_cols(s->block),
                       .static_groups = s->o->static_groups,
                       .grids = s->grids,
                       .loss = s->loss,
                       .scratch = s->scratch,
                       .spread = within,
                       .group_spread = s->wide,
                       .pivot = pivot,
                       .delta = s->delta};
    dr_status st = DR_OK;

    for (size_t p = 0; p < n; p += NB) {
        size_t nb = n - p < NB ? n - p : NB, rest = n - p - nb;
        DR_TRY(dr_cancelled_check());
        DR_TRY(quant_gptq_cut(nn_device_pool(s->dev), within, pivot, s->spread, s->factor,
                              n, p, nb));
        cut_group(s, p);
        job.p0 = p;
        job.n = nb;
        DR_TRY(dr_pool_run(nn_device_pool(s->dev), tiles, quant_sweep_tile, &job));
        if (rest > 0)
            DR_TRY(nn_matmul_nt(s->dev, s->adj + p + nb, s->delta, s->spread, NULL, s->rows,
                                rest, nb, n, true));
    }
done:
    return st;
}

/* ---- bytes ---- */

typedef struct {
    dr_qtensor *q;
    quant_rule rule;
    const float *values; /* borrowed */
    float *scratch;      /* borrowed: per worker two tiles of a group */
    size_t worker_floats;
} pack_job;

/* The codes of values that lie on the grid already. */
static dr_status pack_tile(void *ctx, size_t task, int worker)
{
    const pack_job *job = ctx;
    const dr_qtensor *q = job->q;
    size_t row0 = task * L, rows = q->rows - row0 < L ? q->rows - row0 : L;
    size_t block = (size_t)q->block, blocks = dr_qtensor_blocks(q);
    float *tile = job->scratch + (size_t)worker * job->worker_floats;
    float *codes = tile + block * L;

    for (size_t b = 0; b < blocks; b++) {
        quant_lanes g = {{0}, {0}};
        for (size_t l = 0; l < L; l++) {
            size_t r = row0 + (l < rows ? l : 0);
            g.scale[l] = q->scales[r * blocks + b];
            g.zero[l] = (float)dr_qtensor_zero(q, r, b);
        }
        quant_tile_load(tile, job->values + row0 * q->cols + b * block, q->cols, rows,
                        block);
        quant_tile_codes(codes, &job->rule, &g, tile, block);
        quant_tile_pack(job->q, row0, rows, b, codes, block, &g);
    }
    return DR_OK;
}

/* w's rows, which are q's; their losses are added to *loss, unless it is NULL. */
static dr_status solve_rows(solver *s, dr_qtensor *q, float *w, const quant_rule *rule,
                            double *loss)
{
    pack_job pack = {q, *rule, w, s->scratch, quant_sweep_floats(s->block)};
    dr_pool *pool = nn_device_pool(s->dev);
    size_t tiles = (q->rows + L - 1) / L;
    dr_status st = DR_OK;

    s->rows = q->rows;
    DR_TRY(dr_pool_run(pool, (s->rows + TASK_ROWS - 1) / TASK_ROWS, load_weights,
                       &(rows_job){.s = s, .w = w}));
    memset(s->loss, 0, tiles * sizeof(*s->loss));
    DR_TRY(sweep(s, q, w, rule));
    DR_TRY(dr_pool_run(pool, tiles, pack_tile, &pack));
    for (size_t t = 0; loss != NULL && t < tiles; t++)
        *loss += s->loss[t];
done:
    return st;
}

size_t quant_slice_rows(size_t rows, size_t cols)
{
    size_t slice = SLICE_FLOATS / cols / L * L;

    slice = slice < SLICE_ROWS ? SLICE_ROWS : slice;
    return slice < rows ? slice : rows;
}

dr_status quant_gptq_solve(dr_qtensor *q, double *loss, nn_device *dev, float *w,
                           const float *h, size_t rows, size_t cols, const quant_grid *grid,
                           const quant_gptq_options *o, const char *name)
{
    const size_t slice = quant_slice_rows(rows, cols);
    solver s = {.dev = dev, .h = h, .rows = slice, .n = cols, .o = o, .name = name};
    const quant_rule rule = quant_rule_of(grid);
    dr_status st = DR_OK;

    *q = (dr_qtensor){0};
    DR_TRY(quant_grid_block(&s.block, grid, cols, name));
    if (quant_there(dev) != NULL && s.block <= NN_FACTOR_MAX)
        return quant_gptq_there(q, loss, dev, w, h, rows, cols, grid, o, name);
    DR_TRY(solver_init(&s, (size_t)dr_pool_threads(nn_device_pool(dev))));
    DR_TRY(dr_qtensor_new(q, quant_stored_bits(grid), (int)s.block, rows, cols,
                          grid->symmetric));
    quant_gptq_order(s.order, h, cols + 1, cols, s.block, o->desc_act);
    load_grams(&s);
    DR_TRY(factorize(&s));
    if (loss != NULL)
        *loss = 0;
    for (size_t r = 0; r < rows; r += slice) {
        dr_qtensor part = dr_qtensor_rows(q, r, rows - r < slice ? rows - r : slice);
        DR_TRY(solve_rows(&s, &part, w + r * cols, &rule, loss));
    }
done:
    solver_release(&s);
    if (st != DR_OK)
        dr_qtensor_release(q);
    return st;
}
