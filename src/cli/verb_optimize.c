/*
 * verb_optimize.c - drupe optimize: a Hugging Face model as ONNX in one go, with the steps
 * that Olive's command of this name has for it.
 *
 *     fp32, fp16, bf16, int8   ModelBuilder
 *     int4, uint4              Gptq (int4: without zero points), then ModelBuilder
 *
 * --algorithm puts another quantizer in Gptq's place.  For QNN, OpenVINO and VitisAI the
 * last step is NpuModelBuilder; OpenVINO has no Gptq.  The others' weights have one scale
 * an output: the quantizer gets whole rows.
 *
 * Gptq is left out where there is nothing for it: a model that is packed already, and one
 * with an adapter, which was trained on the weights as they are (Gptq's scaling would move
 * the inputs of the modules that it changes); the export rounds those weights.  A quantizer
 * that is asked for by name is never left out.
 */
#include <string.h>

#include "cli/cli_impl.h"
#include "core/log.h"

typedef struct {
    cli_common common;
    cli_model model;
    const char *adapter_path;
    const char *provider;
    int device;
    int precision;
    int act_precision;
    const char *dim_param, *dim_value;
    bool use_qdq_format;
    const char *extra_mb_options;
    int exporter;
    int modality;
    int block_size;
    bool use_ort_genai;
    bool no_evaluate, no_check;
    cli_quantizer quantizer;
    cli_data data;
} options;

enum { FP32, FP16, BF16, INT8, INT4, UINT4, PRECISIONS }; /* behind them: refused */
static const char *const precisions[] = {"fp32",   "fp16",  "bf16",  "int8",   "int4",
                                         "uint4",  "uint8", "int16", "uint16", "int32",
                                         "uint32", "fp8",   "fp4",   "nf4",    NULL};
static const char *const devices[] = {"cpu", "gpu", "npu", NULL};
enum { ACT_UINT8, ACT_UINT16, ACTS }; /* likewise */
static const char *const act_precisions[] = {"uint8", "uint16", "int8", "int16", NULL};
static const char *const act_types[] = {"QUInt8", "QUInt16"};
static const char *const modalities[] = {"text", NULL};
enum { MODEL_BUILDER };
static const char *const exporters[] = {"model_builder", "dynamo_exporter",
                                        "torchscript_exporter", "optimum_exporter", NULL};

static const dr_param params[] = {
    CLI_MODEL(options, "optimized-model"),
    DR_STR(options, adapter_path, .short_name = 'a',
           .help = "PEFT adapter, or NAME=PATH,NAME2=PATH2 for several"),
    DR_STR(options, provider,
           .help = "CPU-, CUDA-, Dml-, WebGpu-, NvTensorRTRTX-, OpenVINO-, QNN-, "
                   "VitisAIExecutionProvider, or cpu, cuda, ...; default: the CPU's"),
    DR_CHOICE(options, device, .dflt = "null", .choices = devices,
              .help = "target device; default: the provider's"),
    DR_CHOICE(options, precision, .dflt = "fp32", .choices = precisions,
              .help = "int4 and uint4 (with zero points) run GPTQ first; those from uint8 "
                      "on are refused"),
    DR_CHOICE(options, act_precision, .dflt = "null", .choices = act_precisions,
              .help = "what values of fixed shapes are rounded to: uint8, uint16"),
    DR_STR(options, dim_param, .help = "dims to fix: batch_size,sequence_length"),
    DR_STR(options, dim_value, .help = "their sizes: 1,64"),
    DR_BOOL(options, use_qdq_format, .dflt = "false",
            .help = "DequantizeLinear and MatMul in place of MatMulNBits; of fixed shapes: "
                    "round values, too (QNN and VitisAI always do)"),
    DR_STR(options, extra_mb_options,
           .help = "the model builder's own: block_size=64,is_symmetric=false"),
    DR_CHOICE(options, exporter, .dflt = "model_builder", .choices = exporters,
              .help = "model_builder; the others trace PyTorch and are refused"),
    DR_CHOICE(options, modality, .dflt = "text", .choices = modalities,
              .help = "what the model works on"),
    DR_INT(options, block_size, .dflt = "0", .min = -1, .max = 1024,
           .help = "weights that share a scale; -1: a whole row; 0: 128, or 32 where the "
                   "export rounds"),
    DR_BOOL(options, use_ort_genai, .dflt = "true",
            .help = "genai_config.json and tokenizer beside the graph"),
    CLI_ROW(options, quantizer.algorithm, "algorithm", DR_PARAM_CHOICE, .dflt = "gptq",
            .choices = cli_algorithms,
            .help = "the quantizer of int4 and uint4; those from quarot on are refused"),
    CLI_QUANTIZER(options),
    CLI_DATA(options, "calibration tokens a block (default: 512)",
             "calibration blocks (default: awq 16, gptq 32, best 64)"),
    CLI_NO_SPLITS,
    DR_BOOL(options, no_evaluate, .dflt = "false",
            .help = "do not measure the quantizer's result against the original"),
    DR_BOOL(options, no_check, .dflt = "false", .help = "do not load and run the result"),
    CLI_THREADS(options),
    CLI_COMMON(options),
    DR_REFUSED("batch_size", "drupe chooses the batches", "max_samples"),
    DR_REFUSED("num_split", "CaptureSplitInfo and SplitModel do it, as passes", NULL),
    DR_REFUSED("memory", "CaptureSplitInfo and SplitModel do it, as passes", NULL),
    DR_REFUSED("surgeries", "GraphSurgeries does them, as a pass", NULL),
    DR_REFUSED("enable_aot", "EPContextBinaryGenerator compiles a graph, as a pass", NULL),
    DR_REFUSED("qnn_env_path", "EPContextBinaryGenerator compiles a graph, as a pass",
               NULL),
    CLI_MODEL_REFUSED,
};

/* Whether the weights are packed already; false where a look at the model fails: the run
 * says why. */
static bool is_packed(const char *model)
{
    drupe_result *r = NULL;
    json_t *look = drupe_inspect(&r, model) == DRUPE_OK
                       ? json_loads(drupe_result_json(r), 0, NULL)
                       : NULL;
    bool packed = json_object_get(look, "quantization") != NULL;

    json_decref(look);
    drupe_result_free(r);
    return packed;
}

/* Precisions that there are not, with the nearest that there is. */
static dr_status check_precision(const options *o, const char *fixed)
{
    const char *name = precisions[o->precision];
    bool four = strcmp(name, "fp4") == 0 || strcmp(name, "nf4") == 0;

    if (o->precision >= PRECISIONS)
        return dr_fail(DR_EUSAGE, "--precision %s: no graph has such weights; nearest: %s",
                       name, four ? "int4" : "int8");
    if (fixed != NULL && (o->precision == FP16 || o->precision == BF16))
        return dr_fail(DR_EUSAGE,
                       "--precision %s: not on graphs of fixed shapes; nearest: %s", name,
                       strcmp(fixed, CLI_OPENVINO) == 0 ? "fp32" : "int8");
    if (fixed != NULL && o->precision == UINT4)
        return dr_fail(DR_EUSAGE,
                       "--precision uint4: not on graphs of fixed shapes; nearest: int4");
    if (o->act_precision >= ACTS)
        return dr_fail(DR_EUSAGE, "--act_precision %s: values have no sign; nearest: u%s",
                       act_precisions[o->act_precision], act_precisions[o->act_precision]);
    return DR_OK;
}

static bool was_given(const unsigned char *given, const char *name)
{
    return dr_param_given(params, DR_COUNT(params), given, name);
}

static dr_status check(const options *o, const unsigned char *given, const char *fixed)
{
    static const char *const only_fixed[] = {"act_precision", "dim_param", "dim_value"};
    static const char *const only_dynamic[] = {"extra_mb_options", "adapter_path"};
    int b = o->block_size;
    dr_status st = DR_OK;

    if (o->exporter != MODEL_BUILDER)
        return dr_fail(DR_EUSAGE,
                       "--exporter %s: nothing is traced; model_builder is the "
                       "one that there is",
                       exporters[o->exporter]);
    DR_TRY(check_precision(o, fixed));
    if (fixed != NULL)
        DR_TRY(cli_refuse_given(params, DR_COUNT(params), given, only_dynamic,
                                DR_COUNT(only_dynamic), "on graphs of fixed shapes"));
    else
        DR_TRY(cli_refuse_given(params, DR_COUNT(params), given, only_fixed,
                                DR_COUNT(only_fixed), CLI_NOT_FIXED));
    if (was_given(given, "block_size") && o->precision != INT4 && o->precision != UINT4)
        DR_FAIL(DR_EUSAGE, "--block_size has no effect on %s", precisions[o->precision]);
    if (fixed != NULL && strcmp(fixed, CLI_OPENVINO) != 0 && b != 0 && b != -1)
        DR_FAIL(DR_EUSAGE,
                "--block_size %d: weights for %s have a scale an output; "
                "nearest: -1",
                b, fixed);
    if (b > 0 && (b < 16 || (b & (b - 1)) != 0))
        DR_FAIL(DR_EUSAGE, "--block_size: expected a power of two from 16, found %d", b);
done:
    return st;
}

/* The nearest block that the export has, as Olive takes it; 0: its own. */
static int export_block(int block_size)
{
    if (block_size <= 0)
        return block_size < 0 ? 256 : 0;
    return block_size > 256 ? 256 : block_size;
}

/* What the export would do to weights, were they not Gptq's already. */
static dr_status check_extras(const char *extras)
{
    static const char *const keys[] = {"block_size=", "is_symmetric=", "algo_config="};

    for (size_t i = 0; extras != NULL && i < DR_COUNT(keys); i++) {
        if (strstr(extras, keys[i]) == NULL)
            continue;
        dr_status st = dr_fail(DR_EUSAGE,
                               "--extra_mb_options: %s has no effect on weights that are "
                               "packed before the export",
                               keys[i]);
        dr_hint("--block_size and --precision uint4 are for GPTQ, too");
        return st;
    }
    return DR_OK;
}

extern const cli_verb verb_optimize; /* VERB(optimize, ...) in cli/verbs.def */

/* What the quantizer alone has. */
static const char *const only_quantizer[] = {"algorithm",
                                             "exact",
                                             "lm_head",
                                             "embeds",
                                             "modules_to_not_convert",
                                             "overrides",
                                             "data_name",
                                             "data_files",
                                             "text_field",
                                             "text_template",
                                             "max_seq_len",
                                             "max_samples",
                                             "add_special_tokens",
                                             "use_chat_template",
                                             "no_evaluate"};

static dr_status quantizer_config(json_t **out, const char **pass, const options *o,
                                  const unsigned char *given, bool rows)
{
    cli_quantizer q = o->quantizer;
    dr_status st = DR_OK;

    q.implementation = -1;
    q.symmetric = o->precision == INT4;
    q.group_size = o->block_size;
    DR_TRY(cli_quantizer_config(out, pass, &q, &verb_optimize, o, given));
    DR_TRY(cli_quantizer_between(*out, &q, rows));
done:
    return st;
}

static void set_text(json_t *j, const char *key, const char *value)
{
    if (value != NULL)
        json_object_set_new(j, key, json_string(value));
}

/* What both exports have. */
static json_t *export_config(const options *o, const char *precision)
{
    json_t *j = json_object();

    set_text(j, "precision", precision);
    json_object_set_new(j, "use_ort_genai", json_boolean(o->use_ort_genai));
    set_text(j, "device", o->device >= 0 ? devices[o->device] : NULL);
    return j;
}

/* rounds: the export does it itself. */
static json_t *builder_config(const options *o, bool rounds)
{
    json_t *j = export_config(o, o->precision == UINT4 ? "int4" : precisions[o->precision]);
    int block = export_block(o->block_size);

    set_text(j, "provider", o->provider);
    set_text(j, "extra_options", o->extra_mb_options);
    if (o->use_qdq_format)
        json_object_set_new(j, "use_qdq", json_true());
    if (rounds && block > 0)
        json_object_set_new(j, "int4_block_size", json_integer(block));
    if (rounds && o->precision == UINT4)
        json_object_set_new(j, "int4_is_symmetric", json_false());
    return j;
}

/* Graphs of fixed shapes; has_precision: else the provider's own. */
static json_t *fixed_config(const options *o, const char *provider, bool has_precision,
                            bool rounds, bool has_genai)
{
    json_t *j = export_config(o, has_precision ? precisions[o->precision] : NULL);

    if (!has_genai)
        json_object_set_new(j, "use_ort_genai",
                            json_boolean(strcmp(provider, CLI_QNN) == 0));
    set_text(j, "provider", provider);
    set_text(j, "activation_type",
             o->act_precision >= 0 ? act_types[o->act_precision] : NULL);
    set_text(j, "dim_param", o->dim_param);
    set_text(j, "dim_value", o->dim_value);
    if (o->use_qdq_format)
        json_object_set_new(j, "use_qdq_encoding", json_true());
    if (rounds && o->block_size != 0)
        json_object_set_new(
            j, "int4_block_size",
            json_integer(o->block_size < 0 ? -1 : export_block(o->block_size)));
    return j;
}

static dr_status run(const void *cfg, const unsigned char *given)
{
    const options *o = cfg;
    const char *pass = NULL;
    json_t *first = NULL;
    drupe_job job = cli_model_job(&o->model);
    dr_status st = DR_OK;

    job.adapters = o->adapter_path;
    job.data = cli_data_of(&o->data);
    job.evaluate = !o->no_evaluate;
    job.check = !o->no_check;
    cli_model_notes(&o->model);
    const char *fixed = cli_fixed_provider(o->provider);
    DR_TRY(check(o, given, fixed));
    bool int4 = o->precision == INT4 || o->precision == UINT4;
    bool openvino = fixed != NULL && strcmp(fixed, CLI_OPENVINO) == 0;
    bool asked = was_given(given, "algorithm");
    bool packed = int4 && is_packed(job.model);
    bool first_pass = int4 && (asked || (!packed && job.adapters == NULL && !openvino));
    bool rounds = int4 && !packed && !first_pass;
    if (first_pass || packed)
        DR_TRY(check_extras(o->extra_mb_options));
    if (first_pass)
        DR_TRY(quantizer_config(&first, &pass, o, given, fixed != NULL && !openvino));
    else
        DR_TRY(cli_refuse_given(params, DR_COUNT(params), given, only_quantizer,
                                DR_COUNT(only_quantizer),
                                int4 ? "where GPTQ is left out; name an --algorithm"
                                     : "but with --precision int4 and uint4"));
    json_t *second = fixed == NULL
                         ? builder_config(o, rounds)
                         : fixed_config(o, fixed, was_given(given, "precision"), rounds,
                                        was_given(given, "use_ort_genai"));
    if (int4 && !first_pass)
        dr_log(DR_INFO, "no GPTQ: %s",
               packed     ? "the model is packed already"
               : openvino ? "OpenVINO's export rounds the weights"
                          : "it would move the adapter's base");
    DR_TRY(cli_run_two(&o->common, &job, pass, first,
                       fixed == NULL ? "ModelBuilder" : "NpuModelBuilder", second,
                       "optimized"));
done:
    return st;
}

const cli_verb verb_optimize = {"drupe optimize -m MODEL [--precision int4] [-o FOLDER]",
                                sizeof(options), params, DR_COUNT(params), run};
