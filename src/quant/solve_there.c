/*
 * solve_there.c - GPTQ's sweep and the whole chain on a device that has the operations of
 * quantizers: gptq_solve.c, descend.c and chain.c group by group, for all rows at once.
 *
 * A block of columns is a group here, so its grid is known before its columns are rounded.
 * Groups go in panels: a group takes over what those before it in its panel have changed,
 * the panels behind it what a whole one has, in one product that is long enough for the
 * tensor cores.  Only codes, grids and a number for each row come back to the host.
 *
 * Memory: five copies of the weight for GPTQ, eight for the chain, and one of the Hessian.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "quant/quant_impl.h"

/* Candidate ranges: 36/36, 35/36, ..., 20/36 of the full one, as in gptq_sweep.c. */
static const quant_shrink sweep_shrink = {NN_SHRINK_BOTH, 17, 36};

enum { BUFFERS = 24, PANEL = 512 };

/* Terms of bf16 in products with a panel: GPTQ's, as exact as floats; descent's. */
enum { SWEEP_TERMS = 3, DESCENT_TERMS = 2 };

/* One weight on its way; every pointer but h and values is owned, by `own`. */
typedef struct {
    nn_device *dev;
    const quant_gptq_options *o;
    const float *h; /* borrowed: [n][n] */
    size_t rows, n, block, blocks, panel;
    quant_rule rule;
    int stored; /* bits of a code in its place */
    float *own[BUFFERS];
    size_t count;
    /* GPTQ */
    uint32_t *order;
    double mean;
    float *factor, *orig, *adj, *grams, *within, *pivot, *spread, *delta, *whole;
    double *loss;
} work;

/* A way to round it. */
typedef struct {
    float *values;         /* [rows][n] */
    float *scales, *zeros; /* [rows][blocks] */
} rounded;

static void work_close(work *w)
{
    for (size_t i = 0; i < w->count; i++)
        nn_mem_free(w->dev, w->own[i]);
    *w = (work){0};
}

static dr_status room(work *w, float **out, size_t a, size_t b, const char *what)
{
    dr_status st = DR_OK;

    DR_BUG_IF(w->count == BUFFERS);
    DR_TRY(quant_floats_at(w->dev, out, a, b, what));
    w->own[w->count++] = *out;
done:
    return st;
}

static dr_status grids_room(work *w, rounded *to)
{
    dr_status st = DR_OK;

    DR_TRY(room(w, &to->scales, w->rows, w->blocks, "scales"));
    DR_TRY(room(w, &to->zeros, w->rows, w->blocks, "zero points"));
done:
    return st;
}

static dr_status work_open(work *w, nn_device *dev, const float *h, size_t rows, size_t n,
                           const quant_grid *grid, const quant_gptq_options *o,
                           const char *name)
{
    dr_status st = DR_OK;

    *w = (work){.dev = dev,
                .o = o,
                .h = h,
                .rows = rows,
                .n = n,
                .rule = quant_rule_of(grid),
                .stored = quant_stored_bits(grid)};
    DR_TRY(quant_grid_block(&w->block, grid, n, name));
    w->blocks = n / w->block;
    w->panel = PANEL / w->block * w->block;
    w->panel = w->panel < n ? w->panel : n;
done:
    return st;
}

/* All groups of the weight; one of them. */
static nn_groups groups_of(const work *w)
{
    return (nn_groups){w->rows, w->n, w->block, w->block, w->n, w->blocks};
}

static dr_status copy_of(work *w, float **out, const float *values)
{
    dr_status st = DR_OK;

    DR_TRY(room(w, out, w->rows, w->n, "weight to round"));
    DR_TRY(nn_copy(w->dev, *out, values, w->rows * w->n * sizeof(*values)));
done:
    return st;
}

/* ---- GPTQ ---- */

static dr_status gptq_room(work *w)
{
    size_t n = w->n, block = w->block, panel = w->panel;
    float *p = NULL;
    dr_status st = DR_OK;

    DR_TRY(room(w, &p, n, 1, "order of columns"));
    w->order = (uint32_t *)(void *)p;
    DR_TRY(room(w, &p, w->rows, 2, "losses"));
    w->loss = (double *)(void *)p;
    DR_TRY(room(w, &w->factor, n, n, "factor of the Hessian"));
    DR_TRY(room(w, &w->orig, w->rows, n, "weight in order"));
    DR_TRY(room(w, &w->adj, w->rows, n, "weight to round"));
    DR_TRY(room(w, &w->grams, n, block, "diagonal blocks"));
    DR_TRY(room(w, &w->within, panel, panel, "columns of the factor"));
    DR_TRY(room(w, &w->pivot, panel, 1, "columns of the factor"));
    DR_TRY(room(w, &w->spread, panel, n - panel + 1, "columns of the factor"));
    DR_TRY(room(w, &w->delta, w->rows, panel, "errors of a panel"));
    DR_TRY(room(w, &w->whole, w->rows, block, "weights of a group"));
done:
    return st;
}

static dr_status try_factor(void *ctx, double damp, bool *definite)
{
    work *w = ctx;
    dr_status st = DR_OK;

    DR_TRY(
        nn_fill_factor(w->dev, w->factor, w->h, w->order, w->n, w->mean, damp * w->mean));
    DR_TRY(quant_cholesky(w->dev, w->factor, w->n, definite));
done:
    return st;
}

/* The order of columns, here as well as there. */
static dr_status gptq_prepare(work *w, size_t *order, const float *values, const char *name)
{
    float *diagonal = dr_calloc(w->n, sizeof(*diagonal));
    uint32_t *there = dr_calloc(w->n, sizeof(*there));
    dr_status st = DR_OK;

    DR_TRY(nn_cut_blocks(w->dev, diagonal, w->h, NULL, w->n, 1));
    quant_gptq_order(order, diagonal, 1, w->n, w->block, w->o->desc_act);
    w->mean = quant_gptq_mean(diagonal, 1, w->n);
    for (size_t i = 0; i < w->n; i++)
        there[i] = (uint32_t)order[i];
    DR_TRY(nn_copy(w->dev, w->order, there, w->n * sizeof(*there)));
    DR_TRY(nn_gather_columns(w->dev, w->orig, values, w->order, diagonal, w->rows, w->n));
    DR_TRY(nn_copy(w->dev, w->adj, w->orig, w->rows * w->n * sizeof(*values)));
    if (!w->o->minmax)
        DR_TRY(nn_cut_blocks(w->dev, w->grams, w->h, w->order, w->n, w->block));
    DR_TRY(quant_gptq_raise(w->o->damp_percent, name, try_factor, w));
done:
    free(diagonal);
    free(there);
    return st;
}

/* The grid of the group at column p, which is group `at` of the weight. */
static dr_status open_group(const work *w, const rounded *to, const nn_sweep *sweep,
                            size_t p, size_t at)
{
    bool plain = w->o->static_groups || p == 0;
    const nn_groups g = {w->rows,  w->block, w->block, w->block, plain ? w->n : w->block,
                         w->blocks};
    nn_sweep complete = *sweep;
    dr_status st = DR_OK;

    complete.values = w->whole;
    complete.ldv = w->block;
    complete.to = NULL;
    complete.delta = NULL;
    complete.scales = complete.zeros = NULL;
    complete.loss = NULL;
    if (!plain)
        DR_TRY(nn_sweep_group(w->dev, &complete));
    DR_TRY(nn_choose_grids(w->dev, to->scales + at, to->zeros + at, NULL,
                           plain ? w->orig + p : w->whole, &g, &w->rule,
                           w->o->minmax ? NULL : &sweep_shrink, w->grams + p * w->block));
done:
    return st;
}

/* y[rows][n], rows ldy apart, = or += the first k columns of w->delta times by[k][n]. */
static dr_status add_changes(const work *w, float *y, size_t ldy, const float *by,
                             size_t ld, size_t n, size_t k, int terms)
{
    const nn_product p = {.y = y,
                          .x = w->delta,
                          .w = by,
                          .m = w->rows,
                          .n = n,
                          .k = k,
                          .ldy = ldy,
                          .ldx = w->panel,
                          .ldw = ld,
                          .acc = true,
                          .terms = terms};

    return n > 0 && k > 0 ? nn_add_product(w->dev, &p) : DR_OK;
}

/* The group that begins at column j of the panel at p0, which has `wide`. */
static dr_status sweep_group(const work *w, const rounded *to, const size_t *order,
                             size_t p0, size_t wide, size_t j)
{
    size_t n = w->n, block = w->block, p = p0 + j, at = order[p] / block;
    const nn_sweep sweep = {.rows = w->rows,
                            .nb = block,
                            .adj = w->adj + p,
                            .orig = w->orig + p,
                            .ld = n,
                            .values = to->values,
                            .ldv = n,
                            .to = w->order + p,
                            .delta = w->delta + j,
                            .ldd = w->panel,
                            .within = w->within + j * wide + j,
                            .ldw = wide,
                            .pivot = w->pivot + j,
                            .scales = to->scales + at,
                            .zeros = to->zeros + at,
                            .ldg = w->blocks,
                            .bits = w->rule.bits,
                            .loss = w->loss};
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    DR_TRY(add_changes(w, w->adj + p, n, w->within + j, wide, block, j, 0));
    DR_TRY(open_group(w, to, &sweep, p, at));
    DR_TRY(nn_sweep_group(w->dev, &sweep));
done:
    return st;
}

static dr_status gptq_sweep(const work *w, const rounded *to, const size_t *order)
{
    size_t n = w->n;
    dr_status st = DR_OK;

    for (size_t p = 0, wide = 0; p < n; p += wide) {
        wide = n - p < w->panel ? n - p : w->panel;
        size_t rest = n - p - wide;
        DR_TRY(
            nn_cut_factor(w->dev, w->within, w->pivot, w->spread, w->factor, n, p, wide));
        for (size_t j = 0; j < wide; j += w->block)
            DR_TRY(sweep_group(w, to, order, p, wide, j));
        DR_TRY(
            add_changes(w, w->adj + p + wide, n, w->spread, rest, rest, wide, SWEEP_TERMS));
    }
done:
    return st;
}

/* to->values, the weight, becomes rounded. */
static dr_status gptq(work *w, const rounded *to, const char *name)
{
    size_t *order = dr_calloc(w->n, sizeof(*order));
    dr_status st = DR_OK;

    DR_TRY(gptq_room(w));
    DR_TRY(gptq_prepare(w, order, to->values, name));
    DR_TRY(gptq_sweep(w, to, order));
done:
    free(order);
    return st;
}

/* Room for what is rounded: made while the device is busy, for its pages take a while. */
static dr_status new_packed(dr_qtensor *q, const work *w)
{
    return dr_qtensor_new(q, w->stored, (int)w->block, w->rows, w->n, w->rule.symmetric);
}

/* q from the values and their grids. */
static dr_status pack(dr_qtensor *q, const work *w, const rounded *from)
{
    const nn_groups g = groups_of(w);
    dr_status st = DR_OK;

    DR_TRY(nn_pack_codes(w->dev, q->codes, from->values, &g, from->scales, from->zeros,
                         w->rule.bits, q->bits));
    DR_TRY(quant_read_grids(w->dev, q, 0, w->rows, from->scales, from->zeros));
done:
    return st;
}

dr_status quant_gptq_there(dr_qtensor *q, double *loss, nn_device *dev, float *w,
                           const float *h, size_t rows, size_t cols, const quant_grid *grid,
                           const quant_gptq_options *o, const char *name)
{
    rounded to = {.values = w};
    double *losses = dr_calloc(rows, sizeof(*losses));
    work k = {0};
    dr_status st = DR_OK;

    *q = (dr_qtensor){0};
    DR_TRY(work_open(&k, dev, h, rows, cols, grid, o, name));
    DR_TRY(grids_room(&k, &to));
    DR_TRY(gptq(&k, &to, name));
    DR_TRY(new_packed(q, &k));
    DR_TRY(pack(q, &k, &to));
    DR_TRY(nn_copy(dev, losses, k.loss, rows * sizeof(*losses)));
    for (size_t r = 0; loss != NULL && r < rows; r++)
        *loss = (r == 0 ? 0.0 : *loss) + losses[r];
done:
    if (st != DR_OK)
        dr_qtensor_release(q);
    work_close(&k);
    free(losses);
    return st;
}

/* ---- descent ---- */

/* err = values - orig, grad = err H.  16 bits of each operand tell one code's effect from
 * another's; products with few columns are sooner done in floats. */
static dr_status gradient(const work *w, float *err, float *grad, const float *values,
                          const float *orig)
{
    dr_status st = DR_OK;

    DR_TRY(nn_subtract(w->dev, err, values, orig, w->rows * w->n, 1.0f));
    nn_round_products(w->dev, NN_ROUND_TWO_TERMS);
    DR_TRY(nn_matmul_nt(w->dev, grad, err, w->h, NULL, w->rows, w->n, w->n, w->n, false));
done:
    nn_round_products(w->dev, NN_ROUND_NONE);
    return st;
}

/* The group at column j of the panel at p0; grad does not know of the panel's changes. */
static dr_status descend_group(const work *w, const rounded *to, const float *orig,
                               const float *grad, size_t p0, size_t j, float damp)
{
    size_t n = w->n, block = w->block, p = p0 + j;
    const float *h = w->h + p0 * n + p;
    nn_descent d = {.rows = w->rows,
                    .nb = block,
                    .ld = n,
                    .ldv = n,
                    .ldo = n,
                    .ldh = n,
                    .ldg = w->blocks,
                    .ldd = w->panel,
                    .grad = grad + p,
                    .values = to->values + p,
                    .orig = orig + p,
                    .h = w->h + p * n + p,
                    .damp = damp,
                    .scales = to->scales + p / block,
                    .zeros = to->zeros + p / block,
                    .delta = w->delta + j,
                    .rule = w->rule};
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    if (j > 0) {
        DR_TRY(nn_copy_matrix(w->dev, w->whole, block, grad + p, n, w->rows, block, 1.0f));
        DR_TRY(add_changes(w, w->whole, block, h, n, block, j, 0));
        d.grad = w->whole;
        d.ld = block;
    }
    DR_TRY(nn_descend_group(w->dev, &d));
done:
    return st;
}

/* One sweep over the groups; grad stays that of to->values. */
static dr_status descend(const work *w, const rounded *to, const float *orig, float *grad,
                         float damp)
{
    size_t n = w->n;
    dr_status st = DR_OK;

    for (size_t p = 0, wide = 0; p < n; p += wide) {
        wide = n - p < w->panel ? n - p : w->panel;
        for (size_t j = 0; j < wide; j += w->block)
            DR_TRY(descend_group(w, to, orig, grad, p, j, damp));
        DR_TRY(add_changes(w, grad, n, w->h + p * n, n, n, wide, DESCENT_TERMS));
    }
done:
    return st;
}

/* ---- the chain ---- */

enum { CHAIN, GPTQ, RTN, WAYS };

/* Rounding to nearest, into to->values. */
static dr_status nearest(const work *w, const rounded *to, const float *orig)
{
    const nn_groups g = groups_of(w);
    float *ones = dr_calloc(w->n, sizeof(*ones));
    dr_status st = DR_OK;

    for (size_t i = 0; i < w->n; i++)
        ones[i] = 1.0f;
    DR_TRY(nn_choose_grids(w->dev, to->scales, to->zeros, NULL, orig, &g, &w->rule, NULL,
                           NULL));
    DR_TRY(nn_round_scaled(w->dev, to->values, orig, &g, &w->rule, ones));
done:
    free(ones);
    return st;
}

/* Each row's best way goes to [CHAIN]; returns the sum of losses. */
static dr_status keep_best(const work *w, const rounded ways[WAYS],
                           double *const losses[WAYS], double *sum, const char *name)
{
    uint32_t *pick = dr_calloc(w->rows, sizeof(*pick));
    size_t count[WAYS] = {0};
    double total[WAYS] = {0};
    dr_status st = DR_OK;

    *sum = 0;
    for (size_t r = 0; r < w->rows; r++) {
        for (uint32_t i = 1; i < WAYS; i++)
            pick[r] = losses[i][r] < losses[pick[r]][r] ? i : pick[r];
        for (int i = 0; i < WAYS; i++)
            total[i] += losses[i][r];
        count[pick[r]]++;
        *sum += losses[pick[r]][r];
    }
    for (uint32_t i = 1; i < WAYS; i++) {
        if (count[i] == 0)
            continue;
        DR_TRY(nn_choose_rows(w->dev, ways[CHAIN].values, ways[i].values, w->rows, w->n,
                              pick, i));
        DR_TRY(nn_choose_rows(w->dev, ways[CHAIN].scales, ways[i].scales, w->rows,
                              w->blocks, pick, i));
        DR_TRY(nn_choose_rows(w->dev, ways[CHAIN].zeros, ways[i].zeros, w->rows, w->blocks,
                              pick, i));
    }
    dr_log(DR_DEBUG, "%s: loss rtn %.6g, gptq %.6g, chain %.6g; rows %zu, %zu, %zu", name,
           total[RTN], total[GPTQ], total[CHAIN], count[RTN], count[GPTQ], count[CHAIN]);
done:
    free(pick);
    return st;
}

/* What GPTQ gave, descended, and its loss; grad is that of to->values, err room. */
static dr_status descend_all(const work *w, const rounded *to, const float *orig,
                             float *err, float *grad, double *const losses[WAYS])
{
    float damp = (float)(w->o->damp_percent * w->mean);
    dr_status st = DR_OK;

    for (int i = 0; i < w->o->sweeps; i++)
        DR_TRY(descend(w, to, orig, grad, damp));
    DR_TRY(nn_subtract(w->dev, err, to->values, orig, w->rows * w->n, 1.0f));
    DR_TRY(nn_row_dots(w->dev, losses[CHAIN], err, grad, w->rows, w->n));
done:
    return st;
}

/* The three ways, their values there and their losses here; q is made, unless the contest
 * is lost. */
static dr_status all_ways(work *w, dr_qtensor *q, rounded ways[WAYS], double *losses[WAYS],
                          quant_contest *c, const char *name)
{
    size_t grid_bytes = w->rows * w->blocks * sizeof(float);
    float *orig = NULL, *err = NULL, *grad = NULL;
    dr_status st = DR_OK;

    DR_TRY(grids_room(w, &ways[CHAIN]));
    DR_TRY(copy_of(w, &orig, ways[CHAIN].values));
    DR_TRY(gptq(w, &ways[CHAIN], name));
    err = w->adj; /* the sweep is over */
    grad = w->orig;
    DR_TRY(gradient(w, err, grad, ways[CHAIN].values, orig));
    DR_TRY(nn_row_dots(w->dev, losses[GPTQ], err, grad, w->rows, w->n));
    DR_TRY(quant_contest_meet(c, losses[GPTQ], w->rows));
    if (quant_contest_lost(c))
        goto done;
    for (int i = GPTQ; i < WAYS; i++)
        DR_TRY(grids_room(w, &ways[i]));
    DR_TRY(copy_of(w, &ways[GPTQ].values, ways[CHAIN].values));
    DR_TRY(nn_copy(w->dev, ways[GPTQ].scales, ways[CHAIN].scales, grid_bytes));
    DR_TRY(nn_copy(w->dev, ways[GPTQ].zeros, ways[CHAIN].zeros, grid_bytes));
    DR_TRY(descend_all(w, &ways[CHAIN], orig, err, grad, losses));
    DR_TRY(room(w, &ways[RTN].values, w->rows, w->n, "rounded weight"));
    DR_TRY(nearest(w, &ways[RTN], orig));
    DR_TRY(new_packed(q, w));
    DR_TRY(gradient(w, err, grad, ways[RTN].values, orig));
    DR_TRY(nn_row_dots(w->dev, losses[RTN], err, grad, w->rows, w->n));
done:
    return st;
}

dr_status quant_chain_there(dr_qtensor *q, double *loss, quant_contest *c, nn_device *dev,
                            float *w, const float *h, size_t rows, size_t cols,
                            const quant_grid *grid, const quant_gptq_options *o,
                            const char *name)
{
    rounded ways[WAYS] = {{.values = w}};
    double *losses[WAYS];
    work k = {0};
    dr_status st = DR_OK;

    *q = (dr_qtensor){0};
    for (int i = 0; i < WAYS; i++)
        losses[i] = dr_calloc(rows, sizeof(**losses));
    DR_TRY(work_open(&k, dev, h, rows, cols, grid, o, name));
    DR_TRY(all_ways(&k, q, ways, losses, c, name));
    if (quant_contest_lost(c)) {
        *loss = HUGE_VAL;
        goto done;
    }
    DR_TRY(keep_best(&k, ways, losses, loss, name));
    DR_TRY(pack(q, &k, &ways[CHAIN]));
done:
    if (st != DR_OK)
        dr_qtensor_release(q);
    work_close(&k);
    for (int i = 0; i < WAYS; i++)
        free(losses[i]);
    return st;
}
