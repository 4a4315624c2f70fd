/*
 * nn_lora.h - low-rank adapters on a layer's linears: a part of nn's door.  Shape letters
 * are nn.h's.
 */
#ifndef DRUPE_NN_LORA_H
#define DRUPE_NN_LORA_H

#include <stddef.h>
#include <stdint.h>

#include "hf/hf.h"

typedef struct nn_device nn_device; /* as in nn.h */
typedef struct nn_decoder nn_decoder;
typedef struct nn_layer nn_layer;

/*
 * y[:, row0 : row0+n_out] += scale * (drop(x) A^T) B^T.  Gradients are added to da, db.
 * drop keeps an element with probability 1 - dropout and divides by it; the mask is
 * Philox(seed, stream), so the backward finds it again.
 */
typedef struct {
    hf_slot slot;
    size_t row0, n_out, n_in, r;
    float scale;
    const float *a; /* [R][K] */
    const float *b; /* [N][R] */
    float *da, *db; /* NULL: not trained */
    float dropout;
    /* With `sequences` above 1 the rows are of so many, as many each; their masks are those
     * of stream, stream + stream_step, ... */
    uint64_t seed, stream, stream_step;
    size_t sequences;
    /* A and scale B once more, for the products of a device that rounds: as nn_lora_round
     * last made them; NULL: they are made for each product. */
    float *a_rounded, *sb_rounded;
    /* DoRA (Liu et al. 2024), else NULL: y = factor (W in + scale in A^T B^T) in place of
     * both, factor = magnitude / norm by output; with dropout the base's part of that is
     * the masked input's only in what the factor adds, as in PEFT.  norm is the caller's,
     * by nn_lora_norms, and a constant to the gradient of magnitude, dmagnitude. */
    const float *magnitude; /* [N] */
    float *norm;            /* [N] */
    float *dmagnitude;      /* [N]; added to; NULL: not trained */
} nn_lora;

/* Floats a row that a module keeps for its backward. */
size_t nn_lora_kept(const nn_lora *l);

/* The rounded copies of A and B as they are now. */
DR_MUST_USE dr_status nn_lora_round(nn_device *dev, const nn_lora *l);

/* The norms of DoRA modules over w's weights as their A and B are now: the length of each
 * row of W + scale B A, summed in double.  Modules without a magnitude are left alone. */
DR_MUST_USE dr_status nn_lora_norms(nn_decoder *d, const nn_layer *w, const nn_lora *loras,
                                    size_t count);

#endif
