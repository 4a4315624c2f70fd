/*
 * overrides_pass.c - the MixedPrecisionOverrides pass: which weights have 16 bits because
 * activations beside them do, for a quantizer that takes tensors one by one.
 *
 * Names and types are in model_config.json (mixed_precision_overrides of model_attributes),
 * where Olive's quantizers look for them.  Olive drops them where no weight had to be
 * doubled; here they are always there.
 */
#include <string.h>

#include "core/json.h"
#include "pass/attributes_impl.h"
#include "pass/rewrite_impl.h"

typedef struct {
    pass_external external;
    const char *overrides_config, *element_wise_binary_ops;
} overrides;

static const dr_param params[] = {
    DR_STR(overrides, overrides_config, .dflt = "null", .json = true, .required = true,
           .help = "{\"value\": \"QUInt16\", ...}, or a file that holds it"),
    DR_STR(overrides, element_wise_binary_ops, .dflt = "Add,Sub,Mul,Div", .listed = true,
           .help = "operators whose values have one type"),
    PASS_EXTERNAL_ROWS,
};

/* Of the runtime's quantizer. */
static const char *const types[] = {"QInt8", "QUInt8", "QFLOAT8E4M3FN", "QInt16", "QUInt16",
                                    "QInt4", "QUInt4", "QInt2",         "QUInt2", NULL};

/* Owned by the caller, after an error too; checked. */
static dr_status read_config(json_t **out, const overrides *c)
{
    const char *text = c->overrides_config, *key;
    const json_t *v;
    dr_status st = DR_OK;

    *out = NULL;
    if (*text == '{')
        DR_TRY(dr_json_parse(out, text, strlen(text), "overrides_config"));
    else
        DR_TRYF(dr_json_read(out, text), "overrides_config");
    if (!json_is_object(*out))
        DR_FAIL(DR_EUSAGE, "overrides_config: expected an object, found %s",
                dr_json_type(*out));
    json_object_foreach(*out, key, v)
    {
        if (!json_is_string(v) || !onnx_named(types, json_string_value(v)))
            DR_FAIL(DR_EUSAGE, "overrides_config: %s: expected a type as QUInt16, found %s",
                    key, json_is_string(v) ? json_string_value(v) : dr_json_type(v));
    }
done:
    return st;
}

static dr_status validate(const void *config, const unsigned char *given)
{
    const overrides *c = config;
    json_t *j = NULL;
    dr_status st = DR_OK;

    DR_TRY(pass_external_validate(config, given));
    if (c->overrides_config != NULL)
        DR_TRY(read_config(&j, c));
done:
    json_decref(j);
    return st;
}

/* Values of 16 bits without a sign; ends with NULL. */
static onnx_names wide_names(dr_arena *a, const json_t *config)
{
    const char **names = dr_arena_alloc(a, json_object_size(config) + 1, sizeof(*names));
    size_t count = 0;
    const char *key;
    const json_t *v;

    json_object_foreach((json_t *)(uintptr_t)config, key, v)
    {
        if (strcmp(json_string_value(v), "QUInt16") == 0)
            names[count++] = dr_arena_strdup(a, key);
    }
    return names;
}

static void add_override(json_t *all, const char *name)
{
    json_object_set_new(all, name, json_pack("[{s:s}]", "quant_type", "QUInt16"));
}

/* The report has them, and from there run takes them. */
static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const overrides *c = job->config;
    const char *const *weights = NULL;
    json_t *config = NULL, *all = json_object();
    size_t count = 0;
    dr_status st = DR_OK;

    (void)in;
    DR_TRY(read_config(&config, c));
    const onnx_names wide = wide_names(job->arena, config);
    const onnx_names ops = pass_names(job->arena, c->element_wise_binary_ops);
    DR_TRY(onnx_wide_weights(e, wide, ops, &weights, &count));
    for (size_t i = 0; wide[i] != NULL; i++)
        add_override(all, wide[i]);
    for (size_t i = 0; i < count; i++)
        add_override(all, weights[i]);
    json_object_set(job->report, "mixed_precision_overrides", all);
    DR_TRY(dr_buf_addf(job->text, "16 bits        %zu values, %zu of them weights\n",
                       json_object_size(all), count));
done:
    json_decref(config);
    json_decref(all);
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    static const char key[] = "mixed_precision_overrides";
    dr_status st = DR_OK;

    DR_TRY(pass_rewrite(job, out, in, change));
    DR_TRY(pass_add_attribute(&out->attributes, job->arena, in->attributes, key,
                              json_object_get(job->report, key)));
done:
    return st;
}

extern const pass_def pass_overrides; /* PASS(overrides) */
const pass_def pass_overrides = {
    .name = "MixedPrecisionOverrides",
    .version = 1,
    .summary = "which weights have 16 bits, beside activations that do",
    PASS_REWRITE(overrides, params),
    .validate = validate,
    .run = run,
};
