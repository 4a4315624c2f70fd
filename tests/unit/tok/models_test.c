/*
 * models_test.c - Unigram, WordPiece and WordLevel, worked out by hand, with what stands
 * around them in files of that kind: BERT's and SentencePiece's normalizers,
 * pre-tokenizers, post-processors, the WordPiece decoder.
 */
#include "toy.h"

#define LINE "\xE2\x96\x81"

/* ---- WordPiece and WordLevel ---- */

#define PIECES                                                                             \
    "'vocab': {'[UNK]': 0, 'un': 1, '##aff': 2, '##able': 3, '##a': 4, 'una': 5, '##': "   \
    "6, "                                                                                  \
    "'.': 7, '##\xC3\xA9': 8, 'do': 9, 'not': 10, 'n': 11}"

static void test_wordpiece(void)
{
    tok_tokenizer *t = toy_open("{'model': {'type': 'WordPiece', 'unk_token': '[UNK]', "
                                "'max_input_chars_per_word': 9, " PIECES "}}",
                                NULL);

    CHECK_STR(toy_ids(t, "unaffable", false), "0"); /* una, then ffable: nothing fits */
    CHECK_STR(toy_ids(t, "unable", false), "0");    /* una, ##ble */
    CHECK_STR(toy_ids(t, "unaa", false), "5 4");
    CHECK_STR(toy_ids(t,
                      "un\xC3\xA9"
                      "able",
                      false),
              "1 8 3");
    CHECK_STR(
        toy_ids(t, "un\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9", false),
        "1 8 8 8 8 8 8 8"); /* nine characters, not bytes */
    CHECK_STR(toy_ids(t, "unaaaaaaaa", false), "0");
    CHECK_STR(toy_ids(t, "", false), "");
    CHECK_EQ_INT(tok_unk(t), 0);
    tok_close(t);
    t = toy_open(
        "{'model': {'type': 'WordPiece', 'continuing_subword_prefix': '', 'vocab': "
        "{'[UNK]': 0, 'a': 1, 'ab': 2, 'b': 3}}}",
        NULL);
    CHECK_STR(toy_ids(t, "ababba", false), "2 2 3 1");
    CHECK_STR(toy_ids(t, "abc", false), "0");
    tok_close(t);
    t = toy_open("{'model': {'type': 'WordPiece', 'vocab': {'a': 1}}}", NULL);
    tok_ids ids = {0};
    CHECK_STATUS(tok_encode(t, &ids, "b", 1, false), DR_EFORMAT);
    CHECK_TRAIL("[UNK]");
    tok_ids_release(&ids);
    tok_close(t);
}

static void test_wordlevel(void)
{
    tok_tokenizer *t = toy_open(
        "{'pre_tokenizer': {'type': 'CharDelimiterSplit', 'delimiter': '-'}, "
        "'post_processor': {'type': 'RobertaProcessing', 'cls': ['<s>', 8], 'sep': "
        "['</s>', 9]}, 'model': {'type': 'WordLevel', 'unk_token': '?', 'vocab': "
        "{'?': 0, 'one': 1, 'two': 2}}}",
        NULL);

    CHECK_STR(toy_ids(t, "one-two--three", true), "8 1 2 0 9");
    CHECK_STR(TOY_TEXT(t, false, 1, 2), "one two");
    tok_close(t);
}

static void test_wordpiece_decoder(void)
{
    tok_tokenizer *t = toy_open("{'decoder': {'type': 'WordPiece', 'prefix': '##'}, "
                                "'model': {'type': 'WordPiece', " PIECES "}}",
                                NULL);

    CHECK_STR(TOY_TEXT(t, false, 1, 2, 3, 7, 1), "unaffable. un"); /* no space before . */
    CHECK_STR(TOY_TEXT(t, false, 2, 2), "##affaff");               /* the first stays */
    CHECK_STR(TOY_TEXT(t, false, 9, 10), "do not"); /* one piece at a time is cleaned */
    tok_close(t);
    t = toy_open("{'decoder': {'type': 'WordPiece', 'cleanup': false}, 'model': {'type': "
                 "'WordPiece', " PIECES "}}",
                 NULL);
    CHECK_STR(TOY_TEXT(t, false, 1, 7), "un .");
    tok_close(t);
}

/* ---- Unigram ---- */

static tok_tokenizer *unigram(const char *pieces, const char *more)
{
    char json[1200];

    (void)snprintf(json, sizeof(json),
                   "{'model': {'type': 'Unigram', 'vocab': [['<unk>', 0], %s], %s}}",
                   pieces, more);
    return toy_open(json, NULL);
}

static void test_unigram(void)
{
    tok_tokenizer *t =
        unigram("['a', -2], ['b', -3], ['ab', -4], ['bc', -1], ['abc', -4.5], ['c', -9]",
                "'unk_id': 0");

    CHECK_STR(toy_ids(t, "ab", false), "3");    /* -4 and not -5 */
    CHECK_STR(toy_ids(t, "abc", false), "1 4"); /* -3 and not -4.5 */
    CHECK_STR(toy_ids(t, "abcb", false), "1 4 2");
    CHECK_STR(toy_ids(t, "axyb", false), "1 0 2");        /* unknown neighbours are one */
    CHECK_STR(toy_ids(t, "x\xC3\xA9<unk>x", false), "0"); /* its own name is unknown, too */
    CHECK_STR(toy_ids(t, "a<unk>x", false), "1 0");
    CHECK_EQ_INT(tok_unk(t), 0);
    tok_close(t);
    /* Of equal sums the one whose last piece begins first. */
    t = unigram("['a', -1], ['ab', -2], ['b', -1], ['bc', -2], ['c', -1], ['abc', -3]",
                "'unk_id': 0");
    CHECK_STR(toy_ids(t, "ab", false), "2");
    CHECK_STR(toy_ids(t, "abc", false), "6");
    tok_close(t);
    /* A piece that is there twice is the later one. */
    t = unigram("['a', -1], ['b', -1], ['a', -5], ['ab', -4]", "'unk_id': 0");
    CHECK_STR(toy_ids(t, "a", false), "3");
    CHECK_STR(toy_ids(t, "ab", false), "4");
    CHECK_EQ_INT(tok_id(t, "a"), 3);
    CHECK_STR(tok_piece(t, 1), "a");
    tok_close(t);
    t = unigram("['a', -1]", "'unk_id': null");
    tok_ids ids = {0};
    CHECK_STR(toy_ids(t, "aa", false), "1 1");
    CHECK_STATUS(tok_encode(t, &ids, "b", 1, false), DR_EFORMAT);
    CHECK_TRAIL("no unknown piece");
    tok_ids_release(&ids);
    tok_close(t);
}

static void test_unigram_bytes(void)
{
    tok_tokenizer *t = unigram("['a', -1], ['<0xC3>', 0], ['<0xA9>', 0], ['<0x78>', 0]",
                               "'unk_id': 0, 'byte_fallback': true");

    CHECK_STR(toy_ids(t,
                      "a\xC3\xA9"
                      "a",
                      false),
              "1 2 3 1");
    CHECK_STR(toy_ids(t, "x\xC3\xA9", false), "4 2 3");
    CHECK_STR(toy_ids(t, "xy", false), "0"); /* 79 is missing, so none of them is spelled */
    tok_close(t);
}

/* ---- what is around them ---- */

/* Pieces are the characters: ids show what the normalizer made of a text. */
static void check_normal(const char *normalizer, const char *text, const char *want)
{
    char json[3000];
    tok_tokenizer *t = NULL;

    (void)snprintf(
        json, sizeof(json),
        "{'normalizer': %s, 'decoder': {'type': 'Fuse'}, 'model': {'type': "
        "'Unigram', 'unk_id': 0, 'vocab': [['?', -99], [' ', 0], ['a', 0], ['A', "
        "0], ['b', 0], ['\xC3\xA9', 0], ['e', 0], ['\xCC\x81', 0], "
        "['\xE4\xB8\x80', 0], ['.', 0], ['1', 0], ['/', 0], ['2', 0]]}}",
        normalizer);
    t = toy_open(json, NULL);
    tok_ids ids = {0};
    CHECK_OK(tok_encode(t, &ids, text, strlen(text), false));
    CHECK_STR(toy_text(t, ids.ids, ids.count, false), want);
    tok_ids_release(&ids);
    tok_close(t);
}

static void test_normalizers(void)
{
    check_normal("{'type': 'BertNormalizer'}",
                 "A\t\x01\xC3\xA9\xE4\xB8\x80"
                 "b\xEF\xBF\xBD.",
                 "a e \xE4\xB8\x80 b.");
    check_normal("{'type': 'BertNormalizer', 'lowercase': false}", "A\xC3\xA9",
                 "A\xC3\xA9");
    check_normal("{'type': 'BertNormalizer', 'lowercase': false, 'strip_accents': true}",
                 "A\xC3\xA9", "Ae");
    check_normal("{'type': 'BertNormalizer', 'strip_accents': false}", "A\xC3\xA9",
                 "a\xC3\xA9");
    check_normal("{'type': 'BertNormalizer', 'handle_chinese_chars': false}",
                 "\xE4\xB8\x80", "\xE4\xB8\x80");
    check_normal(
        "{'type': 'Sequence', 'normalizers': [{'type': 'NFC'}, {'type': 'Replace', "
        "'pattern': {'String': '\xEC\xBA\x90\xE1\x86\xA7'}, 'content': 'ab'}]}",
        "\xEC\xBA\x90\xE1\x86\xA7", "ab"); /* U+11A7 is no part of a syllable */
    check_normal("{'type': 'StripAccents'}",
                 "\xC3\xA9"
                 "e\xCC\x81",
                 "\xC3\xA9"
                 "e");
}

/*
 * A trie of three units by hand: the root, whose offset is 1; 'e' at 1 ^ 'e', with a value
 * below; the value there.  It maps "e" to "a".
 */
static void test_charsmap(void)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    enum { UNITS = 256, BYTES = 4 + 4 * UNITS + 3 };
    unsigned char map[BYTES + 2] = {0};
    char text[2000] = "", json[2100];
    const size_t e = 1 ^ 'e';

    map[1] = 4;          /* the trie's bytes: 1024 */
    map[4 + 1] = 1 << 2; /* root: offset 1 at bit 10 */
    map[4 + 4 * e] = 'e';
    map[4 + 4 * e + 1] = 1 | 2 << 2; /* has a value, offset 2 */
    map[4 + 4 * (e ^ 2) + 3] = 0x80; /* the value 0 */
    map[BYTES - 3] = 'a';
    for (size_t i = 0; i < BYTES; i += 3) {
        const unsigned v = (unsigned)map[i] << 16 | (unsigned)map[i + 1] << 8 | map[i + 2];
        const char four[5] = {digits[v >> 18], digits[v >> 12 & 63], digits[v >> 6 & 63],
                              digits[v & 63], '\0'};
        (void)strncat(text, four, sizeof(text) - strlen(text) - 1);
    }
    (void)snprintf(json, sizeof(json),
                   "{'type': 'Precompiled', 'precompiled_charsmap': '%s'}", text);
    check_normal(json, "bee.", "baa.");
    check_normal(json, "\xCC\x81", "\xCC\x81");
    check_normal(json, "be\xCC\x81.",
                 "ba."); /* what follows the beginning found is dropped */
    check_normal(json, "e\xCC\x81\xCC\x81\xCC\x81.",
                 "a\xCC\x81\xCC\x81\xCC\x81."); /* long */
}

static void test_bert(void)
{
    tok_tokenizer *t = toy_open(
        "{'pre_tokenizer': {'type': 'BertPreTokenizer'}, 'post_processor': {'type': "
        "'Sequence', 'processors': [{'type': 'BertProcessing', 'cls': ['c', 20], "
        "'sep': ['s', 21]}]}, 'model': {'type': 'WordPiece', 'vocab': {'[UNK]': 0, "
        "'un': 1, '.': 7}}}",
        NULL);

    CHECK_STR(toy_ids(t, " un.un \xC2\xA0.", true), "20 1 7 1 7 21");
    tok_close(t);
    t = toy_open(
        "{'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': [{'type': "
        "'WhitespaceSplit'}, {'type': 'Metaspace'}]}, 'model': {'type': 'Unigram', "
        "'unk_id': 0, 'vocab': [['?', 0], ['" LINE "', -1], ['" LINE
        "a', -1], ['.', -1]]}}",
        NULL);
    CHECK_STR(toy_ids(t, " a.  a ", false), "2 3 2");
    tok_close(t);
}

#define FIRST                                                                              \
    "'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': [{'type': 'Punctuation'}, "    \
    "{'type': 'Metaspace', 'prepend_scheme': 'first'}]}, 'model': {'type': 'Unigram', "    \
    "'unk_id': 0, 'vocab': [['?', -99], ['" LINE "', -1], ['a', -1], ['.', -1]]}}"

/* What stems from the first character of the text is its beginning, and nothing else. */
static void test_beginning(void)
{
    tok_tokenizer *t =
        toy_open("{'normalizer': {'type': 'Prepend', 'prepend': '.'}, " FIRST, NULL);

    CHECK_STR(toy_ids(t, "aa.a", false), "1 3 1 2 2 3 2"); /* the dot put in, the first a */
    tok_close(t);
    t = toy_open("{'normalizer': {'type': 'Sequence', 'normalizers': [{'type': 'Replace', "
                 "'pattern': {'String': 'bb'}, 'content': 'a'}, {'type': 'Replace', "
                 "'pattern': {'String': 'c'}, 'content': '.a'}]}, " FIRST,
                 NULL);
    CHECK_STR(toy_ids(t, "a", false), "1 2");
    CHECK_STR(toy_ids(t, "bba", false), "2 2"); /* from the second b */
    CHECK_STR(toy_ids(t, "ca", false), "1 3 1 2 2");
    tok_close(t);
}

/* A grapheme that the charsmap rewrites as a whole is more than its first character. */
static void test_graphemes(void)
{
    json_t *spec = NULL;
    tok_tokenizer *t = NULL;
    tok_ids ids = {0};

    if (!CHECK_OK(
            dr_json_read(&spec, DRUPE_SOURCE_DIR "/tests/golden/tok/t5/tokenizer.json")))
        return;
    json_t *list = json_object_get(json_object_get(spec, "normalizer"), "normalizers");
    CHECK_EQ_INT(json_array_append_new(list, json_pack("{s:s}", "type", "NFD")), 0);
    CHECK_EQ_INT(json_object_set_new(spec, "pre_tokenizer",
                                     json_pack("{s:s, s:s}", "type", "Metaspace",
                                               "prepend_scheme", "first")),
                 0);
    CHECK_OK(tok_open_json(&t, spec, NULL, "t5"));
    CHECK_OK(tok_encode(t, &ids, "e\xCC\x81x", 4, false));
    CHECK(ids.count >= 2);
    tok_ids_release(&ids);
    tok_close(t);
    json_decref(spec);
}

int main(void)
{
    test_wordpiece();
    test_wordlevel();
    test_wordpiece_decoder();
    test_unigram();
    test_unigram_bytes();
    test_normalizers();
    test_charsmap();
    test_bert();
    test_beginning();
    test_graphemes();
    return check_done();
}
