/*
 * edit.c - a model of anybody's: opened, looked through, changed, written.
 *
 * Copied into the arena: the model, its graphs at every depth, functions, nodes, and the
 * attributes and tensors in them, since a tensor's raw_data must be put back (wire_scan.c
 * left its place there) and names of nodes' inputs change.  All else is shared with what
 * protobuf-c read.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/mem.h"
#include "onnx.pb-c.h"
#include "onnx/edit_impl.h"

#define COPY(a, p) memcpy(dr_arena_alloc(a, 1, sizeof(*(p))), p, sizeof(*(p)))

/* ---- copying ---- */

typedef struct {
    dr_arena *a;
    const onnx_edit *e;
} copier;

void *onnx_edit_list(dr_arena *a, const void *from, size_t count)
{
    size_t room = 1;

    while (room <= count)
        room *= 2;
    void *to = dr_arena_alloc(a, room, sizeof(void *));
    if (count > 0)
        memcpy(to, from, count * sizeof(void *));
    return to;
}

void *onnx_edit_room(dr_arena *a, void *list, size_t count)
{
    return (count & (count - 1)) == 0 ? onnx_edit_list(a, list, count) : list;
}

static Onnx__TensorProto *copy_tensor(const copier *c, const Onnx__TensorProto *t)
{
    Onnx__TensorProto *to = COPY(c->a, t);
    uint64_t offset = 0, bytes = 0;

    if (onnx_raw_span(t, &offset, &bytes))
        to->raw_data = (ProtobufCBinaryData){
            (size_t)bytes, (uint8_t *)(uintptr_t)c->e->file.map.data + offset};
    return to;
}

/* With its type and shape, of a tensor. */
static Onnx__ValueInfoProto *copy_value(const copier *c, const Onnx__ValueInfoProto *v)
{
    Onnx__ValueInfoProto *to = COPY(c->a, v);

    if (onnx_tensor_of(v) == NULL)
        return to;
    to->type = COPY(c->a, v->type);
    Onnx__TypeProto__Tensor *t = to->type->tensor_type = COPY(c->a, v->type->tensor_type);
    if (t->shape == NULL)
        return to;
    t->shape = COPY(c->a, t->shape);
    t->shape->dim = onnx_edit_list(c->a, t->shape->dim, t->shape->n_dim);
    for (size_t i = 0; i < t->shape->n_dim; i++)
        t->shape->dim[i] = COPY(c->a, t->shape->dim[i]);
    return to;
}

static void copy_nodes(const copier *c, Onnx__NodeProto **nodes, size_t count);

static Onnx__GraphProto *copy_graph(const copier *c, const Onnx__GraphProto *g)
{
    Onnx__GraphProto *to = COPY(c->a, g);

    to->node = onnx_edit_list(c->a, g->node, g->n_node);
    copy_nodes(c, to->node, to->n_node);
    to->initializer = onnx_edit_list(c->a, g->initializer, g->n_initializer);
    for (size_t i = 0; i < to->n_initializer; i++)
        to->initializer[i] = copy_tensor(c, g->initializer[i]);
    to->input = onnx_edit_list(c->a, g->input, g->n_input);
    for (size_t i = 0; i < to->n_input; i++)
        to->input[i] = copy_value(c, g->input[i]);
    to->output = onnx_edit_list(c->a, g->output, g->n_output);
    for (size_t i = 0; i < to->n_output; i++)
        to->output[i] = copy_value(c, g->output[i]);
    to->value_info = onnx_edit_list(c->a, g->value_info, g->n_value_info);
    for (size_t i = 0; i < to->n_value_info; i++)
        to->value_info[i] = copy_value(c, g->value_info[i]);
    return to;
}

static Onnx__AttributeProto *copy_attr(const copier *c, const Onnx__AttributeProto *at)
{
    Onnx__AttributeProto *to = COPY(c->a, at);

    if (at->t != NULL)
        to->t = copy_tensor(c, at->t);
    if (at->g != NULL)
        to->g = copy_graph(c, at->g);
    to->tensors = onnx_edit_list(c->a, at->tensors, at->n_tensors);
    for (size_t i = 0; i < at->n_tensors; i++)
        to->tensors[i] = copy_tensor(c, at->tensors[i]);
    to->graphs = onnx_edit_list(c->a, at->graphs, at->n_graphs);
    for (size_t i = 0; i < at->n_graphs; i++)
        to->graphs[i] = copy_graph(c, at->graphs[i]);
    return to;
}

static void copy_nodes(const copier *c, Onnx__NodeProto **nodes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        Onnx__NodeProto *n = COPY(c->a, nodes[i]);
        n->input = onnx_edit_list(c->a, n->input, n->n_input);
        n->output = onnx_edit_list(c->a, n->output, n->n_output);
        n->attribute = onnx_edit_list(c->a, n->attribute, n->n_attribute);
        for (size_t k = 0; k < n->n_attribute; k++)
            n->attribute[k] = copy_attr(c, n->attribute[k]);
        nodes[i] = n;
    }
}

static void copy_model(onnx_edit *e)
{
    const copier c = {&e->arena, e};
    Onnx__ModelProto *m = e->model = COPY(&e->arena, e->file.model);

    m->graph = e->graph = copy_graph(&c, m->graph);
    m->opset_import = onnx_edit_list(c.a, m->opset_import, m->n_opset_import);
    for (size_t i = 0; i < m->n_opset_import; i++)
        m->opset_import[i] = COPY(c.a, m->opset_import[i]);
    m->functions = onnx_edit_list(c.a, m->functions, m->n_functions);
    for (size_t i = 0; i < m->n_functions; i++) {
        Onnx__FunctionProto *f = COPY(c.a, m->functions[i]);
        f->node = onnx_edit_list(c.a, f->node, f->n_node);
        copy_nodes(&c, f->node, f->n_node);
        m->functions[i] = f;
    }
}

/* ---- external files ---- */

const char *onnx_edit_entry(struct Onnx__StringStringEntryProto *const *list, size_t n,
                            const char *key)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(onnx_text(list[i]->key), key) == 0)
            return onnx_text(list[i]->value);
    }
    return NULL;
}

static const char *entry(const Onnx__TensorProto *t, const char *key)
{
    return onnx_edit_entry(t->external_data, t->n_external_data, key);
}

bool onnx_edit_external(const Onnx__TensorProto *t)
{
    return t->has_data_location &&
           t->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
}

static size_t find_file(const onnx_edit *e, const char *name)
{
    size_t i = 0;

    while (i < e->file_count && strcmp(e->files[i], name) != 0)
        i++;
    return i;
}

void onnx_edit_add_file(onnx_edit *e, const char *name)
{
    if (find_file(e, name) < e->file_count)
        return;
    const char **files = dr_arena_alloc(&e->arena, e->file_count + 1, sizeof(*files));
    dr_map *maps = dr_arena_alloc(&e->arena, e->file_count + 1, sizeof(*maps));
    if (e->file_count > 0) {
        memcpy(files, e->files, e->file_count * sizeof(*files));
        memcpy(maps, e->maps, e->file_count * sizeof(*maps));
    }
    files[e->file_count] = dr_arena_strdup(&e->arena, name);
    e->files = files;
    e->maps = maps;
    e->file_count++;
}

static dr_status list_files(onnx_edit *e)
{
    const Onnx__GraphProto *g = e->graph;
    dr_status st = DR_OK;

    e->files = dr_arena_alloc(&e->arena, g->n_initializer + 1, sizeof(*e->files));
    e->maps = dr_arena_alloc(&e->arena, g->n_initializer + 1, sizeof(*e->maps));
    for (size_t i = 0; i < g->n_initializer; i++) {
        const Onnx__TensorProto *t = g->initializer[i];
        const char *name = onnx_edit_external(t) ? entry(t, "location") : "";
        if (name == NULL)
            DR_FAIL(DR_EFORMAT, "%s: %s is external, but has no location", e->path,
                    onnx_text(t->name));
        if (name[0] == '.' || strchr(name, '/') != NULL || strchr(name, '\\') != NULL)
            DR_FAIL(DR_EUNSUPPORTED, "%s: %s lies in %s, not in a file beside the model",
                    e->path, onnx_text(t->name), name);
        if (name[0] != '\0' && find_file(e, name) == e->file_count)
            e->files[e->file_count++] = name;
    }
done:
    return st;
}

static dr_status number(uint64_t *out, const onnx_edit *e, const Onnx__TensorProto *t,
                        const char *key)
{
    const char *value = entry(t, key);
    char *end = NULL;

    if (value == NULL)
        return DR_OK;
    *out = strtoull(value, &end, 10);
    if (*value < '0' || *value > '9' || *end != '\0')
        return dr_fail(DR_EFORMAT, "%s: %s: its %s is \"%s\"", e->path, onnx_text(t->name),
                       key, value);
    return DR_OK;
}

/* Of the file that is being written. */
static dr_status new_values(onnx_edit *e, dr_tensor *out, const Onnx__TensorProto *t)
{
    uint64_t offset = 0;
    void *copy = NULL;
    dr_map m = {0};
    dr_status st = DR_OK;

    DR_TRY(number(&offset, e, t, "offset"));
    DR_TRY(dr_arena_big(&e->arena, &copy, out->bytes, 1, "a tensor"));
    DR_TRY(dr_writer_sync(&e->data));
    DR_TRY(dr_map_open(&m, e->new_data));
    DR_BUG_IF(offset > m.size || m.size - offset < out->bytes);
    memcpy(copy, m.data + offset, out->bytes);
    out->data = copy;
done:
    dr_map_close(&m);
    return st;
}

static dr_status external_values(onnx_edit *e, dr_tensor *out, const Onnx__TensorProto *t)
{
    const char *name = entry(t, "location");
    if (strcmp(onnx_text(name), ONNX_NEW_DATA) == 0)
        return new_values(e, out, t);
    size_t i = find_file(e, name);
    uint64_t offset = 0, bytes = out->bytes;
    dr_status st = DR_OK;

    DR_TRY(number(&offset, e, t, "offset"));
    DR_TRY(number(&bytes, e, t, "length"));
    if (e->maps[i].data == NULL)
        DR_TRY(dr_map_open(&e->maps[i], dr_path_join(&e->arena, e->dir, name)));
    const dr_map *m = &e->maps[i];
    if (bytes != out->bytes || offset > m->size || m->size - offset < bytes)
        DR_FAIL(DR_EFORMAT,
                "%s: %s: expected %zu bytes, found %llu from byte %llu of %s, which has "
                "%zu",
                e->path, onnx_text(t->name), out->bytes, (unsigned long long)bytes,
                (unsigned long long)offset, name, m->size);
    out->data = (const unsigned char *)m->data + offset;
done:
    return st;
}

/* ---- open and close ---- */

static dr_status refuse_rare(const onnx_edit *e)
{
    const Onnx__GraphProto *g = e->file.model->graph;

    if (g->n_sparse_initializer > 0)
        return dr_fail(DR_EUNSUPPORTED, "%s: sparse initializers are not kept", e->path);
    if (e->file.model->n_training_info > 0)
        return dr_fail(DR_EUNSUPPORTED, "%s: training graphs are not kept", e->path);
    return DR_OK;
}

dr_status onnx_edit_open(onnx_edit *e, const char *path)
{
    dr_status st = DR_OK;

    *e = (onnx_edit){0};
    e->path = dr_arena_strdup(&e->arena, path);
    e->dir = dr_path_dir(&e->arena, path);
    DR_TRY(onnx_file_open(&e->file, path));
    DR_TRY(refuse_rare(e));
    copy_model(e);
    DR_TRY(list_files(e));
done:
    if (st != DR_OK)
        onnx_edit_close(e);
    return st;
}

void onnx_edit_close(onnx_edit *e)
{
    for (size_t i = 0; i < e->file_count; i++)
        dr_map_close(&e->maps[i]);
    dr_writer_close(&e->data);
    onnx_file_close(&e->file);
    dr_arena_release(&e->arena);
    *e = (onnx_edit){0};
}

/* ---- looking ---- */

Onnx__TensorProto *onnx_edit_init(const onnx_edit *e, const char *name)
{
    for (size_t i = 0; i < e->graph->n_initializer; i++) {
        if (strcmp(onnx_text(e->graph->initializer[i]->name), name) == 0)
            return e->graph->initializer[i];
    }
    return NULL;
}

Onnx__NodeProto *onnx_edit_maker(const onnx_edit *e, const char *name)
{
    for (size_t i = 0; i < e->graph->n_node; i++) {
        const Onnx__NodeProto *n = e->graph->node[i];
        for (size_t k = 0; k < n->n_output; k++) {
            if (strcmp(onnx_text(n->output[k]), name) == 0)
                return e->graph->node[i];
        }
    }
    return NULL;
}

const Onnx__AttributeProto *onnx_edit_attr(const Onnx__NodeProto *n, const char *name)
{
    for (size_t i = 0; i < n->n_attribute; i++) {
        if (strcmp(onnx_text(n->attribute[i]->name), name) == 0)
            return n->attribute[i];
    }
    return NULL;
}

int64_t onnx_edit_int(const Onnx__NodeProto *n, const char *name, int64_t otherwise)
{
    const Onnx__AttributeProto *a = onnx_edit_attr(n, name);

    return a != NULL && a->has_i ? a->i : otherwise;
}

float onnx_edit_float(const Onnx__NodeProto *n, const char *name, float otherwise)
{
    const Onnx__AttributeProto *a = onnx_edit_attr(n, name);

    return a != NULL ? a->f : otherwise;
}

const Onnx__TensorProto *onnx_edit_constant(const onnx_edit *e, const char *name)
{
    const Onnx__TensorProto *t = onnx_edit_init(e, name);
    const Onnx__NodeProto *n = t == NULL ? onnx_edit_maker(e, name) : NULL;

    if (n == NULL || strcmp(onnx_text(n->op_type), "Constant") != 0)
        return t;
    const Onnx__AttributeProto *a = onnx_edit_attr(n, "value");
    return a != NULL ? a->t : NULL;
}

static dr_status shape_of(const onnx_edit *e, dr_tensor *out, const Onnx__TensorProto *t)
{
    size_t count = 1;
    int d = 0;

    while (d < DR_DTYPE_COUNT && dr_dtype_onnx((dr_dtype)d) != t->data_type)
        d++;
    if (d == DR_DTYPE_COUNT)
        return dr_fail(DR_EUNSUPPORTED, "%s: %s is of ONNX type %d", e->path,
                       onnx_text(t->name), (int)t->data_type);
    *out = (dr_tensor){
        .name = onnx_text(t->name), .dtype = (dr_dtype)d, .ndim = (int)t->n_dims};
    if (t->n_dims > DR_TENSOR_DIMS)
        return dr_fail(DR_EUNSUPPORTED, "%s: %s has %zu dimensions", e->path,
                       onnx_text(t->name), t->n_dims);
    for (size_t i = 0; i < t->n_dims; i++) {
        out->dims[i] = t->dims[i];
        if (t->dims[i] < 0 || !dr_mul(&count, count, (size_t)t->dims[i]))
            return dr_fail(DR_EFORMAT, "%s: dimension %zu of %s is %lld", e->path, i,
                           onnx_text(t->name), (long long)t->dims[i]);
    }
    if (!dr_mul(&out->bytes, count, dr_dtype_bytes(out->dtype)))
        return dr_fail(DR_EFORMAT, "%s: %s is larger than memory", e->path,
                       onnx_text(t->name));
    return DR_OK;
}

dr_status onnx_edit_values(onnx_edit *e, dr_tensor *out, const Onnx__TensorProto *t)
{
    dr_status st = DR_OK;

    DR_TRY(shape_of(e, out, t));
    if (onnx_edit_external(t)) {
        DR_TRY(external_values(e, out, t));
        goto done;
    }
    size_t bytes = t->has_raw_data ? t->raw_data.len : 0;
    out->data = t->raw_data.data;
    if (!t->has_raw_data && out->dtype == DR_DTYPE_F32) {
        bytes = t->n_float_data * sizeof(float);
        out->data = t->float_data;
    } else if (!t->has_raw_data && out->dtype == DR_DTYPE_I64) {
        bytes = t->n_int64_data * sizeof(int64_t);
        out->data = t->int64_data;
    } else if (!t->has_raw_data && t->n_int32_data > 0 && dr_dtype_bytes(out->dtype) <= 4) {
        size_t size = dr_dtype_bytes(out->dtype); /* the low bytes of each are the value */
        unsigned char *to = dr_arena_alloc(&e->arena, t->n_int32_data, size);
        for (size_t i = 0; i < t->n_int32_data; i++)
            memcpy(to + i * size, &t->int32_data[i], size);
        bytes = t->n_int32_data * size;
        out->data = to;
    }
    if (bytes != out->bytes)
        DR_FAIL(DR_EFORMAT, "%s: %s: expected %zu bytes, found %zu", e->path,
                onnx_text(t->name), out->bytes, bytes);
done:
    return st;
}

/* ---- changing ---- */

static Onnx__TensorShapeProto__Dimension *new_dim(dr_arena *a, int64_t size, char *symbol)
{
    static const Onnx__TensorShapeProto__Dimension init =
        ONNX__TENSOR_SHAPE_PROTO__DIMENSION__INIT;
    Onnx__TensorShapeProto__Dimension *d = COPY(a, &init);

    d->value_case = symbol != NULL ? ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM
                                   : ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
    if (symbol != NULL)
        d->dim_param = symbol;
    else
        d->dim_value = size;
    return d;
}

Onnx__ValueInfoProto *onnx_edit_value(dr_arena *a, char *name, int32_t type, size_t rank)
{
    static const Onnx__ValueInfoProto value = ONNX__VALUE_INFO_PROTO__INIT;
    static const Onnx__TypeProto kind = ONNX__TYPE_PROTO__INIT;
    static const Onnx__TypeProto__Tensor tensor = ONNX__TYPE_PROTO__TENSOR__INIT;
    static const Onnx__TensorShapeProto shape = ONNX__TENSOR_SHAPE_PROTO__INIT;
    Onnx__ValueInfoProto *v = COPY(a, &value);

    v->name = name;
    v->type = COPY(a, &kind);
    v->type->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    v->type->tensor_type = COPY(a, &tensor);
    v->type->tensor_type->has_elem_type = 1;
    v->type->tensor_type->elem_type = type;
    v->type->tensor_type->shape = COPY(a, &shape);
    v->type->tensor_type->shape->n_dim = rank;
    v->type->tensor_type->shape->dim = dr_arena_alloc(a, rank + 1, sizeof(void *));
    return v;
}

void onnx_edit_add_optional(onnx_edit *e, const char *name, int32_t type,
                            const int64_t *dims, size_t rank, size_t open,
                            const char *symbol)
{
    static const Onnx__TensorProto tensor = ONNX__TENSOR_PROTO__INIT;
    static uint8_t nothing[1];
    dr_arena *a = &e->arena;
    Onnx__GraphProto *g = e->graph;
    char *copy = dr_arena_strdup(a, name);
    Onnx__ValueInfoProto *v = onnx_edit_value(a, copy, type, rank);
    Onnx__TensorProto *t = COPY(a, &tensor);

    t->name = copy;
    t->has_data_type = 1;
    t->data_type = type;
    t->n_dims = rank;
    t->dims = dr_arena_alloc(a, rank + 1, sizeof(*t->dims));
    t->has_raw_data = 1;
    t->raw_data = (ProtobufCBinaryData){0, nothing};
    for (size_t i = 0; i < rank; i++) {
        t->dims[i] = i == open ? 0 : dims[i];
        v->type->tensor_type->shape->dim[i] =
            new_dim(a, dims[i], i == open ? dr_arena_strdup(a, symbol) : NULL);
    }
    g->input = onnx_edit_room(a, g->input, g->n_input);
    g->input[g->n_input++] = v;
    onnx_edit_take_init(e, t);
}

/* ---- what nothing reads ---- */

typedef struct {
    const char **names; /* arena */
    size_t count, room;
} name_set;

static void add_name(dr_arena *a, name_set *s, const char *name)
{
    if (s->count == s->room) {
        const char **more = dr_arena_alloc(a, s->room * 2 + 64, sizeof(*more));
        if (s->count > 0)
            memcpy(more, s->names, s->count * sizeof(*more));
        s->names = more;
        s->room = s->room * 2 + 64;
    }
    s->names[s->count++] = onnx_text(name);
}

/* What the nodes of a graph read, those of graphs within it too. */
static void add_reads(dr_arena *a, name_set *s, const Onnx__GraphProto *g)
{
    for (size_t i = 0; i < g->n_node; i++) {
        const Onnx__NodeProto *n = g->node[i];
        for (size_t k = 0; k < n->n_input; k++)
            add_name(a, s, n->input[k]);
        for (size_t k = 0; k < n->n_attribute; k++) {
            const Onnx__AttributeProto *at = n->attribute[k];
            if (at->g != NULL)
                add_reads(a, s, at->g);
            for (size_t j = 0; j < at->n_graphs; j++)
                add_reads(a, s, at->graphs[j]);
        }
    }
    for (size_t i = 0; i < g->n_output; i++)
        add_name(a, s, g->output[i]->name);
}

static bool in_set(const name_set *s, const char *name)
{
    return bsearch(&name, s->names, s->count, sizeof(*s->names), onnx_by_text) != NULL;
}

typedef struct {
    name_set read, may; /* sorted */
} dropping;

static bool goes(const dropping *d, const char *name)
{
    return in_set(&d->may, onnx_text(name)) && !in_set(&d->read, onnx_text(name));
}

static bool node_goes(const dropping *d, const Onnx__NodeProto *n)
{
    for (size_t i = 0; i < n->n_output; i++) {
        if (!goes(d, n->output[i]))
            return false;
    }
    return n->n_output > 0;
}

/* One pass; true: something went, and what it read may go next. */
static bool drop_once(onnx_edit *e, dropping *d)
{
    Onnx__GraphProto *g = e->graph;
    size_t nodes = 0, inits = 0;

    d->read = (name_set){0};
    add_reads(&e->arena, &d->read, g);
    qsort(d->read.names, d->read.count, sizeof(*d->read.names), onnx_by_text);
    for (size_t i = 0; i < g->n_node; i++) {
        if (!node_goes(d, g->node[i]))
            g->node[nodes++] = g->node[i];
    }
    for (size_t i = 0; i < g->n_initializer; i++) {
        if (!goes(d, g->initializer[i]->name))
            g->initializer[inits++] = g->initializer[i];
    }
    bool went = nodes < g->n_node || inits < g->n_initializer;
    g->n_node = nodes;
    g->n_initializer = inits;
    return went;
}

void onnx_edit_drop_unread(onnx_edit *e, const char *const *names, size_t count)
{
    Onnx__GraphProto *g = e->graph;
    dropping d = {0};
    size_t kept = 0;

    for (size_t i = 0; i < count; i++)
        add_name(&e->arena, &d.may, names[i]);
    qsort(d.may.names, d.may.count, sizeof(*d.may.names), onnx_by_text);
    while (drop_once(e, &d))
        ;
    for (size_t i = 0; i < g->n_value_info; i++) {
        if (!in_set(&d.may, onnx_text(g->value_info[i]->name)))
            g->value_info[kept++] = g->value_info[i];
    }
    g->n_value_info = kept;
}

/* ---- writing ---- */

dr_status onnx_edit_save(onnx_edit *e, const char *path)
{
    size_t bytes = onnx__model_proto__get_packed_size(e->model);
    void *packed = NULL;
    dr_status st = DR_OK;

    if (bytes > INT_MAX)
        DR_FAIL(DR_EUNSUPPORTED, "%s: %zu bytes are more than a model.onnx can have", path,
                bytes);
    DR_TRY(dr_big_alloc(&packed, bytes, 1, "the model"));
    (void)onnx__model_proto__pack(e->model, packed);
    DR_TRY(dr_write_file(path, packed, bytes));
done:
    dr_big_free(packed);
    return st;
}
