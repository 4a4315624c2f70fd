/*
 * gptq_impl.h - what runs beside GPTQ's stream of text: the original's (upstream.c).
 */
#ifndef DRUPE_QUANT_GPTQ_IMPL_H
#define DRUPE_QUANT_GPTQ_IMPL_H

#include "quant/quant_impl.h"

typedef struct {
    const quant_stream *s; /* borrowed; NULL: there is no such stream */
    const float *scale;    /* borrowed: [K] what the original's inputs are divided by to be
                           those of the slot at hand; NULL: nothing */
    double share;          /* of the differences, to be taken back */
    const hf_model *original; /* borrowed */
    nn_decoder *dec;          /* owned */
    nn_layer layer;           /* the original's; packed and bias are these: */
    float *packed[HF_SLOT_COUNT], *bias[HF_SLOT_COUNT]; /* owned; bias: the host's */
    float *x;             /* borrowed: the second half of s->x */
    float *attn;          /* owned: of all tokens */
    float *h, *act;       /* owned: of a chunk */
    float *wide;          /* borrowed: likewise */
    float *turned, *in;   /* owned: a chunk by columns; the slot's inputs, packed */
    float *cross, *drift; /* owned: sums of the slot at hand, [K][K] and [D][K]; in the
                              place of cross: the factor of the Hessian */
    float *rhs;           /* owned: a slot's weights */
} quant_upstream;

/* s has embedded its text; s->x is made anew, twice as long.  No stream for share 0.  wide:
 * room for a chunk's widest outputs, lent whenever inputs are added. */
DR_MUST_USE dr_status quant_upstream_open(quant_upstream *u, quant_stream *s,
                                          const hf_model *original, double share,
                                          float *wide);
void quant_upstream_close(quant_upstream *u);
DR_MUST_USE dr_status quant_upstream_layer(quant_upstream *u, int layer);
/* Chunk i of m rows, the slots of a layer in order: in[m][K] are the inputs that the slot
 * has now, x[m][D] the residual stream that its output is added to. */
DR_MUST_USE dr_status quant_upstream_add(quant_upstream *u, hf_slot slot, const float *in,
                                         const float *x, size_t i, size_t m);
/* After the text: its sums become those of all ranks. */
DR_MUST_USE dr_status quant_upstream_sum(quant_upstream *u, hf_slot slot);
/* The slot's inputs are summed: what its text went through is the system's until the next
 * one's. */
void quant_upstream_idle(quant_upstream *u, hf_slot slot);
/* w[N][K] becomes the weight to round; h[K][K]: the sum of in^T in. */
DR_MUST_USE dr_status quant_upstream_correct(quant_upstream *u, float *w, const float *h,
                                             hf_slot slot, const char *name);

/* b[rows][n] becomes b (L L^T)^-1 for the lower triangle of l[n][n] (chol.c). */
DR_MUST_USE dr_status quant_chol_solve(nn_device *dev, float *b, size_t rows, size_t n,
                                       const float *l);

/* ---- adapters for what rounding did (recover.c) ---- */

typedef struct quant_recovery quant_recovery;

/* adapter is filled module by module.  *out is to be closed after an error, too. */
DR_MUST_USE dr_status quant_recovery_open(quant_recovery **out, const quant_site *site,
                                          const hf_model *original,
                                          const quant_recover_options *o,
                                          hf_adapter *adapter);
void quant_recovery_close(quant_recovery *r);
/* Before a slot's inputs are summed: what they are to the original's. */
DR_MUST_USE dr_status quant_recover_inputs(quant_recovery *r, quant_upstream *u, int layer,
                                           hf_slot slot);
/* Then its modules; q[N][K], its weights, gets their delta; h may be shrunk. */
DR_MUST_USE dr_status quant_recover_slot(quant_recovery *r, quant_upstream *u, float *q,
                                         const float *h, int layer, hf_slot slot);
/* Nothing was to be recovered. */
bool quant_recovery_empty(const quant_recovery *r);

#endif
