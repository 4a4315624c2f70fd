/*
 * verb_quantize.c - drupe quantize.
 */
#include <string.h>

#include "cli/cli_impl.h"

typedef struct {
    cli_common common;
    cli_model model;
    cli_data data;
    cli_quantizer quantizer;
    int precision;
    bool no_evaluate;
    double max_kl;
    int calibration_source;
    double temperature;
} options;

enum { SOURCE_TEXT, SOURCE_SELF };
static const char *const sources[] = {"text", "self", NULL};

/* Olive's names and two of ours; those from int16 on are refused. */
static const char *const precisions[] = {
    "int4",   "uint4", "int8", "uint8", "int3", "int2", "int16", "uint16", "int32",
    "uint32", "fp4",   "nf4",  "fp8",   "fp16", "bf16", "fp32",  NULL};
static const int bits_of[] = {4, 4, 8, 8, 3, 2};

static const dr_param params[] = {
    CLI_MODEL(options, "quantized-model"),
    CLI_ROW(options, quantizer.algorithm, "algorithm", DR_PARAM_CHOICE, .dflt = "rtn",
            .choices = cli_algorithms,
            .help = "how weights are rounded; quarot: they are not, but turned so that "
                    "gptq or rtn on the result loses less; those from spinquant on are "
                    "refused"),
    DR_CHOICE(options, precision, .dflt = "int4", .choices = precisions,
              .help = "of the weights; int3 is stored as 4 bits; those from int16 on are "
                      "refused"),
    CLI_ROW(options, quantizer.implementation, "implementation", DR_PARAM_CHOICE,
            .dflt = "null", .choices = cli_implementations,
            .help = "whose very algorithm and layout: olive, awq, autogptq or quarot; the "
                    "others are refused"),
    CLI_ROW(options, quantizer.format, "format", DR_PARAM_CHOICE, .dflt = "null",
            .choices = cli_layouts,
            .help = "layout of the checkpoint (default: awq for awq, else gptq)"),
    CLI_GROUP(options),
    CLI_QUANTIZER(options),
    CLI_ROW(options, quantizer.mixed, "mixed", DR_PARAM_CHOICE, .dflt = "null",
            .choices = cli_mixes,
            .help = "8 bits for some linears, by place (k_quant_*) or weights"),
    CLI_ROW(options, quantizer.ratio, "ratio", DR_PARAM_FLOAT, .dflt = "0", .max = 1,
            .help = "share of weights that --mixed snr and iqe leave (default: 0.8)"),
    CLI_ROW(options, quantizer.max_size, "max_size", DR_PARAM_STR,
            .help = "bits (4, 8) and groups by measured error: at most so many bytes of "
                    "weights (90MB)"),
    CLI_ROW(options, quantizer.distill_steps, "distill_steps", DR_PARAM_INT, .dflt = "0",
            .max = 100000,
            .help = "steps of training all scales towards the original's logits, 16 blocks "
                    "each (60 is a good start; it takes hours on large models)"),
    CLI_ROW(options, quantizer.distill_learning_rate, "distill_learning_rate",
            DR_PARAM_FLOAT, .dflt = "0.002", .max = 1,
            .help = "a step of these, in mean scales of the linear"),
    CLI_DATA(options, "calibration tokens a block (default: 512)",
             "calibration blocks (default: awq 16, gptq 32, best 64)"),
    CLI_NO_SPLITS,
    DR_CHOICE(options, calibration_source, .dflt = "text", .choices = sources,
              .help = "text: files or the built-in text; self: the model writes it"),
    DR_FLOAT(options, temperature, .dflt = "1", .min = 0, .max = 10,
             .help = "of calibration_source self; 0: the likeliest token"),
    DR_BOOL(options, no_evaluate, .dflt = "false",
            .help = "do not measure the result against the original"),
    DR_FLOAT(options, max_kl, .dflt = "0", .max = 1000,
             .help = "exit 1 when KL to the original is above, the result being kept; "
                     "0: no limit"),
    CLI_COMPUTE(options),
    CLI_THREADS(options),
    CLI_COMMON(options),
    DR_REFUSED("batch_size", "drupe chooses the batches", "max_samples"),
    CLI_REFUSED_SHORT('a', "adapter_path",
                      "quantize the base; give the adapter to auto-opt", NULL),
    DR_REFUSED("act_precision",
               "values stay floats in a checkpoint; optimize --act_precision rounds those "
               "of fixed shapes",
               NULL),
    DR_REFUSED("use_qdq_encoding",
               "a checkpoint has no nodes; auto-opt --use_qdq_encoding writes them", NULL),
    DR_REFUSED("enable_qdq_encoding",
               "a checkpoint has no nodes; auto-opt --use_qdq_encoding writes them", NULL),
    DR_REFUSED("quarot_rotate", "quarot always rotates", "algorithm"),
    DR_REFUSED("moe", "mixtures of experts come later", NULL),
    DR_REFUSED("quantize_vision", "vision models come later", NULL),
    CLI_MODEL_REFUSED,
};

static dr_status check_precision(const options *o)
{
    const char *name = precisions[o->precision];
    dr_status st = DR_OK;

    if ((size_t)o->precision >= DR_COUNT(bits_of)) {
        bool four = strcmp(name, "fp4") == 0 || strcmp(name, "nf4") == 0;
        bool whole = strcmp(name, "fp16") == 0 || strcmp(name, "bf16") == 0 ||
                     strcmp(name, "fp32") == 0;
        st = dr_fail(DR_EUSAGE, "--precision %s: %s", name,
                     whole ? "weights of floats are not quantized"
                           : "no layout holds such weights");
        dr_hint("the nearest is %s", whole  ? "convert --outtype"
                                     : four ? "--precision int4"
                                            : "--precision int8");
    } else if (name[0] == 'u' && o->quantizer.symmetric) {
        st = dr_fail(DR_EUSAGE, "--precision %s has zero points, --symmetric has none",
                     name);
        dr_hint("the nearest is --precision %s", name + 1);
    }
    return st;
}

/* A rotation alone rounds nothing and reads no text. */
static dr_status check_rotation(const options *o, const unsigned char *given)
{
    static const char *const rounding[] = {"precision",
                                           "format",
                                           "group_size",
                                           "symmetric",
                                           "exact",
                                           "lm_head",
                                           "modules_to_not_convert",
                                           "overrides",
                                           "mixed",
                                           "ratio",
                                           "max_size",
                                           "distill_steps",
                                           "data_name",
                                           "data_files",
                                           "text_field",
                                           "text_template",
                                           "use_chat_template",
                                           "add_special_tokens",
                                           "max_seq_len",
                                           "max_samples",
                                           "strategy",
                                           "stride",
                                           "calibration_source"};
    dr_status st = DR_OK;

    if (!cli_quantizer_rotates(&o->quantizer))
        return DR_OK;
    st =
        cli_refuse_given(params, DR_COUNT(params), given, rounding, DR_COUNT(rounding),
                         "with --algorithm quarot, which rounds nothing and reads no text");
    if (st != DR_OK)
        dr_hint("give it to drupe quantize --algorithm gptq on the rotated model");
    return st;
}

extern const cli_verb verb_quantize; /* VERB(quantize, ...) in cli/verbs.def */

static dr_status run(const void *cfg, const unsigned char *given)
{
    const options *o = cfg;
    cli_quantizer q = o->quantizer;
    const char *pass = NULL;
    json_t *config = NULL;
    drupe_job job = cli_model_job(&o->model);
    dr_status st = DR_OK;

    job.data = cli_data_of(&o->data);
    job.data.self_written = o->calibration_source == SOURCE_SELF;
    job.data.temperature = job.data.self_written ? o->temperature : 0;
    job.evaluate = !o->no_evaluate;
    job.max_kl = o->max_kl;
    job.check = true;
    job.device = cli_computes[o->common.compute];
    cli_model_notes(&o->model);
    if (o->no_evaluate && o->max_kl != 0)
        DR_FAIL(DR_EUSAGE, "--max_kl has no effect with --no_evaluate");
    if (o->model.dry_run && o->max_kl != 0)
        DR_FAIL(DR_EUSAGE, "--max_kl has no effect with --dry_run");
    if (!job.data.self_written &&
        dr_param_given(params, DR_COUNT(params), given, "temperature"))
        DR_FAIL(DR_EUSAGE, "--temperature belongs to --calibration_source self");
    if (o->quantizer.distill_steps == 0 &&
        dr_param_given(params, DR_COUNT(params), given, "distill_learning_rate"))
        DR_FAIL(DR_EUSAGE, "--distill_learning_rate belongs to --distill_steps");
    DR_TRY(check_rotation(o, given));
    DR_TRY(check_precision(o));
    if (cli_quantizer_rotates(&q))
        job.data.random_seed = 0; /* the rotation's, not a text's */
    if (dr_param_given(params, DR_COUNT(params), given, "precision"))
        q.bits = bits_of[o->precision];
    DR_TRY(cli_quantizer_config(&config, &pass, &q, &verb_quantize, o, given));
    DR_TRY(cli_run_job(&o->common, &job, pass, config, "quantized"));
done:
    return st;
}

const cli_verb verb_quantize = {"drupe quantize -m MODEL [--algorithm awq] [-o FOLDER]",
                                sizeof(options), params, DR_COUNT(params), run};
