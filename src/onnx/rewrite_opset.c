/*
 * rewrite_opset.c - a graph in a newer version of the standard operators.
 *
 * Most operators mean the same in each version, with more types or more attributes.  Those
 * whose old form is not valid any more, or means something else, are changed here; the
 * table has the version that did it.  A name that is not in the table, in a range of
 * versions that this file covers, needs nothing.  Source: the versions' notes in
 * onnx/docs/Changelog.md.
 */
#include <string.h>

#include "onnx.pb-c.h"
#include "onnx/edit_impl.h"
#include "onnx/graph_impl.h"

/* An attribute of integers becomes input i. */
static dr_status attr_to_input(onnx_edit *e, Onnx__NodeProto *n, const char *attr, size_t i)
{
    const Onnx__AttributeProto *a = onnx_edit_attr(n, attr);
    dr_status st = DR_OK;

    if (a == NULL)
        return DR_OK;
    int64_t count = (int64_t)a->n_ints;
    char *name = onnx_edit_unused(e, "%s_%s", onnx_text(n->output[0]), attr);
    DR_TRY(onnx_edit_add_init(e, name, ONNX_INT64, &count, 1, a->ints,
                              a->n_ints * sizeof(int64_t)));
    onnx_edit_set_input(e, n, i, name);
    onnx_edit_drop_attr(n, attr);
done:
    return st;
}

static dr_status axes_to_input(onnx_edit *e, Onnx__NodeProto *n)
{
    return attr_to_input(e, n, "axes", 1);
}

/* Split's sizes (13), or their number where they are equal (18). */
static dr_status split_to_input(onnx_edit *e, Onnx__NodeProto *n)
{
    return attr_to_input(e, n, "split", 1);
}

static dr_status count_outputs(onnx_edit *e, Onnx__NodeProto *n)
{
    if (n->n_input < 2 && onnx_edit_attr(n, "num_outputs") == NULL)
        onnx_edit_set_int(e, n, "num_outputs", (int64_t)n->n_output);
    return DR_OK;
}

/* Before 13 the input was seen as a matrix, cut before the axis (default 1): from the last
 * axis on, that is the same, which only an axis of -1 says without the rank. */
static dr_status softmax_axis(onnx_edit *e, Onnx__NodeProto *n)
{
    const Onnx__AttributeProto *a = onnx_edit_attr(n, "axis");
    const Onnx__TypeProto__Tensor *t =
        onnx_tensor_of(onnx_edit_info(e, onnx_text(n->input[0])));
    int64_t axis = a != NULL ? a->i : 1;
    bool last = axis == -1 ||
                (t != NULL && t->shape != NULL && axis == (int64_t)t->shape->n_dim - 1);

    if (!last)
        return dr_fail(DR_EUNSUPPORTED,
                       "%s: %s of opset 12 and before has axis %lld, which is not known to "
                       "be the last",
                       onnx_text(n->op_type), onnx_text(n->name), (long long)axis);
    onnx_edit_set_int(e, n, "axis", -1);
    return DR_OK;
}

/* 20 calls the modes by other names. */
static dr_status grid_sample_mode(onnx_edit *e, Onnx__NodeProto *n)
{
    const Onnx__AttributeProto *a = onnx_edit_attr(n, "mode");
    const char *mode = "linear";

    if (a != NULL && a->s.len == 7 && memcmp(a->s.data, "nearest", 7) == 0)
        mode = "nearest";
    else if (a != NULL && a->s.len == 7 && memcmp(a->s.data, "bicubic", 7) == 0)
        mode = "cubic";
    for (size_t i = 0; i < n->n_attribute; i++) {
        if (n->attribute[i] == a)
            n->attribute[i]->s = (ProtobufCBinaryData){
                strlen(mode), (uint8_t *)dr_arena_strdup(&e->arena, mode)};
    }
    return DR_OK;
}

static dr_status not_here(onnx_edit *e, Onnx__NodeProto *n)
{
    return dr_fail(DR_EUNSUPPORTED, "%s: %s (%s) has another form in the newer opset",
                   e->path, onnx_text(n->name), onnx_text(n->op_type));
}

static const struct {
    const char *op;
    int64_t since;
    dr_status (*change)(onnx_edit *, Onnx__NodeProto *);
} changes[] = {
    {"Squeeze", 13, axes_to_input},
    {"Unsqueeze", 13, axes_to_input},
    {"ReduceSum", 13, axes_to_input},
    {"Split", 13, split_to_input},
    {"Softmax", 13, softmax_axis},
    {"LogSoftmax", 13, softmax_axis},
    {"Hardmax", 13, softmax_axis},
    {"BatchNormalization", 14, NULL}, /* the outputs of trainings went */
    {"Upsample", 10, not_here},
    {"Scatter", 11, not_here},
    {"ReduceMean", 18, axes_to_input},
    {"ReduceMax", 18, axes_to_input},
    {"ReduceMin", 18, axes_to_input},
    {"ReduceProd", 18, axes_to_input},
    {"ReduceL1", 18, axes_to_input},
    {"ReduceL2", 18, axes_to_input},
    {"ReduceLogSum", 18, axes_to_input},
    {"ReduceLogSumExp", 18, axes_to_input},
    {"ReduceSumSquare", 18, axes_to_input},
    {"Split", 18, count_outputs},
    {"GridSample", 20, grid_sample_mode},
    {"GroupNormalization", 21, not_here}, /* scale and bias by channel, not by group */
};

static dr_status raise_node(onnx_edit *e, Onnx__NodeProto *n, int64_t from, int64_t to)
{
    dr_status st = DR_OK;

    if (onnx_text(n->domain)[0] != '\0' && strcmp(n->domain, "ai.onnx") != 0)
        return DR_OK;
    for (size_t i = 0; i < DR_COUNT(changes); i++) {
        if (from >= changes[i].since || to < changes[i].since ||
            changes[i].change == NULL || !onnx_is(n, changes[i].op))
            continue;
        DR_TRY(changes[i].change(e, n));
        e->changes++;
    }
done:
    return st;
}

dr_status onnx_raise_opset(onnx_edit *e, int64_t version)
{
    static const struct {
        int64_t opset, ir;
    } ir[] = {{13, 7}, {15, 8}, {18, 8}, {19, 9}, {21, 10}, {23, 11}};
    int64_t from = onnx_edit_opset(e, "");
    dr_status st = DR_OK;

    if (from < ONNX_OPSET_OLDEST || from > ONNX_OPSET_NEWEST)
        DR_FAIL(DR_EUNSUPPORTED, "%s: its opset is %lld; %d to %d are converted", e->path,
                (long long)from, ONNX_OPSET_OLDEST, ONNX_OPSET_NEWEST);
    if (version < from)
        DR_FAIL(DR_EUSAGE, "target_opset %lld: %s has opset %lld already",
                (long long)version, e->path, (long long)from);
    DR_TRY(onnx_edit_flat(e, "a new opset"));
    size_t count = e->graph->n_node;
    for (size_t i = 0; i < count; i++)
        DR_TRY(raise_node(e, e->graph->node[i], from, version));
    onnx_edit_need_opset(e, "", version);
    for (size_t i = 0; i < DR_COUNT(ir); i++) {
        if (version >= ir[i].opset && e->model->ir_version < ir[i].ir)
            e->model->ir_version = ir[i].ir;
    }
    e->changes++;
done:
    return st;
}

dr_status onnx_edit_raise_opset(onnx_edit *e, int64_t least)
{
    int64_t version = onnx_edit_opset(e, "");

    return onnx_raise_opset(e, version > least ? version : least);
}
