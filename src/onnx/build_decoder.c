/*
 * build_decoder.c - the graph from token ids and mask to logits, layer after layer.
 *
 * Inputs: input_ids (or inputs_embeds), attention_mask, position_ids where a provider wants
 * them, past_key_values.i.key/value; outputs: logits, hidden_states by wish,
 * present.i.key/value.  GroupQueryAttention wants the mask as numbers: lengths (valid
 * tokens less one, a row) and total (tokens with the past).
 */
#include "core/log.h"
#include "onnx/build_impl.h"

#define MASK "/model/attn_mask_reformat/attn_mask_subgraph/"

/* The caches of keys and values are declared where attention has them. */
static void declare(onnx_builder *b)
{
    onnx_dim batch = onnx_sym("batch_size");

    onnx_shape ids = onnx_shape2(batch, onnx_sym("sequence_length"));
    onnx_shape hidden = onnx_hidden((size_t)b->c->hidden);
    onnx_shape logits = onnx_hidden((size_t)b->c->vocab);

    if (b->o->exclude_embeds)
        onnx_graph_input(&b->g, "inputs_embeds", b->float_type, hidden);
    else
        onnx_graph_input(&b->g, "input_ids", ONNX_INT64, ids);
    onnx_graph_input(&b->g, "attention_mask", ONNX_INT64,
                     onnx_shape2(batch, onnx_sym("total_sequence_length")));
    if (b->target->split_qkv)
        onnx_graph_input(&b->g, "position_ids", ONNX_INT64, ids);
    if (b->o->prune_lm_head)
        logits.dim[1] = onnx_num(1);
    if (!b->o->exclude_lm_head)
        onnx_graph_output(&b->g, "logits", b->logits_type, logits);
    if (b->o->exclude_lm_head || b->o->include_hidden_states)
        onnx_graph_output(&b->g, "hidden_states", b->float_type, hidden);
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

const char *onnx_build_length(onnx_builder *b, const char *path, const char *shape,
                              bool scalar)
{
    onnx_graph *g = &b->g;
    const char *index = onnx_constant(g, (int64_t[]){1}, scalar ? 0 : 1);
    onnx_node *n = onnx_node_new(g, "", "Gather", path);

    onnx_node_in(g, n, shape);
    onnx_node_in(g, n, index);
    onnx_attr_int(g, n, "axis", 0);
    return onnx_node_out(g, n, onnx_build_path(b, path, "output_0"), ONNX_INT64,
                         scalar ? (onnx_shape){0} : onnx_shape1(onnx_num(1)));
}

static dr_status mask(onnx_builder *b)
{
    onnx_graph *g = &b->g;
    onnx_shape rows = onnx_shape1(onnx_sym("batch_size"));
    const char *one = onnx_constant1(g, 1);

    onnx_node *n = onnx_node_new(g, "", "ReduceSum", MASK "ReduceSum");
    onnx_node_in(g, n, "attention_mask");
    onnx_node_in(g, n, one);
    onnx_attr_int(g, n, "keepdims", 0);
    const char *x = onnx_node_out(g, n, MASK "ReduceSum/output_0", ONNX_INT64, rows);
    x = onnx_op(g, "Sub", MASK "Sub", x, one, ONNX_INT64, rows);
    b->lengths = to_int32(b, MASK "Sub/Cast", x, rows);

    x = onnx_op(g, "Shape", MASK "Shape", "attention_mask", NULL, ONNX_INT64,
                onnx_shape1(onnx_num(2)));
    b->total = onnx_build_length(b, MASK "Gather", x, true);
    b->total = to_int32(b, MASK "Gather/Cast", b->total, (onnx_shape){0});
    return onnx_build_rope(b, x);
}

/* The norm behind attention or MLP, if the family has one, and the residual's factor. */
static dr_status block_end(onnx_builder *b, const char *layer_path, hf_norm which,
                           int layer, const char **x)
{
    bool attn = which == HF_NORM_ATTN_OUT;
    const char *leaf = attn ? "post_attention_layernorm" : "post_feedforward_layernorm";
    const char *scaled =
        attn ? "attn/residual_multiplier/Mul" : "mlp/residual_multiplier/Mul";
    size_t d = (size_t)b->c->hidden;
    dr_status st = DR_OK;

    if (hf_norm_exists(b->c, which))
        DR_TRY(onnx_build_norm(b, onnx_build_path(b, layer_path, leaf), which, layer,
                               onnx_hidden(d), NULL, x));
    DR_TRY(onnx_build_scale(b, x, onnx_build_path(b, layer_path, scaled),
                            "model.residual_multiplier", b->c->residual_scale, d));
done:
    return st;
}

static dr_status layer_nodes(onnx_builder *b, int layer, const char **residual,
                             const char **x)
{
    const char *path = dr_arena_printf(b->arena, "/model/layers.%d", layer);
    const char *mlp_norm = hf_norm_exists(b->c, HF_NORM_ATTN_OUT)
                               ? "pre_feedforward_layernorm"
                               : "post_attention_layernorm";
    onnx_shape hidden = onnx_hidden((size_t)b->c->hidden);
    dr_status st = DR_OK;

    DR_TRY(onnx_build_norm(b, onnx_build_path(b, path, "input_layernorm"), HF_NORM_ATTN,
                           layer, hidden, residual, x));
    const char *normed = *x;
    DR_TRY(onnx_build_attention(b, x, layer, onnx_build_path(b, path, "attn"), *x));
    DR_TRY(block_end(b, path, HF_NORM_ATTN_OUT, layer, x));
    const char *attn = *x;
    if (b->c->parallel)
        *x = normed;
    else
        DR_TRY(onnx_build_norm(b, onnx_build_path(b, path, mlp_norm), HF_NORM_MLP, layer,
                               hidden, residual, x));
    if (b->c->experts.count > 0)
        DR_TRY(onnx_build_moe(b, x, layer, onnx_build_path(b, path, "moe"), *x));
    else
        DR_TRY(onnx_build_mlp(b, x, layer, onnx_build_path(b, path, "mlp"), *x));
    DR_TRY(block_end(b, path, HF_NORM_MLP_OUT, layer, x));
    if (b->c->parallel)
        *x = onnx_op(&b->g, "Add", onnx_build_path(b, path, "parallel/Add"), attn, *x,
                     b->float_type, hidden);
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
    DR_TRY(onnx_build_norm(b, path, HF_NORM_FINAL, 0, onnx_hidden((size_t)b->c->hidden),
                           &residual, &x));
    DR_TRY(onnx_build_head(b, x));
done:
    dr_progress_end(&progress);
    return st;
}
