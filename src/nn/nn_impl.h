/*
 * nn_impl.h - inside of nn: devices as tables of operations.
 *
 * An nn_backend holds one function for each row of ops.def; nn_<op>() calls it through the
 * device.  Backends know nothing of models, decoders nothing of kernels.
 *
 * What must hold for every operation of a backend:
 *   1. Sums in float or wider, in an order set by the shapes alone: the bytes do not depend
 *      on the number of threads.
 *   2. Outputs do not overlap inputs unless ops.def or nn.h says "in place".
 *   3. Called from one thread at a time for one device.
 *   4. Pointers may be the host's or from nn_mem_new.
 */
#ifndef DRUPE_NN_IMPL_H
#define DRUPE_NN_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/pool.h"
#include "core/ranks.h"
#include "core/status.h"
#include "nn/nn.h"

/*
 * Which elements a dropout keeps.  Elements go in chunks of NN_MASK_CHUNK = 128; Philox
 * block 16*chunk + i of (seed, stream) gives four words, of which word j decides element
 * 128*chunk + 32*j + i by its low half and 16 further by its high half: so 16 blocks are
 * computed side by side.  Kept when the half word is >= threshold.
 */
typedef struct {
    uint64_t seed, stream;
    uint32_t threshold; /* p * 2^16, rounded: p is met to 1e-5 */
    float scale;        /* 1 / (1 - p) */
} nn_mask;

enum { NN_MASK_CHUNK = 128 };

enum { NN_RANK_ID = 128 };

/* Values of a mapped file, stored as bf16, and where they go: a block of NN_MEM_BF16. */
typedef struct {
    float *dst;
    const void *src;
    size_t count;
} nn_stored;

typedef struct nn_backend {
    const char *name;
    /* Sets dev->state and what follows the name in dev->text. */
    dr_status (*open)(nn_device *dev);
    void (*close)(nn_device *dev);
    bool rounds; /* products round their operands to bf16 */
    /* Of nn_quant.h; NULL: nothing. */
    void (*round_products)(nn_device *dev, nn_rounding how);
    /* Memory of its own (nn_mem.h); all five, or none: it is the host's. */
    size_t (*mem_room)(nn_device *dev);
    dr_status (*mem_new)(nn_device *dev, float **out, size_t floats, nn_mem_kind kind,
                         const char *what);
    void (*mem_free)(nn_device *dev, void *p);
    dr_status (*copy)(nn_device *dev, void *dst, const void *src, size_t bytes);
    dr_status (*zero)(nn_device *dev, void *dst, size_t bytes);
    /* Several processes (core/ranks.h), each with a device of its own; all, or none: what
     * they add or share goes through the host.  rank_id: what the first one makes up and
     * all are given.  rank_join: the device becomes one of several.  rank_sum: p[count]
     * becomes the sum over all, rank_share: edges as nn_share_ranks has them; *taken false:
     * p is not the device's. */
    dr_status (*rank_id)(nn_device *dev, unsigned char id[NN_RANK_ID]);
    dr_status (*rank_join)(nn_device *dev, const unsigned char id[NN_RANK_ID]);
    dr_status (*rank_sum)(nn_device *dev, bool *taken, float *p, size_t count);
    dr_status (*rank_share)(nn_device *dev, bool *taken, float *p, const size_t *edges);
    /* Of such memory: takes parts over, by many threads, and does not wait for it; NULL:
     * none.  DR_EDEVICE, DR_ENOMEM. */
    dr_status (*load)(nn_device *dev, const nn_stored *parts, size_t count);
    /* y[M][K] += x[M][R] w[R][K] masked, the rows being of `sequences` whose masks' streams
     * are step apart; *taken false: these shapes or blocks are not its own.  NULL: none. */
    dr_status (*masked_product)(nn_device *dev, bool *taken, float *y, const float *x,
                                const float *w, size_t m, size_t k, size_t r,
                                const nn_mask *mask, size_t sequences, uint64_t step);
    /* Likewise u[M][R] = x[M][K], masked, times w[R][K]^T.  NULL: none. */
    dr_status (*masked_factor)(nn_device *dev, bool *taken, float *u, const float *x,
                               const float *w, size_t m, size_t k, size_t r,
                               const nn_mask *mask, size_t sequences, uint64_t step);
    /* y[M][D] = nn_rmsnorm of x, and kept = x, in one pass; taken as above.  NULL: none. */
    dr_status (*norm_keep)(nn_device *dev, bool *taken, float *y, float *kept,
                           const float *x, const float *w, size_t m, size_t d, float eps);
    /* nn_rmsnorm_back, and kept = the dx that it leaves.  NULL: none. */
    dr_status (*norm_back_keep)(nn_device *dev, bool *taken, float *dx, float *kept,
                                const float *dy, const float *x, const float *w, size_t m,
                                size_t d, float eps);
    /* nn_xent, the gradient not in the logits but in grad[M][V].  NULL: none. */
    dr_status (*xent_apart)(nn_device *dev, bool *taken, double *loss, float *grad,
                            const float *logits, const int32_t *targets, size_t m, size_t v,
                            float grad_scale, float cap, float smoothing);
    /* nn_attention_back, and nn_rope by -1 of what it gives, in one pass; taken as above.
     * NULL: none. */
    dr_status (*attention_back_turned)(nn_device *dev, bool *taken, float *dqkv,
                                       const float *dout, const float *out,
                                       const float *lse, const float *qkv,
                                       const nn_attn_shape *s);
#define NN_OP(op, params, args) dr_status(*op) params;
#include "nn/ops.def"
#include "nn/quant_ops.def" /* all of these, or none */
#undef NN_OP
} nn_backend;

/* Rough products of a kind of its own (nn_rough.h). */
typedef struct {
    nn_mem_kind kind; /* nn_rough_kind */
    size_t (*bytes)(size_t n, size_t k);
    dr_status (*pack)(nn_device *dev, void *packed, const float *w, size_t n, size_t k);
    dr_status (*matmul)(nn_device *dev, float *y, const float *x, const void *packed,
                        const float *bias, size_t m, size_t n, size_t k, size_t ldy,
                        bool acc);
    dr_status (*gram)(nn_device *dev, float *strips, const float *x, size_t m, size_t n,
                      bool first);
    /* *taken false: not of this shape; NULL: of none. */
    dr_status (*cross)(nn_device *dev, bool *taken, float *sum, const float *a,
                       const float *b, const float *scale, const float *in, size_t m,
                       size_t n, size_t k, bool first);
    dr_status (*gated)(nn_device *dev, bool *taken, float *y, const float *x,
                       const void *packed, const float *bias, size_t m, size_t inner,
                       size_t k, nn_act act);
    dr_status (*attention)(nn_device *dev, float *out, float *lse, const float *qkv,
                           const nn_attn_shape *s);
} nn_rough_ops;

struct nn_device {
    const nn_backend *backend; /* borrowed */
    const nn_rough_ops *rough; /* borrowed; NULL: nn_i8.h and nn_attention */
    const nn_rough_ops *rough_own; /* borrowed: the device's own, whatever it takes now */
    const nn_rough_ops *rough_close; /* borrowed: where that is of integers; NULL: floats */
    dr_pool *pool;             /* owned */
    float *slice;              /* owned: rough.c's room */
    size_t slice_floats;
    void *state;               /* owned by the backend */
    dr_ranks *ranks;           /* borrowed; NULL: alone */
    size_t rank, rank_count;   /* of ranks */
    size_t place, place_count; /* among those of this host: which GPU is taken */
    double rank_timeout;       /* seconds that are waited for others */
    char text[128];            /* "cpu, 2 threads, avx512" */
};

/* *out = *room, of *had floats, made anew where that is less than wanted; contents are
 * undefined then.  what: for messages. */
DR_MUST_USE dr_status nn_room(float **out, float **room, size_t *had, size_t wanted,
                              const char *what);

/* Where the document of token t of sequence b begins. */
static inline size_t nn_attn_start(const nn_attn_shape *s, size_t b, size_t t)
{
    return s->starts != NULL ? s->starts[b * s->t + t] : 0;
}

extern const nn_backend nn_backend_ref, nn_backend_cpu, nn_backend_cpu_avx512,
    nn_backend_cpu_avx2, nn_backend_cpu_plain, nn_backend_cpu_tiles, nn_backend_apart;

#define NN_OP(op, params, args) DR_MUST_USE dr_status nn_##op params;
#include "nn/ops.def"
#include "nn/quant_ops.def"
#undef NN_OP

#endif
