/*
 * quant_distill.h - scales trained after rounding.  Part of the door (quant.h).
 */
#ifndef DRUPE_QUANT_DISTILL_H
#define DRUPE_QUANT_DISTILL_H

#include "quant/quant.h"

/*
 * Scales of a packed model (site->in) trained towards the original's logits, end to end;
 * written to site->out with all else as it is.  Part of calib validates: kl_before and
 * kl_after, nats a token, are of that part, and the scales of best_step (0: as they came)
 * are written.
 * DR_EUSAGE: nothing packed, or not the model's original.  DR_EDEVICE: KL is not finite.
 */
typedef struct {
    size_t steps;         /* 60 */
    size_t batch;         /* sequences a step: 16 */
    double learning_rate; /* 2e-3 of a linear's mean scale */
    size_t keep_bytes;    /* for weights and activations, on the host */
    bool exact; /* no gradients by products of 8-bit integers, where the host has them */
} quant_distill_options;
typedef struct {
    double kl_before, kl_after;
    size_t best_step;
    double seconds;
} quant_distill_report;
DR_MUST_USE dr_status quant_distill(quant_distill_report *r, const quant_site *site,
                                    const hf_model *teacher, const quant_calib *calib,
                                    const quant_distill_options *o);

#endif
