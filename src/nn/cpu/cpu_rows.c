/*
 * cpu_rows.c - operations that go over rows one by one: blocks of rows on the pool.
 *
 * A block is about 16,384 elements whatever the number of threads.
 */
#include "core/mem.h"
#include "nn/cpu/cpu_impl.h"

enum { BLOCK_ELEMENTS = 16384 };

/* What the tasks of one operation share; each uses the members that it needs. */
typedef struct {
    const cpu_row_kernels *k;
    size_t m, d, rows; /* rows of a block */
    float *y;
    const float *x, *x2, *w;
    float eps;
    const nn_attn_shape *shape;
    int sign;
    const nn_mask *mask;
    bool acc;
    double *loss;
    const int32_t *targets;
} job;

static dr_status run(nn_device *dev, job *j, dr_task_fn fn)
{
    j->k = cpu_of(dev)->rows;
    j->rows = j->d < BLOCK_ELEMENTS ? BLOCK_ELEMENTS / j->d : 1;
    return cpu_tasks(dev, cpu_ceil(j->m, j->rows), j->m * j->d * 4, fn, j);
}

/* The block's first row; *count gets its number of rows. */
static size_t block(const job *j, size_t task, size_t *count)
{
    size_t row = task * j->rows;

    *count = cpu_min(j->rows, j->m - row);
    return row;
}

static dr_status rmsnorm_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    size_t n, row = block(j, task, &n), at = row * j->d;

    (void)worker;
    j->k->rmsnorm(j->y + at, j->x + at, j->w, n, j->d, j->eps);
    return DR_OK;
}

dr_status cpu_rmsnorm(nn_device *dev, float *y, const float *x, const float *w, size_t m,
                      size_t d, float eps)
{
    job j = {.y = y, .x = x, .w = w, .m = m, .d = d, .eps = eps};

    return run(dev, &j, rmsnorm_task);
}

static dr_status rmsnorm_back_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    size_t n, row = block(j, task, &n), at = row * j->d;

    (void)worker;
    j->k->rmsnorm_back(j->y + at, j->x2 + at, j->x + at, j->w, n, j->d, j->eps);
    return DR_OK;
}

dr_status cpu_rmsnorm_back(nn_device *dev, float *dx, const float *dy, const float *x,
                           const float *w, size_t m, size_t d, float eps)
{
    job j = {.y = dx, .x2 = dy, .x = x, .w = w, .m = m, .d = d, .eps = eps};

    return run(dev, &j, rmsnorm_back_task);
}

static dr_status swiglu_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    size_t n, row = block(j, task, &n);

    (void)worker;
    j->k->swiglu(j->y + row * j->d, j->x + row * 2 * j->d, n, j->d);
    return DR_OK;
}

dr_status cpu_swiglu(nn_device *dev, float *act, const float *gate_up, size_t m, size_t i)
{
    job j = {.y = act, .x = gate_up, .m = m, .d = i};

    return run(dev, &j, swiglu_task);
}

static dr_status swiglu_back_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    size_t n, row = block(j, task, &n);

    (void)worker;
    j->k->swiglu_back(j->y + row * 2 * j->d, j->x2 + row * j->d, j->x + row * 2 * j->d, n,
                      j->d);
    return DR_OK;
}

dr_status cpu_swiglu_back(nn_device *dev, float *dgate_up, const float *dact,
                          const float *gate_up, size_t m, size_t i)
{
    job j = {.y = dgate_up, .x2 = dact, .x = gate_up, .m = m, .d = i};

    return run(dev, &j, swiglu_back_task);
}

static dr_status rope_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    const nn_attn_shape *s = j->shape;
    size_t n, row = block(j, task, &n), half = s->rotary_dim / 2;

    (void)worker;
    for (size_t r = row; r < row + n; r++) {
        size_t at = r % s->t * half;
        for (size_t h = 0; h < s->heads + s->kv_heads; h++)
            j->k->rope(j->y + r * j->d + h * s->head_dim, s->cos + at, s->sin + at, half,
                       (float)j->sign);
    }
    return DR_OK;
}

dr_status cpu_rope(nn_device *dev, float *qkv, const nn_attn_shape *s, int sign)
{
    job j = {.y = qkv,
             .shape = s,
             .sign = sign,
             .m = s->b * s->t,
             .d = (s->heads + 2 * s->kv_heads) * s->head_dim};

    return run(dev, &j, rope_task);
}

static dr_status add_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    size_t n, at = block(j, task, &n);

    (void)worker;
    j->k->add(j->y + at, j->x + at, n);
    return DR_OK;
}

dr_status cpu_add(nn_device *dev, float *y, const float *x, size_t count)
{
    job j = {.y = y, .x = x, .m = count, .d = 1};

    return run(dev, &j, add_task);
}

static dr_status dropout_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    size_t n, at = block(j, task, &n);

    (void)worker;
    j->k->dropout(j->y + at, j->x + at, at, n, j->mask, j->acc);
    return DR_OK;
}

dr_status cpu_dropout(nn_device *dev, float *y, const float *x, size_t count,
                      const nn_mask *mask, bool acc)
{
    job j = {.y = y, .x = x, .m = count, .d = 1, .mask = mask, .acc = acc};

    _Static_assert(BLOCK_ELEMENTS % NN_MASK_CHUNK == 0,
                   "blocks begin on a chunk of the mask");
    return run(dev, &j, dropout_task);
}

static dr_status xent_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    size_t n, row = block(j, task, &n);

    (void)worker;
    for (size_t r = row; r < row + n; r++)
        j->loss[r] = j->k->xent(j->y + r * j->d, j->d, (size_t)j->targets[r], j->eps);
    return DR_OK;
}

dr_status cpu_xent(nn_device *dev, double *loss, float *logits, const int32_t *targets,
                   size_t m, size_t v, float grad_scale)
{
    job j = {
        .loss = loss, .y = logits, .targets = targets, .m = m, .d = v, .eps = grad_scale};

    return run(dev, &j, xent_task);
}
