/*
 * verb_tokenize.c - drupe tokenize: text, a file, or JSON lines in; ids or pieces out.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/cli_impl.h"
#include "core/file.h"
#include "core/json.h"

enum { FLUSH_BYTES = 1 << 20 };

typedef struct {
    cli_common common;
    const char *model_name_or_path;
    const char *text;
    const char *file;
    const char *jsonl;
    const char *text_field;
    bool add_special_tokens;
    bool pieces;
} options;

static const dr_param params[] = {
    DR_STR(options, model_name_or_path, .short_name = 'm', .required = true,
           .help = "folder, GGUF file, hub id, or an earlier result"),
    DR_STR(options, text, .help = "text to tokenize"),
    DR_STR(options, file, .help = "file to tokenize, whole; -: standard input"),
    DR_STR(options, jsonl, .help = "JSON lines, a line of output each; -: standard input"),
    DR_STR(options, text_field, .dflt = "text", .help = "the column, with --jsonl"),
    DR_BOOL(options, add_special_tokens, .dflt = "false",
            .help = "begin and end of text, as the tokenizer says"),
    DR_BOOL(options, pieces, .dflt = "false", .help = "print the pieces instead of ids"),
    CLI_COMMON(options),
};

static dr_status add_json(dr_buf *out, const options *o, const drupe_tokenizer *t,
                          const int32_t *ids, size_t count)
{
    json_t *row = json_object(), *list = json_array();
    char *text = NULL;
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++) {
        const char *piece = o->pieces ? drupe_tokenizer_piece(t, ids[i]) : NULL;
        json_array_append_new(list, o->pieces ? json_string(piece ? piece : "")
                                              : json_integer(ids[i]));
    }
    json_object_set_new(row, o->pieces ? "pieces" : "ids", list);
    text = json_dumps(row, 0);
    DR_TRY(dr_buf_addf(out, "%s\n", text));
done:
    free(text);
    json_decref(row);
    return st;
}

static dr_status one(dr_buf *out, const options *o, const drupe_tokenizer *t,
                     const char *text, size_t n)
{
    int32_t *ids = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    DR_TRY(
        (dr_status)drupe_tokenizer_encode(t, &ids, &count, text, n, o->add_special_tokens));
    if (o->common.json) {
        DR_TRY(add_json(out, o, t, ids, count));
        goto done;
    }
    for (size_t i = 0; i < count; i++) {
        const char *piece = o->pieces ? drupe_tokenizer_piece(t, ids[i]) : NULL;
        if (o->pieces)
            DR_TRY(dr_buf_addf(out, "%s%s", i ? " " : "", piece ? piece : "?"));
        else
            DR_TRY(dr_buf_addf(out, "%s%d", i ? " " : "", (int)ids[i]));
    }
    DR_TRY(dr_buf_adds(out, "\n"));
done:
    free(ids);
    return st;
}

/* One row of a file of JSON lines: an object with the column, or a string. */
static dr_status json_line(dr_buf *out, const options *o, const drupe_tokenizer *t,
                           const char *text, size_t n, size_t number)
{
    json_error_t err;
    json_t *row = json_loadb(text, n, JSON_ALLOW_NUL | JSON_DECODE_ANY, &err);
    dr_status st = DR_OK;

    if (row == NULL)
        DR_FAIL(DR_EFORMAT, "%s:%zu:%d: not JSON: %s", o->jsonl, number, err.column,
                err.text);
    const json_t *v = json_is_string(row) ? row : dr_json_get(row, o->text_field);
    if (!json_is_string(v))
        DR_FAIL(DR_EFORMAT, "%s:%zu: column \"%s\": expected a string, found %s", o->jsonl,
                number, o->text_field, dr_json_type(v));
    DR_TRYF(one(out, o, t, json_string_value(v), json_string_length(v)), "%s:%zu", o->jsonl,
            number);
done:
    json_decref(row);
    return st;
}

static dr_status lines(dr_buf *out, const options *o, const drupe_tokenizer *t,
                       const dr_buf *text)
{
    const char *p = text->data, *end = p + text->len;
    dr_status st = DR_OK;

    if (text->len >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) /* a byte order mark */
        p += 3;
    for (size_t number = 1; p < end; number++) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((nl != NULL ? nl : end) - p);
        size_t blank = 0;
        while (blank < n && memchr(" \t\r", p[blank], 3) != NULL)
            blank++;
        if (blank < n)
            DR_TRY(json_line(out, o, t, p, n, number));
        p = nl != NULL ? nl + 1 : end;
        if (out->len > FLUSH_BYTES) {
            DR_TRY(cli_write(out->data, out->len));
            dr_buf_reset(out);
        }
    }
done:
    return st;
}

static dr_status read_input(dr_buf *text, const char *path)
{
    return dr_read_file(text, strcmp(path, "-") == 0 ? "/dev/stdin" : path);
}

static dr_status run(const void *cfg, const unsigned char *given)
{
    const options *o = cfg;
    const char *path = o->file != NULL ? o->file : o->jsonl;
    drupe_tokenizer *t = NULL;
    dr_buf out, text;
    dr_status st = DR_OK;

    dr_buf_init(&out, (size_t)1 << 40);
    dr_buf_init(&text, (size_t)1 << 40);
    if ((o->text != NULL) + (o->file != NULL) + (o->jsonl != NULL) != 1)
        DR_FAIL(DR_EUSAGE, "give one of --text, --file and --jsonl");
    if (o->jsonl == NULL && dr_param_given(params, DR_COUNT(params), given, "text_field"))
        DR_FAIL(DR_EUSAGE, "--text_field needs --jsonl");
    if (path != NULL)
        DR_TRY(read_input(&text, path));
    DR_TRY((dr_status)drupe_tokenizer_open(&t, o->model_name_or_path));
    if (o->text != NULL)
        DR_TRY(one(&out, o, t, o->text, strlen(o->text)));
    else if (o->file != NULL)
        DR_TRY(one(&out, o, t, text.data, text.len));
    else
        DR_TRY(lines(&out, o, t, &text));
    DR_TRY(cli_write(out.data, out.len));
done:
    dr_buf_release(&out);
    dr_buf_release(&text);
    drupe_tokenizer_close(t);
    return st;
}

extern const cli_verb verb_tokenize; /* VERB(tokenize, ...) in cli/verbs.def */
const cli_verb verb_tokenize = {
    "drupe tokenize -m MODEL --text TEXT | --file FILE | --jsonl FILE [--json]",
    sizeof(options), params, DR_COUNT(params), run};
