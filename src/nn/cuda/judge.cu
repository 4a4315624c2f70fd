/*
 * judge.cu - a row of logits in a few numbers: a block for each row, sums in double.
 */
#include <cuda_runtime.h>

#include "nn/cuda/cuda_kernels.h"

enum { THREADS = 512, WARP = 32 };
#define ALL 0xffffffffu

__device__ static double block_total(double v, double *room)
{
    for (int i = WARP / 2; i > 0; i /= 2)
        v += __shfl_xor_sync(ALL, v, i);
    __syncthreads(); /* room is free */
    if (threadIdx.x % WARP == 0)
        room[threadIdx.x / WARP] = v;
    __syncthreads();
    double sum = 0;
    for (int i = 0; i < THREADS / WARP; i++)
        sum += room[i];
    return sum;
}

/* The greater one; of equal ones the first. */
__device__ static void take(float &top, size_t &at, float v, size_t place)
{
    if (v > top || (v == top && place < at)) {
        top = v;
        at = place;
    }
}

__global__ static void row_stats(nn_row_stat *stats, const float *a, const float *other,
                                 const int32_t *targets, size_t v)
{
    __shared__ double room[THREADS / WARP];
    __shared__ float tops[THREADS];
    __shared__ size_t places[THREADS];
    const float *x = a + blockIdx.x * v;
    const float *y = other != NULL ? other + blockIdx.x * v : NULL;
    float top = -INFINITY;
    size_t at = threadIdx.x;
    double sum = 0, over = 0;

    for (size_t i = threadIdx.x; i < v; i += THREADS)
        take(top, at, x[i], i);
    tops[threadIdx.x] = top;
    places[threadIdx.x] = at;
    __syncthreads();
    for (int i = 0; i < THREADS; i++)
        take(top, at, tops[i], places[i]);
    for (size_t i = threadIdx.x; i < v; i += THREADS) {
        double e = (double)expf(x[i] - top);
        sum += e;
        if (y != NULL)
            over += e * ((double)x[i] - (double)y[i]);
    }
    sum = block_total(sum, room);
    over = block_total(over, room);
    if (threadIdx.x == 0)
        stats[blockIdx.x] = {(double)top, (double)at, log(sum), over / sum,
                             targets != NULL ? (double)x[targets[blockIdx.x]] : 0.0};
}

int cu_row_stats(cu_stream s, nn_row_stat *stats, const float *a, const float *other,
                 const int32_t *targets, size_t m, size_t v)
{
    row_stats<<<(unsigned)m, THREADS, 0, s>>>(stats, a, other, targets, v);
    return cudaGetLastError();
}
