/*
 * row.c - a row becomes text.  Values that are not strings are written as Python's str()
 * writes them, since Olive's templates are Python's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/mem.h"
#include "core/param.h"
#include "data/row_impl.h"

/* A double as Python's repr() writes it: the fewest digits that read back. */
static char *real_text(dr_arena *a, double v)
{
    char text[32];
    int digits = 1;

    for (; digits <= 17; digits++) {
        (void)snprintf(text, sizeof(text), "%.*e", digits - 1, v);
        if (strtod(text, NULL) == v)
            break;
    }
    long exponent = strtol(strchr(text, 'e') + 1, NULL, 10);
    if (exponent < -4 || exponent >= 16)
        return dr_arena_strdup(a, text);
    long decimals = digits - 1 - exponent;
    return dr_arena_printf(a, "%.*f", decimals > 1 ? (int)decimals : 1, v);
}

/* A value as text; NULL for a list or an object, which no template takes. */
static dr_status value_text(dr_arena *a, const char **out, const json_t *v,
                            const char *column, const char *where)
{
    *out = NULL;
    switch (json_typeof(v)) {
    case JSON_STRING:
        *out = json_string_value(v);
        if (strlen(*out) != json_string_length(v))
            return dr_fail(DR_EFORMAT, "%s: column \"%s\" has a zero character", where,
                           column);
        break;
    case JSON_INTEGER:
        *out = dr_arena_printf(a, "%lld", (long long)json_integer_value(v));
        break;
    case JSON_REAL:
        *out = real_text(a, json_real_value(v));
        break;
    case JSON_TRUE:
        *out = "True";
        break;
    case JSON_FALSE:
        *out = "False";
        break;
    case JSON_NULL:
        *out = "None";
        break;
    case JSON_OBJECT:
    case JSON_ARRAY:
        break;
    }
    return DR_OK;
}

static dr_status by_template(dr_buf *out, const json_t *row, const char *template_text,
                             const char *where)
{
    const char *names[DATA_COLUMNS_MAX], *values[DATA_COLUMNS_MAX], *key;
    dr_arena a = {0};
    json_t *value;
    size_t n = 0;
    dr_status st = DR_OK;

    /* jansson's iterators take the object without const, and leave it as it is. */
    json_object_foreach((json_t *)(uintptr_t)row, key, value)
    {
        DR_BUG_IF(n == DATA_COLUMNS_MAX); /* the loader counts columns */
        names[n] = key;
        DR_TRY(value_text(&a, &values[n++], value, key, where));
    }
    DR_TRYF(data_format(out, template_text, true, names, values, n), "%s", where);
done:
    dr_arena_release(&a);
    return st;
}

/* m[key], which must be a whole C string. */
static dr_status message_part(const char **out, const json_t *m, const char *key, size_t i,
                              const char *where)
{
    const json_t *v = dr_json_get(m, key);

    if (!json_is_string(v))
        return dr_fail(DR_EFORMAT, "%s: message %zu: %s: expected a string, found %s",
                       where, i + 1, key, dr_json_type(v));
    *out = json_string_value(v);
    if (strlen(*out) != json_string_length(v))
        return dr_fail(DR_EFORMAT, "%s: message %zu: %s has a zero character", where, i + 1,
                       key);
    return DR_OK;
}

static dr_status by_chat(dr_buf *out, const json_t *row, const tok_tokenizer *t,
                         const char *where)
{
    const json_t *list = dr_json_get(row, "messages");
    size_t n = json_array_size(list);
    tok_message *messages = NULL;
    dr_status st = DR_OK;

    if (!json_is_array(list))
        DR_FAIL(DR_EFORMAT, "%s: use_chat_template: column \"messages\" is %s, not a list",
                where, dr_json_type(list));
    messages = dr_calloc(n, sizeof(*messages));
    for (size_t i = 0; i < n; i++) {
        const json_t *m = json_array_get(list, i);
        DR_TRY(message_part(&messages[i].role, m, "role", i, where));
        DR_TRY(message_part(&messages[i].content, m, "content", i, where));
    }
    DR_TRYF(tok_chat(t, out, messages, n, false), "%s", where);
done:
    free(messages);
    return st;
}

static dr_status no_column(const char *field, const char *const *columns, size_t count,
                           const char *where)
{
    dr_status st = dr_fail(DR_EFORMAT, "%s: no column \"%s\"", where, field);
    const char *near = dr_nearest(field, columns, count);

    if (near != NULL)
        dr_hint("did you mean --text_field %s?", near);
    else if (count > 0)
        dr_hint(
            "say which with --text_field or --text_template; the first column is \"%s\"",
            columns[0]);
    return st;
}

dr_status data_row_text(dr_buf *out, const json_t *row, const data_options *o,
                        const tok_tokenizer *t, const char *const *columns,
                        size_t column_count, const char *where)
{
    const char *field = o->text_field != NULL ? o->text_field : "text", *text = NULL;
    const json_t *v = json_object_get(row, field);
    dr_arena a = {0};
    dr_status st = DR_OK;

    if (o->use_chat_template) {
        DR_TRY(by_chat(out, row, t, where));
    } else if (o->text_template != NULL) {
        DR_TRY(by_template(out, row, o->text_template, where));
    } else if (v == NULL) {
        DR_TRY(no_column(field, columns, column_count, where));
    } else {
        DR_TRY(value_text(&a, &text, v, field, where));
        if (text == NULL)
            DR_FAIL(DR_EUNSUPPORTED, "%s: column \"%s\" is %s, not text", where, field,
                    dr_json_type(v));
        DR_TRY(dr_buf_adds(out, text));
    }
done:
    dr_arena_release(&a);
    return st;
}
