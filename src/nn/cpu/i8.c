/*
 * i8.c - products of 8-bit integers (nn.h): calibration's forwards and Gram matrices.
 *
 * Why integers: 8-bit multiply-adds run at four times the rate of float ones (AVX-512 VNNI:
 * 128 a cycle and core), or twice (AVX2 and SSE2, as 16 bits), and their sums are exact.
 * Why so few bits do: the text passes a layer whose weights have been rounded to 4, beside
 * which a scale for each 128 values of 8, or for each 512, costs nothing that KL shows.
 *
 *   quantize   A: [block][row][words], scales [block][rows]; B: [panel of nr][words][nr]
 *   tiles      96 x 192 of C (parts.c): for each 1,024 of k, mr rows of A times panels of B
 *
 * B's codes are stored plus 128, where the instructions multiply signed bytes by unsigned
 * ones; with A goes -128 times the sum of each block's codes, where its sums begin.
 *
 * A Gram matrix quantizes its columns once, as panels in both forms; A's rows are read from
 * its panels, [block][word][nr] or, for AMX, [block][nr][word].  Rows and columns past the
 * end have scale 0.  All is padded with zero codes to PAD_WORDS, a row of AMX's registers.
 *
 * Calibration's blocks are longer (nn_rough.h), all else is the same code.
 *
 * Rates and what lost: tools/kernels/i8.md.
 */
#include <string.h>

#include "core/mem.h"
#include "nn/cpu/cpu_impl.h"

enum {
    GROUP_WORDS = 256, /* of k in one pass over a tile: whole blocks of either kind */
    MAX_TILE = 32 * 32,
    ROUND_N = 96, /* a multiple of every nr, as CPU_PART_N is */
    PAD_WORDS = 16
};

typedef struct {
    const int32_t *words; /* panels */
    const float *scales;  /* [block][wide] */
    size_t wide;
} columns;

static size_t words_of(size_t k)
{
    return cpu_round(cpu_ceil(k, 4), PAD_WORDS);
}

static size_t packed_bytes(size_t n, size_t k, size_t block)
{
    return cpu_round(n, ROUND_N) * (cpu_ceil(k, block) + words_of(k)) * sizeof(float);
}

size_t nn_i8_packed_bytes(size_t n, size_t k)
{
    return packed_bytes(n, k, NN_I8_BLOCK);
}

/* The two parts of a packed operand of n columns. */
static columns parts(const float *packed, size_t n, size_t k, size_t block)
{
    size_t wide = cpu_round(n, ROUND_N);

    return (columns){(const int32_t *)(packed + wide * cpu_ceil(k, block)), packed, wide};
}

/* ---- a tile of C ---- */

typedef struct {
    const cpu_i8_kernels *kern;
    cpu_i8_tile a; /* A's part: row 0, word 0 */
    columns b;
    size_t words, a_panel; /* words of A's panels; 0: it has none */
    bool acc;
} product;

/* A tile that hangs over C's edge goes through a whole one. */
static void edge(const product *p, const cpu_i8_tile *t, float *to, size_t ldc, size_t rows,
                 size_t cols, bool acc)
{
    float whole[MAX_TILE] = {0};
    size_t nr = p->kern->nr;

    if (acc)
        cpu_copy_rows(whole, nr, to, ldc, rows, cols);
    p->kern->tile(whole, nr, t, acc);
    cpu_copy_rows(to, ldc, whole, nr, rows, cols);
}

/* A part of C, or of what is as wide; row and col begin tiles. */
static void tiles(const void *ctx, float *c, size_t ldc, size_t row, size_t row_end,
                  size_t col, size_t col_end)
{
    const product *p = ctx;
    size_t mr = p->kern->mr, nr = p->kern->nr;

    if (p->kern->enter != NULL)
        p->kern->enter();
    for (size_t at = 0; at < p->words; at += GROUP_WORDS) {
        size_t block = at / p->a.block_words;
        for (size_t i = row; i < row_end; i += mr) {
            for (size_t j = col; j < col_end; j += nr) {
                size_t rows = cpu_min(mr, row_end - i), cols = cpu_min(nr, col_end - j);
                cpu_i8_tile t = p->a;
                float *to = c + i * ldc + j;
                t.a +=
                    block * t.a_block +
                    (p->a_panel > 0 ? i / nr * p->a_panel + i % nr * t.a_row : i * t.a_row);
                t.sa += block * t.sa_block + i;
                t.less += block * t.sa_block + i;
                t.b = p->b.words + j * p->words + at * nr;
                t.sb = p->b.scales + block * p->b.wide + j;
                t.sb_block = p->b.wide;
                t.words = cpu_min(GROUP_WORDS, p->words - at);
                if (rows == mr && cols == nr)
                    p->kern->tile(to, ldc, &t, p->acc || at > 0);
                else
                    edge(p, &t, to, ldc, rows, cols, p->acc || at > 0);
            }
        }
    }
    if (p->kern->leave != NULL)
        p->kern->leave();
}

/* ---- weights ---- */

typedef struct {
    const cpu_i8_kernels *kern;
    float *packed;
    const float *w;
    size_t n, k, block;
} pack_job;

static dr_status pack_panel(void *ctx, size_t task, int worker)
{
    const pack_job *j = ctx;
    size_t nr = j->kern->nr, wide = cpu_round(j->n, ROUND_N), first = task * nr;
    float *scales = j->packed + first;
    int32_t *words =
        (int32_t *)(j->packed + wide * cpu_ceil(j->k, j->block)) + first * words_of(j->k);
    int8_t codes[CPU_I8_BLOCK_MAX];
    int32_t word, less;

    (void)worker;
    for (size_t at = 0; at < j->k; at += j->block, scales += wide) {
        size_t count = cpu_min(j->block, j->k - at);
        for (size_t r = 0; r < nr; r++) {
            scales[r] = 0.0f;
            memset(codes, 0, j->block);
            if (first + r < j->n)
                j->kern->quantize(codes, &scales[r], &less, j->w + (first + r) * j->k + at,
                                  count);
            for (size_t p = 0; p < words_of(count); p++) {
                memcpy(&word, codes + 4 * p, sizeof(word));
                words[p * nr + r] = word ^ j->kern->shift;
            }
        }
        words += words_of(count) * nr;
    }
    return DR_OK;
}

static dr_status pack(nn_device *dev, void *packed, const float *w, size_t n, size_t k,
                      size_t block)
{
    pack_job j = {cpu_of(dev)->i8, packed, w, n, k, block};

    return cpu_tasks(dev, cpu_round(n, ROUND_N) / j.kern->nr, n * k, pack_panel, &j);
}

dr_status cpu_i8_pack(nn_device *dev, void *packed, const float *w, size_t n, size_t k)
{
    return pack(dev, packed, w, n, k, NN_I8_BLOCK);
}

/* ---- products ---- */

enum { ROWS = 32 }; /* quantized by one task */

typedef struct {
    product p;
    const float *x;
    int32_t *words, *less;
    float *scales;
    size_t m, k, high;
} left_job;

static dr_status quantize_rows(void *ctx, size_t task, int worker)
{
    const left_job *j = ctx;
    size_t end = cpu_min((task + 1) * ROWS, j->high), words = j->p.a.block_words;

    (void)worker;
    for (size_t i = task * ROWS; i < end; i++) {
        for (size_t at = 0, to = i; at < j->k; at += 4 * words, to += j->high) {
            size_t count = cpu_min(4 * words, j->k - at);
            int8_t *codes = (int8_t *)(j->words + to * words);
            j->scales[to] = 0.0f;
            j->less[to] = 0;
            if (i < j->m)
                j->p.kern->quantize(codes, &j->scales[to], &j->less[to],
                                    j->x + i * j->k + at, count);
            else
                memset(codes, 0, words_of(count) * sizeof(*j->words));
        }
    }
    return DR_OK;
}

static size_t left_floats(nn_device *dev, size_t m, size_t k, size_t block)
{
    return cpu_round(m, cpu_of(dev)->i8->mr) * cpu_ceil(k, block) * (block / 4 + 2);
}

/* *p gets x[m][k], quantized into work, as its left operand. */
static dr_status quantize_left(nn_device *dev, product *p, float *work, const float *x,
                               size_t m, size_t k, size_t block)
{
    const cpu_i8_kernels *kern = cpu_of(dev)->i8;
    size_t high = cpu_round(m, kern->mr), rows = high * cpu_ceil(k, block);
    left_job j = {.x = x, .m = m, .k = k, .high = high};

    j.words = (int32_t *)work;
    j.less = j.words + rows * (block / 4);
    j.scales = work + rows * (block / 4 + 1);
    p->kern = kern;
    p->words = words_of(k);
    p->a = (cpu_i8_tile){.a = j.words,
                         .less = j.less,
                         .sa = j.scales,
                         .a_row = block / 4,
                         .a_word = 1,
                         .a_block = high * (block / 4),
                         .sa_block = high,
                         .block_words = block / 4};
    j.p = *p;
    return cpu_tasks(dev, cpu_ceil(high, ROWS), m * k, quantize_rows, &j);
}

/* What all blocks of a product, of one length, share. */
typedef struct {
    float *y;
    const float *x, *bias;
    const void *packed;
    size_t m, n, k, ldy;
    bool acc;
} operands;

static dr_status matmul(nn_device *dev, const operands *o, size_t block)
{
    product p = {.b = parts(o->packed, o->n, o->k, block), .acc = o->acc};
    float *work = NULL;
    dr_status st = DR_OK;

    DR_TRY(cpu_work(dev, &work, left_floats(dev, o->m, o->k, block)));
    DR_TRY(quantize_left(dev, &p, work, o->x, o->m, o->k, block));
    DR_TRY(cpu_matmul_parts(dev, tiles, &p, o->y, o->ldy, o->bias, o->m, o->n, o->k));
done:
    return st;
}

dr_status cpu_i8_matmul(nn_device *dev, float *y, const float *x, const void *packed,
                        const float *bias, size_t m, size_t n, size_t k, size_t ldy,
                        bool acc)
{
    const operands o = {y, x, bias, packed, m, n, k, ldy, acc};

    return matmul(dev, &o, NN_I8_BLOCK);
}

/* ---- Gram matrices ---- */

typedef struct {
    product p;
    const float *x;
    float *scales;
    int32_t *less, *a, *b; /* panels as rows of A are read, and as B is */
    size_t m, n, wide;
} gram_job;

/* A panel of columns. */
static dr_status gram_panel(void *ctx, size_t task, int worker)
{
    const gram_job *j = ctx;
    size_t nr = j->p.kern->nr, first = task * nr, to = first, words = j->p.a.block_words;
    int32_t *a = j->a + task * j->p.a_panel, *b = j->b + first * words_of(j->m);

    (void)worker;
    for (size_t t = 0; t < j->m; t += 4 * words, to += j->wide) {
        size_t tokens = cpu_min(4 * words, j->m - t);
        size_t count = first < j->n ? cpu_min(nr, j->n - first) : 0;
        j->p.kern->quantize_columns(a, b, j->scales + to, j->less + to,
                                    j->x + t * j->n + (count ? first : 0), j->n, tokens,
                                    count, words);
        a += words * nr;
        b += words * nr;
    }
    return DR_OK;
}

static dr_status gram(nn_device *dev, float *strips, const float *x, size_t m, size_t n,
                      bool first, size_t block)
{
    const cpu_i8_kernels *kern = cpu_of(dev)->i8;
    size_t wide = cpu_round(n, ROUND_N), words = words_of(m), blocks = cpu_ceil(m, block);
    gram_job j = {.x = x, .m = m, .n = n, .wide = wide};
    dr_status st = DR_OK;

    DR_TRY(cpu_work(dev, &j.scales, wide * (blocks * (block / 4 + 2) + words)));
    j.less = (int32_t *)(j.scales + wide * blocks);
    j.a = j.less + wide * blocks;
    j.b = j.a + wide * blocks * (block / 4);
    j.p = (product){.kern = kern,
                    .a = {.a = j.a,
                          .less = j.less,
                          .sa = j.scales,
                          .a_row = kern->a_rows ? block / 4 : 1,
                          .a_word = kern->a_rows ? 1 : kern->nr,
                          .a_block = block / 4 * kern->nr,
                          .sa_block = wide,
                          .block_words = block / 4},
                    .b = {j.b, j.scales, wide},
                    .words = words,
                    .a_panel = blocks * (block / 4) * kern->nr,
                    .acc = !first};
    DR_TRY(cpu_tasks(dev, wide / kern->nr, m * n, gram_panel, &j));
    DR_TRY(cpu_gram_parts(dev, tiles, &j.p, strips, m, n));
done:
    return st;
}

dr_status cpu_i8_gram(nn_device *dev, float *strips, const float *x, size_t m, size_t n,
                      bool first)
{
    return gram(dev, strips, x, m, n, first, NN_I8_BLOCK);
}

/* ---- the same for calibration (nn_rough.h) ---- */

static size_t rough_bytes(size_t n, size_t k)
{
    return packed_bytes(n, k, NN_ROUGH_BLOCK);
}

static dr_status rough_pack(nn_device *dev, void *packed, const float *w, size_t n,
                            size_t k)
{
    return pack(dev, packed, w, n, k, NN_ROUGH_BLOCK);
}

static dr_status rough_matmul(nn_device *dev, float *y, const float *x, const void *packed,
                              const float *bias, size_t m, size_t n, size_t k, size_t ldy,
                              bool acc)
{
    const operands o = {y, x, bias, packed, m, n, k, ldy, acc};

    return matmul(dev, &o, NN_ROUGH_BLOCK);
}

static dr_status rough_gram(nn_device *dev, float *strips, const float *x, size_t m,
                            size_t n, bool first)
{
    return gram(dev, strips, x, m, n, first, NN_ROUGH_BLOCK);
}

enum { GATED_M = 96, GATED_N = 96, WIDE_FLOATS = GATED_M * 2 * GATED_N };

typedef struct {
    product p;
    const cpu_row_kernels *rows;
    float *y, *wide; /* wide: [GATED_M][2 GATED_N] a worker */
    const float *bias;
    size_t m, inner;
    nn_act act;
} gated_job;

/* GATED_M rows by GATED_N columns of gate and as many of up, side by side, and what the
 * activation makes of them: all 2 * inner columns would go through memory. */
static dr_status gated_tile(void *ctx, size_t task, int worker)
{
    const gated_job *j = ctx;
    size_t down = cpu_ceil(j->m, GATED_M), row = task % down * GATED_M;
    size_t col = task / down * GATED_N, cols = cpu_min(GATED_N, j->inner - col);
    size_t end = cpu_min(row + GATED_M, j->m), wide = 2 * cols;
    float *c = j->wide + (size_t)worker * WIDE_FLOATS;

    for (size_t half = 0; half < 2; half++) {
        product p = j->p;
        size_t first = half * j->inner + col;
        float *to = c + half * cols - row * wide;
        p.b.words += first * p.words;
        p.b.scales += first;
        tiles(&p, to, wide, row, end, 0, cols);
        for (size_t i = row; j->bias != NULL && i < end; i++)
            for (size_t k = 0; k < cols; k++)
                to[i * wide + k] += j->bias[first + k];
    }
    for (size_t i = row; i < end; i++, c += wide)
        j->rows->activate(j->y + i * j->inner + col, c, 1, cols, j->act);
    return DR_OK;
}

static dr_status rough_gated(nn_device *dev, bool *taken, float *y, const float *x,
                             const void *packed, const float *bias, size_t m, size_t inner,
                             size_t k, nn_act act)
{
    const cpu_state *state = cpu_of(dev);
    size_t threads = (size_t)dr_pool_threads(dev->pool);
    size_t left = left_floats(dev, m, k, NN_ROUGH_BLOCK);
    gated_job j = {.rows = state->rows,
                   .y = y,
                   .bias = bias,
                   .m = m,
                   .inner = inner,
                   .act = act,
                   .p.b = parts(packed, 2 * inner, k, NN_ROUGH_BLOCK)};
    float *work = NULL;
    dr_status st = DR_OK;

    *taken = act.gated && inner % state->i8->nr == 0;
    if (!*taken)
        goto done;
    DR_TRY(cpu_work(dev, &work, left + threads * WIDE_FLOATS));
    j.wide = work + left;
    DR_TRY(quantize_left(dev, &j.p, work, x, m, k, NN_ROUGH_BLOCK));
    DR_TRY(cpu_tasks(dev, cpu_ceil(m, GATED_M) * cpu_ceil(inner, GATED_N), m * inner * k,
                     gated_tile, &j));
done:
    return st;
}

static dr_status rough_attention(nn_device *dev, float *out, float *lse, const float *qkv,
                                 const nn_attn_shape *s)
{
    if (cpu_of(dev)->bf16 != NULL)
        return cpu_bf16_attention(dev, out, lse, qkv, s);
    return cpu_attention(dev, out, lse, qkv, s);
}

const nn_rough_ops cpu_rough_ops = {.bytes = rough_bytes,
                                    .pack = rough_pack,
                                    .matmul = rough_matmul,
                                    .gram = rough_gram,
                                    .gated = rough_gated,
                                    .attention = rough_attention};
