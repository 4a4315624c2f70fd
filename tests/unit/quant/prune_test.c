/*
 * prune_test.c - SparseGPT against the paper's own form, with the inverse Hessian written
 * out in double; shares of zeros; whole models.
 */
#include "quant_fixture.h"

enum { ROWS = 24, COLS = 48, TOKENS = 200 };

/* The upper factor R of a = R^T R. */
static void upper_factor(double *a, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++) {
            for (size_t j = i; j < n; j++)
                a[i * n + j] -= a[k * n + i] * a[k * n + j];
        }
        double d = sqrt(a[i * n + i]);
        for (size_t j = i; j < n; j++)
            a[i * n + j] /= d;
    }
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

/* Columns i of a row that n:m would zero: the n least of w^2 / d^2 of its m. */
static bool of_m(const double *w, const double *r, size_t from, size_t i,
                 const quant_prune_options *o)
{
    int less = 0;

    for (size_t j = from; j < from + (size_t)o->m; j++) {
        double x = w[j] / r[j * COLS + j], y = w[i] / r[i * COLS + i];
        less += x * x < y * y;
    }
    return less < o->n;
}

/* The paper's algorithm 1, row by row with a running weight. */
static void paper(double *w, const float *h, const quant_prune_options *o)
{
    double *r = dr_calloc((size_t)COLS * COLS, sizeof(*r)), mean = 0;
    bool zero[ROWS][COLS] = {{false}};
    size_t block = (size_t)o->blocksize;

    for (size_t i = 0; i < COLS; i++)
        mean += (double)h[i * COLS + i] / COLS;
    for (size_t i = 0; i < (size_t)COLS * COLS; i++)
        r[i] = (double)h[i] + (i % (COLS + 1) == 0 ? o->damp_percent * mean : 0);
    fix_invert(r, COLS);
    upper_factor(r, COLS);
    for (size_t p = 0; p < COLS; p += block) {
        double costs[ROWS * COLS];
        size_t count = 0;
        for (size_t i = 0; i < ROWS * block; i++) {
            size_t c = p + i % block;
            double x = w[i / block * COLS + c] / r[c * COLS + c];
            costs[count++] = x * x;
        }
        qsort(costs, count, sizeof(*costs), by_value);
        double limit = costs[(size_t)((double)count * o->sparsity) - (o->m == 0)];
        for (size_t i = 0; i < ROWS * block && o->m == 0; i++) {
            size_t c = p + i % block;
            double x = w[i / block * COLS + c] / r[c * COLS + c];
            zero[i / block][c] = x * x <= limit;
        }
        for (size_t row = 0; row < ROWS; row++) {
            double *v = w + row * COLS;
            for (size_t i = p; i < p + block; i++) {
                for (size_t k = i;
                     o->m > 0 && i % (size_t)o->m == 0 && k < i + (size_t)o->m; k++)
                    zero[row][k] = of_m(v, r, i, k, o);
                double err = zero[row][i] ? v[i] / r[i * COLS + i] : 0;
                for (size_t k = i; k < COLS; k++)
                    v[k] -= err * r[i * COLS + k];
            }
        }
    }
    for (size_t i = 0; i < (size_t)ROWS * COLS; i++)
        w[i] = zero[i / COLS][i % COLS] ? 0 : w[i];
    free(r);
}

static void against_paper(nn_device *dev, const quant_prune_options *o)
{
    float *x = fix_inputs(TOKENS, COLS, 7), *h = fix_gram(x, TOKENS, COLS);
    float *w = fix_normal((size_t)ROWS * COLS, 8, 0.2f);
    double *want = dr_calloc((size_t)ROWS * COLS, sizeof(*want)), zeros = 0;

    for (size_t i = 0; i < (size_t)ROWS * COLS; i++)
        want[i] = (double)w[i];
    paper(want, h, o);
    CHECK_OK(quant_prune_solve(dev, w, h, ROWS, COLS, o, "w"));
    for (size_t i = 0; i < (size_t)ROWS * COLS; i++) {
        CHECK((w[i] == 0.0f) == (want[i] == 0.0));
        CHECK_NEAR(w[i], want[i], 2e-3);
        zeros += w[i] == 0.0f;
    }
    if (o->m == 0)
        CHECK_NEAR(zeros / (ROWS * COLS), o->sparsity, 1e-9);
    else
        CHECK_NEAR(zeros / (ROWS * COLS), (double)o->n / o->m, 1e-9);
    free(x);
    free(h);
    free(w);
    free(want);
}

int main(void)
{
    nn_device *dev = NULL;

    for (int threads = 1; threads <= 2; threads++) {
        CHECK_OK(nn_device_open(&dev, "cpu", threads));
        against_paper(dev, &(quant_prune_options){
                               .sparsity = 0.5, .blocksize = 16, .damp_percent = 0.01});
        against_paper(dev, &(quant_prune_options){
                               .sparsity = 0.75, .blocksize = 48, .damp_percent = 0.1});
        against_paper(dev, &(quant_prune_options){
                               .n = 2, .m = 4, .blocksize = 16, .damp_percent = 0.01});
        nn_device_close(dev);
    }
    return check_done();
}
