/*
 * fixed_shape_pass.c - the DynamicToFixedShape pass: sizes in place of names.
 *
 * The sizes of outputs follow from those of the inputs; the runtime, which works them out
 * as it loads a graph, is asked for them.
 */
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "ort/ort.h"
#include "pass/rewrite_impl.h"
#include "pass/shared_impl.h"

typedef struct {
    pass_external external;
    const char *dim_param, *dim_value, *input_name, *input_shape;
} fixed_shape;

static const dr_param params[] = {
    DR_STR(fixed_shape, dim_param, .dflt = "null", .listed = true,
           .help = "names of dimensions"),
    DR_STR(fixed_shape, dim_value, .dflt = "null", .listed = true,
           .help = "their sizes, in this order"),
    DR_STR(fixed_shape, input_name, .dflt = "null", .listed = true,
           .help = "or names of inputs"),
    DR_STR(fixed_shape, input_shape, .dflt = "null", .json = true, .listed = true,
           .help = "their shapes: [[1, 3, 224, 224], ...]"),
    PASS_EXTERNAL_ROWS,
};

static dr_status validate(const void *config, const unsigned char *given)
{
    const fixed_shape *c = config;

    if ((c->dim_param == NULL) != (c->dim_value == NULL))
        return dr_fail(DR_EUSAGE, "dim_param and dim_value go together");
    if ((c->input_name == NULL) != (c->input_shape == NULL))
        return dr_fail(DR_EUSAGE, "input_name and input_shape go together");
    if (c->dim_param != NULL && c->input_name != NULL)
        return dr_fail(DR_EUSAGE, "dim_param and input_name: one of them");
    if (given != NULL && c->dim_param == NULL && c->input_name == NULL)
        return dr_fail(DR_EUSAGE, "dim_param or input_name is needed");
    return pass_external_validate(config, given);
}

static dr_status fix_dims(onnx_edit *e, dr_arena *a, const fixed_shape *c)
{
    size_t count = 0, n = 0;
    const char **names = pass_words(&n, a, c->dim_param, ",");
    const int64_t *sizes = NULL;
    dr_status st = DR_OK;

    DR_TRY(pass_integers(a, &sizes, &count, c->dim_value, "dim_value"));
    if (n != count)
        DR_FAIL(DR_EUSAGE, "dim_param has %zu names, dim_value %zu sizes", n, count);
    for (size_t i = 0; i < n; i++) {
        if (sizes[i] < 0)
            DR_FAIL(DR_EUSAGE, "dim_value: expected 0 or more, found %lld",
                    (long long)sizes[i]);
        DR_TRY(onnx_fix_dim(e, names[i], sizes[i]));
    }
done:
    return st;
}

static dr_status fix_input(onnx_edit *e, const char *name, const json_t *shape)
{
    int64_t dims[DR_TENSOR_DIMS];
    size_t rank = json_array_size(shape);

    for (size_t d = 0; d < rank && rank <= DR_TENSOR_DIMS; d++) {
        dims[d] = json_integer_value(json_array_get(shape, d));
        if (dims[d] < 1)
            return dr_fail(DR_EUSAGE, "input_shape: %s: sizes are integers above 0", name);
    }
    if (rank < 1 || rank > DR_TENSOR_DIMS)
        return dr_fail(DR_EUSAGE, "input_shape: %s: expected a list of 1 to %d sizes", name,
                       DR_TENSOR_DIMS);
    return onnx_fix_input(e, name, dims, rank);
}

static dr_status fix_inputs(onnx_edit *e, dr_arena *a, const fixed_shape *c)
{
    size_t n = 0;
    const char **names = pass_words(&n, a, c->input_name, ",");
    json_t *shapes = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_json_parse(&shapes, c->input_shape, strlen(c->input_shape), "input_shape"));
    if (json_array_size(shapes) != n)
        DR_FAIL(DR_EUSAGE, "input_name has %zu names, input_shape %zu shapes", n,
                json_array_size(shapes));
    for (size_t i = 0; i < n; i++)
        DR_TRY(fix_input(e, names[i], json_array_get(shapes, i)));
done:
    json_decref(shapes);
    return st;
}

/* A runtime's word on the outputs; without one they stay as they are. */
static dr_status fix_outputs(onnx_edit *e, const char *model)
{
    ort_session *s = NULL;
    dr_status st = ort_session_open(&s, model, 1, false);

    for (size_t i = 0; st == DR_OK && i < ort_session_output_count(s); i++) {
        ort_value v = {0};
        st = ort_session_output(s, i, &v);
        if (st == DR_OK)
            onnx_fix_output(e, v.name, v.dims, (size_t)v.ndim);
    }
    if (st == DR_EDEVICE && s == NULL) {
        dr_log(DR_WARNING, "sizes of outputs stay open: %s",
               dr_trail_get()->frames[0].text);
        dr_trail_clear();
        st = DR_OK;
    }
    ort_session_close(s);
    return st;
}

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const fixed_shape *c = job->config;
    const char *dir = dr_path_join(job->arena, job->out_dir, "model");
    const char **files = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    DR_TRY(c->dim_param != NULL ? fix_dims(e, job->arena, c)
                                : fix_inputs(e, job->arena, c));
    DR_TRY(onnx_rewrite_save(e)); /* for the runtime; once more when all sizes are known */
    while (onnx_rewrite_file(e, count) != NULL)
        count++;
    files = dr_arena_alloc(job->arena, count + 1, sizeof(*files));
    for (size_t i = 0; i < count; i++)
        files[i] = onnx_rewrite_file(e, i);
    DR_TRY(pass_place_files(job, dir, in->path, files));
    DR_TRY(fix_outputs(e, dr_path_join(job->arena, dir, "model.onnx")));
done:
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_rewrite(job, out, in, change);
}

extern const pass_def pass_fixed_shape; /* PASS(fixed_shape) */
const pass_def pass_fixed_shape = {
    .name = "DynamicToFixedShape",
    .version = 1,
    .summary = "sizes in place of named dimensions",
    PASS_REWRITE(fixed_shape, params),
    .validate = validate,
    .run = run,
};
