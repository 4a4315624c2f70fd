/*
 * rng_test.c - Philox against the known answers of Random123 (kat_vectors), and the
 * distributions roughly.
 */
#include "check.h"

#include "core/rng.h"

static void test_known(void)
{
    static const struct {
        uint64_t seed, stream, i;
        uint32_t want[4];
    } rows[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX,
         UINT64_MAX,
         UINT64_MAX,
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822,
         0x0370734413198a2e,
         0x85a308d3243f6a88,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    uint32_t out[4];

    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_philox(out, rows[i].seed, rows[i].stream, rows[i].i);
        CHECK_MEM(out, rows[i].want, sizeof(out));
    }
}

static void test_stream(void)
{
    uint32_t block[4];
    dr_rng a, b;
    size_t wrong = 0, same = 0;

    dr_rng_init(&a, 42, 3);
    for (uint64_t i = 0; i < 100; i++) {
        dr_philox(block, 42, 3, i);
        for (int j = 0; j < 4; j++)
            wrong += dr_rng_u32(&a) != block[j];
    }
    CHECK_EQ_INT(wrong, 0);
    dr_rng_init(&a, 42, 3);
    dr_rng_init(&b, 42, 4);
    for (int i = 0; i < 1000; i++)
        same += dr_rng_u32(&a) == dr_rng_u32(&b);
    CHECK(same < 3);
}

static void test_below(void)
{
    int seen[10] = {0};
    dr_rng r;

    dr_rng_init(&r, 5, 0);
    for (int i = 0; i < 100000; i++)
        seen[dr_rng_below(&r, 10)]++;
    for (int i = 0; i < 10; i++)
        CHECK_NEAR(seen[i], 10000, 500); /* five standard deviations */
    CHECK_EQ_INT(dr_rng_below(&r, 1), 0);
    for (int i = 0; i < 100; i++)
        CHECK(dr_rng_below(&r, UINT64_MAX) < UINT64_MAX);
}

static void test_floats(void)
{
    enum { N = 200000 };
    double sum = 0, sum2 = 0, u = 0;
    size_t outside = 0;
    dr_rng r;

    dr_rng_init(&r, 6, 0);
    for (int i = 0; i < N; i++) {
        float x = dr_rng_uniform(&r);
        outside += !(x >= 0 && x < 1);
        u += (double)x;
        double z = (double)dr_rng_normal(&r);
        outside += !isfinite(z);
        sum += z;
        sum2 += z * z;
    }
    CHECK_EQ_INT(outside, 0);
    CHECK_NEAR(u / N, 0.5, 0.004);
    CHECK_NEAR(sum / N, 0, 0.012);
    CHECK_NEAR(sum2 / N, 1, 0.02);
}

int main(void)
{
    test_known();
    test_stream();
    test_below();
    test_floats();
    return check_done();
}
