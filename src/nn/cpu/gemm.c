/*
 * gemm.c - C[M][N] (+)= A[M][K] B[K][N], either operand stored by rows or by columns.
 *
 * As Goto and van de Geijn (2008) with a shared packing step: a chunk of A and a chunk of B
 * are packed by all threads into panels, then all threads take tiles of C.
 *
 *   for each chunk of K (8 blocks), of N (4096), of M (1024):
 *       pack   A: [block of k][panel of mr rows][k][mr]   B: [block][panel of nr][k][nr]
 *       tiles  128 x 256 of C: for each block of k, panels of A times panels of B
 *
 * A panel of A (12 KB) stays in the first cache, a tile's panels of B (a block: 384 KB) in
 * the second.  Packing is 1/N and 1/M of the work and done once, not once a tile.
 *
 * What must hold: an element's terms are added in order of k, fused within a block of k,
 * blocks added to C in order.  Tiles, chunks of M and N, edges and threads do not enter.
 *
 * Measured (EPYC Zen 4, 2.6 GHz VM, 118 GFLOP/s peak a core): see tools/kernels/gemm.md.
 */
#include <string.h>

#include "nn/cpu/cpu_impl.h"

enum {
    BLOCK_K = 384,   /* k in one pass of a register tile */
    CHUNK_BLOCKS = 8,
    CHUNK_N = 4096,
    CHUNK_M = 1024,
    TILE_N = 256,
    TILE_M_MAX = 128,
    PACK_PANELS = 4, /* panels packed by one task */
    MAX_TILE = 8 * 32
};

typedef struct {
    float *c;
    size_t ldc;
    const float *a, *b;
    size_t lda, ldb;
    bool a_down, b_down; /* k runs down the rows of the stored matrix, not along them */
    const float *bias;   /* [N] or NULL */
    size_t m, n, k;
    bool acc;
} product;

/* One chunk at work. */
typedef struct {
    const product *p;
    const cpu_gemm_kernels *kern;
    size_t m0, m_count, n0, n_count, k0, blocks, block_k;
    size_t a_panels, b_panels, tile_m; /* tile_m in panels */
    float *a_pack, *b_pack;
    bool pack_b;
} chunk;

static size_t block_len(const chunk *c, size_t block)
{
    size_t from = c->k0 + block * c->block_k;

    return cpu_min(c->block_k, c->p->k - from);
}

static void pack_panel(const chunk *c, bool of_a, size_t block, size_t panel)
{
    const product *p = c->p;
    size_t kc = block_len(c, block), k0 = c->k0 + block * c->block_k;
    size_t w = of_a ? c->kern->mr : c->kern->nr;
    size_t panels = of_a ? c->a_panels : c->b_panels;
    size_t count = cpu_min(w, (of_a ? c->m_count : c->n_count) - panel * w);
    size_t at = (of_a ? c->m0 : c->n0) + panel * w;
    const float *src = of_a ? p->a : p->b;
    size_t ld = of_a ? p->lda : p->ldb;
    float *dst = (of_a ? c->a_pack : c->b_pack) + (block * c->block_k * panels + panel * kc) * w;

    if (of_a ? p->a_down : p->b_down)
        cpu_pack_cols(dst, w, src + k0 * ld + at, ld, count, kc);
    else
        cpu_pack_rows(c->kern, dst, w, src + at * ld + k0, ld, count, kc, 1.0f);
}

static dr_status pack_task(void *ctx, size_t task, int worker)
{
    const chunk *c = ctx;
    size_t a_groups = cpu_ceil(c->a_panels, PACK_PANELS);
    bool of_a = task < a_groups * c->blocks;
    size_t panels = of_a ? c->a_panels : c->b_panels;
    size_t groups = cpu_ceil(panels, PACK_PANELS);

    (void)worker;
    if (!of_a)
        task -= a_groups * c->blocks;
    size_t block = task / groups, from = task % groups * PACK_PANELS;
    for (size_t i = from; i < cpu_min(from + PACK_PANELS, panels); i++)
        pack_panel(c, of_a, block, i);
    return DR_OK;
}

/* A register tile that hangs over C's edge goes through a whole one. */
static void edge_tile(const chunk *c, float *to, const float *a, const float *b, size_t kc,
                      bool acc, size_t rows, size_t cols)
{
    _Alignas(64) float whole[MAX_TILE];
    size_t nr = c->kern->nr, ldc = c->p->ldc;

    c->kern->tile(whole, nr, a, b, kc, false);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++)
            to[i * ldc + j] = acc ? whole[i * nr + j] + to[i * ldc + j] : whole[i * nr + j];
}

static void add_bias(const chunk *c, size_t row, size_t rows, size_t col, size_t cols)
{
    for (size_t i = row; i < row + rows; i++) {
        float *to = c->p->c + i * c->p->ldc + col;
        for (size_t j = 0; j < cols; j++)
            to[j] += c->p->bias[col + j];
    }
}

static void tile_block(const chunk *c, size_t block, size_t row_panel, size_t row_end,
                       size_t col_panel, size_t col_end)
{
    const cpu_gemm_kernels *kern = c->kern;
    size_t mr = kern->mr, nr = kern->nr, kc = block_len(c, block);
    const float *a = c->a_pack + block * c->block_k * c->a_panels * mr;
    const float *b = c->b_pack + block * c->block_k * c->b_panels * nr;
    bool acc = c->p->acc || c->k0 + block > 0;

    for (size_t i = row_panel; i < row_end; i++) {
        size_t rows = cpu_min(mr, c->m_count - i * mr);
        float *to = c->p->c + (c->m0 + i * mr) * c->p->ldc + c->n0;
        for (size_t j = col_panel; j < col_end; j++) {
            size_t cols = cpu_min(nr, c->n_count - j * nr);
            const float *ap = a + i * kc * mr, *bp = b + j * kc * nr;
            if (rows == mr && cols == nr)
                kern->tile(to + j * nr, c->p->ldc, ap, bp, kc, acc);
            else
                edge_tile(c, to + j * nr, ap, bp, kc, acc, rows, cols);
        }
    }
}

static dr_status tile_task(void *ctx, size_t task, int worker)
{
    const chunk *c = ctx;
    size_t mr = c->kern->mr, nr = c->kern->nr, tile_n = TILE_N / nr;
    size_t col_tiles = cpu_ceil(c->b_panels, tile_n);
    size_t row = task / col_tiles * c->tile_m, col = task % col_tiles * tile_n;
    size_t row_end = cpu_min(row + c->tile_m, c->a_panels);
    size_t col_end = cpu_min(col + tile_n, c->b_panels);

    (void)worker;
    for (size_t block = 0; block < c->blocks; block++)
        tile_block(c, block, row, row_end, col, col_end);
    bool last = c->k0 + c->blocks * c->block_k >= c->p->k;
    if (c->p->bias != NULL && last) {
        size_t rows = cpu_min(row_end * mr, c->m_count) - row * mr;
        size_t cols = cpu_min(col_end * nr, c->n_count) - col * nr;
        add_bias(c, c->m0 + row * mr, rows, c->n0 + col * nr, cols);
    }
    return DR_OK;
}

static dr_status run_chunk(nn_device *dev, chunk *c)
{
    size_t mr = c->kern->mr, nr = c->kern->nr;
    size_t work = c->m_count * c->n_count * cpu_min(c->blocks * c->block_k, c->p->k);

    c->a_panels = cpu_ceil(c->m_count, mr);
    c->b_panels = cpu_ceil(c->n_count, nr);
    c->tile_m = TILE_M_MAX / mr;
    size_t packs = cpu_ceil(c->a_panels, PACK_PANELS) * c->blocks;
    if (c->pack_b)
        packs += cpu_ceil(c->b_panels, PACK_PANELS) * c->blocks;
    dr_status st = cpu_tasks(dev, packs, work, pack_task, c);
    if (st != DR_OK)
        return st;
    size_t tiles = cpu_ceil(c->a_panels, c->tile_m) * cpu_ceil(c->b_panels, TILE_N / nr);
    return cpu_tasks(dev, tiles, work, tile_task, c);
}

static dr_status run_product(nn_device *dev, const product *p)
{
    dr_status st = DR_OK;
    const cpu_gemm_kernels *kern = cpu_of(dev)->gemm;
    size_t all_blocks = cpu_ceil(p->k, BLOCK_K);
    size_t block_k = cpu_round(cpu_ceil(p->k, all_blocks), 8);
    size_t chunk_k = CHUNK_BLOCKS * block_k, k_most = cpu_min(chunk_k, p->k);
    size_t a_floats = k_most * cpu_round(cpu_min(CHUNK_M, p->m), kern->mr);
    size_t b_floats = k_most * cpu_round(cpu_min(CHUNK_N, p->n), kern->nr);
    float *work = NULL;

    a_floats = cpu_round(a_floats, 16);
    DR_TRY(cpu_work(dev, &work, a_floats + b_floats));
    for (size_t k0 = 0; k0 < p->k; k0 += chunk_k) {
        for (size_t n0 = 0; n0 < p->n; n0 += CHUNK_N) {
            for (size_t m0 = 0; m0 < p->m; m0 += CHUNK_M) {
                chunk c = {.p = p, .kern = kern, .m0 = m0, .n0 = n0, .k0 = k0};
                c.m_count = cpu_min(CHUNK_M, p->m - m0);
                c.n_count = cpu_min(CHUNK_N, p->n - n0);
                c.block_k = block_k;
                c.blocks = cpu_ceil(cpu_min(chunk_k, p->k - k0), block_k);
                c.a_pack = work;
                c.b_pack = work + a_floats;
                c.pack_b = m0 == 0;
                DR_TRY(run_chunk(dev, &c));
            }
        }
    }
done:
    return st;
}

dr_status cpu_matmul_nt(nn_device *dev, float *y, const float *x, const float *w,
                        const float *bias, size_t m, size_t n, size_t k, size_t ldy, bool acc)
{
    const product p = {.c = y, .ldc = ldy, .a = x, .lda = k, .b = w, .ldb = k, .bias = bias,
                       .m = m, .n = n, .k = k, .acc = acc};

    return run_product(dev, &p);
}

dr_status cpu_matmul_nn(nn_device *dev, float *y, const float *x, const float *w, size_t m,
                        size_t k, size_t n, size_t ldx, bool acc)
{
    const product p = {.c = y, .ldc = k, .a = x, .lda = ldx, .b = w, .ldb = k, .b_down = true,
                       .m = m, .n = k, .k = n, .acc = acc};

    return run_product(dev, &p);
}

dr_status cpu_matmul_tn(nn_device *dev, float *y, const float *a, const float *b, size_t n,
                        size_t k, size_t m, size_t lda, size_t ldb, bool acc)
{
    const product p = {.c = y, .ldc = k, .a = a, .lda = lda, .a_down = true, .b = b,
                       .ldb = ldb, .b_down = true, .m = n, .n = k, .k = m, .acc = acc};

    return run_product(dev, &p);
}
