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

enum { PAIR = 2 }; /* candidates at once */

/* loss[count][L] = the sum of e^T G e over the diagonal blocks of m columns, of each of
 * e[count][n][L]. */
static void block_quads(float *loss, const float *e, size_t count, const float *gram,
                        size_t m, size_t n)
{
    memset(loss, 0, PAIR * L * sizeof(*loss));
    for (size_t c = 0; c < n; c += m) {
        const float *at = e + c * L, *g = gram + c * m;
        if (count == PAIR)
            quant_tile_quad_pair(loss, at, at + n * L, g, m, m);
        else
            quant_tile_quad(loss, at, g, m, m);
    }
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
    float lo[L], hi[L], lo_i[L], hi_i[L], limits[PAIR * L], loss[PAIR * L], least[L];
    quant_lanes g[PAIR] = {{{0}, {0}}};

    (void)quant_tile_range(lo, hi, tile, n);
    for (int l = 0; l < L; l++)
        least[l] = FLT_MAX;
    for (int i = 0; i < shrink->count; i += PAIR) {
        int count = shrink->count - i < PAIR ? shrink->count - i : PAIR;
        for (int k = 0; k < count; k++) {
            float *limit_k = limits + k * L, *err = scratch + (size_t)k * n * L;
            for (int l = 0; l < L; l++)
                limit_k[l] =
                    nn_grid_shrunken(&lo_i[l], &hi_i[l], shrink, i + k, lo[l], hi[l]);
            quant_rule_fit(&g[k], rule, lo_i, hi_i);
            if (shrink->kind == NN_SHRINK_CLIP)
                clamped_error(err, limit_k, rule, &g[k], tile, n);
            else
                quant_tile_error(err, rule, &g[k], tile, n);
        }
        block_quads(loss, scratch, (size_t)count, gram, m, n);
        for (int at = 0; at < count * L; at++) {
            const int k = at / L, l = at % L;
            if (i + k > 0 && !(loss[at] < least[l]))
                continue;
            least[l] = loss[at];
            best->scale[l] = g[k].scale[l];
            best->zero[l] = g[k].zero[l];
            if (limit != NULL)
                limit[l] = limits[at];
        }
    }
}
