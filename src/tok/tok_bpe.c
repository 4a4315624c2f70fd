/*
 * tok_bpe.c - byte pair encoding of one word.
 *
 * A word becomes symbols (one a character; <0xNN> or the unknown piece for characters that
 * the vocabulary lacks), then the pair of lowest rank, leftmost first, is merged until no
 * pair is left.  What must hold, because tokenizers does it so:
 *   1. an unknown symbol is held back until the next known character or the end, even past
 *      bytes that fall back; fuse_unk joins it with unknowns that follow;
 *   2. ignore_merges takes a word that is a piece whole;
 *   3. of equal ranks the leftmost pair goes first.
 * Words of up to 48 symbols are merged by scanning an array of ranks, longer ones with a
 * linked list and a heap, O(n log n).
 */
#include <string.h>

#include "core/mem.h"
#include "tok/tok_impl.h"

enum { SHORT_WORD = 48 };

/* ---- opening ---- */

static dr_status read_options(tok_model *b, const json_t *model, const char *where)
{
    double dropout = 0.0;
    dr_status st = DR_OK;

    DR_TRY(dr_json_real(model, "dropout", &dropout, where));
    if (dropout > 0.0 || dropout < 0.0)
        DR_FAIL(DR_EUNSUPPORTED, "%s: BPE dropout %g: ids would be random", where, dropout);
    DR_TRY(tok_model_text(&b->unk_piece, model, "unk_token", where));
    DR_TRY(tok_model_text(&b->prefix, model, "continuing_subword_prefix", where));
    DR_TRY(tok_model_text(&b->suffix, model, "end_of_word_suffix", where));
    DR_TRY(dr_json_bool(model, "fuse_unk", &b->fuse_unk, where));
    DR_TRY(dr_json_bool(model, "byte_fallback", &b->byte_fallback, where));
    DR_TRY(dr_json_bool(model, "ignore_merges", &b->ignore_merges, where));
    b->affixes = (b->prefix != NULL && b->prefix[0] != '\0') ||
                 (b->suffix != NULL && b->suffix[0] != '\0');
done:
    return st;
}

/* Whether U+2581 stands after another character in the piece. */
static bool mark_inside(tok_str piece)
{
    const size_t n = sizeof(TOK_MARK) - 1;
    bool other = false;

    for (size_t i = 0; i < piece.n;) {
        bool mark = piece.n - i >= n && memcmp(piece.s + i, TOK_MARK, n) == 0;
        if (mark && other)
            return true;
        other = other || !mark;
        i += mark ? n : 1;
    }
    return false;
}

static bool may_cut_marks(const tok_model *b)
{
    tok_str piece = {0};

    if (b->ignore_merges || b->affixes ||
        tok_vocab_find(&b->vocab, TOK_MARK, sizeof(TOK_MARK) - 1) < 0)
        return false;
    for (size_t i = 0; i <= b->merges.mask; i++) {
        const tok_merge *m = &b->merges.slots[i];
        if (m->pair != TOK_NO_PAIR && tok_vocab_piece(&b->vocab, m->id, &piece) &&
            mark_inside(piece))
            return false;
    }
    return true;
}

dr_status tok_bpe_open(tok_model *b, const json_t *model, const char *where)
{
    dr_status st = DR_OK;

    DR_TRY(read_options(b, model, where));
    DR_TRY(tok_vocab_open(&b->vocab, json_object_get(model, "vocab"), where));
    DR_TRY(tok_merges_open(&b->merges, json_object_get(model, "merges"), &b->vocab,
                           b->prefix != NULL ? strlen(b->prefix) : 0, where));
    b->cut_marks = may_cut_marks(b);
done:
    return st;
}

/* ---- a word's first symbols ---- */

typedef struct {
    tok_work *w;
    size_t count;
    bool unk_held;
    dr_buf *name; /* borrowed: scratch for a character with its affixes */
} symbols;

static void add_symbol(symbols *y, int32_t id)
{
    tok_work *w = y->w;

    if (y->count == w->symbols_cap) {
        w->symbols_cap = w->symbols_cap ? w->symbols_cap * 2 : 256;
        w->symbols = dr_realloc(w->symbols, w->symbols_cap, sizeof(tok_symbol));
    }
    w->symbols[y->count] =
        (tok_symbol){id, (int32_t)y->count - 1, (int32_t)y->count + 1, 1};
    y->count++;
}

/* All bytes of the character as <0xNN>, or nothing. */
static bool add_bytes(const tok_model *b, symbols *y, tok_str name)
{
    for (size_t i = 0; i < name.n; i++)
        if (b->byte_id[(unsigned char)name.s[i]] < 0)
            return false;
    for (size_t i = 0; i < name.n; i++)
        add_symbol(y, b->byte_id[(unsigned char)name.s[i]]);
    return true;
}

static dr_status add_char(const tok_model *b, symbols *y, tok_str name)
{
    int32_t id = tok_vocab_find(&b->vocab, name.s, name.n);

    if (id >= 0) {
        if (y->unk_held)
            add_symbol(y, b->unk);
        y->unk_held = false;
        add_symbol(y, id);
        return DR_OK;
    }
    if ((b->byte_fallback && add_bytes(b, y, name)) || b->unk_piece == NULL)
        return DR_OK;
    if (b->unk < 0)
        return dr_fail(DR_EFORMAT, "the unknown piece \"%s\" is not in the vocabulary",
                       b->unk_piece);
    if (y->unk_held && !b->fuse_unk)
        add_symbol(y, b->unk);
    y->unk_held = true;
    return DR_OK;
}

static dr_status with_affixes(const tok_model *b, dr_buf *name, tok_str c, bool first,
                              bool last)
{
    dr_status st = DR_OK;

    dr_buf_reset(name);
    if (!first && b->prefix != NULL)
        DR_TRY(dr_buf_adds(name, b->prefix));
    DR_TRY(dr_buf_add(name, c.s, c.n));
    if (last && b->suffix != NULL)
        DR_TRY(dr_buf_adds(name, b->suffix));
done:
    return st;
}

static dr_status spell(const tok_model *b, symbols *y, tok_str word)
{
    uint32_t cp = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < word.n;) {
        tok_str c = {word.s + i, tok_utf8_get(word.s + i, word.n - i, &cp)};
        i += c.n;
        if (b->affixes) {
            DR_TRY(with_affixes(b, y->name, c, i == c.n, i == word.n));
            c = (tok_str){y->name->data, y->name->len};
        }
        DR_TRY(add_char(b, y, c));
    }
    if (y->unk_held)
        add_symbol(y, b->unk);
    if (y->count > INT32_MAX / 2)
        DR_FAIL(DR_EFORMAT, "a word of %zu characters", y->count);
done:
    return st;
}

/* ---- merging ---- */

/* ids[0..n) in place; returns how many are left. */
static size_t merge_short(const tok_model *b, tok_symbol *v, size_t n)
{
    const tok_merge *pair[SHORT_WORD];

    for (size_t i = 0; i + 1 < n; i++)
        pair[i] = tok_merges_find(&b->merges, v[i].id, v[i + 1].id);
    for (;;) {
        size_t best = n;
        for (size_t i = 0; i + 1 < n; i++)
            if (pair[i] != NULL && (best == n || pair[i]->rank < pair[best]->rank))
                best = i;
        if (best == n)
            return n;
        v[best].id = pair[best]->id;
        for (size_t i = best + 1; i + 1 < n; i++) {
            v[i] = v[i + 1];
            pair[i - 1] = pair[i];
        }
        n--;
        if (best > 0)
            pair[best - 1] = tok_merges_find(&b->merges, v[best - 1].id, v[best].id);
        if (best + 1 < n)
            pair[best] = tok_merges_find(&b->merges, v[best].id, v[best + 1].id);
    }
}

static bool before(const tok_candidate *a, const tok_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(tok_work *w, size_t *count, tok_candidate c)
{
    size_t i = (*count)++;

    if (i == w->heap_cap) {
        w->heap_cap = w->heap_cap ? w->heap_cap * 2 : 256;
        w->heap = dr_realloc(w->heap, w->heap_cap, sizeof(tok_candidate));
    }
    for (; i > 0 && before(&c, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
}

static tok_candidate heap_pop(tok_work *w, size_t *count)
{
    const tok_candidate top = w->heap[0], c = w->heap[--*count];
    size_t i = 0;

    for (size_t child = 1; child < *count; child = 2 * i + 1) {
        if (child + 1 < *count && before(&w->heap[child + 1], &w->heap[child]))
            child++;
        if (!before(&w->heap[child], &c))
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = c;
    return top;
}

static void consider(const tok_model *b, tok_work *w, size_t *count, int32_t left,
                     int32_t right)
{
    const tok_merge *m =
        tok_merges_find(&b->merges, w->symbols[left].id, w->symbols[right].id);

    if (m != NULL)
        heap_push(w, count, (tok_candidate){m->rank, (uint32_t)left, m->id});
}

/* A candidate is stale when its pair no longer makes the same piece. */
static void merge_long(const tok_model *b, tok_work *w, size_t n)
{
    const int32_t end = (int32_t)n;
    size_t count = 0;

    for (int32_t i = 0; i + 1 < end; i++)
        consider(b, w, &count, i, i + 1);
    while (count > 0) {
        const tok_candidate top = heap_pop(w, &count);
        tok_symbol *left = &w->symbols[top.at];
        if (!left->live || left->next >= end)
            continue;
        tok_symbol *right = &w->symbols[left->next];
        const tok_merge *m = tok_merges_find(&b->merges, left->id, right->id);
        if (m == NULL || m->id != top.id)
            continue;
        left->id = top.id;
        left->next = right->next;
        right->live = 0;
        if (left->next < end)
            w->symbols[left->next].prev = (int32_t)top.at;
        if (left->prev >= 0)
            consider(b, w, &count, left->prev, (int32_t)top.at);
        if (left->next < end)
            consider(b, w, &count, (int32_t)top.at, left->next);
    }
}

/* ---- a word ---- */

dr_status tok_bpe_word(const tok_model *b, tok_work *w, tok_ids *out, tok_str word)
{
    dr_buf name;
    symbols y = {.w = w, .name = &name};
    dr_status st = DR_OK;

    dr_buf_init(&name, TOK_TEXT_MAX);
    if (b->ignore_merges) {
        int32_t id = tok_vocab_find(&b->vocab, word.s, word.n);
        if (id >= 0) {
            st = tok_ids_add(out, id);
            goto done;
        }
    }
    DR_TRY(spell(b, &y, word));
    if (y.count <= SHORT_WORD)
        y.count = merge_short(b, w->symbols, y.count);
    else
        merge_long(b, w, y.count);
    for (size_t i = 0; i < y.count; i++)
        if (w->symbols[i].live)
            DR_TRY(tok_ids_add(out, w->symbols[i].id));
done:
    dr_buf_release(&name);
    return st;
}
