/*
 * cuda.c - the cuda backend: what the library gives to nn, opening the GPU, saying why it
 * cannot be.
 */
#include <cuda_runtime_api.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/pool.h"
#include "nn/cuda/cuda_impl.h"
#include "nn/module_impl.h"

enum { CAPABILITY_LEAST = 80 };

dr_status cu_check(int err, const char *what)
{
    if (err == 0)
        return DR_OK;
    return dr_fail(DR_EDEVICE, "cuda: %s: %s", what, cudaGetErrorString((cudaError_t)err));
}

static dr_status no_device(int err)
{
    int driver = 0, runtime = 0;
    dr_status st = DR_OK;

    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (driver == 0) {
        st = dr_fail(DR_EUNSUPPORTED, "cuda: no Nvidia driver is loaded");
        dr_hint("nvidia-smi shows what there is; in a container, it must be passed in");
    } else if (driver / 1000 < runtime / 1000) {
        st = dr_fail(DR_EUNSUPPORTED,
                     "cuda: the driver is for CUDA %d.%d, this build needs %d.0",
                     driver / 1000, driver % 1000 / 10, runtime / 1000);
        dr_hint("a newer driver, or --compute cpu");
    } else {
        st = dr_fail(DR_EUNSUPPORTED, "cuda: %s",
                     err != 0 ? cudaGetErrorString((cudaError_t)err) : "no GPU is here");
        dr_hint("CUDA_VISIBLE_DEVICES may hide it");
    }
    return st;
}

/* *library: cuBLASLt's comes in while the context is made, once there is a GPU. */
static dr_status open_gpu(nn_device *dev, cu_preload **library)
{
    struct cudaDeviceProp prop;
    int count = 0;
    size_t len = strlen(dev->text);
    dr_status st = DR_OK;

    int err = (int)cudaGetDeviceCount(&count);
    if (err != 0 || count == 0)
        return no_device(err);
    if (dev->place >= (size_t)count) {
        st = dr_fail(DR_EUNSUPPORTED,
                     "cuda: %zu processes of this host want a GPU each, and it has %d",
                     dev->place_count, count);
        dr_hint("start as many as there are GPUs; CUDA_VISIBLE_DEVICES may hide some");
        goto done;
    }
    *library = cu_preload_begin();
    DR_TRY(cu_check((int)cudaSetDevice((int)dev->place), "taking the GPU"));
    DR_TRY(
        cu_check((int)cudaGetDeviceProperties(&prop, (int)dev->place), "asking the GPU"));
    if (prop.major * 10 + prop.minor < CAPABILITY_LEAST)
        DR_FAIL(DR_EUNSUPPORTED,
                "cuda: %s has compute capability %d.%d, this build needs 8.0", prop.name,
                prop.major, prop.minor);
    (void)snprintf(dev->text + len, sizeof(dev->text) - len, ", %.60s, %zu GB", prop.name,
                   prop.totalGlobalMem / 1000000000);
done:
    return st;
}

static dr_status open_as(nn_device *dev, bool bf16)
{
    cu_preload *library = NULL;
    cu_state *c = NULL;
    dr_status st = DR_OK;

    DR_TRY(open_gpu(dev, &library));
    c = dr_calloc(1, sizeof(*c));
    c->bf16 = bf16;
    c->device = (int)dev->place;
    dev->state = c;
    dev->rough = &cu_rough_ops;
    DR_TRY(cu_check((int)cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking),
                    "making a stream"));
    DR_TRY(cu_mem_open(c));
    cu_preload_end(library);
    library = NULL;
    DR_TRY(cu_lt_open(&c->lt));
    cu_warm_begin(c, dr_pool_threads(dev->pool));
done:
    cu_preload_end(library);
    return st;
}

static dr_status open_float(nn_device *dev)
{
    return open_as(dev, false);
}

static dr_status open_bf16(nn_device *dev)
{
    return open_as(dev, true);
}

static void round_products(nn_device *dev, nn_rounding how)
{
    cu_of(dev)->bf16 = how == NN_ROUND_BF16 || dev->backend->rounds;
    cu_of(dev)->two_terms = how == NN_ROUND_TWO_TERMS;
}

static void close_gpu(nn_device *dev)
{
    cu_state *c = cu_of(dev);

    if (c == NULL)
        return;
    cu_warm_end(c);
    if (c->stream != NULL)
        (void)cudaStreamSynchronize(c->stream);
    cu_ranks_close(c->ranks);
    cu_loader_close(c->loader);
    cu_lt_close(c->lt);
    cu_mem_close(c);
    if (c->pool != NULL)
        (void)cudaMemPoolDestroy(c->pool);
    if (c->stream != NULL)
        (void)cudaStreamDestroy(c->stream);
    free(c);
}

#define MEMBERS                                                                            \
    .close = close_gpu, .round_products = round_products, .mem_room = cu_mem_room,         \
    .mem_new = cu_mem_new, .mem_free = cu_mem_free, .copy = cu_copy, .zero = cu_zero,      \
    .rank_id = cu_rank_id, .rank_join = cu_rank_join, .rank_sum = cu_rank_sum,             \
    .rank_share = cu_rank_share, .load = cu_load, .masked_product = cu_masked_product,     \
    .masked_factor = cu_masked_factor, .norm_keep = cu_norm_keep,                          \
    .norm_back_keep = cu_norm_back_keep, .xent_apart = cu_xent_apart,                      \
    .attention_back_turned = cu_attention_back_turned
#define NN_OP(op, params, args) .op = cuda_##op,
static const nn_backend exact = {
    .name = "cuda",
    .open = open_float,
    MEMBERS,
#include "nn/ops.def"
#include "nn/quant_ops.def"
};
static const nn_backend fast = {
    .name = "cuda:bf16",
    .open = open_bf16,
    .rounds = true,
    MEMBERS,
#include "nn/ops.def"
#include "nn/quant_ops.def"
};
#undef NN_OP
#undef MEMBERS

/* ---- the library's one symbol, and what it takes from its host ---- */

static nn_module_host core;

nn_module_fn drupe_cuda_module;

__attribute__((visibility("default"))) const nn_module *
drupe_cuda_module(const nn_module_host *host)
{
    static const nn_backend *const backends[] = {&exact, &fast};
    static const nn_module module = {NN_MODULE_ABI, sizeof(nn_backend), DR_COUNT(backends),
                                     backends};

    if (host->abi != NN_MODULE_ABI || host->backend_bytes != sizeof(nn_backend))
        return NULL;
    core = *host;
    return &module;
}

dr_status dr_fail_at(const char *file, int line, dr_status st, const char *fmt, ...)
{
    char text[DR_TRAIL_TEXT];
    va_list va;

    va_start(va, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, va);
    va_end(va);
    return core.fail_at(file, line, st, "%s", text);
}

void dr_hint(const char *fmt, ...)
{
    char text[DR_TRAIL_TEXT];
    va_list va;

    va_start(va, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, va);
    va_end(va);
    core.hint("%s", text);
}

void dr_note_at(const char *file, int line, const char *fmt, ...)
{
    char text[DR_TRAIL_TEXT];
    va_list va;

    va_start(va, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, va);
    va_end(va);
    core.note_at(file, line, "%s", text);
}

const dr_trail *dr_trail_get(void)
{
    return core.trail_get();
}

void dr_trail_set(const dr_trail *trail)
{
    core.trail_set(trail);
}

void dr_log(dr_level level, const char *fmt, ...)
{
    char text[DR_TRAIL_TEXT];
    va_list va;

    va_start(va, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, va);
    va_end(va);
    core.log(level, "%s", text);
}

DR_NORETURN void dr_bug_at(const char *file, int line, const char *condition)
{
    core.bug_at(file, line, condition);
}

dr_status dr_cancelled_check(void)
{
    return core.cancelled_check();
}

dr_status dr_pool_run(dr_pool *pool, size_t tasks, dr_task_fn fn, void *ctx)
{
    return core.pool_run(pool, tasks, fn, ctx);
}

dr_status dr_ranks_check(const dr_ranks *r, const char *what)
{
    return core.ranks_check(r, what);
}

int dr_pool_threads(const dr_pool *pool)
{
    return core.pool_threads(pool);
}

void *dr_calloc(size_t count, size_t size)
{
    return core.calloc_(count, size);
}
