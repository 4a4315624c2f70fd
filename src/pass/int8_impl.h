/*
 * int8_impl.h - passes that round a graph to 8 bits: their common rows.
 */
#ifndef DRUPE_PASS_INT8_IMPL_H
#define DRUPE_PASS_INT8_IMPL_H

#include "pass/optimized_impl.h"

typedef struct {
    int precision, weight_symmetric;
    const char *op_types_to_quantize, *op_types_to_exclude;
    const char *nodes_to_quantize, *nodes_to_exclude;
    bool per_channel, reduce_range, quant_preprocess;
} pass_int8;

extern const char *const pass_int8_precisions[]; /* int8, uint8 */
extern const char *const pass_tristate[];        /* false, true */

#define PASS_INT8_ROW(s, field, kind, ...)                                                 \
    {                                                                                      \
        .name = #field, .offset = offsetof(s, int8) + offsetof(pass_int8, field),          \
        .type = kind, __VA_ARGS__                                                          \
    }
/* Rows for a struct s that has a pass_int8 called int8. */
#define PASS_INT8_ROWS(s)                                                                  \
    PASS_INT8_ROW(s, precision, DR_PARAM_CHOICE, .dflt = "int8",                           \
                  .search = "[\"int8\", \"uint8\"]", .choices = pass_int8_precisions,      \
                  .help = "of weights"),                                                   \
        PASS_INT8_ROW(s, weight_symmetric, DR_PARAM_CHOICE, .dflt = "null",                \
                      .choices = pass_tristate,                                            \
                      .help = "no zero points (default: with int8)"),                      \
        PASS_INT8_ROW(s, per_channel, DR_PARAM_BOOL, .dflt = "false",                      \
                      .search = "[true, false]", .help = "a scale for each output"),       \
        PASS_INT8_ROW(s, reduce_range, DR_PARAM_BOOL, .dflt = "false",                     \
                      .search = "[true, false]",                                           \
                      .help = "7 bits, for processors without VNNI"),                      \
        PASS_INT8_ROW(s, quant_preprocess, DR_PARAM_BOOL, .dflt = "true",                  \
                      .search = "[true, false]",                                           \
                      .help = "the runtime folds constants first"),                        \
        PASS_INT8_ROW(s, op_types_to_quantize, DR_PARAM_STR, .dflt = "null",               \
                      .listed = true, .help = "only these operators"),                     \
        PASS_INT8_ROW(s, op_types_to_exclude, DR_PARAM_STR, .dflt = "null",                \
                      .listed = true, .help = "operators that stay"),                      \
        PASS_INT8_ROW(s, nodes_to_quantize, DR_PARAM_STR, .dflt = "null", .listed = true,  \
                      .help = "only these nodes"),                                         \
        PASS_INT8_ROW(s, nodes_to_exclude, DR_PARAM_STR, .dflt = "null", .listed = true,   \
                      .help = "nodes that stay"),                                          \
        DR_REFUSED("extra_options", "its options are parameters here", "weight_symmetric")

DR_MUST_USE dr_status pass_int8_validate(const pass_int8 *c, const unsigned char *given);
onnx_int8_options pass_int8_options(dr_arena *a, const pass_int8 *c);

/* Of static quantization. */
typedef struct {
    int activation_type, calibrate_method, quant_format;
    bool activation_symmetric;
    double min_real_range;
} pass_static;

extern const char *const pass_activations[]; /* int8, uint8, int16, uint16 */
extern const char *const pass_methods[];     /* MinMax, Entropy, Percentile */
extern const char *const pass_formats[];     /* QDQ, QOperator */

#define PASS_STATIC_ROW(s, field, kind, ...)                                               \
    {                                                                                      \
        .name = #field, .offset = offsetof(s, fixed) + offsetof(pass_static, field),       \
        .type = kind, __VA_ARGS__                                                          \
    }
/* Rows for a struct s that has a pass_static called fixed. */
#define PASS_STATIC_ROWS(s)                                                                \
    PASS_STATIC_ROW(s, activation_type, DR_PARAM_CHOICE, .dflt = "int8",                   \
                    .search = "[\"int8\", \"uint8\"]", .choices = pass_activations,        \
                    .help = "of activations"),                                             \
        PASS_STATIC_ROW(s, activation_symmetric, DR_PARAM_BOOL, .dflt = "false",           \
                        .help = "as far to both sides of 0"),                              \
        PASS_STATIC_ROW(s, calibrate_method, DR_PARAM_CHOICE, .dflt = "MinMax",            \
                        .choices = pass_methods,                                           \
                        .help = "least and largest seen; the others are refused"),         \
        PASS_STATIC_ROW(s, quant_format, DR_PARAM_CHOICE, .dflt = "QDQ",                   \
                        .choices = pass_formats,                                           \
                        .help = "QuantizeLinear and DequantizeLinear; QOperator is "       \
                                "refused"),                                                \
        PASS_STATIC_ROW(s, min_real_range, DR_PARAM_FLOAT, .dflt = "0", .max = 1e9,        \
                        .help = "least width of a range"),                                 \
        DR_REFUSED("calibration_providers", "sessions are opened on the CPU", NULL),       \
        DR_REFUSED("tensor_quant_overrides", "activations have one type",                  \
                   "activation_type"),                                                     \
        DR_REFUSED("prepare_qdq_config",                                                   \
                   "products are rounded, and what they read and "                         \
                   "give",                                                                 \
                   NULL)

/* The config of a pass with activations by ranges: calibrates in the runtime on the job's
 * data set, and rounds; dynamic: without ranges, as OnnxDynamicQuantization. */
typedef struct {
    pass_external external;
    pass_int8 int8;
    pass_static fixed;
    int dynamic;
} pass_ranged_int8;
DR_MUST_USE dr_status pass_static_validate(const void *config, const unsigned char *given);
DR_MUST_USE dr_status pass_static_run(const pass_job *job, pass_model *out,
                                      const pass_model *in);

#endif
