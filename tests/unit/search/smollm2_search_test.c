/*
 * smollm2_search_test.c - samplers on a real search: SmolLM2-135M quantized in 60 ways, all
 * of which were made and judged once (tests/golden/search; docs/WORKFLOWS.md).  A sampler
 * that may try 15 of them is told the figures of the table.  tpe's constants were chosen on
 * these goals; sampler_test.c has others.
 */
#include "search/search.h"

#include "check.h"

#include "core/arena.h"
#include "core/file.h"

enum { POINTS = 60, DIMS = 10, TRIED = 15, SEEDS = 10, MANY = 200, ALGORITHMS = 4 };

static const char *const algorithms[ALGORITHMS] = {"Rtn", "KQuant", "Hqq", "Gptq"};

/* The space of the workflow: an algorithm, its own parameters, then level and threads. */
static const search_dim dims[DIMS] = {
    {ALGORITHMS, false, -1, 0}, /* algorithm */
    {2, true, 0, 0},            /* Rtn: 4, 8 bits */
    {2, true, 0, 0},            /* groups of 32, 64 */
    {2, true, 0, 1},            /* KQuant: 32, 64 */
    {2, false, 0, 1},           /* 4 bits, or some linears of 8 */
    {3, true, 0, 2},            /* Hqq: 16, 32, 64 */
    {2, true, 0, 3},            /* Gptq, as KQuant */
    {2, false, 0, 3},
    {2, true, -1, 0}, /* accuracy level 1, 4 */
    {2, true, -1, 0}, /* threads 1, 2 */
};
static const search_space space = {dims, DIMS};

typedef struct {
    int point[DIMS];
    double kl, decode, bytes;
} row;
static row table[POINTS];

/* What is wanted: the best of `figure` where both limits are met. */
typedef struct {
    const char *name;
    bool needle;              /* one or two of the 60 are within 2 % of the best */
    search_figure figures[3]; /* kl, decode, bytes */
} goal;

static void read_row(row *r, const char *line)
{
    char algorithm[16] = "", mixed[24] = "";
    int bits = 0, group = 0, level = 0, threads = 0;
    double low, high;
    int a = 0;

    CHECK_EQ_INT(sscanf(line, "%15[^,],%d,%d,%23[^,],%d,%d,%lf,%lf,%lf,%lf,%lf", algorithm,
                        &bits, &group, mixed, &level, &threads, &r->kl, &r->decode, &low,
                        &high, &r->bytes),
                 11);
    while (a < ALGORITHMS && strcmp(algorithms[a], algorithm) != 0)
        a++;
    for (int d = 0; d < DIMS; d++)
        r->point[d] = -1;
    const int wide = group == 64, extra = strcmp(mixed, "none") != 0;
    r->point[0] = a;
    if (a == 0) {
        r->point[1] = bits == 8;
        r->point[2] = wide;
    } else if (a == 2) {
        r->point[5] = group == 16 ? 0 : 1 + wide;
    } else {
        r->point[a == 1 ? 3 : 6] = wide;
        r->point[a == 1 ? 4 : 7] = extra;
    }
    r->point[8] = level == 4;
    r->point[9] = threads == 2;
}

static void read_table(void)
{
    dr_arena a = {0};
    dr_buf b;
    size_t n = 0;

    dr_buf_init(&b, 1 << 20);
    CHECK_OK(dr_read_file(&b, DRUPE_SOURCE_DIR "/tests/golden/search/smollm2_60.csv"));
    char *text = dr_arena_strdup(&a, b.data), *next = strchr(text, '\n');
    while (next != NULL && next[1] != '\0' && n < POINTS) {
        char *line = next + 1;
        next = strchr(line, '\n');
        read_row(&table[n++], line);
    }
    CHECK_EQ_INT(n, POINTS);
    CHECK_EQ_INT(search_space_size(&space), POINTS);
    dr_buf_release(&b);
    dr_arena_release(&a);
}

static const row *row_of(const int *point)
{
    for (int i = 0; i < POINTS; i++)
        if (memcmp(table[i].point, point, sizeof(table[i].point)) == 0)
            return &table[i];
    return NULL;
}

/* The figure with a priority where all limits are met; else infinitely bad (as a cost). */
static double cost(const goal *g, const row *r)
{
    const double v[] = {r->kl, r->decode, r->bytes};
    double c = INFINITY;

    for (int k = 0; k < 3; k++) {
        if (!search_limit_met(&g->figures[k], v[k]))
            return INFINITY;
        if (g->figures[k].priority == 1)
            c = g->figures[k].higher_is_better ? 1 / v[k] : v[k];
    }
    return c;
}

static double best_of_table(const goal *g)
{
    double best = INFINITY;

    for (int i = 0; i < POINTS; i++)
        best = fmin(best, cost(g, &table[i]));
    return best;
}

static double best_of_search(const goal *g, search_sampler sampler, uint64_t seed)
{
    const search_options o = {sampler, seed, TRIED, true, true};
    double best = INFINITY;
    search *s = NULL;
    int p[DIMS];

    search_open(&s, &space, g->figures, 3, &o);
    while (search_next(s, p)) {
        const row *r = row_of(p);
        if (!CHECK(r != NULL))
            break;
        best = fmin(best, cost(g, r));
        search_tell(s, p, (const double[]){r->kl, r->decode, r->bytes});
    }
    search_close(s);
    return best;
}

static int within(const goal *g, search_sampler sampler, int seeds)
{
    const double best = best_of_table(g);
    int n = 0;

    for (int seed = 1; seed <= seeds; seed++)
        n += best_of_search(g, sampler, (uint64_t)seed) <= 1.02 * best;
    return n;
}

/* KL against speed, beside a plain comparison of all pairs. */
static void test_front(void)
{
    const search_figure f[] = {{false, 1, false, 0}, {true, 2, false, 0}};
    double v[POINTS][2];
    bool front[POINTS];
    int n = 0;

    for (int i = 0; i < POINTS; i++) {
        v[i][0] = table[i].kl;
        v[i][1] = table[i].decode;
    }
    search_front(front, &(search_table){v[0], NULL, POINTS, f, 2}, false);
    for (int i = 0; i < POINTS; i++) {
        bool beaten = false;
        for (int j = 0; j < POINTS; j++)
            beaten = beaten || (v[j][0] <= v[i][0] && v[j][1] >= v[i][1] &&
                                (v[j][0] < v[i][0] || v[j][1] > v[i][1]));
        CHECK(front[i] == !beaten);
        n += front[i];
    }
    CHECK(n >= 3 && n <= 20);
}

int main(void)
{
    static const goal goals[] = {
        {"least KL, decode at least 30",
         true,
         {{false, 1, false, 0}, {true, 0, true, 30}, {false, 0, false, 0}}},
        {"least KL, decode at least 25",
         false,
         {{false, 1, false, 0}, {true, 0, true, 25}, {false, 0, false, 0}}},
        {"fastest, KL at most 0.25",
         true,
         {{false, 0, true, 0.25}, {true, 1, false, 0}, {false, 0, false, 0}}},
        {"smallest, KL at most 0.2, decode at least 30",
         true,
         {{false, 0, true, 0.2}, {true, 0, true, 30}, {false, 1, false, 0}}},
        {"fastest, KL at most 0.12",
         true,
         {{false, 0, true, 0.12}, {true, 1, false, 0}, {false, 0, false, 0}}},
        {"smallest, KL at most 0.16",
         false,
         {{false, 0, true, 0.16}, {true, 0, false, 0}, {false, 1, false, 0}}},
    };

    read_table();
    test_front();
    for (size_t i = 0; i < DR_COUNT(goals); i++) {
        const goal *g = &goals[i];
        const int tpe = within(g, SEARCH_TPE, SEEDS), all = within(g, SEARCH_TPE, MANY);
        const int random = within(g, SEARCH_RANDOM, SEEDS);
        const int all_random = within(g, SEARCH_RANDOM, MANY);
        int good = 0;
        for (int k = 0; k < POINTS; k++)
            good += cost(g, &table[k]) <= 1.02 * best_of_table(g);
        (void)printf("%s: %d of 60 within 2 %%; of %d seeds tpe %d, random %d; of %d tpe "
                     "%d, random %d\n",
                     g->name, good, SEEDS, tpe, random, MANY, all, all_random);
        if (g->needle) {
            CHECK(tpe >= 8);
            CHECK(random < tpe);
        }
        CHECK(all >= MANY * 7 / 10);
        CHECK(all > all_random);
    }
    return check_done();
}
