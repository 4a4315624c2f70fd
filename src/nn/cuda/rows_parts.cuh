/*
 * rows_parts.cuh - what rows.cu (floats) and halves.cu (bf16) share: sums over a block,
 * activations, the random words of a dropout.
 */
#ifndef DRUPE_NN_CUDA_ROWS_PARTS_CUH
#define DRUPE_NN_CUDA_ROWS_PARTS_CUH

#include <stdint.h>

enum { THREADS = 256, WARP = 32, CHUNK = 128 }; /* CHUNK: NN_MASK_CHUNK */
enum { ROWS_MAX = 65535 };                      /* of a grid's second dimension */

static inline unsigned blocks_of(size_t count, size_t each)
{
    return (unsigned)((count + each - 1) / each);
}

/* The sum over the block, in every thread; room: one for each warp. */
template <typename T> __device__ static T block_sum(T v, T *room)
{
    __syncthreads();
    for (int i = WARP / 2; i > 0; i /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, i);
    if (threadIdx.x % WARP == 0)
        room[threadIdx.x / WARP] = v;
    __syncthreads();
    v = 0;
    for (unsigned i = 0; i < blockDim.x / WARP; i++)
        v += room[i];
    return v;
}

enum { SILU, GELU_TANH, GELU }; /* hf_act; cuda_ops.c holds them to it */

/* act(x), and its derivative. */
__device__ static float act_of(float *slope, float x, int kind)
{
    const float root = 0.79788456080286535588f; /* sqrt(2 / pi) */
    float t, u;

    switch (kind) {
    case SILU:
        t = 1.0f / (1.0f + expf(-x));
        *slope = t * (1.0f + x * (1.0f - t));
        return x * t;
    case GELU_TANH:
        u = root * (x + 0.044715f * x * x * x);
        t = 0.5f * (1.0f + tanhf(u));
        *slope = t; /* far out, where x^2 may have no float */
        if (t != 0.0f && t != 1.0f)
            *slope += 2.0f * x * t * (1.0f - t) * root * (1.0f + 3.0f * 0.044715f * x * x);
        return x * t;
    default:
        t = 0.5f * (1.0f + erff(x * 0.70710678118654752440f));
        *slope = t + x * 0.5f * root * expf(-0.5f * x * x);
        return x * t;
    }
}

/* Block i of (seed, stream). */
__device__ static void philox(uint32_t out[4], uint64_t seed, uint64_t stream, uint64_t i)
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c[4] = {(uint32_t)i, (uint32_t)(i >> 32), (uint32_t)stream,
                     (uint32_t)(stream >> 32)};

    for (int round = 0; round < 10; round++) {
        uint32_t h0 = __umulhi(0xD2511F53u, c[0]), l0 = 0xD2511F53u * c[0];
        uint32_t h1 = __umulhi(0xCD9E8D57u, c[2]), l1 = 0xCD9E8D57u * c[2];
        c[0] = h1 ^ c[1] ^ k0;
        c[1] = l1;
        c[2] = h0 ^ c[3] ^ k1;
        c[3] = l0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int j = 0; j < 4; j++)
        out[j] = c[j];
}

#endif
