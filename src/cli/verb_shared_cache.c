/*
 * verb_shared_cache.c - drupe shared-cache: what a cache that several machines share has,
 * and taking it away.
 */
#include "cli/cli_impl.h"

typedef struct {
    cli_common common;
    const char *shared_cache, *account, *container, *model_hash;
    bool delete, all, yes;
} options;

static const dr_param params[] = {
    DR_STR(options, shared_cache,
           .help = "a folder, file://, http(s)://, azure://ACCOUNT/CONTAINER, s3://BUCKET"),
    DR_STR(options, account, .help = "the same as Azure's blobs, with container"),
    DR_STR(options, container, .help = "of account"),
    DR_STR(options, model_hash, .help = "an entry: its hash, or how it begins"),
    DR_BOOL(options, delete, .dflt = "false",
            .help = "take away what model_hash names, or all"),
    DR_BOOL(options, all, .dflt = "false", .help = "of delete: everything"),
    DR_BOOL(options, yes, .short_name = 'y', .dflt = "false",
            .help = "delete is meant: nobody is asked"),
    CLI_COMMON(options),
};

static dr_status run(const void *cfg, const unsigned char *given)
{
    const options *o = cfg;
    const drupe_shared_look look = {.url = o->shared_cache,
                                    .account = o->account,
                                    .container = o->container,
                                    .model_hash = o->model_hash,
                                    .remove = o->delete,
                                    .all = o->all};
    drupe_result *r = NULL;
    dr_status st = DR_OK;

    (void)given;
    if (o->delete &&!o->yes) {
        st =
            dr_fail(DR_EUSAGE, "delete takes away what others use: --yes says it is meant");
        dr_hint("without --delete the same command lists it");
        goto done;
    }
    if (!o->delete &&(o->all || o->yes))
        DR_FAIL(DR_EUSAGE, "%s belongs to delete", o->all ? "all" : "yes");
    DR_TRY((dr_status)drupe_shared_cache(&r, &look));
    DR_TRY(cli_print(&o->common, r));
done:
    drupe_result_free(r);
    return st;
}

extern const cli_verb verb_shared_cache; /* VERB(shared_cache, ...) in cli/verbs.def */
const cli_verb verb_shared_cache = {
    "drupe shared-cache --shared_cache URL [--delete (--model_hash HASH | --all) -y]",
    sizeof(options), params, DR_COUNT(params), run};
