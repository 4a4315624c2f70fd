/*
 * hopper_parts.cuh - what compute capability 9.0 alone has: copies of tiles by the copy
 * engine (TMA), barriers that wait for them, products of bf16 by warp groups (wgmma).
 *
 * A tile is 64 rows of C values, in shared memory C / 32 blocks [64][32], whose runs of 16
 * bytes change places by the row (a swizzle of 64 bytes), so that it serves as rows of a
 * product's summed index and, turned, as its columns.  Rows past the end of a sequence come
 * as zeros and are not written.
 *
 * 1. The registers of a product may be looked at only behind waited() and settle().
 * 2. Tiles lie at multiples of 512 bytes.
 */
#ifndef DRUPE_NN_CUDA_HOPPER_PARTS_CUH
#define DRUPE_NN_CUDA_HOPPER_PARTS_CUH

#include <cuda.h>
#include <stdint.h>

#include "nn/cuda/attention_parts.cuh"
#include "nn/cuda/mma_parts.cuh"

enum { GROUP = 128 }; /* threads of a warp group */

template <int C> constexpr unsigned TILE_BYTES = 64 * C * 2;
constexpr unsigned BLOCK_BYTES = 64 * 32 * 2;

__device__ static unsigned place_of(const void *p)
{
    return (unsigned)__cvta_generic_to_shared(p);
}

/* ---- barriers ---- */

__device__ static void barrier_init(uint64_t *bar, unsigned count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(place_of(bar)),
                 "r"(count));
}

/* Behind barrier_init, before __syncthreads. */
__device__ static void barriers_made(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
}

__device__ static void arrive(uint64_t *bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(place_of(bar))
                 : "memory");
}

/* Arrives, and has the barrier wait for so many bytes of copies. */
__device__ static void expect(uint64_t *bar, unsigned bytes)
{
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(place_of(bar)),
        "r"(bytes)
        : "memory");
}

/* Until the barrier's phase of that parity is over. */
__device__ static void await(uint64_t *bar, unsigned parity)
{
    unsigned done = 0;

    while (done == 0)
        asm volatile("{\n.reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n}\n"
                     : "=r"(done)
                     : "r"(place_of(bar)), "r"(parity)
                     : "memory");
}

/* Of one warp group. */
__device__ static void group_sync(int group)
{
    asm volatile("bar.sync %0, %1;\n" ::"r"(group + 1), "n"(GROUP + 0) : "memory");
}

/* Which warp group this is, known to be the same throughout a warp. */
__device__ static int group_of(void)
{
    return __shfl_sync(0xffffffffu, (int)threadIdx.x / GROUP, 0);
}

/* A whole warp group gives registers away, or takes what another gave. */
template <int count> __device__ static void registers_down(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(count));
}

template <int count> __device__ static void registers_up(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(count));
}

/* ---- copies ---- */

/* Soon needed. */
__device__ static void prefetch_map(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];\n" ::"l"(map) : "memory");
}

/* The tile whose first row is t of a head, by one thread. */
__device__ static void fetch_tile(unsigned to, const CUtensorMap *map, uint64_t *bar,
                                  size_t t, size_t head, size_t b)
{
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx"
                 "::bytes [%0], [%1, {%3, %4, %3, %5, %6}], [%2];\n" ::"r"(to),
                 "l"(map), "r"(place_of(bar)), "r"(0), "r"((unsigned)t),
                 "r"((unsigned)head), "r"((unsigned)b)
                 : "memory");
}

__device__ static void send_tile(const CUtensorMap *map, unsigned from, size_t t,
                                 size_t head, size_t b)
{
    asm volatile("cp.async.bulk.tensor.5d.global.shared::cta.tile.bulk_group [%0, {%2, %3, "
                 "%2, %4, %5}], [%1];\n" ::"l"(map),
                 "r"(from), "r"(0), "r"((unsigned)t), "r"((unsigned)head), "r"((unsigned)b)
                 : "memory");
}

/* What this thread has sent has been read. */
__device__ static void tiles_read(void)
{
    asm volatile("cp.async.bulk.commit_group;\n" ::: "memory");
    asm volatile("cp.async.bulk.wait_group.read 0;\n" ::: "memory");
}

/* The group's 64 rows, times scale, become bf16 and go from the tile at `at`, which is
 * overwritten, to where they belong. */
template <int C>
__device__ static void put_tile(const CUtensorMap *map, unsigned at,
                                const float v[C / 8][4], float scale, int group, size_t t,
                                size_t head, size_t b)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    int row = warp * 16 + lane / 8 % 2 * 8 + lane % 8;

#pragma unroll
    for (int j = 0; j < C / 8; j += 2) {
        int run = (j % 4 + lane / 16) ^ (row / 2 % 4);
        asm volatile(
            "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(
                at + j / 4 * BLOCK_BYTES + row * 64 + run * 16),
            "r"(pack(scale * v[j][0], scale * v[j][1])),
            "r"(pack(scale * v[j][2], scale * v[j][3])),
            "r"(pack(scale * v[j + 1][0], scale * v[j + 1][1])),
            "r"(pack(scale * v[j + 1][2], scale * v[j + 1][3]))
            : "memory");
    }
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
    group_sync(group);
    if (threadIdx.x % GROUP == 0)
        send_tile(map, at, t, head, b);
}

/* ---- products ---- */

__device__ static void ready(void)
{
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}

__device__ static void begun(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}

/* All but the last `behind` that were begun are done. */
template <int behind> __device__ static void waited(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(behind) : "memory");
}

/* What was multiplied into v is read behind this, not before. */
template <int N> __device__ static void settle(float (&v)[N][4])
{
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            asm volatile("" : "+f"(v[j][e])::"memory");
}

/*
 * What tells an instruction where an operand is, in units of 16 bytes: low halves, for a
 * tile whose columns are summed and for one whose rows are (blocks lie so far apart), and
 * the high half (eight rows do; a swizzle of 64 bytes).  Steps of the summed index are
 * added to the low half, which costs one instruction; the tensor cores wait for more.
 */
enum { BY_COLUMNS = 1 << 16, BY_ROWS = (int)(BLOCK_BYTES / 16) << 16 };
#define HIGH "0x80000020"

#define V4(v, j)  "+f"(v[j][0]), "+f"(v[j][1]), "+f"(v[j][2]), "+f"(v[j][3])
#define V16(v, j) V4(v, j), V4(v, j + 1), V4(v, j + 2), V4(v, j + 3)
#define V32(v, j) V16(v, j), V16(v, j + 4)
#define NAMES32                                                                            \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "     \
    "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES48                                                                            \
    NAMES32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "     \
            "%46, %47"
#define NAMES64                                                                            \
    NAMES48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "     \
            "%62, %63"

/* sum[64 x 64] = or += 16 of the columns of a times those of b. */
__device__ static void multiply_columns(float sum[8][4], unsigned a, unsigned b, int more)
{
    asm volatile("{\n.reg .pred p;\n.reg .b64 a, b;\nsetp.ne.b32 p, %34, 0;\n"
                 "mov.b64 a, {%32, " HIGH "};\nmov.b64 b, {%33, " HIGH "};\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NAMES32
                 "}, a, b, p, 1, 1, 0, 0;\n}\n"
                 : V32(sum, 0)
                 : "r"(a), "r"(b), "r"(more));
}

/* sum[64 x C] += the 16 columns in x times 16 rows of b. */
template <int C>
__device__ static void multiply_rows(float (&sum)[C / 8][4], const unsigned x[4],
                                     unsigned b)
{
#define PRODUCT(n, names, x0, x1, x2, x3, at, more, ...)                                   \
    asm volatile("{\n.reg .pred p;\n.reg .b64 b;\nsetp.ne.b32 p, " more ", 0;\n"           \
                 "mov.b64 b, {" at ", " HIGH "};\n"                                        \
                 "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" names         \
                 "}, {" x0 ", " x1 ", " x2 ", " x3 "}, b, p, 1, 1, 1;\n}\n"                \
                 : __VA_ARGS__                                                             \
                 : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(b), "r"(1))
    if constexpr (C == 64)
        PRODUCT("64", NAMES32, "%32", "%33", "%34", "%35", "%36", "%37", V32(sum, 0));
    else if constexpr (C == 96)
        PRODUCT("96", NAMES48, "%48", "%49", "%50", "%51", "%52", "%53", V32(sum, 0),
                V16(sum, 8));
    else
        PRODUCT("128", NAMES64, "%64", "%65", "%66", "%67", "%68", "%69", V32(sum, 0),
                V32(sum, 8));
#undef PRODUCT
}

/* sum[64 x 64] = the rows of tile a times those of tile b, begun. */
template <int C>
__device__ static void products_begin(float sum[8][4], unsigned a, unsigned b)
{
    const unsigned a0 = a / 16 + BY_COLUMNS, b0 = b / 16 + BY_COLUMNS;

#pragma unroll
    for (int k = 0; k < C / 16; k++) {
        const unsigned step = (k / 2 * BLOCK_BYTES + k % 2 * 32) / 16;
        multiply_columns(sum, a0 + step, b0 + step, k);
    }
    begun();
}

/* sum[64 x C] += p[64 x 64], packed, times tile b, begun. */
template <int C>
__device__ static void gather_begin(float (&sum)[C / 8][4], const unsigned p[4][4],
                                    unsigned b)
{
    const unsigned b0 = b / 16 + BY_ROWS;

#pragma unroll
    for (int k = 0; k < 4; k++)
        multiply_rows<C>(sum, p[k], b0 + k * 16 * 64 / 16);
    begun();
}

/* As a left operand. */
__device__ static void pack_tile(unsigned p[4][4], const float v[8][4])
{
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            p[k][i] = pack(v[2 * k + i / 2][i % 2 * 2], v[2 * k + i / 2][i % 2 * 2 + 1]);
}

#endif
