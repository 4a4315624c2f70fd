/*
 * verb_inspect.c - drupe inspect.
 */
#include "cli/cli_impl.h"

typedef struct {
    cli_common common;
    const char *model_name_or_path;
} options;

static const dr_param params[] = {
    DR_STR(options, model_name_or_path, .short_name = 'm', .required = true,
           .help = "folder or file of a model, hub id, adapter, or a result"),
    CLI_COMMON(options),
};

static dr_status run(const void *cfg, const unsigned char *given)
{
    const options *o = cfg;
    drupe_result *r = NULL;
    dr_status st = DR_OK;

    (void)given;
    DR_TRY((dr_status)drupe_inspect(&r, o->model_name_or_path));
    DR_TRY(cli_print(&o->common, r));
done:
    drupe_result_free(r);
    return st;
}

extern const cli_verb verb_inspect; /* VERB(inspect, ...) in cli/verbs.def */
const cli_verb verb_inspect = {"drupe inspect -m MODEL [--json]", sizeof(options), params,
                               DR_COUNT(params), run};
