/*
 * added_test.c - added tokens in text, and the steps before the model.
 */
#include "toy.h"

#define VOCAB "'a': 0, 'b': 1, ' ': 2, '\\n': 3, '_': 4, 'A': 5, 'é': 6, '.': 7"

static tok_tokenizer *with_token(const char *content, const char *flags)
{
    char json[600];

    (void)snprintf(
        json, sizeof(json),
        "{'added_tokens': [{'id': 8, 'content': '%s'%s}], 'model': {'vocab': {" VOCAB
        "}, 'merges': []}}",
        content, flags);
    return toy_open(json, NULL);
}

static void test_strip(void)
{
    tok_tokenizer *t = with_token("<x>", "");

    CHECK_STR(toy_ids(t, "a <x> b", false), "0 2 8 2 1");
    CHECK_STR(toy_ids(t, "<x><x>", false), "8 8");
    CHECK_STR(toy_ids(t, "<x", false), "");
    tok_close(t);
    t = with_token("<x>", ", 'lstrip': true");
    CHECK_STR(toy_ids(t, "a \n<x> b", false), "0 8 2 1");
    CHECK_STR(toy_ids(t, "\xE3\x80\x80<x>", false), "8"); /* U+3000 is white space */
    tok_close(t);
    t = with_token("<x>", ", 'rstrip': true");
    CHECK_STR(toy_ids(t, "a <x> \n b", false), "0 2 8 1");
    CHECK_STR(toy_ids(t, "<x>  <x>", false), "8 8");
    tok_close(t);
    t = with_token("<x>", ", 'rstrip': true, 'lstrip': true");
    CHECK_STR(toy_ids(t, " <x> \n <x>  a", false), "8 8 0");
    tok_close(t);
}

static void test_single_word(void)
{
    tok_tokenizer *t = with_token("ab", ", 'single_word': true");

    CHECK_STR(toy_ids(t, "ab", false), "8");
    CHECK_STR(toy_ids(t, "ab a.ab.", false), "8 2 0 7 8 7");
    CHECK_STR(toy_ids(t, "aab", false), "0 0 1");
    CHECK_STR(toy_ids(t, "ab_", false), "0 1 4");
    CHECK_STR(toy_ids(t,
                      "\xC3\xA9"
                      "ab",
                      false),
              "6 0 1");
    tok_close(t);
}

static void test_longest(void)
{
    tok_tokenizer *t =
        toy_open("{'added_tokens': [{'id': 8, 'content': 'ab'}, {'id': 9, 'content': "
                 "'abab'}, {'id': "
                 "10, 'content': 'bb'}], 'model': {'vocab': {" VOCAB "}, 'merges': []}}",
                 NULL);

    CHECK_STR(toy_ids(t, "ababab", false), "9 8");
    CHECK_STR(toy_ids(t, "abb", false), "8 1"); /* leftmost before longest */
    CHECK_STR(toy_ids(t, "aba", false), "8 0");
    tok_close(t);
}

/* Lower-casing normalizer: `normalized` tokens are found in their normalized form. */
static void test_normalized(void)
{
    tok_tokenizer *t = toy_open("{'added_tokens': [{'id': 8, 'content': 'BA', "
                                "'normalized': true, 'special': true}, "
                                "{'id': 9, 'content': 'A', 'normalized': false}], "
                                "'normalizer': {'type': 'Lowercase'}, "
                                "'decoder': {'type': 'Fuse'}, 'model': {'vocab': {" VOCAB
                                "}, 'merges': []}}",
                                NULL);

    CHECK_STR(toy_ids(t, "Ba", false), "8");
    CHECK_STR(toy_ids(t, "bA", false), "1 5"); /* A, found first, is in the vocabulary */
    CHECK_STR(toy_ids(t, "ab", false), "0 1");
    CHECK_STR(TOY_TEXT(t, false, 8), "ba"); /* shown normalized, and so not skipped */
    CHECK_STR(TOY_TEXT(t, true, 8, 5), "baA");
    tok_close(t);
}

/* Pieces of one letter: the ids show how a text was cut and rewritten. */
static const char *split(const char *pre, const char *text)
{
    static char out[4096];
    char json[1500];

    (void)snprintf(
        json, sizeof(json),
        "{'pre_tokenizer': %s, 'model': {'ignore_merges': true, 'unk_token': '?', "
        "'vocab': {'?': 0, 'a': 1, 'b': 2, '1': 3, '.': 4, ' ': 5, 'ab': 6, ' ab': "
        "7, '11': 8, 'a.': 9, '.a': 10, '..': 11, '\xE2\x96\x81': 12, "
        "'\xE2\x96\x81"
        "ab': 13, 'ab ': 14, '\xC4\xA0': 15, '\xC4\xA0"
        "ab': 16}, "
        "'merges': []}}",
        pre);
    tok_tokenizer *t = toy_open(json, NULL);
    (void)snprintf(out, sizeof(out), "%s", toy_ids(t, text, false));
    tok_close(t);
    return out;
}

#define SPLIT(pattern, behavior)                                                           \
    "{'type': 'Split', 'pattern': {" pattern "}, 'behavior': '" behavior "'}"

static void test_pre_tokenizers(void)
{
    CHECK_STR(split("null", "ab"), "6");
    CHECK_STR(split(SPLIT("'String': '.'", "Isolated"), "ab..ab"), "6 4 4 6");
    CHECK_STR(split(SPLIT("'String': '.'", "Removed"), "ab..ab"), "6 6");
    CHECK_STR(split(SPLIT("'String': '.'", "Contiguous"), "ab..ab"), "6 11 6");
    CHECK_STR(split(SPLIT("'String': '.'", "MergedWithPrevious"), "a..ab"), "9 4 6");
    CHECK_STR(split(SPLIT("'String': '.'", "MergedWithNext"), "ab..a"), "6 4 10");
    CHECK_STR(split(SPLIT("'Regex': '[ab]+| ?1+'", "Removed"), "ab11..ab"), "11");
    CHECK_STR(
        split("{'type': 'Split', 'pattern': {'Regex': '[ab]+'}, 'behavior': 'Removed', "
              "'invert': true}",
              "ab11..ab"),
        "6 6");
    CHECK_STR(split("{'type': 'Digits', 'individual_digits': true}", "ab11"), "6 3 3");
    CHECK_STR(split("{'type': 'Digits'}", "ab11ab"), "6 8 6");
    CHECK_STR(split("{'type': 'Punctuation'}", "ab.ab"), "6 4 6");
    CHECK_STR(split("{'type': 'Whitespace'}", " ab ..\tab"), "6 11 6");
    CHECK_STR(split("{'type': 'ByteLevel', 'add_prefix_space': false}", "ab ab"), "6 16");
    CHECK_STR(split("{'type': 'ByteLevel'}", "ab"), "16");
    CHECK_STR(split("{'type': 'Metaspace'}", "ab ab"), "13 13");
    CHECK_STR(split("{'type': 'Metaspace', 'prepend_scheme': 'never'}", "ab ab"), "6 13");
    CHECK_STR(split("{'type': 'Metaspace', 'split': false}", "ab"), "13");
    CHECK_STR(split("{'type': 'Sequence', 'pretokenizers': [{'type': 'Digits'}, {'type': "
                    "'Metaspace', 'prepend_scheme': 'first'}]}",
                    "ab11ab"),
              "13 8 6");
    CHECK_STR(split("{'type': 'Sequence', 'pretokenizers': []}", "ab"), "6");
}

/* What Oniguruma means by a pattern, whatever PCRE2 would. */
static void test_regexes(void)
{
    CHECK_STR(split(SPLIT("'Regex': '\\\\s'", "Removed"), "ab\xE1\xA0\x8E"
                                                          "ab"),
              "1 2 0 1 2");
    CHECK_STR(split(SPLIT("'Regex': '\\\\w+'", "Isolated"), "ab\xCC\x81.ab"),
              "1 2 0 4 6"); /* a mark is \w */
    CHECK_STR(split(SPLIT("'Regex': '(?i:AB)'", "Isolated"), "ab1"), "6 3");
    CHECK_STR(split(SPLIT("'Regex': '1{,2}a'", "Isolated"), "11ab"), "3 3 1 2");
    CHECK_STR(split(SPLIT("'Regex': '\\\\s+(?!\\\\S)|\\\\s+'", "Removed"), "ab  ab"),
              "6 6");
    CHECK_STR(split(SPLIT("'Regex': '(?m:a.b)'", "Removed"), "a\nbab"), "6");
    CHECK_STR(split(SPLIT("'Regex': '\\\\p{Han}'", "Removed"), "ab\xE3\x80\x82"), "1 2 0");

    static const char *const refused[] = {
        "[a[b]]", "[[:alpha:]]",       "[a&&b]",  "a{1,2}+", "a(?i)b",  "(a)\\\\1",
        "\\\\Qa", "\\\\p{Alphabetic}", "(*UTF)a", "(?<n>a)", "[\\\\W]", "\\\\xff",
    };
    for (size_t i = 0; i < DR_COUNT(refused); i++) {
        char json[300];
        tok_tokenizer *t = NULL;
        (void)snprintf(
            json, sizeof(json),
            "{'pre_tokenizer': {'type': 'Split', 'behavior': 'Isolated', 'pattern': "
            "{'Regex': '%s'}}, 'model': {'vocab': {}, 'merges': []}}",
            refused[i]);
        CHECK_STATUS(toy_try(&t, json, NULL), DR_EUNSUPPORTED);
        CHECK_TRAIL("regular expression");
    }
}

static void test_normalizers(void)
{
    tok_tokenizer *t = toy_open(
        "{'normalizer': {'type': 'Sequence', 'normalizers': [{'type': 'Strip', "
        "'strip_left': "
        "true, 'strip_right': true}, {'type': 'NFC'}, {'type': 'Replace', 'pattern': "
        "{'Regex': "
        "'b+'}, 'content': '.'}, {'type': 'Prepend', 'prepend': '_'}]}, 'model': {'vocab': "
        "{" VOCAB "}, 'merges': []}}",
        NULL);

    CHECK_STR(toy_ids(t,
                      " \te\xCC\x81"
                      "abbba\n",
                      false),
              "4 6 0 7 0");
    CHECK_STR(toy_ids(t, "  ", false), "");
    tok_close(t);
    t = toy_open(
        "{'normalizer': {'type': 'NFKD'}, 'model': {'vocab': {'f': 0, 'i': 1, 'e': 2, "
        "'\xCC\x81': 3, 'n': 4, '\xDF\xBD': 5}, 'merges': []}}",
        NULL);
    CHECK_STR(toy_ids(t, "\xEF\xAC\x81n\xC3\xA9", false), "0 1 4 2 3");
    /* U+07FD has a class since Unicode 11, which tokenizers does not know: no reordering */
    CHECK_STR(toy_ids(t, "e\xCC\x81\xDF\xBD", false), "2 3 5");
    tok_close(t);
}

int main(void)
{
    test_strip();
    test_single_word();
    test_longest();
    test_normalized();
    test_pre_tokenizers();
    test_regexes();
    test_normalizers();
    return check_done();
}
