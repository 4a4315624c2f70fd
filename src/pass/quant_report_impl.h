/*
 * quant_report_impl.h - report.html of a quantizing pass.
 */
#ifndef DRUPE_PASS_QUANT_REPORT_IMPL_H
#define DRUPE_PASS_QUANT_REPORT_IMPL_H

#include "pass/pass.h"
#include "quant/quant.h"

/* What a run came to; every pointer is borrowed. */
typedef struct {
    const hf_model *before, *after;
    const quant_grid *grid;
    size_t calib_blocks, calib_seq_len; /* 0: no text was read */
    const quant_quality *quality;       /* NULL: not measured */
    const quant_layer_error *errors;    /* [layers]; NULL: not measured */
} pass_quant_outcome;

/* Writes report.html into the job's folder. */
DR_MUST_USE dr_status pass_quant_report(const pass_job *job, const pass_quant_outcome *o);

#endif
