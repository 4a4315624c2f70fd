/*
 * svd_test.c - singular values against matrices made from known ones, and against what must
 * hold of any.
 */
#include "core/svd.h"

#include "check.h"
#include "core/rng.h"

/* rows of out[r][n]: orthonormal, by Gram-Schmidt on random numbers. */
static void random_rows(double *out, size_t r, size_t n, uint64_t stream)
{
    dr_rng rng;

    dr_rng_init(&rng, 5, stream);
    for (size_t i = 0; i < r; i++) {
        double *x = out + i * n, sum = 0;
        for (size_t j = 0; j < n; j++)
            x[j] = (double)dr_rng_normal(&rng);
        for (int twice = 0; twice < 2; twice++) {
            for (size_t k = 0; k < i; k++) {
                double f = 0;
                for (size_t j = 0; j < n; j++)
                    f += x[j] * out[k * n + j];
                for (size_t j = 0; j < n; j++)
                    x[j] -= f * out[k * n + j];
            }
        }
        for (size_t j = 0; j < n; j++)
            sum += x[j] * x[j];
        for (size_t j = 0; j < n; j++)
            x[j] /= sqrt(sum);
    }
}

/* Largest |rows rows^T - 1|. */
static double off_orthonormal(const float *rows, size_t r, size_t n)
{
    double worst = 0;

    for (size_t i = 0; i < r; i++) {
        for (size_t k = 0; k <= i; k++) {
            double f = i == k ? -1 : 0;
            for (size_t j = 0; j < n; j++)
                f += (double)rows[i * n + j] * (double)rows[k * n + j];
            worst = fmax(worst, fabs(f));
        }
    }
    return worst;
}

/* Largest component of A v - s u and of A^T u - s v. */
static double residual(const float *a, size_t m, size_t n, double s, const float *u,
                       const float *v)
{
    double worst = 0;

    for (size_t i = 0; i < m; i++) {
        double f = -s * (double)u[i];
        for (size_t j = 0; j < n; j++)
            f += (double)a[i * n + j] * (double)v[j];
        worst = fmax(worst, fabs(f));
    }
    for (size_t j = 0; j < n; j++) {
        double f = -s * (double)v[j];
        for (size_t i = 0; i < m; i++)
            f += (double)a[i * n + j] * (double)u[i];
        worst = fmax(worst, fabs(f));
    }
    return worst;
}

/* `rank` values that fall by `ratio` each, from 3 on; the r largest are asked for. */
static void test_known(size_t m, size_t n, size_t rank, size_t r, double ratio)
{
    double *x = calloc(rank * m, sizeof(*x)), *y = calloc(rank * n, sizeof(*y));
    double *s = calloc(r, sizeof(*s)), value = 3;
    float *a = calloc(m * n, sizeof(*a)), *u = calloc(r * m, sizeof(*u));
    float *v = calloc(r * n, sizeof(*v));

    random_rows(x, rank, m, 1);
    random_rows(y, rank, n, 2);
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
            value = 3;
            for (size_t k = 0; k < rank; k++, value *= ratio)
                sum += value * x[k * m + i] * y[k * n + j];
            a[i * n + j] = (float)sum;
        }
    }
    CHECK_OK(dr_svd(s, u, v, a, m, n, r, 1e-10));
    value = 3;
    for (size_t k = 0; k < r; k++, value *= ratio) {
        double want = k < rank ? value : 0, dot = 0;
        CHECK_NEAR(s[k], want, 1e-6);
        CHECK(residual(a, m, n, s[k], u + k * m, v + k * n) < 1e-6);
        for (size_t j = 0; j < n && k < rank; j++)
            dot += (double)v[k * n + j] * y[k * n + j];
        if (k < rank && value > 0.01)
            CHECK_NEAR(fabs(dot), 1, 1e-6);
    }
    size_t sure = r < rank ? r : rank;
    float *alone = calloc(r * m, sizeof(*alone)); /* the same to the sign without v */
    CHECK_OK(dr_svd(s, alone, NULL, a, m, n, r, 1e-10));
    float off = 0;
    for (size_t i = 0; i < sure * m; i++)
        off = fmaxf(off, fabsf(fabsf(alone[i]) - fabsf(u[i])));
    CHECK_NEAR(off, 0, 0);
    free(alone);
    CHECK(off_orthonormal(u, sure, m) < 1e-5);
    CHECK(off_orthonormal(v, sure, n) < 1e-5);
    free(x);
    free(y);
    free(s);
    free(a);
    free(u);
    free(v);
}

/* Noise, whose values lie close together: all of its energy, and each residual. */
static void test_noise(size_t m, size_t n, size_t r)
{
    float *a = calloc(m * n, sizeof(*a)), *u = calloc(r * m, sizeof(*u));
    float *v = calloc(r * n, sizeof(*v)), *again = calloc(r * n, sizeof(*again));
    double *s = calloc(r, sizeof(*s)), all = 0, sum = 0;
    dr_rng rng;

    dr_rng_init(&rng, 9, m);
    for (size_t i = 0; i < m * n; i++) {
        a[i] = dr_rng_normal(&rng);
        all += (double)a[i] * (double)a[i];
    }
    CHECK_OK(dr_svd(s, u, v, a, m, n, r, 1e-10));
    for (size_t k = 0; k < r; k++) {
        size_t at = 0;
        CHECK(k == 0 || s[k] <= s[k - 1]);
        CHECK(residual(a, m, n, s[k], u + k * m, v + k * n) < 1e-5 * s[0]);
        sum += s[k] * s[k];
        for (size_t j = 1; j < n; j++)
            at = fabsf(v[k * n + j]) > fabsf(v[k * n + at]) ? j : at;
        CHECK(v[k * n + at] > 0);
    }
    CHECK(sum <= all * (1 + 1e-12));
    if (r == (m < n ? m : n))
        CHECK_NEAR(sum, all, 1e-9 * all);
    CHECK(off_orthonormal(u, r, m) < 1e-5);
    CHECK(off_orthonormal(v, r, n) < 1e-5);
    CHECK_OK(dr_svd(s, u, again, a, m, n, r, 1e-10));
    CHECK_MEM(v, again, r * n * sizeof(*v));
    free(s);
    free(a);
    free(u);
    free(v);
    free(again);
}

/* By subspace iteration: a matrix that falls fast as it is; of noise a part, more of it
 * with each iteration, never more than there is. */
static void test_lowrank(size_t m, size_t n, size_t r)
{
    float *a = calloc(m * n, sizeof(*a)), *u = calloc(r * m, sizeof(*u));
    float *v = calloc(r * n, sizeof(*v)), *again = calloc(r * n, sizeof(*again));
    double *s = calloc(r, sizeof(*s)), *x = calloc(r * m, sizeof(*x)), best = 0, was = 0;
    double *y = calloc(r * n, sizeof(*y));
    dr_rng rng;

    random_rows(x, r, m, 3);
    random_rows(y, r, n, 4);
    for (size_t i = 0; i < m * n; i++)
        for (size_t k = 0; k < r; k++)
            a[i] += (float)(pow(0.7, (double)k) * x[k * m + i / n] * y[k * n + i % n]);
    CHECK_OK(dr_svd_lowrank(s, u, v, a, m, n, r, 4, 7));
    for (size_t k = 0; k < r; k++) {
        CHECK_NEAR(s[k], pow(0.7, (double)k), 1e-6);
        CHECK(residual(a, m, n, s[k], u + k * m, v + k * n) < 1e-6);
    }
    dr_rng_init(&rng, 9, m);
    for (size_t i = 0; i < m * n; i++)
        a[i] = dr_rng_normal(&rng);
    CHECK_OK(dr_svd(s, u, v, a, m, n, r, 1e-10));
    for (size_t k = 0; k < r; k++)
        best += s[k] * s[k];
    for (int iterations = 0; iterations <= 64; iterations = iterations * 2 + 1) {
        double sum = 0;
        CHECK_OK(dr_svd_lowrank(s, u, v, a, m, n, r, iterations, 7));
        for (size_t k = 0; k < r; k++)
            sum += s[k] * s[k];
        CHECK(sum > was && sum <= best * (1 + 1e-9));
        CHECK(off_orthonormal(u, r, m) < 1e-5 && off_orthonormal(v, r, n) < 1e-5);
        was = sum;
    }
    CHECK(was > 0.99 * best);
    CHECK_OK(dr_svd_lowrank(s, u, again, a, m, n, r, 63, 7));
    CHECK_MEM(again, v, r * n * sizeof(*v));
    CHECK_OK(dr_svd_lowrank(s, u, again, a, m, n, r, 0, 8));
    CHECK(memcmp(again, v, r * n * sizeof(*v)) != 0);
    free(a);
    free(u);
    free(v);
    free(again);
    free(s);
    free(x);
    free(y);
}

static void test_edges(void)
{
    float zero[12] = {0}, unit[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1}, u[12], v[12];
    double s[3];

    CHECK_OK(dr_svd(s, u, v, zero, 3, 4, 3, 1e-10));
    CHECK_NEAR(s[0], 0, 0);
    CHECK_OK(dr_svd(s, u, v, unit, 3, 3, 3, 1e-10)); /* one value, three times */
    CHECK_NEAR(s[2], 1, 1e-12);
    CHECK(off_orthonormal(v, 3, 3) < 1e-6);
    zero[0] = -2.5f;
    CHECK_OK(dr_svd(s, u, v, zero, 1, 1, 1, 1e-10));
    CHECK_NEAR(s[0], 2.5, 1e-12);
    CHECK_NEAR(u[0], -1, 1e-7);
    CHECK_NEAR(v[0], 1, 1e-7);
    zero[5] = (float)NAN;
    CHECK_STATUS(dr_svd(s, u, v, zero, 3, 4, 1, 1e-10), DR_EFORMAT);
    CHECK_TRAIL("nan");
}

int main(void)
{
    test_known(60, 40, 30, 8, 0.7);
    test_known(40, 60, 30, 8, 0.7);
    test_known(50, 50, 50, 50, 0.9);
    test_known(48, 32, 5, 9, 0.5); /* more than there are */
    test_known(300, 200, 100, 16, 0.95);
    test_noise(64, 64, 16);
    test_noise(64, 172, 64);
    test_noise(172, 64, 64);
    test_noise(200, 150, 20);
    test_lowrank(120, 60, 9);
    test_lowrank(60, 120, 9);
    test_edges();
    return check_done();
}
