/*
 * rotation_test.c - matrices of rotations by what defines them: orthogonal, all entries
 * alike for Hadamard's, moments of the uniform ones; the same for any number of threads.
 */
#include "quant/rotation_impl.h"
#include "quant_fixture.h"

static nn_device *one, *three;

/* R[n][n], from rows of the identity. */
static float *matrix(nn_device *dev, size_t n, bool random, uint64_t seed, uint64_t stream)
{
    quant_rotation r = {0};
    float *m = dr_calloc(n * n, sizeof(*m));

    for (size_t i = 0; i < n; i++)
        m[i * n + i] = 1;
    CHECK_OK(quant_rotation_make(&r, nn_device_pool(dev), n, random, seed, stream));
    CHECK_OK(quant_rotation_rows(&r, dev, m, n));
    quant_rotation_release(&r);
    return m;
}

/* The greatest entry of R R^T - I. */
static double skew(const float *m, size_t n)
{
    double worst = 0;

    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j <= i; j++) {
            double sum = i == j ? -1 : 0;
            for (size_t k = 0; k < n; k++)
                sum += (double)m[i * n + k] * (double)m[j * n + k];
            worst = fmax(worst, fabs(sum));
        }
    }
    return worst;
}

/* The greatest distance of an entry's magnitude from 1 / sqrt(n). */
static double uneven(const float *m, size_t n)
{
    double worst = 0;

    for (size_t i = 0; i < n * n; i++)
        worst = fmax(worst, fabs(fabs((double)m[i]) - 1 / sqrt((double)n)));
    return worst;
}

static void test_orders(void)
{
    static const struct {
        size_t n, order;
    } rows[] = {
        {1, 1},    {2, 1},    {64, 1},   {12, 12},   {20, 20},    {24, 12},   {28, 28},
        {36, 36},  {44, 44},  {80, 20},  {96, 12},   {104, 104},  {112, 28},  {576, 36},
        {640, 20}, {896, 28}, {960, 60}, {3072, 12}, {2880, 180}, {5376, 84}, {92, 0},
        {52, 0},   {6, 0},    {7, 0},    {5120, 20},
    };

    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        if (!CHECK_EQ_INT(quant_hadamard_order(rows[i].n), rows[i].order))
            (void)printf("  %zu\n", rows[i].n);
    }
}

/* Sizes without a block of Paley's, of his first kind (12, 20, 44, 104) and second (28,
 * 36), and those that have no Hadamard matrix here. */
static void test_orthogonal(void)
{
    static const size_t sizes[] = {1,  2,  4,  12, 20,  24,  28, 36,
                                   44, 72, 80, 96, 104, 180, 576};
    static const size_t odd[] = {2, 6, 7, 52, 150};

    for (size_t i = 0; i < DR_COUNT(sizes); i++) {
        float *m = matrix(one, sizes[i], false, 0, i);
        if (!CHECK(skew(m, sizes[i]) < 1e-6) || !CHECK(uneven(m, sizes[i]) < 1e-7))
            (void)printf("  %zu\n", sizes[i]);
        free(m);
    }
    for (size_t i = 0; i < DR_COUNT(odd); i++) {
        float *m = matrix(one, odd[i], true, 0, i);
        CHECK(skew(m, odd[i]) < 1e-5);
        CHECK(odd[i] == 2 || uneven(m, odd[i]) > 0.1 / sqrt((double)odd[i]));
        free(m);
    }
    float *six = matrix(one, 6, false, 3, 0), *same = matrix(one, 6, true, 3, 0);
    CHECK_MEM(six, same, 36 * sizeof(*six));
    free(six);
    free(same);
}

/* Sylvester's of 4 by hand, but for the signs of its rows. */
static void test_four(void)
{
    static const float h[16] = {1, 1, 1, 1, 1, -1, 1, -1, 1, 1, -1, -1, 1, -1, -1, 1};
    bool seen[2] = {false, false};

    for (uint64_t seed = 0; seed < 8; seed++) {
        float *m = matrix(one, 4, false, seed, 5);
        for (size_t i = 0; i < 4; i++) {
            float sign = m[4 * i] < 0 ? -1.0f : 1.0f;
            seen[sign > 0] = true;
            for (size_t j = 0; j < 4; j++)
                CHECK_NEAR(m[4 * i + j], sign * h[4 * i + j] / 2, 1e-7);
        }
        free(m);
    }
    CHECK(seen[0] && seen[1]);
}

/* An entry of a uniform 3 x 3 is one of a point on the sphere: mean 0, its square 1/3, its
 * fourth power 1/5; so is every other, and rows are no worse than columns. */
static void test_uniform(void)
{
    enum { COUNT = 4000 };
    double sum[3][9] = {{0}};

    for (uint64_t seed = 0; seed < COUNT; seed++) {
        float *m = matrix(one, 3, true, seed, 0);
        for (size_t i = 0; i < 9; i++) {
            double v = (double)m[i];
            sum[0][i] += v / COUNT;
            sum[1][i] += v * v / COUNT;
            sum[2][i] += v * v * v * v / COUNT;
        }
        free(m);
    }
    for (size_t i = 0; i < 9; i++) { /* five standard errors */
        CHECK_NEAR(sum[0][i], 0, 5 * sqrt(1.0 / 3 / COUNT));
        CHECK_NEAR(sum[1][i], 1.0 / 3, 5 * sqrt((1.0 / 5 - 1.0 / 9) / COUNT));
        CHECK_NEAR(sum[2][i], 1.0 / 5, 5 * sqrt((1.0 / 9 - 1.0 / 25) / COUNT));
    }
}

static void test_threads_and_seeds(void)
{
    for (int random = 0; random < 2; random++) {
        float *a = matrix(one, 72, random, 1, 2), *b = matrix(three, 72, random, 1, 2);
        float *seed = matrix(one, 72, random, 2, 2),
              *stream = matrix(one, 72, random, 1, 3);
        CHECK_MEM(a, b, 72 * 72 * sizeof(*a));
        CHECK(memcmp(a, seed, 72 * 72 * sizeof(*a)) != 0);
        CHECK(memcmp(a, stream, 72 * 72 * sizeof(*a)) != 0);
        free(a);
        free(b);
        free(seed);
        free(stream);
    }
}

int main(void)
{
    CHECK_OK(nn_device_open(&one, "cpu", 1));
    CHECK_OK(nn_device_open(&three, "cpu", 3));
    test_orders();
    test_orthogonal();
    test_four();
    test_uniform();
    test_threads_and_seeds();
    nn_device_close(one);
    nn_device_close(three);
    return check_done();
}
