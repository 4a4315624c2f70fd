/*
 * fuzz_tok.h - uses of a tokenizer: some texts to ids and back, ids one by one.
 */
#ifndef DRUPE_TESTS_FUZZ_TOK_H
#define DRUPE_TESTS_FUZZ_TOK_H

#include "core/log.h"
#include "fuzz/fuzz.h"
#include "tok/tok.h"

enum { FUZZ_TEXT_MAX = 1 << 22 };

static inline void fuzz_stream(const tok_tokenizer *t, const tok_ids *ids, dr_buf *out)
{
    tok_stream *s = NULL;

    if (tok_stream_open(&s, t) != DR_OK)
        return;
    for (size_t i = 0; i < ids->count; i++)
        (void)!tok_stream_add(s, ids->ids[i], out);
    (void)!tok_stream_end(s, out);
    tok_stream_close(s);
}

static inline void fuzz_round_trip(const tok_tokenizer *t, const char *text, size_t n)
{
    tok_ids ids = {0};
    dr_buf out;

    dr_buf_init(&out, FUZZ_TEXT_MAX);
    if (tok_encode(t, &ids, text, n, true) == DR_OK) {
        (void)!tok_decode(t, &out, ids.ids, ids.count, false);
        (void)!tok_decode(t, &out, ids.ids, ids.count, true);
        fuzz_stream(t, &ids, &out);
    }
    tok_ids_release(&ids);
    dr_buf_release(&out);
}

/* Ids that no text may give, first of all those outside the vocabulary. */
static inline void fuzz_decode_ids(const tok_tokenizer *t)
{
    tok_ids ids = {0};
    dr_buf out;
    const int32_t edge = (int32_t)tok_vocab_size(t);

    dr_buf_init(&out, FUZZ_TEXT_MAX);
    for (int32_t i = 0; i < edge && i < 300; i++)
        (void)!tok_ids_add(&ids, i);
    (void)!tok_decode(t, &out, ids.ids, ids.count, false);
    fuzz_stream(t, &ids, &out);
    (void)!tok_decode(t, &out, (const int32_t[]){-1, edge, INT32_MAX, INT32_MIN}, 4, false);
    tok_ids_release(&ids);
    dr_buf_release(&out);
}

static inline void fuzz_use_tokenizer(const tok_tokenizer *t)
{
    static const char texts[][80] = {
        "Hello, world! 123 it's  two   spaces\n\n\ttab",
        "\xC3\xA9t\xC3\xA9 e\xCC\x81 \xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x8D\x91",
        "<s>[INST] <|user|>\n<|im_start|> [MASK] </s><unk>",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!",
        "\xEF\xBF\xBD \xFF\xC0\x80 \xED\xA0\x80 \xF0\x9F bytes \x00 end",
    };

    for (size_t i = 0; i < DR_COUNT(texts); i++)
        fuzz_round_trip(t, texts[i], i == 4 ? 26 : strlen(texts[i]));
    fuzz_round_trip(t, "", 0);
    fuzz_decode_ids(t);
}

#endif
