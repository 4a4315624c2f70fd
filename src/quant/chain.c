/*
 * chain.c - one weight by everything that its Hessian can decide: GPTQ with grids that cost
 * their group least, then descent over codes, scales and zero points.
 *
 * Never worse: each row keeps the best of the chain, of GPTQ alone and of rounding to
 * nearest, by its loss e H e^T without damping.  Rows are independent, so choosing row by
 * row is choosing the best weight.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "quant/quant_impl.h"

enum { CHAIN, GPTQ, RTN, WAYS };

typedef struct {
    dr_qtensor q[WAYS];  /* owned; [CHAIN] is given away */
    float *values[WAYS]; /* [CHAIN] borrowed, else owned: [rows][cols] */
    double *loss[WAYS];  /* owned: [rows] */
    float *orig;         /* owned */
    size_t count[WAYS];  /* rows that each way gave */
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

/* Moves each row's best way to [CHAIN]. */
static double keep_best(chain *c, size_t rows, size_t cols)
{
    double sum = 0;

    for (size_t r = 0; r < rows; r++) {
        int best = CHAIN;
        for (int i = 1; i < WAYS; i++)
            best = c->loss[i][r] < c->loss[best][r] ? i : best;
        for (int i = 0; i < WAYS; i++)
            c->total[i] += c->loss[i][r];
        c->count[best]++;
        sum += c->loss[best][r];
        if (best == CHAIN)
            continue;
        dr_qtensor_copy_rows(&c->q[CHAIN], r, &c->q[best], r, 1);
        memcpy(c->values[CHAIN] + r * cols, c->values[best] + r * cols,
               cols * sizeof(float));
    }
    return sum;
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

dr_status quant_chain_solve(dr_qtensor *q, double *loss, nn_device *dev, float *w,
                            const float *h, size_t rows, size_t cols,
                            const quant_grid *grid, const quant_gptq_options *o,
                            const char *name)
{
    chain c = {.values = {w}};
    quant_grid whole = *grid;
    size_t block = 0;
    dr_status st = DR_OK;

    *q = (dr_qtensor){0};
    DR_TRY(quant_grid_block(&block, grid, cols, name));
    if (quant_there(dev) != NULL && block <= NN_FACTOR_MAX)
        return quant_chain_there(q, loss, dev, w, h, rows, cols, grid, o, name);
    whole.group_size = (int)block;
    DR_TRY(quant_floats(&c.orig, rows, cols, "weight to round"));
    memcpy(c.orig, w, rows * cols * sizeof(*w));
    for (int i = 0; i < WAYS; i++)
        c.loss[i] = dr_calloc(rows, sizeof(*c.loss[i]));
    for (int i = 1; i < WAYS; i++)
        DR_TRY(quant_floats(&c.values[i], rows, cols, "rounded weight"));
    DR_TRY(quant_pack_rtn(&c.q[RTN], nn_device_pool(dev), w, rows, cols, &whole, true));
    dr_qtensor_to_f32(c.values[RTN], &c.q[RTN], 0, rows);
    DR_TRY(quant_gptq_solve(&c.q[CHAIN], NULL, dev, w, h, rows, cols, grid, o, name));
    DR_TRY(dr_qtensor_new(&c.q[GPTQ], quant_stored_bits(grid), (int)block, rows, cols,
                          grid->symmetric));
    dr_qtensor_copy_rows(&c.q[GPTQ], 0, &c.q[CHAIN], 0, rows);
    memcpy(c.values[GPTQ], w, rows * cols * sizeof(*w));
    DR_TRY(quant_descend(&c.q[CHAIN], w, dev, c.orig, h, grid,
                         damping(h, cols, o->damp_percent), o->sweeps));
    for (int i = 0; i < WAYS; i++)
        DR_TRY(quant_row_losses(c.loss[i], dev, c.values[i], c.orig, h, rows, cols));
    *loss = keep_best(&c, rows, cols);
    dr_log(DR_DEBUG, "%s: loss rtn %.6g, gptq %.6g, chain %.6g; rows %zu, %zu, %zu", name,
           c.total[RTN], c.total[GPTQ], c.total[CHAIN], c.count[RTN], c.count[GPTQ],
           c.count[CHAIN]);
    *q = c.q[CHAIN];
    c.q[CHAIN] = (dr_qtensor){0};
done:
    chain_close(&c);
    return st;
}
