/*
 * lift_lora.c - the LoRA products of a graph made elsewhere become optional inputs and a
 * file, under the one rule of names (onnx_adapter.h).
 *
 * A product is a MatMul, Gemm or MatMulNBits whose weight is constant and whose weight, or
 * else node, is named after lora_A or lora_B.  These spellings are known:
 *     model.layers.0.attn.q_proj.lora_A.MatMul.weight         the model builder's
 *     'm.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default'
 *                                        torch's exporter, in name_scopes of the node
 *     /base_model/model/model/layers.0/self_attn/q_proj/lora_A/default/MatMul    traced
 *     /model/layers.0/self_attn/q_proj/default_1/MatMul       traced, default_1: lora_B
 * Packed products become MatMuls of floats: MatMulNBits has its rank in an attribute, and
 * an input of rank 0 is what makes an adapter optional.
 *
 * What a traced graph multiplies lora_B's output by (alpha / r) goes into lora_B's values,
 * and the Mul out of the graph: so the file and those of convert-adapters are of one kind,
 * and either runs on the graph.
 */
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/qtensor.h"
#include "onnx.pb-c.h"
#include "onnx/edit_impl.h"
#include "onnx/onnx.h"

enum { TOKENS = 64 };

typedef struct {
    const char *module; /* arena */
    bool b;
    Onnx__NodeProto *node;
    const Onnx__TensorProto *weight;
    bool turned;      /* the weight lies transposed: [r][K], [N][r] */
    bool packed;      /* the node is a MatMulNBits */
    dr_tensor values; /* [K][r], [r][N]; data in the arena */
} half;

typedef struct {
    onnx_edit *e;
    dr_arena *a;
    half *halves; /* arena: A and B of a module next to each other once sorted */
    size_t count;
    const char **loose; /* arena: values that nothing may read afterwards */
    size_t loose_count;
} lift;

static bool is(const Onnx__NodeProto *n, const char *op)
{
    return strcmp(onnx_text(n->op_type), op) == 0;
}

static void let_go(lift *l, const char *name)
{
    l->loose[l->loose_count++] = onnx_text(name);
}

/* ---- names ---- */

static size_t split_name(dr_arena *a, const char **parts, const char *name)
{
    size_t n = 0;

    for (char *p = dr_arena_strdup(a, name), *next; p != NULL && n < TOKENS; p = next) {
        next = strpbrk(p, "./");
        if (next != NULL)
            *next++ = '\0';
        if (*p != '\0')
            parts[n++] = p;
    }
    return n;
}

/* The builder's attn is PEFT's self_attn. */
static const char *peft_part(const char *const *parts, size_t n, size_t i)
{
    bool builders = i >= 2 && i + 1 < n && strcmp(parts[i], "attn") == 0 &&
                    strcmp(parts[i - 2], "layers") == 0;

    return builders ? "self_attn" : parts[i];
}

/* Which module and half a name speaks of; NULL: none. */
static const char *module_of(dr_arena *a, const char *name, bool *b, bool leaves)
{
    const char *parts[TOKENS], *module = "";
    size_t n = split_name(a, parts, name), at = 0, from = 0;

    for (; at < n; at++) {
        bool is_b = strcmp(parts[at], "lora_B") == 0 ||
                    (leaves && strcmp(parts[at], "default_1") == 0);
        if (is_b || strcmp(parts[at], "lora_A") == 0 ||
            (leaves && strcmp(parts[at], "default") == 0)) {
            *b = is_b;
            break;
        }
    }
    if (at == n || at == 0)
        return NULL;
    for (size_t i = 0; i + 1 < at; i++) { /* wrappers around the model have no say */
        if (strcmp(parts[i], "base_model") == 0 && strcmp(parts[i + 1], "model") == 0)
            from = i + 2;
        if (strcmp(parts[i], "model") == 0 && strcmp(parts[i + 1], "layers") == 0)
            from = i;
    }
    for (size_t i = from; i < at; i++)
        module = dr_arena_printf(a, "%s%s%s", module, i > from ? "." : "",
                                 peft_part(parts, at, i));
    return module;
}

/* The innermost module that torch's exporter says a node comes from: the last of
 * "['', 'm', 'm.layers.0', ..., 'linear_1']" that is a LoRA's; NULL: it says nothing. */
static const char *scope_of(dr_arena *a, const Onnx__NodeProto *n)
{
    const char *scope = NULL;

    for (size_t i = 0; i < n->n_metadata_props; i++) {
        const Onnx__StringStringEntryProto *p = n->metadata_props[i];
        if (strcmp(onnx_text(p->key), "pkg.torch.onnx.name_scopes") != 0)
            continue;
        for (const char *at = strchr(onnx_text(p->value), '\''), *end; at != NULL;
             at = strchr(end + 1, '\'')) {
            end = strchr(at + 1, '\'');
            if (end == NULL)
                break;
            const char *one = dr_arena_strndup(a, at + 1, (size_t)(end - at - 1));
            if (strstr(one, ".lora_") != NULL)
                scope = one;
        }
    }
    return scope;
}

/* ---- finding ---- */

static bool multiplies(const Onnx__NodeProto *n)
{
    return n->n_input >= 2 && n->n_output == 1 &&
           (is(n, "MatMul") || is(n, "MatMulNBits") ||
            (is(n, "Gemm") && n->n_input == 2 && onnx_edit_int(n, "transA", 0) == 0));
}

/* The constant behind a node's weight, past a Transpose or Identity; NULL: computed. */
static const Onnx__TensorProto *weight_of(lift *l, const Onnx__NodeProto *n, bool *turned)
{
    const char *name = onnx_text(n->input[1]);
    const Onnx__TensorProto *t = NULL;

    *turned = is(n, "Gemm") && onnx_edit_int(n, "transB", 0) != 0;
    for (int steps = 0; steps < 4; steps++) {
        let_go(l, name);
        if ((t = onnx_edit_constant(l->e, name)) != NULL)
            return t->n_dims == 2 || is(n, "MatMulNBits") ? t : NULL;
        const Onnx__NodeProto *maker = onnx_edit_maker(l->e, name);
        if (maker == NULL || maker->n_input < 1 ||
            (!is(maker, "Transpose") && !is(maker, "Identity")))
            return NULL;
        const Onnx__AttributeProto *perm = onnx_edit_attr(maker, "perm");
        if (is(maker, "Transpose") &&
            (perm == NULL || (perm->n_ints == 2 && perm->ints[0] == 1)))
            *turned = !*turned;
        name = onnx_text(maker->input[0]);
    }
    return NULL;
}

static bool is_input(const lift *l, const char *name)
{
    for (size_t i = 0; i < l->e->graph->n_input; i++) {
        if (strcmp(onnx_text(l->e->graph->input[i]->name), name) == 0)
            return true;
    }
    return false;
}

static dr_status find_half(lift *l, Onnx__NodeProto *n)
{
    half h = {.node = n, .packed = is(n, "MatMulNBits")};
    size_t before = l->loose_count;
    dr_status st = DR_OK;

    if (!multiplies(n) || is_input(l, onnx_text(n->input[1])))
        return DR_OK;
    h.weight = weight_of(l, n, &h.turned);
    if (h.weight != NULL)
        h.module = module_of(l->a, onnx_text(h.weight->name), &h.b, false);
    const char *scope = h.module == NULL ? scope_of(l->a, n) : NULL;
    if (scope != NULL)
        h.module = module_of(l->a, scope, &h.b, false);
    if (h.module == NULL)
        h.module = module_of(l->a, onnx_text(n->name), &h.b, true);
    if (h.module == NULL) {
        l->loose_count = before;
        return DR_OK;
    }
    if (h.weight == NULL)
        DR_FAIL(DR_EUNSUPPORTED, "%s: the weight of %s is computed by the graph",
                l->e->path, onnx_text(n->name));
    l->halves[l->count++] = h;
done:
    return st;
}

static int by_module(const void *a, const void *b)
{
    const half *p = a, *q = b;
    int c = strcmp(p->module, q->module);

    return c != 0 ? c : (int)p->b - (int)q->b;
}

static dr_status none_found(const lift *l)
{
    dr_status st;

    for (size_t i = 0; i < l->e->graph->n_input; i++) {
        const char *name = onnx_text(l->e->graph->input[i]->name);
        if (strstr(name, ".lora_A.") == NULL)
            continue;
        st = dr_fail(DR_EUSAGE, "%s takes its adapters as inputs already: %s, ...",
                     l->e->path, name);
        dr_hint("convert-adapters makes files for it");
        return st;
    }
    st = dr_fail(DR_EUSAGE, "%s has no LoRA product (lora_A, lora_B) among its %zu nodes",
                 l->e->path, l->e->graph->n_node);
    dr_hint("auto-opt --adapter_path exports a model with its adapter beside it");
    return st;
}

static dr_status check_pairs(const lift *l)
{
    if (l->count == 0)
        return none_found(l);
    for (size_t i = 0; i < l->count; i++) {
        const half *h = &l->halves[i];
        if (i > 0 && by_module(h - 1, h) == 0)
            return dr_fail(DR_EUNSUPPORTED,
                           "%s: %s and %s are both the lora_%c of %s: one adapter in a "
                           "graph is lifted",
                           l->e->path, onnx_text(h[-1].node->name),
                           onnx_text(h->node->name), h->b ? 'B' : 'A', h->module);
        bool first = i % 2 == 0;
        if (h->b == first || (!first && strcmp(h[-1].module, h->module) != 0))
            return dr_fail(DR_EFORMAT, "%s: %s has a lora_%c without a lora_%c", l->e->path,
                           first ? h->module : h[-1].module, h->b == first ? 'B' : 'A',
                           h->b == first ? 'A' : 'B');
    }
    if (l->count % 2 != 0)
        return dr_fail(DR_EFORMAT, "%s: %s has a lora_A without a lora_B", l->e->path,
                       l->halves[l->count - 1].module);
    return DR_OK;
}

/* ---- values ---- */

/* Rows of MatMulNBits as floats, [N][K]. */
static dr_status unpack(lift *l, dr_tensor *out, const half *h)
{
    const Onnx__NodeProto *n = h->node;
    const Onnx__TensorProto *scale_of = NULL, *zero_of = NULL;
    dr_tensor codes = {0}, scales = {0}, zeros = {0};
    dr_qtensor q = {.bits = (int)onnx_edit_int(n, "bits", 4),
                    .block = (int)onnx_edit_int(n, "block_size", 0),
                    .rows = (size_t)onnx_edit_int(n, "N", 0),
                    .cols = (size_t)onnx_edit_int(n, "K", 0)};
    bool zero_points = n->n_input > 3 && onnx_text(n->input[3])[0] != '\0';
    dr_status st = DR_OK;

    if ((q.bits != 2 && q.bits != 4 && q.bits != 8) || q.block < 16 || q.rows == 0 ||
        q.cols == 0 || q.rows > INT32_MAX || q.cols > INT32_MAX)
        DR_FAIL(DR_EUNSUPPORTED, "%s: %s: %d bits in blocks of %d, %zu x %zu", l->e->path,
                onnx_text(n->name), q.bits, q.block, q.rows, q.cols);
    for (size_t i = 4; i < n->n_input; i++) {
        if (onnx_text(n->input[i])[0] != '\0')
            DR_FAIL(DR_EUNSUPPORTED, "%s: %s: its input %zu (group indices or a bias)",
                    l->e->path, onnx_text(n->name), i);
    }
    scale_of = n->n_input > 2 ? onnx_edit_constant(l->e, onnx_text(n->input[2])) : NULL;
    zero_of = zero_points ? onnx_edit_constant(l->e, onnx_text(n->input[3])) : NULL;
    if (scale_of == NULL || (zero_points && zero_of == NULL))
        DR_FAIL(DR_EUNSUPPORTED, "%s: %s: its scales are computed by the graph", l->e->path,
                onnx_text(n->name));
    DR_TRY(onnx_edit_values(l->e, &codes, h->weight));
    DR_TRY(onnx_edit_values(l->e, &scales, scale_of));
    if (zero_points)
        DR_TRY(onnx_edit_values(l->e, &zeros, zero_of));
    size_t blocks = q.rows * dr_qtensor_blocks(&q);
    if (codes.dtype != DR_DTYPE_U8 || codes.bytes != q.rows * dr_qtensor_row_bytes(&q) ||
        !dr_dtype_is_float(scales.dtype) || dr_tensor_count(&scales) != blocks ||
        (zero_points &&
         (zeros.dtype != DR_DTYPE_U8 || zeros.bytes != q.rows * dr_qtensor_zero_bytes(&q))))
        DR_FAIL(DR_EFORMAT, "%s: %s: codes, scales or zero points are not of %zu x %zu",
                l->e->path, onnx_text(n->name), q.rows, q.cols);
    q.codes = (uint8_t *)(uintptr_t)codes.data;
    q.zeros = (uint8_t *)(uintptr_t)zeros.data;
    q.scales = dr_arena_alloc(l->a, blocks, sizeof(float));
    dr_to_f32(q.scales, scales.data, scales.dtype, blocks);
    float *to = dr_arena_alloc(l->a, q.rows * q.cols, sizeof(*to));
    dr_qtensor_to_f32(to, &q, 0, q.rows);
    *out = (dr_tensor){.dtype = DR_DTYPE_F32,
                       .ndim = 2,
                       .dims = {(int64_t)q.rows, (int64_t)q.cols},
                       .data = to,
                       .bytes = q.rows * q.cols * sizeof(*to)};
    if (scales.dtype != DR_DTYPE_F32) { /* the graph computes in the type of the scales */
        void *narrow = dr_arena_alloc(l->a, q.rows * q.cols, dr_dtype_bytes(scales.dtype));
        dr_from_f32(narrow, to, scales.dtype, q.rows * q.cols);
        out->dtype = scales.dtype;
        out->data = narrow;
        out->bytes = q.rows * q.cols * dr_dtype_bytes(scales.dtype);
    }
done:
    return st;
}

static void turn(lift *l, dr_tensor *t)
{
    size_t rows = (size_t)t->dims[0], cols = (size_t)t->dims[1];
    size_t size = dr_dtype_bytes(t->dtype);
    unsigned char *to = dr_arena_alloc(l->a, rows * cols + 1, size);

    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < cols; j++)
            memcpy(to + (j * rows + i) * size,
                   (const unsigned char *)t->data + (i * cols + j) * size, size);
    }
    t->data = to;
    t->dims[0] = (int64_t)cols;
    t->dims[1] = (int64_t)rows;
}

static dr_status read_half(lift *l, half *h)
{
    dr_status st = DR_OK;

    if (h->packed)
        DR_TRY(unpack(l, &h->values, h));
    else
        DR_TRY(onnx_edit_values(l->e, &h->values, h->weight));
    if (!dr_dtype_is_float(h->values.dtype) || h->values.dtype == DR_DTYPE_F64)
        DR_FAIL(DR_EUNSUPPORTED, "%s: the weight of %s is %s", l->e->path,
                onnx_text(h->node->name), dr_dtype_name(h->values.dtype));
    if (h->packed || h->turned)
        turn(l, &h->values);
    h->values.name =
        dr_arena_printf(l->a, "%s.lora_%c.weight", h->module, h->b ? 'B' : 'A');
done:
    return st;
}

/* ---- alpha / r ---- */

/* The only node that reads a value; NULL: none, several, or an output of the graph. */
static Onnx__NodeProto *only_reader(const lift *l, const char *name)
{
    const Onnx__GraphProto *g = l->e->graph;
    Onnx__NodeProto *reader = NULL;

    for (size_t i = 0; i < g->n_output; i++) {
        if (strcmp(onnx_text(g->output[i]->name), name) == 0)
            return NULL;
    }
    for (size_t i = 0; i < g->n_node; i++) {
        for (size_t k = 0; k < g->node[i]->n_input; k++) {
            if (strcmp(onnx_text(g->node[i]->input[k]), name) != 0)
                continue;
            if (reader != NULL)
                return NULL;
            reader = g->node[i];
        }
    }
    return reader;
}

/* lora_B's values times what the graph multiplies its output by, which the graph then does
 * no more. */
static dr_status fold_scale(lift *l, half *h)
{
    Onnx__NodeProto *mul = only_reader(l, onnx_text(h->node->output[0]));
    const Onnx__TensorProto *by = NULL;
    dr_tensor scale = {0};
    float factor = 0;
    dr_status st = DR_OK;

    if (mul == NULL || !is(mul, "Mul") || mul->n_input != 2 || mul->n_output != 1)
        goto done;
    size_t other = strcmp(onnx_text(mul->input[0]), onnx_text(h->node->output[0])) == 0;
    by = onnx_edit_constant(l->e, onnx_text(mul->input[other]));
    if (by == NULL) {
        dr_log(DR_WARNING,
               "%s: %s multiplies lora_B's output by a computed value, which stays in the "
               "graph; files of convert-adapters would be scaled twice",
               l->e->path, onnx_text(mul->name));
        goto done;
    }
    DR_TRY(onnx_edit_values(l->e, &scale, by));
    if (dr_tensor_count(&scale) != 1 || scale.dtype != h->values.dtype)
        goto done;
    dr_to_f32(&factor, scale.data, scale.dtype, 1);
    size_t n = dr_tensor_count(&h->values), size = dr_dtype_bytes(h->values.dtype);
    float *floats = dr_arena_alloc(l->a, n + 1, sizeof(*floats));
    void *to = dr_arena_alloc(l->a, n + 1, size);
    dr_to_f32(floats, h->values.data, h->values.dtype, n);
    for (size_t i = 0; i < n; i++)
        floats[i] *= factor;
    dr_from_f32(to, floats, h->values.dtype, n);
    h->values.data = to;
    let_go(l, mul->input[other]);
    let_go(l, h->node->output[0]);
    h->node->output[0] = mul->output[0]; /* and the Mul has an output of no name */
    mul->output[0] = dr_arena_printf(l->a, "%s/lifted", onnx_text(mul->name));
    let_go(l, mul->output[0]);
done:
    return st;
}

/* ---- the graph ---- */

/* A weight that has the input's name already takes another, and goes if nothing else
 * reads it. */
static void free_name(lift *l, const char *name)
{
    const Onnx__GraphProto *g = l->e->graph;
    Onnx__TensorProto *t = onnx_edit_init(l->e, name);

    if (t == NULL)
        return;
    t->name = dr_arena_printf(l->a, "%s/lifted", name);
    let_go(l, t->name);
    for (size_t i = 0; i < g->n_node; i++) {
        for (size_t k = 0; k < g->node[i]->n_input; k++) {
            if (strcmp(onnx_text(g->node[i]->input[k]), name) == 0)
                g->node[i]->input[k] = t->name;
        }
    }
}

static void make_input(lift *l, half *h)
{
    Onnx__NodeProto *n = h->node;
    const char *symbol = dr_arena_printf(l->a, "%s.lora_r", h->module);

    for (size_t i = 2; i < n->n_input && i < 4; i++)
        let_go(l, n->input[i]);
    free_name(l, h->values.name);
    onnx_edit_add_optional(l->e, h->values.name, dr_dtype_onnx(h->values.dtype),
                           h->values.dims, 2, h->b ? 0 : 1, symbol);
    n->input[1] = (char *)(uintptr_t)h->values.name;
    n->n_input = 2;
    n->op_type = dr_arena_strdup(l->a, "MatMul");
    n->domain = dr_arena_strdup(l->a, "");
    n->n_attribute = 0;
    if (!h->b) /* what is said of its shape has the rank in it */
        let_go(l, n->output[0]);
}

static dr_status lift_module(lift *l, half *a, half *b)
{
    dr_status st = DR_OK;

    DR_TRY(read_half(l, a));
    DR_TRY(read_half(l, b));
    if (a->values.dims[1] != b->values.dims[0] || a->values.dtype != b->values.dtype)
        DR_FAIL(DR_EFORMAT, "%s: %s: lora_A is %s of rank %lld, lora_B %s of rank %lld",
                l->e->path, a->module, dr_dtype_name(a->values.dtype),
                (long long)a->values.dims[1], dr_dtype_name(b->values.dtype),
                (long long)b->values.dims[0]);
    DR_TRY(fold_scale(l, b));
    make_input(l, a);
    make_input(l, b);
done:
    return st;
}

static dr_status lift_all(lift *l)
{
    Onnx__GraphProto *g = l->e->graph;
    dr_status st = DR_OK;

    l->halves = dr_arena_alloc(l->a, g->n_node + 1, sizeof(*l->halves));
    l->loose = dr_arena_alloc(l->a, g->n_node * 16 + 1, sizeof(*l->loose));
    for (size_t i = 0; i < g->n_node; i++)
        DR_TRY(find_half(l, g->node[i]));
    qsort(l->halves, l->count, sizeof(*l->halves), by_module);
    DR_TRY(check_pairs(l));
    for (size_t i = 0; i < l->count; i += 2)
        DR_TRY(lift_module(l, &l->halves[i], &l->halves[i + 1]));
    onnx_edit_drop_unread(l->e, l->loose, l->loose_count);
done:
    return st;
}

dr_status onnx_lift_adapter(onnx_lifted *out, dr_arena *a, const char *model,
                            const char *dir, const char *adapter, onnx_format format)
{
    onnx_edit e = {0};
    lift l = {.e = &e, .a = &e.arena};
    dr_status st = DR_OK;

    *out = (onnx_lifted){0};
    DR_TRY(onnx_edit_open(&e, model));
    DR_TRY(lift_all(&l));
    dr_tensor *tensors = dr_arena_alloc(&e.arena, l.count, sizeof(*tensors));
    out->modules = l.count / 2;
    for (size_t i = 0; i < l.count; i++) {
        size_t rank = (size_t)l.halves[i].values.dims[l.halves[i].b ? 0 : 1];
        tensors[i] = l.halves[i].values;
        out->rank_min = i == 0 || rank < out->rank_min ? rank : out->rank_min;
        out->rank_max = rank > out->rank_max ? rank : out->rank_max;
    }
    DR_TRY(onnx_edit_save(&e, dr_path_join(&e.arena, dir, "model.onnx")));
    DR_TRY(
        onnx_adapter_save(dr_path_join(&e.arena, dir, adapter), tensors, l.count, format));
    out->files = dr_arena_alloc(a, e.file_count + 1, sizeof(*out->files));
    for (size_t i = 0; i < e.file_count; i++)
        out->files[out->file_count++] = dr_arena_strdup(a, e.files[i]);
done:
    onnx_edit_close(&e);
    return st;
}
