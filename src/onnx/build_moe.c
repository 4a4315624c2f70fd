/*
 * build_moe.c - a router and its experts, as com.microsoft's MoE and QMoE take them.
 *
 *     x -> MatMul, Add -> Reshape [rows, E] -> (Q)MoE with all experts of the layer
 *
 * The experts' gate and up rows lie in turn (swiglu_fusion 1): the CPU kernels know swiglu
 * in no other way.  In int4 they are rounded without zero points, whatever the options say
 * of other weights, since that is the form that all providers take; the router is float.
 *
 * Seen in onnxruntime 1.32 on the CPU: QMoE divides the routing weights by their sum
 * whatever normalize_routing_weights says (MoE does not), and its 8-bit blocks are off by a
 * hundredth, where 4-bit ones are exact.
 */
#include "core/mem.h"
#include "onnx/build_impl.h"

typedef struct {
    const char *weight, *scales, *bias; /* scales NULL: floats; bias "": none */
} expert_names;

static dr_status router(onnx_builder *b, const char **logits, int layer, const char *path,
                        const char *x)
{
    const char *p = onnx_build_path(b, path, "router");
    const char *weight = onnx_build_name(b, p, "MatMul.weight");
    size_t d = (size_t)b->c->hidden, e = (size_t)b->c->experts.count;
    onnx_dim experts = onnx_num((int64_t)e);
    onnx_graph *g = &b->g;
    float *rows = NULL, *columns = NULL;
    void *all = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&all, 2 * d * e, sizeof(float), "router"));
    rows = all;
    columns = rows + d * e;
    DR_TRYF(hf_router_read(b->m, layer, rows), "reading the router of layer %d", layer);
    for (size_t i = 0; i < d * e; i++)
        columns[i % d * e + i / d] = rows[i];
    DR_TRY(onnx_data_floats(&b->data, weight, onnx_shape2(onnx_num((int64_t)d), experts),
                            columns, d * e));
    *logits = onnx_op(g, "MatMul", onnx_build_path(b, p, "MatMul"), x, weight,
                      b->float_type, onnx_hidden(e));
    if (b->c->experts.bias) {
        const char *bias = onnx_build_name(b, p, "Add.bias");
        DR_TRY(hf_router_bias(b->m, layer, rows));
        DR_TRY(onnx_data_floats(&b->data, bias, onnx_shape1(experts), rows, e));
        *logits = onnx_op(g, "Add", onnx_build_path(b, p, "Add"), *logits, bias,
                          b->float_type, onnx_hidden(e));
    }
    const char *shape = onnx_constant(g, (int64_t[]){-1, (int64_t)e}, 2);
    *logits = onnx_op(g, "Reshape", onnx_build_path(b, p, "Reshape"), *logits, shape,
                      b->float_type, onnx_shape2(onnx_sym("num_rows"), experts));
done:
    dr_big_free(all);
    return st;
}

/* p: "/model/layers.0/moe/experts/gate_up_proj". */
static dr_status weight(onnx_builder *b, expert_names *out, int layer, const char *p,
                        hf_expert_part part)
{
    onnx_grid grid = onnx_build_grid(b, 4);
    const char *names[3] = {onnx_build_name(b, p, "weight_Q4"),
                            onnx_build_name(b, p, "weight_scales"), NULL};
    onnx_packed_init packed = {0};
    onnx_source s = {0};
    dr_status st = DR_OK;

    grid.symmetric = true;
    grid.how = ONNX_ROUND_DEFAULT;
    grid.dequantize = false;
    onnx_source_experts(&s, b->m, layer, part);
    if (onnx_precision_bits(b->o->precision) == 0) {
        out->weight = onnx_build_name(b, p, "weight");
        DR_TRYF(onnx_data_rows(&b->data, out->weight, b->float_type, &s), "writing %s",
                out->weight);
        goto done;
    }
    if (s.cols % (size_t)grid.block != 0)
        DR_FAIL(DR_EUNSUPPORTED,
                "experts of %zu inputs: QMoE takes blocks that divide them, not of %d",
                s.cols, grid.block);
    out->weight = names[0];
    out->scales = names[1];
    DR_TRYF(onnx_data_packed(&b->data, &packed, names, &s, 0, s.rows, &grid, true),
            "writing %s", names[0]);
done:
    onnx_source_release(&s);
    return st;
}

static dr_status bias(onnx_builder *b, expert_names *out, int layer, const char *p,
                      hf_expert_part part)
{
    size_t n = hf_expert_out(b->c, part), e = (size_t)b->c->experts.count;
    void *values = NULL;
    dr_status st = DR_OK;

    out->bias = "";
    if (!b->c->experts.bias)
        goto done;
    out->bias = onnx_build_name(b, p, "bias");
    DR_TRY(dr_big_alloc(&values, n * e, sizeof(float), "biases of experts"));
    DR_TRY(hf_expert_bias(b->m, layer, part, values));
    DR_TRY(onnx_data_floats(&b->data, out->bias,
                            onnx_shape2(onnx_num((int64_t)e), onnx_num((int64_t)n)), values,
                            n * e));
done:
    dr_big_free(values);
    return st;
}

static const char *experts(onnx_builder *b, const char *path, const char *x,
                           const char *logits, const expert_names names[2])
{
    const hf_experts *e = &b->c->experts;
    bool packed = names[0].scales != NULL;
    const char *op = packed ? "QMoE" : "MoE", *name = onnx_build_path(b, path, op);
    onnx_graph *g = &b->g;
    onnx_node *n = onnx_node_new(g, "com.microsoft", op, name);

    onnx_node_in(g, n, x);
    onnx_node_in(g, n, logits);
    for (int i = 0; i < 2; i++) {
        onnx_node_in(g, n, names[i].weight);
        if (packed)
            onnx_node_in(g, n, names[i].scales);
        onnx_node_in(g, n, names[i].bias);
    }
    onnx_attr_float(g, n, "activation_alpha", (float)e->alpha);
    onnx_attr_float(g, n, "activation_beta", (float)e->beta);
    onnx_attr_text(g, n, "activation_type", "swiglu");
    onnx_attr_int(g, n, "k", e->used);
    onnx_attr_int(g, n, "normalize_routing_weights", e->renormalize);
    onnx_attr_int(g, n, "swiglu_fusion", 1);
    if (e->limit > 0)
        onnx_attr_float(g, n, "swiglu_limit", (float)e->limit);
    onnx_attr_int(g, n, "use_sparse_mixer", 0);
    if (packed) {
        onnx_attr_int(g, n, "block_size", b->o->block_size);
        onnx_attr_int(g, n, "expert_weight_bits", 4);
    }
    return onnx_node_out(g, n, onnx_build_path(b, name, "output_0"), b->float_type,
                         onnx_hidden((size_t)b->c->hidden));
}

dr_status onnx_build_moe(onnx_builder *b, const char **out, int layer, const char *path,
                         const char *x)
{
    expert_names names[2] = {{0}};
    const char *logits = NULL;
    dr_status st = DR_OK;

    if (!b->target->experts)
        DR_FAIL(DR_EUNSUPPORTED,
                "mixtures of experts for %s: its kernels take weights in "
                "another order",
                b->target->name);
    if (b->o->precision == ONNX_INT8 || b->o->precision == ONNX_INT2)
        DR_FAIL(DR_EUNSUPPORTED,
                "experts in %s: the runtime's QMoE is right in 4 bits alone",
                onnx_precision_name(b->o->precision));
    if (onnx_before(b, ONNX_SINCE_MOE))
        DR_FAIL(DR_EUNSUPPORTED, "mixtures of experts need onnxruntime 1.%d, not 1.%d",
                ONNX_SINCE_MOE, b->o->min_ort_minor);
    if (onnx_precision_bits(b->o->precision) != 0 && !b->c->experts.renormalize) {
        st = dr_fail(DR_EUNSUPPORTED,
                     "norm_topk_prob false: the runtime's QMoE normalizes all the same");
        dr_hint("give --precision fp32");
        goto done;
    }
    DR_TRY(router(b, &logits, layer, path, x));
    for (int i = 0; i < 2; i++) {
        hf_expert_part part = i == 0 ? HF_EXPERT_GATE_UP : HF_EXPERT_DOWN;
        const char *p =
            onnx_build_path(b, path, i == 0 ? "experts/gate_up_proj" : "experts/down_proj");
        DR_TRY(weight(b, &names[i], layer, p, part));
        DR_TRY(bias(b, &names[i], layer, p, part));
    }
    *out = experts(b, path, x, logits, names);
done:
    return st;
}
