/*
 * awq_race_test.c - who is dropped from judging: by the closed form of its rule, and over
 * texts whose sequences count very differently, of which the best must always stay.
 */
#include <math.h>

#include "check.h"
#include "core/mem.h"
#include "core/rng.h"
#include "quant/awq_impl.h"

enum { ALL = 64, TRIALS = 400, SEQUENCES = 128 };

/* Two candidates' differences have this mean and (n - 1) variance 1 over `done`, an even
 * number: is the second dropped? */
static bool drops(size_t done, double mean)
{
    bool alive[AWQ_CANDIDATES] = {false, true, true};
    double sums[AWQ_CANDIDATES * ALL] = {0};
    double off = sqrt((double)(done - 1) / (double)done);

    for (size_t i = 0; i < done; i++) {
        sums[ALL + i] = 50.0 + (double)(i % 7);
        sums[2 * ALL + i] = sums[ALL + i] + mean + (i % 2 > 0 ? off : -off);
    }
    awq_race_drop(alive, sums, ALL, done);
    CHECK(alive[1] && !alive[0] && !alive[3]);
    return !alive[2];
}

static void test_rule(void)
{
    for (size_t done = 16; done < ALL; done *= 2) {
        double edge = 6 * sqrt((1 - (double)done / ALL) / (double)done);
        CHECK(!drops(done, 0.999 * edge));
        CHECK(drops(done, 1.001 * edge));
    }
    CHECK(drops(ALL, 1e-6)); /* nothing is left that could turn it */
}

/* What is no number is neither the least nor dropped. */
static void test_nan(void)
{
    bool alive[AWQ_CANDIDATES] = {false, true, true, true};
    double sums[AWQ_CANDIDATES * ALL] = {0};

    for (size_t i = 0; i < 16; i++) {
        sums[ALL + i] = i == 3 ? (double)NAN : 0.5;
        sums[2 * ALL + i] = 1.0;
        sums[3 * ALL + i] = 2.0;
    }
    awq_race_drop(alive, sums, ALL, 16);
    CHECK(alive[1] && alive[2] && !alive[3]);
}

static void test_order(void)
{
    for (size_t count = 0; count <= 65; count += 13) {
        size_t place[65], again[65], moved = 0;
        bool seen[65] = {false};
        awq_race_order(place, count);
        awq_race_order(again, count);
        for (size_t i = 0; i < count; i++) {
            CHECK(place[i] < count && !seen[place[i]] && place[i] == again[i]);
            seen[place[i]] = true;
            moved += place[i] != i;
        }
        CHECK(count == 0 || moved > count / 2);
    }
}

/* One text, whose sequences' losses are lognormal and drift from its one end to the other,
 * candidates apart by what `spread` says; judged in a random order as a run does.  *judged
 * grows by the sequences that were. */
static void race(dr_rng *rng, double spread, size_t *judged)
{
    double *full = dr_calloc(AWQ_CANDIDATES * SEQUENCES, sizeof(*full)), least = HUGE_VAL;
    double *sums = dr_calloc(AWQ_CANDIDATES * SEQUENCES, sizeof(*sums));
    double weight[SEQUENCES];
    size_t place[SEQUENCES], best = 0;
    bool alive[AWQ_CANDIDATES];

    awq_race_order(place, SEQUENCES);
    for (size_t i = 0; i < SEQUENCES; i++)
        weight[i] = exp(0.5 * (double)dr_rng_normal(rng));
    for (size_t c = 0; c < AWQ_CANDIDATES; c++) {
        double own = 1 + spread * (double)dr_rng_uniform(rng), sum = 0;
        double drift = 0.2 * (double)dr_rng_normal(rng);
        for (size_t i = 0; i < SEQUENCES; i++) {
            double at = (double)i / SEQUENCES - 0.5;
            double v = weight[i] * own * exp(0.1 * (double)dr_rng_normal(rng) + drift * at);
            full[c * SEQUENCES + place[i]] = v;
            sum += v;
        }
        alive[c] = true;
        if (sum < least) {
            least = sum;
            best = c;
        }
    }
    for (size_t done = 16, from = 0; done <= SEQUENCES; from = done, done *= 2) {
        for (size_t c = 0; c < AWQ_CANDIDATES; c++) {
            for (size_t i = from; alive[c] && i < done; i++)
                sums[c * SEQUENCES + i] = full[c * SEQUENCES + i];
            *judged += alive[c] ? done - from : 0;
        }
        if (done < SEQUENCES)
            awq_race_drop(alive, sums, SEQUENCES, done);
    }
    CHECK(alive[best]);
    free(full);
    free(sums);
}

int main(void)
{
    dr_rng rng;
    size_t near = 0, far = 0;

    test_rule();
    test_nan();
    test_order();
    dr_rng_init(&rng, 5, 0);
    for (int i = 0; i < TRIALS; i++) {
        race(&rng, 0.02, &near);
        race(&rng, 2.0, &far);
    }
    (void)printf("judged: %zu and %zu of %d\n", near, far,
                 TRIALS * SEQUENCES * AWQ_CANDIDATES);
    /* what is close is judged to the end, what is not is not */
    CHECK(near > TRIALS * SEQUENCES * AWQ_CANDIDATES * 8 / 10);
    CHECK(far < TRIALS * SEQUENCES * AWQ_CANDIDATES * 4 / 10);
    return check_done();
}
