/*
 * graph.c - building the graph: lists in an arena that only grow at their ends.
 */
#include "onnx/graph_impl.h"

#include <inttypes.h>
#include <string.h>

/* Elements of any type with a member `next`. */
#define APPEND(list, element)                                                              \
    do {                                                                                   \
        if ((list)->last != NULL)                                                          \
            ((__typeof__(element))(list)->last)->next = (element);                         \
        else                                                                               \
            (list)->first = (element);                                                     \
        (list)->last = (element);                                                          \
        (list)->count++;                                                                   \
    } while (0)

size_t onnx_type_bytes(onnx_type type)
{
    switch (type) {
    case ONNX_FLOAT:
    case ONNX_INT32:
        return 4;
    case ONNX_INT64:
        return 8;
    case ONNX_FLOAT16:
    case ONNX_BFLOAT16:
    case ONNX_UINT16:
        return 2;
    case ONNX_UINT8:
    case ONNX_INT8_VALUE:
    case ONNX_BOOL:
        return 1;
    case ONNX_UINT4:
    case ONNX_INT4_VALUE:
        return 0;
    }
    return 0;
}

dr_dtype onnx_type_dtype(onnx_type type)
{
    DR_BUG_IF(type != ONNX_FLOAT && type != ONNX_FLOAT16 && type != ONNX_BFLOAT16);
    return type == ONNX_FLOAT16    ? DR_DTYPE_F16
           : type == ONNX_BFLOAT16 ? DR_DTYPE_BF16
                                   : DR_DTYPE_F32;
}

const char *onnx_type_name(onnx_type type)
{
    switch (type) {
    case ONNX_FLOAT:
        return "FLOAT";
    case ONNX_UINT8:
        return "UINT8";
    case ONNX_INT8_VALUE:
        return "INT8";
    case ONNX_UINT16:
        return "UINT16";
    case ONNX_INT32:
        return "INT32";
    case ONNX_INT64:
        return "INT64";
    case ONNX_BOOL:
        return "BOOL";
    case ONNX_FLOAT16:
        return "FLOAT16";
    case ONNX_BFLOAT16:
        return "BFLOAT16";
    case ONNX_UINT4:
        return "UINT4";
    case ONNX_INT4_VALUE:
        return "INT4";
    }
    return "?";
}

void onnx_opset_at_least(onnx_graph *g, int opset)
{
    int now = g->opset != 0 ? g->opset : ONNX_OPSET;

    g->opset = now > opset ? now : opset;
}

onnx_shape onnx_shape1(onnx_dim a)
{
    return (onnx_shape){1, {a}};
}

onnx_shape onnx_shape2(onnx_dim a, onnx_dim b)
{
    return (onnx_shape){2, {a, b}};
}

onnx_shape onnx_hidden(size_t width)
{
    return (onnx_shape){
        3, {onnx_sym("batch_size"), onnx_sym("sequence_length"), onnx_num((int64_t)width)}};
}

static onnx_value *value_new(onnx_graph *g, const char *name, onnx_type type,
                             onnx_shape shape)
{
    onnx_value *v = dr_arena_alloc(g->arena, 1, sizeof(*v));

    v->name = dr_arena_strdup(g->arena, name);
    v->type = type;
    v->shape = shape;
    return v;
}

void onnx_graph_input(onnx_graph *g, const char *name, onnx_type type, onnx_shape shape)
{
    onnx_value *v = value_new(g, name, type, shape);

    APPEND(&g->inputs, v);
}

void onnx_graph_output(onnx_graph *g, const char *name, onnx_type type, onnx_shape shape)
{
    onnx_value *v = value_new(g, name, type, shape);

    APPEND(&g->outputs, v);
}

onnx_init *onnx_graph_init(onnx_graph *g, const char *name, onnx_type type,
                           onnx_shape shape)
{
    onnx_init *i = dr_arena_alloc(g->arena, 1, sizeof(*i));

    i->name = dr_arena_strdup(g->arena, name);
    i->type = type;
    i->shape = shape;
    APPEND(&g->inits, i);
    return i;
}

const onnx_init *onnx_graph_find_init(const onnx_graph *g, const char *name)
{
    for (const onnx_init *i = g->inits.first; i != NULL; i = i->next) {
        if (strcmp(i->name, name) == 0)
            return i;
    }
    return NULL;
}

onnx_init *onnx_graph_init_raw(onnx_graph *g, const char *name, onnx_type type,
                               onnx_shape shape, const void *values, size_t bytes)
{
    onnx_init *i = onnx_graph_init(g, name, type, shape);
    void *copy = dr_arena_alloc(g->arena, bytes, 1);

    memcpy(copy, values, bytes);
    i->raw = copy;
    i->bytes = bytes;
    return i;
}

void onnx_graph_meta(onnx_graph *g, const char *key, const char *value)
{
    DR_BUG_IF(g->meta_count >= ONNX_META);
    g->meta[g->meta_count][0] = dr_arena_strdup(g->arena, key);
    g->meta[g->meta_count++][1] = dr_arena_strdup(g->arena, value);
}

onnx_node *onnx_node_new(onnx_graph *g, const char *domain, const char *op,
                         const char *name)
{
    onnx_node *n = dr_arena_alloc(g->arena, 1, sizeof(*n));

    n->domain = domain;
    n->op = op;
    n->name = dr_arena_strdup(g->arena, name);
    APPEND(&g->nodes, n);
    return n;
}

void onnx_node_in(onnx_graph *g, onnx_node *n, const char *value)
{
    DR_BUG_IF(n->in_next >= ONNX_NODE_IN);
    n->in[n->in_next++] = dr_arena_strdup(g->arena, value);
    if (value[0] != '\0')
        n->in_count = n->in_next;
}

static onnx_attr *attr_new(onnx_graph *g, onnx_node *n, const char *name,
                           onnx_attr_kind kind)
{
    onnx_attr *a = dr_arena_alloc(g->arena, 1, sizeof(*a));

    a->name = name;
    a->kind = kind;
    if (n->last_attr != NULL)
        n->last_attr->next = a;
    else
        n->attrs = a;
    n->last_attr = a;
    n->attr_count++;
    return a;
}

void onnx_attr_int(onnx_graph *g, onnx_node *n, const char *name, int64_t value)
{
    attr_new(g, n, name, ONNX_ATTR_INT)->i = value;
}

void onnx_attr_float(onnx_graph *g, onnx_node *n, const char *name, float value)
{
    attr_new(g, n, name, ONNX_ATTR_FLOAT)->f = value;
}

void onnx_attr_text(onnx_graph *g, onnx_node *n, const char *name, const char *value)
{
    attr_new(g, n, name, ONNX_ATTR_TEXT)->text = dr_arena_strdup(g->arena, value);
}

static onnx_attr *attr_values(onnx_graph *g, onnx_node *n, const char *name,
                              onnx_attr_kind kind, const int64_t *values, size_t count)
{
    onnx_attr *a = attr_new(g, n, name, kind);
    int64_t *copy = dr_arena_alloc(g->arena, count, sizeof(*copy));

    memcpy(copy, values, count * sizeof(*copy));
    a->type = ONNX_INT64;
    a->values = copy;
    a->count = count;
    return a;
}

void onnx_attr_ints(onnx_graph *g, onnx_node *n, const char *name, const int64_t *values,
                    size_t count)
{
    (void)attr_values(g, n, name, ONNX_ATTR_INTS, values, count);
}

const char *onnx_node_out(onnx_graph *g, onnx_node *n, const char *name, onnx_type type,
                          onnx_shape shape)
{
    onnx_value *v = g->outputs.first;

    DR_BUG_IF(n->out_count >= ONNX_NODE_OUT);
    while (v != NULL && strcmp(v->name, name) != 0)
        v = v->next;
    if (v == NULL) {
        v = value_new(g, name, type, shape);
        APPEND(&g->infos, v);
    }
    n->out[n->out_count++] = v->name;
    return v->name;
}

void onnx_node_no_out(onnx_node *n)
{
    DR_BUG_IF(n->out_count >= ONNX_NODE_OUT);
    n->out[n->out_count++] = "";
}

const char *onnx_op(onnx_graph *g, const char *op, const char *name, const char *a,
                    const char *b, onnx_type type, onnx_shape shape)
{
    onnx_node *n = onnx_node_new(g, "", op, name);

    onnx_node_in(g, n, a);
    if (b != NULL)
        onnx_node_in(g, n, b);
    return onnx_node_out(g, n, dr_arena_printf(g->arena, "%s/output_0", name), type, shape);
}

/* "1" for a scalar, "[1]", "[1, 2]". */
static const char *constant_text(onnx_graph *g, const int64_t *values, size_t count)
{
    const char *text = "";

    if (count == 0)
        return dr_arena_printf(g->arena, "%" PRId64, values[0]);
    for (size_t i = 0; i < count; i++)
        text = dr_arena_printf(g->arena, "%s%s%" PRId64, text, i ? ", " : "[", values[i]);
    return dr_arena_printf(g->arena, "%s]", text);
}

/* The output of a constant of this type and text, if the graph has it. */
static const char *constant_find(onnx_graph *g, const char *out)
{
    for (const onnx_value *v = g->infos.first; v != NULL; v = v->next) {
        if (strcmp(v->name, out) == 0)
            return v->name;
    }
    return NULL;
}

static onnx_node *constant_node(onnx_graph *g, onnx_type type, const char *text)
{
    return onnx_node_new(g, "", "Constant",
                         dr_arena_printf(g->arena, "/model/constant_nodes/%s/%s",
                                         onnx_type_name(type), text));
}

const char *onnx_constant(onnx_graph *g, const int64_t *values, size_t count)
{
    const char *text = constant_text(g, values, count);
    const char *out = dr_arena_printf(g->arena, "/model/constants/INT64/%s", text);
    const char *there = constant_find(g, out);

    if (there != NULL)
        return there;
    onnx_node *n = constant_node(g, ONNX_INT64, text);
    onnx_attr *a =
        attr_values(g, n, "value", ONNX_ATTR_TENSOR, values, count > 0 ? count : 1);
    a->rank = count > 0;
    onnx_shape shape = {a->rank, {onnx_num((int64_t)a->count)}};
    return onnx_node_out(g, n, out, ONNX_INT64, shape);
}

const char *onnx_constant1(onnx_graph *g, int64_t value)
{
    return onnx_constant(g, &value, 1);
}

const char *onnx_constant_float(onnx_graph *g, onnx_type type, double value)
{
    const char *text = dr_arena_printf(g->arena, "%.9g", value);
    const char *out =
        dr_arena_printf(g->arena, "/model/constants/%s/%s", onnx_type_name(type), text);
    const char *there = constant_find(g, out);

    if (there != NULL)
        return there;
    onnx_node *n = constant_node(g, type, text);
    onnx_attr *a = attr_new(g, n, "value", ONNX_ATTR_TENSOR);
    a->type = type;
    a->f = (float)value;
    a->count = 1;
    return onnx_node_out(g, n, out, type, (onnx_shape){0});
}

void onnx_split(onnx_graph *g, const char **part, const char *name, const char *x,
                const int64_t *sizes, int count, onnx_type type, onnx_shape shape)
{
    const char *list = onnx_constant(g, sizes, count);
    onnx_node *n = onnx_node_new(g, "", "Split", name);

    onnx_node_in(g, n, x);
    onnx_node_in(g, n, list);
    onnx_attr_int(g, n, "axis", -1);
    for (int i = 0; i < count; i++) {
        shape.dim[shape.rank - 1] = onnx_num(sizes[i]);
        part[i] = onnx_node_out(g, n, dr_arena_printf(g->arena, "%s/output_%d", name, i),
                                type, shape);
    }
}

const char *onnx_cast(onnx_graph *g, const char *name, const char *x, onnx_type type,
                      onnx_shape shape)
{
    onnx_node *n = onnx_node_new(g, "", "Cast", name);

    onnx_node_in(g, n, x);
    onnx_attr_int(g, n, "to", type);
    return onnx_node_out(g, n, dr_arena_printf(g->arena, "%s/output_0", name), type, shape);
}
