/*
 * package.c - the best candidates in one archive, in Olive's layout:
 *
 *     models_rank.json                                   model_info.json of all, best first
 *     CandidateModels/cpu-cpu/BestCandidateModel_1/      its files, and
 *         inference_config.json    how sessions are to be made, or {}
 *         configurations.json      of each pass from the input on, by model
 *         metrics.json             of the input and of this model, if they were judged
 *         model_info.json          rank, model_config with paths in the archive, metrics
 *
 * Unlike Olive, Hugging Face models are packed too (an adapter in adapter/), and files keep
 * their names, because genai_config.json knows them.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/file.h"
#include "core/json.h"
#include "core/zip_writer.h"
#include "flow/run_impl.h"

/* "cpu-cpu", as Olive writes a device and its provider. */
static const char *accelerator(dr_arena *a, const workflow *w)
{
    const char *provider = w->provider != NULL ? w->provider : "CPUExecutionProvider";
    const char *end = strstr(provider, "ExecutionProvider");
    size_t n = end != NULL ? (size_t)(end - provider) : strlen(provider);
    const char *device = w->device;

    if (device == NULL)
        device = strncasecmp(provider, "CPU", 3) == 0 ||
                         strncasecmp(provider, "OpenVINO", 8) == 0
                     ? "cpu"
                 : strncasecmp(provider, "QNN", 3) == 0 ||
                         strncasecmp(provider, "VitisAI", 7) == 0
                     ? "npu"
                     : "gpu";
    char *text = dr_arena_printf(a, "%s-%.*s", device, (int)n, provider);
    for (char *p = text; *p != '\0'; p++)
        *p = (char)tolower((unsigned char)*p);
    return text;
}

/* Takes j. */
static dr_status add_json(dr_zip *z, const char *dir, const char *name, json_t *j)
{
    char *text = json_dumps(j, JSON_INDENT(4));
    dr_arena a = {0};
    dr_status st = DR_OK;

    if (text == NULL)
        DR_FAIL(DR_EFORMAT, "%s: a value cannot be written as JSON", name);
    DR_TRY(dr_zip_add_text(z, dr_path_join(&a, dir, name), text));
done:
    free(text);
    json_decref(j);
    dr_arena_release(&a);
    return st;
}

/* Paths of a model_config, its components' too, from the result's folder into `under`. */
static void move_paths(json_t *config, const char *under)
{
    json_t *inner = json_object_get(config, "config"), *part;
    const char *path = json_string_value(json_object_get(inner, "model_path"));
    const char *file = json_string_value(json_object_get(inner, "onnx_file_name"));
    const char *adapter = json_string_value(json_object_get(inner, "adapter_path"));
    dr_arena a = {0};
    size_t i;

    if (path != NULL && (strcmp(path, ".") == 0 || strcmp(path, "model") == 0))
        json_object_set_new(inner, "model_path", json_string(under));
    else if (path != NULL && strncmp(path, "model/", 6) == 0) /* a vendor's file */
        json_object_set_new(inner, "model_path",
                            json_string(dr_path_join(&a, under, path + 6)));
    if (file != NULL && strncmp(file, "model/", 6) == 0)
        json_object_set_new(inner, "onnx_file_name", json_string(file + 6));
    if (adapter != NULL && strcmp(adapter, "adapter") == 0)
        json_object_set_new(inner, "adapter_path",
                            json_string(dr_path_join(&a, under, adapter)));
    json_array_foreach(json_object_get(inner, "model_components"), i, part)
    {
        move_paths(part, under);
    }
    dr_arena_release(&a);
}

/* What each pass was told, the input first. */
static void add_configs(json_t *j, const run_model *m)
{
    dr_arena a = {0};

    if (m->parent != NULL)
        add_configs(j, m->parent);
    json_object_set_new(j, run_short_id(&a, m),
                        m->config != NULL ? json_incref(m->config) : json_null());
    dr_arena_release(&a);
}

static dr_status add_files(dr_zip *z, const char *under, const run_model *m)
{
    dr_arena a = {0};
    const char *adapter = dr_path_join(&a, m->path, "adapter");
    const char *model = dr_path_join(&a, m->path, "model");
    dr_status st = DR_OK;

    if (dr_is_dir(model)) /* an adapter's base may be elsewhere */
        DR_TRY(dr_zip_add_tree(z, under, model));
    if (dr_is_dir(adapter))
        DR_TRY(dr_zip_add_tree(z, dr_path_join(&a, under, "adapter"), adapter));
done:
    dr_arena_release(&a);
    return st;
}

/* One candidate; its model_info goes to ranks, too. */
static dr_status add_candidate(dr_zip *z, json_t *ranks, const run *r, const run_model *m,
                               size_t rank)
{
    dr_arena a = {0};
    const char *under = dr_arena_printf(&a, "CandidateModels/%s/BestCandidateModel_%zu",
                                        accelerator(&a, &r->w), rank);
    json_t *config = NULL, *info = NULL, *history = json_object();
    dr_status st = DR_OK;

    DR_TRY(dr_json_read(&config, dr_path_join(&a, m->path, "model_config.json")));
    move_paths(config, under);
    json_t *how = json_object_get(json_object_get(config, "config"), "inference_settings");
    DR_TRY(add_json(z, under, "inference_config.json",
                    json_is_object(how) ? json_incref(how) : json_object()));
    add_configs(history, m);
    DR_TRY(add_json(z, under, "configurations.json", json_incref(history)));
    if (m->figures != NULL)
        DR_TRY(add_json(z, under, "metrics.json",
                        json_pack("{s:o, s:o}", "input_model_metrics",
                                  r->input.figures != NULL ? run_metrics_json(r, &r->input)
                                                           : json_null(),
                                  "candidate_model_metrics", run_metrics_json(r, m))));
    DR_TRY(add_files(z, under, m));
    info = json_pack("{s:i, s:O, s:o}", "rank", (int)rank, "model_config", config,
                     "metrics", m->figures ? run_metrics_json(r, m) : json_null());
    json_array_append(ranks, info);
    DR_TRY(add_json(z, under, "model_info.json", json_incref(info)));
done:
    json_decref(config);
    json_decref(info);
    json_decref(history);
    dr_arena_release(&a);
    return st;
}

dr_status run_package(const run *r, const run_outcome *o, size_t kept, const char *dir,
                      const wf_package *p)
{
    dr_arena a = {0};
    const char *path = dr_path_join(&a, dir, dr_arena_printf(&a, "%s.zip", p->name));
    json_t *ranks = json_array();
    dr_zip *z = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_zip_open(&z, path));
    for (size_t i = 0; i < kept; i++)
        DR_TRY(add_candidate(z, ranks, r, o->list[o->order[i]].model, i + 1));
    DR_TRY(add_json(z, "", "models_rank.json", json_incref(ranks)));
    DR_TRY(dr_zip_finish(z));
done:
    dr_zip_close(z);
    json_decref(ranks);
    dr_arena_release(&a);
    return st;
}
