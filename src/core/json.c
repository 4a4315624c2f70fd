/*
 * json.c - JSON through jansson.
 */
#include "core/json.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"

/*
 * Integers past 63 bits (transformers writes 10^30 for "no limit") made reals by adding
 * ".0", which jansson takes; strings are left alone.
 */
static dr_status widen_integers(dr_buf *out, const char *text, size_t n)
{
    bool in_string = false;
    dr_status st = DR_OK;

    for (size_t i = 0; i < n;) {
        size_t from = i;
        if (in_string || !(text[i] >= '0' && text[i] <= '9')) {
            if (in_string && text[i] == '\\' && i + 1 < n)
                i++;
            else if (text[i] == '"')
                in_string = !in_string;
            i++;
            DR_TRY(dr_buf_add(out, text + from, i - from));
            continue;
        }
        while (i < n && text[i] >= '0' && text[i] <= '9')
            i++;
        size_t digits = i - from;
        bool real = i < n && (text[i] == '.' || text[i] == 'e' || text[i] == 'E');
        while (i < n && strchr("0123456789.eE+-", text[i]) != NULL && text[i] != '\0')
            i++;
        DR_TRY(dr_buf_add(out, text + from, i - from));
        if (!real && digits > 18)
            DR_TRY(dr_buf_adds(out, ".0"));
    }
done:
    return st;
}

dr_status dr_json_parse(json_t **out, const char *text, size_t n, const char *where)
{
    const size_t flags = JSON_ALLOW_NUL | JSON_DECODE_ANY;
    json_error_t err;
    dr_buf wide;
    dr_status st = DR_OK;

    dr_buf_init(&wide, 2 * n + 16);
    *out = json_loadb(text, n, flags, &err);
    if (*out == NULL && json_error_code(&err) == json_error_numeric_overflow) {
        DR_TRYF(widen_integers(&wide, text, n), "%s", where);
        *out = json_loadb(wide.data, wide.len, flags, &err);
    }
    if (*out == NULL)
        DR_FAIL(DR_EFORMAT, "%s:%d:%d: not JSON: %s", where, err.line, err.column,
                err.text);
done:
    dr_buf_release(&wide);
    return st;
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

bool dr_json_sha256(char hex[DR_SHA256_HEX], const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);

    if (text == NULL)
        return false;
    dr_sha256(hex, text, strlen(text));
    free(text);
    return true;
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
