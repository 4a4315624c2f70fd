/*
 * build_norm.c - norms, and the residual that most of them add first.
 *
 * A residual and the norm after it are one node, Skip(Simplified)LayerNormalization, whose
 * fourth output is the sum.  A model without a norm there (OLMo 2) has a plain Add.
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

typedef dr_status (*read_fn)(const hf_model *m, hf_norm which, int layer, float *dst);

static dr_status weight(onnx_builder *b, const char **name, const char *path,
                        const char *part, read_fn read, hf_norm which, int layer)
{
    size_t n = hf_norm_size(b->c, which);
    void *values = NULL;
    dr_status st = DR_OK;

    *name = onnx_build_name(b, path, part);
    DR_TRY(dr_big_alloc(&values, n, sizeof(float), "norm"));
    DR_TRYF(read(b->m, which, layer, values), "reading the norm %s", path + 1);
    DR_TRY(onnx_data_floats(&b->data, *name, onnx_shape1(onnx_num((int64_t)n)), values, n));
done:
    dr_big_free(values);
    return st;
}

dr_status onnx_build_norm(onnx_builder *b, const char *path, hf_norm which, int layer,
                          onnx_shape shape, const char **residual, const char **x)
{
    onnx_graph *g = &b->g;
    bool skip = residual != NULL && *residual != NULL, final = which == HF_NORM_FINAL;
    const char *w = NULL, *bias = NULL;
    onnx_node *n = NULL;
    dr_status st = DR_OK;

    if (!hf_norm_exists(b->c, which)) {
        if (skip)
            *x = onnx_op(g, "Add", onnx_build_path(b, path, "Add"), *residual, *x,
                         b->float_type, shape);
        *residual = *x;
        goto done;
    }
    DR_TRY(weight(b, &w, path, "weight", hf_norm_read, which, layer));
    if (ops[b->c->norm_kind].bias)
        DR_TRY(weight(b, &bias, path, "bias", hf_norm_bias_read, which, layer));
    if (skip) {
        n = onnx_node_new(g, "com.microsoft", ops[b->c->norm_kind].skip,
                          onnx_build_path(b, path, "SkipLayerNorm"));
        onnx_node_in(g, n, *residual);
    } else {
        n = onnx_node_new(g, "", ops[b->c->norm_kind].plain,
                          onnx_build_path(b, path, "LayerNorm"));
        if (residual != NULL)
            *residual = *x;
    }
    onnx_node_in(g, n, *x);
    onnx_node_in(g, n, w);
    if (bias != NULL)
        onnx_node_in(g, n, bias);
    onnx_attr_float(g, n, "epsilon", (float)b->c->norm_eps);
    if (!skip) {
        onnx_attr_int(g, n, "axis", -1);
        onnx_attr_int(g, n, "stash_type", 1);
    }
    *x = onnx_node_out(g, n, onnx_build_path(b, path, "output_0"), b->float_type, shape);
    if (skip && !final) {
        onnx_node_no_out(n);
        onnx_node_no_out(n);
        *residual =
            onnx_node_out(g, n, onnx_build_path(b, path, "output_3"), b->float_type, shape);
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
