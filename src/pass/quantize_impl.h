/*
 * quantize_impl.h - what the quantizing passes share: opening the model and the text,
 * fitting the group size, writing the folder, judging the result.
 */
#ifndef DRUPE_PASS_QUANTIZE_IMPL_H
#define DRUPE_PASS_QUANTIZE_IMPL_H

#include "pass/pass.h"
#include "quant/quant.h"

/* Rounding itself: calib is empty for a pass that needs none. */
typedef dr_status (*pass_quantizer)(const quant_site *site, const quant_grid *grid,
                                    const quant_calib *calib, const void *config);

typedef struct {
    hf_quant_method layout; /* of the checkpoint */
    quant_grid grid;        /* as asked; the group is fitted to the model */
    size_t calib_samples, calib_seq_len; /* when the user says nothing; 0: no text is read */
    pass_quantizer quantize;
} pass_quant_plan;

DR_MUST_USE dr_status pass_quantize(const pass_job *job, pass_model *out,
                                    const pass_model *in, const pass_quant_plan *plan);
DR_MUST_USE dr_status pass_quantize_estimate(const pass_job *job, const pass_model *in,
                                             pass_need *need, bool activations);

/* Files and bytes of a model folder, for the tables. */
DR_MUST_USE dr_status pass_folder_bytes(const pass_job *job, const char *dir,
                                        uint64_t *bytes);

#endif
