/*
 * ranks_test.c - what several processes exchange, and what each is told when one is gone,
 * late or different.
 */
#include "core/ranks.h"

#include "check.h"
#include "core/mem.h"
#include "ranks_check.h"

enum { COUNT = 3, MANY = 5 * 1000 * 1000 }; /* MANY: more floats than go at once */

static void gather(dr_ranks *r, void *ctx)
{
    size_t id = dr_ranks_id(r), mine[2] = {id, id * id}, all[COUNT][2];

    (void)ctx;
    CHECK_EQ_INT(dr_ranks_count(r), COUNT);
    CHECK_EQ_INT(dr_ranks_local(r), id);
    CHECK_EQ_INT(dr_ranks_local_count(r), COUNT);
    CHECK(dr_ranks_first(r) == (id == 0));
    for (int again = 0; again < 3; again++) {
        memset(all, 0xff, sizeof(all));
        CHECK_OK(dr_ranks_gather(r, all, mine, sizeof(mine), "numbers"));
        for (size_t k = 0; k < COUNT; k++) {
            CHECK_EQ_INT(all[k][0], k);
            CHECK_EQ_INT(all[k][1], k * k);
        }
    }
}

/* In the order of ranks: with these, another order gives another float. */
static const float terms[COUNT] = {1e8f, -1e8f, 1.0f};

static void sum(dr_ranks *r, void *ctx)
{
    size_t id = dr_ranks_id(r);
    float *v = malloc(MANY * sizeof(*v));
    double d[2] = {1e16 * (id == 0) - 1e16 * (id == 1) + (id == 2), (double)id};
    bool same = true;

    (void)ctx;
    for (size_t i = 0; i < MANY; i++)
        v[i] = terms[id] * (float)(1 + i % 7);
    CHECK_OK(dr_ranks_sum(r, v, MANY, "floats"));
    for (size_t i = 0; i < MANY; i++) {
        float scale = (float)(1 + i % 7);
        same = same && v[i] == (terms[0] * scale + terms[1] * scale) + terms[2] * scale;
    }
    CHECK(same);
    CHECK_OK(dr_ranks_sum_doubles(r, d, 2, "doubles"));
    CHECK_NEAR(d[0], 1, 0);
    CHECK_NEAR(d[1], 0 + 1 + 2, 0);
    free(v);
}

static void same(dr_ranks *r, void *ctx)
{
    bool odd = dr_ranks_id(r) == 2;

    (void)ctx;
    CHECK_OK(dr_ranks_same(r, "a longer text, which is the same", "text"));
    CHECK_STATUS(dr_ranks_same(r, odd ? "b" : "a", "set of options"), DR_EUSAGE);
    CHECK_TRAIL("rank 2 of 3 has another set of options than rank 0");
    CHECK_OK(dr_ranks_meet(r, "afterwards"));
}

/* Parts of other lengths, one of them none, and one longer than a piece. */
static void share(dr_ranks *r, void *ctx)
{
    const size_t edges[COUNT + 1] = {0, 3, 3, 3 + (3u << 20)};
    size_t id = dr_ranks_id(r), wrong = 0;
    uint64_t *v = dr_calloc(edges[COUNT], sizeof(*v));

    (void)ctx;
    for (size_t i = edges[id]; i < edges[id + 1]; i++)
        v[i] = 7 * i + 1;
    CHECK_OK(dr_ranks_share(r, v, sizeof(*v), edges, "parts"));
    for (size_t i = 0; i < edges[COUNT]; i++)
        wrong += v[i] != 7 * i + 1;
    CHECK_EQ_INT(wrong, 0);
    free(v);
}

/* Rank `gone` ends without a word: the others are told. */
static void leave(dr_ranks *r, void *ctx)
{
    const size_t *gone = ctx;

    CHECK_OK(dr_ranks_meet(r, "the beginning"));
    if (dr_ranks_id(r) == *gone)
        _exit(7);
    CHECK_STATUS(dr_ranks_meet(r, "gradients"), DR_EDEVICE);
    CHECK_TRAIL("gradients: rank");
    CHECK_TRAIL("has ended");
}

/* The same, seen without an exchange by who is connected with it. */
static void leave_unasked(dr_ranks *r, void *ctx)
{
    const size_t *gone = ctx;
    dr_status st = DR_OK;

    CHECK_OK(dr_ranks_check(r, "the beginning"));
    CHECK_OK(dr_ranks_meet(r, "the beginning"));
    if (dr_ranks_id(r) == *gone)
        _exit(7);
    if (dr_ranks_id(r) != 0 && *gone != 0) {
        CHECK_STATUS(dr_ranks_meet(r, "until all are through"), DR_EDEVICE);
        return;
    }
    for (int i = 0; i < 5000 && st == DR_OK; i++) {
        st = dr_ranks_check(r, "the GPUs' meeting");
        (void)usleep(1000);
    }
    CHECK_STATUS(st, DR_EDEVICE);
    CHECK_TRAIL("the GPUs' meeting: rank");
}

/* Rank 1 is there and does not come. */
static void dawdle(dr_ranks *r, void *ctx)
{
    (void)ctx;
    if (dr_ranks_id(r) == 1) {
        (void)usleep(4500000);
        return;
    }
    CHECK_STATUS(dr_ranks_meet(r, "gradients"), DR_EDEVICE);
    if (dr_ranks_id(r) == 0)
        CHECK_TRAIL("ranks: gradients: rank 1 of 3 did not come in 2 s");
}

static void test_alone(void)
{
    double d = 2.5;
    float v[2] = {1, 2};
    dr_ranks *r = NULL;

    unsetenv("DRUPE_RANKS");
    unsetenv("OMPI_COMM_WORLD_SIZE");
    unsetenv("PMIX_RANK");
    CHECK(!dr_ranks_asked());
    CHECK_OK(dr_ranks_open(&r));
    CHECK(r == NULL && dr_ranks_first(r));
    CHECK_EQ_INT(dr_ranks_count(r), 1);
    CHECK_OK(dr_ranks_sum(r, v, 2, "floats"));
    CHECK_OK(dr_ranks_sum_doubles(r, &d, 1, "a double"));
    CHECK_NEAR(v[1] + (float)d, 4.5, 0);
    CHECK_OK(dr_ranks_same(r, "a", "text"));
    CHECK_OK(dr_ranks_meet(r, "nobody"));
    CHECK_OK(dr_ranks_check(r, "nobody"));
    setenv("OMPI_COMM_WORLD_SIZE", "1", 1);
    CHECK(!dr_ranks_asked());
    unsetenv("OMPI_COMM_WORLD_SIZE");
    dr_ranks_close(r);
}

/* Another MPI's processes are not taken for one each. */
static void test_refused(void)
{
    dr_ranks *r = NULL;

    setenv("PMI_SIZE", "4", 1);
    CHECK(dr_ranks_asked());
    CHECK_STATUS(dr_ranks_open(&r), DR_EUNSUPPORTED);
    CHECK_TRAIL("mpiexec of MPICH");
    unsetenv("PMI_SIZE");
    setenv("DRUPE_RANKS", "2/2/x", 1);
    CHECK_STATUS(dr_ranks_open(&r), DR_EUSAGE);
    CHECK_TRAIL("expected ID/COUNT/PATH, found \"2/2/x\"");
    setenv("DRUPE_RANKS_TIMEOUT", "1", 1);
    setenv("DRUPE_RANKS", "1/2/nobody", 1);
    CHECK_STATUS(dr_ranks_open(&r), DR_EDEVICE);
    CHECK_TRAIL("starting: rank 0 of 2 did not come in 1 s");
    unsetenv("DRUPE_RANKS");
    unsetenv("DRUPE_RANKS_TIMEOUT");
}

int main(void)
{
    int ended[COUNT] = {0};

    test_alone();
    test_refused();
    ranks_run(COUNT, gather, NULL, NULL);
    ranks_run(COUNT, sum, NULL, NULL);
    ranks_run(COUNT, same, NULL, NULL);
    ranks_run(COUNT, share, NULL, NULL);
    for (size_t gone = 0; gone < COUNT; gone++) {
        ranks_run(COUNT, leave, &gone, ended);
        for (size_t i = 0; i < COUNT; i++)
            CHECK_EQ_INT(ended[i], i == gone ? 7 : 0);
        ranks_run(COUNT, leave_unasked, &gone, ended);
    }
    setenv("DRUPE_RANKS_TIMEOUT", "2", 1);
    ranks_run(COUNT, dawdle, NULL, NULL);
    return check_done();
}
