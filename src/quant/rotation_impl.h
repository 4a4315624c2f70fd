/*
 * rotation_impl.h - orthogonal matrices of a model's sizes, for rotate.c.
 */
#ifndef DRUPE_QUANT_ROTATION_IMPL_H
#define DRUPE_QUANT_ROTATION_IMPL_H

#include "quant/quant.h"

/*
 * R, of n x n: diag(sign) (block (x) H_p) / sqrt(n), with H_p Sylvester's Hadamard matrix
 * of the power of two p = n / order, or any orthogonal matrix.
 */
typedef struct {
    size_t n;
    size_t order; /* of block; 1: there is none; 0: dense */
    float *sign;  /* owned: [n] */
    float *block; /* owned: [order][order] of +-1 */
    float *dense; /* owned: [n][n], R^T */
    float *chunk; /* owned: of products with dense */
} quant_rotation;

/* The order of the block of a Hadamard matrix of n: 1, or that of one of Paley's; 0: none
 * is built here. */
size_t quant_hadamard_order(size_t n);
/* random, or no Hadamard matrix: dense. */
DR_MUST_USE dr_status quant_rotation_make(quant_rotation *r, dr_pool *pool, size_t n,
                                          bool random, uint64_t seed, uint64_t stream);
void quant_rotation_release(quant_rotation *r);
/* x[rows][n] = x R. */
DR_MUST_USE dr_status quant_rotation_rows(const quant_rotation *r, nn_device *dev, float *x,
                                          size_t rows);

#endif
