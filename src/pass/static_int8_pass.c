/*
 * static_int8_pass.c - the OnnxStaticQuantization pass: weights and activations of 8 bits,
 * activations by the ranges that calibration text shows.
 */
#include "pass/int8_impl.h"

static const dr_param params[] = {
    PASS_INT8_ROWS(pass_ranged_int8),
    PASS_STATIC_ROWS(pass_ranged_int8),
    PASS_EXTERNAL_ROWS,
};

extern const pass_def pass_static_int8; /* PASS(static_int8) */
const pass_def pass_static_int8 = {
    .name = "OnnxStaticQuantization",
    .version = 1,
    .summary = "weights and activations of 8 bits, by calibration text",
    PASS_REWRITE(pass_ranged_int8, params),
    .needs_data = true,
    .validate = pass_static_validate,
    .run = pass_static_run,
};
