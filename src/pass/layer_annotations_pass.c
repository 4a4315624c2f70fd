/*
 * layer_annotations_pass.c - the CaptureLayerAnnotations pass: names of parts of a model,
 * by words in the names of nodes.
 *
 * The model stays as it is; ModelBuilder writes the name of its part into each node, as its
 * metadata "layer_ann", which runtimes may assign devices by.
 */
#include <string.h>

#include "core/json.h"
#include "core/mem.h"
#include "pass/annotations_impl.h"
#include "pass/attributes_impl.h"

typedef struct {
    const char *layer_annotations;
} annotations;

static const dr_param params[] = {
    DR_STR(annotations, layer_annotations, .dflt = "null", .json = true, .required = true,
           .help = "{\"NAME\": [\"part of a node's name\", ...], ...}"),
};

/* New; checked. */
static dr_status read_config(json_t **out, const annotations *c)
{
    const char *key;
    json_t *list, *word;
    size_t i;
    dr_status st = DR_OK;

    DR_TRY(dr_json_parse(out, c->layer_annotations, strlen(c->layer_annotations),
                         "layer_annotations"));
    if (!json_is_object(*out) || json_object_size(*out) == 0)
        DR_FAIL(DR_EUSAGE,
                "layer_annotations: expected an object of names and lists, "
                "found %s",
                json_is_object(*out) ? "an empty one" : dr_json_type(*out));
    json_object_foreach(*out, key, list)
    {
        if (*key == '\0' || !json_is_array(list) || json_array_size(list) == 0)
            DR_FAIL(DR_EUSAGE,
                    "layer_annotations: \"%s\": expected a list of words, found %s", key,
                    json_is_array(list) ? "an empty one" : dr_json_type(list));
        json_array_foreach(list, i, word)
        {
            if (!json_is_string(word) || json_string_length(word) == 0)
                DR_FAIL(DR_EUSAGE, "layer_annotations: \"%s\": expected a word, found %s",
                        key, json_is_string(word) ? "\"\"" : dr_json_type(word));
        }
    }
done:
    return st;
}

static dr_status validate(const void *config, const unsigned char *given)
{
    const annotations *c = config;
    json_t *j = NULL;
    dr_status st = DR_OK;

    (void)given;
    if (c->layer_annotations != NULL)
        DR_TRY(read_config(&j, c));
done:
    json_decref(j);
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    json_t *j = NULL;
    dr_status st = DR_OK;

    DR_TRY(read_config(&j, job->config));
    DR_TRY(pass_same_model(job, out, in));
    DR_TRY(pass_add_attribute(&out->attributes, job->arena, in->attributes,
                              PASS_ANNOTATIONS, j));
    DR_TRY(dr_buf_addf(job->text, "annotations    %zu names\n", json_object_size(j)));
done:
    json_decref(j);
    return st;
}

dr_status pass_annotate(const pass_job *job, const char *dir, const char *attributes)
{
    json_t *j = NULL, *list, *word;
    onnx_edit *e = NULL;
    const char *key;
    size_t i;
    dr_status st = DR_OK;

    DR_TRY(pass_read_attribute(&j, attributes, PASS_ANNOTATIONS));
    if (j == NULL)
        goto done;
    DR_TRY(onnx_rewrite_open(&e, dr_path_join(job->arena, dir, "model.onnx"), dir));
    json_object_foreach(j, key, list)
    {
        json_array_foreach(list, i, word)
        {
            onnx_annotate(e, json_string_value(word), "layer_ann", key);
        }
    }
    DR_TRY(onnx_rewrite_save(e));
done:
    onnx_rewrite_close(e);
    json_decref(j);
    return st;
}

extern const pass_def pass_layer_annotations; /* PASS(layer_annotations) */
const pass_def pass_layer_annotations = {
    .name = "CaptureLayerAnnotations",
    .version = 1,
    .summary = "names of parts of a model, for the nodes of its graph",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .config_size = sizeof(annotations),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .run = run,
};
