/*
 * build_npu_layer.c - one decoder layer of fixed shapes: norm, attention, MLP.
 *
 * Queries that share a key head are rows of one matrix, so that attention is two products a
 * key head and nothing is repeated (R = heads / kv_heads, T = past + S):
 *
 *     q [B, G, R*S, H] . k [B, G, H, T] -> [B, heads, S, T] + bias -> softmax
 *       -> [B, G, R*S, T] . v [B, G, T, H]
 *
 * The windowed cache of ORT GenAI has the key heads first and keys transposed, [G, 1, H, T]
 * and [G, 1, T, H]: the same products with other dims.
 *
 * Norms: in floats mean square, eps, root and quotient, which runtimes know as one; where
 * values are rounded LpNormalization, whose squares no grid has to hold.  That leaves eps
 * out, which is below what a grid of 16 bits resolves.
 */
#include <math.h>

#include "core/mem.h"
#include "onnx/npu_impl.h"

/* ---- norm ---- */

static npu_value mean_norm(npu_builder *b, const char *path, const npu_value *x)
{
    const float eps_value = (float)b->c->norm_eps;
    onnx_shape one = x->shape;
    npu_value pair[2] = {*x, *x};
    const npu_value eps = npu_const(b, dr_arena_printf(b->arena, "%s.eps", path + 1),
                                    &eps_value, npu_shape(1, 1, 0, 0, 0));

    one.dim[one.rank - 1] = onnx_num(1);
    onnx_node *n = npu_node(b, "Mul", npu_path(b, path, "Square"), pair, 2);
    pair[0] = npu_settle(b, n, x->shape);
    n = npu_node(b, "ReduceMean", npu_path(b, path, "ReduceMean"), pair, 1);
    onnx_node_in(&b->g, n, onnx_constant1(&b->g, -1));
    pair[0] = npu_settle(b, n, one);
    pair[1] = eps;
    n = npu_node(b, "Add", npu_path(b, path, "Add"), pair, 2);
    pair[0] = npu_settle(b, n, one);
    n = npu_node(b, "Sqrt", npu_path(b, path, "Sqrt"), pair, 1);
    pair[1] = npu_settle(b, n, one);
    pair[0] = *x;
    n = npu_node(b, "Div", npu_path(b, path, "Div"), pair, 2);
    return npu_settle(b, n, x->shape);
}

static npu_value unit_norm(npu_builder *b, const char *path, const npu_value *x)
{
    onnx_node *n =
        npu_node(b, "LpNormalization", npu_path(b, path, "LpNormalization"), x, 1);

    onnx_attr_int(&b->g, n, "axis", -1);
    onnx_attr_int(&b->g, n, "p", 2);
    return npu_settle(b, n, x->shape);
}

dr_status npu_norm(npu_builder *b, npu_value *out, const char *path, hf_norm which,
                   int layer, const npu_value *x)
{
    const size_t d = hf_norm_size(b->c, which);
    const bool unit = b->o->form != ONNX_NPU_FLOAT;
    npu_value pair[2];
    void *values = NULL;
    dr_status st = DR_OK;

    *out = *x;
    if (!hf_norm_exists(b->c, which))
        return DR_OK;
    DR_BUG_IF(x->shape.dim[x->shape.rank - 1].size != (int64_t)d);
    DR_TRY(dr_big_alloc(&values, d, sizeof(float), "norm"));
    DR_TRYF(hf_norm_read(b->m, which, layer, values), "reading the norm %s", path + 1);
    for (size_t i = 0; unit && i < d; i++) /* a row's mean square is its square over d */
        ((float *)values)[i] *= sqrtf((float)d);
    pair[0] = unit ? unit_norm(b, path, x) : mean_norm(b, path, x);
    pair[1] = npu_const(b, dr_arena_printf(b->arena, "%s.weight", path + 1), values,
                        npu_shape(1, (int64_t)d, 0, 0, 0));
    onnx_node *n = npu_node(b, "Mul", npu_path(b, path, "Mul"), pair, 2);
    *out = npu_settle(b, n, x->shape);
done:
    dr_big_free(values);
    return st;
}

/* ---- rotary positions ---- */

static void split(npu_builder *b, npu_value out[2], const char *path, const npu_value *x,
                  int64_t first, int64_t second)
{
    const int64_t sizes[2] = {first, second};
    onnx_node *n = npu_node(b, "Split", path, x, 1);
    onnx_shape shape = x->shape;

    onnx_node_in(&b->g, n, onnx_constant(&b->g, sizes, 2));
    onnx_attr_int(&b->g, n, "axis", -1);
    for (int i = 0; i < 2; i++) {
        shape.dim[3] = onnx_num(sizes[i]);
        out[i] = npu_moved(b, n, shape, x);
    }
}

static onnx_node *concat(npu_builder *b, const char *path, const npu_value pair[2],
                         int axis)
{
    onnx_node *n = npu_node(b, "Concat", path, pair, 2);

    onnx_attr_int(&b->g, n, "axis", axis);
    return n;
}

/* x [B, heads, S, H] with its first rotary_dim channels turned; a layer may turn none. */
static npu_value rope(npu_builder *b, const char *path, const npu_value *x, int layer)
{
    const hf_rope *r = hf_layer_rope(b->c, layer);
    npu_value part[2] = {*x}, half[2], pair[2], sum[2];

    if (r == NULL)
        return *x;
    const npu_rotation *turn = &b->rotation[r == &b->c->rope ? 0 : 1];
    const int64_t rotary = r->rotary_dim, rest = b->c->head_dim - rotary;

    if (rest > 0)
        split(b, part, npu_path(b, path, "part/Split"), x, rotary, rest);
    split(b, half, npu_path(b, path, "half/Split"), &part[0], rotary / 2, rotary / 2);
    const npu_value turned[2] = {half[1], half[0]};
    onnx_node *n = concat(b, npu_path(b, path, "half/Concat"), turned, -1);
    pair[0] = npu_moved(b, n, part[0].shape, &part[0]);
    pair[1] = turn->sin;
    n = npu_node(b, "Mul", npu_path(b, path, "sin/Mul"), pair, 2);
    sum[1] = npu_settle(b, n, part[0].shape);
    pair[0] = part[0];
    pair[1] = turn->cos;
    n = npu_node(b, "Mul", npu_path(b, path, "cos/Mul"), pair, 2);
    sum[0] = npu_settle(b, n, part[0].shape);
    n = npu_node(b, "Add", npu_path(b, path, "Add"), sum, 2);
    part[0] = npu_settle(b, n, part[0].shape);
    if (rest == 0)
        return part[0];
    return npu_settle(b, concat(b, npu_path(b, path, "part/Concat"), part, -1), x->shape);
}

/* ---- attention ---- */

/* [B, S, n*H] to [B, n, S, H]. */
static npu_value heads(npu_builder *b, const char *path, const npu_value *x, int64_t n)
{
    const int64_t perm[4] = {0, 2, 1, 3};
    const npu_value y = npu_reshape(b, npu_path(b, path, "heads/Reshape"), x,
                                    npu_shape(4, b->o->batch, b->seq, n, b->c->head_dim));

    return npu_transpose(b, npu_path(b, path, "heads/Transpose"), &y, perm);
}

/* The dims of a cache of so many tokens. */
static onnx_shape cache_shape(const npu_builder *b, bool key, int64_t tokens)
{
    const int64_t g = b->c->kv_heads, h = b->c->head_dim;

    if (!b->o->windowed)
        return npu_shape(4, b->o->batch, g, tokens, h);
    return key ? npu_shape(4, g, 1, h, tokens) : npu_shape(4, g, 1, tokens, h);
}

/*
 * Past and new keys or values, x [B, G, S, H]; the graph's cache input and output of them.
 * Windowed: [G, 1, H, T] of keys, [G, 1, T, H] of values; otherwise [B, G, T, H].
 */
static npu_value cache(npu_builder *b, const char *path, const npu_value *x, int layer,
                       bool key)
{
    const char *what = key ? "key" : "value";
    const char *past = dr_arena_printf(b->arena, "past_key_values.%d.%s", layer, what);
    const char *present = dr_arena_printf(b->arena, "present.%d.%s", layer, what);
    const int64_t keys[4] = {1, 0, 3, 2}, values[4] = {1, 0, 2, 3};
    onnx_shape all = cache_shape(b, key, b->o->total);
    onnx_shape old = cache_shape(b, key, b->past);
    npu_value pair[2];

    if (!b->o->windowed) {
        pair[0] = npu_float_in(b, past, old, present);
        pair[1] = *x;
        onnx_graph_output(&b->g, present, ONNX_FLOAT, all);
        return npu_settle_as(b, concat(b, npu_path(b, path, "Concat"), pair, 2), all,
                             present);
    }
    pair[0] = npu_bytes_in(b, past, old, present);
    pair[1] = npu_transpose(b, npu_path(b, path, "Transpose"), x, key ? keys : values);
    pair[1] = npu_bytes_out(b, path, &pair[1], present, pair[0].grid);
    onnx_node *n = concat(b, npu_path(b, path, "Concat"), pair, key ? 3 : 2);
    return npu_moved(b, n, all, &pair[0]);
}

const char *npu_scores(npu_builder *b, int layer)
{
    const char *what = b->c->attn_softcap != 0 ? "cap/out/Mul" : "MatMul";

    return dr_arena_printf(b->arena, "/model/layers.%d/attn/scores/%s/output_0", layer,
                           what);
}

/* softmax of q . k: [.., R*S, T]. */
static npu_value weights_of(npu_builder *b, const char *path, const npu_value *q,
                            const npu_value *k, int layer)
{
    const int64_t perm[4] = {0, 1, 3, 2};
    const bool window = b->bias[1].name != NULL && hf_layer_window(b->c, layer) > 0;
    npu_value pair[2] = {*q, *k};
    float least = 0, largest = 0;

    if (!b->o->windowed)
        pair[1] = npu_transpose(b, npu_path(b, path, "keys/Transpose"), k, perm);
    onnx_shape rows = q->shape;
    rows.dim[3] = onnx_num(b->o->total);
    onnx_node *n = npu_node(b, "MatMul", npu_path(b, path, "scores/MatMul"), pair, 2);
    pair[0] = npu_settle(b, n, rows);
    pair[0] =
        npu_capped(b, npu_path(b, path, "scores/cap"), &pair[0], b->c->attn_softcap, NULL);
    onnx_shape by_head = npu_shape(4, b->o->batch, b->c->heads, b->seq, b->o->total);
    pair[0] = npu_reshape(b, npu_path(b, path, "scores/Reshape"), &pair[0], by_head);
    pair[1] = b->bias[window];
    n = npu_node(b, "Add", npu_path(b, path, "mask/Add"), pair, 2);
    if (b->o->form == ONNX_NPU_QDQ)
        npu_range(b, npu_scores(b, layer), &least, &largest);
    const npu_value masked = npu_settle_in(b, n, by_head, least - NPU_HIDDEN, largest);
    n = npu_node(b, "Softmax", npu_path(b, path, "Softmax"), &masked, 1);
    onnx_attr_int(&b->g, n, "axis", -1);
    const npu_value p = npu_settle_in(b, n, by_head, 0, 1);
    return npu_reshape(b, npu_path(b, path, "weights/Reshape"), &p, rows);
}

/* q or k [B, S, heads*H] as [B, heads, S, H], normed where the model has it, and turned. */
static dr_status turned(npu_builder *b, npu_value *x, const char *path, bool key, int layer)
{
    dr_status st = DR_OK;

    *x = heads(b, path, x, key ? b->c->kv_heads : b->c->heads);
    DR_TRY(
        npu_norm(b, x, npu_path(b, path, "norm"), key ? HF_NORM_K : HF_NORM_Q, layer, x));
    *x = rope(b, npu_path(b, path, "rope"), x, layer);
done:
    return st;
}

/* q, k, v [B, S, ..] to the input of o_proj. */
static dr_status attend(npu_builder *b, npu_value *out, const char *path, npu_value qkv[3],
                        int layer)
{
    const int64_t batch = b->o->batch, g = b->c->kv_heads, h = b->c->head_dim;
    const int64_t rows = b->c->heads / g * b->seq, back[4] = {0, 2, 1, 3};
    npu_value q = qkv[0], k = qkv[1], pair[2];
    dr_status st = DR_OK;

    DR_TRY(turned(b, &q, npu_path(b, path, "q"), false, layer));
    DR_TRY(turned(b, &k, npu_path(b, path, "k"), true, layer));
    npu_value v = heads(b, npu_path(b, path, "v"), &qkv[2], g);
    q = npu_scaled(b, npu_path(b, path, "q/scale"), &q, b->c->attn_scale, NULL);
    q = npu_reshape(b, npu_path(b, path, "q/rows/Reshape"), &q,
                    b->o->windowed ? npu_shape(4, g, 1, rows, h)
                                   : npu_shape(4, batch, g, rows, h));
    k = cache(b, npu_path(b, path, "k/cache"), &k, layer, true);
    v = cache(b, npu_path(b, path, "v/cache"), &v, layer, false);
    pair[0] = weights_of(b, path, &q, &k, layer);
    pair[1] = v;
    onnx_node *n = npu_node(b, "MatMul", npu_path(b, path, "values/MatMul"), pair, 2);
    npu_value y = npu_settle(b, n, q.shape);
    y = npu_reshape(b, npu_path(b, path, "values/Reshape"), &y,
                    npu_shape(4, batch, b->c->heads, b->seq, h));
    y = npu_transpose(b, npu_path(b, path, "values/Transpose"), &y, back);
    *out = npu_reshape(b, npu_path(b, path, "out/Reshape"), &y,
                       npu_shape(3, batch, b->seq, b->c->heads * h, 0));
done:
    return st;
}

static dr_status attention(npu_builder *b, npu_value *x, const char *path, int layer)
{
    static const char *const names[3] = {"q_proj", "k_proj", "v_proj"};
    const size_t q = (size_t)(b->c->heads * b->c->head_dim);
    const size_t kv = (size_t)(b->c->kv_heads * b->c->head_dim);
    const size_t counts[3] = {q, kv, kv};
    npu_value qkv[3], y;
    onnx_source s = {0};
    size_t row = 0;
    dr_status st = DR_OK;

    DR_TRY(onnx_source_slot(&s, b->m, b->data->pool, layer, HF_SLOT_QKV));
    for (int i = 0; i < 3; i++) {
        DR_TRY(npu_linear(b, &qkv[i], npu_path(b, path, names[i]),
                          (npu_rows){&s, row, counts[i]}, x));
        row += counts[i];
    }
    DR_TRY(attend(b, &y, path, qkv, layer));
    onnx_source_release(&s);
    DR_TRY(onnx_source_slot(&s, b->m, b->data->pool, layer, HF_SLOT_O));
    DR_TRY(npu_linear(b, x, npu_path(b, path, "o_proj"), (npu_rows){&s, 0, s.rows}, &y));
done:
    onnx_source_release(&s);
    return st;
}

/* ---- MLP ---- */

static npu_value activation(npu_builder *b, const char *path, const npu_value *x)
{
    npu_value pair[2] = {*x};

    if (b->c->act != HF_ACT_SILU) {
        onnx_node *n = npu_node(b, "Gelu", npu_path(b, path, "Gelu"), x, 1);
        if (b->c->act == HF_ACT_GELU_TANH)
            onnx_attr_text(&b->g, n, "approximate", "tanh");
        return npu_settle(b, n, x->shape);
    }
    onnx_node *n = npu_node(b, "Sigmoid", npu_path(b, path, "Sigmoid"), x, 1);
    pair[1] = npu_settle_in(b, n, x->shape, 0, 1);
    n = npu_node(b, "Mul", npu_path(b, path, "Mul"), pair, 2);
    return npu_settle(b, n, x->shape);
}

static dr_status mlp(npu_builder *b, npu_value *x, const char *path, int layer)
{
    npu_value gate, up, pair[2];
    onnx_source s = {0};
    dr_status st = DR_OK;

    DR_TRY(onnx_source_slot(&s, b->m, b->data->pool, layer, HF_SLOT_GATE_UP));
    const size_t half = s.rows / 2;
    DR_TRY(
        npu_linear(b, &gate, npu_path(b, path, "gate_proj"), (npu_rows){&s, 0, half}, x));
    DR_TRY(npu_linear(b, &up, npu_path(b, path, "up_proj"), (npu_rows){&s, half, half}, x));
    onnx_source_release(&s);

    pair[0] = activation(b, npu_path(b, path, "act_fn"), &gate);
    pair[1] = up;
    onnx_node *n = npu_node(b, "Mul", npu_path(b, path, "Mul"), pair, 2);
    const npu_value y = npu_settle(b, n, gate.shape);
    DR_TRY(onnx_source_slot(&s, b->m, b->data->pool, layer, HF_SLOT_DOWN));
    DR_TRY(npu_linear(b, x, npu_path(b, path, "down_proj"), (npu_rows){&s, 0, s.rows}, &y));
done:
    onnx_source_release(&s);
    return st;
}

/* ---- the layer ---- */

/* *x plus y, normed and scaled where the model does. */
static dr_status residual(npu_builder *b, npu_value *x, npu_value y, const char *path,
                          hf_norm which, int layer)
{
    dr_status st = DR_OK;

    DR_TRY(npu_norm(b, &y, npu_path(b, path, "out_norm"), which, layer, &y));
    y = npu_scaled(b, npu_path(b, path, "out_scale"), &y, b->c->residual_scale, NULL);
    const npu_value pair[2] = {*x, y};
    onnx_node *n = npu_node(b, "Add", npu_path(b, path, "residual/Add"), pair, 2);
    *x = npu_settle(b, n, x->shape);
done:
    return st;
}

dr_status npu_layer(npu_builder *b, npu_value *x, int layer)
{
    const char *path = dr_arena_printf(b->arena, "/model/layers.%d", layer);
    const char *attn = npu_path(b, path, "attn"), *ffn = npu_path(b, path, "mlp");
    npu_value y;
    dr_status st = DR_OK;

    DR_TRY(npu_norm(b, &y, npu_path(b, path, "input_layernorm"), HF_NORM_ATTN, layer, x));
    DR_TRY(attention(b, &y, attn, layer));
    DR_TRY(residual(b, x, y, attn, HF_NORM_ATTN_OUT, layer));
    DR_TRY(npu_norm(b, &y, npu_path(b, path, "post_attention_layernorm"), HF_NORM_MLP,
                    layer, x));
    DR_TRY(mlp(b, &y, ffn, layer));
    DR_TRY(residual(b, x, y, ffn, HF_NORM_MLP_OUT, layer));
done:
    return st;
}
