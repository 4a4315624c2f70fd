/*
 * verb_doctor.c - drupe doctor.
 */
#include "cli/cli_impl.h"

typedef struct {
    cli_common common;
} options;

static const dr_param params[] = {CLI_COMMON(options)};

static dr_status run(const void *cfg, const unsigned char *given)
{
    const options *o = cfg;
    drupe_result *r = NULL;
    dr_status st = DR_OK;

    (void)given;
    DR_TRY((dr_status)drupe_doctor(&r));
    DR_TRY(cli_print(&o->common, r));
done:
    drupe_result_free(r);
    return st;
}

extern const cli_verb verb_doctor; /* VERB(doctor, ...) in cli/verbs.def */
const cli_verb verb_doctor = {"drupe doctor [--json]", sizeof(options), params,
                              DR_COUNT(params), run};
