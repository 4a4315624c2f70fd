/*
 * load.c - rows of files become texts.
 *
 * json: load_json.c.  csv: load_csv.c.  text: one text a line, in a column "text"; an empty
 * line is no row.  A byte order mark and CRLF are taken as text editors leave them.  Rows
 * whose text is empty are left out, as Olive does, and counted.
 */
#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "data/builtin_impl.h"
#include "data/row_impl.h"

/* Rows as they come in; everything but the arrays themselves lives in the arena. */
struct data_loader {
    dr_arena *arena;
    const data_options *o;
    const tok_tokenizer *tok;
    data_texts *out;
    size_t cap;
    dr_buf text;  /* the row in hand */
    size_t *rows; /* arena: where each text stands, all rows of all files counted */
    char *columns[DATA_COLUMNS_MAX];
};

static void add_text(data_loader *l, const char *text, size_t n, data_spans answers)
{
    data_texts *o = l->out;

    if (n == 0) {
        o->empty_rows++;
        return;
    }
    if (o->count == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 256;
        char **texts = dr_arena_alloc(l->arena, cap, sizeof(*texts));
        size_t *bytes = dr_arena_alloc(l->arena, cap, sizeof(*bytes));
        size_t *rows = dr_arena_alloc(l->arena, cap, sizeof(*rows));
        data_spans *spans = NULL;
        if (l->o->answers_only)
            spans = dr_arena_alloc(l->arena, cap, sizeof(*spans));
        if (o->count > 0) {
            if (spans != NULL)
                memcpy(spans, o->answers, o->count * sizeof(*spans));
            memcpy(rows, l->rows, o->count * sizeof(*rows));
            memcpy(texts, o->texts, o->count * sizeof(*texts));
            memcpy(bytes, o->text_bytes, o->count * sizeof(*bytes));
        }
        o->texts = texts;
        o->text_bytes = bytes;
        o->answers = spans;
        l->rows = rows;
        l->cap = cap;
    }
    l->rows[o->count] = o->rows;
    if (o->answers != NULL)
        o->answers[o->count] = answers;
    o->texts[o->count] = dr_arena_strndup(l->arena, text, n);
    o->text_bytes[o->count++] = n;
}

static dr_status note_columns(data_loader *l, const json_t *row, const char *where)
{
    const char *key;
    json_t *value;

    /* jansson's iterators take the object without const, and leave it as it is. */
    json_object_foreach((json_t *)(uintptr_t)row, key, value)
    {
        size_t i = 0;
        while (i < l->out->column_count && strcmp(l->columns[i], key) != 0)
            i++;
        if (i < l->out->column_count)
            continue;
        if (i == DATA_COLUMNS_MAX)
            return dr_fail(DR_EFORMAT, "%s: more than %d columns", where, DATA_COLUMNS_MAX);
        l->columns[l->out->column_count++] = dr_arena_strdup(l->arena, key);
    }
    return DR_OK;
}

dr_status data_add_row(data_loader *l, const json_t *row, const char *where)
{
    data_spans answers = {0};
    dr_status st = DR_OK;

    if (!json_is_object(row)) {
        st = dr_fail(DR_EFORMAT, "%s: a row must be an object, found %s", where,
                     dr_json_type(row));
        dr_hint("one {\"column\": \"text\"} a line, or one array of them");
        goto done;
    }
    DR_TRY(note_columns(l, row, where));
    dr_buf_reset(&l->text);
    DR_TRY(data_row_text(&l->text, l->arena, l->o->answers_only ? &answers : NULL, row,
                         l->o, l->tok, (const char *const *)l->columns,
                         l->out->column_count, where));
    add_text(l, l->text.data, l->text.len, answers);
    l->out->rows++;
done:
    return st;
}

static dr_status text_line(data_loader *l, const char *text, size_t n, const char *path,
                           size_t number)
{
    json_t *row = NULL, *value = NULL;
    char where[512];
    dr_status st = DR_OK;

    if (n == 0)
        return DR_OK;
    (void)snprintf(where, sizeof(where), "%s:%zu", path, number);
    value = json_stringn(text, n);
    if (value == NULL)
        return dr_fail(DR_EFORMAT, "%s: not UTF-8", where);
    row = json_object();
    json_object_set_new(row, "text", value);
    st = data_add_row(l, row, where);
    json_decref(row);
    return st;
}

/* Lines end in LF, CRLF or CR, as Python reads them. */
static dr_status load_lines(data_loader *l, const char *text, size_t n, const char *path)
{
    const char *p = text, *end = text + n;
    dr_status st = DR_OK;

    for (size_t number = 1; p < end; number++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        stop = stop != NULL ? stop : end;
        const char *cr = memchr(p, '\r', (size_t)(stop - p));
        stop = cr != NULL ? cr : stop;
        DR_TRY(text_line(l, p, (size_t)(stop - p), path, number));
        p = stop + 1;
        if (cr != NULL && p < end && *p == '\n')
            p++;
    }
done:
    return st;
}

/* Files that are not text at all, known by their first bytes. */
static dr_status check_kind(const dr_map *m, const char *path)
{
    static const struct {
        const char *magic, *kind;
    } kinds[] = {{"PAR1", "Parquet"},
                 {"ARROW1", "Arrow"},
                 {"\x1f\x8b", "gzip"},
                 {"\x28\xb5\x2f\xfd", "Zstandard"},
                 {"PK\x03\x04", "zip"}};
    dr_status st = DR_OK;

    for (size_t i = 0; i < DR_COUNT(kinds); i++) {
        size_t n = strlen(kinds[i].magic);
        if (m->size < n || memcmp(m->data, kinds[i].magic, n) != 0)
            continue;
        st = dr_fail(DR_EUNSUPPORTED, "%s: %s is not read", path, kinds[i].kind);
        if (i == 0)
            data_hint_parquet(path);
        else
            dr_hint(i == 1 ? "convert it to JSON lines" : "unpack it");
        return st;
    }
    if (m->size >= 2 &&
        (memcmp(m->data, "\xff\xfe", 2) == 0 || memcmp(m->data, "\xfe\xff", 2) == 0)) {
        st = dr_fail(DR_EUNSUPPORTED, "%s: UTF-16 is not read", path);
        dr_hint("save it as UTF-8");
    }
    return st;
}

static dr_status load_file(data_loader *l, const char *path)
{
    dr_map m = {0};
    dr_status st = DR_OK;

    DR_TRYF(dr_map_open(&m, path), "data_files");
    DR_TRY(check_kind(&m, path));
    const char *text = (const char *)m.data;
    size_t n = m.size;
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) { /* a byte order mark */
        text += 3;
        n -= 3;
    }
    if (strcmp(l->o->data_name, "json") == 0)
        DR_TRY(data_load_json(l, text, n, path));
    else if (strcmp(l->o->data_name, "csv") == 0)
        DR_TRY(data_load_csv(l, text, n, path));
    else
        DR_TRY(load_lines(l, text, n, path));
done:
    dr_map_close(&m);
    return st;
}

/* The texts of the split stay. */
static dr_status take_split(data_loader *l)
{
    data_texts *o = l->out;
    size_t kept = 0;
    dr_status st = DR_OK;

    DR_TRY(data_split_rows(&o->from_row, &o->end_row, l->o->split, o->rows));
    for (size_t i = 0; i < o->count; i++) {
        if (l->rows[i] < o->from_row || l->rows[i] >= o->end_row)
            continue;
        o->texts[kept] = o->texts[i];
        if (o->answers != NULL)
            o->answers[kept] = o->answers[i];
        o->text_bytes[kept++] = o->text_bytes[i];
    }
    if (l->o->split != NULL)
        o->empty_rows = o->end_row - o->from_row - kept;
    o->count = kept;
    if (kept == 0)
        DR_FAIL(DR_EFORMAT, "%s: no text in %s of its %zu rows", l->o->data_files,
                l->o->split, o->rows);
done:
    return st;
}

dr_status data_load(dr_arena *a, data_texts *out, const data_options *o,
                    const tok_tokenizer *t)
{
    data_loader l = {.arena = a, .o = o, .tok = t, .out = out};
    char **paths = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    *out = (data_texts){0};
    dr_buf_init(&l.text, DATA_ROW_MAX);
    DR_TRY(data_check(o));
    if (o->self_written)
        DR_FAIL(DR_EUSAGE, "calibration_source self is for quantizers only");
    if (o->data_name == NULL) {
        data_load_builtin(a, out, o->held_out);
        goto done;
    }
    out->source = dr_arena_strdup(a, o->data_files);
    DR_TRY(data_files_split(a, &paths, &count, o->data_files));
    for (size_t i = 0; i < count; i++)
        DR_TRY(load_file(&l, paths[i]));
    if (out->count == 0)
        DR_FAIL(DR_EFORMAT, "%s: no text in it", o->data_files);
    DR_TRY(take_split(&l));
    out->columns = dr_arena_alloc(a, DATA_COLUMNS_MAX, sizeof(char *));
    memcpy(out->columns, l.columns, sizeof(l.columns));
done:
    dr_buf_release(&l.text);
    return st;
}
