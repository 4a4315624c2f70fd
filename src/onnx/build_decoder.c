/*
 * build_decoder.c - the graph from token ids and mask to logits, layer after layer.
 *
 * Inputs: input_ids, attention_mask, past_key_values.i.key/value; outputs: logits,
 * present.i.key/value.  GroupQueryAttention wants the mask as numbers: lengths (valid
 * tokens less one, a row) and total (tokens with the past).  A residual and the norm after
 * it are one SkipSimplifiedLayerNormalization, whose fourth output is the sum.
 */
#include "core/log.h"
#include "core/mem.h"
#include "onnx/build_impl.h"

#define MASK "/model/attn_mask_reformat/attn_mask_subgraph/"

/* The caches of keys and values are declared where attention has them. */
static void declare(onnx_builder *b)
{
    onnx_dim batch = onnx_sym("batch_size");

    onnx_graph_input(&b->g, "input_ids", ONNX_INT64,
                     onnx_shape2(batch, onnx_sym("sequence_length")));
    onnx_graph_input(&b->g, "attention_mask", ONNX_INT64,
                     onnx_shape2(batch, onnx_sym("total_sequence_length")));
    onnx_graph_output(&b->g, "logits", b->logits_type, onnx_hidden((size_t)b->c->vocab));
}

static const char *to_int32(onnx_builder *b, const char *path, const char *x,
                            onnx_shape shape)
{
    onnx_graph *g = &b->g;
    onnx_node *n = onnx_node_new(g, "", "Cast", path);

    onnx_node_in(g, n, x);
    onnx_attr_int(g, n, "to", ONNX_INT32);
    return onnx_node_out(g, n, onnx_build_path(b, path, "output_0"), ONNX_INT32, shape);
}

/* The second size of the mask; scalar: as a scalar, else as [1]. */
static const char *length(onnx_builder *b, const char *path, const char *shape_of_mask,
                          bool scalar)
{
    onnx_graph *g = &b->g;
    const char *index = onnx_constant(g, (int64_t[]){1}, scalar ? 0 : 1);
    onnx_node *n = onnx_node_new(g, "", "Gather", path);

    onnx_node_in(g, n, shape_of_mask);
    onnx_node_in(g, n, index);
    onnx_attr_int(g, n, "axis", 0);
    return onnx_node_out(g, n, onnx_build_path(b, path, "output_0"), ONNX_INT64,
                         scalar ? (onnx_shape){0} : onnx_shape1(onnx_num(1)));
}

static dr_status mask(onnx_builder *b)
{
    onnx_graph *g = &b->g;
    onnx_shape rows = onnx_shape1(onnx_sym("batch_size"));
    const char *one = onnx_constant1(g, 1), *total1 = NULL;

    onnx_node *n = onnx_node_new(g, "", "ReduceSum", MASK "ReduceSum");
    onnx_node_in(g, n, "attention_mask");
    onnx_node_in(g, n, one);
    onnx_attr_int(g, n, "keepdims", 0);
    const char *x = onnx_node_out(g, n, MASK "ReduceSum/output_0", ONNX_INT64, rows);
    x = onnx_op(g, "Sub", MASK "Sub", x, one, ONNX_INT64, rows);
    b->lengths = to_int32(b, MASK "Sub/Cast", x, rows);

    x = onnx_op(g, "Shape", MASK "Shape", "attention_mask", NULL, ONNX_INT64,
                onnx_shape1(onnx_num(2)));
    b->total = length(b, MASK "Gather", x, true);
    b->total = to_int32(b, MASK "Gather/Cast", b->total, (onnx_shape){0});
    if (b->c->rope.kind == HF_ROPE_LONGROPE)
        total1 = length(b, "/model/rope_caches_subgraph/Gather", x, false);
    return onnx_build_rope(b, total1);
}

/* x and what it is added to; the sum comes back in *residual, the norm of it in *x. */
static dr_status norm(onnx_builder *b, const char *path, hf_norm which, int layer,
                      const char **residual, const char **x)
{
    onnx_graph *g = &b->g;
    size_t d = (size_t)b->c->hidden;
    bool first = *residual == NULL, final = which == HF_NORM_FINAL;
    const char *weight = onnx_build_name(b, path, "weight");
    void *values = NULL;
    onnx_node *n = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&values, d, sizeof(float), "norm"));
    DR_TRYF(hf_norm_read(b->m, which, layer, values), "reading the norm %s", path + 1);
    DR_TRY(
        onnx_data_floats(&b->data, weight, onnx_shape1(onnx_num((int64_t)d)), values, d));
    if (first) {
        n = onnx_node_new(g, "", "SimplifiedLayerNormalization",
                          onnx_build_path(b, path, "LayerNorm"));
        *residual = *x;
    } else {
        n = onnx_node_new(g, "com.microsoft", "SkipSimplifiedLayerNormalization",
                          onnx_build_path(b, path, "SkipLayerNorm"));
        onnx_node_in(g, n, *residual);
    }
    onnx_node_in(g, n, *x);
    onnx_node_in(g, n, weight);
    onnx_attr_float(g, n, "epsilon", (float)b->c->norm_eps);
    if (first) {
        onnx_attr_int(g, n, "axis", -1);
        onnx_attr_int(g, n, "stash_type", 1);
    }
    *x = onnx_node_out(g, n, onnx_build_path(b, path, "output_0"), b->float_type,
                       onnx_hidden(d));
    if (!first && !final) {
        onnx_node_no_out(n);
        onnx_node_no_out(n);
        *residual = onnx_node_out(g, n, onnx_build_path(b, path, "output_3"), b->float_type,
                                  onnx_hidden(d));
    }
done:
    dr_big_free(values);
    return st;
}

static dr_status layer_nodes(onnx_builder *b, int layer, const char **residual,
                             const char **x)
{
    const char *path = dr_arena_printf(b->arena, "/model/layers.%d", layer);
    dr_status st = DR_OK;

    DR_TRY(norm(b, onnx_build_path(b, path, "input_layernorm"), HF_NORM_ATTN, layer,
                residual, x));
    DR_TRY(onnx_build_attention(b, x, layer, onnx_build_path(b, path, "attn"), *x));
    DR_TRY(norm(b, onnx_build_path(b, path, "post_attention_layernorm"), HF_NORM_MLP, layer,
                residual, x));
    DR_TRY(onnx_build_mlp(b, x, layer, onnx_build_path(b, path, "mlp"), *x));
done:
    return st;
}

dr_status onnx_build_decoder(onnx_builder *b)
{
    const char *x = NULL, *residual = NULL;
    dr_progress progress;
    dr_status st = DR_OK;

    dr_progress_begin(&progress, "building the graph", "layers", (size_t)b->c->layers);
    declare(b);
    DR_TRY(mask(b));
    DR_TRY(onnx_build_embedding(b, &x));
    for (int i = 0; i < b->c->layers; i++) {
        DR_TRY(dr_cancelled_check());
        DR_TRYF(layer_nodes(b, i, &residual, &x), "building layer %d of %d", i,
                b->c->layers);
        dr_progress_step(&progress, (size_t)i + 1, NULL);
    }
    const char *path =
        dr_arena_printf(b->arena, "/model/layers.%d/final_norm_layernorm", b->c->layers);
    DR_TRY(norm(b, path, HF_NORM_FINAL, 0, &residual, &x));
    DR_TRY(onnx_build_head(b, x));
done:
    dr_progress_end(&progress);
    return st;
}
