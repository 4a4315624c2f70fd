/*
 * weight_impl.h - weights on their way from the model to the external file: rounding,
 * transposing, and where their rows come from.
 */
#ifndef DRUPE_ONNX_WEIGHT_IMPL_H
#define DRUPE_ONNX_WEIGHT_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/dtype.h"
#include "core/qtensor.h"
#include "core/status.h"
#include "hf/hf.h"
#include "onnx/onnx.h"

/* ---- rounding ---- */

enum { ONNX_BLOCK_MIN = 16, ONNX_BLOCK_MAX = 256 };

/* What weights are rounded to here, blocks of a power of two along K. */
typedef struct {
    int bits; /* 2, 4 or 8 */
    int block;
    bool symmetric;
    onnx_rounding how; /* never K_QUANT with symmetric */
    bool dequantize;   /* default: ties go away from 0, not from the lowest code */
    dr_dtype stored;   /* of scales; default's codes are of the scale that is stored */
} onnx_grid;

/*
 * Rounds rows [count][cols] into the layout of dr_qtensor: codes [count][kb*block*bits/8],
 * scales [count][kb], zeros [count][ceil(kb*bits/8)] (NULL: symmetric; else zeroed before).
 * False: a value is not finite; *bad is its row.
 */
DR_MUST_USE bool onnx_block_quantize(uint8_t *codes, float *scales, uint8_t *zeros,
                                     const float *rows, size_t count, size_t cols,
                                     const onnx_grid *grid, size_t *bad);

/* One block of n = grid->block values to codes, a byte each, its scale and zero point; of
 * weighted least squares.  The values are finite. */
void onnx_k_quant_block(uint8_t *code, float *scale, int *zero, const float *v, size_t n,
                        int bits);

/* dst[k - k0][col0 + r] = src[r][k] for r in [0, rows), k in [k0, k1): dst has `stride`
 * values a row, src `cols`; a value has 4 or 2 bytes. */
void onnx_transpose(void *dst, size_t stride, size_t col0, const void *src, size_t rows,
                    size_t cols, size_t k0, size_t k1, size_t bytes);

/* ---- where rows come from ---- */

/*
 * The rows of one slot of a layer (q, k and v; gate and up; ...), whichever modules have
 * them, of the untied head, or of the embedding.
 */
enum { ONNX_PARTS = 3 };

typedef struct {
    const hf_model *m;                 /* borrowed */
    const hf_linear *part[ONNX_PARTS]; /* borrowed; NULL: experts */
    dr_qtensor packed[ONNX_PARTS];     /* owned; codes NULL: floats */
    size_t part_count;
    size_t rows, cols;
    size_t stack; /* experts, one after another: tensors have them as first size; else 0 */
    int layer;    /* of experts */
    hf_expert_part expert;
} onnx_source;

/* What is packed is unpacked by pool. */
DR_MUST_USE dr_status onnx_source_slot(onnx_source *s, const hf_model *m, dr_pool *pool,
                                       int layer, hf_slot slot);
/* The head of an untied model, or the embedding, which is a tied model's head. */
DR_MUST_USE dr_status onnx_source_head(onnx_source *s, const hf_model *m, dr_pool *pool);
/* All experts of a layer. */
void onnx_source_experts(onnx_source *s, const hf_model *m, int layer, hf_expert_part part);
DR_MUST_USE dr_status onnx_source_embedding(onnx_source *s, const hf_model *m,
                                            dr_pool *pool);
void onnx_source_release(onnx_source *s);

/* dst[count][cols]; may run on several threads. */
DR_MUST_USE dr_status onnx_source_read(const onnx_source *s, float *dst, size_t row0,
                                       size_t count);
/* dst[count], zeros where a module has none; *any: one is not zero. */
DR_MUST_USE dr_status onnx_source_bias(const onnx_source *s, float *dst, size_t row0,
                                       size_t count, bool *any);
/* A name for messages: the module that has this row. */
const char *onnx_source_name(const onnx_source *s, size_t row);
/* Its number in that module. */
size_t onnx_source_row_in(const onnx_source *s, size_t row);

/* The grid of the packed modules that have these rows; false: one is stored as floats, or
 * two differ in bits or block.  symmetric: none of them has zero points. */
bool onnx_source_grid(const onnx_source *s, size_t row0, size_t count, onnx_grid *grid);
/* Whether any of these rows is packed. */
bool onnx_source_packed(const onnx_source *s, size_t row0, size_t count);

/* One row of a packed module, cut to blocks of grid->block (a divisor of its own block):
 * codes and scales, and zeros unless NULL, where a symmetric module gives its middle. */
void onnx_source_row(const onnx_source *s, size_t row, const onnx_grid *grid,
                     uint8_t *codes, float *scales, uint8_t *zeros);

#endif
