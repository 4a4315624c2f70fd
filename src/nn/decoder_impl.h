/*
 * decoder_impl.h - inside of an nn_decoder, shared by decoder.c (weights), layer.c,
 * layer_back.c, lora.c and head.c.
 */
#ifndef DRUPE_NN_DECODER_IMPL_H
#define DRUPE_NN_DECODER_IMPL_H

#include "nn/nn_impl.h"

/* Sizes that every file needs, as size_t. */
typedef struct {
    size_t d, i, v, h, g, c;
    size_t qkv; /* (H+2G)C: a row of qkv */
    size_t hc;  /* H*C: a row of attention's output */
} nn_dims;

struct nn_decoder {
    nn_device *dev;     /* borrowed */
    const hf_model *m;  /* borrowed */
    const hf_config *c; /* borrowed from m */
    nn_dims dims;

    bool keep;        /* every layer has its own block; else one for all */
    nn_layer *layers; /* owned: c->layers of them, or one */
    void **blocks;    /* owned: the weights of each of layers; NULL: not loaded */
    int streamed;     /* without keep: which layer the one block holds; -1: none */
    size_t layer_floats;

    float *final_norm; /* owned [D] */
    float *head;       /* owned [V][D] when it is kept, else NULL */
    bool keep_head;

    float *cos, *sin; /* owned [rope_rows][rotary_dim/2], sin in the block of cos */
    size_t rope_rows;
    bool rope_long;

    float *work; /* owned: scratch, grows */
    size_t work_floats;
};

nn_dims nn_dims_of(const hf_config *c);

/* DR_EUNSUPPORTED: a part of the family that is not computed here, by name. */
DR_MUST_USE dr_status nn_refuse(const hf_config *c);

/* Scratch for one call from outside: contents undefined, valid until the next
 * nn_scratch. */
DR_MUST_USE dr_status nn_scratch(nn_decoder *d, float **out, size_t floats);

/* Fills the shape for b x t; computes the rope tables that t tokens need. */
DR_MUST_USE dr_status nn_decoder_shape(nn_decoder *d, nn_attn_shape *s, size_t b, size_t t);

/* Parts of one block: each row gives a pointer its place. */
typedef struct {
    float **p;
    size_t floats;
} nn_part;

/* Sum of the parts, each rounded up to 64 bytes; with at not NULL sets the pointers. */
size_t nn_place(const nn_part *parts, size_t count, float *at);

/* ---- LoRA (lora.c) ---- */

/* What a module's forward and backward need beside its operands. */
typedef struct {
    float *dropped; /* [M][K] drop(x); not used without dropout */
    float *wide;    /* [M][K] gradient before the mask; likewise */
    float *du, *su; /* [M][R] */
    float *sb;      /* [N][R] scale * B */
} nn_lora_work;

/* Room for the largest module of loras at m rows (m 0 with loras NULL: none). */
size_t nn_lora_place(nn_lora_work *work, size_t m, const nn_lora *loras, size_t count,
                     float *at);

/* y[M][slot's N] += what the slot's modules give for x; fills their parts of u. */
DR_MUST_USE dr_status nn_lora_forward(nn_device *dev, float *y, size_t ldy, float *u,
                                      const float *x, size_t m, hf_slot slot,
                                      const nn_lora *loras, size_t count,
                                      const nn_lora_work *work);
/* Adds to the slot's da, db and, unless it is NULL, to dx[M][K]. */
DR_MUST_USE dr_status nn_lora_backward(nn_device *dev, float *dx, const float *dy,
                                       size_t ldy, const float *u, const float *x, size_t m,
                                       hf_slot slot, const nn_lora *loras, size_t count,
                                       const nn_lora_work *work);
/* Does any module of a slot below `slot` train? */
bool nn_lora_trains_below(const nn_lora *loras, size_t count, hf_slot slot);

#endif
