/*
 * gptq.cu - GPTQ's kernels: the Hessian and its factor, the sweep over a group's columns,
 * descent over its codes and grid.
 *
 * In the last two a warp has a row and each lane one to four of the group's columns; a
 * column's value goes to all lanes, which compute its code alike, and each lane adds what
 * that changes to its own columns.  So a row's arithmetic is that of quant/gptq_sweep.c in
 * its order, unfused (this file is compiled with -fmad=false).
 */
#include <cuda_runtime.h>

#include "nn/cuda/cuda_kernels.h"

enum { THREADS = 256, WARP = 32, WARPS = THREADS / WARP, STRIP = 96 /* NN_GRAM_STRIP */ };
#define ALL 0xffffffffu

static unsigned blocks_of(size_t count, size_t each)
{
    return (unsigned)((count + each - 1) / each);
}

__device__ static size_t natural(const uint32_t *order, size_t i)
{
    return order != NULL ? order[i] : i;
}

/* ---- the Hessian ---- */

/* A square of the lower triangle and its mirror image. */
__global__ static void expand_gram(float *h, const float *strips, size_t n, float rest)
{
    __shared__ float square[WARP][WARP + 1];
    size_t row0 = (size_t)blockIdx.y * WARP, col0 = (size_t)blockIdx.x * WARP;
    size_t lane = threadIdx.x % WARP;

    if (col0 > row0)
        return;
    for (size_t k = threadIdx.x / WARP; k < WARP; k += WARPS) {
        size_t i = row0 + k, j = col0 + lane, s = i / STRIP;
        size_t end = (s + 1) * STRIP < n ? (s + 1) * STRIP : n;
        float v = 0;
        if (i < n && j <= i)
            v = strips[(size_t)STRIP * STRIP * (s * (s + 1) / 2) + (i - s * STRIP) * end +
                       j] *
                (i == j ? 1.0f : rest);
        square[k][lane] = v;
        if (i < n && j <= i)
            h[i * n + j] = v;
    }
    __syncthreads();
    for (size_t k = threadIdx.x / WARP; k < WARP; k += WARPS) {
        size_t i = col0 + k, j = row0 + lane;
        if (i < j && j < n)
            h[i * n + j] = square[lane][k];
    }
}

int cu_expand_gram(cu_stream s, float *h, const float *strips, size_t n, float rest)
{
    dim3 grid(blocks_of(n, WARP), blocks_of(n, WARP));

    expand_gram<<<grid, THREADS, 0, s>>>(h, strips, n, rest);
    return cudaGetLastError();
}

__global__ static void cut_blocks(float *out, const float *h, const uint32_t *order,
                                  size_t n, size_t m)
{
    size_t at = (size_t)blockIdx.x * THREADS + threadIdx.x, i = at / m, j = at % m;

    if (i < n)
        out[at] = h[natural(order, i) * n + natural(order, i / m * m + j)];
}

int cu_cut_blocks(cu_stream s, float *out, const float *h, const uint32_t *order, size_t n,
                  size_t m)
{
    cut_blocks<<<blocks_of(n * m, THREADS), THREADS, 0, s>>>(out, h, order, n, m);
    return cudaGetLastError();
}

__global__ static void gather_columns(float *out, const float *w, const uint32_t *order,
                                      const float *live, size_t rows, size_t n)
{
    size_t at = (size_t)blockIdx.x * THREADS + threadIdx.x, r = at / n;

    if (r >= rows)
        return;
    size_t from = natural(order, at % n);
    out[at] = live[from] > 0.0f ? w[r * n + from] : 0.0f;
}

int cu_gather_columns(cu_stream s, float *out, const float *w, const uint32_t *order,
                      const float *live, size_t rows, size_t n)
{
    gather_columns<<<blocks_of(rows * n, THREADS), THREADS, 0, s>>>(out, w, order, live,
                                                                    rows, n);
    return cudaGetLastError();
}

/* ---- its factor ---- */

__global__ static void fill_factor(float *factor, const float *h, const uint32_t *order,
                                   size_t n, double mean, double add)
{
    size_t j = (size_t)blockIdx.x * THREADS + threadIdx.x, i = blockIdx.y;

    if (j > i)
        return;
    float v = h[natural(order, n - 1 - i) * n + natural(order, n - 1 - j)];
    if (i == j) {
        double d = (double)v;
        v = (float)((d > 0 ? d : mean) + add);
    }
    factor[i * n + j] = v;
}

int cu_fill_factor(cu_stream s, float *factor, const float *h, const uint32_t *order,
                   size_t n, double mean, double add)
{
    dim3 grid(blocks_of(n, THREADS), (unsigned)n);

    fill_factor<<<grid, THREADS, 0, s>>>(factor, h, order, n, mean, add);
    return cudaGetLastError();
}

enum { FACTOR = 128, FACTOR_THREADS = 512, FACTOR_WARPS = FACTOR_THREADS / WARP };
enum { FACTOR_PACKED = FACTOR * (FACTOR + 1) / 2 };

__device__ static int packed(int i, int j)
{
    return i * (i + 1) / 2 + j;
}

/* One block of threads; the triangle and its inverse in shared memory, in double. */
__global__ static void factor_diagonal(float *to, size_t ldl, const float *a, size_t ld,
                                       int nb, float *inv, bool turned)
{
    extern __shared__ double space[];
    double *l = space, *x = l + FACTOR_PACKED, *col = x + FACTOR_PACKED;
    int t = threadIdx.x, warp = t / WARP, lane = t % WARP;
    bool factor = to != NULL;

    for (int i = warp; i < nb; i += FACTOR_WARPS)
        for (int j = lane; j <= i; j += WARP)
            l[packed(i, j)] = (double)a[i * ld + j];
    __syncthreads();
    for (int k = 0; factor && k < nb; k++) {
        double pivot = sqrt(l[packed(k, k)]);
        for (int i = k + 1 + t; i < nb; i += FACTOR_THREADS)
            col[i] = l[packed(i, k)] / pivot;
        __syncthreads();
        if (t == 0)
            l[packed(k, k)] = pivot;
        for (int i = k + 1 + warp; i < nb; i += FACTOR_WARPS) {
            double f = col[i];
            for (int j = k + 1 + lane; j <= i; j += WARP)
                l[packed(i, j)] -= f * col[j];
            if (lane == 0)
                l[packed(i, k)] = f;
        }
        __syncthreads();
    }
    for (int i = warp; factor && i < nb; i += FACTOR_WARPS)
        for (int j = lane; j <= i; j += WARP)
            to[i * ldl + j] = (float)l[packed(i, j)];
    /* four lanes a column of the inverse: they share its sums */
    for (int c = t / 4; c < nb; c += FACTOR_THREADS / 4) {
        for (int i = c; i < nb; i++) {
            double sum = 0;
            for (int k = c + t % 4; k < i; k += 4)
                sum += l[packed(i, k)] * x[packed(k, c)];
            unsigned four = 0xfu << (lane / 4 * 4);
            sum += __shfl_xor_sync(four, sum, 1);
            sum += __shfl_xor_sync(four, sum, 2);
            if (t % 4 == 0)
                x[packed(i, c)] = ((i == c ? 1.0 : 0.0) - sum) / l[packed(i, i)];
            __syncwarp(four);
        }
    }
    __syncthreads();
    for (int at = t; at < nb * nb; at += FACTOR_THREADS) {
        int r = turned ? at % nb : at / nb, c = turned ? at / nb : at % nb;
        inv[at] = c <= r ? (float)x[packed(r, c)] : 0.0f;
    }
}

int cu_factor_diagonal(cu_stream s, float *l, size_t ldl, const float *a, size_t ld,
                       size_t nb, float *inv, bool turned)
{
    int bytes = (2 * FACTOR_PACKED + FACTOR) * (int)sizeof(double);
    int err = cudaFuncSetAttribute(factor_diagonal,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);

    if (err != 0)
        return err;
    factor_diagonal<<<1, FACTOR_THREADS, bytes, s>>>(l, ldl, a, ld, (int)nb,
                                                           inv, turned);
    return cudaGetLastError();
}

__global__ static void cut_factor(float *within, float *pivot, float *spread,
                                  const float *factor, size_t n, size_t p0, size_t nb)
{
    size_t k = (size_t)blockIdx.x * THREADS + threadIdx.x, i = blockIdx.y;
    size_t last = n - 1 - p0, c = last - k; /* the factor is read backwards */

    if (k > last)
        return;
    float own = factor[c * n + c], v = factor[(last - i) * n + c] / own;
    if (k < nb) {
        within[i * nb + k] = k > i ? v : 0.0f;
        if (i == 0)
            pivot[k] = own;
    } else {
        spread[(k - nb) * nb + i] = v;
    }
}

int cu_cut_factor(cu_stream s, float *within, float *pivot, float *spread,
                  const float *factor, size_t n, size_t p0, size_t nb)
{
    dim3 grid(blocks_of(n - p0, THREADS), (unsigned)nb);

    cut_factor<<<grid, THREADS, 0, s>>>(within, pivot, spread, factor, n, p0, nb);
    return cudaGetLastError();
}

/* ---- rows of a group ---- */

/* The warp's row. */
__device__ static size_t own_row()
{
    return (size_t)blockIdx.x * WARPS + threadIdx.x / WARP;
}

/* room[nb][32 * PER] = from[nb][nb], rows ld apart; zeros beyond. */
template <int PER>
__device__ static void fetch_square(float *room, const float *from, size_t ld, int nb)
{
    constexpr int WIDE = WARP * PER;

    for (int i = threadIdx.x; i < nb * WIDE; i += THREADS)
        room[i] = i % WIDE < nb ? from[i / WIDE * ld + i % WIDE] : 0.0f;
    __syncthreads();
}

template <int PER> __device__ static void fetch_own(float *to, const float *square, int k)
{
    const float *from = square + (k * WARP + (int)(threadIdx.x % WARP)) * PER;

    if (PER == 4)
        *(float4 *)to = *(const float4 *)from;
    else
        for (int q = 0; q < PER; q++)
            to[q] = from[q];
}

template <int PER> __global__ static void sweep_group(nn_sweep s)
{
    extern __shared__ float room[];
    int lane = threadIdx.x % WARP, nb = (int)s.nb;
    float *pivot = room + nb * WARP * PER, loss = 0, scale = 1, zero = 0;
    float cur[PER], orig[PER], value[PER] = {}, delta[PER] = {};
    size_t row = own_row();

    for (int i = threadIdx.x; i < nb; i += THREADS)
        pivot[i] = s.pivot[i];
    fetch_square<PER>(room, s.within, s.nb, nb);
    if (row >= s.rows)
        return;
    const float top = nn_grid_top(s.bits);
    if (s.scales != NULL) {
        scale = s.scales[row * s.ldg];
        zero = s.zeros[row * s.ldg];
    }
#pragma unroll
    for (int p = 0; p < PER; p++) {
        int c = lane * PER + p;
        cur[p] = c < nb ? s.adj[row * s.ld + c] : 0.0f;
        orig[p] = c < nb ? s.orig[row * s.ld + c] : 0.0f;
    }
    for (int l = 0; l * PER < nb; l++) {
#pragma unroll
        for (int p = 0; p < PER; p++) {
            int k = l * PER + p;
            if (k >= nb)
                break;
            float at = __shfl_sync(ALL, cur[p], l), v = at, f[PER];
            if (s.scales != NULL)
                v = (nn_grid_code(at, scale, zero, top) - zero) * scale;
            float e = (at - v) * pivot[k], d = __shfl_sync(ALL, orig[p], l) - v;
            loss += e * e;
            if (lane == l) {
                value[p] = v;
                delta[p] = d;
            }
            fetch_own<PER>(f, room, k);
#pragma unroll
            for (int q = 0; q < PER; q++)
                cur[q] += d * f[q];
        }
    }
#pragma unroll
    for (int p = 0; p < PER; p++) {
        int c = lane * PER + p;
        if (c >= nb)
            break;
        s.values[row * s.ldv + natural(s.to, c)] = value[p];
        if (s.delta != NULL)
            s.delta[row * s.nb + c] = delta[p];
    }
    if (s.loss != NULL && lane == 0)
        s.loss[row] += (double)loss;
}

template <int PER> static int launch_sweep(cu_stream s, const nn_sweep *g)
{
    int bytes = (int)((g->nb * WARP * PER + g->nb) * sizeof(float));
    int err = cudaFuncSetAttribute(sweep_group<PER>,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);

    if (err != 0)
        return err;
    sweep_group<PER><<<blocks_of(g->rows, WARPS), THREADS, bytes, s>>>(*g);
    return cudaGetLastError();
}

int cu_sweep_group(cu_stream s, const nn_sweep *g)
{
    if (g->nb <= WARP)
        return launch_sweep<1>(s, g);
    return g->nb <= 2 * WARP ? launch_sweep<2>(s, g) : launch_sweep<4>(s, g);
}

/* ---- descent ---- */

__device__ static float warp_sum(float v)
{
    for (int i = WARP / 2; i > 0; i /= 2)
        v += __shfl_xor_sync(ALL, v, i);
    return v;
}

template <int PER> struct row_descent {
    const nn_descent &s;
    const float *h, *h_sums; /* shared */
    int lane, nb;
    float r[PER], code[PER], scale, zero;

    __device__ void move_codes()
    {
        const float top = nn_grid_top(s.rule.bits);

        for (int l = 0; l * PER < nb; l++) {
#pragma unroll
            for (int p = 0; p < PER; p++) {
                int j = l * PER + p;
                if (j >= nb)
                    break;
                float pivot = h[j * WARP * PER + j] + s.damp, f[PER];
                float was = __shfl_sync(ALL, code[p], l);
                float c = was - nn_grid_round(__shfl_sync(ALL, r[p], l) / (pivot * scale));
                c = nn_grid_clamp(c, top);
                float d = (c - was) * scale;
                if (d == 0.0f) /* of the whole warp */
                    continue;
                fetch_own<PER>(f, h, j);
#pragma unroll
                for (int q = 0; q < PER; q++)
                    r[q] += d * f[q];
                if (lane == l) {
                    code[p] = c;
                    r[p] += d * s.damp;
                }
            }
        }
    }

    /* Does a step along what has that slope and curve lower the loss? */
    __device__ static bool lowers(float by, float slope, float curve)
    {
        return 2.0f * by * slope + by * by * curve < 0.0f;
    }

    __device__ void move_scale()
    {
        float move[PER], along[PER] = {}, slope = 0, curve = 0;

#pragma unroll
        for (int p = 0; p < PER; p++)
            move[p] = lane * PER + p < nb ? code[p] - zero : 0.0f;
        for (int l = 0; l * PER < nb; l++) {
#pragma unroll
            for (int p = 0; p < PER; p++) {
                float v = __shfl_sync(ALL, move[p], l), f[PER];
                if (l * PER + p >= nb)
                    break;
                fetch_own<PER>(f, h, l * PER + p);
#pragma unroll
                for (int q = 0; q < PER; q++)
                    along[q] = fmaf(v, f[q], along[q]);
            }
        }
#pragma unroll
        for (int p = 0; p < PER; p++) {
            along[p] += s.damp * move[p];
            slope += r[p] * move[p];
            curve += along[p] * move[p];
        }
        slope = warp_sum(slope);
        curve = warp_sum(curve);
        float to = curve > 0.0f ? scale - slope / curve : 0.0f;
        to = s.rule.fp16_scales && to > 0.0f ? nn_grid_half(to) : to;
        float by = to > 0.0f && to < INFINITY ? to - scale : 0.0f;
        if (!lowers(by, slope, curve))
            return;
        scale += by;
#pragma unroll
        for (int p = 0; p < PER; p++)
            r[p] += by * along[p];
    }

    __device__ void move_zero()
    {
        float slope = 0, curve = 0;

#pragma unroll
        for (int p = 0; p < PER; p++) {
            bool there = lane * PER + p < nb;
            slope += there ? r[p] : 0.0f;
            curve += there ? h_sums[lane * PER + p] + s.damp : 0.0f;
        }
        slope = warp_sum(slope);
        curve = warp_sum(curve);
        float z = zero + (curve > 0.0f ? nn_grid_round(slope / (curve * scale)) : 0.0f);
        z = nn_grid_clamp(z, nn_grid_top(s.rule.bits));
        if (lowers((zero - z) * scale, slope, curve))
            zero = z; /* nothing behind it looks at the gradient */
    }
};

template <int PER> __global__ static void descend_group(nn_descent s)
{
    constexpr int WIDE = WARP * PER;
    extern __shared__ float room[];
    float *h_sums = room + s.nb * WIDE;
    row_descent<PER> d = {s, room, h_sums, (int)(threadIdx.x % WARP), (int)s.nb};
    float was[PER];
    size_t row = own_row();

    fetch_square<PER>(room, s.h, s.ldh, d.nb);
    for (int c = threadIdx.x; c < d.nb; c += THREADS) {
        float sum = 0;
        for (int j = 0; j < d.nb; j++)
            sum += room[j * WIDE + c];
        h_sums[c] = sum;
    }
    __syncthreads();
    if (row >= s.rows)
        return;
    d.scale = s.scales[row * s.ldg];
    d.zero = s.zeros[row * s.ldg];
#pragma unroll
    for (int p = 0; p < PER; p++) {
        int c = d.lane * PER + p;
        was[p] = c < d.nb ? s.values[row * s.ldv + c] : 0.0f;
        d.r[p] = c < d.nb ? s.grad[row * s.ld + c] : 0.0f;
        d.code[p] = nn_grid_code(was[p], d.scale, d.zero, nn_grid_top(s.rule.bits));
    }
    d.move_codes();
    d.move_scale();
    if (!s.rule.symmetric)
        d.move_zero();
#pragma unroll
    for (int p = 0; p < PER; p++) {
        int c = d.lane * PER + p;
        float v = (d.code[p] - d.zero) * d.scale;
        if (c >= d.nb)
            break;
        s.values[row * s.ldv + c] = v;
        s.delta[row * s.nb + c] = v - was[p];
    }
    if (d.lane == 0) {
        s.scales[row * s.ldg] = d.scale;
        s.zeros[row * s.ldg] = d.zero;
    }
}

template <int PER> static int launch_descent(cu_stream s, const nn_descent *g)
{
    int bytes = (int)((g->nb * WARP * PER + g->nb) * sizeof(float));
    int err = cudaFuncSetAttribute(descend_group<PER>,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);

    if (err != 0)
        return err;
    descend_group<PER><<<blocks_of(g->rows, WARPS), THREADS, bytes, s>>>(*g);
    return cudaGetLastError();
}

int cu_descend_group(cu_stream s, const nn_descent *g)
{
    if (g->nb <= WARP)
        return launch_descent<1>(s, g);
    return g->nb <= 2 * WARP ? launch_descent<2>(s, g) : launch_descent<4>(s, g);
}
