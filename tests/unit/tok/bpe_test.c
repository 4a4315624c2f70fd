/*
 * bpe_test.c - ids of toy tokenizers, worked out by hand, and what each option changes.
 */
#include "toy.h"

#define MODEL(options, vocab, merges)                                                      \
    "{'model': {'type': 'BPE', " options " 'vocab': {" vocab "}, 'merges': [" merges "]}}"

#define ABC "'a': 0, 'b': 1, 'c': 2, 'ab': 3, 'bc': 4, 'abc': 5, 'aa': 6"

static void test_ranks(void)
{
    tok_tokenizer *t = toy_open(MODEL("", ABC, "'b c', 'a b', 'a bc', 'a a'"), NULL);

    CHECK_STR(toy_ids(t, "abc", false), "5");     /* b c goes first, then a bc */
    CHECK_STR(toy_ids(t, "aab", false), "0 3");   /* a b before a a */
    CHECK_STR(toy_ids(t, "aaa", false), "6 0");   /* leftmost of equals */
    CHECK_STR(toy_ids(t, "xaxcx", false), "0 2"); /* no unknown piece: they vanish */
    CHECK_STR(toy_ids(t, "axb", false), "3");     /* and what was beside them may merge */
    CHECK_STR(toy_ids(t, "", false), "");
    tok_close(t);
    t = toy_open(MODEL("", ABC, "['a', 'b'], ['b', 'c'], ['ab', 'c']"), NULL);
    CHECK_STR(toy_ids(t, "abcbc", false), "5 4");
    tok_close(t);
    t = toy_open(MODEL("", ABC, "'#version: 0.2', 'a b', 'b c', 'a b'"), NULL);
    CHECK_STR(toy_ids(t, "abc", false), "0 4"); /* a b counts where it stands last */
    tok_close(t);
}

/* Long words take another way: (ab)^k c and runs of a must come out the same. */
static void test_long_words(void)
{
    tok_tokenizer *t = toy_open(MODEL("", ABC, "'b c', 'a b', 'a bc', 'a a'"), NULL);
    char text[4001] = {0};
    tok_ids ids = {0};

    for (size_t n = 40; n <= 4000; n = n * 3 / 2) {
        memset(text, 'a', n);
        ids.count = 0;
        CHECK_OK(tok_encode(t, &ids, text, n, false));
        CHECK_EQ_INT(ids.count, (n + 1) / 2);
        CHECK(ids.ids[0] == 6 && ids.ids[ids.count - 1] == (n % 2 ? 0 : 6));
        for (size_t i = 0; i < n; i++)
            text[i] = "abc"[i % 3];
        ids.count = 0;
        CHECK_OK(tok_encode(t, &ids, text, n, false));
        CHECK_EQ_INT(ids.count, (n + 2) / 3);
        CHECK_EQ_INT(ids.ids[n / 3 - 1], 5);
    }
    tok_ids_release(&ids);
    tok_close(t);
}

static void test_unknown(void)
{
    const char *vocab = "'a': 0, 'b': 1, '<unk>': 2, '<0xC3>': 3, '<0xA9>': 4";
    char json[400];
    tok_tokenizer *t = NULL;

    (void)snprintf(json, sizeof(json), MODEL("'unk_token': '<unk>',", "%s", ""), vocab);
    t = toy_open(json, NULL);
    CHECK_STR(toy_ids(t, "axyb", false), "0 2 2 1");
    tok_close(t);
    (void)snprintf(json, sizeof(json),
                   MODEL("'unk_token': '<unk>', 'fuse_unk': true,", "%s", ""), vocab);
    t = toy_open(json, NULL);
    CHECK_STR(toy_ids(t, "axyb", false), "0 2 1");
    CHECK_STR(toy_ids(t, "xay", false), "2 0 2");
    tok_close(t);
    (void)snprintf(json, sizeof(json),
                   MODEL("'unk_token': '<unk>', 'byte_fallback': true,", "%s", ""), vocab);
    t = toy_open(json, NULL);
    CHECK_STR(toy_ids(t,
                      "a\xC3\xA9"
                      "b",
                      false),
              "0 3 4 1");
    CHECK_STR(toy_ids(t,
                      "x\xC3\xA9"
                      "b",
                      false),
              "3 4 2 1");                          /* the unknown is held back */
    CHECK_STR(toy_ids(t, "\xC3\xA8", false), "2"); /* not all bytes are there */
    CHECK_STR(toy_ids(t, "\xC3", false), "2");     /* U+FFFD */
    tok_close(t);
    t = toy_open(MODEL("'unk_token': '<unk>',", "'a': 0", ""), NULL);
    tok_ids ids = {0};
    CHECK_STATUS(tok_encode(t, &ids, "ax", 2, false), DR_EFORMAT);
    CHECK_TRAIL("<unk>");
    tok_ids_release(&ids);
    tok_close(t);
}

static void test_whole_words_and_affixes(void)
{
    tok_tokenizer *t =
        toy_open(MODEL("'ignore_merges': true,", ABC ", 'cab': 7", "'a b'"), NULL);

    CHECK_STR(toy_ids(t, "cab", false), "7");
    CHECK_STR(toy_ids(t, "cabc", false), "2 3 2");
    tok_close(t);
    t = toy_open(MODEL("'continuing_subword_prefix': '##', 'end_of_word_suffix': '</w>',",
                       "'a': 0, '##b': 1, '##c</w>': 2, 'ab': 3, 'a</w>': 4, '##b</w>': 5",
                       "'a ##b'"),
                 NULL);
    CHECK_STR(toy_ids(t, "abc", false), "3 2");
    CHECK_STR(toy_ids(t, "ab", false), "0 5");
    CHECK_STR(toy_ids(t, "a", false), "4");
    tok_close(t);
}

/* Words are cut at U+2581 only where no merge can cross. */
static void test_marks(void)
{
    const char *vocab = "'\xE2\x96\x81': 0, 'a': 1, '\xE2\x96\x81\xE2\x96\x81': 2, "
                        "'\xE2\x96\x81"
                        "a': 3, 'a\xE2\x96\x81': 4";
    char json[500];
    tok_tokenizer *t = NULL;

    (void)snprintf(
        json, sizeof(json),
        "{'normalizer': {'type': 'Replace', 'pattern': {'String': ' '}, 'content': "
        "'\xE2\x96\x81'}, 'model': {'vocab': {%s}, 'merges': ['\xE2\x96\x81 a', "
        "'\xE2\x96\x81 \xE2\x96\x81']}}",
        vocab);
    t = toy_open(json, NULL);
    CHECK_STR(toy_ids(t, "a a  a   ", false), "1 3 0 3 2 0");
    tok_close(t);
    (void)snprintf(
        json, sizeof(json),
        "{'normalizer': {'type': 'Replace', 'pattern': {'String': ' '}, 'content': "
        "'\xE2\x96\x81'}, 'model': {'vocab': {%s}, 'merges': ['a \xE2\x96\x81', "
        "'\xE2\x96\x81 a']}}",
        vocab);
    t = toy_open(json, NULL);
    CHECK_STR(toy_ids(t, "a a  a", false), "4 4 3");
    tok_close(t);
}

static void test_questions(void)
{
    tok_tokenizer *t = toy_open(
        "{'added_tokens': [{'id': 7, 'content': '<s>', 'special': true}, {'id': 1, "
        "'content': "
        "'b', 'special': true}], 'model': {'unk_token': 'c', 'vocab': {'a': 0, 'b': 1, "
        "'c': "
        "6}, 'merges': []}, 'post_processor': {'type': 'TemplateProcessing', 'single': "
        "[{'SpecialToken': {'id': 'B'}}, {'Sequence': {'id': 'A'}}, {'SpecialToken': "
        "{'id': "
        "'E'}}], 'special_tokens': {'B': {'ids': [3, 1]}, 'E': {'ids': [0]}}}}",
        "{'bos_token': '<s>', 'eos_token': {'content': 'b'}, 'pad_token': null}");

    CHECK_EQ_INT(tok_vocab_size(t), 7);
    CHECK_STR(tok_piece(t, 3), "<s>"); /* the id of the file does not count */
    CHECK(tok_piece(t, 2) == NULL && tok_piece(t, -1) == NULL && tok_piece(t, 99) == NULL);
    CHECK_EQ_INT(tok_id(t, "<s>"), 3);
    CHECK_EQ_INT(tok_id(t, "c"), 6);
    CHECK_EQ_INT(tok_id(t, "zz"), -1);
    CHECK(tok_is_special(t, 1) && tok_is_special(t, 3) && !tok_is_special(t, 0));
    CHECK_EQ_INT(tok_bos(t), 3);
    CHECK_EQ_INT(tok_eos(t), 1);
    CHECK_EQ_INT(tok_pad(t), -1);
    CHECK_EQ_INT(tok_unk(t), 6);
    CHECK_STR(tok_bos_text(t), "<s>");
    CHECK_STR(tok_eos_text(t), "b");
    CHECK_STR(toy_ids(t, "a<s>x", false), "0 3 6");
    CHECK_STR(toy_ids(t, "a", true), "3 1 0 0");
    CHECK_STR(TOY_TEXT(t, false, 0, 99, 6),
              "a c"); /* no decoder: spaces; unknown ids skip */
    CHECK_STR(TOY_TEXT(t, true, 3, 0, 1), "a");
    CHECK(!tok_has_chat_template(t));
    tok_close(t);
}

int main(void)
{
    test_ranks();
    test_long_words();
    test_unknown();
    test_whole_words_and_affixes();
    test_marks();
    test_questions();
    return check_done();
}
