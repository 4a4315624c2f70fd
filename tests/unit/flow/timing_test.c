/*
 * timing_test.c - statistics of times against closed forms; intervals against what they
 * claim: of 100 of them 95 hold the truth, whatever the machine does meanwhile.
 */
#include "core/rng.h"
#include "flow/run_impl.h"

#include "check.h"

enum { RUNS = 20, ROUNDS = 200 };

static void test_statistics(void)
{
    static const char *const names[] = {"avg", "min", "max", "p50", "p75", "p99", "p999"};
    /* numpy.percentile of 1..21, and of 4 values */
    const double expected[] = {11, 1, 21, 11, 16, 20.8, 20.98};
    double few[] = {8, 1, 2, 4};

    for (size_t i = 0; i < DR_COUNT(names); i++) {
        double v[21];
        for (int k = 0; k < 21; k++)
            v[k] = (k * 8) % 21 + 1; /* all of them, out of order */
        CHECK_NEAR(timing_statistic(names[i], v, 21), expected[i], 1e-12);
    }
    CHECK_NEAR(timing_statistic("p75", few, 4), 5, 1e-12);
    CHECK_NEAR(timing_statistic("p90", few, 4), 6.8, 1e-12);
}

/* Times around `truth`, 10 % wide, on a machine that slows down by half on the way. */
static void make_times(double *own, double *beside, double truth, double load, dr_rng *rng)
{
    for (int i = 0; i < RUNS; i++) {
        double slow = load * (1 + 0.5 * i / RUNS);
        own[i] = truth * slow * exp(0.1 * (double)dr_rng_normal(rng));
        beside[i] = 10 * slow * exp(0.1 * (double)dr_rng_normal(rng));
    }
}

static void test_interval(void)
{
    double own[RUNS], beside[RUNS], sum = 0;
    int held = 0;
    dr_rng rng;

    dr_rng_init(&rng, 7, 0);
    for (int round = 0; round < ROUNDS; round++) {
        /* the load is another one each time; the one beside once took 10 */
        make_times(own, beside, 8, 1 + (round % 5), &rng);
        run_value v = timing_figure("avg", own, beside, RUNS, 10);
        CHECK(v.low <= v.value && v.value <= v.high);
        held += v.low <= 8 && 8 <= v.high;
        sum += v.value;
    }
    CHECK_NEAR(sum / ROUNDS, 8, 0.08);
    CHECK(held > 0.89 * ROUNDS && held < ROUNDS);
    run_value alone = timing_figure("p50", beside, NULL, RUNS, 0);
    CHECK(alone.low < alone.value && alone.value < alone.high);
    run_value again = timing_figure("p50", beside, NULL, RUNS, 0);
    CHECK_MEM(&alone, &again, sizeof(alone));
}

/* Two that are the same model tie nearly always; one 30 % faster never does. */
static void test_winner(void)
{
    const search_figure f = {false, 1, false, 0};
    int wrong = 0, tied = 0;
    dr_rng rng;

    dr_rng_init(&rng, 8, 0);
    for (int round = 0; round < ROUNDS; round++) {
        double own[RUNS], beside[RUNS], values[2], slack[2];
        const search_table t = {values, slack, 2, &f, 1};
        size_t order[2];
        const double truth[] = {8, round % 2 ? 8 : 5.6};
        for (int k = 0; k < 2; k++) {
            make_times(own, beside, truth[k], k + 1, &rng); /* the later one under load */
            run_value v = timing_figure("avg", own, beside, RUNS, 10);
            values[k] = v.value;
            slack[k] = (v.high - v.low) / 2;
        }
        search_order(order, NULL, &t);
        if (round % 2)
            tied += order[0] == 0;
        else
            wrong += order[0] != 1;
    }
    CHECK_EQ_INT(wrong, 0);
    CHECK(tied > 0.93 * ROUNDS / 2);
}

int main(void)
{
    test_statistics();
    test_interval();
    test_winner();
    return check_done();
}
