/*
 * context_graph.c - a graph of one EPContext node: a model that a vendor's tools have made
 * and that its provider of ONNX Runtime runs, under inputs and outputs of ONNX.
 *
 * The node names the vendor's file, which lies beside the graph (embed_mode 0).  Attributes
 * and their order are those of Olive's OpenVINOEncapsulation.
 */
#include <string.h>

#include "core/file.h"
#include "core/mem.h"
#include "onnx.pb-c.h"
#include "onnx/onnx.h"

enum { CONTEXT_IR_VERSION = 10, ATTRIBUTES_MAX = 8 };

#define NEW(arena, type, init)                                                             \
    (type *)memcpy(dr_arena_alloc(arena, 1, sizeof(type)), &(type)init, sizeof(type))

static Onnx__TensorShapeProto__Dimension *pack_size(dr_arena *a, int64_t size,
                                                    const char *name)
{
    Onnx__TensorShapeProto__Dimension *d = NEW(a, Onnx__TensorShapeProto__Dimension,
                                               ONNX__TENSOR_SHAPE_PROTO__DIMENSION__INIT);

    if (size < 0 && name != NULL) {
        d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
        d->dim_param = dr_arena_strdup(a, name);
    } else {
        d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
        d->dim_value = size;
    }
    return d;
}

static Onnx__ValueInfoProto *pack_value(dr_arena *a, const onnx_context_value *v,
                                        const char *prefix, size_t index, bool open)
{
    Onnx__ValueInfoProto *p = NEW(a, Onnx__ValueInfoProto, ONNX__VALUE_INFO_PROTO__INIT);
    Onnx__TypeProto *type = NEW(a, Onnx__TypeProto, ONNX__TYPE_PROTO__INIT);
    Onnx__TypeProto__Tensor *tensor =
        NEW(a, Onnx__TypeProto__Tensor, ONNX__TYPE_PROTO__TENSOR__INIT);

    if (v->rank >= 0) {
        tensor->shape = NEW(a, Onnx__TensorShapeProto, ONNX__TENSOR_SHAPE_PROTO__INIT);
        tensor->shape->n_dim = (size_t)v->rank;
        tensor->shape->dim =
            dr_arena_alloc(a, (size_t)v->rank + 1, sizeof(*tensor->shape->dim));
    }
    for (int i = 0; i < v->rank; i++)
        tensor->shape->dim[i] = pack_size(
            a, v->dims[i], open ? NULL : dr_arena_printf(a, "%s_%zu_%d", prefix, index, i));
    tensor->has_elem_type = 1;
    tensor->elem_type = v->type;
    type->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    type->tensor_type = tensor;
    p->name = dr_arena_strdup(a, v->name);
    p->type = type;
    return p;
}

static void add_int(dr_arena *a, Onnx__NodeProto *n, const char *name, int64_t value)
{
    Onnx__AttributeProto *p = NEW(a, Onnx__AttributeProto, ONNX__ATTRIBUTE_PROTO__INIT);

    p->name = dr_arena_strdup(a, name);
    p->has_type = 1;
    p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT;
    p->has_i = 1;
    p->i = value;
    n->attribute[n->n_attribute++] = p;
}

static void add_text(dr_arena *a, Onnx__NodeProto *n, const char *name, const char *value)
{
    Onnx__AttributeProto *p = NEW(a, Onnx__AttributeProto, ONNX__ATTRIBUTE_PROTO__INIT);

    p->name = dr_arena_strdup(a, name);
    p->has_type = 1;
    p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING;
    p->has_s = 1;
    p->s = (ProtobufCBinaryData){strlen(value), (uint8_t *)dr_arena_strdup(a, value)};
    n->attribute[n->n_attribute++] = p;
}

static Onnx__NodeProto *pack_node(dr_arena *a, const onnx_context *c)
{
    Onnx__NodeProto *n = NEW(a, Onnx__NodeProto, ONNX__NODE_PROTO__INIT);

    n->name = dr_arena_strdup(a, "ContextNode");
    n->op_type = dr_arena_strdup(a, "EPContext");
    n->domain = dr_arena_strdup(a, "com.microsoft");
    n->input = dr_arena_alloc(a, c->input_count + 1, sizeof(char *));
    n->output = dr_arena_alloc(a, c->output_count + 1, sizeof(char *));
    for (; n->n_input < c->input_count; n->n_input++)
        n->input[n->n_input] = dr_arena_strdup(a, c->inputs[n->n_input].name);
    for (; n->n_output < c->output_count; n->n_output++)
        n->output[n->n_output] = dr_arena_strdup(a, c->outputs[n->n_output].name);
    n->attribute = dr_arena_alloc(a, ATTRIBUTES_MAX, sizeof(*n->attribute));
    add_int(a, n, "embed_mode", 0);
    add_text(a, n, "ep_cache_context", c->file);
    add_text(a, n, "ep_sdk_version", c->sdk_version);
    add_int(a, n, "main_context", 1);
    add_int(a, n, "max_size", 0);
    add_text(a, n, "source", c->source);
    add_text(a, n, "DeviceClass", c->device);
    return n;
}

static Onnx__GraphProto *pack_graph(dr_arena *a, const onnx_context *c)
{
    Onnx__GraphProto *g = NEW(a, Onnx__GraphProto, ONNX__GRAPH_PROTO__INIT);

    g->name = dr_arena_strdup(a, "EP_Context_Model");
    g->node = dr_arena_alloc(a, 2, sizeof(*g->node));
    g->node[g->n_node++] = pack_node(a, c);
    g->input = dr_arena_alloc(a, c->input_count + 1, sizeof(*g->input));
    g->output = dr_arena_alloc(a, c->output_count + 1, sizeof(*g->output));
    for (; g->n_input < c->input_count; g->n_input++)
        g->input[g->n_input] =
            pack_value(a, &c->inputs[g->n_input], "input", g->n_input, c->keep_open_sizes);
    for (; g->n_output < c->output_count; g->n_output++)
        g->output[g->n_output] = pack_value(a, &c->outputs[g->n_output], "output",
                                            g->n_output, c->keep_open_sizes);
    return g;
}

dr_status onnx_context_write(const char *path, const onnx_context *c)
{
    dr_arena a = {0};
    Onnx__ModelProto model = ONNX__MODEL_PROTO__INIT;
    dr_status st = DR_OK;

    model.has_ir_version = 1;
    model.ir_version = CONTEXT_IR_VERSION;
    model.producer_name = dr_arena_strdup(&a, "drupe");
    model.producer_version = dr_arena_strdup(&a, DRUPE_VERSION);
    model.graph = pack_graph(&a, c);
    model.opset_import =
        dr_arena_alloc(&a, c->opset_count + 1, sizeof(*model.opset_import));
    for (; model.n_opset_import < c->opset_count; model.n_opset_import++) {
        Onnx__OperatorSetIdProto *o =
            NEW(&a, Onnx__OperatorSetIdProto, ONNX__OPERATOR_SET_ID_PROTO__INIT);
        o->domain = dr_arena_strdup(&a, c->opsets[model.n_opset_import].domain);
        o->has_version = 1;
        o->version = c->opsets[model.n_opset_import].version;
        model.opset_import[model.n_opset_import] = o;
    }
    const size_t size = onnx__model_proto__get_packed_size(&model);
    uint8_t *packed = dr_arena_alloc(&a, size, 1);
    DR_BUG_IF(onnx__model_proto__pack(&model, packed) != size);
    DR_TRY(dr_write_file(path, packed, size));
done:
    dr_arena_release(&a);
    return st;
}
