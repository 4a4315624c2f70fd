/*
 * attention_impl.h - what cpu_attention.c and cpu_attention_back.c share: where heads lie
 * in a row, keys and values packed once for all queries, masks.
 *
 * Scores are computed transposed, keys down and a panel of nr queries across: the softmax
 * then runs down columns in vector lanes, and the block of probabilities is already in the
 * order in which the next product reads its right operand.
 */
#ifndef DRUPE_NN_CPU_ATTENTION_IMPL_H
#define DRUPE_NN_CPU_ATTENTION_IMPL_H

#include "nn/cpu/cpu_impl.h"

/* A masked score: far below any other, yet exp(masked - masked) is not NaN.  A column whose
 * keys are all masked in one block is wiped out by the first block with a real one. */
#define CPU_MASKED (-1e30f)

enum {
    CPU_KEY_ALIGN = 24,  /* where blocks of keys may begin: a multiple of every mr */
    CPU_KEY_BLOCK = 240, /* keys of one block: a multiple of that */
    CPU_NR_MAX = 32,
    CPU_MR_MAX = 8
};

typedef struct {
    const nn_attn_shape *s;
    const cpu_gemm_kernels *gemm;
    const cpu_row_kernels *rows;
    const float *qkv;
    size_t row; /* floats of a row of qkv */
    size_t mr, nr;
    size_t dim_mr, dim_nr; /* head_dim rounded up to mr, nr */
    size_t keys_mr;        /* t rounded up to mr */
} cpu_attn;

void cpu_attn_init(cpu_attn *a, const nn_device *dev, const float *qkv,
                   const nn_attn_shape *s);

/* Where head h's queries, kv head g's keys and values begin in token t of sequence b. */
static inline const float *cpu_attn_q(const cpu_attn *a, size_t b, size_t h, size_t t)
{
    return a->qkv + (b * a->s->t + t) * a->row + h * a->s->head_dim;
}

static inline const float *cpu_attn_k(const cpu_attn *a, size_t b, size_t g, size_t t)
{
    return cpu_attn_q(a, b, a->s->heads + g, t);
}

static inline const float *cpu_attn_v(const cpu_attn *a, size_t b, size_t g, size_t t)
{
    return cpu_attn_q(a, b, a->s->heads + a->s->kv_heads + g, t);
}

/* Rows [key][head_dim] of one kv head as left operands: by_key [panel of mr keys][dim][mr],
 * by_dim [panel of mr dims][t][mr]; either may be NULL.  Keys from .. to - 1, from a
 * multiple of mr. */
void cpu_attn_pack_keys(const cpu_attn *a, float *by_key, float *by_dim, const float *rows,
                        size_t from, size_t to);
static inline size_t cpu_attn_by_key_floats(const cpu_attn *a)
{
    return cpu_round(a->keys_mr * a->s->head_dim, 16);
}

static inline size_t cpu_attn_by_dim_floats(const cpu_attn *a)
{
    return cpu_round(a->dim_mr * a->s->t, 16);
}

/* The first key that query q0 of sequence b sees, and no later one sees one before it,
 * rounded down to where a block may begin. */
size_t cpu_attn_first_key(const cpu_attn *a, size_t b, size_t q0);

/* Sets scores s[key - k0][nr] of keys that query q0 + lane must not see. */
void cpu_attn_mask(const cpu_attn *a, float *s, size_t k0, size_t keys, size_t b,
                   size_t q0);

/* c[rows rounded to mr][nr] = or += left panels [panel][kc][mr] times right [kc][nr];
 * panels lie panel_floats apart. */
void cpu_attn_product(const cpu_attn *a, float *c, const float *left, size_t panel_floats,
                      size_t rows, const float *right, size_t kc, bool acc);

/* out, and lse unless it is NULL, of queries q0 .. q0 + count - 1 of head h: o[dim][nr], a
 * column each, which is spoilt, over their sums. */
void cpu_attn_put(const cpu_attn *a, float *out, float *lse, size_t b, size_t h, size_t q0,
                  size_t count, float *o, const float *max, const float *sum);

#endif
