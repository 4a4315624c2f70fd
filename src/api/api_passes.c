/*
 * api_passes.c - the passes there are, with all that can be set.
 */
#include <stdlib.h>
#include <string.h>

#include "api/drupe_impl.h"
#include "pass/pass.h"

static const char *type_of(const dr_param *p)
{
    switch (p->type) {
    case DR_PARAM_BOOL:
        return "bool";
    case DR_PARAM_INT:
        return "int";
    case DR_PARAM_FLOAT:
        return "float";
    case DR_PARAM_STR:
        return p->listed ? "list" : "str";
    case DR_PARAM_CHOICE:
        return "choice";
    case DR_PARAM_REFUSED:
        break;
    }
    return "refused";
}

static void set(json_t *j, const char *key, const char *text)
{
    if (text != NULL)
        json_object_set_new(j, key, json_string(text));
}

static json_t *param_json(const dr_param *p)
{
    json_t *j = json_pack("{s:s, s:s}", "name", p->name, "type", type_of(p)), *list;

    if (p->type == DR_PARAM_REFUSED) {
        set(j, "refused", p->refused);
        return j;
    }
    set(j, "default", p->dflt);
    set(j, "help", p->help);
    if (p->min != 0 || p->max != 0) {
        json_object_set_new(j, "min", json_real(p->min));
        json_object_set_new(j, "max", json_real(p->max));
    }
    if (p->search != NULL && (list = json_loads(p->search, 0, NULL)) != NULL)
        json_object_set_new(j, "searchable_values", list);
    if (p->type != DR_PARAM_CHOICE)
        return j;
    list = json_array();
    for (size_t i = 0; p->choices[i] != NULL; i++)
        json_array_append_new(list, json_string(p->choices[i]));
    json_object_set_new(j, "choices", list);
    return j;
}

static json_t *pass_json(const pass_def *d)
{
    json_t *params = json_array();

    for (size_t i = 0; i < d->params_count; i++)
        json_array_append_new(params, param_json(&d->params[i]));
    return json_pack("{s:s, s:i, s:s, s:s, s:s, s:[s], s:b, s:o}", "name", d->name,
                     "version", d->version, "summary", d->summary, "takes",
                     pass_kind_type(d->takes), "gives", pass_kind_type(d->gives), "devices",
                     "cpu", "needs_data", d->needs_data, "parameters", params);
}

drupe_status drupe_list_passes(drupe_result **out)
{
    drupe_result *r = api_result_new();
    json_t *list = json_array();
    size_t n = 0;
    const pass_def *const *passes = pass_list(&n);
    dr_status st = DR_OK;

    *out = r;
    dr_trail_clear();
    json_object_set_new(r->report, "passes", list);
    for (size_t i = 0; i < n; i++) {
        const pass_def *d = passes[i];
        json_array_append_new(list, pass_json(d));
        DR_TRY(dr_buf_addf(&r->text, "%-24s %-9s to %-9s  %s\n", d->name,
                           pass_kind_type(d->takes), pass_kind_type(d->gives), d->summary));
    }
    api_result_seal(r);
done:
    return (drupe_status)st;
}
