/*
 * rewrite_io.c - what goes into a graph and comes out of it: types, sizes, layouts, and
 * what is said of the model.
 */
#include <regex.h>
#include <stdlib.h>
#include <string.h>

#include "onnx.pb-c.h"
#include "onnx/edit_impl.h"
#include "onnx/graph_impl.h"

/* A node between a port of the graph and the rest: the inner name of the value. */
static char *behind(onnx_edit *e, const char *port)
{
    return onnx_edit_unused(e, "%s_converted", port);
}

static Onnx__NodeProto *after_input(onnx_edit *e, const char *op, const char *input)
{
    char *inner = behind(e, input);
    const char *in[] = {input, NULL};

    (void)onnx_edit_redirect(e, input, inner);
    return onnx_edit_node(e, NULL, op, inner, in, inner);
}

static Onnx__NodeProto *before_output(onnx_edit *e, const char *op, const char *output)
{
    char *inner = behind(e, output);
    const char *in[] = {inner, NULL};

    (void)onnx_edit_redirect(e, output, inner);
    onnx_edit_rename_output(onnx_edit_maker(e, output), output, inner);
    return onnx_edit_node(e, NULL, op, inner, in, output);
}

/* ---- types ---- */

static dr_status known_type(const char *what, int type)
{
    if (type < 1 || type > 16 || type == 8 || type == 14 || type == 15)
        return dr_fail(DR_EUSAGE,
                       "%s: %d is no element type that Cast takes (1 float32, 10 float16, "
                       "16 bfloat16, 6 int32, 7 int64)",
                       what, type);
    return DR_OK;
}

dr_status onnx_io_types(onnx_edit *e, const char *pattern, int from, int to)
{
    Onnx__GraphProto *g = e->graph;
    bool all = pattern == NULL || *pattern == '\0', compiled = false;
    regex_t re;
    dr_status st = DR_OK;

    DR_TRY(known_type("source_dtype", from));
    DR_TRY(known_type("target_dtype", to));
    if (!all && regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB) != 0)
        DR_FAIL(DR_EUSAGE, "name_pattern: \"%s\" is no regular expression", pattern);
    compiled = !all;
    for (size_t i = 0; i < g->n_input; i++) {
        Onnx__TypeProto__Tensor *t = onnx_tensor_of(g->input[i]);
        const char *name = onnx_text(g->input[i]->name);
        if (t == NULL || t->elem_type != from || onnx_edit_init(e, name) != NULL ||
            (!all && regexec(&re, name, 0, NULL, 0) != 0))
            continue;
        onnx_edit_set_int(e, after_input(e, "Cast", name), "to", from);
        t->elem_type = to;
        e->changes++;
    }
    for (size_t i = 0; i < g->n_output; i++) {
        Onnx__TypeProto__Tensor *t = onnx_tensor_of(g->output[i]);
        const char *name = onnx_text(g->output[i]->name);
        if (t == NULL || t->elem_type != from ||
            (!all && regexec(&re, name, 0, NULL, 0) != 0))
            continue;
        onnx_edit_set_int(e, before_output(e, "Cast", name), "to", to);
        t->elem_type = to;
        e->changes++;
    }
done:
    if (compiled)
        regfree(&re);
    return st;
}

/* ---- sizes ---- */

static void set_size(Onnx__TensorShapeProto__Dimension *d, int64_t size)
{
    d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
    d->dim_value = size;
}

static bool is_open(const Onnx__TensorShapeProto__Dimension *d)
{
    return d->value_case != ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE ||
           d->dim_value < 0;
}

static size_t fix_in(Onnx__ValueInfoProto **list, size_t n, const char *name, int64_t size)
{
    size_t found = 0;

    for (size_t i = 0; i < n; i++) {
        const Onnx__TypeProto__Tensor *t = onnx_tensor_of(list[i]);
        for (size_t d = 0; t != NULL && t->shape != NULL && d < t->shape->n_dim; d++) {
            Onnx__TensorShapeProto__Dimension *dim = t->shape->dim[d];
            if (dim->value_case != ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM ||
                strcmp(onnx_text(dim->dim_param), name) != 0)
                continue;
            set_size(dim, size);
            found++;
        }
    }
    return found;
}

static dr_status no_dim(const onnx_edit *e, const char *name)
{
    const Onnx__GraphProto *g = e->graph;
    dr_arena a = {0};
    const char *there = NULL;

    for (size_t i = 0; i < g->n_input; i++) {
        const Onnx__TypeProto__Tensor *t = onnx_tensor_of(g->input[i]);
        for (size_t d = 0; t != NULL && t->shape != NULL && d < t->shape->n_dim; d++) {
            const char *symbol = onnx_text(t->shape->dim[d]->dim_param);
            if (t->shape->dim[d]->value_case !=
                    ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM ||
                (there != NULL && strstr(there, symbol) != NULL))
                continue;
            there = there != NULL ? dr_arena_printf(&a, "%s, %s", there, symbol) : symbol;
        }
    }
    dr_status st = dr_fail(DR_EUSAGE, "%s has no dimension called %s", e->path, name);
    dr_hint("its inputs have %s", there != NULL ? there : "none with a name");
    dr_arena_release(&a);
    return st;
}

static size_t fix_everywhere(const onnx_edit *e, const char *dim, int64_t size)
{
    const Onnx__GraphProto *g = e->graph;
    dr_arena a = {0};
    const char *name = dr_arena_strdup(&a, dim); /* the first one that is fixed loses it */
    size_t found = fix_in(g->input, g->n_input, name, size);

    found += fix_in(g->output, g->n_output, name, size);
    found += fix_in(g->value_info, g->n_value_info, name, size);
    dr_arena_release(&a);
    return found;
}

dr_status onnx_fix_dim(onnx_edit *e, const char *name, int64_t size)
{
    size_t found = fix_everywhere(e, name, size);

    e->changes += found;
    return found > 0 ? DR_OK : no_dim(e, name);
}

static dr_status no_input(const onnx_edit *e, const char *name)
{
    const Onnx__GraphProto *g = e->graph;
    dr_status st = dr_fail(DR_EUSAGE, "%s has no input called %s", e->path, name);

    if (g->n_input > 0)
        dr_hint("its %zu inputs begin with %s", g->n_input, onnx_text(g->input[0]->name));
    return st;
}

dr_status onnx_fix_input(onnx_edit *e, const char *input, const int64_t *dims, size_t rank)
{
    Onnx__GraphProto *g = e->graph;
    Onnx__ValueInfoProto *v = onnx_edit_in(g->input, g->n_input, input);
    Onnx__TypeProto__Tensor *t = onnx_tensor_of(v);

    if (t == NULL)
        return no_input(e, input);
    if (t->shape == NULL || t->shape->n_dim != rank)
        return dr_fail(DR_EUSAGE, "input_shape: %s has %zu dimensions, found %zu", input,
                       t->shape != NULL ? t->shape->n_dim : 0, rank);
    for (size_t d = 0; d < rank; d++) {
        Onnx__TensorShapeProto__Dimension *dim = t->shape->dim[d];
        if (!is_open(dim) && dim->dim_value != dims[d])
            return dr_fail(DR_EUSAGE, "input_shape: dimension %zu of %s is %lld, not %lld",
                           d, input, (long long)dim->dim_value, (long long)dims[d]);
    }
    for (size_t d = 0; d < rank; d++) { /* what has the dimension's name has its size */
        Onnx__TensorShapeProto__Dimension *dim = t->shape->dim[d];
        if (dim->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM)
            e->changes += fix_everywhere(e, onnx_text(dim->dim_param), dims[d]);
        set_size(dim, dims[d]);
    }
    e->changes++;
    return DR_OK;
}

void onnx_fix_output(onnx_edit *e, const char *output, const int64_t *dims, size_t rank)
{
    const Onnx__GraphProto *g = e->graph;
    const Onnx__ValueInfoProto *v = onnx_edit_in(g->output, g->n_output, output);
    const Onnx__TypeProto__Tensor *t = onnx_tensor_of(v);

    for (size_t d = 0; t != NULL && t->shape != NULL && t->shape->n_dim == rank && d < rank;
         d++) {
        if (dims[d] >= 0 && is_open(t->shape->dim[d]))
            set_size(t->shape->dim[d], dims[d]);
    }
}

/* ---- layout ---- */

enum { LAYOUT_MAX = 8 };

/* Its second size comes last; *rank: of how many. */
static dr_status move_channels(size_t *rank, const onnx_edit *e, const char *what,
                               const char *name, const Onnx__TypeProto__Tensor *t)
{
    *rank = t->shape != NULL ? t->shape->n_dim : 0;
    if (*rank < 3 || *rank > LAYOUT_MAX)
        return dr_fail(DR_EUSAGE, "%s: %s %s has %zu dimensions, not N, C and others",
                       e->path, what, name, *rank);
    Onnx__TensorShapeProto__Dimension *c = t->shape->dim[1];
    for (size_t i = 1; i + 1 < *rank; i++)
        t->shape->dim[i] = t->shape->dim[i + 1];
    t->shape->dim[*rank - 1] = c;
    return DR_OK;
}

static dr_status input_last(onnx_edit *e, const char *name)
{
    const Onnx__GraphProto *g = e->graph;
    const Onnx__TypeProto__Tensor *t =
        onnx_tensor_of(onnx_edit_in(g->input, g->n_input, name));
    int64_t inward[LAYOUT_MAX] = {0};
    size_t rank = 0;
    dr_status st = DR_OK;

    if (t == NULL)
        DR_TRY(no_input(e, name));
    DR_TRY(move_channels(&rank, e, "input", name, t));
    inward[1] = (int64_t)rank - 1;
    for (size_t i = 2; i < rank; i++)
        inward[i] = (int64_t)i - 1;
    onnx_edit_set_ints(e, after_input(e, "Transpose", name), "perm", inward, rank);
    e->changes++;
done:
    return st;
}

static dr_status output_last(onnx_edit *e, const char *name)
{
    const Onnx__GraphProto *g = e->graph;
    const Onnx__TypeProto__Tensor *t =
        onnx_tensor_of(onnx_edit_in(g->output, g->n_output, name));
    int64_t outward[LAYOUT_MAX] = {0};
    size_t rank = 0;
    dr_status st = DR_OK;

    if (t == NULL || onnx_edit_maker(e, name) == NULL)
        DR_FAIL(DR_EUSAGE, "%s has no output called %s that a node gives", e->path, name);
    DR_TRY(move_channels(&rank, e, "output", name, t));
    outward[rank - 1] = 1;
    for (size_t i = 1; i + 1 < rank; i++)
        outward[i] = (int64_t)i + 1;
    onnx_edit_set_ints(e, before_output(e, "Transpose", name), "perm", outward, rank);
    e->changes++;
done:
    return st;
}

dr_status onnx_channels_last(onnx_edit *e, onnx_names inputs, onnx_names outputs)
{
    dr_status st = DR_OK;

    for (size_t i = 0; inputs != NULL && inputs[i] != NULL; i++)
        DR_TRY(input_last(e, inputs[i]));
    for (size_t i = 0; outputs != NULL && outputs[i] != NULL; i++)
        DR_TRY(output_last(e, outputs[i]));
done:
    return st;
}

dr_status onnx_nchw_to_nhwc(onnx_edit *e, onnx_names inputs)
{
    const Onnx__GraphProto *g = e->graph;
    dr_status st = DR_OK;

    for (size_t i = 0; inputs[i] != NULL; i++) {
        const Onnx__TypeProto__Tensor *t =
            onnx_tensor_of(onnx_edit_in(g->input, g->n_input, inputs[i]));
        if (t != NULL && (t->shape == NULL || t->shape->n_dim != 4))
            DR_FAIL(DR_EUSAGE, "%s: input %s has %zu dimensions, not N, C, H, W", e->path,
                    inputs[i], t->shape != NULL ? t->shape->n_dim : 0);
        DR_TRY(input_last(e, inputs[i]));
    }
done:
    return st;
}

/* ---- what is said of the model ---- */

static Onnx__StringStringEntryProto *new_entry(dr_arena *a, const char *key,
                                               const char *value)
{
    static const Onnx__StringStringEntryProto init = ONNX__STRING_STRING_ENTRY_PROTO__INIT;
    Onnx__StringStringEntryProto *p = dr_arena_alloc(a, 1, sizeof(*p));

    *p = init;
    p->key = dr_arena_strdup(a, key);
    p->value = dr_arena_strdup(a, value);
    return p;
}

void onnx_set_metadata(onnx_edit *e, const char *key, const char *value)
{
    Onnx__ModelProto *m = e->model;
    Onnx__StringStringEntryProto *p = new_entry(&e->arena, key, value);

    e->changes++;
    m->metadata_props = onnx_edit_list(&e->arena, m->metadata_props, m->n_metadata_props);
    for (size_t i = 0; i < m->n_metadata_props; i++) {
        if (strcmp(onnx_text(m->metadata_props[i]->key), key) == 0) {
            m->metadata_props[i] = p;
            return;
        }
    }
    m->metadata_props[m->n_metadata_props++] = p;
}

const char *onnx_metadata(const onnx_edit *e, const char *key)
{
    return onnx_edit_entry(e->model->metadata_props, e->model->n_metadata_props, key);
}

static void annotate(onnx_edit *e, const Onnx__GraphProto *g, const char *part,
                     const char *key, const char *value)
{
    dr_arena *a = &e->arena;

    for (size_t i = 0; i < g->n_node; i++) {
        Onnx__NodeProto *n = g->node[i];
        for (size_t k = 0; k < n->n_attribute; k++) {
            if (n->attribute[k]->g != NULL)
                annotate(e, n->attribute[k]->g, part, key, value);
            for (size_t j = 0; j < n->attribute[k]->n_graphs; j++)
                annotate(e, n->attribute[k]->graphs[j], part, key, value);
        }
        if (strstr(onnx_text(n->name), part) == NULL ||
            onnx_edit_entry(n->metadata_props, n->n_metadata_props, key) != NULL)
            continue;
        n->metadata_props = onnx_edit_list(a, n->metadata_props, n->n_metadata_props);
        n->metadata_props[n->n_metadata_props++] = new_entry(a, key, value);
        e->changes++;
    }
}

void onnx_annotate(onnx_edit *e, const char *part, const char *key, const char *value)
{
    annotate(e, e->graph, part, key, value);
}

const char *onnx_annotation(const onnx_edit *e, const char *node, const char *key)
{
    const Onnx__NodeProto *n = onnx_edit_called(e, node);

    return n != NULL ? onnx_edit_entry(n->metadata_props, n->n_metadata_props, key) : NULL;
}

void onnx_set_graph_name(onnx_edit *e, const char *name)
{
    e->graph->name = dr_arena_strdup(&e->arena, name);
    e->changes++;
}
