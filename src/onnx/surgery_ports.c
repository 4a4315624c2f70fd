/*
 * surgery_ports.c - surgeons of inputs, outputs and of what is said of values.
 */
#include <string.h>

#include "onnx.pb-c.h"
#include "onnx/graph_impl.h"
#include "onnx/surgery_impl.h"

typedef struct {
    Onnx__ValueInfoProto **list;
    size_t count;
    const char *kind; /* "input" */
} ports;

static ports inputs_of(const onnx_edit *e)
{
    return (ports){e->graph->input, e->graph->n_input, "input"};
}

static ports outputs_of(const onnx_edit *e)
{
    return (ports){e->graph->output, e->graph->n_output, "output"};
}

static dr_status find_port(const onnx_edit *e, const ports *p, const char *name, size_t *at)
{
    for (*at = 0; *at < p->count; ++*at) {
        if (name != NULL && strcmp(onnx_text(p->list[*at]->name), name) == 0)
            return DR_OK;
    }
    dr_status st = dr_fail(DR_EUSAGE, "%s has no %s called %s", e->path, p->kind,
                           name != NULL ? name : "(no string)");
    if (p->count > 0)
        dr_hint("the first of its %zu is %s", p->count, onnx_text(p->list[0]->name));
    return st;
}

/* Whatever the value is called by: nodes, descriptions, the port itself. */
static dr_status rename_value(onnx_edit *e, const char *from, const char *to)
{
    char *name = dr_arena_strdup(&e->arena, to);
    Onnx__NodeProto *maker = onnx_edit_maker(e, from);
    Onnx__TensorProto *t = onnx_edit_init(e, from);

    if (onnx_edit_maker(e, to) != NULL || onnx_edit_init(e, to) != NULL ||
        onnx_edit_is_input(e, to))
        return dr_fail(DR_EUSAGE, "%s: %s is called so already", e->path, to);
    onnx_edit_rename_output(maker, from, name);
    if (t != NULL)
        t->name = name;
    (void)onnx_edit_redirect(e, from, name);
    e->changes++;
    return DR_OK;
}

static dr_status rename_ports(onnx_edit *e, const surgery_args *a, const ports *p)
{
    const json_t *old = NULL, *new = NULL;
    dr_status st = DR_OK;

    DR_TRY(surgery_list(a, "old_names", false, &old));
    DR_TRY(surgery_list(a, "new_names", false, &new));
    if (json_array_size(old) != json_array_size(new))
        DR_FAIL(DR_EUSAGE, "%s: %zu old_names and %zu new_names", a->name,
                json_array_size(old), json_array_size(new));
    for (size_t i = 0; i < json_array_size(old); i++) {
        const char *to = json_string_value(json_array_get(new, i));
        size_t at = 0;
        DR_TRY(find_port(e, p, json_string_value(json_array_get(old, i)), &at));
        if (to == NULL || *to == '\0')
            DR_FAIL(DR_EUSAGE, "%s: new_names[%zu] is no name", a->name, i);
        char *from = dr_arena_strdup(&e->arena, onnx_text(p->list[at]->name));
        DR_TRY(rename_value(e, from, to));
        for (size_t k = 0; k < e->graph->n_input; k++) /* also where it is an output, too */
            if (strcmp(onnx_text(e->graph->input[k]->name), from) == 0)
                e->graph->input[k]->name = dr_arena_strdup(&e->arena, to);
        for (size_t k = 0; k < e->graph->n_output; k++)
            if (strcmp(onnx_text(e->graph->output[k]->name), from) == 0)
                e->graph->output[k]->name = dr_arena_strdup(&e->arena, to);
    }
done:
    return st;
}

dr_status surgery_rename_inputs(onnx_edit *e, const surgery_args *a)
{
    const ports p = inputs_of(e);

    return rename_ports(e, a, &p);
}

dr_status surgery_rename_outputs(onnx_edit *e, const surgery_args *a)
{
    const ports p = outputs_of(e);

    return rename_ports(e, a, &p);
}

dr_status surgery_remove_shapes(onnx_edit *e, const surgery_args *a)
{
    (void)a;
    onnx_drop_shapes(e);
    return DR_OK;
}

dr_status surgery_remove_value_shapes(onnx_edit *e, const surgery_args *a)
{
    (void)a;
    for (size_t i = 0; i < e->graph->n_value_info; i++) {
        Onnx__TypeProto__Tensor *t = onnx_tensor_of(e->graph->value_info[i]);
        if (t == NULL || t->shape == NULL)
            continue;
        t->shape = NULL;
        e->changes++;
    }
    return DR_OK;
}

dr_status surgery_remove_initializer_inputs(onnx_edit *e, const surgery_args *a)
{
    Onnx__GraphProto *g = e->graph;
    size_t kept = 0;

    (void)a;
    for (size_t i = 0; i < g->n_input; i++) {
        if (onnx_edit_init(e, onnx_text(g->input[i]->name)) == NULL)
            g->input[kept++] = g->input[i];
    }
    e->changes += g->n_input - kept;
    g->n_input = kept;
    return DR_OK;
}

dr_status surgery_reorder_inputs(onnx_edit *e, const surgery_args *a)
{
    Onnx__GraphProto *g = e->graph;
    const json_t *order = NULL;
    dr_status st = DR_OK;

    DR_TRY(surgery_list(a, "permutation", false, &order));
    Onnx__ValueInfoProto **list = onnx_edit_list(&e->arena, g->input, g->n_input);
    unsigned char *seen = dr_arena_alloc(&e->arena, g->n_input + 1, 1);
    if (json_array_size(order) != g->n_input)
        DR_FAIL(DR_EUSAGE, "%s: permutation has %zu numbers, the graph %zu inputs", a->name,
                json_array_size(order), g->n_input);
    for (size_t i = 0; i < g->n_input; i++) {
        json_int_t at = json_integer_value(json_array_get(order, i));
        if (!json_is_integer(json_array_get(order, i)) || at < 0 ||
            (size_t)at >= g->n_input || seen[at])
            DR_FAIL(DR_EUSAGE, "%s: permutation: each of 0 to %zu once", a->name,
                    g->n_input - 1);
        seen[at] = 1;
        list[i] = g->input[at];
    }
    g->input = list;
    e->changes++;
done:
    return st;
}

dr_status surgery_remove_inputs(onnx_edit *e, const surgery_args *a)
{
    Onnx__GraphProto *g = e->graph;
    const ports p = inputs_of(e);
    const json_t *names = NULL;
    dr_status st = DR_OK;

    DR_TRY(surgery_list(a, "names", false, &names));
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        size_t at = 0, kept = 0;
        DR_TRY(find_port(e, &(ports){g->input, g->n_input, p.kind}, name, &at));
        for (size_t k = 0; k < g->n_node; k++) {
            Onnx__NodeProto *n = g->node[k];
            size_t left = 0;
            for (size_t j = 0; j < n->n_input; j++) {
                if (strcmp(onnx_text(n->input[j]), name) != 0)
                    n->input[left++] = n->input[j];
            }
            bool read = left < n->n_input;
            n->n_input = left;
            if (read && left == 0 && onnx_edit_readers(e, onnx_text(n->output[0])) > 0)
                DR_FAIL(DR_EUSAGE, "%s: %s reads nothing but %s, and others read it",
                        a->name, onnx_text(n->name), name);
            if (!read || left > 0)
                g->node[kept++] = n;
        }
        g->n_node = kept;
        memmove(g->input + at, g->input + at + 1,
                (g->n_input - at - 1) * sizeof(*g->input));
        g->n_input--;
        e->changes++;
    }
done:
    return st;
}

/* An output of that value, with what is known of it. */
static void add_output(onnx_edit *e, const onnx_types *types, char *name)
{
    Onnx__ValueInfoProto *v = onnx_edit_info(e, name);

    if (onnx_edit_is_output(e, name))
        return;
    if (v == NULL) {
        v = onnx_edit_value(&e->arena, name, onnx_type_of(types, name), 0);
        v->type->tensor_type->shape = NULL;
    }
    onnx_edit_add_output(e, v);
    onnx_edit_drop_info(e, name);
    e->changes++;
}

dr_status surgery_expose_outputs(onnx_edit *e, const surgery_args *a)
{
    const json_t *names = NULL;
    onnx_types types;
    dr_status st = DR_OK;

    DR_TRY(surgery_list(a, "names", false, &names));
    DR_TRY(onnx_edit_types(e, &types));
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        const Onnx__NodeProto *found = name != NULL ? onnx_edit_called(e, name) : NULL;
        if (found == NULL || found->n_output == 0)
            DR_FAIL(DR_EUSAGE, "%s: %s has no node called %s", a->name, e->path,
                    name != NULL ? name : "(no string)");
        add_output(e, &types, found->output[0]);
    }
done:
    return st;
}

dr_status surgery_add_intermediate(onnx_edit *e, const surgery_args *a)
{
    const json_t *names = NULL;
    onnx_types types;
    dr_status st = DR_OK;

    DR_TRY(surgery_list(a, "intermediate_tensor_to_add", true, &names));
    DR_TRY(onnx_edit_types(e, &types));
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        if (name == NULL || onnx_edit_maker(e, name) == NULL)
            DR_FAIL(DR_EUSAGE, "%s: no node of %s gives %s", a->name, e->path,
                    name != NULL ? name : "(no string)");
        add_output(e, &types, dr_arena_strdup(&e->arena, name));
    }
    for (size_t i = 0; names == NULL && i < e->graph->n_node; i++) {
        for (size_t k = 0; k < e->graph->node[i]->n_output; k++) {
            if (onnx_text(e->graph->node[i]->output[k])[0] != '\0')
                add_output(e, &types, e->graph->node[i]->output[k]);
        }
    }
done:
    return st;
}

static dr_status rename_dim(onnx_edit *e, const surgery_args *a, const ports *p, size_t at)
{
    const char *name = NULL;
    int64_t dim = 0;
    dr_status st = DR_OK;

    DR_TRY(surgery_text(a, "dim_name", &name));
    DR_TRY(surgery_int(a, "dim_idx", &dim));
    if (at >= p->count)
        DR_FAIL(DR_EUSAGE, "%s: %s_idx %zu: there are %zu", a->name, p->kind, at, p->count);
    const Onnx__TypeProto__Tensor *t = onnx_tensor_of(p->list[at]);
    if (t == NULL || t->shape == NULL || (size_t)dim >= t->shape->n_dim)
        DR_FAIL(DR_EUSAGE, "%s: %s has no dimension %lld", a->name,
                onnx_text(p->list[at]->name), (long long)dim);
    Onnx__TensorShapeProto__Dimension *d = t->shape->dim[dim];
    d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
    d->dim_param = dr_arena_strdup(&e->arena, name);
    e->changes++;
done:
    return st;
}

dr_status surgery_rename_input_dims(onnx_edit *e, const surgery_args *a)
{
    const ports p = inputs_of(e);
    const char *name = NULL;
    int64_t index = 0;
    size_t at = 0;
    dr_status st = DR_OK;

    if (json_object_get(a->json, "input_name") != NULL) {
        DR_TRY(surgery_text(a, "input_name", &name));
        DR_TRY(find_port(e, &p, name, &at));
    } else {
        DR_TRY(surgery_int(a, "input_idx", &index));
        at = (size_t)index;
    }
    DR_TRY(rename_dim(e, a, &p, at));
done:
    return st;
}

dr_status surgery_rename_output_dims(onnx_edit *e, const surgery_args *a)
{
    const ports p = outputs_of(e);
    int64_t index = 0;
    dr_status st = DR_OK;

    DR_TRY(surgery_int(a, "output_idx", &index));
    DR_TRY(rename_dim(e, a, &p, (size_t)index));
done:
    return st;
}
