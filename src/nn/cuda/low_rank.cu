/*
 * low_rank.cu - what a low-rank adapter adds to the gradient of its input, behind the mask
 * of its dropout: y += mask o (x w), x[M][R], w[R][K].
 *
 * As a product of its own the result would be written, read and masked in another pass: at
 * ranks like 64 moving it is all that such a product costs.  A block has 64 rows and 128
 * columns, one chunk of the mask each row, so each block of random words is computed once.
 */
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "nn/cuda/cuda_kernels.h"
#include "nn/cuda/mma_parts.cuh"
#include "nn/cuda/rows_parts.cuh"

enum { ROWS = 64, COLS = CHUNK, LANES = 128, PITCH = COLS + 8 };

/* The block's tiles, begun; rows of y and x past the last are zeros. */
__device__ static void load(half16 *ys, half16 *xs, half16 *ws, const half16 *y,
                            const half16 *x, const half16 *w, size_t m, size_t k, int r)
{
    size_t row0 = (size_t)blockIdx.y * ROWS, col0 = (size_t)blockIdx.x * COLS;
    int per = r / 8;

    for (int i = threadIdx.x; i < ROWS * per; i += LANES) {
        int row = i / per, col = i % per * 8;
        bool there = row0 + row < m;
        send16(address(xs + row * (r + 8) + col), x + (there ? (row0 + row) * r + col : 0),
               there);
    }
    for (int i = threadIdx.x; i < r * (COLS / 8); i += LANES) {
        int row = i / (COLS / 8), col = i % (COLS / 8) * 8;
        send16(address(ws + row * PITCH + col), w + row * k + col0 + col, true);
    }
    for (int i = threadIdx.x; i < ROWS * (COLS / 8); i += LANES) {
        int row = i / (COLS / 8), col = i % (COLS / 8) * 8;
        bool there = row0 + row < m;
        send16(address(ys + row * PITCH + col),
               y + (there ? (row0 + row) * k + col0 + col : 0), there);
    }
}

/* A row's part of the block, in shared memory; chunk: of its sequence's mask. */
__device__ static void add(half16 *y, float sum[COLS / 8][4], int half, uint64_t chunk,
                           const cu_mask &mask, uint64_t stream)
{
    int own = threadIdx.x % 4 * 2;

#pragma unroll
    for (int odd = 0; odd < 2; odd++) {
        uint32_t words[2][4];
#pragma unroll
        for (int e = 0; e < 2; e++)
            philox(words[e], mask.seed, stream, chunk * 16 + odd * 8 + own + e);
#pragma unroll
        for (int i = 0; i < COLS / 16; i++) {
            int j = 2 * i + odd;
            __nv_bfloat162 *to = (__nv_bfloat162 *)(y + j * 8 + own);
            float2 v = __bfloat1622float2(*to);
            uint32_t a = words[0][i / 2] >> i % 2 * 16 & 0xffffu;
            uint32_t b = words[1][i / 2] >> i % 2 * 16 & 0xffffu;
            v.x += sum[j][half * 2] * (a >= mask.threshold ? mask.scale : 0.0f);
            v.y += sum[j][half * 2 + 1] * (b >= mask.threshold ? mask.scale : 0.0f);
            *to = __floats2bfloat162_rn(v.x, v.y);
        }
    }
}

__global__ static void __launch_bounds__(LANES)
    low_rank(half16 *y, const half16 *x, const half16 *w, size_t m, size_t k, int r,
             cu_mask mask)
{
    extern __shared__ __align__(16) half16 room[];
    half16 *ys = room, *xs = ys + ROWS * PITCH, *ws = xs + ROWS * (r + 8);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned left = address(xs + (warp * 16 + lane % 16) * (r + 8) + lane / 16 * 8);
    unsigned right = address(ws + lane % 16 * PITCH + lane / 16 * 8);
    size_t row0 = (size_t)blockIdx.y * ROWS, col0 = (size_t)blockIdx.x * COLS;
    float sum[COLS / 8][4] = {};

    load(ys, xs, ws, y, x, w, m, k, r);
    sent();
    arrived<0>();
    for (int at = 0; at < r; at += 16) {
        unsigned a[4], b[4];
        fetch(a, left + at * 2);
#pragma unroll
        for (int j = 0; j < COLS / 16; j++) {
            fetch_turned(b, right + (unsigned)(at * PITCH + j * 16) * 2);
            multiply(sum[2 * j], a, b[0], b[1]);
            multiply(sum[2 * j + 1], a, b[2], b[3]);
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int own = warp * 16 + lane / 4 + half * 8;
        unsigned row = (unsigned)row0 + own, of = (unsigned)mask.rows;
        add(ys + own * PITCH, sum, half, (uint64_t)(row % of) * (k / COLS) + blockIdx.x,
            mask, mask.stream + row / of * mask.stream_step);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < ROWS * (COLS / 8); i += LANES) {
        int row = i / (COLS / 8), col = i % (COLS / 8) * 8;
        if (row0 + row < m)
            *(uint4 *)(y + (row0 + row) * k + col0 + col) =
                *(const uint4 *)(ys + row * PITCH + col);
    }
}

int cu_low_rank(cu_stream s, void *y, const void *x, const void *w, size_t m, size_t k,
                size_t r, const cu_mask *mask)
{
    size_t bytes = (ROWS * PITCH + ROWS * (r + 8) + r * PITCH) * sizeof(half16);
    dim3 grid((unsigned)(k / COLS), blocks_of(m, ROWS));
    int err = cudaFuncSetAttribute(low_rank, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   (int)bytes);

    if (err != 0)
        return err;
    low_rank<<<grid, LANES, bytes, s>>>((half16 *)y, (const half16 *)x, (const half16 *)w,
                                        m, k, (int)r, *mask);
    return cudaGetLastError();
}
