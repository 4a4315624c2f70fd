/*
 * gemm.c - C[M][N] (+)= A[M][K] B[K][N], either operand stored by rows or by columns.
 *
 * As Goto and van de Geijn (2008), with a shared packing step and no packing of A where its
 * rows run along k: the kernel broadcasts single elements of A and reads mr rows of it as
 * they lie.
 *
 *   for each chunk of K (1 to 8 blocks, 8 MB packed), of N (4096), of M (4096):
 *       pack   B: [block of k][panel of nr][k][nr], and A likewise when k runs down it
 *       tiles  128 x 256 of C: for each block of k, mr rows of A times panels of B
 *
 * mr rows of A (16 KB) stay in the first cache, a tile's panels of B (a block: 512 KB) in
 * the second.  Packing is 1/M of the work, done once by all threads.
 *
 * What must hold: an element's terms are added in order of k, fused within a block of k,
 * blocks added to C in order.  Tiles, chunks of M and N, edges and threads do not enter.
 *
 * Measured against oneDNN 3.2: tools/kernels/gemm.md.
 */
#include <string.h>

#include "nn/cpu/cpu_impl.h"

enum {
    BLOCK_K = 512, /* k in one pass of a register tile */
    CHUNK_BLOCKS = 8,
    CHUNK_FLOATS = 1 << 21, /* packed at once, when one block allows */
    CHUNK_N = 4096,
    CHUNK_M = 4096,
    TILE_N = 256,
    TILE_M = 128,
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

/* One chunk at work.  Of an A whose rows run along k, only the last panel is packed, and
 * only when it has fewer than mr rows. */
typedef struct {
    const product *p;
    const cpu_gemm_kernels *kern;
    size_t m0, m_count, n0, n_count, k0, blocks, block_k;
    size_t a_panels, b_panels;
    size_t a_packed, b_packed; /* panels to pack: the last so many */
    float *a_pack, *b_pack;
} chunk;

static size_t block_len(const chunk *c, size_t block)
{
    size_t from = c->k0 + block * c->block_k;

    return cpu_min(c->block_k, c->p->k - from);
}

/* Where the packed panel of a block begins. */
static float *a_panel(const chunk *c, size_t block, size_t panel)
{
    size_t packed = panel - (c->a_panels - c->a_packed);

    return c->a_pack +
           (block * c->block_k * c->a_packed + packed * block_len(c, block)) * c->kern->mr;
}

static float *b_panel(const chunk *c, size_t block, size_t panel)
{
    return c->b_pack +
           (block * c->block_k * c->b_panels + panel * block_len(c, block)) * c->kern->nr;
}

static void pack(const chunk *c, bool of_a, size_t block, size_t panel)
{
    const product *p = c->p;
    size_t kc = block_len(c, block), k0 = c->k0 + block * c->block_k;
    size_t w = of_a ? c->kern->mr : c->kern->nr;
    size_t count = cpu_min(w, (of_a ? c->m_count : c->n_count) - panel * w);
    size_t at = (of_a ? c->m0 : c->n0) + panel * w;
    const float *src = of_a ? p->a : p->b;
    size_t ld = of_a ? p->lda : p->ldb;
    float *dst = of_a ? a_panel(c, block, panel) : b_panel(c, block, panel);

    if (of_a ? p->a_down : p->b_down)
        cpu_pack_cols(dst, w, src + k0 * ld + at, ld, count, kc);
    else
        cpu_pack_rows(c->kern, dst, w, src + at * ld + k0, ld, count, kc, 1.0f);
}

static dr_status pack_task(void *ctx, size_t task, int worker)
{
    const chunk *c = ctx;
    size_t a_tasks = cpu_ceil(c->a_packed, PACK_PANELS) * c->blocks;
    bool of_a = task < a_tasks;
    size_t packed = of_a ? c->a_packed : c->b_packed;
    size_t panels = of_a ? c->a_panels : c->b_panels,
           groups = cpu_ceil(packed, PACK_PANELS);

    (void)worker;
    task -= of_a ? 0 : a_tasks;
    size_t from = panels - packed + task % groups * PACK_PANELS;
    for (size_t i = from; i < cpu_min(from + PACK_PANELS, panels); i++)
        pack(c, of_a, task / groups, i);
    return DR_OK;
}

/* A register tile that hangs over C's edge went through a whole one. */
static void copy_edge(float *to, size_t ldc, const float *whole, size_t nr, size_t rows,
                      size_t cols, bool acc)
{
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

/* Row panel i times column panels col .. col_end - 1 of one block of k. */
static void tile_row(const chunk *c, size_t block, size_t i, size_t col, size_t col_end)
{
    const cpu_gemm_kernels *kern = c->kern;
    const product *p = c->p;
    size_t mr = kern->mr, nr = kern->nr, kc = block_len(c, block);
    size_t rows = cpu_min(mr, c->m_count - i * mr), row = c->m0 + i * mr;
    bool acc = p->acc || c->k0 + block > 0, packed = i >= c->a_panels - c->a_packed;
    const float *a =
        packed ? a_panel(c, block, i) : p->a + row * p->lda + c->k0 + block * c->block_k;

    for (size_t j = col; j < col_end; j++) {
        size_t cols = cpu_min(nr, c->n_count - j * nr);
        const float *b = b_panel(c, block, j);
        float *to = p->c + row * p->ldc + c->n0 + j * nr, whole[MAX_TILE];
        bool edge = rows < mr || cols < nr;
        float *dst = edge ? whole : to;
        size_t ldc = edge ? nr : p->ldc;
        if (packed)
            kern->tile(dst, ldc, a, b, kc, acc && !edge);
        else
            kern->tile_rows(dst, ldc, a, p->lda, b, kc, acc && !edge);
        if (edge)
            copy_edge(to, p->ldc, whole, nr, rows, cols, acc);
    }
}

static dr_status tile_task(void *ctx, size_t task, int worker)
{
    const chunk *c = ctx;
    size_t mr = c->kern->mr, nr = c->kern->nr, tile_m = TILE_M / mr, tile_n = TILE_N / nr;
    size_t col_tiles = cpu_ceil(c->b_panels, tile_n);
    size_t row = task / col_tiles * tile_m, col = task % col_tiles * tile_n;
    size_t row_end = cpu_min(row + tile_m, c->a_panels);
    size_t col_end = cpu_min(col + tile_n, c->b_panels);

    (void)worker;
    for (size_t block = 0; block < c->blocks; block++)
        for (size_t i = row; i < row_end; i++)
            tile_row(c, block, i, col, col_end);
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
    size_t work = c->m_count * c->n_count * cpu_min(c->blocks * c->block_k, c->p->k);
    size_t packs = cpu_ceil(c->a_packed, PACK_PANELS) + cpu_ceil(c->b_packed, PACK_PANELS);
    size_t tiles = cpu_ceil(c->a_panels, TILE_M / c->kern->mr) *
                   cpu_ceil(c->b_panels, TILE_N / c->kern->nr);
    dr_status st = DR_OK;

    DR_TRY(cpu_tasks(dev, packs * c->blocks, work, pack_task, c));
    DR_TRY(cpu_tasks(dev, tiles, work, tile_task, c));
done:
    return st;
}

/* The chunk at m0, n0, k0; work has room for the largest. */
static chunk chunk_at(const product *p, const cpu_gemm_kernels *kern, size_t m0, size_t n0,
                      size_t k0, size_t block_k, size_t blocks)
{
    chunk c = {.p = p, .kern = kern, .m0 = m0, .n0 = n0, .k0 = k0, .block_k = block_k};

    c.m_count = cpu_min(CHUNK_M, p->m - m0);
    c.n_count = cpu_min(CHUNK_N, p->n - n0);
    c.blocks = cpu_ceil(cpu_min(blocks * block_k, p->k - k0), block_k);
    c.a_panels = cpu_ceil(c.m_count, kern->mr);
    c.b_panels = cpu_ceil(c.n_count, kern->nr);
    c.a_packed = p->a_down ? c.a_panels : c.m_count % kern->mr != 0;
    c.b_packed = m0 == 0 ? c.b_panels : 0; /* else they are there */
    return c;
}

static dr_status run_product(nn_device *dev, const product *p)
{
    dr_status st = DR_OK;
    const cpu_gemm_kernels *kern = cpu_of(dev)->gemm;
    size_t a_wide = p->a_down ? cpu_round(cpu_min(CHUNK_M, p->m), kern->mr) : kern->mr;
    size_t b_wide = cpu_round(cpu_min(CHUNK_N, p->n), kern->nr);
    size_t block_k = cpu_round(cpu_ceil(p->k, cpu_ceil(p->k, BLOCK_K)), 8);
    size_t blocks = cpu_min(CHUNK_FLOATS / ((a_wide + b_wide) * block_k), CHUNK_BLOCKS);
    float *work = NULL;

    DR_BUG_IF(p->k == 0);
    blocks = blocks > 0 ? blocks : 1;
    size_t a_floats = cpu_round(a_wide * blocks * block_k, 16);
    DR_TRY(cpu_work(dev, &work, a_floats + b_wide * blocks * block_k));
    for (size_t k0 = 0; k0 < p->k; k0 += blocks * block_k) {
        for (size_t n0 = 0; n0 < p->n; n0 += CHUNK_N) {
            for (size_t m0 = 0; m0 < p->m; m0 += CHUNK_M) {
                chunk c = chunk_at(p, kern, m0, n0, k0, block_k, blocks);
                c.a_pack = work;
                c.b_pack = work + a_floats;
                DR_TRY(run_chunk(dev, &c));
            }
        }
    }
done:
    return st;
}

dr_status cpu_matmul_nt(nn_device *dev, float *y, const float *x, const float *w,
                        const float *bias, size_t m, size_t n, size_t k, size_t ldy,
                        bool acc)
{
    const product p = {.c = y,
                       .ldc = ldy,
                       .a = x,
                       .lda = k,
                       .b = w,
                       .ldb = k,
                       .bias = bias,
                       .m = m,
                       .n = n,
                       .k = k,
                       .acc = acc};

    return run_product(dev, &p);
}

dr_status cpu_matmul_nn(nn_device *dev, float *y, const float *x, const float *w, size_t m,
                        size_t k, size_t n, size_t ldx, bool acc)
{
    const product p = {.c = y,
                       .ldc = k,
                       .a = x,
                       .lda = ldx,
                       .b = w,
                       .ldb = k,
                       .b_down = true,
                       .m = m,
                       .n = k,
                       .k = n,
                       .acc = acc};

    return run_product(dev, &p);
}

dr_status cpu_matmul_tn(nn_device *dev, float *y, const float *a, const float *b, size_t n,
                        size_t k, size_t m, size_t lda, size_t ldb, bool acc)
{
    const product p = {.c = y,
                       .ldc = k,
                       .a = a,
                       .lda = lda,
                       .a_down = true,
                       .b = b,
                       .ldb = ldb,
                       .b_down = true,
                       .m = n,
                       .n = k,
                       .k = m,
                       .acc = acc};

    return run_product(dev, &p);
}
