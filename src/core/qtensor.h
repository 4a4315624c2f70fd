/*
 * qtensor.h - a packed weight in the one layout that drupe has in memory: that of ONNX
 * Runtime's MatMulNBits.
 *
 * W is [N rows = outputs, K columns = inputs].  Each row is cut into KB = ceil(K/block)
 * blocks along K; a short last block is padded with code = its zero point.
 *   codes  uint8 [N, KB, block*bits/8]: 4 bits: element 2j in the low nibble of byte j,
 *          2j+1 in the high one; 8 bits: one byte each; 2 bits: four a byte, lowest first
 *   scales float [N, KB]
 *   zeros  uint8 [N, ceil(KB*bits/8)], packed as codes along KB, each row from a new byte;
 *          NULL: every zero point is 2^(bits-1)
 * value = (code - zero) * scale, in float.
 * Source: com.microsoft MatMulNBits, ONNX Runtime's contrib operators.
 */
#ifndef DRUPE_CORE_QTENSOR_H
#define DRUPE_CORE_QTENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

typedef struct {
    int bits;       /* 2, 4 or 8 */
    int block;      /* inputs that share a scale: a power of two, 16 to 256 or more */
    size_t rows;    /* N */
    size_t cols;    /* K */
    uint8_t *codes; /* owned when made by dr_qtensor_new, else borrowed */
    float *scales;  /* likewise */
    uint8_t *zeros; /* likewise; NULL: symmetric */
    bool owned;
} dr_qtensor;

/* Sizes: blocks in a row, bytes of codes in a row, bytes of zeros in a row. */
size_t dr_qtensor_blocks(const dr_qtensor *q);
size_t dr_qtensor_row_bytes(const dr_qtensor *q);
size_t dr_qtensor_zero_bytes(const dr_qtensor *q);

/* Zeroed storage for N x K; DR_ENOMEM when it does not fit. */
DR_MUST_USE dr_status dr_qtensor_new(dr_qtensor *q, int bits, int block, size_t rows,
                                     size_t cols, bool symmetric);
void dr_qtensor_release(dr_qtensor *q);

/* One code or zero point, by position.  Slow: loops pack whole blocks themselves. */
int dr_qtensor_code(const dr_qtensor *q, size_t row, size_t col);
void dr_qtensor_set_code(dr_qtensor *q, size_t row, size_t col, int code);
int dr_qtensor_zero(const dr_qtensor *q, size_t row, size_t block);
void dr_qtensor_set_zero(dr_qtensor *q, size_t row, size_t block, int zero);

/* count rows of `from` in the place of rows of `to`, of the same columns and grid. */
void dr_qtensor_copy_rows(dr_qtensor *to, size_t to_row, const dr_qtensor *from,
                          size_t from_row, size_t count);

/* count rows of q as a tensor that borrows them. */
dr_qtensor dr_qtensor_rows(const dr_qtensor *q, size_t row0, size_t count);

/* dst[count][K] = rows row0 .. row0+count-1 as floats. */
void dr_qtensor_to_f32(float *dst, const dr_qtensor *q, size_t row0, size_t count);

#endif
