/*
 * build_rope.c - the tables of cosines and sines that GroupQueryAttention rotates with.
 *
 * Longrope has two pairs: up to original_max tokens the small one holds, beyond it the
 * large one, from the first position on.  The model builder copies one of them through an
 * If at every step; here both lie in one table, the small rows first, and a Slice gives the
 * rows of the pair that holds, from position 0 to the length:
 *
 *     start = original_max * (length > original_max),  rows [start, start + length)
 *
 * 1. It copies what is needed, at most 1 part in 2 * layers * kv_heads of what attention
 *    reads, keeps the tables out of model.onnx, and runs on 1.20, whose GroupQueryAttention
 *    has no position_ids.  Padded batches work, since positions stay the kernel's.
 * 2. Phi-3.5, 4096 of 131072: the If copies 50 MB a step, this 1.6 MB.
 */
#include <string.h>

#include "core/mem.h"
#include "onnx/build_impl.h"

#define PATH "/model/rope_caches_subgraph/"

/* The first row and the end of the rows in use, int64 [1] each. */
static void rows_in_use(onnx_builder *b, const char *span[2], const char *total1)
{
    onnx_graph *g = &b->g;
    const char *limit = onnx_constant1(g, b->c->rope.original_max);
    onnx_shape one = onnx_shape1(onnx_num(1));

    const char *y = onnx_op(g, "Greater", PATH "Greater", total1, limit, ONNX_BOOL, one);
    onnx_node *n = onnx_node_new(g, "", "Cast", PATH "Cast");
    onnx_node_in(g, n, y);
    onnx_attr_int(g, n, "to", ONNX_INT64);
    y = onnx_node_out(g, n, PATH "Cast/output_0", ONNX_INT64, one);
    span[0] = onnx_op(g, "Mul", PATH "Mul", y, limit, ONNX_INT64, one);
    span[1] = onnx_op(g, "Add", PATH "Add", span[0], total1, ONNX_INT64, one);
}

static const char *slice(onnx_builder *b, const char *name, const char *table,
                         const char *const span[2])
{
    onnx_graph *g = &b->g;
    const char *path = dr_arena_printf(b->arena, PATH "%s/Slice", name);
    const char *axis = onnx_constant1(g, 0);
    onnx_node *n = onnx_node_new(g, "", "Slice", path);

    onnx_node_in(g, n, table);
    onnx_node_in(g, n, span[0]);
    onnx_node_in(g, n, span[1]);
    onnx_node_in(g, n, axis);
    return onnx_node_out(g, n, name, b->float_type,
                         onnx_shape2(onnx_sym("total_sequence_length"),
                                     onnx_num(b->c->rope.rotary_dim / 2)));
}

/* What the kernel asks of its tables. */
static dr_status check(const onnx_builder *b)
{
    const hf_config *c = b->c;

    if (c->rope.rotary_dim % 16 != 0)
        return dr_fail(DR_EUNSUPPORTED,
                       "rotary size %d: GroupQueryAttention rotates "
                       "multiples of 16",
                       c->rope.rotary_dim);
    if (c->head_dim % 8 != 0)
        return dr_fail(DR_EUNSUPPORTED,
                       "head size %d: GroupQueryAttention takes multiples "
                       "of 8",
                       c->head_dim);
    return DR_OK;
}

dr_status onnx_build_rope(onnx_builder *b, const char *total1)
{
    const hf_config *c = b->c;
    bool two = c->rope.kind == HF_ROPE_LONGROPE && c->rope.original_max < c->max_position;
    size_t small = two ? (size_t)c->rope.original_max : 0, large = (size_t)c->max_position;
    size_t half = (size_t)c->rope.rotary_dim / 2, n = (small + large) * half;
    onnx_shape shape =
        onnx_shape2(onnx_num((int64_t)(small + large)), onnx_num((int64_t)half));
    const char *names[2] = {two ? "cos_table" : "cos_cache",
                            two ? "sin_table" : "sin_cache"};
    float *table = NULL;
    void *p = NULL;
    dr_status st = DR_OK;

    DR_TRY(check(b));
    DR_TRY(dr_big_alloc(&p, 2 * n, sizeof(float), "tables of rotary positions"));
    table = p;
    if (two)
        hf_rope_tables(&c->rope, false, small, table, table + n);
    hf_rope_tables(&c->rope, two, large, table + small * half, table + n + small * half);
    for (size_t i = 0; i < 2; i++)
        DR_TRY(onnx_data_floats(&b->data, names[i], shape, table + i * n, n));
    b->cos = names[0];
    b->sin = names[1];
    if (two) {
        const char *span[2];
        rows_in_use(b, span, total1);
        b->cos = slice(b, "cos_cache", names[0], span);
        b->sin = slice(b, "sin_cache", names[1], span);
    }
done:
    dr_big_free(p);
    return st;
}
