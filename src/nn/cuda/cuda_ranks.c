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
 * A rank that is gone leaves the others' kernel waiting for ever: so the host looks after
 * the stream and NCCL's own errors, and gives up after the ranks' timeout.  NCCL's calls
 * and numbers are those of nccl.h 2.x, which is not needed to build this.
 */
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/log.h"
#include "core/mem.h"
#include "nn/cuda/cuda_impl.h"

enum { SUCCESS = 0, IN_PROGRESS = 7, SUM = 0, FLOAT32 = 7 };
static const char library[] = "libnccl.so.2";
static const double spin_s = 0.01;

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

dr_status cu_rank_join(nn_device *dev, const unsigned char id[NN_RANK_ID])
{
    cu_state *c = cu_of(dev);
    unique_id given;
    dr_status st = DR_OK;

    DR_TRY(open_nccl(c));
    memcpy(given.internal, id, sizeof(given.internal));
    DR_TRY(check(c->ranks,
                 c->ranks->ncclCommInitRank(&c->ranks->comm, (int)dev->rank_count, given,
                                            (int)dev->rank),
                 "meeting the other GPUs"));
done:
    if (st != DR_OK)
        dr_hint("NCCL_DEBUG=INFO says more");
    return st;
}

static double now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Until the stream is through, or something is wrong. */
static dr_status wait_for(const nn_device *dev, const char *what)
{
    const cu_state *c = cu_of(dev);
    const struct timespec nap = {.tv_nsec = 100000};
    double start = now(), waited = 0;
    int err = SUCCESS, asynchronous = SUCCESS;
    dr_status st = DR_OK;

    while ((err = (int)cudaStreamQuery(c->stream)) == (int)cudaErrorNotReady) {
        DR_TRY(check(c->ranks,
                     c->ranks->ncclCommGetAsyncError(c->ranks->comm, &asynchronous),
                     "asking for errors"));
        DR_TRY(check(c->ranks, asynchronous, "another GPU"));
        DR_TRY(dr_cancelled_check());
        waited = now() - start;
        if (waited > dev->rank_timeout)
            DR_FAIL(DR_EDEVICE, "cuda: NCCL: another GPU did not come in %.0f s",
                    dev->rank_timeout);
        if (waited > spin_s)
            (void)nanosleep(&nap, NULL);
    }
    DR_TRY(cu_check(err, what));
done:
    return st;
}

/* After an error nothing of it can go on: kernels that wait for others are ended. */
static void give_up(cu_state *c)
{
    if (c->ranks == NULL)
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
    if (*at != NULL && (c->ranks == NULL || c->ranks->comm == NULL))
        return dr_fail(DR_EDEVICE, "cuda: NCCL: the GPUs have not met");
    return DR_OK;
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
    DR_TRY(wait_for(dev, "adding"));
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
    DR_TRY(wait_for(dev, "sharing"));
done:
    if (st != DR_OK && found != NULL)
        give_up(c);
    return st;
}

void cu_ranks_close(cu_ranks *r)
{
    if (r == NULL)
        return;
    if (r->comm != NULL)
        (void)r->ncclCommDestroy(r->comm);
    free(r);
}
