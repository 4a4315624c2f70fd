/*
 * build_lora.c - what adapters add to a product: optional inputs, and the nodes behind
 * them.
 *
 * A module has two inputs, lora_A [K, r] and lora_B [r, N].  Each is a graph input and an
 * initializer of the same name without elements (rank 0: [K, 0] and [0, N]), so that the
 * base model runs alone: a product over an inner size of 0 is zero.
 *
 *   floats    MatMul with A, MatMul with B; other types than the graph's through a Cast
 *   int4      build_lora_int4.c
 *   DoRA      the sum is multiplied by lora_magnitude_vector [N], ones by default
 *
 * 1. Each module has its own name for r.  ONNX Runtime reuses memory between values whose
 *    shapes are written alike, and fails when one module has rank 8 and another rank 0
 *    under one name (seen in 1.20.1 and 1.32.0).
 * 2. q, k and v are one product here.  Their adapters' outputs are concatenated and added;
 *    a module without one gives zeros through constants of rank 0.  Measured on SmolLM2's
 *    shape with q and v at rank 8, 2 threads, ms a token: no adapter 5.10, this 5.44, split
 *    after the product 5.71, three base products 6.44 (1.32.0: 5.21, 5.73, 5.95, 6.31).
 * 3. DoRA's factor leaves the bias alone: it is taken off before and added again after.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "onnx/build_impl.h"
#include "onnx/build_lora_impl.h"

static int by_path(const void *a, const void *b)
{
    const onnx_slot *p = a, *q = b;

    return strcmp(p->path, q->path);
}

static const onnx_slot *slot_of(const onnx_builder *b, const hf_linear *l)
{
    const onnx_slot key = {l->path, false};

    return b->lora_count == 0
               ? NULL
               : bsearch(&key, b->lora, b->lora_count, sizeof(*b->lora), by_path);
}

/* ---- inputs ---- */

onnx_type lora_type(const onnx_builder *b)
{
    return (onnx_type)dr_dtype_onnx(b->form.dtype);
}

void lora_input(onnx_builder *b, const char *name, onnx_type type, onnx_shape shape)
{
    onnx_shape none = shape;

    for (int i = 0; i < shape.rank; i++) {
        if (shape.dim[i].name != NULL)
            none.dim[i] = onnx_num(0);
    }
    onnx_graph_input(&b->g, name, type, shape);
    (void)onnx_graph_init(&b->g, name, type, none);
}

const char *lora_cast(onnx_builder *b, const char *path, const char *x, onnx_shape shape)
{
    if (lora_type(b) == b->float_type)
        return x;
    return onnx_cast(&b->g, onnx_build_path(b, path, "Cast"), x, b->float_type, shape);
}

onnx_dim lora_size(size_t size, const char *r)
{
    return size > 0 ? onnx_num((int64_t)size) : onnx_sym(r);
}

onnx_shape lora_result(const lora_half *h)
{
    onnx_shape shape = onnx_hidden(h->n);

    if (h->n == 0)
        shape.dim[2] = onnx_sym(h->r);
    return shape;
}

/* ---- products ---- */

static const char *float_half(onnx_builder *b, const lora_half *h, const char *x)
{
    onnx_shape shape = onnx_shape2(lora_size(h->k, h->r), lora_size(h->n, h->r));
    const char *name = dr_arena_printf(b->arena, "%s.weight", h->name);

    lora_input(b, name, lora_type(b), shape);
    name = lora_cast(b, h->path, name, shape);
    return onnx_op(&b->g, "MatMul", onnx_build_path(b, h->path, "MatMul"), x, name,
                   b->float_type, lora_result(h));
}

/* ---- a module ---- */

/* The factor of each output: an optional input of ones; all of one length share them. */
static dr_status magnitude(onnx_builder *b, const char **out, const char *path,
                           const hf_linear *l)
{
    static const char tail[] = ".lora_magnitude_vector";
    const char *name = dr_arena_printf(b->arena, "%s%s", l->path, tail);
    onnx_shape shape = onnx_shape1(onnx_num((int64_t)l->n_out));
    const onnx_init *same = NULL;
    void *ones = NULL;
    dr_status st = DR_OK;

    for (const onnx_init *i = b->g.inits.first; i != NULL && same == NULL; i = i->next) {
        size_t n = strlen(i->name);
        if (n >= sizeof(tail) && strcmp(i->name + n - sizeof(tail) + 1, tail) == 0 &&
            i->shape.dim[0].size == shape.dim[0].size)
            same = i;
    }
    onnx_graph_input(&b->g, name, lora_type(b), shape);
    if (same != NULL) {
        (void)onnx_data_alias(&b->data, name, lora_type(b), shape, same);
    } else {
        DR_TRY(dr_big_alloc(&ones, l->n_out, sizeof(float), name));
        for (size_t i = 0; i < l->n_out; i++)
            ((float *)ones)[i] = 1.0f;
        DR_TRY(onnx_data_floats_as(&b->data, name, lora_type(b), shape, ones, l->n_out));
    }
    *out = lora_cast(b, onnx_build_path(b, path, "lora_magnitude"), name, shape);
done:
    dr_big_free(ones);
    return st;
}

dr_status onnx_build_lora(onnx_builder *b, onnx_lora *out, const char *path,
                          const hf_linear *l, const char *x)
{
    const onnx_slot *slot = slot_of(b, l);
    const char *r = dr_arena_printf(b->arena, "%s.lora_r", l->path);
    lora_half h = {.r = r};
    dr_status st = DR_OK;

    *out = (onnx_lora){0};
    if (slot == NULL)
        return DR_OK;
    for (int i = 0; i < 2; i++) {
        const char *leaf = i == 0 ? "lora_A" : "lora_B";
        h.path = onnx_build_path(b, path, leaf);
        h.name = dr_arena_printf(b->arena, "%s.%s", l->path, leaf);
        h.k = i == 0 ? l->n_in : 0;
        h.n = i == 0 ? 0 : l->n_out;
        x = b->form.int4 ? lora_int4_half(b, &h, x) : float_half(b, &h, x);
    }
    out->add = x;
    if (slot->dora)
        DR_TRY(magnitude(b, &out->factor, path, l));
done:
    return st;
}

/* ---- applying it ---- */

const char *onnx_lora_apply(onnx_builder *b, const char *path, const onnx_lora *lora,
                            const char *y, size_t n_out)
{
    const char *bias = onnx_build_name(b, path, "Add.bias");
    onnx_shape shape = onnx_hidden(n_out);
    onnx_graph *g = &b->g;

    if (lora->factor == NULL || onnx_graph_find_init(&b->g, bias) == NULL)
        bias = NULL;
    if (bias != NULL)
        y = onnx_op(g, "Sub", onnx_build_path(b, path, "lora/Sub"), y, bias, b->float_type,
                    shape);
    if (lora->add != NULL)
        y = onnx_op(g, "Add", onnx_build_path(b, path, "lora/Add"), y, lora->add,
                    b->float_type, shape);
    if (lora->factor != NULL)
        y = onnx_op(g, "Mul", onnx_build_path(b, path, "lora/Mul"), y, lora->factor,
                    b->float_type, shape);
    if (bias != NULL)
        y = onnx_op(g, "Add", onnx_build_path(b, path, "lora/Bias"), y, bias, b->float_type,
                    shape);
    return y;
}

/* ---- modules side by side ---- */

/* The name of a constant without elements. */
static const char *empty_init(onnx_builder *b, const char *name, onnx_shape shape)
{
    const onnx_init *i = onnx_graph_find_init(&b->g, name);

    if (i == NULL)
        i = onnx_graph_init(&b->g, name, b->float_type, shape);
    return i->name;
}

/* Zeros of [batch, sequence, n_out], for modules without an adapter: made once. */
static const char *zeros(onnx_builder *b, const hf_linear *l, const char *x)
{
    const char *path = dr_arena_printf(b->arena, "/model/lora_zeros/%zu", l->n_out);
    const char *a_name = dr_arena_printf(b->arena, "lora.none_A.%zu", l->n_in);
    const char *b_name = dr_arena_printf(b->arena, "lora.none_B.%zu", l->n_out);
    onnx_dim k = onnx_num((int64_t)l->n_in), n = onnx_num((int64_t)l->n_out);
    onnx_dim none = onnx_num(0);

    if (onnx_graph_find_init(&b->g, b_name) != NULL)
        return onnx_build_path(b, path, "lora_B/MatMul/output_0");
    a_name = empty_init(b, a_name, onnx_shape2(k, none));
    b_name = empty_init(b, b_name, onnx_shape2(none, n));
    x = onnx_op(&b->g, "MatMul", onnx_build_path(b, path, "lora_A/MatMul"), x, a_name,
                b->float_type, onnx_hidden(0));
    return onnx_op(&b->g, "MatMul", onnx_build_path(b, path, "lora_B/MatMul"), x, b_name,
                   b->float_type, onnx_hidden(l->n_out));
}

static dr_status ones(onnx_builder *b, const char **out, size_t count)
{
    const char *name = dr_arena_printf(b->arena, "lora.ones.%zu", count);
    void *values = NULL;
    dr_status st = DR_OK;

    *out = name;
    if (onnx_graph_find_init(&b->g, name) != NULL)
        return DR_OK;
    DR_TRY(dr_big_alloc(&values, count, sizeof(float), name));
    for (size_t i = 0; i < count; i++)
        ((float *)values)[i] = 1.0f;
    DR_TRY(onnx_data_floats(&b->data, name, onnx_shape1(onnx_num((int64_t)count)), values,
                            count));
done:
    dr_big_free(values);
    return st;
}

static const char *concat(onnx_builder *b, const char *name, const char *const *parts,
                          size_t count, onnx_shape shape)
{
    onnx_graph *g = &b->g;
    onnx_node *n = onnx_node_new(g, "", "Concat", name);

    for (size_t i = 0; i < count; i++)
        onnx_node_in(g, n, parts[i]);
    onnx_attr_int(g, n, "axis", -1);
    return onnx_node_out(g, n, onnx_build_path(b, name, "output_0"), b->float_type, shape);
}

dr_status onnx_build_lora_add(onnx_builder *b, const char **y, const char *path,
                              const onnx_source *s, const char *x)
{
    const char *adds[ONNX_PARTS] = {0}, *factors[ONNX_PARTS] = {0};
    bool any = false, dora = false;
    onnx_lora lora = {0};
    dr_status st = DR_OK;

    for (size_t i = 0; i < s->part_count; i++) {
        const onnx_slot *slot = slot_of(b, s->part[i]);
        any = any || slot != NULL;
        dora = dora || (slot != NULL && slot->dora);
    }
    if (!any)
        return DR_OK;
    for (size_t i = 0; i < s->part_count; i++) {
        const hf_linear *l = s->part[i];
        const char *part = s->part_count == 1 ? path : onnx_build_path(b, path, l->leaf);
        DR_TRY(onnx_build_lora(b, &lora, part, l, x));
        adds[i] = lora.add != NULL ? lora.add : zeros(b, l, x);
        factors[i] = lora.factor;
        if (dora && factors[i] == NULL)
            DR_TRY(ones(b, &factors[i], l->n_out));
    }
    if (s->part_count > 1) {
        lora.add = concat(b, onnx_build_path(b, path, "lora/Concat"), adds, s->part_count,
                          onnx_hidden(s->rows));
        if (dora)
            lora.factor =
                concat(b, onnx_build_path(b, path, "lora_magnitude/Concat"), factors,
                       s->part_count, onnx_shape1(onnx_num((int64_t)s->rows)));
    }
    *y = onnx_lora_apply(b, path, &lora, *y, s->rows);
done:
    return st;
}
