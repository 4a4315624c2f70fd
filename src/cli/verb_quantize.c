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
} options;

static const char *const algorithms[] = {"awq", "gptq", "rtn", NULL};
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
            .help = "awq: AutoAWQ's very search, without drupe's improvements"),
    CLI_DATA(options, "calibration tokens a block (default: 512)",
             "calibration blocks (default: awq 16, gptq 32)"),
    DR_BOOL(options, no_evaluate, .dflt = "false",
            .help = "do not measure the result against the original"),
    CLI_THREADS(options),
    CLI_COMMON(options),
    DR_REFUSED("batch_size", "drupe chooses the batches", "max_samples"),
    DR_REFUSED("adapter_path", "quantize the base; give the adapter to auto-opt", NULL),
    DR_REFUSED("implementation", "there is one implementation of each algorithm", "algorithm"),
    DR_REFUSED("act_precision", "activations stay float", "precision"),
    DR_REFUSED("use_qdq_encoding", "weights become MatMulNBits", NULL),
    CLI_REFUSED_COMMON,
};

static json_t *config(const options *o, const char *pass)
{
    json_t *j = json_object();
    bool awq = pass[0] == 'A';

    json_object_set_new(j, awq ? "q_group_size" : "group_size", json_integer(o->group_size));
    if (awq) {
        json_object_set_new(j, "zero_point", json_boolean(!o->symmetric));
        json_object_set_new(j, "exact", json_boolean(o->exact));
    } else {
        json_object_set_new(j, "sym", json_boolean(o->symmetric));
    }
    return j;
}

static dr_status run(const void *cfg, const unsigned char *given, dr_arena *a)
{
    static const char *const passes[] = {"AutoAWQQuantizer", "Gptq", "Rtn"};
    const options *o = cfg;
    drupe_job job = {.model = o->model.model_name_or_path,
                     .output = o->model.output_path,
                     .data = cli_data_of(&o->data),
                     .evaluate = !o->no_evaluate,
                     .check = true};

    (void)given, (void)a;
    cli_model_notes(&o->model);
    if (o->exact && o->algorithm != 0)
        return dr_fail(DR_EUSAGE, "--exact belongs to --algorithm awq, not to %s",
                       algorithms[o->algorithm]);
    if (o->algorithm == 2 && (o->data.data_name != NULL || o->data.max_samples > 0 ||
                              o->data.max_seq_len > 0))
        return dr_fail(DR_EUSAGE, "--algorithm rtn reads no data; leave the data options out");
    return cli_run_job(&o->common, &job, passes[o->algorithm],
                       config(o, passes[o->algorithm]), "quantized");
}

extern const cli_verb verb_quantize; /* VERB(quantize, ...) in cli/verbs.def */
const cli_verb verb_quantize = {"drupe quantize -m MODEL [--algorithm awq] [-o FOLDER]",
                                sizeof(options), params, DR_COUNT(params), run};
