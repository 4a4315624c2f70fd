/*
 * search.cu - quantizers' kernels on weights by groups: searches over scales and ranges,
 * grids, codes, Gram blocks, sums.
 *
 * Both searches cost candidates x gram^2 multiply-adds a row of a group: e^T G e with a
 * block of the Gram matrix in shared memory.  A warp has eight rows; each lane holds their
 * weights in its columns, and the product of their errors with its columns of G, for which
 * the errors go through shared memory.  Rounding is nn_grid.h's, unfused (this file is
 * compiled with -fmad=false), products are fused.
 *
 * Sums have one order: a thread's own, a warp's butterfly, then parts one after another.
 */
#include <cuda_runtime.h>

#include "nn/cuda/cuda_kernels.h"

enum { THREADS = 256, WARP = 32, WARPS = THREADS / WARP, ROWS = 8 };
#define ALL 0xffffffffu

static unsigned blocks_of(size_t count, size_t each)
{
    return (unsigned)((count + each - 1) / each);
}

template <typename T> __device__ static T warp_sum(T v)
{
    for (int i = WARP / 2; i > 0; i /= 2)
        v += __shfl_xor_sync(ALL, v, i);
    return v;
}

__device__ static float warp_min(float v)
{
    for (int i = WARP / 2; i > 0; i /= 2)
        v = fminf(v, __shfl_xor_sync(ALL, v, i));
    return v;
}

__device__ static float warp_max(float v)
{
    for (int i = WARP / 2; i > 0; i /= 2)
        v = fmaxf(v, __shfl_xor_sync(ALL, v, i));
    return v;
}

/* ---- the two searches ---- */

struct search_args {
    const float *w;
    nn_groups g;
    nn_rule rule;
    nn_shrink shrink;
    const float *col_scales; /* [count][K] of ranking */
    int count;
    uint32_t wanted;
    const float *grams;
    double *parts;                  /* of ranking: [blocks][count] */
    float *scales, *zeros, *limits; /* of shrinking */
};

/* What a warp keeps of a candidate and a row. */
struct candidate {
    float scale[ROWS], zero[ROWS], loss[ROWS];
};

template <int PER> __device__ static int slot_of(int lane, int p, int half)
{
    return ((p * WARP + lane) * 2 + (half ^ (lane >> 2 & 1))) * 4;
}

template <int PER, bool RANK> struct searcher {
    const search_args &a;
    float *errs; /* shared: the warp's errors, [columns][ROWS] in slots */
    candidate *seen;
    int lane, m;
    size_t row0, col0; /* of the warp; of the sub-block */
    float w[ROWS][PER];

    __device__ void load()
    {
        for (int r = 0; r < ROWS; r++)
#pragma unroll
            for (int p = 0; p < PER; p++) {
                int c = lane * PER + p;
                bool there = c < m && row0 + r < a.g.n;
                w[r][p] = there ? a.w[(row0 + r) * a.g.ldw + col0 + c] : 0.0f;
            }
    }

    __device__ float column_scale(int i, int p) const
    {
        int c = lane * PER + p;

        return RANK && c < m ? a.col_scales[i * a.g.k + col0 + c] : 1.0f;
    }

    /* scale and zero become the least and greatest so far. */
    __device__ void widen(int i, bool first)
    {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float lo = INFINITY, hi = -INFINITY;
#pragma unroll
            for (int p = 0; p < PER; p++) {
                float v = RANK ? w[r][p] * column_scale(i, p) : w[r][p];
                if (lane * PER + p < m) {
                    lo = fminf(lo, v);
                    hi = fmaxf(hi, v);
                }
            }
            lo = warp_min(lo);
            hi = warp_max(hi);
            if (lane == 0) {
                seen[i].scale[r] = first ? lo : fminf(lo, seen[i].scale[r]);
                seen[i].zero[r] = first ? hi : fmaxf(hi, seen[i].zero[r]);
                seen[i].loss[r] = 0;
            }
        }
    }

    /* Grids from ranges; shrinking has one range, in candidate 0, which goes last. */
    __device__ void fit()
    {
        __syncwarp();
        for (int at = (a.count - 1) / (WARP / ROWS); at >= 0; at--) {
            int i = at * (WARP / ROWS) + lane / ROWS, r = lane % ROWS;
            float lo = 0, hi = 0;
            if (i < a.count) {
                lo = seen[RANK ? i : 0].scale[r];
                hi = seen[RANK ? i : 0].zero[r];
            }
            __syncwarp();
            if (i < a.count) {
                if (!RANK)
                    (void)nn_grid_shrunken(&lo, &hi, &a.shrink, i, lo, hi);
                nn_grid_fit(&seen[i].scale[r], &seen[i].zero[r], &a.rule, lo, hi);
                seen[i].loss[r] = 0;
            }
            __syncwarp();
        }
    }

    __device__ float error(int i, int r, int p, float limit, float top) const
    {
        float scale = seen[i].scale[r], zero = seen[i].zero[r];
        float s = column_scale(i, p), v = RANK ? w[r][p] * s : w[r][p], was = v;

        if (!RANK && a.shrink.kind == NN_SHRINK_CLIP) {
            v = v > -limit ? v : -limit;
            v = v < limit ? v : limit;
        }
        float e = (nn_grid_code(v, scale, zero, top) - zero) * scale - was;
        return RANK ? e / s : e;
    }

    /* loss += e^T G e of candidate i. */
    __device__ void judge(const float *gram, int i, const float *most)
    {
        constexpr int WIDE = WARP * PER;
        const float top = nn_grid_top(a.rule.bits);
        const float keep = RANK ? 1.0f : (float)(1.0 - (double)i / a.shrink.steps);
        float acc[ROWS][PER];

#pragma unroll
        for (int p = 0; p < PER; p++) {
            float e[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                e[r] = error(i, r, p, RANK ? 0.0f : most[r] * keep, top);
                e[r] = lane * PER + p < m ? e[r] : 0.0f;
                acc[r][p] = 0;
            }
            *(float4 *)(errs + slot_of<PER>(lane, p, 0)) =
                make_float4(e[0], e[1], e[2], e[3]);
            *(float4 *)(errs + slot_of<PER>(lane, p, 1)) =
                make_float4(e[4], e[5], e[6], e[7]);
        }
        __syncwarp();
        for (int l = 0; l * PER < m; l++) {
#pragma unroll
            for (int p = 0; p < PER; p++) {
                float4 x = *(const float4 *)(errs + slot_of<PER>(l, p, 0));
                float4 y = *(const float4 *)(errs + slot_of<PER>(l, p, 1));
                const float e[ROWS] = {x.x, x.y, x.z, x.w, y.x, y.y, y.z, y.w};
                const float *g = gram + (l * PER + p) * WIDE + lane * PER;
                float own[PER];
                if (PER == 4)
                    *(float4 *)own = *(const float4 *)g;
                else
                    for (int q = 0; q < PER; q++)
                        own[q] = g[q];
#pragma unroll
                for (int r = 0; r < ROWS; r++)
#pragma unroll
                    for (int q = 0; q < PER; q++)
                        acc[r][q] = fmaf(e[r], own[q], acc[r][q]);
            }
        }
        float loss[ROWS] = {};
#pragma unroll
        for (int p = 0; p < PER; p++) {
            float4 x = *(const float4 *)(errs + slot_of<PER>(lane, p, 0));
            float4 y = *(const float4 *)(errs + slot_of<PER>(lane, p, 1));
            const float e[ROWS] = {x.x, x.y, x.z, x.w, y.x, y.y, y.z, y.w};
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                loss[r] = fmaf(e[r], acc[r][p], loss[r]);
        }
        __syncwarp();
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float sum = warp_sum(loss[r]);
            if (lane == 0)
                seen[i].loss[r] += sum;
        }
        __syncwarp();
    }
};

template <int PER, bool RANK>
__global__ static void __launch_bounds__(THREADS, 2) search(search_args a)
{
    constexpr int WIDE = WARP * PER;
    extern __shared__ float room[];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, m = (int)a.g.gram;
    float *gram = room, *errs = gram + WIDE * WIDE + warp * WIDE * ROWS;
    candidate *all = (candidate *)(gram + WIDE * WIDE + WARPS * WIDE * ROWS);
    searcher<PER, RANK> s = {a, errs, all + warp * a.count, lane, m};
    size_t group0 = blockIdx.x * a.g.block, subs = a.g.block / a.g.gram;
    float most[ROWS];

    s.row0 = (size_t)blockIdx.y * WARPS * ROWS + (size_t)warp * ROWS;
    for (size_t b = 0; b < subs; b++) {
        s.col0 = group0 + b * m;
        s.load();
        for (int i = 0; i < (RANK ? a.count : 1); i++) {
            if (!RANK || (a.wanted >> i & 1))
                s.widen(i, b == 0);
        }
    }
    __syncwarp();
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        most[r] = RANK ? 0.0f : fmaxf(-s.seen[0].scale[r], s.seen[0].zero[r]);
    s.fit();
    for (size_t b = 0; b < subs; b++) {
        s.col0 = group0 + b * m;
        if (subs > 1)
            s.load();
        __syncthreads();
        for (int i = threadIdx.x; i < WIDE * WIDE; i += THREADS) {
            int r = i / WIDE, c = i % WIDE;
            gram[i] = r < m && c < m ? a.grams[(s.col0 + r) * m + c] : 0.0f;
        }
        __syncthreads();
        for (int i = 0; i < a.count; i++) {
            if (!RANK || (a.wanted >> i & 1))
                s.judge(gram, i, most);
        }
    }
    if (RANK) {
        __syncthreads();
        for (int i = threadIdx.x; i < a.count; i += THREADS) {
            double sum = 0;
            for (int k = 0; k < WARPS; k++)
                for (int r = 0; r < ROWS; r++)
                    if ((size_t)blockIdx.y * WARPS * ROWS + k * ROWS + r < a.g.n)
                        sum += (double)all[k * a.count + i].loss[r];
            a.parts[((size_t)blockIdx.y * gridDim.x + blockIdx.x) * a.count + i] = sum;
        }
    } else if (lane < ROWS && s.row0 + lane < a.g.n) {
        size_t to = (s.row0 + lane) * a.g.ldg + blockIdx.x;
        int best = 0;
        for (int i = 1; i < a.count; i++)
            best = s.seen[i].loss[lane] < s.seen[best].loss[lane] ? i : best;
        a.scales[to] = s.seen[best].scale[lane];
        a.zeros[to] = s.seen[best].zero[lane];
        float limit = 0;
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            limit = r == lane ? most[r] : limit;
        if (a.limits != NULL)
            a.limits[to] = limit * (float)(1.0 - (double)best / a.shrink.steps);
    }
}

template <int PER, bool RANK> static int launch_search(cu_stream s, const search_args *a)
{
    constexpr int WIDE = WARP * PER;
    size_t bytes = (WIDE * WIDE + WARPS * WIDE * ROWS) * sizeof(float) +
                   (size_t)WARPS * a->count * sizeof(candidate);
    int err = cudaFuncSetAttribute(search<PER, RANK>,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);

    if (err != 0)
        return err;
    dim3 grid((unsigned)(a->g.k / a->g.block), blocks_of(a->g.n, WARPS * ROWS));
    search<PER, RANK><<<grid, THREADS, bytes, s>>>(*a);
    return cudaGetLastError();
}

template <bool RANK> static int any_search(cu_stream s, const search_args *a)
{
    if (a->g.gram <= WARP)
        return launch_search<1, RANK>(s, a);
    return a->g.gram <= 2 * WARP ? launch_search<2, RANK>(s, a)
                                 : launch_search<4, RANK>(s, a);
}

/* Of all threads, in the first one. */
__device__ static double block_sum(double sum)
{
    __shared__ double room[WARPS];

    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0)
        room[threadIdx.x / WARP] = sum;
    __syncthreads();
    for (int i = 1; threadIdx.x == 0 && i < WARPS; i++)
        sum += room[i];
    return sum;
}

__global__ static void add_parts(double *loss, const double *parts, size_t count,
                                 size_t parts_count, uint32_t wanted)
{
    double sum = 0;

    if (!(wanted >> blockIdx.x & 1))
        return;
    for (size_t i = threadIdx.x; i < parts_count; i += THREADS)
        sum += parts[i * count + blockIdx.x];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        loss[blockIdx.x] = sum;
}

size_t cu_rank_parts(const nn_groups *g)
{
    return g->k / g->block * blocks_of(g->n, WARPS * ROWS);
}

int cu_rank_scales(cu_stream s, double *loss, double *parts, const float *w,
                   const nn_groups *g, const nn_rule *rule, const float *scales,
                   size_t count, uint32_t wanted, const float *grams)
{
    search_args a = {w, *g, *rule};

    a.col_scales = scales;
    a.count = (int)count;
    a.wanted = wanted;
    a.grams = grams;
    a.parts = parts;
    int err = any_search<true>(s, &a);
    if (err == 0)
        add_parts<<<(unsigned)count, THREADS, 0, s>>>(loss, parts, count, cu_rank_parts(g),
                                                      wanted);
    return err != 0 ? err : cudaGetLastError();
}

/* ---- a warp for each group of a row ---- */

struct group_args {
    const float *w;
    nn_groups g;
    nn_rule rule;
    float *out, *scales, *zeros, *limits; /* what is asked for */
};

enum { TOPS, GRIDS };

template <int WHAT> __global__ static void each_group(group_args a)
{
    size_t at = (size_t)blockIdx.x * WARPS + threadIdx.x / WARP, groups = a.g.k / a.g.block;
    size_t row = at / groups, col = at % groups * a.g.block, lane = threadIdx.x % WARP;
    const float *w = a.w + row * a.g.ldw + col;
    float lo = INFINITY, hi = -INFINITY, scale, zero;

    if (row >= a.g.n)
        return;
    for (size_t c = lane; c < a.g.block; c += WARP) {
        lo = fminf(lo, w[c]);
        hi = fmaxf(hi, w[c]);
    }
    lo = warp_min(lo);
    hi = warp_max(hi);
    if (WHAT == TOPS) {
        if (lane == 0)
            a.out[at] = fmaxf(-lo, hi);
        return;
    }
    nn_grid_fit(&scale, &zero, &a.rule, lo, hi);
    if (lane == 0) {
        size_t to = row * a.g.ldg + at % groups;
        a.scales[to] = scale;
        a.zeros[to] = zero;
        if (a.limits != NULL)
            a.limits[to] = -lo > hi ? -lo : hi;
    }
}

template <int WHAT> static int launch_groups(cu_stream s, const group_args *a)
{
    each_group<WHAT>
        <<<blocks_of(a->g.n * (a->g.k / a->g.block), WARPS), THREADS, 0, s>>>(*a);
    return cudaGetLastError();
}

int cu_choose_grids(cu_stream s, float *scales, float *zeros, float *limits, const float *w,
                    const nn_groups *g, const nn_rule *rule, const nn_shrink *shrink,
                    const float *grams)
{
    if (shrink == NULL) {
        const group_args a = {w, *g, *rule, NULL, scales, zeros, limits};
        return launch_groups<GRIDS>(s, &a);
    }
    if (g->block == CU_SHRINK_GRAM && g->gram == CU_SHRINK_GRAM) {
        const cu_shrink there = {w, grams, *g, *rule, *shrink, scales, zeros, limits};
        return cu_shrink_ranges(s, &there);
    }
    search_args a = {w, *g, *rule, *shrink};
    a.count = shrink->count;
    a.grams = grams;
    a.scales = scales;
    a.zeros = zeros;
    a.limits = limits;
    return any_search<false>(s, &a);
}

/* ---- sums over rows ---- */

enum { MAGNITUDE = 1, RELATIVE = 2 };

/* parts[part][k]: a thread for each column. */
template <int HOW>
__global__ static void column_parts(double *parts, const float *x, size_t m, size_t k,
                                    size_t ld, const float *tops, size_t block)
{
    size_t c = (size_t)blockIdx.x * THREADS + threadIdx.x;
    size_t each = (m + gridDim.y - 1) / gridDim.y, from = blockIdx.y * each;
    size_t to = from + each < m ? from + each : m;
    double sum = 0;

    if (c >= k)
        return;
    for (size_t r = from; r < to; r++) {
        float v = x[r * ld + c];
        if (HOW != 0)
            v = fabsf(v);
        if (HOW == RELATIVE)
            v = v / (tops[r * (k / block) + c / block] + 1e-6f);
        sum += (double)v;
    }
    parts[blockIdx.y * k + c] = sum;
}

template <typename T>
__global__ static void column_total(T *out, const double *parts, size_t count, size_t k,
                                    double divisor, bool add)
{
    size_t c = (size_t)blockIdx.x * THREADS + threadIdx.x;
    double sum = 0;

    if (c >= k)
        return;
    for (size_t i = 0; i < count; i++)
        sum += parts[i * k + c];
    out[c] = (T)((add ? (double)out[c] : 0.0) + sum / divisor);
}

int cu_column_sums(cu_stream s, double *sum, double *parts, const float *x, size_t m,
                   size_t k, bool magnitudes, bool first)
{
    dim3 grid(blocks_of(k, THREADS), CU_COLUMN_PARTS);

    if (magnitudes)
        column_parts<MAGNITUDE><<<grid, THREADS, 0, s>>>(parts, x, m, k, k, NULL, 1);
    else
        column_parts<0><<<grid, THREADS, 0, s>>>(parts, x, m, k, k, NULL, 1);
    column_total<<<grid.x, THREADS, 0, s>>>(sum, parts, CU_COLUMN_PARTS, k, 1.0, !first);
    return cudaGetLastError();
}

int cu_weight_means(cu_stream s, float *means, float *tops, double *parts, const float *w,
                    const nn_groups *g)
{
    dim3 grid(blocks_of(g->k, THREADS), CU_COLUMN_PARTS);
    const group_args a = {w, *g, {}, tops};
    int err = launch_groups<TOPS>(s, &a);

    if (err != 0)
        return err;
    column_parts<RELATIVE>
        <<<grid, THREADS, 0, s>>>(parts, w, g->n, g->k, g->ldw, tops, g->block);
    column_total<<<grid.x, THREADS, 0, s>>>(means, parts, CU_COLUMN_PARTS, g->k,
                                            (double)g->n, false);
    return cudaGetLastError();
}

/* Parts of a sum over elements, then of rows: a block for each. */
enum { SQUARED, PRODUCT };

template <int HOW>
__global__ static void element_parts(double *parts, const float *a, const float *b,
                                     size_t count, size_t each)
{
    size_t from = blockIdx.x * each, to = from + each < count ? from + each : count;
    double sum = 0;

    a += blockIdx.y * count;
    b += blockIdx.y * count;
    for (size_t i = from + threadIdx.x; i < to; i += THREADS) {
        double x = (double)a[i], y = (double)b[i];
        sum += HOW == SQUARED ? (x - y) * (x - y) : x * y;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        parts[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

int cu_difference(cu_stream s, double *sums, double *room, const float *a, const float *b,
                  size_t parts, size_t count)
{
    size_t each = (count + CU_SQUARES - 1) / CU_SQUARES;

    element_parts<SQUARED>
        <<<dim3(CU_SQUARES, (unsigned)parts), THREADS, 0, s>>>(room, a, b, count, each);
    return cu_totals(s, sums, room, parts);
}

int cu_row_dots(cu_stream s, double *out, const float *a, const float *b, size_t rows,
                size_t cols)
{
    element_parts<PRODUCT><<<(unsigned)rows, THREADS, 0, s>>>(out, a, b, rows * cols, cols);
    return cudaGetLastError();
}

/* ---- Gram blocks ---- */

enum { SIDE = 128, DEPTH = 16, GRAM_TOKENS = 64 }; /* the last: of a part, at least */

/* 128 x 128 of X^T X over a part of the tokens; only its diagonal blocks are kept. */
__global__ static void __launch_bounds__(THREADS)
    gram_parts(float *parts, const float *x, size_t m, size_t n, size_t ldx, size_t block)
{
    __shared__ float tile[DEPTH][SIDE];
    size_t wide = SIDE / block * block, col0 = blockIdx.x * wide;
    size_t each = (m + gridDim.y - 1) / gridDim.y, from = blockIdx.y * each;
    size_t to = from + each < m ? from + each : m;
    int ty = threadIdx.x / 16 * 4, tx = threadIdx.x % 16 * 4;
    float acc[8][8] = {};

    for (size_t r0 = from; r0 < to; r0 += DEPTH) {
        __syncthreads();
        for (int i = threadIdx.x; i < DEPTH * SIDE; i += THREADS) {
            size_t r = r0 + i / SIDE, c = i % SIDE;
            bool there = r < to && c < wide && col0 + c < n;
            tile[i / SIDE][c] = there ? x[r * ldx + col0 + c] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            float a[8], b[8];
            *(float4 *)a = *(const float4 *)&tile[k][ty];
            *(float4 *)(a + 4) = *(const float4 *)&tile[k][64 + ty];
            *(float4 *)b = *(const float4 *)&tile[k][tx];
            *(float4 *)(b + 4) = *(const float4 *)&tile[k][64 + tx];
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 8; j++)
                    acc[i][j] = fmaf(a[i], b[j], acc[i][j]);
        }
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) {
            size_t r = ty + i % 4 + i / 4 * 64, c = tx + j % 4 + j / 4 * 64;
            if (r < wide && c < wide && r / block == c / block && col0 + r < n)
                parts[(blockIdx.y * n + col0 + r) * block + c % block] = acc[i][j];
        }
}

__global__ static void gram_total(float *grams, const float *parts, size_t count,
                                  size_t floats, bool first)
{
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    float sum;

    if (i >= floats)
        return;
    sum = first ? 0.0f : grams[i];
    for (size_t k = 0; k < count; k++)
        sum += parts[k * floats + i];
    grams[i] = sum;
}

int cu_gram_blocks(cu_stream s, float *grams, float *parts, const float *x, size_t m,
                   size_t n, size_t ldx, size_t block, bool first)
{
    size_t parts_count = (m + GRAM_TOKENS - 1) / GRAM_TOKENS;
    dim3 grid(blocks_of(n, SIDE / block * block),
              (unsigned)(parts_count < CU_GRAM_PARTS ? parts_count : CU_GRAM_PARTS));

    gram_parts<<<grid, THREADS, 0, s>>>(parts, x, m, n, ldx, block);
    gram_total<<<blocks_of(n * block, THREADS), THREADS, 0, s>>>(grams, parts, grid.y,
                                                                 n * block, first);
    return cudaGetLastError();
}

/* ---- elements ---- */

__global__ static void clamp_groups(float *w, nn_groups g, const float *limits)
{
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x, r = i / g.k, c = i % g.k;

    if (r >= g.n)
        return;
    float limit = limits[r * g.ldg + c / g.block], v = w[r * g.ldw + c];
    v = v > -limit ? v : -limit;
    w[r * g.ldw + c] = v < limit ? v : limit;
}

int cu_clamp_groups(cu_stream s, float *w, const nn_groups *g, const float *limits)
{
    clamp_groups<<<blocks_of(g->n * g->k, THREADS), THREADS, 0, s>>>(w, *g, limits);
    return cudaGetLastError();
}

__global__ static void pack_codes(uint8_t *codes, const float *w, nn_groups g,
                                  const float *scales, const float *zeros, int bits,
                                  int stored)
{
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x, per = 8 / stored;
    size_t row_bytes = g.k / per, r = i / row_bytes, c0 = i % row_bytes * per;
    unsigned byte = 0;

    if (r >= g.n)
        return;
    for (size_t c = c0; c < c0 + per; c++) {
        size_t b = r * g.ldg + c / g.block;
        float code = nn_grid_code(w[r * g.ldw + c], scales[b], zeros[b], nn_grid_top(bits));
        byte |= (unsigned)(int)code << ((c - c0) * stored);
    }
    codes[i] = (uint8_t)byte;
}

int cu_pack_codes(cu_stream s, uint8_t *codes, const float *w, const nn_groups *g,
                  const float *scales, const float *zeros, int bits, int stored)
{
    pack_codes<<<blocks_of(g->n * g->k * stored / 8, THREADS), THREADS, 0, s>>>(
        codes, w, *g, scales, zeros, bits, stored);
    return cudaGetLastError();
}

__global__ static void scale_matrix(float *out, const float *a, size_t count, size_t cols,
                                    const float *col, const float *row, bool divide)
{
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;

    if (i >= count)
        return;
    float c = col != NULL ? col[i % cols] : 1.0f, r = row != NULL ? row[i / cols] : 1.0f;
    out[i] = divide ? a[i] / (c * r) : a[i] * c / r;
}

int cu_scale_matrix(cu_stream s, float *out, const float *a, size_t rows, size_t cols,
                    const float *col, const float *row, bool divide)
{
    scale_matrix<<<blocks_of(rows * cols, THREADS), THREADS, 0, s>>>(
        out, a, rows * cols, cols, col, row, divide);
    return cudaGetLastError();
}

__global__ static void copy_matrix(float *dst, size_t ldd, const float *src, size_t lds,
                                   size_t rows, size_t cols, float factor)
{
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;

    if (i < rows * cols)
        dst[i / cols * ldd + i % cols] = factor * src[i / cols * lds + i % cols];
}

int cu_copy_matrix(cu_stream s, float *dst, size_t ldd, const float *src, size_t lds,
                   size_t rows, size_t cols, float factor)
{
    copy_matrix<<<blocks_of(rows * cols, THREADS), THREADS, 0, s>>>(dst, ldd, src, lds,
                                                                    rows, cols, factor);
    return cudaGetLastError();
}

__global__ static void subtract(float *out, const float *a, const float *b, size_t count,
                                float factor)
{
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;

    if (i < count)
        out[i] = factor * (a[i] - b[i]);
}

int cu_subtract(cu_stream s, float *out, const float *a, const float *b, size_t count,
                float factor)
{
    subtract<<<blocks_of(count, THREADS), THREADS, 0, s>>>(out, a, b, count, factor);
    return cudaGetLastError();
}

/* A square of 32 x 32, turned in shared memory. */
__global__ static void turn_columns(float *out, const float *a, const float *b,
                                    const float *scale, size_t m, size_t n)
{
    __shared__ float square[WARP][WARP + 1];
    size_t lane = threadIdx.x % WARP, c = (size_t)blockIdx.x * WARP + lane;

    for (size_t i = threadIdx.x / WARP; i < WARP; i += WARPS) {
        size_t r = (size_t)blockIdx.y * WARP + i;
        if (r < m && c < n) {
            float v = scale != NULL ? a[r * n + c] / scale[c] : a[r * n + c];
            square[lane][i] = b != NULL ? v - b[r * n + c] : v;
        }
    }
    __syncthreads();
    for (size_t i = threadIdx.x / WARP; i < WARP; i += WARPS) {
        size_t to = (size_t)blockIdx.x * WARP + i, r = (size_t)blockIdx.y * WARP + lane;
        if (to < n && r < m)
            out[to * m + r] = square[i][lane];
    }
}

int cu_turn_columns(cu_stream s, float *out, const float *a, const float *b,
                    const float *scale, size_t m, size_t n)
{
    dim3 grid(blocks_of(n, WARP), blocks_of(m, WARP));

    turn_columns<<<grid, THREADS, 0, s>>>(out, a, b, scale, m, n);
    return cudaGetLastError();
}

__global__ static void choose_rows(float *dst, const float *src, size_t cols,
                                   const uint32_t *pick, uint32_t which)
{
    size_t at = (size_t)blockIdx.x * cols;

    for (size_t i = threadIdx.x; pick[blockIdx.x] == which && i < cols; i += THREADS)
        dst[at + i] = src[at + i];
}

int cu_choose_rows(cu_stream s, float *dst, const float *src, size_t rows, size_t cols,
                   const uint32_t *pick, uint32_t which)
{
    choose_rows<<<(unsigned)rows, THREADS, 0, s>>>(dst, src, cols, pick, which);
    return cudaGetLastError();
}
