/*
 * qtensor.c - packed weights; tensor views.
 */
#include "core/qtensor.h"

#include <string.h>

#include "core/mem.h"
#include "core/tensor.h"

size_t dr_tensor_count(const dr_tensor *t)
{
    size_t n = 1;

    for (int i = 0; i < t->ndim; i++)
        n *= (size_t)t->dims[i];
    return n;
}

size_t dr_qtensor_blocks(const dr_qtensor *q)
{
    return (q->cols + (size_t)q->block - 1) / (size_t)q->block;
}

size_t dr_qtensor_row_bytes(const dr_qtensor *q)
{
    return dr_qtensor_blocks(q) * (size_t)q->block * (size_t)q->bits / 8;
}

size_t dr_qtensor_zero_bytes(const dr_qtensor *q)
{
    return (dr_qtensor_blocks(q) * (size_t)q->bits + 7) / 8;
}

dr_status dr_qtensor_new(dr_qtensor *q, int bits, int block, size_t rows, size_t cols,
                         bool symmetric)
{
    dr_status st = DR_OK;
    void *p = NULL;

    DR_BUG_IF(bits != 2 && bits != 4 && bits != 8);
    DR_BUG_IF(block < 8);
    *q = (dr_qtensor){
        .bits = bits, .block = block, .rows = rows, .cols = cols, .owned = true};
    DR_TRY(dr_big_alloc(&p, rows, dr_qtensor_row_bytes(q), "packed weight"));
    q->codes = p;
    DR_TRY(dr_big_alloc(&p, rows, dr_qtensor_blocks(q) * sizeof(float), "scales"));
    q->scales = p;
    if (!symmetric) {
        DR_TRY(dr_big_alloc(&p, rows, dr_qtensor_zero_bytes(q), "zero points"));
        q->zeros = p;
    }
done:
    if (st != DR_OK)
        dr_qtensor_release(q);
    return st;
}

void dr_qtensor_release(dr_qtensor *q)
{
    if (q->owned) {
        dr_big_free(q->codes);
        dr_big_free(q->scales);
        dr_big_free(q->zeros);
    }
    *q = (dr_qtensor){0};
}

static int bits_get(const uint8_t *p, size_t i, int bits)
{
    size_t at = i * (size_t)bits;

    return p[at / 8] >> (at % 8) & ((1 << bits) - 1);
}

static void bits_set(uint8_t *p, size_t i, int bits, int v)
{
    size_t at = i * (size_t)bits;
    int mask = ((1 << bits) - 1) << (at % 8);

    p[at / 8] = (uint8_t)((p[at / 8] & ~mask) | (v << (at % 8) & mask));
}

int dr_qtensor_code(const dr_qtensor *q, size_t row, size_t col)
{
    return bits_get(q->codes + row * dr_qtensor_row_bytes(q), col, q->bits);
}

void dr_qtensor_set_code(dr_qtensor *q, size_t row, size_t col, int code)
{
    bits_set(q->codes + row * dr_qtensor_row_bytes(q), col, q->bits, code);
}

int dr_qtensor_zero(const dr_qtensor *q, size_t row, size_t block)
{
    if (q->zeros == NULL)
        return 1 << (q->bits - 1);
    return bits_get(q->zeros + row * dr_qtensor_zero_bytes(q), block, q->bits);
}

void dr_qtensor_set_zero(dr_qtensor *q, size_t row, size_t block, int zero)
{
    DR_BUG_IF(q->zeros == NULL);
    bits_set(q->zeros + row * dr_qtensor_zero_bytes(q), block, q->bits, zero);
}

void dr_qtensor_copy_rows(dr_qtensor *to, size_t to_row, const dr_qtensor *from,
                          size_t from_row, size_t count)
{
    size_t bytes = dr_qtensor_row_bytes(to), blocks = dr_qtensor_blocks(to);
    size_t zeros = dr_qtensor_zero_bytes(to);

    memcpy(to->codes + to_row * bytes, from->codes + from_row * bytes, count * bytes);
    memcpy(to->scales + to_row * blocks, from->scales + from_row * blocks,
           count * blocks * sizeof(float));
    if (to->zeros != NULL)
        memcpy(to->zeros + to_row * zeros, from->zeros + from_row * zeros, count * zeros);
}

/* One block of 4-bit codes, n elements (n even except in a short last block). */
dr_qtensor dr_qtensor_rows(const dr_qtensor *q, size_t row0, size_t count)
{
    dr_qtensor part = *q;

    DR_BUG_IF(row0 > q->rows || count > q->rows - row0);
    part.rows = count;
    part.codes += row0 * dr_qtensor_row_bytes(q);
    part.scales += row0 * dr_qtensor_blocks(q);
    part.zeros = q->zeros != NULL ? q->zeros + row0 * dr_qtensor_zero_bytes(q) : NULL;
    part.owned = false;
    return part;
}

static void block4_to_f32(float *dst, const uint8_t *codes, size_t n, float scale, int zero)
{
    float table[16];

    for (int c = 0; c < 16; c++)
        table[c] = (float)(c - zero) * scale;
    for (size_t i = 0; i + 1 < n; i += 2) {
        dst[i] = table[codes[i / 2] & 15];
        dst[i + 1] = table[codes[i / 2] >> 4];
    }
    if (n & 1)
        dst[n - 1] = table[codes[n / 2] & 15];
}

void dr_qtensor_to_f32(float *dst, const dr_qtensor *q, size_t row0, size_t count)
{
    size_t kb = dr_qtensor_blocks(q), row_bytes = dr_qtensor_row_bytes(q);
    size_t block = (size_t)q->block, block_bytes = block * (size_t)q->bits / 8;

    for (size_t r = row0; r < row0 + count; r++, dst += q->cols) {
        const uint8_t *codes = q->codes + r * row_bytes;
        for (size_t b = 0; b < kb; b++, codes += block_bytes) {
            size_t n = q->cols - b * block < block ? q->cols - b * block : block;
            float scale = q->scales[r * kb + b];
            int zero = dr_qtensor_zero(q, r, b);
            if (q->bits == 4) {
                block4_to_f32(dst + b * block, codes, n, scale, zero);
                continue;
            }
            for (size_t i = 0; i < n; i++)
                dst[b * block + i] = (float)(bits_get(codes, i, q->bits) - zero) * scale;
        }
    }
}
