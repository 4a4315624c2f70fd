/*
 * attention_hopper.cu - attention of bf16 values by Hopper's warp groups (wgmma), of heads
 * of 64, 96 and 128 values; sums in floats.
 *
 * As attention_bf16.cu: tiles of 64 rows (hopper_parts.cuh); a warp group has 64 rows that
 * stay, and all groups of a block share the tiles that come by turns, by the copy engine,
 * into a ring.  Scores stay in registers.
 *
 *   forward: a group's queries stay, keys and values come.  The last warp to leave a tile
 *   has the next one brought into its place.  Two blocks on a multiprocessor where
 *   registers suffice: while one's groups soften, the other's multiply.
 *
 *   backward: one launch, whose blocks take pieces of work by turns (a counter, so who does
 *   what differs; what is done does not): first 128 keys and values that stay, to which
 *   queries come,
 *       S^T = K Q^T    dP^T = V dO^T    dV += P^T dO    dK += dS^T Q
 *   then 128 queries, to which keys come:
 *       S = Q K^T      dP = dO V^T      dQ += dS K
 *   the longest first.  A warp of its own brings tiles, those of the next piece while this
 *   one ends; its warp group leaves its registers to the others.  Scores are made twice, so
 *   that no sum's order varies.
 */
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "nn/cuda/attention_scores.cuh"
#include "nn/cuda/hopper_parts.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#    define HOPPER 1
#else
#    define HOPPER 0
#endif

/* Shared memory behind the first multiple of 1024. */
enum { ALIGN = 1024 };

__device__ [[maybe_unused]] static unsigned aligned(const void *room)
{
    return (place_of(room) + ALIGN - 1) / ALIGN * ALIGN;
}

/* ---- forward ---- */

/* Counts the warps that have left a tile; was this one the last of `all`?  They have read,
 * and have written nothing that another must see, so no order is asked for. */
__device__ [[maybe_unused]] static bool last_to_leave(unsigned *left, unsigned all)
{
    unsigned before;

    asm volatile("atom.relaxed.cta.shared::cta.add.u32 %0, [%1], 1;\n"
                 : "=r"(before)
                 : "r"(place_of(left))
                 : "memory");
    return before % all == all - 1;
}

/* Keys and values that come by turns. */
template <int C, int STAGES> struct ring {
    unsigned keys, values; /* their tiles */
    uint64_t *k_full, *v_full;
    const CUtensorMap *map;
    unsigned begin, group, groups, b;

    /* Tile n into place stage. */
    __device__ void bring(unsigned n, unsigned stage) const
    {
        expect(&k_full[stage], TILE_BYTES<C>);
        fetch_tile(keys + stage * TILE_BYTES<C>, map, &k_full[stage], begin + n * T, group,
                   b);
        expect(&v_full[stage], TILE_BYTES<C>);
        fetch_tile(values + stage * TILE_BYTES<C>, map, &v_full[stage], begin + n * T,
                   group + groups, b);
    }
};

/* Rows' scores become probabilities, but for a factor of each row: powers above that of
 * top, which follows the highest score only where that is far above it, so that o has
 * seldom to follow.  sum, too, follows top; it is this thread's part. */
template <int C>
__device__ static void soften_lazily(float s[TILES][4], float f, float top[2], float sum[2],
                                     float o[C / 8][4])
{
    constexpr float FAR = 8.0f; /* probabilities are at most 2^8 */
    float high[2];
    bool far = false;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        high[half] = s[0][half * 2];
#pragma unroll
        for (int j = 0; j < TILES; j++)
            high[half] = fmaxf(high[half], fmaxf(s[j][half * 2], s[j][half * 2 + 1]));
        high[half] = across(high[half], true);
        far |= high[half] * f > top[half] * f + FAR;
    }
    if (__any_sync(0xffffffffu, far)) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float now = fmaxf(top[half], high[half]);
            float shrink = now == -INFINITY ? 1.0f : power((top[half] - now) * f);
            top[half] = now;
            sum[half] *= shrink;
#pragma unroll
            for (int j = 0; j < C / 8; j++) {
                o[j][half * 2] *= shrink;
                o[j][half * 2 + 1] *= shrink;
            }
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float base = top[half] == -INFINITY ? 0.0f : top[half] * f, part = 0;
#pragma unroll
        for (int j = 0; j < TILES; j++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float *x = &s[j][half * 2 + e];
                *x = power(*x * f - base);
                part += *x;
            }
        sum[half] += part;
    }
}

template <int C, bool CAP, int GROUPS, int STAGES, int BLOCKS>
__global__ static void __launch_bounds__(GROUPS *GROUP, BLOCKS)
    forward(const __grid_constant__ CUtensorMap qkv,
            const __grid_constant__ CUtensorMap out, float *lse, cu_attn_shape a)
{
#if HOPPER
    constexpr unsigned ROWS = GROUPS * T;
    static_assert(STAGES >= GROUPS, "a group leaves the last tiles unread");
    extern __shared__ unsigned char room[];
    __shared__ uint64_t q_full, k_full[STAGES], v_full[STAGES];
    __shared__ unsigned left[STAGES];
    const unsigned heads = (unsigned)a.heads, hb = heads * (unsigned)a.b;
    const unsigned first = (gridDim.x - 1 - blockIdx.x) / hb * ROWS;
    const unsigned h = blockIdx.x % hb % heads, b = blockIdx.x % hb / heads;
    const unsigned count = (unsigned)a.t, end = first + ROWS < count ? first + ROWS : count;
    const bool bounded = a.window != 0 || a.starts != NULL;
    const unsigned begin = bounded ? (unsigned)first_key(a, b, first) / T * T : 0;
    const unsigned tiles = (end - begin + T - 1) / T, qs = aligned(room);
    const ring<C, STAGES> ring = {qs + GROUPS * TILE_BYTES<C>,
                                  qs + (GROUPS + STAGES) * TILE_BYTES<C>,
                                  k_full,
                                  v_full,
                                  &qkv,
                                  begin,
                                  heads + h / (heads / (unsigned)a.kv_heads),
                                  (unsigned)a.kv_heads,
                                  b};

    if (threadIdx.x == 0) {
        barrier_init(&q_full, 1);
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&k_full[i], 1);
            barrier_init(&v_full[i], 1);
            left[i] = 0;
        }
        barriers_made();
        expect(&q_full, GROUPS * TILE_BYTES<C>);
        for (int i = 0; i < GROUPS; i++)
            fetch_tile(qs + i * TILE_BYTES<C>, &qkv, &q_full, first + i * T, h, b);
        for (unsigned n = 0; n < STAGES && n < tiles; n++)
            ring.bring(n, n);
        prefetch_map(&out);
    }
    const int group = group_of(), lane = threadIdx.x % 32;
    const unsigned own = first + group * T, q = qs + group * TILE_BYTES<C>;
    const unsigned row = first + threadIdx.x / 32 * 16 + lane / 4;
    const unsigned mine = own + T < end ? (own + T - begin) / T : tiles;
    const float f = factor<CAP>(a);
    float o[C / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {}, s[TILES][4];
    unsigned from[2] = {}, stage = 0, turn = 0;
    for (int i = 0; i < 2 && bounded; i++)
        if (row + i * 8 < count)
            from[i] = (unsigned)first_key(a, b, row + i * 8);
    __syncthreads();
    await(&q_full, 0);
    await(&k_full[0], 0);
    ready();
    products_begin<C>(s, q, ring.keys);
    waited<0>();
    settle(s);
    for (unsigned n = 0; n < mine; n++) {
        const unsigned next = stage + 1 < STAGES ? stage + 1 : 0, at = begin + n * T;
        unsigned p[4][4];
        cap<CAP>(s, a);
        if (bounded || at + T > own)
            hide(s, from[0], from[1], row, at);
        soften_lazily<C>(s, f, top, sum, o);
        pack_tile(p, s);
        await(&v_full[stage], turn);
        ready();
        gather_begin<C>(o, p, ring.values + stage * TILE_BYTES<C>);
        turn ^= next == 0;
        if (n + 1 < mine) {
            await(&k_full[next], turn);
            ready();
            products_begin<C>(s, q, ring.keys + next * TILE_BYTES<C>);
        }
        waited<0>();
        settle(o);
        settle(s);
        if (n + STAGES < tiles && lane == 0 && last_to_leave(&left[stage], GROUPS * 4))
            ring.bring(n + STAGES, stage);
        __syncwarp();
        stage = next;
    }
#    pragma unroll
    for (int half = 0; half < 2; half++) {
        const unsigned t = row + half * 8;
        const float all = across(sum[half], false), share = __fdividef(1.0f, all);
        for (int j = 0; j < C / 8; j++) {
            o[j][half * 2] *= share;
            o[j][half * 2 + 1] *= share;
        }
        if (lse != NULL && lane % 4 == 0 && t < count)
            lse[((size_t)b * heads + h) * count + t] = top[half] * f * LN2 + logf(all);
    }
    group_sync(group); /* all of them have read the queries */
    if (own < count)
        put_tile<C>(&out, q, o, 1.0f, group, own, h, b);
    if (threadIdx.x % GROUP == 0)
        tiles_read();
#endif
}

/* ---- backward ---- */

enum { PAIR = 2, STAY = PAIR * T, SLOTS = 2, BACK = (PAIR + 1) * GROUP };

/* Registers of a thread: as launched (what 65536 leave to each, a multiple of 8), then of
 * the group that brings tiles and of those that multiply.  What is not there is waited for
 * without end. */
enum { LAUNCHED = 65536 / BACK / 8 * 8, FEW = 24, MANY = 240 };
static_assert(FEW + PAIR * MANY <= (PAIR + 1) * LAUNCHED, "registers that nobody gives");

/* A piece of work: rows at .. at + 127 stay, of the keys and values of head (of kv_heads)
 * or of the queries of head and their gradients; tiles of the others come, from `begin`. */
struct piece {
    bool keys;
    unsigned at, head, b, begin;
    unsigned tiles; /* of each head that comes */
};

/* The n-th piece; one warp finds out which tiles come. */
__device__ [[maybe_unused]] static piece piece_of(const cu_attn_shape &a, unsigned n)
{
    const unsigned t = (unsigned)a.t, all = (t + STAY - 1) / STAY, b = (unsigned)a.b;
    const bool keys = n < all * (unsigned)a.kv_heads * b;
    const unsigned heads = (unsigned)(keys ? a.kv_heads : a.heads), lane = threadIdx.x % 32;
    piece p = {};

    if (!keys)
        n -= all * (unsigned)a.kv_heads * b;
    p.keys = keys;
    p.at = n / (heads * b) * STAY;
    if (!keys)
        p.at = (all - 1) * STAY - p.at;
    p.head = n % (heads * b) % heads;
    p.b = n % (heads * b) / heads;
    const unsigned last = p.at + STAY - 1; /* of the rows that stay */
    if (!keys) {
        p.begin = (unsigned)first_key(a, p.b, p.at) / T * T;
        p.tiles = ((last < t ? last + 1 : t) - p.begin + T - 1) / T;
        return p;
    }
    p.begin = p.at;
    p.tiles = (t - p.at + T - 1) / T;
    if (a.window == 0 && a.starts == NULL)
        return p;
    unsigned seen = 0;
    for (unsigned i = lane; i < p.tiles; i += 32) /* first keys never fall */
        seen += first_key(a, p.b, p.at + i * T) <= last;
    p.tiles = __reduce_add_sync(0xffffffffu, seen);
    return p;
}

template <int STAGES> struct backward_room {
    uint64_t here[SLOTS], free[SLOTS], full[STAGES], empty[STAGES];
    piece now[SLOTS];
    bool over[SLOTS];
    scalars of[STAGES];
};

struct backward_maps {
    CUtensorMap qkv, dout, dqkv;
};

struct backward_args {
    const float *lse, *delta;
    unsigned *counter; /* of pieces that have been taken up */
    unsigned pieces;
};

/* Where the tiles are: those that stay [SLOTS][2][PAIR], those that come [STAGES][2]. */
template <int C> __device__ static unsigned stays(unsigned room, int slot, int which, int i)
{
    return room + ((slot * 2 + which) * PAIR + i) * TILE_BYTES<C>;
}

template <int C> __device__ static unsigned comes(unsigned room, int stage, int which)
{
    return room + (SLOTS * 2 * PAIR + stage * 2 + which) * TILE_BYTES<C>;
}

/* The warp that brings tiles. */
template <int C, int STAGES>
__device__ static void make(backward_room<STAGES> *to, unsigned room,
                            const backward_maps &maps, const backward_args &x,
                            const cu_attn_shape &a)
{
    const unsigned lane = threadIdx.x % 32, each = (unsigned)a.heads / (unsigned)a.kv_heads;
    unsigned stage = 0, turn = 1, next = lane == 0 ? atomicAdd(x.counter, 1u) : 0;

    for (unsigned n = 0;; n++) {
        const int slot = n % SLOTS;
        const unsigned taken = __shfl_sync(0xffffffffu, next, 0);
        if (lane == 0 && taken < x.pieces)
            next = atomicAdd(x.counter, 1u);
        await(&to->free[slot], n / SLOTS % 2 ^ 1);
        if (taken >= x.pieces) {
            if (lane == 0) {
                to->over[slot] = true;
                arrive(&to->here[slot]);
            }
            return;
        }
        const piece p = piece_of(a, taken);
        const unsigned group = (unsigned)a.heads + p.head / (p.keys ? 1 : each);
        if (lane == 0) {
            to->now[slot] = p;
            to->over[slot] = false;
            expect(&to->here[slot], 2 * PAIR * TILE_BYTES<C>);
            for (int i = 0; i < PAIR; i++) {
                unsigned t = p.at + i * T;
                fetch_tile(stays<C>(room, slot, 0, i), &maps.qkv, &to->here[slot], t,
                           p.keys ? group : p.head, p.b);
                fetch_tile(stays<C>(room, slot, 1, i), p.keys ? &maps.qkv : &maps.dout,
                           &to->here[slot], t, p.keys ? group + a.kv_heads : p.head, p.b);
            }
        }
        for (unsigned k = 0, h = 0, tile = 0; k < p.tiles * (p.keys ? each : 1); k++) {
            unsigned t = p.begin + tile * T, head = p.keys ? p.head * each + h : group;
            float lse[2], delta[2];
            unsigned from[2];
            for (int i = 0; i < 2 && p.keys; i++) {
                unsigned own = t + lane + i * 32;
                size_t at = (p.b * a.heads + head) * a.t + own;
                bool there = own < a.t;
                lse[i] = there ? x.lse[at] * LOG2E : INFINITY;
                delta[i] = there ? x.delta[at] : 0.0f;
                from[i] = there ? (unsigned)first_key(a, p.b, own) : 0xffffffffu;
            }
            await(&to->empty[stage], turn);
            for (int i = 0; i < 2 && p.keys; i++) {
                to->of[stage].lse[lane + i * 32] = lse[i];
                to->of[stage].delta[lane + i * 32] = delta[i];
                to->of[stage].from[lane + i * 32] = from[i];
            }
            __syncwarp();
            if (lane == 0) {
                expect(&to->full[stage], 2 * TILE_BYTES<C>);
                fetch_tile(comes<C>(room, stage, 0), &maps.qkv, &to->full[stage], t, head,
                           p.b);
                fetch_tile(comes<C>(room, stage, 1), p.keys ? &maps.dout : &maps.qkv,
                           &to->full[stage], t, p.keys ? head : group + a.kv_heads, p.b);
            }
            tile = tile + 1 < p.tiles ? tile + 1 : 0;
            h += tile == 0;
            stage = stage + 1 < STAGES ? stage + 1 : 0;
            turn ^= stage == 0;
        }
    }
}

/* What a warp group knows of its place. */
struct seat {
    unsigned room;
    int group, slot;
    unsigned stage, turn; /* of the tile that comes next */
};

/* What a thread needs of queries: of its columns' (KEYS) or of its two rows'. */
template <bool KEYS> struct by_query {
    float2 of[KEYS ? TILES : 1];

    __device__ void take(const float *from)
    {
#pragma unroll
        for (int j = 0; j < TILES && KEYS; j++)
            of[j] = *(const float2 *)(from + j * 8 + threadIdx.x % 4 * 2);
    }

    __device__ float at(int j, int e) const
    {
        const float2 &x = of[KEYS ? j : 0];

        return (KEYS ? e % 2 : e / 2) == 0 ? x.x : x.y;
    }
};

/* Scores become probabilities; with CAP slope gets the cap's derivative. */
template <bool CAP, bool KEYS>
__device__ static void probabilities(float s[TILES][4], float slope[TILES][4],
                                     const cu_attn_shape &a, float f,
                                     const by_query<KEYS> &lse)
{
#pragma unroll
    for (int j = 0; j < TILES; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            float score = s[j][e], part = score / a.softcap;
            if (CAP)
                slope[j][e] = score != -INFINITY ? 1.0f - part * part : 0.0f;
            s[j][e] = power(score * f - lse.at(j, e));
        }
}

/* dp becomes the scores' gradient, but for the scale. */
template <bool CAP, bool KEYS>
__device__ static void gradients(float dp[TILES][4], const float p[TILES][4],
                                 const float slope[TILES][4], const by_query<KEYS> &delta)
{
#pragma unroll
    for (int j = 0; j < TILES; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            dp[j][e] = p[j][e] * (dp[j][e] - delta.at(j, e));
            if (CAP)
                dp[j][e] *= slope[j][e];
        }
}

/* v, rows from t on, turned back by their positions: columns and those half a head on. */
template <int C>
__device__ static void turn_back(float v[C / 8][4], const cu_attn_shape &a, size_t b,
                                 size_t t)
{
    constexpr int HALF = C / 2;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        size_t r = t + half * 8 < a.t ? t + half * 8 : 0;
        size_t at = (r - (a.starts != NULL ? a.starts[b * a.t + r] : 0)) * HALF;
#pragma unroll
        for (int j = 0; j < HALF / 8; j++) {
            float2 c = *(const float2 *)(a.cos + at + j * 8 + threadIdx.x % 4 * 2);
            float2 s = *(const float2 *)(a.sin + at + j * 8 + threadIdx.x % 4 * 2);
            float *lo = &v[j][half * 2], *hi = &v[j + HALF / 8][half * 2];
            float lo0 = lo[0], lo1 = lo[1];
            lo[0] = lo0 * c.x + hi[0] * s.x;
            lo[1] = lo1 * c.y + hi[1] * s.y;
            hi[0] = hi[0] * c.x - lo0 * s.x;
            hi[1] = hi[1] * c.y - lo1 * s.y;
        }
    }
}

/* A warp has read a tile that came; -1: none. */
template <int STAGES>
__device__ static void leave(backward_room<STAGES> *x, int stage, unsigned lane)
{
    if (stage >= 0 && lane == 0)
        arrive(&x->empty[stage]);
    __syncwarp();
}

/* A piece's products, for a warp group: sum gets dK or dQ, but for the scale, dv dV. */
template <int C, bool CAP, bool KEYS, int STAGES>
__device__ static void multiply_piece(float (&sum)[C / 8][4], float (&dv)[C / 8][4],
                                      backward_room<STAGES> *x, seat *at, const piece &p,
                                      by_query<KEYS> lse, by_query<KEYS> delta,
                                      const unsigned *from, const cu_attn_shape &a)
{
    constexpr bool EARLY = C <= 96; /* registers suffice */
    const unsigned a0 = stays<C>(at->room, at->slot, 0, at->group);
    const unsigned a1 = stays<C>(at->room, at->slot, 1, at->group);
    const unsigned each = KEYS ? (unsigned)a.heads / (unsigned)a.kv_heads : 1;
    const unsigned lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
    const unsigned own = p.at + at->group * T;
    const bool bounded = a.window != 0 || a.starts != NULL;
    const float f = factor<CAP>(a);
    int held = -1; /* the tile before, which may still be read */

    for (unsigned k = 0, tile = 0; k < p.tiles * each; k++) {
        const unsigned stage = at->stage, t = p.begin + tile * T;
        const unsigned b0 = comes<C>(at->room, stage, 0), b1 = comes<C>(at->room, stage, 1);
        const scalars *by = &x->of[stage];
        float s[TILES][4], dp[TILES][4], slope[CAP ? TILES : 1][4];
        unsigned packed[4][4], grads[4][4];
        await(&x->full[stage], at->turn);
        tile = tile + 1 < p.tiles ? tile + 1 : 0;
        at->stage = stage + 1 < STAGES ? stage + 1 : 0;
        at->turn ^= at->stage == 0;
        if (KEYS ? t + T <= own : t >= own + T) { /* none of it is seen */
            waited<0>();
            leave(x, held, lane);
            leave(x, (int)stage, lane);
            held = -1;
            continue;
        }
        if (EARLY)
            lse.take(by->lse);
        ready();
        products_begin<C>(s, a0, b0);
        products_begin<C>(dp, a1, b1);
        waited<1>();
        settle(s);
        leave(x, held, lane);
        held = (int)stage;
        cap<CAP>(s, a);
        if (KEYS && (bounded || t < own + T))
            hide_turned(s, by->from, t, p.at, row, !bounded);
        if (!KEYS && (bounded || t + T > own))
            hide(s, from[0], from[1], p.at + row, t);
        if (!EARLY)
            lse.take(by->lse);
        probabilities<CAP, KEYS>(s, slope, a, f, lse);
        if (KEYS) {
            pack_tile(packed, s);
            ready();
            gather_begin<C>(dv, packed, b1);
            delta.take(by->delta);
            waited<1>();
        } else {
            waited<0>();
        }
        settle(dp);
        gradients<CAP, KEYS>(dp, s, slope, delta);
        pack_tile(grads, dp);
        ready();
        gather_begin<C>(sum, grads, b0);
    }
    waited<0>();
    settle(sum);
    if (KEYS)
        settle(dv);
    leave(x, held, lane);
}

/* A piece, for a warp group: products, and results to where they belong. */
template <int C, bool CAP, bool KEYS, int STAGES>
__device__ static void do_piece(backward_room<STAGES> *x, seat *at,
                                const backward_maps &maps, const backward_args &args,
                                const cu_attn_shape &a)
{
    const piece p = x->now[at->slot];
    const unsigned own = p.at + at->group * T;
    const unsigned t = own + threadIdx.x % GROUP / 32 * 16 + threadIdx.x % 32 / 4;
    float sum[C / 8][4] = {}, dv[C / 8][4] = {};
    by_query<KEYS> lse = {}, delta = {};
    unsigned from[2] = {};

    for (int i = 0; i < 2 && !KEYS; i++) {
        size_t mine = t + i * 8, n = (p.b * a.heads + p.head) * a.t + mine;
        bool there = mine < a.t;
        (i == 0 ? lse.of[0].x : lse.of[0].y) = there ? args.lse[n] * LOG2E : INFINITY;
        (i == 0 ? delta.of[0].x : delta.of[0].y) = there ? args.delta[n] : 0.0f;
        from[i] = there ? (unsigned)first_key(a, p.b, mine) : 0;
    }
    multiply_piece<C, CAP, KEYS>(sum, dv, x, at, p, lse, delta, from, a);
    const unsigned head = KEYS ? (unsigned)a.heads + p.head : p.head;
    const unsigned to = stays<C>(at->room, at->slot, 0, at->group);
    if (a.cos != NULL)
        turn_back<C>(sum, a, p.b, t);
    group_sync(at->group); /* all of them have read what stayed */
    if (own < a.t) {
        put_tile<C>(&maps.dqkv, to, sum, a.scale, at->group, own, head, p.b);
        if (KEYS)
            put_tile<C>(&maps.dqkv, to + PAIR * TILE_BYTES<C>, dv, 1.0f, at->group, own,
                        head + (unsigned)a.kv_heads, p.b);
    }
    if (threadIdx.x % GROUP == 0) {
        tiles_read();
        arrive(&x->free[at->slot]);
    }
    __syncwarp();
}

template <int C, bool CAP, int STAGES>
__global__ static void __launch_bounds__(BACK, 1)
    backward(const __grid_constant__ backward_maps maps, backward_args args,
             cu_attn_shape a)
{
#if HOPPER
    extern __shared__ unsigned char room[];
    __shared__ backward_room<STAGES> x;
    seat at = {aligned(room), group_of(), 0, 0, 0};

    if (threadIdx.x == 0) {
        for (int i = 0; i < SLOTS; i++) {
            barrier_init(&x.here[i], 1);
            barrier_init(&x.free[i], PAIR);
        }
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&x.full[i], 1);
            barrier_init(&x.empty[i], PAIR * 4);
        }
        barriers_made();
        prefetch_map(&maps.qkv);
        prefetch_map(&maps.dout);
        prefetch_map(&maps.dqkv);
    }
    __syncthreads();
    if (at.group == PAIR) {
        registers_down<FEW>();
        if (threadIdx.x < PAIR * GROUP + 32)
            make<C, STAGES>(&x, at.room, maps, args, a);
    } else {
        registers_up<MANY>();
        for (unsigned n = 0;; n++) {
            at.slot = n % SLOTS;
            await(&x.here[at.slot], n / SLOTS % 2);
            if (x.over[at.slot])
                break;
            if (x.now[at.slot].keys)
                do_piece<C, CAP, true>(&x, &at, maps, args, a);
            else
                do_piece<C, CAP, false>(&x, &at, maps, args, a);
        }
    }
#endif
}

/* ---- launching ---- */

/* heads of c values in rows of as many, as tiles. */
static int make_map(CUtensorMap *map, const void *p, const cu_attn_shape *a, size_t heads)
{
    typedef decltype(&cuTensorMapEncodeTiled) encoder;
    const cuuint64_t c = a->head_dim, row = heads * c * sizeof(half16);
    const cuuint64_t dims[] = {32, a->t, c / 32, heads, a->b};
    const cuuint64_t steps[] = {row, 64, c * sizeof(half16), a->t * row};
    const cuuint32_t box[] = {32, T, (cuuint32_t)c / 32, 1, 1}, one[] = {1, 1, 1, 1, 1};
    cudaDriverEntryPointQueryResult found;
    void *fn = NULL;
    int err = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &fn, 12000,
                                               cudaEnableDefault, &found);

    if (err != 0 || fn == NULL)
        return err != 0 ? err : cudaErrorNotSupported;
    return ((encoder)fn)(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 5, (void *)p, dims, steps,
                         box, one, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_64B,
                         CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                         CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS
               ? 0
               : cudaErrorInvalidValue;
}

static int give_room(const void *kernel, unsigned bytes)
{
    int err = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   (int)bytes);

    if (err == 0)
        err = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                   cudaSharedmemCarveoutMaxShared);
    return err;
}

template <int C, bool CAP>
static int launch_forward(cu_stream s, half16 *out, float *lse, const half16 *qkv,
                          const cu_attn_shape *a)
{
    constexpr int GROUPS = C > 96 ? 3 : 2, BLOCKS = C > 96 ? 1 : 2, STAGES = 3;
    constexpr unsigned bytes = (GROUPS + 2 * STAGES) * TILE_BYTES<C> + ALIGN;
    const auto kernel = forward<C, CAP, GROUPS, STAGES, BLOCKS>;
    size_t tiles = (a->t + GROUPS * T - 1) / (GROUPS * T);
    CUtensorMap from, to;
    int err = give_room((const void *)kernel, bytes);

    if (err == 0)
        err = make_map(&from, qkv, a, a->heads + 2 * a->kv_heads);
    if (err == 0)
        err = make_map(&to, out, a, a->heads);
    if (err != 0)
        return err;
    kernel<<<(unsigned)(tiles * a->heads * a->b), GROUPS * GROUP, bytes, s>>>(from, to, lse,
                                                                              *a);
    return cudaGetLastError();
}

template <int C, bool CAP>
static int launch_backward(cu_stream s, half16 *dqkv, const backward_args *x,
                           const half16 *dout, const half16 *qkv, const cu_attn_shape *a)
{
    constexpr int STAGES = C > 96 ? 2 : 4;
    constexpr unsigned bytes = (SLOTS * PAIR + STAGES) * 2 * TILE_BYTES<C> + ALIGN;
    const auto kernel = backward<C, CAP, STAGES>;
    size_t all = a->heads + 2 * a->kv_heads;
    backward_args args = *x;
    backward_maps maps;
    int err = give_room((const void *)kernel, bytes), device = 0, count = 0;

    if (err == 0)
        err = make_map(&maps.qkv, qkv, a, all);
    if (err == 0)
        err = make_map(&maps.dout, dout, a, a->heads);
    if (err == 0)
        err = make_map(&maps.dqkv, dqkv, a, all);
    if (err == 0)
        err = cudaGetDevice(&device);
    if (err == 0)
        err = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    if (err != 0)
        return err;
    args.pieces = (unsigned)((a->t + STAY - 1) / STAY * (a->heads + a->kv_heads) * a->b);
    if (args.pieces < (unsigned)count)
        count = (int)args.pieces;
    kernel<<<(unsigned)count, BACK, bytes, s>>>(maps, args, *a);
    return cudaGetLastError();
}

/* Compiled for this GPU, and of a size that is served? */
bool cu_hopper_serves(const cu_attn_shape *a)
{
#ifdef CU_SM90A
    cudaFuncAttributes f;
    size_t c = a->head_dim;

    return (c == 64 || c == 96 || c == 128) &&
           cudaFuncGetAttributes(&f, backward<96, false, 4>) == cudaSuccess &&
           f.binaryVersion == 90;
#else
    (void)a;
    return false;
#endif
}

#define LAUNCH(which, ...)                                                                 \
    switch (a->head_dim + (a->softcap != 0.0f)) {                                          \
    case 64:                                                                               \
        return which<64, false>(__VA_ARGS__);                                              \
    case 65:                                                                               \
        return which<64, true>(__VA_ARGS__);                                               \
    case 96:                                                                               \
        return which<96, false>(__VA_ARGS__);                                              \
    case 97:                                                                               \
        return which<96, true>(__VA_ARGS__);                                               \
    case 128:                                                                              \
        return which<128, false>(__VA_ARGS__);                                             \
    default:                                                                               \
        return which<128, true>(__VA_ARGS__);                                              \
    }

int cu_attention_hopper(cu_stream s, void *out, float *lse, const void *qkv,
                        const cu_attn_shape *a)
{
    LAUNCH(launch_forward, s, (half16 *)out, lse, (const half16 *)qkv, a)
}

int cu_attention_back_hopper(cu_stream s, void *dqkv, const float *delta, unsigned *counter,
                             const void *dout, const float *lse, const void *qkv,
                             const cu_attn_shape *a)
{
    const backward_args x = {lse, delta, counter, 0};

    LAUNCH(launch_backward, s, (half16 *)dqkv, &x, (const half16 *)dout,
           (const half16 *)qkv, a)
}
