/*
 * tok_unigram.c - Unigram (Kudo 2018): of all ways to cut a word into pieces the one whose
 * scores, logarithms of probabilities, add up to the most.
 *
 * One walk from left to right: the best way to each place is known when the walk comes
 * there, and every piece that begins there offers a way to its end.  What must hold,
 * because tokenizers does it so:
 *   1. a character that no piece of one character is gets a step of the unknown piece, with
 *      a score of 10 less than the lowest;
 *   2. of equal sums the way found first stays, which is that of the leftmost last piece;
 *   3. neighbours that are the unknown piece are joined; what is joined is looked up once
 *      more, then spelled in bytes (byte_fallback, when all of them are pieces), then
 *      unknown;
 *   4. sums are doubles, added from the left.
 */
#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "tok/tok_impl.h"

#define UNK_PENALTY 10.0

static dr_status read_pieces(tok_model *m, const json_t *list, const char *where)
{
    double lowest = HUGE_VAL;
    tok_str piece = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc((void **)&m->scores, m->vocab.size + 1, sizeof(double),
                        "scores of pieces"));
    m->pieces = tok_trie_new();
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *score = json_array_get(json_array_get(list, i), 1);
        if (!json_is_number(score))
            DR_FAIL(DR_EFORMAT, "%s: vocab[%zu]: expected a score, found %s", where, i,
                    dr_json_type(score));
        m->scores[i] = json_number_value(score);
        lowest = m->scores[i] < lowest ? m->scores[i] : lowest;
        if (tok_vocab_piece(&m->vocab, (int32_t)i, &piece) && piece.n > 0)
            DR_TRY(tok_trie_put(m->pieces, piece.s, piece.n, (int32_t)i));
    }
    m->unk_score = lowest - UNK_PENALTY;
done:
    return st;
}

dr_status tok_unigram_open(tok_model *m, const json_t *spec, const char *where)
{
    const json_t *list = json_object_get(spec, "vocab");
    int64_t unk = -1;
    tok_str piece = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_json_bool(spec, "byte_fallback", &m->byte_fallback, where));
    DR_TRY(dr_json_int(spec, "unk_id", &unk, where));
    DR_TRY(tok_vocab_open_list(&m->vocab, list, where));
    DR_TRY(read_pieces(m, list, where));
    if (unk >= (int64_t)m->vocab.size || unk < -1)
        DR_FAIL(DR_EFORMAT, "%s: unk_id %lld: the vocabulary has %zu pieces", where,
                (long long)unk, m->vocab.size);
    if (tok_vocab_piece(&m->vocab, (int32_t)unk, &piece))
        m->unk_piece = dr_strndup(piece.s, piece.n);
    m->unk_id = (int32_t)unk;
done:
    return st;
}

/* ---- the walk ---- */

static void offer(tok_way *way, size_t start, int32_t id, double score)
{
    if (way->start == TOK_NO_WAY || score > way->score)
        *way = (tok_way){score, (uint32_t)start, id};
}

static dr_status fill(const tok_model *m, tok_way *ways, tok_str word)
{
    uint32_t cp = 0;

    ways[0] = (tok_way){0};
    for (size_t i = 1; i <= word.n; i++)
        ways[i] = (tok_way){.start = TOK_NO_WAY};
    for (size_t at = 0, n = 0; at < word.n; at += n) {
        const double here = ways[at].score;
        bool single = false;
        uint32_t node = 0;
        int32_t id = -1;
        n = tok_utf8_get(word.s + at, word.n - at, &cp);
        for (size_t i = at; i < word.n && tok_trie_step(m->pieces, &node, word.s[i], &id);
             i++) {
            if (id < 0)
                continue;
            offer(&ways[i + 1], at, id, m->scores[id] + here);
            single = single || i + 1 == at + n;
        }
        if (single)
            continue;
        if (m->unk_id < 0)
            return dr_fail(DR_EFORMAT,
                           "\"%.*s\" is not in the vocabulary, which has no unknown piece",
                           (int)n, word.s + at);
        offer(&ways[at + n], at, m->unk_id, m->unk_score + here);
    }
    return DR_OK;
}

/* What the way calls a piece, or unknown. */
static dr_status add_piece(const tok_model *m, tok_ids *out, tok_str piece)
{
    const int32_t id = tok_vocab_find(&m->vocab, piece.s, piece.n);
    bool bytes = m->byte_fallback;
    dr_status st = DR_OK;

    if (id >= 0)
        return tok_ids_add(out, id);
    for (size_t i = 0; i < piece.n && bytes; i++)
        bytes = m->byte_id[(unsigned char)piece.s[i]] >= 0;
    if (!bytes)
        return tok_ids_add(out, m->unk_id);
    for (size_t i = 0; i < piece.n; i++)
        DR_TRY(tok_ids_add(out, m->byte_id[(unsigned char)piece.s[i]]));
done:
    return st;
}

/* The chain of starts from the end is turned round in place: ways[x].start becomes the end
 * of the piece that starts at x. */
static void turn(tok_way *ways, size_t n)
{
    uint32_t end = (uint32_t)n, next = TOK_NO_WAY;
    int32_t id = -1;

    for (;;) {
        const tok_way way = ways[end];
        ways[end] = (tok_way){.start = next, .id = id};
        if (end == 0)
            return;
        next = end;
        id = way.id;
        end = way.start;
    }
}

static dr_status reserve(tok_work *w, size_t count)
{
    dr_status st = DR_OK;

    if (count <= w->ways_cap)
        return DR_OK;
    dr_big_free(w->ways);
    w->ways = NULL;
    w->ways_cap = 0;
    DR_TRY(dr_big_alloc((void **)&w->ways, count + count / 2, sizeof(tok_way),
                        "the ways through a word"));
    w->ways_cap = count + count / 2;
done:
    return st;
}

dr_status tok_unigram_word(const tok_model *m, tok_work *w, tok_ids *out, tok_str word)
{
    dr_status st = DR_OK;

    if (word.n >= TOK_NO_WAY)
        DR_FAIL(DR_EFORMAT, "a word of %zu bytes", word.n);
    DR_TRY(reserve(w, word.n + 1));
    DR_TRY(fill(m, w->ways, word));
    turn(w->ways, word.n);
    for (size_t at = 0, end = 0; at < word.n; at = end) {
        end = w->ways[at].start;
        if (w->ways[at].id == m->unk_id)
            while (end < word.n && w->ways[end].id == m->unk_id)
                end = w->ways[end].start;
        DR_TRY(add_piece(m, out, (tok_str){word.s + at, end - at}));
    }
done:
    return st;
}
