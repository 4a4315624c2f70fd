/*
 * graph_write.c - a graph as a ModelProto.
 *
 * The protobuf structs are laid out in a scratch arena and packed at once: without weights
 * a model of 30 layers is 200 KB.  Every initializer is external data (location, offset,
 * length), as the model builder writes them; one without elements (an adapter's input of
 * rank 0) has an empty raw_data, which is what onnx's own tools write for it.
 */
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "core/dtype.h"
#include "core/file.h"
#include "core/mem.h"
#include "onnx.pb-c.h"
#include "onnx/graph_impl.h"

#define NEW(arena, type, init)                                                             \
    (type *)memcpy(dr_arena_alloc(arena, 1, sizeof(type)), &(type)init, sizeof(type))
#define NEW_LIST(arena, type, count) dr_arena_alloc(arena, (count) + 1, sizeof(type *))

static Onnx__TensorShapeProto__Dimension *pack_dim(dr_arena *a, const onnx_dim *d)
{
    Onnx__TensorShapeProto__Dimension *p = NEW(a, Onnx__TensorShapeProto__Dimension,
                                               ONNX__TENSOR_SHAPE_PROTO__DIMENSION__INIT);

    if (d->name != NULL) {
        p->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
        p->dim_param = dr_arena_strdup(a, d->name);
    } else {
        p->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
        p->dim_value = d->size;
    }
    return p;
}

static Onnx__ValueInfoProto *pack_value(dr_arena *a, const onnx_value *v)
{
    Onnx__ValueInfoProto *p = NEW(a, Onnx__ValueInfoProto, ONNX__VALUE_INFO_PROTO__INIT);
    Onnx__TypeProto *type = NEW(a, Onnx__TypeProto, ONNX__TYPE_PROTO__INIT);
    Onnx__TypeProto__Tensor *tensor =
        NEW(a, Onnx__TypeProto__Tensor, ONNX__TYPE_PROTO__TENSOR__INIT);
    Onnx__TensorShapeProto *shape =
        NEW(a, Onnx__TensorShapeProto, ONNX__TENSOR_SHAPE_PROTO__INIT);

    if (v->shape.rank >= 0) {
        tensor->shape = shape;
        shape->n_dim = (size_t)v->shape.rank;
        shape->dim = NEW_LIST(a, Onnx__TensorShapeProto__Dimension, shape->n_dim);
        for (size_t i = 0; i < shape->n_dim; i++)
            shape->dim[i] = pack_dim(a, &v->shape.dim[i]);
    }
    tensor->has_elem_type = 1;
    tensor->elem_type = (int32_t)v->type;
    type->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    type->tensor_type = tensor;
    p->name = dr_arena_strdup(a, v->name);
    p->type = type;
    return p;
}

static Onnx__ValueInfoProto **pack_values(dr_arena *a, const onnx_list *list)
{
    Onnx__ValueInfoProto **p = NEW_LIST(a, Onnx__ValueInfoProto, list->count);
    size_t i = 0;

    for (const onnx_value *v = list->first; v != NULL; v = v->next)
        p[i++] = pack_value(a, v);
    return p;
}

static void copy_dims(dr_arena *a, Onnx__TensorProto *t, const onnx_shape *shape)
{
    t->n_dims = (size_t)shape->rank;
    t->dims = dr_arena_alloc(a, t->n_dims + 1, sizeof(*t->dims));
    for (size_t i = 0; i < t->n_dims; i++)
        t->dims[i] = shape->dim[i].size;
}

static Onnx__StringStringEntryProto *pack_entry(dr_arena *a, const char *key, char *value)
{
    Onnx__StringStringEntryProto *e =
        NEW(a, Onnx__StringStringEntryProto, ONNX__STRING_STRING_ENTRY_PROTO__INIT);

    e->key = dr_arena_strdup(a, key);
    e->value = value;
    return e;
}

static void add_entry(dr_arena *a, Onnx__TensorProto *t, const char *key, char *value)
{
    t->external_data[t->n_external_data++] = pack_entry(a, key, value);
}

static ProtobufCBinaryData pack_bytes(dr_arena *a, const void *data, size_t bytes)
{
    return (ProtobufCBinaryData){bytes, memcpy(dr_arena_alloc(a, bytes, 1), data, bytes)};
}

static Onnx__TensorProto *pack_init(dr_arena *a, const onnx_init *i, const char *data_name)
{
    Onnx__TensorProto *t = NEW(a, Onnx__TensorProto, ONNX__TENSOR_PROTO__INIT);

    t->name = dr_arena_strdup(a, i->name);
    t->has_data_type = 1;
    t->data_type = (int32_t)i->type;
    copy_dims(a, t, &i->shape);
    if (i->bytes == 0 || i->raw != NULL) {
        t->has_raw_data = 1;
        if (i->raw != NULL)
            t->raw_data = pack_bytes(a, i->raw, i->bytes);
        return t;
    }
    t->has_data_location = 1;
    t->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    t->external_data = NEW_LIST(a, Onnx__StringStringEntryProto, 3);
    add_entry(a, t, "location", dr_arena_strdup(a, data_name));
    add_entry(a, t, "offset", dr_arena_printf(a, "%" PRIu64, i->offset));
    add_entry(a, t, "length", dr_arena_printf(a, "%" PRIu64, i->bytes));
    return t;
}

/* Bytes of a value, little-endian on any machine. */
static void put_bytes(uint8_t *raw, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        raw[i] = (uint8_t)(value >> (i * 8));
}

static uint64_t float_bits(onnx_type type, float f)
{
    uint32_t u;

    if (type == ONNX_FLOAT16)
        return dr_f32_to_f16(f);
    if (type == ONNX_BFLOAT16)
        return dr_f32_to_bf16(f);
    memcpy(&u, &f, sizeof(u));
    return u;
}

static Onnx__TensorProto *pack_constant(dr_arena *a, const onnx_attr *attr)
{
    Onnx__TensorProto *t = NEW(a, Onnx__TensorProto, ONNX__TENSOR_PROTO__INIT);
    onnx_shape shape = {attr->rank, {onnx_num((int64_t)attr->count)}};
    size_t bytes = onnx_type_bytes(attr->type);
    uint8_t *raw = dr_arena_alloc(a, attr->count, bytes);

    if (attr->type == ONNX_INT64) {
        for (size_t i = 0; i < attr->count; i++)
            put_bytes(raw + i * bytes, (uint64_t)attr->values[i], bytes);
    } else {
        put_bytes(raw, float_bits(attr->type, attr->f), bytes);
    }
    t->has_data_type = 1;
    t->data_type = (int32_t)attr->type;
    copy_dims(a, t, &shape);
    t->has_raw_data = 1;
    t->raw_data = (ProtobufCBinaryData){attr->count * bytes, raw};
    return t;
}

static ProtobufCBinaryData pack_text(dr_arena *a, const char *text)
{
    size_t n = strlen(text);
    uint8_t *data = dr_arena_alloc(a, n + 1, 1);

    memcpy(data, text, n);
    return (ProtobufCBinaryData){n, data};
}

static Onnx__AttributeProto *pack_attr(dr_arena *a, const onnx_attr *attr)
{
    Onnx__AttributeProto *p = NEW(a, Onnx__AttributeProto, ONNX__ATTRIBUTE_PROTO__INIT);

    p->name = dr_arena_strdup(a, attr->name);
    p->has_type = 1;
    switch (attr->kind) {
    case ONNX_ATTR_INT:
        p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT;
        p->has_i = 1;
        p->i = attr->i;
        break;
    case ONNX_ATTR_FLOAT:
        p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT;
        p->has_f = 1;
        p->f = attr->f;
        break;
    case ONNX_ATTR_TEXT:
        p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING;
        p->has_s = 1;
        p->s = pack_text(a, attr->text);
        break;
    case ONNX_ATTR_INTS:
        p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS;
        p->n_ints = attr->count;
        p->ints = dr_arena_alloc(a, attr->count + 1, sizeof(*p->ints));
        memcpy(p->ints, attr->values, attr->count * sizeof(*p->ints));
        break;
    case ONNX_ATTR_TENSOR:
        p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR;
        p->t = pack_constant(a, attr);
        break;
    }
    return p;
}

static char **pack_names(dr_arena *a, const char *const *names, size_t count)
{
    char **p = NEW_LIST(a, char, count);

    for (size_t i = 0; i < count; i++)
        p[i] = dr_arena_strdup(a, names[i]);
    return p;
}

static Onnx__NodeProto *pack_node(dr_arena *a, const onnx_node *n)
{
    Onnx__NodeProto *p = NEW(a, Onnx__NodeProto, ONNX__NODE_PROTO__INIT);

    p->name = dr_arena_strdup(a, n->name);
    p->op_type = dr_arena_strdup(a, n->op);
    if (n->domain[0] != '\0')
        p->domain = dr_arena_strdup(a, n->domain);
    p->n_input = n->in_count;
    p->input = pack_names(a, n->in, n->in_count);
    p->n_output = n->out_count;
    p->output = pack_names(a, n->out, n->out_count);
    p->attribute = NEW_LIST(a, Onnx__AttributeProto, n->attr_count);
    for (const onnx_attr *attr = n->attrs; attr != NULL; attr = attr->next)
        p->attribute[p->n_attribute++] = pack_attr(a, attr);
    return p;
}

static Onnx__GraphProto *pack_graph(dr_arena *a, const onnx_graph *g, const char *data_name)
{
    Onnx__GraphProto *p = NEW(a, Onnx__GraphProto, ONNX__GRAPH_PROTO__INIT);

    p->name = dr_arena_strdup(a, "main_graph");
    p->node = NEW_LIST(a, Onnx__NodeProto, g->nodes.count);
    for (const onnx_node *n = g->nodes.first; n != NULL; n = n->next)
        p->node[p->n_node++] = pack_node(a, n);
    p->initializer = NEW_LIST(a, Onnx__TensorProto, g->inits.count);
    for (const onnx_init *i = g->inits.first; i != NULL; i = i->next)
        p->initializer[p->n_initializer++] = pack_init(a, i, data_name);
    p->n_input = g->inputs.count;
    p->input = pack_values(a, &g->inputs);
    p->n_output = g->outputs.count;
    p->output = pack_values(a, &g->outputs);
    p->n_value_info = g->infos.count;
    p->value_info = pack_values(a, &g->infos);
    return p;
}

static Onnx__OperatorSetIdProto *pack_opset(dr_arena *a, const char *domain, int version)
{
    Onnx__OperatorSetIdProto *p =
        NEW(a, Onnx__OperatorSetIdProto, ONNX__OPERATOR_SET_ID_PROTO__INIT);

    p->domain = dr_arena_strdup(a, domain);
    p->has_version = 1;
    p->version = version;
    return p;
}

static Onnx__ModelProto *pack_model(dr_arena *a, const onnx_graph *g, const char *data_name)
{
    Onnx__ModelProto *p = NEW(a, Onnx__ModelProto, ONNX__MODEL_PROTO__INIT);

    p->has_ir_version = 1;
    p->ir_version = ONNX_IR_VERSION;
    p->producer_name = dr_arena_strdup(a, "drupe");
    p->producer_version = dr_arena_strdup(a, DRUPE_VERSION);
    p->opset_import = NEW_LIST(a, Onnx__OperatorSetIdProto, 2);
    p->n_opset_import = 2;
    p->opset_import[0] = pack_opset(a, "", g->opset != 0 ? g->opset : ONNX_OPSET);
    p->opset_import[1] = pack_opset(a, "com.microsoft", 1);
    p->graph = pack_graph(a, g, data_name);
    p->metadata_props = NEW_LIST(a, Onnx__StringStringEntryProto, g->meta_count);
    for (; p->n_metadata_props < g->meta_count; p->n_metadata_props++) {
        const char *const *entry = g->meta[p->n_metadata_props];
        p->metadata_props[p->n_metadata_props] =
            pack_entry(a, entry[0], dr_arena_strdup(a, entry[1]));
    }
    return p;
}

dr_status onnx_graph_write(const onnx_graph *g, const char *path, const char *data_name,
                           uint64_t *bytes)
{
    dr_arena arena = {0};
    void *packed = NULL;
    dr_status st = DR_OK;

    const Onnx__ModelProto *model = pack_model(&arena, g, data_name);
    size_t size = onnx__model_proto__get_packed_size(model);
    if (size > INT_MAX)
        DR_FAIL(DR_EUNSUPPORTED, "%s: a graph of %zu bytes is past protobuf's 2 GiB", path,
                size);
    DR_TRY(dr_big_alloc(&packed, size, 1, "packed graph"));
    DR_BUG_IF(onnx__model_proto__pack(model, packed) != size);
    DR_TRY(dr_write_file(path, packed, size));
    *bytes = size;
done:
    dr_big_free(packed);
    dr_arena_release(&arena);
    return st;
}
