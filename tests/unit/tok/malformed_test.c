/*
 * malformed_test.c - tokenizer.json that is not one: every truncation of a small file, and
 * every value in one put in the place of every other; broken charsmaps.  Nothing may crash;
 * what opens must encode and decode.
 */
#include "core/file.h"
#include "toy.h"

static const char bpe[] =
    "{'version': '1.0', 'added_tokens': [{'id': 5, 'content': '<s>', 'special': true, "
    "'lstrip': true, 'normalized': true}], 'normalizer': {'type': 'Sequence', "
    "'normalizers': "
    "[{'type': 'Prepend', 'prepend': '_'}, {'type': 'Replace', 'pattern': {'String': ' '}, "
    "'content': '_'}, {'type': 'NFKC'}, {'type': 'Strip', 'strip_left': true}]}, "
    "'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': [{'type': 'Split', 'pattern': "
    "{'Regex': '[a-b]+'}, 'behavior': 'Isolated', 'invert': false}, {'type': 'Metaspace', "
    "'replacement': '_', 'prepend_scheme': 'first'}, {'type': 'ByteLevel'}]}, "
    "'post_processor': {'type': 'TemplateProcessing', 'single': [{'SpecialToken': {'id': "
    "'<s>'}}, {'Sequence': {'id': 'A'}}], 'special_tokens': {'<s>': {'ids': [3]}}}, "
    "'decoder': "
    "{'type': 'Sequence', 'decoders': [{'type': 'Replace', 'pattern': {'String': '_'}, "
    "'content': ' '}, {'type': 'ByteFallback'}, {'type': 'Fuse'}, {'type': 'Strip', "
    "'content': ' ', 'start': 1, 'stop': 0}]}, 'model': {'type': 'BPE', 'unk_token': '_', "
    "'fuse_unk': false, 'vocab': {'a': 0, 'b': 1, 'ab': 2, '_': 3}, 'merges': [['a', "
    "'b']]}}";

/* The charsmap is a trie of 8 bytes and a result. */
static const char bert[] =
    "{'added_tokens': [{'id': 0, 'content': 'a', 'special': true, 'normalized': true}], "
    "'normalizer': {'type': 'Sequence', 'normalizers': [{'type': 'BertNormalizer', "
    "'clean_text': true, 'strip_accents': null}, {'type': 'Precompiled', "
    "'precompiled_charsmap': 'CAAAAAAEAABhAQAAYgA='}, {'type': 'StripAccents'}]}, "
    "'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': [{'type': 'BertPreTokenizer'}, "
    "{'type': 'WhitespaceSplit'}, {'type': 'CharDelimiterSplit', 'delimiter': '-'}]}, "
    "'post_processor': {'type': 'BertProcessing', 'cls': ['a', 0], 'sep': ['b', 1]}, "
    "'decoder': {'type': 'WordPiece', 'prefix': '##', 'cleanup': true}, 'model': {'type': "
    "'WordPiece', 'unk_token': 'a', 'continuing_subword_prefix': '##', "
    "'max_input_chars_per_word': 5, 'vocab': {'a': 0, 'b': 1, '##b': 2}}}";

static const char unigram[] =
    "{'pre_tokenizer': {'type': 'Metaspace'}, 'model': {'type': 'Unigram', 'unk_id': 0, "
    "'byte_fallback': true, 'vocab': [['a', -1], ['b', -2.5], ['<0x41>', 0], ['ab', 1]]}}";

static void use(const json_t *spec, const json_t *config)
{
    static const int32_t all[] = {-1, 0, 1, 2, 3, 4, 5, 99};
    tok_tokenizer *t = NULL;
    tok_ids ids = {0};
    dr_buf out;

    dr_buf_init(&out, 1 << 20);
    if (tok_open_json(&t, spec, config, "malformed") == DR_OK) {
        (void)!tok_encode(t, &ids, "a b\xFF ab<s>  \xE2\x96\x81\xEF\xBC\xA1-e\xCC\x81", 21,
                          true);
        (void)!tok_decode(t, &out, ids.ids, ids.count, true);
        (void)!tok_decode(t, &out, all, DR_COUNT(all), false);
        (void)!tok_chat(t, &out, &(tok_message){"user", "x"}, 1, true);
        (void)tok_piece(t, 3);
    } else {
        CHECK(t == NULL);
        CHECK(dr_trail_get()->count > 0);
    }
    tok_ids_release(&ids);
    dr_buf_release(&out);
    tok_close(t);
}

/* All values below v, itself last; borrowed. */
static void collect(json_t *v, json_t **list, size_t *count)
{
    const char *key = NULL;
    json_t *item = NULL;
    size_t i = 0;

    if (*count == 300)
        return;
    json_object_foreach(v, key, item) collect(item, list, count);
    json_array_foreach(v, i, item) collect(item, list, count);
    list[(*count)++] = v;
}

/* Walks like collect; at place `at` puts a copy of `with`. */
static bool swap(json_t *v, size_t *at, json_t *with)
{
    const char *key = NULL;
    void *next = NULL;
    json_t *item = NULL;
    size_t i = 0;

    json_object_foreach_safe(v, next, key, item)
    {
        if (swap(item, at, with))
            return true;
        if ((*at)-- == 0) {
            (void)json_object_set_new(v, key, with);
            return true;
        }
    }
    json_array_foreach(v, i, item)
    {
        if (swap(item, at, with))
            return true;
        if ((*at)-- == 0) {
            (void)json_array_set_new(v, i, with);
            return true;
        }
    }
    return false;
}

static void test_swaps(const char *whole, size_t least)
{
    static const char *const others[] = {
        "null",      "true",         "-1", "9999999999", "1.5",  "'x'",
        "''",        "[]",           "{}", "[[]]",       "[{}]", "{'type': 'Sequence'}",
        "{'a': {}}", "['a b', 'a']",
    };
    json_t *spec = toy_json(whole), *values[300];
    size_t count = 0;

    collect(spec, values, &count);
    CHECK(count > least);
    for (size_t place = 0; place + 1 < count; place++) {
        for (size_t k = 0; k < DR_COUNT(others) + count; k++) {
            json_t *copy = json_deep_copy(spec);
            size_t at = place;
            json_t *with = k < DR_COUNT(others)
                               ? toy_json(others[k])
                               : json_deep_copy(values[k - DR_COUNT(others)]);
            if (!swap(copy, &at, with))
                json_decref(with);
            use(copy, copy);
            json_decref(copy);
        }
    }
    json_decref(spec);
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* The golden's charsmap with letters of its base64 changed: it is refused or it works. */
static void test_charsmaps(void)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    json_t *spec = NULL;
    uint32_t state = 1;

    if (!CHECK_OK(
            dr_json_read(&spec, DRUPE_SOURCE_DIR "/tests/golden/tok/t5/tokenizer.json")))
        return;
    json_t *part = json_array_get(
        json_object_get(json_object_get(spec, "normalizer"), "normalizers"), 0);
    char *whole =
        dr_strdup(json_string_value(json_object_get(part, "precompiled_charsmap")));
    char *text = dr_strdup(whole);
    const size_t n = strlen(whole);
    CHECK(n > 1000);
    for (int round = 0; round < 600; round++) {
        memcpy(text, whole, n + 1);
        for (int i = 0; i < 1 + round / 6; i++)
            text[next_random(&state) % n] = digits[next_random(&state) % 64];
        if (round % 7 == 0)
            text[next_random(&state) % n] = '\0';
        CHECK_EQ_INT(json_object_set_new(part, "precompiled_charsmap", json_string(text)),
                     0);
        use(spec, NULL);
    }
    free(whole);
    free(text);
    json_decref(spec);
}

static void test_truncations(void)
{
    json_t *spec = toy_json(bpe);
    char *text = json_dumps(spec, JSON_COMPACT);
    char *path = dr_asprintf("%s/tokenizer.json", check_tmp());
    tok_tokenizer *t = NULL;

    CHECK_STATUS(tok_open(&t, check_tmp()), DR_EIO);
    for (size_t n = 0; n < strlen(text); n += 7) {
        CHECK_OK(dr_write_file(path, text, n));
        CHECK_STATUS(tok_open(&t, check_tmp()), DR_EFORMAT);
        CHECK_TRAIL("tokenizer.json");
    }
    CHECK_OK(dr_write_file(path, text, strlen(text)));
    CHECK_OK(tok_open(&t, check_tmp()));
    tok_close(t);
    free(text);
    free(path);
    json_decref(spec);
}

/* Each names what is wrong. */
static void test_messages(void)
{
    static const struct {
        const char *json, *says;
        dr_status status;
    } cases[] = {
        {"{'model': {'type': 'Other', 'vocab': {}}}", "Other", DR_EUNSUPPORTED},
        {"{'model': {'type': 'WordPiece', 'vocab': []}}", "vocab: expected", DR_EFORMAT},
        {"{'model': {'type': 'WordPiece', 'vocab': {}, 'max_input_chars_per_word': -1}}",
         "max_input_chars_per_word: -1", DR_EFORMAT},
        {"{'model': {'type': 'Unigram', 'vocab': {}}}", "expected an array of pieces",
         DR_EFORMAT},
        {"{'model': {'type': 'Unigram', 'vocab': [['a', 0], 'b']}}", "vocab[1]",
         DR_EFORMAT},
        {"{'model': {'type': 'Unigram', 'vocab': [['a', 'b']]}}", "expected a score",
         DR_EFORMAT},
        {"{'model': {'type': 'Unigram', 'vocab': [['a', 1]], 'unk_id': 1}}", "unk_id 1",
         DR_EFORMAT},
        {"{'model': {'dropout': 0.1, 'vocab': {}, 'merges': []}}", "dropout",
         DR_EUNSUPPORTED},
        {"{'model': {'vocab': {'a': 'x'}, 'merges': []}}", "expected an id", DR_EFORMAT},
        {"{'model': {'vocab': {'a': -1}, 'merges': []}}", "id -1", DR_EFORMAT},
        {"{'model': {'vocab': {'a': 16777216}, 'merges': []}}", "16777216", DR_EFORMAT},
        {"{'model': {'vocab': {'a': 0}, 'merges': ['a b']}}", "the second", DR_EFORMAT},
        {"{'model': {'vocab': {'a': 0}, 'merges': ['a a']}}", "the result", DR_EFORMAT},
        {"{'model': {'vocab': {'a': 0}, 'merges': ['a a a']}}", "merges[0]", DR_EFORMAT},
        {"{'model': {'vocab': {'a': 0}, 'merges': 3}}", "merges: expected", DR_EFORMAT},
        {"{'model': {'vocab': [], 'merges': []}}", "vocab: expected", DR_EFORMAT},
        {"{'model': 1}", "model: expected", DR_EFORMAT},
        {"{'version': '2.0'}", "version", DR_EUNSUPPORTED},
        {"[]", "an array", DR_EFORMAT},
        {"{'normalizer': {'type': 'Nmt'}}", "Nmt", DR_EUNSUPPORTED},
        {"{'normalizer': {'type': 'BertNormalizer', 'lowercase': 1}}", "lowercase",
         DR_EFORMAT},
        {"{'normalizer': {'type': 'Precompiled'}}", "precompiled_charsmap", DR_EFORMAT},
        {"{'normalizer': {'type': 'Precompiled', 'precompiled_charsmap': '*'}}",
         "not base64", DR_EFORMAT},
        {"{'normalizer': {'type': 'Precompiled', 'precompiled_charsmap': '/wAAAA=='}}",
         "255 bytes", DR_EFORMAT},
        {"{'pre_tokenizer': {'type': 'CharDelimiterSplit', 'delimiter': 'ab'}}",
         "not one character", DR_EFORMAT},
        {"{'pre_tokenizer': {'type': 'UnicodeScripts'}}", "UnicodeScripts",
         DR_EUNSUPPORTED},
        {"{'model': {'vocab': {}, 'merges': []}, 'decoder': {'type': 'CTC'}}", "CTC",
         DR_EUNSUPPORTED},
        {"{'model': {'vocab': {}, 'merges': []}, 'post_processor': {'type': 'X'}}", "\"X\"",
         DR_EUNSUPPORTED},
        {"{'model': {'vocab': {}, 'merges': []}, 'post_processor': {'type': "
         "'BertProcessing', 'cls': ['a', 1], 'sep': ['b', -1]}}",
         "sep: expected", DR_EFORMAT},
        {"{'model': {'vocab': {}, 'merges': []}, 'added_tokens': [{'id': 1}]}",
         "added_tokens[0]", DR_EFORMAT},
        {"{'pre_tokenizer': {'type': 'Split', 'pattern': {'Regex': '('}, 'behavior': "
         "'Isolated'}}",
         "regular expression", DR_EUNSUPPORTED},
        {"{'pre_tokenizer': {'type': 'Split', 'pattern': {'String': 'x'}, 'behavior': "
         "'Odd'}}",
         "Odd", DR_EUNSUPPORTED},
    };

    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        tok_tokenizer *t = NULL;
        CHECK_STATUS(toy_try(&t, cases[i].json, NULL), cases[i].status);
        CHECK_TRAIL(cases[i].says);
        CHECK(t == NULL);
    }
}

/* Twenty steps that each double a text, and a post-processor that writes 5,000 ids. */
static void test_growth(void)
{
    static const struct {
        const char *key, *list, *step;
    } rows[] = {
        {"normalizer", "normalizers",
         "{'type': 'Replace', 'pattern': {'String': 'a'}, 'content': 'aa'}"},
        {"pre_tokenizer", "pretokenizers",
         "{'type': 'ByteLevel', 'add_prefix_space': false, 'use_regex': false}"},
        {"decoder", "decoders",
         "{'type': 'Replace', 'pattern': {'String': 'a'}, 'content': 'aa'}"},
    };

    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        tok_ids ids = {0};
        dr_buf json, out;
        dr_buf_init(&json, 1 << 16);
        dr_buf_init(&out, (size_t)1 << 31);
        CHECK_OK(dr_buf_addf(&json,
                             "{'model': {'vocab': {'a': 0}, 'merges': []}, '%s': "
                             "{'type': 'Sequence', '%s': [%s",
                             rows[i].key, rows[i].list, rows[i].step));
        for (int k = 1; k < 20; k++)
            CHECK_OK(dr_buf_addf(&json, ", %s", rows[i].step));
        CHECK_OK(dr_buf_adds(&json, "]}}"));
        tok_tokenizer *t = toy_open(json.data, NULL);
        dr_status st = tok_encode(t, &ids, "a\xC3\xA9", 3, true);
        if (st == DR_OK)
            st = tok_decode(t, &out, (const int32_t[]){0}, 1, false);
        CHECK_STATUS(st, DR_EFORMAT);
        CHECK_TRAIL("bytes of text");
        tok_close(t);
        tok_ids_release(&ids);
        dr_buf_release(&json);
        dr_buf_release(&out);
    }
}

static void test_post_limit(void)
{
    tok_tokenizer *t = NULL;
    dr_buf json;

    dr_buf_init(&json, 1 << 20);
    CHECK_OK(dr_buf_adds(&json, "{'model': {'vocab': {'a': 0}, 'merges': []}, "
                                "'post_processor': {'type': 'TemplateProcessing', "
                                "'special_tokens': {'a': {'ids': [0, 0, 0, 0, 0]}}, "
                                "'single': [{'Sequence': {'id': 'A'}}"));
    for (int i = 0; i < 1000; i++)
        CHECK_OK(dr_buf_adds(&json, ", {'SpecialToken': {'id': 'a'}}"));
    CHECK_OK(dr_buf_adds(&json, "]}}"));
    CHECK_STATUS(toy_try(&t, json.data, NULL), DR_EFORMAT);
    CHECK_TRAIL("more than 4096 ids around a text");
    dr_buf_release(&json);
}

int main(void)
{
    test_growth();
    test_post_limit();
    test_truncations();
    test_swaps(bpe, 60);
    test_swaps(bert, 30);
    test_swaps(unigram, 15);
    test_charsmaps();
    test_messages();
    return check_done();
}
