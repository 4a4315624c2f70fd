/*
 * answers.c - where a row's text holds what the model is to answer (completion_only_loss).
 *
 * A template: the value of {response} or {completion}, else that of its last column, and
 * all that stands behind it.  A conversation: what the chat template writes for each
 * message of the assistant, behind the words that ask for it; found by rendering the
 * conversation up to there, with and without the message.  A template that writes a message
 * otherwise when more of them follow is refused.
 */
#include <string.h>

#include "core/json.h"
#include "core/mem.h"
#include "data/row_impl.h"

enum { RENDERED_MAX = 16 << 20 };

static void add_span(dr_arena *a, data_spans *s, size_t from, size_t end)
{
    data_span *list = dr_arena_alloc(a, s->count + 1, sizeof(*list));

    if (s->count > 0)
        memcpy(list, s->list, s->count * sizeof(*list));
    list[s->count++] = (data_span){from, end};
    s->list = list;
}

/* ---- templates ---- */

size_t data_answer_field(const char *template_text)
{
    static const char *const names[] = {"{response}", "{completion}"};
    const char *last = NULL;

    for (const char *p = template_text; *p != '\0'; p++) {
        if ((p[0] == '{' && p[1] == '{') || (p[0] == '}' && p[1] == '}')) {
            p++;
            continue;
        }
        if (*p != '{')
            continue;
        for (size_t i = 0; i < DR_COUNT(names); i++)
            if (strncmp(p, names[i], strlen(names[i])) == 0)
                return (size_t)(p - template_text);
        last = p;
    }
    return last != NULL ? (size_t)(last - template_text) : strlen(template_text);
}

dr_status data_template_answer(dr_arena *a, data_spans *out, const char *template_text,
                               const char *const *names, const char *const *values,
                               size_t count, size_t text_bytes)
{
    const char *before =
        dr_arena_strndup(a, template_text, data_answer_field(template_text));
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, DATA_ROW_MAX);
    DR_TRY(data_format(&b, before, true, names, values, count));
    add_span(a, out, b.len, text_bytes);
done:
    dr_buf_release(&b);
    return st;
}

/* ---- conversations ---- */

/* A conversation and its text. */
typedef struct {
    const char *text;
    size_t bytes;
    const json_t *messages, *extra;
    const tok_tokenizer *tok;
    const char *where;
} chat;

/* Bytes that the text and the rendering of the first n messages begin with, both; *all:
 * these are all of the rendering's. */
static dr_status common(size_t *out, bool *all, const chat *c, size_t n, bool asks)
{
    json_t *some = json_array();
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, RENDERED_MAX);
    for (size_t i = 0; i < n; i++)
        json_array_append(some, json_array_get(c->messages, i));
    DR_TRYF(tok_chat_json(c->tok, &b, some, c->extra, asks), "%s", c->where);
    for (*out = 0; *out < b.len && *out < c->bytes; ++*out)
        if (b.data[*out] != c->text[*out])
            break;
    *all = *out == b.len;
done:
    dr_buf_release(&b);
    json_decref(some);
    return st;
}

/* Whether the words of a message stand in text[0..n), but for blanks around them. */
static bool holds(const char *text, size_t n, const json_t *message)
{
    static const char blanks[] = " \t\r\n";
    const char *words = json_string_value(json_object_get(message, "content"));
    size_t length = words != NULL ? strlen(words) : 0;

    if (length > 0) {
        size_t lead = strspn(words, blanks);
        words += lead;
        length -= lead;
    }
    while (length > 0 && strchr(blanks, words[length - 1]) != NULL)
        length--;
    return length == 0 || memmem(text, n, words, length) != NULL;
}

/* The place of message i, one of the assistant's. */
static dr_status place(data_span *out, const chat *c, size_t i)
{
    bool asked = false, plain = false, whole = false;
    size_t unused = 0;
    dr_status st = DR_OK;

    DR_TRY(common(&out->from, &asked, c, i, true));
    if (!asked && i > 0) /* it may ask for more than an answer has: "<think>" */
        DR_TRY(common(&unused, &plain, c, i, false));
    DR_TRY(common(&out->end, &whole, c, i + 1, false));
    if (i + 1 == json_array_size(c->messages))
        out->end = c->bytes;
    if ((asked || plain) && out->end > out->from &&
        holds(c->text + out->from, out->end - out->from, json_array_get(c->messages, i)))
        goto done;
    st = dr_fail(DR_EUNSUPPORTED,
                 "%s: message %zu: the chat template writes it otherwise when others "
                 "follow, so that its place is not known",
                 c->where, i + 1);
    dr_hint("leave completion_only_loss out, or give rows that end with the answer");
done:
    return st;
}

dr_status data_chat_answers(dr_arena *a, data_spans *out, const dr_buf *text, size_t from,
                            const json_t *messages, const json_t *extra,
                            const tok_tokenizer *t, const char *where)
{
    const chat c = {text->data + from, text->len - from, messages, extra, t, where};
    data_span span;
    dr_status st = DR_OK;

    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *role = json_object_get(json_array_get(messages, i), "role");
        if (!json_is_string(role) || strcmp(json_string_value(role), "assistant") != 0)
            continue;
        DR_TRY(place(&span, &c, i));
        add_span(a, out, span.from, span.end);
    }
done:
    return st;
}
