/*
 * integers.cu - products of 8-bit integers, with the bytes of ref_i8.c.
 *
 * Codes lie in rows of the summed index.  A block of threads makes 128 x 128 of the result:
 * for each 128 of k both operands' codes come into shared memory, two such steps ahead of
 * the one that is multiplied (mma m16n8k32, exact in 32 bits); then each sum becomes a
 * float, is scaled and added, in the order and with the roundings that nn_i8.h fixes:
 * nothing is fused.
 *
 * 8 warps as 4 x 2, each 32 x 64, two blocks on a multiprocessor: while one warp scales,
 * others multiply.  The eight runs of 16 bytes of a row in shared memory change places by
 * the row's number, so that eight rows' runs of one column lie in different banks.
 */
#include <cuda_runtime.h>

#include "nn/cuda/cuda_kernels.h"

enum {
    BLOCK = 128, /* NN_I8_BLOCK */
    TOP = 127,
    STRIP = 96, /* NN_GRAM_STRIP */
    TILE = 128,
    THREADS = 256,
    RUN = 16,            /* bytes that change places together */
    STAGES = 3,          /* steps of k in shared memory */
    STAGE = TILE * BLOCK /* bytes of one operand in one of them */
};

/* ---- codes ---- */

/* The scale of a block from its largest magnitude, and what values are multiplied by. */
__device__ static float scale_of(float max, float *inverse)
{
    *inverse = 0.0f;
    if (!(max < INFINITY))
        return NAN;
    if (max < 1e-30f)
        return 0.0f;
    *inverse = __fdiv_rn((float)TOP, max);
    return __fdiv_rn(max, (float)TOP);
}

/* Ordered so that a NaN is the largest. */
__device__ static float larger(float a, float b)
{
    unsigned x = __float_as_uint(a) & 0x7fffffffu, y = __float_as_uint(b) & 0x7fffffffu;

    return __uint_as_float(x > y ? x : y);
}

__device__ static int8_t code(float x, float inverse)
{
    return inverse == 0.0f ? (int8_t)0 : (int8_t)__float2int_rn(__fmul_rn(x, inverse));
}

/* A warp for each block of a row. */
__global__ static void code_rows(cu_codes to, const float *x)
{
    size_t block = blockIdx.x, row = (size_t)blockIdx.y * (THREADS / 32) + threadIdx.x / 32;
    size_t lane = threadIdx.x % 32;
    float v[4], max = 0, inverse;

    if (row >= to.n)
        return;
    for (int i = 0; i < 4; i++) {
        size_t k = block * BLOCK + lane * 4 + i;
        v[i] = k < to.k ? x[row * to.k + k] : 0.0f;
        max = larger(max, v[i]);
    }
    for (int i = 16; i > 0; i /= 2)
        max = larger(max, __shfl_xor_sync(0xffffffffu, max, i));
    float scale = scale_of(max, &inverse);
    char4 c = make_char4(code(v[0], inverse), code(v[1], inverse), code(v[2], inverse),
                         code(v[3], inverse));
    if (block * BLOCK + lane * 4 < to.ld)
        *(char4 *)(to.codes + row * to.ld + block * BLOCK + lane * 4) = c;
    if (lane == 0)
        to.scales[block * to.wide + row] = scale;
}

int cu_code_rows(cu_stream s, const cu_codes *to, const float *x)
{
    const size_t each = THREADS / 32, most = 65535;
    unsigned blocks = (unsigned)((to->k + BLOCK - 1) / BLOCK);

    for (size_t row = 0; row < to->n; row += each * most) {
        cu_codes part = *to;
        part.codes += row * to->ld;
        part.scales += row;
        part.n = to->n - row < each * most ? to->n - row : each * most;
        dim3 grid(blocks, (unsigned)((part.n + each - 1) / each));
        code_rows<<<grid, THREADS, 0, s>>>(part, x + row * to->k);
    }
    return cudaGetLastError();
}

/* 32 columns by a block of 128 of k; 8 threads share a column. */
__global__ static void code_columns(cu_codes to, const float *x)
{
    __shared__ float tile[BLOCK][33];
    __shared__ float maxes[8][32];
    size_t col = (size_t)blockIdx.y * 32, block = blockIdx.x;
    size_t lane = threadIdx.x % 32, part = threadIdx.x / 32;
    float max = 0, inverse;

    for (size_t r = part; r < BLOCK; r += 8) {
        size_t k = block * BLOCK + r;
        bool there = k < to.k && col + lane < to.n;
        tile[r][lane] = there ? x[k * to.n + col + lane] : 0.0f;
        max = larger(max, tile[r][lane]);
    }
    maxes[part][lane] = max;
    __syncthreads();
    /* now a thread has 16 codes of column threadIdx.x / 8 */
    size_t own = threadIdx.x / 8, run = threadIdx.x % 8 * 16;
    max = maxes[0][own];
    for (int i = 1; i < 8; i++)
        max = larger(max, maxes[i][own]);
    float scale = scale_of(max, &inverse);
    if (col + own >= to.n)
        return;
    if (run == 0)
        to.scales[block * to.wide + col + own] = scale;
    for (size_t i = run; i < run + 16 && block * BLOCK + i < to.ld; i += 4) {
        char4 c =
            make_char4(code(tile[i][own], inverse), code(tile[i + 1][own], inverse),
                       code(tile[i + 2][own], inverse), code(tile[i + 3][own], inverse));
        *(char4 *)(to.codes + (col + own) * to.ld + block * BLOCK + i) = c;
    }
}

int cu_code_columns(cu_stream s, const cu_codes *to, const float *x)
{
    dim3 grid((unsigned)((to->k + BLOCK - 1) / BLOCK), (unsigned)((to->n + 31) / 32));

    code_columns<<<grid, THREADS, 0, s>>>(*to, x);
    return cudaGetLastError();
}

/* ---- products ---- */

/* Where results go. */
struct target {
    float *y;
    size_t ldy, n; /* n: columns; of a Gram matrix its side */
    bool strips, acc;
    const float *bias;

    /* NULL: nothing is kept there. */
    __device__ float *at(size_t i, size_t j) const
    {
        if (!strips)
            return y + i * ldy + j;
        size_t s = i / STRIP, end = (s + 1) * STRIP < n ? (s + 1) * STRIP : n;
        size_t before = (size_t)STRIP * STRIP * (s * (s + 1) / 2);
        return j < end ? y + before + (i - s * STRIP) * end + j : NULL;
    }
};

template <int BYTES>
__device__ static void copy_async(void *to, const void *from, bool there)
{
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    int bytes = there ? BYTES : 0; /* the rest is zeros */

    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(at), "l"(from),
                 "n"(BYTES), "r"(bytes));
}

/* Where byte k of a row is in an operand's stage. */
__device__ static int place(int row, int k)
{
    return row * BLOCK + ((k / RUN ^ (row & 7)) * RUN | k % RUN);
}

/* Codes of rows first .. first + 127, one block of k. */
template <int BYTES>
__device__ static void fetch(int8_t *to, const cu_codes &c, size_t first, size_t block)
{
    constexpr int PER = BLOCK / BYTES;

#pragma unroll
    for (int i = threadIdx.x; i < TILE * PER; i += THREADS) {
        int row = i / PER, k = i % PER * BYTES;
        bool there = first + row < c.n && block * BLOCK + k < c.ld;
        copy_async<BYTES>(
            to + place(row, k),
            there ? c.codes + (first + row) * c.ld + block * BLOCK + k : c.codes, there);
    }
}

/* The scale of one of its rows. */
__device__ static void fetch_scale(float *to, const cu_codes &c, size_t first, size_t block,
                                   int row)
{
    bool there = first + row < c.n;

    copy_async<4>(to + row, there ? c.scales + block * c.wide + first + row : c.scales,
                  there);
}

/* The float of a sum of a block's products: 2^23 + 2^22 + sum has sum in its last bits, and
 * |sum| is below 2^22.  The instruction for it has an eighth of an addition's rate. */
__device__ static float float_of(int sum)
{
    return __fadd_rn(__int_as_float(sum + 0x4b400000), -12582912.0f);
}

/* Step `step` of k into its place of a ring, a group of copies to be waited for. */
template <int RING, int BYTES = RUN>
__device__ static void fetch_step(int8_t *stage, float (*sa)[TILE], float (*sb)[TILE],
                                  const cu_codes &a, const cu_codes &b, size_t row0,
                                  size_t col0, int step, int steps)
{
    int8_t *to = stage + step % RING * 2 * STAGE;

    if (step < steps) {
        fetch<BYTES>(to, a, row0, step);
        fetch<BYTES>(to + STAGE, b, col0, step);
        if (threadIdx.x < TILE)
            fetch_scale(sa[step % RING], a, row0, step, threadIdx.x);
        else
            fetch_scale(sb[step % RING], b, col0, step, threadIdx.x - TILE);
    }
    asm volatile("cp.async.commit_group;\n");
}

__device__ static void multiply(int sum[4], const unsigned a[4], const unsigned b[2])
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four matrices of 8 rows of 16 bytes; a lane names a row of the matrix lane / 8. */
__device__ static void load4(unsigned x[4], const int8_t *row)
{
    unsigned at = (unsigned)__cvta_generic_to_shared(row);

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(at));
}

/* One block of k: sums of codes, scaled and added to the warp's 32 x 64 of acc, which
 * begins at row wr and column wc of the tile. */
__device__ static void block_step(float acc[2][8][4], const int8_t *a, const int8_t *b,
                                  const float *sa, const float *sb, int wr, int wc)
{
    int lane = threadIdx.x % 32, row = lane / 4, col = lane % 4;
    int a_row = wr + lane % 16, a_k = lane / 16 * RUN;
    int b_row = wc + lane / 16 * 8 + lane % 8, b_k = lane / 8 % 2 * RUN;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        int sum[2][4][4] = {};
#pragma unroll 1
        for (int k = 0; k < BLOCK; k += 32) {
            unsigned x[2][4], y[2][4];
            load4(x[0], a + place(a_row, k + a_k));
            load4(x[1], a + place(a_row + 16, k + a_k));
            load4(y[0], b + place(b_row + half * 32, k + b_k));
            load4(y[1], b + place(b_row + half * 32 + 16, k + b_k));
#pragma unroll
            for (int j = 0; j < 4; j++) {
                multiply(sum[0][j], x[0], y[j / 2] + j % 2 * 2);
                multiply(sum[1][j], x[1], y[j / 2] + j % 2 * 2);
            }
        }
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    float s = __fmul_rn(sa[wr + i * 16 + row + e / 2 * 8],
                                        sb[wc + (half * 4 + j) * 8 + col * 2 + e % 2]);
                    float *to = &acc[i][half * 4 + j][e];
                    *to = __fadd_rn(*to, __fmul_rn(float_of(sum[i][j][e]), s));
                }
    }
}

template <int BYTES>
__global__ static void __launch_bounds__(THREADS, 2)
    product(target y, cu_codes a, cu_codes b)
{
    extern __shared__ __align__(128) int8_t stage[];
    __shared__ float sa[STAGES][TILE], sb[STAGES][TILE];
    size_t row0 = (size_t)blockIdx.y * TILE, col0 = (size_t)blockIdx.x * TILE;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int wr = warp / 2 * 32, wc = warp % 2 * 64;
    int blocks = (int)((a.k + BLOCK - 1) / BLOCK);
    float acc[2][8][4];

    /* a tile above the strips has nothing to give */
    if (y.strips && y.at(row0 + TILE - 1 < y.n ? row0 + TILE - 1 : y.n - 1, col0) == NULL)
        return;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                size_t r = row0 + wr + i * 16 + lane / 4 + e / 2 * 8;
                size_t c = col0 + wc + j * 8 + lane % 4 * 2 + e % 2;
                const float *from = y.acc && r < a.n && c < b.n ? y.at(r, c) : NULL;
                acc[i][j][e] = from != NULL ? *from : 0.0f;
            }
    for (int k = 0; k < STAGES - 1; k++)
        fetch_step<STAGES, BYTES>(stage, sa, sb, a, b, row0, col0, k, blocks);
    for (int k = 0; k < blocks; k++) {
        const int8_t *now = stage + k % STAGES * 2 * STAGE;
        /* all have step k, and none reads step k - 1 any more */
        asm volatile("cp.async.wait_group %0;\n" ::"n"(STAGES - 2));
        __syncthreads();
        fetch_step<STAGES, BYTES>(stage, sa, sb, a, b, row0, col0, k + STAGES - 1, blocks);
        block_step(acc, now, now + STAGE, sa[k % STAGES], sb[k % STAGES], wr, wc);
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                size_t r = row0 + wr + i * 16 + lane / 4 + e / 2 * 8;
                size_t c = col0 + wc + j * 8 + lane % 4 * 2 + e % 2;
                float *to = r < a.n && c < b.n ? y.at(r, c) : NULL;
                if (to != NULL)
                    *to =
                        y.bias != NULL ? __fadd_rn(acc[i][j][e], y.bias[c]) : acc[i][j][e];
            }
}

/* ---- products by Hopper's warp groups ---- */

/*
 * The same with wgmma, of compute capability 9.0 alone: two warp groups, each 64 x 128,
 * which reads both operands in shared memory where `place` has put them (its change of
 * places is what the instruction calls a swizzle of 128 bytes).  One group multiplies while
 * the other scales.
 */
enum { WIDE_STAGES = 5, GROUP = 128, WIDE_ALIGN = 1024 };

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#    define HOPPER(...) asm volatile(__VA_ARGS__)
#else
#    define HOPPER(...)
#endif

/* Rows of 128 bytes, eight of them in 1024. */
__device__ static uint64_t descriptor(const int8_t *p)
{
    uint64_t at = (uint64_t)__cvta_generic_to_shared(p);

    return (at & 0x3ffff) >> 4 | 1ull << 16 | (uint64_t)(8 * BLOCK >> 4) << 32 | 1ull << 62;
}

/* s[64 x 128] = or += a's codes times b's, 32 of k; done when the group is waited for. */
__device__ static void multiply_wide(int s[64], uint64_t a, uint64_t b, int more)
{
    HOPPER("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
           "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 {"
           "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, "
           "%14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, "
           "%26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, "
           "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, "
           "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "
           "%62, %63"
           "}, %64, %65, p;\n}\n"
           : "+r"(s[0]), "+r"(s[1]), "+r"(s[2]), "+r"(s[3]), "+r"(s[4]), "+r"(s[5]),
             "+r"(s[6]), "+r"(s[7]), "+r"(s[8]), "+r"(s[9]), "+r"(s[10]), "+r"(s[11]),
             "+r"(s[12]), "+r"(s[13]), "+r"(s[14]), "+r"(s[15]), "+r"(s[16]), "+r"(s[17]),
             "+r"(s[18]), "+r"(s[19]), "+r"(s[20]), "+r"(s[21]), "+r"(s[22]), "+r"(s[23]),
             "+r"(s[24]), "+r"(s[25]), "+r"(s[26]), "+r"(s[27]), "+r"(s[28]), "+r"(s[29]),
             "+r"(s[30]), "+r"(s[31]), "+r"(s[32]), "+r"(s[33]), "+r"(s[34]), "+r"(s[35]),
             "+r"(s[36]), "+r"(s[37]), "+r"(s[38]), "+r"(s[39]), "+r"(s[40]), "+r"(s[41]),
             "+r"(s[42]), "+r"(s[43]), "+r"(s[44]), "+r"(s[45]), "+r"(s[46]), "+r"(s[47]),
             "+r"(s[48]), "+r"(s[49]), "+r"(s[50]), "+r"(s[51]), "+r"(s[52]), "+r"(s[53]),
             "+r"(s[54]), "+r"(s[55]), "+r"(s[56]), "+r"(s[57]), "+r"(s[58]), "+r"(s[59]),
             "+r"(s[60]), "+r"(s[61]), "+r"(s[62]), "+r"(s[63])
           : "l"(a), "l"(b), "r"(more));
}

__global__ static void __launch_bounds__(THREADS, 1)
    product_wide(target y, cu_codes a, cu_codes b)
{
    extern __shared__ int8_t wide_room[];
    __shared__ float sa[WIDE_STAGES][TILE], sb[WIDE_STAGES][TILE];
    int8_t *stage = wide_room + (-__cvta_generic_to_shared(wide_room) & (WIDE_ALIGN - 1));
    size_t row0 = (size_t)blockIdx.y * TILE, col0 = (size_t)blockIdx.x * TILE;
    int lane = threadIdx.x % 32, wr = threadIdx.x / 32 * 16;
    int blocks = (int)((a.k + BLOCK - 1) / BLOCK);
    float acc[16][4];

    if (y.strips && y.at(row0 + TILE - 1 < y.n ? row0 + TILE - 1 : y.n - 1, col0) == NULL)
        return;
#pragma unroll
    for (int j = 0; j < 16; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            size_t r = row0 + wr + lane / 4 + e / 2 * 8;
            size_t c = col0 + j * 8 + lane % 4 * 2 + e % 2;
            const float *from = y.acc && r < a.n && c < b.n ? y.at(r, c) : NULL;
            acc[j][e] = from != NULL ? *from : 0.0f;
        }
    for (int k = 0; k < WIDE_STAGES - 1; k++)
        fetch_step<WIDE_STAGES>(stage, sa, sb, a, b, row0, col0, k, blocks);
    for (int k = 0; k < blocks; k++) {
        const int8_t *now = stage + k % WIDE_STAGES * 2 * STAGE;
        const float *by_row = sa[k % WIDE_STAGES] + wr + lane / 4;
        const float *by_col = sb[k % WIDE_STAGES] + lane % 4 * 2;
        uint64_t of_a = descriptor(now + threadIdx.x / GROUP * (STAGE / 2));
        uint64_t of_b = descriptor(now + STAGE);
        int sum[64];
        /* all have step k, and none reads step k - 1 any more */
        asm volatile("cp.async.wait_group %0;\n" ::"n"(WIDE_STAGES - 2));
        HOPPER("fence.proxy.async.shared::cta;\n");
        __syncthreads();
        HOPPER("wgmma.fence.sync.aligned;\n" ::: "memory");
#pragma unroll
        for (int i = 0; i < BLOCK / 32; i++)
            multiply_wide(sum, of_a + i * (32 >> 4), of_b + i * (32 >> 4), i);
        HOPPER("wgmma.commit_group.sync.aligned;\n" ::: "memory");
        fetch_step<WIDE_STAGES>(stage, sa, sb, a, b, row0, col0, k + WIDE_STAGES - 1,
                                blocks);
        HOPPER("wgmma.wait_group.sync.aligned 0;\n" ::: "memory");
        const float rows[2] = {by_row[0], by_row[8]};
#pragma unroll
        for (int j = 0; j < 16; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                float s = __fmul_rn(rows[e / 2], by_col[j * 8 + e % 2]);
                acc[j][e] = __fadd_rn(acc[j][e], __fmul_rn(float_of(sum[j * 4 + e]), s));
            }
    }
#pragma unroll
    for (int j = 0; j < 16; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            size_t r = row0 + wr + lane / 4 + e / 2 * 8;
            size_t c = col0 + j * 8 + lane % 4 * 2 + e % 2;
            float *to = r < a.n && c < b.n ? y.at(r, c) : NULL;
            if (to != NULL)
                *to = y.bias != NULL ? __fadd_rn(acc[j][e], y.bias[c]) : acc[j][e];
        }
}

/* Was product_wide compiled for this GPU? */
static bool has_wide(void)
{
#ifdef CU_SM90A
    cudaFuncAttributes f;

    return cudaFuncGetAttributes(&f, product_wide) == cudaSuccess && f.binaryVersion == 90;
#else
    return false;
#endif
}

typedef void product_fn(target, cu_codes, cu_codes);

static int launch(cu_stream s, product_fn *fn, int bytes, const target *y,
                  const cu_codes *a, const cu_codes *b)
{
    const size_t most = 65535;
    int err = cudaFuncSetAttribute(fn, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);

    if (err != 0)
        return err;
    if ((a->n + TILE - 1) / TILE > most)
        return cudaErrorInvalidValue;
    dim3 grid((unsigned)((b->n + TILE - 1) / TILE), (unsigned)((a->n + TILE - 1) / TILE));
    fn<<<grid, THREADS, bytes, s>>>(*y, *a, *b);
    return cudaGetLastError();
}

static int any_width(cu_stream s, const target *y, const cu_codes *a, const cu_codes *b)
{
    const int bytes = STAGES * 2 * STAGE;

    if (a->ld % RUN != 0 || b->ld % RUN != 0)
        return launch(s, product<4>, bytes, y, a, b);
    if (has_wide())
        return launch(s, product_wide, WIDE_STAGES * 2 * STAGE + WIDE_ALIGN, y, a, b);
    return launch(s, product<RUN>, bytes, y, a, b);
}

int cu_code_product(cu_stream s, float *y, const cu_codes *a, const cu_codes *b,
                    const float *bias, size_t ldy, bool acc)
{
    const target to = {y, ldy, b->n, false, acc, bias};

    return any_width(s, &to, a, b);
}

int cu_code_gram(cu_stream s, float *strips, const cu_codes *a, bool first)
{
    const target to = {strips, 0, a->n, true, !first, NULL};

    return any_width(s, &to, a, a);
}
