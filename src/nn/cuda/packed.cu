/*
 * packed.cu - packed weights as they are trained (nn_packed.h): a thread unpacks a byte, a
 * warp sums a scale's gradient in a tree of fixed shape; and matrices transposed by tiles.
 */
#include <cuda_runtime.h>

#include "nn/cuda/packed_parts.cuh"

enum { THREADS = 256, WARP = 32, TILE = 32, TILE_ROWS = 8 };

__global__ static void unpack(float *w, cu_packed q)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    size_t row = i / q.row_bytes, each = 8 / (size_t)q.bits, col = i % q.row_bytes * each;

    if (row >= q.rows || col >= q.cols)
        return;
    size_t block = col / q.block;
    float scale = q.scales[row * q.blocks + block];
    int zero = cu_zero_of(&q, row, block), byte = q.codes[i];
    for (size_t k = 0; k < each && col + k < q.cols; k++, byte >>= q.bits)
        w[row * q.cols + col + k] = (float)((byte & ((1 << q.bits) - 1)) - zero) * scale;
}

int cu_unpack(cu_stream s, float *w, const cu_packed *q)
{
    size_t bytes = q->rows * q->row_bytes;

    unpack<<<(unsigned)((bytes + THREADS - 1) / THREADS), THREADS, 0, s>>>(w, *q);
    return cudaGetLastError();
}

__global__ static void unpack_back(float *ds, const float *dw, cu_packed q)
{
    size_t at = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    size_t row = at / q.blocks, block = at % q.blocks, each = 8 / (size_t)q.bits;
    float sum = 0;

    if (row >= q.rows)
        return;
    int zero = cu_zero_of(&q, row, block);
    for (size_t i = threadIdx.x % WARP; i < q.block; i += WARP) {
        size_t col = block * q.block + i;
        if (col >= q.cols)
            break;
        int byte = q.codes[row * q.row_bytes + col / each];
        int code = byte >> col % each * q.bits & ((1 << q.bits) - 1);
        sum += (float)(code - zero) * dw[row * q.cols + col];
    }
    for (int i = WARP / 2; i > 0; i /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, i);
    if (threadIdx.x % WARP == 0)
        ds[at] += sum;
}

int cu_unpack_back(cu_stream s, float *ds, const float *dw, const cu_packed *q)
{
    size_t threads = q->rows * q->blocks * WARP;

    unpack_back<<<(unsigned)((threads + THREADS - 1) / THREADS), THREADS, 0, s>>>(ds, dw,
                                                                                  *q);
    return cudaGetLastError();
}

__global__ static void transpose(float *y, const float *x, size_t m, size_t n)
{
    __shared__ float tile[TILE][TILE + 1];
    size_t row = (size_t)blockIdx.x * TILE, col = (size_t)blockIdx.y * TILE;

    for (size_t i = threadIdx.y; i < TILE && row + i < m; i += TILE_ROWS)
        if (col + threadIdx.x < n)
            tile[i][threadIdx.x] = x[(row + i) * n + col + threadIdx.x];
    __syncthreads();
    for (size_t i = threadIdx.y; i < TILE && col + i < n; i += TILE_ROWS)
        if (row + threadIdx.x < m)
            y[(col + i) * m + row + threadIdx.x] = tile[threadIdx.x][i];
}

/* n at most 65,535 tiles: a grid's second side. */
int cu_transpose(cu_stream s, float *y, const float *x, size_t m, size_t n)
{
    dim3 grid((unsigned)((m + TILE - 1) / TILE), (unsigned)((n + TILE - 1) / TILE));

    transpose<<<grid, dim3(TILE, TILE_ROWS), 0, s>>>(y, x, m, n);
    return cudaGetLastError();
}
