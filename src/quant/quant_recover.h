/*
 * quant_recover.h - adapters from what rounding did, and models judged with an adapter.
 * Part of the door (quant.h).
 */
#ifndef DRUPE_QUANT_RECOVER_H
#define DRUPE_QUANT_RECOVER_H

#include "quant/quant.h"

/*
 * For every linear of site->in, a rounded model, the adapter B A of rank r that brings its
 * outputs closest to the original's on the text, in closed form and layer by layer: each on
 * inputs from the layers before with their adapters (recover.c).  *out is filled; released
 * with hf_adapter_release.  site->out, choices and head are not looked at.
 * DR_EUSAGE: the original is another model, or the same.
 */
typedef struct {
    int r;           /* at most min(n_in, n_out) of a linear is used */
    double upstream; /* 0 to 1: the share of the layers' effect on inputs and residual
                        stream that a linear takes back */
} quant_recover_options;
DR_MUST_USE dr_status quant_recover(hf_adapter *out, const quant_site *site,
                                    const hf_model *original, const quant_calib *calib,
                                    const quant_recover_options *o);

/* Before the first logits: those of the model with this adapter (borrowed). */
void quant_logits_adapter(quant_logits *s, const hf_adapter *a);
/* quant_compare with an adapter (NULL: none) on the second model. */
DR_MUST_USE dr_status quant_compare_adapter(quant_quality *out, nn_device *dev,
                                            const hf_model *before, const hf_model *after,
                                            const hf_adapter *a, const quant_calib *text);

#endif
