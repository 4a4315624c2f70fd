/*
 * json.c - JSON through jansson.
 */
#include "core/json.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"

dr_status dr_json_parse(json_t **out, const char *text, size_t n, const char *where)
{
    json_error_t err;

    *out = json_loadb(text, n, JSON_ALLOW_NUL | JSON_DECODE_ANY, &err);
    if (*out == NULL)
        return dr_fail(DR_EFORMAT, "%s:%d:%d: not JSON: %s", where, err.line, err.column,
                       err.text);
    return DR_OK;
}

dr_status dr_json_read(json_t **out, const char *path)
{
    dr_map map = {0};
    dr_status st = DR_OK;

    *out = NULL;
    DR_TRY(dr_map_open(&map, path));
    DR_TRY(dr_json_parse(out, (const char *)map.data, map.size, path));
done:
    dr_map_close(&map);
    return st;
}

dr_status dr_json_write(const char *path, const json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY);
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, (size_t)1 << 31);
    if (text == NULL)
        DR_FAIL(DR_EFORMAT, "%s: a value cannot be written as JSON", path);
    DR_TRY(dr_buf_adds(&b, text));
    DR_TRY(dr_buf_adds(&b, "\n"));
    DR_TRY(dr_write_file(path, b.data, b.len));
done:
    dr_buf_release(&b);
    free(text);
    return st;
}

const char *dr_json_type(const json_t *v)
{
    static const char *const names[] = {"an object", "an array", "a string", "an integer",
                                        "a number",  "true",     "false",    "null"};
    return v == NULL ? "nothing" : names[json_typeof(v)];
}

const json_t *dr_json_get(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    return v == NULL || json_is_null(v) ? NULL : v;
}

static dr_status wrong(const json_t *v, const char *key, const char *want,
                       const char *where)
{
    return dr_fail(DR_EFORMAT, "%s: %s: expected %s, found %s", where, key, want,
                   dr_json_type(v));
}

dr_status dr_json_int(const json_t *o, const char *key, int64_t *out, const char *where)
{
    const json_t *v = dr_json_get(o, key);

    if (v == NULL)
        return DR_OK;
    if (!json_is_integer(v))
        return wrong(v, key, "an integer", where);
    *out = (int64_t)json_integer_value(v);
    return DR_OK;
}

dr_status dr_json_real(const json_t *o, const char *key, double *out, const char *where)
{
    const json_t *v = dr_json_get(o, key);

    if (v == NULL)
        return DR_OK;
    if (!json_is_number(v))
        return wrong(v, key, "a number", where);
    *out = json_number_value(v);
    return DR_OK;
}

dr_status dr_json_bool(const json_t *o, const char *key, bool *out, const char *where)
{
    const json_t *v = dr_json_get(o, key);

    if (v == NULL)
        return DR_OK;
    if (!json_is_boolean(v))
        return wrong(v, key, "true or false", where);
    *out = json_is_true(v);
    return DR_OK;
}

dr_status dr_json_str(const json_t *o, const char *key, const char **out, const char *where)
{
    const json_t *v = dr_json_get(o, key);

    if (v == NULL)
        return DR_OK;
    if (!json_is_string(v))
        return wrong(v, key, "a string", where);
    *out = json_string_value(v);
    return DR_OK;
}
