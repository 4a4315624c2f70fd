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
    size_t calib_samples;   /* when the user says nothing; 0: no text is read */
    size_t calib_seq_len;   /* likewise */
    double forwards;        /* work, in forward passes over the calibration text */
    pass_quantizer quantize;
} pass_quant_plan;

DR_MUST_USE dr_status pass_quantize(const pass_job *job, pass_model *out,
                                    const pass_model *in, const pass_quant_plan *plan);
DR_MUST_USE dr_status pass_quantize_estimate(const pass_job *job, const pass_model *in,
                                             pass_need *need, const pass_quant_plan *plan);

/* DR_EUSAGE unless it is -1 or a power of two from 16 to 1024, which is what MatMulNBits
 * and the checkpoints hold. */
DR_MUST_USE dr_status pass_check_group(const char *name, int group);

#endif
