/*
 * halves.cu - the kernels of rows.cu and the rotation for values of which some are bf16:
 * what a training's activations and their gradients are.
 *
 * Eight values at a time, 16 bytes of bf16: rows are a multiple of eight and lie at
 * multiples of 16 bytes (cuda_ops.c sees to it; what does not is widened to floats).
 * Sums are floats, and trees of fixed shape.
 */
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "nn/cuda/cuda_kernels.h"
#include "nn/cuda/packed_parts.cuh"
#include "nn/cuda/rows_parts.cuh"

typedef __nv_bfloat16 half16;

enum { EACH = 8 };

__device__ static void get(float v[EACH], const float *p)
{
    const float4 a = ((const float4 *)p)[0], b = ((const float4 *)p)[1];

    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

__device__ static void get(float v[EACH], const half16 *p)
{
    const uint4 u = *(const uint4 *)p;
    const uint32_t words[] = {u.x, u.y, u.z, u.w};

#pragma unroll
    for (int i = 0; i < EACH / 2; i++) {
        v[2 * i] = __uint_as_float(words[i] << 16);
        v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}

__device__ static void put(float *p, const float v[EACH])
{
    ((float4 *)p)[0] = make_float4(v[0], v[1], v[2], v[3]);
    ((float4 *)p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}

__device__ static void put(half16 *p, const float v[EACH])
{
    uint32_t words[EACH / 2];

#pragma unroll
    for (int i = 0; i < EACH / 2; i++) {
        const __nv_bfloat162 two = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
        words[i] = *(const uint32_t *)&two;
    }
    *(uint4 *)p = make_uint4(words[0], words[1], words[2], words[3]);
}

/* Calls launch(y, x) with pointers of the kinds that two operands are of. */
#define BY_KIND(y, x, launch)                                                              \
    do {                                                                                   \
        if ((y).bf16 && (x).bf16)                                                          \
            launch((half16 *)(y).p, (const half16 *)(x).p);                                \
        else if ((y).bf16)                                                                 \
            launch((half16 *)(y).p, (const float *)(x).p);                                 \
        else if ((x).bf16)                                                                 \
            launch((float *)(y).p, (const half16 *)(x).p);                                 \
        else                                                                               \
            launch((float *)(y).p, (const float *)(x).p);                                  \
    } while (0)

/* ---- norms ---- */

template <typename X>
__device__ static float inverse_norm(const X *x, size_t d, float eps, float *room)
{
    float sum = 0, v[EACH];

    for (size_t i = threadIdx.x * EACH; i < d; i += blockDim.x * EACH) {
        get(v, x + i);
        for (int k = 0; k < EACH; k++)
            sum += v[k] * v[k];
    }
    return 1.0f / sqrtf(block_sum(sum, room) / (float)d + eps);
}

template <typename Y, typename X>
__global__ static void rmsnorm(Y *y, const X *x, const float *w, size_t d, float eps)
{
    __shared__ float room[WARP];
    const X *row = x + blockIdx.x * d;
    float inv = inverse_norm(row, d, eps, room), v[EACH], u[EACH];

    for (size_t i = threadIdx.x * EACH; i < d; i += blockDim.x * EACH) {
        get(v, row + i);
        get(u, w + i);
        for (int k = 0; k < EACH; k++)
            v[k] = v[k] * inv * u[k];
        put(y + blockIdx.x * d + i, v);
    }
}

int cu_rmsnorm_halves(cu_stream s, cu_values y, cu_values x, const float *w, size_t m,
                      size_t d, float eps)
{
#define LAUNCH(to, from) rmsnorm<<<(unsigned)m, THREADS, 0, s>>>(to, from, w, d, eps)
    BY_KIND(y, x, LAUNCH);
#undef LAUNCH
    return cudaGetLastError();
}

__global__ static void rmsnorm_keep(half16 *y, half16 *kept, const float *x, const float *w,
                                    size_t d, float eps)
{
    __shared__ float room[WARP];
    const float *row = x + blockIdx.x * d;
    float inv = inverse_norm(row, d, eps, room), v[EACH], u[EACH];

    for (size_t i = threadIdx.x * EACH; i < d; i += blockDim.x * EACH) {
        get(v, row + i);
        get(u, w + i);
        put(kept + blockIdx.x * d + i, v);
        for (int k = 0; k < EACH; k++)
            v[k] = v[k] * inv * u[k];
        put(y + blockIdx.x * d + i, v);
    }
}

int cu_rmsnorm_keep(cu_stream s, void *y, void *kept, const float *x, const float *w,
                    size_t m, size_t d, float eps)
{
    rmsnorm_keep<<<(unsigned)m, THREADS, 0, s>>>((half16 *)y, (half16 *)kept, x, w, d, eps);
    return cudaGetLastError();
}

template <typename DX, typename X>
__global__ static void rmsnorm_back(DX *dx, half16 *kept, const half16 *dy, const X *x,
                                    const float *w, size_t d, float eps)
{
    __shared__ float room[WARP];
    const X *xr = x + blockIdx.x * d;
    const half16 *gr = dy + blockIdx.x * d;
    DX *to = dx + blockIdx.x * d;
    float v[EACH], g[EACH], u[EACH], t[EACH], squares = 0, sum = 0;

    for (size_t i = threadIdx.x * EACH; i < d; i += blockDim.x * EACH) {
        get(v, xr + i);
        get(g, gr + i);
        get(u, w + i);
        for (int k = 0; k < EACH; k++) {
            squares += v[k] * v[k];
            sum += g[k] * u[k] * v[k];
        }
    }
    float inv = 1.0f / sqrtf(block_sum(squares, room) / (float)d + eps);
    float own = block_sum(sum, room) * inv * inv * inv / (float)d;
    for (size_t i = threadIdx.x * EACH; i < d; i += blockDim.x * EACH) {
        get(v, xr + i);
        get(g, gr + i);
        get(u, w + i);
        get(t, to + i);
        for (int k = 0; k < EACH; k++)
            t[k] += g[k] * u[k] * inv - v[k] * own;
        put(to + i, t);
        if (kept != NULL)
            put(kept + blockIdx.x * d + i, t);
    }
}

int cu_rmsnorm_back_halves(cu_stream s, cu_values dx, void *kept, const void *dy,
                           cu_values x, const float *w, size_t m, size_t d, float eps)
{
#define LAUNCH(to, from)                                                                   \
    rmsnorm_back<<<(unsigned)m, THREADS, 0, s>>>(to, (half16 *)kept, (const half16 *)dy,   \
                                                 from, w, d, eps)
    BY_KIND(dx, x, LAUNCH);
#undef LAUNCH
    return cudaGetLastError();
}

/* ---- activations ---- */

__global__ static void activate(half16 *y, const half16 *x, const half16 *base, size_t i,
                                int act, bool gated)
{
    size_t c = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * EACH, r = blockIdx.y;
    size_t at = r * (gated ? 2 * i : i) + c;
    float v[EACH], u[EACH], slope;

    if (c >= i)
        return;
    get(v, x + at);
    if (gated)
        get(u, x + at + i);
    for (int k = 0; k < EACH; k++)
        v[k] = act_of(&slope, v[k], act) * (gated ? u[k] : 1.0f);
    if (base != NULL) {
        get(u, base + r * i + c);
        for (int k = 0; k < EACH; k++)
            v[k] -= u[k];
    }
    put(y + r * i + c, v);
}

__global__ static void activate_back(half16 *dx, const half16 *dy, const half16 *x,
                                     size_t i, int act, bool gated)
{
    size_t c = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * EACH, r = blockIdx.y;
    size_t at = r * (gated ? 2 * i : i) + c;
    float v[EACH], u[EACH], g[EACH];

    if (c >= i)
        return;
    get(v, x + at);
    get(g, dy + r * i + c);
    if (gated)
        get(u, x + at + i);
    for (int k = 0; k < EACH; k++) {
        float slope, a = act_of(&slope, v[k], act);
        v[k] = g[k] * slope * (gated ? u[k] : 1.0f);
        u[k] = g[k] * a;
    }
    put(dx + at, v);
    if (gated)
        put(dx + at + i, u);
}

int cu_activate_halves(cu_stream s, void *y, const void *x, const void *base, size_t m,
                       size_t i, int act, bool gated)
{
    size_t row = gated ? 2 * i : i;

    for (size_t r = 0; r < m; r += ROWS_MAX) {
        dim3 grid(blocks_of(i, THREADS * EACH),
                  (unsigned)(m - r < ROWS_MAX ? m - r : ROWS_MAX));
        activate<<<grid, THREADS, 0, s>>>(
            (half16 *)y + r * i, (const half16 *)x + r * row,
            base != NULL ? (const half16 *)base + r * i : NULL, i, act, gated);
    }
    return cudaGetLastError();
}

int cu_activate_back_halves(cu_stream s, void *dx, const void *dy, const void *x, size_t m,
                            size_t i, int act, bool gated)
{
    size_t row = gated ? 2 * i : i;

    for (size_t r = 0; r < m; r += ROWS_MAX) {
        dim3 grid(blocks_of(i, THREADS * EACH),
                  (unsigned)(m - r < ROWS_MAX ? m - r : ROWS_MAX));
        activate_back<<<grid, THREADS, 0, s>>>((half16 *)dx + r * row,
                                               (const half16 *)dy + r * i,
                                               (const half16 *)x + r * row, i, act, gated);
    }
    return cudaGetLastError();
}

/* ---- rotations ---- */

__global__ static void rope(half16 *qkv, cu_attn_shape a, float sign)
{
    size_t half = a.rotary_dim / 2, heads = a.heads + a.kv_heads, per = half / EACH;
    size_t row = (a.heads + 2 * a.kv_heads) * a.head_dim;
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x, r = i / (heads * per);

    if (r >= a.b * a.t)
        return;
    size_t head = i / per % heads, c = i % per * EACH;
    size_t start = a.starts != NULL ? a.starts[r] : 0, at = (r % a.t - start) * half + c;
    half16 *x = qkv + r * row + head * a.head_dim + c;
    float lo[EACH], hi[EACH], cosine[EACH], sine[EACH];

    get(lo, x);
    get(hi, x + half);
    get(cosine, a.cos + at);
    get(sine, a.sin + at);
    for (int k = 0; k < EACH; k++) {
        float t = sign * sine[k], low = lo[k];
        lo[k] = low * cosine[k] - hi[k] * t;
        hi[k] = hi[k] * cosine[k] + low * t;
    }
    put(x, lo);
    put(x + half, hi);
}

int cu_rope_halves(cu_stream s, void *qkv, const cu_attn_shape *a, int sign)
{
    size_t work = a->b * a->t * (a->heads + a->kv_heads) * (a->rotary_dim / 2 / EACH);

    rope<<<blocks_of(work, THREADS), THREADS, 0, s>>>((half16 *)qkv, *a, (float)sign);
    return cudaGetLastError();
}

/* ---- elements ---- */

enum { NEIGHBOURS = 4 };

__device__ static void get4(float v[4], const half16 *p)
{
    const uint2 u = *(const uint2 *)p;

    v[0] = __uint_as_float(u.x << 16), v[1] = __uint_as_float(u.x & 0xffff0000u);
    v[2] = __uint_as_float(u.y << 16), v[3] = __uint_as_float(u.y & 0xffff0000u);
}

__device__ static void put4(half16 *p, const float v[4])
{
    const __nv_bfloat162 a = __floats2bfloat162_rn(v[0], v[1]),
                         b = __floats2bfloat162_rn(v[2], v[3]);

    *(uint2 *)p = make_uint2(*(const uint32_t *)&a, *(const uint32_t *)&b);
}

/* Neighbours of rows.cu's dropout, with the same mask: a thread's part of a chunk, which is
 * read whole before the random words are computed. */
__global__ static void dropout(half16 *y, const half16 *x, size_t count, uint64_t seed,
                               uint64_t stream, uint32_t threshold, float scale, bool acc)
{
    size_t block = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * NEIGHBOURS;
    size_t first = block / 16 * CHUNK + block % 16;
    float v[8][NEIGHBOURS], was[8][NEIGHBOURS] = {};
    uint32_t words[NEIGHBOURS][4];

#pragma unroll
    for (int j = 0; j < 8; j++)
        if (first + 16 * j < count)
            get4(v[j], x + first + 16 * j);
#pragma unroll
    for (int j = 0; j < 8 && acc; j++)
        if (first + 16 * j < count)
            get4(was[j], y + first + 16 * j);
#pragma unroll
    for (int n = 0; n < NEIGHBOURS; n++)
        philox(words[n], seed, stream, block + n);
#pragma unroll
    for (int j = 0; j < 8; j++) {
#pragma unroll
        for (int n = 0; n < NEIGHBOURS; n++) {
            uint32_t word = words[n][j / 2];
            uint32_t half = j % 2 == 0 ? word & 0xffffu : word >> 16;
            v[j][n] = was[j][n] + v[j][n] * (half >= threshold ? scale : 0.0f);
        }
        if (first + 16 * j < count)
            put4(y + first + 16 * j, v[j]);
    }
}

int cu_dropout_halves(cu_stream s, void *y, const void *x, size_t count, uint64_t seed,
                      uint64_t stream, uint32_t threshold, float scale, bool acc)
{
    size_t work = (count + CHUNK - 1) / CHUNK * 16 / NEIGHBOURS;

    dropout<<<blocks_of(work, THREADS), THREADS, 0, s>>>(
        (half16 *)y, (const half16 *)x, count, seed, stream, threshold, scale, acc);
    return cudaGetLastError();
}

template <typename Y, typename X>
__global__ static void scaled(Y *y, const X *x, size_t count, float scale)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * EACH;
    float v[EACH];

    if (i >= count)
        return;
    get(v, x + i);
    for (int k = 0; k < EACH; k++)
        v[k] *= scale;
    put(y + i, v);
}

int cu_scaled_halves(cu_stream s, cu_values y, cu_values x, size_t count, float scale)
{
#define LAUNCH(to, from)                                                                   \
    scaled<<<blocks_of(count, THREADS *EACH), THREADS, 0, s>>>(to, from, count, scale)
    BY_KIND(y, x, LAUNCH);
#undef LAUNCH
    return cudaGetLastError();
}

__global__ static void subtract(half16 *out, const half16 *a, const half16 *b, size_t count,
                                float factor)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * EACH;
    float v[EACH], u[EACH];

    if (i >= count)
        return;
    get(v, a + i);
    get(u, b + i);
    for (int k = 0; k < EACH; k++)
        v[k] = factor * (v[k] - u[k]);
    put(out + i, v);
}

int cu_subtract_halves(cu_stream s, void *out, const void *a, const void *b, size_t count,
                       float factor)
{
    subtract<<<blocks_of(count, THREADS * EACH), THREADS, 0, s>>>(
        (half16 *)out, (const half16 *)a, (const half16 *)b, count, factor);
    return cudaGetLastError();
}

template <typename A, typename B>
__global__ static void differences(half16 *out, const A *a, const B *b, const float *scale,
                                   size_t count, size_t n)
{
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * EACH;
    float v[EACH], u[EACH];

    if (i >= count)
        return;
    get(v, a + i);
    if (scale != NULL) {
        get(u, scale + i % n);
        for (int k = 0; k < EACH; k++)
            v[k] /= u[k];
    }
    if (b != NULL) {
        get(u, b + i);
        for (int k = 0; k < EACH; k++)
            v[k] -= u[k];
    }
    put(out + i, v);
}

int cu_differences(cu_stream s, void *out, cu_values a, cu_values b, const float *scale,
                   size_t m, size_t n)
{
#define LAUNCH(a_, b_)                                                                     \
    differences<<<blocks_of(m * n, THREADS *EACH), THREADS, 0, s>>>((half16 *)out, a_, b_, \
                                                                    scale, m *n, n)
    BY_KIND(a, b, LAUNCH);
#undef LAUNCH
    return cudaGetLastError();
}

/* Eight squares are a float, and these are added as doubles. */
__global__ static void squares(double *room, const half16 *x, size_t count)
{
    __shared__ double sums[WARP];
    size_t step = (size_t)gridDim.x * blockDim.x * EACH;
    double sum = 0;

    x += blockIdx.y * count;
    for (size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * EACH; i < count;
         i += step) {
        float v[EACH], own = 0;
        get(v, x + i);
        for (int k = 0; k < EACH; k++)
            own += v[k] * v[k];
        sum += (double)own;
    }
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0)
        room[blockIdx.y * CU_SQUARES + blockIdx.x] = sum;
}

int cu_squares_halves(cu_stream s, double *sums, double *room, const void *x, size_t parts,
                      size_t count)
{
    squares<<<dim3(CU_SQUARES, (unsigned)parts), THREADS, 0, s>>>(room, (const half16 *)x,
                                                                  count);
    return cu_totals(s, sums, room, parts);
}

__global__ static void add_bias(half16 *y, const float *bias, size_t n, size_t ldy)
{
    half16 *row = y + blockIdx.x * ldy;
    float v[EACH], u[EACH];

    for (size_t i = threadIdx.x * EACH; i < n; i += blockDim.x * EACH) {
        get(v, row + i);
        get(u, bias + i);
        for (int k = 0; k < EACH; k++)
            v[k] += u[k];
        put(row + i, v);
    }
}

int cu_add_bias_halves(cu_stream s, void *y, const float *bias, size_t m, size_t n,
                       size_t ldy)
{
    add_bias<<<(unsigned)m, THREADS, 0, s>>>((half16 *)y, bias, n, ldy);
    return cudaGetLastError();
}

/* ---- packed weights ---- */

/* Eight codes of 4 or 8 bits, which share a scale. */
__global__ static void unpack(half16 *w, cu_packed q)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x, per = q.cols / EACH;
    size_t row = i / per, col = i % per * EACH, block = col / q.block;
    float v[EACH];

    if (row >= q.rows)
        return;
    float scale = q.scales[row * q.blocks + block];
    const uint8_t *at = q.codes + row * q.row_bytes + col * q.bits / 8;
    int zero = cu_zero_of(&q, row, block);
    if (q.bits == 4) {
        uint32_t word = *(const uint32_t *)at;
        for (int k = 0; k < EACH; k++)
            v[k] = (float)((int)(word >> 4 * k & 15) - zero) * scale;
    } else {
        const uint2 words = *(const uint2 *)at;
        for (int k = 0; k < EACH; k++)
            v[k] = (float)((int)((k < 4 ? words.x : words.y) >> k % 4 * 8 & 255) - zero) *
                   scale;
    }
    put(w + row * q.cols + col, v);
}

int cu_unpack_halves(cu_stream s, void *w, const cu_packed *q)
{
    size_t work = q->rows * (q->cols / EACH);

    unpack<<<blocks_of(work, THREADS), THREADS, 0, s>>>((half16 *)w, *q);
    return cudaGetLastError();
}

/* ---- any shape ---- */

__global__ static void narrow(half16 *dst, size_t ldd, const float *src, size_t lds,
                              size_t rows, size_t cols)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x, r = i / cols, c = i % cols;

    if (r < rows)
        dst[r * ldd + c] = __float2bfloat16_rn(src[r * lds + c]);
}

__global__ static void widen(float *dst, size_t ldd, const half16 *src, size_t lds,
                             size_t rows, size_t cols)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x, r = i / cols, c = i % cols;

    if (r < rows)
        dst[r * ldd + c] = __bfloat162float(src[r * lds + c]);
}

__device__ static void set(float *to, float v)
{
    *to = v;
}

__device__ static void set(half16 *to, float v)
{
    *to = __float2bfloat16_rn(v);
}

template <typename Y, typename X>
__global__ static void take_rows(Y *y, const X *table, const int32_t *ids, size_t d)
{
    const X *row = table + (size_t)ids[blockIdx.x] * d;

    for (size_t i = threadIdx.x; i < d; i += blockDim.x)
        set(y + blockIdx.x * d + i, (float)row[i]);
}

int cu_take_rows(cu_stream s, cu_values y, cu_values table, const int32_t *ids,
                 size_t count, size_t d)
{
#define LAUNCH(to, from) take_rows<<<(unsigned)count, THREADS, 0, s>>>(to, from, ids, d)
    BY_KIND(y, table, LAUNCH);
#undef LAUNCH
    return cudaGetLastError();
}

/* One run of eights? */
static bool straight(const void *dst, const void *src, size_t ldd, size_t lds, size_t rows,
                     size_t cols)
{
    return ((uintptr_t)dst | (uintptr_t)src) % 16 == 0 && rows * cols % EACH == 0 &&
           (rows == 1 || (ldd == cols && lds == cols));
}

int cu_narrow(cu_stream s, void *dst, size_t ldd, const float *src, size_t lds, size_t rows,
              size_t cols)
{
    if (straight(dst, src, ldd, lds, rows, cols))
        scaled<<<blocks_of(rows * cols, THREADS * EACH), THREADS, 0, s>>>(
            (half16 *)dst, src, rows * cols, 1.0f);
    else
        narrow<<<blocks_of(rows * cols, THREADS), THREADS, 0, s>>>((half16 *)dst, ldd, src,
                                                                   lds, rows, cols);
    return cudaGetLastError();
}

int cu_widen(cu_stream s, float *dst, size_t ldd, const void *src, size_t lds, size_t rows,
             size_t cols)
{
    if (straight(dst, src, ldd, lds, rows, cols))
        scaled<<<blocks_of(rows * cols, THREADS * EACH), THREADS, 0, s>>>(
            dst, (const half16 *)src, rows * cols, 1.0f);
    else
        widen<<<blocks_of(rows * cols, THREADS), THREADS, 0, s>>>(
            dst, ldd, (const half16 *)src, lds, rows, cols);
    return cudaGetLastError();
}
