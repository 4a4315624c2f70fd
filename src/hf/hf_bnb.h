/*
 * hf_bnb.h - bitsandbytes' 4 bits: a part of hf's door.  Its files are read by
 * hf_model_open like any other; here is how weights are rounded to that grid, and written.
 */
#ifndef DRUPE_HF_BNB_H
#define DRUPE_HF_BNB_H

#include <stdbool.h>
#include <stddef.h>

/* Blocks of 64 weights share a scale, their largest magnitude; a weight is one of 16
 * numbers times that. */
typedef struct {
    bool fp4;    /* the numbers are those of a 4-bit float, not nf4's */
    bool nested; /* scales are 8 bits themselves (double quantization) */
} hf_bnb;

/* Rounds a linear's weights as bitsandbytes would, and back: w[count], all of its rows. */
void hf_bnb_round(float *w, size_t count, const hf_bnb *g);

/* Weights in that grid. */
typedef struct {
    size_t blocks;
    unsigned char *codes;   /* [count / 2], the first of two in the high half */
    float *absmax;          /* [blocks] as read back */
    unsigned char *absmax8; /* [blocks] with nested scales */
    float *nested_absmax;   /* [blocks / 256] likewise */
    float offset;
} hf_bnb_packed;
void hf_bnb_pack(hf_bnb_packed *p, const float *w, size_t count, const hf_bnb *g);
void hf_bnb_packed_release(hf_bnb_packed *p);

typedef struct hf_writer hf_writer; /* as in hf.h */

/* Before the first tensor: the layers' linears are written rounded to g.  hf_writer_linear
 * takes them as floats; what it is not given is read and rounded. */
void hf_writer_bnb(hf_writer *w, const hf_bnb *g);

#endif
