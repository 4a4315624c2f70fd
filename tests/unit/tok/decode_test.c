/*
 * decode_test.c - decoders one by one; and streaming: the pieces joined are the whole, and
 * nothing comes too early or later than it must.
 */
#include "toy.h"

#define BYTES "'<0x0A>': 0, '<0xE2>': 1, '<0x82>': 2, '<0xAC>': 3, 'a': 4, 'b': 5"
#define PIECES                                                                             \
    BYTES ", '\xE2\x96\x81': 6, '\xE2\x96\x81"                                             \
          "a': 7, '\xC4\xA0': 8, '\xC3\xA2': 9, "                                          \
          "'\xC4\xA4': 10, '\xC2\xAC': 11, '\xE2\x82\xAC': 12, ' ': 13, '<0x+1>': 14"

static tok_tokenizer *with_decoder(const char *decoder)
{
    char json[1200];

    (void)snprintf(json, sizeof(json),
                   "{'added_tokens': [{'id': 15, 'content': '<s>', 'special': true}], "
                   "'decoder': %s, 'model': {'vocab': {" PIECES "}, 'merges': []}}",
                   decoder);
    return toy_open(json, NULL);
}

#define PHI3                                                                               \
    "{'type': 'Sequence', 'decoders': [{'type': 'Replace', 'pattern': {'String': "         \
    "'\xE2\x96\x81'}, 'content': ' '}, {'type': 'ByteFallback'}, {'type': 'Fuse'}, "       \
    "{'type': 'Strip', 'content': ' ', 'start': 1, 'stop': 0}]}"

static void test_phi3(void)
{
    tok_tokenizer *t = with_decoder(PHI3);

    CHECK_STR(TOY_TEXT(t, false, 7, 7), "a a");
    CHECK_STR(TOY_TEXT(t, false, 6, 6, 4), " a");
    CHECK_STR(TOY_TEXT(t, false, 4, 1, 2, 3, 5), "a\xE2\x82\xAC"
                                                 "b");
    CHECK_STR(TOY_TEXT(t, false, 1, 2, 4), "\xEF\xBF\xBD\xEF\xBF\xBD"
                                           "a"); /* one for each */
    CHECK_STR(TOY_TEXT(t, false, 0, 1, 5), "\xEF\xBF\xBD\xEF\xBF\xBD"
                                           "b"); /* also a good one */
    CHECK_STR(TOY_TEXT(t, true, 15, 7, 15), "a");
    CHECK_STR(TOY_TEXT(t, false, 15, 7), "<s> a");
    CHECK_STR(TOY_TEXT(t, false, 14), "\x01"); /* Rust's number parser takes a plus */
    tok_close(t);
}

static void test_others(void)
{
    tok_tokenizer *t = with_decoder("{'type': 'ByteLevel'}");

    CHECK_STR(TOY_TEXT(t, false, 4, 8, 5), "a b");
    CHECK_STR(TOY_TEXT(t, false, 9, 10, 11), "\xE2\x82\xAC");
    CHECK_STR(TOY_TEXT(t, false, 9, 10, 4), "\xEF\xBF\xBD"
                                            "a"); /* one for the cut part */
    CHECK_STR(TOY_TEXT(t, false, 9), "\xEF\xBF\xBD");
    CHECK_STR(TOY_TEXT(t, false, 12, 13), "\xE2\x82\xAC "); /* not of the table: as it is */
    tok_close(t);
    t = with_decoder("{'type': 'Metaspace', 'replacement': '\xE2\x96\x81'}");
    CHECK_STR(TOY_TEXT(t, false, 7, 7, 6), "a a ");
    tok_close(t);
    t = with_decoder("{'type': 'Metaspace', 'prepend_scheme': 'never'}");
    CHECK_STR(TOY_TEXT(t, false, 7, 7), " a a");
    tok_close(t);
    t = with_decoder("{'type': 'Strip', 'content': 'a', 'start': 1, 'stop': 1}");
    CHECK_STR(TOY_TEXT(t, false, 4, 5, 4), "b");
    tok_close(t);
    t = with_decoder("null");
    CHECK_STR(TOY_TEXT(t, false, 4, 5), "a b");
    tok_close(t);
    t = with_decoder("{'type': 'Sequence', 'decoders': []}");
    CHECK_STR(TOY_TEXT(t, false, 4, 5), "ab");
    tok_close(t);
}

/* After Fuse: parts of one piece. */
static void test_fused(void)
{
    tok_tokenizer *t = with_decoder(
        "{'type': 'Sequence', 'decoders': [{'type': 'Fuse'}, {'type': 'Strip', "
        "'content': 'a', 'start': 2, 'stop': 2}, {'type': 'Replace', 'pattern': "
        "{'String': 'bb'}, 'content': 'c'}]}");

    CHECK_STR(TOY_TEXT(t, false, 4, 4, 4, 5, 4, 5, 4, 4, 4), "ababa");
    CHECK_STR(TOY_TEXT(t, false, 5, 5, 5, 4), "cb");
    CHECK_STR(TOY_TEXT(t, false, 4, 4, 4), "");
    tok_close(t);
}

/* Feeds ids; between "|" stands what each of them brought, at last what the end did. */
static const char *stream(const tok_tokenizer *t, const int32_t *ids, size_t count)
{
    static char out[4096];
    tok_stream *s = NULL;
    dr_buf b, all;

    dr_buf_init(&b, sizeof(out) - 1);
    dr_buf_init(&all, sizeof(out) - 1);
    CHECK_OK(tok_stream_open(&s, t));
    for (size_t i = 0; i < count; i++) {
        size_t had = all.len;
        CHECK_OK(tok_stream_add(s, ids[i], &all));
        CHECK_OK(dr_buf_add(&b, all.data + had, all.len - had));
        CHECK_OK(dr_buf_adds(&b, "|"));
    }
    size_t had = all.len;
    CHECK_OK(tok_stream_end(s, &all));
    CHECK_OK(dr_buf_add(&b, all.data + had, all.len - had));
    CHECK_STR(all.data, toy_text(t, ids, count, true));
    memcpy(out, b.data, b.len + 1);
    tok_stream_close(s);
    dr_buf_release(&b);
    dr_buf_release(&all);
    return out;
}

#define STREAM(t, ...)                                                                     \
    stream((t), (const int32_t[]){__VA_ARGS__},                                            \
           sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void test_stream(void)
{
    tok_tokenizer *t = with_decoder(PHI3);

    CHECK_STR(STREAM(t, 7, 7, 15, 4), "a| a||a|");
    CHECK_STR(STREAM(t, 4, 1, 2, 3, 5), "a||||\xE2\x82\xAC"
                                        "b|");
    CHECK_STR(STREAM(t, 4, 1, 2, 3), "a||||\xE2\x82\xAC");
    CHECK_STR(STREAM(t, 4, 0), "a||\n");
    tok_close(t);
    t = with_decoder("{'type': 'ByteLevel'}");
    CHECK_STR(STREAM(t, 4, 9, 10, 11, 5), "a|||\xE2\x82\xAC|b|");
    CHECK_STR(STREAM(t, 9, 10), "||\xEF\xBF\xBD");
    CHECK_STR(STREAM(t, 9, 4), "|\xEF\xBF\xBD"
                               "a|");
    tok_close(t);
    t = with_decoder(
        "{'type': 'Sequence', 'decoders': [{'type': 'Fuse'}, {'type': 'Strip', "
        "'content': 'b', 'start': 0, 'stop': 1}]}");
    CHECK_STR(STREAM(t, 5, 5, 4, 5), "|b|ba||");
    tok_close(t);
    t = with_decoder("{'type': 'Sequence', 'decoders': [{'type': 'Fuse'}, {'type': "
                     "'ByteLevel'}, {'type': 'Metaspace'}]}");
    CHECK_STR(STREAM(t, 4, 9, 10, 11, 7), "|||||a\xC3\xA2\xC4\xA4\xC2\xAC"
                                          "a");
    tok_close(t);
}

int main(void)
{
    test_phi3();
    test_others();
    test_fused();
    test_stream();
    return check_done();
}
