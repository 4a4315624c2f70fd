/*
 * chain.c - one weight by everything that its Hessian can decide: GPTQ with grids that cost
 * their group least, then descent over codes, scales and zero points.
 *
 * Never worse: each row keeps the best of the chain, of GPTQ alone and of rounding to
 * nearest, by its loss e H e^T without damping.  Rows are independent, so choosing row by
 * row is choosing the best weight, and slices of a large one are worked on in turn.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "quant/quant_impl.h"

enum { CHAIN, GPTQ, RTN, WAYS };

typedef struct {
    nn_device *dev;
    const float *h;         /* borrowed: [cols][cols] */
    quant_grid grid, whole; /* asked for; with the group's width */
    double damp;
    int sweeps;
    float *orig; /* owned: [rows][cols] */
    size_t cols;
    /* of a slice of rows: */
    dr_qtensor q[WAYS];  /* owned; [CHAIN] is a part of what is given away */
    float *values[WAYS]; /* [CHAIN] borrowed, else owned: [slice][cols] */
    double *loss[WAYS];  /* owned: [slice]; [GPTQ]: [rows] */
    /* of all so far: */
    size_t count[WAYS]; /* rows that each way gave */
    double total[WAYS];
} chain;

static void chain_close(chain *c)
{
    for (int i = 0; i < WAYS; i++) {
        free(c->loss[i]);
        if (i != CHAIN)
            dr_big_free(c->values[i]);
        dr_qtensor_release(&c->q[i]);
    }
    dr_big_free(c->orig);
}

/* Moves each row's best way to [CHAIN]; their losses are added to *sum. */
static void keep_best(chain *c, size_t row0, size_t rows, double *sum)
{
    const double *loss[WAYS] = {c->loss[CHAIN], c->loss[GPTQ] + row0, c->loss[RTN]};
    const size_t cols = c->cols;

    for (size_t r = 0; r < rows; r++) {
        int best = CHAIN;
        for (int i = 1; i < WAYS; i++)
            best = loss[i][r] < loss[best][r] ? i : best;
        for (int i = 0; i < WAYS; i++)
            c->total[i] += loss[i][r];
        c->count[best]++;
        *sum += loss[best][r];
        if (best == CHAIN)
            continue;
        dr_qtensor_copy_rows(&c->q[CHAIN], r, &c->q[best], r, 1);
        memcpy(c->values[CHAIN] + r * cols, c->values[best] + r * cols,
               cols * sizeof(float));
    }
}

/* What GPTQ made of the rows from row0 on, q and w, becomes the best of the three. */
static dr_status best_rows(chain *c, const dr_qtensor *q, float *w, size_t row0,
                           double *loss)
{
    const size_t rows = q->rows, cols = c->cols;
    const float *orig = c->orig + row0 * cols;
    dr_status st = DR_OK;

    c->q[CHAIN] = *q;
    c->values[CHAIN] = w;
    DR_TRY(quant_pack_rtn(&c->q[RTN], nn_device_pool(c->dev), orig, rows, cols, &c->whole,
                          true));
    dr_qtensor_to_f32(c->values[RTN], &c->q[RTN], 0, rows);
    DR_TRY(dr_qtensor_new(&c->q[GPTQ], q->bits, q->block, rows, cols, q->zeros == NULL));
    dr_qtensor_copy_rows(&c->q[GPTQ], 0, q, 0, rows);
    memcpy(c->values[GPTQ], w, rows * cols * sizeof(*w));
    DR_TRY(quant_descend(&c->q[CHAIN], c->loss[CHAIN], w, c->dev, orig, c->h, &c->grid,
                         c->damp, c->sweeps));
    DR_TRY(quant_row_losses(c->loss[RTN], c->dev, c->values[RTN], orig, c->h, rows, cols));
    keep_best(c, row0, rows, loss);
done:
    for (int i = 0; i < WAYS; i++)
        dr_qtensor_release(&c->q[i]); /* [CHAIN] borrows */
    return st;
}

/* What GPTQ made of it, w, loses by row. */
static dr_status judge_gptq(chain *c, const float *w, size_t rows, size_t slice)
{
    dr_status st = DR_OK;

    for (size_t r = 0; r < rows; r += slice) {
        size_t n = rows - r < slice ? rows - r : slice;
        DR_TRY(quant_row_losses(c->loss[GPTQ] + r, c->dev, w + r * c->cols,
                                c->orig + r * c->cols, c->h, n, c->cols));
    }
done:
    return st;
}

static double damping(const float *h, size_t n, double percent)
{
    double sum = 0;
    size_t live = 0;

    for (size_t i = 0; i < n; i++) {
        sum += (double)h[i * n + i];
        live += h[i * n + i] > 0.0f;
    }
    return live > 0 ? percent * sum / (double)live : percent;
}

dr_status quant_chain_solve(dr_qtensor *q, double *loss, quant_contest *contest,
                            nn_device *dev, float *w, const float *h, size_t rows,
                            size_t cols, const quant_grid *grid,
                            const quant_gptq_options *o, const char *name)
{
    const size_t slice = quant_slice_rows(rows, cols);
    chain c = {.dev = dev, .h = h, .grid = *grid, .whole = *grid, .cols = cols};
    size_t block = 0;
    dr_status st = DR_OK;

    *q = (dr_qtensor){0};
    DR_TRY(quant_grid_block(&block, grid, cols, name));
    if (quant_there(dev) != NULL && block <= NN_FACTOR_MAX)
        return quant_chain_there(q, loss, contest, dev, w, h, rows, cols, grid, o, name);
    c.whole.group_size = (int)block;
    c.damp = damping(h, cols, o->damp_percent);
    c.sweeps = o->sweeps;
    DR_TRY(quant_floats(&c.orig, rows, cols, "weight to round"));
    memcpy(c.orig, w, rows * cols * sizeof(*w));
    DR_TRY(quant_gptq_solve(q, NULL, dev, w, h, rows, cols, grid, o, name));
    for (int i = 0; i < WAYS; i++)
        c.loss[i] = dr_calloc(i == GPTQ ? rows : slice, sizeof(*c.loss[i]));
    DR_TRY(judge_gptq(&c, w, rows, slice));
    DR_TRY(quant_contest_meet(contest, c.loss[GPTQ], rows));
    if (quant_contest_lost(contest)) {
        *loss = HUGE_VAL;
        dr_qtensor_release(q);
        goto done;
    }
    for (int i = 1; i < WAYS; i++)
        DR_TRY(quant_floats(&c.values[i], slice, cols, "rounded weight"));
    *loss = 0;
    for (size_t r = 0; r < rows; r += slice) {
        dr_qtensor part = dr_qtensor_rows(q, r, rows - r < slice ? rows - r : slice);
        DR_TRY(best_rows(&c, &part, w + r * cols, r, loss));
    }
    dr_log(DR_DEBUG, "%s: loss rtn %.6g, gptq %.6g, chain %.6g; rows %zu, %zu, %zu", name,
           c.total[RTN], c.total[GPTQ], c.total[CHAIN], c.count[RTN], c.count[GPTQ],
           c.count[CHAIN]);
done:
    chain_close(&c);
    if (st != DR_OK)
        dr_qtensor_release(q);
    return st;
}
