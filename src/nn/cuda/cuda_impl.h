/*
 * cuda_impl.h - inside of the cuda backend: its memory, one call's operands, products.
 *
 * An operation is three steps: cu_begin; cu_in, cu_out and cu_inout turn each pointer into
 * one of the device's; a launch; cu_end.  The first failure is kept in the call, after it
 * pointers are NULL and nothing is launched, and cu_end returns it:
 *
 *     cu_call k;
 *     cu_begin(&k, dev);
 *     const float *x_ = cu_in(&k, x, count);
 *     float *y_ = cu_inout(&k, y, count);
 *     CU_LAUNCH(&k, cu_add(k.c->stream, y_, x_, count));
 *     return cu_end(&k);
 *
 * What the host owns is copied to a staging area, which the next call uses again: all goes
 * through one stream, in order.  Results for the host are copied back and waited for in
 * cu_end; without any, nothing waits.  What is bf16 is widened to floats there, and rounded
 * again in cu_end; kernels that take it as it is ask for it with cu_halves and cu_at.
 */
#ifndef DRUPE_NN_CUDA_IMPL_H
#define DRUPE_NN_CUDA_IMPL_H

#include "nn/cuda/cuda_kernels.h"
#include "nn/nn_impl.h"

/* ---- memory ---- */

/* A block of nn_mem_new, as the host knows it and as it is. */
typedef struct {
    uintptr_t at, end; /* the addresses that were given out */
    char *p;           /* owned: the device's; of NN_MEM_BF16 half as many bytes */
    nn_mem_kind kind;
} cu_block;

enum { CU_SLABS = 16 };

/* Staging: slabs are filled one after another. */
typedef struct {
    char *p; /* owned */
    size_t bytes, used;
} cu_slab;

typedef struct cu_lt cu_lt;
typedef struct cu_loader cu_loader;
typedef struct cu_ranks cu_ranks;
typedef struct cu_warm cu_warm;

typedef struct {
    int device;                      /* the GPU's number; of every thread that calls CUDA */
    cu_stream stream;                /* owned */
    struct CUmemPoolHandle_st *pool; /* owned: of blocks */
    bool bf16;                       /* operands of products are rounded to it */
    bool two_terms;                  /* they may be, to two of it each */
    cu_block *blocks;                /* owned, by address */
    size_t block_count, block_room;
    cu_slab slabs[CU_SLABS];
    size_t slab_count;
    cu_lt *lt;         /* owned */
    cu_loader *loader; /* owned; NULL: nothing was loaded yet (cu_warm_end first) */
    cu_warm *warm;     /* owned; NULL: it has ended */
    cu_ranks *ranks;   /* owned; NULL: NCCL is not loaded */
} cu_state;

static inline cu_state *cu_of(const nn_device *dev)
{
    return dev->state;
}

/* err, CUDA's error number, as a status: DR_EDEVICE with its text, behind `what`. */
DR_MUST_USE dr_status cu_check(int err, const char *what);

/* The block that p points into; NULL: the host's memory. */
const cu_block *cu_find(const cu_state *c, const void *p);
/* Where p, in block b, is in the device's memory. */
void *cu_place(const cu_block *b, const void *p);
/* Is p in a block of bf16? */
bool cu_is_bf16(const cu_state *c, const void *p);

size_t cu_mem_room(nn_device *dev);
dr_status cu_mem_new(nn_device *dev, float **out, size_t floats, nn_mem_kind kind,
                     const char *what);
void cu_mem_free(nn_device *dev, void *p);
DR_MUST_USE dr_status cu_mem_open(cu_state *c);
void cu_mem_close(cu_state *c);
dr_status cu_copy(nn_device *dev, void *dst, const void *src, size_t bytes);
dr_status cu_zero(nn_device *dev, void *dst, size_t bytes);

/* nn_backend.load (cuda_load.c). */
DR_MUST_USE dr_status cu_load(nn_device *dev, const nn_stored *parts, size_t count);
/* What is worth it: dst, the host's, = src, and waits for it. */
enum { CU_FETCH_LEAST = 4 << 20 };
DR_MUST_USE dr_status cu_fetch(cu_state *c, dr_pool *pool, void *dst, const void *src,
                               size_t bytes);
void cu_loader_close(cu_loader *l);
DR_MUST_USE dr_status cu_loader_open(cu_loader **out, int threads);

/* What the first calls would wait for, by a thread behind the caller's back (cuda_warm.c).
 * What fails there fails, and is told, where it is needed. */
typedef struct cu_preload cu_preload;
/* cuBLASLt's library; NULL: no thread. */
cu_preload *cu_preload_begin(void);
void cu_preload_end(cu_preload *p);
/* The kernels of this library and of cuBLASLt, pinned memory. */
void cu_warm_begin(cu_state *c, int threads);
void cu_warm_end(cu_state *c); /* waits for it; nothing the second time */

/* nn_backend.rank_id, .rank_join, .rank_sum, .rank_share (cuda_ranks.c).
 * DR_EUNSUPPORTED: no NCCL; DR_EDEVICE: what it says, or another GPU does not come. */
DR_MUST_USE dr_status cu_rank_id(nn_device *dev, unsigned char id[NN_RANK_ID]);
DR_MUST_USE dr_status cu_rank_join(nn_device *dev, const unsigned char id[NN_RANK_ID]);
DR_MUST_USE dr_status cu_rank_sum(nn_device *dev, bool *taken, float *p, size_t count);
DR_MUST_USE dr_status cu_rank_share(nn_device *dev, bool *taken, float *p,
                                    const size_t *edges);
/* Waits until they have met or failed to: what NCCL takes of the GPU's memory is taken. */
void cu_ranks_settle(cu_state *c);
void cu_ranks_close(cu_ranks *r);

/* ---- a call ---- */

enum { CU_RESULTS = 4 };

typedef struct {
    cu_state *c;
    dr_pool *pool; /* borrowed: the device's */
    dr_status st;
    struct {
        void *host, *p;                  /* host: or the place in a block of bf16 */
        size_t rows, row_bytes, host_ld; /* bytes; of bf16: as if of floats */
        bool bf16;
    } results[CU_RESULTS];
    size_t count;
} cu_call;

void cu_begin(cu_call *k, nn_device *dev);
/* Room for this call; NULL after a failure. */
void *cu_temp(cu_call *k, size_t bytes);
/* Bytes that are read. */
const void *cu_in_bytes(cu_call *k, const void *p, size_t bytes);
/* Rows that are written, and read before when keep; *ld (elements of `size` bytes) becomes
 * that of what is returned. */
void *cu_rows(cu_call *k, void *p, size_t rows, size_t cols, size_t *ld, size_t size,
              bool keep);
/* Does p, which may be NULL, lie in the device's memory, and so that eight values are read
 * at once? */
bool cu_lies_there(const cu_call *k, const void *p);
/* May kernels of halves.cu take rows of d values at these pointers (NULL: none) as they
 * are?  One at least is bf16 and all are the device's. */
bool cu_halves(const cu_call *k, size_t d, const void *a, const void *b, const void *c);
/* p of a block, as it is. */
cu_values cu_at(const cu_call *k, const void *p);
/* p[count] as bf16, rounded where it is not. */
const void *cu_in_bf16(cu_call *k, const float *p, size_t count);
/* Waits when there are results for the host. */
DR_MUST_USE dr_status cu_end(cu_call *k);
void cu_launched(cu_call *k, int err, const char *what);

#define CU_LAUNCH(k, call)                                                                 \
    do {                                                                                   \
        if ((k)->st == DR_OK)                                                              \
            cu_launched((k), (call), #call);                                               \
    } while (0)

static inline const float *cu_in(cu_call *k, const float *p, size_t floats)
{
    return cu_in_bytes(k, p, floats * sizeof(*p));
}

static inline float *cu_out(cu_call *k, float *p, size_t floats)
{
    size_t ld = floats;

    return cu_rows(k, p, 1, floats, &ld, sizeof(*p), false);
}

static inline float *cu_inout(cu_call *k, float *p, size_t floats)
{
    size_t ld = floats;

    return cu_rows(k, p, 1, floats, &ld, sizeof(*p), true);
}

/* ---- products by cuBLASLt (cuda_lt.c), column-major as it has them ---- */

typedef struct {
    bool ta, tb, bf16; /* bf16: a and b are; else float */
    bool to_bf16;      /* c is */
    bool acc;          /* c += */
    bool minus;        /* the product's sign */
    size_t m, n, k, lda, ldb, ldc;
    const void *a, *b;
    void *c;
    size_t count;                  /* of products alike; 0: one */
    size_t next_a, next_b, next_c; /* values from one to the next */
} cu_gemm;

/* Rows of bf16 that the tensor cores read begin at multiples of 16 bytes. */
enum { CU_PAD = 8 };
static inline size_t cu_padded(size_t n)
{
    return (n + CU_PAD - 1) / CU_PAD * CU_PAD;
}

/* A library from the folders of DRUPE_LIB_PATH, else where the loader looks; NULL: none. */
void *cu_library(const char *name);
/* Brings it in, if it is there. */
void cu_lt_preload(void);
DR_MUST_USE dr_status cu_lt_open(cu_lt **out);
/* A small product of its own, beside those of the caller: a and b [n][n] of bf16, c [n][n]
 * of float, on a stream of its own, without lt's workspace or plans. */
DR_MUST_USE dr_status cu_lt_try(cu_lt *lt, cu_stream s, const void *a, const void *b,
                                void *c, size_t n);
void cu_lt_close(cu_lt *lt);
DR_MUST_USE dr_status cu_lt_run(cu_lt *lt, cu_stream s, const cu_gemm *g);
/* The same within a call: nothing after a failure. */
static inline void cu_multiply(cu_call *k, const cu_gemm *g)
{
    if (k->st == DR_OK)
        k->st = cu_lt_run(k->c->lt, k->c->stream, g);
}
/* Where g's result, y[rows][cols], goes, and how: as bf16 where operands and y are. */
void cu_result(cu_call *k, cu_gemm *g, float *y, size_t rows, size_t cols, size_t ld);
/* bias[N], which may be NULL, to g's result of m rows (cuda_matmul.c). */
void cu_gemm_bias(cu_call *k, const cu_gemm *g, const float *bias, size_t m, size_t n);

/* ---- operations ---- */

extern const nn_rough_ops cu_rough_ops; /* cuda_rough.c */

/* nn_backend.norm_keep, .norm_back_keep, .masked_product, .masked_factor,
 * .xent_apart, .attention_back_turned */
DR_MUST_USE dr_status cu_norm_keep(nn_device *dev, bool *taken, float *y, float *kept,
                                   const float *x, const float *w, size_t m, size_t d,
                                   float eps);
DR_MUST_USE dr_status cu_norm_back_keep(nn_device *dev, bool *taken, float *dx, float *kept,
                                        const float *dy, const float *x, const float *w,
                                        size_t m, size_t d, float eps);
DR_MUST_USE dr_status cu_masked_product(nn_device *dev, bool *taken, float *y,
                                        const float *x, const float *w, size_t m, size_t k,
                                        size_t r, const nn_mask *mask, size_t sequences,
                                        uint64_t step);
DR_MUST_USE dr_status cu_masked_factor(nn_device *dev, bool *taken, float *u,
                                       const float *x, const float *w, size_t m, size_t k,
                                       size_t r, const nn_mask *mask, size_t sequences,
                                       uint64_t step);
DR_MUST_USE dr_status cu_xent_apart(nn_device *dev, bool *taken, double *loss, float *grad,
                                    const float *logits, const int32_t *targets, size_t m,
                                    size_t v, float grad_scale, float cap, float smoothing);
DR_MUST_USE dr_status cu_attention_back_turned(nn_device *dev, bool *taken, float *dqkv,
                                               const float *dout, const float *out,
                                               const float *lse, const float *qkv,
                                               const nn_attn_shape *s);

#define NN_OP(op, params, args) dr_status cuda_##op params;
#include "nn/ops.def"
#include "nn/quant_ops.def"
#undef NN_OP

#endif
