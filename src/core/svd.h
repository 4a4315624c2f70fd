/*
 * svd.h - the largest singular values of a matrix, with their vectors.
 */
#ifndef DRUPE_CORE_SVD_H
#define DRUPE_CORE_SVD_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

/*
 * The r largest of a[m][n]: s[r] falls, the rows of u[r][m] and v[r][n] have length 1 and
 * are orthogonal, and a is about the sum of s[i] u[i] v[i]^T.  The largest component of
 * each v[i] is positive, so that the signs, too, are the matrix's alone; v NULL: they are
 * some, though always the same.
 *
 * tol: how far A v[i] and s[i] u[i] may be apart, in s[0]; a vector is off by that over
 * the distance to the next value.  1e-10 for vectors to compare, 1e-4 where only the sum
 * counts.  A value that is there twice, exactly, may be found once.
 *
 * One thread, in double; the same bytes for the same input.  Memory: m + n doubles a step,
 * of which there are about 3 r to 6 r, never more than min(m, n).  r of 0 or above
 * min(m, n) is a bug.  DR_EFORMAT: a value that is not finite.  DR_ENOMEM.
 */
DR_MUST_USE dr_status dr_svd(double *s, float *u, float *v, const float *a, size_t m,
                             size_t n, size_t r, double tol);

/*
 * The same, about, by subspace iteration from random directions (Halko et al. 2011, as
 * torch.svd_lowrank and PEFT's pissa_niter_N have it): iterations of 0 is one product with
 * A and one with A^T, each more is two more; the space lacks the more of the r-th vector
 * the nearer the values behind it are to it.  The same seed gives the same bytes.
 *
 * Memory: 2 r (m + n) doubles.  DR_EFORMAT and DR_ENOMEM as above.
 */
DR_MUST_USE dr_status dr_svd_lowrank(double *s, float *u, float *v, const float *a,
                                     size_t m, size_t n, size_t r, int iterations,
                                     uint64_t seed);

#endif
