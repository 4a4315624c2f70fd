/*
 * device.c - opening a device by its kind, and the operations, each one call through the
 * device's table; kinds "cuda..." come from a library (module.c).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/mem.h"
#include "nn/module_impl.h"

/* The first is what users are told of; the others are for tests and comparisons. */
static const nn_backend *const backends[] = {&nn_backend_cpu,       &nn_backend_cpu_avx512,
                                             &nn_backend_cpu_avx2,  &nn_backend_cpu_plain,
                                             &nn_backend_cpu_tiles, &nn_backend_apart,
                                             &nn_backend_ref};

static const nn_backend *find(const char *kind)
{
    for (size_t i = 0; i < DR_COUNT(backends); i++)
        if (strcmp(backends[i]->name, kind) == 0)
            return backends[i];
    return NULL;
}

static dr_status check_complete(const nn_backend *b)
{
#define NN_OP(op, params, args)                                                            \
    if (b->op == NULL)                                                                     \
        return dr_fail(DR_EUNSUPPORTED, "device %s has no %s", b->name, #op);
#include "nn/ops.def"
#undef NN_OP
    return DR_OK;
}

dr_status nn_device_open(nn_device **out, const char *kind, int threads)
{
    return nn_device_open_rank(out, kind, threads, NULL);
}

dr_status nn_device_open_rank(nn_device **out, const char *kind, int threads,
                              dr_ranks *ranks)
{
    dr_status st = DR_OK;
    nn_device *dev = NULL;
    const nn_backend *b = find(kind);

    if (b == NULL && strncmp(kind, "cuda", 4) == 0) {
        dr_status missing = nn_module_backend(&b, kind);
        if (missing != DR_OK)
            return missing;
    }
    if (b == NULL) {
        dr_status bad = dr_fail(DR_EUSAGE, "unknown device '%s'", kind);
        dr_hint("known devices: cpu (fast), cuda, ref (slow and plain, to compare with)");
        return bad;
    }
    dev = dr_calloc(1, sizeof(*dev));
    dev->backend = b;
    dev->ranks = ranks;
    dev->rank = dr_ranks_id(ranks);
    dev->rank_count = dr_ranks_count(ranks);
    dev->place = dr_ranks_local(ranks);
    dev->place_count = dr_ranks_local_count(ranks);
    dev->rank_timeout = dr_ranks_timeout(ranks);
    DR_TRY(check_complete(b));
    DR_TRY(dr_pool_open(&dev->pool, threads));
    int n = dr_pool_threads(dev->pool);
    (void)snprintf(dev->text, sizeof(dev->text), "%s, %d thread%s", b->name, n,
                   n == 1 ? "" : "s");
    DR_TRYF(b->open(dev), "opening device %s", kind);
    dev->rough_own = dev->rough;
    *out = dev;
    dev = NULL;
done:
    nn_device_close(dev);
    return st;
}

void nn_device_close(nn_device *dev)
{
    if (dev == NULL)
        return;
    dev->backend->close(dev);
    dr_pool_close(dev->pool);
    dr_big_free(dev->slice);
    free(dev);
}

dr_status nn_room(float **out, float **room, size_t *had, size_t wanted, const char *what)
{
    void *p = NULL;
    dr_status st = DR_OK;

    if (wanted > *had) {
        dr_big_free(*room);
        *room = NULL;
        *had = 0;
        DR_TRY(dr_big_alloc(&p, wanted, sizeof(float), what));
        *room = p;
        *had = wanted;
    }
    *out = *room;
done:
    return st;
}

dr_pool *nn_device_pool(nn_device *dev)
{
    return dev->pool;
}

const char *nn_device_describe(const nn_device *dev)
{
    return dev->text;
}

bool nn_quant_ops(const nn_device *dev)
{
    return dev->backend->weight_means != NULL;
}

void nn_round_products(nn_device *dev, nn_rounding how)
{
    if (dev->backend->round_products != NULL)
        dev->backend->round_products(dev, how);
}

/* ---- memory ---- */

bool nn_device_rounds(const nn_device *dev)
{
    return dev != NULL && dev->backend->rounds;
}

bool nn_mem_apart(const nn_device *dev)
{
    return dev != NULL && dev->backend->mem_new != NULL;
}

size_t nn_mem_room(nn_device *dev)
{
    return dev != NULL && dev->backend->mem_room != NULL ? dev->backend->mem_room(dev) : 0;
}

dr_status nn_mem_new(nn_device *dev, float **out, size_t floats, nn_mem_kind kind,
                     const char *what)
{
    dr_status st = DR_OK;
    void *p = NULL;

    *out = NULL;
    if (dev != NULL && dev->backend->mem_new != NULL)
        return dev->backend->mem_new(dev, out, floats, kind, what);
    DR_TRY(dr_big_alloc(&p, floats, sizeof(float), what));
    *out = p;
done:
    return st;
}

void nn_mem_free(nn_device *dev, void *p)
{
    if (dev != NULL && dev->backend->mem_free != NULL)
        dev->backend->mem_free(dev, p);
    else
        dr_big_free(p);
}

void nn_mem_idle(nn_device *dev, float *p, size_t floats)
{
    if (dev == NULL || dev->backend->mem_new == NULL)
        dr_big_idle(p, floats * sizeof(*p));
}

dr_status nn_copy(nn_device *dev, void *dst, const void *src, size_t bytes)
{
    if (dev->backend->copy != NULL)
        return dev->backend->copy(dev, dst, src, bytes);
    memcpy(dst, src, bytes);
    return DR_OK;
}

dr_status nn_copy_bf16(nn_device *dev, float *dst, const void *src, size_t count)
{
    nn_stored as_is = {.src = src, .count = count};
    dr_status st = DR_OK;

    if (dev->backend->load == NULL) {
        dr_to_f32(dst, src, DR_DTYPE_BF16, count);
        return DR_OK;
    }
    DR_TRY(nn_mem_new(dev, &as_is.dst, count, NN_MEM_BF16, "weights on their way"));
    DR_TRY(dev->backend->load(dev, &as_is, 1));
    DR_TRY(nn_copy(dev, dst, as_is.dst, count * sizeof(*dst)));
done:
    nn_mem_free(dev, as_is.dst);
    return st;
}

dr_status nn_zero(nn_device *dev, void *dst, size_t bytes)
{
    if (dev->backend->zero != NULL)
        return dev->backend->zero(dev, dst, bytes);
    memset(dst, 0, bytes);
    return DR_OK;
}

/* ---- several processes ---- */

dr_ranks *nn_device_ranks(const nn_device *dev)
{
    return dev->ranks;
}

dr_status nn_device_join(nn_device *dev)
{
    unsigned char mine[NN_RANK_ID] = {0}, *all = NULL;
    dr_status st = DR_OK;

    if (dev->rank_count == 1 || dev->backend->rank_join == NULL)
        return DR_OK;
    all = dr_calloc(dev->rank_count, NN_RANK_ID);
    if (dev->rank == 0)
        DR_TRY(dev->backend->rank_id(dev, mine));
    DR_TRY(dr_ranks_gather(dev->ranks, all, mine, sizeof(mine), "the GPUs' meeting"));
    DR_TRY(dev->backend->rank_join(dev, all));
done:
    free(all);
    return st;
}

dr_status nn_sum_ranks(nn_device *dev, float *p, size_t count, const char *what)
{
    bool taken = false;
    void *host = NULL;
    dr_status st = DR_OK;

    if (dev->rank_count == 1)
        return DR_OK;
    if (dev->backend->rank_sum != NULL) {
        DR_TRYF(dev->backend->rank_sum(dev, &taken, p, count), "adding %s of all ranks",
                what);
        if (taken)
            return DR_OK;
    }
    if (dev->backend->mem_new == NULL)
        return dr_ranks_sum(dev->ranks, p, count, what);
    DR_TRY(dr_big_alloc(&host, count, sizeof(float), what));
    DR_TRY(nn_copy(dev, host, p, count * sizeof(float)));
    DR_TRY(dr_ranks_sum(dev->ranks, host, count, what));
    DR_TRY(nn_copy(dev, p, host, count * sizeof(float)));
done:
    dr_big_free(host);
    return st;
}

dr_status nn_share_ranks(nn_device *dev, float *p, const size_t *edges, const char *what)
{
    size_t bytes = edges[dev->rank_count] * sizeof(float);
    bool taken = false;
    void *host = NULL;
    dr_status st = DR_OK;

    if (dev->rank_count == 1)
        return DR_OK;
    if (dev->backend->rank_share != NULL) {
        DR_TRYF(dev->backend->rank_share(dev, &taken, p, edges), "sharing %s", what);
        if (taken)
            return DR_OK;
    }
    if (dev->backend->mem_new == NULL)
        return dr_ranks_share(dev->ranks, p, sizeof(float), edges, what);
    DR_TRY(dr_big_alloc(&host, bytes, 1, what));
    DR_TRY(nn_copy(dev, host, p, bytes));
    DR_TRY(dr_ranks_share(dev->ranks, host, sizeof(float), edges, what));
    DR_TRY(nn_copy(dev, p, host, bytes));
done:
    dr_big_free(host);
    return st;
}

/* ---- operations ---- */

#define NN_OP(op, params, args)                                                            \
    dr_status nn_##op params                                                               \
    {                                                                                      \
        return dev->backend->op args;                                                      \
    }
#include "nn/ops.def"
#include "nn/quant_ops.def"
#undef NN_OP
