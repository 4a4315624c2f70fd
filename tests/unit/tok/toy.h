/*
 * toy.h - tokenizers built in a test: JSON written with ' for ", opened from memory.
 */
#ifndef DRUPE_TESTS_TOY_H
#define DRUPE_TESTS_TOY_H

#include <string.h>

#include "check.h"
#include "core/json.h"
#include "core/mem.h"
#include "tok/tok.h"

/* ' becomes ", ` becomes '. */
static inline json_t *toy_json(const char *text)
{
    char *copy = dr_strdup(text);
    json_t *j = NULL;

    for (char *p = copy; *p != '\0'; p++)
        *p = *p == '\'' ? '"' : *p == '`' ? '\'' : *p;
    CHECK_OK(dr_json_parse(&j, copy, strlen(copy), "toy"));
    free(copy);
    return j;
}

static inline dr_status toy_try(tok_tokenizer **out, const char *tokenizer,
                                const char *config)
{
    json_t *t = toy_json(tokenizer), *c = config != NULL ? toy_json(config) : NULL;
    dr_status st = tok_open_json(out, t, c, "toy");

    json_decref(t);
    json_decref(c);
    return st;
}

static inline tok_tokenizer *toy_open(const char *tokenizer, const char *config)
{
    tok_tokenizer *t = NULL;

    if (!CHECK_OK(toy_try(&t, tokenizer, config)))
        exit(1);
    return t;
}

/* The ids of text as "1 2 3"; static memory. */
static inline const char *toy_ids(const tok_tokenizer *t, const char *text, bool special)
{
    static char out[4096];
    tok_ids ids = {0};
    size_t at = 0;

    out[0] = '\0';
    CHECK_OK(tok_encode(t, &ids, text, strlen(text), special));
    for (size_t i = 0; i < ids.count && at + 16 < sizeof(out); i++)
        at += (size_t)snprintf(out + at, sizeof(out) - at, i > 0 ? " %d" : "%d",
                               (int)ids.ids[i]);
    tok_ids_release(&ids);
    return out;
}

static inline const char *toy_text(const tok_tokenizer *t, const int32_t *ids, size_t count,
                                   bool skip)
{
    static char out[4096];
    dr_buf b;

    dr_buf_init(&b, sizeof(out) - 1);
    CHECK_OK(tok_decode(t, &b, ids, count, skip));
    memcpy(out, b.data, b.len + 1);
    dr_buf_release(&b);
    return out;
}

#define TOY_TEXT(t, skip, ...)                                                             \
    toy_text((t), (const int32_t[]){__VA_ARGS__},                                          \
             sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t), (skip))

#endif
