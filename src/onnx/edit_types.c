/*
 * edit_types.c - the element types of a graph's values, without their shapes.
 *
 * Most operators give what their first input is; the exceptions are a table.  What the
 * model says itself (inputs, outputs, value_info) comes first.  Nodes are gone through in
 * the order of the file, which is topological in every valid model.
 */
#include <stdlib.h>
#include <string.h>

#include "onnx.pb-c.h"
#include "onnx/edit_impl.h"
#include "onnx/graph_impl.h"

/* What an operator's outputs are, where it is not the type of input 0. */
typedef struct {
    const char *op;
    int input;    /* of that input; -1: not so */
    int32_t type; /* 0: by attribute or unknown */
    int32_t rest; /* of the second output and later; 0: as the first */
} rule;

enum { BY_INPUT_1 = 1, BY_INPUT_2 = 2 };

static const rule rules[] = {
    {"Shape", -1, ONNX_INT64, 0},
    {"Size", -1, ONNX_INT64, 0},
    {"NonZero", -1, ONNX_INT64, 0},
    {"ArgMax", -1, ONNX_INT64, 0},
    {"ArgMin", -1, ONNX_INT64, 0},
    {"NonMaxSuppression", -1, ONNX_INT64, 0},
    {"TopK", 0, 0, ONNX_INT64},
    {"Unique", 0, 0, ONNX_INT64},
    {"MaxPool", 0, 0, ONNX_INT64},
    {"Dropout", 0, 0, ONNX_BOOL},
    {"Equal", -1, ONNX_BOOL, 0},
    {"Greater", -1, ONNX_BOOL, 0},
    {"GreaterOrEqual", -1, ONNX_BOOL, 0},
    {"Less", -1, ONNX_BOOL, 0},
    {"LessOrEqual", -1, ONNX_BOOL, 0},
    {"And", -1, ONNX_BOOL, 0},
    {"Or", -1, ONNX_BOOL, 0},
    {"Xor", -1, ONNX_BOOL, 0},
    {"Not", -1, ONNX_BOOL, 0},
    {"IsNaN", -1, ONNX_BOOL, 0},
    {"IsInf", -1, ONNX_BOOL, 0},
    {"Where", BY_INPUT_1, 0, 0},
    {"CastLike", BY_INPUT_1, 0, 0},
    {"OneHot", BY_INPUT_2, 0, 0},
    {"DequantizeLinear", BY_INPUT_1, 0, 0},
    {"QuantizeLinear", BY_INPUT_2, ONNX_UINT8, 0},
    {"DynamicQuantizeLinear", -1, ONNX_UINT8, 0},
    {"MatMulInteger", -1, ONNX_INT32, 0},
    {"ConvInteger", -1, ONNX_INT32, 0},
    {"GatherBlockQuantized", BY_INPUT_2, 0, 0},
    {"SequenceLength", -1, ONNX_INT64, 0},
};

static const rule *rule_of(const char *op)
{
    static const rule plain = {"", 0, 0, 0};

    for (size_t i = 0; i < DR_COUNT(rules); i++) {
        if (strcmp(rules[i].op, op) == 0)
            return &rules[i];
    }
    return &plain;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const onnx_typed *)a)->name, ((const onnx_typed *)b)->name);
}

static onnx_typed *find(const onnx_types *t, const char *name)
{
    const onnx_typed key = {name, 0};

    return t->count == 0 || name[0] == '\0'
               ? NULL
               : bsearch(&key, t->list, t->count, sizeof(*t->list), by_name);
}

int32_t onnx_type_of(const onnx_types *t, const char *name)
{
    const onnx_typed *v = find(t, onnx_text(name));

    return v != NULL ? v->type : 0;
}

static int32_t declared(const Onnx__ValueInfoProto *v)
{
    const Onnx__TypeProto__Tensor *t = onnx_tensor_of(v);

    return t != NULL && t->has_elem_type ? t->elem_type : 0;
}

/* What a Constant or ConstantOfShape holds. */
static int32_t constant_type(const Onnx__NodeProto *n)
{
    for (size_t i = 0; i < n->n_attribute; i++) {
        const Onnx__AttributeProto *a = n->attribute[i];
        if (strcmp(onnx_text(a->name), "value") == 0 && a->t != NULL)
            return a->t->data_type;
        if (strncmp(onnx_text(a->name), "value_int", 9) == 0)
            return ONNX_INT64;
        if (strncmp(onnx_text(a->name), "value_float", 11) == 0)
            return ONNX_FLOAT;
    }
    return onnx_is(n, "ConstantOfShape") ? ONNX_FLOAT : 0;
}

static int32_t first_output(const onnx_types *t, const Onnx__NodeProto *n, const rule *r)
{
    static const char *const attrs[] = {"to", "dtype", "output_dtype"};
    int32_t type = r->type;

    if (onnx_is(n, "Constant") || onnx_is(n, "ConstantOfShape"))
        return constant_type(n);
    for (size_t i = 0; i < DR_COUNT(attrs); i++) {
        const Onnx__AttributeProto *a = onnx_edit_attr(n, attrs[i]);
        if (a != NULL && a->has_i && a->i != 0)
            return (int32_t)a->i;
    }
    if (r->input >= 0 && (size_t)r->input < n->n_input) {
        int32_t of = onnx_type_of(t, n->input[r->input]);
        type = of != 0 ? of : type;
    }
    return type;
}

static void infer(onnx_types *t, const Onnx__NodeProto *n)
{
    const rule *r = rule_of(onnx_text(n->op_type));
    int32_t first = first_output(t, n, r);

    for (size_t i = 0; i < n->n_output; i++) {
        onnx_typed *v = find(t, onnx_text(n->output[i]));
        int32_t type = i > 0 && r->rest != 0 ? r->rest : first;
        if (onnx_is(n, "DynamicQuantizeLinear") && i == 1)
            type = ONNX_FLOAT;
        if (v != NULL && v->type == 0)
            v->type = type;
    }
}

static void add(onnx_types *t, const char *name, int32_t type)
{
    if (onnx_text(name)[0] != '\0')
        t->list[t->count++] = (onnx_typed){name, type};
}

dr_status onnx_edit_types(onnx_edit *e, onnx_types *out)
{
    const Onnx__GraphProto *g = e->graph;
    size_t room = g->n_input + g->n_initializer + 1, kept = 0;
    dr_status st = DR_OK;

    DR_TRY(onnx_edit_sort(e));
    for (size_t i = 0; i < g->n_node; i++)
        room += g->node[i]->n_output;
    out->count = 0;
    out->list = dr_arena_alloc(&e->arena, room, sizeof(*out->list));
    for (size_t i = 0; i < g->n_input; i++)
        add(out, g->input[i]->name, declared(g->input[i]));
    for (size_t i = 0; i < g->n_initializer; i++)
        add(out, g->initializer[i]->name, g->initializer[i]->data_type);
    for (size_t i = 0; i < g->n_node; i++) {
        for (size_t k = 0; k < g->node[i]->n_output; k++)
            add(out, g->node[i]->output[k], 0);
    }
    qsort(out->list, out->count, sizeof(*out->list), by_name);
    for (size_t i = 0; i < out->count; i++) { /* an optional input is there twice */
        if (kept > 0 && strcmp(out->list[kept - 1].name, out->list[i].name) == 0)
            continue;
        out->list[kept++] = out->list[i];
    }
    out->count = kept;
    for (size_t i = 0; i < g->n_value_info; i++) {
        onnx_typed *v = find(out, onnx_text(g->value_info[i]->name));
        if (v != NULL && v->type == 0)
            v->type = declared(g->value_info[i]);
    }
    for (size_t i = 0; i < g->n_output; i++) {
        onnx_typed *v = find(out, onnx_text(g->output[i]->name));
        if (v != NULL && v->type == 0)
            v->type = declared(g->output[i]);
    }
    for (size_t i = 0; i < g->n_node; i++)
        infer(out, g->node[i]);
done:
    return st;
}
