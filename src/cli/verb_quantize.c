/*
 * verb_quantize.c - drupe quantize.
 */
#include "cli/cli_impl.h"

typedef struct {
    cli_common common;
    cli_model model;
    cli_data data;
    int algorithm;
    int precision;
    int group_size;
    bool symmetric;
    bool exact;
    bool no_evaluate;
    int calibration_source;
    double temperature;
} options;

enum { AWQ, BEST, GPTQ, HQQ, KQUANT, K_QUANT, RTN };
static const char *const algorithms[] = {"awq",    "best",    "gptq", "hqq",
                                         "kquant", "k_quant", "rtn",  NULL};
static const char *const passes[] = {"AutoAWQQuantizer", "Best",   "Gptq", "Hqq",
                                     "KQuant",           "KQuant", "Rtn"};
enum { SOURCE_TEXT, SOURCE_SELF };
static const char *const sources[] = {"text", "self", NULL};
static const char *const precisions[] = {"int4", NULL};

static const dr_param params[] = {
    CLI_MODEL(options, "quantized-model"),
    DR_CHOICE(options, algorithm, .dflt = "rtn", .choices = algorithms,
              .help = "how weights are rounded"),
    DR_CHOICE(options, precision, .dflt = "int4", .choices = precisions,
              .help = "of the weights"),
    DR_INT(options, group_size, .dflt = "128", .min = -1, .max = 1024,
           .help = "inputs that share a scale; -1: a whole row"),
    DR_BOOL(options, symmetric, .dflt = "false", .help = "a grid without zero points"),
    DR_BOOL(options, exact, .dflt = "false",
            .help = "awq: AutoAWQ's very search; gptq: Olive's very grids and order"),
    CLI_DATA(options, "calibration tokens a block (default: 512)",
             "calibration blocks (default: awq 16, gptq 32, best 64)"),
    DR_CHOICE(options, calibration_source, .dflt = "text", .choices = sources,
              .help = "text: files or the built-in text; self: the model writes it"),
    DR_FLOAT(options, temperature, .dflt = "1", .min = 0, .max = 10,
             .help = "of calibration_source self; 0: the likeliest token"),
    DR_BOOL(options, no_evaluate, .dflt = "false",
            .help = "do not measure the result against the original"),
    CLI_THREADS(options),
    CLI_COMMON(options),
    DR_REFUSED("batch_size", "drupe chooses the batches", "max_samples"),
    CLI_REFUSED_SHORT('a', "adapter_path",
                      "quantize the base; give the adapter to auto-opt", NULL),
    DR_REFUSED("implementation", "there is one implementation of each algorithm",
               "algorithm"),
    DR_REFUSED("act_precision", "activations stay float", "precision"),
    DR_REFUSED("use_qdq_encoding", "weights become MatMulNBits", NULL),
    DR_REFUSED("enable_qdq_encoding", "weights become MatMulNBits", NULL),
    DR_REFUSED("quarot_rotate", "rotations come later", "algorithm"),
    CLI_MODEL_REFUSED,
};

/* The options that were given, under the names that each pass has for them. */
static dr_status pass_config(json_t **out, const options *o, const unsigned char *given)
{
    const cli_key keys[] = {
        {o->algorithm == AWQ ? "q_group_size" : "group_size", "group_size"}};
    dr_status st = DR_OK;

    DR_TRY(cli_pass_config(out, params, DR_COUNT(params), o, given, keys, DR_COUNT(keys)));
    if (o->symmetric && o->algorithm == AWQ)
        json_object_set_new(*out, "zero_point", json_false());
    else if (o->symmetric)
        json_object_set_new(*out, "sym", json_true());
    if (o->exact && o->algorithm == AWQ)
        json_object_set_new(*out, "exact", json_true());
    if (o->exact && o->algorithm == GPTQ) {
        json_object_set_new(*out, "minmax", json_true());
        json_object_set_new(*out, "prescale", json_false());
        json_object_set_new(*out, "desc_act", json_boolean(o->group_size == -1));
    }
done:
    return st;
}

static dr_status run(const void *cfg, const unsigned char *given)
{
    const options *o = cfg;
    json_t *config = NULL;
    drupe_job job = cli_model_job(&o->model);
    dr_status st = DR_OK;

    job.data = cli_data_of(&o->data);
    job.data.self_written = o->calibration_source == SOURCE_SELF;
    job.data.temperature = job.data.self_written ? o->temperature : 0;
    job.evaluate = !o->no_evaluate;
    job.check = true;
    cli_model_notes(&o->model);
    if (o->exact && o->algorithm != AWQ && o->algorithm != GPTQ)
        DR_FAIL(DR_EUSAGE, "--exact belongs to --algorithm awq and gptq, not to %s",
                algorithms[o->algorithm]);
    if (!job.data.self_written &&
        dr_param_given(params, DR_COUNT(params), given, "temperature"))
        DR_FAIL(DR_EUSAGE, "--temperature belongs to --calibration_source self");
    DR_TRY(pass_config(&config, o, given));
    DR_TRY(cli_run_job(&o->common, &job, passes[o->algorithm], config, "quantized"));
done:
    return st;
}

extern const cli_verb verb_quantize; /* VERB(quantize, ...) in cli/verbs.def */
const cli_verb verb_quantize = {"drupe quantize -m MODEL [--algorithm awq] [-o FOLDER]",
                                sizeof(options), params, DR_COUNT(params), run};
