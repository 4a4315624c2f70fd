/*
 * build_rope.c - the tables of cosines and sines that q and k are rotated with.
 *
 * GroupQueryAttention rotates when the rotated part is a multiple of 16 values; else (20 of
 * 80, StableLM 3B) a RotaryEmbedding each for q and k does, with the positions that the
 * mask gives.
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

#define PATH      "/model/rope_caches_subgraph/"
#define POSITIONS "/model/position_ids_subgraph/"
#define SHIFTED   "/model/pos_ids_reformat/"

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

/* ---- tables ---- */

/* One rotation's tables; suffix: "" or "_local". */
static dr_status tables(onnx_builder *b, onnx_rope_names *names, const hf_rope *r,
                        const char *suffix, const char *mask_shape)
{
    bool two = r->kind == HF_ROPE_LONGROPE && r->original_max < b->c->max_position;
    size_t small = two ? (size_t)r->original_max : 0, large = (size_t)b->c->max_position;
    size_t half = (size_t)r->rotary_dim / 2, n = (small + large) * half;
    onnx_shape shape =
        onnx_shape2(onnx_num((int64_t)(small + large)), onnx_num((int64_t)half));
    bool cut = two && !b->target->whole_tables;
    const char *kind = cut ? "table" : "cache", *name[2];
    float *table = NULL;
    void *p = NULL;
    dr_status st = DR_OK;

    name[0] = dr_arena_printf(b->arena, "cos_%s%s", kind, suffix);
    name[1] = dr_arena_printf(b->arena, "sin_%s%s", kind, suffix);
    DR_TRY(dr_big_alloc(&p, 2 * n, sizeof(float), "tables of rotary positions"));
    table = p;
    if (two)
        hf_rope_tables(r, false, small, table, table + n);
    hf_rope_tables(r, two, large, table + small * half, table + n + small * half);
    for (size_t i = 0; i < 2; i++)
        DR_TRY(onnx_data_floats(&b->data, name[i], shape, table + i * n, n));
    *names = (onnx_rope_names){name[0], name[1]};
    if (cut) {
        const char *span[2];
        rows_in_use(b, span, onnx_build_length(b, PATH "Gather", mask_shape, false));
        names->cos = slice(b, "cos_cache", name[0], span);
        names->sin = slice(b, "sin_cache", name[1], span);
    }
done:
    dr_big_free(p);
    return st;
}

/* ---- positions ---- */

/*
 * Of the new tokens, int64 [batch, sequence]: the mask's running sum less one, not below
 * zero (padding), from the last sequence_length columns.
 */
static const char *positions(onnx_builder *b)
{
    onnx_dim batch = onnx_sym("batch_size"), total = onnx_sym("total_sequence_length");
    onnx_shape all = onnx_shape2(batch, total), one = onnx_shape1(onnx_num(1));
    onnx_graph *g = &b->g;

    const char *x = onnx_op(g, "CumSum", POSITIONS "CumSum", "attention_mask",
                            onnx_constant(g, (int64_t[]){1}, 0), ONNX_INT64, all);
    x = onnx_op(g, "Sub", POSITIONS "Sub", x, onnx_constant1(g, 1), ONNX_INT64, all);
    x = onnx_op(g, "Max", POSITIONS "Max", x, onnx_constant1(g, 0), ONNX_INT64, all);
    const char *n = onnx_op(g, "Shape", POSITIONS "Shape", "input_ids", NULL, ONNX_INT64,
                            onnx_shape1(onnx_num(2)));
    n = onnx_build_length(b, POSITIONS "Gather", n, false);
    n = onnx_op(g, "Neg", POSITIONS "Neg", n, NULL, ONNX_INT64, one);
    const char *end = onnx_constant1(g, INT64_MAX), *axis = onnx_constant1(g, 1);
    onnx_node *cut = onnx_node_new(g, "", "Slice", POSITIONS "Slice");
    onnx_node_in(g, cut, x);
    onnx_node_in(g, cut, n);
    onnx_node_in(g, cut, end);
    onnx_node_in(g, cut, axis);
    return onnx_node_out(g, cut, "position_ids", ONNX_INT64,
                         onnx_shape2(batch, onnx_sym("sequence_length")));
}

/* position_ids, plus original_max when the largest is beyond: rows of the large table. */
static const char *shifted_positions(onnx_builder *b)
{
    onnx_graph *g = &b->g;
    int64_t limit = b->c->rope.original_max;
    onnx_shape scalar = {0};
    onnx_shape ids = onnx_shape2(onnx_sym("batch_size"), onnx_sym("sequence_length"));
    const char *least = onnx_constant(g, &limit, 0);

    onnx_node *n = onnx_node_new(g, "", "ReduceMax", SHIFTED "ReduceMax");
    onnx_node_in(g, n, "position_ids");
    onnx_attr_int(g, n, "keepdims", 0);
    const char *y = onnx_node_out(g, n, SHIFTED "ReduceMax/output_0", ONNX_INT64, scalar);
    y = onnx_op(g, "GreaterOrEqual", SHIFTED "GreaterOrEqual", y, least, ONNX_BOOL, scalar);
    y = onnx_cast(g, SHIFTED "Cast", y, ONNX_INT64, scalar);
    y = onnx_op(g, "Mul", SHIFTED "Mul", y, least, ONNX_INT64, scalar);
    return onnx_op(g, "Add", SHIFTED "Add_1", y, "position_ids", ONNX_INT64, ids);
}

const char *onnx_build_rotated(onnx_builder *b, const char *path, const char *x,
                               const hf_rope *rope, int heads)
{
    const onnx_rope_names *names = onnx_build_rope_names(b, rope);
    const char *name = onnx_build_path(b, path, "RotaryEmbedding");
    bool all = rope->rotary_dim == b->c->head_dim;
    onnx_graph *g = &b->g;
    onnx_node *n = onnx_node_new(g, "com.microsoft", "RotaryEmbedding", name);

    onnx_node_in(g, n, x);
    onnx_node_in(g, n, b->positions);
    onnx_node_in(g, n, names->cos);
    onnx_node_in(g, n, names->sin);
    onnx_attr_int(g, n, "interleaved", 0);
    onnx_attr_int(g, n, "num_heads", all ? 0 : heads);
    onnx_attr_int(g, n, "rotary_embedding_dim", all ? 0 : rope->rotary_dim);
    return onnx_node_out(g, n, onnx_build_path(b, name, "output_0"), b->float_type,
                         onnx_hidden((size_t)heads * (size_t)b->c->head_dim));
}

const onnx_rope_names *onnx_build_rope_names(const onnx_builder *b, const hf_rope *rope)
{
    return rope == &b->c->rope ? &b->rope : &b->rope_local;
}

dr_status onnx_build_rope(onnx_builder *b, const char *mask_shape)
{
    const hf_config *c = b->c;
    const struct {
        const hf_rope *rope;
        onnx_rope_names *names;
        const char *suffix;
    } kinds[] = {{&c->rope, &b->rope, ""}, {&c->rope_local, &b->rope_local, "_local"}};
    bool alone = false;
    dr_status st = DR_OK;

    if (c->head_dim % 8 != 0)
        DR_FAIL(DR_EUNSUPPORTED, "head size %d: GroupQueryAttention takes multiples of 8",
                c->head_dim);
    for (size_t k = 0; k < DR_COUNT(kinds); k++) {
        bool used = false;
        for (int i = 0; i < c->layers; i++)
            used = used || hf_layer_rope(c, i) == kinds[k].rope;
        if (!used)
            continue;
        DR_TRY(tables(b, kinds[k].names, kinds[k].rope, kinds[k].suffix, mask_shape));
        alone = alone || kinds[k].rope->rotary_dim % 16 != 0;
    }
    if (b->target->split_qkv)
        b->positions =
            c->rope.kind == HF_ROPE_LONGROPE && c->rope.original_max < c->max_position
                ? shifted_positions(b)
                : "position_ids";
    else if (alone)
        b->positions = positions(b);
done:
    return st;
}
