/*
 * factor.cu - the diagonal blocks of a Cholesky factor, their inverses, and products with
 * such an inverse.
 *
 * A block of 128 columns is one block of threads' work, in double, on squares of 32 in
 * shared memory.  A warp has the square on the diagonal, a row of it and a column of its
 * inverse for each lane, in registers, so that no step waits for other warps.  The squares
 * below it are products, and so is the inverse but for its squares on the diagonal.
 */
#include <cuda_runtime.h>

#include "nn/cuda/cuda_kernels.h"

enum { SIDE = 32, PITCH = SIDE + 1, SQUARE = SIDE * PITCH, SQUARES = 4 };
enum { FACTOR = SIDE * SQUARES, LOWER = SQUARES * (SQUARES + 1) / 2 };
enum { BELOW = SQUARES * (SQUARES - 1) / 2, THREADS = 256, WARPS = THREADS / SIDE };
/* Squares of the factor, in place of its diagonal's the inverse's, then the other ones of
 * the inverse, then a square's columns, of which more than there are are read. */
enum { SPACE = (LOWER + BELOW) * SQUARE + SQUARE + SIDE };
#define ALL 0xffffffffu

__device__ static double *square_of(double *l, int i, int j)
{
    return l + (i * (i + 1) / 2 + j) * SQUARE;
}

__device__ static double *inverse_of(double *l, int i, int j)
{
    return i == j ? square_of(l, i, i) : l + (LOWER + i * (i - 1) / 2 + j) * SQUARE;
}

__device__ static int place(int r, int c)
{
    return r * PITCH + c;
}

/* a's lower triangle; ones on the diagonal beyond nb. */
__device__ static void load_lower(double *l, const float *a, size_t ld, int nb)
{
    int lane = threadIdx.x % SIDE, warp = threadIdx.x / SIDE;
    float v[FACTOR / WARPS];

    for (int j = 0; j < SQUARES; j++) {
        int c = j * SIDE + lane;
#pragma unroll
        for (int u = 0; u < FACTOR / WARPS; u++) { /* all are on their way at once */
            int r = u * WARPS + warp;
            v[u] = r == c ? 1.0f : 0.0f;
            if (r < nb && c <= r)
                v[u] = a[r * ld + c];
        }
#pragma unroll
        for (int u = 0; u < FACTOR / WARPS; u++) {
            int r = u * WARPS + warp;
            if (r / SIDE >= j)
                square_of(l, r / SIDE, j)[place(r % SIDE, lane)] = (double)v[u];
        }
    }
    __syncthreads();
}

/* 1 / sqrt(v) with 40 bits. */
__device__ static double root(double v)
{
    double y = (double)rsqrtf((float)v);

    return y * (1.5 - 0.5 * v * y * y);
}

/* A square becomes the inverse of its factor, whose columns go to cols, one behind another.
 * By one warp: a row of it and a column of the inverse for each lane, which move up by one
 * in each step: so all steps are the same instructions. */
__device__ static void factor_square(double *l, double *cols)
{
    int lane = threadIdx.x % SIDE;
    double row[SIDE], col[SIDE];

#pragma unroll
    for (int j = 0; j < SIDE; j++) {
        row[j] = l[place(lane, j)];
        col[j] = j == lane ? 1.0 : 0.0;
    }
    __syncwarp();
#pragma unroll 1
    for (int k = 0; k < SIDE; k++) {
        double by = root(__shfl_sync(ALL, row[0], k)), own = row[0] * by, v = col[0] * by;
        const double *below = cols + place(k, k);
        cols[place(k, lane)] = own;
        l[place(k, lane)] = v;
        __syncwarp();
#pragma unroll
        for (int j = 1; j < SIDE; j++) {
            double f = below[j]; /* what is beyond the square comes to nothing */
            row[j - 1] = row[j] - own * f;
            col[j - 1] = col[j] - v * f;
        }
        __syncwarp(); /* columns beyond the square are the next step's */
    }
}

/* A factor's square becomes its inverse. */
__device__ static void invert_square(double *l)
{
    int lane = threadIdx.x % SIDE;
    double col[SIDE], own = 1.0 / l[place(lane, lane)];

#pragma unroll
    for (int i = 0; i < SIDE; i++)
        col[i] = i == lane ? 1.0 : 0.0;
#pragma unroll 1
    for (int k = 0; k < SIDE; k++) {
        double v = col[0] * __shfl_sync(ALL, own, k);
        const double *below = l + place(k, k);
#pragma unroll
        for (int i = 1; i < SIDE; i++)
            col[i - 1] = col[i] - (k + i < SIDE ? below[i * PITCH] : 0.0) * v;
        __syncwarp();
        l[place(k, lane)] = v;
    }
}

/* ---- products of squares: a warp has eight rows of one, a thread two by four ---- */

enum { ACROSS = 4, DOWN = 2, STEP = SIDE / ACROSS, STRIP = SIDE / STEP * DOWN };
enum { PLAIN, TURNED, STRIPS = SIDE / STRIP };

struct part {
    double sum[DOWN][ACROSS];
};

/* p += rows of a times b, or b^T. */
template <int HOW>
__device__ static void add_part(part *p, const double *a, const double *b, int strip)
{
    int row = strip * STRIP + threadIdx.x % SIDE / STEP, col = threadIdx.x % STEP;

#pragma unroll 4
    for (int k = 0; k < SIDE; k++) {
        double y[ACROSS];
#pragma unroll
        for (int j = 0; j < ACROSS; j++) {
            int c = col + j * STEP;
            y[j] = b[HOW == TURNED ? place(c, k) : place(k, c)];
        }
#pragma unroll
        for (int i = 0; i < DOWN; i++) {
            double x = a[place(row + i * (STRIP / DOWN), k)];
#pragma unroll
            for (int j = 0; j < ACROSS; j++)
                p->sum[i][j] += x * y[j];
        }
    }
}

/* to = keep * to + sign * p */
__device__ static void put_part(double *to, const part *p, int strip, double keep,
                                double sign)
{
    int row = strip * STRIP + threadIdx.x % SIDE / STEP, col = threadIdx.x % STEP;

#pragma unroll
    for (int i = 0; i < DOWN; i++)
#pragma unroll
        for (int j = 0; j < ACROSS; j++) {
            double *at = to + place(row + i * (STRIP / DOWN), col + j * STEP);
            *at = (keep != 0.0 ? *at : 0.0) + sign * p->sum[i][j];
        }
}

/* The squares below (c, c), which is an inverse X already: L = A X^T. */
__device__ static void panel(double *l, int c)
{
    for (int i = threadIdx.x / SIDE; i < (SQUARES - 1 - c) * STRIPS; i += WARPS) {
        double *at = square_of(l, c + 1 + i / STRIPS, c);
        part p = {};
        add_part<TURNED>(&p, at, square_of(l, c, c), i % STRIPS);
        __syncwarp();
        put_part(at, &p, i % STRIPS, 0.0, 1.0);
    }
    __syncthreads();
}

/* What is behind column c of squares: A -= L L^T. */
__device__ static void trail(double *l, int c)
{
    int left = SQUARES - 1 - c;

    for (int i = threadIdx.x / SIDE; i < left * (left + 1) / 2 * STRIPS; i += WARPS) {
        int at = i / STRIPS, r = 0;
        while (at > r)
            at -= ++r;
        int row = c + 1 + r, col = c + 1 + at;
        part p = {};
        add_part<TURNED>(&p, square_of(l, row, c), square_of(l, col, c), i % STRIPS);
        put_part(square_of(l, row, col), &p, i % STRIPS, 1.0, -1.0);
    }
    __syncthreads();
}

/* The squares of the inverse off the diagonal, those next to it first. */
__device__ static void invert_rest(double *l)
{
    enum { MOST = ((SQUARES - 1) * STRIPS + WARPS - 1) / WARPS };

    for (int d = 1; d < SQUARES; d++) {
        int from = threadIdx.x / SIDE, count = (SQUARES - d) * STRIPS;
        for (int i = from; i < count; i += WARPS) {
            int col = i / STRIPS, row = col + d;
            part p = {};
            for (int k = col; k < row; k++)
                add_part<PLAIN>(&p, square_of(l, row, k), inverse_of(l, k, col),
                                i % STRIPS);
            put_part(inverse_of(l, row, col), &p, i % STRIPS, 0.0, 1.0);
        }
        __syncthreads();
        part all[MOST] = {};
#pragma unroll
        for (int q = 0; q < MOST; q++) {
            int i = from + q * WARPS, col = i / STRIPS, row = col + d;
            if (i < count)
                add_part<PLAIN>(&all[q], inverse_of(l, row, row), inverse_of(l, row, col),
                                i % STRIPS);
        }
        __syncthreads();
#pragma unroll
        for (int q = 0; q < MOST; q++) {
            int i = from + q * WARPS, col = i / STRIPS, row = col + d;
            if (i < count)
                put_part(inverse_of(l, row, col), &all[q], i % STRIPS, 0.0, -1.0);
        }
        __syncthreads();
    }
}

__device__ static void factor_columns(double *l, float *to, size_t ldl, int nb)
{
    double *cols = l + (LOWER + BELOW) * SQUARE;
    int lane = threadIdx.x % SIDE;

    for (int c = 0; c < SQUARES; c++) {
        if (threadIdx.x < SIDE)
            factor_square(square_of(l, c, c), cols);
        __syncthreads();
        for (int r = threadIdx.x / SIDE; r < SIDE && c * SIDE + r < nb; r += WARPS)
            if (lane <= r)
                to[(c * SIDE + r) * ldl + c * SIDE + lane] = (float)cols[place(lane, r)];
        panel(l, c);
        trail(l, c);
    }
    for (int r = SIDE + threadIdx.x / SIDE; r < nb; r += WARPS)
        for (int j = 0; j < r / SIDE; j++)
            to[r * ldl + j * SIDE + lane] =
                (float)square_of(l, r / SIDE, j)[place(r % SIDE, lane)];
}

__device__ static void store_inverse(float *inv, double *l, int nb, bool turned)
{
    for (int i = threadIdx.x / SIDE; i < nb; i += WARPS)
        for (int j = threadIdx.x % SIDE; j < nb; j += SIDE) {
            int r = turned ? j : i, c = turned ? i : j;
            inv[i * nb + j] = 0.0f;
            if (c <= r)
                inv[i * nb + j] =
                    (float)inverse_of(l, r / SIDE, c / SIDE)[place(r % SIDE, c % SIDE)];
        }
}

/* to NULL: blocks of threads have the diagonal blocks of a, each of FACTOR columns. */
__global__ static void __launch_bounds__(THREADS)
    factor_diagonal(float *to, size_t ldl, const float *a, size_t ld, size_t n, float *inv,
                    bool turned)
{
    extern __shared__ double l[];
    size_t from = (size_t)blockIdx.x * FACTOR;
    int nb = (int)(n - from < FACTOR ? n - from : FACTOR), warp = threadIdx.x / SIDE;

    load_lower(l, a + from * ld + from, ld, nb);
    if (to != NULL)
        factor_columns(l, to, ldl, nb);
    else if (warp < SQUARES)
        invert_square(square_of(l, warp, warp));
    __syncthreads();
    invert_rest(l);
    store_inverse(inv + from * FACTOR, l, nb, turned);
}

static int launch(cu_stream s, float *l, size_t ldl, const float *a, size_t ld, size_t n,
                  float *inv, bool turned)
{
    int bytes = SPACE * (int)sizeof(double);
    int err = cudaFuncSetAttribute(factor_diagonal,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);

    if (err != 0)
        return err;
    factor_diagonal<<<(unsigned)((n + FACTOR - 1) / FACTOR), THREADS, bytes, s>>>(
        l, ldl, a, ld, n, inv, turned);
    return cudaGetLastError();
}

int cu_factor_diagonal(cu_stream s, float *l, size_t ldl, const float *a, size_t ld,
                       size_t nb, float *inv, bool turned)
{
    return launch(s, l, ldl, a, ld, nb, inv, turned);
}

int cu_invert_diagonals(cu_stream s, float *inv, const float *l, size_t n, bool turned)
{
    return launch(s, NULL, 0, l, n, n, inv, turned);
}

/* ---- products with a square ---- */

enum { ROWS = 64, LANES = 256, DEEP = 32 };

/* b[ROWS][nb] = b square^T: what is read is in shared memory before any is written. */
__global__ static void __launch_bounds__(LANES)
    times_square(float *b, size_t ldb, size_t rows, int nb, const float *square)
{
    extern __shared__ float room[];
    float *in = room, *sq = room + FACTOR * (ROWS + 4); /* both by columns */
    size_t row0 = (size_t)blockIdx.x * ROWS;
    int t = threadIdx.x, ty = t / 32 * 8, tx = t % 32 * 4;
    float acc[8][4] = {};

    for (int i = t; i < ROWS * FACTOR; i += LANES) {
        int r = i / FACTOR, c = i % FACTOR;
        bool there = row0 + r < rows && c < nb;
        in[c * (ROWS + 4) + r] = there ? b[(row0 + r) * ldb + c] : 0.0f;
    }
    for (int from = 0; from < nb; from += DEEP) {
        __syncthreads();
        for (int i = t; i < FACTOR * DEEP; i += LANES) {
            int n = i / DEEP, k = i % DEEP;
            bool there = n < nb && from + k < nb;
            sq[k * (FACTOR + 4) + n] = there ? square[n * nb + from + k] : 0.0f;
        }
        __syncthreads();
#pragma unroll 8
        for (int k = 0; k < DEEP; k++) {
            float x[8], y[4];
            *(float4 *)x = *(const float4 *)(in + (from + k) * (ROWS + 4) + ty);
            *(float4 *)(x + 4) = *(const float4 *)(in + (from + k) * (ROWS + 4) + ty + 4);
            *(float4 *)y = *(const float4 *)(sq + k * (FACTOR + 4) + tx);
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    acc[i][j] = fmaf(x[i], y[j], acc[i][j]);
        }
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (row0 + ty + i < rows && tx + j < nb)
                b[(row0 + ty + i) * ldb + tx + j] = acc[i][j];
}

int cu_times_square(cu_stream s, float *b, size_t ldb, size_t rows, size_t nb,
                    const float *square)
{
    int bytes = (FACTOR * (ROWS + 4) + DEEP * (FACTOR + 4)) * (int)sizeof(float);
    int err = cudaFuncSetAttribute(times_square,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);

    if (err != 0)
        return err;
    times_square<<<(unsigned)((rows + ROWS - 1) / ROWS), LANES, bytes, s>>>(
        b, ldb, rows, (int)nb, square);
    return cudaGetLastError();
}
