/*
 * compose_graph.c - graphs that are run one after the other, as one: what split_graph.c
 * made, and others whose outputs are called as inputs of later ones.
 *
 * Names mean values: an input has the output of that name before it.  What two graphs have
 * must be the same in both, byte for byte.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "onnx.pb-c.h"
#include "onnx/edit_impl.h"
#include "onnx/graph_impl.h"

static bool same_text(const char *a, const char *b)
{
    return strcmp(onnx_text(a), onnx_text(b)) == 0;
}

/* Of the same type, and of the same sizes as far as both have them. */
static bool same_kind(const Onnx__ValueInfoProto *a, const Onnx__ValueInfoProto *b)
{
    const Onnx__TypeProto__Tensor *x = onnx_tensor_of(a), *y = onnx_tensor_of(b);

    if (x == NULL || y == NULL)
        return x == y;
    if (x->elem_type != y->elem_type)
        return false;
    if (x->shape == NULL || y->shape == NULL)
        return true;
    if (x->shape->n_dim != y->shape->n_dim)
        return false;
    for (size_t i = 0; i < x->shape->n_dim; i++) {
        const Onnx__TensorShapeProto__Dimension *d = x->shape->dim[i],
                                                *q = y->shape->dim[i];
        const bool both = d->value_case == q->value_case;
        if (both && d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE &&
            d->dim_value != q->dim_value)
            return false;
        if (both && d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM &&
            !same_text(d->dim_param, q->dim_param))
            return false;
    }
    return true;
}

static dr_status unlike(const onnx_edit *e, const onnx_edit *other, const char *what,
                        const char *name)
{
    return dr_fail(DR_EUSAGE, "%s and %s both have %s %s, and they differ", e->path,
                   other->path, what, name);
}

/* ---- what may be joined ---- */

static dr_status check_names(onnx_edit *const *parts, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        const Onnx__GraphProto *g = parts[i]->graph;
        for (size_t o = 0; o < g->n_output; o++)
            for (size_t k = 0; k < i; k++) {
                const char *name = onnx_text(g->output[o]->name);
                if (onnx_edit_is_input(parts[k], name))
                    return dr_fail(DR_EUSAGE, "%s gives %s, which %s before it reads",
                                   parts[i]->path, name, parts[k]->path);
                if (onnx_edit_is_output(parts[k], name))
                    return dr_fail(DR_EUSAGE, "%s and %s both give %s", parts[k]->path,
                                   parts[i]->path, name);
            }
    }
    return DR_OK;
}

static dr_status check_files(onnx_edit *const *parts, size_t count)
{
    for (size_t i = 1; i < count; i++)
        if (strcmp(parts[i]->dir, parts[0]->dir) != 0)
            return dr_fail(DR_EUSAGE, "%s and %s: parts lie in one folder", parts[0]->path,
                           parts[i]->path);
    return DR_OK;
}

static dr_status join_versions(onnx_edit *e, const onnx_edit *other)
{
    for (size_t i = 0; i < other->model->n_opset_import; i++) {
        const Onnx__OperatorSetIdProto *o = other->model->opset_import[i];
        const char *domain = onnx_text(o->domain);
        int64_t own = onnx_edit_opset(e, domain);
        if (own != 0 && own != o->version)
            return dr_fail(DR_EUSAGE,
                           "%s and %s have versions %lld and %lld of the operators %s",
                           e->path, other->path, (long long)own, (long long)o->version,
                           *domain ? domain : "ai.onnx");
        onnx_edit_need_opset(e, domain, o->version);
    }
    if (other->model->ir_version > e->model->ir_version)
        e->model->ir_version = other->model->ir_version;
    return DR_OK;
}

/* ---- joining ---- */

static dr_status add_inputs(onnx_edit *e, const onnx_edit *other)
{
    Onnx__GraphProto *g = e->graph;

    for (size_t i = 0; i < other->graph->n_input; i++) {
        Onnx__ValueInfoProto *v = other->graph->input[i];
        const Onnx__ValueInfoProto *own = onnx_edit_in(g->input, g->n_input, v->name);
        own = own != NULL ? own : onnx_edit_in(g->output, g->n_output, v->name);
        if (own != NULL && !same_kind(own, v))
            return unlike(e, other, "a value", v->name);
        if (own != NULL)
            continue;
        g->input = onnx_edit_room(&e->arena, g->input, g->n_input);
        g->input[g->n_input++] = v;
    }
    return DR_OK;
}

static void add_descriptions(onnx_edit *e, const onnx_edit *other)
{

    for (size_t i = 0; i < other->graph->n_output; i++)
        onnx_edit_add_output(e, other->graph->output[i]);
    for (size_t i = 0; i < other->graph->n_value_info; i++) {
        if (onnx_edit_info(e, other->graph->value_info[i]->name) != NULL)
            continue;
        onnx_edit_add_info(e, other->graph->value_info[i]);
    }
}

static dr_status same_weights(onnx_edit *e, const Onnx__TensorProto *own, onnx_edit *other,
                              const Onnx__TensorProto *t)
{
    dr_tensor a = {0}, b = {0};
    dr_status st = DR_OK;

    if (own->data_type != t->data_type || own->n_dims != t->n_dims ||
        memcmp(own->dims, t->dims, t->n_dims * sizeof(*t->dims)) != 0)
        return unlike(e, other, "a weight", t->name);
    DR_TRY(onnx_edit_values(e, &a, own));
    DR_TRY(onnx_edit_values(other, &b, t));
    if (a.bytes != b.bytes || memcmp(a.data, b.data, a.bytes) != 0)
        DR_TRY(unlike(e, other, "a weight", t->name));
done:
    return st;
}

static dr_status add_weights(onnx_edit *e, onnx_edit *other)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < other->file_count; i++)
        onnx_edit_add_file(e, other->files[i]);
    for (size_t i = 0; i < other->graph->n_initializer; i++) {
        Onnx__TensorProto *t = other->graph->initializer[i];
        const Onnx__TensorProto *own = onnx_edit_init(e, t->name);
        if (own != NULL) {
            DR_TRY(same_weights(e, own, other, t));
            continue;
        }
        onnx_edit_take_init(e, t);
    }
done:
    return st;
}

static bool same_node(dr_arena *a, const Onnx__NodeProto *x, const Onnx__NodeProto *y)
{
    size_t n = onnx__node_proto__get_packed_size(x);

    if (n != onnx__node_proto__get_packed_size(y))
        return false;
    uint8_t *p = dr_arena_alloc(a, 2 * n + 1, 1);
    (void)onnx__node_proto__pack(x, p);
    (void)onnx__node_proto__pack(y, p + n);
    return memcmp(p, p + n, n) == 0;
}

/* Constants, and what undoes a rounding, may be in several parts. */
static dr_status add_nodes(onnx_edit *e, const onnx_edit *other)
{
    Onnx__GraphProto *g = e->graph;
    onnx_makers makers;
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(onnx_edit_makers(e, &a, &makers));
    for (size_t i = 0; i < other->graph->n_node; i++) {
        Onnx__NodeProto *n = other->graph->node[i];
        const onnx_made *m = NULL;
        for (size_t k = 0; k < n->n_output && m == NULL; k++)
            m = onnx_maker_of(&makers, n->output[k]);
        if (m != NULL && !same_node(&a, g->node[m->node], n))
            DR_TRY(unlike(e, other, "a node that gives", m->name));
        if (m != NULL)
            continue;
        if (onnx_text(n->name)[0] != '\0' && onnx_edit_called(e, n->name) != NULL)
            n->name = onnx_edit_unused(e, "%s", n->name); /* names are a graph's own */
        g->node = onnx_edit_room(&e->arena, g->node, g->n_node);
        g->node[g->n_node++] = n;
        e->changes++;
    }
done:
    dr_arena_release(&a);
    return st;
}

/* Outputs that a later part reads are none any more. */
static void drop_read(onnx_edit *const *parts, size_t count)
{
    onnx_edit *e = parts[0];
    Onnx__GraphProto *g = e->graph;
    size_t kept = 0;

    for (size_t i = 0; i < g->n_output; i++) {
        bool read = false;
        for (size_t k = 1; k < count; k++)
            read = read || onnx_edit_is_input(parts[k], g->output[i]->name);
        if (!read) {
            g->output[kept++] = g->output[i];
            continue;
        }
        onnx_edit_add_info(e, g->output[i]);
    }
    g->n_output = kept;
}

dr_status onnx_compose(onnx_edit *const *parts, size_t count)
{
    dr_status st = DR_OK;

    DR_TRY(check_names(parts, count));
    DR_TRY(check_files(parts, count));
    for (size_t i = 0; i < count; i++)
        DR_TRY(onnx_edit_flat(parts[i], "composing"));
    for (size_t i = 1; i < count; i++) {
        DR_TRY(join_versions(parts[0], parts[i]));
        DR_TRY(add_inputs(parts[0], parts[i]));
        DR_TRY(add_weights(parts[0], parts[i]));
        DR_TRY(add_nodes(parts[0], parts[i]));
        add_descriptions(parts[0], parts[i]);
    }
    drop_read(parts, count);
done:
    return st;
}
