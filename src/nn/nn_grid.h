/*
 * nn_grid.h - the arithmetic of a group of weights: range to grid, weight to code.  A part
 * of the door, in inline functions that quantizers, the reference and CUDA's kernels share,
 * so that all of them round alike: nothing is fused, each operation is rounded to float.
 *
 * forced_zero: the range is extended to hold 0 (Olive, GPTQ).  Without it, this is
 * AutoAWQ's pseudo_quantize_tensor, symmetric variant included.  A scale that is stored as
 * fp16 is rounded to it before any code is computed; one that would round to 0 becomes the
 * least positive half, one that would overflow the greatest.
 */
#ifndef DRUPE_NN_NN_GRID_H
#define DRUPE_NN_NN_GRID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#    include <cuda_fp16.h>
#    define NN_INLINE __device__ static __forceinline__
#else
#    include "core/dtype.h"
#    define NN_INLINE static inline __attribute__((always_inline))
#endif

/* How a group's scale and zero point come from its least and greatest weight. */
typedef struct {
    int bits;
    bool symmetric, forced_zero, fp16_scales;
} nn_rule;

/*
 * Ranges that a search tries: candidate i scales both ends of the range by 1 - i/steps
 * (BOTH), or clamps the weights to +-max|w| (1 - i/steps) (CLIP), as AutoAWQ's clip search
 * does.  Ties go to the least shrink.
 */
typedef enum { NN_SHRINK_BOTH, NN_SHRINK_CLIP } nn_shrink_kind;
typedef struct {
    nn_shrink_kind kind;
    int count; /* candidates */
    int steps;
} nn_shrink;

/* The groups of a weight W[N][K], and the width of its Gram blocks. */
typedef struct {
    size_t n, k, block, gram;
    size_t ldw; /* floats between rows of W */
    size_t ldg; /* between rows of scales, zero points and limits */
} nn_groups;

/*
 * One group of nb columns (at most NN_FACTOR_MAX), one by one: column k is rounded at
 * adj_k + sum_{i<k} (orig_i - q_i) within_ik.  Without scales nothing is rounded: values
 * are what the columns would be.
 */
typedef struct {
    size_t rows, nb;
    const float *adj, *orig; /* [R][nb], rows ld apart */
    size_t ld;
    float *values; /* [R], rows ldv apart: column k at to[k], NULL: at k */
    size_t ldv;
    const uint32_t *to;
    float *delta; /* [R][nb] orig - value, rows ldd apart; may be NULL */
    size_t ldd;
    const float *within, *pivot; /* of nn_cut_factor; within: rows ldw apart */
    size_t ldw;
    const float *scales, *zeros; /* [R], ldg apart; NULL: none */
    size_t ldg;
    int bits;
    double *loss; /* [R] += ((at - value) pivot)^2; may be NULL */
} nn_sweep;

/*
 * One group of nb columns made better for its inputs (quant/descend.c): values, on the
 * grids of scales and zeros, with the gradient grad of the loss; h[nb][nb], rows ldh apart,
 * its block of the Hessian, to whose diagonal damp is added: to the gradient, too.  Codes,
 * then scales, then zeros (unless symmetric) move; delta[R][nb] = what that changed.
 */
typedef struct {
    size_t rows, nb, ld, ldv, ldo, ldh, ldg, ldd;
    const float *grad; /* [R][nb], rows ld apart */
    const float *orig; /* [R][nb], rows ldo apart: where the loss is 0 */
    float *values;     /* [R][nb], rows ldv apart */
    const float *h;
    float damp;
    float *scales, *zeros; /* [R], ldg apart */
    float *delta; /* rows ldd apart */
    nn_rule rule;
} nn_descent;

/* ---- arithmetic ---- */

/* Half to even, as torch.round: adding 1.5 * 2^23 leaves no bits behind the point.
 * Exact for |x| < 2^22; beyond it is clamped, far outside any code. */
NN_INLINE float nn_grid_round(float x)
{
    const float far = 65536.0f, magic = 12582912.0f;

    x = x > -far ? x : -far;
    x = x < far ? x : far;
    return (x + magic) - magic;
}

NN_INLINE float nn_grid_top(int bits)
{
    return (float)((1 << bits) - 1);
}

NN_INLINE float nn_grid_clamp(float c, float top)
{
    c = c > 0.0f ? c : 0.0f;
    return c < top ? c : top;
}

/* The code of one weight. */
NN_INLINE float nn_grid_code(float w, float scale, float zero, float top)
{
    return nn_grid_clamp(nn_grid_round(w / scale) + zero, top);
}

/* s rounded to fp16, never to 0 or infinity. */
NN_INLINE float nn_grid_half(float s)
{
    const float least = 5.9604644775390625e-8f, most = 65504.0f; /* 2^-24 */

    s = s < most ? s : most;
#ifdef __CUDACC__
    s = __half2float(__float2half_rn(s));
#else
    s = dr_f16_to_f32(dr_f32_to_f16(s));
#endif
    return s > least ? s : least;
}

/* With 0 in the range: Olive's, without its halved scale for symmetric groups that have no
 * negative weight. */
NN_INLINE void nn_grid_forced(float *scale, float *zero, const nn_rule *rule, float lo,
                              float hi)
{
    const float top = nn_grid_top(rule->bits);

    lo = lo < 0.0f ? lo : 0.0f;
    hi = hi > 0.0f ? hi : 0.0f;
    if (!(hi - lo > 0.0f)) { /* nothing but zeros */
        lo = -1.0f;
        hi = 1.0f;
    }
    if (rule->symmetric) {
        hi = -lo > hi ? -lo : hi;
        lo = -hi;
    }
    *scale = (hi - lo) / top;
    if (rule->fp16_scales)
        *scale = nn_grid_half(*scale);
    *zero = rule->symmetric ? (float)(1 << (rule->bits - 1))
                            : nn_grid_clamp(nn_grid_round(-lo / *scale), top);
}

/* As AutoAWQ's; symmetric codes from -2^(b-1) up are stored with the zero point 2^(b-1). */
NN_INLINE void nn_grid_awq(float *scale, float *zero, const nn_rule *rule, float lo,
                           float hi)
{
    const float top = nn_grid_top(rule->bits), mid = (float)(1 << (rule->bits - 1));
    float range = hi - lo;

    if (rule->symmetric)
        range = -lo > hi ? -lo : hi;
    range = range > 1e-5f ? range : 1e-5f; /* AutoAWQ's clamp of max - min */
    *scale = range / (rule->symmetric ? mid - 1.0f : top);
    if (rule->fp16_scales)
        *scale = nn_grid_half(*scale);
    *zero = rule->symmetric ? mid : nn_grid_clamp(-nn_grid_round(lo / *scale), top);
}

NN_INLINE void nn_grid_fit(float *scale, float *zero, const nn_rule *rule, float lo,
                           float hi)
{
    if (rule->forced_zero)
        nn_grid_forced(scale, zero, rule, lo, hi);
    else
        nn_grid_awq(scale, zero, rule, lo, hi);
}

/* The range lo_i..hi_i that candidate i leaves of lo..hi; the greatest magnitude in it. */
NN_INLINE float nn_grid_shrunken(float *lo_i, float *hi_i, const nn_shrink *s, int i,
                                 float lo, float hi)
{
    const float keep = (float)(1.0 - (double)i / s->steps);
    const float limit = (-lo > hi ? -lo : hi) * keep;

    if (s->kind == NN_SHRINK_BOTH) {
        *lo_i = lo * keep;
        *hi_i = hi * keep;
    } else {
        *lo_i = lo > -limit ? lo : -limit;
        *lo_i = *lo_i < limit ? *lo_i : limit;
        *hi_i = hi < limit ? hi : limit;
        *hi_i = *hi_i > -limit ? *hi_i : -limit;
    }
    return limit;
}

#endif
