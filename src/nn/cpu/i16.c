/*
 * i16.c - products of 13-bit integers (nn.h): calibration's forwards and Gram matrices.
 *
 * Why integers: 16-bit multiply-adds run at twice the rate of float ones (AVX-512 VNNI: 64
 * a cycle and core; AVX2 and SSE2 have them, too), their sums are exact, and a scale for
 * each 128 values makes them three times closer than bfloat16, which most processors
 * multiply no faster.
 *
 *   quantize   A: [row][pairs], scales [block][rows]; B: [panel of nr][pairs][nr]
 *   tiles      96 x 240 of C: for each 512 of k, mr rows of A times panels of B
 *
 * A Gram matrix quantizes its columns once, as panels; rows of A are read from the same
 * panels, a word in nr.  Rows and columns past the end are zeros with scale 0.
 *
 * Rates and what lost: tools/kernels/i16.md.
 */
#include <string.h>

#include "core/mem.h"
#include "nn/cpu/cpu_impl.h"

enum {
    BLOCK_PAIRS = NN_I16_BLOCK / 2,
    GROUP_PAIRS = 4 * BLOCK_PAIRS, /* of k in one pass over a tile */
    TILE_M = NN_GRAM_STRIP,
    TILE_N = 240, /* a multiple of every nr */
    MAX_TILE = 8 * 48,
    ROUND_N = 48 /* likewise */
};

typedef struct {
    const int32_t *words; /* panels */
    const float *scales;  /* [block][wide] */
    size_t wide;
} columns;

static size_t pairs_of(size_t k)
{
    return cpu_ceil(k, 2);
}

static size_t blocks_of(size_t k)
{
    return cpu_ceil(k, NN_I16_BLOCK);
}

size_t nn_i16_packed_bytes(size_t n, size_t k)
{
    return cpu_round(n, ROUND_N) * (blocks_of(k) + pairs_of(k)) * sizeof(float);
}

/* The two parts of a packed operand of n columns. */
static columns parts(const float *packed, size_t n, size_t k)
{
    size_t wide = cpu_round(n, ROUND_N);

    return (columns){(const int32_t *)(packed + wide * blocks_of(k)), packed, wide};
}

/* ---- a tile of C ---- */

typedef struct {
    const cpu_i16_kernels *kern;
    float *c;
    size_t ldc;
    cpu_i16_tile a; /* A's part: row 0, pair 0 */
    columns b;
    size_t pairs;
    bool acc, a_panels; /* rows of A lie in panels, like B */
} product;

static void copy_rows(float *to, size_t ldt, const float *from, size_t ldf, size_t rows,
                      size_t cols)
{
    for (size_t i = 0; i < rows; i++)
        memcpy(to + i * ldt, from + i * ldf, cols * sizeof(*to));
}

/* A tile that hangs over C's edge goes through a whole one. */
static void edge(const product *p, const cpu_i16_tile *t, float *to, size_t rows,
                 size_t cols, bool acc)
{
    float whole[MAX_TILE] = {0};
    size_t nr = p->kern->nr;

    if (acc)
        copy_rows(whole, nr, to, p->ldc, rows, cols);
    p->kern->tile(whole, nr, t, acc);
    copy_rows(to, p->ldc, whole, nr, rows, cols);
}

/* Rows row .. row_end - 1 by columns col .. col_end - 1; row and col begin tiles. */
static void tiles(const product *p, size_t row, size_t row_end, size_t col, size_t col_end)
{
    size_t mr = p->kern->mr, nr = p->kern->nr;

    for (size_t at = 0; at < p->pairs; at += GROUP_PAIRS) {
        size_t block = at / BLOCK_PAIRS;
        for (size_t i = row; i < row_end; i += mr) {
            for (size_t j = col; j < col_end; j += nr) {
                size_t rows = cpu_min(mr, row_end - i), cols = cpu_min(nr, col_end - j);
                cpu_i16_tile t = p->a;
                float *to = p->c + i * p->ldc + j;
                t.a += at * t.a_pair +
                       (p->a_panels ? i / nr * nr * p->pairs + i % nr : i * t.a_row);
                t.sa += block * t.sa_block + i;
                t.b = p->b.words + j * p->pairs + at * nr;
                t.sb = p->b.scales + block * p->b.wide + j;
                t.sb_block = p->b.wide;
                t.pairs = cpu_min(GROUP_PAIRS, p->pairs - at);
                if (rows == mr && cols == nr)
                    p->kern->tile(to, p->ldc, &t, p->acc || at > 0);
                else
                    edge(p, &t, to, rows, cols, p->acc || at > 0);
            }
        }
    }
}

/* ---- weights ---- */

typedef struct {
    const cpu_i16_kernels *kern;
    float *packed;
    const float *w;
    size_t n, k;
} pack_job;

static dr_status pack_panel(void *ctx, size_t task, int worker)
{
    const pack_job *j = ctx;
    size_t nr = j->kern->nr, wide = cpu_round(j->n, ROUND_N), first = task * nr;
    float *scales = j->packed + first;
    int32_t *words =
        (int32_t *)(j->packed + wide * blocks_of(j->k)) + first * pairs_of(j->k);
    int16_t codes[NN_I16_BLOCK];
    int32_t word;

    (void)worker;
    for (size_t at = 0; at < j->k; at += NN_I16_BLOCK, scales += wide) {
        size_t count = cpu_min(NN_I16_BLOCK, j->k - at);
        for (size_t r = 0; r < nr; r++) {
            scales[r] = 0.0f;
            memset(codes, 0, sizeof(codes));
            if (first + r < j->n)
                j->kern->quantize(codes, &scales[r], j->w + (first + r) * j->k + at, count);
            for (size_t p = 0; p < cpu_ceil(count, 2); p++) {
                memcpy(&word, codes + 2 * p, sizeof(word));
                words[p * nr + r] = word;
            }
        }
        words += cpu_ceil(count, 2) * nr;
    }
    return DR_OK;
}

dr_status cpu_i16_pack(nn_device *dev, void *packed, const float *w, size_t n, size_t k)
{
    pack_job j = {cpu_of(dev)->i16, packed, w, n, k};

    return cpu_tasks(dev, cpu_round(n, ROUND_N) / j.kern->nr, n * k, pack_panel, &j);
}

/* ---- products ---- */

enum { ROWS = 32 }; /* quantized by one task */

typedef struct {
    product p;
    const float *x, *bias;
    int32_t *words;
    float *scales;
    size_t m, n, k, high;
} matmul_job;

static dr_status quantize_rows(void *ctx, size_t task, int worker)
{
    const matmul_job *j = ctx;
    size_t pairs = pairs_of(j->k), end = cpu_min((task + 1) * ROWS, j->high);

    (void)worker;
    for (size_t i = task * ROWS; i < end; i++) {
        int16_t *codes = (int16_t *)(j->words + i * pairs);
        float *scale = j->scales + i;
        for (size_t at = 0; at < j->k; at += NN_I16_BLOCK, scale += j->high) {
            size_t count = cpu_min(NN_I16_BLOCK, j->k - at);
            *scale = 0.0f;
            if (i < j->m)
                j->p.kern->quantize(codes + at, scale, j->x + i * j->k + at, count);
            else
                memset(codes + at, 0, (count + 1) / 2 * 2 * sizeof(*codes));
        }
    }
    return DR_OK;
}

static dr_status matmul_tile(void *ctx, size_t task, int worker)
{
    const matmul_job *j = ctx;
    size_t across = cpu_ceil(j->n, TILE_N);
    size_t row = task / across * TILE_M, col = task % across * TILE_N;
    size_t row_end = cpu_min(row + TILE_M, j->m), col_end = cpu_min(col + TILE_N, j->n);

    (void)worker;
    tiles(&j->p, row, row_end, col, col_end);
    for (size_t i = row; j->bias != NULL && i < row_end; i++) {
        for (size_t c = col; c < col_end; c++)
            j->p.c[i * j->p.ldc + c] += j->bias[c];
    }
    return DR_OK;
}

dr_status cpu_i16_matmul(nn_device *dev, float *y, const float *x, const void *packed,
                         const float *bias, size_t m, size_t n, size_t k, size_t ldy,
                         bool acc)
{
    const cpu_i16_kernels *kern = cpu_of(dev)->i16;
    size_t high = cpu_round(m, kern->mr), pairs = pairs_of(k);
    matmul_job j = {.x = x, .bias = bias, .m = m, .n = n, .k = k, .high = high};
    float *work = NULL;
    dr_status st = DR_OK;

    DR_TRY(cpu_work(dev, &work, high * (pairs + blocks_of(k))));
    j.scales = work;
    j.words = (int32_t *)(work + high * blocks_of(k));
    j.p = (product){
        .kern = kern,
        .c = y,
        .ldc = ldy,
        .a = {.a = j.words, .sa = j.scales, .a_row = pairs, .a_pair = 1, .sa_block = high},
        .b = parts(packed, n, k),
        .pairs = pairs,
        .acc = acc};
    DR_TRY(cpu_tasks(dev, cpu_ceil(high, ROWS), m * k, quantize_rows, &j));
    DR_TRY(cpu_tasks(dev, cpu_ceil(m, TILE_M) * cpu_ceil(n, TILE_N), m * n * k, matmul_tile,
                     &j));
done:
    return st;
}

/* ---- Gram matrices ---- */

typedef struct {
    product p;
    const float *x;
    float *strips, *packed;
    size_t m, n, wide;
} gram_job;

/* A panel of columns. */
static dr_status gram_panel(void *ctx, size_t task, int worker)
{
    const gram_job *j = ctx;
    size_t nr = j->p.kern->nr, first = task * nr, pairs = pairs_of(j->m);
    int32_t *words = (int32_t *)(j->packed + j->wide * blocks_of(j->m)) + first * pairs;
    float *scales = j->packed + first;

    (void)worker;
    for (size_t at = 0; at < j->m; at += NN_I16_BLOCK, scales += j->wide) {
        size_t tokens = cpu_min(NN_I16_BLOCK, j->m - at);
        size_t count = first < j->n ? cpu_min(nr, j->n - first) : 0;
        j->p.kern->quantize_columns(words, scales, j->x + at * j->n + (count ? first : 0),
                                    j->n, tokens, count);
        words += cpu_ceil(tokens, 2) * nr;
    }
    return DR_OK;
}

/* A piece of a strip: TILE_N of its columns. */
static dr_status gram_tile(void *ctx, size_t task, int worker)
{
    const gram_job *j = ctx;
    product p = j->p;
    size_t row = 0, before = 0;

    (void)worker;
    for (;; row += NN_GRAM_STRIP) { /* which strip, and what lies before it */
        size_t cols = cpu_min(row + NN_GRAM_STRIP, j->n), pieces = cpu_ceil(cols, TILE_N);
        if (task < pieces)
            break;
        task -= pieces;
        before += (cols - row) * cols;
    }
    size_t end = cpu_min(row + NN_GRAM_STRIP, j->n), col = task * TILE_N;
    p.ldc = end;
    p.c = j->strips + before - row * end; /* as if all rows had been so wide */
    tiles(&p, row, end, col, cpu_min(col + TILE_N, end));
    return DR_OK;
}

dr_status cpu_i16_gram(nn_device *dev, float *strips, const float *x, size_t m, size_t n,
                       bool first)
{
    const cpu_i16_kernels *kern = cpu_of(dev)->i16;
    size_t wide = cpu_round(n, ROUND_N), pairs = pairs_of(m), count = 0;
    gram_job j = {.x = x, .strips = strips, .m = m, .n = n, .wide = wide};
    dr_status st = DR_OK;

    DR_TRY(cpu_work(dev, &j.packed, wide * (pairs + blocks_of(m))));
    columns all = parts(j.packed, n, m);
    j.p = (product){.kern = kern,
                    .a = {.a = all.words,
                          .sa = all.scales,
                          .a_row = 1,
                          .a_pair = kern->nr,
                          .sa_block = wide},
                    .b = all,
                    .pairs = pairs,
                    .acc = !first,
                    .a_panels = true};
    for (size_t r = 0; r < n; r += NN_GRAM_STRIP)
        count += cpu_ceil(cpu_min(r + NN_GRAM_STRIP, n), TILE_N);
    DR_TRY(cpu_tasks(dev, wide / kern->nr, m * n, gram_panel, &j));
    DR_TRY(cpu_tasks(dev, count, m * n * n, gram_tile, &j));
done:
    return st;
}
