/*
 * crew_test.c - jobs behind the caller: each is run and dropped once; the first error comes
 * home; what was not begun is dropped; the room bounds what waits.
 */
#include "check.h"

#include <stdatomic.h>

#include "core/crew.h"

enum { JOBS = 500, THREADS = 3 };

static atomic_int ran[JOBS], dropped[JOBS], at_once, most;
static atomic_bool gate;

typedef struct {
    int number;
    bool fails, waits;
} job;

static void drop(void *ctx)
{
    atomic_fetch_add(&dropped[((job *)ctx)->number], 1);
    free(ctx);
}

static dr_status run(void *ctx)
{
    const job *j = ctx;
    int now = atomic_fetch_add(&at_once, 1) + 1, seen = atomic_load(&most);

    while (now > seen && !atomic_compare_exchange_weak(&most, &seen, now))
        ;
    while (j->waits && !atomic_load(&gate))
        ;
    atomic_fetch_add(&ran[j->number], 1);
    atomic_fetch_sub(&at_once, 1);
    return j->fails ? dr_fail(DR_EFORMAT, "job %d found nothing", j->number) : DR_OK;
}

static dr_status give(dr_crew *c, int number, bool fails, bool waits, size_t bytes)
{
    job *j = calloc(1, sizeof(*j));

    *j = (job){number, fails, waits};
    return dr_crew_give(c, run, drop, j, bytes);
}

static void reset(void)
{
    for (int i = 0; i < JOBS; i++) {
        atomic_store(&ran[i], 0);
        atomic_store(&dropped[i], 0);
    }
    atomic_store(&most, 0);
    atomic_store(&gate, false);
}

static void test_all(void)
{
    int wrong = 0;
    dr_crew *c = NULL;

    reset();
    if (!CHECK_OK(dr_crew_open(&c, THREADS, 1000)))
        return;
    for (int turn = 0; turn < 2; turn++) {
        for (int i = turn * JOBS / 2; i < (turn + 1) * JOBS / 2; i++)
            CHECK_OK(give(c, i, false, false, (size_t)i));
        CHECK_OK(dr_crew_wait(c));
        for (int i = 0; i < (turn + 1) * JOBS / 2; i++)
            wrong += atomic_load(&ran[i]) != 1 || atomic_load(&dropped[i]) != 1;
    }
    CHECK_EQ_INT(wrong, 0);
    dr_crew_close(c);
}

/* 600 of 1000 bytes and 600 more: one after another, whatever the threads. */
static void test_room(void)
{
    dr_crew *c = NULL;

    reset();
    if (!CHECK_OK(dr_crew_open(&c, THREADS, 1000)))
        return;
    for (int i = 0; i < 100; i++)
        CHECK_OK(give(c, i, false, false, 600));
    CHECK_OK(give(c, 100, false, false, 5000)); /* alone */
    CHECK_OK(dr_crew_wait(c));
    CHECK_EQ_INT(atomic_load(&most), 1);
    CHECK_EQ_INT(atomic_load(&ran[100]), 1);
    dr_crew_close(c);
}

static void test_errors(void)
{
    int done = 0, lost = 0;
    dr_crew *c = NULL;

    reset();
    if (!CHECK_OK(dr_crew_open(&c, 1, 1000)))
        return;
    CHECK_OK(give(c, 0, false, true, 1));
    for (int i = 1; i < 10; i++)
        CHECK_OK(give(c, i, i == 4 || i == 7, false, 1));
    atomic_store(&gate, true);
    CHECK_STATUS(dr_crew_wait(c), DR_EFORMAT);
    CHECK_STR(dr_trail_get()->frames[0].text, "job 4 found nothing");
    CHECK_STATUS(give(c, 10, false, false, 1), DR_EFORMAT); /* and so it stays */
    for (int i = 0; i <= 10; i++) {
        done += atomic_load(&ran[i]);
        lost += atomic_load(&dropped[i]) != 1;
    }
    CHECK_EQ_INT(done, 5);
    CHECK_EQ_INT(lost, 0);
    dr_crew_close(c);
    dr_trail_clear();
}

static void test_close(void)
{
    int done = 0, lost = 0;
    dr_crew *c = NULL;

    reset();
    if (!CHECK_OK(dr_crew_open(&c, 1, 1000)))
        return;
    for (int i = 0; i < 10; i++)
        CHECK_OK(give(c, i, false, false, 1));
    dr_crew_close(c);
    for (int i = 0; i < 10; i++) {
        done += atomic_load(&ran[i]);
        lost += atomic_load(&dropped[i]) != 1;
    }
    CHECK(done <= 10);
    CHECK_EQ_INT(lost, 0);
}

int main(void)
{
    test_all();
    test_room();
    test_errors();
    test_close();
    return check_done();
}
