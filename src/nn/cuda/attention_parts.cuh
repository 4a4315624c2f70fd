/*
 * attention_parts.cuh - what attention.cu (floats) and attention_bf16.cu share: where a
 * head's rows lie, which keys a query sees, the cap of scores.
 */
#ifndef DRUPE_NN_CUDA_ATTENTION_PARTS_CUH
#define DRUPE_NN_CUDA_ATTENTION_PARTS_CUH

#include "nn/cuda/cuda_kernels.h"

/* One head's rows of q, k or v in a sequence. */
template <typename V> struct rows_of {
    const V *at; /* of row 0 */
    size_t step; /* values between rows */
};

/* Where a head's rows begin: q of head h, then k and v of its group. */
template <typename V>
__device__ static rows_of<V> part(const cu_attn_shape &a, const V *qkv, size_t b,
                                  size_t head)
{
    size_t step = (a.heads + 2 * a.kv_heads) * a.head_dim;

    return {qkv + b * a.t * step + head * a.head_dim, step};
}

/* The first key that query t of sequence b sees. */
__device__ static size_t first_key(const cu_attn_shape &a, size_t b, size_t t)
{
    size_t from = a.window != 0 && t + 1 > a.window ? t + 1 - a.window : 0;
    size_t start = a.starts != NULL ? a.starts[b * a.t + t] : 0;

    return from > start ? from : start;
}

__device__ static float capped(const cu_attn_shape &a, float score)
{
    score *= a.scale;
    return a.softcap != 0.0f ? a.softcap * tanhf(score / a.softcap) : score;
}

#endif
