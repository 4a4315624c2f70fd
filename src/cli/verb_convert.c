/*
 * verb_convert.c - drupe convert.
 */
#include "cli/cli_impl.h"

typedef struct {
    cli_common common;
    cli_model model;
    const char *adapter_path;
    int to;
    int outtype;
    const char *gguf_file_name;
} options;

enum { SAFETENSORS, GGUF };
static const char *const forms[] = {"safetensors", "gguf", NULL};
static const char *const passes[] = {"ConvertToSafetensors", "ConvertHfToGGUF"};
static const char *const outtypes[] = {"auto", "f32",  "f16",  "bf16",
                                       "q8_0", "q4_0", "q4_1", NULL};

static const dr_param params[] = {
    CLI_MODEL(options, "converted-model"),
    DR_STR(options, adapter_path, .short_name = 'a',
           .help = "PEFT adapter that is folded into the weights; a quantized model is "
                   "dequantized"),
    DR_CHOICE(options, to, .dflt = "safetensors", .choices = forms,
              .help = "form of the result"),
    DR_CHOICE(
        options, outtype, .dflt = "auto", .choices = outtypes,
        .help = "type of the weights; q8_0, q4_0, q4_1 in GGUF only. auto: packed weights "
                "keep their codes in GGUF; else the source's own type in safetensors, "
                "bf16 or f16 in GGUF"),
    DR_STR(options, gguf_file_name, .dflt = "model.gguf", .help = "name of the GGUF file"),
    CLI_COMMON(options),
    DR_REFUSED("threads", "one thread writes", NULL),
    CLI_MODEL_REFUSED,
};

static dr_status run(const void *cfg, const unsigned char *given)
{
    static const cli_key keys[] = {{"outtype", NULL}, {"gguf_file_name", NULL}};
    const options *o = cfg;
    const char *merge = o->adapter_path != NULL ? "MergeAdapterWeights" : NULL;
    json_t *config = NULL;
    drupe_job job = cli_model_job(&o->model);
    dr_status st = DR_OK;

    job.adapters = o->adapter_path;
    cli_model_notes(&o->model);
    if (o->to == SAFETENSORS &&
        dr_param_given(params, DR_COUNT(params), given, "gguf_file_name"))
        DR_FAIL(DR_EUSAGE, "--gguf_file_name belongs to --to gguf");
    DR_TRY(cli_pass_config(&config, params, DR_COUNT(params), o, given, keys,
                           o->to == GGUF ? 2 : 1));
    if (merge != NULL && o->to == SAFETENSORS && json_object_size(config) == 0)
        DR_TRY(cli_run_job(&o->common, &job, merge, config, "merged"));
    else
        DR_TRY(cli_run_two(&o->common, &job, merge, merge != NULL ? json_object() : NULL,
                           passes[o->to], config, "converted"));
done:
    return st;
}

extern const cli_verb verb_convert; /* VERB(convert, ...) in cli/verbs.def */
const cli_verb verb_convert = {
    "drupe convert -m MODEL [-a ADAPTER] [--to gguf] [--outtype q8_0] [-o FOLDER]",
    sizeof(options), params, DR_COUNT(params), run};
