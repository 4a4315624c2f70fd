/*
 * load.c - rows of files become texts.
 *
 * json: JSON lines, or one array of objects.  text: one text a line, empty lines left out
 * (as Hugging Face's text loader gives them and Olive drops them).  Values that are not
 * strings are written as Python writes them.
 */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/param.h"
#include "data/builtin_impl.h"

enum { COLUMNS_MAX = 256 };

/* Rows as they come in; everything but the arrays themselves lives in the arena. */
typedef struct {
    dr_arena *arena;
    const data_options *o;
    const tok_tokenizer *tok;
    data_texts *out;
    size_t cap;
    char *columns[COLUMNS_MAX];
} loader;

static void add_text(loader *l, const char *text, size_t n)
{
    data_texts *o = l->out;

    if (n == 0) /* Olive removes empty texts */
        return;
    if (o->count == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 256;
        char **texts = dr_arena_alloc(l->arena, cap, sizeof(*texts));
        size_t *bytes = dr_arena_alloc(l->arena, cap, sizeof(*bytes));
        if (o->count > 0) {
            memcpy(texts, o->texts, o->count * sizeof(*texts));
            memcpy(bytes, o->text_bytes, o->count * sizeof(*bytes));
        }
        o->texts = texts;
        o->text_bytes = bytes;
        l->cap = cap;
    }
    o->texts[o->count] = dr_arena_strndup(l->arena, text, n);
    o->text_bytes[o->count++] = n;
}

static dr_status note_columns(loader *l, const json_t *row, const char *where)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)row, key, value)
    {
        size_t i = 0;
        while (i < l->out->column_count && strcmp(l->columns[i], key) != 0)
            i++;
        if (i < l->out->column_count)
            continue;
        if (i == COLUMNS_MAX)
            return dr_fail(DR_EFORMAT, "%s: more than %d columns", where, COLUMNS_MAX);
        l->columns[l->out->column_count++] = dr_arena_strdup(l->arena, key);
    }
    return DR_OK;
}

/* A value as Python's str() writes it. */
static dr_status as_text(loader *l, const char **out, const json_t *v, const char *where,
                         const char *column)
{
    if (json_is_string(v))
        *out = json_string_value(v);
    else if (json_is_integer(v))
        *out = dr_arena_printf(l->arena, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v)) {
        char text[32];
        int digits = 1;
        do {
            (void)snprintf(text, sizeof(text), "%.*g", digits, json_real_value(v));
        } while (strtod(text, NULL) != json_real_value(v) && digits++ < 17);
        bool whole = strpbrk(text, ".en") == NULL;
        *out = dr_arena_printf(l->arena, "%s%s", text, whole ? ".0" : "");
    } else if (json_is_boolean(v))
        *out = json_is_true(v) ? "True" : "False";
    else if (json_is_null(v))
        *out = "None";
    else
        return dr_fail(DR_EUNSUPPORTED, "%s: column \"%s\" is %s; a template takes strings",
                       where, column, dr_json_type(v));
    return DR_OK;
}

static dr_status row_by_template(loader *l, const json_t *row, const char *where)
{
    const char *names[COLUMNS_MAX], *values[COLUMNS_MAX], *key;
    json_t *value;
    size_t n = 0;
    dr_buf text;
    dr_status st = DR_OK;

    dr_buf_init(&text, (size_t)64 << 20);
    json_object_foreach((json_t *)(uintptr_t)row, key, value)
    {
        if (json_is_object(value) || json_is_array(value) || n == COLUMNS_MAX)
            continue; /* only an error when the template asks for it: no such column */
        names[n] = key;
        DR_TRY(as_text(l, &values[n], value, where, key));
        n++;
    }
    DR_TRYF(data_format(&text, l->o->text_template, true, names, values, n), "%s", where);
    add_text(l, text.data, text.len);
done:
    dr_buf_release(&text);
    return st;
}

static dr_status row_by_chat(loader *l, const json_t *row, const char *where)
{
    const json_t *list = dr_json_get(row, "messages");
    size_t n = json_array_size(list);
    tok_message *messages = NULL;
    dr_buf text;
    dr_status st = DR_OK;

    dr_buf_init(&text, (size_t)64 << 20);
    if (!json_is_array(list))
        DR_FAIL(DR_EFORMAT, "%s: use_chat_template: column \"messages\" is %s, not a list",
                where, dr_json_type(list));
    messages = dr_calloc(n, sizeof(*messages));
    for (size_t i = 0; i < n; i++) {
        const json_t *m = json_array_get(list, i);
        DR_TRY(dr_json_str(m, "role", &messages[i].role, where));
        DR_TRY(dr_json_str(m, "content", &messages[i].content, where));
        if (messages[i].role == NULL || messages[i].content == NULL)
            DR_FAIL(DR_EFORMAT, "%s: message %zu has no role or no content", where, i + 1);
    }
    DR_TRYF(tok_chat(l->tok, &text, messages, n, false), "%s", where);
    add_text(l, text.data, text.len);
done:
    free(messages);
    dr_buf_release(&text);
    return st;
}

static dr_status row_by_field(loader *l, const json_t *row, const char *where)
{
    const char *field = l->o->text_field != NULL ? l->o->text_field : "text";
    const json_t *v = json_object_get(row, field);
    const char *text = NULL;
    dr_status st = DR_OK;

    if (v == NULL) {
        st = dr_fail(DR_EFORMAT, "%s: no column \"%s\"", where, field);
        const char *near = dr_nearest(field, (const char *const *)l->columns,
                                      l->out->column_count);
        if (near != NULL)
            dr_hint("did you mean --text_field %s?", near);
        else if (l->out->column_count > 0)
            dr_hint("say which with --text_field or --text_template; the first column is "
                    "\"%s\"",
                    l->columns[0]);
        return st;
    }
    DR_TRY(as_text(l, &text, v, where, field));
    add_text(l, text, strlen(text));
done:
    return st;
}

static dr_status add_row(loader *l, const json_t *row, const char *where)
{
    dr_status st = DR_OK;

    if (!json_is_object(row))
        DR_FAIL(DR_EFORMAT, "%s: a row must be an object, found %s", where, dr_json_type(row));
    DR_TRY(note_columns(l, row, where));
    if (l->o->use_chat_template)
        DR_TRY(row_by_chat(l, row, where));
    else if (l->o->text_template != NULL)
        DR_TRY(row_by_template(l, row, where));
    else
        DR_TRY(row_by_field(l, row, where));
done:
    return st;
}

static dr_status load_json_array(loader *l, const dr_map *m, const char *path)
{
    json_t *rows = NULL;
    char where[512];
    dr_status st = DR_OK;

    DR_TRY(dr_json_parse(&rows, (const char *)m->data, m->size, path));
    for (size_t i = 0; i < json_array_size(rows); i++) {
        (void)snprintf(where, sizeof(where), "%s: row %zu", path, i + 1);
        DR_TRY(add_row(l, json_array_get(rows, i), where));
    }
done:
    json_decref(rows);
    return st;
}

static dr_status load_lines(loader *l, const dr_map *m, const char *path, bool json)
{
    const char *p = (const char *)m->data, *end = p + m->size;
    json_t *row = NULL;
    char where[512];
    size_t line = 0;
    dr_status st = DR_OK;

    for (const char *next; p < end; p = next) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((nl != NULL ? nl : end) - p);
        next = nl != NULL ? nl + 1 : end;
        line++;
        if (n > 0 && p[n - 1] == '\r')
            n--;
        if (n == 0)
            continue;
        if (!json) {
            add_text(l, p, n);
            continue;
        }
        (void)snprintf(where, sizeof(where), "%s: line %zu", path, line);
        DR_TRY(dr_json_parse(&row, p, n, where));
        DR_TRY(add_row(l, row, where));
        json_decref(row);
        row = NULL;
    }
done:
    json_decref(row);
    return st;
}

static dr_status load_file(loader *l, const char *path, bool json)
{
    dr_map m = {0};
    size_t i = 0;
    dr_status st = DR_OK;

    DR_TRYF(dr_map_open(&m, path), "data_files");
    if (m.size >= 4 && memcmp(m.data, "PAR1", 4) == 0) {
        st = dr_fail(DR_EUNSUPPORTED, "%s: Parquet is not read", path);
        dr_hint("convert it: python -c \"import pandas; pandas.read_parquet('%s')"
                ".to_json('data.jsonl', orient='records', lines=True)\"",
                path);
        goto done;
    }
    if (m.size >= 3 && memcmp(m.data, "\xef\xbb\xbf", 3) == 0)
        i = 3; /* a byte order mark */
    while (i < m.size && strchr(" \t\r\n", m.data[i]) != NULL)
        i++;
    if (json && i < m.size && m.data[i] == '[')
        DR_TRY(load_json_array(l, &m, path));
    else
        DR_TRY(load_lines(l, &m, path, json));
done:
    dr_map_close(&m);
    return st;
}

static dr_status check_options(const data_options *o)
{
    int ways = (o->text_field != NULL) + (o->text_template != NULL) + o->use_chat_template;
    dr_status st;

    if (ways > 1)
        return dr_fail(DR_EUSAGE,
                       "text_field, text_template and use_chat_template: one of them only");
    if (o->data_name != NULL && strcmp(o->data_name, "json") != 0 &&
        strcmp(o->data_name, "text") != 0) {
        st = dr_fail(DR_EUNSUPPORTED, "data_name \"%s\": data sets of the hub are not read yet",
                     o->data_name);
        dr_hint("download it and give --data_name json --data_files FILE (json, text)");
        return st;
    }
    if (o->data_name != NULL && o->data_files == NULL)
        return dr_fail(DR_EUSAGE, "data_name %s needs data_files", o->data_name);
    if (o->data_name == NULL && o->data_files != NULL)
        return dr_fail(DR_EUSAGE, "data_files needs data_name: json or text");
    if (o->data_name == NULL && ways > 0)
        return dr_fail(DR_EUSAGE, "text_field, text_template and use_chat_template need "
                                  "data_name and data_files");
    return DR_OK;
}

dr_status data_load(dr_arena *a, data_texts *out, const data_options *o,
                    const tok_tokenizer *t)
{
    loader l = {.arena = a, .o = o, .tok = t, .out = out};
    char *list = NULL;
    dr_status st = DR_OK;

    *out = (data_texts){0};
    DR_TRY(check_options(o));
    if (o->data_name == NULL) {
        data_load_builtin(a, out, o->held_out);
        goto done;
    }
    out->source = dr_arena_strdup(a, o->data_files);
    list = dr_strdup(o->data_files);
    for (char *p = list, *next; p != NULL; p = next) {
        next = strchr(p, ',');
        if (next != NULL)
            *next++ = '\0';
        if (*p != '\0')
            DR_TRY(load_file(&l, p, strcmp(o->data_name, "json") == 0));
    }
    if (out->count == 0)
        DR_FAIL(DR_EFORMAT, "%s: no text in it", o->data_files);
    out->columns = dr_arena_alloc(a, COLUMNS_MAX, sizeof(char *));
    memcpy(out->columns, l.columns, sizeof(l.columns));
done:
    free(list);
    return st;
}
