/*
 * block_passes_impl.h - passes that pack weights of an ONNX graph in blocks: their common
 * rows.
 */
#ifndef DRUPE_PASS_BLOCK_PASSES_IMPL_H
#define DRUPE_PASS_BLOCK_PASSES_IMPL_H

#include "pass/rewrite_impl.h"

/* The first member of such a pass's config. */
typedef struct {
    pass_external external;
    int block_size, axis, accuracy_level;
    const char *nodes_to_exclude, *nodes_to_include;
} pass_blocks;

#define PASS_BLOCKS_ROWS(size)                                                             \
    DR_INT(pass_blocks, block_size, .dflt = size, .search = "[16, 32, 64, 128, 256]",      \
           .min = 16, .max = 256, .help = "inputs that share a scale: a power of two"),    \
        DR_INT(pass_blocks, accuracy_level, .dflt = "0", .min = 0, .max = 4,               \
               .help = "of MatMulNBits: 0 unset, 1 float, 4 int8 activations"),            \
        DR_STR(pass_blocks, nodes_to_exclude, .dflt = "null", .listed = true,              \
               .help = "nodes that stay"),                                                 \
        DR_STR(pass_blocks, nodes_to_include, .dflt = "null", .listed = true,              \
               .help = "only these nodes; default: all"),                                  \
        PASS_EXTERNAL_ROWS
/* Olive's name for the side of a weight, which has but one here. */
#define PASS_BLOCKS_AXIS                                                                   \
    DR_INT(pass_blocks, axis, .dflt = "0", .min = 0, .max = 1,                             \
           .help = "0: blocks lie along a product's inputs; 1 is refused")

DR_MUST_USE dr_status pass_blocks_validate(const void *config, const unsigned char *given);
/* What these rows say; bits 4, MatMul alone. */
onnx_blocks_options pass_blocks_options(const pass_job *job);
/* Half-quadratic rounding, on the grid that o has. */
void pass_round_hqq(onnx_blocks_options *o, const pass_job *job);

#endif
