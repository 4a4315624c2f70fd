/*
 * gemm_test.c - matrix products of every device against ref: odd shapes, edges of every
 * blocking, strides, bias, adding, threads.
 */
#include "nn_check.h"

typedef struct {
    size_t m, n, k, ld; /* ld: extra floats in the strided operand's rows */
    bool acc, bias;
    const float *a, *b, *c;
} product;

static dr_status nt(nn_device *dev, float *y, const void *ctx)
{
    const product *p = ctx;

    return nn_matmul_nt(dev, y, p->a, p->b, p->bias ? p->c : NULL, p->m, p->n, p->k,
                        p->n + p->ld, p->acc);
}

static dr_status nn(nn_device *dev, float *y, const void *ctx)
{
    const product *p = ctx;

    return nn_matmul_nn(dev, y, p->a, p->b, p->m, p->n, p->k, p->k + p->ld, p->acc);
}

static dr_status tn(nn_device *dev, float *y, const void *ctx)
{
    const product *p = ctx;

    return nn_matmul_tn(dev, y, p->a, p->b, p->m, p->n, p->k, p->m + p->ld, p->n + p->ld,
                        p->acc);
}

/* Shapes that cross, by one or more, a register tile, a tile, a block and a chunk. */
static const size_t shapes[][3] = {
    {1, 1, 1},     {3, 5, 7},     {8, 32, 16},    {9, 33, 17},     {6, 16, 384},
    {17, 31, 385}, {64, 64, 64},  {129, 257, 65}, {127, 255, 771}, {200, 96, 1000},
    {5, 40, 3500}, {9, 4200, 20}, {1030, 10, 24}, {1027, 70, 50},  {7, 40, 513},
    {4100, 9, 30}, {2, 577, 575},
};

static void check_shape(const nn_devices *d, const size_t shape[3], size_t ld, bool acc,
                        bool bias)
{
    product p = {
        .m = shape[0], .n = shape[1], .k = shape[2], .ld = ld, .acc = acc, .bias = bias};
    size_t rows = p.m > p.k ? p.m : p.k, out = p.m * (p.n + ld);
    float *a = nn_random(rows * (p.m + p.k + ld), 1, 1.0f);
    float *b = nn_random(p.k * (p.n + ld) + p.n * p.k, 2, 1.0f);
    float *c = nn_random(out + p.n, 3, 1.0f);
    char what[128];

    p.a = a;
    p.b = b;
    p.c = c;
    (void)snprintf(what, sizeof(what), "%zu x %zu x %zu, ld + %zu%s%s", p.m, p.n, p.k, ld,
                   acc ? ", adding" : "", bias ? ", bias" : "");
    /* what lies between rows must stay: both start from c */
    (void)nn_check_op(d, what, nt, &p, out, c, tol_matmul_nt);
    if (!bias) {
        (void)nn_check_op(d, what, nn, &p, p.m * p.n, acc ? c : NULL, tol_matmul_nn);
        (void)nn_check_op(d, what, tn, &p, p.m * p.n, acc ? c : NULL, tol_matmul_tn);
    }
    free(a);
    free(b);
    free(c);
}

static void test_unwritten(const nn_devices *d)
{
    float x[2] = {1.0f, 2.0f}, w[2] = {3.0f, 4.0f}, y[1] = {NAN};

    CHECK_OK(nn_matmul_nt(d->ref, y, x, w, NULL, 1, 1, 2, 1, false));
    CHECK_NEAR((double)y[0], 11.0, 0.0);
}

int main(void)
{
    nn_devices d;

    nn_devices_open(&d);
    test_unwritten(&d);
    for (size_t i = 0; i < DR_COUNT(shapes); i++) {
        check_shape(&d, shapes[i], 0, false, false);
        check_shape(&d, shapes[i], 3, true, false);
        check_shape(&d, shapes[i], 16, false, true);
    }
    nn_devices_close(&d);
    return check_done();
}
