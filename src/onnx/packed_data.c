/*
 * packed_data.c - codes, scales and zero points of a weight into the external file.
 *
 * Two layouts: MatMulNBits' (a row of the weight is a row here, in blocks along K) and
 * DequantizeLinear's (the transpose: [K, N] codes, two in a byte, and [K/block, N] scales).
 * Scales are stored in the graph's float type.
 */
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "onnx/data_impl.h"

enum { PANEL_BLOCKS = 64 }; /* blocks of K between two writes of a transposed matrix */

static dr_status round_task(void *ctx, size_t task, int worker)
{
    const onnx_wave *w = ctx;
    float *tile = onnx_wave_floats(w, worker);
    size_t rows = 0, at = onnx_wave_at(w, task, &rows), bad = 0;
    uint8_t *codes = (uint8_t *)w->d->wave.p + at * w->code_bytes;
    float *scales = (float *)w->d->scales.p + (w->done + at) * w->blocks;
    uint8_t *zeros = NULL;
    dr_status st = DR_OK;

    if (w->with_zeros) {
        zeros = (uint8_t *)w->d->zeros.p + (w->done + at) * w->zero_bytes;
        memset(zeros, 0, rows * w->zero_bytes);
    }
    DR_TRY(onnx_source_read(w->s, tile, w->row0 + w->done + at, rows));
    if (!onnx_block_quantize(codes, scales, zeros, tile, rows, w->s->cols, w->grid, &bad)) {
        size_t row = w->row0 + w->done + at + bad;
        DR_FAIL(DR_EFORMAT, "%s: row %zu has a value that is not finite",
                onnx_source_name(w->s, row), onnx_source_row_in(w->s, row));
    }
done:
    return st;
}

static dr_status copy_task(void *ctx, size_t task, int worker)
{
    const onnx_wave *w = ctx;
    size_t rows = 0, at = onnx_wave_at(w, task, &rows);

    (void)worker;
    for (size_t r = at; r < at + rows; r++) {
        uint8_t *zeros = NULL;
        if (w->with_zeros)
            zeros = (uint8_t *)w->d->zeros.p + (w->done + r) * w->zero_bytes;
        onnx_source_row(w->s, w->row0 + w->done + r, w->grid,
                        (uint8_t *)w->d->wave.p + r * w->code_bytes,
                        (float *)w->d->scales.p + (w->done + r) * w->blocks, zeros);
    }
    return DR_OK;
}

static onnx_wave packed_wave(onnx_data *d, const onnx_source *s, size_t row0, size_t count,
                             const onnx_grid *grid)
{
    size_t n = (size_t)grid->block, bits = (size_t)grid->bits, kb = (s->cols + n - 1) / n;

    return (onnx_wave){.d = d,
                       .s = s,
                       .row0 = row0,
                       .rows = count,
                       .tile = onnx_wave_tile(s),
                       .grid = grid,
                       .with_zeros = !grid->symmetric,
                       .code_bytes = kb * n * bits / 8,
                       .blocks = kb,
                       .zero_bytes = (kb * bits + 7) / 8};
}

static dr_status reserve_packed(onnx_wave *w, const char *name)
{
    onnx_data *d = w->d;
    dr_status st = DR_OK;

    DR_TRY(onnx_wave_reserve(w));
    DR_TRY(onnx_room_reserve(&d->wave, onnx_wave_rows(w), w->code_bytes, name));
    DR_TRY(onnx_room_reserve(&d->scales, w->rows, w->blocks * sizeof(float), name));
    if (w->with_zeros)
        DR_TRY(onnx_room_reserve(&d->zeros, w->rows, w->zero_bytes, name));
done:
    return st;
}

/* ---- as MatMulNBits takes them ---- */

dr_status onnx_data_packed(onnx_data *d, onnx_packed_init *out, const char *const names[3],
                           const onnx_source *s, size_t row0, size_t count,
                           const onnx_grid *grid, bool round_here)
{
    onnx_wave w = packed_wave(d, s, row0, count, grid);
    onnx_dim rows = onnx_num((int64_t)count), blocks = onnx_num((int64_t)w.blocks);
    onnx_dim block_bytes = onnx_num((int64_t)(w.code_bytes / w.blocks));
    onnx_init *codes = NULL, *scales = NULL, *zeros = NULL;
    dr_status st = DR_OK;

    onnx_shape shape = {3, {rows, blocks, block_bytes}};

    DR_TRY(reserve_packed(&w, names[0]));
    if (s->stack > 0) /* as QMoE takes it */
        shape = onnx_rows_shape(s, count, w.code_bytes);
    DR_TRY(onnx_data_begin(d, &codes, names[0], ONNX_UINT8, shape));
    for (; w.done < count; w.done += w.count) {
        DR_TRY(onnx_wave_run(&w, round_here ? round_task : copy_task));
        DR_TRY(onnx_data_add(d, codes, d->wave.p, w.count * w.code_bytes));
        DR_TRY(dr_cancelled_check());
    }
    DR_TRY(onnx_data_floats(d, names[1], onnx_rows_shape(s, count, w.blocks), d->scales.p,
                            count * w.blocks));
    scales = d->g->inits.last;
    if (w.with_zeros) {
        DR_TRY(onnx_data_begin(d, &zeros, names[2], ONNX_UINT8,
                               onnx_shape2(rows, onnx_num((int64_t)w.zero_bytes))));
        DR_TRY(onnx_data_add(d, zeros, d->zeros.p, count * w.zero_bytes));
    }
    *out = (onnx_packed_init){codes, scales, zeros};
done:
    return st;
}

/* ---- as DequantizeLinear takes them ---- */

/* Blocks of K on their way to [K][N]. */
typedef struct {
    const onnx_wave *w;
    const uint8_t *codes; /* [N][code_bytes] */
    uint8_t *out;
    size_t first, count; /* blocks */
} panel;

static int value_at(const uint8_t *packed, size_t i, int bits)
{
    return bits == 8 ? packed[i] : packed[i / 2] >> (i % 2 * 4) & 15;
}

static void put_value(uint8_t *packed, size_t i, int bits, int value)
{
    if (bits == 8)
        packed[i] = (uint8_t)value;
    else
        packed[i / 2] |= (uint8_t)(value << (i % 2 * 4));
}

/* Rows of K in a block; the last one may be short. */
static size_t block_rows(const onnx_wave *w, size_t block)
{
    size_t n = (size_t)w->grid->block, left = w->s->cols - block * n;

    return left < n ? left : n;
}

/* Bytes of values in `rows` rows of [.][N]. */
static size_t row_bytes(const onnx_wave *w, size_t rows)
{
    return (rows * w->rows * (size_t)w->grid->bits + 7) / 8;
}

/* One block of K, all of N.  A whole block has a multiple of 16 rows: whole bytes. */
static dr_status turn_task(void *ctx, size_t task, int worker)
{
    const panel *p = ctx;
    const onnx_wave *w = p->w;
    int bits = w->grid->bits, flip = w->with_zeros ? 0 : 1 << (bits - 1);
    size_t n = (size_t)w->grid->block, rows = block_rows(w, p->first + task);
    size_t at = (p->first + task) * n * (size_t)bits / 8;
    uint8_t *out = p->out + task * row_bytes(w, n);

    (void)worker;
    memset(out, 0, row_bytes(w, rows));
    for (size_t r = 0; r < w->rows; r++) {
        const uint8_t *codes = p->codes + r * w->code_bytes + at;
        for (size_t k = 0; k < rows; k++)
            put_value(out, k * w->rows + r, bits, value_at(codes, k, bits) ^ flip);
    }
    return DR_OK;
}

static dr_status turned_codes(const onnx_wave *w, onnx_init *init, const uint8_t *codes)
{
    size_t most = w->blocks < PANEL_BLOCKS ? w->blocks : PANEL_BLOCKS;
    panel p = {.w = w, .codes = codes};
    void *out = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&out, most, row_bytes(w, (size_t)w->grid->block), init->name));
    p.out = out;
    for (; p.first < w->blocks; p.first += p.count) {
        p.count = w->blocks - p.first < most ? w->blocks - p.first : most;
        size_t whole = p.count - 1, last = p.first + whole;
        DR_TRY(dr_pool_run(w->d->pool, p.count, turn_task, &p));
        DR_TRY(onnx_data_add(w->d, init, out,
                             whole * row_bytes(w, (size_t)w->grid->block) +
                                 row_bytes(w, block_rows(w, last))));
        DR_TRY(dr_cancelled_check());
    }
done:
    dr_big_free(out);
    return st;
}

static dr_status turned_scales(const onnx_wave *w, const char *name, onnx_shape shape)
{
    const float *scales = w->d->scales.p;
    void *out = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&out, w->rows * w->blocks, sizeof(float), name));
    onnx_transpose(out, w->rows, 0, scales, w->rows, w->blocks, 0, w->blocks,
                   sizeof(float));
    DR_TRY(onnx_data_floats(w->d, name, shape, out, w->rows * w->blocks));
done:
    dr_big_free(out);
    return st;
}

static dr_status turned_zeros(const onnx_wave *w, const char *name, onnx_type type,
                              onnx_shape shape)
{
    const uint8_t *zeros = w->d->zeros.p;
    size_t bytes = row_bytes(w, w->blocks);
    int bits = w->grid->bits;
    void *out = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&out, bytes, 1, name));
    memset(out, 0, bytes);
    for (size_t r = 0; r < w->rows; r++) {
        for (size_t k = 0; k < w->blocks; k++)
            put_value(out, k * w->rows + r, bits,
                      value_at(zeros + r * w->zero_bytes, k, bits));
    }
    DR_TRY(onnx_data_raw(w->d, name, type, shape, out, bytes));
done:
    dr_big_free(out);
    return st;
}

dr_status onnx_data_dequant(onnx_data *d, onnx_packed_init *out, const char *const names[3],
                            const onnx_source *s, size_t row0, size_t count,
                            const onnx_grid *grid, bool round_here)
{
    onnx_wave w = packed_wave(d, s, row0, count, grid);
    onnx_type type = grid->bits == 8 ? w.with_zeros ? ONNX_UINT8 : ONNX_INT8_VALUE
                     : w.with_zeros  ? ONNX_UINT4
                                     : ONNX_INT4_VALUE;
    onnx_shape blocks = onnx_shape2(onnx_num((int64_t)w.blocks), onnx_num((int64_t)count));
    onnx_shape all = onnx_shape2(onnx_num((int64_t)s->cols), onnx_num((int64_t)count));
    onnx_init *init = NULL;
    void *codes = NULL;
    dr_status st = DR_OK;

    DR_BUG_IF(grid->bits != 4 && grid->bits != 8);
    DR_TRY(reserve_packed(&w, names[0]));
    DR_TRY(dr_big_alloc(&codes, count, w.code_bytes, names[0]));
    for (; w.done < count; w.done += w.count) {
        DR_TRY(onnx_wave_run(&w, round_here ? round_task : copy_task));
        memcpy((uint8_t *)codes + w.done * w.code_bytes, d->wave.p, w.count * w.code_bytes);
        DR_TRY(dr_cancelled_check());
    }
    DR_TRY(onnx_data_begin(d, &init, names[0], type, all));
    DR_TRY(turned_codes(&w, init, codes));
    *out = (onnx_packed_init){.codes = init};
    DR_TRY(turned_scales(&w, names[1], blocks));
    out->scales = d->g->inits.last;
    if (w.with_zeros) {
        DR_TRY(turned_zeros(&w, names[2], type, blocks));
        out->zeros = d->g->inits.last;
    }
done:
    dr_big_free(codes);
    return st;
}
