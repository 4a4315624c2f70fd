/*
 * nn_packed.h - a packed weight as it is trained: a part of nn.h, which includes it.
 */
#ifndef DRUPE_NN_NN_PACKED_H
#define DRUPE_NN_NN_PACKED_H

#include "core/qtensor.h"
#include "core/status.h"

typedef struct nn_device nn_device; /* as in nn.h */
typedef struct nn_decoder nn_decoder;

/* w[N][K] = q as floats.  q's members are the host's or from nn_mem_new, each as it is. */
DR_MUST_USE dr_status nn_unpack(nn_device *dev, float *w, const dr_qtensor *q);
/* ds[N][KB] += the gradient of q's scales for dw[N][K], its weight's: the sum over a block
 * of (code - zero) dw. */
DR_MUST_USE dr_status nn_unpack_back(nn_device *dev, float *ds, const float *dw,
                                     const dr_qtensor *q);
/* From here on nn_head_kl multiplies heads in 8-bit integers where d's gradients are asked
 * for, on a device whose memory is the host's. */
void nn_decoder_integers(nn_decoder *d);
/* y[N][M] = x[M][N]^T */
DR_MUST_USE dr_status nn_transpose(nn_device *dev, float *y, const float *x, size_t m,
                                   size_t n);

#endif
