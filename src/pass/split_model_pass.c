/*
 * split_model_pass.c - the SplitModel pass: a graph as several, split_0.onnx, split_1.onnx
 * and so on, whose weights stay in the files that they are in.
 */
#include <string.h>

#include "core/file.h"
#include "pass/optimized_impl.h"
#include "pass/parts_impl.h"
#include "pass/splits_impl.h"

typedef struct {
    pass_external external;
    const char *split_assignments;
} split_model;

static const dr_param params[] = {
    DR_STR(split_model, split_assignments, .dflt = "null", .json = true,
           .help = "\"model.layers.0=0;model.layers.1=1\", or an object; null: what "
                   "CaptureSplitInfo said"),
    PASS_EXTERNAL_ROWS,
};

/* As NAME=PART;...; NULL: it is not given. */
static dr_status given_text(const char **out, dr_arena *a, const split_model *c)
{
    *out = c->split_assignments;
    if (*out == NULL || **out != '{')
        return DR_OK;
    return pass_splits_text(out, a, c->split_assignments, "split_assignments");
}

static dr_status validate(const void *config, const unsigned char *given)
{
    const split_model *c = config;
    const char *text = NULL;
    onnx_parts parts;
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(pass_external_validate(config, given));
    DR_TRY(given_text(&text, &a, c));
    if (text != NULL)
        DR_TRY(onnx_parts_parse(&parts, &a, text, "split_assignments"));
done:
    dr_arena_release(&a);
    return st;
}

static dr_status find_splits(onnx_parts *out, const pass_job *job, const pass_model *in,
                             const onnx_edit *e)
{
    const char *text = NULL;
    dr_status st = DR_OK;

    DR_TRY(given_text(&text, job->arena, job->config));
    if (text == NULL && onnx_metadata(e, "split_assignments") != NULL)
        text = dr_arena_strdup(job->arena, onnx_metadata(e, "split_assignments"));
    if (text == NULL)
        DR_TRY(pass_read_splits(&text, job->arena, in->attributes));
    if (text == NULL) {
        st = dr_fail(DR_EUSAGE, "%s: nothing says where it is to be split", in->name);
        dr_hint("run CaptureSplitInfo before the export, or give split_assignments");
        goto done;
    }
    DR_TRY(onnx_parts_parse(out, job->arena, text, "split_assignments"));
done:
    return st;
}

/* What is known of values between parts beyond the graph. */
typedef struct {
    onnx_described *list; /* arena */
    size_t count;
} described;

/* The graph with these values as outputs, too, in `dir`. */
static dr_status expose(const pass_job *job, const char *dir, const char *graph,
                        const char *const *names, size_t count)
{
    json_t *list = json_array();
    json_t *surgeon = json_pack("{s:s, s:O}", "surgeon", "AddIntermediateTensorsToOutputs",
                                "intermediate_tensor_to_add", list);
    onnx_edit *e = NULL;
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_string(names[i]));
    DR_TRY(dr_make_dirs(dir));
    DR_TRY(onnx_rewrite_open(&e, graph, dir));
    DR_TRY(onnx_surgery(e, surgeon, "values between parts"));
    DR_TRY(onnx_rewrite_save(e));
    DR_TRY(pass_link_external(job, dir, graph, e));
done:
    onnx_rewrite_close(e);
    json_decref(surgeon);
    json_decref(list);
    return st;
}

/* Sizes that the runtime works out, where the graph does not say them. */
static dr_status describe(described *out, const pass_job *job, const char *graph,
                          onnx_edit *e, const onnx_parts *parts)
{
    const char *dir = dr_path_join(job->arena, job->out_dir, "described");
    const char *const *names = NULL;
    ort_session *s = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    DR_TRY(onnx_parts_unknown(e, parts, job->arena, &names, &count));
    if (count == 0)
        goto done;
    DR_TRY(expose(job, dir, graph, names, count));
    DR_TRYF(ort_session_open(&s, dr_path_join(job->arena, dir, "model.onnx"), 1, false),
            "asking the runtime for sizes that the graph does not say");
    out->list = dr_arena_alloc(job->arena, count, sizeof(*out->list));
    for (size_t i = 0; i < ort_session_output_count(s); i++) {
        const char *name = ort_session_output_name(s, i);
        ort_value v = {0};
        if (!onnx_named(names, name))
            continue;
        DR_TRY(ort_session_output(s, i, &v));
        onnx_described *d = &out->list[out->count++];
        *d = (onnx_described){dr_arena_strdup(job->arena, name), (size_t)v.ndim, {0}};
        memcpy(d->dims, v.dims, sizeof(v.dims));
    }
    ort_session_close(s);
    s = NULL;
    DR_TRY(dr_remove_tree(dir));
done:
    ort_session_close(s);
    return st;
}

/* One part, under its name; *file stays NULL where it is empty. */
static dr_status write_part(const char **file, const pass_job *job, const char *graph,
                            const char *dir, const onnx_parts *parts, size_t i,
                            const described *more)
{
    const char *name = dr_arena_printf(job->arena, "split_%zu.onnx", i);
    bool empty = false;
    onnx_edit *e = NULL;
    dr_status st = DR_OK;

    DR_TRY(onnx_rewrite_open(&e, graph, dir));
    DR_TRY(onnx_keep_part(e, parts, i, more->list, more->count, &empty));
    if (empty)
        goto done;
    onnx_rewrite_name(e, name);
    DR_TRY(onnx_rewrite_save(e));
    DR_TRY(pass_place_external(job, dir, graph, e));
    DR_TRY(dr_buf_addf(job->text, "%-14s %zu nodes\n", name, onnx_rewrite_nodes(e)));
    *file = name;
done:
    onnx_rewrite_close(e);
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const char *graph = pass_graph_path(job, in);
    const char *dir = dr_path_join(job->arena, job->out_dir, "model");
    onnx_edit *e = NULL;
    onnx_parts parts = {0};
    described more = {0};
    size_t count = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(dir));
    DR_TRY(onnx_rewrite_open(&e, graph, dir));
    DR_TRY(find_splits(&parts, job, in, e));
    DR_TRY(describe(&more, job, graph, e, &parts));
    const char **files = dr_arena_alloc(job->arena, parts.parts + 1, sizeof(*files));
    for (size_t i = 0; i < parts.parts; i++) {
        DR_TRYF(write_part(&files[count], job, graph, dir, &parts, i, &more), "part %zu",
                i);
        count += files[count] != NULL;
    }
    if (count < 2)
        DR_FAIL(DR_EUSAGE,
                "%s: split_assignments leave %zu part of it: no node is called "
                "as they say",
                in->name, count);
    DR_TRY(pass_place_files(job, dir, in->path, NULL));
    DR_TRY(pass_check_parts(job, dir, files));
    json_object_set_new(job->report, "parts", json_integer((json_int_t)count));
    *out = (pass_model){
        .kind = PASS_MODEL_PARTS, .path = dir, .parts = files, .name = in->name};
done:
    onnx_rewrite_close(e);
    return st;
}

extern const pass_def pass_split_model; /* PASS(split_model) */
const pass_def pass_split_model = {
    .name = "SplitModel",
    .version = 1,
    .summary = "a graph in parts, one after the other",
    .takes = PASS_MODEL_ONNX,
    .gives = PASS_MODEL_PARTS,
    .config_size = sizeof(split_model),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .run = run,
};
