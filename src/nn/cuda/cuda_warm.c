/*
 * cuda_warm.c - what the first calls of a run would wait for, done by threads of its own.
 *
 * Opening a GPU takes the driver 0.2 s; in its second half, the context's, cuBLASLt's
 * library is brought in (0.06 s).  Then kernels are loaded when they are first launched,
 * cuBLASLt's at its first product, and pinned memory is made: what the caller reads and
 * tokenizes goes on beside that.  Nothing here is needed: what fails is done again, and
 * told, by who needs it.
 */
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdlib.h>

#include "core/mem.h"
#include "nn/cuda/cuda_impl.h"
#include "nn/cuda/cuda_kernels.h"

struct cu_preload {
    pthread_t thread;
};

static void *preload(void *ctx)
{
    cu_lt_preload();
    return ctx;
}

cu_preload *cu_preload_begin(void)
{
    cu_preload *p = dr_calloc(1, sizeof(*p));

    if (pthread_create(&p->thread, NULL, preload, NULL) == 0)
        return p;
    free(p);
    return NULL;
}

void cu_preload_end(cu_preload *p)
{
    if (p == NULL)
        return;
    (void)pthread_join(p->thread, NULL);
    free(p);
}

struct cu_warm {
    pthread_t thread;
    cu_state *c; /* borrowed: its device and lt are read */
    int threads;
    cu_loader *loader; /* made here */
};

enum { SIDE = 128 };

/* A kernel of this library and one of cuBLASLt's, on a stream beside the caller's. */
static void run_kernels(const cu_warm *w)
{
    const size_t half = SIDE * SIDE * sizeof(uint16_t), whole = 2 * half;
    char *p = NULL;
    cudaStream_t s = NULL;

    if (cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking) == cudaSuccess &&
        cudaMalloc((void **)&p, 2 * half + 2 * whole) == cudaSuccess &&
        cudaMemsetAsync(p, 0, 2 * half + 2 * whole, s) == cudaSuccess) {
        float *c = (float *)(p + 2 * half), *d = (float *)(p + 2 * half + whole);
        (void)cu_add(s, d, c, SIDE * SIDE);
        if (cu_lt_try(w->c->lt, s, p, p + half, c, SIDE) == DR_OK)
            (void)cudaStreamSynchronize(s);
    }
    (void)cudaFree(p);
    if (s != NULL)
        (void)cudaStreamDestroy(s);
}

static void *warm(void *ctx)
{
    cu_warm *w = ctx;

    if (cudaSetDevice(w->c->device) != cudaSuccess)
        return NULL;
    if (cu_loader_open(&w->loader, w->threads) != DR_OK)
        w->loader = NULL;
    run_kernels(w);
    return NULL;
}

void cu_warm_begin(cu_state *c, int threads)
{
    cu_warm *w = dr_calloc(1, sizeof(*w));

    w->c = c;
    w->threads = threads;
    if (pthread_create(&w->thread, NULL, warm, w) == 0)
        c->warm = w;
    else
        free(w);
}

void cu_warm_end(cu_state *c)
{
    cu_warm *w = c->warm;

    if (w == NULL)
        return;
    (void)pthread_join(w->thread, NULL);
    c->loader = w->loader;
    c->warm = NULL;
    free(w);
}
