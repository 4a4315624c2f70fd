/*
 * sampler_test.c - spaces, goals, orders, and samplers against functions whose best points
 * are known in closed form.
 */
#include "search/search.h"

#include "check.h"

enum { N = 4 };

/* ---- spaces ---- */

static void test_space(void)
{
    /* two ways; one has a parameter of 3 values, the other two of 2; then one of 5 */
    const search_dim dims[] = {{2, false, -1, 0},
                               {3, true, 0, 0},
                               {2, false, 0, 1},
                               {2, false, 0, 1},
                               {5, true, -1, 0}};
    const search_space s = {dims, DR_COUNT(dims)}, none = {NULL, 0};
    int p[DR_COUNT(dims)], count = 1;

    CHECK_EQ_INT(search_space_size(&s), (3 + 4) * 5);
    CHECK_EQ_INT(search_space_size(&none), 1);
    search_first(&s, p);
    CHECK(p[0] == 0 && p[1] == 0 && p[2] == -1 && p[3] == -1 && p[4] == 0);
    while (search_following(&s, p)) {
        count++;
        CHECK((p[1] >= 0) == (p[0] == 0) && (p[2] >= 0) == (p[0] == 1));
    }
    CHECK_EQ_INT(count, 35);
    CHECK(p[0] == 1 && p[1] == -1 && p[2] == 1 && p[3] == 1 && p[4] == 4);
    const search_dim many[] = {
        {1 << 30, true, -1, 0}, {1 << 30, true, -1, 0}, {1 << 30, true, -1, 0}};
    CHECK(search_space_size(&(search_space){many, 3}) == SIZE_MAX);
}

/* ---- goals ---- */

static double limit(search_goal_kind kind, double value, bool higher, double base)
{
    return search_goal_limit((search_goal){kind, value}, higher, base);
}

static void test_goals(void)
{
    CHECK_NEAR(limit(SEARCH_THRESHOLD, 7, true, 100), 7, 0);
    CHECK_NEAR(limit(SEARCH_MIN_IMPROVEMENT, 3, true, 10), 13, 0);
    CHECK_NEAR(limit(SEARCH_MIN_IMPROVEMENT, 3, false, 10), 7, 0);
    CHECK_NEAR(limit(SEARCH_PERCENT_MIN_IMPROVEMENT, 20, true, 10), 12, 1e-12);
    CHECK_NEAR(limit(SEARCH_PERCENT_MIN_IMPROVEMENT, 20, false, 10), 8, 1e-12);
    CHECK_NEAR(limit(SEARCH_MAX_DEGRADATION, 3, true, 10), 7, 0);
    CHECK_NEAR(limit(SEARCH_MAX_DEGRADATION, 3, false, 10), 13, 0);
    CHECK_NEAR(limit(SEARCH_PERCENT_MAX_DEGRADATION, 20, true, 10), 8, 1e-12);
    CHECK_NEAR(limit(SEARCH_PERCENT_MAX_DEGRADATION, 20, false, 10), 12, 1e-12);
    CHECK(!search_goal_needs_baseline((search_goal){SEARCH_THRESHOLD, 1}));
    CHECK(search_goal_needs_baseline((search_goal){SEARCH_MAX_DEGRADATION, 1}));
}

static void test_order(void)
{
    /* loss: lower, first; speed: higher, second */
    search_figure f[] = {{false, 1, false, 0}, {true, 2, false, 0}};
    const double v[] = {1,   1, /* front */
                        2,   5, /* front */
                        2,   4, /* beaten by the second */
                        3,   9, /* front */
                        NAN, 0, /* failed */
                        4,   2};
    const search_table t = {v, NULL, 6, f, 2};
    bool front[6];
    size_t order[6], met = 0;

    search_front(front, &t, false);
    CHECK(front[0] && front[1] && !front[2] && front[3] && !front[4] && !front[5]);
    search_order(order, &met, &t);
    const size_t plain[] = {0, 1, 3, 2, 5, 4};
    CHECK_MEM(order, plain, sizeof(plain));
    CHECK_EQ_INT(met, 5);
    f[1].limited = true; /* speed of 4 at least */
    f[1].limit = 4;
    search_order(order, &met, &t);
    const size_t fast[] = {1, 3, 2, 0, 5, 4};
    CHECK_MEM(order, fast, sizeof(fast));
    CHECK_EQ_INT(met, 3);
    f[1].limit = 100; /* nobody: the same as without goals */
    search_order(order, &met, &t);
    CHECK_MEM(order, plain, sizeof(plain));
    CHECK_EQ_INT(met, 0);
    f[0].priority = 2; /* speed first */
    f[1].priority = 1;
    f[1].limited = false;
    search_order(order, NULL, &t);
    const size_t speed[] = {3, 1, 0, 2, 5, 4};
    CHECK_MEM(order, speed, sizeof(speed));
}

/* Times that differ by less than is known of them tie: what decides is the next figure, and
 * then who came first. */
static void test_ties(void)
{
    /* time: lower, first; loss: lower, second */
    const search_figure f[] = {{false, 1, false, 0}, {false, 2, false, 0}};
    const double v[] = {10, 3, 9.5, 5, 9.6, 3, 20, 1, 9.9, 3};
    const double wide[] = {0.5, 0, 0.5, 0, 0.5, 0, 0.5, 0, 0.5, 0};
    const double narrow[] = {0.01, 0, 0.01, 0, 0.01, 0, 0.01, 0, 0.01, 0};
    search_table t = {v, wide, 5, f, 2};
    bool front[5];
    size_t order[5];

    search_order(order, NULL, &t);
    const size_t tied[] = {0, 2, 4, 1, 3};
    CHECK_MEM(order, tied, sizeof(tied));
    search_front(front, &t, false); /* 0 is slower than 2 by less than is known */
    CHECK(front[0] && front[1] && front[2] && front[3] && front[4]);
    t.slack = narrow; /* the same figures, known better */
    search_order(order, NULL, &t);
    const size_t known[] = {1, 2, 3, 4, 0};
    CHECK_MEM(order, known, sizeof(known));
    search_front(front, &t, false);
    CHECK(!front[0] && front[1] && front[2] && front[3] && !front[4]);
    t.slack = NULL;
    search_order(order, NULL, &t);
    CHECK_MEM(order, known, sizeof(known));
}

/* ---- samplers ---- */

static const search_dim grid[N] = {
    {5, true, -1, 0}, {3, false, -1, 0}, {2, false, -1, 0}, {2, true, -1, 0}};
static const search_space sixty = {grid, N};

/* A quadratic with its least value, 1, at (3, 2, 0, 1). */
static double quadratic(const int *p)
{
    static const double of_kind[] = {0.5, 0.9, 0};

    return 1 + 0.3 * (p[0] - 3) * (p[0] - 3) + of_kind[p[1]] + 0.4 * p[2] +
           0.2 * (1 - p[3]) * (1 + 0.5 * p[2]);
}

/* The least value that a sampler finds with so many points; all of them are new. */
static double best_of(search_sampler sampler, uint64_t seed, size_t samples,
                      bool multivariate)
{
    const search_figure f = {false, 1, false, 0};
    const search_options o = {sampler, seed, samples, multivariate, true};
    search *s = NULL;
    double best = INFINITY;
    bool seen[60] = {false};
    size_t count = 0;
    int p[N];

    search_open(&s, &sixty, &f, 1, &o);
    while (search_next(s, p)) {
        int at = ((p[0] * 3 + p[1]) * 2 + p[2]) * 2 + p[3];
        double v = quadratic(p);
        CHECK(!seen[at]);
        seen[at] = true;
        count++;
        best = v < best ? v : best;
        search_tell(s, p, &v);
    }
    CHECK_EQ_INT(count, samples == 0 || samples > 60 ? 60 : samples);
    search_close(s);
    return best;
}

static int within(search_sampler sampler, bool multivariate)
{
    int n = 0;

    for (uint64_t seed = 0; seed < 10; seed++)
        n += best_of(sampler, seed, 15, multivariate) <= 1.02;
    return n;
}

static void test_samplers(void)
{
    const search_sampler all[] = {SEARCH_SEQUENTIAL, SEARCH_RANDOM, SEARCH_TPE,
                                  SEARCH_NSGA2};

    for (size_t i = 0; i < DR_COUNT(all); i++) {
        CHECK_NEAR(best_of(all[i], 3, 0, true), 1, 0); /* every point, once */
        CHECK_NEAR(best_of(all[i], 3, 1000, true), 1, 0);
    }
    int tpe = within(SEARCH_TPE, true), alone = within(SEARCH_TPE, false);
    int random = within(SEARCH_RANDOM, true);
    (void)printf("15 of 60 points, 10 seeds: tpe %d, each alone %d, random %d\n", tpe,
                 alone, random);
    CHECK(tpe >= 8);
    CHECK(alone >= 8);
    CHECK(random < tpe);
}

/* The way with more parameters is the better one, at one of its points. */
static void test_conditional(void)
{
    const search_dim dims[] = {{3, false, -1, 0},
                               {8, true, 0, 0},
                               {8, true, 0, 1},
                               {8, true, 0, 1},
                               {4, false, 0, 2}};
    const search_space space = {dims, DR_COUNT(dims)};
    const search_figure f = {false, 1, false, 0};
    int p[DR_COUNT(dims)], found = 0;

    for (uint64_t seed = 0; seed < 10; seed++) {
        const search_options o = {SEARCH_TPE, seed, 30, true, true};
        search *s = NULL;
        double best = INFINITY;
        search_open(&s, &space, &f, 1, &o);
        while (search_next(s, p)) {
            double v = p[0] == 0   ? 5 + p[1]
                       : p[0] == 2 ? 6 + p[4]
                                   : 1 + abs(p[2] - 5) + 0.5 * abs(p[3] - 2);
            best = v < best ? v : best;
            search_tell(s, p, &v);
        }
        found += best <= 1.5;
        search_close(s);
    }
    (void)printf("30 of 76 points: %d of 10 seeds\n", found);
    CHECK(found >= 8);
}

/* Two figures against each other: the front is x2 = 0, all x1 (ZDT1's form), 16 points of
 * 16 * 256; and a limit that cuts it. */
static size_t front_found(search_sampler sampler, uint64_t seed, bool limited)
{
    const search_dim dims[] = {{16, true, -1, 0}, {16, true, -1, 0}, {16, true, -1, 0}};
    const search_space space = {dims, 3};
    const search_figure f[] = {{false, 1, limited, 0.5}, {false, 2, false, 0}};
    const search_options o = {sampler, seed, 400, true, true};
    search *s = NULL;
    bool hit[16] = {false};
    size_t n = 0;
    int p[3];

    search_open(&s, &space, f, 2, &o);
    while (search_next(s, p)) {
        double x = p[0] / 15.0, g = 1 + 9 * (p[1] + p[2]) / 30.0;
        const double v[] = {x, g * (1 - sqrt(x / g))};
        if (p[1] + p[2] == 0)
            hit[p[0]] = true;
        search_tell(s, p, v);
    }
    search_close(s);
    for (int i = 0; i < (limited ? 8 : 16); i++)
        n += hit[i];
    return n;
}

static void test_front(void)
{
    size_t nsga2 = 0, random = 0, limited = 0;

    for (uint64_t seed = 0; seed < 5; seed++) {
        nsga2 += front_found(SEARCH_NSGA2, seed, false);
        limited += front_found(SEARCH_NSGA2, seed, true);
        random += front_found(SEARCH_RANDOM, seed, false);
    }
    (void)printf("of 80 points of fronts: nsga2 %zu, random %zu; of 40 within: %zu\n",
                 nsga2, random, limited);
    CHECK(nsga2 >= 64);
    CHECK(limited >= 32);
    CHECK(random < 24);
}

/* What is handed out whatever is told: all but what tpe and nsga2 learn from. */
static void test_ahead(void)
{
    const search_figure f = {false, 1, false, 0};
    const size_t settled[] = {[SEARCH_SEQUENTIAL] = 60,
                              [SEARCH_RANDOM] = 60,
                              [SEARCH_TPE] = 6, /* dimensions and 2 */
                              [SEARCH_NSGA2] = 16};

    for (search_sampler k = SEARCH_SEQUENTIAL; k <= SEARCH_NSGA2; k++) {
        const search_options o = {k, 5, 0, true, true};
        int ahead[64 * N], p[N];
        search *s = NULL;
        search_open(&s, &sixty, &f, 1, &o);
        CHECK_EQ_INT(search_ahead(s, ahead, 3), 3);
        CHECK_EQ_INT(search_ahead(s, ahead, 64), settled[k]);
        for (size_t i = 0; i < settled[k]; i++) {
            double v = (double)i;
            CHECK(search_next(s, p));
            CHECK_MEM(p, ahead + i * N, sizeof(p));
            search_tell(s, p, &v);
        }
        CHECK_EQ_INT(search_ahead(s, ahead, 64), 0);
        search_close(s);
    }
}

/* The same seed, the same points; another seed, others; failures are no end. */
static void test_same(void)
{
    const search_figure f = {false, 1, false, 0};
    int p[3][N];

    for (search_sampler k = SEARCH_RANDOM; k <= SEARCH_NSGA2; k++) {
        search *s[3];
        bool differs = false;
        for (size_t i = 0; i < 3; i++)
            search_open(&s[i], &sixty, &f, 1,
                        &(search_options){k, i == 2 ? 8 : 7, 30, true, true});
        for (int n = 0; n < 30; n++) {
            for (size_t i = 0; i < 3; i++) {
                CHECK(search_next(s[i], p[i]));
                double v = quadratic(p[i]);
                search_tell(s[i], p[i], n % 5 == 4 ? NULL : &v);
            }
            CHECK_MEM(p[0], p[1], sizeof(p[0]));
            differs = differs || memcmp(p[0], p[2], sizeof(p[0])) != 0;
        }
        CHECK(differs);
        for (size_t i = 0; i < 3; i++)
            search_close(s[i]);
    }
}

int main(void)
{
    test_space();
    test_goals();
    test_order();
    test_ties();
    test_samplers();
    test_conditional();
    test_front();
    test_ahead();
    test_same();
    return check_done();
}
