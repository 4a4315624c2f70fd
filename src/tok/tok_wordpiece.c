/*
 * tok_wordpiece.c - BERT's WordPiece, and WordLevel, which knows whole words only.
 *
 * WordPiece takes the longest piece that the word begins with, then the longest that the
 * rest begins with, written with continuing_subword_prefix in front.  Where nothing fits,
 * and for a word of more than max_input_chars_per_word characters, the whole word is the
 * unknown piece.
 */
#include <string.h>

#include "core/mem.h"
#include "tok/tok_impl.h"

dr_status tok_wordpiece_open(tok_model *m, const json_t *spec, const char *where)
{
    int64_t chars = 100;
    dr_status st = DR_OK;

    DR_TRY(tok_model_text(&m->unk_piece, spec, "unk_token", where));
    DR_TRY(tok_model_text(&m->prefix, spec, "continuing_subword_prefix", where));
    DR_TRY(dr_json_int(spec, "max_input_chars_per_word", &chars, where));
    if (chars < 0)
        DR_FAIL(DR_EFORMAT, "%s: max_input_chars_per_word: %lld", where, (long long)chars);
    m->max_chars = (size_t)chars;
    if (m->unk_piece == NULL)
        m->unk_piece = dr_strdup("[UNK]");
    if (m->prefix == NULL)
        m->prefix = dr_strdup("##");
    DR_TRY(tok_vocab_open(&m->vocab, json_object_get(spec, "vocab"), where));
done:
    return st;
}

dr_status tok_wordlevel_open(tok_model *m, const json_t *spec, const char *where)
{
    dr_status st = DR_OK;

    DR_TRY(tok_model_text(&m->unk_piece, spec, "unk_token", where));
    if (m->unk_piece == NULL)
        m->unk_piece = dr_strdup("<unk>");
    DR_TRY(tok_vocab_open(&m->vocab, json_object_get(spec, "vocab"), where));
done:
    return st;
}

dr_status tok_wordlevel_word(const tok_model *m, tok_ids *out, tok_str word)
{
    const int32_t id = tok_vocab_find(&m->vocab, word.s, word.n);

    return id >= 0 ? tok_ids_add(out, id) : tok_model_add_unk(m, out);
}

static size_t count_chars(tok_str text)
{
    size_t count = 0;

    for (size_t i = 0; i < text.n; i++)
        count += ((unsigned char)text.s[i] & 0xC0) != 0x80;
    return count;
}

/*
 * The longest piece that name begins with, behind its first fixed bytes; *n is its length,
 * these bytes included.  -1: none.
 */
static int32_t longest(const tok_model *m, tok_str name, size_t fixed, size_t *n)
{
    uint32_t cp = 0;

    for (*n = name.n; *n > fixed; *n -= tok_utf8_last(name.s, *n, &cp)) {
        const int32_t id = tok_vocab_find(&m->vocab, name.s, *n);
        if (id >= 0)
            return id;
    }
    return -1;
}

/* As much of the rest of a word as a piece can have, whole characters only. */
static tok_str reach(const tok_model *m, tok_str rest)
{
    size_t n = rest.n < m->vocab.longest ? rest.n : m->vocab.longest;

    while (n < rest.n && n > 0 && ((unsigned char)rest.s[n] & 0xC0) == 0x80)
        n--;
    return (tok_str){rest.s, n};
}

dr_status tok_wordpiece_word(const tok_model *m, tok_work *w, tok_ids *out, tok_str word)
{
    const size_t had = out->count, fixed = strlen(m->prefix);
    size_t n = 0;
    dr_status st = DR_OK;

    if (count_chars(word) > m->max_chars)
        return tok_model_add_unk(m, out);
    for (size_t at = 0; at < word.n;) {
        tok_str name = reach(m, (tok_str){word.s + at, word.n - at});
        const size_t before = at > 0 ? fixed : 0;
        if (before > 0) {
            dr_buf_reset(&w->name);
            DR_TRY(dr_buf_adds(&w->name, m->prefix));
            DR_TRY(dr_buf_add(&w->name, name.s, name.n));
            name = (tok_str){w->name.data, w->name.len};
        }
        const int32_t id = longest(m, name, before, &n);
        if (id < 0) {
            out->count = had;
            return tok_model_add_unk(m, out);
        }
        DR_TRY(tok_ids_add(out, id));
        at += n - before;
    }
done:
    return st;
}
