/*
 * ranks.c - what all back ends share: who one is, sums in the order of ranks, waiting.
 *
 * Everything is made of one exchange, the gather, so that a back end is small and a sum
 * has the same bytes on all ranks: each adds the same parts in the same order.  For the
 * few ranks of a host that is as fast as a reduction, and what is large and on GPUs goes
 * through NCCL (nn/cuda/cuda_ranks.c).
 */
#include "core/ranks.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/hash.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/ranks_impl.h"

/* Bytes that are gathered at once; a wait that is over at once does not sleep. */
enum { PIECE = 16 << 20 };
static const double spin_s = 0.002, long_s = 1800;

bool ranks_env(size_t *value, const char *name, size_t limit)
{
    const char *text = getenv(name);
    char *end = NULL;
    unsigned long n;

    if (text == NULL || *text < '0' || *text > '9')
        return false;
    n = strtoul(text, &end, 10);
    if (*end != '\0' || n >= limit)
        return false;
    *value = n;
    return true;
}

/* Each process is by itself, whoever started it: so are programs that a run starts. */
static bool is_alone(void)
{
    const char *text = getenv("DRUPE_ALONE");

    return text != NULL && strcmp(text, "1") == 0;
}

/* Ranks that another program than Open MPI's started: MPICH's and its kin's processes are
 * told of each other by PMI. */
static dr_status check_starter(void)
{
    size_t n = 0;
    dr_status st;

    if (is_alone() || getenv("OMPI_COMM_WORLD_SIZE") != NULL ||
        getenv("PMIX_RANK") != NULL || !ranks_env(&n, "PMI_SIZE", 1 << 20) || n < 2)
        return DR_OK;
    st = dr_fail(DR_EUNSUPPORTED,
                 "ranks: started by the mpiexec of MPICH or of Intel MPI, or by srun's "
                 "PMI-2: %zu processes that Open MPI does not know of",
                 n);
    dr_hint("use Open MPI's mpirun, or srun --mpi=pmix");
    return st;
}

static const ranks_backend *backend_asked(void)
{
    size_t n = 0;

    if (is_alone())
        return NULL;
    if (getenv("DRUPE_RANKS") != NULL)
        return &ranks_socket;
    if (ranks_env(&n, "OMPI_COMM_WORLD_SIZE", 1 << 20))
        return n > 1 ? &ranks_mpi : NULL;
    /* of srun: PMIx does not say how many in the environment, Slurm does */
    if (getenv("PMIX_RANK") != NULL && ranks_env(&n, "SLURM_STEP_NUM_TASKS", 1 << 20))
        return n > 1 ? &ranks_mpi : NULL;
    return NULL;
}

bool dr_ranks_asked(void)
{
    size_t n = 0;

    return backend_asked() != NULL ||
           (!is_alone() && getenv("OMPI_COMM_WORLD_SIZE") == NULL &&
            getenv("PMIX_RANK") == NULL && ranks_env(&n, "PMI_SIZE", 1 << 20) && n > 1);
}

dr_status dr_ranks_open(dr_ranks **out)
{
    const ranks_backend *b = backend_asked();
    size_t seconds = (size_t)long_s;
    dr_ranks *r = NULL;
    dr_status st = DR_OK;

    *out = NULL;
    if (b == NULL)
        return check_starter();
    (void)ranks_env(&seconds, "DRUPE_RANKS_TIMEOUT", 1 << 30);
    r = dr_calloc(1, sizeof(*r));
    *r = (dr_ranks){.backend = b, .count = 1, .local_count = 1, .timeout = (double)seconds};
    DR_TRYF(b->open(r), "starting as one of several processes");
    *out = r;
    r = NULL;
done:
    dr_ranks_close(r);
    return st;
}

void dr_ranks_close(dr_ranks *r)
{
    if (r == NULL)
        return;
    r->backend->close(r);
    free(r);
}

void dr_ranks_abort(dr_ranks *r, int status)
{
    if (r != NULL)
        r->backend->abort(r, status);
}

size_t dr_ranks_id(const dr_ranks *r)
{
    return r != NULL ? r->id : 0;
}

size_t dr_ranks_count(const dr_ranks *r)
{
    return r != NULL ? r->count : 1;
}

size_t dr_ranks_local(const dr_ranks *r)
{
    return r != NULL ? r->local : 0;
}

size_t dr_ranks_local_count(const dr_ranks *r)
{
    return r != NULL ? r->local_count : 1;
}

dr_status dr_ranks_check(const dr_ranks *r, const char *what)
{
    return r != NULL && r->backend->check != NULL ? r->backend->check(r, what) : DR_OK;
}

double dr_ranks_timeout(const dr_ranks *r)
{
    return r != NULL ? r->timeout : 0;
}

dr_status ranks_pause(const dr_ranks *r, double start, size_t missing, const char *what)
{
    double waited = dr_now_s() - start;
    char who[64] = "another rank";
    struct timespec nap = {.tv_nsec = waited < 0.1 ? 50000 : 1000000};
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    if (waited > r->timeout) {
        if (missing != SIZE_MAX)
            (void)snprintf(who, sizeof(who), "rank %zu of %zu", missing, r->count);
        st = dr_fail(DR_EDEVICE, "ranks: %s: %s did not come in %.0f s", what, who,
                     r->timeout);
        dr_hint("DRUPE_RANKS_TIMEOUT sets how long is waited");
        goto done;
    }
    if (waited < spin_s)
        (void)sched_yield();
    else
        (void)nanosleep(&nap, NULL);
done:
    return st;
}

/* ---- exchanges ---- */

dr_status dr_ranks_gather(dr_ranks *r, void *all, const void *mine, size_t bytes,
                          const char *what)
{
    if (r != NULL)
        return r->backend->gather(r, all, mine, bytes, what);
    memcpy(all, mine, bytes);
    return DR_OK;
}

/* Sums of floats or doubles, piece by piece. */
static dr_status sum(dr_ranks *r, void *v, size_t count, size_t size, const char *what)
{
    size_t most = PIECE / size < count ? PIECE / size : count;
    char *all = NULL;
    void *p = NULL;
    dr_status st = DR_OK;

    if (dr_ranks_count(r) == 1 || count == 0)
        return DR_OK;
    DR_TRY(dr_big_alloc(&p, r->count * most, size, "parts of a sum"));
    all = p;
    for (size_t at = 0, n; at < count; at += n) {
        n = count - at < most ? count - at : most;
        char *to = (char *)v + at * size;
        DR_TRY(dr_ranks_gather(r, all, to, n * size, what));
        memcpy(to, all, n * size);
        for (size_t k = 1; k < r->count; k++) {
            const void *part = all + k * n * size;
            if (size == sizeof(float)) {
                for (size_t i = 0; i < n; i++)
                    ((float *)(void *)to)[i] += ((const float *)part)[i];
            } else {
                for (size_t i = 0; i < n; i++)
                    ((double *)(void *)to)[i] += ((const double *)part)[i];
            }
        }
    }
done:
    dr_big_free(p);
    return st;
}

dr_status dr_ranks_sum(dr_ranks *r, float *v, size_t count, const char *what)
{
    return sum(r, v, count, sizeof(*v), what);
}

dr_status dr_ranks_sum_doubles(dr_ranks *r, double *v, size_t count, const char *what)
{
    return sum(r, v, count, sizeof(*v), what);
}

/* How many of n bytes that begin `at` bytes into rank k's part are there. */
static size_t part_of(const size_t *edges, size_t size, size_t k, size_t at, size_t n)
{
    size_t bytes = (edges[k + 1] - edges[k]) * size, left = at < bytes ? bytes - at : 0;

    return left < n ? left : n;
}

dr_status dr_ranks_share(dr_ranks *r, void *v, size_t size, const size_t *edges,
                         const char *what)
{
    size_t longest = 0, most = 0;
    char *all = NULL, *mine = NULL;
    void *p = NULL;
    dr_status st = DR_OK;

    if (dr_ranks_count(r) == 1)
        return DR_OK;
    for (size_t k = 0; k < r->count; k++) {
        size_t bytes = (edges[k + 1] - edges[k]) * size;
        longest = bytes > longest ? bytes : longest;
    }
    if (longest == 0)
        return DR_OK;
    most = longest < PIECE ? longest : PIECE;
    DR_TRY(dr_big_alloc(&p, r->count + 1, most, "parts of all ranks"));
    all = p;
    mine = all + r->count * most;
    for (size_t at = 0, n, own; at < longest; at += n) {
        n = longest - at < most ? longest - at : most;
        own = part_of(edges, size, r->id, at, n);
        if (own > 0)
            memcpy(mine, (char *)v + edges[r->id] * size + at, own);
        DR_TRY(dr_ranks_gather(r, all, mine, n, what));
        for (size_t k = 0; k < r->count; k++) {
            size_t bytes = part_of(edges, size, k, at, n);
            if (bytes > 0 && k != r->id)
                memcpy((char *)v + edges[k] * size + at, all + k * n, bytes);
        }
    }
done:
    dr_big_free(p);
    return st;
}

dr_status dr_ranks_meet(dr_ranks *r, const char *what)
{
    char mine = 0, *all = dr_calloc(dr_ranks_count(r), 1);
    dr_status st = dr_ranks_gather(r, all, &mine, 1, what);

    free(all);
    return st;
}

dr_status dr_ranks_same(dr_ranks *r, const char *text, const char *what)
{
    char mine[DR_SHA256_HEX], *all = NULL;
    dr_status st = DR_OK;

    if (dr_ranks_count(r) == 1)
        return DR_OK;
    dr_sha256(mine, text, strlen(text));
    all = dr_calloc(r->count, sizeof(mine));
    DR_TRY(dr_ranks_gather(r, all, mine, sizeof(mine), what));
    for (size_t k = 1; k < r->count; k++) {
        if (memcmp(all, all + k * sizeof(mine), sizeof(mine)) == 0)
            continue;
        st = dr_fail(DR_EUSAGE, "ranks: rank %zu of %zu has another %s than rank 0", k,
                     r->count, what);
        dr_hint("all ranks need the same program, options and files");
        goto done;
    }
done:
    free(all);
    return st;
}
