/*
 * shrink.c - the grid of one group that loses least, found among shrunken ranges.
 *
 * A group's range is set by its two extreme weights; giving them up makes every other
 * weight's step finer.  What a step costs is judged by e^T G e, the group's share of the
 * output error, with G the Gram matrix of the group's inputs: the sum over tokens that
 * AutoAWQ's clip search forms is this number, computed without the tokens.
 *
 * Cost: candidates x n^2/2 multiply-adds a row.
 */
#include <float.h>
#include <string.h>

#include "quant/quant_impl.h"
#include "quant/tile_impl.h"

enum { L = QUANT_LANES };

/* The sum of e^T G e over the diagonal blocks of m columns. */
static void block_quad(float *loss, const float *e, const float *gram, size_t m, size_t n)
{
    memset(loss, 0, L * sizeof(*loss));
    for (size_t c = 0; c < n; c += m)
        quant_tile_quad(loss, e + c * L, gram + c * m, m, m);
}

QUANT_CLONES
static void clamped_error(float *restrict err, const float *restrict limit,
                          const quant_rule *rule, const quant_lanes *g,
                          const float *restrict tile, size_t n)
{
    const float top = (float)((1 << rule->bits) - 1);

    for (size_t c = 0; c < n; c++) {
        for (int l = 0; l < L; l++) {
            float w = tile[c * L + l], v = w > -limit[l] ? w : -limit[l];
            v = v < limit[l] ? v : limit[l];
            float code = nn_grid_code(v, g->scale[l], g->zero[l], top);
            err[c * L + l] = (code - g->zero[l]) * g->scale[l] - w;
        }
    }
}

void quant_shrink_search(quant_lanes *best, float *limit, const quant_rule *rule,
                         const quant_shrink *shrink, const float *tile, size_t n,
                         const float *gram, size_t m, float *scratch)
{
    float lo[L], hi[L], lo_i[L], hi_i[L], limit_i[L], loss[L], least[L];
    quant_lanes g = {{0}, {0}};

    (void)quant_tile_range(lo, hi, tile, n);
    for (int l = 0; l < L; l++)
        least[l] = FLT_MAX;
    for (int i = 0; i < shrink->count; i++) {
        for (int l = 0; l < L; l++)
            limit_i[l] = nn_grid_shrunken(&lo_i[l], &hi_i[l], shrink, i, lo[l], hi[l]);
        quant_rule_fit(&g, rule, lo_i, hi_i);
        if (shrink->kind == NN_SHRINK_CLIP)
            clamped_error(scratch, limit_i, rule, &g, tile, n);
        else
            quant_tile_error(scratch, rule, &g, tile, n);
        block_quad(loss, scratch, gram, m, n);
        for (int l = 0; l < L; l++) {
            if (i > 0 && !(loss[l] < least[l]))
                continue;
            least[l] = loss[l];
            best->scale[l] = g.scale[l];
            best->zero[l] = g.zero[l];
            if (limit != NULL)
                limit[l] = limit_i[l];
        }
    }
}
