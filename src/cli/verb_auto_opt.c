/*
 * verb_auto_opt.c - drupe auto-opt and drupe capture-onnx-graph: a Hugging Face model as
 * optimised ONNX.  Both run the ModelBuilder pass, or for fixed shapes the NpuModelBuilder;
 * they differ in their options' names and defaults, which are Olive's.
 *
 * auto-opt --algorithm runs a quantizer before that: what quantize and then auto-opt would
 * leave, in one run and without the checkpoint between them.
 */
#include <string.h>

#include "cli/cli_impl.h"

typedef struct {
    cli_common common;
    cli_model model;
    const char *adapter_path;
    int device;
    const char *provider;
    int precision;
    int int4_block_size;
    bool int4_is_symmetric;
    int int4_accuracy_level;
    int int4_algo_config;
    int matmul_mixed_precision;
    const char *int4_op_types_to_quantize, *int4_nodes_to_exclude;
    const char *extra_mb_options;
    bool exclude_embeds, exclude_lm_head, enable_cuda_graph, use_qdq_encoding;
    const char *min_ort_version;
    int max_length;
    int adapter_precision;
    int adapter_int4_block_size;
    bool adapter_int4_is_symmetric;
    int past_key_value_name;
    bool use_ort_genai;
    bool use_model_builder;
    bool no_check;
    /* fixed shapes */
    const char *dim_param, *dim_value, *fixed_param_dict;
    int activation_type;
    /* a quantizer before the export; auto-opt alone has it */
    cli_quantizer quantizer;
    cli_data data;
    bool no_evaluate;
    cli_targets targets;
} options;

static const char *const devices[] = {"cpu", "gpu", "npu", NULL};
static const char *const precisions[] = {"fp32", "fp16", "bf16", "int8",
                                         "int4", "int2", NULL};
static const char *const algorithms[] = {
    "default", "rtn", "k_quant", "rtn_last", "k_quant_last", "k_quant_mixed", "auto", NULL};
static const char *const activation_types[] = {"QUInt8", "QUInt16", NULL};
static const char *const mixes[] = {"last_matmul:int8", "mixed_layers:int8", NULL};
static const char *const cache_names[] = {"past_key_values", NULL};
static const char *const adapter_precisions[] = {"fp32", "fp16", "int4", NULL};

#define BUILDER_ROWS                                                                       \
    DR_STR(options, provider,                                                              \
           .help = "CPU-, CUDA-, Dml-, WebGpu-, NvTensorRTRTX-, OpenVINO-, QNN-, "         \
                   "VitisAIExecutionProvider, or cpu, cuda, ...; default: the CPU's"),     \
        DR_CHOICE(options, precision, .dflt = "null", .choices = precisions,               \
                  .help =                                                                  \
                      "default: int4 on a quantized model, else fp32, or fp16 on a gpu"),  \
        DR_INT(options, int4_block_size, .dflt = "32", .min = 16, .max = 256,              \
               .help = "weights that share a scale, where the model has none"),            \
        DR_BOOL(options, int4_is_symmetric, .dflt = "true",                                \
                .help = "no zero points, likewise"),                                       \
        DR_INT(options, int4_accuracy_level, .dflt = "4", .max = 4,                        \
               .help = "0 unset, 1 float, 4 int8 activations (fastest)"),                  \
        DR_CHOICE(options, int4_algo_config, .dflt = "null", .choices = algorithms,        \
                  .help = "how weights are rounded; auto: by what was measured"),          \
        DR_CHOICE(options, matmul_mixed_precision, .dflt = "null", .choices = mixes,       \
                  .help = "what has 8 bits in an int4 graph"),                             \
        DR_STR(options, int4_op_types_to_quantize, .words = true,                          \
               .help = "MatMul, Gather; default: both when embeddings are tied"),          \
        DR_STR(options, int4_nodes_to_exclude, .words = true,                              \
               .help = "nodes left as floats, such as /lm_head/MatMul"),                   \
        DR_STR(options, extra_mb_options,                                                  \
               .help = "the model builder's own: block_size=64,is_symmetric=false"),       \
        DR_BOOL(options, exclude_embeds, .dflt = "false",                                  \
                .help = "inputs_embeds in place of input_ids"),                            \
        DR_BOOL(options, exclude_lm_head, .dflt = "false",                                 \
                .help = "hidden_states in place of logits"),                               \
        DR_BOOL(options, enable_cuda_graph, .dflt = "false",                               \
                .help = "genai_config.json asks for CUDA graphs"),                         \
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

/* What graphs of fixed shapes have beside these. */
#define FIXED_ROWS                                                                         \
    DR_CHOICE(options, activation_type, .dflt = "QUInt16", .choices = activation_types,    \
              .help = "what values are rounded to"),                                       \
        CLI_ROW(options, dim_param, "dynamic_to_fixed_shape_dim_param", DR_PARAM_STR,      \
                .words = true, .help = "names: batch_size sequence_length ..."),           \
        CLI_ROW(options, dim_value, "dynamic_to_fixed_shape_dim_value", DR_PARAM_STR,      \
                .words = true, .help = "their sizes: 1 64 ...")

#define BUILDER_REFUSED                                                                    \
    DR_REFUSED("use_dynamo_exporter", "nothing is traced", "use_model_builder"),           \
        DR_REFUSED("use_mobius_builder", "there is one builder", "use_model_builder")

extern const cli_verb verb_auto_opt; /* VERB(auto_opt, ...) in cli/verbs.def */

static const dr_param auto_opt_params[] = {
    CLI_MODEL(options, "auto-opt-output"),
    DR_STR(options, adapter_path, .short_name = 'a',
           .help = "PEFT adapter, or NAME=PATH,NAME2=PATH2 for several"),
    DR_CHOICE(options, device, .dflt = "null", .choices = devices,
              .help = "target device; default: the provider's"),
    BUILDER_ROWS,
    DR_BOOL(options, use_qdq_encoding, .dflt = "false",
            .help = "DequantizeLinear and MatMul in place of MatMulNBits; of fixed shapes: "
                    "round values, too (QNN and VitisAI always do)"),
    FIXED_ROWS,
    CLI_ROW(options, quantizer.algorithm, "algorithm", DR_PARAM_CHOICE, .dflt = "null",
            .choices = cli_algorithms,
            .help = "quantize before the export, to --precision's bits, with the options "
                    "below (default: the export rounds); those from quarot on are refused"),
    CLI_GROUP(options),
    CLI_QUANTIZER(options),
    CLI_DATA(options, "calibration tokens a block (default: 512)",
             "calibration blocks (default: awq 16, gptq 32, best 64)"),
    CLI_NO_SPLITS,
    DR_BOOL(options, no_evaluate, .dflt = "false",
            .help = "do not measure the quantizer's result against the original"),
    CLI_TARGETS(options),
    CLI_THREADS(options),
    CLI_COMMON(options),
    BUILDER_REFUSED,
    DR_REFUSED("providers_list", "one provider a run", "provider"),
    DR_REFUSED("memory", "CaptureSplitInfo and SplitModel do it, as passes", NULL),
    DR_REFUSED("num_splits", "CaptureSplitInfo and SplitModel do it, as passes", NULL),
    DR_REFUSED("cost_model", "CaptureSplitInfo and SplitModel do it, as passes", NULL),
    DR_REFUSED("mixed_precision_overrides_config", "one type for all values",
               "activation_type"),
    DR_REFUSED("batch_size", "drupe chooses the batches", "max_samples"),
    CLI_MODEL_REFUSED,
};

static const dr_param capture_params[] = {
    CLI_MODEL(options, "onnx-model"),
    DR_STR(options, adapter_path, .short_name = 'a',
           .help = "PEFT adapter, or NAME=PATH,NAME2=PATH2 for several"),
    CLI_ROW(options, device, "conversion_device", DR_PARAM_CHOICE, .dflt = "null",
            .choices = devices, .help = "gpu: a graph for CUDA, as in Olive"),
    BUILDER_ROWS,
    DR_STR(options, fixed_param_dict,
           .help = "sizes of dims, such as batch_size=1,sequence_length=64"),
    DR_CHOICE(options, past_key_value_name, .dflt = "past_key_values",
              .choices = cache_names, .help = "of the cache's inputs"),
    CLI_THREADS(options),
    CLI_COMMON(options),
    BUILDER_REFUSED,
    DR_REFUSED("torch_dtype", "no Python is run", "precision"),
    DR_REFUSED("target_opset", "the lowest that the graph's operators allow is used",
               "min_ort_version"),
    CLI_MODEL_REFUSED,
};

/* ---- fixed shapes ---- */

/* The one that a graph of fixed shapes is for; NULL: any shape. */
static dr_status fixed_provider(const char **out, const options *o)
{
    *out = cli_fixed_provider(o->provider);
    if (o->fixed_param_dict == NULL || *out != NULL)
        return DR_OK;
    if (o->provider != NULL)
        return dr_fail(DR_EUSAGE, "--fixed_param_dict: %s has no graphs of fixed shapes",
                       o->provider);
    *out = CLI_OPENVINO;
    return DR_OK;
}

/* What one of the two passes has and the other has not. */
static const char *const only_dynamic[] = {"adapter_path",
                                           "int4_is_symmetric",
                                           "int4_accuracy_level",
                                           "int4_algo_config",
                                           "matmul_mixed_precision",
                                           "int4_op_types_to_quantize",
                                           "int4_nodes_to_exclude",
                                           "extra_mb_options",
                                           "exclude_embeds",
                                           "exclude_lm_head",
                                           "enable_cuda_graph",
                                           "min_ort_version",
                                           "max_length",
                                           "adapter_precision",
                                           "adapter_int4_block_size",
                                           "adapter_int4_is_symmetric"};
static const char *const only_fixed[] = {"activation_type",
                                         "dynamic_to_fixed_shape_dim_param",
                                         "dynamic_to_fixed_shape_dim_value"};

/* "a=1,b=2" as two lists. */
static dr_status split_pairs(json_t *config, const char *text)
{
    json_t *names = json_string(""), *values = json_string("");
    dr_arena a = {0};
    char *copy = dr_arena_strdup(&a, text), *rest = copy;
    dr_status st = DR_OK;

    for (char *pair = strtok_r(copy, ",", &rest); pair != NULL;
         pair = strtok_r(NULL, ",", &rest)) {
        char *equals = strchr(pair, '=');
        if (equals == NULL)
            DR_FAIL(DR_EUSAGE, "--fixed_param_dict: expected name=size, found \"%s\"",
                    pair);
        *equals = '\0';
        json_string_set(names,
                        dr_arena_printf(&a, "%s%s,", json_string_value(names), pair));
        json_string_set(
            values, dr_arena_printf(&a, "%s%s,", json_string_value(values), equals + 1));
    }
    json_object_set(config, "dim_param", names);
    json_object_set(config, "dim_value", values);
done:
    json_decref(names);
    json_decref(values);
    dr_arena_release(&a);
    return st;
}

/* Graphs of fixed shapes; provider: as the pass knows it. */
static dr_status fixed_config(json_t **out, const options *o, const unsigned char *given,
                              const dr_param *params, size_t count, const char *provider)
{
    static const cli_key common[] = {
        {"precision", NULL}, {"int4_block_size", NULL}, {"use_ort_genai", NULL}};
    static const cli_key device[] = {{"device", "conversion_device"}};
    static const cli_key own[] = {{"device", NULL},
                                  {"use_qdq_encoding", NULL},
                                  {"activation_type", NULL},
                                  {"dim_param", "dynamic_to_fixed_shape_dim_param"},
                                  {"dim_value", "dynamic_to_fixed_shape_dim_value"}};
    json_t *more = NULL;
    dr_status st = DR_OK;

    DR_TRY(cli_refuse_given(params, count, given, only_dynamic, DR_COUNT(only_dynamic),
                            "on graphs of fixed shapes"));
    DR_TRY(cli_pass_config(out, params, count, o, given, common, DR_COUNT(common)));
    if (params == auto_opt_params)
        DR_TRY(cli_pass_config(&more, params, count, o, given, own, DR_COUNT(own)));
    else
        DR_TRY(cli_pass_config(&more, params, count, o, given, device, DR_COUNT(device)));
    json_object_update(*out, more);
    if (o->fixed_param_dict != NULL) {
        DR_TRY(split_pairs(*out, o->fixed_param_dict));
        if (o->provider == NULL && o->device < 0)
            json_object_set_new(*out, "device", json_string("cpu"));
    }
    json_object_set_new(*out, "provider", json_string(provider));
done:
    json_decref(more);
    return st;
}

/* ---- graphs of any shape ---- */

#define KEYS(device_option)                                                                \
    {"device", device_option}, {"provider", NULL}, {"precision", NULL},                    \
        {"int4_block_size", NULL}, {"int4_is_symmetric", NULL},                            \
        {"int4_accuracy_level", NULL}, {"int4_algo_config", NULL},                         \
        {"matmul_mixed_precision", NULL}, {"int4_op_types_to_quantize", NULL},             \
        {"int4_nodes_to_exclude", NULL}, {"extra_options", "extra_mb_options"},            \
        {"exclude_embeds", NULL}, {"exclude_lm_head", NULL}, {"enable_cuda_graph", NULL},  \
        {"min_ort_version", NULL}, {"use_ort_genai", NULL}, {"max_length", NULL},          \
        {"adapter_precision", NULL}, {"adapter_int4_block_size", NULL},                    \
    {                                                                                      \
        "adapter_int4_is_symmetric", NULL                                                  \
    }

static const cli_key auto_opt_keys[] = {KEYS(NULL), {"use_qdq", "use_qdq_encoding"}};
static const cli_key capture_keys[] = {KEYS("conversion_device")};

/* auto-opt chooses how an int4 graph is rounded when nothing about it is asked. */
static bool chooses(const options *o, const unsigned char *given)
{
    static const char *const asked[] = {"int4_is_symmetric",         "int4_algo_config",
                                        "matmul_mixed_precision",    "extra_mb_options",
                                        "int4_op_types_to_quantize", "use_qdq_encoding"};
    bool cpu = o->provider == NULL || strcasecmp(o->provider, "cpu") == 0 ||
               strcasecmp(o->provider, "CPUExecutionProvider") == 0;

    if (!cpu || o->precision < 0 || strcmp(precisions[o->precision], "int4") != 0)
        return false;
    for (size_t i = 0; i < DR_COUNT(asked); i++) {
        if (dr_param_given(auto_opt_params, DR_COUNT(auto_opt_params), given, asked[i]))
            return false;
    }
    return true;
}

/* ---- a quantizer first ---- */

/* What it alone has. */
static const char *const only_quantizer[] = {
    "group_size",        "symmetric",     "exact",
    "lm_head",           "embeds",        "modules_to_not_convert",
    "overrides",         "data_name",     "data_files",
    "text_field",        "text_template", "use_chat_template",
    "max_seq_len",       "max_samples",   "no_evaluate",
    "add_special_tokens"};

/* The quantizer's step into *config; none is asked for: NULL. */
static dr_status quantizer_step(json_t **config, const char **pass, const options *o,
                                const unsigned char *given, const char *fixed)
{
    static const int bits_of[] = {0, 0, 0, 8, 4, 2}; /* of precisions */
    cli_quantizer q = o->quantizer;
    bool openvino = fixed != NULL && strcmp(fixed, CLI_OPENVINO) == 0;
    dr_status st = DR_OK;

    *config = NULL;
    if (q.algorithm < 0)
        return cli_refuse_given(auto_opt_params, DR_COUNT(auto_opt_params), given,
                                only_quantizer, DR_COUNT(only_quantizer),
                                "without --algorithm");
    if (o->precision >= 0 && bits_of[o->precision] == 0)
        DR_FAIL(DR_EUSAGE,
                "--algorithm %s: a graph in %s has no weights to round; nearest: "
                "--precision int4",
                cli_algorithms[q.algorithm], precisions[o->precision]);
    q.implementation = -1;
    q.bits = o->precision >= 0 ? bits_of[o->precision] : 0;
    DR_TRY(cli_quantizer_config(config, pass, &q, &verb_auto_opt, o, given));
    DR_TRY(cli_quantizer_between(*config, &q, fixed != NULL && !openvino));
done:
    return st;
}

/* ---- a search ---- */

/* Only a search has these. */
static const char *const only_search[] = {"seed", "search_samples", "max_time",
                                          "cache_dir"};
/* And these it has not: it judges every candidate, on the CPU, by its own text. */
static const char *const not_searched[] = {
    "adapter_path",     "no_check",           "no_evaluate",
    "save_config_file", "provider",           "device",
    "data_name",        "data_files",         "text_field",
    "text_template",    "max_seq_len",        "use_chat_template",
    "max_samples",      "add_special_tokens", "exclude_embeds",
    "exclude_lm_head",  "adapter_precision"};

static dr_status search(const options *o, const unsigned char *given)
{
    static const int bits_of[] = {-1, -1, -1, 8, 4, -1}; /* of precisions */
    const int bits = o->precision >= 0 ? bits_of[o->precision] : 0;
    json_t *export = NULL, *first = NULL;
    const char *quantizer = NULL;
    dr_status st = DR_OK;

    cli_model_notes(&o->model);
    if (bits < 0)
        DR_FAIL(DR_EUSAGE, "--precision %s: a search is among int4 and int8",
                precisions[o->precision]);
    DR_TRY(cli_refuse_given(auto_opt_params, DR_COUNT(auto_opt_params), given, not_searched,
                            DR_COUNT(not_searched), "on a search"));
    DR_TRY(cli_refuse_given(auto_opt_params, DR_COUNT(auto_opt_params), given, only_fixed,
                            DR_COUNT(only_fixed), CLI_NOT_FIXED));
    DR_TRY(quantizer_step(&first, &quantizer, o, given, NULL));
    DR_TRY(cli_pass_config(&export, auto_opt_params, DR_COUNT(auto_opt_params), o, given,
                           auto_opt_keys, DR_COUNT(auto_opt_keys)));
    json_object_del(export, "precision"); /* the quantizer's bits are it */
    json_object_del(first, "max_size");   /* here it is the search's */
    st = cli_search(&o->common, &o->targets, &o->model, quantizer, first, bits, export);
done:
    return st;
}

/* ---- the run ---- */

static dr_status run(const options *o, const unsigned char *given, const dr_param *params,
                     size_t count, const cli_key *keys, size_t key_count)
{
    const char *fixed = NULL, *quantizer = NULL;
    json_t *config = NULL, *first = NULL;
    drupe_job job = cli_model_job(&o->model);
    dr_status st = DR_OK;

    job.adapters = o->adapter_path;
    job.check = !o->no_check;
    job.evaluate = !o->no_evaluate;
    job.data = cli_data_of(&o->data);
    cli_model_notes(&o->model);
    if (!o->use_model_builder)
        DR_FAIL(DR_EUSAGE, "--use_model_builder false: there is no other exporter");
    DR_TRY(fixed_provider(&fixed, o));
    if (params == auto_opt_params)
        DR_TRY(quantizer_step(&first, &quantizer, o, given, fixed));
    if (fixed != NULL) {
        DR_TRY(fixed_config(&config, o, given, params, count, fixed));
        DR_TRY(cli_run_two(&o->common, &job, quantizer, first, "NpuModelBuilder", config,
                           "exported"));
        goto done;
    }
    DR_TRY(cli_refuse_given(params, count, given, only_fixed, DR_COUNT(only_fixed),
                            CLI_NOT_FIXED));
    DR_TRY(cli_pass_config(&config, params, count, o, given, keys, key_count));
    if (params == auto_opt_params && chooses(o, given))
        json_object_set_new(config, "int4_algo_config", json_string("auto"));
    DR_TRY(cli_run_two(&o->common, &job, quantizer, first, "ModelBuilder", config,
                       "exported"));
done:
    return st;
}

static dr_status run_auto_opt(const void *cfg, const unsigned char *given)
{
    const options *o = cfg;
    dr_status st = DR_OK;

    if (cli_is_search(&o->targets))
        return search(o, given);
    st = cli_refuse_given(auto_opt_params, DR_COUNT(auto_opt_params), given, only_search,
                          DR_COUNT(only_search), "without a search");
    if (st != DR_OK)
        return st;
    return run(cfg, given, auto_opt_params, DR_COUNT(auto_opt_params), auto_opt_keys,
               DR_COUNT(auto_opt_keys));
}

static dr_status run_capture(const void *cfg, const unsigned char *given)
{
    return run(cfg, given, capture_params, DR_COUNT(capture_params), capture_keys,
               DR_COUNT(capture_keys));
}

const cli_verb verb_auto_opt = {
    "drupe auto-opt -m MODEL [-a ADAPTER] [--use_ort_genai] [-o FOLDER]", sizeof(options),
    auto_opt_params, DR_COUNT(auto_opt_params), run_auto_opt};

extern const cli_verb verb_capture; /* VERB(capture, ...) in cli/verbs.def */
const cli_verb verb_capture = {
    "drupe capture-onnx-graph -m MODEL [--use_ort_genai] [-o FOLDER]", sizeof(options),
    capture_params, DR_COUNT(capture_params), run_capture};
