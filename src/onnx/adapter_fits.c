/*
 * adapter_fits.c - whether an adapter file is for this graph, said before a runtime does,
 * with the names that differ.
 *
 * An optional input is a graph input with an initializer of its name.  Sizes that the graph
 * gives a name must be the same wherever they have that name in the file: the rank of
 * lora_A is that of lora_B.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "onnx.pb-c.h"
#include "onnx/onnx.h"
#include "onnx/wire_impl.h"

enum { SHOWN = 3 };

typedef struct {
    const char *name; /* a symbolic size */
    int64_t size;
    const char *of; /* the value that has it */
} binding;

typedef struct {
    const char *adapter_path, *model_path;
    const Onnx__GraphProto *g; /* borrowed */
    const onnx_adapter_file *f;
    const Onnx__ValueInfoProto **inputs; /* arena: optional ones by name */
    size_t input_count;
    bool *taken; /* arena: [input_count] the file has it */
    binding *bindings;
    size_t binding_count;
    dr_arena arena;
} fitting;

static int by_name(const void *a, const void *b)
{
    const Onnx__ValueInfoProto *const *p = a, *const *q = b;

    return strcmp(onnx_text((*p)->name), onnx_text((*q)->name));
}

/* ---- what the graph takes ---- */

static void list_inputs(fitting *t)
{
    const Onnx__GraphProto *g = t->g;
    const char **inits = dr_arena_alloc(&t->arena, g->n_initializer + 1, sizeof(*inits));

    for (size_t i = 0; i < g->n_initializer; i++)
        inits[i] = onnx_text(g->initializer[i]->name);
    qsort(inits, g->n_initializer, sizeof(*inits), onnx_by_text);
    t->inputs = dr_arena_alloc(&t->arena, g->n_input + 1, sizeof(*t->inputs));
    for (size_t i = 0; i < g->n_input; i++) {
        const char *name = onnx_text(g->input[i]->name);
        if (bsearch(&name, inits, g->n_initializer, sizeof(*inits), onnx_by_text) != NULL)
            t->inputs[t->input_count++] = g->input[i];
    }
    qsort(t->inputs, t->input_count, sizeof(*t->inputs), by_name);
    t->taken = dr_arena_alloc(&t->arena, t->input_count + 1, sizeof(*t->taken));
}

/* The place of an optional input; -1: there is none. */
static ptrdiff_t find_input(const fitting *t, const char *name)
{
    for (size_t low = 0, high = t->input_count; low < high;) {
        size_t mid = low + (high - low) / 2;
        int c = strcmp(name, onnx_text(t->inputs[mid]->name));
        if (c == 0)
            return (ptrdiff_t)mid;
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return -1;
}

/* ---- names ---- */

/* "a, b, c, ..." of `count` names. */
static const char *some(fitting *t, const char *const *names, size_t count)
{
    const char *list = "";

    for (size_t i = 0; i < count && i < SHOWN; i++)
        list = dr_arena_printf(&t->arena, "%s%s%s", list, i ? ", " : "", names[i]);
    return count > SHOWN ? dr_arena_printf(&t->arena, "%s, ...", list) : list;
}

static dr_status refuse_unknown(fitting *t, const char *const *names, size_t count)
{
    const char **wanted = dr_arena_alloc(&t->arena, t->input_count + 1, sizeof(*wanted));
    dr_status st;

    for (size_t i = 0; i < t->input_count; i++)
        wanted[i] = t->inputs[i]->name;
    if (t->input_count == 0) {
        st = dr_fail(DR_EUSAGE, "%s does not fit %s: the graph takes no adapter",
                     t->adapter_path, t->model_path);
        dr_hint("auto-opt --adapter_path exports a model that does");
        return st;
    }
    st = dr_fail(DR_EUSAGE, "%s does not fit %s: %zu of its %zu values are no inputs: %s",
                 t->adapter_path, t->model_path, count, t->f->count, some(t, names, count));
    bool in_file = strstr(names[0], ".quant.") != NULL;
    bool in_graph = strstr(onnx_text(wanted[0]), ".quant.") != NULL;
    if (in_file != in_graph && in_file)
        dr_hint("the file is int4, the graph takes floats: convert it without "
                "--quantize_int4, or export with --adapter_precision int4");
    else if (in_file != in_graph)
        dr_hint("the graph takes int4 adapters: convert it with --quantize_int4, or export "
                "without --adapter_precision int4");
    else
        dr_hint("the graph takes %s", some(t, wanted, t->input_count));
    return st;
}

static dr_status match_names(fitting *t)
{
    const char **unknown = dr_arena_alloc(&t->arena, t->f->count + 1, sizeof(*unknown));
    size_t count = 0;

    for (size_t i = 0; i < t->f->count; i++) {
        ptrdiff_t at = find_input(t, t->f->tensors[i].name);
        if (at < 0)
            unknown[count++] = t->f->tensors[i].name;
        else
            t->taken[at] = true;
    }
    return count > 0 ? refuse_unknown(t, unknown, count) : DR_OK;
}

/* "model.layers.0.self_attn.q_proj" of its values' names; 0: it is no adapter's. */
static size_t module_length(const char *name)
{
    static const char *const parts[] = {".lora_", ".hada_", ".lokr_"};

    for (size_t i = 0; i < DR_COUNT(parts); i++) {
        const char *at = strstr(name, parts[i]);
        if (at != NULL)
            return (size_t)(at - name);
    }
    return 0;
}

/* Inputs i to the one before the result are one module's. */
static size_t module_end(const fitting *t, size_t i)
{
    const char *name = onnx_text(t->inputs[i]->name);
    size_t n = module_length(name), j = i + 1;

    while (n > 0 && j < t->input_count &&
           module_length(onnx_text(t->inputs[j]->name)) == n &&
           memcmp(name, onnx_text(t->inputs[j]->name), n) == 0)
        j++;
    return j;
}

/* A module of which the file has a part: all of it must be there, but for the magnitude. */
static dr_status match_halves(const fitting *t)
{
    for (size_t i = 0, end; i < t->input_count; i = end) {
        const char *has = NULL, *lacks = NULL;
        end = module_end(t, i);
        for (size_t j = i; j < end; j++) {
            const char *name = onnx_text(t->inputs[j]->name);
            if (t->taken[j])
                has = name;
            else if (strstr(name, "lora_magnitude_vector") == NULL)
                lacks = name;
        }
        if (has != NULL && lacks != NULL)
            return dr_fail(DR_EUSAGE, "%s does not fit %s: it has %s, but no %s",
                           t->adapter_path, t->model_path, has, lacks);
    }
    return DR_OK;
}

/* ---- types and shapes ---- */

static const char *onnx_name(int32_t type)
{
    for (int d = 0; d < DR_DTYPE_COUNT; d++) {
        if (dr_dtype_onnx((dr_dtype)d) == type)
            return dr_dtype_name((dr_dtype)d);
    }
    return "another type";
}

static dr_status match_type(const fitting *t, const dr_tensor *v, int32_t type)
{
    dr_status st;

    if (dr_dtype_onnx(v->dtype) == type)
        return DR_OK;
    st = dr_fail(DR_EUSAGE, "%s does not fit %s: %s is %s in the file, %s in the graph",
                 t->adapter_path, t->model_path, v->name, dr_dtype_name(v->dtype),
                 onnx_name(type));
    if (dr_dtype_is_float(v->dtype) && type == dr_dtype_onnx(DR_DTYPE_F32))
        dr_hint("convert it with --dtype float32, or export with --adapter_precision fp16");
    else if (dr_dtype_is_float(v->dtype) && type == dr_dtype_onnx(DR_DTYPE_F16))
        dr_hint("convert it with --dtype float16, or export with --adapter_precision fp32");
    return st;
}

/* One size against one of the graph's, which may have a name. */
static dr_status match_size(fitting *t, const dr_tensor *v, int d,
                            const Onnx__TensorShapeProto__Dimension *dim)
{
    int64_t size = v->dims[d];

    if (dim->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE &&
        dim->dim_value != size)
        return dr_fail(DR_EUSAGE,
                       "%s does not fit %s: dimension %d of %s is %" PRId64
                       " in the file, %" PRId64 " in the graph",
                       t->adapter_path, t->model_path, d, v->name, size, dim->dim_value);
    if (dim->value_case != ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM)
        return DR_OK;
    for (size_t i = 0; i < t->binding_count; i++) {
        const binding *b = &t->bindings[i];
        if (strcmp(b->name, onnx_text(dim->dim_param)) != 0)
            continue;
        if (b->size == size)
            return DR_OK;
        return dr_fail(DR_EUSAGE, "%s: %s is %" PRId64 " in %s and %" PRId64 " in %s",
                       t->adapter_path, b->name, b->size, b->of, size, v->name);
    }
    t->bindings[t->binding_count++] = (binding){onnx_text(dim->dim_param), size, v->name};
    return DR_OK;
}

static dr_status match_value(fitting *t, const dr_tensor *v)
{
    const Onnx__ValueInfoProto *input = t->inputs[find_input(t, v->name)];
    const Onnx__TypeProto__Tensor *type = NULL;
    dr_status st = DR_OK;

    if (input->type != NULL &&
        input->type->value_case == ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE)
        type = input->type->tensor_type;
    if (type == NULL)
        DR_FAIL(DR_EFORMAT, "%s: the input %s is no tensor", t->model_path, v->name);
    DR_TRY(match_type(t, v, type->elem_type));
    if (type->shape == NULL)
        goto done;
    if (type->shape->n_dim != (size_t)v->ndim)
        DR_FAIL(DR_EUSAGE,
                "%s does not fit %s: %s has %d dimensions in the file, %zu in the graph",
                t->adapter_path, t->model_path, v->name, v->ndim, type->shape->n_dim);
    for (int d = 0; d < v->ndim; d++)
        DR_TRY(match_size(t, v, d, type->shape->dim[d]));
done:
    return st;
}

dr_status onnx_adapter_fits(const char *adapter_path, const char *model_path)
{
    onnx_adapter_file f = {0};
    onnx_file model = {0};
    fitting t = {.adapter_path = adapter_path, .model_path = model_path, .f = &f};
    dr_status st = DR_OK;

    DR_TRY(onnx_adapter_open(&f, adapter_path));
    DR_TRYF(onnx_file_open(&model, model_path), "reading the graph's inputs");
    t.g = model.model->graph;
    list_inputs(&t);
    DR_TRY(match_names(&t));
    DR_TRY(match_halves(&t));
    t.bindings =
        dr_arena_alloc(&t.arena, f.count * DR_TENSOR_DIMS + 1, sizeof(*t.bindings));
    for (size_t i = 0; i < f.count; i++)
        DR_TRY(match_value(&t, &f.tensors[i]));
done:
    onnx_file_close(&model);
    onnx_adapter_close(&f);
    dr_arena_release(&t.arena);
    return st;
}
