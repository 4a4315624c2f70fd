/*
 * build_norm.c - norms, and the residual that most of them add first.
 *
 * A residual and the norm after it are one node, Skip(Simplified)LayerNormalization, whose
 * fourth output is the sum.  A model without a norm there (OLMo 2) has a plain Add.
 *
 * 1. A provider that fuses norms itself (TensorRT RTX) gets Add and plain operators, float
 *    inside whatever the graph's type: x / sqrt(mean(x^2) + eps), times the weight.
 * 2. The sums of a Gemma go past float16: there the residuals and their norms are wide
 *    (float), and what comes out of a norm is cast, as in the model builder.
 */
#include "core/mem.h"
#include "onnx/build_impl.h"

/* The operators of each kind alone and with a residual; bias: it has one. */
static const struct {
    const char *plain, *skip;
    bool bias;
} ops[] = {
    [HF_NORM_KIND_RMS] = {"SimplifiedLayerNormalization",
                          "SkipSimplifiedLayerNormalization", false},
    [HF_NORM_KIND_LAYER] = {"LayerNormalization", "SkipLayerNormalization", true},
};

/* One norm on its way. */
typedef struct {
    const char *path, *out;
    onnx_shape shape;
    onnx_type type; /* of its input, weight and sum */
    bool skip, final;
    const char *weight, *bias; /* names; bias NULL: none */
} norm;

typedef dr_status (*read_fn)(const hf_model *m, hf_norm which, int layer, float *dst);

bool onnx_build_wide(const onnx_builder *b)
{
    return b->float_type == ONNX_FLOAT16 && hf_norm_offset(b->c) != 0.0f;
}

/* Whether what this norm is given is wide already: the sum of the layer before, or what a
 * norm behind attention or MLP has left so. */
static bool given_wide(const onnx_builder *b, hf_norm which, int layer)
{
    if (which == HF_NORM_MLP)
        return hf_norm_exists(b->c, HF_NORM_ATTN_OUT);
    return (which == HF_NORM_ATTN && layer == 0) ||
           ((which == HF_NORM_ATTN || which == HF_NORM_FINAL) &&
            hf_norm_exists(b->c, HF_NORM_MLP_OUT));
}

static dr_status weight(onnx_builder *b, const char **name, const norm *k, const char *part,
                        read_fn read, hf_norm which, int layer)
{
    size_t n = hf_norm_size(b->c, which);
    void *values = NULL;
    dr_status st = DR_OK;

    *name = onnx_build_name(b, k->path, part);
    DR_TRY(dr_big_alloc(&values, n, sizeof(float), "norm"));
    DR_TRYF(read(b->m, which, layer, values), "reading the norm %s", k->path + 1);
    DR_TRY(onnx_data_floats_as(&b->data, *name, k->type, onnx_shape1(onnx_num((int64_t)n)),
                               values, n));
done:
    dr_big_free(values);
    return st;
}

/* ---- forms ---- */

/* 1 / sqrt(mean(x^2) + eps) times x, and the weight. */
static const char *rms_of_operators(onnx_builder *b, const norm *k, const char *path,
                                    const char *out, const char *x)
{
    onnx_graph *g = &b->g;
    onnx_shape one = k->shape;
    const char *eps = onnx_constant_float(g, ONNX_FLOAT, b->c->norm_eps);
    const char *two = onnx_constant_float(g, ONNX_FLOAT, 2.0);
    const char *unit = onnx_constant_float(g, ONNX_FLOAT, 1.0), *y;
    int64_t last = -1;

    one.dim[2] = onnx_num(1);
    if (k->type != ONNX_FLOAT)
        x = onnx_cast(g, onnx_build_path(b, path, "Cast"), x, ONNX_FLOAT, k->shape);
    y = onnx_op(g, "Pow", onnx_build_path(b, path, "Pow"), x, two, ONNX_FLOAT, k->shape);
    const char *mean = onnx_build_path(b, path, "ReduceMean");
    const char *axes = onnx_constant(g, &last, 1);
    onnx_opset_at_least(g, ONNX_OPSET_REDUCE);
    onnx_node *n = onnx_node_new(g, "", "ReduceMean", mean);
    onnx_node_in(g, n, y);
    onnx_node_in(g, n, axes);
    onnx_attr_int(g, n, "keepdims", 1);
    y = onnx_node_out(g, n, onnx_build_path(b, mean, "output_0"), ONNX_FLOAT, one);
    y = onnx_op(g, "Add", onnx_build_path(b, path, "Add"), y, eps, ONNX_FLOAT, one);
    y = onnx_op(g, "Sqrt", onnx_build_path(b, path, "Sqrt"), y, NULL, ONNX_FLOAT, one);
    y = onnx_op(g, "Div", onnx_build_path(b, path, "Div"), unit, y, ONNX_FLOAT, one);
    y = onnx_op(g, "Mul", onnx_build_path(b, path, "Mul"), y, x, ONNX_FLOAT, k->shape);
    if (k->type != ONNX_FLOAT)
        y = onnx_cast(g, onnx_build_path(b, path, "Cast_1"), y, k->type, k->shape);
    n = onnx_node_new(g, "", "Mul", onnx_build_path(b, path, "Mul_1"));
    onnx_node_in(g, n, y);
    onnx_node_in(g, n, k->weight);
    return onnx_node_out(g, n, out, k->type, k->shape);
}

/* One node; with a residual it adds, too. */
static const char *fused(onnx_builder *b, const norm *k, const char *out,
                         const char **residual, const char *x)
{
    const char *leaf = k->skip ? "SkipLayerNorm" : "LayerNorm";
    const char *op = k->skip ? ops[b->c->norm_kind].skip : ops[b->c->norm_kind].plain;
    onnx_graph *g = &b->g;
    onnx_node *n = onnx_node_new(g, k->skip ? "com.microsoft" : "", op,
                                 onnx_build_path(b, k->path, leaf));

    if (k->skip)
        onnx_node_in(g, n, *residual);
    onnx_node_in(g, n, x);
    onnx_node_in(g, n, k->weight);
    if (k->bias != NULL)
        onnx_node_in(g, n, k->bias);
    onnx_attr_float(g, n, "epsilon", (float)b->c->norm_eps);
    if (!k->skip) {
        onnx_attr_int(g, n, "axis", -1);
        onnx_attr_int(g, n, "stash_type", 1);
    }
    out = onnx_node_out(g, n, out, k->type, k->shape);
    if (k->skip && !k->final) {
        onnx_node_no_out(n);
        onnx_node_no_out(n);
        *residual =
            onnx_node_out(g, n, onnx_build_path(b, k->path, "output_3"), k->type, k->shape);
    }
    return out;
}

/* Add, then the norm of operators that every provider has. */
static const char *split(onnx_builder *b, norm *k, const char *out, const char **residual,
                         const char *x)
{
    const char *node = onnx_build_path(b, k->path, k->skip ? "SkipLayerNorm" : "LayerNorm");
    onnx_graph *g = &b->g;

    if (k->skip) {
        onnx_node *n = onnx_node_new(g, "", "Add", onnx_build_path(b, node, "Add"));
        onnx_node_in(g, n, *residual);
        onnx_node_in(g, n, x);
        const char *total = k->final ? onnx_build_path(b, node, "Add/output_0")
                                     : onnx_build_path(b, k->path, "output_3");
        x = *residual = onnx_node_out(g, n, total, k->type, k->shape);
        node = onnx_build_path(b, node, "skip_simplified_layer_norm");
        k->skip = false;
    }
    return b->c->norm_kind == HF_NORM_KIND_RMS ? rms_of_operators(b, k, node, out, x)
                                               : fused(b, k, out, residual, x);
}

/* ---- */

/* The sum alone, of a family that has no norm there. */
static void sum(onnx_builder *b, const norm *k, const char **residual, const char **x)
{
    if (k->skip)
        *x = onnx_op(&b->g, "Add", onnx_build_path(b, k->path, "Add"), *residual, *x,
                     k->type, k->shape);
    *residual = *x;
}

dr_status onnx_build_norm(onnx_builder *b, const char *path, hf_norm which, int layer,
                          onnx_shape shape, const char **residual, const char **x)
{
    onnx_graph *g = &b->g;
    bool final = which == HF_NORM_FINAL, wide = onnx_build_wide(b);
    bool shown = final && (b->o->exclude_lm_head || b->o->include_hidden_states);
    bool behind = which == HF_NORM_ATTN_OUT || which == HF_NORM_MLP_OUT;
    norm k = {.path = path,
              .out = shown ? "hidden_states" : onnx_build_path(b, path, "output_0"),
              .shape = shape,
              .type = wide ? ONNX_FLOAT : b->float_type,
              .skip = residual != NULL && *residual != NULL,
              .final = final};
    dr_status st = DR_OK;

    if (wide && !given_wide(b, which, layer))
        *x = onnx_cast(g, onnx_build_path(b, path, "root_input/Cast"), *x, ONNX_FLOAT,
                       shape);
    if (!hf_norm_exists(b->c, which)) {
        sum(b, &k, residual, x);
        goto done;
    }
    DR_TRY(weight(b, &k.weight, &k, "weight", hf_norm_read, which, layer));
    if (ops[b->c->norm_kind].bias)
        DR_TRY(weight(b, &k.bias, &k, "bias", hf_norm_bias_read, which, layer));
    if (!k.skip && residual != NULL)
        *residual = *x;
    const char *out = wide && !behind ? onnx_build_path(b, path, "wide") : k.out;
    *x = b->target->split_norm ? split(b, &k, out, residual, *x)
                               : fused(b, &k, out, residual, *x);
    if (wide && !behind) { /* what is multiplied next is narrow */
        onnx_node *n = onnx_node_new(g, "", "Cast", onnx_build_path(b, path, "Cast"));
        onnx_node_in(g, n, *x);
        onnx_attr_int(g, n, "to", b->float_type);
        *x = onnx_node_out(g, n, k.out, b->float_type, shape);
    }
done:
    return st;
}

dr_status onnx_build_scale(onnx_builder *b, const char **x, const char *path,
                           const char *name, double value, size_t width)
{
    float v = (float)value;
    dr_status st = DR_OK;

    if (value == 1)
        goto done;
    if (onnx_graph_find_init(&b->g, name) == NULL)
        DR_TRY(onnx_data_floats(&b->data, name, onnx_shape1(onnx_num(1)), &v, 1));
    *x = onnx_op(&b->g, "Mul", path, *x, name, b->float_type, onnx_hidden(width));
done:
    return st;
}
