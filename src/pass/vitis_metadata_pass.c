/*
 * vitis_metadata_pass.c - the VitisAIAddMetaData pass: the entries that AMD's provider
 * reads. What Olive takes from a model's attributes comes from the config.json beside the
 * graph.
 */
#include "core/file.h"
#include "core/json.h"
#include "pass/rewrite_impl.h"

typedef struct {
    pass_external external;
    const char *config_meta_data_keys;
    int activation_type, weight_type;
    const char *quant_type;
} vitis_metadata;

static const char *const types[] = {"int4",  "uint4",  "int8", "uint8",
                                    "int16", "uint16", NULL};
static const char *const spelled[] = {"Int4",   "UInt4",  "QInt8",
                                      "QUInt8", "QInt16", "QUInt16"};

static const dr_param params[] = {
    DR_STR(vitis_metadata, config_meta_data_keys, .dflt = "architectures,model_type",
           .listed = true, .help = "keys of config.json that become entries"),
    DR_CHOICE(vitis_metadata, activation_type, .dflt = "null", .choices = types,
              .help = "of activations, as an entry"),
    DR_CHOICE(vitis_metadata, weight_type, .dflt = "null", .choices = types,
              .help = "of weights, as an entry"),
    DR_STR(vitis_metadata, quant_type, .dflt = "NA", .help = "the entry quant_type"),
    PASS_EXTERNAL_ROWS,
};

static dr_status add_key(onnx_edit *e, const json_t *config, const char *key,
                         const char *path)
{
    const json_t *v = json_object_get(config, key);
    dr_buf text;
    dr_status st = DR_OK;

    dr_buf_init(&text, 1 << 16);
    if (json_is_string(v))
        DR_TRY(dr_buf_adds(&text, json_string_value(v)));
    else if (json_is_integer(v))
        DR_TRY(dr_buf_addf(&text, "%lld", (long long)json_integer_value(v)));
    else if (!json_is_array(v))
        DR_FAIL(DR_EUSAGE, "config_meta_data_keys: %s has no %s", path, key);
    for (size_t i = 0; i < json_array_size(v); i++)
        DR_TRY(dr_buf_addf(&text, "%s%s", i > 0 ? ", " : "",
                           json_string_value(json_array_get(v, i))));
    onnx_set_metadata(e, key, text.data);
done:
    dr_buf_release(&text);
    return st;
}

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const vitis_metadata *c = job->config;
    const char *path = dr_path_join(job->arena, in->path, "config.json");
    onnx_names keys = pass_names(job->arena, c->config_meta_data_keys);
    json_t *config = NULL;
    dr_status st = DR_OK;

    if (keys != NULL)
        DR_TRYF(dr_json_read(&config, path), "config_meta_data_keys");
    for (size_t i = 0; keys != NULL && keys[i] != NULL; i++)
        DR_TRY(add_key(e, config, keys[i], path));
    if (c->activation_type >= 0)
        onnx_set_metadata(e, "activation_dtype", spelled[c->activation_type]);
    if (c->weight_type >= 0)
        onnx_set_metadata(e, "weight_dtype", spelled[c->weight_type]);
    onnx_set_metadata(e, "quant_type", c->quant_type);
done:
    json_decref(config);
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_rewrite(job, out, in, change);
}

extern const pass_def pass_vitis_metadata; /* PASS(vitis_metadata) */
const pass_def pass_vitis_metadata = {
    .name = "VitisAIAddMetaData",
    .version = 1,
    .summary = "entries that the Vitis AI provider reads",
    PASS_REWRITE(vitis_metadata, params),
    .validate = pass_external_validate,
    .run = run,
};
