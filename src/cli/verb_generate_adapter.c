/*
 * verb_generate_adapter.c - drupe generate-adapter: Olive's, over a graph made elsewhere.
 */
#include "cli/cli_impl.h"

typedef struct {
    cli_common common;
    cli_model model;
    int adapter_type, adapter_format;
    bool no_check;
} options;

static const char *const types[] = {"lora", "dora", "loha", NULL};

static const dr_param params[] = {
    CLI_ROW(options, model.model_name_or_path, "model_name_or_path", DR_PARAM_STR,
            .short_name = 'm', .required = true,
            .help = ".onnx file with LoRA products in it, or its folder"),
    CLI_ROW(options, model.output_path, "output_path", DR_PARAM_STR, .short_name = 'o',
            .dflt = "optimized-model", .help = "folder for the result"),
    DR_CHOICE(options, adapter_type, .dflt = "lora", .choices = types,
              .help = "what the graph has; dora and loha are refused"),
    DR_CHOICE(options, adapter_format, .dflt = "onnx_adapter",
              .choices = cli_adapter_formats,
              .help = "of adapter_weights; pt is refused: pickled files are not written"),
    DR_BOOL(options, no_check, .dflt = "false",
            .help = "commit the result without running it"),
    CLI_ROW(options, model.dry_run, "dry_run", DR_PARAM_BOOL, .dflt = "false",
            .help = "print the run as a workflow file, and do nothing"),
    CLI_ROW(options, model.save_config_file, "save_config_file", DR_PARAM_BOOL,
            .dflt = "false", .help = "write the same to config.json of the result"),
    CLI_ROW(options, model.disable_telemetry, "disable_telemetry", DR_PARAM_BOOL,
            .dflt = "false", .hidden = true, .help = "accepted; there is none"),
    CLI_COMMON(options),
    DR_REFUSED("threads", "one thread writes", NULL),
    DR_REFUSED("account_name", "shared caches are of drupe run", NULL),
    DR_REFUSED("container_name", "shared caches are of drupe run", NULL),
};

static dr_status run(const void *cfg, const unsigned char *given)
{
    static const cli_key keys[] = {{"adapter_type", NULL}, {"adapter_format", NULL}};
    const options *o = cfg;
    json_t *config = NULL;
    drupe_job job = cli_model_job(&o->model);
    dr_status st = DR_OK;

    job.check = !o->no_check;
    DR_TRY(
        cli_pass_config(&config, params, DR_COUNT(params), o, given, keys, DR_COUNT(keys)));
    DR_TRY(cli_run_job(&o->common, &job, "ExtractAdapters", config, "lifted"));
done:
    return st;
}

extern const cli_verb verb_generate_adapter; /* VERB(generate_adapter, ...) */
const cli_verb verb_generate_adapter = {
    "drupe generate-adapter -m model.onnx [--adapter_format onnx_adapter] [-o FOLDER]",
    sizeof(options), params, DR_COUNT(params), run};
