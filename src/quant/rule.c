/*
 * rule.c - grids: what is allowed, how wide a group is, and how a group's scale and zero
 * point come from its range.
 *
 * A scale that the checkpoint stores as fp16 is rounded to fp16 here, before any code is
 * computed, so that codes are made for the scale that will be read back.  A scale that
 * would round to 0 becomes the least positive half, one that would overflow the greatest.
 */
#include "core/dtype.h"
#include "quant/quant_impl.h"
#include "quant/tile_impl.h"

enum { GROUP_MIN = 16, GRAM_MAX = 128 };
static const float HALF_MIN = 0x1p-24f, HALF_MAX = 65504.0f;
static const float AWQ_RANGE_MIN = 1e-5f; /* AutoAWQ's clamp of max - min */

dr_status quant_grid_check(const quant_grid *grid)
{
    int g = grid->group_size;

    if (grid->bits < 2 || (grid->bits > 4 && grid->bits != 8))
        return dr_fail(DR_EUSAGE, "bits: expected 2, 3, 4 or 8, found %d", grid->bits);
    if (grid->bits == 3 && grid->symmetric)
        return dr_fail(DR_EUSAGE, "bits: 3 bits are stored in 4 and need zero points");
    if (g != -1 && (g < GROUP_MIN || (g & (g - 1)) != 0))
        return dr_fail(DR_EUSAGE,
                       "group_size: expected -1 or a power of two from %d up, found %d",
                       GROUP_MIN, g);
    return DR_OK;
}

dr_status quant_grid_block(size_t *block, const quant_grid *grid, size_t cols,
                           const char *what)
{
    *block = grid->group_size > 0 ? (size_t)grid->group_size : cols;
    if (cols % *block == 0 && cols * (size_t)grid->bits % 8 == 0)
        return DR_OK;
    dr_status st =
        dr_fail(DR_EUNSUPPORTED, "%s: %zu inputs do not divide into groups of %d", what,
                cols, grid->group_size);
    dr_hint("choose a smaller group size");
    return st;
}

size_t quant_gram_cols(size_t block)
{
    size_t m = GRAM_MAX;

    if (block <= GRAM_MAX)
        return block;
    while (block % m != 0)
        m /= 2;
    return m;
}

quant_rule quant_rule_of(const quant_grid *grid)
{
    return (quant_rule){.bits = grid->bits,
                        .symmetric = grid->symmetric,
                        .forced_zero = true,
                        .fp16_scales = true};
}

float quant_half_scale(float s)
{
    s = dr_f16_to_f32(dr_f32_to_f16(s < HALF_MAX ? s : HALF_MAX));
    return s > HALF_MIN ? s : HALF_MIN;
}

static float stored_scale(float s, bool fp16)
{
    return fp16 ? quant_half_scale(s) : s;
}

static float code_in(float c, float top)
{
    c = c > 0.0f ? c : 0.0f;
    return c < top ? c : top;
}

/* One lane with 0 in the range: Olive's, without its halved scale for symmetric groups that
 * have no negative weight. */
static void fit_forced(float *scale, float *zero, const quant_rule *rule, float lo,
                       float hi)
{
    const float top = (float)((1 << rule->bits) - 1);

    lo = lo < 0.0f ? lo : 0.0f;
    hi = hi > 0.0f ? hi : 0.0f;
    if (!(hi - lo > 0.0f)) { /* nothing but zeros */
        lo = -1.0f;
        hi = 1.0f;
    }
    if (rule->symmetric) {
        hi = -lo > hi ? -lo : hi;
        lo = -hi;
    }
    *scale = stored_scale((hi - lo) / top, rule->fp16_scales);
    *zero = rule->symmetric ? (float)(1 << (rule->bits - 1))
                            : code_in(lane_round(-lo / *scale), top);
}

/* One lane as AutoAWQ's pseudo_quantize_tensor; its symmetric codes from -2^(b-1) up are
 * stored with the zero point 2^(b-1). */
static void fit_awq(float *scale, float *zero, const quant_rule *rule, float lo, float hi)
{
    const float top = (float)((1 << rule->bits) - 1), mid = (float)(1 << (rule->bits - 1));
    float range = hi - lo;

    if (rule->symmetric)
        range = -lo > hi ? -lo : hi;
    range = range > AWQ_RANGE_MIN ? range : AWQ_RANGE_MIN;
    *scale = stored_scale(range / (rule->symmetric ? mid - 1.0f : top), rule->fp16_scales);
    *zero = rule->symmetric ? mid : code_in(-lane_round(lo / *scale), top);
}

void quant_rule_fit(quant_lanes *out, const quant_rule *rule, const float *lo,
                    const float *hi)
{
    for (int l = 0; l < QUANT_LANES; l++) {
        if (rule->forced_zero)
            fit_forced(&out->scale[l], &out->zero[l], rule, lo[l], hi[l]);
        else
            fit_awq(&out->scale[l], &out->zero[l], rule, lo[l], hi[l]);
    }
}
