/*
 * load_csv.c - comma-separated values as RFC 4180 has them: a line of column names, then
 * records; a field in double quotes may hold commas, line ends and, doubled, quotes.
 *
 * Records end in LF or CRLF.  Spaces are part of a field.  Values stay text as written: no
 * column is guessed to be of numbers.  A line without anything is no record.
 * What must hold: every record has as many fields as there are names; each error names the
 * line that the record begins at and the column.
 */
#include <stdio.h>
#include <string.h>

#include "core/json.h"
#include "core/mem.h"
#include "data/row_impl.h"

typedef struct {
    const char *path, *p, *end;
    size_t line;   /* of p */
    size_t record; /* line where the record in hand begins */
    dr_buf field;
    char *names[DATA_COLUMNS_MAX]; /* arena */
    size_t count;
} reader;

/* The column in hand, for messages: its name, or its number in the line of names. */
static const char *column(const reader *r, size_t i, char *space, size_t n)
{
    if (i < r->count)
        (void)snprintf(space, n, "column \"%s\"", r->names[i]);
    else
        (void)snprintf(space, n, "column %zu", i + 1);
    return space;
}

static bool at_line_end(const reader *r)
{
    return r->p == r->end || *r->p == '\n' ||
           (*r->p == '\r' && r->p + 1 < r->end && r->p[1] == '\n');
}

static void skip_line_end(reader *r)
{
    if (r->p < r->end)
        r->p += *r->p == '\r' ? 2 : 1;
    r->line++;
}

/* Behind the opening quote, up to behind the closing one. */
static dr_status quoted(reader *r, size_t i)
{
    size_t begun = r->line;
    char name[300];
    dr_status st = DR_OK;

    while (r->p < r->end) {
        char c = *r->p++;
        if (c == '"' && (r->p == r->end || *r->p != '"'))
            goto closed;
        r->p += c == '"';
        r->line += c == '\n';
        DR_TRY(dr_buf_add(&r->field, &c, 1));
    }
    DR_FAIL(DR_EFORMAT, "%s:%zu: %s: a quote is opened on line %zu and never closed",
            r->path, r->record, column(r, i, name, sizeof(name)), begun);
closed:
    if (!at_line_end(r) && *r->p != ',')
        DR_FAIL(DR_EFORMAT, "%s:%zu: %s: text behind a closing quote", r->path, r->record,
                column(r, i, name, sizeof(name)));
done:
    return st;
}

static dr_status bare(reader *r, size_t i)
{
    char name[300];
    dr_status st = DR_OK;

    for (; !at_line_end(r) && *r->p != ','; r->p++) {
        if (*r->p == '"') {
            st = dr_fail(DR_EFORMAT, "%s:%zu: %s: a quote inside a field without quotes",
                         r->path, r->record, column(r, i, name, sizeof(name)));
            dr_hint("put the field in quotes and double the quotes inside it");
            goto done;
        }
        DR_TRY(dr_buf_add(&r->field, r->p, 1));
    }
done:
    return st;
}

/* One field; *last when the record ends behind it. */
static dr_status next_field(reader *r, size_t i, bool *last)
{
    dr_status st = DR_OK;

    dr_buf_reset(&r->field);
    if (r->p < r->end && *r->p == '"') {
        r->p++;
        DR_TRY(quoted(r, i));
    } else {
        DR_TRY(bare(r, i));
    }
    *last = at_line_end(r);
    if (*last)
        skip_line_end(r);
    else
        r->p++; /* the comma */
done:
    return st;
}

static void skip_empty_lines(reader *r)
{
    while (r->p < r->end && at_line_end(r))
        skip_line_end(r);
    r->record = r->line;
}

static dr_status read_names(reader *r, dr_arena *a)
{
    dr_status st = DR_OK;

    skip_empty_lines(r);
    for (bool last = r->p == r->end; !last;) {
        if (r->count == DATA_COLUMNS_MAX)
            DR_FAIL(DR_EFORMAT, "%s:%zu: more than %d columns", r->path, r->record,
                    DATA_COLUMNS_MAX);
        DR_TRY(next_field(r, r->count, &last));
        if (r->field.len == 0 || memchr(r->field.data, '\0', r->field.len) != NULL)
            DR_FAIL(DR_EFORMAT, "%s:%zu: column %zu has no name", r->path, r->record,
                    r->count + 1);
        for (size_t i = 0; i < r->count; i++)
            if (strcmp(r->names[i], r->field.data) == 0)
                DR_FAIL(DR_EFORMAT, "%s:%zu: columns %zu and %zu are both called \"%s\"",
                        r->path, r->record, i + 1, r->count + 1, r->names[i]);
        r->names[r->count++] = dr_arena_strndup(a, r->field.data, r->field.len);
    }
done:
    return st;
}

static dr_status set_field(reader *r, json_t *row, size_t i)
{
    json_t *value = json_stringn(r->field.len > 0 ? r->field.data : "", r->field.len);

    if (value == NULL || json_object_set_new(row, r->names[i], value) != 0)
        return dr_fail(DR_EFORMAT, "%s:%zu: column \"%s\" is not UTF-8", r->path, r->record,
                       r->names[i]);
    return DR_OK;
}

static dr_status read_record(reader *r, json_t *row)
{
    size_t n = 0;
    dr_status st = DR_OK;

    for (bool last = false; !last; n++) {
        DR_TRY(next_field(r, n, &last));
        if (n < r->count)
            DR_TRY(set_field(r, row, n));
    }
    if (n < r->count)
        DR_FAIL(DR_EFORMAT, "%s:%zu: %zu fields, but %zu columns: nothing for \"%s\"",
                r->path, r->record, n, r->count, r->names[n]);
    if (n > r->count)
        DR_FAIL(DR_EFORMAT, "%s:%zu: %zu fields, but %zu columns: too much behind \"%s\"",
                r->path, r->record, n, r->count, r->names[r->count - 1]);
done:
    return st;
}

dr_status data_load_csv(data_loader *l, const char *text, size_t n, const char *path)
{
    reader r = {.path = path, .p = text, .end = text + n, .line = 1};
    dr_arena a = {0};
    json_t *row = NULL;
    char where[512];
    dr_status st = DR_OK;

    dr_buf_init(&r.field, DATA_ROW_MAX);
    DR_TRY(read_names(&r, &a));
    for (skip_empty_lines(&r); r.p < r.end; skip_empty_lines(&r)) {
        row = json_object();
        DR_TRY(read_record(&r, row));
        (void)snprintf(where, sizeof(where), "%s:%zu", path, r.record);
        DR_TRY(data_add_row(l, row, where));
        json_decref(row);
        row = NULL;
    }
done:
    json_decref(row);
    dr_buf_release(&r.field);
    dr_arena_release(&a);
    return st;
}
