/*
 * bf16_products.c - calibration's products of bf16 by tile registers, for what lives on
 * small differences (NN_ROUGH_CLOSE): closer than 8-bit integers, and four times as fast as
 * floats.
 *
 *   panels   32 rows of either operand, [panel][step of 32 of k][CPU_BF16_STEP words]
 *   tiles    96 x 192 of C (parts.c): for each 1,024 of k, a panel of A times panels of B
 *
 * A weight is packed once as right operands; a Gram matrix packs its columns in both forms.
 */
#include "nn/cpu/cpu_impl.h"

enum { SIDE = CPU_BF16_SIDE, STEP = CPU_BF16_STEP, GROUP_STEPS = 32, TURN_STEPS = 8 };

static size_t steps_of(size_t k)
{
    return cpu_ceil(k, SIDE);
}

/* Words of n rows of k values. */
static size_t words_of(size_t n, size_t k)
{
    return cpu_ceil(n, SIDE) * steps_of(k) * STEP;
}

static size_t bytes_of(size_t n, size_t k)
{
    return words_of(n, k) * sizeof(uint32_t);
}

/* ---- a part of C ---- */

typedef struct {
    const cpu_bf16_kernels *kern;
    const uint32_t *a, *b;
    size_t steps;
    bool acc;
} product;

/* rows x cols of a tile that hangs over C's edge. */
static void edge(const product *p, float *c, size_t ldc, const uint32_t *a,
                 const uint32_t *b, size_t steps, bool acc, size_t rows, size_t cols)
{
    float whole[SIDE * SIDE] = {0};

    if (acc)
        cpu_copy_rows(whole, SIDE, c, ldc, rows, cols);
    p->kern->tile(whole, SIDE, a, b, steps, acc);
    cpu_copy_rows(c, ldc, whole, SIDE, rows, cols);
}

/* A part of C. */
static void tiles(const void *ctx, float *c, size_t ldc, size_t row, size_t row_end,
                  size_t col, size_t col_end)
{
    const product *p = ctx;

    p->kern->enter();
    for (size_t at = 0; at < p->steps; at += GROUP_STEPS) {
        size_t steps = cpu_min(GROUP_STEPS, p->steps - at);
        bool acc = p->acc || at > 0;
        for (size_t i = row; i < row_end; i += SIDE) {
            const uint32_t *a = p->a + (i / SIDE * p->steps + at) * STEP;
            for (size_t j = col; j < col_end; j += SIDE) {
                const uint32_t *b = p->b + (j / SIDE * p->steps + at) * STEP;
                size_t rows = cpu_min(SIDE, row_end - i), cols = cpu_min(SIDE, col_end - j);
                float *to = c + i * ldc + j;
                if (rows == SIDE && cols == SIDE)
                    p->kern->tile(to, ldc, a, b, steps, acc);
                else
                    edge(p, to, ldc, a, b, steps, acc, rows, cols);
            }
        }
    }
    p->kern->leave();
}

/* ---- operands ---- */

typedef struct {
    const cpu_bf16_kernels *kern;
    uint32_t *to;
    const float *x;
    size_t n, k;
} pack_job;

/* Rows as a left operand. */
static dr_status left_panel(void *ctx, size_t task, int worker)
{
    const pack_job *j = ctx;
    size_t row = task * SIDE;

    (void)worker;
    j->kern->pack_rows(j->to + task * steps_of(j->k) * STEP, j->x + row * j->k, j->k,
                       cpu_min(SIDE, j->n - row), j->k);
    return DR_OK;
}

/* And as a right one. */
static dr_status pack_panel(void *ctx, size_t task, int worker)
{
    const pack_job *j = ctx;
    size_t row = task * SIDE, rows = cpu_min(SIDE, j->n - row), steps = steps_of(j->k);
    uint32_t *to = j->to + task * steps * STEP, room[TURN_STEPS * STEP];

    (void)worker;
    for (size_t at = 0; at < steps; at += TURN_STEPS) {
        size_t count = cpu_min(TURN_STEPS, steps - at), k = at * SIDE;
        j->kern->pack_rows(room, j->x + row * j->k + k, j->k, rows,
                           cpu_min(count * SIDE, j->k - k));
        j->kern->turn(to + at * STEP, room, count);
    }
    return DR_OK;
}

static dr_status pack(nn_device *dev, void *packed, const float *w, size_t n, size_t k)
{
    pack_job j = {cpu_of(dev)->bf16, packed, w, n, k};

    return cpu_tasks(dev, cpu_ceil(n, SIDE), n * k, pack_panel, &j);
}

/* ---- products ---- */

static dr_status matmul(nn_device *dev, float *y, const float *x, const void *packed,
                        const float *bias, size_t m, size_t n, size_t k, size_t ldy,
                        bool acc)
{
    const cpu_bf16_kernels *kern = cpu_of(dev)->bf16;
    float *work = NULL;
    dr_status st = DR_OK;

    DR_TRY(cpu_work(dev, &work, words_of(m, k)));
    pack_job left = {kern, (uint32_t *)work, x, m, k};
    const product p = {kern, left.to, packed, steps_of(k), acc};
    DR_TRY(cpu_tasks(dev, cpu_ceil(m, SIDE), m * k, left_panel, &left));
    DR_TRY(cpu_matmul_parts(dev, tiles, &p, y, ldy, bias, m, n, k));
done:
    return st;
}

/* ---- Gram matrices ---- */

typedef struct {
    const cpu_bf16_kernels *kern;
    const float *x;
    uint32_t *a, *b;
    size_t steps, m, n;
} gram_job;

/* A panel of columns. */
static dr_status gram_panel(void *ctx, size_t task, int worker)
{
    const gram_job *j = ctx;
    size_t col = task * SIDE, cols = cpu_min(SIDE, j->n - col);
    size_t first = task * j->steps * STEP;

    (void)worker;
    for (size_t i = 0; i < j->steps; i++) {
        size_t to = first + i * STEP, t = i * SIDE;
        j->kern->pack_columns(j->a + to, j->b + to, j->x + t * j->n + col, j->n,
                              cpu_min(SIDE, j->m - t), cols);
    }
    return DR_OK;
}

static dr_status gram(nn_device *dev, float *strips, const float *x, size_t m, size_t n,
                      bool first)
{
    size_t words = words_of(n, m);
    float *work = NULL;
    dr_status st = DR_OK;

    DR_TRY(cpu_work(dev, &work, 2 * words));
    uint32_t *a = (uint32_t *)work, *b = a + words;
    gram_job j = {cpu_of(dev)->bf16, x, a, b, steps_of(m), m, n};
    const product p = {j.kern, a, b, j.steps, !first};
    DR_TRY(cpu_tasks(dev, cpu_ceil(n, SIDE), m * n, gram_panel, &j));
    DR_TRY(cpu_gram_parts(dev, tiles, &p, strips, m, n));
done:
    return st;
}

const nn_rough_ops cpu_bf16_ops = {.kind = NN_MEM_FLOAT,
                                   .bytes = bytes_of,
                                   .pack = pack,
                                   .matmul = matmul,
                                   .gram = gram,
                                   .attention = cpu_bf16_attention};
