/*
 * cuda_mem.c - the GPU's memory: blocks that are given out, copies, and staging of what the
 * host owns.
 *
 * Blocks come from a pool that keeps what is freed, in the stream's order: quantizers make
 * and free some for each weight.  Managed memory would let host code read a block as it
 * likes, but a page that both sides want is moved at each turn, and asking for more than
 * the GPU has can hang it; here a host that touches a device's block faults at once.
 *
 * A block of floats is given out under the GPU's own address.  One of NN_MEM_BF16 has half
 * the bytes, so its address is a range of the host's that nothing can be read from: places
 * in it are counted in floats, as everywhere.
 */
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/mem.h"
#include "nn/cuda/cuda_impl.h"

enum { SLAB_LEAST = 64 << 20, ALIGN = 256 };

/* ---- blocks ---- */

/* The first block that ends behind at. */
static size_t index_of(const cu_state *c, uintptr_t at)
{
    size_t low = 0, high = c->block_count;

    while (low < high) {
        size_t mid = (low + high) / 2;
        if (c->blocks[mid].end > at)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

const cu_block *cu_find(const cu_state *c, const void *p)
{
    size_t i = index_of(c, (uintptr_t)p);

    return i < c->block_count && c->blocks[i].at <= (uintptr_t)p ? &c->blocks[i] : NULL;
}

void *cu_place(const cu_block *b, const void *p)
{
    size_t offset = (size_t)((uintptr_t)p - b->at);

    return b->p + (b->kind == NN_MEM_BF16 ? offset / 2 : offset);
}

bool cu_is_bf16(const cu_state *c, const void *p)
{
    const cu_block *b = cu_find(c, p);

    return b != NULL && b->kind == NN_MEM_BF16;
}

size_t cu_mem_room(nn_device *dev)
{
    cu_state *c = cu_of(dev);
    size_t room = 0, all = 0;
    uint64_t held = 0, used = 0;

    cu_ranks_settle(c);
    if (cudaMemGetInfo(&room, &all) != cudaSuccess)
        return 0;
    (void)cudaMemPoolGetAttribute(c->pool, cudaMemPoolAttrReservedMemCurrent, &held);
    (void)cudaMemPoolGetAttribute(c->pool, cudaMemPoolAttrUsedMemCurrent, &used);
    return room + (size_t)(held - used);
}

static void keep_block(cu_state *c, const cu_block *b)
{
    size_t i = index_of(c, b->at);

    if (c->block_count == c->block_room) {
        size_t room = 2 * c->block_room + 64;
        cu_block *more = dr_calloc(room, sizeof(*more));
        if (c->block_count > 0)
            memcpy(more, c->blocks, c->block_count * sizeof(*more));
        free(c->blocks);
        c->blocks = more;
        c->block_room = room;
    }
    memmove(c->blocks + i + 1, c->blocks + i, (c->block_count - i) * sizeof(*b));
    c->blocks[i] = *b;
    c->block_count++;
}

static dr_status no_memory(const char *what, size_t bytes, nn_device *dev)
{
    dr_status st =
        dr_fail(DR_ENOMEM, "%s: cannot allocate %zu MB on the GPU, of which %zu are free",
                what, bytes / 1000000 + 1, cu_mem_room(dev) / 1000000);

    (void)cudaGetLastError(); /* it is said */
    dr_hint("--memory sets how much is used; --compute cpu uses none of it");
    return st;
}

dr_status cu_mem_new(nn_device *dev, float **out, size_t floats, nn_mem_kind kind,
                     const char *what)
{
    cu_state *c = cu_of(dev);
    size_t bytes = (floats + 64) * sizeof(float), own = bytes;
    void *p = NULL, *address = NULL;
    dr_status st = DR_OK;

    *out = NULL;
    if (kind == NN_MEM_BF16)
        own = bytes / 2;
    if (cudaMallocFromPoolAsync(&p, own, c->pool, c->stream) != cudaSuccess)
        return no_memory(what, own, dev);
    address = p;
    if (kind == NN_MEM_BF16) {
        address = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                       -1, 0);
        if (address == MAP_FAILED) {
            (void)cudaFreeAsync(p, c->stream);
            return dr_fail(DR_ENOMEM, "%s: no %zu bytes of addresses are left", what,
                           bytes);
        }
    }
    const cu_block b = {(uintptr_t)address, (uintptr_t)address + bytes, p, kind};
    keep_block(c, &b);
    *out = address;
    DR_TRY(cu_check((int)cudaMemsetAsync(p, 0, own, c->stream), what));
done:
    if (st != DR_OK && *out != NULL) {
        cu_mem_free(dev, *out);
        *out = NULL;
    }
    return st;
}

static void release(const cu_state *c, const cu_block *b)
{
    (void)cudaFreeAsync(b->p, c->stream);
    if (b->kind == NN_MEM_BF16) {
        union {
            uintptr_t number;
            void *p;
        } address = {.number = b->at};
        (void)munmap(address.p, b->end - b->at);
    }
}

void cu_mem_free(nn_device *dev, void *p)
{
    cu_state *c = cu_of(dev);
    const cu_block *b = p != NULL ? cu_find(c, p) : NULL;

    if (p == NULL)
        return;
    DR_BUG_IF(b == NULL || b->at != (uintptr_t)p);
    size_t i = (size_t)(b - c->blocks);
    release(c, b);
    c->block_count--;
    memmove(c->blocks + i, c->blocks + i + 1, (c->block_count - i) * sizeof(*b));
}

dr_status cu_mem_open(cu_state *c)
{
    const struct cudaMemPoolProps props = {
        .allocType = cudaMemAllocationTypePinned,
        .location = {.type = cudaMemLocationTypeDevice, .id = c->device}};
    uint64_t all = UINT64_MAX;
    dr_status st = DR_OK;

    DR_TRY(cu_check((int)cudaMemPoolCreate(&c->pool, &props), "making a pool of memory"));
    DR_TRY(cu_check(
        (int)cudaMemPoolSetAttribute(c->pool, cudaMemPoolAttrReleaseThreshold, &all),
        "making a pool of memory"));
done:
    return st;
}

void cu_mem_close(cu_state *c)
{
    for (size_t i = 0; i < c->block_count; i++)
        release(c, &c->blocks[i]);
    free(c->blocks);
    for (size_t i = 0; i < c->slab_count; i++)
        (void)cudaFree(c->slabs[i].p);
}

/* ---- a call ---- */

/* One slab for all that the last call needed. */
static dr_status join_slabs(cu_state *c)
{
    size_t all = 0;
    void *p = NULL;
    dr_status st = DR_OK;

    (void)cudaStreamSynchronize(c->stream);
    for (size_t i = 0; i < c->slab_count; i++) {
        all += c->slabs[i].bytes;
        (void)cudaFree(c->slabs[i].p);
    }
    c->slab_count = 0;
    DR_TRY(cu_check((int)cudaMalloc(&p, all), "staging"));
    c->slabs[c->slab_count++] = (cu_slab){p, all, 0};
done:
    return st;
}

void cu_begin(cu_call *k, nn_device *dev)
{
    *k = (cu_call){.c = cu_of(dev), .pool = dev->pool};
    if (k->c->slab_count > 1)
        k->st = join_slabs(k->c);
    for (size_t i = 0; i < k->c->slab_count; i++)
        k->c->slabs[i].used = 0;
}

void *cu_temp(cu_call *k, size_t bytes)
{
    cu_state *c = k->c;
    cu_slab *s = c->slab_count > 0 ? &c->slabs[c->slab_count - 1] : NULL;

    bytes = (bytes + ALIGN) / ALIGN * ALIGN;
    if (k->st != DR_OK)
        return NULL;
    if (s == NULL || s->bytes - s->used < bytes) {
        size_t size = bytes > SLAB_LEAST ? bytes : SLAB_LEAST;
        void *p = NULL;
        if (c->slab_count == CU_SLABS || cudaMalloc(&p, size) != cudaSuccess) {
            (void)cudaGetLastError();
            k->st = dr_fail(DR_ENOMEM, "cuda: cannot allocate %zu MB for staging",
                            size / 1000000 + 1);
            return NULL;
        }
        s = &c->slabs[c->slab_count++];
        *s = (cu_slab){p, size, 0};
    }
    s->used += bytes;
    return s->p + s->used - bytes;
}

const void *cu_in_bytes(cu_call *k, const void *p, size_t bytes)
{
    const cu_block *b = cu_find(k->c, p);
    size_t count = bytes / sizeof(float);
    void *to = NULL;

    if (p == NULL || k->st != DR_OK)
        return NULL;
    if (b != NULL && b->kind == NN_MEM_FLOAT)
        return cu_place(b, p);
    to = cu_temp(k, bytes);
    if (to != NULL && b != NULL)
        CU_LAUNCH(k, cu_widen(k->c->stream, to, count, cu_place(b, p), count, 1, count));
    else if (to != NULL)
        k->st = cu_check(
            (int)cudaMemcpyAsync(to, p, bytes, cudaMemcpyHostToDevice, k->c->stream),
            "copying to the GPU");
    return to;
}

void *cu_rows(cu_call *k, void *p, size_t rows, size_t cols, size_t *ld, size_t size,
              bool keep)
{
    const cu_block *b = cu_find(k->c, p);
    size_t row = cols * size, host_ld = *ld * size;
    void *to = NULL;

    if (p == NULL || k->st != DR_OK)
        return NULL;
    if (b != NULL && b->kind == NN_MEM_FLOAT)
        return cu_place(b, p);
    if (b != NULL) {
        DR_BUG_IF(size != sizeof(float));
        p = cu_place(b, p);
    }
    to = cu_temp(k, rows * row);
    if (to == NULL)
        return NULL;
    if (keep && b != NULL)
        CU_LAUNCH(k, cu_widen(k->c->stream, to, cols, p, *ld, rows, cols));
    else if (keep)
        k->st = cu_check((int)cudaMemcpy2DAsync(to, row, p, host_ld, row, rows,
                                                cudaMemcpyHostToDevice, k->c->stream),
                         "copying to the GPU");
    *ld = cols;
    DR_BUG_IF(k->count == CU_RESULTS);
    k->results[k->count].bf16 = b != NULL;
    k->results[k->count].host = p;
    k->results[k->count].p = to;
    k->results[k->count].rows = rows;
    k->results[k->count].row_bytes = row;
    k->results[k->count++].host_ld = host_ld;
    return to;
}

void cu_launched(cu_call *k, int err, const char *what)
{
    if (err != 0)
        k->st = cu_check(err, what);
}

bool cu_lies_there(const cu_call *k, const void *p)
{
    const cu_block *b = cu_find(k->c, p);

    return p == NULL || (b != NULL && (uintptr_t)cu_place(b, p) % 16 == 0);
}

bool cu_halves(const cu_call *k, size_t d, const void *a, const void *b, const void *c)
{
    const void *const all[] = {a, b, c};
    bool any = false;

    for (size_t i = 0; i < DR_COUNT(all); i++) {
        if (!cu_lies_there(k, all[i]))
            return false;
        any = any || cu_is_bf16(k->c, all[i]);
    }
    return any && d % 8 == 0;
}

cu_values cu_at(const cu_call *k, const void *p)
{
    const cu_block *b = cu_find(k->c, p);

    DR_BUG_IF(b == NULL);
    return (cu_values){cu_place(b, p), b->kind == NN_MEM_BF16};
}

const void *cu_in_bf16(cu_call *k, const float *p, size_t count)
{
    const float *in = NULL;
    void *to = NULL;

    if (cu_is_bf16(k->c, p))
        return cu_at(k, p).p;
    in = cu_in(k, p, count);
    to = cu_temp(k, count * sizeof(uint16_t));
    CU_LAUNCH(k, cu_narrow(k->c->stream, to, count, in, count, 1, count));
    return to;
}

dr_status cu_end(cu_call *k)
{
    bool wait = false;
    dr_status st = DR_OK;

    for (size_t i = 0; i < k->count; i++) {
        size_t cols = k->results[i].row_bytes / sizeof(float);
        if (!k->results[i].bf16)
            continue;
        CU_LAUNCH(k, cu_narrow(k->c->stream, k->results[i].host,
                               k->results[i].host_ld / sizeof(float), k->results[i].p, cols,
                               k->results[i].rows, cols));
    }
    DR_TRY(k->st);
    for (size_t i = 0; i < k->count; i++) {
        size_t row = k->results[i].row_bytes, rows = k->results[i].rows;
        if (k->results[i].bf16)
            continue;
        if (rows * row >= CU_FETCH_LEAST && (rows == 1 || k->results[i].host_ld == row)) {
            DR_TRY(
                cu_fetch(k->c, k->pool, k->results[i].host, k->results[i].p, rows * row));
            continue;
        }
        wait = true;
        DR_TRY(cu_check((int)cudaMemcpy2DAsync(k->results[i].host, k->results[i].host_ld,
                                               k->results[i].p, k->results[i].row_bytes,
                                               k->results[i].row_bytes, k->results[i].rows,
                                               cudaMemcpyDeviceToHost, k->c->stream),
                        "copying from the GPU"));
    }
    if (wait)
        DR_TRY(cu_check((int)cudaStreamSynchronize(k->c->stream), "waiting for the GPU"));
done:
    return st;
}

/* ---- copies ---- */

enum { PIECE = 32 << 20 }; /* floats that are rounded to bf16 at once */

/* A block of bf16 from floats of either side. */
static dr_status copy_rounded(nn_device *dev, const cu_block *b, char *dst, const char *src,
                              size_t bytes)
{
    dr_status st = DR_OK;

    for (size_t at = 0; at < bytes && st == DR_OK; at += PIECE * sizeof(float)) {
        size_t n = bytes - at < PIECE * sizeof(float) ? bytes - at : PIECE * sizeof(float);
        cu_call k;
        cu_begin(&k, dev);
        const float *from = cu_in_bytes(&k, src + at, n);
        n /= sizeof(float);
        CU_LAUNCH(&k, cu_narrow(k.c->stream, cu_place(b, dst + at), n, from, n, 1, n));
        st = cu_end(&k);
    }
    return st;
}

dr_status cu_copy(nn_device *dev, void *dst, const void *src, size_t bytes)
{
    cu_state *c = cu_of(dev);
    const cu_block *to = cu_find(c, dst), *from = cu_find(c, src);
    dr_status st = DR_OK;

    if (bytes == 0)
        return DR_OK;
    if (to == NULL && from == NULL) {
        memcpy(dst, src, bytes);
        return DR_OK;
    }
    if (to != NULL && from != NULL && to->kind == NN_MEM_BF16 && from->kind == to->kind)
        return cu_check((int)cudaMemcpyAsync(cu_place(to, dst), cu_place(from, src),
                                             bytes / 2, cudaMemcpyDeviceToDevice,
                                             c->stream),
                        "copying");
    if (to != NULL && to->kind == NN_MEM_BF16)
        return copy_rounded(dev, to, dst, src, bytes);
    if (from != NULL && from->kind == NN_MEM_BF16) {
        size_t count = bytes / sizeof(float);
        cu_call k;
        cu_begin(&k, dev);
        float *out = cu_out(&k, dst, count);
        CU_LAUNCH(&k,
                  cu_widen(c->stream, out, count, cu_place(from, src), count, 1, count));
        return cu_end(&k);
    }
    if (to == NULL && bytes >= CU_FETCH_LEAST)
        return cu_fetch(c, dev->pool, dst, src, bytes);
    DR_TRY(cu_check((int)cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, c->stream),
                    "copying"));
    if (to == NULL)
        DR_TRY(cu_check((int)cudaStreamSynchronize(c->stream), "waiting for the GPU"));
done:
    return st;
}

dr_status cu_zero(nn_device *dev, void *dst, size_t bytes)
{
    cu_state *c = cu_of(dev);
    const cu_block *b = cu_find(c, dst);

    if (b == NULL) {
        memset(dst, 0, bytes);
        return DR_OK;
    }
    if (b->kind == NN_MEM_BF16)
        bytes /= 2;
    return cu_check((int)cudaMemsetAsync(cu_place(b, dst), 0, bytes, c->stream), "zeroing");
}
