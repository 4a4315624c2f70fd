/*
 * build_embedding.c - token ids to hidden states; build_head.c has the way back.
 *
 * A tied model has one table for both, and so has the file:
 *   float   one initializer [V, D]: Gather reads its rows, FusedMatMul its transpose; or
 *           [D, V] and a Transpose before Gather, where FusedMatMul is not known
 *   packed  the head's MatMulNBits weight [V, D/block, block*bits/8] and a second
 *           initializer over the same bytes, from which GatherBlockQuantized takes rows.
 *           Runtimes from 1.23 on know bytes with a `bits` attribute [V, D*bits/8]; from
 *           1.20 on they know uint4 [V, D] with zero points of uint4, always given: the
 *           same bytes.
 * The packed table cannot be shared when D is no multiple of the block (rows are padded),
 * when the head is DequantizeLinear's (it lies on its side there), in the uint4 form when
 * the zero points of a row end inside a byte, and where GatherBlockQuantized is known to
 * take 4 bits without zero points alone; the embedding is then float.  A table that the
 * model has packed is written as it is, on the same conditions.
 *
 * An embedding without a head, or rounded by wish (ops), has a table of its own.  An untied
 * float one beside packed weights keeps the 16 bits of its file and is cast, on the CPU.
 */
#include <string.h>

#include "core/mem.h"
#include "onnx/build_impl.h"

#define EMBED "/model/embed_tokens"

static bool tied(const onnx_builder *b)
{
    return b->c->tied && !b->o->exclude_lm_head;
}

/* Why a table of this grid cannot be there; NULL: it can. */
static const char *no_table(const onnx_builder *b, const onnx_grid *grid)
{
    size_t d = (size_t)b->c->hidden, block = (size_t)grid->block;

    if (onnx_uses_qdq(b))
        return "its rows cannot be taken from DequantizeLinear's weights";
    if (!b->target->any_table && (grid->bits != 4 || !grid->symmetric))
        return "the provider takes 4 bits without zero points there";
    if (d % block != 0)
        return "its width is no multiple of the block";
    if (onnx_before(b, ONNX_SINCE_BYTES) && grid->bits != 4)
        return "onnxruntime before 1.23 takes 4 bits there";
    if (onnx_before(b, ONNX_SINCE_BYTES) && !grid->symmetric && d / block % 2 != 0)
        return "its zero points do not fill bytes, as onnxruntime before 1.23 needs it";
    return NULL;
}

/* ---- embedding ---- */

static const char *gather(onnx_builder *b, const char *table, onnx_type type)
{
    return onnx_op(&b->g, "Gather", EMBED "/Gather", table, "input_ids", type,
                   onnx_hidden((size_t)b->c->hidden));
}

/* A table beside packed weights stays in the 16 bits that the model has it in: a few rows
 * are cast for each token, and nothing is lost.  Not where the head needs it, too. */
static onnx_type table_type(const onnx_builder *b)
{
    const dr_tensor *t = hf_tensor_find(b->m, "model.embed_tokens.weight");

    if (onnx_precision_bits(b->o->precision) == 0 || b->o->provider != ONNX_CPU ||
        t == NULL || b->head_is_table)
        return b->float_type;
    return t->dtype == DR_DTYPE_BF16  ? ONNX_BFLOAT16
           : t->dtype == DR_DTYPE_F16 ? ONNX_FLOAT16
                                      : ONNX_FLOAT;
}

static dr_status float_embedding(onnx_builder *b, const char **out)
{
    static const char name[] = "model.embed_tokens.weight";
    onnx_type type = table_type(b);
    onnx_source s = {0};
    dr_status st = DR_OK;

    DR_TRY(onnx_source_embedding(&s, b->m, b->data.pool));
    DR_TRYF(onnx_data_rows(&b->data, name, type, &s), "writing the embedding");
    b->table = b->g.inits.last;
    *out = gather(b, name, type);
    if (type != b->float_type)
        *out = onnx_cast(&b->g, EMBED "/Cast", *out, b->float_type, onnx_hidden(s.cols));
done:
    onnx_source_release(&s);
    return st;
}

/* The head's weight, on its side, and turned back for the embedding. */
static dr_status turned_embedding(onnx_builder *b, const char **out)
{
    static const char name[] = "lm_head.MatMul.weight";
    int64_t perm[2] = {1, 0};
    onnx_source s = {0};
    dr_status st = DR_OK;

    DR_TRY(onnx_source_embedding(&s, b->m, b->data.pool));
    DR_TRYF(onnx_data_columns(&b->data, name, &s, 0, s.rows), "writing the embedding");
    b->table = b->g.inits.last;
    onnx_node *n = onnx_node_new(&b->g, "", "Transpose", EMBED "/Transpose");
    onnx_node_in(&b->g, n, name);
    onnx_attr_ints(&b->g, n, "perm", perm, 2);
    *out = gather(
        b,
        onnx_node_out(&b->g, n, EMBED "/Transpose/output_0", b->float_type,
                      onnx_shape2(onnx_num((int64_t)s.rows), onnx_num((int64_t)s.cols))),
        b->float_type);
done:
    onnx_source_release(&s);
    return st;
}

/* Zero points of 1.20's form: of the middle when there are none, else the same bytes. */
static dr_status old_zeros(onnx_builder *b, const char **out, const onnx_packed_init *w,
                           onnx_shape shape)
{
    static const char name[] = "model.embed_tokens.weight_zero_points";
    size_t bytes = (size_t)shape.dim[0].size * (size_t)shape.dim[1].size;
    void *middle = NULL;
    dr_status st = DR_OK;

    *out = name;
    if (w->zeros != NULL) {
        (void)onnx_data_alias(&b->data, name, ONNX_UINT4, shape, w->zeros);
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

/* Rows of a packed weight, under a name of its own when it is the head's, too. */
static dr_status packed_embedding(onnx_builder *b, const char **out, onnx_packed_init *w,
                                  const onnx_grid *grid, bool shared)
{
    const char *path = shared ? EMBED "/GatherBlockQuantized" : EMBED "/Gather";
    const char *node =
        dr_arena_printf(b->arena, shared ? "%s" : "%s_Q%d", path, grid->bits);
    const char *zeros = w->zeros != NULL ? w->zeros->name : NULL;
    bool old = onnx_before(b, ONNX_SINCE_BYTES);
    int64_t d = b->c->hidden;
    onnx_dim rows = onnx_num(b->c->vocab), blocks = onnx_num(d / grid->block);
    onnx_init *codes = w->codes;
    onnx_graph *g = &b->g;
    dr_status st = DR_OK;

    if (shared)
        codes = onnx_data_alias(&b->data, "model.embed_tokens.weight_packed", ONNX_UINT8,
                                (onnx_shape){0}, w->codes);
    codes->type = old ? ONNX_UINT4 : ONNX_UINT8;
    codes->shape = onnx_shape2(rows, onnx_num(old ? d : d * grid->bits / 8));
    if (old && (shared || w->zeros == NULL)) {
        DR_TRY(old_zeros(b, &zeros, w, onnx_shape2(rows, blocks)));
    } else if (old) {
        w->zeros->type = ONNX_UINT4;
        w->zeros->shape = onnx_shape2(rows, blocks);
    }
    onnx_node *n = onnx_node_new(g, "com.microsoft", "GatherBlockQuantized", node);
    onnx_node_in(g, n, codes->name);
    onnx_node_in(g, n, "input_ids");
    onnx_node_in(g, n, w->scales->name);
    if (zeros != NULL)
        onnx_node_in(g, n, zeros);
    if (!old)
        onnx_attr_int(g, n, "bits", grid->bits);
    onnx_attr_int(g, n, "block_size", grid->block);
    onnx_attr_int(g, n, "gather_axis", 0);
    onnx_attr_int(g, n, "quantize_axis", 1);
    *out = onnx_node_out(g, n, onnx_build_path(b, path, "output_0"), b->float_type,
                         onnx_hidden((size_t)d));
done:
    return st;
}

/* The initializers of the table, and the node of the head that reads it. */
static void name_table(onnx_builder *b, const char *names[3], const onnx_grid *grid,
                       bool packed, bool shared)
{
    if (packed && shared) {
        names[0] = onnx_build_name(b, "/lm_head", "MatMulNBits.qweight");
        names[1] = onnx_build_name(b, "/lm_head", "MatMulNBits.scales");
        names[2] = onnx_build_name(b, "/lm_head", "MatMulNBits.qzeros");
        b->tied_node = "/lm_head/MatMulNBits";
    } else if (shared) {
        onnx_build_packed_names(b, names, "/lm_head", grid);
        b->tied_node = dr_arena_printf(b->arena, "/lm_head/MatMul_Q%d", grid->bits);
    } else {
        names[0] = dr_arena_printf(b->arena, "model.embed_tokens.weight_Q%d", grid->bits);
        names[1] = "model.embed_tokens.weight_scales";
        names[2] = "model.embed_tokens.weight_zero_points";
    }
}

/* The head's weight, which is written here, or the embedding alone; bits 0: as the model
 * has packed it. */
static dr_status packed_table(onnx_builder *b, const char **out, int bits, bool shared)
{
    onnx_grid grid = onnx_build_grid(b, bits);
    onnx_packed_init own = {0}, *w = shared ? &b->tied : &own;
    const char *names[3], *why = NULL;
    onnx_source s = {0};
    dr_status st = DR_OK;

    DR_TRY(onnx_source_embedding(&s, b->m, b->data.pool));
    if (bits == 0)
        DR_BUG_IF(!onnx_source_grid(&s, 0, s.rows, &grid));
    why = no_table(b, &grid);
    if (why != NULL) {
        onnx_note(b->report, "the embedding stays float: %s", why);
        DR_TRY(float_embedding(b, out));
        goto done;
    }
    if (bits == 0)
        DR_TRY(onnx_check_grid(b, onnx_source_name(&s, 0), &grid));
    name_table(b, names, &grid, bits == 0, shared);
    DR_TRYF(onnx_data_packed(&b->data, w, names, &s, 0, s.rows, &grid, bits != 0),
            "writing the embedding");
    DR_TRY(packed_embedding(b, out, w, &grid, shared));
    b->tied_grid = grid;
    if (shared)
        onnx_note(b->report, "embedding and head are one table: %d bit, blocks of %d",
                  grid.bits, grid.block);
done:
    onnx_source_release(&s);
    return st;
}

static dr_status rows_of_ids(onnx_builder *b, const char **out)
{
    bool packed = hf_embed_linear(b->m)->packed && onnx_precision_bits(b->o->precision) > 0;

    if (packed)
        return packed_table(b, out, 0, tied(b));
    int head = tied(b) ? onnx_choose_bits(b, "/lm_head") : 0;
    int bits = onnx_choose_embedding(b, b->c->tied);

    b->head_is_table = tied(b) && head == 0 && (bits == 0 || b->o->ops == 0);
    if (b->head_is_table && !b->target->fused_matmul)
        return turned_embedding(b, out);
    if (b->head_is_table || bits == 0)
        return float_embedding(b, out);
    return packed_table(b, out, head != 0 ? head : bits, head != 0);
}

dr_status onnx_build_embedding(onnx_builder *b, const char **out)
{
    size_t d = (size_t)b->c->hidden;
    dr_status st = DR_OK;

    *out = "inputs_embeds";
    if (!b->o->exclude_embeds) {
        DR_TRY(rows_of_ids(b, out));
        DR_TRY(onnx_build_scale(b, out, EMBED "/Mul", "model.embed_multiplier",
                                b->c->embed_scale, d));
    }
    if (onnx_build_wide(b))
        *out = onnx_cast(&b->g, EMBED "/Cast", *out, ONNX_FLOAT, onnx_hidden(d));
done:
    return st;
}
