/*
 * rewrite_qdq.c - packed products in standard operators: a MatMulNBits becomes a
 * DequantizeLinear of blocks (opset 21) and a MatMul, for providers without the former.
 *
 * The weight lies [K][N], or [N][K] before a Transpose.  DequantizeLinear's zero point is 0
 * where none is given, MatMulNBits' is the middle of the codes: signed codes move by it.
 */
#include <string.h>

#include "core/log.h"
#include "core/qtensor.h"
#include "onnx.pb-c.h"
#include "onnx/edit_impl.h"
#include "onnx/graph_impl.h"

typedef struct {
    onnx_edit *e;
    const onnx_qdq_options *o;
    Onnx__NodeProto *node;
    dr_qtensor q; /* codes, zeros: in the file; scales: not looked at */
    dr_tensor scales;
    size_t blocks;
    const char *base; /* of new names */
} unpacking;

static int32_t code_type(const unpacking *u)
{
    if (u->q.bits == 4)
        return u->o->is_signed ? ONNX_INT4_VALUE : ONNX_UINT4;
    return u->o->is_signed ? ONNX_INT8_VALUE : ONNX_UINT8;
}

/* values[rows][cols] (a byte each) as an initializer of codes, turned unless a Transpose
 * stands behind; axis false: [rows]. */
static dr_status add_codes(unpacking *u, const char *name, const uint8_t *values,
                           size_t rows, size_t cols, bool vector)
{
    const int middle = u->o->is_signed ? 1 << (u->q.bits - 1) : 0;
    const int64_t wide[] = {(int64_t)rows, (int64_t)cols},
                  tall[] = {(int64_t)cols, (int64_t)rows};
    const bool turn = !u->o->transpose && !vector;
    size_t n = rows * cols, bytes = u->q.bits == 4 ? (n + 1) / 2 : n;
    dr_arena a = {0};
    void *block = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_arena_big(&a, &block, n + 1, 1, name));
    uint8_t *to = block;
    for (size_t i = 0; i < n; i++) {
        size_t from = turn ? i % rows * cols + i / rows : i;
        unsigned code = (unsigned)(values[from] - middle);
        if (u->q.bits == 8)
            to[i] = (uint8_t)code;
        else
            to[i / 2] = (uint8_t)(i % 2 == 0 ? code & 15 : to[i / 2] | (code & 15) << 4);
    }
    DR_TRY(onnx_edit_add_init(u->e, name, code_type(u), turn ? tall : wide, vector ? 1 : 2,
                              to, bytes));
done:
    dr_arena_release(&a);
    return st;
}

static dr_status add_scales(unpacking *u, const char *name)
{
    size_t size = dr_dtype_bytes(u->scales.dtype), rows = u->q.rows, cols = u->blocks;
    const int64_t wide[] = {(int64_t)rows, (int64_t)cols},
                  tall[] = {(int64_t)cols, (int64_t)rows};
    const unsigned char *from = u->scales.data;
    const bool turn = !u->o->transpose && cols > 1;
    dr_arena a = {0};
    void *block = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_arena_big(&a, &block, rows * cols, size, name));
    for (size_t i = 0; i < rows * cols; i++)
        memcpy((unsigned char *)block + i * size,
               from + (turn ? i % rows * cols + i / rows : i) * size, size);
    DR_TRY(onnx_edit_add_init(u->e, name, dr_dtype_onnx(u->scales.dtype),
                              turn ? tall : wide, cols > 1 ? 2 : 1, block,
                              rows * cols * size));
done:
    dr_arena_release(&a);
    return st;
}

/* Whether all zero points are the middle, which is 0 of signed codes. */
static bool all_middle(const unpacking *u)
{
    for (size_t r = 0; u->q.zeros != NULL && r < u->q.rows; r++) {
        for (size_t b = 0; b < u->blocks; b++) {
            if (dr_qtensor_zero(&u->q, r, b) != 1 << (u->q.bits - 1))
                return false;
        }
    }
    return true;
}

static dr_status add_weight(unpacking *u, const char *names[4])
{
    size_t rows = u->q.rows, cols = u->q.cols;
    dr_arena a = {0};
    void *block = NULL;
    dr_status st = DR_OK;

    names[0] = onnx_edit_unused(u->e, "%s.qweight", u->base);
    DR_TRY(dr_arena_big(&a, &block, rows * cols + rows * u->blocks, 1, names[0]));
    uint8_t *codes = block, *zeros = codes + rows * cols;
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < cols; c++)
            codes[r * cols + c] = (uint8_t)dr_qtensor_code(&u->q, r, c);
        for (size_t b = 0; b < u->blocks; b++)
            zeros[r * u->blocks + b] = (uint8_t)dr_qtensor_zero(&u->q, r, b);
    }
    DR_TRY(add_codes(u, names[0], codes, rows, cols, false));
    names[1] = onnx_edit_unused(u->e, "%s.scales", u->base);
    DR_TRY(add_scales(u, names[1]));
    names[2] = names[3] = NULL;
    if (u->o->add_zero_point || !u->o->is_signed || !all_middle(u)) {
        names[2] = onnx_edit_unused(u->e, "%s.qzeros", u->base);
        DR_TRY(add_codes(u, names[2], zeros, rows, u->blocks, u->blocks == 1));
    }
done:
    dr_arena_release(&a);
    return st;
}

static bool trivial_order(const unpacking *u, const dr_tensor *order)
{
    for (size_t i = 0; i < u->q.cols; i++) {
        int32_t at = 0;
        if (order->bytes < (i + 1) * sizeof(at))
            return false;
        memcpy(&at, (const unsigned char *)order->data + i * sizeof(at), sizeof(at));
        if (at != (int32_t)(i / (size_t)u->q.block))
            return false;
    }
    return true;
}

/* The node's weight; *fits false: a computed one, or one with an order of its own. */
static dr_status read_node(unpacking *u, bool *fits)
{
    const Onnx__NodeProto *n = u->node;
    const Onnx__TensorProto *part[6] = {0};
    dr_tensor codes = {0}, zeros = {0}, order = {0};
    dr_status st = DR_OK;

    *fits = false;
    for (size_t i = 1; i < n->n_input && i < 6; i++) {
        if (onnx_text(n->input[i])[0] == '\0')
            continue;
        part[i] = onnx_edit_init(u->e, n->input[i]);
        if (part[i] == NULL || onnx_edit_is_input(u->e, n->input[i]))
            return DR_OK;
    }
    u->q = (dr_qtensor){.bits = (int)onnx_edit_int(n, "bits", 4),
                        .block = (int)onnx_edit_int(n, "block_size", 0),
                        .rows = (size_t)onnx_edit_int(n, "N", 0),
                        .cols = (size_t)onnx_edit_int(n, "K", 0)};
    if (part[1] == NULL || part[2] == NULL || (u->q.bits != 4 && u->q.bits != 8) ||
        u->q.block < 16 || u->q.rows < 1 || u->q.cols < 1 || u->q.rows > INT32_MAX ||
        u->q.cols > INT32_MAX)
        return DR_OK;
    u->blocks = dr_qtensor_blocks(&u->q);
    DR_TRY(onnx_edit_values(u->e, &codes, part[1]));
    DR_TRY(onnx_edit_values(u->e, &u->scales, part[2]));
    if (part[3] != NULL)
        DR_TRY(onnx_edit_values(u->e, &zeros, part[3]));
    if (part[4] != NULL)
        DR_TRY(onnx_edit_values(u->e, &order, part[4]));
    if (codes.bytes != u->q.rows * dr_qtensor_row_bytes(&u->q) ||
        dr_tensor_count(&u->scales) != u->q.rows * u->blocks)
        DR_FAIL(DR_EFORMAT, "%s: %s: its weight is not of %zu x %zu", u->e->path,
                onnx_text(n->name), u->q.rows, u->q.cols);
    if ((part[3] != NULL && (zeros.dtype != DR_DTYPE_U8 ||
                             zeros.bytes != u->q.rows * dr_qtensor_zero_bytes(&u->q))) ||
        (part[4] != NULL && !trivial_order(u, &order)))
        goto done; /* zero points that are floats */
    u->q.codes = (uint8_t *)(uintptr_t)codes.data;
    u->q.zeros = (uint8_t *)(uintptr_t)zeros.data;
    *fits = true;
done:
    return st;
}

static const char *base_name(dr_arena *a, const Onnx__NodeProto *n)
{
    static const char *const ends[] = {"MatMulNBits", "MatMul_Q4", "MatMul_Q8"};
    const char *name = onnx_text(n->name);

    for (size_t i = 0; i < DR_COUNT(ends); i++) {
        const char *at = strstr(name, ends[i]);
        if (at != NULL)
            return dr_arena_printf(a, "%.*sDequantizeLinear%s", (int)(at - name), name,
                                   at + strlen(ends[i]));
    }
    return dr_arena_printf(a, "%s_DequantizeLinear", name);
}

static dr_status unpack_node(unpacking *u)
{
    static const int64_t turned[] = {1, 0};
    onnx_edit *e = u->e;
    Onnx__NodeProto *n = u->node;
    const char *names[4];
    const bool blocked = u->blocks > 1;
    dr_status st = DR_OK;

    u->base = onnx_edit_unused(e, "%s", base_name(&e->arena, n));
    DR_TRY(add_weight(u, names));
    char *w = onnx_edit_unused(e, "%s/output_0", u->base);
    Onnx__NodeProto *dq = onnx_edit_node(e, NULL, "DequantizeLinear", u->base, names, w);
    onnx_edit_set_int(e, dq, "axis", (u->o->transpose ? 1 : 0) ^ (blocked ? 0 : 1));
    if (blocked)
        onnx_edit_set_int(e, dq, "block_size", u->q.block);
    if (u->o->transpose) {
        const char *in[] = {w, NULL};
        w = onnx_edit_unused(e, "%s/turned", u->base);
        onnx_edit_set_ints(e, onnx_edit_node(e, NULL, "Transpose", w, in, w), "perm",
                           turned, 2);
    }
    const char *bias =
        n->n_input > 5 && onnx_text(n->input[5])[0] != '\0' ? n->input[5] : NULL;
    char *out = n->output[0];
    onnx_edit_set_op(e, n, NULL, "MatMul");
    n->n_attribute = 0;
    n->n_input = 2;
    onnx_edit_set_input(e, n, 1, w);
    if (bias != NULL) {
        char *product = onnx_edit_unused(e, "%s/product", out);
        const char *in[] = {product, bias, NULL};
        n->output[0] = product;
        (void)onnx_edit_node(e, NULL, "Add", product, in, out);
    }
    e->changes++;
done:
    return st;
}

dr_status onnx_blocks_to_qdq(onnx_edit *e, const onnx_qdq_options *o)
{
    size_t count = e->graph->n_node, there = 0;
    dr_status st = DR_OK;

    DR_TRY(onnx_edit_nodes_there(e, "nodes_to_exclude", o->exclude));
    for (size_t i = 0; i < count; i++) {
        unpacking u = {.e = e, .o = o, .node = e->graph->node[i]};
        bool fits = false;
        if (!onnx_is(u.node, "MatMulNBits") ||
            onnx_named(o->exclude, onnx_text(u.node->name)))
            continue;
        there++;
        DR_TRY(read_node(&u, &fits));
        if (fits)
            DR_TRY(unpack_node(&u));
        else
            dr_log(DR_WARNING,
                   "%s stays: its weight is computed, reordered, or not of 4 "
                   "or 8 bits",
                   onnx_text(u.node->name));
    }
    if (e->changes == 0)
        DR_FAIL(DR_EUSAGE, "%s: none of its %zu MatMulNBits can be unpacked", e->path,
                there);
    DR_TRY(onnx_edit_raise_opset(e, 21));
    onnx_edit_drop_dead(e);
done:
    return st;
}
