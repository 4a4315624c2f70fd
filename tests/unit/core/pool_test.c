/*
 * pool_test.c - every task once, whatever the number of threads; the lowest error and its
 * trail come home.
 */
#include "check.h"

#include <stdatomic.h>

#include "core/pool.h"

enum { TASKS = 10000 };

typedef struct {
    atomic_int runs[TASKS];
    atomic_int worker_wrong;
    int threads;
    size_t fail_from, fail_step; /* tasks fail_from + i fail_step fail */
} job;

static dr_status task_fn(void *ctx, size_t task, int worker)
{
    job *j = ctx;

    atomic_fetch_add(&j->runs[task], 1);
    if (worker < 0 || worker >= j->threads)
        atomic_fetch_add(&j->worker_wrong, 1);
    if (task >= j->fail_from && (task - j->fail_from) % j->fail_step == 0) {
        (void)dr_fail(DR_EFORMAT, "task %zu found nothing", task);
        dr_note_at(__FILE__, __LINE__, "in a worker");
        dr_hint("hint of %zu", task);
        return DR_EFORMAT;
    }
    return DR_OK;
}

static void test_all(int threads)
{
    static job j;
    dr_pool *p = NULL;
    size_t wrong = 0;

    if (!CHECK_OK(dr_pool_open(&p, threads)))
        return;
    memset(&j, 0, sizeof(j));
    j.threads = dr_pool_threads(p);
    j.fail_from = SIZE_MAX;
    CHECK(threads == 0 ? j.threads == dr_cpu_count() : j.threads == threads);
    for (int turn = 1; turn <= 20; turn++) {
        CHECK_OK(dr_pool_run(p, TASKS, task_fn, &j));
        for (size_t i = 0; i < TASKS; i++)
            wrong += atomic_load(&j.runs[i]) != turn;
    }
    CHECK_EQ_INT(wrong, 0);
    CHECK_EQ_INT(atomic_load(&j.worker_wrong), 0);
    CHECK_OK(dr_pool_run(p, 0, task_fn, &j));
    CHECK_OK(dr_pool_run(p, 1, task_fn, &j));
    CHECK_EQ_INT(atomic_load(&j.runs[0]), 21);
    CHECK_EQ_INT(atomic_load(&j.runs[1]), 20);
    dr_pool_close(p);
}

static void test_error(int threads)
{
    static job j;
    dr_pool *p = NULL;

    if (!CHECK_OK(dr_pool_open(&p, threads)))
        return;
    for (int turn = 0; turn < 200; turn++) {
        char want[64];
        memset(&j, 0, sizeof(j));
        j.threads = threads;
        j.fail_from = (size_t)turn * 7 % 500;
        j.fail_step = 1;
        dr_trail_clear();
        dr_status st = dr_pool_run(p, TASKS, task_fn, &j);
        (void)snprintf(want, sizeof(want), "task %zu found nothing", j.fail_from);
        if (st != DR_EFORMAT || strcmp(dr_trail_get()->frames[0].text, want) != 0) {
            CHECK_STATUS(st, DR_EFORMAT);
            CHECK_STR(dr_trail_get()->frames[0].text, want);
        }
    }
    CHECK_EQ_INT(dr_trail_get()->count, 2);
    CHECK_TRAIL("in a worker");
    CHECK_TRAIL("hint of ");
    j.fail_from = SIZE_MAX;
    CHECK_OK(dr_pool_run(p, TASKS, task_fn, &j)); /* the pool is usable after an error */
    dr_pool_close(p);
}

int main(void)
{
    test_all(0);
    test_all(1);
    test_all(2);
    test_all(7);
    test_error(1);
    test_error(2);
    test_error(8);
    dr_pool_close(NULL);
    CHECK(dr_cpu_count() >= 1);
    return check_done();
}
