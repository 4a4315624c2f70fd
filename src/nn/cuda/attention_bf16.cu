/*
 * attention_bf16.cu - attention with operands rounded to bf16, on the tensor cores (mma
 * m16n8k16), sums in floats.
 *
 * As attention.cu, with tiles of 64 queries and 64 keys and 4 warps, each with 16 rows of
 * the tile that stays (queries, or in backward_k keys).  Scores stay in registers: what one
 * product leaves there is the next one's left operand.
 *
 *   forward      S = Q K^T       softmax         O += P V
 *   backward_q   S = Q K^T       dP = dO V^T     dQ += dS K
 *   backward_k   S^T = K Q^T     dP^T = V dO^T   dV += P^T dO     dK += dS^T Q
 *
 * Rows in shared memory are 16 bytes longer than a head, so that the words that a warp
 * reads at once lie in different banks.
 */
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "nn/cuda/attention_parts.cuh"

enum { T = 64, WARPS = 4, THREADS = WARPS * 32, TILES = T / 8 };

template <int CM> constexpr int PITCH = CM + 8;

/* tile[T][PITCH] = rows first .. first + T - 1, zeros past count and past c. */
template <int CM>
__device__ static void load(__nv_bfloat16 *tile, rows from, size_t first, size_t count,
                            size_t c)
{
    constexpr int PER = CM / 4;

#pragma unroll 4
    for (int i = threadIdx.x; i < T * PER; i += THREADS) {
        size_t r = i / PER, col = i % PER * 4;
        float4 v = make_float4(0, 0, 0, 0);
        if (first + r < count && col < c)
            v = *(const float4 *)(from.at + (first + r) * from.step + col);
        __nv_bfloat162 *to = (__nv_bfloat162 *)(tile + r * PITCH<CM> + col);
        to[0] = __floats2bfloat162_rn(v.x, v.y);
        to[1] = __floats2bfloat162_rn(v.z, v.w);
    }
}

__device__ static void multiply(float c[4], const unsigned a[4], unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ static unsigned word(const __nv_bfloat16 *p)
{
    return *(const unsigned *)p;
}

__device__ static unsigned pack(float lo, float hi)
{
    __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);

    return *(unsigned *)&v;
}

/* sum[TILES] = the warp's 16 rows of a times all rows of b. */
template <int CM>
__device__ static void products(float sum[TILES][4], const __nv_bfloat16 *a,
                                const __nv_bfloat16 *b)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const __nv_bfloat16 *row = a + (warp * 16 + lane / 4) * PITCH<CM> + lane % 4 * 2;
    const __nv_bfloat16 *col = b + lane / 4 * PITCH<CM> + lane % 4 * 2;

#pragma unroll
    for (int j = 0; j < TILES; j++)
        for (int e = 0; e < 4; e++)
            sum[j][e] = 0;
#pragma unroll
    for (int k = 0; k < CM; k += 16) {
        unsigned x[4] = {word(row + k), word(row + 8 * PITCH<CM> + k), word(row + k + 8),
                         word(row + 8 * PITCH<CM> + k + 8)};
#pragma unroll
        for (int j = 0; j < TILES; j++) {
            const __nv_bfloat16 *p = col + j * 8 * PITCH<CM> + k;
            multiply(sum[j], x, word(p), word(p + 8));
        }
    }
}

/* sum[CM / 8] += p, 16 rows by T, times tile[T][CM]. */
template <int CM>
__device__ static void gather(float sum[CM / 8][4], const float p[TILES][4],
                              const __nv_bfloat16 *tile)
{
    int lane = threadIdx.x % 32;
    unsigned at =
        (unsigned)__cvta_generic_to_shared(tile + lane % 16 * PITCH<CM> + lane / 16 * 8);

#pragma unroll
    for (int k = 0; k < T / 16; k++) {
        unsigned x[4] = {pack(p[2 * k][0], p[2 * k][1]), pack(p[2 * k][2], p[2 * k][3]),
                         pack(p[2 * k + 1][0], p[2 * k + 1][1]),
                         pack(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
        for (int j = 0; j < CM / 16; j++) {
            unsigned b[4];
            asm volatile(
                "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                : "r"(at + (unsigned)(k * 16 * PITCH<CM> + j * 16) * 2));
            multiply(sum[2 * j], x, b[0], b[1]);
            multiply(sum[2 * j + 1], x, b[2], b[3]);
        }
    }
}

/* Over the four lanes that share a row. */
__device__ static float across(float v, bool max)
{
    for (int i = 1; i < 4; i *= 2) {
        float o = __shfl_xor_sync(0xffffffffu, v, i);
        v = max ? fmaxf(v, o) : v + o;
    }
    return v;
}

/* First keys of a tile of queries; those past the last see nothing. */
__device__ static void load_from(unsigned *from, const cu_attn_shape &a, size_t b,
                                 size_t first)
{
    size_t t = first + threadIdx.x;

    if (threadIdx.x < T)
        from[threadIdx.x] = t < a.t ? (unsigned)first_key(a, b, t) : 0xffffffffu;
}

__device__ static size_t least(const unsigned *from)
{
    unsigned low = from[0];

    for (int i = 1; i < T; i++)
        low = from[i] < low ? from[i] : low;
    return low / T * T;
}

/* The warp's rows of a tile to where they belong. */
template <int CM>
__device__ static void store(float *to, size_t step, const float v[CM / 8][4], size_t first,
                             size_t count, size_t c)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

    for (int half = 0; half < 2; half++) {
        size_t t = first + warp * 16 + lane / 4 + half * 8;
        if (t >= count)
            continue;
#pragma unroll
        for (int j = 0; j < CM / 8; j++) {
            size_t col = j * 8 + lane % 4 * 2;
            if (col < c)
                *(float2 *)(to + t * step + col) =
                    make_float2(v[j][half * 2], v[j][half * 2 + 1]);
        }
    }
}

/* ---- forward ---- */

template <int CM>
__global__ static void __launch_bounds__(THREADS)
    forward(float *out, float *lse, const float *qkv, cu_attn_shape a)
{
    extern __shared__ __nv_bfloat16 room[];
    __shared__ unsigned from[T];
    __nv_bfloat16 *qs = room, *ks = qs + T * PITCH<CM>, *vs = ks + T * PITCH<CM>;
    size_t first = (size_t)(gridDim.x - 1 - blockIdx.x) * T, h = blockIdx.y, b = blockIdx.z;
    size_t group = a.heads + h / (a.heads / a.kv_heads), c = a.head_dim;
    int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
    rows k = part(a, qkv, b, group), v = part(a, qkv, b, group + a.kv_heads);
    float o[CM / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {};

    load_from(from, a, b, first);
    load<CM>(qs, part(a, qkv, b, h), first, a.t, c);
    __syncthreads();
    size_t end = first + T < a.t ? first + T : a.t;
    for (size_t at = least(from); at < end; at += T) {
        float s[TILES][4];
        load<CM>(ks, k, at, a.t, c);
        load<CM>(vs, v, at, a.t, c);
        __syncthreads();
        products<CM>(s, qs, ks);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            size_t r = row + half * 8, t = first + r;
            float high = top[half], part_sum = 0;
#pragma unroll
            for (int j = 0; j < TILES; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    size_t key = at + j * 8 + lane % 4 * 2 + e;
                    bool seen = key <= t && key >= from[r];
                    float *x = &s[j][half * 2 + e];
                    *x = seen ? capped(a, *x) : -INFINITY;
                    high = fmaxf(high, *x);
                }
            high = across(high, true);
            float shrink = high == -INFINITY ? 1.0f : __expf(top[half] - high);
#pragma unroll
            for (int j = 0; j < TILES; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float *x = &s[j][half * 2 + e];
                    *x = *x == -INFINITY ? 0.0f : __expf(*x - high);
                    part_sum += *x;
                }
            sum[half] = sum[half] * shrink + across(part_sum, false);
            top[half] = high;
#pragma unroll
            for (int j = 0; j < CM / 8; j++) {
                o[j][half * 2] *= shrink;
                o[j][half * 2 + 1] *= shrink;
            }
        }
        gather<CM>(o, s, vs);
        __syncthreads();
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        size_t t = first + row + half * 8;
        for (int j = 0; j < CM / 8; j++) {
            o[j][half * 2] /= sum[half];
            o[j][half * 2 + 1] /= sum[half];
        }
        if (lse != NULL && lane % 4 == 0 && t < a.t)
            lse[(b * a.heads + h) * a.t + t] = top[half] + logf(sum[half]);
    }
    store<CM>(out + (b * a.t * a.heads + h) * c, a.heads * c, o, first, a.t, c);
}

template <int CM>
static int launch_forward(cu_stream s, float *out, float *lse, const float *qkv,
                          const cu_attn_shape *a)
{
    int bytes = 3 * T * PITCH<CM> * (int)sizeof(__nv_bfloat16);
    dim3 grid((unsigned)((a->t + T - 1) / T), (unsigned)a->heads, (unsigned)a->b);
    int err = cudaFuncSetAttribute(forward<CM>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   bytes);

    if (err != 0)
        return err;
    forward<CM><<<grid, THREADS, bytes, s>>>(out, lse, qkv, *a);
    return cudaGetLastError();
}

int cu_attention_bf16(cu_stream s, float *out, float *lse, const float *qkv,
                      const cu_attn_shape *a)
{
    if (a->head_dim <= 64)
        return launch_forward<64>(s, out, lse, qkv, a);
    if (a->head_dim <= 96)
        return launch_forward<96>(s, out, lse, qkv, a);
    return launch_forward<128>(s, out, lse, qkv, a);
}

/* ---- backward ---- */

/* What is known of a tile of queries. */
struct scalars {
    float lse[T], delta[T];
    unsigned from[T];
};

__device__ static void load_scalars(scalars *to, const float *lse, const float *delta,
                                    const cu_attn_shape &a, size_t b, size_t h,
                                    size_t first)
{
    size_t t = first + threadIdx.x, i = (b * a.heads + h) * a.t + t;

    load_from(to->from, a, b, first);
    if (threadIdx.x >= T)
        return;
    to->lse[threadIdx.x] = t < a.t ? lse[i] : 0.0f;
    to->delta[threadIdx.x] = t < a.t ? delta[i] : 0.0f;
}

/* A score becomes its probability, dp the gradient of the score; q: the query's row. */
__device__ static void one_grad(float *s, float *dp, const cu_attn_shape &a,
                                const scalars &q, int r, size_t t, size_t key)
{
    bool seen = key <= t && key >= q.from[r];
    float score = capped(a, *s), slope = a.scale;

    if (a.softcap != 0.0f)
        slope *= 1.0f - score / a.softcap * (score / a.softcap);
    *s = seen ? __expf(score - q.lse[r]) : 0.0f;
    *dp = seen ? slope * *s * (*dp - q.delta[r]) : 0.0f;
}

template <int CM>
__global__ static void __launch_bounds__(THREADS)
    backward_q(float *dqkv, const float *dout, const float *lse, const float *delta,
               const float *qkv, cu_attn_shape a)
{
    extern __shared__ __nv_bfloat16 room[];
    __shared__ scalars own;
    constexpr int TILE = T * PITCH<CM>;
    __nv_bfloat16 *qs = room, *os = qs + TILE, *ks = os + TILE, *vs = ks + TILE;
    size_t first = (size_t)(gridDim.x - 1 - blockIdx.x) * T, h = blockIdx.y, b = blockIdx.z;
    size_t group = a.heads + h / (a.heads / a.kv_heads), c = a.head_dim;
    int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
    rows k = part(a, qkv, b, group), v = part(a, qkv, b, group + a.kv_heads);
    rows o = {dout + (b * a.t * a.heads + h) * c, a.heads * c};
    float dq[CM / 8][4] = {};

    load_scalars(&own, lse, delta, a, b, h, first);
    load<CM>(qs, part(a, qkv, b, h), first, a.t, c);
    load<CM>(os, o, first, a.t, c);
    __syncthreads();
    size_t end = first + T < a.t ? first + T : a.t;
    for (size_t at = least(own.from); at < end; at += T) {
        float s[TILES][4], dp[TILES][4];
        load<CM>(ks, k, at, a.t, c);
        load<CM>(vs, v, at, a.t, c);
        __syncthreads();
        products<CM>(s, qs, ks);
        products<CM>(dp, os, vs);
#pragma unroll
        for (int j = 0; j < TILES; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int r = row + e / 2 * 8;
                one_grad(&s[j][e], &dp[j][e], a, own, r, first + r,
                         at + j * 8 + lane % 4 * 2 + e % 2);
            }
        gather<CM>(dq, dp, ks);
        __syncthreads();
    }
    size_t step = (a.heads + 2 * a.kv_heads) * c;
    store<CM>(dqkv + b * a.t * step + h * c, step, dq, first, a.t, c);
}

template <int CM>
__global__ static void __launch_bounds__(THREADS)
    backward_k(float *dqkv, const float *dout, const float *lse, const float *delta,
               const float *qkv, cu_attn_shape a)
{
    extern __shared__ __nv_bfloat16 room[];
    __shared__ scalars their;
    constexpr int TILE = T * PITCH<CM>;
    __nv_bfloat16 *qs = room, *os = qs + TILE, *ks = os + TILE, *vs = ks + TILE;
    size_t at = (size_t)blockIdx.x * T, g = blockIdx.y, b = blockIdx.z, c = a.head_dim;
    size_t each = a.heads / a.kv_heads, group = a.heads + g;
    int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
    float dk[CM / 8][4] = {}, dv[CM / 8][4] = {};
    size_t last =
        a.window != 0 && at + T - 1 + a.window < a.t ? at + T - 1 + a.window : a.t;

    load<CM>(ks, part(a, qkv, b, group), at, a.t, c);
    load<CM>(vs, part(a, qkv, b, group + a.kv_heads), at, a.t, c);
    for (size_t h = g * each; h < (g + 1) * each; h++) {
        rows o = {dout + (b * a.t * a.heads + h) * c, a.heads * c};
        for (size_t first = at; first < last; first += T) {
            float s[TILES][4], dp[TILES][4];
            load_scalars(&their, lse, delta, a, b, h, first);
            load<CM>(qs, part(a, qkv, b, h), first, a.t, c);
            load<CM>(os, o, first, a.t, c);
            __syncthreads();
            products<CM>(s, ks, qs);
            products<CM>(dp, vs, os);
#pragma unroll
            for (int j = 0; j < TILES; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    int r = j * 8 + lane % 4 * 2 + e % 2;
                    one_grad(&s[j][e], &dp[j][e], a, their, r, first + r,
                             at + row + e / 2 * 8);
                }
            gather<CM>(dv, s, os);
            gather<CM>(dk, dp, qs);
            __syncthreads();
        }
    }
    size_t step = (a.heads + 2 * a.kv_heads) * c;
    float *to = dqkv + b * a.t * step;
    store<CM>(to + group * c, step, dk, at, a.t, c);
    store<CM>(to + (group + a.kv_heads) * c, step, dv, at, a.t, c);
}

template <int CM>
static int launch_backward(cu_stream s, float *dqkv, const float *delta, const float *dout,
                           const float *lse, const float *qkv, const cu_attn_shape *a)
{
    const auto attr = cudaFuncAttributeMaxDynamicSharedMemorySize;
    int bytes = 4 * T * PITCH<CM> * (int)sizeof(__nv_bfloat16);
    unsigned tiles = (unsigned)((a->t + T - 1) / T), b = (unsigned)a->b;
    dim3 queries(tiles, (unsigned)a->heads, b), keys(tiles, (unsigned)a->kv_heads, b);
    int err = cudaFuncSetAttribute(backward_q<CM>, attr, bytes);

    if (err == 0)
        err = cudaFuncSetAttribute(backward_k<CM>, attr, bytes);
    if (err != 0)
        return err;
    backward_q<CM><<<queries, THREADS, bytes, s>>>(dqkv, dout, lse, delta, qkv, *a);
    backward_k<CM><<<keys, THREADS, bytes, s>>>(dqkv, dout, lse, delta, qkv, *a);
    return cudaGetLastError();
}

int cu_attention_back_bf16(cu_stream s, float *dqkv, float *delta, const float *dout,
                           const float *out, const float *lse, const float *qkv,
                           const cu_attn_shape *a)
{
    int err = cu_attention_deltas(s, delta, dout, out, a);

    if (err != 0)
        return err;
    if (a->head_dim <= 64)
        return launch_backward<64>(s, dqkv, delta, dout, lse, qkv, a);
    if (a->head_dim <= 96)
        return launch_backward<96>(s, dqkv, delta, dout, lse, qkv, a);
    return launch_backward<128>(s, dqkv, delta, dout, lse, qkv, a);
}
