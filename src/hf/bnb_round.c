/*
 * bnb_round.c - weights rounded to bitsandbytes' 4 bits.
 *
 * A block's scale is its largest magnitude; a weight over that goes to the nearest of 16
 * numbers, of two as near ones to the lower (fp4: to the one nearer to zero).  nf4's are
 * quantiles of the normal distribution (Dettmers et al. 2023), fp4's a float of one sign,
 * two exponent and one mantissa bits over its largest value.  With nested scales their mean
 * is taken off, and the rest goes in blocks of 256 to 256 numbers, which are closer where
 * they are smaller.  As bitsandbytes' kernels have it, weights are multiplied by a scale's
 * reciprocal in float.
 *
 * Sources of the numbers: bitsandbytes.functional, get_4bit_type and create_dynamic_map.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "hf/bnb_impl.h"

static const float nf4[HF_BNB_LEVELS] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

/* By code: the sign is the highest bit. */
static const float fp4[HF_BNB_LEVELS] = {
    0.0f,  0.0625f / 12,  8.0f / 12,  1.0f,  4.0f / 12,  0.5f,  2.0f / 12,  0.25f,
    -0.0f, -0.0625f / 12, -8.0f / 12, -1.0f, -4.0f / 12, -0.5f, -2.0f / 12, -0.25f};
static const unsigned char fp4_rising[HF_BNB_LEVELS / 2] = {0, 1, 6, 7, 4, 5, 2, 3};

const float *hf_bnb_levels(const hf_bnb *g)
{
    return g->fp4 ? fp4 : nf4;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

void hf_bnb_nested_levels(float out[HF_BNB_NESTED])
{
    size_t n = 0;

    out[n++] = 0.0f;
    out[n++] = 1.0f;
    for (int i = 0; i < 7; i++) {
        double size = pow(10, i - 6);
        int steps = 1 << i;
        for (int k = 0; k < steps; k++) {
            double middle = 0.1 + 0.9 * (2 * k + 1) / (2 * steps);
            out[n++] = (float)(size * middle);
            out[n++] = (float)(-size * middle);
        }
    }
    qsort(out, HF_BNB_NESTED, sizeof(*out), by_value);
}

/* The nearest of count rising numbers; of two the lower. */
static size_t nearest(const float *levels, size_t count, float x)
{
    size_t low = 0, high = count - 1;

    while (low < high) {
        size_t at = (low + high) / 2;
        if ((double)x > ((double)levels[at] + (double)levels[at + 1]) / 2)
            low = at + 1;
        else
            high = at;
    }
    return low;
}

static unsigned char code_of(const hf_bnb *g, float x)
{
    float rising[HF_BNB_LEVELS / 2];

    if (!g->fp4)
        return (unsigned char)nearest(nf4, HF_BNB_LEVELS, x);
    for (size_t i = 0; i < DR_COUNT(rising); i++)
        rising[i] = fp4[fp4_rising[i]];
    size_t at = nearest(rising, DR_COUNT(rising), fabsf(x));
    return (unsigned char)(fp4_rising[at] | (x < 0 ? 8 : 0));
}

static float largest(const float *w, size_t n)
{
    float most = 0;

    for (size_t i = 0; i < n; i++)
        most = fabsf(w[i]) > most ? fabsf(w[i]) : most;
    return most;
}

static float reciprocal(float v)
{
    return v > 0 ? 1.0f / v : 0.0f;
}

/* Scales in absmax become what they are read back as. */
static void nest(hf_bnb_packed *p)
{
    size_t n = p->blocks;
    float levels[HF_BNB_NESTED];
    double sum = 0;

    hf_bnb_nested_levels(levels);
    for (size_t i = 0; i < n; i++)
        sum += (double)p->absmax[i];
    p->offset = (float)(sum / (double)n);
    for (size_t b = 0; b * HF_BNB_NESTED < n; b++) {
        size_t from = b * HF_BNB_NESTED, end = from + HF_BNB_NESTED;
        end = end < n ? end : n;
        for (size_t i = from; i < end; i++)
            p->absmax[i] -= p->offset;
        float most = largest(p->absmax + from, end - from), over = reciprocal(most);
        p->nested_absmax[b] = most;
        for (size_t i = from; i < end; i++) {
            p->absmax8[i] =
                (unsigned char)nearest(levels, HF_BNB_NESTED, p->absmax[i] * over);
            p->absmax[i] = levels[p->absmax8[i]] * most + p->offset;
        }
    }
}

static size_t block_end(size_t b, size_t count)
{
    return (b + 1) * HF_BNB_BLOCK < count ? (b + 1) * HF_BNB_BLOCK : count;
}

void hf_bnb_pack(hf_bnb_packed *p, const float *w, size_t count, const hf_bnb *g)
{
    *p = (hf_bnb_packed){.blocks = (count + HF_BNB_BLOCK - 1) / HF_BNB_BLOCK};
    size_t nested = (p->blocks + HF_BNB_NESTED - 1) / HF_BNB_NESTED;

    p->codes = dr_calloc((count + 1) / 2, 1);
    p->absmax = dr_calloc(p->blocks, sizeof(float));
    p->absmax8 = dr_calloc(p->blocks, 1);
    p->nested_absmax = dr_calloc(nested, sizeof(float));
    for (size_t b = 0; b < p->blocks; b++) {
        size_t from = b * HF_BNB_BLOCK, end = block_end(b, count);
        float most = largest(w + from, end - from), over = reciprocal(most);
        p->absmax[b] = most;
        for (size_t i = from; i < end; i++) {
            unsigned code = code_of(g, w[i] * over);
            p->codes[i / 2] |= (unsigned char)(code << (i % 2 ? 0 : 4));
        }
    }
    if (g->nested)
        nest(p);
}

void hf_bnb_packed_release(hf_bnb_packed *p)
{
    free(p->codes);
    free(p->absmax);
    free(p->absmax8);
    free(p->nested_absmax);
}

void hf_bnb_round(float *w, size_t count, const hf_bnb *g)
{
    const float *levels = hf_bnb_levels(g);
    hf_bnb_packed p;

    hf_bnb_pack(&p, w, count, g);
    for (size_t i = 0; i < count; i++)
        w[i] = levels[p.codes[i / 2] >> (i % 2 ? 0 : 4) & 15] * p.absmax[i / HF_BNB_BLOCK];
    hf_bnb_packed_release(&p);
}
