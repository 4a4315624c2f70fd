/*
 * input.c - what a run starts from, found and looked at before anything is made.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "flow/flow_impl.h"

dr_status flow_parse_adapters(dr_arena *a, const char *text, const char ***names,
                              const char ***paths, size_t *count)
{
    size_t max = 1, n = 0;
    dr_status st = DR_OK;

    for (const char *p = text; *p; p++)
        max += *p == ',';
    *names = dr_arena_alloc(a, max, sizeof(char *));
    *paths = dr_arena_alloc(a, max, sizeof(char *));
    char *list = dr_arena_strdup(a, text);
    for (char *p = list, *next; p != NULL; p = next, n++) {
        next = strchr(p, ',');
        if (next != NULL)
            *next++ = '\0';
        char *eq = strchr(p, '=');
        if (eq != NULL)
            *eq = '\0';
        (*names)[n] = eq != NULL ? p : NULL;
        (*paths)[n] = eq != NULL ? eq + 1 : p;
        if (*(*paths)[n] == '\0' || (eq != NULL && *p == '\0'))
            DR_FAIL(DR_EUSAGE, "adapter_path: an empty name or path in \"%s\"", text);
        if (eq == NULL && max > 1)
            DR_FAIL(DR_EUSAGE, "adapter_path: %s has no name; several need NAME=PATH each",
                    p);
        if (eq != NULL && (strchr(p, '/') != NULL || p[0] == '.'))
            DR_FAIL(DR_EUSAGE,
                    "adapter_path: \"%s\": a name has no slash and does not begin "
                    "with a dot",
                    p);
        for (size_t i = 0; i < n && eq != NULL; i++) {
            if (strcmp((*names)[i], p) == 0)
                DR_FAIL(DR_EUSAGE, "adapter_path: the name %s is given twice", p);
        }
    }
    *count = n;
done:
    return st;
}

/* An adapter path as given: a PEFT folder, or the folder of an earlier finetune. */
static dr_status adapter_folder(const char **folder, dr_arena *a, const char *path)
{
    const char *inside = dr_path_join(a, path, "adapter");
    dr_status st = DR_OK;

    if (!dr_exists(path)) {
        st = dr_fail(DR_EUSAGE, "adapter_path: %s: no such folder", path);
        dr_hint("adapters of the hub are not fetched yet; download it first");
        return st;
    }
    *folder = path;
    if (!dr_exists(dr_path_join(a, path, "adapter_config.json")) && dr_is_dir(inside))
        *folder = inside;
    return DR_OK;
}

bool flow_is_onnx_type(const char *type)
{
    return type != NULL &&
           (strcasecmp(type, "ONNXModel") == 0 || strcasecmp(type, "CompositeModel") == 0);
}

dr_status flow_read_model_config(dr_arena *a, const char *folder, const char **type,
                                 const char **adapter)
{
    const char *path = dr_path_join(a, folder, "model_config.json"), *text = NULL;
    json_t *j = NULL;
    dr_status st = DR_OK;

    if (!dr_is_file(path))
        return DR_OK;
    DR_TRY(dr_json_read(&j, path));
    DR_TRY(dr_json_str(j, "type", &text, path));
    if (text != NULL)
        *type = dr_arena_strdup(a, text);
    text = NULL;
    DR_TRY(dr_json_str(dr_json_get(j, "config"), "adapter_path", &text, path));
    if (text != NULL)
        *adapter = dr_path_join(a, folder, text);
done:
    json_decref(j);
    return st;
}

dr_status flow_read_attributes(dr_arena *a, const char **attributes, const char *folder)
{
    const char *path = dr_path_join(a, folder, "model_config.json");
    json_t *j = NULL;
    char *text = NULL;
    dr_status st = DR_OK;

    if (!dr_is_file(path))
        return DR_OK;
    DR_TRY(dr_json_read(&j, path));
    const json_t *found = dr_json_get(dr_json_get(j, "config"), "model_attributes");
    if (json_object_size(found) > 0)
        text = json_dumps(found, JSON_COMPACT);
    if (text != NULL)
        *attributes = dr_arena_strdup(a, text);
done:
    free(text);
    json_decref(j);
    return st;
}

static bool is_peft(dr_arena *a, const char *folder)
{
    return dr_is_file(dr_path_join(a, folder, "adapter_config.json"));
}

/* A PEFT folder and the PEFT folders in it. */
static dr_status list_peft(dr_arena *a, pass_adapter **list, size_t *count,
                           const char *folder)
{
    char **names = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_list_dir(a, folder, &names, &n));
    *list = dr_arena_alloc(a, n + 1, sizeof(**list));
    if (is_peft(a, folder))
        (*list)[(*count)++] = (pass_adapter){"default", folder};
    for (size_t i = 0; i < n; i++) {
        const char *inside = dr_path_join(a, folder, names[i]);
        if (!is_peft(a, inside))
            continue;
        if (*count > 0 && strcmp((*list)[0].name, names[i]) == 0)
            DR_FAIL(DR_EUSAGE, "%s: two adapters are called default: it and %s", folder,
                    inside);
        (*list)[(*count)++] = (pass_adapter){names[i], inside};
    }
done:
    return st;
}

static dr_status named_adapters(dr_arena *a, pass_adapter **list, size_t *count,
                                const char *text)
{
    const char **names = NULL, **paths = NULL;
    dr_status st = DR_OK;

    DR_TRY(flow_parse_adapters(a, text, &names, &paths, count));
    *list = dr_arena_alloc(a, *count, sizeof(**list));
    for (size_t i = 0; i < *count; i++) {
        (*list)[i].name = names[i] != NULL ? names[i] : "default";
        DR_TRY(adapter_folder(&(*list)[i].path, a, paths[i]));
    }
done:
    return st;
}

dr_status flow_find_adapters(dr_arena *a, const pass_adapter **list, size_t *count,
                             const char *model, const char *adapters)
{
    const char *type = NULL, *own = NULL;
    pass_adapter *found = NULL;
    dr_status st = DR_OK;

    *count = 0;
    if (adapters != NULL) {
        DR_TRY(named_adapters(a, &found, count, adapters));
    } else if (!dr_is_dir(model)) {
        DR_FAIL(DR_EUSAGE, "%s: no such folder, and no adapter_path was given", model);
    } else {
        DR_TRY(flow_read_model_config(a, model, &type, &own));
        if (own != NULL) {
            found = dr_arena_alloc(a, 1, sizeof(*found));
            found->name = "default";
            DR_TRY(adapter_folder(&found->path, a, own));
            *count = 1;
        } else {
            DR_TRY(list_peft(a, &found, count, model));
        }
    }
    if (*count == 0) {
        st = dr_fail(DR_EUSAGE,
                     "%s has no adapter: neither adapter_config.json nor a "
                     "model_config.json that names one",
                     model);
        dr_hint("name them: --adapter_path NAME=FOLDER,NAME2=FOLDER2");
    }
    *list = found;
done:
    return st;
}

static bool is_onnx(dr_arena *a, const char *model, const char *type)
{
    if (dr_ends_with(model, ".onnx"))
        return true;
    if (flow_is_onnx_type(type))
        return true;
    return !dr_exists(dr_path_join(a, model, "config.json")) &&
           dr_exists(dr_path_join(a, model, "model.onnx"));
}

dr_status flow_is_onnx_model(bool *onnx, dr_arena *a, const char *model, const char *type)
{
    const char *own = NULL;
    dr_status st = DR_OK;

    if (type == NULL && dr_is_dir(model))
        DR_TRY(flow_read_model_config(a, model, &type, &own));
    *onnx = type != NULL && !flow_is_onnx_type(type) ? false : is_onnx(a, model, type);
done:
    return st;
}

static dr_status refuse_onnx(const char *model)
{
    dr_status st = dr_fail(DR_EUNSUPPORTED,
                           "%s is an ONNX model already; this pass takes Hugging Face "
                           "models",
                           model);

    dr_hint("start from the Hugging Face model that it was made from");
    return st;
}

/* A graph's file, its folder, or the folder of an earlier result. */
static dr_status open_onnx(pass_model *in, dr_arena *a, const char *model)
{
    const char *inside = dr_path_join(a, model, "model");
    dr_status st = DR_OK;

    *in = (pass_model){.kind = PASS_MODEL_ONNX, .path = model, .name = model};
    if (dr_ends_with(model, ".onnx")) {
        in->path = dr_path_dir(a, model);
        in->file = dr_path_base(model);
        if (!dr_is_file(model))
            DR_FAIL(DR_EUSAGE, "%s: no such file", model);
    } else if (dr_is_file(dr_path_join(a, inside, "model.onnx"))) {
        in->path = inside;
    } else if (!dr_is_file(dr_path_join(a, model, "model.onnx"))) {
        st = dr_fail(DR_EUSAGE, "%s: neither a .onnx file nor a folder with model.onnx",
                     model);
        dr_hint("auto-opt and capture-onnx-graph make one of a Hugging Face model");
    }
done:
    return st;
}

/* Where the graphs of a folder are: in it, or as in an earlier result. */
static const char *graphs_folder(dr_arena *a, const char *model)
{
    const char *inside = dr_path_join(a, model, "model");

    return dr_is_dir(inside) ? inside : model;
}

/* A folder with several graphs, or that of an earlier result. */
static dr_status open_parts(pass_model *in, dr_arena *a, const char *model)
{
    const char *folder = graphs_folder(a, model);
    size_t count = 0;
    dr_status st = DR_OK;

    *in = (pass_model){.kind = PASS_MODEL_PARTS, .path = folder, .name = model};
    if (!dr_is_dir(folder))
        DR_FAIL(DR_EUSAGE, "%s: no such folder", model);
    DR_TRY(flow_list_graphs(a, &in->parts, &count, folder));
    if (count < 2)
        DR_FAIL(DR_EUSAGE, "%s: a model in parts has two graphs at least, found %zu",
                folder, count);
done:
    return st;
}

dr_status flow_input_kind(pass_kind *kind, const pass_def *first, const char *model)
{
    dr_arena a = {0};
    const char *const *files = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    *kind = first->takes;
    if (!first->each_part)
        goto done;
    const char *folder = graphs_folder(&a, model);
    if (!dr_is_dir(folder) || dr_is_file(dr_path_join(&a, folder, "model.onnx")))
        goto done;
    DR_TRY(flow_list_graphs(&a, &files, &count, folder));
    if (count > 1)
        *kind = PASS_MODEL_PARTS;
done:
    dr_arena_release(&a);
    return st;
}

static dr_status open_hf(pass_model *in, dr_arena *a, const flow_spec *spec)
{
    const char **names = NULL, **paths = NULL, *type = NULL, *own = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    if (dr_is_dir(spec->model))
        DR_TRY(flow_read_model_config(a, spec->model, &type, &own));
    if (is_onnx(a, spec->model, type))
        DR_TRY(refuse_onnx(spec->model));
    if (spec->adapters != NULL) {
        DR_TRY(flow_parse_adapters(a, spec->adapters, &names, &paths, &n));
    } else if (own != NULL) {
        names = dr_arena_alloc(a, 1, sizeof(char *));
        paths = dr_arena_alloc(a, 1, sizeof(char *));
        paths[n++] = own;
    }
    pass_adapter *list = dr_arena_alloc(a, n, sizeof(*list));
    for (size_t i = 0; i < n; i++) {
        list[i].name = names[i];
        DR_TRY(adapter_folder(&list[i].path, a, paths[i]));
    }
    *in = (pass_model){.kind = PASS_MODEL_HF,
                       .path = spec->model,
                       .name = spec->model,
                       .adapters = list,
                       .adapter_count = n};
done:
    return st;
}

dr_status flow_open_input(pass_model *in, dr_arena *a, const flow_spec *spec,
                          pass_kind kind)
{
    dr_status st = DR_OK;

    if (kind == PASS_MODEL_HF)
        DR_TRY(open_hf(in, a, spec));
    else if (kind == PASS_MODEL_ONNX)
        DR_TRY(open_onnx(in, a, spec->model));
    else if (pass_kind_is_vendors(kind))
        DR_TRY(flow_open_vendor(in, a, spec->model, kind));
    else
        DR_TRY(open_parts(in, a, spec->model));
    DR_TRY(flow_read_attributes(a, &in->attributes, spec->model));
done:
    return st;
}

/* Whether path lies in dir or is it, links followed. */
static bool lies_in(const char *path, const char *dir)
{
    char *p = realpath(path, NULL), *d = realpath(dir, NULL);
    size_t n = d != NULL ? strlen(d) : 0;
    bool inside =
        p != NULL && d != NULL && strncmp(p, d, n) == 0 && (p[n] == '/' || p[n] == '\0');

    free(p);
    free(d);
    return inside;
}

static dr_status check_one(const char *path, const char *output, const char *tmp)
{
    dr_status st = DR_OK;

    if (!lies_in(path, output) && !lies_in(path, tmp))
        return DR_OK;
    st = dr_fail(DR_EUSAGE,
                 "output folder %s: it holds this run's input %s, which the result "
                 "would replace",
                 output, path);
    dr_hint("choose another output folder");
    return st;
}

/* A comma list; NULL: none. */
static dr_status check_files(const char *files, const char *output, const char *tmp)
{
    dr_arena a = {0};
    dr_status st = DR_OK;

    for (char *p = dr_arena_strdup(&a, files ? files : ""), *next; p && *p; p = next) {
        next = strchr(p, ',');
        if (next != NULL)
            *next++ = '\0';
        DR_TRY(check_one(p, output, tmp));
    }
done:
    dr_arena_release(&a);
    return st;
}

dr_status flow_check_apart(const flow_spec *spec, const pass_model *in, const char *output)
{
    dr_arena a = {0};
    const char *tmp = dr_arena_printf(&a, "%s.tmp", output);
    dr_status st = DR_OK;

    DR_TRY(check_one(in->path, output, tmp));
    for (size_t i = 0; i < in->adapter_count; i++)
        DR_TRY(check_one(in->adapters[i].path, output, tmp));
    DR_TRY(check_files(spec->data.data_files, output, tmp));
    if (spec->eval != NULL)
        DR_TRY(check_files(spec->eval->data_files, output, tmp));
done:
    dr_arena_release(&a);
    return st;
}
