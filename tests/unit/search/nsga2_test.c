/*
 * nsga2_test.c - fronts beside the longest chains of candidates that beat each other, which
 * is the same by Dilworth's dual (Mirsky 1971); fronts that NSGA-II finds beside those of
 * ZDT1 and ZDT2 (Zitzler, Deb and Thiele 2000), which are known: g = 1, and there
 * f2 = 1 - sqrt(f1) and 1 - f1^2.
 */
#include "search/search_impl.h"

#include "check.h"

enum { ROWS = 150, FIGURES = 3, STEPS = 16, TRIED = 400, SEEDS = 5 };

/* ---- fronts ---- */

static const search_figure figures[FIGURES] = {
    {false, 1, false, 0}, {true, 2, true, 0.3}, {false, 3, false, 0}};

/* By definition: a failed one loses against others; of those that miss the limit the nearer
 * wins, and any that meets it; else, as far from it, no figure is worse and one better. */
static bool beats(const double *a, const double *b)
{
    const bool failed_a = isnan(a[0]), failed_b = isnan(b[0]);
    const bool misses_a = a[1] < 0.3, misses_b = b[1] < 0.3;

    if (failed_a || failed_b)
        return !failed_a && failed_b;
    if (misses_a != misses_b || (misses_a && a[1] != b[1]))
        return misses_a == misses_b ? a[1] > b[1] : misses_b;
    return a[0] <= b[0] && a[1] >= b[1] && a[2] <= b[2] &&
           (a[0] < b[0] || a[1] > b[1] || a[2] < b[2]);
}

/* Of candidates one after the other, each beaten by the next, that end in i. */
static int chain(double (*v)[FIGURES], int i, int *known)
{
    if (known[i] > 0)
        return known[i] - 1;
    int longest = 0;
    for (int j = 0; j < ROWS; j++)
        if (beats(v[j], v[i])) {
            int n = 1 + chain(v, j, known);
            longest = n > longest ? n : longest;
        }
    known[i] = longest + 1;
    return longest;
}

static void test_fronts(void)
{
    const search_dim one = {ROWS, true, -1, 0};
    const search_space space = {&one, 1};

    for (uint64_t seed = 0; seed < 8; seed++) {
        const search_options o = {SEARCH_NSGA2, seed, 0, true, true};
        double v[ROWS][FIGURES];
        int rank[ROWS], known[ROWS] = {0}, most = 0;
        search *s = NULL;
        dr_rng rng;
        dr_rng_init(&rng, seed, 1);
        search_open(&s, &space, figures, FIGURES, &o);
        for (int i = 0; i < ROWS; i++) {
            for (int k = 0; k < FIGURES; k++) /* a grid: many are equal */
                v[i][k] = (double)dr_rng_below(&rng, 12) / 10;
            if (i % 17 == 3)
                v[i][0] = v[i][1] = v[i][2] = (double)NAN;
            search_tell(s, &i, i % 17 == 3 ? NULL : v[i]);
        }
        search_fronts(s, rank);
        for (int i = 0; i < ROWS; i++) {
            CHECK_EQ_INT(rank[i], chain(v, i, known));
            most = rank[i] > most ? rank[i] : most;
        }
        CHECK(most >= 5);
        search_close(s);
    }
}

/* ---- known fronts ---- */

static int by_first(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (x[0] > y[0]) - (x[0] < y[0]);
}

/* The area that points (both figures: lower) beat, up to (1, 1); sorts them. */
static double area(double (*v)[2], size_t n)
{
    double sum = 0, low = 1;

    qsort(v, n, sizeof(*v), by_first);
    for (size_t i = 0; i < n; i++)
        if (v[i][0] < 1 && v[i][1] < low) {
            sum += (1 - v[i][0]) * (low - v[i][1]);
            low = v[i][1];
        }
    return sum;
}

static double second(bool convex, double x, double g)
{
    return convex ? g * (1 - sqrt(x / g)) : g * (1 - x / g * (x / g));
}

static void test_area(void)
{
    enum { N = 20000 };
    double(*v)[2] = malloc(N * sizeof(*v));

    for (int convex = 0; convex < 2; convex++) {
        for (int i = 0; i < N; i++) {
            v[i][0] = (double)i / N;
            v[i][1] = second(convex, v[i][0], 1);
        }
        CHECK_NEAR(area(v, N), convex ? 2.0 / 3 : 1.0 / 3, 1e-3); /* the integrals */
    }
    free(v);
}

/* What 400 of 4096 points beat, as a share of what the front's 16 do. */
static double found(search_sampler sampler, uint64_t seed, bool convex)
{
    const search_dim dims[] = {
        {STEPS, true, -1, 0}, {STEPS, true, -1, 0}, {STEPS, true, -1, 0}};
    const search_space space = {dims, 3};
    const search_figure f[] = {{false, 1, false, 0}, {false, 2, false, 0}};
    const search_options o = {sampler, seed, TRIED, true, true};
    double v[TRIED][2], best[STEPS][2];
    search *s = NULL;
    size_t n = 0;
    int p[3];

    search_open(&s, &space, f, 2, &o);
    while (search_next(s, p)) {
        v[n][0] = p[0] / (STEPS - 1.0);
        v[n][1] = second(convex, v[n][0], 1 + 9 * (p[1] + p[2]) / (2 * (STEPS - 1.0)));
        search_tell(s, p, v[n++]);
    }
    search_close(s);
    CHECK_EQ_INT(n, TRIED);
    for (int i = 0; i < STEPS; i++) {
        best[i][0] = i / (STEPS - 1.0);
        best[i][1] = second(convex, best[i][0], 1);
    }
    return area(v, TRIED) / area(best, STEPS);
}

static void test_known(void)
{
    for (int convex = 0; convex < 2; convex++) {
        double least = 1, random = 0;
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            double share = found(SEARCH_NSGA2, seed, convex);
            least = share < least ? share : least;
            random += found(SEARCH_RANDOM, seed, convex) / SEEDS;
            CHECK(share <= 1 + 1e-12);
        }
        (void)printf("ZDT%d: nsga2 %.4f of the front's area at least, random %.4f\n",
                     convex ? 1 : 2, least, random);
        CHECK(least > 0.99);
        CHECK(random < 0.9);
    }
}

int main(void)
{
    test_fronts();
    test_area();
    test_known();
    return check_done();
}
