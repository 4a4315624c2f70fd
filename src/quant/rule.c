/*
 * rule.c - grids: what is allowed, how wide a group is, and sixteen groups' scales and zero
 * points at once (nn_grid.h has the arithmetic).
 */
#include "quant/quant_impl.h"

enum { GROUP_MIN = 16, GRAM_MAX = 128 };

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

void quant_rule_fit(quant_lanes *out, const quant_rule *rule, const float *lo,
                    const float *hi)
{
    for (int l = 0; l < QUANT_LANES; l++)
        nn_grid_fit(&out->scale[l], &out->zero[l], rule, lo[l], hi[l]);
}
