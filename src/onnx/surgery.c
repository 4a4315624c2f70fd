/*
 * surgery.c - the list of surgeons, and their arguments.
 */
#include <string.h>
#include <strings.h>

#include "core/json.h"
#include "core/log.h"
#include "core/param.h"
#include "onnx/surgery_impl.h"

enum { ARGS = 5 };

static const struct {
    const char *name;
    surgery_fn run;
    const char *args[ARGS]; /* ends with NULL */
} surgeons[] = {
#define SURGEON(name, run, ...) {#name, run, {__VA_ARGS__}},
#include "onnx/surgeons.def"
#undef SURGEON
};

const char *const *onnx_surgeons(void)
{
    static const char *const names[] = {
#define SURGEON(name, run, ...) #name,
#include "onnx/surgeons.def"
#undef SURGEON
        NULL};

    return names;
}

/* ---- arguments ---- */

static dr_status wrong(const surgery_args *a, const char *key, const char *want,
                       const json_t *v)
{
    if (v == NULL)
        return dr_fail(DR_EUSAGE, "%s needs \"%s\"", a->name, key);
    return dr_fail(DR_EUSAGE, "%s: %s: expected %s, found %s", a->name, key, want,
                   dr_json_type(v));
}

dr_status surgery_text(const surgery_args *a, const char *key, const char **out)
{
    const json_t *v = json_object_get(a->json, key);

    *out = json_string_value(v);
    return *out != NULL ? DR_OK : wrong(a, key, "a string", v);
}

dr_status surgery_int(const surgery_args *a, const char *key, int64_t *out)
{
    const json_t *v = json_object_get(a->json, key);

    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return wrong(a, key, "an integer of 0 or more", v);
    *out = json_integer_value(v);
    return DR_OK;
}

dr_status surgery_list(const surgery_args *a, const char *key, bool optional,
                       const json_t **out)
{
    const json_t *v = json_object_get(a->json, key);

    *out = NULL;
    if (optional && (v == NULL || json_is_null(v)))
        return DR_OK;
    if (!json_is_array(v) || json_array_size(v) == 0)
        return wrong(a, key, "a list", v);
    *out = v;
    return DR_OK;
}

dr_status surgery_real(const surgery_args *a, const char *key, double *out)
{
    const json_t *v = json_object_get(a->json, key);

    if (v == NULL)
        return DR_OK;
    if (!json_is_number(v))
        return wrong(a, key, "a number", v);
    *out = json_number_value(v);
    return DR_OK;
}

static size_t count_args(const char *const args[ARGS])
{
    size_t n = 0;

    while (n < ARGS && args[n] != NULL)
        n++;
    return n;
}

static dr_status check_args(const surgery_args *a, const char *const args[ARGS])
{
    size_t n = count_args(args);
    const json_t *v;
    const char *key;

    json_object_foreach((json_t *)(uintptr_t)a->json, key, v)
    {
        bool known = strcmp(key, "surgeon") == 0;
        for (size_t i = 0; i < n; i++)
            known = known || strcmp(key, args[i]) == 0;
        if (known)
            continue;
        dr_status st = dr_fail(DR_EUSAGE, "%s has no argument called %s", a->name, key);
        const char *near = dr_nearest(key, args, n);
        if (near != NULL)
            dr_hint("did you mean %s?", near);
        return st;
    }
    return DR_OK;
}

dr_status onnx_surgery(onnx_edit *e, const json_t *surgeon, const char *where)
{
    const char *name = json_string_value(json_object_get(surgeon, "surgeon"));
    size_t before = e != NULL ? e->changes : 0, i = 0;
    dr_status st = DR_OK;

    if (name == NULL)
        DR_FAIL(DR_EUSAGE, "%s: expected {\"surgeon\": NAME, ...}, found %s", where,
                dr_json_type(surgeon));
    while (i < DR_COUNT(surgeons) && strcasecmp(surgeons[i].name, name) != 0)
        i++;
    if (i == DR_COUNT(surgeons)) {
        const char *near = dr_nearest(name, onnx_surgeons(), DR_COUNT(surgeons));
        st = dr_fail(DR_EUSAGE, "%s: no surgeon is called %s", where, name);
        dr_hint("the nearest is %s", near != NULL ? near : surgeons[0].name);
        goto done;
    }
    const surgery_args a = {surgeon, surgeons[i].name};
    DR_TRY(check_args(&a, surgeons[i].args));
    if (e == NULL)
        goto done;
    DR_TRY(surgeons[i].run(e, &a));
    if (e->changes == before)
        dr_log(DR_WARNING, "%s found nothing to do in %s", a.name, e->path);
done:
    return st;
}
