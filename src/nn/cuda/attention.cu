/*
 * attention.cu - rotations, and attention forward and backward in floats.
 *
 * Tiles of queries meet tiles of keys in shared memory and T x T exists nowhere: the
 * forward carries running maxima and sums (Dao et al. 2022), the backward recomputes
 * probabilities from lse.  256 threads as 16 x 16: thread (ty, tx) has rows ty + 16 i of a
 * tile and columns tx + 16 j.  Gradients of queries and of keys are two kernels, so that
 * nothing is added by atomics: the same bytes each time.
 *
 *   forward     tile of queries:  S = Q K^T, softmax, O += P V
 *   backward q  tile of queries:  S, P, dP = dO V^T, dS = P (dP - delta), dQ += dS K
 *   backward k  tile of keys:     the same of each query tile of each head of the group,
 *                                 dV += P^T dO, dK += dS^T Q
 *
 * Tiles shrink as heads grow (98 KB of shared memory at most, what sm_86 has).
 */
#include <cuda_runtime.h>

#include "nn/cuda/attention_parts.cuh"

enum { SIDE = 16, THREADS = SIDE * SIDE };

/* ---- rotations ---- */

__global__ static void rope(float *qkv, cu_attn_shape a, float sign)
{
    size_t half = a.rotary_dim / 2, heads = a.heads + a.kv_heads;
    size_t row = (a.heads + 2 * a.kv_heads) * a.head_dim, r = blockIdx.x;
    size_t start = a.starts != NULL ? a.starts[r] : 0, at = (r % a.t - start) * half;

    for (size_t i = threadIdx.x; i < heads * half; i += blockDim.x) {
        float *x = qkv + r * row + i / half * a.head_dim + i % half;
        float c = a.cos[at + i % half], t = sign * a.sin[at + i % half];
        float lo = x[0], hi = x[half];
        x[0] = lo * c - hi * t;
        x[half] = hi * c + lo * t;
    }
}

int cu_rope(cu_stream s, float *qkv, const cu_attn_shape *a, int sign)
{
    rope<<<(unsigned)(a->b * a->t), THREADS, 0, s>>>(qkv, *a, (float)sign);
    return cudaGetLastError();
}

/* ---- what the kernels share ---- */

typedef rows_of<float> rows;

/* tile[T][CM + 1] = rows first .. first + T - 1, zeros past count and past c. */
template <int T, int CM>
__device__ static void load(float *tile, rows from, size_t first, size_t count, size_t c)
{
    for (int i = threadIdx.x; i < T * CM; i += THREADS) {
        size_t r = i / CM, col = i % CM;
        bool there = first + r < count && col < c;
        tile[r * (CM + 1) + col] = there ? from.at[(first + r) * from.step + col] : 0.0f;
    }
}

/* out[R][R] = rows of a times rows of b. */
template <int R, int CM>
__device__ static void products(float out[R][R], const float *a, const float *b)
{
    int ty = threadIdx.x / SIDE, tx = threadIdx.x % SIDE;

#pragma unroll
    for (int i = 0; i < R; i++)
#pragma unroll
        for (int j = 0; j < R; j++)
            out[i][j] = 0;
    for (int c = 0; c < CM; c++) {
        float x[R], y[R];
#pragma unroll
        for (int i = 0; i < R; i++)
            x[i] = a[(ty + SIDE * i) * (CM + 1) + c];
#pragma unroll
        for (int j = 0; j < R; j++)
            y[j] = b[(tx + SIDE * j) * (CM + 1) + c];
#pragma unroll
        for (int i = 0; i < R; i++)
#pragma unroll
            for (int j = 0; j < R; j++)
                out[i][j] += x[i] * y[j];
    }
}

/* sum[R][CM / 16] += p[T][T + 1] times tile, or, turned, p^T times tile. */
template <int T, int R, int CM, bool turned>
__device__ static void gather(float sum[R][CM / SIDE], const float *p, const float *tile)
{
    int ty = threadIdx.x / SIDE, tx = threadIdx.x % SIDE;

    for (int k = 0; k < T; k++) {
        float x[R];
#pragma unroll
        for (int i = 0; i < R; i++) {
            int row = ty + SIDE * i;
            x[i] = turned ? p[k * (T + 1) + row] : p[row * (T + 1) + k];
        }
#pragma unroll
        for (int j = 0; j < CM / SIDE; j++) {
            float v = tile[k * (CM + 1) + tx + SIDE * j];
#pragma unroll
            for (int i = 0; i < R; i++)
                sum[i][j] += x[i] * v;
        }
    }
}

/* The least of from[T], for those of them that are queries. */
template <int T> __device__ static size_t least(const unsigned *from, size_t count)
{
    unsigned low = from[0];

    for (int i = 1; i < T && (size_t)i < count; i++)
        low = from[i] < low ? from[i] : low;
    return low;
}

__device__ static float across(float v, bool max)
{
    for (int i = SIDE / 2; i > 0; i /= 2) {
        float o = __shfl_xor_sync(0xffffffffu, v, i);
        v = max ? fmaxf(v, o) : v + o;
    }
    return v;
}

/* ---- forward ---- */

template <int T, int CM>
__global__ static void __launch_bounds__(THREADS)
    forward(float *out, float *lse, const float *qkv, cu_attn_shape a)
{
    constexpr int R = T / SIDE;
    extern __shared__ float room[];
    __shared__ unsigned from[T];
    float *qs = room, *ks = qs + T * (CM + 1), *ps = ks + T * (CM + 1);
    size_t first = (size_t)(gridDim.x - 1 - blockIdx.x) * T, h = blockIdx.y, b = blockIdx.z;
    size_t group = a.heads + h / (a.heads / a.kv_heads), c = a.head_dim;
    int ty = threadIdx.x / SIDE, tx = threadIdx.x % SIDE;
    rows q = part(a, qkv, b, h), k = part(a, qkv, b, group);
    rows v = part(a, qkv, b, group + a.kv_heads);
    float o[R][CM / SIDE] = {}, top[R], sum[R] = {};

#pragma unroll
    for (int i = 0; i < R; i++)
        top[i] = -INFINITY;
    if (threadIdx.x < T && first + threadIdx.x < a.t)
        from[threadIdx.x] = (unsigned)first_key(a, b, first + threadIdx.x);
    load<T, CM>(qs, q, first, a.t, c);
    __syncthreads();
    size_t low = least<T>(from, a.t - first) / T * T;
    size_t end = first + T < a.t ? first + T : a.t;
    for (size_t at = low; at < end; at += T) {
        float s[R][R];
        load<T, CM>(ks, k, at, a.t, c);
        __syncthreads();
        products<R, CM>(s, qs, ks);
#pragma unroll
        for (int i = 0; i < R; i++) {
            size_t row = ty + SIDE * i, t = first + row;
            float high = top[i], part_sum = 0;
#pragma unroll
            for (int j = 0; j < R; j++) {
                size_t key = at + tx + SIDE * j;
                bool seen = t < a.t && key <= t && key >= from[row];
                s[i][j] = seen ? capped(a, s[i][j]) : -INFINITY;
                high = fmaxf(high, s[i][j]);
            }
            high = across(high, true);
            float shrink = high == -INFINITY ? 1.0f : expf(top[i] - high);
#pragma unroll
            for (int j = 0; j < R; j++) {
                float p = s[i][j] == -INFINITY ? 0.0f : expf(s[i][j] - high);
                ps[row * (T + 1) + tx + SIDE * j] = p;
                part_sum += p;
            }
            sum[i] = sum[i] * shrink + across(part_sum, false);
            top[i] = high;
#pragma unroll
            for (int j = 0; j < CM / SIDE; j++)
                o[i][j] *= shrink;
        }
        __syncthreads();
        load<T, CM>(ks, v, at, a.t, c);
        __syncthreads();
        gather<T, R, CM, false>(o, ps, ks);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < R; i++) {
        size_t t = first + ty + SIDE * i;
        if (t >= a.t)
            continue;
#pragma unroll
        for (int j = 0; j < CM / SIDE; j++)
            if (tx + SIDE * j < c)
                out[(b * a.t + t) * a.heads * c + h * c + tx + SIDE * j] = o[i][j] / sum[i];
        if (lse != NULL && tx == 0)
            lse[(b * a.heads + h) * a.t + t] = top[i] + logf(sum[i]);
    }
}

template <int T, int CM>
static int launch_forward(cu_stream s, float *out, float *lse, const float *qkv,
                          const cu_attn_shape *a)
{
    size_t bytes = (2 * T * (CM + 1) + T * (T + 1)) * sizeof(float);
    dim3 grid((unsigned)((a->t + T - 1) / T), (unsigned)a->heads, (unsigned)a->b);
    int err = cudaFuncSetAttribute(forward<T, CM>,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);

    if (err != 0)
        return err;
    forward<T, CM><<<grid, THREADS, bytes, s>>>(out, lse, qkv, *a);
    return cudaGetLastError();
}

int cu_attention(cu_stream s, float *out, float *lse, const float *qkv,
                 const cu_attn_shape *a)
{
    if (a->head_dim <= 64)
        return launch_forward<64, 64>(s, out, lse, qkv, a);
    if (a->head_dim <= 128)
        return launch_forward<64, 128>(s, out, lse, qkv, a);
    return launch_forward<32, 256>(s, out, lse, qkv, a);
}

/* ---- backward ---- */

/* delta[B][H][T] = dout . out, a warp each. */
__global__ static void deltas(float *delta, const float *dout, const float *out,
                              cu_attn_shape a)
{
    size_t i = (size_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    size_t row = i / a.heads, h = i % a.heads, at = i * a.head_dim;
    float sum = 0;

    if (row >= a.b * a.t)
        return;
    for (size_t c = threadIdx.x % 32; c < a.head_dim; c += 32)
        sum += dout[at + c] * out[at + c];
    for (int k = 16; k > 0; k /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, k);
    if (threadIdx.x % 32 == 0)
        delta[(row / a.t * a.heads + h) * a.t + row % a.t] = sum;
}

/* Probabilities and gradients of scores of a tile, from scores and dO V^T. */
template <int R>
__device__ static void score_grads(float s[R][R], float dp[R][R], const cu_attn_shape &a,
                                   const float *lse, const float *delta,
                                   const unsigned *from, size_t first, size_t at)
{
    int ty = threadIdx.x / SIDE, tx = threadIdx.x % SIDE;

#pragma unroll
    for (int i = 0; i < R; i++) {
        size_t row = ty + SIDE * i, t = first + row;
#pragma unroll
        for (int j = 0; j < R; j++) {
            size_t key = at + tx + SIDE * j;
            bool seen = t < a.t && key <= t && key >= from[row];
            float score = capped(a, s[i][j]), p = 0, slope = 1;
            if (a.softcap != 0.0f)
                slope = 1.0f - score / a.softcap * (score / a.softcap);
            if (seen)
                p = expf(score - lse[row]);
            s[i][j] = p;
            dp[i][j] = seen ? a.scale * slope * p * (dp[i][j] - delta[row]) : 0.0f;
        }
    }
}

/* lse, delta and from of a tile of queries. */
template <int T>
__device__ static void load_scalars(float *ls, float *ds, unsigned *from, const float *lse,
                                    const float *delta, const cu_attn_shape &a, size_t b,
                                    size_t h, size_t first)
{
    size_t t = first + threadIdx.x;

    if (threadIdx.x >= T)
        return;
    bool there = t < a.t;
    ls[threadIdx.x] = there ? lse[(b * a.heads + h) * a.t + t] : 0.0f;
    ds[threadIdx.x] = there ? delta[(b * a.heads + h) * a.t + t] : 0.0f;
    from[threadIdx.x] = there ? (unsigned)first_key(a, b, t) : 0xffffffffu;
}

template <int T, int R> __device__ static void store(float *p, const float s[R][R])
{
    int ty = threadIdx.x / SIDE, tx = threadIdx.x % SIDE;

#pragma unroll
    for (int i = 0; i < R; i++)
#pragma unroll
        for (int j = 0; j < R; j++)
            p[(ty + SIDE * i) * (T + 1) + tx + SIDE * j] = s[i][j];
}

template <int T, int CM>
__global__ static void __launch_bounds__(THREADS)
    backward_q(float *dqkv, const float *dout, const float *lse, const float *delta,
               const float *qkv, cu_attn_shape a)
{
    constexpr int R = T / SIDE, TILE = T * (CM + 1);
    extern __shared__ float room[];
    __shared__ unsigned from[T];
    __shared__ float ls[T], dl[T];
    float *qs = room, *os = qs + TILE, *ks = os + TILE, *vs = ks + TILE, *ps = vs + TILE;
    size_t first = (size_t)(gridDim.x - 1 - blockIdx.x) * T, h = blockIdx.y, b = blockIdx.z;
    size_t group = a.heads + h / (a.heads / a.kv_heads), c = a.head_dim;
    int ty = threadIdx.x / SIDE, tx = threadIdx.x % SIDE;
    rows k = part(a, qkv, b, group), v = part(a, qkv, b, group + a.kv_heads);
    rows o = {dout + (b * a.t * a.heads + h) * c, a.heads * c};
    float dq[R][CM / SIDE] = {};

    load_scalars<T>(ls, dl, from, lse, delta, a, b, h, first);
    load<T, CM>(qs, part(a, qkv, b, h), first, a.t, c);
    load<T, CM>(os, o, first, a.t, c);
    __syncthreads();
    size_t low = least<T>(from, T) / T * T, end = first + T < a.t ? first + T : a.t;
    for (size_t at = low; at < end; at += T) {
        float s[R][R], dp[R][R];
        load<T, CM>(ks, k, at, a.t, c);
        load<T, CM>(vs, v, at, a.t, c);
        __syncthreads();
        products<R, CM>(s, qs, ks);
        products<R, CM>(dp, os, vs);
        score_grads<R>(s, dp, a, ls, dl, from, first, at);
        store<T, R>(ps, dp);
        __syncthreads();
        gather<T, R, CM, false>(dq, ps, ks);
        __syncthreads();
    }
    size_t row = (a.heads + 2 * a.kv_heads) * c;
#pragma unroll
    for (int i = 0; i < R; i++) {
        size_t t = first + ty + SIDE * i;
#pragma unroll
        for (int j = 0; j < CM / SIDE && t < a.t; j++)
            if (tx + SIDE * j < c)
                dqkv[(b * a.t + t) * row + h * c + tx + SIDE * j] = dq[i][j];
    }
}

template <int T, int CM>
__global__ static void __launch_bounds__(THREADS)
    backward_k(float *dqkv, const float *dout, const float *lse, const float *delta,
               const float *qkv, cu_attn_shape a)
{
    constexpr int R = T / SIDE, TILE = T * (CM + 1);
    extern __shared__ float room[];
    __shared__ unsigned from[T];
    __shared__ float ls[T], dl[T];
    float *qs = room, *os = qs + TILE, *ks = os + TILE, *vs = ks + TILE, *ps = vs + TILE;
    size_t at = (size_t)blockIdx.x * T, g = blockIdx.y, b = blockIdx.z, c = a.head_dim;
    size_t each = a.heads / a.kv_heads, group = a.heads + g;
    int ty = threadIdx.x / SIDE, tx = threadIdx.x % SIDE;
    float dk[R][CM / SIDE] = {}, dv[R][CM / SIDE] = {};
    size_t last =
        a.window != 0 && at + T - 1 + a.window < a.t ? at + T - 1 + a.window : a.t;

    load<T, CM>(ks, part(a, qkv, b, group), at, a.t, c);
    load<T, CM>(vs, part(a, qkv, b, group + a.kv_heads), at, a.t, c);
    for (size_t h = g * each; h < (g + 1) * each; h++) {
        rows o = {dout + (b * a.t * a.heads + h) * c, a.heads * c};
        for (size_t first = at; first < last; first += T) {
            float s[R][R], dp[R][R];
            load_scalars<T>(ls, dl, from, lse, delta, a, b, h, first);
            load<T, CM>(qs, part(a, qkv, b, h), first, a.t, c);
            load<T, CM>(os, o, first, a.t, c);
            __syncthreads();
            products<R, CM>(s, qs, ks);
            products<R, CM>(dp, os, vs);
            score_grads<R>(s, dp, a, ls, dl, from, first, at);
            store<T, R>(ps, s);
            __syncthreads();
            gather<T, R, CM, true>(dv, ps, os);
            __syncthreads();
            store<T, R>(ps, dp);
            __syncthreads();
            gather<T, R, CM, true>(dk, ps, qs);
            __syncthreads();
        }
    }
    size_t row = (a.heads + 2 * a.kv_heads) * c;
#pragma unroll
    for (int i = 0; i < R; i++) {
        size_t t = at + ty + SIDE * i;
#pragma unroll
        for (int j = 0; j < CM / SIDE && t < a.t; j++) {
            size_t col = tx + SIDE * j;
            if (col >= c)
                continue;
            dqkv[(b * a.t + t) * row + group * c + col] = dk[i][j];
            dqkv[(b * a.t + t) * row + (group + a.kv_heads) * c + col] = dv[i][j];
        }
    }
}

template <int T, int CM>
static int launch_backward(cu_stream s, float *dqkv, const float *delta, const float *dout,
                           const float *lse, const float *qkv, const cu_attn_shape *a)
{
    size_t bytes = (4 * T * (CM + 1) + T * (T + 1)) * sizeof(float);
    unsigned tiles = (unsigned)((a->t + T - 1) / T);
    const auto attr = cudaFuncAttributeMaxDynamicSharedMemorySize;
    int err = cudaFuncSetAttribute(backward_q<T, CM>, attr, (int)bytes);

    if (err == 0)
        err = cudaFuncSetAttribute(backward_k<T, CM>, attr, (int)bytes);
    if (err != 0)
        return err;
    backward_q<T, CM>
        <<<dim3(tiles, (unsigned)a->heads, (unsigned)a->b), THREADS, bytes, s>>>(
            dqkv, dout, lse, delta, qkv, *a);
    backward_k<T, CM>
        <<<dim3(tiles, (unsigned)a->kv_heads, (unsigned)a->b), THREADS, bytes, s>>>(
            dqkv, dout, lse, delta, qkv, *a);
    return cudaGetLastError();
}

static int launch_deltas(cu_stream s, float *delta, const float *dout, const float *out,
                         const cu_attn_shape *a)
{
    size_t each = THREADS / 32, count = a->b * a->t * a->heads;

    deltas<<<(unsigned)((count + each - 1) / each), THREADS, 0, s>>>(delta, dout, out, *a);
    return cudaGetLastError();
}

int cu_attention_back(cu_stream s, float *dqkv, float *delta, const float *dout,
                      const float *out, const float *lse, const float *qkv,
                      const cu_attn_shape *a)
{
    int err = launch_deltas(s, delta, dout, out, a);

    if (err != 0)
        return err;
    if (a->head_dim <= 64)
        return launch_backward<64, 64>(s, dqkv, delta, dout, lse, qkv, a);
    if (a->head_dim <= 128)
        return launch_backward<32, 128>(s, dqkv, delta, dout, lse, qkv, a);
    return launch_backward<16, 256>(s, dqkv, delta, dout, lse, qkv, a);
}
