/*
 * build_mlp.c - gate and up to the output of down_proj; fc1 and fc2 where there is no gate.
 *
 * Two products, as the model builder writes them, also where the file has one gate_up_proj:
 * its rows are cut in two.  An adapter of gate_up_proj is one product that is split.
 * Sigmoid and Mul are what the runtime fuses into one QuickGelu of alpha 1.  Gelu is the
 * runtime's own operator on the CPU, in both forms: ONNX has it from opset 20 on, which the
 * model builder uses and whose providers have it.
 */
#include "onnx/build_impl.h"

/* What the adapter of a fused gate_up_proj makes of each half. */
static dr_status fused_lora(onnx_builder *b, onnx_lora half[2], const char *path,
                            const onnx_source *s, const char *x)
{
    const char *p = onnx_build_path(b, path, "gate_up_proj");
    const char *adds[2] = {0}, *factors[2] = {0};
    const int64_t rows[2] = {(int64_t)s->rows / 2, (int64_t)s->rows / 2};
    onnx_lora both = {0};
    dr_status st = DR_OK;

    DR_TRY(onnx_build_lora(b, &both, p, s->part[0], x));
    if (both.add != NULL)
        onnx_split(&b->g, adds, onnx_build_path(b, p, "lora/Split"), both.add, rows, 2,
                   b->float_type, onnx_hidden(0));
    if (both.factor != NULL)
        onnx_split(&b->g, factors, onnx_build_path(b, p, "lora_magnitude/Split"),
                   both.factor, rows, 2, b->float_type, onnx_shape1(onnx_num(0)));
    for (int i = 0; i < 2; i++)
        half[i] = (onnx_lora){adds[i], factors[i]};
done:
    return st;
}

static dr_status gate_up(onnx_builder *b, const char *half[2], const char *path,
                         const onnx_source *s, const char *x)
{
    static const char *const names[2] = {"gate_proj", "up_proj"};
    size_t rows = s->rows / 2;
    onnx_lora lora[2] = {{0}};
    dr_status st = DR_OK;

    if (s->part_count == 1)
        DR_TRY(fused_lora(b, lora, path, s, x));
    for (size_t i = 0; i < 2; i++) {
        const char *p = onnx_build_path(b, path, names[i]);
        DR_TRY(onnx_build_linear(b, &half[i], p, (onnx_rows){s, i * rows, rows}, x));
        if (s->part_count == 2)
            DR_TRY(onnx_build_lora(b, &lora[i], p, s->part[i], x));
        half[i] = onnx_lora_apply(b, p, &lora[i], half[i], rows);
    }
done:
    return st;
}

static const char *activation(onnx_builder *b, const char *path, const char *x)
{
    onnx_shape inner = onnx_hidden((size_t)b->c->intermediate);
    bool tanh = b->c->act == HF_ACT_GELU_TANH;
    onnx_graph *g = &b->g;

    if (b->c->act == HF_ACT_SILU) {
        const char *y = onnx_op(g, "Sigmoid", onnx_build_path(b, path, "act_fn/Sigmoid"), x,
                                NULL, b->float_type, inner);
        return onnx_op(g, "Mul", onnx_build_path(b, path, "act_fn/Mul"), x, y,
                       b->float_type, inner);
    }
    const char *name = onnx_build_path(b, path, tanh ? "act_fn/FastGelu" : "act_fn/Gelu");
    const char *op = tanh && b->target->own_gelu ? "FastGelu" : "Gelu";
    onnx_node *n = onnx_node_new(g, b->target->own_gelu ? "com.microsoft" : "", op, name);
    onnx_node_in(g, n, x);
    if (!b->target->own_gelu) {
        onnx_opset_at_least(g, ONNX_OPSET_GELU);
        if (tanh)
            onnx_attr_text(g, n, "approximate", "tanh");
    }
    return onnx_node_out(g, n, onnx_build_path(b, name, "output_0"), b->float_type, inner);
}

/* One slot as one product, with its adapters. */
static dr_status whole(onnx_builder *b, const char **out, int layer, const char *path,
                       hf_slot slot, const char *x)
{
    onnx_source s = {0};
    dr_status st = DR_OK;

    DR_TRY(onnx_source_slot(&s, b->m, b->data.pool, layer, slot));
    DR_TRY(onnx_build_linear(b, out, path, (onnx_rows){&s, 0, s.rows}, x));
    DR_TRY(onnx_build_lora_add(b, out, path, &s, x));
done:
    onnx_source_release(&s);
    return st;
}

static dr_status gated(onnx_builder *b, const char **out, int layer, const char *path,
                       const char *x)
{
    const char *half[2] = {0};
    onnx_source s = {0};
    dr_status st = DR_OK;

    DR_TRY(onnx_source_slot(&s, b->m, b->data.pool, layer, HF_SLOT_GATE_UP));
    DR_TRY(gate_up(b, half, path, &s, x));
    *out =
        onnx_op(&b->g, "Mul", onnx_build_path(b, path, "Mul"), activation(b, path, half[0]),
                half[1], b->float_type, onnx_hidden((size_t)b->c->intermediate));
done:
    onnx_source_release(&s);
    return st;
}

dr_status onnx_build_mlp(onnx_builder *b, const char **out, int layer, const char *path,
                         const char *x)
{
    const char *down = onnx_build_path(b, path, b->c->gated ? "down_proj" : "fc2");
    dr_status st = DR_OK;

    if (b->c->gated) {
        DR_TRY(gated(b, out, layer, path, x));
    } else {
        DR_TRY(whole(b, out, layer, onnx_build_path(b, path, "fc1"), HF_SLOT_GATE_UP, x));
        *out = activation(b, path, *out);
    }
    DR_TRY(whole(b, out, layer, down, HF_SLOT_DOWN, *out));
done:
    return st;
}
