/*
 * tok_driver.c - a tokenizer folder at work, for tools/oracle/tok_compare.py, and chat
 * templates, for tools/oracle/tok_jinja.py; no test.
 *
 *   tok_driver DIR compare [special]   records from stdin: a length (uint32, this machine's
 *       order) and that many bytes of text.  For each, to stdout: the count of ids, the ids
 *       (int32), then two texts with lengths: decoded with and without special tokens.
 *       Streaming must say the same as decoding; else the program fails.
 *   tok_driver DIR speed FILE          encodes and decodes FILE and prints MB/s
 *   tok_driver - chat                  records from stdin: JSON with template, messages and
 *       names.  For each, to stdout: 0 or the status (uint32), then the text or the error,
 *       with its length.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "tok/tok.h"

static void die(const char *what)
{
    const dr_trail *t = dr_trail_get();

    (void)fprintf(stderr, "tok_driver: %s\n", what);
    for (int i = 0; i < t->count; i++)
        (void)fprintf(stderr, "  %s\n", t->frames[i].text);
    exit(1);
}

static void must(dr_status st, const char *what)
{
    if (st != DR_OK)
        die(what);
}

static bool read_record(dr_buf *b)
{
    uint32_t n = 0;
    char *to = NULL;

    dr_buf_reset(b);
    if (fread(&n, sizeof(n), 1, stdin) != 1)
        return false;
    must(dr_buf_reserve(b, n, &to), "record");
    if (fread(to, 1, n, stdin) != n)
        die("a record ends early");
    b->len = n;
    return true;
}

static void put(const void *data, size_t n)
{
    const uint32_t size = (uint32_t)n;

    if (fwrite(&size, sizeof(size), 1, stdout) != 1 || fwrite(data, 1, n, stdout) != n)
        die("writing");
}

static void check_stream(const tok_tokenizer *t, const tok_ids *ids, const dr_buf *want,
                         bool skip)
{
    tok_stream *s = NULL;
    dr_buf got;

    dr_buf_init(&got, (size_t)1 << 30);
    must(tok_stream_open(&s, t), "stream");
    tok_stream_skip_special(s, skip);
    for (size_t i = 0; i < ids->count; i++)
        must(tok_stream_add(s, ids->ids[i], &got), "stream");
    must(tok_stream_end(s, &got), "stream");
    if (got.len != want->len || memcmp(got.data, want->data, got.len) != 0)
        die("streaming and decoding differ");
    tok_stream_close(s);
    dr_buf_release(&got);
}

static void compare(const tok_tokenizer *t, bool special)
{
    tok_ids ids = {0};
    dr_buf text, out;

    dr_buf_init(&text, (size_t)1 << 30);
    dr_buf_init(&out, (size_t)1 << 30);
    while (read_record(&text)) {
        const uint32_t zero = 0;
        ids.count = 0;
        must(tok_encode(t, &ids, text.data, text.len, special), "encode");
        const uint32_t count = (uint32_t)ids.count;
        if (fwrite(&count, sizeof(count), 1, stdout) != 1 ||
            fwrite(ids.count ? (const void *)ids.ids : &zero, sizeof(int32_t), ids.count,
                   stdout) != ids.count)
            die("writing");
        for (int skip = 0; skip < 2; skip++) {
            dr_buf_reset(&out);
            must(tok_decode(t, &out, ids.ids, ids.count, skip != 0), "decode");
            check_stream(t, &ids, &out, skip != 0);
            put(out.data, out.len);
        }
    }
    tok_ids_release(&ids);
    dr_buf_release(&text);
    dr_buf_release(&out);
}

static void speed(const tok_tokenizer *t, const char *path)
{
    dr_buf text, out;
    tok_ids ids = {0};

    dr_buf_init(&text, (size_t)1 << 32);
    dr_buf_init(&out, (size_t)1 << 32);
    must(dr_read_file(&text, path), "reading");
    for (int round = 0; round < 5; round++) {
        ids.count = 0;
        dr_buf_reset(&out);
        const double start = dr_now_s();
        must(tok_encode(t, &ids, text.data, text.len, false), "encode");
        const double middle = dr_now_s();
        must(tok_decode(t, &out, ids.ids, ids.count, false), "decode");
        const double end = dr_now_s();
        (void)printf("%zu bytes, %zu ids, encode %.1f MB/s, decode %.1f MB/s, same %d\n",
                     text.len, ids.count, (double)text.len * 1e-6 / (middle - start),
                     (double)text.len * 1e-6 / (end - middle),
                     out.len == text.len && memcmp(out.data, text.data, out.len) == 0);
    }
    tok_ids_release(&ids);
    dr_buf_release(&text);
    dr_buf_release(&out);
}

static dr_status render(dr_buf *out, const json_t *record)
{
    json_t *spec = json_pack("{s:{s:{}, s:[]}}", "model", "vocab", "merges");
    json_t *config =
        json_pack("{s:O}", "chat_template", json_object_get(record, "template"));
    tok_tokenizer *t = NULL;
    dr_status st = DR_OK;

    DR_TRY(tok_open_json(&t, spec, config, "chat"));
    DR_TRY(tok_chat_json(t, out, json_object_get(record, "messages"),
                         json_object_get(record, "names"), false));
done:
    tok_close(t);
    json_decref(spec);
    json_decref(config);
    return st;
}

static void chat(void)
{
    dr_buf text, out;

    dr_buf_init(&text, (size_t)1 << 30);
    dr_buf_init(&out, (size_t)1 << 30);
    while (read_record(&text)) {
        json_t *record = NULL;
        must(dr_json_parse(&record, text.data, text.len, "record"), "parsing");
        dr_buf_reset(&out);
        dr_trail_clear();
        const uint32_t status = (uint32_t)render(&out, record);
        const char *error = dr_trail_get()->frames[0].text;
        if (fwrite(&status, sizeof(status), 1, stdout) != 1)
            die("writing");
        if (status == DR_OK)
            put(out.data, out.len);
        else
            put(error, strlen(error));
        json_decref(record);
    }
    dr_buf_release(&text);
    dr_buf_release(&out);
}

int main(int argc, char **argv)
{
    tok_tokenizer *t = NULL;

    if (argc < 3) {
        (void)fprintf(stderr, "usage: tok_driver DIR compare|speed ...\n");
        return 2;
    }
    if (strcmp(argv[2], "chat") == 0) {
        chat();
        return 0;
    }
    const double start = dr_now_s();
    must(tok_open(&t, argv[1]), "open");
    (void)fprintf(stderr, "opened in %.3f s\n", dr_now_s() - start);
    if (strcmp(argv[2], "compare") == 0)
        compare(t, argc > 3);
    else if (strcmp(argv[2], "speed") == 0 && argc > 3)
        speed(t, argv[3]);
    else
        die("unknown mode");
    tok_close(t);
    return 0;
}
