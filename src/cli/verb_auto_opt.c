/*
 * verb_auto_opt.c - drupe auto-opt and drupe capture-onnx-graph: a Hugging Face model as
 * optimised ONNX.  Both run the ModelBuilder pass; they differ in their options' names and
 * defaults, which are Olive's.
 */
#include "cli/cli_impl.h"

typedef struct {
    cli_common common;
    cli_model model;
    const char *adapter_path;
    int device;
    int provider;
    int precision;
    int int4_block_size;
    bool int4_is_symmetric;
    int int4_accuracy_level;
    const char *min_ort_version;
    int max_length;
    int adapter_precision;
    int adapter_int4_block_size;
    bool adapter_int4_is_symmetric;
    int past_key_value_name;
    bool use_ort_genai;
    bool use_model_builder;
    bool no_check;
} options;

static const char *const cache_names[] = {"past_key_values", NULL};
static const char *const devices[] = {"cpu", NULL};
static const char *const providers[] = {"CPUExecutionProvider", NULL};
static const char *const adapter_precisions[] = {"fp32", "fp16", "int4", NULL};
static const char *const precisions[] = {"fp32", "int4", NULL};

#define BUILDER_ROWS                                                                       \
    DR_CHOICE(options, precision, .dflt = "null", .choices = precisions,                   \
              .help = "default: int4 on a quantized model, else fp32"),                    \
        DR_INT(options, int4_block_size, .dflt = "32", .min = 16, .max = 256,              \
               .help = "weights that share a scale, where the model has none"),            \
        DR_BOOL(options, int4_is_symmetric, .dflt = "true",                                \
                .help = "no zero points, likewise"),                                       \
        DR_INT(options, int4_accuracy_level, .dflt = "4", .max = 4,                        \
               .help = "0 unset, 1 float, 4 int8 activations (fastest)"),                  \
        DR_STR(options, min_ort_version,                                                   \
               .help = "oldest onnxruntime that must load it, such as 1.20"),              \
        DR_INT(options, max_length, .dflt = "0", .max = 1 << 24,                           \
               .help = "search.max_length; 0: the context, at most 4096"),                 \
        DR_CHOICE(options, adapter_precision, .dflt = "null",                              \
                  .choices = adapter_precisions,                                           \
                  .help = "of adapters and the inputs for them (default: the graph's)"),   \
        DR_INT(options, adapter_int4_block_size, .dflt = "32", .min = 16, .max = 256,      \
               .help = "values of an int4 adapter that share a scale"),                    \
        DR_BOOL(options, adapter_int4_is_symmetric, .dflt = "true",                        \
                .help = "int4 adapters have no zero points"),                              \
        DR_BOOL(options, use_ort_genai, .dflt = "false",                                   \
                .help = "genai_config.json and tokenizer beside the graph"),               \
        DR_BOOL(options, use_model_builder, .dflt = "true",                                \
                .help = "Olive's choice of exporter; drupe's only one"),                   \
        DR_BOOL(options, no_check, .dflt = "false",                                        \
                .help = "do not load and run the result")

#define BUILDER_REFUSED                                                                    \
    DR_REFUSED("use_dynamo_exporter", "nothing is traced", "use_model_builder"),           \
        DR_REFUSED("use_mobius_builder", "there is one builder", "use_model_builder"),     \
        DR_REFUSED("extra_mb_options", "the builder's options have names of their own",    \
                   "int4_block_size"),                                                     \
        DR_REFUSED("exclude_embeds", "graphs without embeddings come later", NULL),        \
        DR_REFUSED("exclude_lm_head", "graphs without a head come later", NULL),           \
        DR_REFUSED("enable_cuda_graph", "CUDA targets come later", NULL)

static const dr_param auto_opt_params[] = {
    CLI_MODEL(options, "auto-opt-output"),
    DR_STR(options, adapter_path, .short_name = 'a',
           .help = "PEFT adapter, or NAME=PATH,NAME2=PATH2 for several"),
    DR_CHOICE(options, device, .dflt = "cpu", .choices = devices, .help = "target device"),
    DR_CHOICE(options, provider, .dflt = "CPUExecutionProvider", .choices = providers,
              .help = "execution provider"),
    BUILDER_ROWS,
    CLI_THREADS(options),
    CLI_COMMON(options),
    BUILDER_REFUSED,
    DR_REFUSED("providers_list", "one provider a run", "provider"),
    DR_REFUSED("memory", "model splitting comes later", NULL),
    DR_REFUSED("num_splits", "model splitting comes later", NULL),
    DR_REFUSED("cost_model", "model splitting comes later", NULL),
    DR_REFUSED("use_qdq_encoding", "QDQ forms come with NPU targets", NULL),
    DR_REFUSED("dynamic_to_fixed_shape_dim_param", "fixed shapes come with NPU targets",
               NULL),
    DR_REFUSED("dynamic_to_fixed_shape_dim_value", "fixed shapes come with NPU targets",
               NULL),
    DR_REFUSED("mixed_precision_overrides_config", "it comes with NPU targets", NULL),
    DR_REFUSED("enable_search", "search comes with the workflow engine", NULL),
    DR_REFUSED("seed", "search comes with the workflow engine", NULL),
    CLI_REFUSED_SHORT('d', "data_name", "in Olive it changes nothing here", NULL),
    DR_REFUSED("split", "in Olive it changes nothing here", NULL),
    DR_REFUSED("subset", "in Olive it changes nothing here", NULL),
    DR_REFUSED("input_cols", "in Olive it changes nothing here", NULL),
    DR_REFUSED("batch_size", "in Olive it changes nothing here", NULL),
    CLI_MODEL_REFUSED,
};

static const dr_param capture_params[] = {
    CLI_MODEL(options, "onnx-model"),
    DR_STR(options, adapter_path, .short_name = 'a',
           .help = "PEFT adapter, or NAME=PATH,NAME2=PATH2 for several"),
    CLI_ROW(options, device, "conversion_device", DR_PARAM_CHOICE, .dflt = "cpu",
            .choices = devices, .help = "where the conversion runs"),
    BUILDER_ROWS,
    DR_CHOICE(options, past_key_value_name, .dflt = "past_key_values",
              .choices = cache_names, .help = "of the cache's inputs"),
    CLI_THREADS(options),
    CLI_COMMON(options),
    BUILDER_REFUSED,
    DR_REFUSED("torch_dtype", "no Python is run", "precision"),
    DR_REFUSED("target_opset", "the lowest that the graph's operators allow is used",
               "min_ort_version"),
    DR_REFUSED("fixed_param_dict", "fixed shapes come with NPU targets", NULL),
    CLI_MODEL_REFUSED,
};

static dr_status run(const options *o, const unsigned char *given, const dr_param *params,
                     size_t count)
{
    static const cli_key keys[] = {{"precision", NULL},
                                   {"int4_block_size", NULL},
                                   {"int4_is_symmetric", NULL},
                                   {"int4_accuracy_level", NULL},
                                   {"min_ort_version", NULL},
                                   {"use_ort_genai", NULL},
                                   {"max_length", NULL},
                                   {"adapter_precision", NULL},
                                   {"adapter_int4_block_size", NULL},
                                   {"adapter_int4_is_symmetric", NULL}};
    json_t *config = NULL;
    const drupe_job job = {.model = o->model.model_name_or_path,
                           .adapters = o->adapter_path,
                           .output = o->model.output_path,
                           .dry_run = o->model.dry_run,
                           .save_config = o->model.save_config_file,
                           .check = !o->no_check};
    dr_status st = DR_OK;

    cli_model_notes(&o->model);
    if (!o->use_model_builder)
        DR_FAIL(DR_EUSAGE, "--use_model_builder false: there is no other exporter");
    DR_TRY(cli_pass_config(&config, params, count, o, given, keys, DR_COUNT(keys)));
    DR_TRY(cli_run_job(&o->common, &job, "ModelBuilder", config, "exported"));
done:
    return st;
}

static dr_status run_auto_opt(const void *cfg, const unsigned char *given)
{
    return run(cfg, given, auto_opt_params, DR_COUNT(auto_opt_params));
}

static dr_status run_capture(const void *cfg, const unsigned char *given)
{
    return run(cfg, given, capture_params, DR_COUNT(capture_params));
}

extern const cli_verb verb_auto_opt; /* VERB(auto_opt, ...) in cli/verbs.def */
const cli_verb verb_auto_opt = {
    "drupe auto-opt -m MODEL [-a ADAPTER] [--use_ort_genai] [-o FOLDER]", sizeof(options),
    auto_opt_params, DR_COUNT(auto_opt_params), run_auto_opt};

extern const cli_verb verb_capture; /* VERB(capture, ...) in cli/verbs.def */
const cli_verb verb_capture = {
    "drupe capture-onnx-graph -m MODEL [--use_ort_genai] [-o FOLDER]", sizeof(options),
    capture_params, DR_COUNT(capture_params), run_capture};
