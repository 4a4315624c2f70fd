/*
 * npu_impl.h - a decoder of fixed shapes from operators of the standard domain, in parts.
 *
 *   build_npu.c         files, inputs, mask      build_npu_layer.c   attention, MLP, norm
 *   build_npu_value.c   values, their rounding   build_npu_linear.c  products, tables
 *   build_npu_weight.c  weights into the file    npu_genai.c         genai_config.json
 *
 * A value is what a node gives, together with its grid: in the QDQ form every computed
 * value is followed by QuantizeLinear and DequantizeLinear, and consumers read the
 * latter.  What only moves data (Reshape, Transpose, Split) has the grid of what it
 * moves.  The name of a computed value is the same in all forms: calibration measures it
 * in one and the other reads its range.
 */
#ifndef DRUPE_ONNX_NPU_IMPL_H
#define DRUPE_ONNX_NPU_IMPL_H

#include "onnx/data_impl.h"
#include "onnx/graph_impl.h"
#include "onnx/onnx.h"
#include "onnx/weight_impl.h"

/* Blocked and 4-bit DequantizeLinear and 16-bit QuantizeLinear are of 21. */
enum { NPU_OPSET = 21 };
/* A hidden score is this much below every other: e^-20 of its weight. */
enum { NPU_HIDDEN = 20 };

/* How a value is rounded; its scale and zero point are initializers of these names. */
typedef struct {
    const char *scale, *zero;
    onnx_type type; /* ONNX_UINT8, ONNX_UINT16 */
} npu_grid;

typedef struct {
    const char *name; /* what consumers read */
    onnx_shape shape;
    const npu_grid *grid; /* NULL: not rounded */
} npu_value;

/* [B, 1, S, rotary_dim] of the new positions, the sine with rotate_half's sign; without a
 * name: no layer rotates so. */
typedef struct {
    npu_value cos, sin;
} npu_rotation;

typedef struct {
    dr_arena *arena; /* borrowed: names, graph */
    onnx_graph g;
    onnx_data *data;          /* borrowed: one file for all graphs */
    const onnx_graph *before; /* its weights are in the file already; NULL: none */
    const hf_model *m;
    const hf_config *c;
    const onnx_npu_options *o;
    onnx_report *report;
    int64_t past, seq;        /* of this graph; past + seq is o->total */
    npu_rotation rotation[2]; /* of c->rope and c->rope_local */
    npu_value bias[2];        /* [B, 1, S, T]: all positions; the sliding window's */
    float mask;               /* what hides a position is -mask */
} npu_builder;

/* Rows of a source, as in build_impl.h. */
typedef struct {
    const onnx_source *s; /* borrowed */
    size_t row0, count;
} npu_rows;

/* ---- values (build_npu_value.c) ---- */

const char *npu_path(npu_builder *b, const char *path, const char *name); /* PATH/NAME */
onnx_shape npu_shape(int rank, int64_t d0, int64_t d1, int64_t d2, int64_t d3);
/* A node PATH with these inputs. */
onnx_node *npu_node(npu_builder *b, const char *op, const char *path, const npu_value *in,
                    size_t count);
/* Its output, computed: rounded in the QDQ form, measured in the calibration form. */
npu_value npu_settle(npu_builder *b, onnx_node *n, onnx_shape shape);
/* The same with a range that is known. */
npu_value npu_settle_in(npu_builder *b, onnx_node *n, onnx_shape shape, float least,
                        float largest);
/* The same, as this graph output. */
npu_value npu_settle_as(npu_builder *b, onnx_node *n, onnx_shape shape, const char *output);
/* x times a number; x itself for 1.  output: a graph output that it becomes, or NULL. */
npu_value npu_scaled(npu_builder *b, const char *path, const npu_value *x, double by,
                     const char *output);
/* s * tanh(x / s); x itself for 0. */
npu_value npu_capped(npu_builder *b, const char *path, const npu_value *x, double s,
                     const char *output);
/* Its output, moved: on the grid of `like`; several outputs one after the other. */
npu_value npu_moved(npu_builder *b, onnx_node *n, onnx_shape shape, const npu_value *like);
/* x as the graph output, as bytes of this grid; read again. */
npu_value npu_bytes_out(npu_builder *b, const char *path, const npu_value *x,
                        const char *output, const npu_grid *grid);
/* A graph input of unsigned bytes with the range of `range`, read. */
npu_value npu_bytes_in(npu_builder *b, const char *input, onnx_shape shape,
                       const char *range);
/* A float graph input, rounded in the QDQ form with the range of `range`. */
npu_value npu_float_in(npu_builder *b, const char *input, onnx_shape shape,
                       const char *range);
/* A small constant. */
npu_value npu_const(npu_builder *b, const char *name, const float *values,
                    onnx_shape shape);
/* The scale and the zero point of a range that is widened to hold 0. */
float npu_scale(float least, float largest, int bits, float *zero);
/* A grid of a range, under a name of its own; bits 8 or 16. */
const npu_grid *npu_grid_new(npu_builder *b, const char *name, float least, float largest,
                             int bits);
/* DequantizeLinear of a stored tensor. */
npu_value npu_dequantize(npu_builder *b, const char *path, const char *x, onnx_shape shape,
                         const npu_grid *grid);
npu_value npu_reshape(npu_builder *b, const char *path, const npu_value *x,
                      onnx_shape shape);
npu_value npu_transpose(npu_builder *b, const char *path, const npu_value *x,
                        const int64_t perm[4]);
/* The calibrated range of a value. */
void npu_range(const npu_builder *b, const char *name, float *least, float *largest);

/* ---- weights (build_npu_weight.c, build_npu_linear.c) ---- */

/* x times the transpose of these rows, plus their bias. */
DR_MUST_USE dr_status npu_linear(npu_builder *b, npu_value *out, const char *path,
                                 npu_rows rows, const npu_value *x);
DR_MUST_USE dr_status npu_embedding(npu_builder *b, npu_value *out);
DR_MUST_USE dr_status npu_head(npu_builder *b, const npu_value *x);

/* A matrix [cols][count] of integers in the file, with what dequantizes it. */
typedef struct {
    onnx_type type;                     /* INT8, INT4, UINT8, UINT4 */
    int block;                          /* -1: a scale for each output */
    const char *codes, *scales, *zeros; /* zeros NULL: none given */
} npu_matrix;
/* bits: 8, 4, or 0: 4, or what the model has packed. */
DR_MUST_USE dr_status npu_matrix_write(npu_builder *b, npu_matrix *out, const char *name,
                                       npu_rows rows, int bits);
/* An initializer of the graph before, again in this one; NULL: it has none of that name. */
onnx_init *npu_again(npu_builder *b, const char *name);

/* ---- layers (build_npu_layer.c) ---- */

/* Over the last dim; x itself where the model has no such norm. */
DR_MUST_USE dr_status npu_norm(npu_builder *b, npu_value *out, const char *path,
                               hf_norm which, int layer, const npu_value *x);
/* The value of attention's scores before the mask. */
const char *npu_scores(npu_builder *b, int layer);
DR_MUST_USE dr_status npu_layer(npu_builder *b, npu_value *x, int layer);

/* ---- beside the graphs (npu_genai.c) ---- */

DR_MUST_USE dr_status npu_genai_write(const hf_model *m, const char *dir,
                                      const onnx_npu_options *o, const char *prompt,
                                      const char *token, onnx_report *report);

#endif
