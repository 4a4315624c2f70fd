/*
 * surgery_nodes.c - surgeons that write operators in terms of others.
 */
#include <string.h>

#include "onnx.pb-c.h"
#include "onnx/graph_impl.h"
#include "onnx/surgery_impl.h"

/* The next node of that operator, from *at on; NULL: no more. */
static Onnx__NodeProto *next_of(const onnx_edit *e, const char *op, size_t *at)
{
    while (*at < e->graph->n_node) {
        Onnx__NodeProto *n = e->graph->node[(*at)++];
        if (onnx_is(n, op))
            return n;
    }
    return NULL;
}

static const char *base_of(const Onnx__NodeProto *n)
{
    return onnx_text(n->name)[0] != '\0' ? n->name : onnx_text(n->output[0]);
}

/* A node of the standard domain whose output has a name made of base and end. */
static char *op(onnx_edit *e, const char *type, const char *base, const char *end,
                const char *a, const char *b)
{
    const char *in[] = {a, b, NULL};
    char *name = onnx_edit_unused(e, "%s_%s", base, end);

    (void)onnx_edit_node(e, NULL, type, name, in, name);
    return name;
}

static dr_status number(onnx_edit *e, char **out, const char *base, const char *end,
                        int32_t type, double value)
{
    *out = onnx_edit_unused(e, "%s_%s", base, end);
    return onnx_edit_add_number(e, *out, type, 0, value);
}

static int32_t float_type(const onnx_types *t, const char *name)
{
    int32_t type = onnx_type_of(t, name);

    return type == ONNX_FLOAT16 || type == ONNX_BFLOAT16 ? type : ONNX_FLOAT;
}

dr_status surgery_erf_to_tanh(onnx_edit *e, const surgery_args *a)
{
    Onnx__NodeProto *n;
    onnx_types types;
    char *scale = NULL;
    dr_status st = DR_OK;

    (void)a;
    DR_TRY(onnx_edit_types(e, &types));
    for (size_t i = 0; (n = next_of(e, "Erf", &i)) != NULL;) {
        DR_TRY(number(e, &scale, base_of(n), "scale", float_type(&types, n->input[0]),
                      605.0 / 503));
        char *by = op(e, "Mul", base_of(n), "scaled", n->input[0], scale);
        onnx_edit_set_op(e, n, NULL, "Tanh");
        onnx_edit_set_input(e, n, 0, by);
        e->changes++;
    }
done:
    return st;
}

dr_status surgery_zero_input(onnx_edit *e, const surgery_args *a)
{
    const char *name = NULL;
    int64_t index = 0;
    dr_arena scratch = {0};
    void *zeros = NULL;
    int64_t dims[DR_TENSOR_DIMS];
    size_t rank = 0, count = 1;
    int32_t type = 0;
    dr_status st = DR_OK;

    DR_TRY(surgery_text(a, "node_name", &name));
    DR_TRY(surgery_int(a, "input_idx", &index));
    Onnx__NodeProto *n = onnx_edit_called(e, name);
    if (n == NULL)
        DR_FAIL(DR_EUSAGE, "%s: %s has no node called %s", a->name, e->path, name);
    if ((size_t)index >= n->n_input)
        DR_FAIL(DR_EUSAGE, "%s: %s has %zu inputs, not one at %lld", a->name, name,
                n->n_input, (long long)index);
    const char *value = onnx_text(n->input[index]);
    const Onnx__TensorProto *t = onnx_edit_init(e, value);
    const Onnx__TypeProto__Tensor *v = onnx_tensor_of(onnx_edit_info(e, value));
    const Onnx__TensorShapeProto *shape = t == NULL && v != NULL ? v->shape : NULL;
    if (t == NULL && shape == NULL)
        DR_FAIL(DR_EUSAGE, "%s: the shape of %s is not known", a->name, value);
    type = t != NULL ? t->data_type : v->elem_type;
    rank = t != NULL ? t->n_dims : shape->n_dim;
    if (rank > DR_TENSOR_DIMS || onnx_type_bytes((onnx_type)type) == 0)
        DR_FAIL(DR_EUNSUPPORTED, "%s: %s has %zu dimensions of type %d", a->name, value,
                rank, (int)type);
    for (size_t d = 0; d < rank; d++) {
        dims[d] = t != NULL ? t->dims[d] : shape->dim[d]->dim_value;
        dims[d] = dims[d] > 0 ? dims[d] : 1; /* an open one: broadcast */
        count *= (size_t)dims[d];
    }
    size_t size = onnx_type_bytes((onnx_type)type);
    DR_TRY(dr_arena_big(&scratch, &zeros, count, size, "zeros"));
    char *out = onnx_edit_unused(e, "%s_zero_output_0", name);
    DR_TRY(onnx_edit_add_init(e, out, type, dims, rank, zeros, count * size));
    onnx_edit_set_input(e, n, (size_t)index, out);
    e->changes++;
done:
    dr_arena_release(&scratch);
    return st;
}

dr_status surgery_quick_gelu(onnx_edit *e, const surgery_args *a)
{
    Onnx__NodeProto *n;
    onnx_types types;
    char *alpha = NULL;
    dr_status st = DR_OK;

    (void)a;
    DR_TRY(onnx_edit_types(e, &types));
    for (size_t i = 0; (n = next_of(e, "QuickGelu", &i)) != NULL;) {
        const char *x = n->input[0];
        DR_TRY(number(e, &alpha, base_of(n), "alpha", float_type(&types, x),
                      (double)onnx_edit_float(n, "alpha", 1.702f)));
        char *by = op(e, "Mul", base_of(n), "scaled", x, alpha);
        char *gate = op(e, "Sigmoid", base_of(n), "gate", by, NULL);
        onnx_edit_set_op(e, n, NULL, "Mul");
        n->n_attribute = 0;
        onnx_edit_set_input(e, n, 1, gate);
        e->changes++;
    }
done:
    return st;
}

/* y = x / sqrt(mean(x^2) + epsilon) * gamma; with a skip, x is the sum. */
static dr_status lower_norm(onnx_edit *e, Onnx__NodeProto *n, const onnx_types *types,
                            bool skip)
{
    static const int64_t last[] = {-1};
    const char *base = base_of(n), *x = n->input[0];
    const char *gamma = n->input[skip ? 2 : 1];
    int32_t type = float_type(types, x);
    const int64_t one = 1;
    char *epsilon = NULL, *two = NULL, *axes = NULL;
    dr_status st = DR_OK;

    if (skip && n->n_input > 3)
        DR_FAIL(DR_EUNSUPPORTED, "%s: %s has a bias", e->path, onnx_text(n->name));
    if (skip) {
        char *sum = op(e, "Add", base, "Add", x, n->input[1]);
        for (size_t i = 1; i < n->n_output; i++) {
            if (i == 3 && onnx_text(n->output[i])[0] != '\0') {
                if (onnx_edit_is_output(e, n->output[i])) {
                    const char *in[] = {sum, NULL};
                    char *name = onnx_edit_unused(e, "%s_sum", base);
                    (void)onnx_edit_node(e, NULL, "Identity", name, in, n->output[i]);
                } else {
                    (void)onnx_edit_redirect(e, n->output[i], sum);
                    onnx_edit_drop_info(e, n->output[i]);
                }
            }
        }
        x = sum;
    }
    n->n_output = 1;
    DR_TRY(number(e, &two, base, "two", type, 2));
    DR_TRY(number(e, &epsilon, base, "epsilon", type,
                  (double)onnx_edit_float(n, "epsilon", 1e-5f)));
    char *square = op(e, "Pow", base, "Pow", x, two);
    char *mean = op(e, "ReduceMean", base, "ReduceMean", square, NULL);
    Onnx__NodeProto *reduce = onnx_edit_maker(e, mean);
    onnx_edit_set_int(e, reduce, "keepdims", 1);
    if (onnx_edit_opset(e, "") >= 18) {
        axes = onnx_edit_unused(e, "%s_axes", base);
        DR_TRY(onnx_edit_add_init(e, axes, ONNX_INT64, &one, 1, last, sizeof(last)));
        onnx_edit_set_input(e, reduce, 1, axes);
    } else {
        onnx_edit_set_ints(e, reduce, "axes", last, 1);
    }
    char *more = op(e, "Add", base, "Add_eps", mean, epsilon);
    char *rms = op(e, "Sqrt", base, "Sqrt", more, NULL);
    char *ratio = op(e, "Div", base, "Div", x, rms);
    onnx_edit_set_op(e, n, NULL, "Mul");
    n->n_attribute = 0;
    n->n_input = 1;
    onnx_edit_set_input(e, n, 0, ratio);
    onnx_edit_set_input(e, n, 1, gamma);
    e->changes++;
done:
    return st;
}

dr_status surgery_rms_norm(onnx_edit *e, const surgery_args *a)
{
    Onnx__NodeProto *n;
    onnx_types types;
    dr_status st = DR_OK;

    (void)a;
    DR_TRY(onnx_edit_types(e, &types));
    for (size_t i = 0; (n = next_of(e, "SimplifiedLayerNormalization", &i)) != NULL;)
        DR_TRY(lower_norm(e, n, &types, false));
    for (size_t i = 0; (n = next_of(e, "SkipSimplifiedLayerNormalization", &i)) != NULL;)
        DR_TRY(lower_norm(e, n, &types, true));
done:
    return st;
}

/* ---- Gemm ---- */

dr_status surgery_gemm_to_matmul(onnx_edit *e, const surgery_args *a)
{
    static const int64_t turned[] = {1, 0};
    Onnx__NodeProto *n;
    onnx_types types;
    dr_status st = DR_OK;

    (void)a;
    DR_TRY(onnx_edit_types(e, &types));
    for (size_t i = 0; (n = next_of(e, "Gemm", &i)) != NULL;) {
        const char *base = base_of(n), *part[2] = {n->input[0], n->input[1]};
        const char *bias = n->n_input > 2 && onnx_text(n->input[2])[0] ? n->input[2] : NULL;
        int32_t type = float_type(&types, n->input[0]);
        const float factor[] = {onnx_edit_float(n, "alpha", 1),
                                onnx_edit_float(n, "beta", 1)};
        for (int k = 0; k < 2; k++) {
            if (onnx_edit_int(n, k == 0 ? "transA" : "transB", 0) == 0)
                continue;
            part[k] = op(e, "Transpose", base, k == 0 ? "transA" : "transB", part[k], NULL);
            onnx_edit_set_ints(e, onnx_edit_maker(e, part[k]), "perm", turned, 2);
        }
        if (factor[0] != 1.0f) {
            char *alpha = NULL;
            DR_TRY(number(e, &alpha, base, "alpha", type, (double)factor[0]));
            part[0] = op(e, "Mul", base, "scaled", part[0], alpha);
        }
        if (bias != NULL && factor[1] != 1.0f) {
            char *beta = NULL;
            DR_TRY(number(e, &beta, base, "beta", type, (double)factor[1]));
            bias = op(e, "Mul", base, "scaled_bias", bias, beta);
        }
        if (bias != NULL)
            part[0] = op(e, "MatMul", base, "MatMul", part[0], part[1]);
        onnx_edit_set_op(e, n, NULL, bias != NULL ? "Add" : "MatMul");
        n->n_attribute = 0;
        n->n_input = 2;
        onnx_edit_set_input(e, n, 0, part[0]);
        onnx_edit_set_input(e, n, 1, bias != NULL ? bias : part[1]);
        e->changes++;
    }
done:
    return st;
}

static size_t rank_of(const onnx_edit *e, const char *name)
{
    const Onnx__TensorProto *t = onnx_edit_init(e, name);
    const Onnx__TypeProto__Tensor *v = onnx_tensor_of(onnx_edit_info(e, name));

    if (t != NULL)
        return t->n_dims;
    return v != NULL && v->shape != NULL ? v->shape->n_dim : 0;
}

/* Of matrices, whose bias is a row. */
dr_status surgery_matmul_to_gemm(onnx_edit *e, const surgery_args *a)
{
    Onnx__NodeProto *n;

    (void)a;
    for (size_t i = 0; (n = next_of(e, "Add", &i)) != NULL;) {
        for (size_t k = 0; k < 2 && n->n_input == 2 && onnx_is(n, "Add"); k++) {
            Onnx__NodeProto *m = onnx_edit_maker(e, onnx_text(n->input[k]));
            const char *bias = onnx_text(n->input[1 - k]);
            if (m == NULL || !onnx_is(m, "MatMul") || rank_of(e, bias) != 1 ||
                rank_of(e, onnx_text(m->input[0])) != 2 ||
                rank_of(e, onnx_text(m->input[1])) != 2 ||
                onnx_edit_init(e, bias) == NULL ||
                onnx_edit_readers(e, onnx_text(m->output[0])) != 1)
                continue;
            char *keep = dr_arena_strdup(&e->arena, bias);
            onnx_edit_set_op(e, n, NULL, "Gemm");
            onnx_edit_set_input(e, n, 0, onnx_text(m->input[0]));
            onnx_edit_set_input(e, n, 1, onnx_text(m->input[1]));
            onnx_edit_set_input(e, n, 2, keep);
            e->changes++;
        }
    }
    onnx_edit_drop_dead(e);
    return DR_OK;
}

/* ---- values ---- */

/* A small float tensor with values below the threshold gets others; false: it has none. */
static dr_status replace_low(onnx_edit *e, Onnx__TensorProto *t, float below, float by)
{
    dr_arena a = {0};
    dr_tensor v = {0};
    void *copy = NULL;
    bool any = false;
    dr_status st = DR_OK;

    if (t->data_type != ONNX_FLOAT)
        return DR_OK;
    DR_TRY(onnx_edit_values(e, &v, t));
    size_t n = dr_tensor_count(&v);
    DR_TRY(dr_arena_big(&a, &copy, n + 1, sizeof(float), "a mask"));
    float *f = copy;
    memcpy(f, v.data, n * sizeof(*f));
    for (size_t i = 0; i < n; i++) {
        any = any || f[i] < below;
        f[i] = f[i] < below ? by : f[i];
    }
    if (!any)
        goto done;
    Onnx__TensorProto *made = NULL;
    const char *new_data = e->new_data;
    e->new_data = onnx_edit_external(t) ? new_data : NULL;
    st = onnx_edit_tensor(e, &made, onnx_text(t->name), ONNX_FLOAT, t->dims, t->n_dims, f,
                          n * sizeof(*f));
    e->new_data = new_data;
    DR_TRY(st);
    *t = *made;
    e->changes++;
done:
    dr_arena_release(&a);
    return st;
}

/* What a mask goes into, so that no large weight is looked through. */
static bool mask_readers(const onnx_edit *e, const char *name)
{
    static const char *const ops[] = {"Add", "Mul", "Expand", "Where", "Shape", NULL};

    for (size_t i = 0; i < e->graph->n_node; i++) {
        const Onnx__NodeProto *n = e->graph->node[i];
        for (size_t k = 0; k < n->n_input; k++) {
            if (strcmp(onnx_text(n->input[k]), name) == 0 &&
                !onnx_named(ops, onnx_text(n->op_type)))
                return false;
        }
    }
    return true;
}

dr_status surgery_mask_value(onnx_edit *e, const surgery_args *a)
{
    double below = -3e30, by = -1e4;
    dr_status st = DR_OK;

    DR_TRY(surgery_real(a, "threshold", &below));
    DR_TRY(surgery_real(a, "replacement", &by));
    for (size_t i = 0; i < e->graph->n_node; i++) {
        Onnx__NodeProto *n = e->graph->node[i];
        if ((!onnx_is(n, "Constant") && !onnx_is(n, "ConstantOfShape")) ||
            !mask_readers(e, onnx_text(n->output[0])))
            continue;
        for (size_t k = 0; k < n->n_attribute; k++) {
            if (n->attribute[k]->t != NULL)
                DR_TRY(replace_low(e, n->attribute[k]->t, (float)below, (float)by));
        }
    }
    for (size_t i = 0; i < e->graph->n_initializer; i++) {
        Onnx__TensorProto *t = e->graph->initializer[i];
        if (mask_readers(e, onnx_text(t->name)))
            DR_TRY(replace_low(e, t, (float)below, (float)by));
    }
done:
    return st;
}

dr_status surgery_reciprocal_mul(onnx_edit *e, const surgery_args *a)
{
    Onnx__NodeProto *n;

    (void)a;
    for (size_t i = 0; (n = next_of(e, "Mul", &i)) != NULL;) {
        for (size_t k = 0; k < 2 && n->n_input == 2; k++) {
            const Onnx__NodeProto *r = onnx_edit_maker(e, onnx_text(n->input[k]));
            if (r == NULL || !onnx_is(r, "Reciprocal"))
                continue;
            char *over = dr_arena_strdup(&e->arena, onnx_text(n->input[1 - k]));
            onnx_edit_set_op(e, n, NULL, "Div");
            onnx_edit_set_input(e, n, 0, over);
            onnx_edit_set_input(e, n, 1, onnx_text(r->input[0]));
            e->changes++;
            break;
        }
    }
    onnx_edit_drop_dead(e);
    return DR_OK;
}

dr_status surgery_memcpy(onnx_edit *e, const surgery_args *a)
{
    static const char *const ops[] = {"MemcpyToHost", "MemcpyFromHost"};

    (void)a;
    for (size_t k = 0; k < DR_COUNT(ops); k++) {
        Onnx__NodeProto *n;
        for (size_t i = 0; (n = next_of(e, ops[k], &i)) != NULL;) {
            if (n->n_input != 1 || n->n_output != 1 || !onnx_edit_bypass(e, n, n->input[0]))
                continue;
            i--;
            e->changes++;
        }
    }
    return DR_OK;
}

/* Of nodes that give a value of the same name, the first is left. */
dr_status surgery_double_nodes(onnx_edit *e, const surgery_args *a)
{
    Onnx__GraphProto *g = e->graph;
    size_t kept = 0;

    (void)a;
    for (size_t i = 0; i < g->n_node; i++) {
        bool again = false;
        for (size_t k = 0; k < kept && !again; k++) {
            for (size_t o = 0; o < g->node[i]->n_output && !again; o++) {
                const char *name = onnx_text(g->node[i]->output[o]);
                for (size_t p = 0; *name && p < g->node[k]->n_output; p++)
                    again = again || strcmp(onnx_text(g->node[k]->output[p]), name) == 0;
            }
        }
        if (!again)
            g->node[kept++] = g->node[i];
    }
    e->changes += g->n_node - kept;
    g->n_node = kept;
    return DR_OK;
}

dr_status surgery_double_inner(onnx_edit *e, const surgery_args *a)
{
    (void)a;
    for (size_t i = 0; i < e->graph->n_node; i++) {
        for (size_t k = 0; k < e->graph->node[i]->n_attribute; k++) {
            Onnx__GraphProto *g = e->graph->node[i]->attribute[k]->g;
            size_t kept = 0;
            for (size_t t = 0; g != NULL && t < g->n_initializer; t++) {
                bool again = false;
                for (size_t p = 0; p < kept; p++)
                    again = again || strcmp(onnx_text(g->initializer[p]->name),
                                            onnx_text(g->initializer[t]->name)) == 0;
                if (!again)
                    g->initializer[kept++] = g->initializer[t];
            }
            if (g != NULL) {
                e->changes += g->n_initializer - kept;
                g->n_initializer = kept;
            }
        }
    }
    return DR_OK;
}
