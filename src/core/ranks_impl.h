/*
 * ranks_impl.h - what is behind ranks.h: MPI, or sockets of one host for tests.
 */
#ifndef DRUPE_CORE_RANKS_IMPL_H
#define DRUPE_CORE_RANKS_IMPL_H

#include "core/ranks.h"

typedef struct {
    /* Sets id, count, local, local_count and state. */
    dr_status (*open)(dr_ranks *r);
    dr_status (*gather)(dr_ranks *r, void *all, const void *mine, size_t bytes,
                        const char *what);
    /* NULL: a rank that is gone ends this one (mpirun). */
    dr_status (*check)(const dr_ranks *r, const char *what);
    void (*abort)(dr_ranks *r, int status);
    void (*close)(dr_ranks *r); /* after open, even one that failed */
} ranks_backend;

struct dr_ranks {
    const ranks_backend *backend;
    void *state; /* owned by the backend */
    size_t id, count, local, local_count;
    double timeout; /* seconds */
};

extern const ranks_backend ranks_mpi, ranks_socket;

/* A number in the environment, below limit; false: it is not set, or none. */
bool ranks_env(size_t *value, const char *name, size_t limit);

/* In a loop that waits since start (dr_now_s): sleeps a little, more the longer it takes.
 * DR_ECANCELLED; DR_EDEVICE: it took too long, missing (SIZE_MAX: not known) is named. */
DR_MUST_USE dr_status ranks_pause(const dr_ranks *r, double start, size_t missing,
                                  const char *what);

#endif
