/*
 * nn_quant.h - the operations of quantizers, where a device has them: a part of nn.h, which
 * includes it.
 *
 * The cpu has none: there quantizers compute by tiles of their own (src/quant).  On a
 * device with memory of its own they are operations like all others, whose pointers may be
 * the host's or from nn_mem_new.  nn_quant_ops says whether the device has them.
 *
 * A weight is W[N][K]; `block` columns of a row are a group, with one scale and one zero
 * point (a code, as a float); Gram matrices come as the diagonal blocks of `gram` columns,
 * one below the other: [K][gram], gram divides block, at most NN_GRAM_MAX.
 */
#ifndef DRUPE_NN_NN_QUANT_H
#define DRUPE_NN_NN_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"
#include "nn/nn_grid.h"

typedef struct nn_device nn_device; /* as in nn.h */

bool nn_quant_ops(const nn_device *dev);

enum { NN_GROUP_MIN = 16, NN_GRAM_MAX = 128, NN_RANK_MAX = 32, NN_FACTOR_MAX = 128 };

/*
 * What dev's products may do with their operands from here on, for what need not be exact;
 * sums stay as wide as they are.  A GPU does so, to other devices it is nothing.
 * TWO_TERMS: each becomes the sum of two of bf16, with 16 bits.  BF16: each is rounded to
 * bf16, and attention's are.
 */
typedef enum { NN_ROUND_NONE, NN_ROUND_TWO_TERMS, NN_ROUND_BF16 } nn_rounding;
void nn_round_products(nn_device *dev, nn_rounding how);

/* ---- for AWQ ---- */

/* means[K] = over rows, |w| by the greatest of its group + 1e-6. */
DR_MUST_USE dr_status nn_weight_means(nn_device *dev, float *means, const float *w,
                                      const nn_groups *g);
/* sum[K] = or += X[M][K] by columns, or their magnitudes. */
DR_MUST_USE dr_status nn_column_sums(nn_device *dev, double *sum, const float *x, size_t m,
                                     size_t k, bool magnitudes, bool first);
/* grams[N][block] = or += the diagonal blocks of X^T X for X[M][N], rows ldx apart. */
DR_MUST_USE dr_status nn_gram_blocks(nn_device *dev, float *grams, const float *x, size_t m,
                                     size_t n, size_t ldx, size_t block, bool first);
/* out[N][K] = round(w * scale) / scale. */
DR_MUST_USE dr_status nn_round_scaled(nn_device *dev, float *out, const float *w,
                                      const nn_groups *g, const nn_rule *rule,
                                      const float *scale);
/* out[N][K] = round(w * scale) / scale - w. */
DR_MUST_USE dr_status nn_scaled_errors(nn_device *dev, float *out, const float *w,
                                       const nn_groups *g, const nn_rule *rule,
                                       const float *scale);
/* y[M][I] = nn_activate of x, act being an hf_act, less base[M][I]. */
DR_MUST_USE dr_status nn_activate_change(nn_device *dev, float *y, const float *x,
                                         const float *base, size_t m, size_t i, int act,
                                         bool gated);
/* loss[c] = sum over rows and groups of e^T G e, e = round(w * s) / s - w for s =
 * scales[c][K], c < count, where bit c of wanted is set; others are left alone. */
DR_MUST_USE dr_status nn_rank_scales(nn_device *dev, double *loss, const float *w,
                                     const nn_groups *g, const nn_rule *rule,
                                     const float *scales, size_t count, uint32_t wanted,
                                     const float *grams);
/* scales, zeros (and limits, may be NULL: max|w| that is left) of each group: with the
 * least e^T G e of shrink's candidates, or of min and max where shrink is NULL. */
DR_MUST_USE dr_status nn_choose_grids(nn_device *dev, float *scales, float *zeros,
                                      float *limits, const float *w, const nn_groups *g,
                                      const nn_rule *rule, const nn_shrink *shrink,
                                      const float *grams);
/* w = clamp(w, -limit, limit) by group. */
DR_MUST_USE dr_status nn_clamp_groups(nn_device *dev, float *w, const nn_groups *g,
                                      const float *limits);
/* codes[N][K*stored/8] of w on its grids, as a dr_qtensor has them; K*stored is a multiple
 * of 8. */
DR_MUST_USE dr_status nn_pack_codes(nn_device *dev, uint8_t *codes, const float *w,
                                    const nn_groups *g, const float *scales,
                                    const float *zeros, int bits, int stored);
/* sums[parts]: (a - b)^2 of each part of a and b[parts][count], summed. */
DR_MUST_USE dr_status nn_difference(nn_device *dev, double *sums, const float *a,
                                    const float *b, size_t parts, size_t count);

/* ---- judging, which every device does ---- */

/* A row of logits. */
typedef struct {
    double top, at; /* the greatest and its place, the first one's in a tie */
    double log_sum; /* log sum exp(logit - top); not finite where a logit is not */
    double over;    /* sum p (logit - other); 0 without other */
    double target;  /* the target's logit; 0 without targets */
} nn_row_stat;
DR_MUST_USE dr_status nn_row_stats(nn_device *dev, nn_row_stat *stats, const float *a,
                                   const float *other, const int32_t *targets, size_t m,
                                   size_t v);

/* ---- matrices; the first two every device has ---- */

/* y += x; y = x + scale * y. */
DR_MUST_USE dr_status nn_add(nn_device *dev, float *y, const float *x, size_t count);
DR_MUST_USE dr_status nn_residual(nn_device *dev, float *y, const float *x, size_t count,
                                  float scale);

/* out[R][C] = a * col / row, or a / (col * row) with divide; col[C], row[R]; NULL: ones;
 * out may be a. */
DR_MUST_USE dr_status nn_scale_matrix(nn_device *dev, float *out, const float *a,
                                      size_t rows, size_t cols, const float *col,
                                      const float *row, bool divide);
/* dst[R][C] = factor * src, rows ldd and lds apart. */
DR_MUST_USE dr_status nn_copy_matrix(nn_device *dev, float *dst, size_t ldd,
                                     const float *src, size_t lds, size_t rows, size_t cols,
                                     float factor);
/* out = factor * (a - b); out may be a or b. */
DR_MUST_USE dr_status nn_subtract(nn_device *dev, float *out, const float *a,
                                  const float *b, size_t count, float factor);
/* out[N][M] = (a[M][N] / scale[N] - b[M][N])^T; scale, b: may be NULL. */
DR_MUST_USE dr_status nn_turn_columns(nn_device *dev, float *out, const float *a,
                                      const float *b, const float *scale, size_t m,
                                      size_t n);
/* out[r] = the dot product of rows r. */
DR_MUST_USE dr_status nn_row_dots(nn_device *dev, double *out, const float *a,
                                  const float *b, size_t rows, size_t cols);
/* out[r] = sum over c of (a + diagonal[C] b) b for rows of A[R][C] and B[R][C]: where A is
 * B G, the rows' quadratic forms with G and a diagonal beside it. */
DR_MUST_USE dr_status nn_row_quads(nn_device *dev, double *out, const float *a,
                                   const float *b, const float *diagonal, size_t rows,
                                   size_t cols);
/* Rows of dst become those of src where pick[r] == which. */
DR_MUST_USE dr_status nn_choose_rows(nn_device *dev, float *dst, const float *src,
                                     size_t rows, size_t cols, const uint32_t *pick,
                                     uint32_t which);

/* ---- for GPTQ; order[n]: the natural column of each processed one; NULL: the same ---- */

/* h[N][N] from nn_i8_gram's strips; what is off the diagonal times rest. */
DR_MUST_USE dr_status nn_expand_gram(nn_device *dev, float *h, const float *strips,
                                     size_t n, float rest);
/* out[N][m]: the diagonal blocks of h in order; m 1: its diagonal. */
DR_MUST_USE dr_status nn_cut_blocks(nn_device *dev, float *out, const float *h,
                                    const uint32_t *order, size_t n, size_t m);
/* out[R][N] = w's columns in order, zeros where the diagonal live[N] is not above 0. */
DR_MUST_USE dr_status nn_gather_columns(nn_device *dev, float *out, const float *w,
                                        const uint32_t *order, const float *live,
                                        size_t rows, size_t n);
/* factor[N][N]'s lower triangle = h in order, backwards, and its diagonal (or mean, where
 * that is not above 0) + add. */
DR_MUST_USE dr_status nn_fill_factor(nn_device *dev, float *factor, const float *h,
                                     const uint32_t *order, size_t n, double mean,
                                     double add);
/*
 * l = the Cholesky factor of a[nb][nb] (NaN where it has none), lower triangles, rows ld
 * apart; in place or not; l NULL: a is L already.  inv[nb][nb] (turned: transposed) = L^-1.
 * nb at most NN_FACTOR_MAX; in double.
 */
DR_MUST_USE dr_status nn_factor_diagonal(nn_device *dev, float *l, const float *a,
                                         size_t ld, size_t nb, float *inv, bool turned);
/* inv = the inverses of l[N][N]'s diagonal blocks of NN_FACTOR_MAX columns, one behind the
 * other, as factor_diagonal has them; the last one, [nb][nb], may be smaller. */
DR_MUST_USE dr_status nn_invert_diagonals(nn_device *dev, float *inv, const float *l,
                                          size_t n, bool turned);
/* b[R][nb], rows ldb apart, becomes b square[nb][nb]^T; nb at most NN_FACTOR_MAX. */
DR_MUST_USE dr_status nn_times_square(nn_device *dev, float *b, size_t ldb, size_t rows,
                                      size_t nb, const float *square);

/* Parts of matrices; ld: floats between rows. */
typedef struct {
    float *y;       /* [M][N] */
    const float *x; /* [M][K] */
    const float *w; /* [K][N], or [N][K] with turned */
    size_t m, n, k, ldy, ldx, ldw;
    bool turned, acc, minus; /* y = or += (-=, = -) */
    bool lower;              /* what is above y's diagonal may come out as anything */
    int terms; /* 2, 3: operands may become sums of so many of bf16, with 16 or 24 bits;
                   0: they are floats */
} nn_product;
DR_MUST_USE dr_status nn_add_product(nn_device *dev, const nn_product *p);

/* For nb columns at p0 of the factor A[N][N] read backwards: within[nb][nb] A_ik / A_kk,
 * k > i, else 0; pivot[nb] A_kk; spread[nb][N - p0 - nb] A_ik / A_kk of later columns. */
DR_MUST_USE dr_status nn_cut_factor(nn_device *dev, float *within, float *pivot,
                                    float *spread, const float *factor, size_t n, size_t p0,
                                    size_t nb);

/* One group of columns rounded one by one. */
DR_MUST_USE dr_status nn_sweep_group(nn_device *dev, const nn_sweep *s);

/* One group of columns made better for its inputs. */
DR_MUST_USE dr_status nn_descend_group(nn_device *dev, const nn_descent *s);

#endif
