/*
 * tok_model.c - the model of a tokenizer: opening one of the four kinds, and the way of a
 * word to it.
 *
 *   BPE        tok_bpe.c        pairs, merged by rank
 *   Unigram    tok_unigram.c    the best way through a lattice of scored pieces
 *   WordPiece  tok_wordpiece.c  the longest piece, again and again
 *   WordLevel  tok_wordpiece.c  the word itself
 *
 * The ids of a word depend on the word alone, so words already seen come from a
 * direct-mapped cache.
 *
 * A SentencePiece tokenizer has no pre-tokenizer: the text is one word.  When no merge of
 * BPE makes a piece with U+2581 after another character (checked at open), no merge can
 * cross such a place, and cutting there gives the same ids and words that the cache can
 * hold.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "tok/tok_impl.h"

static const struct {
    const char *name;
    tok_model_kind kind;
    dr_status (*open)(tok_model *m, const json_t *spec, const char *where);
} kinds[] = {
    {"BPE", TOK_MODEL_BPE, tok_bpe_open},
    {"Unigram", TOK_MODEL_UNIGRAM, tok_unigram_open},
    {"WordPiece", TOK_MODEL_WORDPIECE, tok_wordpiece_open},
    {"WordLevel", TOK_MODEL_WORDLEVEL, tok_wordlevel_open},
};

dr_status tok_model_text(char **out, const json_t *spec, const char *key, const char *where)
{
    const char *s = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_json_str(spec, key, &s, where));
    if (s != NULL)
        *out = dr_strdup(s);
done:
    return st;
}

static void find_bytes(tok_model *m)
{
    static const char hex[] = "0123456789ABCDEF";

    for (unsigned i = 0; i < 256; i++) {
        const char name[6] = {'<', '0', 'x', hex[i >> 4], hex[i & 15], '>'};
        m->byte_id[i] = tok_vocab_find(&m->vocab, name, sizeof(name));
    }
}

dr_status tok_model_open(tok_model *m, const json_t *spec, const char *where)
{
    const char *type = "BPE";
    size_t k = 0;
    dr_status st = DR_OK;

    if (!json_is_object(spec))
        DR_FAIL(DR_EFORMAT, "%s: model: expected an object, found %s", where,
                dr_json_type(spec));
    DR_TRY(dr_json_str(spec, "type", &type, where));
    while (k < DR_COUNT(kinds) && strcmp(kinds[k].name, type) != 0)
        k++;
    if (k == DR_COUNT(kinds))
        DR_FAIL(DR_EUNSUPPORTED,
                "%s: model of type \"%s\"; BPE, Unigram, WordPiece and WordLevel are known",
                where, type);
    m->kind = kinds[k].kind;
    m->unk = -1;
    DR_TRY(kinds[k].open(m, spec, where));
    if (m->unk_piece != NULL)
        m->unk = tok_vocab_find(&m->vocab, m->unk_piece, strlen(m->unk_piece));
    find_bytes(m);
done:
    return st;
}

void tok_model_release(tok_model *m)
{
    tok_vocab_release(&m->vocab);
    tok_merges_release(&m->merges);
    tok_trie_free(m->pieces);
    dr_big_free(m->scores);
    free(m->unk_piece);
    free(m->prefix);
    free(m->suffix);
    *m = (tok_model){0};
}

dr_status tok_model_add_unk(const tok_model *m, tok_ids *out)
{
    if (m->unk < 0)
        return dr_fail(DR_EFORMAT, "the unknown piece \"%s\" is not in the vocabulary",
                       m->unk_piece != NULL ? m->unk_piece : "");
    return tok_ids_add(out, m->unk);
}

/* ---- a word ---- */

static dr_status encode_word(const tok_model *m, tok_work *w, tok_ids *out, tok_str word)
{
    dr_status st = DR_OK;

    if (m->map_bytes) {
        dr_buf_reset(&w->word);
        DR_TRY(tok_bytes_map(&w->word, word.s, word.n));
        word = (tok_str){w->word.data, w->word.len};
    }
    switch (m->kind) {
    case TOK_MODEL_UNIGRAM:
        return tok_unigram_word(m, w, out, word);
    case TOK_MODEL_WORDPIECE:
        return tok_wordpiece_word(m, w, out, word);
    case TOK_MODEL_WORDLEVEL:
        return tok_wordlevel_word(m, out, word);
    case TOK_MODEL_BPE:
    default:
        return tok_bpe_word(m, w, out, word);
    }
done:
    return st;
}

static dr_status cached_word(const tok_model *m, tok_work *w, tok_ids *out, tok_str word)
{
    size_t had = out->count;
    dr_status st = DR_OK;

    if (word.n > TOK_CACHE_TEXT || word.n == 0)
        return word.n == 0 ? DR_OK : encode_word(m, w, out, word);
    tok_cached *c = &w->cache[tok_hash(word.s, word.n) % TOK_CACHE_SLOTS];
    if (c->n == word.n && memcmp(c->text, word.s, word.n) == 0) {
        for (size_t i = 0; i < c->count; i++)
            DR_TRY(tok_ids_add(out, c->ids[i]));
        return DR_OK;
    }
    DR_TRY(encode_word(m, w, out, word));
    if (out->count - had <= TOK_CACHE_IDS) {
        c->n = (uint8_t)word.n;
        c->count = (uint8_t)(out->count - had);
        memcpy(c->text, word.s, word.n);
        if (c->count > 0)
            memcpy(c->ids, out->ids + had, c->count * sizeof(int32_t));
    }
done:
    return st;
}

/* Where the next word of SentencePiece text starts: U+2581 after another character. */
static size_t next_mark(tok_str text, size_t from)
{
    const size_t n = sizeof(TOK_MARK) - 1;

    while (from + n < text.n) {
        const char *p = memmem(text.s + from + 1, text.n - from - 1, TOK_MARK, n);
        if (p == NULL)
            return text.n;
        size_t at = (size_t)(p - text.s);
        if (at < n || memcmp(p - n, TOK_MARK, n) != 0)
            return at;
        from = at;
    }
    return text.n;
}

dr_status tok_model_word(const tok_model *m, tok_work *w, tok_ids *out, tok_str word)
{
    dr_status st = DR_OK;

    if (!m->cut_marks || m->map_bytes)
        return cached_word(m, w, out, word);
    for (size_t at = 0; at < word.n;) {
        size_t end = next_mark(word, at);
        DR_TRY(cached_word(m, w, out, (tok_str){word.s + at, end - at}));
        at = end;
    }
done:
    return st;
}
