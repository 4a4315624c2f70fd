/*
 * attention_pack.c - packing, masks and the small product that both directions use.
 */
#include <math.h>

#include "nn/cpu/attention_impl.h"

void cpu_attn_init(cpu_attn *a, const nn_device *dev, const float *qkv,
                   const nn_attn_shape *s)
{
    const cpu_state *state = cpu_of(dev);

    *a = (cpu_attn){.s = s, .gemm = state->gemm, .rows = state->rows, .qkv = qkv};
    a->row = (s->heads + 2 * s->kv_heads) * s->head_dim;
    a->mr = a->gemm->mr;
    a->nr = a->gemm->nr;
    a->dim_mr = cpu_round(s->head_dim, a->mr);
    a->dim_nr = cpu_round(s->head_dim, a->nr);
    a->keys_mr = cpu_round(s->t, a->mr);
    DR_BUG_IF(a->nr > CPU_NR_MAX || a->mr > CPU_MR_MAX || CPU_KEY_ALIGN % a->mr != 0);
}

void cpu_attn_pack_keys(const cpu_attn *a, float *by_key, float *by_dim, const float *rows,
                        size_t from, size_t to)
{
    size_t dim = a->s->head_dim, t = a->s->t, mr = a->mr;

    for (size_t k = from; by_key != NULL && k < to; k += mr)
        cpu_pack_rows(a->gemm, by_key + k * dim, mr, rows + k * a->row, a->row,
                      cpu_min(mr, t - k), dim, 1.0f);
    for (size_t c = 0; by_dim != NULL && c < dim; c += mr)
        cpu_pack_cols(by_dim + c * t + from * mr, mr, rows + from * a->row + c, a->row,
                      cpu_min(mr, dim - c), to - from);
}

/* Of query q, which may be padding behind the last one. */
static size_t first_seen(const cpu_attn *a, size_t b, size_t q)
{
    size_t window = a->s->window, from = window != 0 && q + 1 > window ? q + 1 - window : 0;
    size_t start = nn_attn_start(a->s, b, cpu_min(q, a->s->t - 1));

    return from > start ? from : start;
}

size_t cpu_attn_first_key(const cpu_attn *a, size_t b, size_t q0)
{
    return first_seen(a, b, q0) / CPU_KEY_ALIGN * CPU_KEY_ALIGN;
}

void cpu_attn_mask(const cpu_attn *a, float *s, size_t k0, size_t keys, size_t b, size_t q0)
{
    size_t nr = a->nr, first[CPU_NR_MAX];

    if (k0 + keys <= q0 + 1 && a->s->window == 0 && a->s->starts == NULL)
        return; /* all queries see all of them */
    for (size_t lane = 0; lane < nr; lane++)
        first[lane] = first_seen(a, b, q0 + lane);
    for (size_t k = 0; k < keys; k++, s += nr) { /* no later query sees an earlier key */
        size_t key = k0 + k, before = key > q0 ? cpu_min(key - q0, nr) : 0, lane = nr;
        for (size_t i = 0; i < before; i++)
            s[i] = CPU_MASKED;
        for (; lane > 0 && key < first[lane - 1]; lane--)
            s[lane - 1] = CPU_MASKED;
    }
}

void cpu_attn_product(const cpu_attn *a, float *c, const float *left, size_t panel_floats,
                      size_t rows, const float *right, size_t kc, bool acc)
{
    for (size_t r = 0; r < rows; r += a->mr, left += panel_floats)
        a->gemm->tile(c + r * a->nr, a->nr, left, right, kc, acc);
}

void cpu_attn_put(const cpu_attn *a, float *out, float *lse, size_t b, size_t h, size_t q0,
                  size_t count, float *o, const float *max, const float *sum)
{
    const nn_attn_shape *s = a->s;
    size_t dim = s->head_dim, ld = s->heads * dim;
    float inv[CPU_NR_MAX];

    for (size_t i = 0; i < a->nr; i++)
        inv[i] = 1.0f / sum[i];
    a->rows->scale_lanes(o, dim, a->nr, inv);
    a->gemm->transpose(out + (b * s->t + q0) * ld + h * dim, ld, o, a->nr, dim, count,
                       1.0f);
    for (size_t i = 0; lse != NULL && i < count; i++)
        lse[(b * s->heads + h) * s->t + q0 + i] = max[i] + logf(sum[i]);
}
