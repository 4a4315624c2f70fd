/*
 * pool.h - worker threads.  Work is cut into tasks by the caller, never by the number of
 * threads, so that results do not depend on it.
 */
#ifndef DRUPE_CORE_POOL_H
#define DRUPE_CORE_POOL_H

#include <stddef.h>

#include "core/status.h"

typedef struct dr_pool dr_pool;

/* threads 0: as many as the process may run on.  1: all in the caller's thread. */
DR_MUST_USE dr_status dr_pool_open(dr_pool **out, int threads);
void dr_pool_close(dr_pool *p);
int dr_pool_threads(const dr_pool *p);
int dr_cpu_count(void); /* processors that this process may use (affinity, cgroup) */

/*
 * Calls fn(ctx, task, worker) for each task in [0, count); worker in [0, threads) names
 * scratch space.  Returns when all are done; the first error (lowest task) with its trail
 * comes back, other tasks may then be skipped.  Not reentrant.
 */
typedef dr_status (*dr_task_fn)(void *ctx, size_t task, int worker);
DR_MUST_USE dr_status dr_pool_run(dr_pool *p, size_t count, dr_task_fn fn, void *ctx);

#endif
