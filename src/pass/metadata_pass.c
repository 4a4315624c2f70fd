/*
 * metadata_pass.c - the AddOliveMetadata pass: a name for the graph, and entries that say
 * what made it.
 */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "pass/rewrite_impl.h"

typedef struct {
    pass_external external;
    const char *graph_name, *custom_metadata;
    bool add_optimization_info;
} metadata;

static const dr_param params[] = {
    DR_STR(metadata, graph_name, .dflt = "null", .required = true, .help = "of the graph"),
    DR_STR(metadata, custom_metadata, .dflt = "null", .json = true,
           .help = "entries: {\"key\": \"value\"}"),
    DR_BOOL(metadata, add_optimization_info, .dflt = "true",
            .help = "what made it: drupe, its version, the passes before"),
    PASS_EXTERNAL_ROWS,
};

static dr_status validate(const void *config, const unsigned char *given)
{
    const metadata *c = config;
    json_t *j = NULL;
    const json_t *v;
    const char *key;
    dr_status st = DR_OK;

    DR_TRY(pass_external_validate(config, given));
    if (c->custom_metadata == NULL)
        goto done;
    DR_TRY(dr_json_parse(&j, c->custom_metadata, strlen(c->custom_metadata),
                         "custom_metadata"));
    if (!json_is_object(j))
        DR_FAIL(DR_EUSAGE, "custom_metadata: expected an object, found %s",
                dr_json_type(j));
    json_object_foreach(j, key, v)
    {
        if (!json_is_string(v) && !json_is_number(v))
            DR_FAIL(DR_EUSAGE, "custom_metadata: %s: expected a string, found %s", key,
                    dr_json_type(v));
    }
done:
    json_decref(j);
    return st;
}

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const metadata *c = job->config;
    json_t *j = NULL;
    const json_t *v;
    const char *key;
    dr_status st = DR_OK;

    (void)in;
    onnx_set_graph_name(e, c->graph_name);
    if (c->add_optimization_info) {
        onnx_set_metadata(e, "optimizer", "drupe");
        onnx_set_metadata(e, "optimizer_version", DRUPE_VERSION);
    }
    if (c->custom_metadata == NULL)
        goto done;
    DR_TRY(dr_json_parse(&j, c->custom_metadata, strlen(c->custom_metadata),
                         "custom_metadata"));
    json_object_foreach(j, key, v)
    {
        char *text = json_is_string(v) ? NULL : json_dumps(v, JSON_ENCODE_ANY);
        onnx_set_metadata(e, key, text != NULL ? text : json_string_value(v));
        free(text);
    }
done:
    json_decref(j);
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_rewrite(job, out, in, change);
}

extern const pass_def pass_metadata; /* PASS(metadata) */
const pass_def pass_metadata = {
    .name = "AddOliveMetadata",
    .version = 1,
    .summary = "a name and metadata of the graph",
    PASS_REWRITE_EACH(metadata, params),
    .validate = validate,
    .run = run,
};
