/*
 * nn_shapes.h - what stands between a layer's products: a part of nn.h, which includes it.
 */
#ifndef DRUPE_NN_NN_SHAPES_H
#define DRUPE_NN_NN_SHAPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hf/hf.h"

/* Of the MLP. */
typedef struct {
    hf_act kind;
    bool gated;
} nn_act;

/* Of attention. */
typedef struct {
    size_t b, t; /* sequences, tokens in each */
    size_t heads, kv_heads, head_dim;
    size_t rotary_dim;      /* <= head_dim */
    size_t window;          /* keys seen, itself included; 0: all */
    float scale;            /* of scores: 1/sqrt(head_dim) for most */
    float softcap;          /* scores become cap * tanh(score / cap); 0: none */
    const float *cos, *sin; /* [t][rotary_dim/2] */
    /* [b][t] where each token's document begins in its sequence: what is before is not
     * seen, and positions count from there; NULL: all at 0 */
    const uint32_t *starts;
} nn_attn_shape;

#endif
