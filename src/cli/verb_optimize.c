/*
 * verb_optimize.c - drupe optimize: a Hugging Face model as ONNX in one go, with the steps
 * that Olive's command of this name has for it.
 *
 *     fp32          ModelBuilder
 *     int4, uint4   Gptq (int4: without zero points), then ModelBuilder
 *
 * Gptq is left out where there is nothing for it: a model that is packed already, and one
 * with an adapter, which was trained on the weights as they are (Gptq's scaling would move
 * the inputs of the modules that it changes); the export rounds those weights.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/cli_impl.h"
#include "core/log.h"

typedef struct {
    cli_common common;
    cli_model model;
    const char *adapter_path;
    int provider;
    int device;
    int precision;
    int exporter;
    int modality;
    int block_size;
    bool use_ort_genai;
    bool no_evaluate, no_check;
} options;

enum { FP32, INT4, UINT4 };
static const char *const precisions[] = {"fp32", "int4", "uint4", NULL};
static const char *const devices[] = {"cpu", NULL};
static const char *const providers[] = {"CPUExecutionProvider", NULL};
static const char *const modalities[] = {"text", NULL};
enum { MODEL_BUILDER };
static const char *const exporters[] = {"model_builder", "dynamo_exporter",
                                        "torchscript_exporter", "optimum_exporter", NULL};

static const dr_param params[] = {
    CLI_MODEL(options, "optimized-model"),
    DR_STR(options, adapter_path, .short_name = 'a',
           .help = "PEFT adapter, or NAME=PATH,NAME2=PATH2 for several"),
    DR_CHOICE(options, provider, .dflt = "CPUExecutionProvider", .choices = providers,
              .help = "execution provider"),
    DR_CHOICE(options, device, .dflt = "cpu", .choices = devices, .help = "target device"),
    DR_CHOICE(options, precision, .dflt = "fp32", .choices = precisions,
              .help = "int4 and uint4 (with zero points) run GPTQ first"),
    DR_CHOICE(options, exporter, .dflt = "model_builder", .choices = exporters,
              .help = "model_builder; the others trace PyTorch and are refused"),
    DR_CHOICE(options, modality, .dflt = "text", .choices = modalities,
              .help = "what the model works on"),
    DR_INT(options, block_size, .dflt = "0", .min = -1, .max = 1024,
           .help = "weights that share a scale; -1: a whole row; 0: 128, or 32 where the "
                   "export rounds"),
    DR_BOOL(options, use_ort_genai, .dflt = "true",
            .help = "genai_config.json and tokenizer beside the graph"),
    DR_BOOL(options, no_evaluate, .dflt = "false",
            .help = "do not measure GPTQ's result against the original"),
    DR_BOOL(options, no_check, .dflt = "false", .help = "do not load and run the result"),
    CLI_THREADS(options),
    CLI_COMMON(options),
    DR_REFUSED("act_precision", "activations stay float", "precision"),
    DR_REFUSED("num_split", "model splitting comes later", NULL),
    DR_REFUSED("memory", "model splitting comes later", NULL),
    DR_REFUSED("dim_param", "fixed shapes come with NPU targets", NULL),
    DR_REFUSED("dim_value", "fixed shapes come with NPU targets", NULL),
    DR_REFUSED("use_qdq_format", "QDQ forms come with NPU targets", NULL),
    DR_REFUSED("surgeries", "surgeries of graphs come later", NULL),
    DR_REFUSED("enable_aot", "Qualcomm targets come later", NULL),
    DR_REFUSED("qnn_env_path", "Qualcomm targets come later", NULL),
    DR_REFUSED("extra_mb_options", "the builder's options have names of their own",
               "block_size"),
    CLI_MODEL_REFUSED,
};

/* Whether the weights are packed already; false where a look at the model fails: the run
 * says why. */
static bool is_packed(const char *model)
{
    drupe_result *r = NULL;
    bool packed = drupe_inspect(&r, model) == DRUPE_OK &&
                  strstr(drupe_result_json(r), "\n  \"quantization\":") != NULL;

    drupe_result_free(r);
    return packed;
}

static dr_status check(const options *o, const unsigned char *given)
{
    const dr_param *block = dr_param_find(params, DR_COUNT(params), "block_size");
    int b = o->block_size;

    if (o->exporter != MODEL_BUILDER)
        return dr_fail(DR_EUSAGE,
                       "--exporter %s: nothing is traced; model_builder is the "
                       "one that there is",
                       exporters[o->exporter]);
    if (given[block - params] && o->precision == FP32)
        return dr_fail(DR_EUSAGE, "--block_size has no effect on fp32");
    if (b > 0 && (b < 16 || (b & (b - 1)) != 0))
        return dr_fail(DR_EUSAGE, "--block_size: expected a power of two from 16, found %d",
                       b);
    return DR_OK;
}

/* The nearest block that the export has, as Olive takes it; 0: its own. */
static int export_block(int block_size)
{
    if (block_size <= 0)
        return block_size < 0 ? 256 : 0;
    return block_size > 256 ? 256 : block_size;
}

static json_t *gptq_config(const options *o)
{
    json_t *j = json_pack("{s:b}", "sym", o->precision == INT4);

    if (o->block_size != 0)
        json_object_set_new(j, "group_size", json_integer(o->block_size));
    return j;
}

/* rounds: the export does it itself. */
static json_t *builder_config(const options *o, bool rounds)
{
    json_t *j = json_pack("{s:s, s:b}", "precision", o->precision == FP32 ? "fp32" : "int4",
                          "use_ort_genai", o->use_ort_genai);
    int block = export_block(o->block_size);

    if (rounds && block > 0)
        json_object_set_new(j, "int4_block_size", json_integer(block));
    if (rounds && o->precision == UINT4)
        json_object_set_new(j, "int4_is_symmetric", json_false());
    return j;
}

static dr_status run(const void *cfg, const unsigned char *given)
{
    const options *o = cfg;
    drupe_pass steps[2] = {0};
    char *texts[2] = {0};
    drupe_job job = {.model = o->model.model_name_or_path,
                     .adapters = o->adapter_path,
                     .output = o->model.output_path,
                     .dry_run = o->model.dry_run,
                     .save_config = o->model.save_config_file,
                     .passes = steps,
                     .evaluate = !o->no_evaluate,
                     .check = !o->no_check};
    dr_status st = DR_OK;

    cli_model_notes(&o->model);
    DR_TRY(check(o, given));
    bool int4 = o->precision != FP32;
    bool packed = int4 && is_packed(job.model);
    bool gptq = int4 && !packed && job.adapters == NULL;
    json_t *configs[2] = {gptq ? gptq_config(o) : NULL,
                          builder_config(o, int4 && !packed && !gptq)};
    for (int i = gptq ? 0 : 1; i < 2; i++) {
        texts[i] = json_dumps(configs[i], JSON_COMPACT);
        steps[job.pass_count++] = (drupe_pass){i == 0 ? "Gptq" : "ModelBuilder", texts[i]};
    }
    json_decref(configs[0]);
    json_decref(configs[1]);
    if (int4 && !gptq)
        dr_log(DR_INFO, "no GPTQ: %s",
               packed ? "the model is packed already" : "it would move the adapter's base");
    DR_TRY(cli_run_passes(&o->common, &job, "optimized"));
done:
    free(texts[0]);
    free(texts[1]);
    return st;
}

extern const cli_verb verb_optimize; /* VERB(optimize, ...) in cli/verbs.def */
const cli_verb verb_optimize = {"drupe optimize -m MODEL [--precision int4] [-o FOLDER]",
                                sizeof(options), params, DR_COUNT(params), run};
