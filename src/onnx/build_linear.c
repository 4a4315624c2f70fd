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
    return (onnx_grid){bits, b->o->block_size, b->o->symmetric};
}

void onnx_build_packed_names(onnx_builder *b, const char *names[3], const char *path,
                             int bits)
{
    names[0] = dr_arena_printf(b->arena, "%s%d",
                               onnx_build_name(b, path, "MatMul.weight_Q"), bits);
    names[1] = onnx_build_name(b, path, "MatMul.weight_scales");
    names[2] = onnx_build_name(b, path, "MatMul.weight_zero_points");
}

bool onnx_one_product(const onnx_builder *b, onnx_rows rows)
{
    onnx_grid grid;

    return b->o->precision == ONNX_FP32 ||
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
    if (b->o->accuracy_level != 0)
        onnx_attr_int(g, n, "accuracy_level", b->o->accuracy_level);
    onnx_attr_int(g, n, "bits", grid->bits);
    onnx_attr_int(g, n, "block_size", grid->block);
    return onnx_node_out(g, n, out, b->float_type, onnx_hidden(n_out));
}

/* Weights that the model has packed, on the grid that they have. */
static dr_status as_packed(onnx_builder *b, const char **out, const char *path,
                           onnx_rows rows, const char *result, const char *x)
{
    const char *names[3] = {onnx_build_name(b, path, "MatMulNBits.qweight"),
                            onnx_build_name(b, path, "MatMulNBits.scales"),
                            onnx_build_name(b, path, "MatMulNBits.qzeros")};
    const char *module = onnx_source_name(rows.s, rows.row0);
    onnx_packed_init w = {0};
    onnx_grid grid;
    dr_status st = DR_OK;

    DR_BUG_IF(!onnx_source_grid(rows.s, rows.row0, rows.count, &grid));
    int since = grid.bits == 8 ? ONNX_SINCE_BYTES : ONNX_SINCE_2BIT;
    if (grid.bits != 4 && onnx_before(b, since))
        DR_FAIL(DR_EUNSUPPORTED, "%s: %d-bit weights need onnxruntime 1.%d, not 1.%d",
                module, grid.bits, since, b->o->min_ort_minor);
    if (grid.block < ONNX_BLOCK_MIN)
        DR_FAIL(DR_EUNSUPPORTED,
                "%s: groups that are no multiple of 16 do not fit "
                "MatMulNBits",
                module);
    if (!b->told_packed)
        onnx_note(b->report, "weights stay as they are packed (%s)", hf_model_origin(b->m));
    b->told_packed = true;
    DR_TRY(
        onnx_data_packed(&b->data, &w, names, rows.s, rows.row0, rows.count, &grid, false));
    if (result == NULL)
        result = onnx_build_path(b, path, "MatMulNBits/output_0");
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

    onnx_build_packed_names(b, names, path, bits);
    DR_TRY(
        onnx_data_packed(&b->data, &w, names, rows.s, rows.row0, rows.count, &grid, true));
    if (result == NULL)
        result = onnx_build_path(b, path, "MatMul/output_0");
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

    if (b->o->precision == ONNX_FP32)
        st = floats(b, out, path, rows, result, x);
    else if (onnx_source_packed(rows.s, rows.row0, rows.count))
        st = as_packed(b, out, path, rows, result, x);
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
    bool any = false;
    dr_status st = DR_OK;

    DR_TRY(onnx_build_weight(b, out, path, rows, 4, NULL, x));
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
