/*
 * pool.c - threads that wait for a run and take tasks from one atomic counter.  The caller
 * works too.
 *
 * Runs follow each other within microseconds while a layer is computed, and falling asleep
 * and being woken takes tens of them: a thread that waits looks SPINS times first, then
 * sleeps on a condition.  Not where there are more threads than processors: there it would
 * look in the time of the one it waits for.
 */
#include "core/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/mem.h"

enum { SPINS = 1000 }; /* some 50 us */

struct dr_pool {
    int threads, spins;
    pthread_t *ids; /* owned: threads - 1 of them */
    int started;
    pthread_mutex_t lock;
    pthread_cond_t wake, idle;
    atomic_uint generation; /* changed with lock held */
    atomic_int busy;        /* likewise: workers still in this run */
    bool quit;              /* guarded by lock */
    /* one run */
    size_t count;
    dr_task_fn fn;
    void *ctx;
    atomic_size_t next;
    atomic_bool failed;
    size_t failed_task; /* guarded by lock */
    dr_trail trail;     /* guarded by lock */
    atomic_int worker_id;
};

static int cgroup_limit(void)
{
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    long quota = 0, period = 0;

    if (f == NULL)
        return 0;
    int n = fscanf(f, "%ld %ld", &quota, &period);
    (void)fclose(f);
    return n == 2 && quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

int dr_cpu_count(void)
{
    int n = (int)sysconf(_SC_NPROCESSORS_ONLN);
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        n = CPU_COUNT(&set);
#endif
    int limit = cgroup_limit();
    if (limit > 0 && limit < n)
        n = limit;
    return n > 0 ? n : 1;
}

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void work(dr_pool *p, int worker)
{
    /* A task that was taken is run, so all below a failed one are: the lowest is found. */
    while (!atomic_load(&p->failed)) {
        size_t task = atomic_fetch_add(&p->next, 1);
        if (task >= p->count)
            return;
        dr_status st = p->fn(p->ctx, task, worker);
        if (st == DR_OK)
            continue;
        (void)pthread_mutex_lock(&p->lock);
        if (!atomic_load(&p->failed) || task < p->failed_task) {
            p->failed_task = task;
            p->trail = *dr_trail_get();
            p->trail.status = st;
        }
        atomic_store(&p->failed, true);
        (void)pthread_mutex_unlock(&p->lock);
    }
}

static void *thread_main(void *arg)
{
    dr_pool *p = arg;
    int worker = atomic_fetch_add(&p->worker_id, 1);
    unsigned seen = 0;

    for (;;) {
        for (int i = 0; i < p->spins && atomic_load(&p->generation) == seen; i++)
            relax();
        (void)pthread_mutex_lock(&p->lock);
        while (atomic_load(&p->generation) == seen && !p->quit)
            (void)pthread_cond_wait(&p->wake, &p->lock);
        if (p->quit)
            break;
        seen = atomic_load(&p->generation);
        (void)pthread_mutex_unlock(&p->lock);
        work(p, worker);
        (void)pthread_mutex_lock(&p->lock);
        if (atomic_fetch_sub(&p->busy, 1) == 1)
            (void)pthread_cond_signal(&p->idle);
        (void)pthread_mutex_unlock(&p->lock);
    }
    (void)pthread_mutex_unlock(&p->lock);
    return NULL;
}

dr_status dr_pool_open(dr_pool **out, int threads)
{
    dr_pool *p = dr_calloc(1, sizeof(*p));

    p->threads = threads > 0 ? threads : dr_cpu_count();
    p->spins = p->threads <= dr_cpu_count() ? SPINS : 0;
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_cond_init(&p->wake, NULL);
    (void)pthread_cond_init(&p->idle, NULL);
    p->ids = dr_calloc((size_t)p->threads, sizeof(*p->ids));
    atomic_store(&p->worker_id, 1);
    for (; p->started < p->threads - 1; p->started++) {
        if (pthread_create(&p->ids[p->started], NULL, thread_main, p) != 0) {
            int wanted = p->threads;
            dr_pool_close(p);
            return dr_fail(DR_EIO, "cannot start %d threads", wanted);
        }
    }
    *out = p;
    return DR_OK;
}

void dr_pool_close(dr_pool *p)
{
    if (p == NULL)
        return;
    (void)pthread_mutex_lock(&p->lock);
    p->quit = true;
    (void)pthread_cond_broadcast(&p->wake);
    (void)pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->started; i++)
        (void)pthread_join(p->ids[i], NULL);
    (void)pthread_mutex_destroy(&p->lock);
    (void)pthread_cond_destroy(&p->wake);
    (void)pthread_cond_destroy(&p->idle);
    free(p->ids);
    free(p);
}

int dr_pool_threads(const dr_pool *p)
{
    return p->threads;
}

dr_status dr_pool_run(dr_pool *p, size_t count, dr_task_fn fn, void *ctx)
{
    p->count = count;
    p->fn = fn;
    p->ctx = ctx;
    atomic_store(&p->next, 0);
    atomic_store(&p->failed, false);
    bool alone = p->threads == 1 || count <= 1;
    if (!alone) {
        (void)pthread_mutex_lock(&p->lock);
        atomic_store(&p->busy, p->threads - 1);
        atomic_fetch_add(&p->generation, 1);
        (void)pthread_cond_broadcast(&p->wake);
        (void)pthread_mutex_unlock(&p->lock);
    }
    work(p, 0);
    if (!alone) {
        for (int i = 0; i < p->spins && atomic_load(&p->busy) > 0; i++)
            relax();
        (void)pthread_mutex_lock(&p->lock);
        while (atomic_load(&p->busy) > 0)
            (void)pthread_cond_wait(&p->idle, &p->lock);
        (void)pthread_mutex_unlock(&p->lock);
    }
    if (!atomic_load(&p->failed))
        return DR_OK;
    dr_trail_set(&p->trail);
    return p->trail.status;
}
