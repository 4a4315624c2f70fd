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

dr_status onnx_room_reserve(onnx_room *r, size_t count, size_t size, const char *what)
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

dr_status onnx_data_begin(onnx_data *d, onnx_init **out, const char *name, onnx_type type,
                          onnx_shape shape)
{
    dr_status st = DR_OK;

    DR_TRY(dr_writer_align(&d->w, ONNX_DATA_ALIGN));
    *out = onnx_graph_init(d->g, name, type, shape);
    (*out)->offset = dr_writer_at(&d->w);
done:
    return st;
}

dr_status onnx_data_add(onnx_data *d, onnx_init *i, const void *data, size_t bytes)
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

    DR_TRY(onnx_data_begin(d, &i, name, type, shape));
    DR_TRY(onnx_data_add(d, i, values, bytes));
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
    float largest = type == ONNX_FLOAT16 ? 0x1.ffdffep15f : 0x1.fefffep127f;

    dr_from_f32(dst, src, onnx_type_dtype(type), n);
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

onnx_init *onnx_data_alias(onnx_data *d, const char *name, onnx_type type, onnx_shape shape,
                           const onnx_init *of)
{
    onnx_init *i = onnx_graph_init(d->g, name, type, shape);

    i->offset = of->offset;
    i->bytes = of->bytes;
    return i;
}

/* ---- tiles ---- */

size_t onnx_wave_tile(const onnx_source *s)
{
    size_t n = TILE_FLOATS / s->cols / 16 * 16;

    return n > 16 ? n : 16;
}

/* Rows of the largest wave. */
size_t onnx_wave_rows(const onnx_wave *w)
{
    return w->rows < w->tile * WAVE_TILES ? w->rows : w->tile * WAVE_TILES;
}

/* Calls fn for the tiles of rows done .. of the wave, at most WAVE_TILES of them. */
dr_status onnx_wave_run(onnx_wave *w, dr_task_fn fn)
{
    size_t left = w->rows - w->done, most = onnx_wave_rows(w);

    w->count = left < most ? left : most;
    return dr_pool_run(w->d->pool, (w->count + w->tile - 1) / w->tile, fn, w);
}

/* First row (in the wave) and rows of a task's tile. */
size_t onnx_wave_at(const onnx_wave *w, size_t task, size_t *rows)
{
    size_t at = task * w->tile;

    *rows = w->count - at < w->tile ? w->count - at : w->tile;
    return at;
}

/* A worker's tile as floats, and as values of the graph's type behind it. */
float *onnx_wave_floats(const onnx_wave *w, int worker)
{
    return (float *)w->d->tiles.p + (size_t)worker * w->tile * w->s->cols * 2;
}

static void *narrow_memory(const onnx_wave *w, int worker)
{
    return onnx_wave_floats(w, worker) + w->tile * w->s->cols;
}

dr_status onnx_wave_reserve(onnx_wave *w)
{
    size_t n = (size_t)dr_pool_threads(w->d->pool) * w->tile * w->s->cols;

    return onnx_room_reserve(&w->d->tiles, n, 2 * sizeof(float), "rows of a weight");
}

onnx_shape onnx_rows_shape(const onnx_source *s, size_t rows, size_t cols)
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
    const onnx_wave *w = ctx;
    size_t rows = 0, at = onnx_wave_at(w, task, &rows), row = w->row0 + w->done + at;
    float *tile = onnx_wave_floats(w, worker);
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
    onnx_wave w = {
        .d = d, .s = s, .rows = s->rows, .tile = onnx_wave_tile(s), .type = type};
    size_t bytes = onnx_type_bytes(type);
    onnx_init *i = NULL;
    dr_status st = DR_OK;

    DR_TRY(onnx_wave_reserve(&w));
    DR_TRY(onnx_room_reserve(&d->wave, onnx_wave_rows(&w) * s->cols, bytes, name));
    DR_TRY(onnx_data_begin(d, &i, name, type, onnx_rows_shape(s, s->rows, s->cols)));
    for (; w.done < w.rows; w.done += w.count) {
        DR_TRY(onnx_wave_run(&w, read_task));
        DR_TRY(onnx_data_add(d, i, d->wave.p, w.count * s->cols * bytes));
        DR_TRY(dr_cancelled_check());
    }
done:
    return st;
}

/* ---- floats, rows as columns ---- */

static dr_status transpose_task(void *ctx, size_t task, int worker)
{
    const onnx_wave *w = ctx;
    float *tile = onnx_wave_floats(w, worker);
    void *narrowed = narrow_memory(w, worker);
    size_t rows = 0, at = onnx_wave_at(w, task, &rows), row = w->row0 + w->done + at;
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
    onnx_wave w = {.d = d, .s = s, .row0 = row0, .rows = count, .tile = onnx_wave_tile(s)};
    size_t panel = PANEL_FLOATS / count;
    onnx_init *i = NULL;
    dr_status st = DR_OK;

    panel = panel < 16 ? 16 : panel;
    panel = panel < s->cols ? panel : s->cols;
    DR_TRY(onnx_wave_reserve(&w));
    DR_TRY(onnx_room_reserve(&d->wave, panel * count, float_bytes(d), name));
    DR_TRY(
        onnx_data_begin(d, &i, name, d->float_type,
                        onnx_shape2(onnx_num((int64_t)s->cols), onnx_num((int64_t)count))));
    for (w.k0 = 0; w.k0 < s->cols; w.k0 = w.k1) {
        w.k1 = s->cols - w.k0 < panel ? s->cols : w.k0 + panel;
        for (w.done = 0; w.done < count; w.done += w.count) {
            DR_TRY(onnx_wave_run(&w, transpose_task));
            DR_TRY(dr_cancelled_check());
        }
        DR_TRY(onnx_data_add(d, i, d->wave.p, (w.k1 - w.k0) * count * float_bytes(d)));
    }
done:
    return st;
}
