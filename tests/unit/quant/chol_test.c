/*
 * chol_test.c - the blocked Cholesky factor against plain loops in double.
 */
#include "quant/gptq_impl.h"
#include "quant_fixture.h"

static void reference(double *l, const float *a, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j <= i; j++) {
            double sum = (double)a[i * n + j];
            for (size_t k = 0; k < j; k++)
                sum -= l[i * n + k] * l[j * n + k];
            l[i * n + j] = i == j ? sqrt(sum) : sum / l[j * n + j];
        }
    }
}

static void factor(nn_device *dev, size_t n)
{
    float *x = fix_inputs(2 * n + 3, n, n), *a = fix_gram(x, 2 * n + 3, n);
    double *l = dr_calloc(n * n, sizeof(*l)), worst = 0;
    bool definite = false;

    for (size_t i = 0; i < n; i++)
        a[i * n + i] *= 1.01f;
    reference(l, a, n);
    float above = n > 1 ? a[1] : 0;
    CHECK_OK(quant_cholesky(dev, a, n, &definite));
    CHECK(definite);
    if (quant_there(dev) == NULL)
        CHECK(n < 2 || a[1] == above); /* the upper triangle is left alone */
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j <= i; j++) {
            double e = fabs((double)a[i * n + j] - l[i * n + j]) / l[i * n + i];
            worst = e > worst ? e : worst;
        }
    }
    CHECK_NEAR(worst, 0, 2e-4);
    free(x);
    free(a);
    free(l);
}

/* b (L L^T)^-1, multiplied by L L^T again, is b. */
static void solve(nn_device *dev, size_t n)
{
    enum { ROWS = 37 };
    float *l = fix_normal(n * n, n, 0.5f / sqrtf((float)n));
    float *b = fix_normal(ROWS * n, n + 1, 1.0f), *x = dr_calloc(ROWS * n, sizeof(*x));
    double *y = dr_calloc(n, sizeof(*y)), worst = 0;

    for (size_t i = 0; i < n; i++)
        l[i * n + i] = 1.0f + 0.25f * (float)(i % 3);
    memcpy(x, b, ROWS * n * sizeof(*x));
    CHECK_OK(quant_chol_solve(dev, x, ROWS, n, l));
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t j = 0; j < n; j++) {
            y[j] = 0;
            for (size_t i = j; i < n; i++)
                y[j] += (double)x[r * n + i] * (double)l[i * n + j];
        }
        for (size_t i = 0; i < n; i++) {
            double sum = 0;
            for (size_t j = 0; j <= i; j++)
                sum += y[j] * (double)l[i * n + j];
            worst = fmax(worst, fabs(sum - (double)b[r * n + i]));
        }
    }
    CHECK_NEAR(worst, 0, 2e-5);
    free(l);
    free(b);
    free(x);
    free(y);
}

static void indefinite(nn_device *dev)
{
    enum { N = 200 };
    float *a = dr_calloc((size_t)N * N, sizeof(*a));
    bool definite = true;

    for (size_t i = 0; i < N; i++)
        a[i * N + i] = i == 170 ? -1.0f : 2.0f;
    CHECK_OK(quant_cholesky(dev, a, N, &definite));
    CHECK(!definite);
    a[0] = NAN;
    CHECK_OK(quant_cholesky(dev, a, N, &definite));
    CHECK(!definite);
    free(a);
}

int main(void)
{
    static const size_t sizes[] = {1, 5, 64, 127, 128, 129, 300, 576, 700};
    static const char *const kinds[] = {"cpu", "cpu:apart", "cuda"};

    for (size_t k = 0; k < DR_COUNT(kinds); k++) {
        nn_device *dev = NULL;
        if (nn_device_open(&dev, kinds[k], 2) != DR_OK) {
            SKIP("gpu: none to use");
            continue;
        }
        for (size_t i = 0; i < DR_COUNT(sizes); i++)
            factor(dev, sizes[i]);
        for (size_t i = 0; i < DR_COUNT(sizes); i++)
            solve(dev, sizes[i]);
        indefinite(dev);
        nn_device_close(dev);
    }
    return check_done();
}
