/*
 * k_quant.h - the line s l + m that fits a block of weights with whole l best, by weighted
 * least squares: what the model builder calls "k_quant".  Exports and checkpoints share it.
 */
#ifndef DRUPE_CORE_K_QUANT_H
#define DRUPE_CORE_K_QUANT_H

#include <stddef.h>

enum { DR_K_QUANT_SCRATCH = 4 }; /* floats of scratch for each value */

/* For n finite values v and codes 0 .. 2^bits - 1; bytes follow from v alone.  The block is
 * then coded by the caller with the zero point -m / s. */
void dr_k_quant_fit(float *s, float *m, const float *v, size_t n, int bits, float *scratch);

#endif
