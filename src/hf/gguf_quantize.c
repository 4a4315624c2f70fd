/*
 * gguf_quantize.c - floats, and drupe's packed weights, to GGUF's blocks of 32.
 *
 *   Q8_0  d[2] qs[32]          q = round(x / d), d = max|x| / 127
 *   Q4_0  d[2] qs[16]          q = x / d + 8.5 cut down, d = the x of most weight / -8
 *   Q4_1  d[2] m[2] qs[16]     q = (x - m) / d + 0.5 cut down, d = (max - min) / 15
 *
 * From floats they are ggml's reference (quantize_row_*_ref) as the Python package gguf has
 * it, bit for bit: codes are chosen by the scale before it is rounded to half precision.
 *
 * A packed weight is (code - zero) * scale, so its codes stay: Q4_0 where code - zero is
 * within -8..7, Q8_0 within -128..127, Q4_1 always with m = -zero * scale.  Scales that are
 * half precision already, as files have them, make the first two exact; m is rounded.
 */
#include <math.h>
#include <string.h>

#include "hf/gguf_out_impl.h"

enum { QK = 32 };

size_t gguf_out_bytes(int type, size_t n)
{
    gguf_block block = gguf_block_of(type);

    DR_BUG_IF(block.block == 0 || n % (size_t)block.block != 0);
    return n / (size_t)block.block * (size_t)block.bytes;
}

static void put_half(unsigned char *dst, float v)
{
    uint16_t h = dr_f32_to_f16(v);

    dst[0] = (unsigned char)(h & 255);
    dst[1] = (unsigned char)(h >> 8);
}

/* ---- from floats ---- */

static float inverse(float d)
{
    return d != 0 ? 1 / d : 0;
}

/* A code from a number that is not below zero; what is none (NaN) gives 0. */
static int cut_code(float v)
{
    return v >= 15 ? 15 : v > 0 ? (int)v : 0;
}

static void q8_0(unsigned char *dst, const float *x)
{
    float most = 0;

    for (int i = 0; i < QK; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    float d = most / 127, id = inverse(d);
    put_half(dst, d);
    for (int i = 0; i < QK; i++) {
        float q = roundf(x[i] * id);
        int code = q >= 127 ? 127 : q <= -128 ? -128 : q == q ? (int)q : 0;
        dst[2 + i] = (unsigned char)(int8_t)code;
    }
}

static void q4_0(unsigned char *dst, const float *x)
{
    float most = 0;

    for (int i = 0; i < QK; i++)
        most = fabsf(x[i]) > fabsf(most) ? x[i] : most;
    float d = most / -8, id = inverse(d);
    put_half(dst, d);
    for (int i = 0; i < QK / 2; i++) {
        int lo = cut_code(x[i] * id + 8.5f), hi = cut_code(x[i + QK / 2] * id + 8.5f);
        dst[2 + i] = (unsigned char)(lo | hi << 4);
    }
}

static void q4_1(unsigned char *dst, const float *x)
{
    float min = x[0], max = x[0];

    for (int i = 1; i < QK; i++) {
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
    }
    float d = (max - min) / 15, id = inverse(d);
    put_half(dst, d);
    put_half(dst + 2, min);
    for (int i = 0; i < QK / 2; i++) {
        int lo = cut_code((x[i] - min) * id + 0.5f);
        int hi = cut_code((x[i + QK / 2] - min) * id + 0.5f);
        dst[4 + i] = (unsigned char)(lo | hi << 4);
    }
}

void gguf_quantize(void *dst, const float *src, int type, size_t n)
{
    gguf_block block = gguf_block_of(type);
    unsigned char *p = dst;

    if (block.block == 1) {
        dr_from_f32(dst, src, block.dtype, n);
        return;
    }
    DR_BUG_IF(block.block != QK || n % QK != 0);
    for (size_t i = 0; i < n; i += QK, p += block.bytes) {
        if (type == GGUF_OUT_Q8_0)
            q8_0(p, src + i);
        else if (type == GGUF_OUT_Q4_0)
            q4_0(p, src + i);
        else
            q4_1(p, src + i);
    }
}

/* ---- from packed weights ---- */

bool gguf_keeps_codes(const dr_qtensor *q, int type)
{
    int top = (1 << q->bits) - 1, half = type == GGUF_OUT_Q8_0 ? 128 : 8;
    size_t kb = dr_qtensor_blocks(q);

    if (q->block % QK != 0 || q->cols % QK != 0 || gguf_block_of(type).block != QK)
        return false;
    if (type == GGUF_OUT_Q4_1)
        return q->bits <= 4;
    if (q->zeros == NULL)
        return (1 << (q->bits - 1)) <= half;
    for (size_t r = 0; r < q->rows; r++) {
        for (size_t b = 0; b < kb; b++) {
            int zero = dr_qtensor_zero(q, r, b);
            if (zero > half || top - zero > half - 1)
                return false;
        }
    }
    return true;
}

void gguf_from_packed(void *dst, const dr_qtensor *q, int type, size_t row)
{
    size_t kb = dr_qtensor_blocks(q);
    unsigned char *p = dst;
    int bytes = gguf_block_of(type).bytes;

    for (size_t k = 0; k < q->cols; k += QK, p += bytes) {
        size_t b = k / (size_t)q->block;
        int zero = dr_qtensor_zero(q, row, b), at = 2;
        float scale = q->scales[row * kb + b];

        put_half(p, scale);
        if (type == GGUF_OUT_Q8_0) {
            for (size_t i = 0; i < QK; i++)
                p[2 + i] = (unsigned char)(int8_t)(dr_qtensor_code(q, row, k + i) - zero);
            continue;
        }
        int add = 8 - zero;
        if (type == GGUF_OUT_Q4_1) {
            put_half(p + 2, -(float)zero * scale);
            at = 4;
            add = 0;
        }
        for (size_t i = 0; i < QK / 2; i++) {
            int lo = dr_qtensor_code(q, row, k + i) + add;
            int hi = dr_qtensor_code(q, row, k + i + QK / 2) + add;
            p[(size_t)at + i] = (unsigned char)(lo | hi << 4);
        }
    }
}
