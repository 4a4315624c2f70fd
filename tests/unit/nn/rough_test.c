/*
 * rough_test.c - what calibration computes: products against their definition in plain
 * loops, the same bytes on every processor and for any number of threads, a GPU's within
 * the rounding of its sums; the closer form, in bf16 by tile registers or in floats; the
 * product with an activation behind it; attention within bf16's rounding of the
 * reference's.
 */
#include "nn_check.h"

enum { TWIN = 4 };

#define SUMS 1e-5 /* of floats, over the largest result */

static void *packed_of(nn_device *dev, const float *w, size_t n, size_t k)
{
    void *p = NULL;

    CHECK_OK(dr_big_alloc(&p, nn_rough_bytes(dev, n, k), 1, "packed weight"));
    CHECK_OK(nn_rough_pack(dev, p, w, n, k));
    return p;
}

/* The code of v in a block of that maximum, and its scale. */
static int code_of(float v, float max)
{
    return (int)lrintf(v * ((float)NN_I8_TOP / max));
}

/* start + the scaled sums of blocks, of values `step` apart. */
static float product(float start, const float *a, size_t a_step, const float *b,
                     size_t b_step, size_t k)
{
    for (size_t at = 0; at < k; at += NN_ROUGH_BLOCK) {
        size_t end = k - at < NN_ROUGH_BLOCK ? k : at + NN_ROUGH_BLOCK;
        float a_max = 0, b_max = 0;
        int64_t sum = 0;
        for (size_t i = at; i < end; i++) {
            a_max = fmaxf(a_max, fabsf(a[i * a_step]));
            b_max = fmaxf(b_max, fabsf(b[i * b_step]));
        }
        for (size_t i = at; i < end; i++)
            sum += code_of(a[i * a_step], a_max) * code_of(b[i * b_step], b_max);
        float scale = a_max / (float)NN_I8_TOP * (b_max / (float)NN_I8_TOP);
        float term = (float)sum * scale;
        start = start + term;
    }
    return start;
}

/* Likewise of a GPU: of operands rounded to bf16. */
static float rounded(float start, const float *a, size_t a_step, const float *b,
                     size_t b_step, size_t k)
{
    double sum = (double)start;

    for (size_t i = 0; i < k; i++)
        sum += (double)nn_rounded(a[i * a_step]) * (double)nn_rounded(b[i * b_step]);
    return (float)sum;
}

/* All processors give the same bytes; a GPU is near, and the same each time. */
static void check_all(int kind, int thread, const float *y, const float *want,
                      const float *near, float *first, size_t count)
{
    if (kind != NN_CUDA) {
        CHECK_MEM(y, want, count * sizeof(*y));
        return;
    }
    CHECK_NEAR(nn_far(y, near, count), 0.0, SUMS);
    if (thread > 0)
        CHECK_MEM(y, first, count * sizeof(*y));
    memcpy(first, y, count * sizeof(*y));
}

static void products(const nn_devices *d, size_t m, size_t n, size_t k, bool acc)
{
    float *x = nn_random(m * k, 1, 1.0f), *w = nn_random(n * k, 2, 0.1f);
    float *bias = nn_random(n, 3, 1.0f), *init = nn_random(m * n, 4, 1.0f);
    float *want = dr_calloc(m * n, sizeof(float)), *y = dr_calloc(m * n, sizeof(float));
    float *near = dr_calloc(m * n, sizeof(float)), *first = dr_calloc(m * n, sizeof(float));

    x[m * k / 2] = 80.0f; /* an outlier, as activations have them */
    for (size_t i = 0; i < m * n; i++) {
        const float *row = x + i / n * k, *column = w + i % n * k;
        float start = acc ? init[i] : 0.0f;
        want[i] = product(start, row, 1, column, 1, k) + bias[i % n];
        near[i] = rounded(start, row, 1, column, 1, k) + bias[i % n];
    }
    for (int kind = 0; kind < NN_KINDS; kind++) {
        for (int t = 0; t < NN_THREADS && d->dev[kind][t] != NULL; t++) {
            nn_device *dev = d->dev[kind][t];
            void *p = packed_of(dev, w, n, k);
            memcpy(y, init, m * n * sizeof(*y));
            CHECK_OK(nn_rough_matmul(dev, y, x, p, bias, m, n, k, n, acc));
            check_all(kind, t, y, want, near, first, m * n);
            dr_big_free(p);
        }
    }
    free(x);
    free(w);
    free(bias);
    free(init);
    free(want);
    free(near);
    free(first);
    free(y);
}

static void grams(const nn_devices *d, size_t m, size_t n)
{
    size_t count = nn_gram_floats(n), part = m / 3, at = 0;
    float *x = nn_random(m * n, 8, 1.0f);
    float *want = dr_calloc(count, sizeof(float)), *g = dr_calloc(count, sizeof(float));
    float *near = dr_calloc(count, sizeof(float)), *first = dr_calloc(count, sizeof(float));

    x[n + 1] = 500.0f;
    for (size_t i = 0; i < n; i++) {
        size_t end = i / NN_GRAM_STRIP * NN_GRAM_STRIP + NN_GRAM_STRIP;
        for (size_t j = 0; j < (end < n ? end : n); j++, at++) {
            float start = product(0.0f, x + i, n, x + j, n, part);
            want[at] = product(start, x + part * n + i, n, x + part * n + j, n, m - part);
            near[at] = rounded(0.0f, x + i, n, x + j, n, m);
        }
    }
    for (int kind = 0; kind < NN_KINDS; kind++) {
        for (int t = 0; t < NN_THREADS && d->dev[kind][t] != NULL; t++) {
            nn_device *dev = d->dev[kind][t];
            CHECK_OK(nn_rough_gram(dev, g, x, part, n, true));
            CHECK_OK(nn_rough_gram(dev, g, x + part * n, m - part, n, false));
            check_all(kind, t, g, want, near, first, count);
        }
    }
    free(x);
    free(want);
    free(near);
    free(first);
    free(g);
}

/* floats of the device's, of that kind. */
static float *there(nn_device *dev, const float *from, size_t count, nn_mem_kind kind)
{
    float *p = NULL;

    CHECK_OK(nn_mem_new(dev, &p, count, kind, "values"));
    CHECK_OK(nn_copy(dev, p, from, count * sizeof(*p)));
    return p;
}

/* Differences turned, times inputs, twice: a GPU has that, processors do not. */
static void crosses(const nn_devices *d, size_t m, size_t n, size_t k, bool scaled)
{
    float *a = nn_random(m * n, 1, 1.0f), *b = nn_random(m * n, 2, 1.0f);
    float *in = nn_random(m * k, 3, 1.0f), *scale = nn_random(n, 4, 1.0f);
    float *diff = dr_calloc(m * n, sizeof(float)), *want = dr_calloc(n * k, sizeof(float));
    float *got = dr_calloc(n * k, sizeof(float));
    bool taken = true;

    for (size_t i = 0; i < m * n; i++)
        diff[i] = (scaled ? a[i] / scale[i % n] : a[i]) - nn_rounded(b[i]);
    for (size_t i = 0; i < n * k; i++)
        want[i] = 2 * rounded(0.0f, diff + i / k, n, in + i % k, k, m);
    for (int kind = 0; kind < NN_KINDS; kind++) {
        nn_device *dev = d->dev[kind][0];
        if (dev == NULL)
            continue;
        float *a_ = there(dev, a, m * n, NN_MEM_FLOAT);
        float *b_ = there(dev, b, m * n, nn_rough_kind(dev));
        float *in_ = there(dev, in, m * k, nn_rough_kind(dev));
        float *sum = there(dev, got, n * k, NN_MEM_FLOAT);
        for (int again = 0; again < 2; again++)
            CHECK_OK(nn_rough_cross(dev, &taken, sum, a_, b_, scaled ? scale : NULL, in_, m,
                                    n, k, again == 0));
        CHECK(taken == (kind == NN_CUDA));
        CHECK(nn_rough_kind(dev) == (kind == NN_CUDA ? NN_MEM_BF16 : NN_MEM_FLOAT));
        CHECK_OK(nn_copy(dev, got, sum, n * k * sizeof(*got)));
        if (taken)
            CHECK_NEAR(nn_far(got, want, n * k), 0.0, SUMS);
        nn_mem_free(dev, a_);
        nn_mem_free(dev, b_);
        nn_mem_free(dev, in_);
        nn_mem_free(dev, sum);
    }
    free(a);
    free(b);
    free(in);
    free(scale);
    free(diff);
    free(want);
    free(got);
}

/* Does the device multiply bf16 where integers are too coarse? */
static bool by_tiles(const nn_devices *d, int kind)
{
    return kind == TWIN ||
           (kind == 0 && strstr(nn_device_describe(d->dev[0][0]), "amx") != NULL);
}

/* The closer form's product and Gram matrix, added to what was there, for one device: near
 * those of `want`, floats or operands of bf16, and the same bytes by all that have them. */
static void check_close(const nn_devices *d, int kind, int t, const float *x,
                        const float *w, const float *bias, size_t m, size_t n, size_t k,
                        const float *const want[2], float *const first[2])
{
    nn_device *dev = d->dev[kind][t];
    const size_t count[2] = {m * n, nn_gram_floats(k)};
    float *y[2] = {dr_calloc(count[0], sizeof(float)), dr_calloc(count[1], sizeof(float))};
    float *was = dr_calloc(count[0], sizeof(float));
    void *p = packed_of(dev, w, n, k);

    CHECK_OK(nn_rough_matmul(dev, was, x, p, NULL, m, n, k, n, false));
    dr_big_free(p);
    CHECK(nn_far(was, want[0], count[0]) > SUMS);
    nn_rough_take(dev, NN_ROUGH_CLOSE);
    p = packed_of(dev, w, n, k);
    memset(y[0], 0xff, count[0] * sizeof(float)); /* NaN: not to be read */
    memset(y[1], 0xff, count[1] * sizeof(float));
    for (int again = 0; again < 2; again++) {
        CHECK_OK(nn_rough_matmul(dev, y[0], x, p, again ? bias : NULL, m, n, k, n, again));
        CHECK_OK(nn_rough_gram(dev, y[1], x, m, k, !again));
    }
    dr_big_free(p);
    for (int i = 0; i < 2; i++) {
        CHECK_NEAR(nn_far(y[i], want[i], count[i]), 0.0, SUMS);
        if (by_tiles(d, kind) && isfinite(first[i][0]))
            CHECK_MEM(y[i], first[i], count[i] * sizeof(float));
        if (by_tiles(d, kind))
            memcpy(first[i], y[i], count[i] * sizeof(float));
        free(y[i]);
    }
    nn_rough_take(dev, NN_ROUGH_OWN);
    p = packed_of(dev, w, n, k);
    y[0] = dr_calloc(count[0], sizeof(float));
    CHECK_OK(nn_rough_matmul(dev, y[0], x, p, NULL, m, n, k, n, false));
    CHECK_MEM(y[0], was, count[0] * sizeof(float));
    dr_big_free(p);
    free(y[0]);
    free(was);
}

static void closer(const nn_devices *d, size_t m, size_t n, size_t k)
{
    size_t count[2] = {m * n, nn_gram_floats(k)}, at = 0;
    float *x = nn_random(m * k, 1, 1.0f), *w = nn_random(n * k, 2, 0.1f);
    float *bias = nn_random(n, 3, 1.0f), *floats[2], *halves[2], *first[2];

    for (int i = 0; i < 2; i++) {
        floats[i] = dr_calloc(count[i], sizeof(float));
        halves[i] = dr_calloc(count[i], sizeof(float));
        first[i] = dr_calloc(count[i], sizeof(float));
        first[i][0] = NAN;
    }
    for (size_t i = 0; i < m * n; i++) {
        const float *row = x + i / n * k, *column = w + i % n * k;
        double sum = 0;
        for (size_t j = 0; j < k; j++)
            sum += (double)row[j] * (double)nn_rounded(column[j]);
        floats[0][i] = (float)(2 * sum) + bias[i % n];
        halves[0][i] = 2 * rounded(0.0f, row, 1, column, 1, k) + bias[i % n];
    }
    for (size_t i = 0; i < k; i++) {
        size_t end = i / NN_GRAM_STRIP * NN_GRAM_STRIP + NN_GRAM_STRIP;
        for (size_t j = 0; j < (end < k ? end : k); j++, at++) {
            double sum = 0;
            for (size_t r = 0; r < m; r++)
                sum += (double)x[r * k + i] * (double)x[r * k + j];
            floats[1][at] = (float)(2 * sum);
            halves[1][at] = 2 * rounded(0.0f, x + i, k, x + j, k, m);
        }
    }
    for (int kind = 0; kind < NN_CUDA; kind++) {
        for (int t = 0; t < NN_THREADS && d->dev[kind][t] != NULL; t++)
            check_close(d, kind, t, x, w, bias, m, n, k,
                        (const float *const *)(by_tiles(d, kind) ? halves : floats), first);
    }
    for (int i = 0; i < 2; i++) {
        free(floats[i]);
        free(halves[i]);
        free(first[i]);
    }
    free(x);
    free(w);
    free(bias);
}

/* A product into bf16, with a bias and added: rounded at the end. */
static void rounded_outputs(const nn_devices *d, size_t m, size_t n, size_t k)
{
    float *x = nn_random(m * k, 1, 1.0f), *w = nn_random(n * k, 2, 0.1f);
    float *bias = nn_random(n, 3, 1.0f), *init = nn_random(m * n, 4, 1.0f);
    float *want = dr_calloc(m * n, sizeof(float)), *got = dr_calloc(m * n, sizeof(float));
    nn_device *dev = d->dev[NN_CUDA][0];

    for (size_t i = 0; i < m * n; i++)
        want[i] = rounded(nn_rounded(init[i]), x + i / n * k, 1, w + i % n * k, 1, k) +
                  bias[i % n];
    if (dev != NULL) {
        void *p = packed_of(dev, w, n, k);
        float *y = there(dev, init, m * n, NN_MEM_BF16);
        CHECK_OK(nn_rough_matmul(dev, y, x, p, bias, m, n, k, n, true));
        CHECK_OK(nn_copy(dev, got, y, m * n * sizeof(*got)));
        CHECK_NEAR(nn_far(got, want, m * n), 0.0, 1.0 / 128); /* three times */
        nn_mem_free(dev, y);
        dr_big_free(p);
    }
    free(x);
    free(w);
    free(bias);
    free(init);
    free(want);
    free(got);
}

/* nn_rough_act is nn_activate of nn_rough_matmul, to the byte. */
static void activations(const nn_devices *d, size_t m, size_t inner, size_t k, nn_act act)
{
    size_t n = (act.gated ? 2 : 1) * inner;
    float *x = nn_random(m * k, 1, 1.0f), *w = nn_random(n * k, 2, 0.1f);
    float *bias = nn_random(n, 3, 1.0f), *wide = dr_calloc(m * n, sizeof(float));
    float *want = dr_calloc(m * inner, sizeof(float)),
          *y = dr_calloc(m * inner, sizeof(float));

    for (int kind = 0; kind < NN_KINDS; kind++) {
        for (int t = 0; t < NN_THREADS && d->dev[kind][t] != NULL; t++) {
            nn_device *dev = d->dev[kind][t];
            void *p = packed_of(dev, w, n, k);
            CHECK_OK(nn_rough_matmul(dev, wide, x, p, bias, m, n, k, n, false));
            CHECK_OK(nn_activate(dev, want, wide, m, inner, act));
            memset(y, 0xff, m * inner * sizeof(*y));
            CHECK_OK(nn_rough_act(dev, y, wide, x, p, bias, m, inner, k, act));
            CHECK_MEM(y, want, m * inner * sizeof(*y));
            dr_big_free(p);
        }
    }
    free(x);
    free(w);
    free(bias);
    free(wide);
    free(want);
    free(y);
}

/* ---- attention ---- */

typedef struct {
    const float *qkv;
    const nn_attn_shape *s;
} attn_case;

static dr_status attend(nn_device *dev, float *out, const void *ctx)
{
    const attn_case *c = ctx;
    size_t count = c->s->b * c->s->t * c->s->heads;

    return nn_rough_attention(dev, out, out + count * c->s->head_dim, c->qkv, c->s);
}

/* The processor's instructions and their twin in plain C give the same bytes. */
static void twins(const nn_devices *d, const attn_case *c, size_t count)
{
    float *y = dr_calloc(count, sizeof(float)), *twin = dr_calloc(count, sizeof(float));

    if (strstr(nn_device_describe(d->dev[0][0]), "amx") != NULL) {
        CHECK_OK(attend(d->dev[0][0], y, c));
        CHECK_OK(attend(d->dev[TWIN][0], twin, c));
        CHECK_MEM(y, twin, count * sizeof(*y));
    }
    free(y);
    free(twin);
}

static void attention(const nn_devices *d, nn_attn_shape s, double tol)
{
    size_t row = (s.heads + 2 * s.kv_heads) * s.head_dim, m = s.b * s.t;
    float *qkv = nn_random(m * row, 11, 1.0f);
    const attn_case c = {qkv, &s};

    s.scale = 1.0f / sqrtf((float)s.head_dim);
    (void)nn_check_op(d, "rough attention", attend, &c, m * s.heads * (s.head_dim + 1),
                      NULL, tol);
    twins(d, &c, m * s.heads * (s.head_dim + 1));
    free(qkv);
}

int main(void)
{
    uint32_t starts[2 * 150];
    const double rounding = 1.0 / 256; /* of one of a product's operands: half of it */
    nn_attn_shape s = {.b = 2, .t = 150, .heads = 4, .kv_heads = 2, .head_dim = 64};
    nn_devices d;

    for (uint32_t i = 0; i < 300; i++)
        starts[i] = i % 150 < 70 ? 0 : i % 150 < 100 ? 70 : 100;
    nn_devices_open(&d);
    products(&d, 1, 1, 1, false);
    products(&d, 13, 29, 71, true);
    products(&d, 97, 50, NN_ROUGH_BLOCK + 1, true);
    products(&d, 40, 100, 2 * NN_ROUGH_BLOCK + 576, false);
    grams(&d, 9, 7);
    grams(&d, 3 * NN_ROUGH_BLOCK + 6, 100);
    grams(&d, 257, 250);
    grams(&d, 20, 2 * 16 * NN_GRAM_STRIP + 30); /* more than one panel of a GPU's */
    crosses(&d, 300, 40, 136, false);
    crosses(&d, 77, 64, 8, true);
    closer(&d, 60, 550, 150); /* more rows than are floats at once */
    closer(&d, 3, 5, 7);
    closer(&d, 97, 33, 1030); /* sums in two parts */
    rounded_outputs(&d, 33, 48, 200);
    activations(&d, 100, 192, 576, (nn_act){HF_ACT_SILU, true});
    activations(&d, 33, 480, 64, (nn_act){HF_ACT_GELU_TANH, true});
    activations(&d, 5, 50, 600, (nn_act){HF_ACT_SILU, true});
    activations(&d, 5, 50, 64, (nn_act){HF_ACT_SILU, false});
    attention(&d, s, 2 * rounding);
    s.softcap = 5.0f;
    s.window = 40;
    s.head_dim = 40;
    attention(&d, s, 2 * rounding);
    s.starts = starts;
    attention(&d, s, 2 * rounding);
    nn_devices_close(&d);
    return check_done();
}
