/*
 * rounding.cu - weights rounded as a quantizer would round them, how far that is from them,
 * and quadratic forms of that: floats or bf16 of either side.
 *
 * A warp has a group: it reads it for the range and once more, from the cache, for the
 * codes.  Rounding is nn_grid.h's, unfused (this file is compiled with -fmad=false).
 */
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "nn/cuda/cuda_kernels.h"

enum { THREADS = 256, WARP = 32, WARPS = THREADS / WARP };
#define ALL 0xffffffffu

typedef __nv_bfloat16 half16;

enum { NEAR = 4 }; /* values of a lane that lie together, where groups have room for it */

template <int V> __device__ static void get(float v[V], const float *p)
{
    if constexpr (V == NEAR)
        *(float4 *)v = *(const float4 *)p;
    else
        v[0] = p[0];
}

template <int V> __device__ static void get(float v[V], const half16 *p)
{
    if constexpr (V == NEAR) {
        const uint2 u = *(const uint2 *)p;
        v[0] = __uint_as_float(u.x << 16), v[1] = __uint_as_float(u.x & 0xffff0000u);
        v[2] = __uint_as_float(u.y << 16), v[3] = __uint_as_float(u.y & 0xffff0000u);
    } else {
        v[0] = __bfloat162float(p[0]);
    }
}

template <int V> __device__ static void put(float *p, const float v[V])
{
    if constexpr (V == NEAR)
        *(float4 *)p = *(const float4 *)v;
    else
        p[0] = v[0];
}

template <int V> __device__ static void put(half16 *p, const float v[V])
{
    if constexpr (V == NEAR) {
        const __nv_bfloat162 a = __floats2bfloat162_rn(v[0], v[1]),
                             b = __floats2bfloat162_rn(v[2], v[3]);
        *(uint2 *)p = make_uint2(*(const uint32_t *)&a, *(const uint32_t *)&b);
    } else {
        p[0] = __float2bfloat16_rn(v[0]);
    }
}

/* Of the warp: its least and greatest. */
__device__ static void warp_range(float *lo, float *hi)
{
    for (int i = WARP / 2; i > 0; i /= 2) {
        *lo = fminf(*lo, __shfl_xor_sync(ALL, *lo, i));
        *hi = fmaxf(*hi, __shfl_xor_sync(ALL, *hi, i));
    }
}

template <int V, typename Y, typename X>
__global__ static void round_groups(Y *out, const X *w, nn_groups g, nn_rule rule,
                                    const float *scale, bool errors)
{
    size_t at = (size_t)blockIdx.x * WARPS + threadIdx.x / WARP, groups = g.k / g.block;
    size_t row = at / groups, col = at % groups * g.block;
    size_t first = threadIdx.x % WARP * V;
    const float top = nn_grid_top(rule.bits);
    float lo = INFINITY, hi = -INFINITY, step, zero;
    __align__(16) float v[NEAR], by[NEAR];

    if (row >= g.n)
        return;
    w += row * g.ldw + col;
    out += row * g.k + col;
    scale += col;
    for (size_t c = first; c < g.block; c += WARP * V) {
        get<V>(v, w + c);
        get<V>(by, scale + c);
#pragma unroll
        for (int k = 0; k < V; k++) {
            lo = fminf(lo, v[k] * by[k]);
            hi = fmaxf(hi, v[k] * by[k]);
        }
    }
    warp_range(&lo, &hi);
    nn_grid_fit(&step, &zero, &rule, lo, hi);
    for (size_t c = first; c < g.block; c += WARP * V) {
        get<V>(v, w + c);
        get<V>(by, scale + c);
#pragma unroll
        for (int k = 0; k < V; k++) {
            float code = nn_grid_code(v[k] * by[k], step, zero, top);
            float to = (code - zero) * step / by[k];
            v[k] = errors ? to - v[k] : to;
        }
        put<V>(out + c, v);
    }
}

template <typename Y, typename X>
static int launch_rounding(cu_stream s, Y *out, const X *w, const nn_groups *g,
                           const nn_rule *rule, const float *scale, bool errors)
{
    unsigned blocks = (unsigned)((g->n * (g->k / g->block) + WARPS - 1) / WARPS);
    bool wide = g->block % (WARP * NEAR) == 0 && g->ldw % NEAR == 0 &&
                ((uintptr_t)out | (uintptr_t)w | (uintptr_t)scale) % 16 == 0;

    if (wide)
        round_groups<NEAR><<<blocks, THREADS, 0, s>>>(out, w, *g, *rule, scale, errors);
    else
        round_groups<1><<<blocks, THREADS, 0, s>>>(out, w, *g, *rule, scale, errors);
    return cudaGetLastError();
}

int cu_round_scaled(cu_stream s, cu_values out, cu_values w, const nn_groups *g,
                    const nn_rule *rule, const float *scale, bool errors)
{
    half16 *to = (half16 *)out.p;

    if (w.bf16)
        return out.bf16
                   ? launch_rounding(s, to, (const half16 *)w.p, g, rule, scale, errors)
                   : launch_rounding(s, (float *)out.p, (const half16 *)w.p, g, rule, scale,
                                     errors);
    return out.bf16 ? launch_rounding(s, to, (const float *)w.p, g, rule, scale, errors)
                    : launch_rounding(s, (float *)out.p, (const float *)w.p, g, rule, scale,
                                      errors);
}

/* ---- quadratic forms: a block for each row ---- */

template <int V, typename B>
__global__ static void row_quads(double *out, const float *a, const B *b,
                                 const float *diagonal, size_t cols)
{
    __shared__ double room[WARPS];
    __align__(16) float p[NEAR], q[NEAR], by[NEAR];
    double sum = 0;

    a += blockIdx.x * cols;
    b += blockIdx.x * cols;
    for (size_t c = threadIdx.x * V; c < cols; c += THREADS * V) {
        float own = 0;
        get<V>(p, a + c);
        get<V>(q, b + c);
        get<V>(by, diagonal + c);
#pragma unroll
        for (int k = 0; k < V; k++)
            own += fmaf(by[k], q[k], p[k]) * q[k];
        sum += (double)own;
    }
    for (int i = WARP / 2; i > 0; i /= 2)
        sum += __shfl_xor_sync(ALL, sum, i);
    if (threadIdx.x % WARP == 0)
        room[threadIdx.x / WARP] = sum;
    __syncthreads();
    for (int i = 1; threadIdx.x == 0 && i < WARPS; i++)
        sum += room[i];
    if (threadIdx.x == 0)
        out[blockIdx.x] = sum;
}

template <typename B>
static int launch_quads(cu_stream s, double *out, const float *a, const B *b,
                        const float *diagonal, size_t rows, size_t cols)
{
    bool wide =
        cols % NEAR == 0 && ((uintptr_t)a | (uintptr_t)b | (uintptr_t)diagonal) % 16 == 0;

    if (wide)
        row_quads<NEAR><<<(unsigned)rows, THREADS, 0, s>>>(out, a, b, diagonal, cols);
    else
        row_quads<1><<<(unsigned)rows, THREADS, 0, s>>>(out, a, b, diagonal, cols);
    return cudaGetLastError();
}

int cu_row_quads(cu_stream s, double *out, const float *a, cu_values b,
                 const float *diagonal, size_t rows, size_t cols)
{
    return b.bf16 ? launch_quads(s, out, a, (const half16 *)b.p, diagonal, rows, cols)
                  : launch_quads(s, out, a, (const float *)b.p, diagonal, rows, cols);
}
