/*
 * openvino_optimum_pass.c - the OpenVINOOptimumConversion pass: a Hugging Face model as
 * OpenVINO's IR, by optimum-intel's command.
 *
 * Members of ov_quant_config and extra_args are options of that command, each under its
 * own name; what it does not have is refused by name.  Models that it writes beside
 * the main one (tokenizers) go to folders of their names, as in Olive: a folder has one IR.
 */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "pass/openvino_impl.h"
#include "pass/vendor_impl.h"

typedef struct {
    int device;
    const char *extra_args, *ov_quant_config;
} optimum;

static const char *const devices[] = {"cpu", NULL};

static const dr_param params[] = {
    DR_CHOICE(optimum, device, .dflt = "cpu", .choices = devices,
              .help = "where it is exported: the command knows the CPU alone"),
    DR_STR(optimum, extra_args, .dflt = "null", .json = true,
           .help =
               "{\"task\": ..., \"library\": ..., \"framework\": ..., \"variant\": ..., "
               "\"cache_dir\": ..., \"pad_token_id\": 0, \"model_kwargs\": {}, "
               "\"trust_remote_code\": true, \"disable_stateful\": true, "
               "\"disable_convert_tokenizer\": true}"),
    DR_STR(optimum, ov_quant_config, .dflt = "null", .json = true,
           .help = "{\"weight_format\": \"int4\", \"group_size\": 128, \"ratio\": 1.0, "
                   "\"sym\": true, ...}: options of optimum-cli, with _ for -"),
    DR_REFUSED("components", "all that the model has are exported", NULL),
    DR_REFUSED("user_script", "no Python is run", NULL),
    DR_REFUSED("script_dir", "no Python is run", NULL),
};

/* ---- options ---- */

typedef enum { FLAG, TEXT, NUMBER, OBJECT } kind;
enum { WEIGHTS = 1, ACTIVATIONS = 2 };
typedef struct {
    const char *key, *option;
    kind kind;
    int of; /* of ov_quant_config: what is rounded; 0: it says nothing of that */
} option;

static const option extra[] = {
    {"task", "--task", TEXT, 0},
    {"library", "--library", TEXT, 0},
    {"framework", "--framework", TEXT, 0},
    {"variant", "--variant", TEXT, 0},
    {"cache_dir", "--cache_dir", TEXT, 0},
    {"pad_token_id", "--pad-token-id", NUMBER, 0},
    {"model_kwargs", "--model-kwargs", OBJECT, 0},
    {"trust_remote_code", "--trust-remote-code", FLAG, 0},
    {"disable_stateful", "--disable-stateful", FLAG, 0},
    {"disable_convert_tokenizer", "--disable-convert-tokenizer", FLAG, 0},
};
static const option quant[] = {
    {"weight_format", "--weight-format", TEXT, 0},
    {"quant_mode", "--quant-mode", TEXT, 0},
    {"ratio", "--ratio", NUMBER, WEIGHTS},
    {"group_size", "--group-size", NUMBER, WEIGHTS},
    {"group_size_fallback", "--group-size-fallback", TEXT, WEIGHTS},
    {"backup_precision", "--backup-precision", TEXT, WEIGHTS},
    {"sensitivity_metric", "--sensitivity-metric", TEXT, WEIGHTS},
    {"quantization_statistics_path", "--quantization-statistics-path", TEXT, WEIGHTS},
    {"all_layers", "--all-layers", FLAG, WEIGHTS},
    {"awq", "--awq", FLAG, WEIGHTS},
    {"scale_estimation", "--scale-estimation", FLAG, WEIGHTS},
    {"gptq", "--gptq", FLAG, WEIGHTS},
    {"lora_correction", "--lora-correction", FLAG, WEIGHTS},
    {"sym", "--sym", FLAG, WEIGHTS | ACTIVATIONS},
    {"dataset", "--dataset", TEXT, WEIGHTS | ACTIVATIONS},
    {"num_samples", "--num-samples", NUMBER, WEIGHTS | ACTIVATIONS},
    {"smooth_quant_alpha", "--smooth-quant-alpha", NUMBER, ACTIVATIONS},
    {"trust_remote_code", "--trust-remote-code", FLAG, 0},
    {"cache_dir", "--cache_dir", TEXT, 0},
};

/* args NULL: it is looked at alone. */
static dr_status add_option(vendor_args *args, const option *o, const json_t *value,
                            const char *label)
{
    char *text = NULL;
    const bool fits = o->kind == FLAG     ? json_is_boolean(value)
                      : o->kind == TEXT   ? json_is_string(value)
                      : o->kind == NUMBER ? json_is_number(value)
                                          : json_is_object(value);

    if (!fits)
        return dr_fail(DR_EUSAGE, "%s: %s: expected %s, found %s", label, o->key,
                       o->kind == FLAG     ? "true or false"
                       : o->kind == TEXT   ? "text"
                       : o->kind == NUMBER ? "a number"
                                           : "an object",
                       dr_json_type(value));
    if (args == NULL || json_is_false(value))
        return DR_OK;
    vendor_arg(args, o->option);
    if (o->kind == TEXT) {
        vendor_arg(args, json_string_value(value));
    } else if (o->kind != FLAG) {
        text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        vendor_arg(args, text != NULL ? text : "");
        free(text);
    }
    return DR_OK;
}

static dr_status unknown(const option *list, size_t count, const char *key,
                         const char *label)
{
    const char *names[DR_COUNT(quant)];
    dr_status st;

    for (size_t i = 0; i < count; i++)
        names[i] = list[i].key;
    st = dr_fail(DR_EUSAGE, "%s: optimum-cli has no option for %s", label, key);
    const char *near = dr_nearest(key, names, count);
    if (near != NULL)
        dr_hint("did you mean %s?", near);
    return st;
}

static dr_status parse(json_t **out, const char *text, const char *label)
{
    dr_status st = DR_OK;

    *out = json_object();
    if (text == NULL)
        return DR_OK;
    json_decref(*out);
    *out = NULL;
    DR_TRY(dr_json_parse(out, text, strlen(text), label));
    if (!json_is_object(*out))
        DR_FAIL(DR_EUSAGE, "%s: expected an object, found %s", label, dr_json_type(*out));
done:
    return st;
}

static dr_status add_options(vendor_args *args, const json_t *given, const option *list,
                             size_t count, const char *label)
{
    json_t *value;
    const char *key;
    dr_status st = DR_OK;

    json_object_foreach((json_t *)(uintptr_t)given, key, value)
    {
        size_t i = 0;
        while (i < count && strcmp(list[i].key, key) != 0)
            i++;
        if (i == count)
            DR_TRY(unknown(list, count, key, label));
        if (!json_is_null(value))
            DR_TRY(add_option(args, &list[i], value, label));
    }
done:
    return st;
}

/* Olive's rules: parameters of weights need a weight_format, those of activations a
 * quant_mode, and there is one of the two. */
static dr_status check_quant(const json_t *given)
{
    const json_t *format = json_object_get(given, "weight_format");
    const json_t *mode = json_object_get(given, "quant_mode");
    const bool weights = format != NULL && !json_is_null(format);
    const bool activations = mode != NULL && !json_is_null(mode);

    if (weights && activations)
        return dr_fail(DR_EUSAGE, "ov_quant_config: weight_format and quant_mode: there is "
                                  "one of them");
    for (size_t i = 0; i < DR_COUNT(quant); i++) {
        const option *o = &quant[i];
        const json_t *value = json_object_get(given, o->key);
        if (value == NULL || json_is_null(value) || o->of == 0)
            continue;
        /* modes of two parts (int4_f8e4m3) round weights, too */
        if (!weights && !activations)
            return dr_fail(DR_EUSAGE, "ov_quant_config: %s needs a %s", o->key,
                           (o->of & WEIGHTS) ? "weight_format" : "quant_mode");
        if (weights && !(o->of & WEIGHTS))
            return dr_fail(DR_EUSAGE, "ov_quant_config: %s is of a quant_mode", o->key);
    }
    return DR_OK;
}

static dr_status add_all(vendor_args *args, const optimum *c)
{
    json_t *extra_args = NULL, *config = NULL;
    dr_status st = DR_OK;

    DR_TRY(parse(&extra_args, c->extra_args, "extra_args"));
    DR_TRY(parse(&config, c->ov_quant_config, "ov_quant_config"));
    DR_TRY(check_quant(config));
    DR_TRY(add_options(args, extra_args, extra, DR_COUNT(extra), "extra_args"));
    if (json_is_true(json_object_get(extra_args, "trust_remote_code")) ||
        json_object_get(extra_args, "cache_dir") != NULL) { /* once is enough */
        (void)json_object_del(config, "trust_remote_code");
        (void)json_object_del(config, "cache_dir");
    }
    DR_TRY(add_options(args, config, quant, DR_COUNT(quant), "ov_quant_config"));
done:
    json_decref(extra_args);
    json_decref(config);
    return st;
}

static dr_status validate(const void *config, const unsigned char *given)
{
    (void)given;
    return add_all(NULL, config);
}

/* ---- the run ---- */

/* For a folder the command wants to know the task: that of a decoder's architecture. */
static dr_status add_task(vendor_args *args, const optimum *c, const char *folder)
{
    const char *path = dr_path_join(args->arena, folder, "config.json");
    json_t *given = NULL, *config = NULL;
    dr_status st = DR_OK;

    DR_TRY(parse(&given, c->extra_args, "extra_args"));
    if (json_object_get(given, "task") != NULL || !dr_is_file(path))
        goto done;
    DR_TRY(dr_json_read(&config, path));
    const char *name =
        json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
    if (name != NULL && dr_ends_with(name, "ForCausalLM")) {
        vendor_arg(args, "--task");
        vendor_arg(args, "text-generation-with-past");
    }
done:
    json_decref(given);
    json_decref(config);
    return st;
}

/* NAME.xml and NAME.bin, but for the main one's, to NAME/. */
static dr_status move_others(const pass_job *job, const char *dir)
{
    dr_arena *a = job->arena;
    char **names = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_list_dir(a, dir, &names, &count));
    for (size_t i = 0; i < count; i++) {
        const size_t n = strlen(names[i]);
        if (!dr_ends_with(names[i], ".xml") || strcmp(names[i], "openvino_model.xml") == 0)
            continue;
        const char *name = dr_arena_strndup(a, names[i], n - strlen(".xml"));
        if (strcmp(name, "openvino_tokenizer") != 0 &&
            strcmp(name, "openvino_detokenizer") != 0)
            DR_FAIL(DR_EUNSUPPORTED,
                    "optimum-cli made %s beside openvino_model: a model of several IRs is "
                    "not supported",
                    name);
        const char *to = dr_path_join(a, dir, name);
        const char *bin = pass_ir_weights(a, names[i]);
        DR_TRY(dr_make_dirs(to));
        DR_TRY(dr_rename(dr_path_join(a, to, names[i]), dr_path_join(a, dir, names[i])));
        if (dr_is_file(dr_path_join(a, dir, bin)))
            DR_TRY(dr_rename(dr_path_join(a, to, bin), dr_path_join(a, dir, bin)));
    }
done:
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    static const char *const outputs[] = {"openvino_model.xml", "openvino_model.bin", NULL};
    const optimum *c = job->config;
    dr_arena *a = job->arena;
    const char *dir = dr_path_join(a, job->out_dir, "model"), *whole = NULL;
    const char *folder = NULL;
    vendor_args args = vendor_args_new(a);
    pass_ir ir = {0};
    uint64_t bytes = 0;
    dr_status st = DR_OK;

    DR_TRY(vendor_hf_folder(&folder, a, job, in));
    DR_TRY(dr_make_dirs(dir));
    DR_TRY(vendor_absolute(&whole, a, dir));
    vendor_arg(&args, "export");
    vendor_arg(&args, "openvino");
    vendor_arg(&args, "--model");
    vendor_arg(&args, folder);
    DR_TRY(add_task(&args, c, folder));
    DR_TRY(add_all(&args, c));
    vendor_arg(&args, whole);
    DR_TRY(vendor_run(job, &args,
                      &(vendor_work){.outputs = outputs,
                                     .outputs_dir = dir,
                                     .tmp = dr_path_join(a, job->out_dir, "tmp")}));
    DR_TRY(move_others(job, dir));
    DR_TRYF(pass_ir_read(&ir, a, dr_path_join(a, dir, outputs[0])), "reading the result");
    DR_TRY(dr_file_size(&bytes, dr_path_join(a, dir, outputs[1])));
    DR_TRY(vendor_tell(job));
    DR_TRY(dr_buf_addf(job->text, "openvino       %s: %zu inputs, %zu outputs, %.1f MB\n",
                       outputs[0], ir.input_count, ir.output_count, (double)bytes / 1e6));
    json_object_set_new(job->report, "weight_bytes", json_integer((json_int_t)bytes));
    *out = (pass_model){
        .kind = PASS_MODEL_OPENVINO, .path = dir, .file = outputs[0], .name = in->name};
done:
    return st;
}

extern const pass_def pass_openvino_optimum; /* PASS(openvino_optimum) */
const pass_def pass_openvino_optimum = {
    .name = "OpenVINOOptimumConversion",
    .version = 1,
    .summary = "a Hugging Face model as OpenVINO's IR, by optimum-cli",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_OPENVINO,
    .program = "optimum-cli",
    .config_size = sizeof(optimum),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .run = run,
};
