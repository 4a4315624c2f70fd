/*
 * data_impl.h - the external file: weights stream into it while the graph is built.
 *
 * Every tensor begins at a multiple of 4096, so that a runtime can map it.  What is in
 * memory at a time is a wave of rows (a few MB) with the scales of one matrix; a float
 * MatMul weight, whose rows and columns change places, takes at most 256 MB.
 */
#ifndef DRUPE_ONNX_DATA_IMPL_H
#define DRUPE_ONNX_DATA_IMPL_H

#include "core/file.h"
#include "core/pool.h"
#include "onnx/graph_impl.h"
#include "onnx/weight_impl.h"

enum { ONNX_DATA_ALIGN = 4096 };

/* Memory that is kept from tensor to tensor. */
typedef struct {
    void *p; /* owned */
    size_t bytes;
} onnx_room;

typedef struct {
    onnx_graph *g;        /* borrowed */
    dr_pool *pool;        /* borrowed */
    onnx_type float_type; /* what floats become on their way: rounded to nearest even */
    dr_writer w;
    onnx_room wave, scales, zeros, tiles;
    const char *not_finite; /* borrowed: the first initializer with such a value */
} onnx_data;

/* The initializers of one packed weight; zeros NULL: symmetric. */
typedef struct {
    onnx_init *codes, *scales, *zeros;
} onnx_packed_init;

DR_MUST_USE dr_status onnx_data_open(onnx_data *d, onnx_graph *g, dr_pool *pool,
                                     onnx_type float_type, const char *path);
/* Warns when a float was not finite, and names the first initializer with one. */
DR_MUST_USE dr_status onnx_data_finish(onnx_data *d, uint64_t *bytes);
void onnx_data_close(onnx_data *d); /* after an error; harmless after finish */

/* A small tensor of any type: its bytes as they are. */
DR_MUST_USE dr_status onnx_data_raw(onnx_data *d, const char *name, onnx_type type,
                                    onnx_shape shape, const void *values, size_t bytes);
/* A small tensor of d->float_type, or of any float type.  DR_EFORMAT, here and below: a
 * value is beyond float16, named with its tensor. */
DR_MUST_USE dr_status onnx_data_floats(onnx_data *d, const char *name, onnx_shape shape,
                                       const float *values, size_t count);
DR_MUST_USE dr_status onnx_data_floats_as(onnx_data *d, const char *name, onnx_type type,
                                          onnx_shape shape, const float *values,
                                          size_t count);
/* All rows of a source: [rows][cols]. */
DR_MUST_USE dr_status onnx_data_rows(onnx_data *d, const char *name, onnx_type type,
                                     const onnx_source *s);
/* Rows row0 .. as the columns of a MatMul weight: [cols][count]. */
DR_MUST_USE dr_status onnx_data_columns(onnx_data *d, const char *name,
                                        const onnx_source *s, size_t row0, size_t count);

/* Rows row0 .. in MatMulNBits' layout, as they are packed in the model or rounded here.
 * names: of codes, scales and zero points. */
DR_MUST_USE dr_status onnx_data_packed(onnx_data *d, onnx_packed_init *out,
                                       const char *const names[3], const onnx_source *s,
                                       size_t row0, size_t count, const onnx_grid *grid,
                                       bool round_here);
/* The same as DequantizeLinear takes it: codes [K][N] as INT4, INT8 or, with zero points,
 * UINT4, UINT8; scales and zero points [K/block][N]. */
DR_MUST_USE dr_status onnx_data_dequant(onnx_data *d, onnx_packed_init *out,
                                        const char *const names[3], const onnx_source *s,
                                        size_t row0, size_t count, const onnx_grid *grid,
                                        bool round_here);
/* Another name, type and shape for bytes that are there. */
onnx_init *onnx_data_alias(onnx_data *d, const char *name, onnx_type type, onnx_shape shape,
                           const onnx_init *of);

/* ---- parts of the above, for the files of this room that stream weights ---- */

DR_MUST_USE dr_status onnx_room_reserve(onnx_room *r, size_t count, size_t size,
                                        const char *what);
/* A new initializer that begins here, at a multiple of 4096; its bytes are added to it. */
DR_MUST_USE dr_status onnx_data_begin(onnx_data *d, onnx_init **out, const char *name,
                                      onnx_type type, onnx_shape shape);
DR_MUST_USE dr_status onnx_data_add(onnx_data *d, onnx_init *i, const void *data,
                                    size_t bytes);

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
} onnx_wave;

/* rows of so many columns, or a stack of such matrices. */
onnx_shape onnx_rows_shape(const onnx_source *s, size_t rows, size_t cols);
size_t onnx_wave_tile(const onnx_source *s); /* rows in a tile */
/* Rows of the largest wave. */
size_t onnx_wave_rows(const onnx_wave *w);
/* Calls fn for the tiles of rows done .. of the wave. */
DR_MUST_USE dr_status onnx_wave_run(onnx_wave *w, dr_task_fn fn);
/* First row (in the wave) and rows of a task's tile. */
size_t onnx_wave_at(const onnx_wave *w, size_t task, size_t *rows);
/* A worker's tile of floats. */
float *onnx_wave_floats(const onnx_wave *w, int worker);
DR_MUST_USE dr_status onnx_wave_reserve(onnx_wave *w);

#endif
