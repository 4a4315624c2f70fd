/*
 * autoclip_test.c - clipping of weights against all pairs of ends tried with sums over
 * tokens, in the oracle's own arithmetic.
 */
#include "quant_fixture.h"

enum { ROWS = 20, COLS = 64, BLOCK = 32, TOKENS = 60, STEPS = 5, GRID = 10 };

/* Squared error of a group's outputs over all tokens, for weights clamped to lo..hi. */
static double cost(const float *w, const float *x, float lo, float hi)
{
    double q[BLOCK], least = 0, most = 0, sum = 0;

    for (int i = 0; i < BLOCK; i++) {
        double v = (double)fminf(fmaxf(w[i], lo), hi);
        least = fmin(least, v);
        most = fmax(most, v);
    }
    double s = (double)dr_f16_to_f32(dr_f32_to_f16((float)((most - least) / 15)));
    double zero = nearbyint(-least / s);
    for (int i = 0; i < BLOCK; i++) {
        double v = (double)fminf(fmaxf(w[i], lo), hi);
        double code = fmin(fmax(nearbyint(v / s) + zero, 0), 15);
        q[i] = (code - zero) * s - (double)w[i];
    }
    for (int t = 0; t < TOKENS; t++) {
        double y = 0;
        for (int i = 0; i < BLOCK; i++)
            y += q[i] * (double)x[t * COLS + i];
        sum += y * y;
    }
    return sum;
}

int main(void)
{
    const quant_grid grid = {4, BLOCK, false};
    const quant_rule rule = quant_rule_of(&grid);
    const quant_clip_options o = {GRID, 0.5};
    float *x = fix_inputs(TOKENS, COLS, 3), *grams = NULL;
    float *w = fix_normal((size_t)ROWS * COLS, 4, 0.2f);
    float *clipped = dr_calloc((size_t)ROWS * COLS, sizeof(*w));
    int moved = 0;
    nn_device *dev = NULL;

    for (int i = 0; i < ROWS * COLS; i += 37)
        w[i] *= 3; /* ends that are worth clipping */
    CHECK_OK(nn_device_open(&dev, "cpu", 2));
    CHECK_OK(quant_floats(&grams, COLS, BLOCK, "blocks"));
    CHECK_OK(quant_gram_blocks_add(dev, grams, x, TOKENS, COLS, BLOCK, true));
    memcpy(clipped, w, (size_t)ROWS * COLS * sizeof(*w));
    CHECK_OK(quant_clip_weight(dev, clipped, grams, ROWS, COLS, BLOCK, &rule, &o));
    for (int g = 0; g < ROWS * COLS; g += BLOCK) {
        const float *from = w + g, *in = x + g % COLS;
        float lo = from[0], hi = from[0], got_lo = clipped[g], got_hi = clipped[g];
        double best = INFINITY;
        for (int i = 0; i < BLOCK; i++) {
            lo = fminf(lo, from[i]);
            hi = fmaxf(hi, from[i]);
            got_lo = fminf(got_lo, clipped[g + i]);
            got_hi = fmaxf(got_hi, clipped[g + i]);
        }
        for (int i = 0; i < STEPS * STEPS; i++)
            best = fmin(best, cost(from, in, lo * (1 - (float)(i % STEPS) / GRID),
                                   hi * (1 - (float)(i / STEPS) / GRID)));
        CHECK_NEAR(cost(from, in, got_lo, got_hi) / best, 1, 1e-3);
        for (int i = 0; i < BLOCK; i++)
            CHECK(clipped[g + i] == fminf(fmaxf(from[i], got_lo), got_hi));
        moved += got_lo != lo || got_hi != hi;
    }
    CHECK(moved > 10);
    nn_device_close(dev);
    dr_big_free(grams);
    free(x);
    free(w);
    free(clipped);
    return check_done();
}
