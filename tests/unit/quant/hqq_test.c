/*
 * hqq_test.c - half-quadratic grids: between the least that an exhaustive search finds and
 * what min and max give.
 */
#include <math.h>

#include "quant_fixture.h"

enum { L = QUANT_LANES, N = 32 };

static const quant_rule plain = {4, false, true, false};
static const quant_rule balanced = {4, true, true, false};

static double loss_of(const float *tile, size_t l, double scale, double zero)
{
    double loss = 0;

    for (size_t i = 0; i < N; i++) {
        double x = (double)tile[i * L + l];
        double code = fmin(fmax(rint(x / scale) + zero, 0), 15);
        loss += pow(fabs((code - zero) * scale - x), 0.7);
    }
    return loss;
}

static double exhaustive(const float *tile, size_t l, double scale)
{
    double least = 1e300;

    for (int z = 0; z < 16; z++) {
        for (int k = 0; k <= 600; k++)
            least = fmin(least, loss_of(tile, l, scale * (0.6 + 0.001 * k), z));
    }
    return least;
}

static void between(const quant_rule *rule)
{
    float *tile = fix_normal(N * L, 50, 0.05f), lo[L], hi[L];
    float scratch[QUANT_CHOOSER_TILES * N * L];
    quant_lanes g = {{0}, {0}}, range = {{0}, {0}};
    double sum = 0, by_range = 0, by_search = 0;

    CHECK(quant_tile_range(lo, hi, tile, N));
    quant_rule_fit(&range, rule, lo, hi);
    g = range;
    quant_choose_hqq(&g, rule, tile, N, scratch);
    for (size_t l = 0; l < L; l++) {
        double first = loss_of(tile, l, (double)range.scale[l], (double)range.zero[l]);
        double found = loss_of(tile, l, (double)g.scale[l], (double)g.zero[l]);
        double least = exhaustive(tile, l, (double)range.scale[l]);
        CHECK(found <= first * (1 + 1e-6));
        CHECK(found >= least * 0.98 || rule->symmetric);
        CHECK_NEAR(g.zero[l], rintf(g.zero[l]), 0);
        CHECK(!rule->symmetric || g.zero[l] == 8.0f);
        sum += found;
        by_range += first;
        by_search += least;
    }
    (void)printf("sum |e|^.7: min and max %.4f, hqq %.4f, exhaustive %.4f\n", by_range, sum,
                 by_search);
    CHECK(sum < 0.995 * by_range);
    free(tile);
}

/* On the grid already: nothing moves. */
static void fixed_point(void)
{
    float tile[N * L], lo[L], hi[L], scratch[QUANT_CHOOSER_TILES * N * L];
    quant_lanes g = {{0}, {0}};

    for (size_t i = 0; i < N; i++) {
        for (size_t l = 0; l < L; l++)
            tile[i * L + l] = 0.25f * (float)(l + 1) * ((float)(i * 7 % 16) - 6.0f);
    }
    CHECK(quant_tile_range(lo, hi, tile, N));
    quant_rule_fit(&g, &plain, lo, hi);
    quant_choose_hqq(&g, &plain, tile, N, scratch);
    for (size_t l = 0; l < L; l++) {
        CHECK_NEAR(g.scale[l], 0.25 * (double)(l + 1), 1e-6);
        CHECK_NEAR(g.zero[l], 6, 0);
    }
}

int main(void)
{
    between(&plain);
    between(&balanced);
    fixed_point();
    return check_done();
}
