/*
 * edit_make.c - nodes, values and weights that a rewrite adds to a model of anybody's, and
 * the ways in which it takes others out.
 *
 * New nodes go to the end and are sorted before the model is written, so a rewrite need not
 * know where it stands.  New weights are written to their file as they come: one tensor is
 * in memory at a time.  Once there are some, the old external files are not used any more,
 * and all other weights are copied behind them.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "onnx.pb-c.h"
#include "onnx/edit_impl.h"
#include "onnx/graph_impl.h"

enum { INSIDE_BYTES = 1024, DATA_ALIGN = 64 };

bool onnx_is(const Onnx__NodeProto *n, const char *op)
{
    return strcmp(onnx_text(n->op_type), op) == 0;
}

/* ---- names ---- */

static bool taken(const onnx_edit *e, const char *name)
{
    return onnx_edit_called(e, name) != NULL || onnx_edit_maker(e, name) != NULL ||
           onnx_edit_init(e, name) != NULL || onnx_edit_is_input(e, name);
}

char *onnx_edit_unused(onnx_edit *e, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    const char *base = dr_arena_vprintf(&e->arena, format, args);
    va_end(args);
    char *name = dr_arena_strdup(&e->arena, base);
    for (int i = 2; taken(e, name); i++)
        name = dr_arena_printf(&e->arena, "%s_%d", base, i);
    return name;
}

/* ---- nodes ---- */

Onnx__NodeProto *onnx_edit_node(onnx_edit *e, const char *domain, const char *op,
                                const char *name, const char *const *in, const char *out)
{
    static const Onnx__NodeProto init = ONNX__NODE_PROTO__INIT;
    dr_arena *a = &e->arena;
    Onnx__GraphProto *g = e->graph;
    Onnx__NodeProto *n = dr_arena_alloc(a, 1, sizeof(*n));
    size_t count = 0;

    while (in[count] != NULL)
        count++;
    *n = init;
    n->op_type = dr_arena_strdup(a, op);
    n->name = dr_arena_strdup(a, name);
    n->domain = dr_arena_strdup(a, domain != NULL ? domain : "");
    n->input = onnx_edit_list(a, in, count);
    for (; n->n_input < count; n->n_input++)
        n->input[n->n_input] = dr_arena_strdup(a, in[n->n_input]);
    n->output = dr_arena_alloc(a, 1, sizeof(*n->output));
    n->output[n->n_output++] = dr_arena_strdup(a, out);
    g->node = onnx_edit_room(a, g->node, g->n_node);
    g->node[g->n_node++] = n;
    return n;
}

/* Of that name, emptied, or a new one. */
static Onnx__AttributeProto *set_attr(onnx_edit *e, Onnx__NodeProto *n, const char *name,
                                      Onnx__AttributeProto__AttributeType type)
{
    static const Onnx__AttributeProto init = ONNX__ATTRIBUTE_PROTO__INIT;
    Onnx__AttributeProto *at = NULL;

    for (size_t i = 0; i < n->n_attribute; i++) {
        if (strcmp(onnx_text(n->attribute[i]->name), name) == 0)
            at = n->attribute[i];
    }
    if (at == NULL) {
        at = dr_arena_alloc(&e->arena, 1, sizeof(*at));
        n->attribute = onnx_edit_room(&e->arena, n->attribute, n->n_attribute);
        n->attribute[n->n_attribute++] = at;
    }
    *at = init;
    at->name = dr_arena_strdup(&e->arena, name);
    at->has_type = 1;
    at->type = type;
    return at;
}

void onnx_edit_set_int(onnx_edit *e, Onnx__NodeProto *n, const char *name, int64_t v)
{
    Onnx__AttributeProto *at =
        set_attr(e, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);

    at->has_i = 1;
    at->i = v;
}

void onnx_edit_set_ints(onnx_edit *e, Onnx__NodeProto *n, const char *name,
                        const int64_t *v, size_t count)
{
    Onnx__AttributeProto *at =
        set_attr(e, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);

    at->ints = dr_arena_alloc(&e->arena, count + 1, sizeof(*at->ints));
    for (; at->n_ints < count; at->n_ints++)
        at->ints[at->n_ints] = v[at->n_ints];
}

void onnx_edit_set_float(onnx_edit *e, Onnx__NodeProto *n, const char *name, float v)
{
    Onnx__AttributeProto *at =
        set_attr(e, n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT);

    at->has_f = 1;
    at->f = v;
}

void onnx_edit_drop_attr(Onnx__NodeProto *n, const char *name)
{
    size_t kept = 0;

    for (size_t i = 0; i < n->n_attribute; i++) {
        if (strcmp(onnx_text(n->attribute[i]->name), name) != 0)
            n->attribute[kept++] = n->attribute[i];
    }
    n->n_attribute = kept;
}

void onnx_edit_set_op(onnx_edit *e, Onnx__NodeProto *n, const char *domain, const char *op)
{
    n->domain = dr_arena_strdup(&e->arena, domain != NULL ? domain : "");
    n->op_type = dr_arena_strdup(&e->arena, op);
}

void onnx_edit_set_input(onnx_edit *e, Onnx__NodeProto *n, size_t i, const char *name)
{
    while (n->n_input <= i) {
        n->input = onnx_edit_room(&e->arena, n->input, n->n_input);
        n->input[n->n_input++] = dr_arena_strdup(&e->arena, "");
    }
    n->input[i] = dr_arena_strdup(&e->arena, name);
}

/* ---- values ---- */

static Onnx__StringStringEntryProto *new_entry(onnx_edit *e, const char *key,
                                               const char *value)
{
    static const Onnx__StringStringEntryProto init = ONNX__STRING_STRING_ENTRY_PROTO__INIT;
    Onnx__StringStringEntryProto *p = dr_arena_alloc(&e->arena, 1, sizeof(*p));

    *p = init;
    p->key = dr_arena_strdup(&e->arena, key);
    p->value = dr_arena_strdup(&e->arena, value);
    return p;
}

/* The values of t go to the new file. */
static dr_status write_values(onnx_edit *e, Onnx__TensorProto *t, const void *values,
                              size_t bytes)
{
    dr_status st = DR_OK;

    if (!e->data_open) {
        DR_TRY(dr_writer_open(&e->data, e->new_data));
        e->data_open = true;
    }
    DR_TRY(dr_writer_align(&e->data, DATA_ALIGN));
    uint64_t at = dr_writer_at(&e->data);
    DR_TRY(dr_writer_add(&e->data, values, bytes));
    t->has_raw_data = 0;
    t->raw_data = (ProtobufCBinaryData){0, NULL};
    t->has_data_location = 1;
    t->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    t->n_external_data = 3;
    t->external_data = dr_arena_alloc(&e->arena, 3, sizeof(*t->external_data));
    t->external_data[0] = new_entry(e, "location", ONNX_NEW_DATA);
    t->external_data[1] =
        new_entry(e, "offset", dr_arena_printf(&e->arena, "%llu", (unsigned long long)at));
    t->external_data[2] = new_entry(e, "length", dr_arena_printf(&e->arena, "%zu", bytes));
done:
    return st;
}

dr_status onnx_edit_tensor(onnx_edit *e, Onnx__TensorProto **out, const char *name,
                           int32_t type, const int64_t *dims, size_t rank,
                           const void *values, size_t bytes)
{
    static const Onnx__TensorProto init = ONNX__TENSOR_PROTO__INIT;
    Onnx__TensorProto *t = dr_arena_alloc(&e->arena, 1, sizeof(*t));
    void *copy = NULL;
    dr_status st = DR_OK;

    *t = init;
    t->name = dr_arena_strdup(&e->arena, name);
    t->has_data_type = 1;
    t->data_type = type;
    t->dims = dr_arena_alloc(&e->arena, rank + 1, sizeof(*t->dims));
    for (; t->n_dims < rank; t->n_dims++)
        t->dims[t->n_dims] = dims[t->n_dims];
    if (bytes >= INSIDE_BYTES && e->new_data != NULL) {
        DR_TRYF(write_values(e, t, values, bytes), "writing %s", name);
    } else {
        DR_TRY(dr_arena_big(&e->arena, &copy, bytes + 1, 1, name));
        if (bytes > 0)
            memcpy(copy, values, bytes);
        t->has_raw_data = 1;
        t->raw_data = (ProtobufCBinaryData){bytes, copy};
    }
    *out = t;
done:
    return st;
}

dr_status onnx_edit_add_init(onnx_edit *e, const char *name, int32_t type,
                             const int64_t *dims, size_t rank, const void *values,
                             size_t bytes)
{
    Onnx__TensorProto *t = NULL;
    dr_status st = DR_OK;

    DR_TRY(onnx_edit_tensor(e, &t, name, type, dims, rank, values, bytes));
    onnx_edit_take_init(e, t);
done:
    return st;
}

dr_status onnx_edit_add_number(onnx_edit *e, const char *name, int32_t type, size_t rank,
                               double value)
{
    const int64_t one = 1;
    unsigned char bytes[8] = {0};
    float f = (float)value;
    int64_t i = (int64_t)value;
    size_t size = onnx_type_bytes((onnx_type)type);

    if (type == ONNX_FLOAT || type == ONNX_FLOAT16 || type == ONNX_BFLOAT16)
        dr_from_f32(bytes, &f, onnx_type_dtype((onnx_type)type), 1);
    else
        memcpy(bytes, &i, sizeof(i));
    return onnx_edit_add_init(e, name, type, &one, rank, bytes, size);
}

/* ---- writing ---- */

static dr_status gather_data(onnx_edit *e)
{
    const Onnx__GraphProto *g = e->graph;
    const char *name = dr_path_base(e->new_data);
    dr_tensor v = {0};
    dr_status st = DR_OK;

    for (size_t i = 0; i < g->n_initializer; i++) {
        Onnx__TensorProto *t = g->initializer[i];
        if (!onnx_edit_external(t))
            continue;
        if (strcmp(onnx_text(t->external_data[0]->value), ONNX_NEW_DATA) != 0) {
            DR_TRY(onnx_edit_values(e, &v, t));
            DR_TRYF(write_values(e, t, v.data, v.bytes), "writing %s", v.name);
        }
        t->external_data[0]->value = dr_arena_strdup(&e->arena, name);
    }
    DR_TRY(dr_writer_finish(&e->data));
done:
    return st;
}

dr_status onnx_edit_finish(onnx_edit *e, const char *path)
{
    dr_status st = DR_OK;

    DR_TRY(onnx_edit_sort(e));
    if (e->data_open)
        DR_TRY(gather_data(e));
    DR_TRY(onnx_edit_save(e, path));
done:
    return st;
}

/* ---- who reads what ---- */

Onnx__ValueInfoProto *onnx_edit_in(Onnx__ValueInfoProto **list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(onnx_text(list[i]->name), name) == 0)
            return list[i];
    }
    return NULL;
}

bool onnx_edit_is_output(const onnx_edit *e, const char *name)
{
    return onnx_edit_in(e->graph->output, e->graph->n_output, name) != NULL;
}

bool onnx_edit_is_input(const onnx_edit *e, const char *name)
{
    return onnx_edit_in(e->graph->input, e->graph->n_input, name) != NULL;
}

void onnx_edit_add_output(onnx_edit *e, Onnx__ValueInfoProto *v)
{
    Onnx__GraphProto *g = e->graph;

    g->output = onnx_edit_room(&e->arena, g->output, g->n_output);
    g->output[g->n_output++] = v;
}

void onnx_edit_add_info(onnx_edit *e, Onnx__ValueInfoProto *v)
{
    Onnx__GraphProto *g = e->graph;

    g->value_info = onnx_edit_room(&e->arena, g->value_info, g->n_value_info);
    g->value_info[g->n_value_info++] = v;
}

void onnx_edit_take_init(onnx_edit *e, Onnx__TensorProto *t)
{
    Onnx__GraphProto *g = e->graph;

    g->initializer = onnx_edit_room(&e->arena, g->initializer, g->n_initializer);
    g->initializer[g->n_initializer++] = t;
}

Onnx__NodeProto *onnx_edit_called(const onnx_edit *e, const char *name)
{
    for (size_t i = e->graph->n_node; i-- > 0;) {
        if (strcmp(onnx_text(e->graph->node[i]->name), name) == 0)
            return e->graph->node[i];
    }
    return NULL;
}

void onnx_edit_rename_output(Onnx__NodeProto *maker, const char *from, char *to)
{
    for (size_t i = 0; maker != NULL && i < maker->n_output; i++) {
        if (strcmp(onnx_text(maker->output[i]), from) == 0)
            maker->output[i] = to;
    }
}

static size_t each_reader(Onnx__GraphProto *g, const char *from, char *to)
{
    size_t count = 0;

    for (size_t i = 0; i < g->n_node; i++) {
        Onnx__NodeProto *n = g->node[i];
        for (size_t k = 0; k < n->n_input; k++) {
            if (strcmp(onnx_text(n->input[k]), from) != 0)
                continue;
            count++;
            if (to != NULL)
                n->input[k] = to;
        }
        for (size_t k = 0; k < n->n_attribute; k++) {
            if (n->attribute[k]->g != NULL)
                count += each_reader(n->attribute[k]->g, from, to);
            for (size_t j = 0; j < n->attribute[k]->n_graphs; j++)
                count += each_reader(n->attribute[k]->graphs[j], from, to);
        }
    }
    return count;
}

size_t onnx_edit_redirect(onnx_edit *e, const char *from, const char *to)
{
    return each_reader(e->graph, from, dr_arena_strdup(&e->arena, to));
}

size_t onnx_edit_readers(const onnx_edit *e, const char *name)
{
    return each_reader(e->graph, name, NULL) + onnx_edit_is_output(e, name);
}

static void remove_node(onnx_edit *e, const Onnx__NodeProto *n)
{
    Onnx__GraphProto *g = e->graph;
    size_t kept = 0;

    for (size_t i = 0; i < g->n_node; i++) {
        if (g->node[i] != n)
            g->node[kept++] = g->node[i];
    }
    g->n_node = kept;
}

bool onnx_edit_bypass(onnx_edit *e, Onnx__NodeProto *n, const char *by)
{
    char *out = dr_arena_strdup(&e->arena, onnx_text(n->output[0]));
    char *old = dr_arena_strdup(&e->arena, by);

    if (onnx_edit_is_output(e, out)) {
        Onnx__NodeProto *maker = onnx_edit_maker(e, old);
        if (maker == NULL || maker == n || onnx_edit_is_output(e, old))
            return false;
        remove_node(e, n);
        onnx_edit_rename_output(maker, old, out);
        onnx_edit_drop_info(e, old);
        (void)onnx_edit_redirect(e, old, out);
    } else {
        remove_node(e, n);
        onnx_edit_drop_info(e, out);
        (void)onnx_edit_redirect(e, out, old);
    }
    return true;
}

void onnx_edit_drop_dead(onnx_edit *e)
{
    const Onnx__GraphProto *g = e->graph;
    size_t count = 0, room = g->n_initializer + 1;

    for (size_t i = 0; i < g->n_node; i++)
        room += g->node[i]->n_output;
    const char **names = dr_arena_alloc(&e->arena, room, sizeof(*names));
    for (size_t i = 0; i < g->n_initializer; i++) { /* optional inputs stay */
        if (!onnx_edit_is_input(e, onnx_text(g->initializer[i]->name)))
            names[count++] = onnx_text(g->initializer[i]->name);
    }
    for (size_t i = 0; i < g->n_node; i++) {
        for (size_t k = 0; k < g->node[i]->n_output; k++)
            names[count++] = onnx_text(g->node[i]->output[k]);
    }
    onnx_edit_drop_unread(e, names, count);
}

/* ---- order ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const onnx_made *)a)->name, ((const onnx_made *)b)->name);
}

dr_status onnx_edit_makers(const onnx_edit *e, dr_arena *a, onnx_makers *out)
{
    const Onnx__GraphProto *g = e->graph;
    size_t outputs = 0;

    for (size_t i = 0; i < g->n_node; i++)
        outputs += g->node[i]->n_output;
    *out = (onnx_makers){dr_arena_alloc(a, outputs + 1, sizeof(*out->list)), 0};
    for (size_t i = 0; i < g->n_node; i++) {
        for (size_t k = 0; k < g->node[i]->n_output; k++) {
            if (onnx_text(g->node[i]->output[k])[0] != '\0')
                out->list[out->count++] = (onnx_made){g->node[i]->output[k], i};
        }
    }
    qsort(out->list, out->count, sizeof(*out->list), by_name);
    for (size_t i = 1; i < out->count; i++) {
        if (strcmp(out->list[i - 1].name, out->list[i].name) == 0)
            return dr_fail(DR_EFORMAT, "%s: two nodes give %s", e->path, out->list[i].name);
    }
    return DR_OK;
}

const onnx_made *onnx_maker_of(const onnx_makers *m, const char *name)
{
    const onnx_made key = {name, 0};

    if (m->count == 0 || name == NULL || *name == '\0')
        return NULL;
    return bsearch(&key, m->list, m->count, sizeof(*m->list), by_name);
}

typedef struct {
    onnx_makers makers;
    Onnx__NodeProto **in, **out;
    unsigned char *state; /* 1: its makers are looked at, 2: placed */
    size_t placed;
    size_t *stack, depth;
} sorting;

/* Places what the node reads first; false: something of that is not placed yet. */
static bool push_makers(sorting *s, const Onnx__GraphProto *within)
{
    bool all = true;

    for (size_t i = 0; i < within->n_node; i++) {
        const Onnx__NodeProto *n = within->node[i];
        for (size_t k = 0; k < n->n_input; k++) {
            const onnx_made *m = onnx_maker_of(&s->makers, n->input[k]);
            if (m == NULL || s->state[m->node] != 0)
                continue;
            s->stack[s->depth++] = m->node;
            s->state[m->node] = 1;
            all = false;
        }
        for (size_t k = 0; k < n->n_attribute; k++) {
            if (n->attribute[k]->g != NULL)
                all = push_makers(s, n->attribute[k]->g) && all;
            for (size_t j = 0; j < n->attribute[k]->n_graphs; j++)
                all = push_makers(s, n->attribute[k]->graphs[j]) && all;
        }
    }
    return all;
}

static void place_from(sorting *s, size_t first)
{
    if (s->state[first] != 0)
        return;
    s->state[first] = 1;
    s->stack[s->depth++] = first;
    while (s->depth > 0) {
        size_t top = s->stack[s->depth - 1];
        Onnx__GraphProto one = ONNX__GRAPH_PROTO__INIT;
        one.n_node = 1;
        one.node = &s->in[top];
        if (!push_makers(s, &one))
            continue;
        s->depth--;
        if (s->state[top] == 1)
            s->out[s->placed++] = s->in[top];
        s->state[top] = 2;
    }
}

dr_status onnx_edit_sort(onnx_edit *e)
{
    Onnx__GraphProto *g = e->graph;
    sorting s = {.in = g->node};
    dr_status st = DR_OK;

    DR_TRY(onnx_edit_makers(e, &e->arena, &s.makers));
    s.out = onnx_edit_list(&e->arena, g->node, g->n_node);
    s.state = dr_arena_alloc(&e->arena, g->n_node + 1, 1);
    s.stack = dr_arena_alloc(&e->arena, g->n_node + 1, sizeof(*s.stack));
    for (size_t i = 0; i < g->n_node; i++)
        place_from(&s, i);
    g->node = s.out;
done:
    return st;
}

/* ---- what is said of values and versions ---- */

Onnx__TypeProto__Tensor *onnx_tensor_of(const Onnx__ValueInfoProto *v)
{
    return v != NULL && v->type != NULL &&
                   v->type->value_case == ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE
               ? v->type->tensor_type
               : NULL;
}

Onnx__ValueInfoProto *onnx_edit_info(const onnx_edit *e, const char *name)
{
    const Onnx__GraphProto *g = e->graph;
    Onnx__ValueInfoProto *v = onnx_edit_in(g->input, g->n_input, name);

    v = v != NULL ? v : onnx_edit_in(g->output, g->n_output, name);
    return v != NULL ? v : onnx_edit_in(g->value_info, g->n_value_info, name);
}

void onnx_edit_drop_info(onnx_edit *e, const char *name)
{
    Onnx__GraphProto *g = e->graph;
    size_t kept = 0;

    for (size_t i = 0; i < g->n_value_info; i++) {
        if (strcmp(onnx_text(g->value_info[i]->name), name) != 0)
            g->value_info[kept++] = g->value_info[i];
    }
    g->n_value_info = kept;
}

static bool same_domain(const char *a, const char *b)
{
    a = strcmp(onnx_text(a), "ai.onnx") == 0 ? "" : onnx_text(a);
    b = strcmp(b, "ai.onnx") == 0 ? "" : b;
    return strcmp(a, b) == 0;
}

int64_t onnx_edit_opset(const onnx_edit *e, const char *domain)
{
    for (size_t i = 0; i < e->model->n_opset_import; i++) {
        if (same_domain(e->model->opset_import[i]->domain, domain))
            return e->model->opset_import[i]->version;
    }
    return 0;
}

void onnx_edit_need_opset(onnx_edit *e, const char *domain, int64_t version)
{
    static const Onnx__OperatorSetIdProto init = ONNX__OPERATOR_SET_ID_PROTO__INIT;
    Onnx__ModelProto *m = e->model;
    Onnx__OperatorSetIdProto *o = NULL;

    for (size_t i = 0; i < m->n_opset_import; i++) {
        if (same_domain(m->opset_import[i]->domain, domain))
            o = m->opset_import[i];
    }
    if (o == NULL) {
        o = dr_arena_alloc(&e->arena, 1, sizeof(*o));
        *o = init;
        o->domain = dr_arena_strdup(&e->arena, domain);
        m->opset_import = onnx_edit_room(&e->arena, m->opset_import, m->n_opset_import);
        m->opset_import[m->n_opset_import++] = o;
    }
    if (o->version < version) {
        o->has_version = 1;
        o->version = version;
    }
}

dr_status onnx_edit_flat(const onnx_edit *e, const char *what)
{
    const Onnx__GraphProto *g = e->graph;

    if (e->model->n_functions > 0)
        return dr_fail(DR_EUNSUPPORTED, "%s: %s does not look into model functions (%s)",
                       e->path, what, onnx_text(e->model->functions[0]->name));
    for (size_t i = 0; i < g->n_node; i++) {
        for (size_t k = 0; k < g->node[i]->n_attribute; k++) {
            if (g->node[i]->attribute[k]->g != NULL)
                return dr_fail(DR_EUNSUPPORTED,
                               "%s: %s does not look into the graphs of %s (%s)", e->path,
                               what, onnx_text(g->node[i]->name),
                               onnx_text(g->node[i]->op_type));
        }
    }
    return DR_OK;
}

bool onnx_named(onnx_names list, const char *name)
{
    for (size_t i = 0; list != NULL && list[i] != NULL; i++) {
        if (strcmp(list[i], name) == 0)
            return true;
    }
    return false;
}

dr_status onnx_edit_nodes_there(const onnx_edit *e, const char *what, onnx_names list)
{
    const Onnx__GraphProto *g = e->graph;

    for (size_t i = 0; list != NULL && list[i] != NULL; i++) {
        const char *first = "";
        if (onnx_edit_called(e, list[i]) != NULL)
            continue;
        for (size_t k = 0; k < g->n_node && *first == '\0'; k++)
            first = onnx_text(g->node[k]->name);
        dr_status st =
            dr_fail(DR_EUSAGE, "%s: %s has no node called %s", what, e->path, list[i]);
        dr_hint("the first of its nodes is %s", first);
        return st;
    }
    return DR_OK;
}

/* ---- the door's ---- */

dr_status onnx_rewrite_open(onnx_edit **out, const char *model, const char *dir)
{
    onnx_edit *e = dr_calloc(1, sizeof(*e));
    dr_status st = DR_OK;

    *out = NULL;
    DR_TRY(onnx_edit_open(e, model));
    e->new_data = dr_path_join(&e->arena, dir, "model.onnx.data");
    e->out = dr_path_join(&e->arena, dir, "model.onnx");
    *out = e;
done:
    if (st != DR_OK)
        free(e);
    return st;
}

void onnx_rewrite_name(onnx_edit *e, const char *file)
{
    e->out = dr_path_join(&e->arena, dr_path_dir(&e->arena, e->out), file);
    e->new_data = dr_arena_printf(&e->arena, "%s.data", e->out);
}

dr_status onnx_rewrite_save(onnx_edit *e)
{
    return onnx_edit_finish(e, e->out);
}

void onnx_rewrite_close(onnx_edit *e)
{
    if (e == NULL)
        return;
    onnx_edit_close(e);
    free(e);
}

static bool still_used(const onnx_edit *e, const char *file)
{
    for (size_t i = 0; i < e->graph->n_initializer; i++) {
        const Onnx__TensorProto *t = e->graph->initializer[i];
        for (size_t k = 0; onnx_edit_external(t) && k < t->n_external_data; k++) {
            if (strcmp(onnx_text(t->external_data[k]->value), file) == 0)
                return true;
        }
    }
    return false;
}

const char *onnx_rewrite_file(const onnx_edit *e, size_t i)
{
    for (size_t k = 0; k < e->file_count && !e->data_open; k++) {
        if (still_used(e, e->files[k]) && i-- == 0)
            return e->files[k];
    }
    return NULL;
}

const char *onnx_rewrite_path(const onnx_edit *e)
{
    return e->path;
}

size_t onnx_rewrite_nodes(const onnx_edit *e)
{
    return e->graph->n_node;
}

size_t onnx_rewrite_changes(const onnx_edit *e)
{
    return e->changes;
}

const char *onnx_rewrite_input(const onnx_edit *e, const char *node, size_t i)
{
    const Onnx__NodeProto *n = onnx_edit_called(e, node);

    return n != NULL && i < n->n_input ? onnx_text(n->input[i]) : NULL;
}

const char *onnx_rewrite_output(const onnx_edit *e, size_t i)
{
    return i < e->graph->n_output ? onnx_text(e->graph->output[i]->name) : NULL;
}

void onnx_import(onnx_edit *e, const char *domain, int64_t version)
{
    onnx_edit_need_opset(e, domain, version);
}

void onnx_drop_shapes(onnx_edit *e)
{
    e->changes += e->graph->n_value_info;
    e->graph->n_value_info = 0;
}
