/*
 * splits.c - split assignments from one form to the other.
 */
#include "pass/splits_impl.h"

#include <string.h>

#include "core/json.h"
#include "pass/attributes_impl.h"

static dr_status as_text(const char **out, dr_arena *a, const json_t *map, const char *what)
{
    const char *key, *text = "";
    const json_t *v;

    if (!json_is_object(map))
        return dr_fail(DR_EUSAGE, "%s: expected an object of names and numbers, found %s",
                       what, dr_json_type(map));
    json_object_foreach((json_t *)(uintptr_t)map, key, v)
    {
        if (!json_is_integer(v))
            return dr_fail(DR_EUSAGE, "%s: %s: expected an integer, found %s", what, key,
                           dr_json_type(v));
        text = dr_arena_printf(a, "%s%s%s=%lld", text, *text ? ";" : "", key,
                               (long long)json_integer_value(v));
    }
    *out = text;
    return DR_OK;
}

dr_status pass_splits_text(const char **out, dr_arena *a, const char *json,
                           const char *what)
{
    json_t *j = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_json_parse(&j, json, strlen(json), what));
    DR_TRY(as_text(out, a, j, what));
done:
    json_decref(j);
    return st;
}

dr_status pass_read_splits(const char **out, dr_arena *a, const char *attributes)
{
    json_t *j = NULL;
    dr_status st = DR_OK;

    DR_TRY(pass_read_attribute(&j, attributes, "split_assignments"));
    if (j != NULL)
        DR_TRY(as_text(out, a, j, "model_attributes.split_assignments"));
done:
    json_decref(j);
    return st;
}
