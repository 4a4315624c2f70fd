/*
 * tile.c - sixteen rows of a weight side by side: turn, range, codes, error, bytes.
 */
#if defined(__x86_64__)
#    include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "core/square.h"
#include "quant/quant_impl.h"
#include "quant/tile_impl.h"

enum { L = QUANT_LANES };

void quant_tile_load(float *restrict tile, const float *restrict w, size_t ld, size_t rows,
                     size_t n)
{
    size_t c = 0;

    if (rows < L)
        memset(tile, 0, n * L * sizeof(*tile));
    for (; rows == L && c + 4 <= n; c += 4)
        for (size_t l = 0; l < L; l += 4)
            dr_square_turn(tile + c * L + l, L, w + l * ld + c, ld);
    for (; c < n; c++) {
        for (size_t l = 0; l < rows; l++)
            tile[c * L + l] = w[l * ld + c];
    }
}

void quant_tile_unload(float *restrict dst, size_t ld, size_t rows,
                       const float *restrict tile, size_t n)
{
    size_t whole = rows == L ? n / 4 * 4 : 0;

    for (size_t l = 0; l < L; l += 4)
        for (size_t c = 0; c < whole; c += 4)
            dr_square_turn(dst + l * ld + c, ld, tile + c * L + l, L);
    for (size_t l = 0; l < rows; l++) {
        for (size_t c = whole; c < n; c++)
            dst[l * ld + c] = tile[c * L + l];
    }
}

QUANT_CLONES
bool quant_tile_range(float *restrict lo, float *restrict hi, const float *restrict tile,
                      size_t n)
{
    float least[2 * L], most[2 * L], odd[2 * L] = {0};
    float sum = 0.0f;

    for (int l = 0; l < 2 * L; l++)
        least[l] = most[l] = tile[l % L];
    for (size_t c = 0; c + 2 <= n; c += 2) { /* of even and odd columns: two chains */
        for (int l = 0; l < 2 * L; l++) {
            float v = tile[c * L + l];
            least[l] = v < least[l] ? v : least[l];
            most[l] = v > most[l] ? v : most[l];
            odd[l] += v * 0.0f; /* NaN as soon as one value is not finite */
        }
    }
    for (int l = 0; n % 2 != 0 && l < L; l++) {
        float v = tile[(n - 1) * L + l];
        least[l] = v < least[l] ? v : least[l];
        most[l] = v > most[l] ? v : most[l];
        odd[l] += v * 0.0f;
    }
    for (int l = 0; l < L; l++) {
        lo[l] = least[L + l] < least[l] ? least[L + l] : least[l];
        hi[l] = most[L + l] > most[l] ? most[L + l] : most[l];
        sum += odd[l] + odd[L + l];
    }
    return isfinite(sum);
}

QUANT_CLONES
void quant_tile_codes(float *restrict codes, const quant_rule *rule, const quant_lanes *g,
                      const float *restrict tile, size_t n)
{
    const float top = (float)((1 << rule->bits) - 1);

    for (size_t c = 0; c < n; c++) {
        for (int l = 0; l < L; l++)
            codes[c * L + l] = nn_grid_code(tile[c * L + l], g->scale[l], g->zero[l], top);
    }
}

QUANT_CLONES
void quant_tile_values(float *values, const quant_lanes *g, const float *codes, size_t n)
{
    for (size_t c = 0; c < n; c++) {
        for (int l = 0; l < L; l++)
            values[c * L + l] = (codes[c * L + l] - g->zero[l]) * g->scale[l];
    }
}

#if defined(__x86_64__)
#    define AVX512 __attribute__((target("avx512f")))

/* Rounded, and how far that is: a half at the most. */
AVX512 QUANT_INLINE __m512 round16(__m512 *off, __m512 q)
{
    enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
    const __m512 r = _mm512_roundscale_ps(q, NEAREST);

    *off = _mm512_abs_ps(_mm512_sub_ps(q, r));
    return r;
}

/*
 * The same codes without a division for each weight: times 1 / scale a quotient below 512
 * is off by less than 2^-13, which moves no code but of a weight so near the middle of two;
 * a greater quotient is clamped.  false: a scale has no such inverse.
 */
AVX512 static bool error_avx512(float *restrict err, const quant_lanes *g, float top,
                                const float *restrict tile, size_t n)
{
    const __m512 scale = _mm512_loadu_ps(g->scale), zero = _mm512_loadu_ps(g->zero);
    const __m512 inv = _mm512_div_ps(_mm512_set1_ps(1.0f), scale);
    const __m512 near = _mm512_set1_ps(0.5f - 0x1p-12f), far = _mm512_set1_ps(65536.0f);
    const __m512 most = _mm512_set1_ps(top), none = _mm512_setzero_ps();
    const __mmask16 plain =
        _mm512_cmp_ps_mask(scale, _mm512_set1_ps(0x1p-100f), _CMP_GE_OQ) &
        _mm512_cmp_ps_mask(scale, _mm512_set1_ps(0x1p100f), _CMP_LE_OQ);

    if (plain != 0xffff)
        return false;
    for (size_t c = 0; c < n; c++) {
        const __m512 w = _mm512_loadu_ps(tile + c * L);
        __m512 off, r = round16(&off, _mm512_mul_ps(w, inv));
        if (_mm512_cmp_ps_mask(off, near, _CMP_GE_OQ) != 0)
            r = round16(&off, _mm512_div_ps(w, scale));
        r = _mm512_min_ps(_mm512_max_ps(r, _mm512_sub_ps(none, far)), far); /* NaN: -far */
        r = _mm512_min_ps(_mm512_max_ps(_mm512_add_ps(r, zero), none), most);
        r = _mm512_mul_ps(_mm512_sub_ps(r, zero), scale);
        _mm512_storeu_ps(err + c * L, _mm512_sub_ps(r, w));
    }
    return true;
}
#endif

QUANT_CLONES
static void divided_error(float *restrict err, const quant_lanes *g, float top,
                          const float *restrict tile, size_t n)
{
    for (size_t c = 0; c < n; c++) {
        for (int l = 0; l < L; l++) {
            float w = tile[c * L + l];
            float code = nn_grid_code(w, g->scale[l], g->zero[l], top);
            err[c * L + l] = (code - g->zero[l]) * g->scale[l] - w;
        }
    }
}

void quant_tile_error(float *restrict err, const quant_rule *rule, const quant_lanes *g,
                      const float *restrict tile, size_t n)
{
    const float top = (float)((1 << rule->bits) - 1);

#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && error_avx512(err, g, top, tile, n))
        return;
#endif
    divided_error(err, g, top, tile, n);
}

QUANT_CLONES
void quant_tile_clamp(float *restrict tile, const float *restrict limit, size_t n)
{
    for (size_t c = 0; c < n; c++) {
        for (int l = 0; l < L; l++) {
            float w = tile[c * L + l];
            w = w > -limit[l] ? w : -limit[l];
            tile[c * L + l] = w < limit[l] ? w : limit[l];
        }
    }
}

/* n codes of one lane into whole bytes; what is missing to `block` codes is pad. */
static void pack_lane(uint8_t *restrict dst, const float *restrict codes, size_t n,
                      size_t block, int bits, uint8_t pad)
{
    size_t per = 8 / (size_t)bits;

    for (size_t c = 0; c < block; c += per) {
        unsigned byte = 0;
        for (size_t k = 0; k < per; k++) {
            unsigned code = c + k < n ? (unsigned)(int)codes[(c + k) * L] : pad;
            byte |= code << (k * (size_t)bits);
        }
        dst[c / per] = (uint8_t)byte;
    }
}

static void pack_lane4(uint8_t *restrict dst, const float *restrict codes, size_t n)
{
    for (size_t c = 0; c < n; c += 2) {
        int low = (int)codes[c * L], high = (int)codes[(c + 1) * L];
        dst[c / 2] = (uint8_t)(low | high << 4);
    }
}

void quant_tile_pack(dr_qtensor *q, size_t row0, size_t rows, size_t b, const float *codes,
                     size_t n, const quant_lanes *g)
{
    size_t block = (size_t)q->block, block_bytes = block * (size_t)q->bits / 8;
    size_t row_bytes = dr_qtensor_row_bytes(q), blocks = dr_qtensor_blocks(q);

    for (size_t l = 0; l < rows; l++) {
        uint8_t *dst = q->codes + (row0 + l) * row_bytes + b * block_bytes;
        if (q->bits == 4 && n == block)
            pack_lane4(dst, codes + l, n);
        else
            pack_lane(dst, codes + l, n, block, q->bits, (uint8_t)(int)g->zero[l]);
        q->scales[(row0 + l) * blocks + b] = g->scale[l];
        if (q->zeros != NULL)
            dr_qtensor_set_zero(q, row0 + l, b, (int)g->zero[l]);
    }
}
