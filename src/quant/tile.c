/*
 * tile.c - sixteen rows of a weight side by side: turn, range, codes, error, bytes.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "quant/quant_impl.h"
#include "quant/tile_impl.h"

enum { L = QUANT_LANES };

void quant_tile_load(float *restrict tile, const float *restrict w, size_t ld, size_t rows,
                     size_t n)
{
    if (rows < L)
        memset(tile, 0, n * L * sizeof(*tile));
    for (size_t c = 0; c < n; c++) {
        for (size_t l = 0; l < rows; l++)
            tile[c * L + l] = w[l * ld + c];
    }
}

void quant_tile_unload(float *restrict dst, size_t ld, size_t rows,
                       const float *restrict tile, size_t n)
{
    for (size_t l = 0; l < rows; l++) {
        for (size_t c = 0; c < n; c++)
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

QUANT_CLONES
void quant_tile_error(float *restrict err, const quant_rule *rule, const quant_lanes *g,
                      const float *restrict tile, size_t n)
{
    const float top = (float)((1 << rule->bits) - 1);

    for (size_t c = 0; c < n; c++) {
        for (int l = 0; l < L; l++) {
            float w = tile[c * L + l];
            float code = nn_grid_code(w, g->scale[l], g->zero[l], top);
            err[c * L + l] = (code - g->zero[l]) * g->scale[l] - w;
        }
    }
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
