/*
 * rewrite.c - a pass from an ONNX model to another: the graph is changed in memory and
 * written once, weights that did not change are linked, settings and tokenizers come along.
 */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "pass/export_impl.h"
#include "pass/optimized_impl.h"
#include "pass/parts_impl.h"
#include "pass/shared_impl.h"

dr_status pass_external_validate(const void *config, const unsigned char *given)
{
    const pass_external *c = config;

    (void)given;
    if (!c->save_as_external_data)
        return dr_fail(DR_EUNSUPPORTED,
                       "save_as_external_data false: weights are written to "
                       "model.onnx.data; the nearest is true");
    if (!c->all_tensors_to_one_file)
        return dr_fail(DR_EUNSUPPORTED,
                       "all_tensors_to_one_file false: there is one file of weights; the "
                       "nearest is true");
    return DR_OK;
}

onnx_names pass_names(dr_arena *a, const char *list)
{
    size_t count = 0;

    return list != NULL && *list != '\0' ? pass_words(&count, a, list, ",") : NULL;
}

dr_status pass_integers(dr_arena *a, const int64_t **out, size_t *count, const char *list,
                        const char *label)
{
    const char **words = pass_words(count, a, list, ",");
    int64_t *numbers = dr_arena_alloc(a, *count + 1, sizeof(*numbers));

    *out = numbers;
    if (*count == 0)
        return dr_fail(DR_EUSAGE, "%s: expected integers with commas between", label);
    for (size_t i = 0; i < *count; i++) {
        char *end = NULL;
        numbers[i] = strtoll(words[i], &end, 10);
        if (*end != '\0')
            return dr_fail(DR_EUSAGE, "%s: expected an integer, found \"%s\"", label,
                           words[i]);
    }
    return DR_OK;
}

/* Settings, tokenizers, templates and adapters, which belong to a model. */
static bool belongs(const char *name)
{
    static const char *const ends[] = {".json", ".txt", ".jinja", ".model",
                                       ".onnx_adapter"};

    if (strcmp(name, "drupe.json") == 0 || strcmp(name, "model_config.json") == 0)
        return false;
    for (size_t i = 0; i < DR_COUNT(ends); i++) {
        if (dr_ends_with(name, ends[i]))
            return true;
    }
    return false;
}

static dr_status place(const pass_job *job, const char *dir, const char *from,
                       const char *name)
{
    const char *to = dr_path_join(job->arena, dir, name);

    if (dr_exists(to)) /* ours */
        return DR_OK;
    /* no hard link: onnx refuses to read weights that have a second name */
    return dr_copy_file(to, dr_path_join(job->arena, from, name));
}

dr_status pass_place_files(const pass_job *job, const char *dir, const char *from,
                           const char *const *files)
{
    char **names = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; files != NULL && files[i] != NULL; i++)
        DR_TRYF(place(job, dir, from, files[i]), "placing external weights");
    DR_TRY(dr_list_dir(job->arena, from, &names, &count));
    for (size_t i = 0; i < count; i++) {
        if (belongs(names[i]) && dr_is_file(dr_path_join(job->arena, from, names[i])))
            DR_TRY(place(job, dir, from, names[i]));
    }
done:
    return st;
}

dr_status pass_check_parts(const pass_job *job, const char *dir, const char *const *parts)
{
    const bool genai = dr_is_file(dr_path_join(job->arena, dir, "genai_config.json"));
    const ort_check_request request = {
        .dir = dir, .genai = genai && parts == NULL, .parts = parts};
    ort_check_result result = {0};
    dr_status st = DR_OK;

    if (!job->check)
        return pass_tell_not_checked(job, "--no_check");
    DR_TRYF(ort_check(&result, &request), "checking the changed model");
    DR_TRY(pass_tell_check(job, &result));
done:
    return st;
}

const char *pass_graph_path(const pass_job *job, const pass_model *in)
{
    return dr_path_join(job->arena, in->path, in->file != NULL ? in->file : "model.onnx");
}

dr_status pass_place_external(const pass_job *job, const char *dir, const char *graph,
                              const onnx_edit *e)
{
    const char *from = dr_path_dir(job->arena, graph), *file;
    dr_status st = DR_OK;

    for (size_t i = 0; (file = onnx_rewrite_file(e, i)) != NULL; i++)
        DR_TRYF(place(job, dir, from, file), "placing external weights");
done:
    return st;
}

dr_status pass_link_external(const pass_job *job, const char *dir, const char *graph,
                             const onnx_edit *e)
{
    const char *from = dr_path_dir(job->arena, graph), *file;
    dr_status st = DR_OK;

    for (size_t i = 0; (file = onnx_rewrite_file(e, i)) != NULL; i++)
        DR_TRY(dr_place_file(dr_path_join(job->arena, dir, file),
                             dr_path_join(job->arena, from, file), NULL));
done:
    return st;
}

/* Of all graphs of a model. */
typedef struct {
    size_t changes, nodes;
} totals;

/* One graph, written as dir/NAME; graph: where it lies with its weights. */
static dr_status rewrite_graph(totals *t, const pass_job *job, const char *dir,
                               const pass_model *in, const char *graph, const char *name,
                               pass_rewrite_fn change)
{
    onnx_edit *e = NULL;
    size_t before = 0;
    dr_status st = DR_OK;

    DR_TRY(onnx_rewrite_open(&e, graph, dir));
    onnx_rewrite_name(e, name);
    before = onnx_rewrite_nodes(e);
    DR_TRY(change(e, job, in));
    DR_TRY(onnx_rewrite_save(e));
    DR_TRY(pass_place_external(job, dir, graph, e));
    t->changes += onnx_rewrite_changes(e);
    t->nodes += onnx_rewrite_nodes(e);
    DR_TRY(dr_buf_addf(job->text, "%-14s %zu changes, %zu nodes (before: %zu)\n",
                       in->file != NULL && in->parts != NULL ? in->file : "graph",
                       onnx_rewrite_changes(e), onnx_rewrite_nodes(e), before));
done:
    onnx_rewrite_close(e);
    return st;
}

/* The same on what the runtime makes of it at that level; -1: as it is. */
static dr_status rewrite_one(totals *t, const pass_job *job, const char *dir,
                             const pass_model *in, const char *name, int level,
                             pass_rewrite_fn change)
{
    const char *graph = pass_graph_path(job, in);
    const char *tmp = dr_path_join(job->arena, job->out_dir, "optimized");
    const char *made = dr_path_join(job->arena, tmp, name);
    dr_status st = DR_OK;

    if (level < 0)
        return rewrite_graph(t, job, dir, in, graph, name, change);
    DR_TRY(dr_make_dirs(tmp));
    DR_TRYF(ort_optimize(made, graph, level), "the runtime's optimizations");
    DR_TRY(rewrite_graph(t, job, dir, in, made, name, change));
    DR_TRY(dr_remove_tree(tmp));
done:
    return st;
}

dr_status pass_optimized(const pass_job *job, pass_model *out, const pass_model *in,
                         int level, pass_rewrite_fn change)
{
    static const char *const whole[] = {"model.onnx", NULL};
    const bool parts = in->kind == PASS_MODEL_PARTS;
    const char *const *names = parts ? in->parts : whole;
    const char *dir = dr_path_join(job->arena, job->out_dir, "model");
    totals t = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(dir));
    for (size_t i = 0; names[i] != NULL; i++) {
        pass_model one = *in;
        if (parts)
            one.file = names[i];
        DR_TRYF(rewrite_one(&t, job, dir, &one, names[i], level, change), "%s", names[i]);
    }
    json_object_set_new(job->report, "changes", json_integer((json_int_t)t.changes));
    json_object_set_new(job->report, "nodes", json_integer((json_int_t)t.nodes));
    DR_TRY(pass_place_files(job, dir, in->path, NULL));
    DR_TRY(pass_check_parts(job, dir, parts ? names : NULL));
    *out =
        (pass_model){.kind = in->kind, .path = dir, .parts = in->parts, .name = in->name};
done:
    return st;
}

dr_status pass_rewrite(const pass_job *job, pass_model *out, const pass_model *in,
                       pass_rewrite_fn change)
{
    return pass_optimized(job, out, in, -1, change);
}

dr_status pass_convert_io(onnx_edit *e, const pass_model *in, const char *pattern, int from,
                          int to)
{
    dr_status st = DR_OK;

    DR_TRY(onnx_io_types(e, pattern, from, to));
    if (onnx_rewrite_changes(e) == 0)
        dr_log(DR_WARNING,
               "%s: no input or output called %s has the type %d: it stays as "
               "it is",
               in->name, pattern != NULL && *pattern ? pattern : "anything", from);
done:
    return st;
}
