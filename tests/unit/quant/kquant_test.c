/*
 * kquant_test.c - grids by weighted least squares against the formula in double, computed
 * another way, and against grids that are known.
 */
#include <math.h>

#include "quant_fixture.h"

enum { L = QUANT_LANES, N = 32 };

static const quant_rule plain = {4, false, true, false};
static const quant_rule balanced = {4, true, true, false};

static double loss_of(const float *tile, size_t l, double scale, double zero)
{
    double squares = 0, loss = 0;

    for (size_t i = 0; i < N; i++)
        squares += pow((double)tile[i * L + l], 2);
    for (size_t i = 0; i < N; i++) {
        double x = (double)tile[i * L + l];
        double code = fmin(fmax(rint(x / scale) + zero, 0), 15);
        double e = (code - zero) * scale - x;
        loss += (sqrt(squares / N) + fabs(x)) * e * e;
    }
    return loss;
}

/* The least loss over candidates of the closed form, by normal equations about means. */
static void line(double *scale, double *zero, const float *tile, size_t l)
{
    double lo = 1e9, hi = -1e9, best = 1e300, squares = 0, start, width;

    for (size_t i = 0; i < N; i++) {
        lo = fmin(lo, (double)tile[i * L + l]);
        hi = fmax(hi, (double)tile[i * L + l]);
        squares += pow((double)tile[i * L + l], 2);
    }
    start = lo;
    width = hi - lo;
    for (int k = -1; k < 20; k++) {
        double w_sum = 0, x_mean = 0, l_mean = 0, xl = 0, ll = 0, loss = 0, s, m, codes[N];
        double f = (k < 0 ? 15 : 14 + 0.1 * k) / width;
        for (size_t i = 0; i < N; i++) {
            double x = (double)tile[i * L + l], w = sqrt(squares / N) + fabs(x);
            codes[i] = fmin(fmax(rint(f * (x - start)), 0), 15);
            w_sum += w;
            x_mean += w * x;
            l_mean += w * codes[i];
        }
        x_mean /= w_sum;
        l_mean /= w_sum;
        for (size_t i = 0; i < N; i++) {
            double x = (double)tile[i * L + l], w = sqrt(squares / N) + fabs(x);
            xl += w * (x - x_mean) * (codes[i] - l_mean);
            ll += w * pow(codes[i] - l_mean, 2);
        }
        s = k < 0 ? width / 15 : xl / ll;
        m = k < 0 ? lo : x_mean - s * l_mean;
        for (size_t i = 0; i < N; i++) {
            double x = (double)tile[i * L + l], w = sqrt(squares / N) + fabs(x);
            loss += w * pow(s * codes[i] + m - x, 2);
        }
        if (loss < best) {
            best = loss;
            *scale = s;
            start = m;
        }
    }
    *zero = fmin(fmax(rint(-start / *scale), 0), 15);
}

static void choose(quant_lanes *g, const quant_rule *rule, const float *tile)
{
    float lo[L], hi[L], scratch[QUANT_CHOOSER_TILES * N * L];

    CHECK(quant_tile_range(lo, hi, tile, N));
    quant_rule_fit(g, rule, lo, hi);
    quant_choose_kquant(g, rule, tile, N, scratch);
}

static void second_way(void)
{
    float *tile = fix_normal(N * L, 40, 0.05f), lo[L], hi[L];
    quant_lanes g = {{0}, {0}}, range = {{0}, {0}};

    choose(&g, &plain, tile);
    CHECK(quant_tile_range(lo, hi, tile, N));
    quant_rule_fit(&range, &plain, lo, hi);
    for (size_t l = 0; l < L; l++) {
        double s = 0, z = 0;
        double by_range = loss_of(tile, l, (double)range.scale[l], (double)range.zero[l]);
        line(&s, &z, tile, l);
        double least = fmin(loss_of(tile, l, s, z), by_range);
        double found = loss_of(tile, l, (double)g.scale[l], (double)g.zero[l]);
        CHECK_NEAR(found / least, 1, 1e-3);
        CHECK(found <= by_range);
    }
    free(tile);
}

/* Weights on a grid that min and max do not give: the grid is found. */
static void known_grids(void)
{
    float tile[N * L];
    quant_lanes g = {{0}, {0}};

    for (size_t i = 0; i < N; i++) {
        for (size_t l = 0; l < L; l++)
            tile[i * L + l] = 0.01f * (float)(l + 1) * ((float)(i * 7 % 16) - 6.0f);
    }
    choose(&g, &plain, tile);
    for (size_t l = 0; l < L; l++) {
        CHECK_NEAR((double)g.scale[l] / (0.01 * (double)(l + 1)), 1, 1e-5);
        CHECK_NEAR(g.zero[l], 6, 0);
    }
    for (size_t i = 0; i < N; i++) { /* codes -8 .. 7 about the middle one */
        for (size_t l = 0; l < L; l++)
            tile[i * L + l] = 0.01f * (float)(l + 1) * ((float)(i * 7 % 16) - 8.0f);
    }
    choose(&g, &balanced, tile);
    for (size_t l = 0; l < L; l++) {
        CHECK_NEAR((double)g.scale[l] / (0.01 * (double)(l + 1)), 1, 1e-5);
        CHECK_NEAR(g.zero[l], 8, 0);
    }
}

/* All equal, all zero, one sign: the grid of min and max holds them. */
static void odd_groups(void)
{
    float tile[N * L];
    quant_lanes g = {{0}, {0}};

    for (size_t i = 0; i < N; i++) {
        for (size_t l = 0; l < L; l++)
            tile[i * L + l] = l == 0 ? 0.0f : l == 1 ? 0.3f : 1.0f + 0.001f * (float)i;
    }
    for (int k = 0; k < 2; k++) {
        choose(&g, k == 0 ? &plain : &balanced, tile);
        for (size_t l = 0; l < 3; l++) {
            CHECK(g.scale[l] > 0 && isfinite(g.scale[l]));
            CHECK(loss_of(tile, l, (double)g.scale[l], (double)g.zero[l]) < 1);
        }
    }
}

int main(void)
{
    second_way();
    known_grids();
    odd_groups();
    return check_done();
}
