/*
 * crew.h - threads that do jobs behind the caller's back, in about the order in which they
 * were given: what is to be written while the next thing is computed.  Jobs do not depend
 * on each other.
 */
#ifndef DRUPE_CORE_CREW_H
#define DRUPE_CORE_CREW_H

#include <stddef.h>

#include "core/status.h"

typedef struct dr_crew dr_crew;

typedef dr_status (*dr_job_fn)(void *ctx);
typedef void (*dr_drop_fn)(void *ctx);

/* room: bytes that jobs which are not done may hold together.  DR_EIO: no threads. */
DR_MUST_USE dr_status dr_crew_open(dr_crew **out, int threads, size_t room);
/* Jobs that have not begun are dropped, the others waited for. */
void dr_crew_close(dr_crew *c);

/*
 * run(ctx), later; drop(ctx) afterwards, or instead.  Waits while the others hold so much
 * that `bytes` find no room (one job always does).  The error of a job given before comes
 * back with its trail: that of the first of those that failed; ctx is dropped then.
 */
DR_MUST_USE dr_status dr_crew_give(dr_crew *c, dr_job_fn run, dr_drop_fn drop, void *ctx,
                                   size_t bytes);
/* Returns when all jobs are done, with the first one's error. */
DR_MUST_USE dr_status dr_crew_wait(dr_crew *c);

#endif
