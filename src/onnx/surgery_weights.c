/*
 * surgery_weights.c - surgeons of rounded values.
 */
#include <math.h>
#include <string.h>

#include "onnx.pb-c.h"
#include "onnx/graph_impl.h"
#include "onnx/surgery_impl.h"

/* A tensor's element i as a number; types of 8 to 32 bits. */
static double element(const dr_tensor *t, size_t i)
{
    const unsigned char *p = (const unsigned char *)t->data + i * dr_dtype_bytes(t->dtype);
    int32_t whole = 0;
    int16_t half = 0;
    float f = 0;

    switch (t->dtype) {
    case DR_DTYPE_U8:
        return *p;
    case DR_DTYPE_I8:
        return (int8_t)*p;
    case DR_DTYPE_I16:
        memcpy(&half, p, sizeof(half));
        return half;
    case DR_DTYPE_I32:
        memcpy(&whole, p, sizeof(whole));
        return whole;
    case DR_DTYPE_F32:
    case DR_DTYPE_F16:
    case DR_DTYPE_BF16:
        dr_to_f32(&f, p, t->dtype, 1);
        return (double)f;
    case DR_DTYPE_F64:
    case DR_DTYPE_I64:
    case DR_DTYPE_BOOL:
    case DR_DTYPE_COUNT:
        break;
    }
    return NAN;
}

dr_status surgery_group_index(onnx_edit *e, const surgery_args *a)
{
    dr_tensor v = {0};
    dr_status st = DR_OK;

    (void)a;
    for (size_t i = 0; i < e->graph->n_node; i++) {
        Onnx__NodeProto *n = e->graph->node[i];
        bool rising = true;
        if (!onnx_is(n, "MatMulNBits") || n->n_input < 5 ||
            onnx_text(n->input[4])[0] == '\0')
            continue;
        const Onnx__TensorProto *t = onnx_edit_init(e, n->input[4]);
        if (t == NULL)
            continue;
        DR_TRY(onnx_edit_values(e, &v, t));
        for (size_t k = 1; k < dr_tensor_count(&v); k++)
            rising = rising && element(&v, k) >= element(&v, k - 1);
        if (!rising)
            continue;
        onnx_edit_set_input(e, n, 4, "");
        while (n->n_input > 3 && onnx_text(n->input[n->n_input - 1])[0] == '\0')
            n->n_input--;
        e->changes++;
    }
    onnx_edit_drop_dead(e);
done:
    return st;
}

/* ---- QuantizeLinear and DequantizeLinear ---- */

/* The QuantizeLinear before a DequantizeLinear; NULL: another thing. */
static Onnx__NodeProto *quantize_of(const onnx_edit *e, const Onnx__NodeProto *dq)
{
    Onnx__NodeProto *q = onnx_edit_maker(e, onnx_text(dq->input[0]));

    return q != NULL && onnx_is(q, "QuantizeLinear") ? q : NULL;
}

/* The least and largest value of a grid of one scale; false: it has several, or is
 * computed. */
static dr_status grid_limits(onnx_edit *e, const Onnx__NodeProto *q, double *lo, double *hi,
                             bool *known)
{
    const Onnx__TensorProto *scale =
        q->n_input > 1 ? onnx_edit_constant(e, onnx_text(q->input[1])) : NULL;
    const Onnx__TensorProto *zero =
        q->n_input > 2 ? onnx_edit_constant(e, onnx_text(q->input[2])) : NULL;
    dr_tensor s = {0}, z = {0};
    double least = 0, most = 255, at = 0;
    dr_status st = DR_OK;

    *known = false;
    if (scale == NULL || (zero == NULL && q->n_input > 2))
        return DR_OK;
    if (zero != NULL && zero->data_type == ONNX_UINT16)
        return DR_OK; /* as wide as the values it would clip */
    DR_TRY(onnx_edit_values(e, &s, scale));
    if (zero != NULL)
        DR_TRY(onnx_edit_values(e, &z, zero));
    if (dr_tensor_count(&s) != 1)
        goto done;
    if (zero != NULL) {
        bool wide = z.dtype == DR_DTYPE_I16;
        at = element(&z, 0);
        if (z.dtype != DR_DTYPE_U8) {
            least = wide ? -32768 : -128;
            most = wide ? 32767 : 127;
        }
    }
    *lo = (least - at) * element(&s, 0);
    *hi = (most - at) * element(&s, 0);
    *known = true;
done:
    return st;
}

/* A Clip of x to the grid in the DequantizeLinear's place. */
static dr_status to_clip(onnx_edit *e, Onnx__NodeProto *dq, const Onnx__NodeProto *q,
                         bool *done_)
{
    double lo = 0, hi = 0;
    dr_status st = DR_OK;

    DR_TRY(grid_limits(e, q, &lo, &hi, done_));
    if (!*done_)
        goto done;
    const char *base = onnx_text(dq->output[0]);
    char *min = onnx_edit_unused(e, "%s_min", base);
    DR_TRY(onnx_edit_add_number(e, min, ONNX_FLOAT, 0, lo));
    char *max = onnx_edit_unused(e, "%s_max", base);
    DR_TRY(onnx_edit_add_number(e, max, ONNX_FLOAT, 0, hi));
    onnx_edit_set_op(e, dq, NULL, "Clip");
    dq->n_attribute = 0;
    dq->n_input = 1;
    onnx_edit_set_input(e, dq, 0, onnx_text(q->input[0]));
    onnx_edit_set_input(e, dq, 1, min);
    onnx_edit_set_input(e, dq, 2, max);
    e->changes++;
done:
    return st;
}

dr_status surgery_remove_qdq(onnx_edit *e, const surgery_args *a)
{
    bool keep = json_is_true(json_object_get(a->json, "keep_clip_after_inputs"));
    dr_status st = DR_OK;

    for (size_t i = 0; i < e->graph->n_node; i++) {
        Onnx__NodeProto *dq = e->graph->node[i];
        const Onnx__NodeProto *q =
            onnx_is(dq, "DequantizeLinear") ? quantize_of(e, dq) : NULL;
        bool clipped = false;
        if (q == NULL)
            continue;
        const char *x = onnx_text(q->input[0]);
        if (keep && onnx_edit_is_input(e, x))
            DR_TRY(to_clip(e, dq, q, &clipped));
        if (clipped || !onnx_edit_bypass(e, dq, x))
            continue;
        e->changes++;
        i--;
    }
    onnx_edit_drop_dead(e);
done:
    return st;
}

dr_status surgery_qdq_to_clip(onnx_edit *e, const surgery_args *a)
{
    dr_status st = DR_OK;

    (void)a;
    for (size_t i = 0; i < e->graph->n_node; i++) {
        Onnx__NodeProto *dq = e->graph->node[i];
        const Onnx__NodeProto *q =
            onnx_is(dq, "DequantizeLinear") ? quantize_of(e, dq) : NULL;
        bool clipped = false;
        if (q != NULL)
            DR_TRY(to_clip(e, dq, q, &clipped));
    }
    onnx_edit_drop_dead(e);
done:
    return st;
}

/* The floats of constant codes; only scales for all, or along one axis. */
static dr_status dequantize(onnx_edit *e, const Onnx__NodeProto *dq, bool *done_)
{
    const Onnx__TensorProto *part[3] = {0};
    dr_tensor v[3] = {{0}};
    dr_arena a = {0};
    void *floats = NULL;
    dr_status st = DR_OK;

    *done_ = false;
    for (size_t i = 0; i < 3 && i < dq->n_input; i++) {
        part[i] = onnx_edit_init(e, onnx_text(dq->input[i]));
        if (part[i] == NULL || part[i]->data_type == ONNX_UINT16 ||
            part[i]->data_type == ONNX_UINT4 || part[i]->data_type == ONNX_INT4_VALUE)
            return DR_OK;
        DR_TRY(onnx_edit_values(e, &v[i], part[i]));
    }
    if (part[0] == NULL || part[1] == NULL || v[1].dtype != DR_DTYPE_F32 ||
        onnx_edit_int(dq, "block_size", 0) != 0)
        goto done;
    size_t n = dr_tensor_count(&v[0]), scales = dr_tensor_count(&v[1]), inner = 1;
    int64_t axis = onnx_edit_int(dq, "axis", 1);
    axis = axis < 0 ? axis + v[0].ndim : axis;
    for (int d = (int)axis + 1; d < v[0].ndim; d++)
        inner *= (size_t)v[0].dims[d];
    if (scales > 1 && (axis >= v[0].ndim || (size_t)v[0].dims[axis] != scales))
        goto done;
    DR_TRY(dr_arena_big(&a, &floats, n + 1, sizeof(float), "dequantized values"));
    for (size_t i = 0; i < n; i++) {
        size_t c = scales > 1 ? i / inner % scales : 0;
        double zero =
            part[2] != NULL ? element(&v[2], dr_tensor_count(&v[2]) > 1 ? c : 0) : 0;
        ((float *)floats)[i] = (float)((element(&v[0], i) - zero) * element(&v[1], c));
    }
    DR_TRY(onnx_edit_add_init(e, dq->output[0], ONNX_FLOAT, part[0]->dims, part[0]->n_dims,
                              floats, n * sizeof(float)));
    *done_ = true;
done:
    dr_arena_release(&a);
    return st;
}

dr_status surgery_remove_dequantize(onnx_edit *e, const surgery_args *a)
{
    Onnx__GraphProto *g = e->graph;
    size_t kept = 0;
    dr_status st = DR_OK;

    (void)a;
    for (size_t i = 0; i < g->n_node; i++) {
        bool gone = false;
        if (onnx_is(g->node[i], "DequantizeLinear") &&
            !onnx_edit_is_output(e, onnx_text(g->node[i]->output[0])))
            DR_TRY(dequantize(e, g->node[i], &gone));
        e->changes += gone;
        if (!gone)
            g->node[kept++] = g->node[i];
    }
    g->n_node = kept;
    onnx_edit_drop_dead(e);
done:
    return st;
}

/* ---- the head is the embedding ---- */

/* A float head whose weight is the table on its side: both read one. */
dr_status surgery_tie_embeddings(onnx_edit *e, const surgery_args *a)
{
    static const int64_t turned[] = {1, 0};
    const Onnx__TensorProto *table = NULL, *weight = NULL;
    Onnx__NodeProto *head = onnx_edit_maker(e, "logits");
    dr_tensor t = {0}, w = {0};
    dr_status st = DR_OK;

    (void)a;
    for (size_t i = 0; i < e->graph->n_node; i++) {
        const Onnx__NodeProto *n = e->graph->node[i];
        if (onnx_is(n, "Gather") && n->n_input > 1 &&
            strcmp(onnx_text(n->input[1]), "input_ids") == 0)
            table = onnx_edit_init(e, onnx_text(n->input[0]));
    }
    if (table == NULL || head == NULL || !onnx_is(head, "MatMul"))
        return DR_OK;
    weight = onnx_edit_init(e, onnx_text(head->input[1]));
    if (weight == NULL || weight->n_dims != 2 || table->n_dims != 2 ||
        weight->data_type != table->data_type || weight->dims[0] != table->dims[1] ||
        weight->dims[1] != table->dims[0])
        return DR_OK;
    DR_TRY(onnx_edit_values(e, &t, table));
    DR_TRY(onnx_edit_values(e, &w, weight));
    size_t rows = (size_t)t.dims[0], cols = (size_t)t.dims[1];
    size_t size = dr_dtype_bytes(t.dtype);
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < cols; c++) {
            if (memcmp((const char *)t.data + (r * cols + c) * size,
                       (const char *)w.data + (c * rows + r) * size, size) != 0)
                goto done;
        }
    }
    const char *in[] = {onnx_text(table->name), NULL};
    char *out = onnx_edit_unused(e, "lm_head_tied_weight");
    onnx_edit_set_ints(e, onnx_edit_node(e, NULL, "Transpose", out, in, out), "perm",
                       turned, 2);
    onnx_edit_set_input(e, head, 1, out);
    onnx_edit_drop_dead(e);
    e->changes++;
done:
    return st;
}
