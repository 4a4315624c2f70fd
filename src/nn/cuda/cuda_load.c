/*
 * cuda_load.c - weights from a mapped file into the GPU's memory, as they are, and large
 * results back.
 *
 * Each thread of the device's pool copies pieces into pinned places of its own, two that
 * take turns, and puts their way to the GPU on a stream beside the one of the operations:
 * a page that is not there yet is waited for by one thread, and what was called before goes
 * on computing.  From and to pageable memory the driver would copy with one thread, at a
 * seventh of the rate; pages of a result that are new are made by all threads, too.
 */
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/pool.h"
#include "nn/cuda/cuda_impl.h"

enum { PIECE = 2 << 20, TURNS = 2, PARTS = 64 }; /* PIECE: bytes */

typedef struct {
    cudaEvent_t gone[TURNS]; /* owned: the place may be written again */
    int turn;
} seat;

struct cu_loader {
    cudaStream_t stream; /* owned */
    cudaEvent_t before, behind;
    char *pinned; /* owned [threads][TURNS][PIECE] */
    seat *seats;  /* owned [threads] */
    int threads;
};

void cu_loader_close(cu_loader *l)
{
    if (l == NULL)
        return;
    if (l->stream != NULL)
        (void)cudaStreamSynchronize(l->stream);
    for (int i = 0; l->seats != NULL && i < l->threads * TURNS; i++)
        if (l->seats[i / TURNS].gone[i % TURNS] != NULL)
            (void)cudaEventDestroy(l->seats[i / TURNS].gone[i % TURNS]);
    if (l->before != NULL)
        (void)cudaEventDestroy(l->before);
    if (l->behind != NULL)
        (void)cudaEventDestroy(l->behind);
    if (l->stream != NULL)
        (void)cudaStreamDestroy(l->stream);
    (void)cudaFreeHost(l->pinned);
    free(l->seats);
    free(l);
}

static dr_status make_event(cudaEvent_t *out)
{
    return cu_check((int)cudaEventCreateWithFlags(out, cudaEventDisableTiming),
                    "making an event");
}

dr_status cu_loader_open(cu_loader **out, int threads)
{
    cu_loader *l = dr_calloc(1, sizeof(*l));
    size_t bytes = (size_t)threads * TURNS * PIECE;
    void *p = NULL;
    dr_status st = DR_OK;

    l->threads = threads;
    l->seats = dr_calloc((size_t)threads, sizeof(*l->seats));
    DR_TRY(cu_check((int)cudaStreamCreateWithFlags(&l->stream, cudaStreamNonBlocking),
                    "making a stream"));
    DR_TRY(make_event(&l->before));
    DR_TRY(make_event(&l->behind));
    for (int i = 0; i < threads * TURNS; i++)
        DR_TRY(make_event(&l->seats[i / TURNS].gone[i % TURNS]));
    DR_TRY(cu_check((int)cudaHostAlloc(&p, bytes, cudaHostAllocDefault),
                    "pinned memory for weights"));
    l->pinned = p;
    *out = l;
    l = NULL;
done:
    cu_loader_close(l);
    return st;
}

typedef struct {
    cu_state *c;
    cu_loader *l;
    const nn_stored *parts;
    size_t first[PARTS + 1]; /* the pieces of part i: first[i] .. first[i + 1] - 1 */
    size_t count;
} job;

static dr_status load_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    seat *s = &j->l->seats[worker];
    size_t i = 0, at = 0, n = 0;
    dr_status st = DR_OK;

    while (task >= j->first[i + 1])
        i++;
    at = (task - j->first[i]) * PIECE;
    n = j->parts[i].count * sizeof(uint16_t) - at;
    n = n < PIECE ? n : PIECE;
    char *place = j->l->pinned + ((size_t)worker * TURNS + (size_t)s->turn) * PIECE;
    char *to = cu_place(cu_find(j->c, j->parts[i].dst), j->parts[i].dst);

    DR_TRY(cu_check((int)cudaSetDevice(j->c->device), "taking the GPU"));
    DR_TRY(cu_check((int)cudaEventSynchronize(s->gone[s->turn]), "waiting for the GPU"));
    memcpy(place, (const char *)j->parts[i].src + at, n);
    DR_TRY(cu_check(
        (int)cudaMemcpyAsync(to + at, place, n, cudaMemcpyHostToDevice, j->l->stream),
        "copying to the GPU"));
    DR_TRY(cu_check((int)cudaEventRecord(s->gone[s->turn], j->l->stream), "an event"));
    s->turn = (s->turn + 1) % TURNS;
done:
    return st;
}

static dr_status need_loader(cu_state *c, const dr_pool *pool)
{
    cu_warm_end(c);
    return c->loader != NULL ? DR_OK : cu_loader_open(&c->loader, dr_pool_threads(pool));
}

/* The loader's stream goes on behind what the operations' has now. */
static dr_status follow(cu_loader *l, cu_stream stream)
{
    dr_status st = DR_OK;

    DR_TRY(cu_check((int)cudaEventRecord(l->before, stream), "an event"));
    DR_TRY(cu_check((int)cudaStreamWaitEvent(l->stream, l->before, 0), "an event"));
done:
    return st;
}

dr_status cu_load(nn_device *dev, const nn_stored *parts, size_t count)
{
    cu_state *c = cu_of(dev);
    job j = {.c = c, .parts = parts, .count = count};
    dr_status st = DR_OK;

    DR_BUG_IF(count > PARTS);
    DR_TRY(need_loader(c, dev->pool));
    j.l = c->loader;
    for (size_t i = 0; i < count; i++) {
        DR_BUG_IF(!cu_is_bf16(c, parts[i].dst));
        j.first[i + 1] =
            j.first[i] + (parts[i].count * sizeof(uint16_t) + PIECE - 1) / PIECE;
    }
    /* behind what made the blocks, before what will read them */
    DR_TRY(follow(j.l, c->stream));
    DR_TRY(dr_pool_run(dev->pool, j.first[count], load_task, &j));
    DR_TRY(cu_check((int)cudaEventRecord(j.l->behind, j.l->stream), "an event"));
    DR_TRY(cu_check((int)cudaStreamWaitEvent(c->stream, j.l->behind, 0), "an event"));
done:
    return st;
}

/* ---- and back ---- */

typedef struct {
    cu_state *c;
    char *dst;
    const char *src;
    size_t bytes;
} fetch_job;

static dr_status fetch_task(void *ctx, size_t task, int worker)
{
    const fetch_job *j = ctx;
    cu_loader *l = j->c->loader;
    seat *s = &l->seats[worker];
    size_t at = task * PIECE, n = j->bytes - at < PIECE ? j->bytes - at : PIECE;
    char *place = l->pinned + ((size_t)worker * TURNS + (size_t)s->turn) * PIECE;
    dr_status st = DR_OK;

    DR_TRY(cu_check((int)cudaSetDevice(j->c->device), "taking the GPU"));
    DR_TRY(cu_check((int)cudaEventSynchronize(s->gone[s->turn]), "waiting for the GPU"));
    DR_TRY(cu_check(
        (int)cudaMemcpyAsync(place, j->src + at, n, cudaMemcpyDeviceToHost, l->stream),
        "copying from the GPU"));
    DR_TRY(cu_check((int)cudaEventRecord(s->gone[s->turn], l->stream), "an event"));
    DR_TRY(cu_check((int)cudaEventSynchronize(s->gone[s->turn]), "waiting for the GPU"));
    memcpy(j->dst + at, place, n);
done:
    return st;
}

dr_status cu_fetch(cu_state *c, dr_pool *pool, void *dst, const void *src, size_t bytes)
{
    fetch_job j = {c, dst, src, bytes};
    dr_status st = DR_OK;

    DR_TRY(need_loader(c, pool));
    DR_TRY(follow(c->loader, c->stream));
    DR_TRY(dr_pool_run(pool, (bytes + PIECE - 1) / PIECE, fetch_task, &j));
done:
    return st;
}
