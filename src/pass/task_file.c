/*
 * task_file.c - questions from JSON lines, of multiple choice or with a text to write.
 *
 *     {"context": "The capital of France is", "choices": ["Rome", "Paris"], "answer": 1}
 *     {"question": "2 + 2 =", "choices": ["4", "5"], "answer": "A"}
 *     {"context": "The capital of France is", "target": "Paris"}
 *     {"context": "Two plus two is", "target": ["four", "4"]}
 *
 * With a template the context is made from all of a row's columns.  A row that is not whole
 * is an error with its line: a score over fewer questions would look the same.
 */
#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "pass/eval_impl.h"

enum { FILE_MAX = 1 << 30, COLUMNS_MAX = 64, LETTERS = 26 };

/* A string of the row, whole. */
static dr_status whole_text(const char **out, dr_arena *a, const json_t *v,
                            const char *what, const char *where)
{
    dr_status st = DR_OK;

    if (!json_is_string(v))
        DR_FAIL(DR_EFORMAT, "%s: %s: expected a string, found %s", where, what,
                dr_json_type(v));
    *out = json_string_value(v);
    if (strlen(*out) != json_string_length(v))
        DR_FAIL(DR_EFORMAT, "%s: %s has a zero character", where, what);
    *out = dr_arena_strdup(a, *out);
done:
    return st;
}

static dr_status by_template(const char **out, dr_arena *a, const json_t *row,
                             const char *template_text, const char *where)
{
    const char *names[COLUMNS_MAX], *values[COLUMNS_MAX], *key;
    size_t n = 0;
    json_t *v;
    dr_buf text;
    dr_status st = DR_OK;

    dr_buf_init(&text, (size_t)16 << 20);
    json_object_foreach((json_t *)(uintptr_t)row, key, v)
    {
        if (n == COLUMNS_MAX)
            DR_FAIL(DR_EFORMAT, "%s: more than %d columns", where, (int)COLUMNS_MAX);
        names[n] = key;
        values[n++] = json_is_integer(v)
                          ? dr_arena_printf(a, "%lld", (long long)json_integer_value(v))
                          : json_string_value(v);
    }
    DR_TRYF(data_format(&text, template_text, true, names, values, n), "%s", where);
    *out = dr_arena_strdup(a, text.data);
done:
    dr_buf_release(&text);
    return st;
}

static dr_status read_context(eval_question *q, dr_arena *a, const json_t *row,
                              const char *template_text, const char *where)
{
    const json_t *context = json_object_get(row, "context");
    const json_t *question = json_object_get(row, "question");
    dr_status st = DR_OK;

    if (template_text != NULL)
        return by_template(&q->context, a, row, template_text, where);
    if (context == NULL && question == NULL) {
        st = dr_fail(DR_EFORMAT, "%s: neither \"context\" nor \"question\"", where);
        dr_hint("--text_template \"{column}\" makes a context from other columns");
        return st;
    }
    if (context != NULL && question != NULL)
        return dr_fail(DR_EFORMAT, "%s: both \"context\" and \"question\"", where);
    return whole_text(&q->context, a, context != NULL ? context : question,
                      context != NULL ? "context" : "question", where);
}

static dr_status read_choices(eval_question *q, dr_arena *a, const json_t *row,
                              const char *where)
{
    const json_t *list = json_object_get(row, "choices");
    size_t n = json_array_size(list);
    char what[32];
    dr_status st = DR_OK;

    if (!json_is_array(list))
        DR_FAIL(DR_EFORMAT, "%s: choices: expected a list, found %s", where,
                list != NULL ? dr_json_type(list) : "nothing");
    if (n < 2)
        DR_FAIL(DR_EFORMAT, "%s: choices: expected two or more, found %zu", where, n);
    q->choices = dr_arena_alloc(a, n, sizeof(*q->choices));
    q->choice_count = n;
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(what, sizeof(what), "choice %zu", i + 1);
        DR_TRY(whole_text(&q->choices[i], a, json_array_get(list, i), what, where));
        if (q->choices[i][0] == '\0')
            DR_FAIL(DR_EFORMAT, "%s: %s is empty", where, what);
    }
done:
    return st;
}

/* An index from 0, or a letter from A. */
static dr_status read_answer(eval_question *q, const json_t *row, const char *where)
{
    const json_t *v = json_object_get(row, "answer");
    const char *text = json_string_value(v);
    json_int_t at = json_integer_value(v);
    dr_status st = DR_OK;

    if (text != NULL && text[0] >= 'A' && text[0] <= 'Z' && text[1] == '\0')
        at = text[0] - 'A';
    else if (text != NULL && text[0] >= 'a' && text[0] <= 'z' && text[1] == '\0')
        at = text[0] - 'a';
    else if (text != NULL)
        DR_FAIL(DR_EFORMAT, "%s: answer: expected an index or a letter, found \"%s\"",
                where, text);
    else if (!json_is_integer(v))
        DR_FAIL(DR_EFORMAT, "%s: answer: expected an index or a letter, found %s", where,
                v != NULL ? dr_json_type(v) : "nothing");
    if (at < 0 || (uint64_t)at >= q->choice_count)
        DR_FAIL(DR_EFORMAT, "%s: answer %lld: the %zu choices are 0 to %zu, or A to %c",
                where, (long long)at, q->choice_count, q->choice_count - 1,
                (int)('A' + (q->choice_count < LETTERS ? q->choice_count : LETTERS) - 1));
    q->answer = (size_t)at;
done:
    return st;
}

/* A text, or a list of them, without white space around it. */
static dr_status read_targets(eval_question *q, dr_arena *a, const json_t *row,
                              const char *where)
{
    const json_t *v = json_object_get(row, "target");
    const size_t n = json_is_array(v) ? json_array_size(v) : 1;
    dr_status st = DR_OK;

    if (json_object_get(row, "choices") != NULL)
        DR_FAIL(DR_EFORMAT, "%s: both \"choices\" and \"target\"", where);
    if (n == 0)
        DR_FAIL(DR_EFORMAT, "%s: target: an empty list", where);
    q->targets = dr_arena_alloc(a, n, sizeof(*q->targets));
    q->target_count = n;
    for (size_t i = 0; i < n; i++) {
        const char *text = NULL;
        DR_TRY(whole_text(&text, a, json_is_array(v) ? json_array_get(v, i) : v, "target",
                          where));
        q->targets[i] = eval_trimmed(a, text, "");
        if (q->targets[i][0] == '\0')
            DR_FAIL(DR_EFORMAT, "%s: target: an empty text", where);
        if (strchr(q->targets[i], '\n') != NULL)
            DR_FAIL(DR_EFORMAT, "%s: target: an answer is one line", where);
    }
done:
    return st;
}

static dr_status read_row(eval_question *q, dr_arena *a, const char *text, size_t n,
                          const char *template_text, const char *where)
{
    json_error_t err;
    json_t *row = json_loadb(text, n, JSON_ALLOW_NUL | JSON_DECODE_ANY, &err);
    dr_status st = DR_OK;

    if (row == NULL)
        DR_FAIL(DR_EFORMAT, "%s:%d: not JSON: %s", where, err.column, err.text);
    if (!json_is_object(row))
        DR_FAIL(DR_EFORMAT, "%s: a row must be an object, found %s", where,
                dr_json_type(row));
    DR_TRY(read_context(q, a, row, template_text, where));
    if (json_object_get(row, "target") != NULL) {
        DR_TRY(read_targets(q, a, row, where));
        goto done;
    }
    DR_TRY(read_choices(q, a, row, where));
    DR_TRY(read_answer(q, row, where));
done:
    json_decref(row);
    return st;
}

static size_t count_lines(const dr_buf *text)
{
    size_t lines = 1;

    for (size_t i = 0; i < text->len; i++)
        lines += text->data[i] == '\n';
    return lines;
}

dr_status eval_read_task(dr_arena *a, eval_question **list, size_t *count, const char *path,
                         const data_options *o)
{
    const char *stop = NULL;
    dr_buf text;
    dr_status st = DR_OK;

    *count = 0;
    dr_buf_init(&text, FILE_MAX);
    DR_TRYF(dr_read_file(&text, path), "reading the questions");
    const char *p = text.data, *end = p + text.len;
    if (text.len >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) /* a byte order mark */
        p += 3;
    *list = dr_arena_alloc(a, count_lines(&text), sizeof(**list));
    for (size_t line = 1; p < end; line++, p = stop + 1) {
        stop = memchr(p, '\n', (size_t)(end - p));
        stop = stop != NULL ? stop : end;
        size_t n = (size_t)(stop - p);
        while (n > 0 && memchr(" \t\r", p[n - 1], 3) != NULL)
            n--;
        if (n == 0)
            continue;
        const char *where = dr_arena_printf(a, "%s:%zu", path, line);
        DR_TRY(read_row(&(*list)[*count], a, p, n, o->text_template, where));
        (*list)[*count].line = line;
        if (((*list)[*count].choices == NULL) != ((*list)[0].choices == NULL))
            DR_FAIL(DR_EFORMAT, "%s: %s, and line %zu has the other", where,
                    (*list)[0].choices == NULL ? "choices" : "a target", (*list)[0].line);
        (*count)++;
    }
    if (*count == 0)
        DR_FAIL(DR_EFORMAT, "%s: no question in it", path);
    if (o->max_samples > 0 && *count > o->max_samples)
        *count = o->max_samples;
done:
    dr_buf_release(&text);
    return st;
}
