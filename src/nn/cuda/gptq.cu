/*
 * gptq.cu - GPTQ's kernels: the Hessian and what its factor is made from, the sweep over a
 * group's columns, descent over its codes and grid.
 *
 * A row's arithmetic is that of quant/gptq_sweep.c in its order, unfused (this file is
 * compiled with -fmad=false).
 */
#include <cuda_runtime.h>

#include "nn/cuda/cuda_kernels.h"
#include "nn/cuda/grid_parts.cuh"

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

/* Where row i of the triangle's strips begins, and how many values it has. */
__device__ static size_t strip_row(size_t i, size_t n, size_t *end)
{
    size_t s = i / STRIP;

    *end = (s + 1) * STRIP < n ? (s + 1) * STRIP : n;
    return (size_t)STRIP * STRIP * (s * (s + 1) / 2) + (i - s * STRIP) * *end;
}

/* A square of the lower triangle and its mirror image. */
__global__ static void expand_gram(float *h, const float *strips, size_t n, float rest)
{
    __shared__ float square[WARP][WARP + 1];
    size_t row0 = (size_t)blockIdx.y * WARP, col0 = (size_t)blockIdx.x * WARP;
    size_t lane = threadIdx.x % WARP;

    if (col0 > row0)
        return;
    for (size_t k = threadIdx.x / WARP; k < WARP; k += WARPS) {
        size_t i = row0 + k, j = col0 + lane, end;
        float v = 0;
        if (i < n && j <= i)
            v = strips[strip_row(i, n, &end) + j] * (i == j ? 1.0f : rest);
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

__global__ static void gram_panel(float *strips, const float *panel, size_t r, size_t ld,
                                  size_t n, bool first)
{
    size_t i = blockIdx.y, j = (size_t)blockIdx.x * THREADS + threadIdx.x, end;
    size_t at = strip_row(r + i, n, &end) + j;

    if (j < end)
        strips[at] = first ? panel[i * ld + j] : strips[at] + panel[i * ld + j];
}

int cu_gram_panel(cu_stream s, float *strips, const float *panel, size_t r, size_t rows,
                  size_t n, bool first)
{
    dim3 grid(blocks_of(r + rows, THREADS), (unsigned)rows);

    gram_panel<<<grid, THREADS, 0, s>>>(strips, panel, r, r + rows, n, first);
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
        spread[i * (n - p0 - nb) + k - nb] = v;
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

/*
 * A block of threads has a tile of rows and all columns of a group, a thread four rows and
 * an eighth or less of sixteen columns' neighbours.  Sixteen columns at a time go to one
 * thread for each row, which rounds them one after another; then all threads add what that
 * changes to their columns, from shared memory, as in a product of matrices.
 */
enum { TALL = 4, TX = 16, STEP = 16, STEP_LD = STEP + 1, FEW_ROWS = 8192 };

/* Shared memory; rows: of the tile. */
template <int WIDE> struct tile {
    float *h;     /* [nb up to a whole step][WIDE] */
    float *step;  /* [rows][STEP_LD]: columns on their way to the row's thread and back */
    float *moved; /* [STEP][rows + TALL]: what rounding them changes */
    float *rest;
    int rows, high, nb;

    __device__ tile(float *room, int nb_) : rows(blockDim.x / TX * TALL), nb(nb_)
    {
        high = (nb + STEP - 1) / STEP * STEP;
        h = room;
        moved = h + high * WIDE;
        step = moved + STEP * (rows + TALL);
        rest = step + rows * STEP_LD;
    }

    __device__ void fetch(const float *from, size_t ld)
    {
#pragma unroll 8
        for (int i = threadIdx.x; i < high * WIDE; i += blockDim.x) {
            int r = i / WIDE, c = i % WIDE;
            h[i] = r < nb && c < nb ? from[r * ld + c] : 0.0f;
        }
    }
};

/* Floats of a tile without its rest. */
static size_t tile_floats(size_t nb, size_t wide, size_t rows)
{
    return (nb + STEP - 1) / STEP * STEP * wide + STEP * (rows + TALL) + rows * STEP_LD;
}

/* A thread's part of it. */
template <int WIDE> struct part {
    static constexpr int COLS = WIDE / TX;
    float v[TALL][COLS];
    int row0, tx;

    __device__ part() : v{}, row0((int)threadIdx.x / TX * TALL), tx((int)threadIdx.x % TX)
    {
    }

    __device__ int column(int j) const
    {
        return COLS >= 4 ? j / 4 * 4 * TX + tx * 4 + j % 4 : tx * COLS + j;
    }

    /* Row k of the square: the thread's columns from its J0th on. */
    template <int J0> __device__ void row_of(float *to, const float *h, int k) const
    {
        const float *at = h + k * WIDE;

        if constexpr (COLS >= 4) {
#pragma unroll
            for (int j = J0; j < COLS; j += 4)
                *(float4 *)(to + j) = *(const float4 *)(at + column(j));
        } else {
            *(float2 *)to = *(const float2 *)(at + column(0));
        }
    }

    /* v += by[k][rows] h[from + k][columns], one k after another. */
    template <int J0> __device__ void add(const float *by, int ld, const float *h, int from)
    {
#pragma unroll 4
        for (int k = 0; k < STEP; k++) {
            float4 x = *(const float4 *)(by + k * ld + row0);
            const float d[TALL] = {x.x, x.y, x.z, x.w};
            float f[COLS];
            row_of<J0>(f, h, from + k);
#pragma unroll
            for (int i = 0; i < TALL; i++)
#pragma unroll
                for (int j = J0; j < COLS; j++)
                    v[i][j] += d[i] * f[j];
        }
    }

    /* v = (by - less[rows])[k][rows] h[k][columns], fused. */
    __device__ void multiply(const float *by, int ld, const float *less, const float *h,
                             int count)
    {
        float4 z = *(const float4 *)(less + row0);

#pragma unroll 4
        for (int k = 0; k < count; k++) {
            float4 x = *(const float4 *)(by + k * ld + row0);
            const float d[TALL] = {x.x - z.x, x.y - z.y, x.z - z.z, x.w - z.w};
            float f[COLS];
            row_of<0>(f, h, k);
#pragma unroll
            for (int i = 0; i < TALL; i++)
#pragma unroll
                for (int j = 0; j < COLS; j++)
                    v[i][j] = fmaf(d[i], f[j], v[i][j]);
        }
    }

    /* The columns of the step at `from`, into [rows][STEP_LD] or out of it. */
    template <bool OUT> __device__ void move_step(float *step, int from)
    {
#pragma unroll
        for (int j = 0; j < COLS; j++) {
            int c = column(j) - from;
            if (c < 0 || c >= STEP)
                continue;
#pragma unroll
            for (int i = 0; i < TALL; i++) {
                float *at = step + (row0 + i) * STEP_LD + c;
                if (OUT)
                    *at = v[i][j];
                else
                    v[i][j] = *at;
            }
        }
    }
};

/* The thread's row of sixteen columns, rounded one after another; the tile's rest begins
 * with what they were, [rows][STEP_LD]. */
template <int WIDE>
__device__ static void sweep_step(const nn_sweep &s, const tile<WIDE> &t, int from,
                                  const float *pivot, float scale, float zero, float *loss)
{
    const float top = nn_grid_top(s.bits), by = 1.0f / scale;
    float cur[STEP], *mine = t.step + threadIdx.x * STEP_LD;
    const float *orig = t.rest + threadIdx.x * STEP_LD;

#pragma unroll
    for (int k = 0; k < STEP; k++)
        cur[k] = mine[k];
#pragma unroll
    for (int k = 0; k < STEP; k++) {
        float v = cur[k], f[STEP];
        if (s.scales != NULL)
            v = (code_of(cur[k], scale, by, zero, top) - zero) * scale;
        float e = (cur[k] - v) * pivot[from + k], d = orig[k] - v;
        *loss += from + k < t.nb ? e * e : 0.0f;
        mine[k] = v;
        t.moved[k * (t.rows + TALL) + threadIdx.x] = d;
#pragma unroll
        for (int q = k / 4 * 4; q < STEP; q += 4)
            *(float4 *)(f + q) = *(const float4 *)(t.h + (from + k) * WIDE + from + q);
#pragma unroll
        for (int q = k + 1; q < STEP; q++)
            cur[q] += d * f[q];
    }
}

/* A step's columns of rows ld apart: of global memory, one for each turn of a thread. */
template <typename F>
__device__ static void each_of_step(size_t rows, int from, int nb, F f)
{
    size_t row0 = (size_t)blockIdx.x * (blockDim.x / TX * TALL);

#pragma unroll
    for (int i = 0; i < TALL; i++) {
        int r = (int)threadIdx.x / TX + i * (int)(blockDim.x / TX),
            c = (int)threadIdx.x % TX;
        if (row0 + r < rows && from + c < nb)
            f(i, r, c, row0 + r);
    }
}

template <int WIDE>
__global__ static void __launch_bounds__(THREADS, 2) sweep_group(nn_sweep s)
{
    extern __shared__ float room[];
    tile<WIDE> t(room, (int)s.nb);
    part<WIDE> p;
    float *second = t.rest, *pivot = second + t.rows * STEP_LD, scale = 1, zero = 0,
          loss = 0, next[TALL] = {};
    size_t row0 = (size_t)blockIdx.x * t.rows, own = row0 + threadIdx.x;
    bool rounds = (int)threadIdx.x < t.rows;

    for (int i = threadIdx.x; i < t.high; i += blockDim.x)
        pivot[i] = i < t.nb ? s.pivot[i] : 0.0f;
    t.fetch(s.within, s.ldw);
    if (rounds && own < s.rows && s.scales != NULL) {
        scale = s.scales[own * s.ldg];
        zero = s.zeros[own * s.ldg];
    }
#pragma unroll
    for (int i = 0; i < TALL; i++)
#pragma unroll
        for (int j = 0; j < p.COLS; j++) {
            size_t r = row0 + p.row0 + i;
            int c = p.column(j);
            p.v[i][j] = r < s.rows && c < t.nb ? s.adj[r * s.ld + c] : 0.0f;
        }
    each_of_step(s.rows, 0, t.nb,
                 [&](int i, int, int c, size_t row) { next[i] = s.orig[row * s.ld + c]; });
    for (int from = 0; from < t.nb; from += STEP) {
        p.template move_step<true>(t.step, from);
        each_of_step(s.rows, from, t.nb, [&](int i, int r, int c, size_t) {
            second[r * STEP_LD + c] = next[i];
        });
        __syncthreads();
        if (rounds)
            sweep_step<WIDE>(s, t, from, pivot, scale, zero, &loss);
        each_of_step(s.rows, from + STEP, t.nb, [&](int i, int, int c, size_t row) {
            next[i] = s.orig[row * s.ld + from + STEP + c];
        });
        __syncthreads();
        each_of_step(s.rows, from, t.nb, [&](int, int r, int c, size_t row) {
            s.values[row * s.ldv + natural(s.to, from + c)] = t.step[r * STEP_LD + c];
            if (s.delta != NULL)
                s.delta[row * s.ldd + from + c] = t.moved[c * (t.rows + TALL) + r];
        });
        if (from + STEP >= t.nb)
            break;
        if (WIDE == 128 && from + STEP >= WIDE / 2) /* a thread's first half is done */
            p.template add<p.COLS / 2>(t.moved, t.rows + TALL, t.h, from);
        else
            p.template add<0>(t.moved, t.rows + TALL, t.h, from);
        __syncthreads();
    }
    if (s.loss != NULL && rounds && own < s.rows)
        s.loss[own] += (double)loss;
}

enum { TILES = 2 };

/* Threads of a block and its shared memory: a tile of fewer rows where there are few rows,
 * for all processors to have some, or where the greater does not fit. */
static int shape_tile(unsigned *threads, size_t *bytes, const void *kernel, size_t rows,
                      size_t nb, size_t wide, size_t rest, size_t each)
{
    int err = 1;

    *threads = rows < FEW_ROWS ? THREADS / 2 : THREADS;
    for (int i = 0; i < TILES && err != 0; i++) {
        size_t tall = *threads / TX * TALL;
        *bytes = (tile_floats(nb, wide, tall) + rest + each * tall) * sizeof(float);
        err = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   (int)*bytes);
        if (err != 0 && i + 1 < TILES) {
            (void)cudaGetLastError();
            *threads = THREADS / 2;
        }
    }
    return err;
}

template <int WIDE> static int launch_sweep(cu_stream s, const nn_sweep *g)
{
    unsigned threads = 0;
    size_t bytes = 0;
    int err = shape_tile(&threads, &bytes, (const void *)sweep_group<WIDE>, g->rows, g->nb,
                         WIDE, g->nb + STEP, STEP_LD);

    if (err != 0)
        return err;
    sweep_group<WIDE><<<blocks_of(g->rows, threads / TX * TALL), threads, bytes, s>>>(*g);
    return cudaGetLastError();
}

int cu_sweep_group(cu_stream s, const nn_sweep *g)
{
    if (g->nb <= 32)
        return launch_sweep<32>(s, g);
    return g->nb <= 64 ? launch_sweep<64>(s, g) : launch_sweep<128>(s, g);
}

/* ---- descent ---- */

/* Of the threads that share a row. */
__device__ static float row_sum(float v)
{
    for (int i = TX / 2; i > 0; i /= 2)
        v += __shfl_xor_sync(ALL, v, i);
    return v;
}

/* Does a step along what has that slope and curve lower the loss? */
__device__ static bool lowers(float by, float slope, float curve)
{
    return 2.0f * by * slope + by * by * curve < 0.0f;
}

/* A tile's rest: codes[nb up to a step][rows + TALL], h_sums[nb], scales, zeros. */
template <int WIDE> struct descent {
    const nn_descent &s;
    tile<WIDE> t;
    part<WIDE> p; /* the gradient */
    float *codes, *h_sums, *scales, *zeros;
    int ld;
    size_t row0;

    __device__ descent(const nn_descent &s_, float *room)
        : s(s_), t(room, (int)s_.nb), ld(t.rows + TALL), row0((size_t)blockIdx.x * t.rows)
    {
        codes = t.rest;
        h_sums = codes + t.high * ld;
        scales = h_sums + t.high;
        zeros = scales + t.rows;
    }

    __device__ void open()
    {
        t.fetch(s.h, s.ldh);
        for (int r = threadIdx.x; r < t.rows; r += blockDim.x) {
            bool there = row0 + r < s.rows;
            scales[r] = there ? s.scales[(row0 + r) * s.ldg] : 1.0f;
            zeros[r] = there ? s.zeros[(row0 + r) * s.ldg] : 0.0f;
        }
        __syncthreads();
        for (int c = threadIdx.x; c < t.high; c += blockDim.x) {
            float sum = 0;
#pragma unroll 8
            for (int j = 0; j < t.nb; j++)
                sum += t.h[j * WIDE + c];
            h_sums[c] = sum;
        }
#pragma unroll
        for (int i = 0; i < TALL; i++) {
            int r = p.row0 + i;
            float was[p.COLS], orig[p.COLS];
#pragma unroll
            for (int j = 0; j < p.COLS; j++) { /* all on their way before any is stored */
                int c = p.column(j);
                bool there = row0 + r < s.rows && c < t.nb;
                was[j] = there ? s.values[(row0 + r) * s.ldv + c] : 0.0f;
                orig[j] = there ? s.orig[(row0 + r) * s.ldo + c] : 0.0f;
                p.v[i][j] = there ? s.grad[(row0 + r) * s.ld + c] : 0.0f;
            }
#pragma unroll
            for (int j = 0; j < p.COLS; j++) {
                int c = p.column(j);
                p.v[i][j] += s.damp * (was[j] - orig[j]);
                if (c < t.high)
                    codes[c * ld + r] =
                        nn_grid_code(was[j], scales[r], zeros[r], nn_grid_top(s.rule.bits));
            }
        }
        __syncthreads();
    }

    /* The thread's row of sixteen columns. */
    __device__ void move_step(int from)
    {
        const float top = nn_grid_top(s.rule.bits), scale = scales[threadIdx.x];
        float r[STEP], by[STEP], *mine = t.step + threadIdx.x * STEP_LD;

#pragma unroll
        for (int k = 0; k < STEP; k++) {
            r[k] = mine[k];
            by[k] = 1.0f / ((t.h[(from + k) * WIDE + from + k] + s.damp) * scale);
        }
#pragma unroll
        for (int k = 0; k < STEP; k++) {
            float *code = codes + (from + k) * ld + threadIdx.x, was = *code, f[STEP];
            float c = was - nn_grid_round(r[k] * by[k]);
            c = nn_grid_clamp(c, top);
            float d = from + k < t.nb ? (c - was) * scale : 0.0f;
            t.moved[k * ld + threadIdx.x] = d;
            if (d == 0.0f)
                continue;
            *code = c;
#pragma unroll
            for (int q = 0; q < STEP; q += 4)
                *(float4 *)(f + q) = *(const float4 *)(t.h + (from + k) * WIDE + from + q);
#pragma unroll
            for (int q = 0; q < STEP; q++)
                r[q] += d * f[q];
            r[k] += d * s.damp;
        }
#pragma unroll
        for (int k = 0; k < STEP; k++)
            mine[k] = r[k];
    }

    __device__ void move_codes()
    {
        for (int from = 0; from < t.nb; from += STEP) {
            p.template move_step<true>(t.step, from);
            __syncthreads();
            if ((int)threadIdx.x < t.rows)
                move_step(from);
            __syncthreads();
            p.template add<0>(t.moved, ld, t.h, from);
            p.template move_step<false>(t.step, from);
            __syncthreads();
        }
    }

    /* Of the thread's row i, column j; 0 beyond the group. */
    __device__ float move_of(int i, int j) const
    {
        int c = p.column(j);

        return c < t.nb ? codes[c * ld + p.row0 + i] - zeros[p.row0 + i] : 0.0f;
    }

    __device__ void move_scales()
    {
        part<WIDE> along;

        along.multiply(codes, ld, zeros, t.h, t.nb);
#pragma unroll
        for (int i = 0; i < TALL; i++) {
            float scale = scales[p.row0 + i], slope = 0, curve = 0;
#pragma unroll
            for (int j = 0; j < p.COLS; j++) {
                float move = move_of(i, j);
                along.v[i][j] += s.damp * move;
                slope += p.v[i][j] * move;
                curve += along.v[i][j] * move;
            }
            slope = row_sum(slope);
            curve = row_sum(curve);
            float to = curve > 0.0f ? scale - slope / curve : 0.0f;
            to = s.rule.fp16_scales && to > 0.0f ? nn_grid_half(to) : to;
            float by = to > 0.0f && to < INFINITY ? to - scale : 0.0f;
            by = lowers(by, slope, curve) ? by : 0.0f;
            __syncwarp(); /* all of a row have read */
            if (p.tx == 0)
                scales[p.row0 + i] = scale + by;
#pragma unroll
            for (int j = 0; j < p.COLS; j++)
                p.v[i][j] += by * along.v[i][j];
        }
        __syncthreads();
    }

    __device__ void move_zeros()
    {
#pragma unroll
        for (int i = 0; i < TALL; i++) {
            float scale = scales[p.row0 + i], zero = zeros[p.row0 + i], slope = 0,
                  curve = 0;
#pragma unroll
            for (int j = 0; j < p.COLS; j++) {
                int c = p.column(j);
                slope += c < t.nb ? p.v[i][j] : 0.0f;
                curve += c < t.nb ? h_sums[c] + s.damp : 0.0f;
            }
            slope = row_sum(slope);
            curve = row_sum(curve);
            float z = zero + (curve > 0.0f ? nn_grid_round(slope / (curve * scale)) : 0.0f);
            z = nn_grid_clamp(z, nn_grid_top(s.rule.bits));
            __syncwarp();
            if (p.tx == 0 && lowers((zero - z) * scale, slope, curve))
                zeros[p.row0 + i] = z; /* nothing behind it looks at the gradient */
        }
        __syncthreads();
    }

    __device__ void close()
    {
#pragma unroll
        for (int i = 0; i < TALL; i++) {
            size_t r = p.row0 + i, row = row0 + r;
            float was[p.COLS];
            if (row >= s.rows)
                break;
#pragma unroll
            for (int j = 0; j < p.COLS; j++)
                was[j] = p.column(j) < t.nb ? s.values[row * s.ldv + p.column(j)] : 0.0f;
#pragma unroll
            for (int j = 0; j < p.COLS; j++) {
                int c = p.column(j);
                float v = c < t.nb ? (codes[c * ld + r] - zeros[r]) * scales[r] : 0.0f;
                if (c < t.nb) {
                    s.delta[row * s.ldd + c] = v - was[j];
                    s.values[row * s.ldv + c] = v;
                }
            }
        }
        for (int r = threadIdx.x; r < t.rows && row0 + r < s.rows; r += blockDim.x) {
            s.scales[(row0 + r) * s.ldg] = scales[r];
            s.zeros[(row0 + r) * s.ldg] = zeros[r];
        }
    }
};

template <int WIDE>
__global__ static void __launch_bounds__(THREADS, 2) descend_group(nn_descent s)
{
    extern __shared__ float room[];
    descent<WIDE> d(s, room);

    d.open();
    d.move_codes();
    d.move_scales();
    if (!s.rule.symmetric)
        d.move_zeros();
    d.close();
}

template <int WIDE> static int launch_descent(cu_stream s, const nn_descent *g)
{
    size_t bytes = 0, high = (g->nb + STEP - 1) / STEP * STEP;
    unsigned threads = 0;
    int err = shape_tile(&threads, &bytes, (const void *)descend_group<WIDE>, g->rows,
                         g->nb, WIDE, high * (TALL + 1), high + 2);

    if (err != 0)
        return err;
    descend_group<WIDE><<<blocks_of(g->rows, threads / TX * TALL), threads, bytes, s>>>(*g);
    return cudaGetLastError();
}

int cu_descend_group(cu_stream s, const nn_descent *g)
{
    if (g->nb <= 32)
        return launch_descent<32>(s, g);
    return g->nb <= 64 ? launch_descent<64>(s, g) : launch_descent<128>(s, g);
}
