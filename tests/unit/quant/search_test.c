/*
 * search_test.c - quadratic forms, clip and scale searches against plain second versions
 * that look at tokens, in double.
 */
#include "quant/awq_impl.h"
#include "quant_fixture.h"

enum { L = QUANT_LANES };

/* ---- quadratic forms ---- */

static void quads(void)
{
    static const size_t sizes[] = {1, 3, 16, 30, 64, 128};

    for (size_t k = 0; k < DR_COUNT(sizes); k++) {
        size_t n = sizes[k];
        float *x = fix_inputs(3 * n, n, 5), *g = fix_gram(x, 3 * n, n);
        float *e = fix_normal(2 * n * L, 6, 1.0f), loss[2 * L] = {0}, pair[2 * L] = {0};
        quant_tile_quad(loss, e, g, n, n);
        quant_tile_quad(loss + L, e + n * L, g, n, n);
        quant_tile_quad_pair(pair, e, e + n * L, g, n, n);
        CHECK(memcmp(pair, loss, sizeof(pair)) == 0);
        for (int l = 0; l < L; l++) {
            double sum = 0;
            for (size_t i = 0; i < n; i++) {
                for (size_t j = 0; j < n; j++)
                    sum +=
                        (double)e[i * L + l] * (double)g[i * n + j] * (double)e[j * L + l];
            }
            CHECK_NEAR((double)loss[l] / sum, 1, 2e-5);
        }
        free(x);
        free(g);
        free(e);
    }
}

/* ---- errors of a grid ---- */

/* Weights in the middle of two codes and beside it, far out, infinite, and what is no
 * number, on scales of any size: the bytes of the definition (nn_grid.h). */
static void errors(void)
{
    enum { N = 640 };
    static const float scales[] = {1.0f,   0.1f,     3.3f,  1e-3f, 0.017f,   5e-39f,
                                   1e-33f, 0x1p100f, 2e37f, 0.0f,  0.33333f, INFINITY};
    float *w = fix_normal(N * L, 9, 3.0f), err[N * L];
    size_t wrong = 0;

    for (size_t k = 0; k < DR_COUNT(scales); k++) {
        for (int bits = 2; bits <= 8; bits *= 2) {
            const quant_rule rule = {.bits = bits};
            quant_lanes g = {{0}, {0}};
            for (size_t l = 0; l < L; l++) {
                g.scale[l] = k == 0 && l % 2 ? 0.75f : scales[k];
                g.zero[l] = (float)(l % (1u << bits));
            }
            for (size_t i = 0; i < N * L; i++) {
                float middle = (float)(i % 41) - 20.5f, s = g.scale[i % L];
                if (i % 3 == 0)
                    w[i] = middle * s;
                else if (i % 3 == 1)
                    w[i] = nextafterf(middle * s, i % 2 ? INFINITY : -INFINITY);
            }
            w[2] = INFINITY;
            w[5] = -INFINITY;
            w[8] = NAN;
            w[11] = 1e38f;
            w[14] = 0.0f;
            quant_tile_error(err, &rule, &g, w, N);
            for (size_t i = 0; i < N * L; i++) {
                float s = g.scale[i % L], z = g.zero[i % L];
                float e = (nn_grid_code(w[i], s, z, nn_grid_top(bits)) - z) * s - w[i];
                wrong +=
                    memcmp(&e, &err[i], sizeof(e)) != 0 && !(isnan(e) && isnan(err[i]));
            }
        }
    }
    CHECK_EQ_INT(wrong, 0);
    free(w);
}

/* Rows turned into lanes and back, of any length. */
static void turned(void)
{
    enum { LD = 70 };
    float *w = fix_normal(L * LD, 3, 1.0f), tile[LD * L], back[L * LD];

    for (size_t rows = 1; rows <= L; rows += 5) {
        for (size_t n = 1; n <= LD; n += 3) {
            memset(tile, 0xff, sizeof(tile));
            memset(back, 0, sizeof(back));
            quant_tile_load(tile, w, LD, rows, n);
            for (size_t c = 0; c < n; c++)
                for (size_t l = 0; l < L; l++)
                    CHECK_NEAR(tile[c * L + l], l < rows ? w[l * LD + c] : 0.0f, 0);
            quant_tile_unload(back, LD, rows, tile, n);
            for (size_t l = 0; l < L; l++)
                for (size_t c = 0; c < LD; c++)
                    CHECK_NEAR(back[l * LD + c], l < rows && c < n ? w[l * LD + c] : 0.0f,
                               0);
        }
    }
    free(w);
}

/* ---- rounding one group, scalar and in double but for what must be float ---- */

typedef struct {
    int bits;
    bool forced_zero, symmetric, half;
} plain_rule;

static float plain_round(float w, float scale, float zero, int bits)
{
    float top = (float)((1 << bits) - 1), c = rintf(w / scale) + zero;

    c = c < 0 ? 0 : (c > top ? top : c);
    return (c - zero) * scale;
}

static void plain_fit(float *scale, float *zero, const plain_rule *r, const float *w,
                      size_t n)
{
    float lo = w[0], hi = w[0], top = (float)((1 << r->bits) - 1);

    for (size_t i = 1; i < n; i++) {
        lo = fminf(lo, w[i]);
        hi = fmaxf(hi, w[i]);
    }
    if (r->forced_zero) {
        lo = fminf(lo, 0);
        hi = fmaxf(hi, 0);
    }
    if (r->symmetric) { /* AutoAWQ's only */
        *scale = fmaxf(fmaxf(-lo, hi), 1e-5f) / (float)((1 << (r->bits - 1)) - 1);
        *zero = (float)(1 << (r->bits - 1));
        return;
    }
    *scale = (r->forced_zero ? hi - lo : fmaxf(hi - lo, 1e-5f)) / top;
    if (r->half)
        *scale = dr_f16_to_f32(dr_f32_to_f16(*scale));
    *zero = fminf(top, fmaxf(0, rintf(-lo / *scale)));
}

/* sum over tokens of (x . (q - w))^2. */
static double token_loss(const float *x, size_t m, size_t ld, const float *q,
                         const float *w, size_t n)
{
    double sum = 0;

    for (size_t t = 0; t < m; t++) {
        double dot = 0;
        for (size_t c = 0; c < n; c++)
            dot += (double)x[t * ld + c] * ((double)q[c] - (double)w[c]);
        sum += dot * dot;
    }
    return sum;
}

/* ---- clip search ---- */

static void plain_clip(float *limit, double *cost, const plain_rule *r, const float *x,
                       size_t m, size_t ld, const float *w, size_t n)
{
    float most = 0, scale, zero, *c = dr_calloc(n, sizeof(*c)),
          *q = dr_calloc(n, sizeof(*q));

    for (size_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(w[i]));
    for (int k = 0; k < 10; k++) {
        float at = most * (float)(1.0 - k / 20.0);
        for (size_t i = 0; i < n; i++)
            c[i] = fminf(fmaxf(w[i], -at), at);
        plain_fit(&scale, &zero, r, c, n);
        for (size_t i = 0; i < n; i++)
            q[i] = plain_round(c[i], scale, zero, r->bits);
        double loss = token_loss(x, m, ld, q, w, n);
        if (k == 0 || loss < *cost) {
            *cost = loss;
            *limit = at;
        }
    }
    free(c);
    free(q);
}

static void clips(nn_device *dev, const plain_rule *r, const quant_rule *rule)
{
    enum { ROWS = 40, COLS = 192, BLOCK = 64, M = 300 };
    float *x = fix_inputs(M, COLS, 20), *w = fix_normal((size_t)ROWS * COLS, 24, 0.1f);
    float *ones = dr_calloc(COLS, sizeof(*ones)),
          *grams = dr_calloc(COLS, BLOCK * sizeof(*grams));
    float limits[ROWS * COLS / BLOCK] = {0};
    dr_qtensor q = {0};
    size_t differ = 0;

    for (size_t i = 0; i < COLS; i++)
        ones[i] = 1.0f;
    CHECK_OK(quant_gram_blocks_add(dev, grams, x, M, COLS, BLOCK, true));
    CHECK_OK(dr_qtensor_new(&q, rule->bits, BLOCK, ROWS, COLS, rule->symmetric));
    awq_rounding job = {.q = &q,
                        .w = w,
                        .scale = ones,
                        .grams = grams,
                        .search = *rule,
                        .final = *rule,
                        .exact = true,
                        .limits = limits};
    CHECK_OK(awq_round_rows(dev, &job, 0, 7));
    CHECK_OK(awq_round_rows(dev, &job, 7, ROWS - 7));
    for (size_t i = 0; i < DR_COUNT(limits); i++) {
        size_t row = i / (COLS / BLOCK), c0 = i % (COLS / BLOCK) * BLOCK;
        float limit = 0;
        double cost = 0;
        plain_clip(&limit, &cost, r, x + c0, M, COLS, w + row * COLS + c0, BLOCK);
        differ += fabsf(limit - limits[i]) > 1e-6f * limit;
    }
    CHECK(differ <= 1); /* a tie of two costs */
    dr_qtensor_release(&q);
    free(x);
    free(w);
    free(ones);
    free(grams);
}

/* ---- ratio search ---- */

/* One row's group: w * s rounded, back by 1 / s. */
static void plain_fake(float *q, const plain_rule *r, const float *w, const float *s,
                       size_t n)
{
    float scale, zero, *v = dr_calloc(n, sizeof(*v));

    for (size_t i = 0; i < n; i++)
        v[i] = w[i] * s[i];
    plain_fit(&scale, &zero, r, v, n);
    for (size_t i = 0; i < n; i++)
        q[i] = plain_round(v[i], scale, zero, r->bits) / s[i];
    free(v);
}

static void plain_scales(float *s, const float *x, size_t m, const float *w, size_t rows,
                         size_t k, size_t block, double ratio, bool duo)
{
    double most = 0, least = 1e30;

    for (size_t c = 0; c < k; c++) {
        double xm = 0, wm = 0;
        for (size_t t = 0; t < m; t++)
            xm += fabs((double)x[t * k + c]) / (double)m;
        for (size_t r = 0; r < rows; r++) {
            double top = 0;
            for (size_t i = c / block * block; i < (c / block + 1) * block; i++)
                top = fmax(top, fabs((double)w[r * k + i]));
            wm += fabs((double)w[r * k + c]) / (top + 1e-6) / (double)rows;
        }
        double v = pow(xm, ratio) / (duo ? pow(wm, 1 - ratio) + 1e-4 : 1.0);
        v = fmax(v, 1e-4);
        most = fmax(most, v);
        least = fmin(least, v);
        s[c] = (float)v;
    }
    for (size_t c = 0; c < k; c++)
        s[c] = (float)((double)s[c] / sqrt(most * least));
}

static void ratios(nn_device *dev, bool duo)
{
    enum { ROWS = 36, COLS = 128, BLOCK = 32, M = 200, COUNT = 5 };
    const plain_rule r = {4, true, false, true};
    const quant_rule rule = {.bits = 4, .forced_zero = true, .fp16_scales = true};
    float *x = fix_inputs(M, COLS, 30), *w = fix_normal((size_t)ROWS * COLS, 34, 0.1f);
    float *fake = dr_calloc((size_t)ROWS * COLS, sizeof(*fake));
    float *grams = dr_calloc(COLS, BLOCK * sizeof(*grams));
    float w_mean[COLS], x_mean[COLS] = {0}, scales[COUNT * COLS], plain[COLS], q[BLOCK];
    double loss[COUNT], want[COUNT] = {0};
    bool wanted[COUNT] = {true, true, true, true, true};

    for (size_t c = 0; c < COLS; c++) {
        for (size_t t = 0; t < M; t++)
            x_mean[c] += fabsf(x[t * COLS + c]) / M;
    }
    CHECK_OK(awq_weight_mean(dev, w_mean, w, ROWS, COLS, BLOCK));
    CHECK_OK(quant_gram_blocks_add(dev, grams, x, M, COLS, BLOCK, true));
    for (size_t i = 0; i < COUNT; i++) {
        float *s = scales + i * COLS;
        awq_ratio_scales(s, x_mean, w_mean, COLS, (double)i / COUNT, duo);
        plain_scales(plain, x, M, w, ROWS, COLS, BLOCK, (double)i / COUNT, duo);
        for (size_t c = 0; c < COLS; c++)
            CHECK_NEAR(s[c] / plain[c], 1, 1e-4);
        CHECK_OK(awq_fake_quantize(dev, fake, w, ROWS, COLS, BLOCK, &rule, s));
        for (size_t k = 0; k < (size_t)ROWS * COLS; k += BLOCK) {
            plain_fake(q, &r, w + k, s + k % COLS, BLOCK);
            CHECK_MEM(fake + k, q, sizeof(q));
            want[i] += token_loss(x + k % COLS, M, COLS, q, w + k, BLOCK);
        }
    }
    CHECK_OK(
        awq_rank(dev, loss, w, ROWS, COLS, BLOCK, &rule, scales, COUNT, wanted, grams));
    for (size_t i = 0; i < COUNT; i++)
        CHECK_NEAR(loss[i] / want[i], 1, 1e-4);
    wanted[2] = false;
    loss[2] = -1;
    CHECK_OK(
        awq_rank(dev, loss, w, ROWS, COLS, BLOCK, &rule, scales, COUNT, wanted, grams));
    CHECK_NEAR(loss[2], -1, 0);
    CHECK_NEAR(loss[3] / want[3], 1, 1e-4);
    free(x);
    free(w);
    free(fake);
    free(grams);
}

/* The search among ratios looks at a part of them: as awq_rank has it there, infinite
 * elsewhere, and the best of all among them. */
static void best_ratio(nn_device *dev, size_t peak)
{
    enum { ROWS = 40, COLS = 64, BLOCK = 32, M = 100, COUNT = AWQ_CANDIDATES };
    const quant_rule rule = {.bits = 4, .forced_zero = true, .fp16_scales = true};
    float *x = fix_inputs(M, COLS, 40), *w = fix_normal((size_t)ROWS * COLS, 41, 0.1f);
    float *scales = dr_calloc((size_t)COUNT * COLS, sizeof(*scales));
    float *grams = dr_calloc(COLS, BLOCK * sizeof(*grams));
    bool all[COUNT];
    double full[COUNT], some[COUNT];
    size_t best = 0, looked = 0;

    /* the loss grows with the distance of a candidate's scales from those at the peak */
    for (size_t i = 0; i < COUNT; i++) {
        all[i] = true;
        for (size_t c = 0; c < COLS; c++) {
            float far = i == 0 ? 30.0f : (float)i - (float)peak;
            scales[i * COLS + c] = c % 2 == 0 ? 1.0f : expf(0.35f * fabsf(far));
        }
    }
    CHECK_OK(quant_gram_blocks_add(dev, grams, x, M, COLS, BLOCK, true));
    CHECK_OK(awq_rank(dev, full, w, ROWS, COLS, BLOCK, &rule, scales, COUNT, all, grams));
    CHECK_OK(
        awq_rank_ratios(dev, some, w, ROWS, COLS, BLOCK, &rule, scales, grams, NULL));
    for (size_t i = 0; i < COUNT; i++) {
        best = full[i] < full[best] ? i : best;
        looked += isfinite(some[i]);
        CHECK(isinf(some[i]) || memcmp(&some[i], &full[i], sizeof(full[i])) == 0);
    }
    CHECK_EQ_INT(best, peak);
    CHECK(isfinite(some[best]) && isfinite(some[0]));
    CHECK(best == 1 || isfinite(some[best - 1]));
    CHECK(best == COUNT - 1 || isfinite(some[best + 1]));
    CHECK(looked <= 12);
    free(x);
    free(w);
    free(scales);
    free(grams);
}

/* ---- whole Gram matrices ---- */

static void grams(nn_device *dev)
{
    static const size_t sizes[] = {16, 192, 200, 400};

    for (size_t k = 0; k < DR_COUNT(sizes); k++) {
        size_t n = sizes[k], m = 100;
        float *x = fix_inputs(m, n, 60), *want = fix_gram(x, m, n);
        float *strips = dr_calloc(nn_gram_floats(n), sizeof(*strips));
        float *h = dr_calloc(n * n, sizeof(*h)), worst = 0;
        CHECK_OK(nn_i8_gram(dev, strips, x, 60, n, true));
        CHECK_OK(nn_i8_gram(dev, strips, x + 60 * n, m - 60, n, false));
        CHECK_OK(quant_gram_expand(dev, h, strips, n, 1.0f));
        for (size_t i = 0; i < n * n; i++) {
            size_t a = i / n, b = i % n;
            float size = sqrtf(want[a * n + a] * want[b * n + b]);
            worst = fmaxf(worst, fabsf(h[i] - want[i]) / size);
        }
        /* integer products: half a step of 1/127 of the largest on either side */
        CHECK_NEAR((double)worst, 0, 8e-3);
        free(x);
        free(want);
        free(strips);
        free(h);
    }
}

int main(void)
{
    const plain_rule plains[] = {{4, true, false, true},
                                 {4, false, false, false},
                                 {4, false, true, false},
                                 {2, false, false, false}};
    nn_device *dev = NULL;

    CHECK_OK(nn_device_open(&dev, "cpu", 2));
    quads();
    errors();
    turned();
    for (size_t peak = 1; peak < AWQ_CANDIDATES; peak++)
        best_ratio(dev, peak);
    grams(dev);
    for (size_t i = 0; i < DR_COUNT(plains); i++)
        clips(dev, &plains[i],
              &(quant_rule){plains[i].bits, plains[i].symmetric, plains[i].forced_zero,
                            plains[i].half});
    ratios(dev, true);
    ratios(dev, false);
    nn_device_close(dev);
    return check_done();
}
