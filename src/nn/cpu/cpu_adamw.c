/*
 * cpu_adamw.c - the optimizer's operations.  Elements are independent, so any cut among
 * threads gives the same bytes; squares are summed by chunks of fixed size, chunks in
 * order.
 */
#include <math.h>

#include "core/mem.h"
#include "nn/cpu/cpu_impl.h"

enum { CHUNK = 1 << 16 };

typedef struct {
    const float *x;
    double *sums;         /* [parts][chunks] */
    size_t count, chunks; /* of a part */
} squares_job;

static size_t chunk_end(size_t task, size_t count)
{
    return cpu_min((task + 1) * CHUNK, count);
}

static dr_status squares_task(void *ctx, size_t task, int worker)
{
    const squares_job *j = ctx;
    const float *x = j->x + task / j->chunks * j->count;
    size_t chunk = task % j->chunks;
    double sum = 0;

    (void)worker;
    for (size_t i = chunk * CHUNK; i < chunk_end(chunk, j->count); i++)
        sum += (double)x[i] * (double)x[i];
    j->sums[task] = sum;
    return DR_OK;
}

dr_status cpu_squares(nn_device *dev, double *sums, const float *x, size_t parts,
                      size_t count)
{
    size_t chunks = cpu_ceil(count, CHUNK);
    void *room = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&room, parts * chunks, sizeof(double), "gradient sums"));
    squares_job j = {x, room, count, chunks};
    DR_TRY(cpu_tasks(dev, parts * chunks, parts * count, squares_task, &j));
    for (size_t k = 0; k < parts; k++) {
        sums[k] = 0;
        for (size_t i = 0; i < chunks; i++)
            sums[k] += j.sums[k * chunks + i];
    }
done:
    dr_big_free(room);
    return st;
}

typedef struct {
    float *param, *grad, *m, *v;
    size_t count;
    const nn_adam *step;
} adam_job;

static dr_status adam_task(void *ctx, size_t task, int worker)
{
    const adam_job *j = ctx;
    const nn_adam *s = j->step;

    (void)worker;
    for (size_t i = task * CHUNK; i < chunk_end(task, j->count); i++) {
        float g = j->grad[i] * s->grad_scale;
        float m = j->m[i] + (g - j->m[i]) * s->rest1;
        float v = j->v[i] * s->beta2 + g * g * s->rest2;
        float denom = sqrtf(v) * s->inv_sqrt_c2 + s->eps;
        j->m[i] = m;
        j->v[i] = v;
        j->param[i] = j->param[i] * s->decay - s->step_size * (m / denom);
        j->grad[i] = 0;
    }
    return DR_OK;
}

dr_status cpu_adamw(nn_device *dev, float *param, float *grad, float *m, float *v,
                    size_t count, const nn_adam *step)
{
    adam_job j = {param, grad, m, v, count, step};

    return cpu_tasks(dev, cpu_ceil(count, CHUNK), 8 * count, adam_task, &j);
}
