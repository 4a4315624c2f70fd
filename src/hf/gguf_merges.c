/*
 * gguf_merges.c - the merge list of a BPE tokenizer, in the order of priority.
 *
 * Byte-level files store the list.  SentencePiece files store a score for each piece; there
 * a pair is merged when its piece exists, the best score first.  Hugging Face's converter
 * writes that as a list: every way to cut a piece in two pieces, by score, then by the
 * lengths of the two halves, all descending, then by the piece's id.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "hf/gguf_impl.h"

enum { PIECE_MAX_BYTES = 1024 };

/* A piece cut in two. */
typedef struct {
    const gguf_scored *piece; /* borrowed */
    uint32_t left;            /* bytes of the left half */
    uint32_t chars[2];        /* characters of each half */
} cut;

typedef struct {
    cut *list; /* owned */
    size_t count, cap;
} cuts;

/* ---- stored lists ---- */

/* "left right": both halves and the whole must be tokens. */
static dr_status add_stored(const gguf_file *g, const json_t *vocab, json_t *merges,
                            gguf_text t, size_t i)
{
    const char *space = memchr(t.text, ' ', t.len);
    char whole[2 * PIECE_MAX_BYTES];
    json_t *text = json_stringn(t.text, t.len);

    if (text == NULL)
        return dr_fail(DR_EFORMAT, "%s: tokenizer.ggml.merges: merge %zu is not UTF-8",
                       g->path, i);
    if (json_array_append_new(merges, text) != 0)
        dr_oom(t.len);
    if (space == NULL || t.len > sizeof(whole))
        return dr_fail(DR_EFORMAT, "%s: tokenizer.ggml.merges: merge %zu is no pair",
                       g->path, i);
    size_t left = (size_t)(space - t.text), right = t.len - left - 1;
    memcpy(whole, t.text, left);
    memcpy(whole + left, space + 1, right);
    if (json_object_getn(vocab, whole, left) == NULL ||
        json_object_getn(vocab, space + 1, right) == NULL ||
        json_object_getn(vocab, whole, left + right) == NULL)
        return dr_fail(DR_EFORMAT,
                       "%s: tokenizer.ggml.merges: merge %zu, %.*s, is not made of tokens",
                       g->path, i, t.len > 100 ? 100 : (int)t.len, t.text);
    return DR_OK;
}

dr_status gguf_stored_merges(const gguf_file *g, const gguf_key *k, const json_t *vocab,
                             json_t *merges)
{
    gguf_cursor c = gguf_strings(g, k);

    for (size_t i = 0; i < k->count; i++) {
        dr_status st = add_stored(g, vocab, merges, gguf_next_string(&c), i);
        if (st != DR_OK)
            return st;
    }
    return DR_OK;
}

/* ---- from scores ---- */

static bool starts_char(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

static uint32_t char_count(const char *s, size_t n)
{
    uint32_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += starts_char(s[i]);
    return count;
}

static void add_cuts(cuts *all, const gguf_scored *p, const json_t *vocab)
{
    const char *s = p->text.text;
    size_t n = p->text.len;

    for (size_t at = 1; at < n; at++) {
        if (!starts_char(s[at]) || json_object_getn(vocab, s, at) == NULL ||
            json_object_getn(vocab, s + at, n - at) == NULL)
            continue;
        if (all->count == all->cap) {
            all->cap = all->cap ? 2 * all->cap : 1024;
            all->list = dr_realloc(all->list, all->cap, sizeof(cut));
        }
        all->list[all->count++] =
            (cut){p, (uint32_t)at, {char_count(s, at), char_count(s + at, n - at)}};
    }
}

static int by_priority(const void *pa, const void *pb)
{
    const cut *a = pa, *b = pb;

    if (a->piece->score != b->piece->score)
        return a->piece->score > b->piece->score ? -1 : 1;
    for (int i = 0; i < 2; i++)
        if (a->chars[i] != b->chars[i])
            return a->chars[i] > b->chars[i] ? -1 : 1;
    return a->piece->id < b->piece->id ? -1 : a->piece->id > b->piece->id;
}

dr_status gguf_scored_merges(const gguf_file *g, const gguf_scored *pieces, size_t count,
                             const json_t *vocab, json_t *merges)
{
    dr_status st = DR_OK;
    cuts all = {0};

    for (size_t i = 0; i < count; i++) {
        if (pieces[i].text.len > PIECE_MAX_BYTES)
            DR_FAIL(DR_EFORMAT, "%s: tokenizer.ggml.tokens: token %u has %zu bytes",
                    g->path, pieces[i].id, pieces[i].text.len);
        add_cuts(&all, &pieces[i], vocab);
    }
    if (all.count > 0)
        qsort(all.list, all.count, sizeof(cut), by_priority);
    for (size_t i = 0; i < all.count; i++) {
        const cut *c = &all.list[i];
        gguf_text t = c->piece->text;
        json_t *pair = json_pack("[s%, s%]", t.text, (size_t)c->left, t.text + c->left,
                                 t.len - c->left);

        DR_BUG_IF(pair == NULL); /* the vocabulary was found to be UTF-8 */
        DR_BUG_IF(json_array_append_new(merges, pair) != 0);
    }
done:
    free(all.list);
    return st;
}
