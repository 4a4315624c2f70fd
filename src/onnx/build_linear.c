/*
 * build_linear.c - one matrix product of the decoder: its weight as the options want it,
 * and its bias.
 */
#include <string.h>

#include "core/mem.h"
#include "onnx/build_impl.h"

const char *onnx_build_path(onnx_builder *b, const char *path, const char *name)
{
    return dr_arena_printf(b->arena, "%s/%s", path, name);
}

const char *onnx_build_name(onnx_builder *b, const char *path, const char *rest)
{
    char *s = dr_arena_printf(b->arena, "%s.%s", path + 1, rest);

    for (char *p = s; *p != '\0'; p++) {
        if (*p == '/')
            *p = '.';
    }
    return s;
}

onnx_grid onnx_build_grid(const onnx_builder *b, int bits)
{
    return (onnx_grid){.bits = bits,
                       .block = b->o->block_size,
                       .symmetric = b->o->symmetric && b->o->rounding != ONNX_ROUND_K_QUANT,
                       .how = b->o->rounding,
                       .dequantize = onnx_uses_qdq(b),
                       .stored = onnx_type_dtype(b->float_type)};
}

void onnx_build_packed_names(onnx_builder *b, const char *names[3], const char *path,
                             const onnx_grid *grid)
{
    const char *weight = onnx_build_name(b, path, "MatMul.weight");

    if (b->o->rounding == ONNX_ROUND_DEFAULT) {
        names[0] = dr_arena_printf(b->arena, "%s_Q%d", weight, grid->bits);
        names[1] = dr_arena_printf(b->arena, "%s_scales", weight);
        names[2] = dr_arena_printf(b->arena, "%s_zero_points", weight);
    } else {
        names[0] = dr_arena_printf(b->arena, "%s_Q%dG%d", weight, grid->bits, grid->block);
        names[1] = dr_arena_printf(b->arena, "%s_scale", weight);
        names[2] = dr_arena_printf(b->arena, "%s_zp", weight);
    }
}

bool onnx_uses_qdq(const onnx_builder *b)
{
    return b->o->qdq || b->target->qdq;
}

bool onnx_one_product(const onnx_builder *b, onnx_rows rows)
{
    onnx_grid grid;

    if (b->target->split_qkv)
        return false;
    return onnx_precision_bits(b->o->precision) == 0 ||
           !onnx_source_packed(rows.s, rows.row0, rows.count) ||
           onnx_source_grid(rows.s, rows.row0, rows.count, &grid);
}

/* ---- weight ---- */

const char *onnx_build_packed(onnx_builder *b, const char *node, const char *out,
                              const onnx_packed_init *w, const onnx_grid *grid, size_t cols,
                              size_t n_out, const char *x)
{
    onnx_graph *g = &b->g;
    onnx_node *n = onnx_node_new(g, "com.microsoft", "MatMulNBits", node);

    onnx_node_in(g, n, x);
    onnx_node_in(g, n, w->codes->name);
    onnx_node_in(g, n, w->scales->name);
    if (w->zeros != NULL)
        onnx_node_in(g, n, w->zeros->name);
    onnx_attr_int(g, n, "K", (int64_t)cols);
    onnx_attr_int(g, n, "N", (int64_t)n_out);
    if (b->target->accuracy && b->o->accuracy_level != 0)
        onnx_attr_int(g, n, "accuracy_level", b->o->accuracy_level);
    onnx_attr_int(g, n, "bits", grid->bits);
    onnx_attr_int(g, n, "block_size", grid->block);
    return onnx_node_out(g, n, out, b->float_type, onnx_hidden(n_out));
}

/* A packed product as DequantizeLinear, which makes a [K, N] of floats, and MatMul. */
static dr_status dequantized(onnx_builder *b, const char **out, const char *path,
                             onnx_rows rows, const onnx_grid *grid, bool round_here,
                             const char *result, const char *x)
{
    const char *weight = onnx_build_name(b, path, "MatMul.weight_DQ");
    const char *codes = dr_arena_printf(b->arena, "%s_Q%d", weight, grid->bits);
    const char *names[3] = {codes, dr_arena_printf(b->arena, "%s_scales", weight),
                            dr_arena_printf(b->arena, "%s_zero_points", weight)};
    onnx_shape shape =
        onnx_shape2(onnx_num((int64_t)rows.s->cols), onnx_num((int64_t)rows.count));
    onnx_graph *g = &b->g;
    onnx_packed_init w = {0};
    dr_status st = DR_OK;

    DR_TRY(onnx_data_dequant(&b->data, &w, names, rows.s, rows.row0, rows.count, grid,
                             round_here));
    onnx_opset_at_least(g, ONNX_OPSET_BLOCKED);
    onnx_node *n =
        onnx_node_new(g, "", "DequantizeLinear",
                      dr_arena_printf(b->arena, "%s/MatMul_DQ_Q%d", path, grid->bits));
    onnx_node_in(g, n, w.codes->name);
    onnx_node_in(g, n, w.scales->name);
    if (w.zeros != NULL)
        onnx_node_in(g, n, w.zeros->name);
    onnx_attr_int(g, n, "axis", 0);
    onnx_attr_int(g, n, "block_size", grid->block);
    const char *floats = onnx_node_out(g, n, dr_arena_printf(b->arena, "%s_output", codes),
                                       b->float_type, shape);
    n = onnx_node_new(g, "", "MatMul",
                      dr_arena_printf(b->arena, "%s/MatMul_matmul_Q%d", path, grid->bits));
    onnx_node_in(g, n, x);
    onnx_node_in(g, n, floats);
    *out = onnx_node_out(g, n, result, b->float_type, onnx_hidden(rows.count));
done:
    return st;
}

dr_status onnx_check_grid(const onnx_builder *b, const char *module, const onnx_grid *grid)
{
    int since = grid->bits == 8 ? ONNX_SINCE_BYTES : ONNX_SINCE_2BIT;

    if (grid->block < ONNX_BLOCK_MIN)
        return dr_fail(DR_EUNSUPPORTED,
                       "%s: groups that are no multiple of 16 do not fit MatMulNBits",
                       module);
    if (onnx_uses_qdq(b) && grid->bits == 2)
        return dr_fail(DR_EUNSUPPORTED, "%s: DequantizeLinear has no 2-bit weights",
                       module);
    if (!onnx_uses_qdq(b) && grid->bits != 4 && onnx_before(b, since))
        return dr_fail(DR_EUNSUPPORTED,
                       "%s: %d-bit weights need onnxruntime 1.%d, not 1.%d", module,
                       grid->bits, since, b->o->min_ort_minor);
    return DR_OK;
}

/* Weights that the model has packed, on the grid that they have. */
static dr_status as_packed(onnx_builder *b, const char **out, const char *path,
                           onnx_rows rows, const char *result, const char *x)
{
    const char *names[3] = {onnx_build_name(b, path, "MatMulNBits.qweight"),
                            onnx_build_name(b, path, "MatMulNBits.scales"),
                            onnx_build_name(b, path, "MatMulNBits.qzeros")};
    onnx_packed_init w = {0};
    onnx_grid grid;
    dr_status st = DR_OK;

    DR_BUG_IF(!onnx_source_grid(rows.s, rows.row0, rows.count, &grid));
    DR_TRY(onnx_check_grid(b, onnx_source_name(rows.s, rows.row0), &grid));
    if (!b->told_packed)
        onnx_note(b->report, "weights stay as they are packed (%s)", hf_model_origin(b->m));
    b->told_packed = true;
    if (result == NULL)
        result = onnx_build_path(b, path, "MatMulNBits/output_0");
    if (onnx_uses_qdq(b)) {
        DR_TRY(dequantized(b, out, path, rows, &grid, false, result, x));
        return DR_OK;
    }
    DR_TRY(
        onnx_data_packed(&b->data, &w, names, rows.s, rows.row0, rows.count, &grid, false));
    *out = onnx_build_packed(b, onnx_build_path(b, path, "MatMulNBits"), result, &w, &grid,
                             rows.s->cols, rows.count, x);
done:
    return st;
}

/* Floats, rounded here. */
static dr_status rounded(onnx_builder *b, const char **out, const char *path,
                         onnx_rows rows, int bits, const char *result, const char *x)
{
    onnx_grid grid = onnx_build_grid(b, bits);
    const char *names[3];
    onnx_packed_init w = {0};
    dr_status st = DR_OK;

    DR_TRY(onnx_check_grid(b, onnx_source_name(rows.s, rows.row0), &grid));
    onnx_build_packed_names(b, names, path, &grid);
    if (result == NULL)
        result = onnx_build_path(b, path, "MatMul/output_0");
    if (onnx_uses_qdq(b)) {
        DR_TRY(dequantized(b, out, path, rows, &grid, true, result, x));
        return DR_OK;
    }
    DR_TRY(
        onnx_data_packed(&b->data, &w, names, rows.s, rows.row0, rows.count, &grid, true));
    *out = onnx_build_packed(b, dr_arena_printf(b->arena, "%s/MatMul_Q%d", path, bits),
                             result, &w, &grid, rows.s->cols, rows.count, x);
done:
    return st;
}

static dr_status floats(onnx_builder *b, const char **out, const char *path, onnx_rows rows,
                        const char *result, const char *x)
{
    const char *name = onnx_build_name(b, path, "MatMul.weight");
    onnx_graph *g = &b->g;
    dr_status st = DR_OK;

    DR_TRY(onnx_data_columns(&b->data, name, rows.s, rows.row0, rows.count));
    if (result == NULL)
        result = onnx_build_path(b, path, "MatMul/output_0");
    onnx_node *n = onnx_node_new(g, "", "MatMul", onnx_build_path(b, path, "MatMul"));
    onnx_node_in(g, n, x);
    onnx_node_in(g, n, name);
    *out = onnx_node_out(g, n, result, b->float_type, onnx_hidden(rows.count));
done:
    return st;
}

dr_status onnx_build_weight(onnx_builder *b, const char **out, const char *path,
                            onnx_rows rows, int bits, const char *result, const char *x)
{
    dr_status st = DR_OK;

    if (onnx_precision_bits(b->o->precision) != 0 &&
        onnx_source_packed(rows.s, rows.row0, rows.count))
        st = as_packed(b, out, path, rows, result, x);
    else if (bits == 0)
        st = floats(b, out, path, rows, result, x);
    else
        st = rounded(b, out, path, rows, bits, result, x);
    if (st != DR_OK)
        dr_note_at(__FILE__, __LINE__, "writing the weight of %s", path + 1);
    return st;
}

dr_status onnx_build_linear(onnx_builder *b, const char **out, const char *path,
                            onnx_rows rows, const char *x)
{
    size_t n = rows.count;
    void *bias = NULL;
    bool any = false, packed = onnx_source_packed(rows.s, rows.row0, n);
    int bits = packed ? 0 : onnx_choose_bits(b, path);
    dr_status st = DR_OK;

    DR_TRY(onnx_build_weight(b, out, path, rows, bits, NULL, x));
    DR_TRY(dr_big_alloc(&bias, n, sizeof(float), "bias"));
    DR_TRY(onnx_source_bias(rows.s, bias, rows.row0, n, &any));
    if (any) { /* the model builder drops one of zeros, too */
        const char *name = onnx_build_name(b, path, "Add.bias");
        DR_TRY(
            onnx_data_floats(&b->data, name, onnx_shape1(onnx_num((int64_t)n)), bias, n));
        *out = onnx_op(&b->g, "Add", onnx_build_path(b, path, "Add"), *out, name,
                       b->float_type, onnx_hidden(n));
    }
done:
    dr_big_free(bias);
    return st;
}
