/*
 * nn_packed.h - a packed weight as it is trained: a part of nn.h, which includes it.
 */
#ifndef DRUPE_NN_NN_PACKED_H
#define DRUPE_NN_NN_PACKED_H

#include "core/qtensor.h"
#include "core/status.h"
#include "hf/hf.h"

typedef struct nn_device nn_device; /* as in nn.h */
typedef struct nn_decoder nn_decoder;
typedef struct nn_layer nn_layer;

/* w[N][K] = q as floats.  q's members are the host's or from nn_mem_new, each as it is. */
DR_MUST_USE dr_status nn_unpack(nn_device *dev, float *w, const dr_qtensor *q);
/* ds[N][KB] += the gradient of q's scales for dw[N][K], its weight's: the sum over a block
 * of (code - zero) dw. */
DR_MUST_USE dr_status nn_unpack_back(nn_device *dev, float *ds, const float *dw,
                                     const dr_qtensor *q);
/*
 * Before the first layer: from here on d multiplies in 8-bit integers (nn_i8.h), on a
 * device whose memory is the host's: layers come with packed and packed_back instead of w,
 * at half of its bytes; nn_head_loss and nn_head_kl multiply heads likewise where gradients
 * are asked for.
 */
void nn_decoder_integers(nn_decoder *d);
/* Bytes of a layer's weights packed both ways. */
size_t nn_layer_packed_bytes(const hf_config *c);
/* w->packed and packed_back lie at `at`; made of w->w where space, as large as the largest
 * of these, is not NULL. */
DR_MUST_USE dr_status nn_layer_pack(nn_device *dev, nn_layer *w, const hf_config *c,
                                    float *at, float *space);
/* y[N][M] = x[M][N]^T */
DR_MUST_USE dr_status nn_transpose(nn_device *dev, float *y, const float *x, size_t m,
                                   size_t n);

#endif
