/*
 * dtype_test.c - half conversions: all 65536 values there and back, and rounding against a
 * second implementation that works in double with nearbyint instead of on bits.
 */
#include "check.h"

#include "core/dtype.h"
#include "core/rng.h"

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

/*
 * v rounded to nearest even with `digits` binary digits and no exponent below least_exp
 * (of the last digit); infinite from `limit` on.
 */
static double rounded(double v, int digits, int least_exp, double limit)
{
    int e = 0;

    if (v == 0 || isinf(v))
        return v;
    (void)frexp(v, &e);
    int last = e - digits > least_exp ? e - digits : least_exp;
    double r = ldexp(nearbyint(ldexp(v, -last)), last);
    return fabs(r) >= limit ? copysign(HUGE_VAL, v) : r;
}

static uint16_t slow_f16(float f)
{
    double r = rounded((double)f, 11, -24, 65536.0), a = fabs(r);
    unsigned sign = signbit(f) ? 0x8000 : 0;

    if (isnan(f))
        return (uint16_t)(sign | 0x7e00);
    if (isinf(r))
        return (uint16_t)(sign | 0x7c00);
    if (a < 0x1p-14)
        return (uint16_t)(sign | (unsigned)(a * 0x1p24));
    int e = 0;
    double m = frexp(a, &e); /* a = m 2^e, m in [0.5, 1) */
    return (uint16_t)(sign | (unsigned)(e + 14) << 10 | (unsigned)((m * 2 - 1) * 1024));
}

static uint16_t slow_bf16(float f)
{
    double r = rounded((double)f, 8, -133, 0x1p128);

    if (isnan(f))
        return (uint16_t)(to_bits(f) >> 16 | 0x40);
    return (uint16_t)(to_bits((float)r) >> 16);
}

static void test_round_trip(void)
{
    size_t wrong = 0;

    for (uint32_t h = 0; h < 65536; h++) {
        float f = dr_f16_to_f32((uint16_t)h), b = dr_bf16_to_f32((uint16_t)h);
        if (isnan(f))
            wrong += (h & 0x7c00) != 0x7c00 || !isnan(dr_f16_to_f32(dr_f32_to_f16(f)));
        else
            wrong += dr_f32_to_f16(f) != h;
        if (isnan(b))
            wrong += (h & 0x7f80) != 0x7f80 || !isnan(dr_bf16_to_f32(dr_f32_to_bf16(b)));
        else
            wrong += dr_f32_to_bf16(b) != h;
    }
    CHECK_EQ_INT(wrong, 0);
    CHECK(dr_f16_to_f32(0x3c00) == 1.0f);
    CHECK(dr_f16_to_f32(0x7bff) == 65504.0f);
    CHECK(dr_f16_to_f32(0x0001) == 0x1p-24f);
    CHECK(dr_f16_to_f32(0x03ff) == 1023 * 0x1p-24f);
    CHECK(dr_f16_to_f32(0x8000) == 0.0f && signbit(dr_f16_to_f32(0x8000)));
    CHECK(isinf(dr_f16_to_f32(0xfc00)) && dr_f16_to_f32(0xfc00) < 0);
    CHECK(dr_bf16_to_f32(0x3f80) == 1.0f);
}

static size_t differs(uint32_t bits)
{
    float f = from_bits(bits);

    return (dr_f32_to_f16(f) != slow_f16(f)) + (dr_f32_to_bf16(f) != slow_bf16(f));
}

static void test_rounding(void)
{
    size_t wrong = 0;

    /* Halves, the middles between them, and the floats next to both. */
    for (uint32_t h = 0; h < 0x7c00; h++) {
        float lo = dr_f16_to_f32((uint16_t)h);
        float hi = h == 0x7bff ? 65536.0f : dr_f16_to_f32((uint16_t)(h + 1));
        uint32_t mid = to_bits(lo + (hi - lo) / 2), at = to_bits(lo);
        for (uint32_t sign = 0; sign < 2; sign++)
            for (uint32_t d = 0; d < 3; d++)
                wrong += differs((mid + d - 1) | sign << 31) +
                         (at + d > 0 ? differs((at + d - 1) | sign << 31) : 0);
    }
    for (uint32_t h = 0; h < 0x7f80; h++)
        for (uint32_t d = 0; d < 3; d++)
            wrong += differs((h << 16) + 0x7fff + d);
    CHECK_EQ_INT(wrong, 0);

    dr_rng r;
    dr_rng_init(&r, 1, 2);
    for (int i = 0; i < 1000000; i++)
        wrong += differs(dr_rng_u32(&r));
    CHECK_EQ_INT(wrong, 0);
    CHECK_EQ_INT(dr_f32_to_f16(65519.996f), 0x7bff);
    CHECK_EQ_INT(dr_f32_to_f16(65520.0f), 0x7c00);
    CHECK_EQ_INT(dr_f32_to_f16(0x1p-25f), 0);
    CHECK_EQ_INT(dr_f32_to_bf16(3.4e38f), 0x7f80);
}

static void test_table(void)
{
    dr_dtype t = DR_DTYPE_F32;

    for (int i = 0; i < DR_DTYPE_COUNT; i++) {
        CHECK(dr_dtype_parse(&t, dr_dtype_name((dr_dtype)i)));
        CHECK_EQ_INT(t, i);
        CHECK(dr_dtype_bytes(t) >= 1 && dr_dtype_bytes(t) <= 8);
    }
    CHECK(!dr_dtype_parse(&t, "F8_E4M3"));
    CHECK_EQ_INT(dr_dtype_onnx(DR_DTYPE_BF16), 16);
    CHECK(dr_dtype_is_float(DR_DTYPE_F64) && !dr_dtype_is_float(DR_DTYPE_I64));
}

static void test_arrays(void)
{
    static const dr_dtype types[] = {DR_DTYPE_F32, DR_DTYPE_F16, DR_DTYPE_BF16,
                                     DR_DTYPE_F64};
    static const float in[] = {0, -1, 0.5f, 3, 1024, -0.125f, 96};
    enum { N = DR_COUNT(in) };
    unsigned char room[1 + 8 * N];
    float out[N];

    for (size_t i = 0; i < DR_COUNT(types); i++) {
        dr_from_f32(room + 1, in, types[i], N); /* unaligned, as in a mapped file */
        memset(out, 0, sizeof(out));
        dr_to_f32(out, room + 1, types[i], N);
        CHECK_MEM(out, in, sizeof(in));
    }
}

/* One element of many that is not finite, at every place and of every kind. */
static void test_finite(void)
{
    static const dr_dtype types[] = {DR_DTYPE_F32, DR_DTYPE_F16, DR_DTYPE_BF16,
                                     DR_DTYPE_F64};
    static const float kinds[] = {INFINITY, -INFINITY, NAN};
    enum { N = 37 };
    float v[N];
    double wide[N];
    unsigned char raw[8 * N + 1]; /* odd: any alignment */

    for (size_t t = 0; t < DR_COUNT(types); t++) {
        for (size_t i = 0; i <= N * DR_COUNT(kinds); i++) {
            for (size_t k = 0; k < N; k++)
                v[k] = k % 2 ? 65504.0f : -0.0f;
            if (i < N * DR_COUNT(kinds))
                v[i % N] = kinds[i / N];
            for (size_t k = 0; k < N; k++)
                wide[k] = (double)v[k];
            if (types[t] == DR_DTYPE_F64)
                memcpy(raw + 1, wide, sizeof(wide));
            else
                dr_from_f32(raw + 1, v, types[t], N);
            CHECK_EQ_INT(dr_all_finite(raw + 1, types[t], N), i == N * DR_COUNT(kinds));
        }
        CHECK(dr_all_finite(raw, types[t], 0));
    }
}

int main(void)
{
    test_round_trip();
    test_rounding();
    test_table();
    test_arrays();
    test_finite();
    return check_done();
}
