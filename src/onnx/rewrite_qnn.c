/*
 * rewrite_qnn.c - single operators where an exporter wrote them out, for QNN's quantizer:
 *
 *   Gelu               x/sqrt(2) or x*0.7071, Erf, +1, *0.5 and *x in one of three orders
 *   LpNormalization    ReduceL2 of the last axis, Clip from 1e-12, Expand, Div
 *   SpaceToDepth       four Reshape and three Transpose, as early YOLO has them
 *   LayerNormalization ReduceMean, Sub, Pow, ReduceMean, Add, Sqrt, Div, Mul, Add
 *
 * The patterns are those of onnxruntime's qnn_preprocess_model, which Olive calls.  The
 * last node of a pattern becomes the operator, so that its output keeps its name; the
 * others are read by nothing then.  A pattern of which anybody else reads a value inside
 * stays.
 */
#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "onnx.pb-c.h"
#include "onnx/edit_impl.h"
#include "onnx/graph_impl.h"

enum { PATTERN_MAX = 12, RANK_MAX = 8, LAYER_NORM_OPSET = 17 };

typedef Onnx__NodeProto node;

/* ---- looking at a graph ---- */

/* The one node that reads a node's first output, and is `op`; NULL: it is not so. */
static node *only_child(const onnx_edit *e, const node *n, const char *op)
{
    const char *name = n != NULL && n->n_output > 0 ? onnx_text(n->output[0]) : "";

    if (*name == '\0' || onnx_edit_readers(e, name) != 1)
        return NULL;
    for (size_t i = 0; i < e->graph->n_node; i++) {
        node *c = e->graph->node[i];
        for (size_t k = 0; k < c->n_input; k++)
            if (strcmp(onnx_text(c->input[k]), name) == 0)
                return onnx_is(c, op) ? c : NULL;
    }
    return NULL;
}

/* The node that makes input i, and is `op`. */
static node *parent(const onnx_edit *e, const node *n, size_t i, const char *op)
{
    node *p =
        n != NULL && i < n->n_input ? onnx_edit_maker(e, onnx_text(n->input[i])) : NULL;

    return p != NULL && onnx_is(p, op) ? p : NULL;
}

/* A constant of one element. */
static dr_status number_of(bool *is, double *value, onnx_edit *e, const char *name)
{
    const Onnx__TensorProto *t = onnx_edit_constant(e, name);
    dr_tensor v = {0};
    float f = 0;
    dr_status st = DR_OK;

    *is = false;
    if (t == NULL || (t->data_type != ONNX_FLOAT && t->data_type != ONNX_FLOAT16 &&
                      t->data_type != ONNX_BFLOAT16))
        goto done;
    DR_TRY(onnx_edit_values(e, &v, t));
    if (dr_tensor_count(&v) != 1)
        goto done;
    dr_to_f32(&f, v.data, v.dtype, 1);
    *value = (double)f;
    *is = true;
done:
    return st;
}

/* Which input of two is a constant near to this; -1: none is. */
static dr_status constant_input(int *which, onnx_edit *e, const node *n, double near,
                                double delta)
{
    bool is = false;
    double value = 0;
    dr_status st = DR_OK;

    *which = -1;
    for (size_t i = 0; n != NULL && i < n->n_input && i < 2 && *which < 0; i++) {
        DR_TRY(number_of(&is, &value, e, onnx_text(n->input[i])));
        if (is && fabs(value - near) < delta)
            *which = (int)i;
    }
done:
    return st;
}

static bool reads(const node *n, const char *name)
{
    for (size_t i = 0; i < n->n_input; i++)
        if (strcmp(onnx_text(n->input[i]), name) == 0)
            return true;
    return false;
}

/* The sizes of a value, as far as they are known: *rank -1: none is; -1: an open one. */
static void sizes_of(int *rank, int64_t dims[RANK_MAX], const onnx_edit *e,
                     const char *name)
{
    const Onnx__TypeProto__Tensor *t = onnx_tensor_of(onnx_edit_info(e, name));

    *rank = -1;
    if (t == NULL || t->shape == NULL || t->shape->n_dim > RANK_MAX)
        return;
    *rank = (int)t->shape->n_dim;
    for (int i = 0; i < *rank; i++) {
        const Onnx__TensorShapeProto__Dimension *d = t->shape->dim[i];
        dims[i] = d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE
                      ? d->dim_value
                      : -1;
    }
}

/* Those of a Reshape's output: as they are known, else as the node says. */
static void reshaped(int *rank, int64_t dims[RANK_MAX], onnx_edit *e, const node *n)
{
    const Onnx__TensorProto *t =
        n->n_input > 1 ? onnx_edit_constant(e, onnx_text(n->input[1])) : NULL;
    dr_tensor v = {0};

    sizes_of(rank, dims, e, onnx_text(n->output[0]));
    if (*rank >= 0 || t == NULL || t->data_type != ONNX_INT64)
        return;
    if (onnx_edit_values(e, &v, t) != DR_OK || dr_tensor_count(&v) > RANK_MAX) {
        dr_trail_clear();
        return;
    }
    *rank = (int)dr_tensor_count(&v);
    memcpy(dims, v.data, (size_t)*rank * sizeof(*dims));
}

static bool has_sizes(onnx_edit *e, const node *n, const int64_t *want, int count)
{
    int64_t dims[RANK_MAX];
    int rank = -1;

    reshaped(&rank, dims, e, n);
    return rank == count && memcmp(dims, want, (size_t)count * sizeof(*want)) == 0;
}

static bool has_ints(const node *n, const char *name, const int64_t *want, size_t count)
{
    const Onnx__AttributeProto *a = onnx_edit_attr(n, name);

    return a != NULL && a->n_ints == count &&
           memcmp(a->ints, want, count * sizeof(*want)) == 0;
}

/* Whether a reduction is over the last axis alone: an attribute, or from opset 18 on an
 * input. */
static dr_status over_last(bool *last, onnx_edit *e, const node *n)
{
    const Onnx__AttributeProto *a = onnx_edit_attr(n, "axes");
    const Onnx__TensorProto *t =
        n->n_input > 1 ? onnx_edit_constant(e, onnx_text(n->input[1])) : NULL;
    int64_t axis = 0, dims[RANK_MAX];
    int rank = -1;
    dr_tensor v = {0};
    dr_status st = DR_OK;

    *last = false;
    if (a != NULL && a->n_ints == 1) {
        axis = a->ints[0];
    } else if (t != NULL && t->data_type == ONNX_INT64) {
        DR_TRY(onnx_edit_values(e, &v, t));
        if (dr_tensor_count(&v) != 1)
            goto done;
        memcpy(&axis, v.data, sizeof(axis));
    } else {
        goto done;
    }
    sizes_of(&rank, dims, e, onnx_text(n->input[0]));
    *last = axis == -1 || (rank > 0 && axis == rank - 1);
done:
    return st;
}

/* ---- one node instead of several ---- */

typedef struct {
    node *list[PATTERN_MAX];
    size_t count;
} pattern;

static void take(pattern *p, node *n)
{
    DR_BUG_IF(p->count == PATTERN_MAX);
    p->list[p->count++] = n;
}

/* Nothing but the pattern reads what its nodes give, but for the last one's. */
static bool is_closed(const onnx_edit *e, const pattern *p, const node *last)
{
    for (size_t i = 0; i < p->count; i++) {
        if (p->list[i] == last)
            continue;
        const char *out = onnx_text(p->list[i]->output[0]);
        size_t inside = 0;
        for (size_t k = 0; k < p->count; k++)
            for (size_t j = 0; j < p->list[k]->n_input; j++)
                inside += strcmp(onnx_text(p->list[k]->input[j]), out) == 0;
        if (onnx_edit_readers(e, out) != inside)
            return false;
    }
    return true;
}

/* The last node becomes the operator; in ends with NULL. */
static void replace(onnx_edit *e, node *last, const char *domain, const char *op,
                    const char *const *in)
{
    size_t count = 0;

    while (in[count] != NULL)
        count++;
    char **names = dr_arena_alloc(&e->arena, count + 1, sizeof(*names));
    for (size_t i = 0; i < count; i++)
        names[i] = dr_arena_strdup(&e->arena, in[i]);
    onnx_edit_set_op(e, last, domain, op);
    last->input = names;
    last->n_input = count;
    last->n_attribute = 0;
    e->changes++;
}

/* ---- Gelu ---- */

/* x that the Erf's input is divided by the square root of 2 of; NULL: it is not. */
static dr_status gelu_root(const char **root, pattern *p, bool *plain, onnx_edit *e,
                           const node *erf)
{
    node *div = parent(e, erf, 0, "Div"), *mul = parent(e, erf, 0, "Mul");
    node *root_of_2 = parent(e, div, 1, "Sqrt");
    int which = -1;
    bool is = false;
    double two = 0;
    dr_status st = DR_OK;

    *root = NULL;
    *plain = false;
    if (div != NULL) {
        DR_TRY(constant_input(&which, e, div, 1.4142, 0.001));
        *plain = which == 1;
        if (!*plain && root_of_2 != NULL)
            DR_TRY(number_of(&is, &two, e, onnx_text(root_of_2->input[0])));
        if (!*plain && (!is || fabs(two - 2) >= 1e-6))
            goto done;
        *root = onnx_text(div->input[0]);
        take(p, div);
        if (!*plain)
            take(p, root_of_2);
    } else if (mul != NULL) {
        DR_TRY(constant_input(&which, e, mul, 0.70710677, 0.001));
        if (which < 0)
            goto done;
        *root = onnx_text(mul->input[1 - which]);
        take(p, mul);
    }
done:
    return st;
}

/* What is behind Erf and the Add: the pattern's last node, or NULL. */
static dr_status gelu_end(node **last, pattern *p, onnx_edit *e, const node *add,
                          const char *root, bool plain)
{
    const char *sum = onnx_text(add->output[0]);
    node *mul = only_child(e, add, "Mul"), *other = NULL;
    int half = -1;
    dr_status st = DR_OK;

    *last = NULL;
    if (mul == NULL || mul->n_input != 2)
        goto done;
    take(p, mul);
    DR_TRY(constant_input(&half, e, mul, 0.5, 1e-6));
    if (half >= 0) { /* times a half, then times x */
        other = only_child(e, mul, "Mul");
        *last = other != NULL && reads(other, root) ? other : NULL;
        if (*last != NULL)
            take(p, other);
        goto done;
    }
    const size_t at = strcmp(onnx_text(mul->input[0]), sum) == 0 ? 1 : 0;
    if (!plain)
        goto done;
    if (strcmp(onnx_text(mul->input[at]), root) == 0) { /* times x, then times a half */
        other = only_child(e, mul, "Mul");
        *last = other;
    } else { /* times what is half of x */
        other = parent(e, mul, at, "Mul");
        *last = other != NULL && reads(other, root) ? mul : NULL;
    }
    DR_TRY(constant_input(&half, e, other, 0.5, 1e-6));
    if (half < 0)
        *last = NULL;
    if (*last != NULL)
        take(p, other);
done:
    return st;
}

static dr_status fuse_gelu(onnx_edit *e, node *erf)
{
    pattern p = {.count = 0};
    const char *root = NULL;
    node *add = only_child(e, erf, "Add"), *last = NULL;
    bool plain = false;
    int one = -1;
    dr_status st = DR_OK;

    DR_TRY(constant_input(&one, e, add, 1, 1e-6));
    if (one < 0)
        goto done;
    take(&p, erf);
    take(&p, add);
    DR_TRY(gelu_root(&root, &p, &plain, e, erf));
    if (root != NULL)
        DR_TRY(gelu_end(&last, &p, e, add, root, plain));
    if (last == NULL || !is_closed(e, &p, last))
        goto done;
    replace(e, last, "com.microsoft", "Gelu", (const char *const[]){root, NULL});
    onnx_edit_need_opset(e, "com.microsoft", 1);
done:
    return st;
}

/* ---- LpNormalization ---- */

static dr_status clips_from(bool *is, onnx_edit *e, const node *clip)
{
    double least = 0;
    const bool no_most = onnx_edit_attr(clip, "max") == NULL &&
                         (clip->n_input < 3 || *onnx_text(clip->input[2]) == '\0');
    dr_status st = DR_OK;

    *is = onnx_edit_attr(clip, "min") != NULL;
    if (*is)
        least = (double)onnx_edit_float(clip, "min", 0);
    else if (clip->n_input > 1)
        DR_TRY(number_of(is, &least, e, onnx_text(clip->input[1])));
    *is = *is && no_most && least > 0 && fabs(least - 1e-12) < 1e-13;
done:
    return st;
}

static dr_status fuse_lp_norm(onnx_edit *e, node *reduce)
{
    node *clip = only_child(e, reduce, "Clip");
    node *expand = only_child(e, clip, "Expand"), *div = only_child(e, expand, "Div");
    pattern p = {.list = {reduce, clip, expand, div}, .count = 4};
    bool last = false, clips = false;
    dr_status st = DR_OK;

    if (div == NULL || onnx_edit_int(reduce, "keepdims", 1) == 0 || div->n_input != 2 ||
        strcmp(onnx_text(div->input[0]), onnx_text(reduce->input[0])) != 0 ||
        strcmp(onnx_text(div->input[1]), onnx_text(expand->output[0])) != 0)
        goto done;
    DR_TRY(over_last(&last, e, reduce));
    DR_TRY(clips_from(&clips, e, clip));
    if (!last || !clips || !is_closed(e, &p, div))
        goto done;
    replace(e, div, NULL, "LpNormalization",
            (const char *const[]){onnx_text(reduce->input[0]), NULL});
    onnx_edit_set_int(e, div, "axis", -1);
    onnx_edit_set_int(e, div, "p", 2);
done:
    return st;
}

/* ---- SpaceToDepth ---- */

/* The last node of the pattern, behind its first Reshape to [N, C, h, b, w, b]; NULL: it is
 * none.  Newer runtimes join the inner Transposes of the long form. */
static node *space_end(onnx_edit *e, const node *first, const int64_t in[4], int64_t b)
{
    static const int64_t perm1[] = {0, 1, 2, 4, 3, 5}, perm2[] = {0, 1, 3, 2},
                         perm3[] = {0, 2, 1, 3, 4}, joined[] = {0, 4, 1, 2, 3};
    const int64_t h = in[2] / b, w = in[3] / b;
    const int64_t flat[] = {in[0], in[1], h * w, b * b},
                  whole[] = {in[0], in[1], h, w, b * b},
                  apart[] = {in[0], in[1], b * b, h, w};
    node *t1 = only_child(e, first, "Transpose"), *r2 = only_child(e, t1, "Reshape");
    node *t2 = only_child(e, r2, "Transpose"), *r3 = only_child(e, t2, "Reshape");
    node *t3 = only_child(e, r3, "Transpose");

    if (r3 == NULL || !has_ints(t1, "perm", perm1, 6))
        return NULL;
    if (has_sizes(e, r2, whole, 5) && has_ints(t2, "perm", joined, 5))
        return r3;
    if (!has_sizes(e, r2, flat, 4) || !has_sizes(e, r3, apart, 5) ||
        !has_ints(t2, "perm", perm2, 4) || t3 == NULL || !has_ints(t3, "perm", perm3, 5))
        return NULL;
    return only_child(e, t3, "Reshape");
}

static void fuse_space_to_depth(onnx_edit *e, node *first)
{
    const char *root = onnx_text(first->input[0]);
    int64_t in[RANK_MAX], cut[RANK_MAX];
    int rank = -1, cut_rank = -1;

    sizes_of(&rank, in, e, root);
    reshaped(&cut_rank, cut, e, first);
    if (rank != 4 || cut_rank != 6 || cut[3] < 1 || in[0] < 0 || in[1] < 0 || in[2] < 0 ||
        in[3] < 0)
        return;
    const int64_t b = cut[3], h = in[2] / b, w = in[3] / b;
    const int64_t want[] = {in[0], in[1], h, b, w, b};
    const int64_t given[] = {in[0], b * b * in[1], h, w};
    node *last = space_end(e, first, in, b);
    if (last == NULL || !has_sizes(e, first, want, 6) || !has_sizes(e, last, given, 4))
        return;
    replace(e, last, NULL, "SpaceToDepth", (const char *const[]){root, NULL});
    onnx_edit_set_int(e, last, "blocksize", b);
}

/* ---- LayerNormalization ---- */

static bool is_vector(const onnx_edit *e, const char *name)
{
    const Onnx__TensorProto *t = onnx_edit_constant(e, name);

    return t != NULL && t->n_dims == 1;
}

/* Square of what comes out of the Sub, by Pow or by itself. */
static dr_status is_square(bool *is, onnx_edit *e, const node *n)
{
    int two = -1;
    dr_status st = DR_OK;

    *is = onnx_is(n, "Mul") && strcmp(onnx_text(n->input[0]), onnx_text(n->input[1])) == 0;
    if (onnx_is(n, "Pow"))
        DR_TRY(constant_input(&two, e, n, 2, 1e-6));
    *is = *is || two == 1;
done:
    return st;
}

/* The nodes from Div back to the Sub. */
static dr_status variance(bool *is, double *epsilon, pattern *p, onnx_edit *e,
                          const node *div)
{
    node *root = parent(e, div, 1, "Sqrt"), *add = parent(e, root, 0, "Add");
    node *mean = parent(e, add, 0, "ReduceMean"), *pow = parent(e, mean, 0, "Pow");
    node *square = pow != NULL ? pow : parent(e, mean, 0, "Mul");
    node *cast = parent(e, square, 0, "Cast");
    node *sub = parent(e, cast != NULL ? cast : square, 0, "Sub");
    bool number = false, last = false;
    dr_status st = DR_OK;

    *is = false;
    if (sub == NULL)
        goto done;
    DR_TRY(number_of(&number, epsilon, e, onnx_text(add->input[1])));
    if (!number || *epsilon <= 0 || *epsilon > 1e-4)
        goto done;
    DR_TRY(over_last(&last, e, mean));
    DR_TRY(is_square(is, e, square));
    *is = *is && last && onnx_edit_int(mean, "keepdims", 1) != 0;
    take(p, root);
    take(p, add);
    take(p, mean);
    take(p, square);
    if (cast != NULL)
        take(p, cast);
done:
    return st;
}

/* One or two Sub that read the mean; *div: the Div that reads one of them. */
static bool centred(pattern *p, node **div, const onnx_edit *e, const node *mean)
{
    const char *root = onnx_text(mean->input[0]), *name = onnx_text(mean->output[0]);
    size_t subs = 0;

    *div = NULL;
    for (size_t i = 0; i < e->graph->n_node; i++) {
        node *n = e->graph->node[i];
        if (!reads(n, name))
            continue;
        if (!onnx_is(n, "Sub") || strcmp(onnx_text(n->input[0]), root) != 0 || subs == 2)
            return false;
        take(p, n);
        subs++;
        for (size_t k = 0; k < e->graph->n_node && *div == NULL; k++)
            if (onnx_is(e->graph->node[k], "Div") &&
                strcmp(onnx_text(e->graph->node[k]->input[0]), onnx_text(n->output[0])) ==
                    0)
                *div = e->graph->node[k];
    }
    return subs > 0 && *div != NULL;
}

static dr_status fuse_layer_norm(onnx_edit *e, node *mean)
{
    pattern p = {.list = {mean}, .count = 1};
    node *div = NULL;
    bool is = false, last = false;
    double epsilon = 0;
    dr_status st = DR_OK;

    if (!centred(&p, &div, e, mean) || onnx_edit_int(mean, "keepdims", 1) == 0)
        goto done;
    node *mul = only_child(e, div, "Mul"), *add = only_child(e, mul, "Add");
    if (add == NULL)
        goto done;
    DR_TRY(over_last(&last, e, mean));
    DR_TRY(variance(&is, &epsilon, &p, e, div));
    const size_t w = strcmp(onnx_text(mul->input[0]), onnx_text(div->output[0])) == 0;
    const size_t b = strcmp(onnx_text(add->input[0]), onnx_text(mul->output[0])) == 0;
    const char *weight = onnx_text(mul->input[w]), *bias = onnx_text(add->input[b]);
    take(&p, div);
    take(&p, mul);
    take(&p, add);
    if (!is || !last || !is_vector(e, weight) || !is_vector(e, bias) ||
        !is_closed(e, &p, add))
        goto done;
    replace(e, add, NULL, "LayerNormalization",
            (const char *const[]){onnx_text(mean->input[0]), weight, bias, NULL});
    onnx_edit_set_float(e, add, "epsilon", (float)epsilon);
done:
    return st;
}

/* ---- all of it ---- */

static void name_nodes(onnx_edit *e)
{
    for (size_t i = 0; i < e->graph->n_node; i++) {
        node *n = e->graph->node[i];
        if (*onnx_text(n->name) != '\0' || onnx_is(n, "Constant"))
            continue;
        n->name = onnx_edit_unused(e, "qnn_preproc_node_%zu", i);
        e->changes++;
    }
}

dr_status onnx_prepare_for_qnn(onnx_edit *e, bool layer_norm)
{
    const int64_t opset = onnx_edit_opset(e, "");
    dr_status st = DR_OK;

    DR_TRY(onnx_edit_flat(e, "QNNPreprocess"));
    if (layer_norm && opset < LAYER_NORM_OPSET) {
        st =
            dr_fail(DR_EUSAGE,
                    "fuse_layernorm: LayerNormalization is of opset %d, the graph has %lld",
                    LAYER_NORM_OPSET, (long long)opset);
        dr_hint("OnnxOpVersionConversion before this pass raises it");
        goto done;
    }
    for (size_t i = 0; i < e->graph->n_node; i++) {
        node *n = e->graph->node[i];
        if (onnx_is(n, "Erf"))
            DR_TRY(fuse_gelu(e, n));
        else if (onnx_is(n, "ReduceL2"))
            DR_TRY(fuse_lp_norm(e, n));
        else if (onnx_is(n, "Reshape"))
            fuse_space_to_depth(e, n);
        else if (layer_norm && onnx_is(n, "ReduceMean"))
            DR_TRY(fuse_layer_norm(e, n));
    }
    onnx_edit_drop_dead(e);
    name_nodes(e);
done:
    return st;
}
