/*
 * rows.cu - kernels that go along rows or over elements: norms, activations, dropout, cross
 * entropy, conversions.
 *
 * A row is one block's work and its sums are trees of fixed shape, so bytes do not depend
 * on what else runs.  Nothing is fused where ref's bytes are asked for (add, dropout).
 */
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "nn/cuda/cuda_kernels.h"
#include "nn/cuda/rows_parts.cuh"

__device__ static float block_max(float v, float *room)
{
    __syncthreads();
    for (int i = WARP / 2; i > 0; i /= 2)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, i));
    if (threadIdx.x % WARP == 0)
        room[threadIdx.x / WARP] = v;
    __syncthreads();
    v = room[0];
    for (unsigned i = 1; i < blockDim.x / WARP; i++)
        v = fmaxf(v, room[i]);
    return v;
}

/* ---- norms ---- */

__device__ static float inverse_norm(const float *x, size_t d, float eps, float *room)
{
    float sum = 0;

    for (size_t i = threadIdx.x; i < d; i += blockDim.x)
        sum += x[i] * x[i];
    return 1.0f / sqrtf(block_sum(sum, room) / (float)d + eps);
}

/* Gradients are differences that cancel in short rows: their sums are double. */
__device__ static double along_row(const float *g, const float *w, const float *x, size_t d,
                                   double *inv, float eps, double *room)
{
    double squares = 0, sum = 0;

    for (size_t i = threadIdx.x; i < d; i += blockDim.x) {
        squares += (double)x[i] * (double)x[i];
        sum += (double)(g[i] * w[i]) * (double)x[i];
    }
    *inv = 1.0 / sqrt(block_sum(squares, room) / (double)d + (double)eps);
    return block_sum(sum, room) * *inv * *inv * *inv / (double)d;
}

__global__ static void rmsnorm(float *y, const float *x, const float *w, size_t d,
                               float eps)
{
    __shared__ float room[WARP];
    const float *row = x + blockIdx.x * d;
    float inv = inverse_norm(row, d, eps, room);

    for (size_t i = threadIdx.x; i < d; i += blockDim.x)
        y[blockIdx.x * d + i] = row[i] * inv * w[i];
}

int cu_rmsnorm(cu_stream s, float *y, const float *x, const float *w, size_t m, size_t d,
               float eps)
{
    rmsnorm<<<(unsigned)m, THREADS, 0, s>>>(y, x, w, d, eps);
    return cudaGetLastError();
}

__global__ static void rmsnorm_back(float *dx, const float *dy, const float *x,
                                    const float *w, size_t d, float eps)
{
    __shared__ double room[WARP];
    const float *xr = x + blockIdx.x * d, *gr = dy + blockIdx.x * d;
    float *to = dx + blockIdx.x * d;
    double inv, own = along_row(gr, w, xr, d, &inv, eps, room);

    for (size_t i = threadIdx.x; i < d; i += blockDim.x)
        to[i] += (float)((double)gr[i] * (double)w[i] * inv - (double)xr[i] * own);
}

int cu_rmsnorm_back(cu_stream s, float *dx, const float *dy, const float *x, const float *w,
                    size_t m, size_t d, float eps)
{
    rmsnorm_back<<<(unsigned)m, THREADS, 0, s>>>(dx, dy, x, w, d, eps);
    return cudaGetLastError();
}

__global__ static void rmsnorm_heads(float *x, float *kept, const float *w, size_t ld,
                                     size_t heads, size_t d, float eps)
{
    __shared__ float room[WARP];
    size_t r = blockIdx.x;
    float *at = x + r / heads * ld + r % heads * d;
    float inv = inverse_norm(at, d, eps, room);

    for (size_t i = threadIdx.x; i < d; i += blockDim.x) {
        if (kept != NULL)
            kept[r * d + i] = at[i];
        at[i] = at[i] * inv * w[i];
    }
}

static unsigned threads_for(size_t d)
{
    return d <= 64 ? 64 : d <= 128 ? 128 : THREADS;
}

int cu_rmsnorm_heads(cu_stream s, float *x, float *kept, const float *w, size_t m,
                     size_t ld, size_t heads, size_t d, float eps)
{
    rmsnorm_heads<<<(unsigned)(m * heads), threads_for(d), 0, s>>>(x, kept, w, ld, heads, d,
                                                                   eps);
    return cudaGetLastError();
}

__global__ static void rmsnorm_heads_back(float *dx, const float *kept, const float *w,
                                          size_t ld, size_t heads, size_t d, float eps)
{
    __shared__ double room[WARP];
    size_t r = blockIdx.x;
    const float *x = kept + r * d;
    float *g = dx + r / heads * ld + r % heads * d;
    double inv, own = along_row(g, w, x, d, &inv, eps, room);

    for (size_t i = threadIdx.x; i < d; i += blockDim.x)
        g[i] = (float)((double)g[i] * (double)w[i] * inv - (double)x[i] * own);
}

int cu_rmsnorm_heads_back(cu_stream s, float *dx, const float *kept, const float *w,
                          size_t m, size_t ld, size_t heads, size_t d, float eps)
{
    rmsnorm_heads_back<<<(unsigned)(m * heads), threads_for(d), 0, s>>>(dx, kept, w, ld,
                                                                        heads, d, eps);
    return cudaGetLastError();
}

__device__ static void moments(float *mean, float *inv, const float *x, size_t d, float eps,
                               float *room)
{
    float sum = 0, squares = 0;

    for (size_t i = threadIdx.x; i < d; i += blockDim.x)
        sum += x[i];
    *mean = block_sum(sum, room) / (float)d;
    for (size_t i = threadIdx.x; i < d; i += blockDim.x)
        squares += (x[i] - *mean) * (x[i] - *mean);
    *inv = 1.0f / sqrtf(block_sum(squares, room) / (float)d + eps);
}

__global__ static void layernorm(float *y, const float *x, const float *w,
                                 const float *bias, size_t d, float eps)
{
    __shared__ float room[WARP];
    const float *row = x + blockIdx.x * d;
    float mean, inv;

    moments(&mean, &inv, row, d, eps, room);
    for (size_t i = threadIdx.x; i < d; i += blockDim.x)
        y[blockIdx.x * d + i] = (row[i] - mean) * inv * w[i] + bias[i];
}

int cu_layernorm(cu_stream s, float *y, const float *x, const float *w, const float *bias,
                 size_t m, size_t d, float eps)
{
    layernorm<<<(unsigned)m, THREADS, 0, s>>>(y, x, w, bias, d, eps);
    return cudaGetLastError();
}

__global__ static void layernorm_back(float *dx, const float *dy, const float *x,
                                      const float *w, size_t d, float eps)
{
    __shared__ float room[WARP];
    const float *xr = x + blockIdx.x * d, *gr = dy + blockIdx.x * d;
    float *to = dx + blockIdx.x * d;
    float mean, inv, sum = 0, along = 0;

    moments(&mean, &inv, xr, d, eps, room);
    for (size_t i = threadIdx.x; i < d; i += blockDim.x) {
        sum += __fmul_rn(gr[i], w[i]); /* or a row of one is not zero */
        along += gr[i] * w[i] * (xr[i] - mean) * inv;
    }
    sum = block_sum(sum, room) / (float)d;
    along = block_sum(along, room) / (float)d;
    for (size_t i = threadIdx.x; i < d; i += blockDim.x)
        to[i] += inv * (__fmul_rn(gr[i], w[i]) - sum - (xr[i] - mean) * inv * along);
}

int cu_layernorm_back(cu_stream s, float *dx, const float *dy, const float *x,
                      const float *w, size_t m, size_t d, float eps)
{
    layernorm_back<<<(unsigned)m, THREADS, 0, s>>>(dx, dy, x, w, d, eps);
    return cudaGetLastError();
}

/* ---- activations ---- */

__global__ static void activate(float *y, const float *x, size_t i, int act, bool gated)
{
    size_t c = (size_t)blockIdx.x * blockDim.x + threadIdx.x, r = blockIdx.y;
    size_t at = r * (gated ? 2 * i : i) + c;
    float slope;

    if (c < i)
        y[r * i + c] = act_of(&slope, x[at], act) * (gated ? x[at + i] : 1.0f);
}

__global__ static void activate_back(float *dx, const float *dy, const float *x, size_t i,
                                     int act, bool gated)
{
    size_t c = (size_t)blockIdx.x * blockDim.x + threadIdx.x, r = blockIdx.y;
    size_t at = r * (gated ? 2 * i : i) + c;
    float slope;

    if (c >= i)
        return;
    float g = dy[r * i + c], a = act_of(&slope, x[at], act);
    dx[at] = g * slope * (gated ? x[at + i] : 1.0f);
    if (gated)
        dx[at + i] = g * a;
}

int cu_activate(cu_stream s, float *y, const float *x, size_t m, size_t i, int act,
                bool gated)
{
    size_t row = gated ? 2 * i : i;

    for (size_t r = 0; r < m; r += ROWS_MAX) {
        dim3 grid(blocks_of(i, THREADS), (unsigned)(m - r < ROWS_MAX ? m - r : ROWS_MAX));
        activate<<<grid, THREADS, 0, s>>>(y + r * i, x + r * row, i, act, gated);
    }
    return cudaGetLastError();
}

int cu_activate_back(cu_stream s, float *dx, const float *dy, const float *x, size_t m,
                     size_t i, int act, bool gated)
{
    size_t row = gated ? 2 * i : i;

    for (size_t r = 0; r < m; r += ROWS_MAX) {
        dim3 grid(blocks_of(i, THREADS), (unsigned)(m - r < ROWS_MAX ? m - r : ROWS_MAX));
        activate_back<<<grid, THREADS, 0, s>>>(dx + r * row, dy + r * i, x + r * row, i,
                                               act, gated);
    }
    return cudaGetLastError();
}

/* ---- elements ---- */

__global__ static void add(float *y, const float *x, size_t count)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;

    if (i < count)
        y[i] = __fadd_rn(y[i], x[i]);
}

int cu_add(cu_stream s, float *y, const float *x, size_t count)
{
    add<<<blocks_of(count, THREADS), THREADS, 0, s>>>(y, x, count);
    return cudaGetLastError();
}

__global__ static void add_bias(float *y, const float *bias, size_t n, size_t ldy)
{
    size_t r = blockIdx.x;

    for (size_t i = threadIdx.x; i < n; i += blockDim.x)
        y[r * ldy + i] += bias[i];
}

int cu_add_bias(cu_stream s, float *y, const float *bias, size_t m, size_t n, size_t ldy)
{
    add_bias<<<(unsigned)m, THREADS, 0, s>>>(y, bias, n, ldy);
    return cudaGetLastError();
}

__global__ static void residual(float *y, const float *x, size_t count, float scale)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;

    if (i < count)
        y[i] = __fadd_rn(x[i], __fmul_rn(scale, y[i]));
}

int cu_residual(cu_stream s, float *y, const float *x, size_t count, float scale)
{
    residual<<<blocks_of(count, THREADS), THREADS, 0, s>>>(y, x, count, scale);
    return cudaGetLastError();
}

__global__ static void scale_cap(float *x, size_t count, float scale, float cap)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;

    if (i < count)
        x[i] = cap != 0.0f ? cap * tanhf(scale * x[i] / cap) : scale * x[i];
}

int cu_scale_cap(cu_stream s, float *x, size_t count, float scale, float cap)
{
    scale_cap<<<blocks_of(count, THREADS), THREADS, 0, s>>>(x, count, scale, cap);
    return cudaGetLastError();
}

/* ---- dropout: nn_mask's chunks of 128, a Philox block for each 8 of them ---- */

__global__ static void dropout(float *y, const float *x, size_t count, uint64_t seed,
                               uint64_t stream, uint32_t threshold, float scale, bool acc)
{
    size_t block = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    size_t first = block / 16 * CHUNK + block % 16;
    uint32_t words[4];

    if (first >= count)
        return;
    philox(words, seed, stream, block);
    for (int j = 0; j < 8; j++) {
        size_t i = first + 16 * (size_t)j;
        uint32_t half = j % 2 == 0 ? words[j / 2] & 0xffffu : words[j / 2] >> 16;
        if (i >= count)
            break;
        float v = __fmul_rn(x[i], half >= threshold ? scale : 0.0f);
        y[i] = acc ? __fadd_rn(y[i], v) : v;
    }
}

int cu_dropout(cu_stream s, float *y, const float *x, size_t count, uint64_t seed,
               uint64_t stream, uint32_t threshold, float scale, bool acc)
{
    size_t work = (count + CHUNK - 1) / CHUNK * 16;

    dropout<<<blocks_of(work, THREADS), THREADS, 0, s>>>(y, x, count, seed, stream,
                                                         threshold, scale, acc);
    return cudaGetLastError();
}

/* ---- cross entropy ---- */

/* A row of logits: in shared memory, or where it was. */
template <bool held> __device__ static float logit(const float *row, const float *x, int i)
{
    return held ? row[i] : x[i];
}

/* held: the row is read once, into shared memory. */
template <bool held, typename G>
__global__ static void xent(double *loss, G *grad, const float *logits,
                            const int32_t *targets, int v, float grad_scale, float cap,
                            float smoothing)
{
    extern __shared__ float row[];
    __shared__ float room[WARP];
    __shared__ double wide[WARP];
    const float *x = logits + (size_t)blockIdx.x * v;
    float top = -INFINITY, one = 1.0f - smoothing, low = smoothing / (float)v;
    int target = targets[blockIdx.x], step = blockDim.x;
    double sum = 0, all = 0;

#pragma unroll 4
    for (int i = threadIdx.x; i < v; i += step) {
        float at = x[i];
        top = fmaxf(top, at);
        if (held)
            row[i] = at;
    }
    top = block_max(top, room);
    for (int i = threadIdx.x; i < v;) {
        float four = 0; /* conversions to double are slow */
#pragma unroll
        for (int j = 0; j < 4; j++, i += step)
            four += i < v ? expf(logit<held>(row, x, i) - top) : 0.0f;
        sum += (double)four;
    }
    sum = block_sum(sum, wide);
    for (int i = threadIdx.x; i < v && smoothing != 0.0f; i += step)
        all += (double)logit<held>(row, x, i);
    float own = logit<held>(row, x, target);
    if (smoothing != 0.0f) /* the same for all threads */
        all = block_sum(all, wide) / (double)v - (double)own;
    if (threadIdx.x == 0)
        loss[blockIdx.x] = log(sum) + (double)top - (double)own - (double)smoothing * all;
    if (grad_scale == 0.0f)
        return;
    __syncthreads(); /* the target's logit has been read */
    float inv = (float)(1.0 / sum), rate = cap != 0.0f ? 1.0f / cap : 0.0f;
    grad += (size_t)blockIdx.x * v;
#pragma unroll 4
    for (int i = threadIdx.x; i < v; i += step) {
        float at = logit<held>(row, x, i), t = at * rate;
        float p = expf(at - top) * inv - low - (i == target ? one : 0.0f);
        grad[i] = (G)(grad_scale * p * (1.0f - t * t));
    }
}

template <bool held, typename G>
static int run_xent(cu_stream s, double *loss, G *grad, const float *logits,
                    const int32_t *targets, size_t m, size_t v, float grad_scale, float cap,
                    float smoothing)
{
    size_t bytes = held ? v * sizeof(float) : 0;
    int err = cudaFuncSetAttribute(xent<held, G>,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);

    if (err != 0)
        return err;
    xent<held, G><<<(unsigned)m, (held ? 4 : 2) * THREADS, bytes, s>>>(
        loss, grad, logits, targets, (int)v, grad_scale, cap, smoothing);
    return cudaGetLastError();
}

int cu_xent(cu_stream s, double *loss, cu_values grad, const float *logits,
            const int32_t *targets, size_t m, size_t v, float grad_scale, float cap,
            float smoothing)
{
    bool held = v * sizeof(float) <= CU_HELD_BYTES;

#define RUN(held, G)                                                                       \
    run_xent<held>(s, loss, (G *)grad.p, logits, targets, m, v, grad_scale, cap, smoothing)
    if (grad.bf16)
        return held ? RUN(true, __nv_bfloat16) : RUN(false, __nv_bfloat16);
    return held ? RUN(true, float) : RUN(false, float);
#undef RUN
}

__global__ static void kl(double *out, float *student, const float *teacher, size_t v,
                          float grad_scale, float cap)
{
    __shared__ float room[WARP];
    __shared__ double wide[WARP];
    float *s = student + blockIdx.x * v, top_s = -INFINITY, top_t = -INFINITY;
    const float *t = teacher + blockIdx.x * v;
    double sum_s = 0, sum_t = 0, sum = 0;

    for (size_t i = threadIdx.x; i < v; i += blockDim.x) {
        top_s = fmaxf(top_s, s[i]);
        top_t = fmaxf(top_t, t[i]);
    }
    top_s = block_max(top_s, room);
    top_t = block_max(top_t, room);
    for (size_t i = threadIdx.x; i < v; i += blockDim.x) {
        sum_s += (double)expf(s[i] - top_s);
        sum_t += (double)expf(t[i] - top_t);
    }
    sum_s = block_sum(sum_s, wide);
    sum_t = block_sum(sum_t, wide);
    float inv_s = (float)(1.0 / sum_s), inv_t = (float)(1.0 / sum_t);
    for (size_t i = threadIdx.x; i < v; i += blockDim.x) {
        float at_s = s[i] - top_s, at_t = t[i] - top_t, p = expf(at_t) * inv_t;
        float slope = cap != 0.0f ? s[i] / cap : 0.0f;
        sum += (double)(p * (at_t - at_s));
        if (grad_scale != 0.0f)
            s[i] = grad_scale * (expf(at_s) * inv_s - p) * (1.0f - slope * slope);
    }
    sum = block_sum(sum, wide);
    if (threadIdx.x == 0)
        out[blockIdx.x] = sum + log(sum_s) - log(sum_t);
}

int cu_kl(cu_stream s, double *out, float *student, const float *teacher, size_t m,
          size_t v, float grad_scale, float cap)
{
    kl<<<(unsigned)m, 2 * THREADS, 0, s>>>(out, student, teacher, v, grad_scale, cap);
    return cudaGetLastError();
}

/* ---- the optimizer ---- */

/* Block x of part y. */
__global__ static void squares(double *room, const float *x, size_t count)
{
    __shared__ double sums[WARP];
    double sum = 0;

    x += blockIdx.y * count;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (size_t)gridDim.x * blockDim.x)
        sum += (double)x[i] * (double)x[i];
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0)
        room[blockIdx.y * CU_SQUARES + blockIdx.x] = sum;
}

__global__ static void totals(double *out, const double *room)
{
    __shared__ double sums[WARP];
    double own = 0;

    for (unsigned i = threadIdx.x; i < CU_SQUARES; i += blockDim.x)
        own += room[blockIdx.x * CU_SQUARES + i];
    own = block_sum(own, sums);
    if (threadIdx.x == 0)
        out[blockIdx.x] = own;
}

int cu_totals(cu_stream s, double *sums, const double *room, size_t parts)
{
    totals<<<(unsigned)parts, THREADS, 0, s>>>(sums, room);
    return cudaGetLastError();
}

int cu_squares(cu_stream s, double *sums, double *room, const float *x, size_t parts,
               size_t count)
{
    squares<<<dim3(CU_SQUARES, (unsigned)parts), THREADS, 0, s>>>(room, x, count);
    return cu_totals(s, sums, room, parts);
}

struct adam_step {
    float grad_scale, rest1, beta2, rest2, decay, step_size, inv_sqrt_c2, eps;
};

__global__ static void adamw(float *param, float *grad, float *m, float *v, size_t count,
                             adam_step a)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;

    if (i >= count)
        return;
    float g = grad[i] * a.grad_scale;
    float first = m[i] + (g - m[i]) * a.rest1;
    float second = v[i] * a.beta2 + g * g * a.rest2;
    m[i] = first;
    v[i] = second;
    param[i] = param[i] * a.decay -
               a.step_size * (first / (sqrtf(second) * a.inv_sqrt_c2 + a.eps));
    grad[i] = 0;
}

int cu_adamw(cu_stream s, float *param, float *grad, float *m, float *v, size_t count,
             const float numbers[8])
{
    const adam_step a = {numbers[0], numbers[1], numbers[2], numbers[3],
                         numbers[4], numbers[5], numbers[6], numbers[7]};

    adamw<<<blocks_of(count, THREADS), THREADS, 0, s>>>(param, grad, m, v, count, a);
    return cudaGetLastError();
}

/* ---- bf16 ---- */

__global__ static void to_bf16(uint16_t *dst, size_t ldd, const float *src, size_t lds,
                               size_t rows, size_t cols, int terms)
{
    size_t c = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * 2;

    if (c >= cols)
        return;
    for (size_t r = blockIdx.y; r < rows; r += gridDim.y) {
        float a = src[r * lds + c], b = c + 1 < cols ? src[r * lds + c + 1] : 0.0f;
        for (int t = 0; t < terms; t++) {
            __nv_bfloat162 v(__float2bfloat16_rn(a), __float2bfloat16_rn(b));
            *(__nv_bfloat162 *)(dst + ((size_t)t * rows + r) * ldd + c) = v;
            a -= __bfloat162float(v.x);
            b -= __bfloat162float(v.y);
        }
    }
}

int cu_to_bf16(cu_stream s, uint16_t *dst, size_t ldd, const float *src, size_t lds,
               size_t rows, size_t cols, int terms)
{
    dim3 grid(blocks_of((cols + 1) / 2, THREADS), (unsigned)(rows < 4096 ? rows : 4096));

    to_bf16<<<grid, THREADS, 0, s>>>(dst, ldd, src, lds, rows, cols, terms);
    return cudaGetLastError();
}
