/*
 * build_embedding.c - token ids to hidden states, and hidden states to logits.
 *
 * A tied model has one table for both, and so has the file:
 *   float   one initializer [V, D]: Gather reads its rows, FusedMatMul its transpose
 *   packed  the head's MatMulNBits weight [V, D/block, block*bits/8] and a second
 *           initializer over the same bytes, from which GatherBlockQuantized takes rows.
 *           Runtimes from 1.23 on know bytes with a `bits` attribute [V, D*bits/8]; from
 *           1.20 on they know uint4 [V, D] with zero points of uint4, always given: the
 *           same bytes.
 * An untied embedding beside packed weights keeps the 16 bits of its file and is cast.
 * The packed table cannot be shared when D is no multiple of the block (rows are padded),
 * or, in the uint4 form, when the zero points of a row end inside a byte; the embedding is
 * then float.
 */
#include <string.h>

#include "core/mem.h"
#include "onnx/build_impl.h"

static int head_bits(const onnx_builder *b)
{
    return b->o->head_bits == 8 ? 8 : 4;
}

/* Why the embedding cannot be cut from the packed head; NULL: it can. */
static const char *not_shared(const onnx_builder *b, const onnx_grid *grid)
{
    size_t d = (size_t)b->c->hidden, block = (size_t)grid->block;

    if (d % block != 0)
        return "its width is no multiple of the block";
    if (onnx_before(b, ONNX_SINCE_BYTES) && !grid->symmetric && d / block % 2 != 0)
        return "its zero points do not fill bytes, as onnxruntime before 1.23 needs it";
    return NULL;
}

/* ---- embedding ---- */

/* A table beside packed weights stays in the 16 bits that the model has it in: a few rows
 * are cast for each token, and nothing is lost. */
static onnx_type table_type(const onnx_builder *b)
{
    const dr_tensor *t = hf_tensor_find(b->m, "model.embed_tokens.weight");

    if (b->o->precision == ONNX_FP32 || b->float_type != ONNX_FLOAT || t == NULL)
        return b->float_type;
    return t->dtype == DR_DTYPE_BF16  ? ONNX_BFLOAT16
           : t->dtype == DR_DTYPE_F16 ? ONNX_FLOAT16
                                      : ONNX_FLOAT;
}

static dr_status float_embedding(onnx_builder *b, const char **out)
{
    static const char name[] = "model.embed_tokens.weight";
    static const char path[] = "/model/embed_tokens/Gather";
    onnx_type type = table_type(b);
    onnx_source s = {0};
    dr_status st = DR_OK;

    onnx_source_embedding(&s, b->m);
    DR_TRYF(onnx_data_rows(&b->data, name, type, &s), "writing the embedding");
    b->table = b->g.inits.last;
    *out = onnx_op(&b->g, "Gather", path, name, "input_ids", type, onnx_hidden(s.cols));
    if (type != b->float_type)
        *out = onnx_cast(&b->g, "/model/embed_tokens/Cast", *out, b->float_type,
                         onnx_hidden(s.cols));
done:
    onnx_source_release(&s);
    return st;
}

/* Zero points of 1.20's form: of the middle when there are none, else the same bytes. */
static dr_status old_zeros(onnx_builder *b, const char **out, const onnx_grid *grid,
                           onnx_shape shape)
{
    static const char name[] = "model.embed_tokens.weight_zero_points";
    size_t bytes = (size_t)shape.dim[0].size * (size_t)shape.dim[1].size;
    void *middle = NULL;
    dr_status st = DR_OK;

    *out = name;
    if (!grid->symmetric) {
        (void)onnx_data_alias(&b->data, name, ONNX_UINT4, shape, b->tied.zeros);
        return DR_OK;
    }
    bytes = (bytes + 1) / 2;
    DR_TRY(dr_big_alloc(&middle, bytes, 1, "zero points"));
    memset(middle, 0x88, bytes);
    DR_TRY(onnx_data_raw(&b->data, name, ONNX_UINT4, shape, middle, bytes));
done:
    dr_big_free(middle);
    return st;
}

/* Rows of the head's packed weight, which b->tied holds. */
static dr_status packed_embedding(onnx_builder *b, const char **out, const onnx_grid *grid)
{
    static const char name[] = "model.embed_tokens.weight_packed";
    static const char path[] = "/model/embed_tokens/GatherBlockQuantized";
    int64_t d = b->c->hidden;
    onnx_dim rows = onnx_num(b->c->vocab), blocks = onnx_num(d / grid->block);
    const char *zeros = b->tied.zeros != NULL ? b->tied.zeros->name : NULL;
    onnx_graph *g = &b->g;
    dr_status st = DR_OK;

    if (onnx_before(b, ONNX_SINCE_BYTES)) {
        (void)onnx_data_alias(&b->data, name, ONNX_UINT4, onnx_shape2(rows, onnx_num(d)),
                              b->tied.codes);
        DR_TRY(old_zeros(b, &zeros, grid, onnx_shape2(rows, blocks)));
    } else {
        (void)onnx_data_alias(&b->data, name, ONNX_UINT8,
                              onnx_shape2(rows, onnx_num(d * grid->bits / 8)),
                              b->tied.codes);
    }
    onnx_node *n = onnx_node_new(g, "com.microsoft", "GatherBlockQuantized", path);
    onnx_node_in(g, n, name);
    onnx_node_in(g, n, "input_ids");
    onnx_node_in(g, n, b->tied.scales->name);
    if (zeros != NULL)
        onnx_node_in(g, n, zeros);
    if (!onnx_before(b, ONNX_SINCE_BYTES))
        onnx_attr_int(g, n, "bits", grid->bits);
    onnx_attr_int(g, n, "block_size", grid->block);
    onnx_attr_int(g, n, "gather_axis", 0);
    onnx_attr_int(g, n, "quantize_axis", 1);
    *out = onnx_node_out(g, n, onnx_build_path(b, path, "output_0"), b->float_type,
                         onnx_hidden((size_t)d));
done:
    return st;
}

static dr_status rows_of_ids(onnx_builder *b, const char **out)
{
    onnx_grid grid = onnx_build_grid(b, head_bits(b));
    const char *names[3];
    onnx_source s = {0};
    dr_status st = DR_OK;

    if (b->o->precision == ONNX_FP32 || !b->c->tied)
        return float_embedding(b, out);
    const char *why = not_shared(b, &grid);
    if (why != NULL) {
        onnx_note(b->report, "the embedding stays float: %s", why);
        return float_embedding(b, out);
    }
    DR_TRY(onnx_source_head(&s, b->m));
    onnx_build_packed_names(b, names, "/lm_head", grid.bits);
    DR_TRYF(onnx_data_packed(&b->data, &b->tied, names, &s, 0, s.rows, &grid, true),
            "writing the embedding");
    DR_TRY(packed_embedding(b, out, &grid));
    onnx_note(b->report, "embedding and head are one table: %d bit, blocks of %d",
              grid.bits, grid.block);
done:
    onnx_source_release(&s);
    return st;
}

dr_status onnx_build_embedding(onnx_builder *b, const char **out)
{
    dr_status st = DR_OK;

    DR_TRY(rows_of_ids(b, out));
    DR_TRY(onnx_build_scale(b, out, "/model/embed_tokens/Mul", "model.embed_multiplier",
                            b->c->embed_scale, (size_t)b->c->hidden));
done:
    return st;
}

/* ---- head ---- */

/* x times the transpose of the float embedding. */
static const char *tied_float(onnx_builder *b, const char *result, const char *x)
{
    onnx_graph *g = &b->g;
    onnx_node *n = onnx_node_new(g, "com.microsoft", "FusedMatMul", "/lm_head/MatMul");

    onnx_node_in(g, n, x);
    onnx_node_in(g, n, b->table->name);
    onnx_attr_int(g, n, "transB", 1);
    return onnx_node_out(g, n, result, b->float_type, onnx_hidden((size_t)b->c->vocab));
}

/* The product, under the name `result` (NULL: one of its own). */
static dr_status head_product(onnx_builder *b, const char **out, const char *result,
                              const char *x)
{
    onnx_grid grid = onnx_build_grid(b, head_bits(b));
    const char *name = result != NULL ? result : "/lm_head/MatMul/output_0";
    onnx_source s = {0};
    dr_status st = DR_OK;

    if (b->o->precision == ONNX_FP32 && b->c->tied) {
        *out = tied_float(b, name, x);
    } else if (b->tied.codes != NULL) {
        const char *node = dr_arena_printf(b->arena, "/lm_head/MatMul_Q%d", grid.bits);
        *out = onnx_build_packed(b, node, name, &b->tied, &grid, (size_t)b->c->hidden,
                                 (size_t)b->c->vocab, x);
    } else {
        DR_TRY(onnx_source_head(&s, b->m));
        DR_TRY(onnx_build_weight(b, out, "/lm_head", (onnx_rows){&s, 0, s.rows}, grid.bits,
                                 result, x));
    }
done:
    onnx_source_release(&s);
    return st;
}

/* ---- what follows the head ---- */

enum { STEPS_MAX = 5 };

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

/* Bias, multiplier, and s * tanh(x / s). */
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
done:
    return st;
}

dr_status onnx_build_head(onnx_builder *b, const char *x)
{
    onnx_shape shape = onnx_hidden((size_t)b->c->vocab);
    onnx_graph *g = &b->g;
    steps s = {0};
    dr_status st = DR_OK;

    DR_TRY(plan_steps(b, &s));
    DR_TRY(head_product(b, &x, s.count == 0 ? "logits" : NULL, x));
    for (size_t i = 0; i < s.count; i++) { /* the last of them makes the graph's output */
        const step *k = &s.list[i];
        const char *out = onnx_build_path(b, k->path, "output_0");
        onnx_node *n = onnx_node_new(g, "", k->op, k->path);
        onnx_node_in(g, n, x);
        if (k->operand != NULL)
            onnx_node_in(g, n, k->operand);
        x = onnx_node_out(g, n, i + 1 == s.count ? "logits" : out, b->float_type, shape);
    }
done:
    return st;
}
