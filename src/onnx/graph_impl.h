/*
 * graph_impl.h - an ONNX graph in memory: nodes, values and initializers as small structs
 * in an arena, linked in the order in which they were made.
 *
 * Weights are not here: an initializer is a name, a shape and the place of its bytes in the
 * external file (model_data.c).  What must hold when the graph is written:
 * 1. nodes are in topological order: a value is made before it is used;
 * 2. names of nodes, values and initializers are unique;
 * 3. no node ends in an empty input: ONNX Runtime 1.20 refuses a GroupQueryAttention with
 *    more inputs than it knows, empty or not.  onnx_node_in sees to it.
 */
#ifndef DRUPE_ONNX_GRAPH_IMPL_H
#define DRUPE_ONNX_GRAPH_IMPL_H

#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/dtype.h"
#include "core/status.h"

/* TensorProto.DataType. */
typedef enum {
    ONNX_FLOAT = 1,
    ONNX_UINT8 = 2,
    ONNX_INT8_VALUE = 3, /* ONNX_INT8 is a precision */
    ONNX_UINT16 = 4,
    ONNX_INT32 = 6,
    ONNX_INT64 = 7,
    ONNX_BOOL = 9,
    ONNX_FLOAT16 = 10,
    ONNX_BFLOAT16 = 16,
    ONNX_UINT4 = 21,
    ONNX_INT4_VALUE = 22
} onnx_type;

size_t onnx_type_bytes(onnx_type type); /* of a value; 0: two values in a byte */
const char *onnx_type_name(onnx_type type);
dr_dtype onnx_type_dtype(onnx_type type); /* of a float type */

enum { ONNX_DIMS = 4, ONNX_META = 8, ONNX_NODE_IN = 12, ONNX_NODE_OUT = 4 };

/* The lowest opset that has every operator in the form used: Add, Sub, Mul of 14 (Concat,
 * Gather, Split, Unsqueeze, ... of 13).  ONNX Runtime's fusions know it on all versions.
 * A part that needs a newer operator raises g->opset with onnx_opset_at_least. */
enum {
    ONNX_OPSET = 14,
    ONNX_OPSET_REDUCE = 18, /* ReduceMean's axes are an input */
    ONNX_OPSET_GELU = 20,
    ONNX_OPSET_BLOCKED = 21, /* DequantizeLinear of blocks and of 4 bits */
    ONNX_IR_VERSION = 10
};

/* A size, or the name of one ("batch_size") when name is not NULL. */
typedef struct {
    const char *name; /* borrowed */
    int64_t size;
} onnx_dim;

typedef struct {
    int rank; /* -1: not even that is said */
    onnx_dim dim[ONNX_DIMS];
} onnx_shape;

typedef struct onnx_value {
    const char *name;
    onnx_type type;
    onnx_shape shape;
    struct onnx_value *next;
} onnx_value;

typedef enum {
    ONNX_ATTR_INT,
    ONNX_ATTR_FLOAT,
    ONNX_ATTR_TEXT,
    ONNX_ATTR_INTS,
    ONNX_ATTR_TENSOR
} onnx_attr_kind;

typedef struct onnx_attr {
    const char *name;
    onnx_attr_kind kind;
    int64_t i;
    float f;
    const char *text;
    onnx_type type;        /* of a tensor: ONNX_INT64 or a float type */
    const int64_t *values; /* of ints, and of a tensor: rank 0 (count 1) or 1 */
    size_t count;
    int rank;
    struct onnx_attr *next;
} onnx_attr;

typedef struct onnx_node {
    const char *domain, *op, *name;
    const char *in[ONNX_NODE_IN];
    size_t in_count; /* up to the last one that is not empty */
    size_t in_next;
    const char *out[ONNX_NODE_OUT];
    size_t out_count;
    onnx_attr *attrs, *last_attr;
    size_t attr_count;
    struct onnx_node *next;
} onnx_node;

typedef struct onnx_init {
    const char *name;
    onnx_type type;
    onnx_shape shape;
    uint64_t offset, bytes; /* in the external file; bytes 0: nothing is stored */
    const void *raw;        /* arena; not NULL: the bytes are in the graph itself */
    struct onnx_init *next;
} onnx_init;

typedef struct {
    void *first, *last;
    size_t count;
} onnx_list;

typedef struct {
    dr_arena *arena; /* borrowed: everything below lives in it */
    int opset;       /* 0: ONNX_OPSET */
    onnx_list nodes, inits;
    onnx_list inputs, outputs, infos; /* onnx_value; infos: the outputs of nodes */
    const char *meta[ONNX_META][2];   /* metadata_props: key and value, arena */
    size_t meta_count;
} onnx_graph;

void onnx_opset_at_least(onnx_graph *g, int opset);

static inline onnx_dim onnx_num(int64_t size)
{
    return (onnx_dim){NULL, size};
}

static inline onnx_dim onnx_sym(const char *name)
{
    return (onnx_dim){name, 0};
}

onnx_shape onnx_shape1(onnx_dim a);
onnx_shape onnx_shape2(onnx_dim a, onnx_dim b);
/* [batch_size, sequence_length, width]: what flows between most nodes. */
onnx_shape onnx_hidden(size_t width);

/* ---- making a graph; names are copied into the arena ---- */

void onnx_graph_input(onnx_graph *g, const char *name, onnx_type type, onnx_shape shape);
void onnx_graph_output(onnx_graph *g, const char *name, onnx_type type, onnx_shape shape);
onnx_init *onnx_graph_init(onnx_graph *g, const char *name, onnx_type type,
                           onnx_shape shape);
/* A small initializer whose bytes (little-endian, copied) are in the graph itself. */
onnx_init *onnx_graph_init_raw(onnx_graph *g, const char *name, onnx_type type,
                               onnx_shape shape, const void *values, size_t bytes);
void onnx_graph_meta(onnx_graph *g, const char *key, const char *value);

/* NULL: there is none of this name. */
const onnx_init *onnx_graph_find_init(const onnx_graph *g, const char *name);

/* domain "" or "com.microsoft" (static). */
onnx_node *onnx_node_new(onnx_graph *g, const char *domain, const char *op,
                         const char *name);
void onnx_node_in(onnx_graph *g, onnx_node *n, const char *value); /* "": left out */
void onnx_attr_int(onnx_graph *g, onnx_node *n, const char *name, int64_t value);
void onnx_attr_float(onnx_graph *g, onnx_node *n, const char *name, float value);
void onnx_attr_text(onnx_graph *g, onnx_node *n, const char *name, const char *value);
void onnx_attr_ints(onnx_graph *g, onnx_node *n, const char *name, const int64_t *values,
                    size_t count);
/* An output, whose name comes back.  A graph output must have been declared before. */
const char *onnx_node_out(onnx_graph *g, onnx_node *n, const char *name, onnx_type type,
                          onnx_shape shape);
void onnx_node_no_out(onnx_node *n); /* an output that is left out */

/* A node of domain "" with one output NAME/output_0; b may be NULL. */
const char *onnx_op(onnx_graph *g, const char *op, const char *name, const char *a,
                    const char *b, onnx_type type, onnx_shape shape);
/* An int64 constant as the model builder makes it; count 0: a scalar of values[0]. */
const char *onnx_constant(onnx_graph *g, const int64_t *values, size_t count);
const char *onnx_constant1(onnx_graph *g, int64_t value); /* [value] */
/* A scalar of a float type, rounded to it: "/model/constants/FLOAT16/8". */
const char *onnx_constant_float(onnx_graph *g, onnx_type type, double value);
/* A Cast of x to `type`, named `name`. */
/* x cut along its last dim into `count` parts of these sizes; shape: that of x, else. */
void onnx_split(onnx_graph *g, const char **part, const char *name, const char *x,
                const int64_t *sizes, int count, onnx_type type, onnx_shape shape);
const char *onnx_cast(onnx_graph *g, const char *name, const char *x, onnx_type type,
                      onnx_shape shape);

/* ---- writing it ---- */

/* The model around the graph, to path; *bytes is the file's size.  data_name: the external
 * file.  DR_EUNSUPPORTED: past what protobuf can hold. */
DR_MUST_USE dr_status onnx_graph_write(const onnx_graph *g, const char *path,
                                       const char *data_name, uint64_t *bytes);

#endif
