/*
 * learner_impl.h - a packed model whose scales are trained: a batch forward and backward.
 *
 * Codes and zero points stand still; a scale s of a group has the gradient
 * sum over the group of (code - zero) dL/dw, with L the mean KL to the original.
 */
#ifndef DRUPE_QUANT_LEARNER_IMPL_H
#define DRUPE_QUANT_LEARNER_IMPL_H

#include "quant/quant_impl.h"

/* A packed linear. */
typedef struct {
    const hf_linear *l;
    dr_qtensor q;    /* owned: as it came */
    dr_qtensor live; /* borrowed: codes where the device reads them, scales as they are */
    size_t at;       /* of its scales among all */
    size_t count;    /* scales */
} quant_trained;

typedef struct {
    const quant_site *site;
    const quant_calib *calib;
    const hf_config *c;
    nn_device *dev;
    nn_decoder *dec, *teacher; /* owned */
    quant_trained *linears;    /* owned: of all layers, in order */
    size_t *first;             /* owned: [layers + 1] */
    size_t scale_count;        /* of all linears */
    float *codes;         /* owned: all linears', where the device has its own memory */
    float *scales, *grad; /* owned: [scale_count], the device's */
    float *targets;       /* owned: [count][T][D], the original's last hidden states */
    nn_layer *layers;     /* owned: norms and biases */
    float *small;         /* owned: what these point to */
    float *w, *dw;        /* owned: [layers kept, or 1][slots' weights], [slots' weights] */
    float *packs;         /* owned: [layers kept, or 1][pack_floats]; NULL: no integers */
    float *x, *dx, *inputs; /* owned: [batch][T][D], [layers] times that or NULL */
    nn_acts *acts;          /* owned */
    size_t layer_floats, pack_floats, acts_count;
    size_t at_once; /* sequences */
    bool keep;      /* weights of all layers */
    bool *fresh;    /* owned: [layers] kept weights are of the scales as they are */
} quant_learner;

/* DR_EUSAGE: nothing packed, or not the model's original.  integers: products of 8-bit
 * integers where gradients are taken. */
DR_MUST_USE dr_status quant_learner_open(quant_learner *s, const quant_site *site,
                                         const hf_model *teacher, const quant_calib *calib,
                                         size_t batch, size_t keep_bytes, bool integers);
void quant_learner_close(quant_learner *s);
/* Scales [scale_count] of all linears for what follows; gradients are zeroed. */
DR_MUST_USE dr_status quant_learner_set(quant_learner *s, const float *scales);
/* *kl += the KL of sequences from .. from + count - 1, summed over tokens; with grad_scale
 * gradients are added, and products may be of integers. */
DR_MUST_USE dr_status quant_learner_run(quant_learner *s, double *kl, size_t from,
                                        size_t count, float grad_scale);
DR_MUST_USE dr_status quant_learner_gradients(quant_learner *s, float *grad);

#endif
