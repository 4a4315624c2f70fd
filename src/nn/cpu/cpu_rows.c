/*
 * cpu_rows.c - operations that go over rows one by one: blocks of rows on the pool.
 *
 * A block is about 16,384 elements whatever the number of threads.
 */
#include "core/mem.h"
#include "nn/cpu/cpu_impl.h"
#include "nn/ref/ref_impl.h"

enum { BLOCK_ELEMENTS = 16384 };

typedef void (*norm_back_fn)(float *dx, const float *dy, const float *x, const float *w,
                             size_t m, size_t d, float eps);

/* What the tasks of one operation share; each uses the members that it needs. */
typedef struct {
    const cpu_row_kernels *k;
    norm_back_fn norm_back;
    size_t m, d, rows; /* rows of a block */
    float *y;
    const float *x, *x2, *w, *bias;
    float *kept;
    size_t heads, ld; /* runs of a row, rows apart */
    float eps, cap, smoothing;
    nn_act act;
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

static dr_status norm_back_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    size_t n, row = block(j, task, &n), at = row * j->d;

    (void)worker;
    j->norm_back(j->y + at, j->x2 + at, j->x + at, j->w, n, j->d, j->eps);
    return DR_OK;
}

/* Gradients of a norm over whole rows, of either kind. */
static dr_status norm_back(nn_device *dev, norm_back_fn kernel, float *dx, const float *dy,
                           const float *x, const float *w, size_t m, size_t d, float eps)
{
    job j = {
        .norm_back = kernel, .y = dx, .x2 = dy, .x = x, .w = w, .m = m, .d = d, .eps = eps};

    return run(dev, &j, norm_back_task);
}

dr_status cpu_rmsnorm_back(nn_device *dev, float *dx, const float *dy, const float *x,
                           const float *w, size_t m, size_t d, float eps)
{
    return norm_back(dev, cpu_of(dev)->rows->rmsnorm_back, dx, dy, x, w, m, d, eps);
}

static dr_status heads_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    size_t n, row = block(j, task, &n);

    (void)worker;
    for (size_t r = row; r < row + n; r++)
        j->k->rmsnorm_heads(j->y + r * j->ld, j->kept == NULL ? NULL : j->kept + r * j->d,
                            j->w, j->heads, j->d / j->heads, j->eps);
    return DR_OK;
}

dr_status cpu_rmsnorm_heads(nn_device *dev, float *x, float *kept, const float *w, size_t m,
                            size_t ld, size_t heads, size_t d, float eps)
{
    job j = {.y = x,
             .kept = kept,
             .w = w,
             .m = m,
             .d = heads * d,
             .ld = ld,
             .heads = heads,
             .eps = eps};

    return run(dev, &j, heads_task);
}

static dr_status heads_back_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    size_t n, row = block(j, task, &n);

    (void)worker;
    for (size_t r = row; r < row + n; r++)
        j->k->rmsnorm_heads_back(j->y + r * j->ld, j->x + r * j->d, j->w, j->heads,
                                 j->d / j->heads, j->eps);
    return DR_OK;
}

dr_status cpu_rmsnorm_heads_back(nn_device *dev, float *dx, const float *kept,
                                 const float *w, size_t m, size_t ld, size_t heads,
                                 size_t d, float eps)
{
    job j = {.y = dx,
             .x = kept,
             .w = w,
             .m = m,
             .d = heads * d,
             .ld = ld,
             .heads = heads,
             .eps = eps};

    return run(dev, &j, heads_back_task);
}

static dr_status layernorm_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    size_t n, row = block(j, task, &n), at = row * j->d;

    (void)worker;
    j->k->layernorm(j->y + at, j->x + at, j->w, j->bias, n, j->d, j->eps);
    return DR_OK;
}

dr_status cpu_layernorm(nn_device *dev, float *y, const float *x, const float *w,
                        const float *bias, size_t m, size_t d, float eps)
{
    job j = {.y = y, .x = x, .w = w, .bias = bias, .m = m, .d = d, .eps = eps};

    return run(dev, &j, layernorm_task);
}

dr_status cpu_layernorm_back(nn_device *dev, float *dx, const float *dy, const float *x,
                             const float *w, size_t m, size_t d, float eps)
{
    return norm_back(dev, cpu_of(dev)->rows->layernorm_back, dx, dy, x, w, m, d, eps);
}

/* Where row r of the activation's input lies. */
static size_t act_at(const job *j, size_t r)
{
    return r * j->d * (j->act.gated ? 2 : 1);
}

static dr_status activate_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    size_t n, row = block(j, task, &n);

    (void)worker;
    j->k->activate(j->y + row * j->d, j->x + act_at(j, row), n, j->d, j->act);
    return DR_OK;
}

dr_status cpu_activate(nn_device *dev, float *y, const float *x, size_t m, size_t i,
                       nn_act act)
{
    job j = {.y = y, .x = x, .m = m, .d = i, .act = act};

    return run(dev, &j, activate_task);
}

static dr_status activate_back_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    size_t n, row = block(j, task, &n);

    (void)worker;
    j->k->activate_back(j->y + act_at(j, row), j->x2 + row * j->d, j->x + act_at(j, row), n,
                        j->d, j->act);
    return DR_OK;
}

dr_status cpu_activate_back(nn_device *dev, float *dx, const float *dy, const float *x,
                            size_t m, size_t i, nn_act act)
{
    job j = {.y = dx, .x2 = dy, .x = x, .m = m, .d = i, .act = act};

    return run(dev, &j, activate_back_task);
}

static dr_status rope_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    const nn_attn_shape *s = j->shape;
    size_t n, row = block(j, task, &n), half = s->rotary_dim / 2;

    (void)worker;
    for (size_t r = row; r < row + n; r++) {
        size_t at = (r % s->t - nn_attn_start(s, r / s->t, r % s->t)) * half;
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

static dr_status residual_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    size_t n, at = block(j, task, &n);

    (void)worker;
    j->k->residual(j->y + at, j->x + at, n, j->eps);
    return DR_OK;
}

dr_status cpu_residual(nn_device *dev, float *y, const float *x, size_t count, float scale)
{
    job j = {.y = y, .x = x, .m = count, .d = 1, .eps = scale};

    return run(dev, &j, residual_task);
}

static dr_status scale_cap_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    size_t n, at = block(j, task, &n);

    (void)worker;
    j->k->scale_cap(j->y + at, n, j->eps, j->cap);
    return DR_OK;
}

dr_status cpu_scale_cap(nn_device *dev, float *x, size_t count, float scale, float cap)
{
    job j = {.y = x, .m = count, .d = 1, .eps = scale, .cap = cap};

    return run(dev, &j, scale_cap_task);
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
        j->loss[r] = j->k->xent(j->y + r * j->d, j->d, (size_t)j->targets[r], j->eps,
                                j->cap, j->smoothing);
    return DR_OK;
}

dr_status cpu_xent(nn_device *dev, double *loss, float *logits, const int32_t *targets,
                   size_t m, size_t v, float grad_scale, float cap, float smoothing)
{
    job j = {.loss = loss,
             .y = logits,
             .targets = targets,
             .m = m,
             .d = v,
             .eps = grad_scale,
             .cap = cap,
             .smoothing = smoothing};

    return run(dev, &j, xent_task);
}

static dr_status kl_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    size_t n, row = block(j, task, &n);

    (void)worker;
    for (size_t r = row; r < row + n; r++)
        j->loss[r] = j->k->kl(j->y + r * j->d, j->x + r * j->d, j->d, j->eps, j->cap);
    return DR_OK;
}

dr_status cpu_kl(nn_device *dev, double *kl, float *s, const float *t, size_t m, size_t v,
                 float grad_scale, float cap)
{
    job j = {.loss = kl, .y = s, .x = t, .m = m, .d = v, .eps = grad_scale, .cap = cap};

    return run(dev, &j, kl_task);
}

/* ---- judging ---- */

typedef struct {
    nn_device *dev;
    nn_row_stat *stats;
    const float *a, *other;
    const int32_t *targets;
    size_t v;
} stats_job;

static dr_status stats_task(void *ctx, size_t row, int worker)
{
    const stats_job *j = ctx;

    (void)worker;
    return ref_row_stats(j->dev, j->stats + row, j->a + row * j->v,
                         j->other != NULL ? j->other + row * j->v : NULL,
                         j->targets != NULL ? j->targets + row : NULL, 1, j->v);
}

dr_status cpu_row_stats(nn_device *dev, nn_row_stat *stats, const float *a,
                        const float *other, const int32_t *targets, size_t m, size_t v)
{
    stats_job j = {dev, stats, a, other, targets, v};

    return dr_pool_run(dev->pool, m, stats_task, &j);
}
