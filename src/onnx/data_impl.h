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
    const onnx_init *codes, *scales, *zeros;
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
/* Another name, type and shape for bytes that are there. */
const onnx_init *onnx_data_alias(onnx_data *d, const char *name, onnx_type type,
                                 onnx_shape shape, const onnx_init *of);

#endif
