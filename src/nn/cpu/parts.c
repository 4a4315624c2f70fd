/*
 * parts.c - products and Gram matrices in parts of C, each a task: what i8.c and
 * bf16_products.c share, whose operands and tiles differ.
 */
#include <string.h>

#include "nn/cpu/cpu_impl.h"

typedef struct {
    cpu_part_fn part;
    const void *product;
    float *c;
    size_t m, n, ldc;
    const float *bias;
} parts_job;

void cpu_copy_rows(float *to, size_t ldt, const float *from, size_t ldf, size_t rows,
                   size_t cols)
{
    for (size_t i = 0; i < rows; i++)
        memcpy(to + i * ldt, from + i * ldf, cols * sizeof(*to));
}

static dr_status matmul_part(void *ctx, size_t task, int worker)
{
    const parts_job *j = ctx;
    size_t across = cpu_ceil(j->n, CPU_PART_N);
    size_t row = task / across * CPU_PART_M, col = task % across * CPU_PART_N;
    size_t row_end = cpu_min(row + CPU_PART_M, j->m);
    size_t col_end = cpu_min(col + CPU_PART_N, j->n);

    (void)worker;
    j->part(j->product, j->c, j->ldc, row, row_end, col, col_end);
    for (size_t i = row; j->bias != NULL && i < row_end; i++) {
        for (size_t c = col; c < col_end; c++)
            j->c[i * j->ldc + c] += j->bias[c];
    }
    return DR_OK;
}

dr_status cpu_matmul_parts(nn_device *dev, cpu_part_fn part, const void *product, float *c,
                           size_t ldc, const float *bias, size_t m, size_t n, size_t k)
{
    parts_job j = {part, product, c, m, n, ldc, bias};

    return cpu_tasks(dev, cpu_ceil(m, CPU_PART_M) * cpu_ceil(n, CPU_PART_N), m * n * k,
                     matmul_part, &j);
}

/* A piece of a strip. */
static dr_status gram_part(void *ctx, size_t task, int worker)
{
    const parts_job *j = ctx;
    size_t row = 0, before = 0;

    (void)worker;
    for (;; row += NN_GRAM_STRIP) { /* which strip, and what lies before it */
        size_t cols = cpu_min(row + NN_GRAM_STRIP, j->n);
        size_t pieces = cpu_ceil(cols, CPU_PART_N);
        if (task < pieces)
            break;
        task -= pieces;
        before += (cols - row) * cols;
    }
    size_t end = cpu_min(row + NN_GRAM_STRIP, j->n), col = task * CPU_PART_N;
    float *c = j->c + before - row * end; /* as if all rows had been so wide */
    j->part(j->product, c, end, row, end, col, cpu_min(col + CPU_PART_N, end));
    return DR_OK;
}

dr_status cpu_gram_parts(nn_device *dev, cpu_part_fn part, const void *product,
                         float *strips, size_t m, size_t n)
{
    parts_job j = {.part = part, .product = product, .c = strips, .n = n};
    size_t count = 0;

    for (size_t r = 0; r < n; r += NN_GRAM_STRIP)
        count += cpu_ceil(cpu_min(r + NN_GRAM_STRIP, n), CPU_PART_N);
    return cpu_tasks(dev, count, m * n * n, gram_part, &j);
}
