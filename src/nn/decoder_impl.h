/*
 * decoder_impl.h - inside of an nn_decoder, shared by decoder.c and decoder_there.c
 * (weights), rotations.c,
 * layer_parts.c, layer.c, layer_back.c, lora.c and head.c.
 */
#ifndef DRUPE_NN_DECODER_IMPL_H
#define DRUPE_NN_DECODER_IMPL_H

#include "nn/nn_impl.h"

/* Sizes that every file needs, as size_t. */
typedef struct {
    size_t d, i, v, h, g, c;
    size_t qkv; /* (H+2G)C: a row of qkv */
    size_t hc;  /* H*C: a row of attention's output */
    size_t gu;  /* 2I, or I without a gate: a row of gate_up */
} nn_dims;

/* Tables of one rotation. */
typedef struct {
    float *cos, *sin; /* owned [rows][rotary_dim/2], sin in the block of cos */
    nn_device *mem;   /* whose block that is */
    size_t rows;
    bool is_long;
} nn_rope_table;

/* A layer's linears in mem. */
typedef struct {
    float *block;  /* owned */
    dr_qtensor *q; /* owned [linears]; what they point at is in block */
} nn_packed_weights;

/* One layer's weights, unpacked. */
typedef struct {
    float *p;  /* owned */
    int layer; /* that it holds; -1: none */
} nn_unpacked_weights;

/* Scratch that grows. */
typedef struct {
    float *p; /* owned */
    size_t floats;
} nn_work;

struct nn_decoder {
    nn_device *dev;     /* borrowed */
    nn_device *mem;     /* dev: what is owned here lies in its memory; NULL: the host's */
    const hf_model *m;  /* borrowed */
    const hf_config *c; /* borrowed from m */
    nn_dims dims;

    const hf_adapter *merged; /* borrowed; NULL: none */

    bool keep;         /* every layer has its own block; else one for all */
    bool packed_there; /* what goes to mem is packed (decoder_there.c) */
    bool as_floats;    /* packed weights are not what is multiplied */
    nn_layer *layers;  /* owned: c->layers of them; without keep the first is used */
    void **blocks;     /* owned: the weights of each of layers; NULL: not loaded */
    void **weights;    /* owned: with mem, the slots' weights of each of layers */
    bool *loaded;      /* owned: each of layers holds its layer */
    bool *exact;       /* owned: those are bf16, as they are in the file */
    float *stage; /* owned: a layer, rows of the head or embeddings, on the way to mem */
    size_t stage_floats;
    nn_packed_weights *packed; /* owned [layers]; NULL: none was read yet */
    nn_unpacked_weights unpacked[NN_UNPACKED_MOST]; /* those last used first */
    size_t unpacked_count, unpacked_most;           /* there are; there may be */
    int streamed; /* without keep: which layer the first block holds; -1: none */
    size_t layer_floats;
    size_t keep_bytes;

    bool floats; /* weights there are, whatever the file has */
    bool rounds; /* linears, to this grid */
    hf_bnb grid;

    nn_layer norms;    /* of nn_decoder_norms */
    float *norm_block; /* owned: its values */

    float *final_norm, *final_bias; /* owned [D]; NULL: none */
    float *head_bias;               /* owned [V]; NULL: none */
    float *head;                    /* owned [V][D] when it is kept, else NULL */
    float *table; /* owned [V][D]: embeddings beside a kept head, in mem, else NULL */
    bool keep_head;
    bool integers; /* of nn_decoder_integers */
    float *head_packed,
        *head_back; /* owned: nn_i8_pack of the head, and of it transposed */

    nn_rope_table rope, rope_local;
    const uint32_t *starts; /* borrowed: of nn_decoder_documents */
    size_t longest;

    nn_work work, work_rounded;
};

nn_dims nn_dims_of(const hf_config *c);

/* Room in the host's memory for what goes to d->mem, like nn_scratch. */
DR_MUST_USE dr_status nn_stage(nn_decoder *d, float **out, size_t floats);

/* DR_EUNSUPPORTED: a part of the family that is not computed here, by name. */
DR_MUST_USE dr_status nn_refuse(const hf_config *c);

/* Scratch for one call from outside: contents undefined, valid until the next
 * nn_scratch. */
DR_MUST_USE dr_status nn_scratch(nn_decoder *d, float **out, size_t floats);

/* The same, another block: of a layer's activations and their gradients, in bf16 where
 * d->mem is of a device whose products round to it. */
DR_MUST_USE dr_status nn_scratch_rounded(nn_decoder *d, float **out, size_t floats);

/* Fills the shape of w's layer for b x t; computes the tables that t tokens need. */
DR_MUST_USE dr_status nn_decoder_shape(nn_decoder *d, nn_attn_shape *s, const nn_layer *w,
                                       size_t b, size_t t);
void nn_rope_release(nn_rope_table *t);

/* Parts of one block: each row gives a pointer its place. */
typedef struct {
    float **p;
    size_t floats;
} nn_part;

/* Sum of the parts, each rounded up to 64 bytes; with at not NULL sets the pointers. */
size_t nn_place(const nn_part *parts, size_t count, float *at);

/* ---- layers in memory (decoder.c; decoder_there.c: in d->mem) ---- */

enum { NN_SMALL_PARTS = 2 * HF_NORM_FINAL + HF_SLOT_COUNT };
/* Norms and biases of w as parts; its weights, HF_SLOT_COUNT of them. */
size_t nn_small_parts(nn_part *parts, nn_layer *w, const hf_config *c);
size_t nn_weight_parts(nn_part *parts, nn_layer *w, const hf_config *c);
/* Members of w point into the block at `at`; returns its floats. */
size_t nn_layer_place(nn_layer *w, const hf_config *c, float *at);
/* to = from, which are as long. */
DR_MUST_USE dr_status nn_copy_parts(nn_decoder *d, const nn_part *to, const nn_part *from,
                                    size_t n);
/* Norms and biases that w has places for. */
DR_MUST_USE dr_status nn_load_small(const nn_decoder *d, nn_layer *w, int layer);
/* All of a layer as floats of the host's. */
DR_MUST_USE dr_status nn_load_weights(nn_decoder *d, nn_layer *w, int layer);
/* The layer at place `at` of d->layers. */
DR_MUST_USE dr_status nn_load_there(nn_decoder *d, size_t at, int layer);
/* With packed_there. */
DR_MUST_USE dr_status nn_packed_layer(nn_decoder *d, int layer, const nn_layer **out);
void nn_packed_free(nn_decoder *d);
/* Bytes in mem: of a weight's value; of the head, and embeddings beside it; of all layers
 * packed and one as it is, 0: not all are packed in the file, or mem is the host's. */
size_t nn_value_bytes(nn_device *mem, const hf_model *m);
size_t nn_head_bytes(nn_device *mem, const hf_model *m);
size_t nn_packed_bytes(nn_device *mem, const hf_model *m);

/* *out = the embeddings [V][D] in d->mem (head.c); NULL: they are not kept there. */
DR_MUST_USE dr_status nn_embeddings(nn_decoder *d, const float **out);

/* ---- steps of a layer (layer_parts.c) ---- */

/* y = norm(x) of the model's kind; bias NULL for RMS. */
DR_MUST_USE dr_status nn_norm(const nn_decoder *d, float *y, const float *x, const float *w,
                              const float *bias, size_t m);
/* dx += gradient through it at x. */
DR_MUST_USE dr_status nn_norm_back(const nn_decoder *d, float *dx, const float *dy,
                                   const float *x, const float *w, size_t m);
/* dx += gradient through one of w's norms at x; dy itself where there is none. */
DR_MUST_USE dr_status nn_layer_norm_back(const nn_decoder *d, const nn_layer *w,
                                         hf_norm which, float *dx, const float *dy,
                                         const float *x, size_t m);
/* nn_attention, or nn_rough_attention where the layer's products are rough. */
DR_MUST_USE dr_status nn_layer_attention(const nn_decoder *d, const nn_layer *w, float *out,
                                         float *lse, const float *qkv,
                                         const nn_attn_shape *s);
/* q and k of qkv normed (what they were: q_raw, k_raw, unless NULL) and rotated. */
DR_MUST_USE dr_status nn_qk_forward(const nn_decoder *d, const nn_layer *w, float *qkv,
                                    float *q_raw, float *k_raw, const nn_attn_shape *s);
/* The gradient at its result becomes that at its input, in place; turned: it has been
 * turned back already. */
DR_MUST_USE dr_status nn_qk_back(const nn_decoder *d, const nn_layer *w, float *dqkv,
                                 const float *q_raw, const float *k_raw,
                                 const nn_attn_shape *s, bool turned);
/* The norm behind O or DOWN. */
hf_norm nn_norm_behind(hf_slot slot);

/* ---- LoRA (lora.c) ---- */

/* What a module's forward and backward need beside its operands. */
typedef struct {
    float *dropped; /* [M][K] drop(x); not used without dropout */
    float *wide;    /* [M][K] gradient before the mask; likewise */
    float *du, *su; /* [M][R] */
    float *sb;      /* [N][R] scale * B */
    float *dy;      /* [M][slot's N] gradients behind DoRA's factors */
} nn_lora_work;

/* Where modules are applied: a slot's product and its operands. */
typedef struct {
    nn_device *dev;
    hf_slot slot;
    size_t m, n;    /* rows of x; the slot's outputs */
    const float *w; /* [N][K] of the slot */
    const nn_lora *loras;
    size_t count;
    const nn_lora_work *work;
} nn_lora_site;

/* Room for the largest module of loras at m rows (m 0 with loras NULL: none); n: outputs of
 * the widest slot. */
size_t nn_lora_place(nn_lora_work *work, size_t m, size_t n, const nn_lora *loras,
                     size_t count, float *at);

/* y[M][slot's N] += what the slot's modules give for x; fills their parts of u. */
DR_MUST_USE dr_status nn_lora_forward(const nn_lora_site *s, float *y, const float *bias,
                                      float *u, const float *x);
/* Adds to the slot's gradients and, unless it is NULL, to dx[M][K]. */
DR_MUST_USE dr_status nn_lora_backward(const nn_lora_site *s, float *dx, const float *dy,
                                       const float *u, const float *x);

/* ---- DoRA's part of it (lora_dora.c) ---- */

/* Is a module of the slot one?  Then y comes without the residual. */
bool nn_dora_on(const nn_lora *loras, size_t count, hf_slot slot);
/* y without the base's part of z, which comes in z; without dropout z is y less bias. */
DR_MUST_USE dr_status nn_dora_take(nn_device *dev, float *y, size_t ldy, float *z,
                                   const float *bias, size_t m, const nn_lora *l);
/* y += factor z */
DR_MUST_USE dr_status nn_dora_put(nn_device *dev, float *y, size_t ldy, const float *z,
                                  size_t m, const nn_lora *l);
/* Has one of the slot's DoRA modules dropout?  Then the base's gradient is dy itself, and
 * each module's (factor - 1) dy W comes beside it. */
bool nn_dora_masked(const nn_lora_site *s);
/* work->dy = dy times the factors of the slot's modules; *base: that, or dy itself. */
DR_MUST_USE dr_status nn_dora_back(const nn_lora_site *s, const float **base,
                                   const float *dy);
/* dmagnitude; then, where it is masked, work->dy becomes (factor - 1) dy. */
DR_MUST_USE dr_status nn_dora_grads(const nn_lora_site *s, const nn_lora *l,
                                    const float *dy, const float *z);

/* Does any module of a slot below `slot` train? */
bool nn_lora_trains_below(const nn_lora *loras, size_t count, hf_slot slot);

#endif
