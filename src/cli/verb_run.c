/*
 * verb_run.c - drupe run: a workflow file; drupe schema: what may stand in one; drupe
 * cache: what runs have left for the next ones.
 */
#include <unistd.h>

#include "cli/cli_impl.h"

typedef struct {
    cli_common common;
    const char *config;
    const char *model_name_or_path;
    const char *output_path;
    const char *cache_dir;
    const char *shared_cache;
    const char *account_name;
    const char *container_name;
    bool update_shared_cache;
    bool dry_run;
    bool disable_telemetry;
} options;

static const dr_param params[] = {
    DR_STR(options, config, .required = true, .help = "workflow file: .json, else YAML"),
    DR_STR(options, model_name_or_path, .short_name = 'm',
           .help = "stands in for the file's input_model"),
    DR_STR(options, output_path, .short_name = 'o',
           .help = "stands in for the file's output_dir"),
    DR_STR(options, cache_dir, .help = "stands in for the file's (default: .drupe-cache)"),
    DR_STR(options, shared_cache,
           .help = "a cache that others use, too: a folder, file://, http(s)://, "
                   "azure://ACCOUNT/CONTAINER, s3://BUCKET"),
    DR_STR(options, account_name, .help = "the same as Azure's blobs, with container_name"),
    DR_STR(options, container_name, .help = "of account_name"),
    DR_BOOL(options, update_shared_cache, .dflt = "true",
            .help = "send there what is made"),
    DR_BOOL(options, dry_run, .dflt = "false",
            .help = "print the plan and what the cache holds of it, and do nothing"),
    CLI_THREADS(options),
    CLI_COMMON(options),
    DR_BOOL(options, disable_telemetry, .dflt = "false", .hidden = true,
            .help = "accepted; there is none"),
    DR_REFUSED("run_config", "it has a shorter name", "config"),
    DR_REFUSED("list_required_packages", "no Python packages are used", "dry_run"),
    DR_REFUSED("package_config", "passes are part of the program", NULL),
    DR_REFUSED("tempdir", "results are built beside their place", "cache_dir"),
    CLI_REFUSED_SHORT('a', "adapter_path", "name it in input_model", NULL),
    CLI_REFUSED_SHORT('t', "task", "name it in input_model", NULL),
    DR_REFUSED("test", "comparison runs come later", NULL),
};

static dr_status run(const void *cfg, const unsigned char *given)
{
    const options *o = cfg;
    char program[PATH_MAX] = "";
    const bool known = readlink("/proc/self/exe", program, sizeof(program) - 1) > 0;
    const drupe_workflow w = {
        .config = o->config,
        .model = o->model_name_or_path,
        .output = o->output_path,
        .cache_dir = o->cache_dir,
        .shared_cache = o->shared_cache,
        .account_name = o->account_name,
        .container_name = o->container_name,
        .keep_shared_cache = !o->update_shared_cache,
        .threads = o->common.threads,
        .program = known ? program : NULL,
        .launched = true,
        .own_log_level = dr_param_given(params, DR_COUNT(params), given, "log_level"),
        .dry_run = o->dry_run};
    drupe_result *r = NULL;
    dr_status st = DR_OK;

    DR_TRY((dr_status)drupe_run_workflow(&r, &w));
    if (*drupe_result_text(r) != '\0') /* else this was a helper of a run's: a rank */
        DR_TRY(cli_print(&o->common, r));
done:
    drupe_result_free(r);
    return st;
}

extern const cli_verb verb_run; /* VERB(run, ...) in cli/verbs.def */
const cli_verb verb_run = {"drupe run --config FILE [-m MODEL] [-o FOLDER] [--dry_run]",
                           sizeof(options), params, DR_COUNT(params), run};

typedef struct {
    cli_common common;
} schema_options;

static const dr_param schema_params[] = {CLI_COMMON(schema_options)};

static dr_status schema(const void *cfg, const unsigned char *given)
{
    const schema_options *o = cfg;
    drupe_result *r = NULL;
    dr_status st = DR_OK;

    (void)given;
    DR_TRY((dr_status)drupe_workflow_schema(&r));
    DR_TRY(cli_print(&o->common, r));
done:
    drupe_result_free(r);
    return st;
}

extern const cli_verb verb_schema; /* VERB(schema, ...) in cli/verbs.def */
const cli_verb verb_schema = {"drupe schema > workflow.schema.json", sizeof(schema_options),
                              schema_params, DR_COUNT(schema_params), schema};

typedef struct {
    cli_common common;
    const char *cache_dir;
    const char *max_size;
    bool verify, clear;
} cache_options;

static const dr_param cache_params[] = {
    DR_STR(cache_options, cache_dir, .dflt = ".drupe-cache",
           .help = "folder on this machine; drupe shared-cache is for the others"),
    DR_BOOL(cache_options, verify, .dflt = "false",
            .help = "hash all files; take away entries that are not as they were written"),
    DR_STR(cache_options, max_size,
           .help = "take away what was used longest ago until the rest fits: 10G, 300M"),
    DR_BOOL(cache_options, clear, .dflt = "false", .help = "take away all"),
    CLI_COMMON(cache_options),
};

static dr_status cache(const void *cfg, const unsigned char *given)
{
    const cache_options *o = cfg;
    const drupe_cache_look look = {o->cache_dir, o->verify, o->max_size, o->clear};
    drupe_result *r = NULL;
    dr_status st = DR_OK;

    (void)given;
    DR_TRY((dr_status)drupe_cache(&r, &look));
    DR_TRY(cli_print(&o->common, r));
done:
    drupe_result_free(r);
    return st;
}

extern const cli_verb verb_cache; /* VERB(cache, ...) in cli/verbs.def */
const cli_verb verb_cache = {"drupe cache [--cache_dir DIR] [--verify] [--max_size SIZE]",
                             sizeof(cache_options), cache_params, DR_COUNT(cache_params),
                             cache};
