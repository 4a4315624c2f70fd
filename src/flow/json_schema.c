/*
 * json_schema.c - the workflow file's schema as JSON Schema (draft 2020-12), for editors.
 */
#include <string.h>

#include "flow/workflow_impl.h"

static json_t *object_schema(const wf_object *o);

static json_t *type_of(const char *type)
{
    return json_pack("{s:s}", "type", type);
}

static json_t *words_schema(const char *const *words)
{
    json_t *list = json_array();

    for (size_t i = 0; words[i] != NULL; i++)
        json_array_append_new(list, json_string(words[i]));
    return json_pack("{s:s, s:o}", "type", "string", "enum", list);
}

static json_t *either(json_t *a, json_t *b)
{
    return json_pack("{s:[o, o]}", "anyOf", a, b);
}

static json_t *list_of(json_t *items)
{
    return json_pack("{s:s, s:o}", "type", "array", "items", items);
}

static json_t *map_of(json_t *items)
{
    return json_pack("{s:s, s:o}", "type", "object", "additionalProperties", items);
}

static json_t *with_range(json_t *j, double min, double max)
{
    if (min != 0 || max != 0) {
        json_object_set_new(j, "minimum", json_real(min));
        json_object_set_new(j, "maximum", json_real(max));
    }
    return j;
}

static json_t *row_schema(const wf_row *row)
{
    switch (row->kind) {
    case WF_STR:
        return type_of("string");
    case WF_STRS:
        return either(type_of("string"), list_of(type_of("string")));
    case WF_INT:
        return with_range(type_of("integer"), row->min, row->max);
    case WF_NUM:
        return with_range(type_of("number"), row->min, row->max);
    case WF_BOOL:
        return type_of("boolean");
    case WF_OFF:
        return json_pack("{s:b}", "const", 0);
    case WF_WORD:
        return words_schema(row->words);
    case WF_ANY:
        return type_of("object");
    case WF_OBJECT:
        return object_schema(row->of);
    case WF_LIST:
        return list_of(object_schema(row->of));
    case WF_SOME:
        return either(object_schema(row->of), list_of(object_schema(row->of)));
    case WF_MAP:
        return map_of(object_schema(row->of));
    case WF_MAPS:
        return map_of(either(object_schema(row->of), list_of(object_schema(row->of))));
    case WF_FLOWS:
        return list_of(list_of(type_of("string")));
    case WF_NAMED:
        return either(list_of(object_schema(row->of)), map_of(object_schema(row->of)));
    case WF_REF:
        return either(type_of("string"), object_schema(row->of));
    case WF_SEARCH:
        return either(type_of("boolean"), object_schema(row->of));
    case WF_REFUSED:
        break;
    }
    return NULL;
}

/* A parameter: its value, or a list of values to search. */
static json_t *param_schema(const dr_param *p)
{
    json_t *one = NULL;

    if (p->type == DR_PARAM_CHOICE)
        one = words_schema(p->choices);
    else if (p->type == DR_PARAM_BOOL)
        one = type_of("boolean");
    else if (p->type == DR_PARAM_STR)
        one = p->listed || p->json ? json_object() : type_of("string");
    else
        one = with_range(type_of(p->type == DR_PARAM_INT ? "integer" : "number"), p->min,
                         p->max);
    json_t *words = json_pack("{s:[s, s]}", "enum", "DEFAULT_VALUE", "SEARCHABLE_VALUES");
    json_t *j = json_pack("{s:[O, o, o]}", "anyOf", one, list_of(one), words);
    if (p->help != NULL)
        json_object_set_new(j, "description", json_string(p->help));
    return j;
}

/* Of one pass: what its entry may have besides the rows of every pass. */
static json_t *pass_schema(const pass_def *d)
{
    json_t *params = json_object();

    for (size_t i = 0; i < d->params_count; i++)
        if (d->params[i].type != DR_PARAM_REFUSED)
            json_object_set_new(params, d->params[i].name, param_schema(&d->params[i]));
    return json_pack("{s:{s:{s:{s:s}}}, s:{s:o}}", "if", "properties", "type", "const",
                     d->name, "then", "properties", params);
}

static json_t *object_schema(const wf_object *o)
{
    json_t *rows = json_object(), *required = json_array();
    json_t *j = json_pack("{s:s, s:o}", "type", "object", "properties", rows);
    size_t n = 0;

    for (size_t i = 0; i < o->count; i++) {
        json_t *one = row_schema(&o->rows[i]);
        if (one == NULL)
            continue;
        json_object_set_new(one, "description", json_string(o->rows[i].help));
        json_object_set_new(rows, o->rows[i].key, one);
        if (o->rows[i].required && !o->nested)
            json_array_append_new(required, json_string(o->rows[i].key));
    }
    if (json_array_size(required) > 0)
        json_object_set(j, "required", required);
    json_decref(required);
    if (o->nested)
        json_object_set_new(rows, "config", type_of("object"));
    if (!o->open) {
        json_object_set_new(j, "additionalProperties", json_false());
        return j;
    }
    const pass_def *const *list = pass_list(&n);
    json_t *all = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(all, pass_schema(list[i]));
    json_object_set_new(j, "allOf", all);
    return j;
}

json_t *wf_json_schema(void)
{
    json_t *j = object_schema(&wf_workflow);

    json_object_set_new(j, "$schema",
                        json_string("https://json-schema.org/draft/2020-12/schema"));
    json_object_set_new(j, "title", json_string("a workflow of drupe run"));
    json_object_set_new(j, "oneOf",
                        json_pack("[{s:[s]}, {s:[s]}]", "required", "passes", "required",
                                  "auto_optimizer_config"));
    return j;
}
