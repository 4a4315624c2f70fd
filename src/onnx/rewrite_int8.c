/*
 * rewrite_int8.c - weights of 8 bits: with activations rounded as they come (dynamic), or
 * by ranges that were seen (static).
 *
 * dynamic, in standard operators, as ONNX Runtime's quantizer writes it:
 *     x -> DynamicQuantizeLinear -> MatMulInteger(q, W) -> Cast -> Mul(x's scale * W's)
 * one DynamicQuantizeLinear for all that read x.  Gather takes bytes of the table and a
 * DequantizeLinear makes floats of them.
 *
 * static, in QDQ form: x -> QuantizeLinear -> DequantizeLinear -> node, weights as bytes
 * behind a DequantizeLinear.
 *
 * A weight w has scale s and zero point z: w = s (q - z); symmetric: z is 0, or 128 of
 * unsigned bytes, and s = max|w| / 127; else [min(w, 0), max(w, 0)] over 255 steps (254
 * with int8's least value left out, as in the original).  reduce_range: half as many.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "onnx.pb-c.h"
#include "onnx/edit_impl.h"
#include "onnx/graph_impl.h"

enum { ONNX_INT16 = 5 };

/* ---- weights ---- */

typedef struct {
    int least, most; /* codes */
    int zero_symmetric;
} code_range;

static code_range range_of(const onnx_int8_options *o)
{
    const int half = o->reduce_range ? 64 : 128;

    if (o->is_signed)
        return (code_range){o->symmetric ? 1 - half : -half, half - 1, 0};
    return (code_range){0, 2 * half - 1, half};
}

/* The scale and zero point of n values, step apart. */
static dr_status grid_of(float *scale, int *zero, const float *v, size_t n, size_t step,
                         const onnx_int8_options *o, const char *name)
{
    const code_range r = range_of(o);
    float lo = 0, hi = 0;

    for (size_t i = 0; i < n; i++) {
        float x = v[i * step];
        if (!isfinite(x))
            return dr_fail(DR_EFORMAT, "%s: a value is not finite", name);
        lo = x < lo ? x : lo;
        hi = x > hi ? x : hi;
    }
    if (o->symmetric) {
        float most = -lo > hi ? -lo : hi;
        *scale = most / ((float)(r.most - r.least) / 2);
        *zero = r.zero_symmetric;
    } else {
        *scale = (hi - lo) / (float)(r.most - r.least);
        *zero = *scale > 0 ? (int)rint((double)r.least - (double)lo / (double)*scale) : 0;
    }
    if (!(*scale > 0))
        *scale = 1;
    return DR_OK;
}

static uint8_t encode(float x, float scale, int zero, const code_range *r)
{
    double q = rint((double)x / (double)scale) + zero;

    q = q < r->least ? r->least : q > r->most ? r->most : q;
    return (uint8_t)(int)q;
}

typedef struct {
    const char *codes, *scale, *zero; /* initializers */
    bool per_channel;
} bytes_weight;

/* Channels lie along dimension `axis` (0 or last). */
static dr_status add_bytes(onnx_edit *e, bytes_weight *out, const Onnx__TensorProto *t,
                           const onnx_int8_options *o, size_t axis, bool turn)
{
    const code_range r = range_of(o);
    const int32_t type = o->is_signed ? ONNX_INT8_VALUE : ONNX_UINT8;
    const char *base = onnx_text(t->name);
    dr_arena a = {0};
    void *floats = NULL, *codes = NULL;
    int64_t dims[DR_TENSOR_DIMS];
    dr_tensor v = {0};
    dr_status st = DR_OK;

    DR_TRY(onnx_edit_values(e, &v, t));
    size_t n = dr_tensor_count(&v);
    size_t channels = o->per_channel ? (size_t)v.dims[axis] : 1;
    size_t inner = axis == 0 ? n / channels : 1, each = n / channels;
    size_t step = o->per_channel && axis > 0 ? channels : 1;
    DR_TRY(dr_arena_big(&a, &floats, n + 1, sizeof(float), base));
    DR_TRY(dr_arena_big(&a, &codes, n + 1, 1, base));
    dr_to_f32(floats, v.data, v.dtype, n);
    float *scales = dr_arena_alloc(&a, channels, sizeof(*scales));
    uint8_t *zeros = dr_arena_alloc(&a, channels, 1);
    for (size_t c = 0; c < channels; c++) {
        const float *from = (float *)floats + (step > 1 ? c : c * inner * (channels > 1));
        int zero = 0;
        DR_TRY(grid_of(&scales[c], &zero, from, each, step, o, base));
        zeros[c] = (uint8_t)zero;
        for (size_t i = 0; i < each; i++) {
            size_t at = (size_t)(from - (float *)floats) + i * step, to = at;
            if (turn) /* a matrix of Gemm with transB */
                to = at % (size_t)v.dims[1] * (size_t)v.dims[0] + at / (size_t)v.dims[1];
            ((uint8_t *)codes)[to] = encode(((float *)floats)[at], scales[c], zero, &r);
        }
    }
    for (int d = 0; d < v.ndim; d++)
        dims[turn ? v.ndim - 1 - d : d] = v.dims[d];
    const int64_t count = (int64_t)channels;
    out->per_channel = o->per_channel;
    out->codes = onnx_edit_unused(e, "%s_quantized", base);
    out->scale = onnx_edit_unused(e, "%s_scale", base);
    out->zero = onnx_edit_unused(e, "%s_zero_point", base);
    DR_TRY(onnx_edit_add_init(e, out->codes, type, dims, (size_t)v.ndim, codes, n));
    DR_TRY(onnx_edit_add_init(e, out->scale, ONNX_FLOAT, &count, o->per_channel, scales,
                              channels * sizeof(float)));
    DR_TRY(onnx_edit_add_init(e, out->zero, type, &count, o->per_channel, zeros, channels));
done:
    dr_arena_release(&a);
    return st;
}

/* ---- what is rounded ---- */

/* A constant float32 weight at that input; NULL: none. */
static const Onnx__TensorProto *weight_at(const onnx_edit *e, const Onnx__NodeProto *n,
                                          size_t input, size_t rank)
{
    const char *name = n->n_input > input ? onnx_text(n->input[input]) : "";
    const Onnx__TensorProto *t = onnx_edit_init(e, name);

    return t != NULL && t->data_type == ONNX_FLOAT && !onnx_edit_is_input(e, name) &&
                   (rank == 0 || t->n_dims == rank) && t->n_dims >= 2
               ? t
               : NULL;
}

static bool wanted(const Onnx__NodeProto *n, const onnx_int8_options *o)
{
    const char *op = onnx_text(n->op_type), *name = onnx_text(n->name);

    if (o->op_types != NULL ? !onnx_named(o->op_types, op) : onnx_named(o->op_exclude, op))
        return false;
    return !onnx_named(o->exclude, name) &&
           (o->nodes == NULL || onnx_named(o->nodes, name));
}

/* ---- dynamic ---- */

typedef struct {
    const char *x, *codes, *scale, *zero;
} rounded;

typedef struct {
    onnx_edit *e;
    const onnx_int8_options *o;
    rounded *done; /* arena */
    size_t done_count;
} rounding;

static const rounded *round_input(rounding *r, const char *x)
{
    onnx_edit *e = r->e;
    dr_arena *a = &e->arena;

    for (size_t i = 0; i < r->done_count; i++) {
        if (strcmp(r->done[i].x, x) == 0)
            return &r->done[i];
    }
    rounded *d = &r->done[r->done_count++];
    const char *in[] = {x, NULL};
    d->x = dr_arena_strdup(a, x);
    d->codes = onnx_edit_unused(e, "%s_quantized", x);
    d->scale = onnx_edit_unused(e, "%s_scale", x);
    d->zero = onnx_edit_unused(e, "%s_zero_point", x);
    const char *name = onnx_edit_unused(e, "%s_QuantizeLinear", x);
    Onnx__NodeProto *n =
        onnx_edit_node(e, NULL, "DynamicQuantizeLinear", name, in, d->codes);
    n->output = onnx_edit_room(a, n->output, 1);
    n->output[n->n_output++] = dr_arena_strdup(a, d->scale);
    n->output = onnx_edit_room(a, n->output, 2);
    n->output[n->n_output++] = dr_arena_strdup(a, d->zero);
    return d;
}

/* product = x W of a MatMul or Gemm; the node itself becomes the Mul, or a bias's Add. */
static dr_status dynamic_product(rounding *r, Onnx__NodeProto *n,
                                 const Onnx__TensorProto *t)
{
    onnx_edit *e = r->e;
    const bool gemm = onnx_is(n, "Gemm"), turn = gemm && onnx_edit_int(n, "transB", 0) != 0;
    const char *out = n->output[0], *base = onnx_text(n->name);
    const char *bias =
        gemm && n->n_input > 2 && *onnx_text(n->input[2]) ? n->input[2] : NULL;
    bytes_weight w = {0};
    dr_status st = DR_OK;

    base = *base != '\0' ? base : out;
    DR_TRY(add_bytes(e, &w, t, r->o, turn ? 0 : t->n_dims - 1, turn));
    const rounded *x = round_input(r, n->input[0]);
    const char *in[] = {x->codes, w.codes, x->zero, w.zero, NULL};
    char *whole = onnx_edit_unused(e, "%s_output_quantized", out);
    (void)onnx_edit_node(e, NULL, "MatMulInteger", onnx_edit_unused(e, "%s_quant", base),
                         in, whole);
    const char *cast_in[] = {whole, NULL};
    char *cast = onnx_edit_unused(e, "%s_cast", whole);
    onnx_edit_set_int(e, onnx_edit_node(e, NULL, "Cast", cast, cast_in, cast), "to",
                      ONNX_FLOAT);
    const char *scale_in[] = {x->scale, w.scale, NULL};
    char *scale = onnx_edit_unused(e, "%s_quant_scales_mul", base);
    (void)onnx_edit_node(e, NULL, "Mul", scale, scale_in, scale);
    const char *product = cast;
    if (bias != NULL) {
        const char *mul_in[] = {cast, scale, NULL};
        product = onnx_edit_unused(e, "%s_quant_product", base);
        (void)onnx_edit_node(e, NULL, "Mul", product, mul_in, product);
    }
    onnx_edit_set_op(e, n, NULL, bias != NULL ? "Add" : "Mul");
    n->n_attribute = 0;
    n->n_input = 2;
    onnx_edit_set_input(e, n, 0, product);
    onnx_edit_set_input(e, n, 1, bias != NULL ? bias : scale);
    e->changes++;
done:
    return st;
}

/* Per tensor: a table's rows are no channels of what comes out. */
static dr_status dynamic_gather(rounding *r, Onnx__NodeProto *n, const Onnx__TensorProto *t)
{
    onnx_edit *e = r->e;
    onnx_int8_options o = *r->o;
    char *out = n->output[0];
    bytes_weight w = {0};
    dr_status st = DR_OK;

    o.per_channel = false;
    DR_TRY(add_bytes(e, &w, t, &o, 0, false));
    char *bytes = onnx_edit_unused(e, "%s_quantized", out);
    onnx_edit_set_input(e, n, 0, w.codes);
    n->output[0] = bytes;
    const char *in[] = {bytes, w.scale, w.zero, NULL};
    (void)onnx_edit_node(e, NULL, "DequantizeLinear",
                         onnx_edit_unused(e, "%s_DequantizeLinear", out), in, out);
    e->changes++;
done:
    return st;
}

/* A Gemm that is a product and a bias. */
static bool plain_gemm(const Onnx__NodeProto *n)
{
    return onnx_edit_int(n, "transA", 0) == 0 && onnx_edit_float(n, "alpha", 1) == 1.0f &&
           onnx_edit_float(n, "beta", 1) == 1.0f;
}

static dr_status check_lists(const onnx_edit *e, const onnx_int8_options *o)
{
    dr_status st = DR_OK;

    DR_TRY(onnx_edit_flat(e, "quantization"));
    DR_TRY(onnx_edit_nodes_there(e, "nodes_to_quantize", o->nodes));
    DR_TRY(onnx_edit_nodes_there(e, "nodes_to_exclude", o->exclude));
done:
    return st;
}

dr_status onnx_dynamic_int8(onnx_edit *e, const onnx_int8_options *o)
{
    size_t count = e->graph->n_node;
    rounding r = {.e = e, .o = o};
    dr_status st = DR_OK;

    DR_TRY(check_lists(e, o));
    r.done = dr_arena_alloc(&e->arena, count + 1, sizeof(*r.done));
    for (size_t i = 0; i < count; i++) {
        Onnx__NodeProto *n = e->graph->node[i];
        const Onnx__TensorProto *t = NULL;
        if (!wanted(n, o) || onnx_text(n->domain)[0] != '\0')
            continue;
        if (onnx_is(n, "MatMul") || (onnx_is(n, "Gemm") && plain_gemm(n))) {
            t = weight_at(e, n, 1, 2);
            if (t != NULL)
                DR_TRY(dynamic_product(&r, n, t));
        } else if (onnx_is(n, "Gather")) {
            t = weight_at(e, n, 0, 0);
            if (t != NULL)
                DR_TRY(dynamic_gather(&r, n, t));
        }
    }
    if (e->changes == 0)
        DR_FAIL(DR_EUSAGE,
                "%s: none of its %zu nodes is a MatMul, Gemm or Gather of constant float32 "
                "weights",
                e->path, count);
    onnx_edit_drop_dead(e);
done:
    return st;
}

/* ---- static ---- */

/* Input i is an activation that a node of this kind has rounded. */
static bool is_activation(const onnx_edit *e, const Onnx__NodeProto *n, size_t i)
{
    return i < n->n_input && i < 2 && onnx_text(n->input[i])[0] != '\0' &&
           onnx_edit_constant(e, n->input[i]) == NULL;
}

static bool static_op(const onnx_edit *e, const Onnx__NodeProto *n)
{
    if (onnx_text(n->domain)[0] != '\0')
        return false;
    if (onnx_is(n, "Conv"))
        return weight_at(e, n, 1, 0) != NULL;
    return onnx_is(n, "MatMul") || (onnx_is(n, "Gemm") && weight_at(e, n, 1, 2) != NULL);
}

static void add_value(const char **list, size_t *count, const char *name)
{
    for (size_t i = 0; i < *count; i++) {
        if (strcmp(list[i], name) == 0)
            return;
    }
    list[(*count)++] = name;
}

dr_status onnx_static_values(onnx_edit *e, const onnx_int8_options *o,
                             const char *const **names, size_t *count)
{
    const Onnx__GraphProto *g = e->graph;
    const char **list = dr_arena_alloc(&e->arena, 3 * g->n_node + 1, sizeof(*list));
    onnx_types types;
    dr_status st = DR_OK;

    *count = 0;
    DR_TRY(check_lists(e, o));
    DR_TRY(onnx_edit_types(e, &types));
    for (size_t i = 0; i < g->n_node; i++) {
        const Onnx__NodeProto *n = g->node[i];
        if (!wanted(n, o) || !static_op(e, n) ||
            onnx_type_of(&types, onnx_text(n->output[0])) != ONNX_FLOAT)
            continue;
        for (size_t k = 0; k < 2; k++) {
            if (is_activation(e, n, k))
                add_value(list, count, n->input[k]);
        }
        add_value(list, count, n->output[0]);
    }
    if (*count == 0)
        DR_FAIL(DR_EUSAGE, "%s: none of its %zu nodes is a float32 MatMul, Gemm or Conv",
                e->path, g->n_node);
    *names = list;
done:
    return st;
}

dr_status onnx_add_ranges(onnx_edit *e, const char *const *names, size_t count)
{
    dr_arena *a = &e->arena;

    for (size_t i = 0; i < 2 * count; i++) {
        const char *out = dr_arena_printf(a, "%s.%s", names[i / 2], i % 2 ? "max" : "min");
        const char *in[] = {names[i / 2], NULL};
        Onnx__NodeProto *n =
            onnx_edit_node(e, NULL, i % 2 ? "ReduceMax" : "ReduceMin", out, in, out);
        onnx_edit_set_int(e, n, "keepdims", 0);
        onnx_edit_add_output(e, onnx_edit_value(a, dr_arena_strdup(a, out), ONNX_FLOAT, 0));
    }
    return DR_OK;
}

typedef struct {
    onnx_edit *e;
    const onnx_int8_options *o;
    const onnx_activation *act;
    const onnx_seen *seen;
    size_t seen_count;
    const char **from, **to; /* values that have a DequantizeLinear, and its output */
    Onnx__NodeProto **q;     /* their QuantizeLinear */
    size_t done;
    bool wide; /* something has 16 bits */
} fixing;

static const onnx_seen *seen_of(const fixing *f, const char *name)
{
    for (size_t i = 0; i < f->seen_count; i++) {
        if (strcmp(f->seen[i].name, name) == 0)
            return &f->seen[i];
    }
    return NULL;
}

/* Scale and zero point of a value as initializers. */
static dr_status add_grid(fixing *f, const onnx_seen *v, const char *grid[2])
{
    const onnx_activation *o = f->act;
    const bool own = onnx_named(o->wide, v->name), is_signed = o->is_signed && !own;
    const int bits = own ? 16 : o->bits;
    const int steps = (1 << bits) - 1, half = 1 << (bits - 1);
    const int least = is_signed ? -half : 0;
    const int32_t type = bits == 16 ? (is_signed ? ONNX_INT16 : ONNX_UINT16)
                                    : (is_signed ? ONNX_INT8_VALUE : ONNX_UINT8);
    double lo = fmin(0, (double)v->least), hi = fmax(0, (double)v->largest);
    dr_status st = DR_OK;

    if (o->min_range > 0 && hi - lo < o->min_range)
        hi = lo + o->min_range;
    if (o->symmetric) {
        hi = fmax(-lo, hi);
        lo = -hi;
    }
    float scale = (float)((hi - lo) / steps);
    scale = scale > 0 ? scale : 1;
    int32_t zero =
        o->symmetric ? (is_signed ? 0 : half) : (int32_t)rint(least - lo / (double)scale);
    unsigned char bytes[2] = {(unsigned char)(zero & 255),
                              (unsigned char)(zero >> 8 & 255)};
    grid[0] = onnx_edit_unused(f->e, "%s_scale", v->name);
    grid[1] = onnx_edit_unused(f->e, "%s_zero_point", v->name);
    DR_TRY(onnx_edit_add_number(f->e, grid[0], ONNX_FLOAT, 0, (double)scale));
    DR_TRY(onnx_edit_add_init(f->e, grid[1], type, NULL, 0, bytes, bits == 16 ? 2 : 1));
    f->wide = f->wide || bits == 16;
done:
    return st;
}

/* The value behind QuantizeLinear and DequantizeLinear; itself where it has no range. */
static dr_status through_qdq(fixing *f, const char **out, const char *name)
{
    const onnx_seen *v = seen_of(f, name);
    const char *grid[2];
    onnx_edit *e = f->e;
    dr_arena *a = &e->arena;
    dr_status st = DR_OK;

    *out = name;
    for (size_t i = 0; i < f->done; i++) {
        if (strcmp(f->from[i], name) == 0) {
            *out = f->to[i];
            return DR_OK;
        }
    }
    if (v == NULL)
        return DR_OK;
    DR_TRY(add_grid(f, v, grid));
    const char *q_in[] = {name, grid[0], grid[1], NULL};
    char *q = onnx_edit_unused(e, "%s_QuantizeLinear_Output", name);
    f->q[f->done] = onnx_edit_node(e, NULL, "QuantizeLinear", q, q_in, q);
    const char *dq_in[] = {q, grid[0], grid[1], NULL};
    *out = onnx_edit_unused(e, "%s_DequantizeLinear_Output", name);
    (void)onnx_edit_node(e, NULL, "DequantizeLinear", *out, dq_in, *out);
    f->from[f->done] = dr_arena_strdup(a, name);
    f->to[f->done++] = *out;
done:
    return st;
}

static dr_status weight_qdq(fixing *f, Onnx__NodeProto *n, const Onnx__TensorProto *t)
{
    const bool rows = onnx_is(n, "Conv") || onnx_edit_int(n, "transB", 0) != 0;
    const size_t axis = rows ? 0 : t->n_dims - 1;
    onnx_edit *e = f->e;
    bytes_weight w = {0};
    dr_status st = DR_OK;

    DR_TRY(add_bytes(e, &w, t, f->o, axis, false));
    const char *in[] = {w.codes, w.scale, w.zero, NULL};
    char *out = onnx_edit_unused(e, "%s_DequantizeLinear_Output", onnx_text(t->name));
    Onnx__NodeProto *dq = onnx_edit_node(e, NULL, "DequantizeLinear", out, in, out);
    if (w.per_channel)
        onnx_edit_set_int(e, dq, "axis", (int64_t)axis);
    onnx_edit_set_input(e, n, 1, out);
done:
    return st;
}

/* What comes out: all that reads it takes it rounded. */
static dr_status output_qdq(fixing *f, const Onnx__NodeProto *n)
{
    const char *out = n->output[0], *to = NULL;
    dr_status st = DR_OK;

    if (seen_of(f, out) == NULL)
        return DR_OK;
    DR_TRY(through_qdq(f, &to, out));
    for (size_t i = 0; i < f->done; i++) {
        if (strcmp(f->from[i], out) != 0)
            continue;
        (void)onnx_edit_redirect(f->e, out, to);
        onnx_edit_set_input(f->e, f->q[i], 0, out);
    }
done:
    return st;
}

dr_status onnx_static_int8(onnx_edit *e, const onnx_int8_options *o,
                           const onnx_activation *act, const onnx_seen *seen, size_t count)
{
    size_t nodes = e->graph->n_node;
    fixing f = {.e = e, .o = o, .act = act, .seen = seen, .seen_count = count};
    dr_status st = DR_OK;

    f.from = dr_arena_alloc(&e->arena, 4 * nodes + 1, sizeof(*f.from));
    f.to = dr_arena_alloc(&e->arena, 4 * nodes + 1, sizeof(*f.to));
    f.q = dr_arena_alloc(&e->arena, 4 * nodes + 1, sizeof(*f.q));
    for (size_t i = 0; i < nodes; i++) {
        Onnx__NodeProto *n = e->graph->node[i];
        if (!wanted(n, o) || !static_op(e, n) ||
            seen_of(&f, onnx_text(n->output[0])) == NULL)
            continue;
        const Onnx__TensorProto *t = weight_at(e, n, 1, 0);
        for (size_t k = 0; k < 2; k++) {
            const char *to = NULL;
            if (!is_activation(e, n, k))
                continue;
            DR_TRY(through_qdq(&f, &to, n->input[k]));
            onnx_edit_set_input(e, n, k, to);
        }
        if (t != NULL)
            DR_TRY(weight_qdq(&f, n, t));
        e->changes++;
    }
    for (size_t i = 0; i < nodes; i++) {
        const Onnx__NodeProto *n = e->graph->node[i];
        if (wanted(n, o) && static_op(e, n))
            DR_TRY(output_qdq(&f, n));
    }
    if (f.wide)
        DR_TRY(onnx_edit_raise_opset(e, 21));
    onnx_edit_drop_dead(e);
done:
    return st;
}
