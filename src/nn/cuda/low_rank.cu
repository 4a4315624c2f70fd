/*
 * low_rank.cu - a low-rank adapter's products behind the mask of its dropout:
 *
 *     low_rank   what it adds to the gradient of its input, y += mask o (x w), w[R][K]
 *     factor     u = (mask o x) w^T, x[M][K]
 *
 * As products of their own they would write what is masked, and read it again: at ranks
 * like 64 moving it is all that such a product costs.  The mask is in chunks of 128 values
 * of a row, each of 16 blocks of random words, of which a block makes value i, i + 16, ...:
 * every thread computes the blocks of the values that it holds, each once.
 */
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "nn/cuda/cuda_kernels.h"
#include "nn/cuda/mma_parts.cuh"
#include "nn/cuda/rows_parts.cuh"

enum { ROWS = 64, COLS = CHUNK, LANES = 128, PITCH = COLS + 8 };

/* ---- the gradient of the input ---- */

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

/* ---- u ---- */

/* The four values from 16 j + 4 q of a row's chunk, for all j: those that are dropped
 * become zeros.  row: in x; chunk: of the row. */
__device__ static void mask_part(uint2 v[8], size_t row, size_t chunk, size_t chunks, int q,
                                 const cu_mask &mask)
{
    size_t of = mask.rows;
    uint64_t stream = mask.stream + row / of * mask.stream_step;
    uint64_t first = (row % of * chunks + chunk) * 16 + 4 * q;
    uint32_t keep[8][2] = {};

#pragma unroll
    for (int e = 0; e < 4; e++) {
        uint32_t words[4];
        philox(words, mask.seed, stream, first + e);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            bool there = (words[j / 2] >> j % 2 * 16 & 0xffffu) >= mask.threshold;
            keep[j][e / 2] |= there ? e % 2 == 0 ? 0xffffu : 0xffff0000u : 0u;
        }
    }
#pragma unroll
    for (int j = 0; j < 8; j++)
        v[j] = make_uint2(v[j].x & keep[j][0], v[j].y & keep[j][1]);
}

/* They from memory; zeros of a row that is not there. */
__device__ static void take_part(uint2 v[8], const half16 *x, size_t row, size_t chunk,
                                 size_t k, int q, bool there)
{
    const half16 *from = x + row * k + chunk * COLS + 4 * q;

#pragma unroll
    for (int j = 0; j < 8; j++)
        v[j] = there ? *(const uint2 *)(from + 16 * j) : make_uint2(0, 0);
}

/* 64 rows of a chunk at a time, a thread a quarter of a row: masked they go to shared
 * memory, from where the product has them, while the next ones are on their way.  Two
 * stages, so that one barrier a turn is enough. */
enum { PASS_ROWS = 64, PASS_THREADS = 256, STAGE = PASS_ROWS * PITCH };

__device__ static void lay(half16 *xs, const uint2 v[8], int own, int q)
{
#pragma unroll
    for (int j = 0; j < 8; j++)
        *(uint2 *)(xs + own * PITCH + 16 * j + 4 * q) = v[j];
}

/* A chunk of w to shared memory, rows from r on as zeros. */
__device__ static void send_chunk(half16 *to, const half16 *w, size_t k, int rows, int r)
{
    for (int i = threadIdx.x; i < rows * (COLS / 8); i += PASS_THREADS) {
        int row = i / (COLS / 8), c = i % (COLS / 8) * 8;
        bool there = row < r;
        send16(address(to + row * PITCH + c), w + (there ? row * k + c : 0), there);
    }
    sent();
}

/* A block has 64 rows of u, all its 8 TILES columns (of which r are there), and a share of
 * the chunks: part[M][R] of it.  Four warps by two have 16 rows and half the columns. */
template <int TILES>
__global__ static void __launch_bounds__(PASS_THREADS)
    factor(float *part, const half16 *x, const half16 *w, size_t m, size_t k, int r,
           int share, cu_mask mask)
{
    extern __shared__ __align__(16) half16 room[];
    enum { R = 8 * TILES, HALF = TILES / 2, W_STAGE = R * PITCH };
    half16 *xs = room, *ws = room + 2 * STAGE;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, q = threadIdx.x % 4;
    int own = threadIdx.x / 4, chunks = (int)(k / COLS);
    size_t row = (size_t)blockIdx.x * PASS_ROWS + own;
    unsigned left = address(xs + (warp % 4 * 16 + lane % 16) * PITCH + lane / 16 * 8);
    unsigned right = address(ws + (warp / 4 * HALF * 8 + lane / 16 * 8 + lane % 8) * PITCH +
                             lane / 8 % 2 * 8);
    int first = blockIdx.y * share, end = min(first + share, chunks);
    float sum[HALF][4] = {};
    uint2 v[8];

    take_part(v, x, row, first, k, q, row < m);
    send_chunk(ws, w + (size_t)first * COLS, k, R, r);
    for (int at = first, turn = 0; at < end; at++, turn ^= 1) {
        mask_part(v, row, at, chunks, q, mask);
        lay(xs + turn * STAGE, v, own, q);
        arrived<0>();
        if (at + 1 < end) {
            take_part(v, x, row, at + 1, k, q, row < m);
            send_chunk(ws + (turn ^ 1) * W_STAGE, w + (size_t)(at + 1) * COLS, k, R, r);
        }
#pragma unroll
        for (int j = 0; j < COLS; j += 16) {
            unsigned a[4], b[4];
            fetch(a, left + (unsigned)(turn * STAGE + j) * 2);
#pragma unroll
            for (int n = 0; n < HALF; n += 2) {
                fetch(b, right + (unsigned)(turn * W_STAGE + n * 8 * PITCH + j) * 2);
                multiply(sum[n], a, b[0], b[1]);
                multiply(sum[n + 1], a, b[2], b[3]);
            }
        }
    }
    part += blockIdx.y * m * r;
#pragma unroll
    for (int i = 0; i < 2 * HALF; i++) {
        size_t at = (size_t)blockIdx.x * PASS_ROWS + warp % 4 * 16 + lane / 4 + i % 2 * 8;
        int col = (warp / 4 * HALF + i / 2) * 8 + lane % 4 * 2;
        const float *two = &sum[i / 2][i % 2 * 2];
        if (at < m && col < r)
            *(float2 *)(part + at * r + col) = make_float2(two[0], two[1]);
    }
}

/* u = scale times the sum of the parts, in their order. */
__global__ static void join_parts(half16 *u, const float *part, size_t count, int parts,
                                  float scale)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    float4 v = make_float4(0, 0, 0, 0);

    if (i >= count)
        return;
    for (int p = 0; p < parts; p++) {
        const float4 own = *(const float4 *)(part + p * count + i);
        v.x += own.x, v.y += own.y, v.z += own.z, v.w += own.w;
    }
    *(uint2 *)(u + i) =
        make_uint2(pack(scale * v.x, scale * v.y), pack(scale * v.z, scale * v.w));
}

/* Shares of the chunks, so that some CU_BLOCKS blocks have one each. */
static size_t share_of(size_t chunks, size_t across)
{
    size_t parts = CU_BLOCKS / across;

    parts = parts < 1 ? 1 : parts > CU_MASKED_PARTS ? CU_MASKED_PARTS : parts;
    return (chunks + parts - 1) / parts;
}

template <int TILES>
static int run_factor(cu_stream s, void *u, float *room, const void *x, const void *w,
                      size_t m, size_t k, size_t r, const cu_mask *mask)
{
    size_t chunks = k / COLS, across = (m + PASS_ROWS - 1) / PASS_ROWS;
    size_t share = share_of(chunks, across);
    dim3 grid((unsigned)across, blocks_of(chunks, share));
    int bytes = 2 * (STAGE + 8 * TILES * PITCH) * (int)sizeof(half16);
    int err = cudaFuncSetAttribute(factor<TILES>,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);

    if (err != 0)
        return err;
    factor<TILES><<<grid, PASS_THREADS, bytes, s>>>(
        room, (const half16 *)x, (const half16 *)w, m, k, (int)r, (int)share, *mask);
    join_parts<<<blocks_of(m * r, THREADS * 4), THREADS, 0, s>>>((half16 *)u, room, m * r,
                                                                 (int)grid.y, mask->scale);
    return cudaGetLastError();
}

int cu_low_rank_factor(cu_stream s, void *u, float *room, const void *x, const void *w,
                       size_t m, size_t k, size_t r, const cu_mask *mask)
{
    if (r <= 32)
        return run_factor<4>(s, u, room, x, w, m, k, r, mask);
    if (r <= 64)
        return run_factor<8>(s, u, room, x, w, m, k, r, mask);
    return run_factor<16>(s, u, room, x, w, m, k, r, mask);
}
