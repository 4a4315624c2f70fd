/*
 * block_quantize.c - round to nearest in blocks, byte for byte as the model builder's
 * quantizers do it: "default" (ONNX Runtime's MlasQuantizeBlockwise) and "rtn".
 *
 * default, symmetric: the value of largest magnitude v (the smaller one of a tie) becomes
 * code 0, so
 *     scale = -v / 2^(bits-1),  code = clamp(round(x / scale) + 2^(bits-1)),
 * and the other end of the grid, one step shorter, is clamped.  Asymmetric: lo = min(x, 0),
 * hi = max(x, 0), scale = (hi - lo) / (2^bits - 1), zero = round(-lo / scale).
 *
 * rtn, symmetric: scale = 2 max|x| / (2^bits - 1), so that the most positive values are
 * clamped; asymmetric: as default, but of a range that need not hold 0.  In double, half to
 * even.  A block of zeros has scale 1 there, 0 here.
 *
 * Of "default":
 * 1. float32 throughout; x is multiplied by 1/scale and the zero point is added before the
 *    one rounding, half away from zero.  Another order gives other bytes.
 * 2. round() of x >= 0 is truncation plus (fraction >= 0.5), both exact, and clamping first
 *    gives the same code: this form is vectorized with plain SSE2, roundf() is not.
 * 3. Extremes are found as integers of the same order: compilers may reorder a minimum of
 *    integers, not one of floats, and NaN and infinities come out as extremes.
 *
 * Cost: 1.3 ns a value in blocks of 32, 0.85 of 128 (gcc 12, SSE2, one busy core);
 * rtn 5 ns.
 */
#include <math.h>
#include <string.h>

#include "onnx/weight_impl.h"

/* A float as an integer of the same order, and back; what is not finite lies outside. */
static int32_t ordered(int32_t bits)
{
    return bits ^ (bits >> 31 & INT32_MAX);
}

static float unordered(int32_t key)
{
    float f;

    key = ordered(key);
    memcpy(&f, &key, sizeof(f));
    return f;
}

/* lo <= every value <= hi; false when one is not finite. */
static bool range(const float *v, size_t n, float *lo, float *hi)
{
    int32_t least = INT32_MAX, most = INT32_MIN;

    for (size_t j = 0; j < n; j++) {
        int32_t key;
        memcpy(&key, v + j, sizeof(key));
        key = ordered(key);
        least = key < least ? key : least;
        most = key > most ? key : most;
    }
    *lo = unordered(least);
    *hi = unordered(most);
    return isfinite(*lo) && isfinite(*hi);
}

/* n values, a multiple of 16, to codes; half away from zero (see 2 above). */
static void encode(uint8_t *code, const float *v, size_t n, float inverse, float zero,
                   float top)
{
    for (size_t j = 0; j < n; j += 16) {
        for (size_t l = 0; l < 16; l++) {
            float x = v[j + l] * inverse + zero;
            x = x > 0.0f ? x : 0.0f;
            x = x < top ? x : top;
            int whole = (int)x;
            code[j + l] = (uint8_t)(whole + (x - (float)whole >= 0.5f));
        }
    }
}

/* Likewise, a half away from zero before the zero point is added: DequantizeLinear's. */
static void encode_signed(uint8_t *code, const float *v, size_t n, float inverse, int zero,
                          int top)
{
    for (size_t j = 0; j < n; j++) {
        float x = v[j] * inverse;
        int whole = (int)x;
        float rest = x - (float)whole;
        int q = whole + (rest >= 0.5f) - (rest <= -0.5f) + zero;
        q = q > 0 ? q : 0;
        code[j] = (uint8_t)(q < top ? q : top);
    }
}

/* The model builder's "default". */
static void default_block(uint8_t *code, float *scale, int *zero, const float *v, float lo,
                          float hi, const onnx_grid *grid)
{
    float top = (float)((1 << grid->bits) - 1);

    if (grid->symmetric) {
        *zero = 1 << (grid->bits - 1);
        *scale = (fabsf(hi) > fabsf(lo) ? hi : lo) / -(float)*zero;
    } else {
        lo = lo < 0.0f ? lo : 0.0f;
        hi = hi > 0.0f ? hi : 0.0f;
        *scale = (hi - lo) / top;
        float z = *scale != 0.0f ? 0.0f - lo / *scale : 0.0f;
        *zero = (int)roundf(z < top ? z : top);
    }
    if (grid->stored == DR_DTYPE_F16)
        *scale = dr_f16_to_f32(dr_f32_to_f16(*scale));
    else if (grid->stored == DR_DTYPE_BF16)
        *scale = dr_bf16_to_f32(dr_f32_to_bf16(*scale));
    float inverse = *scale != 0.0f ? 1.0f / *scale : 0.0f;
    if (grid->dequantize)
        encode_signed(code, v, (size_t)grid->block, inverse, *zero, (int)top);
    else
        encode(code, v, (size_t)grid->block, inverse, (float)*zero, top);
}

/* Its "rtn". */
static void rtn_block(uint8_t *code, float *scale, int *zero, const float *v, float lo,
                      float hi, const onnx_grid *grid)
{
    double top = (1 << grid->bits) - 1, s = 1;

    if (grid->symmetric) {
        float most = fabsf(lo) > fabsf(hi) ? fabsf(lo) : fabsf(hi);
        *zero = 1 << (grid->bits - 1);
        if (most > 0.0f)
            s = (double)(most * 2.0f) / top;
    } else {
        if (lo != hi)
            s = (double)(hi - lo) / top;
        double z = rint(-(double)lo / s);
        *zero = (int)(z < 0 ? 0 : z > top ? top : z);
    }
    *scale = (float)s;
    for (size_t j = 0; j < (size_t)grid->block; j++) {
        double q = rint((double)v[j] / s + *zero);
        code[j] = (uint8_t)(q < 0 ? 0 : q > top ? top : q);
    }
}

/* One whole block to codes of a byte each; false when a value is not finite. */
static bool block(uint8_t *code, float *scale, int *zero, const float *v,
                  const onnx_grid *grid)
{
    float lo = 0, hi = 0;

    if (!range(v, (size_t)grid->block, &lo, &hi) || isinf(hi - lo))
        return false;
    switch (grid->how) {
    case ONNX_ROUND_DEFAULT:
        default_block(code, scale, zero, v, lo, hi, grid);
        break;
    case ONNX_ROUND_RTN:
        rtn_block(code, scale, zero, v, lo, hi, grid);
        break;
    case ONNX_ROUND_K_QUANT:
        onnx_k_quant_block(code, scale, zero, v, (size_t)grid->block, grid->bits);
        break;
    }
    return true;
}

/* n codes, the first in the lowest bits. */
static void pack(uint8_t *out, const uint8_t *code, size_t n, int bits)
{
    if (bits == 4) {
        for (size_t j = 0; j < n / 2; j++)
            out[j] = (uint8_t)(code[2 * j] | code[2 * j + 1] << 4);
    } else if (bits == 2) {
        for (size_t j = 0; j < n / 4; j++)
            out[j] = (uint8_t)(code[4 * j] | code[4 * j + 1] << 2 | code[4 * j + 2] << 4 |
                               code[4 * j + 3] << 6);
    } else {
        memcpy(out, code, n);
    }
}

bool onnx_block_quantize(uint8_t *codes, float *scales, uint8_t *zeros, const float *rows,
                         size_t count, size_t cols, const onnx_grid *grid, size_t *bad)
{
    float tail[ONNX_BLOCK_MAX];
    uint8_t code[ONNX_BLOCK_MAX];
    size_t n = (size_t)grid->block, kb = (cols + n - 1) / n, bits = (size_t)grid->bits;
    size_t block_bytes = n * bits / 8, zero_bytes = (kb * bits + 7) / 8;

    for (size_t r = 0; r < count; r++, rows += cols) {
        for (size_t b = 0; b < kb; b++, codes += block_bytes, scales++) {
            const float *v = rows + b * n;
            int zero = 0;
            if (cols - b * n < n) { /* a short last block is filled with zeros */
                memset(tail, 0, sizeof(tail));
                memcpy(tail, v, (cols - b * n) * sizeof(float));
                v = tail;
            }
            if (!block(code, scales, &zero, v, grid)) {
                *bad = r;
                return false;
            }
            pack(codes, code, n, grid->bits);
            if (zeros != NULL)
                zeros[r * zero_bytes + b * bits / 8] |= (uint8_t)(zero << b * bits % 8);
        }
        /* unused, but the same bytes as the model builder's */
        if (zeros != NULL && grid->bits == 4 && grid->how == ONNX_ROUND_DEFAULT &&
            kb % 2 != 0)
            zeros[r * zero_bytes + kb / 2] |= 0x80;
    }
    return true;
}
