/*
 * onnx_quantization_pass.c - the OnnxQuantization pass: weights and activations of 8 bits,
 * activations by the ranges that calibration text shows (static), or as they come
 * (dynamic).
 */
#include "pass/int8_impl.h"

static const char *const modes[] = {"static", "dynamic", NULL};

static const dr_param params[] = {
    {.name = "quant_mode",
     .offset = offsetof(pass_ranged_int8, dynamic),
     .type = DR_PARAM_CHOICE,
     .dflt = "static",
     .search = "[\"dynamic\", \"static\"]",
     .choices = modes,
     .help = "activations by calibration text, or as they come"},
    PASS_INT8_ROWS(pass_ranged_int8),
    PASS_STATIC_ROWS(pass_ranged_int8),
    PASS_EXTERNAL_ROWS,
};

extern const pass_def pass_onnx_quantization; /* PASS(onnx_quantization) */
const pass_def pass_onnx_quantization = {
    .name = "OnnxQuantization",
    .version = 1,
    .summary = "weights and activations of 8 bits, static or dynamic",
    PASS_REWRITE(pass_ranged_int8, params),
    .needs_data = true,
    .validate = pass_static_validate,
    .run = pass_static_run,
};
