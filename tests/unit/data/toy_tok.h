/*
 * toy_tok.h - a tokenizer for tests: byte-level BPE over single bytes with three merges and
 * a few special tokens, small enough to know its ids by heart.
 *
 *   byte b                       id b
 *   "th" 256, "the" 257, "\n\n" 258, ".\n" 259
 *   <s> 260, </s> 261, <|user|> 262, <|end|> 263, <pad> 264
 *
 * ".\n" is there so that a text tokenized with the blank line behind it comes out different
 * from the two tokenized apart.
 */
#ifndef DRUPE_TESTS_DATA_TOY_TOK_H
#define DRUPE_TESTS_DATA_TOY_TOK_H

#include "check.h"
#include "core/json.h"
#include "tok/tok.h"

enum { TOY_BLANK = 258, TOY_BOS = 260, TOY_EOS, TOY_USER, TOY_END, TOY_PAD };

/* The letter that byte-level vocabularies write for a byte; at most 2 bytes of UTF-8. */
static inline void toy_letter(char out[3], int byte)
{
    int code = byte, n = 0;

    if (byte < 33 || (byte > 126 && byte < 161) || byte == 173) {
        for (int b = 0; b < byte; b++)
            n += b < 33 || (b > 126 && b < 161) || b == 173;
        code = 256 + n;
    }
    if (code < 128) {
        out[0] = (char)code;
        out[1] = '\0';
    } else {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        out[2] = '\0';
    }
}

static inline void toy_pair(char *out, size_t size, int a, const char *between, int b)
{
    char x[3], y[3];

    toy_letter(x, a);
    toy_letter(y, b);
    (void)snprintf(out, size, "%s%s%s", x, between, y);
}

static inline json_t *toy_json(void)
{
    static const char *const special[] = {"<s>", "</s>", "<|user|>", "<|end|>", "<pad>"};
    json_t *vocab = json_object(), *merges = json_array(), *added = json_array();
    char text[16];

    for (int b = 0; b < 256; b++) {
        toy_letter(text, b);
        json_object_set_new(vocab, text, json_integer(b));
    }
    json_object_set_new(vocab, "th", json_integer(256));
    json_object_set_new(vocab, "the", json_integer(257));
    toy_pair(text, sizeof(text), '\n', "", '\n');
    json_object_set_new(vocab, text, json_integer(TOY_BLANK));
    toy_pair(text, sizeof(text), '.', "", '\n');
    json_object_set_new(vocab, text, json_integer(259));
    json_array_append_new(merges, json_string("t h"));
    json_array_append_new(merges, json_string("th e"));
    toy_pair(text, sizeof(text), '.', " ", '\n');
    json_array_append_new(merges, json_string(text));
    toy_pair(text, sizeof(text), '\n', " ", '\n');
    json_array_append_new(merges, json_string(text));
    for (int i = 0; i < (int)DR_COUNT(special); i++)
        json_array_append_new(added,
                              json_pack("{s:i,s:s,s:b,s:b,s:b,s:b,s:b}", "id", TOY_BOS + i,
                                        "content", special[i], "special", 1, "single_word",
                                        0, "lstrip", 0, "rstrip", 0, "normalized", 0));
    return json_pack(
        "{s:s,s:n,s:n,s:o,s:n,s:{s:s,s:b,s:b,s:b},s:n,s:{s:s},s:{s:s,s:o,s:o}}", "version",
        "1.0", "truncation", "padding", "added_tokens", added, "normalizer",
        "pre_tokenizer", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1,
        "use_regex", 0, "post_processor", "decoder", "type", "ByteLevel", "model", "type",
        "BPE", "vocab", vocab, "merges", merges);
}

static inline json_t *toy_config(void)
{
    return json_pack("{s:s,s:s,s:s}", "bos_token", "<s>", "eos_token", "</s>", "pad_token",
                     "<pad>");
}

/* Takes the config over. */
static inline tok_tokenizer *toy_open(json_t *config)
{
    json_t *tokenizer = toy_json();
    tok_tokenizer *t = NULL;

    CHECK(tokenizer != NULL && config != NULL);
    CHECK_OK(tok_open_json(&t, tokenizer, config, "toy"));
    json_decref(tokenizer);
    json_decref(config);
    return t;
}

/* special false: a tokenizer that knows of no beginning, end or padding. */
static inline tok_tokenizer *toy_tok(bool special)
{
    return toy_open(special ? toy_config() : json_object());
}

static inline tok_tokenizer *toy_chat(const char *chat_template)
{
    json_t *config = toy_config();

    json_object_set_new(config, "chat_template", json_string(chat_template));
    return toy_open(config);
}

#endif
