/*
 * adamw.c - the optimizer.  Elements are independent, so any cut among threads gives the
 * same bytes; the norm is summed per chunk of fixed size, chunks in order.
 */
#include <math.h>

#include "core/mem.h"
#include "train/train_impl.h"

enum { CHUNK = 1 << 16 };

static size_t chunks(const train_state *s)
{
    return (s->count + CHUNK - 1) / CHUNK;
}

static size_t chunk_end(const train_state *s, size_t task)
{
    size_t end = (task + 1) * CHUNK;

    return end < s->count ? end : s->count;
}

typedef struct {
    const train_state *s;
    double *sums; /* [chunks] */
} norm_job;

static dr_status norm_task(void *ctx, size_t task, int worker)
{
    norm_job *j = ctx;
    double sum = 0;

    (void)worker;
    for (size_t i = task * CHUNK; i < chunk_end(j->s, task); i++)
        sum += (double)j->s->grad[i] * (double)j->s->grad[i];
    j->sums[task] = sum;
    return DR_OK;
}

dr_status train_grad_norm(double *norm, dr_pool *pool, const train_state *s)
{
    void *sums = NULL;
    double total = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&sums, chunks(s), sizeof(double), "gradient sums"));
    norm_job j = {s, sums};
    DR_TRY(dr_pool_run(pool, chunks(s), norm_task, &j));
    for (size_t i = 0; i < chunks(s); i++)
        total += j.sums[i];
    *norm = sqrt(total);
done:
    dr_big_free(sums);
    return st;
}

typedef struct {
    train_state *s;
    float grad_scale, rest1, beta2, rest2; /* 1 - beta, rounded once, as torch has it */
    float decay, step_size, inv_sqrt_c2, eps;
} adam_job;

static dr_status adam_task(void *ctx, size_t task, int worker)
{
    const adam_job *j = ctx;
    train_state *s = j->s;

    (void)worker;
    for (size_t i = task * CHUNK; i < chunk_end(s, task); i++) {
        float g = s->grad[i] * j->grad_scale;
        float m = s->m[i] + (g - s->m[i]) * j->rest1;
        float v = s->v[i] * j->beta2 + g * g * j->rest2;
        float denom = sqrtf(v) * j->inv_sqrt_c2 + j->eps;
        s->m[i] = m;
        s->v[i] = v;
        s->param[i] = s->param[i] * j->decay - j->step_size * (m / denom);
        s->grad[i] = 0;
    }
    return DR_OK;
}

dr_status train_adamw_step(dr_pool *pool, train_state *s, const train_adamw *o, size_t t,
                           double grad_scale)
{
    double c1 = 1 - pow(o->beta1, (double)t), c2 = 1 - pow(o->beta2, (double)t);
    adam_job j = {.s = s,
                  .grad_scale = (float)grad_scale,
                  .rest1 = (float)(1 - o->beta1),
                  .beta2 = (float)o->beta2,
                  .rest2 = (float)(1 - o->beta2),
                  .decay = (float)(1 - o->lr * o->weight_decay),
                  .step_size = (float)(o->lr / c1),
                  .inv_sqrt_c2 = (float)(1 / sqrt(c2)),
                  .eps = (float)o->eps};

    return dr_pool_run(pool, chunks(s), adam_task, &j);
}
