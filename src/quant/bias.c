/*
 * bias.c - the mean of what rounding does to a linear's outputs, for its bias to take back.
 *
 * (W - W^) mean(x) is the part of the error that is the same for every token; added to the
 * bias it costs nothing at run time.  What is left has no mean on the calibration text.
 */
#include "quant/quant_impl.h"

enum { COLS = 64, ROWS = 64 };

typedef struct {
    double *sum;
    const float *x;
    size_t m, k;
    bool first;
} add_job;

static dr_status add_columns(void *ctx, size_t task, int worker)
{
    const add_job *job = ctx;
    size_t from = task * COLS, to = from + COLS < job->k ? from + COLS : job->k;

    (void)worker;
    for (size_t c = from; c < to && job->first; c++)
        job->sum[c] = 0;
    for (size_t r = 0; r < job->m; r++) {
        for (size_t c = from; c < to; c++)
            job->sum[c] += (double)job->x[r * job->k + c];
    }
    return DR_OK;
}

dr_status quant_inputs_add(dr_pool *pool, double *sum, const float *x, size_t m, size_t k,
                           bool first)
{
    add_job job = {sum, x, m, k, first};

    return dr_pool_run(pool, (k + COLS - 1) / COLS, add_columns, &job);
}

typedef struct {
    float *out;
    const float *w;
    const double *sum;
    size_t n, k, count;
    int sign;
} mean_job;

static dr_status mean_rows(void *ctx, size_t task, int worker)
{
    const mean_job *job = ctx;
    size_t from = task * ROWS, to = from + ROWS < job->n ? from + ROWS : job->n;

    (void)worker;
    for (size_t r = from; r < to; r++) {
        double y = 0;
        for (size_t c = 0; c < job->k; c++)
            y += (double)job->w[r * job->k + c] * job->sum[c];
        y /= (double)job->count;
        job->out[r] = job->sign > 0 ? (float)y : job->out[r] - (float)y;
    }
    return DR_OK;
}

dr_status quant_mean_output(dr_pool *pool, float *out, const float *w, const double *sum,
                            size_t n, size_t k, size_t count, int sign)
{
    mean_job job = {out, w, sum, n, k, count, sign};

    return dr_pool_run(pool, (n + ROWS - 1) / ROWS, mean_rows, &job);
}
