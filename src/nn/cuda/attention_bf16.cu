/*
 * attention_bf16.cu - attention of bf16 values, on the tensor cores (mma m16n8k16), sums in
 * floats.
 *
 * As attention.cu, with tiles of 64 queries and 64 keys and 4 warps, each with 16 rows of
 * the tile that stays (queries, or in backward_k keys).  The other tiles come by turns into
 * two places, the next one while this one is multiplied (cp.async).  Scores stay in
 * registers: what one product leaves there is the next one's left operand.
 *
 *   forward      S = Q K^T       softmax         O += P V
 *   backward_q   S = Q K^T       dP = dO V^T     dQ += dS K
 *   backward_k   S^T = K Q^T     dP^T = V dO^T   dV += P^T dO     dK += dS^T Q
 *
 * Rows in shared memory are 16 bytes longer than a head, so that the rows that a warp reads
 * at once lie in different banks.
 */
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "nn/cuda/attention_scores.cuh"
#include "nn/cuda/mma_parts.cuh"

typedef rows_of<half16> rows;

enum { WARPS = 4, THREADS = WARPS * 32 };

template <int CM> constexpr int PITCH = CM + 8;
template <int CM> constexpr int TILE = T *PITCH<CM>;

/* ---- tiles ---- */

/* tile[T][PITCH] = rows first .. first + T - 1, zeros past count and past c; begun here,
 * there behind arrived. */
template <int CM>
__device__ static void load(half16 *tile, rows from, size_t first, size_t count, size_t c)
{
    constexpr int PER = CM / 8, PASS = THREADS / PER >= 16 ? 16 : 8; /* rows at once */
    int r = threadIdx.x / PER, col = threadIdx.x % PER * 8;
    int left = count > first ? (int)(count - first) : 0;
    const half16 *src = from.at + (first + r) * from.step + col;
    unsigned to = address(tile + r * PITCH<CM> + col);

    if (r >= PASS)
        return;
#pragma unroll
    for (int k = 0; k < T; k += PASS, src += PASS * from.step) {
        bool there = r + k < left && col < (int)c;
        send16(to + k * PITCH<CM> * 2, there ? src : from.at, there);
    }
}

/* ---- products ---- */

/* The warp's 16 rows of a tile, as left operands. */
template <int CM> struct left {
    unsigned x[CM / 16][4];
};

template <int CM> __device__ static void take(left<CM> *to, const half16 *tile)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned at = address(tile + (warp * 16 + lane % 16) * PITCH<CM> + lane / 16 * 8);

#pragma unroll
    for (int k = 0; k < CM / 16; k++)
        fetch(to->x[k], at + k * 32);
}

/* sum[TILES] = the 16 rows of a times all rows of b. */
template <int CM>
__device__ static void products(float sum[TILES][4], const left<CM> &a, const half16 *b)
{
    int lane = threadIdx.x % 32;
    unsigned at = address(b + (lane / 16 * 8 + lane % 8) * PITCH<CM> + lane / 8 % 2 * 8);

#pragma unroll
    for (int j = 0; j < TILES; j++)
        for (int e = 0; e < 4; e++)
            sum[j][e] = 0;
#pragma unroll
    for (int k = 0; k < CM / 16; k++) {
#pragma unroll
        for (int j = 0; j < TILES; j += 2) {
            unsigned y[4];
            fetch(y, at + (unsigned)(j * 8 * PITCH<CM> + k * 16) * 2);
            multiply(sum[j], a.x[k], y[0], y[1]);
            multiply(sum[j + 1], a.x[k], y[2], y[3]);
        }
    }
}

/* sum[CM / 8] += p, 16 rows by T, times tile[T][CM]. */
template <int CM>
__device__ static void gather(float sum[CM / 8][4], const float p[TILES][4],
                              const half16 *tile)
{
    int lane = threadIdx.x % 32;
    unsigned at = address(tile + lane % 16 * PITCH<CM> + lane / 16 * 8);

#pragma unroll
    for (int k = 0; k < T / 16; k++) {
        unsigned x[4] = {pack(p[2 * k][0], p[2 * k][1]), pack(p[2 * k][2], p[2 * k][3]),
                         pack(p[2 * k + 1][0], p[2 * k + 1][1]),
                         pack(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
        for (int j = 0; j < CM / 16; j++) {
            unsigned b[4];
            fetch_turned(b, at + (unsigned)(k * 16 * PITCH<CM> + j * 16) * 2);
            multiply(sum[2 * j], x, b[0], b[1]);
            multiply(sum[2 * j + 1], x, b[2], b[3]);
        }
    }
}

/* ---- what a tile of queries sees ---- */

/* First keys; those past the last query see nothing. */
__device__ static void load_from(unsigned *from, const cu_attn_shape &a, size_t b,
                                 size_t first)
{
    size_t t = first + threadIdx.x;

    if (threadIdx.x < T)
        from[threadIdx.x] = t < a.t ? (unsigned)first_key(a, b, t) : 0xffffffffu;
}

/* The tile of the least of them. */
__device__ static size_t least(const cu_attn_shape &a, const unsigned *from)
{
    unsigned lane = threadIdx.x % 32, low = 0;

    if (a.window == 0 && a.starts == NULL)
        return 0;
    low = from[lane] < from[lane + 32] ? from[lane] : from[lane + 32];
    return __reduce_min_sync(0xffffffffu, low) / T * T;
}

/* Does every query of the tile see every key of the one at `at`? */
__device__ static bool all_seen(const cu_attn_shape &a, size_t first, size_t at)
{
    return a.window == 0 && a.starts == NULL && at + T <= first + 1 && first + T <= a.t;
}

/* The warp's rows of a tile, times scale, to where they belong. */
template <int CM>
__device__ static void store(half16 *to, size_t step, const float v[CM / 8][4],
                             size_t first, size_t count, size_t c, float scale)
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
                *(unsigned *)(to + t * step + col) =
                    pack(scale * v[j][half * 2], scale * v[j][half * 2 + 1]);
        }
    }
}

/* ---- forward ---- */

/* Scores of a row's half become probabilities; top, sum and o follow. */
template <int CM>
__device__ static void soften(float s[TILES][4], int half, float f, float *top, float *sum,
                              float o[CM / 8][4])
{
    float high = *top, part_sum = 0;

#pragma unroll
    for (int j = 0; j < TILES; j++)
        high = fmaxf(high, fmaxf(s[j][half * 2], s[j][half * 2 + 1]));
    high = across(high, true);
    float base = high == -INFINITY ? 0.0f : high * f, shrink = power(*top * f - base);
#pragma unroll
    for (int j = 0; j < TILES; j++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float *x = &s[j][half * 2 + e];
            *x = power(*x * f - base);
            part_sum += *x;
        }
    *sum = *sum * shrink + across(part_sum, false);
    *top = high;
#pragma unroll
    for (int j = 0; j < CM / 8; j++) {
        o[j][half * 2] *= shrink;
        o[j][half * 2 + 1] *= shrink;
    }
}

template <int CM, bool CAP>
__global__ static void __launch_bounds__(THREADS)
    forward(half16 *out, float *lse, const half16 *qkv, cu_attn_shape a)
{
    extern __shared__ __align__(16) half16 room[];
    __shared__ unsigned from[T];
    half16 *qs = room, *ks = qs + TILE<CM>, *vs = ks + 2 * TILE<CM>;
    size_t first = (size_t)(gridDim.x - 1 - blockIdx.x) * T, h = blockIdx.y, b = blockIdx.z;
    size_t group = a.heads + h / (a.heads / a.kv_heads), c = a.head_dim;
    int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
    rows k = part(a, qkv, b, group), v = part(a, qkv, b, group + a.kv_heads);
    float o[CM / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    const float f = factor<CAP>(a);
    left<CM> q;

    load_from(from, a, b, first);
    load<CM>(qs, part(a, qkv, b, h), first, a.t, c);
    __syncthreads();
    size_t end = first + T < a.t ? first + T : a.t, at = least(a, from);
    load<CM>(ks, k, at, a.t, c);
    load<CM>(vs, v, at, a.t, c);
    sent();
    for (int turn = 0; at < end; at += T, turn ^= 1) {
        float s[TILES][4];
        half16 *other_k = ks + (turn ^ 1) * TILE<CM>, *other_v = vs + (turn ^ 1) * TILE<CM>;
        if (at + T < end) {
            load<CM>(other_k, k, at + T, a.t, c);
            load<CM>(other_v, v, at + T, a.t, c);
        }
        sent();
        arrived<1>();
        take<CM>(&q, qs);
        products<CM>(s, q, ks + turn * TILE<CM>);
        cap<CAP>(s, a);
        if (!all_seen(a, first, at))
            hide(s, from[row], from[row + 8], first + row, at);
        soften<CM>(s, 0, f, &top[0], &sum[0], o);
        soften<CM>(s, 1, f, &top[1], &sum[1], o);
        gather<CM>(o, s, vs + turn * TILE<CM>);
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
            lse[(b * a.heads + h) * a.t + t] = top[half] * f * LN2 + logf(sum[half]);
    }
    store<CM>(out + (b * a.t * a.heads + h) * c, a.heads * c, o, first, a.t, c, 1.0f);
}

template <int CM, bool CAP>
static int launch_forward(cu_stream s, half16 *out, float *lse, const half16 *qkv,
                          const cu_attn_shape *a)
{
    int bytes = 5 * TILE<CM> * (int)sizeof(half16);
    dim3 grid((unsigned)((a->t + T - 1) / T), (unsigned)a->heads, (unsigned)a->b);
    int err = cudaFuncSetAttribute(forward<CM, CAP>,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);

    if (err != 0)
        return err;
    forward<CM, CAP><<<grid, THREADS, bytes, s>>>(out, lse, qkv, *a);
    return cudaGetLastError();
}

int cu_attention_bf16(cu_stream s, void *out, float *lse, const void *qkv,
                      const cu_attn_shape *a)
{
    half16 *to = (half16 *)out;
    const half16 *in = (const half16 *)qkv;

    if (cu_hopper_serves(a))
        return cu_attention_hopper(s, out, lse, qkv, a);
#define LAUNCH(cm)                                                                         \
    (a->softcap != 0.0f ? launch_forward<cm, true>(s, to, lse, in, a)                      \
                        : launch_forward<cm, false>(s, to, lse, in, a))
    if (a->head_dim <= 64)
        return LAUNCH(64);
    return a->head_dim <= 96 ? LAUNCH(96) : LAUNCH(128);
#undef LAUNCH
}

/* ---- backward ---- */

/* delta[B][H][T] = dout . out: four lanes for each row of a head; behind them a 0. */
__global__ static void deltas(float *delta, const half16 *dout, const half16 *out,
                              cu_attn_shape a)
{
    size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) / 4;
    bool there = i < a.b * a.t * a.heads;
    float sum = 0;

#pragma unroll
    for (int part = 0; part < CU_HEAD_DIM_BF16 / 32; part++) {
        size_t c = part * 32 + threadIdx.x % 4 * 8;
        if (!there || c >= a.head_dim)
            break;
        uint4 x = *(const uint4 *)(dout + i * a.head_dim + c);
        uint4 y = *(const uint4 *)(out + i * a.head_dim + c);
        const unsigned xs[] = {x.x, x.y, x.z, x.w}, ys[] = {y.x, y.y, y.z, y.w};
#pragma unroll
        for (int k = 0; k < 4; k++)
            sum +=
                __uint_as_float(xs[k] << 16) * __uint_as_float(ys[k] << 16) +
                __uint_as_float(xs[k] & 0xffff0000u) * __uint_as_float(ys[k] & 0xffff0000u);
    }
    if (i == 0)
        *(unsigned *)(delta + a.b * a.t * a.heads) = 0;
    sum = across(sum, false);
    size_t t = i / a.heads, h = i % a.heads;
    if (there && threadIdx.x % 4 == 0)
        delta[(t / a.t * a.heads + h) * a.t + t % a.t] = sum;
}

/* As load. */
__device__ static void load_scalars(scalars *to, const float *lse, const float *delta,
                                    const cu_attn_shape &a, size_t b, size_t h,
                                    size_t first)
{
    size_t t = first + threadIdx.x, i = (b * a.heads + h) * a.t + t;

    load_from(to->from, a, b, first);
    if (threadIdx.x >= T)
        return;
    send4(&to->lse[threadIdx.x], lse + (t < a.t ? i : 0), t < a.t);
    send4(&to->delta[threadIdx.x], delta + (t < a.t ? i : 0), t < a.t);
}

/* A score, capped, becomes its probability, dp its gradient but for the scale, before the
 * cap; lse counts log2(e) times. */
template <bool CAP>
__device__ static void one_grad(float *s, float *dp, const cu_attn_shape &a, float f,
                                float lse, float delta)
{
    float score = *s;

    *s = power(score * f - lse);
    *dp = *s * (*dp - delta);
    if (CAP && score != -INFINITY)
        *dp *= 1.0f - score / a.softcap * (score / a.softcap);
}

template <int CM, bool CAP>
__global__ static void __launch_bounds__(THREADS)
    backward_q(half16 *dqkv, const half16 *dout, const float *lse, const float *delta,
               const half16 *qkv, cu_attn_shape a)
{
    extern __shared__ __align__(16) half16 room[];
    __shared__ scalars own;
    half16 *ks = room, *vs = ks + 2 * TILE<CM>, *qs = vs + 2 * TILE<CM>,
           *os = qs + TILE<CM>;
    size_t first = (size_t)(gridDim.x - 1 - blockIdx.x) * T, h = blockIdx.y, b = blockIdx.z;
    size_t group = a.heads + h / (a.heads / a.kv_heads), c = a.head_dim;
    int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
    rows k = part(a, qkv, b, group), v = part(a, qkv, b, group + a.kv_heads);
    rows o = {dout + (b * a.t * a.heads + h) * c, a.heads * c};
    float dq[CM / 8][4] = {};
    const float f = factor<CAP>(a);

    load_scalars(&own, lse, delta, a, b, h, first);
    load<CM>(qs, part(a, qkv, b, h), first, a.t, c);
    load<CM>(os, o, first, a.t, c);
    __syncthreads();
    size_t end = first + T < a.t ? first + T : a.t, at = least(a, own.from);
    load<CM>(ks, k, at, a.t, c);
    load<CM>(vs, v, at, a.t, c);
    sent();
    for (int turn = 0; at < end; at += T, turn ^= 1) {
        float s[TILES][4], dp[TILES][4];
        half16 *other_k = ks + (turn ^ 1) * TILE<CM>, *other_v = vs + (turn ^ 1) * TILE<CM>;
        left<CM> x;
        if (at + T < end) {
            load<CM>(other_k, k, at + T, a.t, c);
            load<CM>(other_v, v, at + T, a.t, c);
        }
        sent();
        arrived<1>();
        take<CM>(&x, qs);
        products<CM>(s, x, ks + turn * TILE<CM>);
        take<CM>(&x, os);
        products<CM>(dp, x, vs + turn * TILE<CM>);
        cap<CAP>(s, a);
        if (!all_seen(a, first, at))
            hide(s, own.from[row], own.from[row + 8], first + row, at);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float its_lse = own.lse[row + half * 8] * LOG2E;
            float its_delta = own.delta[row + half * 8];
#pragma unroll
            for (int j = 0; j < TILES; j++)
#pragma unroll
                for (int e = half * 2; e < half * 2 + 2; e++)
                    one_grad<CAP>(&s[j][e], &dp[j][e], a, f, its_lse, its_delta);
        }
        gather<CM>(dq, dp, ks + turn * TILE<CM>);
        __syncthreads();
    }
    size_t step = (a.heads + 2 * a.kv_heads) * c;
    store<CM>(dqkv + b * a.t * step + h * c, step, dq, first, a.t, c, a.scale);
}

/* One tile of queries that backward_k takes up: of a head, from `first` on. */
template <int CM>
__device__ static void load_queries(half16 *qs, half16 *os, scalars *to, const half16 *dout,
                                    const float *lse, const float *delta, const half16 *qkv,
                                    const cu_attn_shape &a, size_t b, size_t h,
                                    size_t first)
{
    rows o = {dout + (b * a.t * a.heads + h) * a.head_dim, a.heads * a.head_dim};

    load_scalars(to, lse, delta, a, b, h, first);
    load<CM>(qs, part(a, qkv, b, h), first, a.t, a.head_dim);
    load<CM>(os, o, first, a.t, a.head_dim);
}

template <int CM, bool CAP>
__global__ static void __launch_bounds__(THREADS)
    backward_k(half16 *dqkv, const half16 *dout, const float *lse, const float *delta,
               const half16 *qkv, cu_attn_shape a)
{
    extern __shared__ __align__(16) half16 room[];
    __shared__ scalars their[2];
    half16 *qs = room, *os = qs + 2 * TILE<CM>, *ks = os + 2 * TILE<CM>,
           *vs = ks + TILE<CM>;
    size_t at = (size_t)blockIdx.x * T, g = blockIdx.y, b = blockIdx.z, c = a.head_dim;
    size_t each = a.heads / a.kv_heads, group = a.heads + g;
    int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
    float dk[CM / 8][4] = {}, dv[CM / 8][4] = {};
    const float f = factor<CAP>(a);
    size_t last =
        a.window != 0 && at + T - 1 + a.window < a.t ? at + T - 1 + a.window : a.t;
    unsigned tiles = (unsigned)((last - at + T - 1) / T), count = tiles * (unsigned)each;
    unsigned h = (unsigned)(g * each), tile = 0; /* of the next queries */

    load<CM>(ks, part(a, qkv, b, group), at, a.t, c);
    load<CM>(vs, part(a, qkv, b, group + a.kv_heads), at, a.t, c);
    load_queries<CM>(qs, os, &their[0], dout, lse, delta, qkv, a, b, h, at);
    sent();
    for (unsigned i = 0; i < count; i++) {
        unsigned turn = i % 2;
        size_t first = at + tile * T;
        const scalars *own = &their[turn];
        const half16 *q = qs + turn * TILE<CM>, *o = os + turn * TILE<CM>;
        float s[TILES][4], dp[TILES][4];
        left<CM> x;
        tile = tile + 1 < tiles ? tile + 1 : 0;
        h += tile == 0;
        if (i + 1 < count)
            load_queries<CM>(qs + (turn ^ 1) * TILE<CM>, os + (turn ^ 1) * TILE<CM>,
                             &their[turn ^ 1], dout, lse, delta, qkv, a, b, h,
                             at + tile * T);
        sent();
        arrived<1>();
        take<CM>(&x, ks);
        products<CM>(s, x, q);
        take<CM>(&x, vs);
        products<CM>(dp, x, o);
        cap<CAP>(s, a);
        if (!all_seen(a, first, at))
            hide_turned(s, own->from, first, at, row, false);
#pragma unroll
        for (int j = 0; j < TILES; j++) {
            const float2 its_lse = *(const float2 *)(own->lse + j * 8 + lane % 4 * 2);
            const float2 its_delta = *(const float2 *)(own->delta + j * 8 + lane % 4 * 2);
#pragma unroll
            for (int e = 0; e < 4; e++)
                one_grad<CAP>(&s[j][e], &dp[j][e], a, f,
                              LOG2E * (e % 2 == 0 ? its_lse.x : its_lse.y),
                              e % 2 == 0 ? its_delta.x : its_delta.y);
        }
        gather<CM>(dv, s, o);
        gather<CM>(dk, dp, q);
        __syncthreads();
    }
    size_t step = (a.heads + 2 * a.kv_heads) * c;
    half16 *to = dqkv + b * a.t * step;
    store<CM>(to + group * c, step, dk, at, a.t, c, a.scale);
    store<CM>(to + (group + a.kv_heads) * c, step, dv, at, a.t, c, 1.0f);
}

template <int CM, bool CAP>
static int launch_backward(cu_stream s, half16 *dqkv, const float *delta,
                           const half16 *dout, const float *lse, const half16 *qkv,
                           const cu_attn_shape *a)
{
    const auto attr = cudaFuncAttributeMaxDynamicSharedMemorySize;
    int bytes = 6 * TILE<CM> * (int)sizeof(half16);
    unsigned tiles = (unsigned)((a->t + T - 1) / T), b = (unsigned)a->b;
    dim3 queries(tiles, (unsigned)a->heads, b), keys(tiles, (unsigned)a->kv_heads, b);
    int err = cudaFuncSetAttribute(backward_q<CM, CAP>, attr, bytes);

    if (err == 0)
        err = cudaFuncSetAttribute(backward_k<CM, CAP>, attr, bytes);
    if (err != 0)
        return err;
    backward_q<CM, CAP><<<queries, THREADS, bytes, s>>>(dqkv, dout, lse, delta, qkv, *a);
    backward_k<CM, CAP><<<keys, THREADS, bytes, s>>>(dqkv, dout, lse, delta, qkv, *a);
    return cudaGetLastError();
}

int cu_attention_back_bf16(cu_stream s, void *dqkv, float *delta, const void *dout,
                           const void *out, const float *lse, const void *qkv,
                           const cu_attn_shape *a)
{
    size_t count = a->b * a->t * a->heads;
    const half16 *g = (const half16 *)dout, *in = (const half16 *)qkv;
    half16 *to = (half16 *)dqkv;

    deltas<<<(unsigned)((count * 4 + THREADS - 1) / THREADS), THREADS, 0, s>>>(
        delta, g, (const half16 *)out, *a);
    if (cu_hopper_serves(a))
        return cu_attention_back_hopper(s, dqkv, delta, (unsigned *)(delta + count), dout,
                                        lse, qkv, a);
#define LAUNCH(cm)                                                                         \
    (a->softcap != 0.0f ? launch_backward<cm, true>(s, to, delta, g, lse, in, a)           \
                        : launch_backward<cm, false>(s, to, delta, g, lse, in, a))
    if (a->head_dim <= 64)
        return LAUNCH(64);
    return a->head_dim <= 96 ? LAUNCH(96) : LAUNCH(128);
#undef LAUNCH
}
