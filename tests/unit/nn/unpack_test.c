/*
 * unpack_test.c - packed weights as floats and the gradients of their scales, transposed
 * matrices, KL between rows of logits: every device against ref.
 */
#include "nn_check.h"

/* Operations that only nn knows. */
#include "nn/nn_impl.h"

typedef struct {
    size_t m, n;
    const float *x;
    const dr_qtensor *q;
    float scale, cap;
} op_case;

static dr_status unpack(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;

    return nn_unpack(dev, out, c->q);
}

static dr_status unpack_back(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;

    return nn_unpack_back(dev, out, c->x, c->q);
}

static dr_status transpose(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;

    return nn_transpose(dev, out, c->x, c->m, c->n);
}

/* Gradients, then KL of each row as floats. */
static dr_status kl(nn_device *dev, float *out, const void *ctx)
{
    const op_case *c = ctx;
    double sums[64];
    dr_status st = nn_kl(dev, sums, out, c->x, c->m, c->n, c->scale, c->cap);

    for (size_t r = 0; r < c->m; r++)
        out[c->m * c->n + r] = (float)sums[r];
    return st;
}

static void fill(dr_qtensor *q, uint64_t stream)
{
    dr_rng r;

    dr_rng_init(&r, 3, stream);
    for (size_t i = 0; i < q->rows * dr_qtensor_row_bytes(q); i++)
        q->codes[i] = (uint8_t)dr_rng_u32(&r);
    for (size_t i = 0; q->zeros != NULL && i < q->rows * dr_qtensor_zero_bytes(q); i++)
        q->zeros[i] = (uint8_t)dr_rng_u32(&r);
    for (size_t i = 0; i < q->rows * dr_qtensor_blocks(q); i++)
        q->scales[i] = dr_rng_normal(&r);
}

/* A weight's members in memory of the device's own give what the host's gave. */
static void test_there(nn_device *dev, const dr_qtensor *q, const float *dw)
{
    size_t scales = q->rows * dr_qtensor_blocks(q), n = q->rows * q->cols;
    const size_t bytes[] = {q->rows * dr_qtensor_row_bytes(q),
                            q->zeros ? q->rows * dr_qtensor_zero_bytes(q) : 0,
                            scales * sizeof(float), n * sizeof(float)};
    const void *from[] = {q->codes, q->zeros, q->scales, dw};
    float *at[DR_COUNT(from)] = {0}, *w = NULL, *ds = NULL;
    float *want = dr_calloc(n + scales, sizeof(*want)), *got = dr_calloc(n + scales, 4);
    dr_qtensor there = *q;

    for (size_t i = 0; i < DR_COUNT(from); i++) {
        CHECK_OK(nn_mem_new(dev, &at[i], bytes[i] / sizeof(float) + 1, NN_MEM_FLOAT, "x"));
        if (bytes[i] > 0)
            CHECK_OK(nn_copy(dev, at[i], from[i], bytes[i]));
    }
    there.codes = (uint8_t *)at[0];
    there.zeros = q->zeros != NULL ? (uint8_t *)at[1] : NULL;
    there.scales = at[2];
    CHECK_OK(nn_mem_new(dev, &w, n, NN_MEM_FLOAT, "w"));
    CHECK_OK(nn_mem_new(dev, &ds, scales, NN_MEM_FLOAT, "ds"));
    CHECK_OK(nn_unpack(dev, w, &there));
    CHECK_OK(nn_unpack_back(dev, ds, at[3], &there));
    CHECK_OK(nn_copy(dev, got, w, n * sizeof(float)));
    CHECK_OK(nn_copy(dev, got + n, ds, scales * sizeof(float)));
    CHECK_OK(nn_unpack(dev, want, q));
    CHECK_OK(nn_unpack_back(dev, want + n, dw, q));
    CHECK_MEM(got, want, (n + scales) * sizeof(float));
    for (size_t i = 0; i < DR_COUNT(from); i++)
        nn_mem_free(dev, at[i]);
    nn_mem_free(dev, w);
    nn_mem_free(dev, ds);
    free(want);
    free(got);
}

static void test_packed(const nn_devices *d)
{
    static const struct {
        int bits, block;
        size_t rows, cols;
        bool symmetric;
    } cases[] = {{4, 16, 33, 100, false}, {4, 64, 70, 576, false}, {4, 1024, 5, 999, true},
                 {8, 32, 40, 90, false},  {2, 16, 9, 53, false},   {2, 128, 64, 256, true}};

    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        size_t n = cases[i].rows * cases[i].cols;
        dr_qtensor q = {0};
        CHECK_OK(dr_qtensor_new(&q, cases[i].bits, cases[i].block, cases[i].rows,
                                cases[i].cols, cases[i].symmetric));
        fill(&q, i);
        float *dw = nn_random(n, 20 + i, 1.0f);
        size_t scales = q.rows * dr_qtensor_blocks(&q);
        float *ds = nn_random(scales, 40 + i, 1.0f);
        op_case c = {.q = &q, .x = dw};
        (void)nn_check_op(d, "unpack", unpack, &c, n, NULL, tol_unpack);
        (void)nn_check_op(d, "unpack_back", unpack_back, &c, scales, ds, tol_unpack_back);
        for (int k = 0; k < NN_KINDS && d->dev[k][0] != NULL; k++)
            test_there(d->dev[k][0], &q, dw);
        free(dw);
        free(ds);
        dr_qtensor_release(&q);
    }
}

static void test_transpose(const nn_devices *d)
{
    static const size_t shapes[][2] = {{1, 7}, {5, 1}, {33, 65}, {512, 100}, {300, 259}};

    for (size_t i = 0; i < DR_COUNT(shapes); i++) {
        op_case c = {.m = shapes[i][0], .n = shapes[i][1]};
        float *x = nn_random(c.m * c.n, 60 + i, 1.0f);
        c.x = x;
        (void)nn_check_op(d, "transpose", transpose, &c, c.m * c.n, NULL, tol_transpose);
        free(x);
    }
}

static void test_kl(const nn_devices *d)
{
    static const size_t shapes[][2] = {{3, 2}, {5, 17}, {40, 128}, {3, 5001}, {2, 49152}};

    for (size_t i = 0; i < DR_COUNT(shapes); i++) {
        op_case c = {.m = shapes[i][0], .n = shapes[i][1]};
        size_t n = c.m * c.n;
        float *s = nn_random(n + c.m, 8, 2.0f), *t = nn_random(n, 9, 2.0f);
        double sums[64];
        c.x = t;
        (void)nn_check_op(d, "KL", kl, &c, n + c.m, s, tol_kl);
        c.scale = 0.25f;
        (void)nn_check_op(d, "KL and gradient", kl, &c, n + c.m, s, tol_kl);
        c.cap = 12.0f;
        (void)nn_check_op(d, "capped", kl, &c, n + c.m, s, tol_kl);
        CHECK_OK(nn_kl(d->dev[0][0], sums, s, s, c.m, c.n, 0.0f, 0.0f));
        CHECK_NEAR(sums[c.m - 1], 0.0, 1e-6);
        t[0] = NAN;
        CHECK_OK(nn_kl(d->dev[0][0], sums, s, t, c.m, c.n, 0.0f, 0.0f));
        CHECK(isnan(sums[0]));
        free(s);
        free(t);
    }
}

int main(void)
{
    nn_devices d;

    nn_devices_open(&d);
    test_packed(&d);
    test_transpose(&d);
    test_kl(&d);
    nn_devices_close(&d);
    return check_done();
}
