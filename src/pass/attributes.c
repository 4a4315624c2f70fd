/*
 * attributes.c - members of model_attributes; a model that stays as it is.
 */
#include "pass/attributes_impl.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"

static dr_status parse(json_t **out, const char *attributes)
{
    *out = NULL;
    return attributes == NULL
               ? DR_OK
               : dr_json_parse(out, attributes, strlen(attributes), "model_attributes");
}

dr_status pass_add_attribute(const char **out, dr_arena *a, const char *attributes,
                             const char *key, const json_t *value)
{
    json_t *j = NULL;
    dr_status st = DR_OK;

    DR_TRY(parse(&j, attributes));
    if (j == NULL)
        j = json_object();
    json_object_set(j, key, (json_t *)(uintptr_t)value);
    char *text = json_dumps(j, JSON_COMPACT);
    *out = dr_arena_strdup(a, text);
    free(text);
done:
    json_decref(j);
    return st;
}

dr_status pass_read_attribute(json_t **out, const char *attributes, const char *key)
{
    json_t *j = NULL;
    dr_status st = DR_OK;

    *out = NULL;
    DR_TRY(parse(&j, attributes));
    *out = json_incref(json_object_get(j, key));
done:
    json_decref(j);
    return st;
}

dr_status pass_same_model(const pass_job *job, pass_model *out, const pass_model *in)
{
    dr_arena *a = job->arena;
    const char *dir = dr_path_join(a, job->out_dir, "model");
    const char *file = dr_path_join(a, dir, dr_path_base(in->path));
    const bool folder = dr_is_dir(in->path);
    dr_status st = DR_OK;

    if (in->adapter_count > 0)
        DR_FAIL(DR_EUSAGE, "%s has an adapter: run MergeAdapterWeights before", in->name);
    DR_TRY(dr_make_dirs(dir));
    DR_TRY(folder ? dr_place_tree(dir, in->path) : dr_place_file(file, in->path, NULL));
    *out =
        (pass_model){.kind = PASS_MODEL_HF, .path = folder ? dir : file, .name = in->name};
done:
    return st;
}
