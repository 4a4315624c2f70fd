/*
 * attention_scores.cuh - scores in registers, which attention_bf16.cu and
 * attention_hopper.cu share: their cap, their powers, which of them a query sees.
 *
 * A thread has of 64 x 64 of them [8][4]: columns j * 8 + threadIdx.x % 4 * 2 and the next
 * of its row, then those of the row 8 below, as the tensor cores leave sums.
 */
#ifndef DRUPE_NN_CUDA_ATTENTION_SCORES_CUH
#define DRUPE_NN_CUDA_ATTENTION_SCORES_CUH

#include "nn/cuda/attention_parts.cuh"
#include "nn/cuda/mma_parts.cuh"

enum { T = 64, TILES = T / 8 };

/* What is known of a tile of queries; lse as its kernel counts it. */
struct alignas(16) scalars {
    float lse[T], delta[T];
    unsigned from[T];
};

/* ---- scores: powers of two, so what is in their exponents counts log2(e) times ---- */

constexpr float LOG2E = 1.44269504088896340736f, LN2 = 0.69314718055994530942f;

__device__ static float power(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

/* What a score is multiplied by for that; with CAP its cap comes first, which scales it. */
template <bool CAP> __device__ static float factor(const cu_attn_shape &a)
{
    return CAP ? LOG2E : a.scale * LOG2E;
}

template <bool CAP> __device__ static void cap(float s[TILES][4], const cu_attn_shape &a)
{
#pragma unroll
    for (int j = 0; j < TILES && CAP; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            s[j][e] = a.softcap * tanhf(s[j][e] * a.scale / a.softcap);
}

/* s = -inf where a query, t or t + 8, which see keys from `from` and `other` on, does not
 * see the key. */
__device__ static void hide(float s[TILES][4], unsigned from, unsigned other, size_t t,
                            size_t at)
{
    int own = threadIdx.x % 4 * 2;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        int last = (int)(t + half * 8 - at) - own;
        unsigned least = half == 0 ? from : other, low = least > at ? least - at : 0;
#pragma unroll
        for (int j = 0; j < TILES; j++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                if (j * 8 + e > last)
                    s[j][half * 2 + e] = -INFINITY;
#pragma unroll
        for (int j = 0; j < TILES && low != 0; j++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                if (j * 8 + own + e < low)
                    s[j][half * 2 + e] = -INFINITY;
    }
}

/* The same of S^T, whose rows are keys; not all: queries see every key before them. */
__device__ static void hide_turned(float s[TILES][4], const unsigned *from, size_t first,
                                   size_t at, int row, bool all)
{
    int own = threadIdx.x % 4 * 2, ahead = (int)(at + row - first) - own;
    unsigned key = (unsigned)at + row;

#pragma unroll
    for (int j = 0; j < TILES; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (ahead + e / 2 * 8 > j * 8 + e % 2)
                s[j][e] = -INFINITY;
#pragma unroll
    for (int j = 0; j < TILES && !all; j++) {
        const uint2 least = *(const uint2 *)(from + j * 8 + own);
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (key + e / 2 * 8 < (e % 2 == 0 ? least.x : least.y))
                s[j][e] = -INFINITY;
    }
}

#endif
