/*
 * api_workflow.c - workflow files and their schema.
 */
#include <stdlib.h>

#include "api/drupe_impl.h"
#include "core/param.h"

drupe_status drupe_run_workflow(drupe_result **out, const drupe_workflow *w)
{
    const flow_workflow_options o = {.config = w->config != NULL ? w->config : "",
                                     .text = w->text,
                                     .model = w->model,
                                     .output = w->output,
                                     .cache_dir = w->cache_dir,
                                     .shared_cache = w->shared_cache,
                                     .account_name = w->account_name,
                                     .container_name = w->container_name,
                                     .keep_shared = w->keep_shared_cache,
                                     .threads = w->threads,
                                     .program = w->program,
                                     .launched = w->launched,
                                     .own_log_level = w->own_log_level,
                                     .dry_run = w->dry_run};
    flow_result made = {0};
    dr_status st = DR_OK;

    *out = NULL;
    dr_trail_clear();
    st = flow_workflow(&made, &o);
    return api_result_taken(out, &made, st);
}

drupe_status drupe_run_worker(void)
{
    dr_trail_clear();
    return (drupe_status)flow_worker();
}

drupe_status drupe_workflow_schema(drupe_result **out)
{
    drupe_result *r = api_result_new();
    json_t *schema = flow_workflow_schema();
    char *text = json_dumps(schema, JSON_INDENT(2));
    dr_status st = DR_OK;

    *out = r;
    dr_trail_clear();
    DR_BUG_IF(text == NULL);
    json_object_update(r->report, schema);
    DR_TRY(dr_buf_addf(&r->text, "%s\n", text));
    api_result_seal(r);
done:
    free(text);
    json_decref(schema);
    return (drupe_status)st;
}

drupe_status drupe_cache(drupe_result **out, const drupe_cache_look *c)
{
    flow_cache_options o = {.dir = c->dir != NULL ? c->dir : ".drupe-cache",
                            .verify = c->verify,
                            .clear = c->clear};
    flow_result made = {0};
    dr_status st = DR_OK;

    *out = NULL;
    dr_trail_clear();
    if (c->max_size != NULL)
        DR_TRY(dr_parse_size(&o.max_bytes, c->max_size, "max_size"));
    DR_TRY(flow_look_at_cache(&made, &o));
done:
    return api_result_taken(out, &made, st);
}

drupe_status drupe_shared_cache(drupe_result **out, const drupe_shared_look *c)
{
    const flow_shared_options o = {.url = c->url,
                                   .account = c->account,
                                   .container = c->container,
                                   .model_hash = c->model_hash,
                                   .remove = c->remove,
                                   .all = c->all};
    flow_result made = {0};
    dr_status st = DR_OK;

    *out = NULL;
    dr_trail_clear();
    st = flow_look_at_shared(&made, &o);
    return api_result_taken(out, &made, st);
}
