/*
 * rewrite_overrides.c - weights that go with activations of 16 bits.
 *
 * An operator of two values by elements wants both of one type.  So where one of them, or
 * its output, has 16 bits, a weight on the other side gets 16, too.  A weight that other
 * nodes read as well, of which not all want that, is doubled: the nodes that do read
 * NAME_MixedPrecision_copy.
 *
 * The rules, and the copy's name, are those of Olive's MixedPrecisionOverrides.
 */
#include <string.h>

#include "core/mem.h"
#include "onnx.pb-c.h"
#include "onnx/edit_impl.h"

/* A weight, and the nodes that want 16 bits of it. */
typedef struct {
    Onnx__TensorProto *init;
    Onnx__NodeProto **nodes; /* arena */
    size_t count;
    size_t readers; /* all nodes that read it */
} wanted;

typedef struct {
    onnx_edit *e;
    onnx_names wide;
    wanted *list; /* arena, in the order of the first node */
    size_t count;
} overrides;

static bool reads(const Onnx__NodeProto *n, const char *name)
{
    for (size_t i = 0; i < n->n_input; i++)
        if (strcmp(onnx_text(n->input[i]), name) == 0)
            return true;
    return false;
}

static bool is_wide(const overrides *o, const char *name)
{
    return onnx_named(o->wide, name);
}

/* The node wants 16 bits of this input, if it is a weight that has not got them. */
static void want(overrides *o, Onnx__NodeProto *n, const char *name)
{
    const Onnx__GraphProto *g = o->e->graph;
    Onnx__TensorProto *init = onnx_edit_init(o->e, name);
    size_t at = 0;

    if (init == NULL || is_wide(o, name))
        return;
    while (at < o->count && o->list[at].init != init)
        at++;
    wanted *w = &o->list[at];
    if (at == o->count) {
        o->count++;
        *w = (wanted){.init = init,
                      .nodes = dr_arena_alloc(&o->e->arena, g->n_node, sizeof(*w->nodes))};
        for (size_t i = 0; i < g->n_node; i++)
            w->readers += reads(g->node[i], name);
    }
    for (size_t i = 0; i < w->count; i++)
        if (w->nodes[i] == n)
            return;
    w->nodes[w->count++] = n;
}

static void look_at(overrides *o, Onnx__NodeProto *n)
{
    if (n->n_input < 2 || n->n_output < 1)
        return;
    if (is_wide(o, n->output[0])) {
        for (size_t i = 0; i < n->n_input; i++)
            want(o, n, n->input[i]);
    } else if (is_wide(o, n->input[0])) {
        want(o, n, n->input[1]);
    } else if (is_wide(o, n->input[1])) {
        want(o, n, n->input[0]);
    }
}

/* Its nodes read a copy; the copy's name. */
static const char *split(onnx_edit *e, const wanted *w)
{
    Onnx__TensorProto *copy = dr_arena_alloc(&e->arena, 1, sizeof(*copy));

    *copy = *w->init;
    copy->name = onnx_edit_unused(e, "%s_MixedPrecision_copy", w->init->name);
    onnx_edit_take_init(e, copy);
    for (size_t i = 0; i < w->count; i++)
        for (size_t k = 0; k < w->nodes[i]->n_input; k++)
            if (strcmp(onnx_text(w->nodes[i]->input[k]), w->init->name) == 0) {
                onnx_edit_set_input(e, w->nodes[i], k, copy->name);
                e->changes++;
            }
    return copy->name;
}

dr_status onnx_wide_weights(onnx_edit *e, onnx_names wide, onnx_names op_types,
                            const char *const **weights, size_t *count)
{
    const Onnx__GraphProto *g = e->graph;
    overrides o = {.e = e, .wide = wide};
    dr_status st = DR_OK;

    *count = 0;
    DR_TRY(onnx_edit_flat(e, "giving weights 16 bits"));
    for (size_t i = 0; wide[i] != NULL; i++)
        if (onnx_edit_info(e, wide[i]) == NULL && onnx_edit_maker(e, wide[i]) == NULL &&
            onnx_edit_init(e, wide[i]) == NULL)
            DR_FAIL(DR_EUSAGE, "%s has no value called %s", e->path, wide[i]);
    o.list = dr_arena_alloc(&e->arena, g->n_initializer + 1, sizeof(*o.list));
    for (size_t i = 0; i < g->n_node; i++)
        if (onnx_named(op_types, onnx_text(g->node[i]->op_type)))
            look_at(&o, g->node[i]);
    const char **names = dr_arena_alloc(&e->arena, o.count + 1, sizeof(*names));
    for (size_t i = 0; i < o.count; i++)
        names[(*count)++] = o.list[i].count == o.list[i].readers ? o.list[i].init->name
                                                                 : split(e, &o.list[i]);
    *weights = names;
done:
    return st;
}
