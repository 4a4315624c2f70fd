/*
 * quant_rotate.h - a model in another basis, which rounds better.  Part of the door
 * (quant.h).
 */
#ifndef DRUPE_QUANT_ROTATE_H
#define DRUPE_QUANT_ROTATE_H

#include "quant/quant.h"

/*
 * QuaRot's rotations that cost nothing at run time (Ashkboos et al. 2024; R1 and R2 of
 * SpinQuant): the residual stream x becomes x R1, and the values of each head in layer i
 * v R2_i, all weights being multiplied so that the model computes what it did.  Outliers of
 * single channels are spread over all.  The norms' weights go into the linears behind them
 * first and become 1; the final norm's goes into the head, so that a tied model is untied
 * (hf_writer_untie).  Floats go to the writer, rounded once to its dtype.
 *
 * A Hadamard matrix has random signs for its rows; where none is known of that size, and
 * with random, the matrix is uniform among the orthogonal ones.  The same seed gives the
 * same matrices.
 *
 * DR_EUNSUPPORTED, naming the family: LayerNorm, whose mean a rotation does not keep; norms
 * behind attention or MLP, whose weights it cannot pass; experts.
 */
typedef struct {
    uint64_t seed;
    bool random; /* orthogonal, not Hadamard */
} quant_rotate_options;
DR_MUST_USE dr_status quant_rotate(const quant_site *site, const quant_rotate_options *o);

#endif
