/*
 * load_json.c - JSON lines, one array of objects, or one object of columns.
 *
 * Which it is, as in the datasets library: an array if the file begins with [; an object of
 * columns if the whole file is one object on several lines, all of whose values are arrays;
 * else each line is a row.
 */
#include <stdio.h>
#include <string.h>

#include "core/json.h"
#include "data/row_impl.h"

static dr_status load_json_array(data_loader *l, const char *text, size_t n,
                                 const char *path)
{
    json_t *rows = NULL;
    char where[512];
    dr_status st = DR_OK;

    DR_TRY(dr_json_parse(&rows, text, n, path));
    for (size_t i = 0; i < json_array_size(rows); i++) {
        (void)snprintf(where, sizeof(where), "%s: row %zu", path, i + 1);
        DR_TRY(data_add_row(l, json_array_get(rows, i), where));
    }
done:
    json_decref(rows);
    return st;
}

static dr_status json_line(data_loader *l, const char *text, size_t n, const char *path,
                           size_t number)
{
    json_error_t err;
    json_t *row = NULL;
    char where[512];
    dr_status st = DR_OK;

    while (n > 0 && memchr(" \t\r", text[n - 1], 3) != NULL)
        n--;
    if (n == 0)
        goto done;
    (void)snprintf(where, sizeof(where), "%s:%zu", path, number);
    row = json_loadb(text, n, JSON_ALLOW_NUL | JSON_DECODE_ANY, &err);
    if (row == NULL) {
        st = dr_fail(DR_EFORMAT, "%s:%d: not JSON: %s", where, err.column, err.text);
        if (number == 1)
            dr_hint("one object a line, one array of objects, or one object of "
                    "columns; for plain text give --data_name text");
        goto done;
    }
    DR_TRY(data_add_row(l, row, where));
done:
    json_decref(row);
    return st;
}

static dr_status load_json_lines(data_loader *l, const char *text, size_t n,
                                 const char *path)
{
    const char *p = text, *end = text + n;
    dr_status st = DR_OK;

    for (size_t number = 1; p < end; number++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        stop = stop != NULL ? stop : end;
        DR_TRY(json_line(l, p, (size_t)(stop - p), path, number));
        p = stop + 1;
    }
done:
    return st;
}

/* ---- columns ---- */

/* Whether all values are arrays, of one length at that. */
static dr_status check_columns(bool *are_columns, const json_t *object, const char *path)
{
    const char *key, *first = NULL;
    size_t rows = 0;
    json_t *value;

    *are_columns = false;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (!json_is_array(value))
            return DR_OK;
    }
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (first == NULL) {
            first = key;
            rows = json_array_size(value);
        }
        if (json_array_size(value) != rows)
            return dr_fail(DR_EFORMAT,
                           "%s: column \"%s\" has %zu values, column \"%s\" has %zu", path,
                           key, json_array_size(value), first, rows);
    }
    *are_columns = first != NULL;
    return DR_OK;
}

static dr_status load_columns(data_loader *l, const json_t *object, const char *path)
{
    const char *key;
    json_t *value, *row = NULL;
    size_t rows = json_array_size(
        json_object_iter_value(json_object_iter((json_t *)(uintptr_t)object)));
    char where[512];
    dr_status st = DR_OK;

    for (size_t i = 0; i < rows; i++) {
        row = json_object();
        json_object_foreach((json_t *)(uintptr_t)object, key, value)
        {
            json_object_set(row, key, json_array_get(value, i));
        }
        (void)snprintf(where, sizeof(where), "%s: row %zu", path, i + 1);
        DR_TRY(data_add_row(l, row, where));
        json_decref(row);
        row = NULL;
    }
done:
    json_decref(row);
    return st;
}

/* The whole file as one object on several lines; NULL: something else. */
static json_t *one_object(const char *text, size_t n)
{
    json_error_t err;
    size_t end = n;

    while (end > 0 && memchr(" \t\r\n", text[end - 1], 4) != NULL)
        end--;
    if (memchr(text, '\n', end) == NULL)
        return NULL;
    return json_loadb(text, n, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &err);
}

dr_status data_load_json(data_loader *l, const char *text, size_t n, const char *path)
{
    size_t i = 0;
    json_t *whole = NULL;
    bool columns = false;
    dr_status st = DR_OK;

    while (i < n && memchr(" \t\r\n", text[i], 4) != NULL)
        i++;
    if (i < n && text[i] == '[') {
        DR_TRY(load_json_array(l, text, n, path));
        goto done;
    }
    if (i < n && text[i] == '{')
        whole = one_object(text + i, n - i);
    if (json_is_object(whole))
        DR_TRY(check_columns(&columns, whole, path));
    if (columns)
        DR_TRY(load_columns(l, whole, path));
    else
        DR_TRY(load_json_lines(l, text, n, path));
done:
    json_decref(whole);
    return st;
}
