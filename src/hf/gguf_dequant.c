/*
 * gguf_dequant.c - GGUF's block types to floats.
 *
 * A row is a run of blocks: 32 elements for the Q4_0 family, 256 for the K types.  Each
 * formula and its order of operations is that of ggml's dequantize_row_* and of the Python
 * package's gguf.quants, so the floats are equal bit for bit (products and sums in float,
 * no contraction: see cmake/flags.cmake).
 *
 *   Q4_0  d[2] qs[16]              d * (q - 8)       q of element i: low nibble of qs[i],
 *   Q4_1  d[2] m[2] qs[16]         d * q + m         of element i + 16: high nibble
 *   Q5_0  d[2] qh[4] qs[16]        d * (q - 16)      fifth bit of element i: bit i of qh
 *   Q5_1  d[2] m[2] qh[4] qs[16]   d * q + m
 *   Q8_0  d[2] qs[32]              q * d
 *   Q4_K  d[2] dmin[2] scales[12] qs[128]            (d * sc) * q - dmin * mn, by 32
 *   Q5_K  d[2] dmin[2] scales[12] qh[32] qs[128]     likewise
 *   Q6_K  ql[128] qh[64] scales[16] d[2]             (d * sc) * (q - 32), by 16
 *   Q2_K  scales[16] qs[64] d[2] dmin[2]             (d * sc) * q - dmin * mn, by 16
 *   Q3_K  hmask[32] qs[64] scales[12] d[2]           (d * (sc - 32)) * (q - 4), by 16
 *   IQ4_NL d[2] qs[16]             d * grid[q]
 *   IQ4_XS d[2] sh[2] sl[4] qs[128]                  (d * (sc - 32)) * grid[q], by 32
 */
#include "hf/gguf_impl.h"

#include <string.h>

enum { QK = 32, QK_K = 256 };

typedef void (*dequant_fn)(float *dst, const unsigned char *b);

static float half_at(const unsigned char *p)
{
    return dr_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

/* ---- blocks of 32 ---- */

static void q4_0(float *dst, const unsigned char *b)
{
    float d = half_at(b);

    for (int i = 0; i < QK / 2; i++) {
        dst[i] = d * (float)((b[2 + i] & 15) - 8);
        dst[i + QK / 2] = d * (float)((b[2 + i] >> 4) - 8);
    }
}

static void q4_1(float *dst, const unsigned char *b)
{
    float d = half_at(b), m = half_at(b + 2);

    for (int i = 0; i < QK / 2; i++) {
        dst[i] = d * (float)(b[4 + i] & 15) + m;
        dst[i + QK / 2] = d * (float)(b[4 + i] >> 4) + m;
    }
}

/* The 32 five-bit codes of Q5_0 and Q5_1: qh[4] then qs[16]. */
static void five_bits(int q[QK], const unsigned char *b)
{
    for (int i = 0; i < QK / 2; i++) {
        int j = i + QK / 2;

        q[i] = (b[4 + i] & 15) | (b[i / 8] >> i % 8 & 1) << 4;
        q[j] = b[4 + i] >> 4 | (b[j / 8] >> j % 8 & 1) << 4;
    }
}

static void q5_0(float *dst, const unsigned char *b)
{
    float d = half_at(b);
    int q[QK];

    five_bits(q, b + 2);
    for (int i = 0; i < QK; i++)
        dst[i] = d * (float)(q[i] - 16);
}

static void q5_1(float *dst, const unsigned char *b)
{
    float d = half_at(b), m = half_at(b + 2);
    int q[QK];

    five_bits(q, b + 4);
    for (int i = 0; i < QK; i++)
        dst[i] = d * (float)q[i] + m;
}

static void q8_0(float *dst, const unsigned char *b)
{
    float d = half_at(b);

    for (int i = 0; i < QK; i++)
        dst[i] = (float)(int8_t)b[2 + i] * d;
}

/* ---- blocks of 256 ---- */

/* The j-th of eight six-bit scales and minimums, packed into 12 bytes. */
static void scale_min(int *scale, int *min, const unsigned char *s, int j)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *min = s[j + 4] >> 4 | (s[j] >> 6) << 4;
    }
}

/* Q4_K, and Q5_K when qh is not NULL: eight groups of 32, two share 32 bytes of qs. */
static void q45_k(float *dst, const unsigned char *b, const unsigned char *qh,
                  const unsigned char *qs)
{
    float d = half_at(b), dmin = half_at(b + 2);

    for (int j = 0; j < 8; j++) {
        int scale = 0, min = 0;

        scale_min(&scale, &min, b + 4, j);
        float s = d * (float)scale, m = dmin * (float)min;
        for (int i = 0; i < 32; i++) {
            int q = qs[j / 2 * 32 + i] >> j % 2 * 4 & 15;

            if (qh != NULL)
                q |= (qh[i] >> j & 1) << 4;
            dst[j * 32 + i] = s * (float)q - m;
        }
    }
}

static void q4_k(float *dst, const unsigned char *b)
{
    q45_k(dst, b, NULL, b + 16);
}

static void q5_k(float *dst, const unsigned char *b)
{
    q45_k(dst, b, b + 16, b + 48);
}

/* Two halves of 128; within one, element 32*k + i has its low bits in nibble k / 2 of
 * ql[32*(k%2) + i] and its high ones in the k-th pair of bits of qh[i]. */
static void q6_k(float *dst, const unsigned char *b)
{
    float d = half_at(b + 208);

    for (int e = 0; e < QK_K; e++) {
        int half = e / 128, k = e % 128 / 32, i = e % 32;
        int low = b[half * 64 + k % 2 * 32 + i] >> k / 2 * 4 & 15;
        int high = b[128 + half * 32 + i] >> k * 2 & 3;
        float s = d * (float)(int8_t)b[192 + e / 16];

        dst[e] = s * (float)((low | high << 4) - 32);
    }
}

/* Two halves of 128; element 32*k + i of one is the k-th pair of bits of qs[i]. */
static int two_bits(const unsigned char *qs, int e)
{
    return qs[e / 128 * 32 + e % 32] >> e % 128 / 32 * 2 & 3;
}

static void q2_k(float *dst, const unsigned char *b)
{
    float d = half_at(b + 80), dmin = half_at(b + 82);

    for (int e = 0; e < QK_K; e++) {
        float s = d * (float)(b[e / 16] & 15), m = dmin * (float)(b[e / 16] >> 4);

        dst[e] = s * (float)two_bits(b + 16, e) - m;
    }
}

/* The j-th of 16 six-bit scales in 12 bytes: low nibbles in the first eight. */
static int scale_q3(const unsigned char *s, int j)
{
    return (s[j % 8] >> j / 8 * 4 & 15) | (s[8 + j % 4] >> j / 4 * 2 & 3) << 4;
}

static void q3_k(float *dst, const unsigned char *b)
{
    float d = half_at(b + 108);

    for (int e = 0; e < QK_K; e++) {
        float s = d * (float)(scale_q3(b + 96, e / 16) - 32);
        int high = b[e % 32] >> e / 32 & 1; /* set: the code is not below zero */

        dst[e] = s * (float)(two_bits(b + 32, e) - (high ? 0 : 4));
    }
}

/* ---- four bits on an uneven grid ---- */

static const int8_t grid[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                1,    13,   25,  38,  53,  69,  89,  113};

static void grid_32(float *dst, float d, const unsigned char *qs)
{
    for (int i = 0; i < QK / 2; i++) {
        dst[i] = d * (float)grid[qs[i] & 15];
        dst[i + QK / 2] = d * (float)grid[qs[i] >> 4];
    }
}

static void iq4_nl(float *dst, const unsigned char *b)
{
    grid_32(dst, half_at(b), b + 2);
}

static void iq4_xs(float *dst, const unsigned char *b)
{
    float d = half_at(b);
    int high = b[2] | b[3] << 8;
    const unsigned char *qs = b + 8;

    for (int j = 0; j < 8; j++) {
        int scale = (b[4 + j / 2] >> j % 2 * 4 & 15) | (high >> j * 2 & 3) << 4;

        grid_32(dst, d * (float)(scale - 32), qs);
        dst += QK;
        qs += QK / 2;
    }
}

/* ---- the types by number ---- */

#define PLAIN(nm, size, dt)                                                                \
    {                                                                                      \
        {nm, 1, size, dt}, NULL                                                            \
    }
#define BLOCK(nm, n, size, fn)                                                             \
    {                                                                                      \
        {nm, n, size, DR_DTYPE_COUNT}, fn                                                  \
    }
#define NAMED(nm)                                                                          \
    {                                                                                      \
        {nm, 0, 0, DR_DTYPE_COUNT}, NULL                                                   \
    }

static const struct {
    gguf_block block;
    dequant_fn fn;
} types[GGUF_TENSOR_TYPES] = {
    [0] = PLAIN("F32", 4, DR_DTYPE_F32),
    [1] = PLAIN("F16", 2, DR_DTYPE_F16),
    [2] = BLOCK("Q4_0", QK, 18, q4_0),
    [3] = BLOCK("Q4_1", QK, 20, q4_1),
    [6] = BLOCK("Q5_0", QK, 22, q5_0),
    [7] = BLOCK("Q5_1", QK, 24, q5_1),
    [8] = BLOCK("Q8_0", QK, 34, q8_0),
    [9] = NAMED("Q8_1"),
    [10] = BLOCK("Q2_K", QK_K, 84, q2_k),
    [11] = BLOCK("Q3_K", QK_K, 110, q3_k),
    [12] = BLOCK("Q4_K", QK_K, 144, q4_k),
    [13] = BLOCK("Q5_K", QK_K, 176, q5_k),
    [14] = BLOCK("Q6_K", QK_K, 210, q6_k),
    [15] = NAMED("Q8_K"),
    [16] = NAMED("IQ2_XXS"),
    [17] = NAMED("IQ2_XS"),
    [18] = NAMED("IQ3_XXS"),
    [19] = NAMED("IQ1_S"),
    [20] = BLOCK("IQ4_NL", QK, 18, iq4_nl),
    [21] = NAMED("IQ3_S"),
    [22] = NAMED("IQ2_S"),
    [23] = BLOCK("IQ4_XS", QK_K, 136, iq4_xs),
    [24] = NAMED("I8"),
    [25] = NAMED("I16"),
    [26] = NAMED("I32"),
    [27] = NAMED("I64"),
    [28] = PLAIN("F64", 8, DR_DTYPE_F64),
    [29] = NAMED("IQ1_M"),
    [30] = PLAIN("BF16", 2, DR_DTYPE_BF16),
    [34] = NAMED("TQ1_0"),
    [35] = NAMED("TQ2_0"),
    [39] = NAMED("MXFP4"),
    [40] = NAMED("NVFP4"),
    [41] = NAMED("Q1_0"),
};

gguf_block gguf_block_of(int type)
{
    if (type < 0 || type >= GGUF_TENSOR_TYPES)
        return (gguf_block){0};
    return types[type].block;
}

void gguf_dequant(float *dst, const unsigned char *src, int type, size_t n)
{
    gguf_block block = gguf_block_of(type);

    DR_BUG_IF(block.block == 0 || n % (size_t)block.block != 0);
    if (types[type].fn == NULL) {
        dr_to_f32(dst, src, block.dtype, n);
        return;
    }
    for (size_t at = 0; at < n; at += (size_t)block.block) {
        types[type].fn(dst + at, src);
        src += block.bytes;
    }
}

/* ---- reading rows ---- */

/*
 * llama.cpp turns each head's rows from halves (x0 x1 .. | y0 y1 ..), which Hugging Face's
 * rotary embedding takes, into pairs (x0 y0 x1 y1 ..), which its own takes.  Row r of
 * Hugging Face is this row of the file; size is the head's rows.
 */
static size_t paired_row(size_t r, size_t size)
{
    size_t in = r % size, half = size / 2;

    return r - in + in % half * 2 + in / half;
}

/* A vector (a bias) in paired order: its elements are the rows. */
static void read_paired_vector(const hf_entry *e, float *dst)
{
    gguf_block block = gguf_block_of(e->source_type);
    size_t size = e->cols / (size_t)e->source_heads;
    const unsigned char *data = e->t.data;

    for (size_t i = 0; i < e->cols; i++)
        gguf_dequant(dst + i, data + paired_row(i, size) * (size_t)block.bytes,
                     e->source_type, 1);
}

dr_status gguf_read(const hf_model *m, const hf_entry *e, float *dst, size_t row0,
                    size_t count)
{
    gguf_block block = gguf_block_of(e->source_type);
    DR_BUG_IF(block.block == 0);
    size_t row_bytes = e->cols / (size_t)block.block * (size_t)block.bytes;
    const unsigned char *data = e->t.data;

    (void)m;
    if (e->source_heads == 0) {
        gguf_dequant(dst, data + row0 * row_bytes, e->source_type, count * e->cols);
        for (size_t i = 0; e->source_plus_one && i < count * e->cols; i++)
            dst[i] -= 1.0f;
        return DR_OK;
    }
    if (e->ndim == 1) {
        read_paired_vector(e, dst);
        return DR_OK;
    }
    size_t size = e->rows / (size_t)e->source_heads;
    for (size_t i = 0; i < count; i++)
        gguf_dequant(dst + i * e->cols, data + paired_row(row0 + i, size) * row_bytes,
                     e->source_type, e->cols);
    return DR_OK;
}
