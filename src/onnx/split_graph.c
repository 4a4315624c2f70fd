/*
 * split_graph.c - a graph in parts, which are run one after the other.
 *
 *     forward    a node goes to its module's part, and not before what it reads; one of no
 *                module goes with what it reads
 *     backward   what is left (masks, shapes, tables) goes to the first part that reads it
 *     copies     constants and DequantizeLinear go to all parts that read them, so that
 *                what crosses is small, and a part's weights are whole
 *
 * The rules are those of Olive's SplitModel.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "onnx.pb-c.h"
#include "onnx/edit_impl.h"

enum { NO_PART = -1, PARTS_MAX = 1024 };

dr_status onnx_parts_parse(onnx_parts *out, dr_arena *a, const char *text, const char *what)
{
    size_t room = 1;

    for (const char *p = text; *p != '\0'; p++)
        room += *p == ';';
    *out = (onnx_parts){dr_arena_alloc(a, room, sizeof(*out->list)), 0, 0};
    for (const char *p = text; *p != '\0';) {
        size_t n = strcspn(p, ";");
        const char *equal = memchr(p, '=', n);
        char *end = NULL;
        long part = equal != NULL ? strtol(equal + 1, &end, 10) : -1;
        if (equal == NULL || equal == p || end != p + n || end == equal + 1 || part < 0 ||
            part >= PARTS_MAX)
            return dr_fail(DR_EUSAGE,
                           "%s: expected NAME=PART with parts from 0 to %d, found \"%.*s\"",
                           what, PARTS_MAX - 1, (int)n, p);
        const char *name = dr_arena_strndup(a, p, (size_t)(equal - p));
        for (size_t i = 0; i < out->count; i++)
            if (strcmp(out->list[i].module, name) == 0)
                return dr_fail(DR_EUSAGE, "%s: %s is there twice", what, name);
        out->list[out->count++] = (onnx_assignment){name, (size_t)part};
        out->parts = (size_t)part + 1 > out->parts ? (size_t)part + 1 : out->parts;
        p += n + (p[n] == ';');
    }
    if (out->count == 0)
        return dr_fail(DR_EUSAGE, "%s: no assignment", what);
    return DR_OK;
}

/* ---- which node goes where ---- */

typedef struct {
    dr_arena arena;
    Onnx__NodeProto **nodes;
    size_t count, parts;
    onnx_makers makers;
    int *part;         /* [count] */
    unsigned char *in; /* [count][parts] */
} placing;

static bool is_copied(const Onnx__NodeProto *n)
{
    return onnx_is(n, "Constant") || onnx_is(n, "DequantizeLinear");
}

/* "/model/layers.0/attn/MatMul" is of "model.layers.0": the longest name that fits. */
static int module_part(const onnx_parts *s, const char *node, char *dotted)
{
    size_t n = 0;

    for (const char *p = node + strspn(node, "/."); *p != '\0'; p++)
        dotted[n++] = *p == '/' ? '.' : *p;
    dotted[n] = '\0';
    while (n > 0) {
        for (size_t i = 0; i < s->count; i++)
            if (strcmp(s->list[i].module, dotted) == 0)
                return (int)s->list[i].part;
        while (n > 0 && dotted[--n] != '.')
            ;
        dotted[n] = '\0';
    }
    return NO_PART;
}

static int later(int a, int b)
{
    return a > b ? a : b;
}

static void go_forward(placing *p, const onnx_parts *s)
{
    for (size_t i = 0; i < p->count; i++) {
        const Onnx__NodeProto *n = p->nodes[i];
        const char *name = onnx_text(n->name);
        p->part[i] = NO_PART;
        if (onnx_is(n, "Constant"))
            continue;
        if (!onnx_is(n, "QuantizeLinear") && !onnx_is(n, "DequantizeLinear"))
            p->part[i] =
                module_part(s, name, dr_arena_alloc(&p->arena, strlen(name) + 1, 1));
        for (size_t k = 0; k < n->n_input; k++) {
            const onnx_made *m = onnx_maker_of(&p->makers, n->input[k]);
            if (m != NULL)
                p->part[i] = later(p->part[i], p->part[m->node]);
        }
    }
}

/* first[i]: the earliest part that reads a node; INT_MAX: none. */
static void go_backward(placing *p)
{
    int *first = dr_arena_alloc(&p->arena, p->count + 1, sizeof(*first));

    for (size_t i = 0; i < p->count; i++)
        first[i] = INT_MAX;
    for (size_t i = p->count; i-- > 0;) {
        const Onnx__NodeProto *n = p->nodes[i];
        unsigned char *in = p->in + i * p->parts;
        bool read = false;
        if (p->part[i] == NO_PART)
            p->part[i] = first[i] < INT_MAX ? first[i] : 0;
        for (size_t k = 0; k < p->parts; k++)
            read = read || in[k] != 0;
        if (!is_copied(n) || !read) {
            memset(in, 0, p->parts);
            in[p->part[i]] = 1;
        }
        for (size_t k = 0; k < n->n_input; k++) {
            const onnx_made *m = onnx_maker_of(&p->makers, n->input[k]);
            if (m == NULL)
                continue;
            first[m->node] = p->part[i] < first[m->node] ? p->part[i] : first[m->node];
            for (size_t j = 0; j < p->parts; j++)
                p->in[m->node * p->parts + j] |= in[j];
        }
    }
}

static dr_status place_nodes(placing *p, onnx_edit *e, const onnx_parts *s)
{
    dr_status st = DR_OK;

    *p = (placing){.parts = s->parts};
    DR_TRY(onnx_edit_flat(e, "splitting"));
    DR_TRY(onnx_edit_sort(e));
    p->nodes = e->graph->node;
    p->count = e->graph->n_node;
    DR_TRY(onnx_edit_makers(e, &p->arena, &p->makers));
    p->part = dr_arena_alloc(&p->arena, p->count + 1, sizeof(*p->part));
    p->in = dr_arena_alloc(&p->arena, p->count + 1, p->parts);
    go_forward(p, s);
    go_backward(p);
done:
    return st;
}

static bool is_in(const placing *p, size_t node, size_t part)
{
    return p->in[node * p->parts + part] != 0;
}

/* ---- values between parts ---- */

typedef struct {
    const char *name;
    size_t from; /* the node that gives it */
    size_t to;   /* a node that reads it elsewhere */
} crossing;

static int by_value(const void *a, const void *b)
{
    const crossing *x = a, *y = b;
    int c = strcmp(x->name, y->name);

    return c != 0 ? c : x->to < y->to ? -1 : x->to > y->to;
}

/* Every reading of a value in a part that does not make it. */
static crossing *find_crossings(placing *p, size_t *count)
{
    size_t room = 1;

    for (size_t i = 0; i < p->count; i++)
        room += p->nodes[i]->n_input;
    crossing *list = dr_arena_alloc(&p->arena, room, sizeof(*list));
    *count = 0;
    for (size_t i = 0; i < p->count; i++)
        for (size_t k = 0; k < p->nodes[i]->n_input; k++) {
            const onnx_made *m = onnx_maker_of(&p->makers, p->nodes[i]->input[k]);
            bool out = false;
            for (size_t j = 0; m != NULL && j < p->parts; j++)
                out = out || (is_in(p, i, j) && !is_in(p, m->node, j));
            if (out)
                list[(*count)++] = (crossing){m->name, m->node, i};
        }
    qsort(list, *count, sizeof(*list), by_value);
    return list;
}

static bool is_described(const onnx_edit *e, const char *name)
{
    const Onnx__TypeProto__Tensor *t = onnx_tensor_of(onnx_edit_info(e, name));

    return t != NULL && t->shape != NULL;
}

dr_status onnx_parts_unknown(onnx_edit *e, const onnx_parts *s, dr_arena *a,
                             const char *const **names, size_t *count)
{
    placing p;
    size_t n = 0;
    dr_status st = DR_OK;

    *count = 0;
    DR_TRY(place_nodes(&p, e, s));
    const crossing *list = find_crossings(&p, &n);
    const char **out = dr_arena_alloc(a, n + 1, sizeof(*out));
    for (size_t i = 0; i < n; i++)
        if ((i == 0 || strcmp(list[i - 1].name, list[i].name) != 0) &&
            !is_described(e, list[i].name))
            out[(*count)++] = dr_arena_strdup(a, list[i].name);
    *names = out;
done:
    dr_arena_release(&p.arena);
    return st;
}

/* Of the type that the graph gives it, with the sizes of d. */
static Onnx__ValueInfoProto *described_value(onnx_edit *e, const onnx_types *types,
                                             const onnx_described *d)
{
    static const Onnx__TensorShapeProto__Dimension any =
        ONNX__TENSOR_SHAPE_PROTO__DIMENSION__INIT;
    int32_t type = onnx_type_of(types, d->name);

    if (type == 0)
        return NULL;
    Onnx__ValueInfoProto *v =
        onnx_edit_value(&e->arena, dr_arena_strdup(&e->arena, d->name), type, d->rank);
    for (size_t i = 0; i < d->rank; i++) {
        Onnx__TensorShapeProto__Dimension *dim = dr_arena_alloc(&e->arena, 1, sizeof(*dim));
        *dim = any;
        if (d->dims[i] >= 0) {
            dim->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
            dim->dim_value = d->dims[i];
        }
        v->type->tensor_type->shape->dim[i] = dim;
    }
    return v;
}

static dr_status describe(onnx_edit *e, const onnx_described *more, size_t count)
{
    onnx_types types;
    dr_status st = DR_OK;

    DR_TRY(onnx_edit_types(e, &types));
    for (size_t i = 0; i < count; i++) {
        Onnx__ValueInfoProto *v = described_value(e, &types, &more[i]);
        if (v == NULL || is_described(e, more[i].name))
            continue;
        onnx_edit_drop_info(e, more[i].name);
        onnx_edit_add_info(e, v);
    }
done:
    return st;
}

/* ---- one part ---- */

typedef struct {
    Onnx__ValueInfoProto **list;
    size_t count;
} ports;

static void add_port(onnx_edit *e, ports *p, Onnx__ValueInfoProto *v)
{
    if (onnx_edit_in(p->list, p->count, v->name) != NULL)
        return;
    p->list = onnx_edit_room(&e->arena, p->list, p->count);
    p->list[p->count++] = v;
}

static bool is_read(const placing *p, size_t part, const char *name)
{
    for (size_t i = 0; i < p->count; i++)
        for (size_t k = 0; k < p->nodes[i]->n_input && is_in(p, i, part); k++)
            if (strcmp(onnx_text(p->nodes[i]->input[k]), name) == 0)
                return true;
    return false;
}

/* An output of the whole is one of the first part that makes it. */
static bool gives(const placing *p, size_t part, const char *name)
{
    const onnx_made *m = onnx_maker_of(&p->makers, name);

    for (size_t j = 0; m != NULL && j < part; j++)
        if (is_in(p, m->node, j))
            return false;
    return m != NULL && is_in(p, m->node, part);
}

static dr_status set_ports(onnx_edit *e, placing *p, size_t part)
{
    Onnx__GraphProto *g = e->graph;
    ports in = {onnx_edit_list(&e->arena, NULL, 0), 0};
    ports out = {onnx_edit_list(&e->arena, NULL, 0), 0};
    size_t count = 0;
    const crossing *list = find_crossings(p, &count);

    for (size_t i = 0; i < g->n_input; i++)
        if (is_read(p, part, g->input[i]->name))
            add_port(e, &in, g->input[i]);
    for (size_t i = 0; i < g->n_output; i++)
        if (gives(p, part, g->output[i]->name))
            add_port(e, &out, g->output[i]);
    for (size_t i = 0; i < count; i++) {
        const bool here = is_in(p, list[i].from, part);
        if (!here && !is_in(p, list[i].to, part))
            continue;
        Onnx__ValueInfoProto *v = onnx_edit_info(e, list[i].name);
        if (onnx_tensor_of(v) == NULL)
            return dr_fail(DR_EUNSUPPORTED,
                           "%s: nothing says of which type %s is, which goes from part %d "
                           "to another",
                           e->path, list[i].name, p->part[list[i].from]);
        add_port(e, here ? &out : &in, v);
    }
    g->input = in.list;
    g->n_input = in.count;
    g->output = out.list;
    g->n_output = out.count;
    for (size_t i = 0; i < in.count; i++)
        onnx_edit_drop_info(e, in.list[i]->name);
    for (size_t i = 0; i < out.count; i++)
        onnx_edit_drop_info(e, out.list[i]->name);
    return DR_OK;
}

/* Weights, inputs with a value and descriptions that this part has no use for. */
static void drop_others(onnx_edit *e, const placing *p, size_t part)
{
    Onnx__GraphProto *g = e->graph;
    const char **names = dr_arena_alloc(&e->arena, g->n_initializer + 1, sizeof(*names));
    size_t kept = 0;

    for (size_t i = 0; i < g->n_initializer; i++)
        names[i] = onnx_text(g->initializer[i]->name);
    onnx_edit_drop_unread(e, names, g->n_initializer);
    for (size_t i = 0; i < g->n_value_info; i++) {
        const onnx_made *m = onnx_maker_of(&p->makers, g->value_info[i]->name);
        if (m != NULL && is_in(p, m->node, part))
            g->value_info[kept++] = g->value_info[i];
    }
    g->n_value_info = kept;
}

dr_status onnx_keep_part(onnx_edit *e, const onnx_parts *s, size_t part,
                         const onnx_described *more, size_t count, bool *empty)
{
    placing p;
    size_t kept = 0;
    dr_status st = DR_OK;

    DR_TRY(place_nodes(&p, e, s));
    DR_TRY(describe(e, more, count));
    DR_TRY(set_ports(e, &p, part));
    Onnx__NodeProto **nodes = onnx_edit_list(&e->arena, p.nodes, p.count);
    for (size_t i = 0; i < p.count; i++)
        if (is_in(&p, i, part))
            nodes[kept++] = p.nodes[i];
    e->changes += p.count - kept;
    e->graph->node = nodes;
    e->graph->n_node = kept;
    *empty = e->graph->n_output == 0;
    drop_others(e, &p, part);
done:
    dr_arena_release(&p.arena);
    return st;
}
