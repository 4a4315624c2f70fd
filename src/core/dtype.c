/*
 * dtype.c - element types; half conversions by integer arithmetic (exact on every machine),
 * with F16C where the compiler targets it.
 */
#include "core/dtype.h"

#include <string.h>

static const struct {
    const char *name;
    int onnx;
    size_t bytes;
} rows[] = {
#define DR_DTYPE(name, st_name, onnx, bytes) {st_name, onnx, bytes},
#include "core/dtype.def"
#undef DR_DTYPE
};

size_t dr_dtype_bytes(dr_dtype t)
{
    return rows[t].bytes;
}

const char *dr_dtype_name(dr_dtype t)
{
    return rows[t].name;
}

int dr_dtype_onnx(dr_dtype t)
{
    return rows[t].onnx;
}

bool dr_dtype_parse(dr_dtype *out, const char *st_name)
{
    for (int i = 0; i < DR_DTYPE_COUNT; i++) {
        if (strcmp(rows[i].name, st_name) == 0) {
            *out = (dr_dtype)i;
            return true;
        }
    }
    return false;
}

bool dr_dtype_is_float(dr_dtype t)
{
    return t == DR_DTYPE_F32 || t == DR_DTYPE_F16 || t == DR_DTYPE_BF16 ||
           t == DR_DTYPE_F64;
}

static float from_bits(uint32_t u)
{
    float f;

    memcpy(&f, &u, 4);
    return f;
}

static uint32_t to_bits(float f)
{
    uint32_t u;

    memcpy(&u, &f, 4);
    return u;
}

float dr_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exp = (h >> 10) & 31, man = h & 1023;

    if (exp == 31)
        return from_bits(sign | 0x7f800000u | man << 13);
    if (exp == 0) /* zero or subnormal: man * 2^-24 is exact */
        return from_bits(sign | to_bits((float)man * 0x1p-24f));
    return from_bits(sign | (exp + 112) << 23 | man << 13);
}

uint16_t dr_f32_to_f16(float f)
{
    uint32_t u = to_bits(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;

    if (a > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (a >= 0x477ff000) /* rounds past 65504 */
        return (uint16_t)(sign | 0x7c00);
    if (a < 0x38800000) { /* subnormal half: let the adder round at 2^-24 */
        float v = from_bits(a) + 0.5f;
        return (uint16_t)(sign | (to_bits(v) - 0x3f000000u));
    }
    uint32_t odd = a >> 13 & 1;
    return (uint16_t)(sign | ((a + 0xfff + odd - 0x38000000u) >> 13));
}

float dr_bf16_to_f32(uint16_t h)
{
    return from_bits((uint32_t)h << 16);
}

uint16_t dr_f32_to_bf16(float f)
{
    uint32_t u = to_bits(f);

    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

void dr_to_f32(float *dst, const void *src, dr_dtype t, size_t n)
{
    const unsigned char *p = src;
    uint16_t h;
    double d;

    DR_BUG_IF(!dr_dtype_is_float(t));
    if (t == DR_DTYPE_F32) {
        memcpy(dst, src, n * 4);
    } else if (t == DR_DTYPE_F64) {
        for (size_t i = 0; i < n; i++) {
            memcpy(&d, p + i * 8, 8);
            dst[i] = (float)d;
        }
    } else if (t == DR_DTYPE_BF16) {
        for (size_t i = 0; i < n; i++) {
            memcpy(&h, p + i * 2, 2);
            dst[i] = dr_bf16_to_f32(h);
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            memcpy(&h, p + i * 2, 2);
            dst[i] = dr_f16_to_f32(h);
        }
    }
}

void dr_from_f32(void *dst, const float *src, dr_dtype t, size_t n)
{
    unsigned char *p = dst;

    DR_BUG_IF(!dr_dtype_is_float(t));
    if (t == DR_DTYPE_F32) {
        memcpy(dst, src, n * 4);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (t == DR_DTYPE_F64) {
            double d = (double)src[i];
            memcpy(p + i * 8, &d, 8);
        } else {
            uint16_t h =
                t == DR_DTYPE_BF16 ? dr_f32_to_bf16(src[i]) : dr_f32_to_f16(src[i]);
            memcpy(p + i * 2, &h, 2);
        }
    }
}

/* Infinities and NaN have all bits of the exponent set: the largest masked value of a run
 * tells, in a loop without a branch. */
static bool finite_half(const unsigned char *p, uint16_t exponent, size_t n)
{
    uint16_t most = 0;

    for (size_t i = 0; i < n; i++) {
        uint16_t v;
        memcpy(&v, p + 2 * i, sizeof(v));
        v &= exponent;
        most = v > most ? v : most;
    }
    return most != exponent;
}

static bool finite_single(const unsigned char *p, size_t n)
{
    const uint32_t exponent = 0x7f800000;
    uint32_t most = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, p + 4 * i, sizeof(v));
        v &= exponent;
        most = v > most ? v : most;
    }
    return most != exponent;
}

static bool finite_double(const unsigned char *p, size_t n)
{
    const uint64_t exponent = 0x7ff0000000000000;
    bool all = true;

    for (size_t i = 0; i < n; i++) {
        uint64_t v;
        memcpy(&v, p + 8 * i, sizeof(v));
        all = all && (v & exponent) != exponent;
    }
    return all;
}

bool dr_all_finite(const void *src, dr_dtype t, size_t n)
{
    DR_BUG_IF(!dr_dtype_is_float(t));
    if (t == DR_DTYPE_F16)
        return finite_half(src, 0x7c00, n);
    if (t == DR_DTYPE_BF16)
        return finite_half(src, 0x7f80, n);
    return t == DR_DTYPE_F32 ? finite_single(src, n) : finite_double(src, n);
}
