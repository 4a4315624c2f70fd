/*
 * onnx_inspect.c - what a model.onnx says about itself.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "onnx.pb-c.h"
#include "onnx/onnx.h"
#include "onnx/wire_impl.h"

/* TensorProto.DataType in words; the order is the enum's. */
static const char *const type_names[] = {
    "undefined",      "float32",  "uint8",        "int8",           "uint16",
    "int16",          "int32",    "int64",        "string",         "bool",
    "float16",        "float64",  "uint32",       "uint64",         "complex64",
    "complex128",     "bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2",
    "float8e5m2fnuz", "uint4",    "int4",         "float4e2m1",     "float8e8m0",
    "uint2",          "int2",     "float6e2m3",   "float6e3m2",
};

static const char *type_name(int32_t type)
{
    return type >= 0 && (size_t)type < DR_COUNT(type_names) ? type_names[type] : "unknown";
}

/* "input_ids int64[batch_size,sequence_length]" */
static dr_status value_text(dr_arena *a, const char **out, const Onnx__ValueInfoProto *v)
{
    const Onnx__TypeProto__Tensor *t = NULL;
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, 1 << 20);
    if (v->type != NULL && v->type->value_case == ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE)
        t = v->type->tensor_type;
    DR_TRY(dr_buf_addf(&b, "%s %s", onnx_text(v->name),
                       t ? type_name(t->elem_type) : "no tensor"));
    if (t != NULL && t->shape != NULL) {
        DR_TRY(dr_buf_adds(&b, "["));
        for (size_t i = 0; i < t->shape->n_dim; i++) {
            const Onnx__TensorShapeProto__Dimension *d = t->shape->dim[i];
            DR_TRY(dr_buf_adds(&b, i > 0 ? "," : ""));
            if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE)
                DR_TRY(dr_buf_addf(&b, "%" PRId64, d->dim_value));
            else if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM)
                DR_TRY(dr_buf_adds(&b, onnx_text(d->dim_param)));
            else
                DR_TRY(dr_buf_adds(&b, "?"));
        }
        DR_TRY(dr_buf_adds(&b, "]"));
    }
    *out = dr_arena_strndup(a, b.data, b.len);
done:
    dr_buf_release(&b);
    return st;
}

static dr_status value_texts(dr_arena *a, const char ***out, size_t *count,
                             Onnx__ValueInfoProto *const *values, size_t n)
{
    dr_status st = DR_OK;

    *out = dr_arena_alloc(a, n + 1, sizeof(**out));
    *count = n;
    for (size_t i = 0; i < n; i++)
        DR_TRY(value_text(a, &(*out)[i], values[i]));
done:
    return st;
}

/* Operators of the main graph, "com.microsoft.MatMulNBits" with their domain. */
static void count_ops(dr_arena *a, onnx_info *out, const Onnx__GraphProto *g)
{
    const char **all = dr_arena_alloc(a, g->n_node + 1, sizeof(*all));

    for (size_t i = 0; i < g->n_node; i++) {
        const char *domain = onnx_text(g->node[i]->domain),
                   *op = onnx_text(g->node[i]->op_type);
        all[i] = domain[0] != '\0' ? dr_arena_printf(a, "%s.%s", domain, op)
                                   : dr_arena_strdup(a, op);
    }
    qsort(all, g->n_node, sizeof(*all), onnx_by_text);
    out->ops = all;
    out->op_counts = dr_arena_alloc(a, g->n_node + 1, sizeof(*out->op_counts));
    for (size_t i = 0; i < g->n_node; i++) {
        if (out->op_count == 0 || strcmp(all[out->op_count - 1], all[i]) != 0)
            all[out->op_count++] = all[i];
        out->op_counts[out->op_count - 1]++;
    }
}

/* ---- weights ---- */

typedef struct {
    const char *location;
    uint64_t offset, bytes;
} span;

static int by_place(const void *a, const void *b)
{
    const span *p = a, *q = b;
    int c = strcmp(p->location, q->location);

    if (c != 0)
        return c;
    if (p->offset != q->offset)
        return p->offset < q->offset ? -1 : 1;
    return (p->bytes > q->bytes) - (p->bytes < q->bytes);
}

static dr_status number(uint64_t *out, const char *path, const Onnx__TensorProto *t,
                        const char *s)
{
    char *end = NULL;

    *out = strtoull(s, &end, 10);
    if (s[0] < '0' || s[0] > '9' || *end != '\0')
        return dr_fail(DR_EFORMAT, "%s: %s: external data: '%s' is no number", path,
                       onnx_text(t->name), s);
    return DR_OK;
}

static dr_status external_span(span *out, const char *path, const Onnx__TensorProto *t)
{
    dr_status st = DR_OK;

    *out = (span){.location = ""};
    for (size_t i = 0; i < t->n_external_data; i++) {
        const char *key = onnx_text(t->external_data[i]->key);
        const char *value = onnx_text(t->external_data[i]->value);
        if (strcmp(key, "location") == 0)
            out->location = value;
        else if (strcmp(key, "offset") == 0)
            DR_TRY(number(&out->offset, path, t, value));
        else if (strcmp(key, "length") == 0)
            DR_TRY(number(&out->bytes, path, t, value));
    }
done:
    return st;
}

static uint64_t inline_bytes(const Onnx__TensorProto *t)
{
    uint64_t at = 0, bytes = 0;

    if (onnx_raw_span(t, &at, &bytes))
        return bytes;
    return 4 * ((uint64_t)t->n_float_data + t->n_int32_data) +
           8 * ((uint64_t)t->n_int64_data + t->n_double_data + t->n_uint64_data);
}

/* Bytes of initializers, inside and outside; what two of them share counts once. */
static dr_status count_weights(onnx_info *out, const char *path, const Onnx__GraphProto *g)
{
    dr_arena scratch = {0};
    span *all = dr_arena_alloc(&scratch, g->n_initializer + 1, sizeof(*all));
    size_t n = 0;
    dr_status st = DR_OK;

    out->initializer_count = g->n_initializer;
    for (size_t i = 0; i < g->n_initializer; i++) {
        const Onnx__TensorProto *t = g->initializer[i];
        if (t->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL)
            DR_TRY(external_span(&all[n++], path, t));
        else
            out->initializer_bytes += inline_bytes(t);
    }
    qsort(all, n, sizeof(*all), by_place);
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && by_place(&all[i - 1], &all[i]) == 0)
            continue;
        if (all[i].bytes > UINT64_MAX - out->external_bytes)
            DR_FAIL(DR_EFORMAT, "%s: external data is larger than any file", path);
        out->external_bytes += all[i].bytes;
    }
    out->initializer_bytes += out->external_bytes;
done:
    dr_arena_release(&scratch);
    return st;
}

dr_status onnx_inspect(dr_arena *a, onnx_info *out, const char *path)
{
    onnx_file f = {0};
    dr_status st = DR_OK;

    *out = (onnx_info){0};
    DR_TRY(onnx_file_open(&f, path));
    const Onnx__ModelProto *m = f.model;
    out->ir_version = m->ir_version;
    out->producer = dr_arena_printf(a, "%s%s%s", onnx_text(m->producer_name),
                                    onnx_text(m->producer_version)[0] != '\0' ? " " : "",
                                    onnx_text(m->producer_version));
    out->opset_count = m->n_opset_import;
    out->opsets = dr_arena_alloc(a, m->n_opset_import + 1, sizeof(*out->opsets));
    for (size_t i = 0; i < m->n_opset_import; i++) {
        const char *domain = onnx_text(m->opset_import[i]->domain);
        out->opsets[i] =
            dr_arena_printf(a, "%s %" PRId64, domain[0] != '\0' ? domain : "ai.onnx",
                            m->opset_import[i]->version);
    }
    const Onnx__GraphProto *g = m->graph;
    DR_TRY(value_texts(a, &out->inputs, &out->input_count, g->input, g->n_input));
    DR_TRY(value_texts(a, &out->outputs, &out->output_count, g->output, g->n_output));
    count_ops(a, out, g);
    DR_TRY(count_weights(out, path, g));
done:
    onnx_file_close(&f);
    return st;
}
