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

static dr_status by_template(dr_buf *out, dr_arena *keep, data_spans *answers,
                             const json_t *row, const char *template_text,
                             const char *where)
{
    const char *names[DATA_COLUMNS_MAX], *values[DATA_COLUMNS_MAX], *key;
    dr_arena a = {0};
    json_t *value;
    size_t n = 0, from = out->len;
    dr_status st = DR_OK;

    /* jansson's iterators take the object without const, and leave it as it is. */
    json_object_foreach((json_t *)(uintptr_t)row, key, value)
    {
        DR_BUG_IF(n == DATA_COLUMNS_MAX); /* the loader counts columns */
        names[n] = key;
        DR_TRY(value_text(&a, &values[n++], value, key, where));
    }
    DR_TRYF(data_format(out, template_text, true, names, values, n), "%s", where);
    if (answers != NULL)
        DR_TRYF(data_template_answer(keep, answers, template_text, names, values, n,
                                     out->len - from),
                "%s", where);
done:
    dr_arena_release(&a);
    return st;
}

/* A string without zero characters, which no text has. */
static dr_status check_text(const json_t *v, const char *what, const char *where)
{
    if (!json_is_string(v))
        return dr_fail(DR_EFORMAT, "%s: %s: expected a string, found %s", where, what,
                       dr_json_type(v));
    if (strlen(json_string_value(v)) != json_string_length(v))
        return dr_fail(DR_EFORMAT, "%s: %s has a zero character", where, what);
    return DR_OK;
}

/* role is text; so is content, unless it is parts or a call of tools stands for it. */
static dr_status check_message(const json_t *m, size_t i, const char *where)
{
    const json_t *content = dr_json_get(m, "content");
    char what[64];
    dr_status st = DR_OK;

    (void)snprintf(what, sizeof(what), "message %zu: role", i + 1);
    DR_TRY(check_text(dr_json_get(m, "role"), what, where));
    (void)snprintf(what, sizeof(what), "message %zu: content", i + 1);
    if (!json_is_array(content) && dr_json_get(m, "tool_calls") == NULL)
        DR_TRY(check_text(content, what, where));
done:
    return st;
}

/* A prompt or a response as messages: text, or a list of them already. */
static dr_status add_side(json_t *messages, const json_t *v, const char *column,
                          const char *role, const char *where)
{
    dr_status st = DR_OK;

    if (json_is_array(v)) {
        json_array_extend(messages, (json_t *)(uintptr_t)v);
        goto done;
    }
    DR_TRY(check_text(v, column, where));
    json_array_append_new(
        messages, json_pack("{s:s, s:O}", "role", role, "content", (json_t *)(uintptr_t)v));
done:
    return st;
}

/* The row's conversation, new: "messages", or "prompt" with "response" or "completion". */
static dr_status conversation(json_t **out, const json_t *row, const char *where)
{
    json_t *list = json_object_get(row, "messages"), *made = NULL;
    const json_t *prompt = json_object_get(row, "prompt");
    const char *answer = json_object_get(row, "response") ? "response" : "completion";
    dr_status st = DR_OK;

    if (list == NULL && prompt != NULL && json_object_get(row, answer) != NULL) {
        made = json_array();
        DR_TRY(add_side(made, prompt, "prompt", "user", where));
        DR_TRY(add_side(made, json_object_get(row, answer), answer, "assistant", where));
        list = made;
    }
    if (!json_is_array(list)) {
        st = dr_fail(DR_EFORMAT,
                     "%s: use_chat_template: column \"messages\" is %s, not a list", where,
                     dr_json_type(list));
        if (list == NULL)
            dr_hint("or columns \"prompt\" and \"response\"");
        goto done;
    }
    for (size_t i = 0; i < json_array_size(list); i++)
        DR_TRY(check_message(json_array_get(list, i), i, where));
    *out = json_incref(list);
done:
    json_decref(made);
    return st;
}

static dr_status by_chat(dr_buf *out, dr_arena *keep, data_spans *answers,
                         const json_t *row, const tok_tokenizer *t, const char *where)
{
    static const char *const extras[] = {"tools", "documents"};
    json_t *messages = NULL, *extra = json_object();
    size_t from = out->len;
    dr_status st = DR_OK;

    DR_TRY(conversation(&messages, row, where));
    for (size_t i = 0; i < DR_COUNT(extras); i++)
        if (json_is_array(json_object_get(row, extras[i])))
            json_object_set(extra, extras[i], json_object_get(row, extras[i]));
    DR_TRYF(tok_chat_json(t, out, messages, extra, false), "%s", where);
    if (answers != NULL)
        DR_TRY(data_chat_answers(keep, answers, out, from, messages, extra, t, where));
done:
    json_decref(messages);
    json_decref(extra);
    return st;
}

static dr_status no_column(const char *field, const char *const *columns, size_t count,
                           const char *where)
{
    const char *near = dr_nearest(field, columns, count);
    dr_status st = DR_OK;
    dr_buf list;

    dr_buf_init(&list, DATA_ROW_MAX);
    for (size_t i = 0; i < count; i++)
        DR_TRY(dr_buf_addf(&list, "%s%s", i > 0 ? ", " : "", columns[i]));
    st = dr_fail(DR_EFORMAT, "%s: no column \"%s\"; columns: %.400s", where, field,
                 count > 0 ? list.data : "none");

    if (near != NULL && strcmp(near, field) == 0)
        dr_hint("other rows have it");
    else if (near != NULL)
        dr_hint("did you mean --text_field %s?", near);
    else if (count > 0)
        dr_hint("say which with --text_field or --text_template");
done:
    dr_buf_release(&list);
    return st;
}

dr_status data_row_text(dr_buf *out, dr_arena *keep, data_spans *answers, const json_t *row,
                        const data_options *o, const tok_tokenizer *t,
                        const char *const *columns, size_t column_count, const char *where)
{
    const char *field = o->text_field != NULL ? o->text_field : "text", *text = NULL;
    const json_t *v = json_object_get(row, field);
    dr_arena a = {0};
    dr_status st = DR_OK;

    if (o->use_chat_template) {
        DR_TRY(by_chat(out, keep, answers, row, t, where));
    } else if (o->text_template != NULL) {
        DR_TRY(by_template(out, keep, answers, row, o->text_template, where));
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
