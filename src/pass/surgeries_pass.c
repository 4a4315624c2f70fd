/*
 * surgeries_pass.c - the GraphSurgeries pass: single changes of a graph, in order.
 */
#include <string.h>

#include "core/json.h"
#include "pass/rewrite_impl.h"

typedef struct {
    pass_external external;
    const char *surgeries;
} surgeries;

static const dr_param params[] = {
    DR_STR(surgeries, surgeries, .dflt = "null", .json = true, .listed = true,
           .required = true,
           .help = "list of {\"surgeon\": NAME, argument: value, ...}; docs/WORKFLOWS.md "
                   "has the names"),
    PASS_EXTERNAL_ROWS,
};

/* e NULL: names and arguments alone are looked at. */
static dr_status each(onnx_edit *e, const char *text)
{
    json_t *list = NULL;
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_json_parse(&list, text, strlen(text), "surgeries"));
    if (!json_is_array(list) || json_array_size(list) == 0)
        DR_FAIL(DR_EUSAGE, "surgeries: expected a list of surgeons, found %s",
                dr_json_type(list));
    for (size_t i = 0; i < json_array_size(list); i++)
        DR_TRY(onnx_surgery(e, json_array_get(list, i),
                            dr_arena_printf(&a, "surgeries[%zu]", i)));
done:
    json_decref(list);
    dr_arena_release(&a);
    return st;
}

static dr_status validate(const void *config, const unsigned char *given)
{
    const surgeries *c = config;
    dr_status st = DR_OK;

    DR_TRY(pass_external_validate(config, given));
    if (c->surgeries != NULL)
        DR_TRY(each(NULL, c->surgeries));
done:
    return st;
}

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const surgeries *c = job->config;

    (void)in;
    return each(e, c->surgeries);
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_rewrite(job, out, in, change);
}

extern const pass_def pass_surgeries; /* PASS(surgeries) */
const pass_def pass_surgeries = {
    .name = "GraphSurgeries",
    .version = 1,
    .summary = "single changes of a graph, in order",
    PASS_REWRITE(surgeries, params),
    .validate = validate,
    .run = run,
};
