/*
 * build_npu_weight.c - rows of a model as the columns of an integer matrix in the file.
 *
 * MatMul of the standard domain wants [inputs, outputs], the transpose of what models have.
 * Codes are made row by row on all threads, each row scattered into its column, and packed
 * at the end: one byte a weight is in memory for one matrix.
 *
 *   a scale an output  scale = max|w| / (2^(bits-1) - 1), as ONNX Runtime's quantizer; zero
 *                      points of 0 are given, since QNN reads 4 bits right only with them
 *   blocks             the model builder's rounding (block_quantize.c), symmetric
 *   packed in model    its own codes, blocks and zero points
 */
#include <math.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "onnx/npu_impl.h"

enum { TASK_ROWS = 32 };

/* One matrix on its way. */
typedef struct {
    npu_rows rows;
    size_t cols, blocks; /* of a row */
    int bits;            /* of codes: 8, 4 or, as the model has them, 2 */
    int block;           /* -1: a row */
    bool kept;           /* codes are the model's own */
    bool with_zeros;
    uint8_t *codes; /* [cols][count], one a byte, before packing */
    float *scales;  /* [blocks][count] */
    uint8_t *zeros; /* likewise; with_zeros */
} job;

/* ---- one row ---- */

/* A row on one scale: codes of 2^(bits-1) and scale; false: not finite. */
static bool round_row(const job *j, size_t n, const float *row)
{
    const float top = (float)((1 << (j->bits - 1)) - 1);
    const int middle = 1 << (j->bits - 1);
    float largest = 0;

    for (size_t k = 0; k < j->cols; k++) {
        if (!isfinite(row[k]))
            return false;
        largest = fabsf(row[k]) > largest ? fabsf(row[k]) : largest;
    }
    const float scale = largest > 0 ? largest / top : 1;
    for (size_t k = 0; k < j->cols; k++) {
        float v = roundf(row[k] / scale);
        v = v > top ? top : v < -top ? -top : v;
        j->codes[k * j->rows.count + n] = (uint8_t)((int)v + middle);
    }
    j->scales[n] = scale;
    return true;
}

static int packed_at(const uint8_t *codes, size_t i, int bits)
{
    size_t at = i * (size_t)bits;

    return codes[at / 8] >> at % 8 & ((1 << bits) - 1);
}

/* Codes, scales and zeros of a row in MatMulNBits' layout into their columns. */
static void scatter(const job *j, size_t n, const uint8_t *codes, const float *scales,
                    const uint8_t *zeros)
{
    for (size_t k = 0; k < j->cols; k++)
        j->codes[k * j->rows.count + n] = (uint8_t)packed_at(codes, k, j->bits);
    for (size_t i = 0; i < j->blocks; i++) {
        j->scales[i * j->rows.count + n] = scales[i];
        if (j->with_zeros)
            j->zeros[i * j->rows.count + n] = (uint8_t)packed_at(zeros, i, j->bits);
    }
}

/* ---- rows on all threads ---- */

static dr_status row_task(void *ctx, size_t task, int worker)
{
    const job *j = ctx;
    const size_t first = task * TASK_ROWS;
    const size_t last =
        first + TASK_ROWS < j->rows.count ? first + TASK_ROWS : j->rows.count;
    const onnx_grid grid = {
        .bits = j->bits, .block = j->block, .symmetric = !j->with_zeros};
    const size_t padded = j->blocks * (size_t)(j->block > 0 ? j->block : 1);
    dr_arena scratch = {0};
    void *floats = NULL;
    size_t bad = 0;
    dr_status st = DR_OK;

    (void)worker;
    uint8_t *codes = dr_arena_alloc(&scratch, padded, 1);
    uint8_t *zeros = dr_arena_alloc(&scratch, j->blocks, 1);
    float *scales = dr_arena_alloc(&scratch, j->blocks, sizeof(*scales));
    if (!j->kept)
        DR_TRY(dr_arena_big(&scratch, &floats, j->cols, sizeof(float), "a row of weights"));
    for (size_t n = first; n < last; n++) {
        const size_t row = j->rows.row0 + n;
        bool ok = true;
        if (j->kept) {
            memset(zeros, 0, j->blocks);
            onnx_source_row(j->rows.s, row, &grid, codes, scales,
                            j->with_zeros ? zeros : NULL);
            scatter(j, n, codes, scales, zeros);
            continue;
        }
        DR_TRY(onnx_source_read(j->rows.s, floats, row, 1));
        if (j->block < 0) {
            ok = round_row(j, n, floats);
        } else {
            ok = onnx_block_quantize(codes, scales, NULL, floats, 1, j->cols, &grid, &bad);
            scatter(j, n, codes, scales, NULL);
        }
        if (!ok)
            DR_FAIL(DR_EFORMAT, "%s: row %zu has a value that is not finite",
                    onnx_source_name(j->rows.s, row), row);
    }
done:
    dr_arena_release(&scratch);
    return st;
}

/* ---- into the file ---- */

/* Codes of `count` values as the type has them: signed where there are no zero points,
 * two a byte where they have four bits.  In place; the bytes that are left. */
static size_t pack(const job *j, uint8_t *codes, size_t count)
{
    const int middle = j->with_zeros ? 0 : 1 << (j->bits - 1);
    const bool bytes = j->bits == 8;

    for (size_t i = 0; i < count; i++) {
        unsigned code = (unsigned)((int)codes[i] - middle);
        if (bytes)
            codes[i] = (uint8_t)(code & 255);
        else if (i % 2 == 0)
            codes[i / 2] = (uint8_t)(code & 15);
        else
            codes[i / 2] = (uint8_t)(codes[i / 2] | (code & 15) << 4);
    }
    return bytes ? count : (count + 1) / 2;
}

static onnx_type code_type(const job *j)
{
    if (j->with_zeros)
        return j->bits == 8 ? ONNX_UINT8 : ONNX_UINT4;
    return j->bits == 8 ? ONNX_INT8_VALUE : ONNX_INT4_VALUE;
}

/* Zero points: the model's own, or zeros for a scale an output; NULL name: none. */
static dr_status write_zeros(npu_builder *b, const job *j, const npu_matrix *w)
{
    const size_t count = j->blocks * j->rows.count;
    onnx_dim n = onnx_num((int64_t)j->rows.count);
    onnx_shape shape =
        j->block < 0 ? onnx_shape1(n) : onnx_shape2(onnx_num((int64_t)j->blocks), n);
    size_t bytes = 0;

    if (w->zeros == NULL)
        return DR_OK;
    bytes = j->with_zeros ? pack(j, j->zeros, count) : (count * (size_t)j->bits + 7) / 8;
    return onnx_data_raw(b->data, w->zeros, w->type, shape, j->zeros, bytes);
}

static dr_status write_matrix(npu_builder *b, const job *j, const npu_matrix *w)
{
    onnx_dim n = onnx_num((int64_t)j->rows.count);
    onnx_shape scales =
        j->block < 0 ? onnx_shape1(n) : onnx_shape2(onnx_num((int64_t)j->blocks), n);
    const size_t bytes = pack(j, j->codes, j->cols * j->rows.count);
    dr_status st = DR_OK;

    DR_TRY(onnx_data_raw(b->data, w->codes, w->type,
                         onnx_shape2(onnx_num((int64_t)j->cols), n), j->codes, bytes));
    DR_TRY(
        onnx_data_floats(b->data, w->scales, scales, j->scales, j->blocks * j->rows.count));
    DR_TRY(write_zeros(b, j, w));
done:
    return st;
}

onnx_init *npu_again(npu_builder *b, const char *name)
{
    if (b->before == NULL)
        return NULL;
    const onnx_init *i = onnx_graph_find_init(b->before, name);
    if (i == NULL)
        return NULL;
    onnx_init *again = onnx_graph_init(&b->g, name, i->type, i->shape);
    again->offset = i->offset;
    again->bytes = i->bytes;
    return again;
}

/* ---- which grid ---- */

/* The largest power of two up to `block` that divides the inputs; -1: less than 16. */
static int fit_block(int block, size_t cols)
{
    while (block >= ONNX_BLOCK_MIN && cols % (size_t)block != 0)
        block /= 2;
    return block >= ONNX_BLOCK_MIN ? block : -1;
}

static void choose(const npu_builder *b, job *j, int bits)
{
    const npu_rows *r = &j->rows;
    onnx_grid grid = {0};

    j->bits = bits;
    j->block = -1;
    if (j->bits == 0 && onnx_source_packed(r->s, r->row0, r->count) &&
        onnx_source_grid(r->s, r->row0, r->count, &grid) && grid.block >= ONNX_BLOCK_MIN) {
        j->kept = true;
        j->bits = grid.bits;
        j->block = grid.block;
        j->with_zeros = !grid.symmetric;
    }
    if (j->bits == 0)
        j->bits = 4;
    if (!j->kept && j->bits == 4 && b->o->block_size > 0)
        j->block = fit_block(b->o->block_size, r->s->cols);
    const size_t n = j->block > 0 ? (size_t)j->block : r->s->cols;
    j->cols = r->s->cols;
    j->blocks = (j->cols + n - 1) / n;
}

dr_status npu_matrix_write(npu_builder *b, npu_matrix *out, const char *name, npu_rows rows,
                           int bits)
{
    job j = {.rows = rows};
    dr_arena scratch = {0};
    void *codes = NULL, *scales = NULL, *zeros = NULL;
    dr_status st = DR_OK;

    choose(b, &j, bits);
    *out = (npu_matrix){.type = code_type(&j),
                        .block = j.block,
                        .codes = name,
                        .scales = dr_arena_printf(b->arena, "%s_scales", name)};
    if (j.block < 0 || j.with_zeros)
        out->zeros = dr_arena_printf(b->arena, "%s_zero_points", name);
    if (npu_again(b, name) != NULL) {
        (void)npu_again(b, out->scales);
        if (out->zeros != NULL)
            (void)npu_again(b, out->zeros);
        goto done;
    }
    DR_TRY(dr_arena_big(&scratch, &codes, j.cols, rows.count, name));
    DR_TRY(dr_arena_big(&scratch, &scales, j.blocks * rows.count, sizeof(float), name));
    DR_TRY(dr_arena_big(&scratch, &zeros, j.blocks, rows.count, name));
    j.codes = codes;
    j.scales = scales;
    j.zeros = zeros;
    DR_TRY(
        dr_pool_run(b->data->pool, (rows.count + TASK_ROWS - 1) / TASK_ROWS, row_task, &j));
    DR_TRY(write_matrix(b, &j, out));
    DR_TRY(dr_cancelled_check());
done:
    dr_arena_release(&scratch);
    return st;
}
