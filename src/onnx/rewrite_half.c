/*
 * rewrite_half.c - a float32 graph in float16.
 *
 * A value becomes float16 when its maker computes in float16, is an initializer that such a
 * node reads, or is an input that need not stay.  Then every node gets the type that it
 * computes in: a Cast, one for all its readers, stands where a value is of the other.
 *
 * What float16 cannot hold is brought to the nearest that it can: magnitudes below
 * min_positive (but not 0) and above max_finite, as in ONNX Runtime's converter.
 */
#include <math.h>
#include <string.h>

#include "core/log.h"
#include "onnx.pb-c.h"
#include "onnx/edit_impl.h"
#include "onnx/graph_impl.h"

/* Operators without float16, or whose meaning hangs on float32: ONNX Runtime's list. */
static const char *const op_block_default[] = {"ArrayFeatureExtractor",
                                               "Binarizer",
                                               "CastMap",
                                               "CategoryMapper",
                                               "DictVectorizer",
                                               "FeatureVectorizer",
                                               "Imputer",
                                               "LabelEncoder",
                                               "LinearClassifier",
                                               "LinearRegressor",
                                               "Normalizer",
                                               "OneHotEncoder",
                                               "RandomUniformLike",
                                               "SVMClassifier",
                                               "SVMRegressor",
                                               "Scaler",
                                               "TreeEnsembleClassifier",
                                               "TreeEnsembleRegressor",
                                               "ZipMap",
                                               "NonMaxSuppression",
                                               "TopK",
                                               "RoiAlign",
                                               "Range",
                                               "CumSum",
                                               "Min",
                                               "Max",
                                               "Upsample",
                                               "Resize",
                                               NULL};

typedef struct {
    onnx_edit *e;
    const onnx_half_options *o;
    onnx_types types;        /* before */
    unsigned char *half;     /* [types.count] 1: the value becomes float16 */
    const char **cast[2];    /* [types.count] its Cast to float, to float16; NULL: none */
    Onnx__NodeProto **nodes; /* those that were there */
    size_t count;
    bool old_scales; /* before opset 19 */
} halving;

static size_t index_of(const halving *h, const char *name)
{
    size_t low = 0, high = h->types.count;

    while (low < high) {
        size_t at = (low + high) / 2;
        if (strcmp(h->types.list[at].name, name) < 0)
            low = at + 1;
        else
            high = at;
    }
    return low < h->types.count && strcmp(h->types.list[low].name, name) == 0
               ? low
               : h->types.count;
}

static bool stays(const halving *h, const Onnx__NodeProto *n)
{
    const onnx_half_options *o = h->o;
    const char *op = onnx_text(n->op_type), *name = onnx_text(n->name);

    if (onnx_is(n, "DynamicQuantizeLinear") ||
        (h->old_scales && (onnx_is(n, "DequantizeLinear") || onnx_is(n, "QuantizeLinear"))))
        return true; /* they have float32 scales */
    if (o->op_include != NULL
            ? !onnx_named(o->op_include, op)
            : onnx_named(o->op_block != NULL ? o->op_block : op_block_default, op))
        return true;
    return o->node_include != NULL ? !onnx_named(o->node_include, name)
                                   : onnx_named(o->node_block, name);
}

static bool is_kept(const halving *h, const char *port)
{
    return h->o->keep_io &&
           (h->o->keep_names == NULL || onnx_named(h->o->keep_names, port));
}

static dr_status clip(const halving *h, uint16_t *to, const dr_tensor *v)
{
    const double least = h->o->min_positive, most = h->o->max_finite;
    size_t n = dr_tensor_count(v), large = 0;
    const unsigned char *from = v->data;

    for (size_t i = 0; i < n; i++) {
        float f;
        memcpy(&f, from + i * sizeof(f), sizeof(f));
        double m = fabs((double)f);
        if (m > 0 && m < least)
            f = copysignf((float)least, f);
        else if (m > most && isfinite(f)) /* infinity is a mask's */
            f = copysignf((float)most, f), large++;
        to[i] = dr_f32_to_f16(f);
    }
    if (large > 0)
        dr_log(DR_WARNING, "%s: %s: %zu of %zu values are over %g and become that",
               h->e->path, v->name, large, n, most);
    return DR_OK;
}

/* The tensor's values in float16. */
static dr_status convert(const halving *h, Onnx__TensorProto *t, bool inside)
{
    onnx_edit *e = h->e;
    const char *new_data = e->new_data;
    Onnx__TensorProto *made = NULL;
    dr_tensor v = {0};
    dr_arena scratch = {0};
    void *to = NULL;
    dr_status st = DR_OK;

    DR_TRY(onnx_edit_values(e, &v, t));
    size_t n = dr_tensor_count(&v);
    DR_TRY(dr_arena_big(&scratch, &to, n + 1, sizeof(uint16_t), "a float16 tensor"));
    DR_TRY(clip(h, to, &v));
    e->new_data = inside ? NULL : new_data;
    st = onnx_edit_tensor(e, &made, onnx_text(t->name), ONNX_FLOAT16, t->dims, t->n_dims,
                          to, n * sizeof(uint16_t));
    e->new_data = new_data;
    if (st == DR_OK)
        *t = *made;
done:
    dr_arena_release(&scratch);
    return st;
}

/* Which values become float16. */
static void choose(halving *h)
{
    const Onnx__GraphProto *g = h->e->graph;

    for (size_t i = 0; i < g->n_input; i++) {
        size_t at = index_of(h, onnx_text(g->input[i]->name));
        h->half[at] = !is_kept(h, onnx_text(g->input[i]->name));
    }
    for (size_t i = 0; i < h->count; i++) {
        bool out = !stays(h, h->nodes[i]);
        for (size_t k = 0; k < h->nodes[i]->n_output; k++)
            h->half[index_of(h, onnx_text(h->nodes[i]->output[k]))] = out;
        for (size_t k = 0; k < h->nodes[i]->n_input && out; k++) {
            if (onnx_edit_init(h->e, onnx_text(h->nodes[i]->input[k])) != NULL)
                h->half[index_of(h, h->nodes[i]->input[k])] = 1;
        }
    }
    for (size_t i = 0; i < h->types.count; i++)
        h->half[i] = h->half[i] && h->types.list[i].type == ONNX_FLOAT;
    h->half[h->types.count] = 0; /* of names that are none of a value */
}

static void cast_inputs(halving *h, Onnx__NodeProto *n, bool half)
{
    for (size_t k = 0; k < n->n_input; k++) {
        size_t at = index_of(h, onnx_text(n->input[k]));
        if (at == h->types.count || h->types.list[at].type != ONNX_FLOAT ||
            h->half[at] == half)
            continue;
        if (h->cast[half][at] == NULL) {
            const char *in[] = {n->input[k], NULL};
            const char *out =
                onnx_edit_unused(h->e, "%s_cast_%s", n->input[k], half ? "fp16" : "fp32");
            Onnx__NodeProto *c = onnx_edit_node(h->e, NULL, "Cast", out, in, out);
            onnx_edit_set_int(h->e, c, "to", half ? ONNX_FLOAT16 : ONNX_FLOAT);
            h->cast[half][at] = out;
        }
        onnx_edit_set_input(h->e, n, k, h->cast[half][at]);
    }
}

/* What a node's attributes say of types. */
static dr_status convert_attrs(const halving *h, Onnx__NodeProto *n)
{
    static const char *const types[] = {"to", "dtype", "output_dtype"};
    dr_status st = DR_OK;

    for (size_t i = 0; i < n->n_attribute; i++) {
        Onnx__AttributeProto *a = n->attribute[i];
        for (size_t k = 0; k < DR_COUNT(types); k++) {
            if (strcmp(onnx_text(a->name), types[k]) == 0 && a->i == ONNX_FLOAT)
                a->i = ONNX_FLOAT16;
        }
        if (a->t != NULL && a->t->data_type == ONNX_FLOAT)
            DR_TRY(convert(h, a->t, true));
        if (onnx_is(n, "Constant") && strncmp(onnx_text(a->name), "value_float", 11) == 0)
            DR_FAIL(DR_EUNSUPPORTED, "%s: %s has its value in %s, not in a tensor",
                    h->e->path, onnx_text(n->name), a->name);
    }
    if (onnx_is(n, "ConstantOfShape") && onnx_edit_attr(n, "value") == NULL)
        DR_FAIL(DR_EUNSUPPORTED, "%s: %s has no value of its own", h->e->path,
                onnx_text(n->name));
done:
    return st;
}

static void retype(Onnx__ValueInfoProto *v)
{
    Onnx__TypeProto__Tensor *t = onnx_tensor_of(v);

    if (t != NULL)
        t->elem_type = ONNX_FLOAT16;
}

/* Outputs that stay float32 though their maker gives float16, and the reverse. */
static void settle_outputs(halving *h)
{
    Onnx__GraphProto *g = h->e->graph;

    for (size_t i = 0; i < g->n_output; i++) {
        const char *name = onnx_text(g->output[i]->name);
        size_t at = index_of(h, name);
        bool want = !is_kept(h, name);
        if (at == h->types.count || h->types.list[at].type != ONNX_FLOAT)
            continue;
        if (want)
            retype(g->output[i]);
        if (h->half[at] == want)
            continue;
        Onnx__NodeProto *maker = onnx_edit_maker(h->e, name);
        if (maker == NULL)
            continue;
        char *inner = onnx_edit_unused(h->e, "%s_%s", name, want ? "fp32" : "fp16");
        (void)onnx_edit_redirect(h->e, name, inner);
        onnx_edit_rename_output(maker, name, inner);
        const char *in[] = {inner, NULL};
        const char *cast = onnx_edit_unused(h->e, "%s_cast", name);
        Onnx__NodeProto *c = onnx_edit_node(h->e, NULL, "Cast", cast, in, name);
        onnx_edit_set_int(h->e, c, "to", want ? ONNX_FLOAT16 : ONNX_FLOAT);
    }
}

static dr_status settle_values(halving *h)
{
    Onnx__GraphProto *g = h->e->graph;
    dr_status st = DR_OK;

    for (size_t i = 0; i < g->n_initializer; i++) {
        size_t at = index_of(h, onnx_text(g->initializer[i]->name));
        if (at < h->types.count && h->half[at]) {
            DR_TRY(convert(h, g->initializer[i], false));
            h->e->changes++;
        }
    }
    for (size_t i = 0; i < g->n_input; i++) {
        if (h->half[index_of(h, onnx_text(g->input[i]->name))])
            retype(g->input[i]);
    }
    for (size_t i = 0; i < g->n_value_info; i++) {
        if (h->half[index_of(h, onnx_text(g->value_info[i]->name))])
            retype(g->value_info[i]);
    }
done:
    return st;
}

dr_status onnx_to_half(onnx_edit *e, const onnx_half_options *o)
{
    halving h = {.e = e, .o = o, .old_scales = onnx_edit_opset(e, "") < 19};
    dr_status st = DR_OK;

    DR_TRY(onnx_edit_flat(e, "float16"));
    DR_TRY(onnx_edit_types(e, &h.types));
    h.count = e->graph->n_node;
    h.nodes = onnx_edit_list(&e->arena, e->graph->node, h.count);
    h.half = dr_arena_alloc(&e->arena, h.types.count + 1, 1);
    h.cast[0] = dr_arena_alloc(&e->arena, h.types.count + 1, sizeof(char *));
    h.cast[1] = dr_arena_alloc(&e->arena, h.types.count + 1, sizeof(char *));
    choose(&h);
    for (size_t i = 0; i < h.count; i++) {
        bool half = !stays(&h, h.nodes[i]);
        if (half)
            DR_TRY(convert_attrs(&h, h.nodes[i]));
        if (!onnx_is(h.nodes[i], "Cast"))
            cast_inputs(&h, h.nodes[i], half);
        e->changes += half;
    }
    DR_TRY(settle_values(&h));
    settle_outputs(&h);
done:
    return st;
}

dr_status onnx_half_loss(onnx_edit *e, const char **node, double *worst)
{
    const Onnx__GraphProto *g = e->graph;
    const Onnx__NodeProto *n =
        g->n_output > 0 ? onnx_edit_maker(e, onnx_text(g->output[0]->name)) : NULL;
    const Onnx__TensorProto *t = NULL;
    dr_tensor v = {0};
    dr_status st = DR_OK;

    *worst = -1;
    *node = NULL;
    for (size_t i = 0; n != NULL && onnx_is(n, "MatMul") && i < n->n_input && t == NULL;
         i++)
        t = onnx_edit_init(e, onnx_text(n->input[i]));
    if (t == NULL || t->data_type != ONNX_FLOAT)
        return DR_OK;
    DR_TRY(onnx_edit_values(e, &v, t));
    *node = onnx_text(n->name);
    *worst = 0;
    for (size_t i = 0; i < dr_tensor_count(&v); i++) {
        float f;
        memcpy(&f, (const unsigned char *)v.data + i * sizeof(f), sizeof(f));
        *worst = fmax(*worst, fabs((double)f - (double)dr_f16_to_f32(dr_f32_to_f16(f))));
    }
done:
    return st;
}
