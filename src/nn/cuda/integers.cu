/*
 * integers.cu - products of 8-bit integers, with the bytes of ref_i8.c.
 *
 * Codes lie in rows of the summed index.  A block of threads makes 128 x 128 of the result:
 * for each 128 of k both operands' codes come into shared memory while the last ones are
 * multiplied (mma m16n8k32, exact in 32 bits), then each sum becomes a float, is scaled and
 * added, in the order and with the roundings that nn_i8.h fixes: nothing is fused.
 *
 * 8 warps as 4 x 2, each 32 x 64.  Rows in shared memory are 144 bytes apart, so that the
 * words that a warp reads at once lie in different banks.
 */
#include <cuda_runtime.h>

#include "nn/cuda/cuda_kernels.h"

enum {
    BLOCK = 128, /* NN_I8_BLOCK */
    TOP = 127,
    STRIP = 96, /* NN_GRAM_STRIP */
    TILE = 128,
    THREADS = 256,
    PITCH = BLOCK + 16,
    STAGE = TILE * PITCH /* bytes of one operand */
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

/* Codes of rows first .. first + 127, one block of k. */
template <int BYTES>
__device__ static void fetch(int8_t *to, const cu_codes &c, size_t first, size_t block)
{
    constexpr int PER = BLOCK / BYTES;

    for (int i = threadIdx.x; i < TILE * PER; i += THREADS) {
        size_t row = i / PER, k = block * BLOCK + (size_t)(i % PER) * BYTES;
        bool there = first + row < c.n && k < c.ld;
        copy_async<BYTES>(to + row * PITCH + i % PER * BYTES,
                          there ? c.codes + (first + row) * c.ld + k : c.codes, there);
    }
}

__device__ static void multiply(int sum[4], const unsigned a[4], const unsigned b[2])
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ static unsigned word(const int8_t *p)
{
    return *(const unsigned *)p;
}

/* One block of k: sums of codes, scaled and added to the warp's 32 x 64 of acc. */
__device__ static void block_step(float acc[2][8][4], const int8_t *a, const int8_t *b,
                                  const float *sa, const float *sb)
{
    int lane = threadIdx.x % 32, row = lane / 4, col = lane % 4;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        int sum[2][4][4] = {};
        for (int k = 0; k < BLOCK; k += 32) {
            unsigned x[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int8_t *p = a + (i * 16 + row) * PITCH + k + col * 4;
                x[i][0] = word(p);
                x[i][1] = word(p + 8 * PITCH);
                x[i][2] = word(p + 16);
                x[i][3] = word(p + 8 * PITCH + 16);
            }
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int8_t *p = b + ((half * 4 + j) * 8 + row) * PITCH + k + col * 4;
                unsigned y[2] = {word(p), word(p + 16)};
                multiply(sum[0][j], x[0], y);
                multiply(sum[1][j], x[1], y);
            }
        }
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    float s = __fmul_rn(sa[i * 16 + row + e / 2 * 8],
                                        sb[(half * 4 + j) * 8 + col * 2 + e % 2]);
                    float *to = &acc[i][half * 4 + j][e];
                    *to = __fadd_rn(*to, __fmul_rn((float)sum[i][j][e], s));
                }
    }
}

template <int BYTES>
__global__ static void __launch_bounds__(THREADS, 1)
    product(target y, cu_codes a, cu_codes b)
{
    extern __shared__ int8_t stage[];
    __shared__ float sa[2][TILE], sb[2][TILE];
    size_t row0 = (size_t)blockIdx.y * TILE, col0 = (size_t)blockIdx.x * TILE;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int wr = warp / 2 * 32, wc = warp % 2 * 64;
    size_t blocks = (a.k + BLOCK - 1) / BLOCK;
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
    for (size_t k = 0; k <= blocks; k++) {
        int8_t *as = stage + k % 2 * 2 * STAGE, *bs = as + STAGE;
        if (k < blocks) {
            fetch<BYTES>(as, a, row0, k);
            fetch<BYTES>(bs, b, col0, k);
            size_t r = threadIdx.x % TILE;
            if (threadIdx.x < TILE)
                sa[k % 2][r] = row0 + r < a.n ? a.scales[k * a.wide + row0 + r] : 0.0f;
            else
                sb[k % 2][r] = col0 + r < b.n ? b.scales[k * b.wide + col0 + r] : 0.0f;
        }
        asm volatile("cp.async.commit_group;\n");
        if (k > 0) {
            const int8_t *was = stage + (k - 1) % 2 * 2 * STAGE;
            asm volatile("cp.async.wait_group 1;\n");
            __syncthreads();
            block_step(acc, was + wr * PITCH, was + STAGE + wc * PITCH,
                       sa[(k - 1) % 2] + wr, sb[(k - 1) % 2] + wc);
            __syncthreads();
        }
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

template <int BYTES>
static int launch(cu_stream s, const target *y, const cu_codes *a, const cu_codes *b)
{
    const size_t most = 65535;
    int bytes = 4 * STAGE;
    int err = cudaFuncSetAttribute(product<BYTES>,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);

    if (err != 0)
        return err;
    if ((a->n + TILE - 1) / TILE > most)
        return cudaErrorInvalidValue;
    dim3 grid((unsigned)((b->n + TILE - 1) / TILE), (unsigned)((a->n + TILE - 1) / TILE));
    product<BYTES><<<grid, THREADS, bytes, s>>>(*y, *a, *b);
    return cudaGetLastError();
}

static int any_width(cu_stream s, const target *y, const cu_codes *a, const cu_codes *b)
{
    return a->ld % 16 == 0 && b->ld % 16 == 0 ? launch<16>(s, y, a, b)
                                              : launch<4>(s, y, a, b);
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
