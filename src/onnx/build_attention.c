/*
 * build_attention.c - q, k and v to the output of o_proj.
 *
 * GroupQueryAttention rotates, appends to the cache and attends.  It takes q, k and v
 * packed in one value, which is one product, unless a packed model has them on grids that
 * differ, or q and k are changed before: then there are three.
 *
 * Norms of single heads see [batch, sequence * heads, head_dim].  The sizes have names of
 * their own: see build_linear.c on shapes that are written alike.
 *
 * local_window_size: since 1.24 the runtime attends to that many tokens, the current one
 * included, as transformers does; before, it attends to one more (measured, full prompt and
 * step by step).
 */
#include "onnx/build_impl.h"

static const char *const part_names[ONNX_PARTS] = {"q_proj", "k_proj", "v_proj"};

/* One product: qkv[0] is packed, the other two are left out. */
static dr_status packed_qkv(onnx_builder *b, const char *qkv[ONNX_PARTS], const char *path,
                            const onnx_source *s, const char *x)
{
    const char *p = onnx_build_path(b, path, "qkv_proj");
    dr_status st = DR_OK;

    DR_TRY(onnx_build_linear(b, &qkv[0], p, (onnx_rows){s, 0, s->rows}, x));
    DR_TRY(onnx_build_lora_add(b, &qkv[0], p, s, x));
done:
    return st;
}

/* Rows of q, k and v. */
static size_t part_rows(const onnx_builder *b, int i)
{
    return (size_t)(i == 0 ? b->c->heads : b->c->kv_heads) * (size_t)b->c->head_dim;
}

/* A value of all three cut in three; shape: its own, but for the rows. */
static void cut(onnx_builder *b, const char *part[ONNX_PARTS], const char *name,
                const char *all, onnx_shape shape)
{
    int64_t rows[ONNX_PARTS];

    for (int i = 0; i < ONNX_PARTS; i++)
        rows[i] = (int64_t)part_rows(b, i);
    onnx_split(&b->g, part, name, all, rows, ONNX_PARTS, b->float_type, shape);
}

/* What the adapter of a fused qkv_proj makes of each part. */
static dr_status fused_lora(onnx_builder *b, onnx_lora part[ONNX_PARTS], const char *path,
                            const onnx_source *s, const char *x)
{
    const char *p = onnx_build_path(b, path, "qkv_proj");
    const char *adds[ONNX_PARTS] = {0}, *factors[ONNX_PARTS] = {0};
    onnx_lora all = {0};
    dr_status st = DR_OK;

    DR_TRY(onnx_build_lora(b, &all, p, s->part[0], x));
    if (all.add != NULL)
        cut(b, adds, onnx_build_path(b, p, "lora/Split"), all.add, onnx_hidden(0));
    if (all.factor != NULL)
        cut(b, factors, onnx_build_path(b, p, "lora_magnitude/Split"), all.factor,
            onnx_shape1(onnx_num(0)));
    for (int i = 0; i < ONNX_PARTS; i++)
        part[i] = (onnx_lora){adds[i], factors[i]};
done:
    return st;
}

/* Three products: the provider wants them, or the grids differ. */
static dr_status split_qkv(onnx_builder *b, const char *qkv[ONNX_PARTS], const char *path,
                           const onnx_source *s, const char *x)
{
    onnx_lora lora[ONNX_PARTS] = {{0}};
    size_t row0 = 0, rows = 0;
    dr_status st = DR_OK;

    if (!b->told_split && !b->target->split_qkv)
        onnx_note(b->report, "q_proj, k_proj and v_proj are packed on different grids and "
                             "stay three products");
    b->told_split = true;
    if (s->part_count == 1)
        DR_TRY(fused_lora(b, lora, path, s, x));
    for (int i = 0; i < ONNX_PARTS; i++, row0 += rows) {
        const char *p = onnx_build_path(b, path, part_names[i]);
        rows = part_rows(b, i);
        DR_TRY(onnx_build_linear(b, &qkv[i], p, (onnx_rows){s, row0, rows}, x));
        if (s->part_count == ONNX_PARTS)
            DR_TRY(onnx_build_lora(b, &lora[i], p, s->part[i], x));
        qkv[i] = onnx_lora_apply(b, p, &lora[i], qkv[i], rows);
    }
done:
    return st;
}

/* Keys or values kept from token to token, as input and output of the graph. */
static const char *cache(onnx_builder *b, const char *name, const char *length, bool past)
{
    onnx_shape shape = {4,
                        {onnx_sym("batch_size"), onnx_num(b->c->kv_heads), onnx_sym(length),
                         onnx_num(b->c->head_dim)}};

    if (past)
        onnx_graph_input(&b->g, name, b->float_type, shape);
    else
        onnx_graph_output(&b->g, name, b->float_type, shape);
    return name;
}

static int64_t window(const onnx_builder *b, int layer)
{
    int64_t n = hf_layer_window(b->c, layer);

    if (n == 0)
        return -1;
    return n - (onnx_before(b, ONNX_SINCE_WINDOW) ? 1 : 0);
}

/* ---- q and k before they are attended with ---- */

static dr_status qk_norm(onnx_builder *b, const char **x, const char *path, int layer,
                         bool k)
{
    const char *p = onnx_build_path(b, path, k ? "k_norm" : "q_norm");
    hf_norm which = k ? HF_NORM_K : HF_NORM_Q;
    int64_t head_dim = b->c->head_dim, all = (int64_t)part_rows(b, k);
    onnx_shape row = onnx_hidden((size_t)all), one = onnx_hidden((size_t)head_dim);
    onnx_graph *g = &b->g;
    dr_status st = DR_OK;

    if (b->c->qk_norm == HF_QK_NORM_ROW) {
        DR_TRY(onnx_build_norm(b, p, which, layer, row, NULL, x));
        goto done;
    }
    one.dim[1] = onnx_sym(k ? "sequence_k_heads" : "sequence_q_heads");
    *x = onnx_op(g, "Reshape", onnx_build_path(b, p, "Reshape_1"), *x,
                 onnx_constant(g, (int64_t[]){0, -1, head_dim}, 3), b->float_type, one);
    DR_TRY(onnx_build_norm(b, p, which, layer, one, NULL, x));
    *x = onnx_op(g, "Reshape", onnx_build_path(b, p, "Reshape_2"), *x,
                 onnx_constant(g, (int64_t[]){0, -1, all}, 3), b->float_type, row);
done:
    return st;
}

static dr_status prepare(onnx_builder *b, const char *qkv[ONNX_PARTS], int layer,
                         const char *path)
{
    const hf_rope *rope = hf_layer_rope(b->c, layer);
    bool rotate = rope != NULL && b->positions != NULL;
    bool norms = b->c->qk_norm != HF_QK_NORM_NONE;
    dr_status st = DR_OK;

    if ((rotate || norms) && qkv[1] == NULL)
        cut(b, qkv, onnx_build_path(b, path, "qkv_proj/Split"), qkv[0], onnx_hidden(0));
    for (int i = 0; i < 2; i++) {
        const char *p = onnx_build_path(b, path, i == 0 ? "q_rotary" : "k_rotary");
        if (norms)
            DR_TRY(qk_norm(b, &qkv[i], path, layer, i == 1));
        if (rotate)
            qkv[i] = onnx_build_rotated(b, p, qkv[i], rope,
                                        i == 0 ? b->c->heads : b->c->kv_heads);
    }
done:
    return st;
}

/* ---- attention ---- */

/* A logit of each head that no key has. */
static dr_status sinks(onnx_builder *b, int layer, const char *path)
{
    size_t heads = (size_t)b->c->heads;
    float *values = dr_arena_alloc(b->arena, heads, sizeof(*values));
    dr_status st = DR_OK;

    if (!b->c->sinks)
        goto done;
    if (onnx_before(b, ONNX_SINCE_MOE))
        DR_FAIL(DR_EUNSUPPORTED, "attention sinks need onnxruntime 1.%d, not 1.%d",
                ONNX_SINCE_MOE, b->o->min_ort_minor);
    DR_TRYF(hf_sinks_read(b->m, layer, values), "reading the sinks of layer %d", layer);
    DR_TRY(onnx_data_floats(&b->data, onnx_build_name(b, path, "sinks"),
                            onnx_shape1(onnx_num((int64_t)heads)), values, heads));
done:
    return st;
}

static const char *attend(onnx_builder *b, int layer, const char *path,
                          const char *const qkv[ONNX_PARTS])
{
    const hf_rope *rope = hf_layer_rope(b->c, layer);
    bool rotate = rope != NULL && b->positions == NULL;
    onnx_graph *g = &b->g;
    const char *name = onnx_build_path(b, path, "GroupQueryAttention");
    onnx_node *n = onnx_node_new(g, "com.microsoft", "GroupQueryAttention", name);
    const char *kv[2] = {"key", "value"}, *present[2];

    for (int i = 0; i < ONNX_PARTS; i++)
        onnx_node_in(g, n, qkv[i] != NULL ? qkv[i] : "");
    for (int i = 0; i < 2; i++) {
        const char *past = dr_arena_printf(b->arena, "past_key_values.%d.%s", layer, kv[i]);
        onnx_node_in(g, n, cache(b, past, "past_sequence_length", true));
        present[i] = dr_arena_printf(b->arena, "present.%d.%s", layer, kv[i]);
        (void)cache(b, present[i], "total_sequence_length", false);
    }
    onnx_node_in(g, n, b->lengths);
    onnx_node_in(g, n, b->total);
    onnx_node_in(g, n, rotate ? onnx_build_rope_names(b, rope)->cos : "");
    onnx_node_in(g, n, rotate ? onnx_build_rope_names(b, rope)->sin : "");
    if (b->c->sinks) {
        onnx_node_in(g, n, ""); /* positions */
        onnx_node_in(g, n, ""); /* attention bias */
        onnx_node_in(g, n, onnx_build_name(b, path, "sinks"));
    }
    onnx_attr_int(g, n, "num_heads", b->c->heads);
    onnx_attr_int(g, n, "kv_num_heads", b->c->kv_heads);
    onnx_attr_float(g, n, "scale", (float)b->c->attn_scale);
    onnx_attr_int(g, n, "local_window_size", window(b, layer));
    onnx_attr_float(g, n, "softcap", (float)b->c->attn_softcap);
    onnx_attr_int(g, n, "do_rotary", rotate);
    onnx_attr_int(g, n, "rotary_interleaved", 0);
    const char *out =
        onnx_node_out(g, n, onnx_build_path(b, name, "output_0"), b->float_type,
                      onnx_hidden((size_t)b->c->heads * (size_t)b->c->head_dim));
    for (int i = 0; i < 2; i++)
        (void)onnx_node_out(g, n, present[i], b->float_type, (onnx_shape){0});
    return out;
}

dr_status onnx_build_attention(onnx_builder *b, const char **out, int layer,
                               const char *path, const char *x)
{
    const char *o_path = onnx_build_path(b, path, "o_proj");
    const char *qkv[ONNX_PARTS] = {0};
    onnx_source s = {0};
    dr_status st = DR_OK;

    DR_TRY(onnx_source_slot(&s, b->m, b->data.pool, layer, HF_SLOT_QKV));
    if (onnx_one_product(b, (onnx_rows){&s, 0, s.rows}))
        DR_TRY(packed_qkv(b, qkv, path, &s, x));
    else
        DR_TRY(split_qkv(b, qkv, path, &s, x));
    DR_TRY(prepare(b, qkv, layer, path));
    DR_TRY(sinks(b, layer, path));
    const char *y = attend(b, layer, path, qkv);
    onnx_source_release(&s);

    DR_TRY(onnx_source_slot(&s, b->m, b->data.pool, layer, HF_SLOT_O));
    DR_TRY(onnx_build_linear(b, out, o_path, (onnx_rows){&s, 0, s.rows}, y));
    DR_TRY(onnx_build_lora_add(b, out, o_path, &s, y));
done:
    onnx_source_release(&s);
    return st;
}
