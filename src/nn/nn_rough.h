/*
 * nn_rough.h - products for calibration: a part of nn.h, which includes it.
 */
#ifndef DRUPE_NN_NN_ROUGH_H
#define DRUPE_NN_NN_ROUGH_H

#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"
#include "nn/nn_mem.h"
#include "nn/nn_shapes.h"

typedef struct nn_device nn_device; /* as in nn.h */

/*
 * What calibration computes, which need not be exact: the text passes weights that have
 * been rounded to 4 bits.
 *
 * Products: those of nn_i8.h, on the host in blocks of NN_ROUGH_BLOCK, so that sums of
 * blocks, which are still exact as floats, are scaled a quarter as often.  All processors
 * give the same bytes.
 *
 * Attention: nn_attention; on a processor whose tile registers multiply bf16 (AMX: "cpu"
 * there, and its twin "cpu:tiles") both products have operands that are rounded to that,
 * ties to even, and sums in float.
 *
 * A GPU rounds operands of products and of attention to bf16, too, and sums in float: twice
 * the rate of integers there, and closer.  What it reads so may be kept so (nn_rough_kind).
 *
 * What a device gives depends on its kind as said here, and not on the number of threads.
 */
enum { NN_ROUGH_BLOCK = 512 };

/*
 * Which form a device takes from here on, at first its own as above.
 *
 * NN_ROUGH_COMMON: what all can, nn_i8.h in its blocks and nn_attention, so that devices of
 * all kinds agree but for the rounding of sums.
 * NN_ROUGH_CLOSE: a device whose own form is of integers multiplies operands that are
 * rounded to bf16, where its tile registers do, and otherwise floats by weights that are,
 * which takes it two to four times as long: for what lives on small differences between two
 * passes of the text.
 */
typedef enum { NN_ROUGH_OWN, NN_ROUGH_COMMON, NN_ROUGH_CLOSE } nn_rough_form;
void nn_rough_take(nn_device *dev, nn_rough_form form);
/* For comparisons between devices: the device's own form becomes the common one. */
void nn_rough_common(nn_device *dev);

/* What activations between rough products may be kept in: NN_MEM_FLOAT where they are read
 * in another form than bf16. */
nn_mem_kind nn_rough_kind(const nn_device *dev);

/* Bytes of w[N][K] packed by the device, once for many products. */
size_t nn_rough_bytes(const nn_device *dev, size_t n, size_t k);
DR_MUST_USE dr_status nn_rough_pack(nn_device *dev, void *packed, const float *w, size_t n,
                                    size_t k);
/* Y[M][N] = X[M][K] W[N][K]^T (+ bias[N], may be NULL); acc: Y += instead of Y =. */
DR_MUST_USE dr_status nn_rough_matmul(nn_device *dev, float *y, const float *x,
                                      const void *packed, const float *bias, size_t m,
                                      size_t n, size_t k, size_t ldy, bool acc);
/* X[M][N]^T X[M][N] in strips, as nn_i8_gram has them; first: set, else added to. */
DR_MUST_USE dr_status nn_rough_gram(nn_device *dev, float *strips, const float *x, size_t m,
                                    size_t n, bool first);

/* sum[N][K] = or, not first, += (a / scale - b)[M][N]^T in[M][K]; scale[N] and b may be
 * NULL.  *taken false: the device has no such product, and nothing was done. */
DR_MUST_USE dr_status nn_rough_cross(nn_device *dev, bool *taken, float *sum,
                                     const float *a, const float *b, const float *scale,
                                     const float *in, size_t m, size_t n, size_t k,
                                     bool first);

/* y[M][I] = nn_activate of nn_rough_matmul; wide[M][2I] or [M][I]: room for that. */
DR_MUST_USE dr_status nn_rough_act(nn_device *dev, float *y, float *wide, const float *x,
                                   const void *packed, const float *bias, size_t m,
                                   size_t i, size_t k, nn_act act);

/* As nn_attention. */
DR_MUST_USE dr_status nn_rough_attention(nn_device *dev, float *out, float *lse,
                                         const float *qkv, const nn_attn_shape *s);

#endif
