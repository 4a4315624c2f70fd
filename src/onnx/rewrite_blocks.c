/*
 * rewrite_blocks.c - constant weights of a graph packed in blocks: MatMul to MatMulNBits or
 * MatMulBnb4, Gather to GatherBlockQuantized.
 *
 * A weight that is also read elsewhere stays for that reader.  One weight is in memory at a
 * time: its floats, and what they become.
 */
#include <string.h>

#include "core/log.h"
#include "hf/hf.h"
#include "onnx.pb-c.h"
#include "onnx/edit_impl.h"
#include "onnx/graph_impl.h"
#include "onnx/weight_impl.h"

#define CONTRIB "com.microsoft"

/* ---- the constant weight of a node ---- */

typedef struct {
    Onnx__NodeProto *node;
    const Onnx__TensorProto *tensor;
    int32_t type;
    size_t rows, cols; /* outputs, inputs; of a table: entries, width */
    float *values;     /* arena of the caller: [rows][cols] */
} weight;

/* NULL: computed, an optional input, not a matrix of floats. */
static const Onnx__TensorProto *matrix_of(const onnx_edit *e, const Onnx__NodeProto *n,
                                          size_t input)
{
    const char *name = n->n_input > input ? onnx_text(n->input[input]) : "";
    const Onnx__TensorProto *t = onnx_edit_init(e, name);

    if (t == NULL || t->n_dims != 2 || t->dims[0] < 1 || t->dims[1] < 1 ||
        onnx_edit_is_input(e, name) ||
        (t->data_type != ONNX_FLOAT && t->data_type != ONNX_FLOAT16 &&
         t->data_type != ONNX_BFLOAT16))
        return NULL;
    return t;
}

/* Its values as floats, turned where it lies [K][N]. */
static dr_status read_weight(onnx_edit *e, dr_arena *a, weight *w, bool turn)
{
    dr_tensor v = {0};
    void *as_is = NULL, *turned = NULL;
    size_t first, second;
    dr_status st = DR_OK;

    DR_TRY(onnx_edit_values(e, &v, w->tensor));
    first = (size_t)v.dims[0];
    second = (size_t)v.dims[1];
    w->type = w->tensor->data_type;
    w->rows = turn ? second : first;
    w->cols = turn ? first : second;
    DR_TRY(dr_arena_big(a, &as_is, first * second, sizeof(float), v.name));
    dr_to_f32(as_is, v.data, v.dtype, first * second);
    w->values = as_is;
    if (!turn)
        goto done;
    DR_TRY(dr_arena_big(a, &turned, first * second, sizeof(float), v.name));
    onnx_transpose(turned, first, 0, as_is, first, second, 0, second, sizeof(float));
    w->values = turned;
done:
    return st;
}

static dr_status add_floats(onnx_edit *e, const char *name, int32_t type,
                            const int64_t *dims, size_t rank, const float *values, size_t n)
{
    dr_dtype dtype = onnx_type_dtype((onnx_type)type);
    dr_arena a = {0};
    void *stored = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_arena_big(&a, &stored, n, sizeof(float), name));
    dr_from_f32(stored, values, dtype, n);
    DR_TRY(
        onnx_edit_add_init(e, name, type, dims, rank, stored, n * dr_dtype_bytes(dtype)));
done:
    dr_arena_release(&a);
    return st;
}

/* ---- rounding ---- */

static dr_status round_here(dr_qtensor *q, const onnx_blocks_options *o, const weight *w)
{
    const onnx_grid grid = {.bits = o->bits,
                            .block = o->block,
                            .symmetric = o->symmetric,
                            .how = (onnx_rounding)o->rounding,
                            .stored = onnx_type_dtype((onnx_type)w->type)};
    size_t bad = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_qtensor_new(q, o->bits, o->block, w->rows, w->cols, o->symmetric));
    if (!onnx_block_quantize(q->codes, q->scales, q->zeros, w->values, w->rows, w->cols,
                             &grid, &bad))
        DR_FAIL(DR_EFORMAT, "%s: a value of column %zu is not finite",
                onnx_text(w->tensor->name), bad);
done:
    return st;
}

static dr_status round_weight(dr_qtensor *q, const onnx_blocks_options *o, const weight *w)
{
    return o->round != NULL ? o->round(o->ctx, q, w->values, w->rows, w->cols)
                            : round_here(q, o, w);
}

/* Codes, scales and zero points as initializers; their names. */
static dr_status add_packed(onnx_edit *e, const char *names[3], const dr_qtensor *q,
                            const weight *w, bool flat)
{
    const char *base = onnx_text(w->tensor->name);
    size_t blocks = dr_qtensor_blocks(q), row = dr_qtensor_row_bytes(q);
    const int64_t n = (int64_t)q->rows, kb = (int64_t)blocks;
    const int64_t codes[] = {n, kb, (int64_t)row / kb}, table[] = {n, (int64_t)row};
    const int64_t scales[] = {n, kb}, zeros[] = {n, (int64_t)dr_qtensor_zero_bytes(q)};
    dr_status st = DR_OK;

    names[0] = onnx_edit_unused(e, "%s_Q%d", base, q->bits);
    DR_TRY(onnx_edit_add_init(e, names[0], ONNX_UINT8, flat ? table : codes, flat ? 2 : 3,
                              q->codes, q->rows * row));
    names[1] = onnx_edit_unused(e, "%s_scales", base);
    DR_TRY(add_floats(e, names[1], w->type, scales, 2, q->scales, q->rows * blocks));
    names[2] = NULL;
    if (q->zeros != NULL) {
        names[2] = onnx_edit_unused(e, "%s_zero_points", base);
        DR_TRY(onnx_edit_add_init(e, names[2], ONNX_UINT8, zeros, 2, q->zeros,
                                  q->rows * dr_qtensor_zero_bytes(q)));
    }
done:
    return st;
}

static void rename_node(onnx_edit *e, Onnx__NodeProto *n, const char *end)
{
    if (onnx_text(n->name)[0] != '\0')
        n->name = onnx_edit_unused(e, "%s_%s", n->name, end);
}

static dr_status pack_matmul(onnx_edit *e, const onnx_blocks_options *o, weight *w)
{
    Onnx__NodeProto *n = w->node;
    const char *names[3];
    dr_arena a = {0};
    dr_qtensor q = {0};
    dr_status st = DR_OK;

    DR_TRY(read_weight(e, &a, w, true));
    DR_TRYF(round_weight(&q, o, w), "rounding %s", onnx_text(w->tensor->name));
    DR_TRY(add_packed(e, names, &q, w, false));
    onnx_edit_set_input(e, n, 1, names[0]);
    onnx_edit_set_input(e, n, 2, names[1]);
    if (names[2] != NULL)
        onnx_edit_set_input(e, n, 3, names[2]);
    onnx_edit_set_op(e, n, CONTRIB, "MatMulNBits");
    n->n_attribute = 0;
    onnx_edit_set_int(e, n, "K", (int64_t)w->cols);
    onnx_edit_set_int(e, n, "N", (int64_t)w->rows);
    onnx_edit_set_int(e, n, "bits", q.bits);
    onnx_edit_set_int(e, n, "block_size", q.block);
    if (o->accuracy_level > 0)
        onnx_edit_set_int(e, n, "accuracy_level", o->accuracy_level);
    rename_node(e, n, q.bits == 8 ? "Q8" : q.bits == 2 ? "Q2" : "Q4");
    e->changes++;
done:
    dr_qtensor_release(&q);
    dr_arena_release(&a);
    return st;
}

static dr_status pack_gather(onnx_edit *e, const onnx_blocks_options *o, weight *w)
{
    Onnx__NodeProto *n = w->node;
    const char *names[3], *indices = n->input[1];
    dr_arena a = {0};
    dr_qtensor q = {0};
    dr_status st = DR_OK;

    DR_TRY(read_weight(e, &a, w, false));
    if (w->cols % (size_t)o->block != 0 || onnx_edit_int(n, "axis", 0) != 0 ||
        o->bits == 2) {
        dr_log(DR_WARNING, "%s stays: rows of %zu in blocks of %d, %d bits",
               onnx_text(n->name), w->cols, o->block, o->bits);
        goto done;
    }
    DR_TRYF(round_weight(&q, o, w), "rounding %s", onnx_text(w->tensor->name));
    DR_TRY(add_packed(e, names, &q, w, true));
    onnx_edit_set_input(e, n, 0, names[0]);
    onnx_edit_set_input(e, n, 1, indices);
    onnx_edit_set_input(e, n, 2, names[1]);
    if (names[2] != NULL)
        onnx_edit_set_input(e, n, 3, names[2]);
    onnx_edit_set_op(e, n, CONTRIB, "GatherBlockQuantized");
    n->n_attribute = 0;
    onnx_edit_set_int(e, n, "gather_axis", 0);
    onnx_edit_set_int(e, n, "quantize_axis", 1);
    onnx_edit_set_int(e, n, "block_size", q.block);
    onnx_edit_set_int(e, n, "bits", q.bits);
    rename_node(e, n, q.bits == 8 ? "Q8" : "Q4");
    e->changes++;
done:
    dr_qtensor_release(&q);
    dr_arena_release(&a);
    return st;
}

dr_status onnx_to_blocks(onnx_edit *e, const onnx_blocks_options *o)
{
    size_t count = e->graph->n_node;
    dr_status st = DR_OK;

    DR_TRY(onnx_edit_nodes_there(e, "nodes_to_exclude", o->exclude));
    DR_TRY(onnx_edit_nodes_there(e, "nodes_to_include", o->include));
    for (size_t i = 0; i < count; i++) {
        weight w = {.node = e->graph->node[i]};
        const char *name = onnx_text(w.node->name);
        bool matmul = o->matmul && onnx_is(w.node, "MatMul");
        if ((!matmul && !(o->gather && onnx_is(w.node, "Gather"))) ||
            onnx_named(o->exclude, name) ||
            (o->include != NULL && !onnx_named(o->include, name)))
            continue;
        w.tensor = matrix_of(e, w.node, matmul ? 1 : 0);
        if (w.tensor == NULL)
            continue;
        DR_TRY(matmul ? pack_matmul(e, o, &w) : pack_gather(e, o, &w));
    }
    if (e->changes == 0)
        DR_FAIL(DR_EUSAGE, "%s: none of its %zu nodes is a MatMul%s of a constant matrix",
                e->path, count, o->gather ? " or Gather" : "");
    onnx_edit_need_opset(e, CONTRIB, 1);
    onnx_edit_drop_dead(e);
done:
    return st;
}

/* ---- bitsandbytes ---- */

static bool of_module(onnx_names modules, const char *name)
{
    for (size_t i = 0; modules != NULL && modules[i] != NULL; i++) {
        size_t n = strlen(modules[i]), len = strlen(name);
        if (len > n + 7 && strcmp(name + len - 7, "/MatMul") == 0 &&
            strncmp(name + len - 7 - n, modules[i], n) == 0 &&
            (name[len - 8 - n] == '/' || name[len - 8 - n] == '.'))
            return true;
    }
    return modules == NULL;
}

static dr_status pack_bnb4(onnx_edit *e, const onnx_bnb4_options *o, weight *w)
{
    const hf_bnb grid = {.fp4 = o->fp4};
    const char *base = onnx_text(w->tensor->name);
    Onnx__NodeProto *n = w->node;
    dr_arena a = {0};
    hf_bnb_packed p = {0};
    dr_status st = DR_OK;

    DR_TRY(read_weight(e, &a, w, true));
    hf_bnb_pack(&p, w->values, w->rows * w->cols, &grid);
    const int64_t bytes = (int64_t)(w->rows * w->cols + 1) / 2, blocks = (int64_t)p.blocks;
    char *codes = onnx_edit_unused(e, "%s_Bnb4", base);
    DR_TRY(onnx_edit_add_init(e, codes, ONNX_UINT8, &bytes, 1, p.codes, (size_t)bytes));
    char *scales = onnx_edit_unused(e, "%s_absmax", base);
    DR_TRY(add_floats(e, scales, w->type, &blocks, 1, p.absmax, p.blocks));
    onnx_edit_set_input(e, n, 1, codes);
    onnx_edit_set_input(e, n, 2, scales);
    onnx_edit_set_op(e, n, CONTRIB, "MatMulBnb4");
    n->n_attribute = 0;
    onnx_edit_set_int(e, n, "K", (int64_t)w->cols);
    onnx_edit_set_int(e, n, "N", (int64_t)w->rows);
    onnx_edit_set_int(e, n, "block_size", 64);
    onnx_edit_set_int(e, n, "quant_type", o->fp4 ? 0 : 1);
    rename_node(e, n, "Bnb4");
    e->changes++;
done:
    hf_bnb_packed_release(&p);
    dr_arena_release(&a);
    return st;
}

dr_status onnx_to_bnb4(onnx_edit *e, const onnx_bnb4_options *o)
{
    size_t count = e->graph->n_node;
    dr_status st = DR_OK;

    DR_TRY(onnx_edit_nodes_there(e, "nodes_to_exclude", o->exclude));
    for (size_t i = 0; i < count; i++) {
        weight w = {.node = e->graph->node[i]};
        if (!onnx_is(w.node, "MatMul") || onnx_named(o->exclude, onnx_text(w.node->name)) ||
            !of_module(o->modules, onnx_text(w.node->name)))
            continue;
        w.tensor = matrix_of(e, w.node, 1);
        if (w.tensor != NULL)
            DR_TRY(pack_bnb4(e, o, &w));
    }
    if (e->changes == 0)
        DR_FAIL(DR_EUSAGE, "%s: none of its %zu nodes is a MatMul of a constant matrix%s",
                e->path, count, o->modules != NULL ? " of these modules" : "");
    onnx_edit_need_opset(e, CONTRIB, 1);
    onnx_edit_drop_dead(e);
done:
    return st;
}
