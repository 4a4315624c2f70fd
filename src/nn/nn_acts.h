/*
 * nn_acts.h - what a layer computes on the way: a part of nn's door.  Shape letters are
 * nn.h's.
 */
#ifndef DRUPE_NN_NN_ACTS_H
#define DRUPE_NN_NN_ACTS_H

#include <stddef.h>

#include "core/status.h"
#include "hf/hf.h"

typedef struct nn_device nn_device; /* as in nn.h */

/*
 * What a layer computed on the way, each [M][...]; every pointer is set by the caller (see
 * nn_acts_new) and filled by nn_layer_forward.  Without a norm before it, a slot's input is
 * what the norm would have read, and the pointers are the same.
 */
typedef struct {
    float *x;             /* [M][D]  the layer's input (a copy) */
    float *norm1;         /* [M][D]  input of QKV */
    float *qkv;           /* [M][(H+2G)C], normed and rotated */
    float *q_raw, *k_raw; /* [M][HC], [M][GC] before their norms; NULL: none */
    float *attn;          /* [M][H*C] input of O */
    float *lse;           /* [B][H][T] */
    float *attn_raw;      /* [M][D]  O's output before its norm; NULL: none */
    float *mid;           /* [M][D]  residual after attention (a copy) */
    float *norm2;         /* [M][D]  input of GATE_UP; norm1 in a parallel layer */
    float *gate_up;       /* [M][2I], or [M][I] without a gate */
    float *act;           /* [M][I]  input of DOWN */
    float *mlp_raw;       /* [M][D]  DOWN's output before its norm; NULL: none */
    float *lora_u;        /* LoRA's drop(x) A^T: [M][R] of each module, one after another,
                             and behind a DoRA module's what its factor takes: [M][N] */
    float *lse_block;     /* of nn_acts_new_rounded; else NULL */
} nn_acts;

/* One block for m rows (lora_kept: sum of nn_lora_kept over the layer's modules), x its
 * first.  nn_acts_bytes says how much that is. */
size_t nn_acts_bytes(const hf_config *c, size_t b, size_t t, size_t lora_kept);
DR_MUST_USE dr_status nn_acts_new_there(nn_acts *a, nn_device *dev, const hf_config *c,
                                        size_t b, size_t t, size_t lora_kept);
DR_MUST_USE dr_status nn_acts_new(nn_acts *a, const hf_config *c, size_t b, size_t t,
                                  size_t lora_kept);
/* The same, in bf16 but for lse on a device whose products round to it. */
DR_MUST_USE dr_status nn_acts_new_rounded(nn_acts *a, nn_device *dev, const hf_config *c,
                                          size_t b, size_t t, size_t lora_kept);
size_t nn_acts_rounded_bytes(const nn_device *dev, const hf_config *c, size_t b, size_t t,
                             size_t lora_kept);
void nn_acts_free(nn_acts *a, nn_device *dev);

#endif
