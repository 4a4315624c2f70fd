/*
 * cpu_attention.c - causal attention of grouped queries without the T x T matrix (Dao et
 * al. 2022; the running softmax is Milakov and Gimelshein's).
 *
 * First all keys and values are packed, once for all heads that share them.  Then a task is
 * 96 queries of one head: for each panel of nr queries, blocks of 240 keys:
 *
 *     S[keys][nr] = K Q^T   ->  softmax down the columns  ->  O[dim][nr] += V^T P
 *
 * Keys after a panel's last query and before its first window are never touched.
 * Memory: 2 M G C floats of packed keys and values, 100 KB a thread.
 */
#include "nn/cpu/attention_impl.h"

enum { TASK_QUERIES = 96 };

typedef struct {
    cpu_attn a;
    float *keys, *values; /* [b][g] packed */
    size_t keys_floats, values_floats, query_tiles, key_tiles;
    float *scratch; /* one part a worker */
    size_t scratch_floats;
    float *out, *lse;
} forward;

static dr_status pack_task(void *ctx, size_t task, int worker)
{
    const forward *f = ctx;
    const nn_attn_shape *s = f->a.s;
    size_t bg = task / f->key_tiles, from = task % f->key_tiles * CPU_KEY_BLOCK;
    size_t b = bg / s->kv_heads, g = bg % s->kv_heads;
    size_t to = cpu_min(from + CPU_KEY_BLOCK, s->t);

    (void)worker;
    cpu_attn_pack_keys(&f->a, f->keys + bg * f->keys_floats, NULL,
                       cpu_attn_k(&f->a, b, g, 0), from, to);
    cpu_attn_pack_keys(&f->a, NULL, f->values + bg * f->values_floats,
                       cpu_attn_v(&f->a, b, g, 0), from, to);
    return DR_OK;
}

/* One panel of queries q0 .. q0 + nr - 1, those past t being padding. */
static void panel(const forward *f, size_t b, size_t h, size_t q0, float *scratch)
{
    const cpu_attn *a = &f->a;
    const nn_attn_shape *s = a->s;
    size_t dim = s->head_dim, nr = a->nr, count = cpu_min(nr, s->t - q0);
    size_t bg = b * s->kv_heads + h / (s->heads / s->kv_heads);
    const float *keys = f->keys + bg * f->keys_floats;
    const float *values = f->values + bg * f->values_floats;
    float *q = scratch, *o = q + cpu_round(dim * nr, 16), *scores = o + a->dim_mr * nr;
    float max[CPU_NR_MAX] = {0}, sum[CPU_NR_MAX] = {0};
    /* from the task's first query, so that blocks do not depend on nr */
    size_t from = cpu_attn_first_key(a, b, q0 / TASK_QUERIES * TASK_QUERIES),
           to = q0 + count;

    cpu_pack_rows(a->gemm, q, nr, cpu_attn_q(a, b, h, q0), a->row, count, dim, s->scale);
    for (size_t k0 = from; k0 < to; k0 += CPU_KEY_BLOCK) {
        size_t n = cpu_min(CPU_KEY_BLOCK, to - k0);
        bool first = k0 == from;
        cpu_attn_product(a, scores, keys + k0 * dim, a->mr * dim, n, q, dim, false);
        if (s->softcap != 0.0f)
            a->rows->scale_cap(scores, n * nr, 1.0f, s->softcap);
        cpu_attn_mask(a, scores, k0, n, b, q0);
        const cpu_softmax block = {scores, n, nr, max, sum, o, a->dim_mr, first};
        a->rows->softmax(&block);
        cpu_attn_product(a, o, values + k0 * a->mr, a->mr * s->t, dim, scores, n, !first);
    }
    cpu_attn_put(a, f->out, f->lse, b, h, q0, count, o, max, sum);
}

static dr_status query_task(void *ctx, size_t task, int worker)
{
    const forward *f = ctx;
    const nn_attn_shape *s = f->a.s;
    size_t bh = task % (s->b * s->heads);
    /* the longest rows first, so that no thread ends with one */
    size_t q0 = (f->query_tiles - 1 - task / (s->b * s->heads)) * TASK_QUERIES;
    size_t q1 = cpu_min(q0 + TASK_QUERIES, s->t);
    float *scratch = f->scratch + (size_t)worker * f->scratch_floats;

    for (size_t q = q0; q < q1; q += f->a.nr)
        panel(f, bh / s->heads, bh % s->heads, q, scratch);
    return DR_OK;
}

dr_status cpu_attention(nn_device *dev, float *out, float *lse, const float *qkv,
                        const nn_attn_shape *s)
{
    dr_status st = DR_OK;
    forward f = {.out = out, .lse = lse};
    size_t kv = s->b * s->kv_heads, threads = (size_t)dr_pool_threads(dev->pool);
    size_t work = s->b * s->heads * s->t * s->t * s->head_dim;

    if (s->b == 0 || s->t == 0)
        return DR_OK;
    cpu_attn_init(&f.a, dev, qkv, s);
    f.keys_floats = cpu_attn_by_key_floats(&f.a);
    f.values_floats = cpu_attn_by_dim_floats(&f.a);
    f.scratch_floats =
        cpu_round(s->head_dim * f.a.nr, 16) + (f.a.dim_mr + CPU_KEY_BLOCK) * f.a.nr;
    f.key_tiles = cpu_ceil(s->t, CPU_KEY_BLOCK);
    f.query_tiles = cpu_ceil(s->t, TASK_QUERIES);
    DR_TRY(cpu_work(dev, &f.keys,
                    kv * (f.keys_floats + f.values_floats) + threads * f.scratch_floats));
    f.values = f.keys + kv * f.keys_floats;
    f.scratch = f.values + kv * f.values_floats;
    DR_TRY(cpu_tasks(dev, kv * f.key_tiles, work, pack_task, &f));
    DR_TRY(cpu_tasks(dev, s->b * s->heads * f.query_tiles, work, query_task, &f));
done:
    return st;
}
