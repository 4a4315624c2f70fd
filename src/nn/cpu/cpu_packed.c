/*
 * cpu_packed.c - packed weights as they are trained, rows of a table, and transposed
 * matrices.
 *
 * Gradients of scales are summed by pieces of a block, each in the 16 lanes of dot, pieces
 * in double.
 */
#include <string.h>

#include "nn/cpu/cpu_impl.h"

enum { ROWS = 32, PIECE = 256 };

typedef struct {
    const cpu_row_kernels *k;
    const dr_qtensor *q;
    float *w, *ds;
    const float *dw;
} job;

static dr_status run(nn_device *dev, job *j, dr_task_fn fn)
{
    j->k = cpu_of(dev)->rows;
    return cpu_tasks(dev, cpu_ceil(j->q->rows, ROWS), j->q->rows * j->q->cols, fn, j);
}

static dr_status unpack_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    size_t row = task * ROWS;

    (void)worker;
    dr_qtensor_to_f32(j->w + row * j->q->cols, j->q, row, cpu_min(ROWS, j->q->rows - row));
    return DR_OK;
}

dr_status cpu_unpack(nn_device *dev, float *w, const dr_qtensor *q)
{
    job j = {.q = q, .w = w};

    return run(dev, &j, unpack_task);
}

/* n codes, less the zero point; the first begins a byte. */
static void units(float *u, const uint8_t *codes, size_t n, int bits, int zero)
{
    const size_t each = 8 / (size_t)bits;
    const unsigned mask = (1u << bits) - 1;

    if (bits == 4) { /* the usual one, in a form that compilers turn into vectors */
        for (size_t i = 0; i < (n + 1) / 2; i++) {
            u[2 * i] = (float)((int)(codes[i] & 15) - zero);
            u[2 * i + 1] = (float)((int)(codes[i] >> 4) - zero);
        }
        return;
    }
    for (size_t i = 0; i < n; i++)
        u[i] = (float)((int)(codes[i / each] >> i % each * (size_t)bits & mask) - zero);
}

static dr_status unpack_back_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    const dr_qtensor *q = j->q;
    size_t blocks = dr_qtensor_blocks(q), block = (size_t)q->block;
    size_t end = cpu_min((task + 1) * ROWS, q->rows);
    float u[PIECE];

    (void)worker;
    for (size_t r = task * ROWS; r < end; r++) {
        const uint8_t *codes = q->codes + r * dr_qtensor_row_bytes(q);
        for (size_t b = 0; b < blocks; b++) {
            size_t count = cpu_min(block, q->cols - b * block);
            const float *dw = j->dw + r * q->cols + b * block;
            double sum = 0;
            for (size_t i = 0; i < count; i += PIECE) {
                size_t n = cpu_min(PIECE, count - i);
                units(u, codes + (b * block + i) * (size_t)q->bits / 8, n, q->bits,
                      dr_qtensor_zero(q, r, b));
                sum += (double)j->k->dot(u, dw + i, n);
            }
            j->ds[r * blocks + b] += (float)sum;
        }
    }
    return DR_OK;
}

dr_status cpu_unpack_back(nn_device *dev, float *ds, const float *dw, const dr_qtensor *q)
{
    job j = {.q = q, .ds = ds, .dw = dw};

    return run(dev, &j, unpack_back_task);
}

/* ---- chosen ---- */

dr_status cpu_take_rows(nn_device *dev, float *y, const float *table, const int32_t *ids,
                        size_t count, size_t d)
{
    (void)dev;
    for (size_t i = 0; i < count; i++)
        memcpy(y + i * d, table + (size_t)ids[i] * d, d * sizeof(*y));
    return DR_OK;
}

/* ---- transposed ---- */

typedef struct {
    const cpu_gemm_kernels *k;
    float *y;
    const float *x;
    size_t m, n;
} turn_job;

/* Rows task * ROWS .. of y, by pieces that stay in the first cache. */
static dr_status turn_task(void *ctx, size_t task, int worker)
{
    const turn_job *j = ctx;
    size_t col = task * ROWS, cols = cpu_min(ROWS, j->n - col);

    (void)worker;
    for (size_t i = 0; i < j->m; i += PIECE)
        j->k->transpose(j->y + col * j->m + i, j->m, j->x + i * j->n + col, j->n,
                        cpu_min(PIECE, j->m - i), cols, 1.0f);
    return DR_OK;
}

dr_status cpu_transpose(nn_device *dev, float *y, const float *x, size_t m, size_t n)
{
    turn_job j = {cpu_of(dev)->gemm, y, x, m, n};

    return cpu_tasks(dev, cpu_ceil(n, ROWS), m * n, turn_task, &j);
}
