/*
 * onnx_rewrite.h - a model.onnx of anybody's, changed: a part of onnx's door (onnx.h).
 *
 *     onnx_edit *e;
 *     onnx_rewrite_open(&e, "in/model.onnx", "out");
 *     onnx_tidy(e, &(onnx_tidy_options){.reshapes = true});
 *     onnx_rewrite_save(e);      out/model.onnx, and out/model.onnx.data where weights
 * changed
 *     onnx_rewrite_close(e);
 *
 * The same input gives the same bytes.  All of them: DR_EFORMAT: the graph is not valid;
 * DR_EUNSUPPORTED: what a rewrite does not look into (graphs within nodes, model
 * functions), by node; DR_EUSAGE: a name that is not there.
 */
#ifndef DRUPE_ONNX_REWRITE_H
#define DRUPE_ONNX_REWRITE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/pool.h"
#include "core/qtensor.h"
#include "core/status.h"

typedef struct onnx_edit onnx_edit;

DR_MUST_USE dr_status onnx_rewrite_open(onnx_edit **out, const char *model,
                                        const char *dir);
DR_MUST_USE dr_status onnx_rewrite_save(onnx_edit *e);
void onnx_rewrite_close(onnx_edit *e);
void onnx_rewrite_name(onnx_edit *e, const char *file); /* instead of model.onnx */
/* External file i that the saved model still needs beside it; NULL: no more. */
const char *onnx_rewrite_file(const onnx_edit *e, size_t i);
const char *onnx_rewrite_path(const onnx_edit *e); /* of the model that was opened */
size_t onnx_rewrite_nodes(const onnx_edit *e);
/* What was changed since the open: nodes, values, entries. */
size_t onnx_rewrite_changes(const onnx_edit *e);

const char *onnx_rewrite_output(const onnx_edit *e, size_t i); /* its name; NULL: none */
/* What the node of that name reads as input i; NULL: it has none, or there is no such. */
const char *onnx_rewrite_input(const onnx_edit *e, const char *node, size_t i);
void onnx_import(onnx_edit *e, const char *domain, int64_t version); /* that at least */
void onnx_drop_shapes(onnx_edit *e); /* what is said of values between nodes */

/* Names, ends with NULL; a NULL list: none given. */
typedef const char *const *onnx_names;
bool onnx_named(onnx_names list, const char *name);

/* ---- types and shapes (rewrite_half.c, rewrite_io.c) ---- */

typedef struct {
    double min_positive, max_finite; /* constants are brought into this range */
    bool keep_io;                    /* inputs and outputs stay float32 */
    onnx_names keep_names;           /* only these of them; NULL: all */
    onnx_names op_block, op_include, node_block, node_include;
} onnx_half_options;
/* float32 to float16; casts stand around nodes that stay. */
DR_MUST_USE dr_status onnx_to_half(onnx_edit *e, const onnx_half_options *o);
/* How far the weight of the MatMul that gives output 0 is from float16; negative: no such
 * MatMul.  *node: its name (borrowed from e). */
DR_MUST_USE dr_status onnx_half_loss(onnx_edit *e, const char **node, double *worst);

/* Inputs and outputs of type `from` (TensorProto numbers) whose name the POSIX extended
 * expression matches get type `to`, with a Cast inside.  NULL or "": all. */
DR_MUST_USE dr_status onnx_io_types(onnx_edit *e, const char *pattern, int from, int to);
/* Every dimension of that name gets this size. */
DR_MUST_USE dr_status onnx_fix_dim(onnx_edit *e, const char *name, int64_t size);
DR_MUST_USE dr_status onnx_fix_input(onnx_edit *e, const char *input, const int64_t *dims,
                                     size_t rank);
/* The sizes of an output, where they are open. */
void onnx_fix_output(onnx_edit *e, const char *output, const int64_t *dims, size_t rank);
/* Inputs [N, C, H, W] that are given as [N, H, W, C], with a Transpose inside. */
DR_MUST_USE dr_status onnx_nchw_to_nhwc(onnx_edit *e, onnx_names inputs);
/* The same of inputs and outputs [N, C, D1, ...] of three sizes and more; NULL: none. */
DR_MUST_USE dr_status onnx_channels_last(onnx_edit *e, onnx_names inputs,
                                         onnx_names outputs);

void onnx_set_metadata(onnx_edit *e, const char *key, const char *value);
const char *onnx_metadata(const onnx_edit *e, const char *key); /* NULL: none */
/* Metadata of each node whose name has that part, those of graphs within nodes too; what a
 * node has under the key stays. */
void onnx_annotate(onnx_edit *e, const char *part, const char *key, const char *value);
const char *onnx_annotation(const onnx_edit *e, const char *node, const char *key);
void onnx_set_graph_name(onnx_edit *e, const char *name);

/* ---- structure (rewrite_tidy.c, rewrite_opset.c) ---- */

typedef struct {
    bool general;  /* Identity, Dropout, casts and transposes of no effect, double nodes,
                      what nothing reads */
    bool reshapes; /* a Reshape before another */
    bool casts;    /* to a type and back */
} onnx_tidy_options;
DR_MUST_USE dr_status onnx_tidy(onnx_edit *e, const onnx_tidy_options *o);

enum { ONNX_OPSET_OLDEST = 11, ONNX_OPSET_NEWEST = 23 };
/* The same graph in a newer version of the standard operators.  DR_EUSAGE: older. */
DR_MUST_USE dr_status onnx_raise_opset(onnx_edit *e, int64_t version);

/* Gelu, LpNormalization, SpaceToDepth and (layer_norm) LayerNormalization where they are
 * written out; nodes without a name get one (rewrite_qnn.c).  DR_EUSAGE: layer_norm, and an
 * opset before 17. */
DR_MUST_USE dr_status onnx_prepare_for_qnn(onnx_edit *e, bool layer_norm);

/* One of the surgeons, with its arguments as Olive's GraphSurgeries has them. */
DR_MUST_USE dr_status onnx_surgery(onnx_edit *e, const json_t *surgeon, const char *where);
/* Names of all surgeons, ends with NULL. */
const char *const *onnx_surgeons(void);

/* ---- several graphs (split_graph.c, compose_graph.c) ---- */

/* Parts of modules, by their names in nodes' names: "model.layers.0" is part 0. */
typedef struct {
    const char *module;
    size_t part;
} onnx_assignment;
typedef struct {
    onnx_assignment *list; /* arena */
    size_t count, parts;   /* parts: 1 more than the largest one */
} onnx_parts;
/* "NAME=0;NAME2=1".  DR_EUSAGE: no such list, a name twice; what: whose. */
DR_MUST_USE dr_status onnx_parts_parse(onnx_parts *out, dr_arena *a, const char *text,
                                       const char *what);
/* The values between parts of which e does not say how large they are; names in a. */
DR_MUST_USE dr_status onnx_parts_unknown(onnx_edit *e, const onnx_parts *s, dr_arena *a,
                                         const char *const **names, size_t *count);
/* What somebody else says of a value. */
typedef struct {
    const char *name;
    size_t rank;
    int64_t dims[8]; /* -1: any */
} onnx_described;
/*
 * Leaves what belongs to one part: nodes of its modules, and of those that are of no module
 * the ones after them, or, before all of them, the ones that they need.  No node is in an
 * earlier part than what it reads; constants, and DequantizeLinear, are in every part that
 * reads them.  Values between parts become inputs and outputs, as e or `more` says.
 * *empty: nothing is left.
 */
DR_MUST_USE dr_status onnx_keep_part(onnx_edit *e, const onnx_parts *s, size_t part,
                                     const onnx_described *more, size_t count,
                                     bool *empty);

/*
 * parts[0] becomes all of them, one after the other: an input has the output of that name
 * before it, and outputs that are read so are none any more.  What two parts have (inputs,
 * weights, nodes) is there once.  All stay open until parts[0] is saved, and their external
 * files lie in one folder.
 * DR_EUSAGE: names that meet and are of other types, sizes or values; an output twice, or
 * one that an earlier part reads.
 */
DR_MUST_USE dr_status onnx_compose(onnx_edit *const *parts, size_t count);

/* ---- weights (rewrite_blocks.c, rewrite_int8.c, rewrite_qdq.c) ---- */

/* rows [rows][cols] to a packed weight; zeros NULL where symmetric.  ctx: the caller's. */
typedef dr_status (*onnx_round_fn)(void *ctx, dr_qtensor *out, const float *rows,
                                   size_t count, size_t cols);
typedef struct {
    int bits, block;
    bool symmetric;
    int rounding;        /* onnx_rounding, where round is NULL */
    onnx_round_fn round; /* else this one */
    void *ctx;
    int accuracy_level;
    bool matmul, gather; /* which are rounded */
    onnx_names exclude, include;
} onnx_blocks_options;
/* MatMul to MatMulNBits, Gather to GatherBlockQuantized, where the weight is constant. */
DR_MUST_USE dr_status onnx_to_blocks(onnx_edit *e, const onnx_blocks_options *o);

typedef struct {
    bool fp4;           /* else nf4 */
    onnx_names modules; /* NULL: all; a node's name ends with MODULE/MatMul */
    onnx_names exclude;
} onnx_bnb4_options;
/* MatMul to MatMulBnb4. */
DR_MUST_USE dr_status onnx_to_bnb4(onnx_edit *e, const onnx_bnb4_options *o);

typedef struct {
    bool transpose, is_signed, add_zero_point;
    onnx_names exclude;
} onnx_qdq_options;
/* MatMulNBits to DequantizeLinear and MatMul. */
DR_MUST_USE dr_status onnx_blocks_to_qdq(onnx_edit *e, const onnx_qdq_options *o);

typedef struct {
    bool is_signed; /* weights are int8, else uint8 */
    bool symmetric, per_channel, reduce_range;
    onnx_names op_types, op_exclude, nodes, exclude;
} onnx_int8_options;
/* Weights of 8 bits, activations rounded as they come: MatMul and Gemm to MatMulInteger,
 * Gather to a Gather of bytes. */
DR_MUST_USE dr_status onnx_dynamic_int8(onnx_edit *e, const onnx_int8_options *o);

/*
 * Weights that have 16 bits because a value beside them in one of these operators does
 * (wide): their names (borrowed from e).  One that other nodes read too is doubled.
 */
DR_MUST_USE dr_status onnx_wide_weights(onnx_edit *e, onnx_names wide, onnx_names op_types,
                                        const char *const **weights, size_t *count);

/* ---- calibrated (rewrite_static.c) ---- */

typedef struct {
    const char *name;
    float least, largest;
} onnx_seen;
/* The values that onnx_static_int8 wants ranges of; names borrowed from e. */
DR_MUST_USE dr_status onnx_static_values(onnx_edit *e, const onnx_int8_options *o,
                                         const char *const **names, size_t *count);
/* NAME and its least and largest, as outputs NAME.min and NAME.max, of each name. */
DR_MUST_USE dr_status onnx_add_ranges(onnx_edit *e, const char *const *names, size_t count);
typedef struct {
    int bits; /* of activations: 8 or 16 */
    bool is_signed, symmetric;
    double min_range; /* 0: none */
    onnx_names wide;  /* values of 16 bits without a sign, whatever the others have */
} onnx_activation;
/* QuantizeLinear and DequantizeLinear around what has a range (sorted by name). */
DR_MUST_USE dr_status onnx_static_int8(onnx_edit *e, const onnx_int8_options *o,
                                       const onnx_activation *a, const onnx_seen *seen,
                                       size_t count);

#endif
