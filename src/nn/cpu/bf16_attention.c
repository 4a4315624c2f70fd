/*
 * bf16_attention.c - attention whose two products are of bf16, for calibration
 * (nn_rough_attention): cpu_attention.c with tile registers.
 *
 *     S[keys][32] = K Q^T   ->  softmax down the columns  ->  O[dim][32] += V^T P
 *
 * Keys are rows of the left operand, V turned is another one; both are packed once for all
 * heads that share them.  Scaled queries and probabilities are right operands, rounded when
 * they are packed; scores, maxima and sums are floats.
 */
#include <string.h>

#include "nn/cpu/attention_impl.h"

enum {
    SIDE = CPU_BF16_SIDE,
    STEP = CPU_BF16_STEP,
    KEYS = 128, /* of one block */
    TASK_QUERIES = 128
};

typedef struct {
    cpu_attn a; /* of panels of SIDE queries */
    const cpu_bf16_kernels *kern;
    size_t dim_steps, key_steps, query_tiles; /* steps of 32 dims, of 32 keys */
    uint32_t *keys, *values;                  /* [b][g] packed */
    float *scratch;                           /* one part a worker */
    size_t scratch_floats;
    float *out, *lse;
} forward;

/* Words of one kv head's keys, and of its values. */
static size_t head_words(const forward *f)
{
    return f->key_steps * f->dim_steps * STEP;
}

/* 32 keys of one kv head; values: [panel of 32 dims][step of 32 keys]. */
static dr_status pack_task(void *ctx, size_t task, int worker)
{
    const forward *f = ctx;
    const nn_attn_shape *s = f->a.s;
    size_t bg = task / f->key_steps, step = task % f->key_steps, from = step * SIDE;
    size_t b = bg / s->kv_heads, g = bg % s->kv_heads, n = cpu_min(SIDE, s->t - from);
    const float *v = cpu_attn_v(&f->a, b, g, from);
    uint32_t *keys = f->keys + bg * head_words(f), other[STEP];
    uint32_t *values = f->values + bg * head_words(f);

    (void)worker;
    f->kern->pack_rows(keys + step * f->dim_steps * STEP, cpu_attn_k(&f->a, b, g, from),
                       f->a.row, n, s->head_dim);
    for (size_t d = 0; d < f->dim_steps; d++)
        f->kern->pack_columns(values + (d * f->key_steps + step) * STEP, other,
                              v + d * SIDE, f->a.row, n,
                              cpu_min(SIDE, s->head_dim - d * SIDE));
    return DR_OK;
}

/* A worker's memory, each part on a line of its own. */
typedef struct {
    float *scaled;   /* [32][dim]; then the packed queries' rows */
    uint32_t *q;     /* [dim_steps] steps */
    float *o;        /* [dims][32] */
    float *scores;   /* [KEYS][32] */
    uint32_t *probs; /* steps of 32 keys */
} parts;

static size_t place(const forward *f, parts *p, float *at)
{
    size_t wide = f->dim_steps * STEP;
    uint32_t *words = (uint32_t *)at;

    *p = (parts){.q = words, .probs = words + wide};
    p->scaled = at + wide + KEYS / SIDE * STEP;
    p->o = p->scaled + 2 * wide;
    p->scores = p->o + 2 * wide;
    return 6 * wide + KEYS / SIDE * STEP + KEYS * SIDE;
}

/* q0 .. q0 + 31 of head h, times the scale, as a right operand. */
static void pack_queries(const forward *f, const parts *p, size_t b, size_t h, size_t q0,
                         size_t count)
{
    const nn_attn_shape *s = f->a.s;
    uint32_t *rows = (uint32_t *)p->scores;
    size_t dim = s->head_dim;

    for (size_t i = 0; i < count; i++)
        memcpy(p->scaled + i * dim, cpu_attn_q(&f->a, b, h, q0 + i), dim * sizeof(float));
    f->a.rows->scale_cap(p->scaled, count * dim, s->scale, 0.0f);
    f->kern->pack_rows(rows, p->scaled, dim, count, dim);
    f->kern->turn(p->q, rows, f->dim_steps);
}

/* Adds keys k0 .. k0 + n - 1 to o, whose columns are queries q0 .. */
static void add_keys(const forward *f, const parts *p, const cpu_softmax *soft, size_t bg,
                     size_t q0, size_t k0)
{
    const nn_attn_shape *s = f->a.s;
    const uint32_t *keys = f->keys + bg * head_words(f);
    const uint32_t *values = f->values + bg * head_words(f);
    size_t n = soft->keys, steps = cpu_ceil(n, SIDE);

    for (size_t i = 0; i < steps; i++)
        f->kern->tile(p->scores + i * SIDE * SIDE, SIDE,
                      keys + (k0 / SIDE + i) * f->dim_steps * STEP, p->q, f->dim_steps,
                      false);
    if (s->softcap != 0.0f)
        f->a.rows->scale_cap(p->scores, n * SIDE, 1.0f, s->softcap);
    cpu_attn_mask(&f->a, p->scores, k0, n, bg / s->kv_heads, q0);
    f->a.rows->softmax(soft);
    for (size_t i = 0; i < steps; i++)
        f->kern->pack_columns(NULL, p->probs + i * STEP, p->scores + i * SIDE * SIDE, SIDE,
                              cpu_min(SIDE, n - i * SIDE), SIDE);
    for (size_t d = 0; d < f->dim_steps; d++)
        f->kern->tile(p->o + d * SIDE * SIDE, SIDE,
                      values + (d * f->key_steps + k0 / SIDE) * STEP, p->probs, steps,
                      !soft->first);
}

/* One panel of queries q0 .. q0 + 31, those past t being padding. */
static void panel(const forward *f, size_t b, size_t h, size_t q0, const parts *p)
{
    const cpu_attn *a = &f->a;
    const nn_attn_shape *s = a->s;
    size_t count = cpu_min(SIDE, s->t - q0), to = q0 + count;
    size_t bg = b * s->kv_heads + h / (s->heads / s->kv_heads);
    /* from the task's first query, as cpu_attention.c has it */
    size_t from = cpu_attn_first_key(a, b, q0 / TASK_QUERIES * TASK_QUERIES) / SIDE * SIDE;
    float max[SIDE] = {0}, sum[SIDE] = {0};

    pack_queries(f, p, b, h, q0, count);
    for (size_t k0 = from; k0 < to; k0 += KEYS) {
        const cpu_softmax soft = {.s = p->scores,
                                  .keys = cpu_min(KEYS, to - k0),
                                  .nr = SIDE,
                                  .max = max,
                                  .sum = sum,
                                  .o = p->o,
                                  .o_rows = f->dim_steps * SIDE,
                                  .first = k0 == from};
        add_keys(f, p, &soft, bg, q0, k0);
    }
    cpu_attn_put(a, f->out, f->lse, b, h, q0, count, p->o, max, sum);
}

static dr_status query_task(void *ctx, size_t task, int worker)
{
    const forward *f = ctx;
    const nn_attn_shape *s = f->a.s;
    size_t bh = task % (s->b * s->heads);
    /* the longest rows first, so that no thread ends with one */
    size_t q0 = (f->query_tiles - 1 - task / (s->b * s->heads)) * TASK_QUERIES;
    size_t q1 = cpu_min(q0 + TASK_QUERIES, s->t);
    parts p;

    (void)place(f, &p, f->scratch + (size_t)worker * f->scratch_floats);
    f->kern->enter();
    for (size_t q = q0; q < q1; q += SIDE)
        panel(f, bh / s->heads, bh % s->heads, q, &p);
    f->kern->leave();
    return DR_OK;
}

dr_status cpu_bf16_attention(nn_device *dev, float *out, float *lse, const float *qkv,
                             const nn_attn_shape *s)
{
    forward f = {.kern = cpu_of(dev)->bf16, .out = out, .lse = lse};
    size_t kv = s->b * s->kv_heads, threads = (size_t)dr_pool_threads(dev->pool);
    size_t work = s->b * s->heads * s->t * s->t * s->head_dim;
    float *room = NULL;
    parts none;
    dr_status st = DR_OK;

    if (s->b == 0 || s->t == 0)
        return DR_OK;
    cpu_attn_init(&f.a, dev, qkv, s);
    f.a.nr = SIDE;
    f.dim_steps = cpu_ceil(s->head_dim, SIDE);
    f.key_steps = cpu_ceil(s->t, SIDE);
    f.query_tiles = cpu_ceil(s->t, TASK_QUERIES);
    f.scratch_floats = place(&f, &none, NULL);
    DR_TRY(cpu_work(dev, &room, 2 * kv * head_words(&f) + threads * f.scratch_floats));
    f.keys = (uint32_t *)room;
    f.values = f.keys + kv * head_words(&f);
    f.scratch = room + 2 * kv * head_words(&f);
    DR_TRY(cpu_tasks(dev, kv * f.key_steps, work, pack_task, &f));
    DR_TRY(cpu_tasks(dev, s->b * s->heads * f.query_tiles, work, query_task, &f));
done:
    return st;
}
