/*
 * cuda_ranks.c - sums over the GPUs of several processes, and parts that one of them has
 * for all, by NCCL, which is looked for at run time.
 *
 * The first rank makes an id, all are given it by other means (nn_device_join), and a GPU
 * is that of a rank's number on its host.  A sum is ncclAllReduce in the device's stream:
 * the same bytes on all ranks.  Which of NCCL's ways it takes depends on the GPUs and how
 * they are connected: the same machine gives the same bytes again.  Sums within a switch
 * (NVLS) are left out unless NCCL_NVLS_ENABLE asks for them: they need leave of the machine
 * that not every one gives, and their order is not said.
 *
 * GPUs meet by a thread of its own, with a first sum, by which NCCL connects them: that
 * takes a second, in which the caller reads and tokenizes.  Whoever wants to add or share
 * then, or to know how much memory is left, waits for it.
 *
 * A rank that is gone leaves the others' kernel waiting for ever: so the host looks after
 * the stream and NCCL's own errors, and gives up after the ranks' timeout.  NCCL's calls
 * and numbers are those of nccl.h 2.x, which is not needed to build this.
 */
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/log.h"
#include "core/mem.h"
#include "nn/cuda/cuda_impl.h"

enum { SUCCESS = 0, IN_PROGRESS = 7, SUM = 0, FLOAT32 = 7 };
static const char library[] = "libnccl.so.2";
static const double spin_s = 0.01, leave_s = 5;

typedef struct {
    char internal[NN_RANK_ID];
} unique_id;
typedef struct comm comm;

#define NCCL_FUNCTIONS(F)                                                                  \
    F(ncclGetErrorString, const char *, (int))                                             \
    F(ncclGetUniqueId, int, (unique_id *))                                                 \
    F(ncclCommInitRank, int, (comm **, int, unique_id, int))                               \
    F(ncclCommDestroy, int, (comm *))                                                      \
    F(ncclCommAbort, int, (comm *))                                                        \
    F(ncclCommGetAsyncError, int, (comm *, int *))                                         \
    F(ncclAllReduce, int, (const void *, void *, size_t, int, int, comm *, cu_stream))     \
    F(ncclBroadcast, int, (const void *, void *, size_t, int, int, comm *, cu_stream))     \
    F(ncclGroupStart, int, (void))                                                         \
    F(ncclGroupEnd, int, (void))

struct cu_ranks {
#define MEMBER(name, result, params) result(*name) params;
    NCCL_FUNCTIONS(MEMBER)
#undef MEMBER
    comm *comm; /* owned; NULL: not joined */
    unique_id id;
    const dr_ranks *ranks; /* borrowed */
    int device, rank, count;
    double timeout;
    pthread_t thread;
    bool meeting;      /* by the thread, which is not joined yet */
    atomic_bool ended; /* the thread; before it is set, comm and trail are its */
    atomic_bool left;  /* nobody waits for it any more */
    dr_trail trail;    /* why it failed; status DR_OK: it did not */
};

static dr_status open_nccl(cu_state *c)
{
    cu_ranks *r = NULL;
    void *lib = NULL;
    const char *missing = NULL;
    union {
        void *object;
        void (*fn)(void);
    } symbol;
    dr_status st = DR_OK;

    if (c->ranks != NULL)
        return DR_OK;
    (void)setenv("NCCL_NVLS_ENABLE", "0", 0);
    lib = cu_library(library);
    if (lib == NULL) {
        st = dr_fail(DR_EUNSUPPORTED, "cuda: several GPUs: %s was not found", library);
        dr_hint("it is NCCL's (pip: nvidia-nccl-cu13); DRUPE_LIB_PATH may name its folder");
        return st;
    }
    r = dr_calloc(1, sizeof(*r));
#define FIND(name, result, params)                                                         \
    symbol.object = dlsym(lib, #name);                                                     \
    r->name = (__typeof__(r->name))symbol.fn;                                              \
    missing = symbol.object == NULL ? #name : missing;
    NCCL_FUNCTIONS(FIND)
#undef FIND
    if (missing != NULL) {
        free(r);
        return dr_fail(DR_EUNSUPPORTED, "cuda: %s has no %s", library, missing);
    }
    c->ranks = r;
    return st;
}

static dr_status check(const cu_ranks *r, int err, const char *what)
{
    if (err == SUCCESS || err == IN_PROGRESS)
        return DR_OK;
    return dr_fail(DR_EDEVICE, "cuda: NCCL: %s: %s", what, r->ncclGetErrorString(err));
}

dr_status cu_rank_id(nn_device *dev, unsigned char id[NN_RANK_ID])
{
    cu_state *c = cu_of(dev);
    unique_id made;
    dr_status st = DR_OK;

    DR_TRY(open_nccl(c));
    DR_TRY(check(c->ranks, c->ranks->ncclGetUniqueId(&made), "making an id"));
    memcpy(id, made.internal, sizeof(made.internal));
done:
    return st;
}

static double now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void nap(double waited)
{
    const struct timespec short_one = {.tv_nsec = 100000};

    if (waited > spin_s)
        (void)nanosleep(&short_one, NULL);
}

/* Is another rank gone, and not because all is done? */
static bool lost(const dr_ranks *others, cu_stream stream, const char *what)
{
    const struct timespec grace = {.tv_nsec = 100000000};

    if (dr_ranks_check(others, what) == DR_OK)
        return false;
    (void)nanosleep(&grace, NULL);
    return (int)cudaStreamQuery(stream) == (int)cudaErrorNotReady;
}

/* Until the stream is through, or something is wrong.  others (may be NULL): looks after
 * them. */
static dr_status wait_for(const cu_ranks *r, const dr_ranks *others, cu_stream stream,
                          const char *what)
{
    double start = now(), waited = 0;
    int err = SUCCESS, asynchronous = SUCCESS;
    dr_status st = DR_OK;

    while ((err = (int)cudaStreamQuery(stream)) == (int)cudaErrorNotReady) {
        DR_TRY(check(r, r->ncclCommGetAsyncError(r->comm, &asynchronous),
                     "asking for errors"));
        DR_TRY(check(r, asynchronous, "another GPU"));
        DR_TRY(dr_cancelled_check());
        waited = now() - start;
        if (waited > spin_s && lost(others, stream, what))
            DR_TRY(dr_ranks_check(others, what));
        if (waited > r->timeout || atomic_load(&r->left))
            DR_FAIL(DR_EDEVICE, "cuda: NCCL: another GPU did not come in %.0f s",
                    r->timeout);
        nap(waited);
    }
    DR_TRY(cu_check(err, what));
done:
    return st;
}

/* ---- meeting ---- */

/* The first sum connects them. */
static dr_status connect_all(const cu_ranks *r)
{
    cu_stream s = NULL;
    float *one = NULL;
    dr_status st = DR_OK;

    DR_TRY(cu_check((int)cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking),
                    "making a stream"));
    DR_TRY(cu_check((int)cudaMalloc((void **)&one, sizeof(*one)), "memory for a sum"));
    DR_TRY(cu_check((int)cudaMemsetAsync(one, 0, sizeof(*one), s), "zeroing"));
    DR_TRY(check(r, r->ncclAllReduce(one, one, 1, FLOAT32, SUM, r->comm, s), "adding"));
    DR_TRY(wait_for(r, NULL, s, "adding"));
    (void)cudaFree(one); /* behind an error it may wait for ever */
    (void)cudaStreamDestroy(s);
done:
    return st;
}

static dr_status meet_all(cu_ranks *r)
{
    double start = now();
    dr_status st = DR_OK;

    DR_TRY(cu_check((int)cudaSetDevice(r->device), "taking the GPU"));
    DR_TRY(check(r, r->ncclCommInitRank(&r->comm, r->count, r->id, r->rank),
                 "meeting the other GPUs"));
    dr_log(DR_DEBUG, "cuda: NCCL: the GPUs have met: %.3f s", now() - start);
    DR_TRY(connect_all(r));
    dr_log(DR_DEBUG, "cuda: NCCL: and are connected: %.3f s", now() - start);
done:
    if (st != DR_OK)
        dr_hint("NCCL_DEBUG=INFO says more");
    return st;
}

static void *meet(void *ctx)
{
    cu_ranks *r = ctx;
    dr_status st = meet_all(r);

    r->trail = *dr_trail_get();
    r->trail.status = st;
    atomic_store(&r->ended, true);
    return NULL;
}

dr_status cu_rank_join(nn_device *dev, const unsigned char id[NN_RANK_ID])
{
    cu_state *c = cu_of(dev);
    dr_status st = DR_OK;

    DR_TRY(open_nccl(c));
    cu_ranks *r = c->ranks;
    r->ranks = dev->ranks;
    r->device = c->device;
    r->rank = (int)dev->rank;
    r->count = (int)dev->rank_count;
    r->timeout = dev->rank_timeout;
    memcpy(r->id.internal, id, sizeof(r->id.internal));
    r->meeting = pthread_create(&r->thread, NULL, meet, r) == 0;
    if (!r->meeting)
        (void)meet(r);
done:
    return st;
}

/* Waits for the thread, `most` seconds at the most.  DR_ECANCELLED, DR_EDEVICE: it goes
 * on. */
static dr_status await_end(cu_ranks *r, double most)
{
    double start = now(), waited = 0;
    dr_status st = DR_OK;

    for (; r->meeting && !atomic_load(&r->ended); waited = now() - start) {
        DR_TRY(dr_cancelled_check());
        DR_TRY(dr_ranks_check(r->ranks, "the GPUs' meeting"));
        if (waited > most)
            DR_FAIL(DR_EDEVICE, "cuda: NCCL: another GPU did not come in %.0f s", most);
        nap(waited);
    }
    if (r->meeting)
        (void)pthread_join(r->thread, NULL);
    r->meeting = false;
done:
    return st;
}

/* The same for who has no use for the reason. */
static bool ended(cu_ranks *r, double most)
{
    const dr_trail before = *dr_trail_get();

    if (await_end(r, most) == DR_OK)
        return true;
    dr_trail_set(&before);
    return false;
}

/* DR_EDEVICE: the GPUs have not met, why not. */
static dr_status ready(cu_state *c)
{
    cu_ranks *r = c->ranks;
    dr_status st = DR_OK;

    if (r == NULL)
        return dr_fail(DR_EDEVICE, "cuda: NCCL: the GPUs have not met");
    DR_TRY(await_end(r, r->timeout));
    if (r->trail.status != DR_OK) {
        dr_trail_set(&r->trail);
        return r->trail.status;
    }
    if (r->comm == NULL)
        DR_FAIL(DR_EDEVICE, "cuda: NCCL: the GPUs have not met");
done:
    return st;
}

void cu_ranks_settle(cu_state *c)
{
    if (c->ranks != NULL)
        (void)ended(c->ranks, c->ranks->timeout);
}

/* ---- adding and sharing ---- */

/* After an error nothing of it can go on: kernels that wait for others are ended. */
static void give_up(cu_state *c)
{
    if (c->ranks == NULL || c->ranks->meeting)
        return;
    if (c->ranks->comm != NULL)
        (void)c->ranks->ncclCommAbort(c->ranks->comm);
    c->ranks->comm = NULL;
}

/* *at = where p is; NULL: not in this GPU's floats. */
static dr_status find(void **at, cu_state *c, const float *p)
{
    const cu_block *b = cu_find(c, p);

    *at = b != NULL && b->kind == NN_MEM_FLOAT ? cu_place(b, p) : NULL;
    return *at != NULL ? ready(c) : DR_OK;
}

dr_status cu_rank_sum(nn_device *dev, bool *taken, float *p, size_t count)
{
    cu_state *c = cu_of(dev);
    void *at = NULL;
    dr_status st = DR_OK;

    DR_TRY(find(&at, c, p));
    *taken = at != NULL;
    if (!*taken)
        return DR_OK;
    DR_TRY(check(
        c->ranks,
        c->ranks->ncclAllReduce(at, at, count, FLOAT32, SUM, c->ranks->comm, c->stream),
        "adding"));
    DR_TRY(wait_for(c->ranks, dev->ranks, c->stream, "adding"));
done:
    if (st != DR_OK)
        give_up(c);
    return st;
}

dr_status cu_rank_share(nn_device *dev, bool *taken, float *p, const size_t *edges)
{
    cu_state *c = cu_of(dev);
    float *at = NULL;
    void *found = NULL;
    dr_status st = DR_OK;

    DR_TRY(find(&found, c, p));
    at = found;
    *taken = at != NULL;
    if (!*taken)
        return DR_OK;
    DR_TRY(check(c->ranks, c->ranks->ncclGroupStart(), "sharing"));
    for (size_t k = 0; k < dev->rank_count; k++) {
        float *part = at + edges[k];
        if (edges[k + 1] > edges[k])
            DR_TRY(
                check(c->ranks,
                      c->ranks->ncclBroadcast(part, part, edges[k + 1] - edges[k], FLOAT32,
                                              (int)k, c->ranks->comm, c->stream),
                      "sharing"));
    }
    DR_TRY(check(c->ranks, c->ranks->ncclGroupEnd(), "sharing"));
    DR_TRY(wait_for(c->ranks, dev->ranks, c->stream, "sharing"));
done:
    if (st != DR_OK && found != NULL)
        give_up(c);
    return st;
}

void cu_ranks_close(cu_ranks *r)
{
    if (r == NULL)
        return;
    if (!ended(r, leave_s)) { /* it may wait for a rank that is gone: left to the exit */
        atomic_store(&r->left, true);
        return;
    }
    if (r->comm != NULL && r->trail.status == DR_OK)
        (void)r->ncclCommDestroy(r->comm);
    else if (r->comm != NULL)
        (void)r->ncclCommAbort(r->comm);
    free(r);
}
