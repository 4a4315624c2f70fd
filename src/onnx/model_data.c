/*
 * model_data.c - the external file, written from front to back.
 *
 * Work is cut into tiles of rows by the matrix alone, never by the number of threads, and
 * each tile writes its own place: the bytes are the same for any pool.
 */
#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "core/log.h"
#include "core/mem.h"
#include "onnx/data_impl.h"

enum {
    TILE_FLOATS = 1 << 16,          /* 256 KB: a tile in a core's second-level cache */
    WAVE_TILES = 64,                /* tiles between two writes */
    PANEL_FLOATS = 64 * 1024 * 1024 /* of a transposed matrix: 256 MB */
};

/* ---- the file ---- */

dr_status onnx_data_open(onnx_data *d, onnx_graph *g, dr_pool *pool, onnx_type float_type,
                         const char *path)
{
    *d = (onnx_data){.g = g, .pool = pool, .float_type = float_type, .w = {.fd = -1}};
    return dr_writer_open(&d->w, path);
}

dr_status onnx_data_finish(onnx_data *d, uint64_t *bytes)
{
    if (d->not_finite != NULL)
        dr_warn_result("%s has values that are not finite numbers", d->not_finite);
    *bytes = dr_writer_at(&d->w);
    return dr_writer_finish(&d->w);
}

void onnx_data_close(onnx_data *d)
{
    onnx_room *rooms[] = {&d->wave, &d->scales, &d->zeros, &d->tiles};

    dr_writer_close(&d->w);
    for (size_t i = 0; i < DR_COUNT(rooms); i++)
        dr_big_free(rooms[i]->p);
    *d = (onnx_data){.w = {.fd = -1}};
}

static dr_status reserve(onnx_room *r, size_t count, size_t size, const char *what)
{
    size_t bytes = 0;
    dr_status st = DR_OK;

    if (dr_mul(&bytes, count, size) && bytes <= r->bytes)
        return DR_OK;
    dr_big_free(r->p);
    *r = (onnx_room){0};
    DR_TRY(dr_big_alloc(&r->p, count, size, what));
    r->bytes = bytes;
done:
    return st;
}

/* A new initializer that begins here, at a multiple of 4096. */
static dr_status begin(onnx_data *d, onnx_init **out, const char *name, onnx_type type,
                       onnx_shape shape)
{
    dr_status st = DR_OK;

    DR_TRY(dr_writer_align(&d->w, ONNX_DATA_ALIGN));
    *out = onnx_graph_init(d->g, name, type, shape);
    (*out)->offset = dr_writer_at(&d->w);
done:
    return st;
}

static dr_status add(onnx_data *d, onnx_init *i, const void *data, size_t bytes)
{
    if (i->type == ONNX_FLOAT && d->not_finite == NULL &&
        !dr_all_finite(data, DR_DTYPE_F32, bytes / sizeof(float)))
        d->not_finite = i->name;
    i->bytes += bytes;
    return dr_writer_add(&d->w, data, bytes);
}

dr_status onnx_data_raw(onnx_data *d, const char *name, onnx_type type, onnx_shape shape,
                        const void *values, size_t bytes)
{
    onnx_init *i = NULL;
    dr_status st = DR_OK;

    DR_TRY(begin(d, &i, name, type, shape));
    DR_TRY(add(d, i, values, bytes));
done:
    return st;
}

/* ---- floats of the graph's type ---- */

static size_t float_bytes(const onnx_data *d)
{
    return onnx_type_bytes(d->float_type);
}

/* n floats as values of a float type; DR_EFORMAT when a finite one becomes infinite. */
static dr_status narrow(void *dst, onnx_type type, const float *src, size_t n,
                        const char *name)
{
    dr_dtype t = type == ONNX_FLOAT16    ? DR_DTYPE_F16
                 : type == ONNX_BFLOAT16 ? DR_DTYPE_BF16
                                         : DR_DTYPE_F32;
    float largest = type == ONNX_FLOAT16 ? 0x1.ffdffep15f : 0x1.fefffep127f;

    dr_from_f32(dst, src, t, n);
    for (size_t i = 0; type != ONNX_FLOAT && i < n; i++) {
        if (fabsf(src[i]) <= largest || !isfinite(src[i]))
            continue;
        dr_status st =
            dr_fail(DR_EFORMAT, "%s: the value %g is beyond %s", name, (double)src[i],
                    type == ONNX_FLOAT16 ? "float16" : "bfloat16");
        dr_hint("fp32 and bf16 hold it");
        return st;
    }
    return DR_OK;
}

dr_status onnx_data_floats_as(onnx_data *d, const char *name, onnx_type type,
                              onnx_shape shape, const float *values, size_t count)
{
    void *p = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&p, count, onnx_type_bytes(type), name));
    DR_TRY(narrow(p, type, values, count, name));
    DR_TRY(onnx_data_raw(d, name, type, shape, p, count * onnx_type_bytes(type)));
done:
    dr_big_free(p);
    return st;
}

dr_status onnx_data_floats(onnx_data *d, const char *name, onnx_shape shape,
                           const float *values, size_t count)
{
    return onnx_data_floats_as(d, name, d->float_type, shape, values, count);
}

const onnx_init *onnx_data_alias(onnx_data *d, const char *name, onnx_type type,
                                 onnx_shape shape, const onnx_init *of)
{
    onnx_init *i = onnx_graph_init(d->g, name, type, shape);

    i->offset = of->offset;
    i->bytes = of->bytes;
    return i;
}

/* ---- tiles ---- */

/* What the tasks of one wave share; a task is a tile of rows. */
typedef struct {
    onnx_data *d;
    const onnx_source *s;
    size_t row0, rows;  /* of the source: the matrix that is written */
    size_t done, count; /* rows of it: this wave */
    size_t tile;        /* rows in a tile */
    onnx_type type;     /* of floats, row by row */
    /* packed */
    const onnx_grid *grid;
    bool with_zeros;
    size_t code_bytes, blocks, zero_bytes; /* of a row */
    /* transposed */
    size_t k0, k1;
} wave;

static size_t tile_rows(const onnx_source *s)
{
    size_t n = TILE_FLOATS / s->cols / 16 * 16;

    return n > 16 ? n : 16;
}

/* Rows of the largest wave. */
static size_t wave_rows(const wave *w)
{
    return w->rows < w->tile * WAVE_TILES ? w->rows : w->tile * WAVE_TILES;
}

/* Calls fn for the tiles of rows done .. of the wave, at most WAVE_TILES of them. */
static dr_status run_wave(wave *w, dr_task_fn fn)
{
    size_t left = w->rows - w->done, most = wave_rows(w);

    w->count = left < most ? left : most;
    return dr_pool_run(w->d->pool, (w->count + w->tile - 1) / w->tile, fn, w);
}

/* First row (in the wave) and rows of a task's tile. */
static size_t tile_at(const wave *w, size_t task, size_t *rows)
{
    size_t at = task * w->tile;

    *rows = w->count - at < w->tile ? w->count - at : w->tile;
    return at;
}

/* A worker's tile as floats, and as values of the graph's type behind it. */
static float *tile_memory(const wave *w, int worker)
{
    return (float *)w->d->tiles.p + (size_t)worker * w->tile * w->s->cols * 2;
}

static void *narrow_memory(const wave *w, int worker)
{
    return tile_memory(w, worker) + w->tile * w->s->cols;
}

static dr_status reserve_tiles(wave *w)
{
    size_t n = (size_t)dr_pool_threads(w->d->pool) * w->tile * w->s->cols;

    return reserve(&w->d->tiles, n, 2 * sizeof(float), "rows of a weight");
}

/* rows of so many columns, or a stack of such matrices. */
static onnx_shape rows_shape(const onnx_source *s, size_t rows, size_t cols)
{
    onnx_dim wide = onnx_num((int64_t)cols);

    if (s->stack == 0)
        return onnx_shape2(onnx_num((int64_t)rows), wide);
    return (onnx_shape){
        3, {onnx_num((int64_t)s->stack), onnx_num((int64_t)(rows / s->stack)), wide}};
}

/* ---- floats, row by row ---- */

static dr_status read_task(void *ctx, size_t task, int worker)
{
    const wave *w = ctx;
    size_t rows = 0, at = tile_at(w, task, &rows), row = w->row0 + w->done + at;
    float *tile = tile_memory(w, worker);
    dr_status st = DR_OK;

    DR_TRY(onnx_source_read(w->s, tile, row, rows));
    DR_TRY(narrow((uint8_t *)w->d->wave.p + at * w->s->cols * onnx_type_bytes(w->type),
                  w->type, tile, rows * w->s->cols, onnx_source_name(w->s, row)));
done:
    return st;
}

dr_status onnx_data_rows(onnx_data *d, const char *name, onnx_type type,
                         const onnx_source *s)
{
    wave w = {.d = d, .s = s, .rows = s->rows, .tile = tile_rows(s), .type = type};
    size_t bytes = onnx_type_bytes(type);
    onnx_init *i = NULL;
    dr_status st = DR_OK;

    DR_TRY(reserve_tiles(&w));
    DR_TRY(reserve(&d->wave, wave_rows(&w) * s->cols, bytes, name));
    DR_TRY(begin(d, &i, name, type, rows_shape(s, s->rows, s->cols)));
    for (; w.done < w.rows; w.done += w.count) {
        DR_TRY(run_wave(&w, read_task));
        DR_TRY(add(d, i, d->wave.p, w.count * s->cols * bytes));
        DR_TRY(dr_cancelled_check());
    }
done:
    return st;
}

/* ---- floats, rows as columns ---- */

static dr_status transpose_task(void *ctx, size_t task, int worker)
{
    const wave *w = ctx;
    float *tile = tile_memory(w, worker);
    void *narrowed = narrow_memory(w, worker);
    size_t rows = 0, at = tile_at(w, task, &rows), row = w->row0 + w->done + at;
    const void *from = tile;
    dr_status st = DR_OK;

    DR_TRY(onnx_source_read(w->s, tile, row, rows));
    if (w->d->float_type != ONNX_FLOAT) {
        DR_TRY(narrow(narrowed, w->d->float_type, tile, rows * w->s->cols,
                      onnx_source_name(w->s, row)));
        from = narrowed;
    }
    onnx_transpose(w->d->wave.p, w->rows, w->done + at, from, rows, w->s->cols, w->k0,
                   w->k1, float_bytes(w->d));
done:
    return st;
}

dr_status onnx_data_columns(onnx_data *d, const char *name, const onnx_source *s,
                            size_t row0, size_t count)
{
    wave w = {.d = d, .s = s, .row0 = row0, .rows = count, .tile = tile_rows(s)};
    size_t panel = PANEL_FLOATS / count;
    onnx_init *i = NULL;
    dr_status st = DR_OK;

    panel = panel < 16 ? 16 : panel;
    panel = panel < s->cols ? panel : s->cols;
    DR_TRY(reserve_tiles(&w));
    DR_TRY(reserve(&d->wave, panel * count, float_bytes(d), name));
    DR_TRY(begin(d, &i, name, d->float_type,
                 onnx_shape2(onnx_num((int64_t)s->cols), onnx_num((int64_t)count))));
    for (w.k0 = 0; w.k0 < s->cols; w.k0 = w.k1) {
        w.k1 = s->cols - w.k0 < panel ? s->cols : w.k0 + panel;
        for (w.done = 0; w.done < count; w.done += w.count) {
            DR_TRY(run_wave(&w, transpose_task));
            DR_TRY(dr_cancelled_check());
        }
        DR_TRY(add(d, i, d->wave.p, (w.k1 - w.k0) * count * float_bytes(d)));
    }
done:
    return st;
}

/* ---- packed ---- */

static dr_status round_task(void *ctx, size_t task, int worker)
{
    const wave *w = ctx;
    float *tile = tile_memory(w, worker);
    size_t rows = 0, at = tile_at(w, task, &rows), bad = 0;
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
    const wave *w = ctx;
    size_t rows = 0, at = tile_at(w, task, &rows);

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

static dr_status reserve_packed(wave *w, const char *name)
{
    onnx_data *d = w->d;
    dr_status st = DR_OK;

    DR_TRY(reserve_tiles(w));
    DR_TRY(reserve(&d->wave, wave_rows(w), w->code_bytes, name));
    DR_TRY(reserve(&d->scales, w->rows, w->blocks * sizeof(float), name));
    if (w->with_zeros)
        DR_TRY(reserve(&d->zeros, w->rows, w->zero_bytes, name));
done:
    return st;
}

dr_status onnx_data_packed(onnx_data *d, onnx_packed_init *out, const char *const names[3],
                           const onnx_source *s, size_t row0, size_t count,
                           const onnx_grid *grid, bool round_here)
{
    size_t n = (size_t)grid->block, bits = (size_t)grid->bits, kb = (s->cols + n - 1) / n;
    wave w = {.d = d,
              .s = s,
              .row0 = row0,
              .rows = count,
              .tile = tile_rows(s),
              .grid = grid,
              .with_zeros = !grid->symmetric,
              .code_bytes = kb * n * bits / 8,
              .blocks = kb,
              .zero_bytes = (kb * bits + 7) / 8};
    onnx_dim rows = onnx_num((int64_t)count), blocks = onnx_num((int64_t)kb);
    onnx_init *codes = NULL, *zeros = NULL;
    const onnx_init *scales = NULL;
    dr_status st = DR_OK;

    onnx_shape shape = {3, {rows, blocks, onnx_num((int64_t)(n * bits / 8))}};
    DR_TRY(reserve_packed(&w, names[0]));
    if (s->stack > 0) /* as QMoE takes it */
        shape = rows_shape(s, count, w.code_bytes);
    DR_TRY(begin(d, &codes, names[0], ONNX_UINT8, shape));
    for (; w.done < count; w.done += w.count) {
        DR_TRY(run_wave(&w, round_here ? round_task : copy_task));
        DR_TRY(add(d, codes, d->wave.p, w.count * w.code_bytes));
        DR_TRY(dr_cancelled_check());
    }
    DR_TRY(
        onnx_data_floats(d, names[1], rows_shape(s, count, kb), d->scales.p, count * kb));
    scales = d->g->inits.last;
    if (w.with_zeros) {
        DR_TRY(begin(d, &zeros, names[2], ONNX_UINT8,
                     onnx_shape2(rows, onnx_num((int64_t)w.zero_bytes))));
        DR_TRY(add(d, zeros, d->zeros.p, count * w.zero_bytes));
    }
    *out = (onnx_packed_init){codes, scales, zeros};
done:
    return st;
}
