/*
 * openvino_encapsulation_pass.c - the OpenVINOEncapsulation pass: an IR as an ONNX model of
 * one node, which OpenVINO's provider of ONNX Runtime runs.
 *
 * Nothing of OpenVINO is needed: inputs, outputs and the version are in the IR's XML.  The
 * IR's files come along, and so do tokenizers.  A generating model, which config.json and
 * generation_config.json beside the IR say it is, gets a genai_config.json.
 */
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "onnx/onnx.h"
#include "pass/openvino_impl.h"
#include "pass/rewrite_impl.h"
#include "pass/vendor_impl.h"

typedef struct {
    int target_device;
    const char *ov_version, *opset_imports;
    bool keep_ov_dynamic_dims, reuse_cache;
    const char *genai_config_override;
} encapsulation;

static const char *const devices[] = {"cpu", "gpu", "npu", NULL};
static const char *const classes[] = {"CPU", "GPU", "NPU"};

static const dr_param params[] = {
    DR_CHOICE(encapsulation, target_device, .dflt = "cpu", .choices = devices,
              .help = "where the provider is to run it"),
    DR_STR(encapsulation, ov_version, .dflt = "null",
           .help = "OpenVINO's version in the node; null: the one that wrote the IR"),
    DR_STR(encapsulation, opset_imports, .json = true, .listed = true,
           .dflt = "[[\"com.microsoft.nchwc\",1],[\"\",11],[\"ai.onnx.ml\",5],"
                   "[\"com.ms.internal.nhwc\",11],[\"ai.onnx.training\",1],"
                   "[\"ai.onnx.preview.training\",1],[\"com.microsoft.experimental\",1],"
                   "[\"com.microsoft\",1],[\"org.pytorch.aten\",1]]",
           .help = "[[DOMAIN, VERSION], ...] that the graph names"),
    DR_BOOL(encapsulation, keep_ov_dynamic_dims, .dflt = "false",
            .help = "open sizes are -1 in the graph; false: each has a name, input_0_1"),
    DR_STR(encapsulation, genai_config_override, .dflt = "null", .json = true,
           .help = "members that genai_config.json has, with other values"),
    DR_BOOL(encapsulation, reuse_cache, .dflt = "false",
            .help = "files of the cache are linked and not copied, whatever it says"),
};

static dr_status read_opsets(onnx_context *c, dr_arena *a, const char *text)
{
    json_t *j = NULL, *one;
    size_t i;
    bool microsoft = false;
    dr_status st = DR_OK;

    DR_TRY(dr_json_parse(&j, text, strlen(text), "opset_imports"));
    onnx_context_opset *list = dr_arena_alloc(a, json_array_size(j) + 1, sizeof(*list));
    c->opsets = list;
    json_array_foreach(j, i, one)
    {
        const json_t *domain = json_array_get(one, 0), *version = json_array_get(one, 1);
        if (json_array_size(one) != 2 || !json_is_string(domain) ||
            !json_is_integer(version) || json_integer_value(version) < 1)
            DR_FAIL(DR_EUSAGE, "opset_imports[%zu]: expected [DOMAIN, VERSION]", i);
        list[c->opset_count++] = (onnx_context_opset){
            dr_arena_strdup(a, json_string_value(domain)), json_integer_value(version)};
        microsoft = microsoft || strcmp(json_string_value(domain), "com.microsoft") == 0;
    }
    if (!microsoft)
        DR_FAIL(DR_EUSAGE, "opset_imports: com.microsoft is missing, whose EPContext is "
                           "the graph's node");
done:
    json_decref(j);
    return st;
}

static dr_status read_override(json_t **out, const char *text)
{
    dr_status st = DR_OK;

    *out = NULL;
    if (text == NULL)
        return DR_OK;
    DR_TRY(dr_json_parse(out, text, strlen(text), "genai_config_override"));
    if (!json_is_object(*out))
        DR_FAIL(DR_EUSAGE, "genai_config_override: expected an object, found %s",
                dr_json_type(*out));
done:
    return st;
}

static dr_status validate(const void *config, const unsigned char *given)
{
    const encapsulation *c = config;
    onnx_context context = {0};
    json_t *override = NULL;
    dr_arena a = {0};
    dr_status st = DR_OK;

    (void)given;
    if (c->opset_imports == NULL)
        DR_FAIL(DR_EUSAGE, "opset_imports: expected a list");
    DR_TRY(read_opsets(&context, &a, c->opset_imports));
    DR_TRY(read_override(&override, c->genai_config_override));
done:
    json_decref(override);
    dr_arena_release(&a);
    return st;
}

static dr_status values_of(const onnx_context_value **out, dr_arena *a,
                           const pass_ir_value *values, size_t count, const char *what)
{
    onnx_context_value *list = dr_arena_alloc(a, count + 1, sizeof(*list));
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++) {
        if (values[i].name == NULL) {
            st = dr_fail(DR_EUSAGE, "%s %zu of the IR (%s) has no name", what, i,
                         values[i].layer);
            dr_hint("OpenVINOIoUpdate before this pass gives it one");
            goto done;
        }
        list[i] = (onnx_context_value){values[i].name, values[i].type, values[i].rank,
                                       values[i].dims};
    }
    *out = list;
done:
    return st;
}

/* ---- genai_config.json ---- */

/* A member of the model's config; null and absent ones are -1, as Olive has them. */
static json_t *member(const json_t *config, const char *key)
{
    json_t *v = json_object_get(config, key);

    return v != NULL && !json_is_null(v) ? json_incref(v) : json_integer(-1);
}

/* Members that are there take the other's values; a name that is not there is an error. */
static dr_status override_with(json_t *genai, const json_t *with, const char *where)
{
    dr_arena a = {0};
    json_t *v;
    const char *key;
    dr_status st = DR_OK;

    json_object_foreach((json_t *)(uintptr_t)with, key, v)
    {
        json_t *had = json_object_get(genai, key);
        const char *path = dr_arena_printf(&a, "%s.%s", where, key);
        if (had == NULL)
            DR_FAIL(DR_EUSAGE, "%s: genai_config.json has no such member", path);
        if (json_is_object(had) && json_is_object(v))
            DR_TRY(override_with(had, v, path));
        else
            json_object_set(genai, key, v);
    }
done:
    dr_arena_release(&a);
    return st;
}

static json_t *named_values(const onnx_context_value *values, size_t count)
{
    json_t *j = json_object();

    for (size_t i = 0; i < count; i++)
        if (strcmp(values[i].name, "beam_idx") != 0)
            json_object_set_new(j, values[i].name, json_string(values[i].name));
    return j;
}

static json_t *decoder_json(const onnx_context *c, const json_t *config)
{
    const json_int_t heads =
        json_integer_value(json_object_get(config, "num_attention_heads"));
    const json_int_t width = json_integer_value(json_object_get(config, "hidden_size"));

    return json_pack(
        "{s:{s:s, s:s, s:[{s:{s:s, s:s}}]}, s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o}",
        "session_options", "log_id", "onnxruntime-genai", "graph_optimization_level",
        "ORT_DISABLE_ALL", "provider_options", "OpenVINO", "device_type", c->device,
        "enable_causallm", "True", "filename", "model.onnx", "head_size",
        heads > 0 ? width / heads : (json_int_t)-1, "hidden_size",
        member(config, "hidden_size"), "inputs", named_values(c->inputs, c->input_count),
        "outputs", named_values(c->outputs, c->output_count), "num_attention_heads",
        member(config, "num_attention_heads"), "num_hidden_layers",
        member(config, "num_hidden_layers"), "num_key_value_heads",
        member(config, "num_key_value_heads"));
}

static json_t *genai_json(const onnx_context *c, const json_t *config,
                          const json_t *generation)
{
    const json_t *eos = json_object_get(generation, "eos_token_id");
    const json_t *pad = json_object_get(generation, "pad_token_id");
    const char *type = json_string_value(json_object_get(config, "model_type"));
    json_t *model = json_pack(
        "{s:o, s:o, s:o, s:o, s:s, s:o}", "bos_token_id", member(config, "bos_token_id"),
        "context_length", member(config, "max_position_embeddings"), "decoder",
        decoder_json(c, config), "eos_token_id", member(generation, "eos_token_id"), "type",
        type ? type : "", "vocab_size", member(config, "vocab_size"));
    json_t *search = json_pack(
        "{s:f, s:b, s:b, s:f, s:o, s:i, s:i, s:i, s:i, s:b, s:f, s:f, s:i, s:f}",
        "diversity_penalty", 0.0, "do_sample", 0, "early_stopping", 1, "length_penalty",
        1.0, "max_length", member(config, "max_position_embeddings"), "min_length", 0,
        "no_repeat_ngram_size", 0, "num_beams", 1, "num_return_sequences", 1,
        "past_present_share_buffer", 0, "repetition_penalty", 1.0, "temperature", 1.0,
        "top_k", 1, "top_p", 1.0);

    if (pad == NULL || json_is_null(pad))
        pad = json_array_size(eos) > 0 ? json_array_get(eos, 0) : eos;
    json_object_set_new(model, "pad_token_id",
                        pad != NULL ? json_incref((json_t *)(uintptr_t)pad)
                                    : json_integer(-1));
    return json_pack("{s:o, s:o}", "model", model, "search", search);
}

static dr_status write_genai(const pass_job *job, const char *dir, const onnx_context *c)
{
    const encapsulation *e = job->config;
    const char *files[] = {dr_path_join(job->arena, dir, "config.json"),
                           dr_path_join(job->arena, dir, "generation_config.json")};
    json_t *config = NULL, *generation = NULL, *override = NULL, *genai = NULL;
    dr_status st = DR_OK;

    if (!dr_is_file(files[0]) || !dr_is_file(files[1])) {
        if (e->genai_config_override != NULL)
            DR_FAIL(DR_EUSAGE, "genai_config_override: there is no genai_config.json "
                               "without config.json and generation_config.json");
        return DR_OK;
    }
    DR_TRY(dr_json_read(&config, files[0]));
    DR_TRY(dr_json_read(&generation, files[1]));
    genai = genai_json(c, config, generation);
    DR_TRY(read_override(&override, e->genai_config_override));
    DR_TRY(override_with(genai, override, "genai_config_override"));
    DR_TRY(dr_json_write(dr_path_join(job->arena, dir, "genai_config.json"), genai));
done:
    json_decref(config);
    json_decref(generation);
    json_decref(override);
    json_decref(genai);
    return st;
}

/* ---- the folder ---- */

/* The IR, tokenizers and settings. */
static dr_status place_ir(const pass_job *job, const char *dir, const pass_model *in)
{
    dr_arena *a = job->arena;
    const char *const files[] = {in->file, pass_ir_weights(a, in->file)};
    dr_status st = DR_OK;

    for (size_t i = 0; i < DR_COUNT(files); i++)
        DR_TRY(dr_place_file(dr_path_join(a, dir, files[i]),
                             dr_path_join(a, in->path, files[i]), NULL));
    DR_TRY(pass_openvino_folders(job, dir, in->path));
    DR_TRY(pass_place_files(job, dir, in->path, NULL));
done:
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const encapsulation *e = job->config;
    dr_arena *a = job->arena;
    const char *dir = dr_path_join(a, job->out_dir, "model"), *more = NULL;
    pass_ir ir = {0};
    onnx_context c = {.file = in->file,
                      .source = "OpenVINOExecutionProvider",
                      .device = classes[e->target_device],
                      .keep_open_sizes = e->keep_ov_dynamic_dims};
    dr_status st = DR_OK;

    DR_TRY(pass_ir_read(&ir, a, dr_path_join(a, in->path, in->file)));
    c.sdk_version = e->ov_version != NULL ? e->ov_version : ir.version;
    if (c.sdk_version == NULL)
        DR_FAIL(DR_EUSAGE, "%s does not say which OpenVINO wrote it; ov_version does",
                in->file);
    c.input_count = ir.input_count;
    c.output_count = ir.output_count;
    DR_TRY(values_of(&c.inputs, a, ir.inputs, ir.input_count, "input"));
    DR_TRY(values_of(&c.outputs, a, ir.outputs, ir.output_count, "output"));
    DR_TRY(read_opsets(&c, a, e->opset_imports));
    DR_TRY(dr_make_dirs(dir));
    DR_TRY(onnx_context_write(dr_path_join(a, dir, "model.onnx"), &c));
    DR_TRY(place_ir(job, dir, in));
    DR_TRY(write_genai(job, dir, &c));
    DR_TRY(vendor_attributes(&more, job, in,
                             json_pack("{s:s, s:s, s:s}", "ep", c.source, "device",
                                       c.device, "sdk_version", c.sdk_version)));
    DR_TRY(dr_buf_addf(job->text,
                       "graph          EPContext of %s, %zu inputs, %zu outputs, "
                       "for OpenVINO on %s\n",
                       in->file, ir.input_count, ir.output_count, c.device));
    json_object_set_new(job->report, "sdk_version", json_string(c.sdk_version));
    *out = (pass_model){
        .kind = PASS_MODEL_ONNX, .path = dir, .name = in->name, .attributes = more};
done:
    return st;
}

extern const pass_def pass_openvino_encapsulation; /* PASS(openvino_encapsulation) */
const pass_def pass_openvino_encapsulation = {
    .name = "OpenVINOEncapsulation",
    .version = 1,
    .summary = "an OpenVINO model as an ONNX graph that its provider runs",
    .takes = PASS_MODEL_OPENVINO,
    .gives = PASS_MODEL_ONNX,
    .config_size = sizeof(encapsulation),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .run = run,
};
