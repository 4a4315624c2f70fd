/*
 * build_head.c - the last hidden state to logits: the product, and what a family adds.
 *
 * The product of a tied model reads the embedding's table, which build_embedding.c has
 * written; see there.
 */
#include <string.h>

#include "core/mem.h"
#include "onnx/build_impl.h"

/* x times the transpose of the float embedding. */
static const char *tied_float(onnx_builder *b, const char *result, const char *x)
{
    onnx_graph *g = &b->g;
    bool fused = b->target->fused_matmul;
    onnx_node *n = onnx_node_new(g, fused ? "com.microsoft" : "",
                                 fused ? "FusedMatMul" : "MatMul", "/lm_head/MatMul");

    onnx_node_in(g, n, x);
    onnx_node_in(g, n, b->table->name);
    if (fused)
        onnx_attr_int(g, n, "transB", 1);
    return onnx_node_out(g, n, result, b->float_type, onnx_hidden((size_t)b->c->vocab));
}

/* The last token's row alone. */
static const char *prune(onnx_builder *b, const char *x)
{
    onnx_graph *g = &b->g;
    size_t d = (size_t)b->c->hidden;
    onnx_shape rows = onnx_shape2(onnx_sym("batch_size"), onnx_num((int64_t)d));
    onnx_shape one = onnx_hidden(d);
    int64_t last = -1;

    one.dim[1] = onnx_num(1);
    onnx_node *n = onnx_node_new(g, "", "Gather", "/lm_head/prune/Gather");
    onnx_node_in(g, n, x);
    onnx_node_in(g, n, onnx_constant(g, &last, 0));
    onnx_attr_int(g, n, "axis", 1);
    x = onnx_node_out(g, n, "/lm_head/prune/Gather/output_0", b->float_type, rows);
    return onnx_op(g, "Unsqueeze", "/lm_head/prune/Unsqueeze", x, onnx_constant1(g, 1),
                   b->float_type, one);
}

/* The product, under the name `result` (NULL: one of its own). */
static dr_status head_product(onnx_builder *b, const char **out, const char *result,
                              const char *x)
{
    const char *name = result != NULL ? result : "/lm_head/MatMul/output_0";
    onnx_source s = {0};
    dr_status st = DR_OK;

    DR_TRY(onnx_source_head(&s, b->m, b->data.pool));
    bool packed = onnx_source_packed(&s, 0, s.rows);
    int bits = packed ? 0 : onnx_choose_bits(b, "/lm_head");
    if (b->head_is_table) {
        *out = tied_float(b, name, x);
    } else if (b->tied.codes != NULL) {
        *out = onnx_build_packed(b, b->tied_node, name, &b->tied, &b->tied_grid,
                                 (size_t)b->c->hidden, (size_t)b->c->vocab, x);
    } else {
        DR_TRY(onnx_build_weight(b, out, "/lm_head", (onnx_rows){&s, 0, s.rows}, bits,
                                 result, x));
    }
done:
    onnx_source_release(&s);
    return st;
}

/* ---- what follows the head ---- */

enum { STEPS_MAX = 6 };

/* One operation on logits, with an initializer (NULL: alone). */
typedef struct {
    const char *op, *path, *operand;
} step;

typedef struct {
    step list[STEPS_MAX];
    size_t count;
} steps;

static void add_step(steps *s, const char *op, const char *path, const char *operand)
{
    DR_BUG_IF(s->count == STEPS_MAX);
    s->list[s->count++] = (step){op, path, operand};
}

static dr_status number(onnx_builder *b, const char *name, double value)
{
    float v = (float)value;

    return onnx_data_floats(&b->data, name, onnx_shape1(onnx_num(1)), &v, 1);
}

static dr_status head_bias(onnx_builder *b, const char *name)
{
    size_t n = (size_t)b->c->vocab;
    void *bias = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&bias, n, sizeof(float), "bias"));
    DR_TRY(hf_head_bias(b->m, bias));
    DR_TRY(onnx_data_floats(&b->data, name, onnx_shape1(onnx_num((int64_t)n)), bias, n));
done:
    dr_big_free(bias);
    return st;
}

/* Bias, multiplier, s * tanh(x / s), and back to float. */
static dr_status plan_steps(onnx_builder *b, steps *s)
{
    static const char bias[] = "lm_head.Add.bias", scale[] = "lm_head.multiplier",
                      cap[] = "lm_head.softcap";
    dr_status st = DR_OK;

    if (b->c->head_bias) {
        DR_TRY(head_bias(b, bias));
        add_step(s, "Add", "/lm_head/Add", bias);
    }
    if (b->c->logit_scale != 1) {
        DR_TRY(number(b, scale, b->c->logit_scale));
        add_step(s, "Mul", "/lm_head/scale/Mul", scale);
    }
    if (b->c->logit_softcap != 0) {
        DR_TRY(number(b, cap, b->c->logit_softcap));
        add_step(s, "Div", "/lm_head/softcap/Div", cap);
        add_step(s, "Tanh", "/lm_head/softcap/Tanh", NULL);
        add_step(s, "Mul", "/lm_head/softcap/Mul", cap);
    }
    if (b->logits_type != b->float_type)
        add_step(s, "Cast", "/lm_head/Cast", NULL);
done:
    return st;
}

dr_status onnx_build_head(onnx_builder *b, const char *x)
{
    onnx_shape shape = onnx_hidden((size_t)b->c->vocab);
    onnx_graph *g = &b->g;
    steps s = {0};
    dr_status st = DR_OK;

    if (b->o->exclude_lm_head)
        return DR_OK;
    if (b->o->prune_lm_head)
        x = prune(b, x);
    DR_TRY(plan_steps(b, &s));
    DR_TRY(head_product(b, &x, s.count == 0 ? "logits" : NULL, x));
    for (size_t i = 0; i < s.count; i++) { /* the last of them makes the graph's output */
        const step *k = &s.list[i];
        const char *out = onnx_build_path(b, k->path, "output_0");
        onnx_node *n = onnx_node_new(g, "", k->op, k->path);
        onnx_node_in(g, n, x);
        if (k->operand != NULL)
            onnx_node_in(g, n, k->operand);
        if (strcmp(k->op, "Cast") == 0)
            onnx_attr_int(g, n, "to", b->logits_type);
        x = onnx_node_out(g, n, i + 1 == s.count ? "logits" : out, b->float_type, shape);
    }
done:
    return st;
}
