/*
 * quant_mix.h - which slots get more bits (mix.c, mix_cost.c).  Part of the door (quant.h).
 */
#ifndef DRUPE_QUANT_MIX_H
#define DRUPE_QUANT_MIX_H

#include "quant/quant.h"

/* Olive's SelectiveMixedPrecision.  K_QUANT_*: by the layer's place: the down slots of the
 * first and last eighth and of each third layer between; MIXED: QKV too; LAST: none.  SNR,
 * IQE: those whose weights lose most by signal to noise, by the worst row's mean square;
 * RELATIVE: by what the high grid gains there. */
typedef enum {
    QUANT_MIX_K_QUANT_DOWN,
    QUANT_MIX_K_QUANT_MIXED,
    QUANT_MIX_K_QUANT_LAST,
    QUANT_MIX_SNR,
    QUANT_MIX_SNR_RELATIVE,
    QUANT_MIX_IQE,
    QUANT_MIX_IQE_RELATIVE
} quant_mix;

/* high[layers][HF_SLOT_COUNT]: gets the grid `better`.  ratio: the share of weights that
 * keeps base, for SNR and IQE: slots are taken until the rest is no more than that. */
DR_MUST_USE dr_status quant_mix_rule(bool *high, const quant_site *site, quant_mix how,
                                     const quant_grid *base, const quant_grid *better,
                                     double ratio);

/*
 * cost[layers][HF_SLOT_COUNT][count]: what rounding a slot to each grid costs, as a share
 * of the residual stream's square: the relative error of each linear's outputs on the text
 * (e H e^T over w H w^T), times the share that its block adds to the stream.
 */
DR_MUST_USE dr_status quant_mix_costs(double *cost, const quant_site *site,
                                      const quant_grid *grids, size_t count,
                                      const quant_calib *calib);

/*
 * pick[units]: an option for each unit, so that the bytes[units][options] picked are within
 * the budget and their cost[units][options] low: from the smallest options on, the step
 * that saves most for its bytes is taken while one fits.  The result costs no more than the
 * best choice under a budget smaller by the greatest single step.
 * false: even the smallest options are over the budget; *least is their sum.
 */
DR_MUST_USE bool quant_mix_pick(int *pick, uint64_t *least, const double *cost,
                                const uint64_t *bytes, size_t units, size_t options,
                                uint64_t budget);

#endif
