/*
 * verb_recover.c - drupe recover: an adapter that takes back what quantizing did.
 */
#include "cli/cli_impl.h"

typedef struct {
    cli_common common;
    cli_model model;
    cli_data data;
    const char *reference_model;
    int rank;
    double upstream;
    int steps;
    double learning_rate;
    bool no_evaluate;
    double max_kl;
} options;

static const dr_param params[] = {
    CLI_MODEL(options, "recovered-adapter"),
    DR_STR(options, reference_model, .required = true,
           .help = "the model that was quantized"),
    DR_INT(options, rank, .dflt = "16", .min = 1, .max = 4096, .help = "of the adapter"),
    DR_FLOAT(options, upstream, .dflt = "0.5", .max = 1,
             .help = "share of what the layers before did to a linear's inputs that it "
                     "takes back"),
    DR_INT(options, steps, .dflt = "0", .max = 1e6,
           .help = "steps of training towards the original's logits behind it"),
    DR_FLOAT(options, learning_rate, .dflt = "0.0005", .min = 1e-9, .max = 1,
             .help = "of these steps"),
    CLI_DATA(options, "tokens a block (default: 512)", "blocks (default: 64)"),
    CLI_NO_SPLITS,
    DR_BOOL(options, no_evaluate, .dflt = "false",
            .help = "do not measure what is won back"),
    DR_FLOAT(options, max_kl, .dflt = "0", .max = 1000,
             .help = "exit 1 when KL to the original is above; 0: no limit"),
    CLI_THREADS(options),
    CLI_COMMON(options),
    CLI_REFUSED_SHORT('a', "adapter_path", "an adapter is made for a base alone", NULL),
    CLI_MODEL_REFUSED,
};

static dr_status run(const void *cfg, const unsigned char *given)
{
    static const cli_key keys[] = {{"reference_model", NULL},
                                   {"r", "rank"},
                                   {"upstream", NULL},
                                   {"steps", NULL},
                                   {"learning_rate", NULL}};
    const options *o = cfg;
    json_t *config = NULL;
    drupe_job job = cli_model_job(&o->model);
    dr_status st = DR_OK;

    job.data = cli_data_of(&o->data);
    job.evaluate = !o->no_evaluate;
    job.max_kl = o->max_kl;
    cli_model_notes(&o->model);
    if (o->no_evaluate && o->max_kl != 0)
        DR_FAIL(DR_EUSAGE, "--max_kl has no effect with --no_evaluate");
    DR_TRY(
        cli_pass_config(&config, params, DR_COUNT(params), o, given, keys, DR_COUNT(keys)));
    DR_TRY(cli_run_job(&o->common, &job, "Recover", config, "recovered"));
done:
    return st;
}

extern const cli_verb verb_recover; /* VERB(recover, ...) in cli/verbs.def */
const cli_verb verb_recover = {
    "drupe recover -m QUANTIZED --reference_model MODEL [--rank 16] [-o FOLDER]",
    sizeof(options), params, DR_COUNT(params), run};
