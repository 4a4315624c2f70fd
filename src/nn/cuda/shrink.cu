/*
 * shrink.cu - the search over ranges (cu_choose_grids) for groups of 128 columns, on the
 * tensor cores.
 *
 * A candidate's errors E of sixteen rows are made where a product has its first operand, in
 * registers, as two terms of bf16; the Gram matrix G is two terms in shared memory.  Of
 * E G only the part left of G's diagonal is computed: G is symmetric, and what is off it
 * counts twice in e^T G e.  The accumulators are where the errors are, too.
 */
#include <cuda_runtime.h>

#include "nn/cuda/cuda_kernels.h"
#include "nn/cuda/grid_parts.cuh"
#include "nn/cuda/mma_parts.cuh"

enum { WARP = 32, THREADS = 128, M = CU_SHRINK_GRAM, LD = M + 8, ROWS = 16 };
enum { DEEP = 16, STEPS = M / DEEP, FEW_ROWS = 8192 };

/* The lane's values: columns s * DEEP + 8 * half + own..own + 1 of two rows, 8 apart. */
struct lane_rows {
    float w[STEPS][4]
           [2]; /* in the order of an operand: row, row + 8, then the second half */
    float lo[2], hi[2];

    __device__ void load(const cu_shrink &a, size_t row, size_t col)
    {
#pragma unroll
        for (int s = 0; s < STEPS; s++)
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    size_t r = row + i % 2 * 8, c = col + s * DEEP + i / 2 * 8 + e;
                    w[s][i][e] = r < a.g.n ? a.w[r * a.g.ldw + c] : 0.0f;
                }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            lo[r] = INFINITY;
            hi[r] = -INFINITY;
#pragma unroll
            for (int s = 0; s < STEPS; s++)
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    float v = w[s][r + k / 2 * 2][k % 2];
                    lo[r] = fminf(lo[r], v);
                    hi[r] = fmaxf(hi[r], v);
                }
            lo[r] = -across(-lo[r], true);
            hi[r] = across(hi[r], true);
        }
    }
};

/* Both terms of the Gram matrix. */
__device__ static void load_gram(half16 *room, const float *gram)
{
#pragma unroll 8
    for (int i = threadIdx.x * 2; i < M * M; i += blockDim.x * 2) {
        float a = gram[i], b = gram[i + 1];
        int at = i / M * LD + i % M;
        __nv_bfloat162 top = __floats2bfloat162_rn(a, b);
        *(__nv_bfloat162 *)(room + at) = top;
        *(__nv_bfloat162 *)(room + M * LD + at) =
            __floats2bfloat162_rn(a - __bfloat162float(top.x), b - __bfloat162float(top.y));
    }
    __syncthreads();
}

struct errors {
    unsigned top[STEPS][4], low[STEPS][4];

    __device__ void set(int s, int i, float a, float b)
    {
        __nv_bfloat162 v = __floats2bfloat162_rn(a, b);

        top[s][i] = *(unsigned *)&v;
        low[s][i] = pack(a - __bfloat162float(v.x), b - __bfloat162float(v.y));
    }

    __device__ float get(int s, int i, int e) const
    {
        unsigned a = e == 0 ? top[s][i] << 16 : top[s][i] & 0xffff0000u;
        unsigned b = e == 0 ? low[s][i] << 16 : low[s][i] & 0xffff0000u;

        return __uint_as_float(a) + __uint_as_float(b);
    }

    /* acc += E's columns of step s times G's eight columns that begin at `at`. */
    __device__ void multiply(float acc[4], int s, const unsigned g[2],
                             const unsigned l[2]) const
    {
        ::multiply(acc, top[s], g[0], g[1]);
        ::multiply(acc, top[s], l[0], l[1]);
        ::multiply(acc, low[s], g[0], g[1]);
    }

    /* loss[r] = e^T G e, of the lane's columns. */
    __device__ void judge(float loss[2], const half16 *room) const
    {
        int lane = threadIdx.x % WARP;
        /* a fetch is four squares of 8 x 8: two for a step of each term */
        const half16 *own = room + lane % 8 * LD + lane / 8 % 2 * 8 + lane / 16 * M * LD;

        loss[0] = loss[1] = 0;
#pragma unroll
        for (int n = 0; n < 2 * STEPS; n++) {
            float acc[4] = {};
            unsigned g[4];
#pragma unroll
            for (int s = 0; s <= n / 2; s++) {
                if (s == n / 2) {
#pragma unroll
                    for (int k = 0; k < 4; k++)
                        acc[k] += acc[k];
                }
                fetch(g, address(own + n * 8 * LD + s * DEEP));
                multiply(acc, s, g, g + 2);
            }
#pragma unroll
            for (int k = 0; k < 4; k++)
                loss[k / 2] =
                    fmaf(acc[k], get(n / 2, n % 2 * 2 + k / 2, k % 2), loss[k / 2]);
        }
    }
};

struct grid_of {
    float scale, zero, by;
};

__global__ static void __launch_bounds__(THREADS) shrink_ranges(cu_shrink a)
{
    extern __shared__ uint4 space[];
    half16 *room = (half16 *)space;
    int lane = threadIdx.x % WARP, best[2] = {};
    size_t row = (blockIdx.y * (blockDim.x / WARP) + threadIdx.x / WARP) * ROWS + lane / 4;
    size_t group = blockIdx.x;
    const float top = nn_grid_top(a.rule.bits);
    float least[2], most[2];
    grid_of chosen[2] = {}, g[2];
    lane_rows own;
    errors e;

    load_gram(room, a.grams + group * M * M);
    own.load(a, row, group * M + lane % 4 * 2);
    for (int r = 0; r < 2; r++)
        most[r] = fmaxf(-own.lo[r], own.hi[r]);
#pragma unroll 1
    for (int i = 0; i < a.shrink.count; i++) {
        float keep = (float)(1.0 - (double)i / a.shrink.steps), loss[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float lo = own.lo[r], hi = own.hi[r];
            (void)nn_grid_shrunken(&lo, &hi, &a.shrink, i, lo, hi);
            nn_grid_fit(&g[r].scale, &g[r].zero, &a.rule, lo, hi);
            g[r].by = 1.0f / g[r].scale;
        }
#pragma unroll
        for (int s = 0; s < STEPS; s++)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                float off[2];
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    float was = own.w[s][k][c], v = was, limit = most[k % 2] * keep;
                    if (a.shrink.kind == NN_SHRINK_CLIP) {
                        v = v > -limit ? v : -limit;
                        v = v < limit ? v : limit;
                    }
                    const grid_of &on = g[k % 2];
                    const float code = code_of(v, on.scale, on.by, on.zero, top);
                    off[c] = (code - on.zero) * on.scale - was;
                }
                e.set(s, k, off[0], off[1]);
            }
        e.judge(loss, room);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            loss[r] = across(loss[r], false);
            if (i == 0 || loss[r] < least[r]) {
                least[r] = loss[r];
                best[r] = i;
                chosen[r] = g[r];
            }
        }
    }
    for (int r = 0; r < 2; r++) {
        size_t to = (row + r * 8) * a.g.ldg + group;
        if (lane % 4 != 0 || row + r * 8 >= a.g.n)
            continue;
        a.scales[to] = chosen[r].scale;
        a.zeros[to] = chosen[r].zero;
        if (a.limits != NULL)
            a.limits[to] = most[r] * (float)(1.0 - (double)best[r] / a.shrink.steps);
    }
}

int cu_shrink_ranges(cu_stream s, const cu_shrink *a)
{
    int bytes = 2 * M * LD * (int)sizeof(half16);
    int err = cudaFuncSetAttribute(shrink_ranges,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    /* few rows: smaller blocks, for all processors to have some */
    unsigned threads = a->g.n < FEW_ROWS ? THREADS / 2 : THREADS;
    size_t tall = threads / WARP * ROWS;

    if (err != 0)
        return err;
    dim3 grid((unsigned)(a->g.k / M), (unsigned)((a->g.n + tall - 1) / tall));
    shrink_ranges<<<grid, threads, bytes, s>>>(*a);
    return cudaGetLastError();
}
