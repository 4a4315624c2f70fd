/*
 * quark_pass.c - the QuarkQuantization pass: a Hugging Face model in AMD Quark's format, by
 * Quark's command.  Parameters that Quark's command does not have are refused by name, and
 * so are those of graphs, which it quantizes from Python.
 */
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "pass/vendor_impl.h"

typedef struct {
    const char *quant_scheme, *quant_algo, *dataset;
    int num_calib_data, seq_len, batch_size, model_export;
    const char *exclude_layers, *layer_quant_scheme, *kv_cache_dtype;
    bool trust_remote_code;
} quark;

static const char *const exports[] = {"hf_format", NULL};
static const char no_option[] = "quark-cli has no such option";
static const char of_graphs[] = "of ONNX graphs, which quark-cli does not quantize with it";

static const dr_param params[] = {
    DR_STR(quark, quant_scheme, .dflt = "uint4_wo_128", .help = "Quark's name of a scheme"),
    DR_STR(quark, quant_algo, .dflt = "awq", .listed = true,
           .help = "awq, gptq, smoothquant, rotation, ...; null: none"),
    DR_STR(quark, dataset, .dflt = "pileval_for_awq_benchmark",
           .help = "Quark's name of what it calibrates on, which it fetches"),
    DR_INT(quark, num_calib_data, .dflt = "128", .min = 1, .max = 1 << 20,
           .help = "rows of it"),
    DR_INT(quark, seq_len, .dflt = "512", .min = 1, .max = 1 << 20,
           .help = "tokens of a row"),
    DR_INT(quark, batch_size, .dflt = "1", .min = 1, .max = 1 << 16,
           .help = "rows at a time"),
    DR_CHOICE(quark, model_export, .dflt = "hf_format", .choices = exports,
              .help = "what is written"),
    DR_STR(quark, exclude_layers, .dflt = "null", .listed = true,
           .help = "layers that stay as they are; null: those of the family"),
    DR_STR(quark, layer_quant_scheme, .dflt = "null", .json = true, .listed = true,
           .help = "[[\"lm_head\", \"int8\"], ...]: other schemes for some layers"),
    DR_STR(quark, kv_cache_dtype, .dflt = "null", .help = "fp8, ...; null: as it is"),
    DR_BOOL(quark, trust_remote_code, .dflt = "false",
            .help = "Quark may run code that lies in the model's folder"),
    DR_REFUSED("data_type", "quark-cli loads weights in the type that they have", NULL),
    DR_REFUSED("min_kv_scale", no_option, NULL),
    DR_REFUSED("kv_cache_post_rope", no_option, NULL),
    DR_REFUSED("attention_dtype", no_option, NULL),
    DR_REFUSED("pack_method", no_option, NULL),
    DR_REFUSED("export_weight_format", no_option, NULL),
    DR_REFUSED("custom_mode", no_option, NULL),
    DR_REFUSED("quant_mode", of_graphs, NULL),
    DR_REFUSED("quant_format", of_graphs, NULL),
    DR_REFUSED("global_config", of_graphs, NULL),
    DR_REFUSED("specific_layer_config", of_graphs, NULL),
    DR_REFUSED("layer_type_config", of_graphs, NULL),
    DR_REFUSED("exclude", of_graphs, "exclude_layers"),
    DR_REFUSED("algo_config", of_graphs, NULL),
    DR_REFUSED("extra_options", of_graphs, NULL),
};

/* args NULL: they are looked at alone. */
static dr_status add_layers(vendor_args *args, const char *text)
{
    json_t *j = NULL, *one;
    size_t i;
    dr_status st = DR_OK;

    if (text == NULL)
        return DR_OK;
    DR_TRY(dr_json_parse(&j, text, strlen(text), "layer_quant_scheme"));
    if (!json_is_array(j))
        DR_FAIL(DR_EUSAGE, "layer_quant_scheme: expected a list, found %s",
                dr_json_type(j));
    json_array_foreach(j, i, one)
    {
        const char *layer = json_string_value(json_array_get(one, 0));
        const char *scheme = json_string_value(json_array_get(one, 1));
        if (json_array_size(one) != 2 || layer == NULL || scheme == NULL)
            DR_FAIL(DR_EUSAGE, "layer_quant_scheme[%zu]: expected [LAYER, SCHEME]", i);
        if (args == NULL)
            continue;
        vendor_arg(args, "--layer_quant_scheme");
        vendor_arg(args, layer);
        vendor_arg(args, scheme);
    }
done:
    json_decref(j);
    return st;
}

static dr_status validate(const void *config, const unsigned char *given)
{
    const quark *c = config;

    (void)given;
    if (c->quant_scheme == NULL || c->dataset == NULL)
        return dr_fail(DR_EUSAGE, "%s: expected a name, found null",
                       c->quant_scheme == NULL ? "quant_scheme" : "dataset");
    return add_layers(NULL, c->layer_quant_scheme);
}

static dr_status has_weights(const pass_job *job, const char *dir)
{
    char **names = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_list_dir(job->arena, dir, &names, &count));
    for (size_t i = 0; i < count; i++)
        if (dr_ends_with(names[i], ".safetensors"))
            goto done;
    DR_FAIL(DR_EDEVICE, "quark-cli ended with status 0 and wrote no .safetensors file");
done:
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    static const char *const outputs[] = {"config.json", NULL};
    const quark *c = job->config;
    dr_arena *a = job->arena;
    const char *dir = dr_path_join(a, job->out_dir, "model"), *whole = NULL;
    const char *folder = NULL;
    vendor_args args = vendor_args_new(a);
    dr_status st = DR_OK;

    DR_TRY(vendor_hf_folder(&folder, a, job, in));
    DR_TRY(dr_make_dirs(dir));
    DR_TRY(vendor_absolute(&whole, a, dir));
    vendor_arg(&args, "torch-llm-ptq");
    vendor_argf(&args, "--model_dir=%s", folder);
    vendor_argf(&args, "--output_dir=%s", whole);
    vendor_argf(&args, "--quant_scheme=%s", c->quant_scheme);
    if (c->quant_algo != NULL)
        vendor_argf(&args, "--quant_algo=%s", c->quant_algo);
    vendor_argf(&args, "--dataset=%s", c->dataset);
    vendor_argf(&args, "--num_calib_data=%d", c->num_calib_data);
    vendor_argf(&args, "--seq_len=%d", c->seq_len);
    vendor_argf(&args, "--batch_size=%d", c->batch_size);
    if (c->kv_cache_dtype != NULL)
        vendor_argf(&args, "--kv_cache_dtype=%s", c->kv_cache_dtype);
    DR_TRY(add_layers(&args, c->layer_quant_scheme));
    if (c->exclude_layers != NULL) {
        vendor_arg(&args, "--exclude_layers");
        vendor_arg_each(&args, NULL, c->exclude_layers);
    }
    if (!c->trust_remote_code)
        vendor_arg(&args, "--no_trust_remote_code");
    vendor_arg(&args, "--skip_evaluation");
    DR_TRY(vendor_run(job, &args, &(vendor_work){.outputs = outputs, .outputs_dir = dir}));
    DR_TRY(has_weights(job, dir));
    DR_TRY(vendor_tell(job));
    *out = (pass_model){.kind = PASS_MODEL_HF, .path = dir, .name = in->name};
done:
    return st;
}

extern const pass_def pass_quark; /* PASS(quark) */
const pass_def pass_quark = {
    .name = "QuarkQuantization",
    .version = 1,
    .summary = "a Hugging Face model in AMD Quark's format, by quark-cli",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .program = "quark-cli",
    .config_size = sizeof(quark),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .run = run,
};
