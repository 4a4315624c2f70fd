/*
 * apart.c - the device "cpu:apart": the cpu with memory of its own, for tests.
 *
 * What nn_mem_new gives can be touched inside of operations only: outside, its pages have
 * no access, so that a host that reads or writes them faults at once, as it would with a
 * GPU's.  It has the operations of quantizers, which are the reference's.  So everything
 * that is written for a device with memory of its own runs on every machine.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/dtype.h"
#include "core/mem.h"
#include "nn/ref/ref_impl.h"

enum { BLOCKS = 4096, PAGE = 4096 };
static const size_t room = (size_t)64 << 30;

typedef struct {
    nn_device *cpu; /* owned */
    struct {
        void *p; /* owned */
        size_t bytes;
    } blocks[BLOCKS];
    size_t count;
} apart;

static void protect(const apart *a, int how)
{
    for (size_t i = 0; i < a->count; i++)
        DR_BUG_IF(mprotect(a->blocks[i].p, a->blocks[i].bytes, how) != 0);
}

/* The device that computes, which may touch what is here until leave. */
static nn_device *enter(nn_device *dev)
{
    const apart *a = dev->state;

    protect(a, PROT_READ | PROT_WRITE);
    return a->cpu;
}

static void leave(nn_device *dev)
{
    protect(dev->state, PROT_NONE);
}

static dr_status open_apart(nn_device *dev)
{
    apart *a = dr_calloc(1, sizeof(*a));

    dev->state = a;
    return nn_device_open(&a->cpu, "cpu", dr_pool_threads(dev->pool));
}

static void close_apart(nn_device *dev)
{
    apart *a = dev->state;

    for (size_t i = 0; a != NULL && i < a->count; i++)
        (void)munmap(a->blocks[i].p, a->blocks[i].bytes);
    if (a != NULL)
        nn_device_close(a->cpu);
    free(a);
}

static size_t mem_room(nn_device *dev)
{
    (void)dev;
    return room;
}

static dr_status mem_new(nn_device *dev, float **out, size_t floats, nn_mem_kind kind,
                         const char *what)
{
    apart *a = dev->state;
    size_t bytes = (floats * sizeof(float) / PAGE + 1) * PAGE;
    void *p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)kind; /* products and copies take floats of either kind */
    *out = NULL;
    DR_BUG_IF(a->count == BLOCKS);
    if (p == MAP_FAILED)
        return dr_fail(DR_ENOMEM, "%s: cannot allocate %zu bytes", what, bytes);
    a->blocks[a->count].p = p;
    a->blocks[a->count++].bytes = bytes;
    *out = p;
    return DR_OK;
}

static void mem_free(nn_device *dev, void *p)
{
    apart *a = dev->state;

    for (size_t i = 0; p != NULL && i < a->count; i++) {
        if (a->blocks[i].p != p)
            continue;
        (void)munmap(p, a->blocks[i].bytes);
        a->blocks[i] = a->blocks[--a->count];
        return;
    }
    DR_BUG_IF(p != NULL);
}

static dr_status copy(nn_device *dev, void *dst, const void *src, size_t bytes)
{
    (void)enter(dev);
    if (bytes > 0)
        memcpy(dst, src, bytes);
    leave(dev);
    return DR_OK;
}

static dr_status load(nn_device *dev, const nn_stored *parts, size_t count)
{
    (void)enter(dev);
    for (size_t i = 0; i < count; i++)
        dr_to_f32(parts[i].dst, parts[i].src, DR_DTYPE_BF16, parts[i].count);
    leave(dev);
    return DR_OK;
}

static dr_status zero(nn_device *dev, void *dst, size_t bytes)
{
    (void)enter(dev);
    memset(dst, 0, bytes);
    leave(dev);
    return DR_OK;
}

#define NN_OP(op, params, args)                                                            \
    static dr_status apart_##op params                                                     \
    {                                                                                      \
        nn_device *outer = dev;                                                            \
        dev = enter(outer);                                                                \
        dr_status st = dev->backend->op args;                                              \
        leave(outer);                                                                      \
        return st;                                                                         \
    }
#include "nn/ops.def"
#undef NN_OP
#define NN_OP(op, params, args)                                                            \
    static dr_status apart_##op params                                                     \
    {                                                                                      \
        nn_device *outer = dev;                                                            \
        dev = enter(outer);                                                                \
        dr_status st = ref_##op args;                                                      \
        leave(outer);                                                                      \
        return st;                                                                         \
    }
#include "nn/quant_ops.def"
#undef NN_OP

#define NN_OP(op, params, args) .op = apart_##op,
const nn_backend nn_backend_apart = {
    .name = "cpu:apart",
    .open = open_apart,
    .close = close_apart,
    .mem_room = mem_room,
    .mem_new = mem_new,
    .mem_free = mem_free,
    .copy = copy,
    .load = load,
    .zero = zero,
#include "nn/ops.def"
#include "nn/quant_ops.def"
};
#undef NN_OP
