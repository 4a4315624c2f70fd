/*
 * cpu_attention_back.c - gradients of attention, probabilities recomputed from the saved
 * log-sum-exp (Dao et al. 2022).
 *
 * With P = exp(S - lse), S = scale Q K^T, delta = rowsum(dO O) and dS = P (dO V^T - delta):
 *
 *     dV = P^T dO     dK = scale dS^T Q     dQ = scale dS K
 *
 * A task is one head: tiles of 96 queries, and for each, blocks of 240 keys.  Each head has
 * its own dK and dV; those of heads that share a key/value head are added in order of the
 * heads by a last pass.
 * Memory: 3 M G C floats packed, 2 M H C of dK and dV, about 400 KB a thread.
 */
#include <string.h>

#include "nn/cpu/attention_impl.h"

enum { TILE_QUERIES = 96, SUM_ROWS = 32 };

typedef struct {
    cpu_attn a;
    float *keys, *keys_t, *values; /* [b][g] packed */
    size_t by_key, by_dim;         /* floats of one */
    float *dk, *dv;                /* [b][h][t rounded up][dim_nr] */
    size_t grad_floats, key_tiles;
    float *scratch;
    size_t scratch_floats;
    float *dqkv;
    const float *dout, *out, *lse;
} backward;

/* One tile of queries of one head; each panel is nr queries. */
typedef struct {
    size_t b, h, q0, count, panels;
    float *q, *dout;           /* [panel][dim][nr] right operands over dim (q scaled) */
    float *q_rows, *dout_rows; /* [panel of nr dims][TILE_QUERIES][nr] over queries */
    float *p, *ds;             /* [panel][keys][nr] of the key block */
    float *p_t, *ds_t;         /* [panel of mr keys][TILE_QUERIES][mr] left operands */
    float *dq;                 /* [panel][dim_mr][nr] */
    float lse[TILE_QUERIES], delta[TILE_QUERIES];
} tile;

static size_t tile_layout(const backward *f, tile *t, float *at)
{
    const cpu_attn *a = &f->a;
    size_t over_dim = a->s->head_dim * TILE_QUERIES, block = CPU_KEY_BLOCK * TILE_QUERIES;
    struct {
        float **p;
        size_t floats;
    } parts[] = {
        {&t->q, over_dim},
        {&t->dout, over_dim},
        {&t->q_rows, a->dim_nr * TILE_QUERIES},
        {&t->dout_rows, a->dim_nr * TILE_QUERIES},
        {&t->p, block},
        {&t->ds, block},
        {&t->p_t, block},
        {&t->ds_t, block},
        {&t->dq, a->dim_mr * TILE_QUERIES},
    };
    size_t sum = 0;

    for (size_t i = 0; i < DR_COUNT(parts); i++) {
        *parts[i].p = at == NULL ? NULL : at + sum;
        sum += cpu_round(parts[i].floats, 16);
    }
    return sum;
}

static dr_status pack_task(void *ctx, size_t task, int worker)
{
    const backward *f = ctx;
    const nn_attn_shape *s = f->a.s;
    size_t bg = task / f->key_tiles, from = task % f->key_tiles * CPU_KEY_BLOCK;
    size_t b = bg / s->kv_heads, g = bg % s->kv_heads;
    size_t to = cpu_min(from + CPU_KEY_BLOCK, s->t);

    (void)worker;
    cpu_attn_pack_keys(&f->a, f->keys + bg * f->by_key, f->keys_t + bg * f->by_dim,
                       cpu_attn_k(&f->a, b, g, 0), from, to);
    cpu_attn_pack_keys(&f->a, f->values + bg * f->by_key, NULL, cpu_attn_v(&f->a, b, g, 0),
                       from, to);
    return DR_OK;
}

/* Queries and their output gradients in both orders; lse and delta. */
static void load_tile(const backward *f, tile *t)
{
    const cpu_attn *a = &f->a;
    const nn_attn_shape *s = a->s;
    size_t dim = s->head_dim, nr = a->nr, ld = s->heads * dim;
    const float *q = cpu_attn_q(a, t->b, t->h, t->q0);
    size_t at = (t->b * s->t + t->q0) * ld + t->h * dim;

    for (size_t i = 0; i < t->panels; i++) {
        size_t n = cpu_min(nr, t->count - i * nr);
        cpu_pack_rows(a->gemm, t->q + i * dim * nr, nr, q + i * nr * a->row, a->row, n, dim,
                      s->scale);
        cpu_pack_rows(a->gemm, t->dout + i * dim * nr, nr, f->dout + at + i * nr * ld, ld,
                      n, dim, 1.0f);
    }
    for (size_t c = 0; c < dim; c += nr) {
        size_t n = cpu_min(nr, dim - c);
        cpu_pack_cols(t->q_rows + c * TILE_QUERIES, nr, q + c, a->row, n, t->count);
        cpu_pack_cols(t->dout_rows + c * TILE_QUERIES, nr, f->dout + at + c, ld, n,
                      t->count);
    }
    memset(t->lse, 0, sizeof(t->lse));
    memset(t->delta, 0, sizeof(t->delta));
    for (size_t i = 0; i < t->count; i++) {
        t->lse[i] = f->lse[(t->b * s->heads + t->h) * s->t + t->q0 + i];
        t->delta[i] = a->rows->dot(f->dout + at + i * ld, f->out + at + i * ld, dim);
    }
    memset(t->dq, 0, a->dim_mr * TILE_QUERIES * sizeof(*t->dq));
}

/* P, dS and dQ of one panel of queries on keys k0 .. k0 + n - 1; keys that none of its
 * queries sees are zeros. */
static void panel_block(const backward *f, tile *t, size_t i, size_t k0, size_t n,
                        size_t bg)
{
    const cpu_attn *a = &f->a;
    size_t dim = a->s->head_dim, nr = a->nr, q0 = t->q0 + i * nr, at = k0 * dim;
    float *p = t->p + i * CPU_KEY_BLOCK * nr, *ds = t->ds + i * CPU_KEY_BLOCK * nr;
    size_t last = cpu_min(q0 + nr, t->q0 + t->count), seen = last > k0 ? last - k0 : 0;

    seen = cpu_min(seen, n);
    cpu_attn_product(a, p, f->keys + bg * f->by_key + at, a->mr * dim, seen,
                     t->q + i * dim * nr, dim, false);
    cpu_attn_product(a, ds, f->values + bg * f->by_key + at, a->mr * dim, seen,
                     t->dout + i * dim * nr, dim, false);
    if (a->s->softcap != 0.0f)
        a->rows->scale_cap(p, seen * nr, 1.0f, a->s->softcap);
    cpu_attn_mask(a, p, k0, seen, t->b, q0);
    if (a->s->softcap != 0.0f)
        a->rows->softmax_back_capped(p, ds, seen, nr, t->lse + i * nr, t->delta + i * nr,
                                     a->s->softcap);
    else
        a->rows->softmax_back(p, ds, seen, nr, t->lse + i * nr, t->delta + i * nr);
    memset(p + seen * nr, 0, (n - seen) * nr * sizeof(*p));
    memset(ds + seen * nr, 0, (n - seen) * nr * sizeof(*ds));
    if (seen > 0)
        cpu_attn_product(a, t->dq + i * a->dim_mr * nr,
                         f->keys_t + bg * f->by_dim + k0 * a->mr, a->mr * a->s->t, dim, ds,
                         seen, true);
}

/* grad[key][dim] += left[key][query] right[query][dim] for mr keys, from query panel i. */
static void add_keys(const backward *f, float *grad, const float *left, const float *right,
                     size_t from, size_t queries)
{
    const cpu_attn *a = &f->a;

    for (size_t c = 0; c < a->dim_nr; c += a->nr)
        a->gemm->tile(grad + c, a->dim_nr, left + from * a->mr,
                      right + c * TILE_QUERIES + from * a->nr, queries - from, true);
}

static void key_block(const backward *f, tile *t, size_t k0)
{
    const cpu_attn *a = &f->a;
    const nn_attn_shape *s = a->s;
    size_t nr = a->nr, mr = a->mr, bh = t->b * s->heads + t->h;
    size_t bg = t->b * s->kv_heads + t->h / (s->heads / s->kv_heads);
    size_t n = cpu_min(CPU_KEY_BLOCK, t->q0 + t->count - k0);
    float *dk = f->dk + bh * f->grad_floats, *dv = f->dv + bh * f->grad_floats;

    for (size_t i = 0; i < t->panels; i++)
        panel_block(f, t, i, k0, n, bg);
    for (size_t k = 0; k < n; k += mr) {
        /* panels whose queries all come before these keys have only zeros */
        size_t skip = k0 + k > t->q0 ? (k0 + k - t->q0) / nr : 0,
               count = cpu_min(mr, n - k);
        float *p_t = t->p_t + k * TILE_QUERIES, *ds_t = t->ds_t + k * TILE_QUERIES;
        for (size_t i = skip; i < t->panels; i++) {
            size_t from = (i * CPU_KEY_BLOCK + k) * nr, to = i * nr * mr;
            cpu_pack_rows(a->gemm, p_t + to, mr, t->p + from, nr, count, nr, 1.0f);
            cpu_pack_rows(a->gemm, ds_t + to, mr, t->ds + from, nr, count, nr, 1.0f);
        }
        size_t at = (k0 + k) * a->dim_nr;
        add_keys(f, dv + at, p_t, t->dout_rows, skip * nr, t->count);
        add_keys(f, dk + at, ds_t, t->q_rows, skip * nr, t->count);
    }
}

static dr_status head_task(void *ctx, size_t task, int worker)
{
    const backward *f = ctx;
    const cpu_attn *a = &f->a;
    const nn_attn_shape *s = a->s;
    tile t = {.b = task / s->heads, .h = task % s->heads};

    (void)tile_layout(f, &t, f->scratch + (size_t)worker * f->scratch_floats);
    memset(f->dk + task * f->grad_floats, 0, f->grad_floats * sizeof(float));
    memset(f->dv + task * f->grad_floats, 0, f->grad_floats * sizeof(float));
    for (t.q0 = 0; t.q0 < s->t; t.q0 += TILE_QUERIES) {
        t.count = cpu_min(TILE_QUERIES, s->t - t.q0);
        t.panels = cpu_ceil(t.count, a->nr);
        load_tile(f, &t);
        for (size_t k0 = cpu_attn_first_key(a, t.b, t.q0); k0 < t.q0 + t.count;
             k0 += CPU_KEY_BLOCK)
            key_block(f, &t, k0);
        for (size_t i = 0; i < t.panels; i++) {
            size_t q = t.q0 + i * a->nr;
            a->gemm->transpose(f->dqkv + (t.b * s->t + q) * a->row + t.h * s->head_dim,
                               a->row, t.dq + i * a->dim_mr * a->nr, a->nr, s->head_dim,
                               cpu_min(a->nr, s->t - q), s->scale);
        }
    }
    return DR_OK;
}

/* dK and dV of the kv heads: sums over the heads of the group, in their order. */
static dr_status sum_task(void *ctx, size_t task, int worker)
{
    const backward *f = ctx;
    const cpu_attn *a = &f->a;
    const nn_attn_shape *s = a->s;
    size_t dim = s->head_dim, group = s->heads / s->kv_heads;
    size_t end = cpu_min((task + 1) * SUM_ROWS, s->b * s->t);

    (void)worker;
    for (size_t row = task * SUM_ROWS; row < end; row++) {
        for (size_t g = 0; g < s->kv_heads; g++) {
            size_t bh = row / s->t * s->heads + g * group;
            float *dk = f->dqkv + row * a->row + (s->heads + g) * dim;
            float *dv = dk + s->kv_heads * dim;
            size_t at = bh * f->grad_floats + row % s->t * a->dim_nr;
            memcpy(dk, f->dk + at, dim * sizeof(*dk));
            memcpy(dv, f->dv + at, dim * sizeof(*dv));
            for (size_t i = 1; i < group; i++) {
                a->rows->add(dk, f->dk + at + i * f->grad_floats, dim);
                a->rows->add(dv, f->dv + at + i * f->grad_floats, dim);
            }
            for (size_t c = 0; c < dim; c++)
                dk[c] *= s->scale;
        }
    }
    return DR_OK;
}

dr_status cpu_attention_back(nn_device *dev, float *dqkv, const float *dout,
                             const float *out, const float *lse, const float *qkv,
                             const nn_attn_shape *s)
{
    dr_status st = DR_OK;
    backward f = {.dqkv = dqkv, .dout = dout, .out = out, .lse = lse};
    tile measure;
    size_t kv = s->b * s->kv_heads, heads = s->b * s->heads;
    size_t threads = (size_t)dr_pool_threads(dev->pool);
    size_t work = heads * s->t * s->t * s->head_dim;

    if (s->b == 0 || s->t == 0)
        return DR_OK;
    cpu_attn_init(&f.a, dev, qkv, s);
    f.by_key = cpu_attn_by_key_floats(&f.a);
    f.by_dim = cpu_attn_by_dim_floats(&f.a);
    f.grad_floats = cpu_round(f.a.keys_mr * f.a.dim_nr, 16);
    f.key_tiles = cpu_ceil(s->t, CPU_KEY_BLOCK);
    f.scratch_floats = tile_layout(&f, &measure, NULL);
    DR_TRY(cpu_work(dev, &f.keys,
                    kv * (2 * f.by_key + f.by_dim) + 2 * heads * f.grad_floats +
                        threads * f.scratch_floats));
    f.values = f.keys + kv * f.by_key;
    f.keys_t = f.values + kv * f.by_key;
    f.dk = f.keys_t + kv * f.by_dim;
    f.dv = f.dk + heads * f.grad_floats;
    f.scratch = f.dv + heads * f.grad_floats;
    DR_TRY(cpu_tasks(dev, kv * f.key_tiles, work, pack_task, &f));
    DR_TRY(cpu_tasks(dev, heads, work, head_task, &f));
    DR_TRY(cpu_tasks(dev, cpu_ceil(s->b * s->t, SUM_ROWS), work, sum_task, &f));
done:
    return st;
}
