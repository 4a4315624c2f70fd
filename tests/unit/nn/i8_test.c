/*
 * i8_test.c - integer products: the same bytes on every device and for any number of
 * threads, errors within what the codes' steps allow, and values that have no codes.
 */
#include "nn_check.h"

typedef struct {
    size_t m, n, k;
    bool acc, bias;
} shape;

static void *packed_of(nn_device *dev, const float *w, size_t n, size_t k)
{
    void *p = NULL;

    CHECK_OK(dr_big_alloc(&p, nn_i8_packed_bytes(n, k), 1, "packed weight"));
    CHECK_OK(nn_i8_pack(dev, p, w, n, k));
    return p;
}

/* y[m][ldy] of one device; starts as init. */
static void multiply(nn_device *dev, float *y, const float *init, const float *x,
                     const float *w, const float *bias, const shape *s, size_t ldy)
{
    void *p = packed_of(dev, w, s->n, s->k);

    memcpy(y, init, s->m * ldy * sizeof(*y));
    CHECK_OK(
        nn_i8_matmul(dev, y, x, p, s->bias ? bias : NULL, s->m, s->n, s->k, ldy, s->acc));
    dr_big_free(p);
}

static void same_everywhere(const nn_devices *d, const shape *s)
{
    size_t ldy = s->n + 3, count = s->m * ldy;
    float *x = nn_random(s->m * s->k, 1, 1.0f), *w = nn_random(s->n * s->k, 2, 0.1f);
    float *bias = nn_random(s->n, 3, 1.0f), *init = nn_random(count, 4, 1.0f);
    float *want = dr_calloc(count, sizeof(float)), *y = dr_calloc(count, sizeof(float));

    x[s->m * s->k / 2] = 80.0f; /* an outlier, as activations have them */
    multiply(d->ref, want, init, x, w, bias, s, ldy);
    for (int k = 0; k < NN_KINDS; k++) {
        for (int t = 0; t < NN_THREADS; t++) {
            if (d->dev[k][t] == NULL)
                continue;
            multiply(d->dev[k][t], y, init, x, w, bias, s, ldy);
            CHECK(memcmp(y, want, count * sizeof(*y)) == 0);
        }
    }
    free(x);
    free(w);
    free(bias);
    free(init);
    free(want);
    free(y);
}

/* Half a step of the block that value i lies in. */
static double half_step(const float *v, size_t i, size_t k)
{
    size_t from = i / NN_I8_BLOCK * NN_I8_BLOCK;
    double max = 0;

    for (size_t j = from; j < k && j < from + NN_I8_BLOCK; j++)
        max = fmax(max, fabs((double)v[j]));
    return max / NN_I8_TOP / 2 * (1 + 1e-3);
}

/* |sum x w - y| is at most the sum of |x| dw + |w| dx + dx dw, and float sums' error. */
static void within_steps(nn_device *dev)
{
    const shape s = {5, 7, 300, false, false};
    float *x = nn_random(s.m * s.k, 5, 1.0f), *w = nn_random(s.n * s.k, 6, 0.1f);
    float y[5 * 7], init[5 * 7] = {0};
    double largest = 0;

    x[17] = -60.0f;
    multiply(dev, y, init, x, w, NULL, &s, s.n);
    for (size_t i = 0; i < s.m; i++) {
        for (size_t j = 0; j < s.n; j++) {
            const float *a = x + i * s.k, *b = w + j * s.k;
            double sum = 0, limit = 0, size = 0;
            for (size_t k = 0; k < s.k; k++) {
                double da = half_step(a, k, s.k), db = half_step(b, k, s.k);
                sum += (double)a[k] * (double)b[k];
                size += fabs((double)a[k] * (double)b[k]);
                limit += fabs((double)a[k]) * db + fabs((double)b[k]) * da + da * db;
            }
            double off = fabs((double)y[i * s.n + j] - sum);
            CHECK(off <= limit + 1e-6 * size);
            largest = fmax(largest, off / size);
        }
    }
    CHECK(largest > 1e-7); /* these are not float products */
    CHECK(largest < 3e-2);
    free(x);
    free(w);
}

static void without_codes(nn_device *dev)
{
    const shape s = {4, 3, 130, false, false};
    float *x = dr_calloc(s.m * s.k, sizeof(*x)), *w = nn_random(s.n * s.k, 7, 1.0f);
    float y[12], init[12] = {0};

    x[s.k] = 1e-35f;           /* row 1: counts as zero */
    x[2 * s.k + 5] = INFINITY; /* row 2 */
    x[3 * s.k + 129] = -1e38f; /* row 3: in the last block, large but finite */
    multiply(dev, y, init, x, w, NULL, &s, s.n);
    for (size_t j = 0; j < s.n; j++) {
        CHECK(y[j] == 0.0f && y[s.n + j] == 0.0f);
        CHECK(isnan(y[2 * s.n + j]));
        CHECK_NEAR((double)(y[3 * s.n + j] / (-1e38f * w[j * s.k + 129])), 1, 1e-2);
    }
    w[s.k + 1] = NAN; /* row 1 of w: its column of y, in every row */
    multiply(dev, y, init, x, w, NULL, &s, s.n);
    CHECK(isnan(y[1]) && isnan(y[s.n + 1]));
    CHECK(y[0] == 0.0f && y[2] == 0.0f);
    free(x);
    free(w);
}

/* ---- Gram matrices ---- */

static size_t strips_floats(size_t n)
{
    size_t sum = 0;

    for (size_t r = 0; r < n; r++) {
        size_t end = r / NN_GRAM_STRIP * NN_GRAM_STRIP + NN_GRAM_STRIP;
        sum += end < n ? end : n;
    }
    return sum;
}

static void gram_everywhere(const nn_devices *d, size_t m, size_t n)
{
    size_t count = strips_floats(n);
    float *x = nn_random(m * n, 8, 1.0f);
    float *want = dr_calloc(count, sizeof(float)), *g = dr_calloc(count, sizeof(float));
    size_t part = m / 3;

    x[n + 1] = 500.0f;
    CHECK_OK(nn_i8_gram(d->ref, want, x, part, n, true));
    CHECK_OK(nn_i8_gram(d->ref, want, x + part * n, m - part, n, false));
    for (int k = 0; k < NN_KINDS; k++) {
        for (int t = 0; t < NN_THREADS; t++) {
            if (d->dev[k][t] == NULL)
                continue;
            CHECK_OK(nn_i8_gram(d->dev[k][t], g, x, part, n, true));
            CHECK_OK(nn_i8_gram(d->dev[k][t], g, x + part * n, m - part, n, false));
            CHECK(memcmp(g, want, count * sizeof(*g)) == 0);
        }
    }
    /* the diagonal against sums in double */
    for (size_t i = 0, at = 0; i < n; i++) {
        size_t end = i / NN_GRAM_STRIP * NN_GRAM_STRIP + NN_GRAM_STRIP;
        double sum = 0;
        for (size_t r = 0; r < m; r++)
            sum += (double)x[r * n + i] * (double)x[r * n + i];
        CHECK_NEAR((double)want[at + i] / sum, 1, 1e-2);
        at += end < n ? end : n;
    }
    free(x);
    free(want);
    free(g);
}

int main(void)
{
    static const shape shapes[] = {{1, 1, 1, false, false},     {3, 5, 2, true, true},
                                   {13, 29, 71, false, true},   {8, 48, 128, true, false},
                                   {97, 50, 129, false, true},  {40, 100, 576, true, true},
                                   {200, 241, 640, true, false}};
    nn_devices d;

    nn_devices_open(&d);
    for (size_t i = 0; i < DR_COUNT(shapes); i++)
        same_everywhere(&d, &shapes[i]);
    within_steps(d.ref);
    without_codes(d.ref);
    for (int k = 0; k < NN_KINDS; k++) {
        if (d.dev[k][0] != NULL)
            without_codes(d.dev[k][0]);
    }
    gram_everywhere(&d, 9, 7);
    gram_everywhere(&d, 300, 96);
    gram_everywhere(&d, 257, 250);
    nn_devices_close(&d);
    return check_done();
}
