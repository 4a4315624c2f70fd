/*
 * verb_tokenize.c - drupe tokenize: text, a file, or JSON lines in; ids or pieces out.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/cli_impl.h"
#include "core/file.h"
#include "core/json.h"

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
    DR_STR(options, file, .help = "file to tokenize, whole"),
    DR_STR(options, jsonl, .help = "file of JSON lines; a line of output each"),
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

    DR_TRY((dr_status)drupe_tokenizer_encode(t, &ids, &count, text, n,
                                             o->add_special_tokens));
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

static dr_status lines(dr_buf *out, const options *o, const drupe_tokenizer *t)
{
    dr_map m = {0};
    json_t *row = NULL;
    char where[512];
    size_t line = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_map_open(&m, o->jsonl));
    const char *p = (const char *)m.data, *end = p + m.size;
    for (const char *next; p < end; p = next) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((nl != NULL ? nl : end) - p);
        next = nl != NULL ? nl + 1 : end;
        line++;
        if (n == 0)
            continue;
        (void)snprintf(where, sizeof(where), "%s: line %zu", o->jsonl, line);
        DR_TRY(dr_json_parse(&row, p, n, where));
        const json_t *v = json_is_string(row) ? row : dr_json_get(row, o->text_field);
        if (!json_is_string(v))
            DR_FAIL(DR_EFORMAT, "%s: column \"%s\": expected a string, found %s", where,
                    o->text_field, dr_json_type(v));
        DR_TRYF(one(out, o, t, json_string_value(v), json_string_length(v)), "%s", where);
        if (out->len > (1u << 20)) {
            DR_TRY(cli_write(out->data, out->len));
            dr_buf_reset(out);
        }
        json_decref(row);
        row = NULL;
    }
done:
    json_decref(row);
    dr_map_close(&m);
    return st;
}

static dr_status run(const void *cfg, const unsigned char *given, dr_arena *a)
{
    const options *o = cfg;
    drupe_tokenizer *t = NULL;
    dr_map m = {0};
    dr_buf out;
    dr_status st = DR_OK;

    (void)given, (void)a;
    dr_buf_init(&out, (size_t)1 << 31);
    if ((o->text != NULL) + (o->file != NULL) + (o->jsonl != NULL) != 1)
        DR_FAIL(DR_EUSAGE, "give one of --text, --file and --jsonl");
    DR_TRY((dr_status)drupe_tokenizer_open(&t, o->model_name_or_path));
    if (o->text != NULL) {
        DR_TRY(one(&out, o, t, o->text, strlen(o->text)));
    } else if (o->file != NULL) {
        DR_TRY(dr_map_open(&m, o->file));
        DR_TRY(one(&out, o, t, (const char *)m.data, m.size));
    } else {
        DR_TRY(lines(&out, o, t));
    }
    DR_TRY(cli_write(out.data, out.len));
done:
    dr_map_close(&m);
    dr_buf_release(&out);
    drupe_tokenizer_close(t);
    return st;
}

extern const cli_verb verb_tokenize; /* VERB(tokenize, ...) in cli/verbs.def */
const cli_verb verb_tokenize = {"drupe tokenize -m MODEL --text TEXT [--json]",
                                sizeof(options), params, DR_COUNT(params), run};
