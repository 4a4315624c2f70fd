/*
 * ranks.h - several processes that share one run's work.
 *
 * Open MPI's mpirun starts them (or srun --mpi=pmix); a process that none of them started
 * is alone: its dr_ranks is NULL, nothing is loaded, and every call here is for one.  All
 * ranks run the same program on the same input and make the same calls in the same order;
 * a rank's share follows from its number alone.
 *
 * What is exchanged is gathered by every rank, and what is added is added in the order of
 * ranks: all have the same bytes.  Every call waits for the others, looks after Ctrl-C
 * meanwhile, and gives up after DRUPE_RANKS_TIMEOUT seconds (1800).  `what`, for messages,
 * is what is exchanged: "gradients".
 *
 * A rank that fails must end the others: dr_ranks_abort, once it has said why.
 */
#ifndef DRUPE_CORE_RANKS_H
#define DRUPE_CORE_RANKS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"

typedef struct dr_ranks dr_ranks;

/* Was this process started as one of several?  Looks at the environment alone. */
bool dr_ranks_asked(void);
/*
 * *out NULL: it was not.  At most once a process.
 * DR_EUNSUPPORTED: an MPI is not here, or is not Open MPI, by name.  DR_EDEVICE: a rank did
 * not come.
 */
DR_MUST_USE dr_status dr_ranks_open(dr_ranks **out);
/* After success of all. */
void dr_ranks_close(dr_ranks *r);
/* Ends all ranks with this exit status; it may return. */
void dr_ranks_abort(dr_ranks *r, int status);

size_t dr_ranks_id(const dr_ranks *r);    /* from 0 */
size_t dr_ranks_count(const dr_ranks *r); /* 1: alone */
/* The same among those on this host. */
size_t dr_ranks_local(const dr_ranks *r);
size_t dr_ranks_local_count(const dr_ranks *r);
/* The one that writes and prints. */
static inline bool dr_ranks_first(const dr_ranks *r)
{
    return dr_ranks_id(r) == 0;
}

/* all[count][bytes] = each rank's mine[bytes]; all ranks give as many.  DR_EDEVICE: a rank
 * is gone or does not come, which one where that is known. */
DR_MUST_USE dr_status dr_ranks_gather(dr_ranks *r, void *all, const void *mine,
                                      size_t bytes, const char *what);
/* v[count] becomes the sum over all ranks. */
DR_MUST_USE dr_status dr_ranks_sum(dr_ranks *r, float *v, size_t count, const char *what);
DR_MUST_USE dr_status dr_ranks_sum_doubles(dr_ranks *r, double *v, size_t count,
                                           const char *what);
/* Elements edges[k] to edges[k + 1] of v, of `size` bytes each, come from rank k: all ranks
 * have all.  edges[ranks + 1] grow from 0, the same on all. */
DR_MUST_USE dr_status dr_ranks_share(dr_ranks *r, void *v, size_t size, const size_t *edges,
                                     const char *what);
/* Does not wait.  DR_EDEVICE: a rank is known to be gone: for who waits for the others by
 * other means. */
DR_MUST_USE dr_status dr_ranks_check(const dr_ranks *r, const char *what);
/* Seconds that a call waits for the others. */
double dr_ranks_timeout(const dr_ranks *r);
/* Waits for all. */
DR_MUST_USE dr_status dr_ranks_meet(dr_ranks *r, const char *what);
/* DR_EUSAGE: text, of any length, is not the same on all ranks, with the first that has
 * another. */
DR_MUST_USE dr_status dr_ranks_same(dr_ranks *r, const char *text, const char *what);

#endif
