/*
 * tok_added.c - added tokens: found in the text before anything else happens to it.
 *
 * As tokenizers' AddedVocabulary has it:
 *   1. ids: that of the vocabulary, else the next free one after it; the id in the file is
 *      only compared (a warning);
 *   2. tokens that are not `normalized` are sought in the raw text, the others, in their
 *      normalized form, in each normalized part between those;
 *   3. leftmost first, of those the longest; matches do not overlap;
 *   4. single_word drops a match beside a word character; lstrip and rstrip take the white
 *      space around it along, lstrip no further back than the token before.
 * Decoding shows the normalized form, which skip_special then does not know any more.
 */
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "tok/tok_impl.h"

/* ---- opening ---- */

int32_t tok_addeds_find(const tok_addeds *a, const char *s, size_t n)
{
    size_t length = 0;
    int32_t id = n > 0 ? tok_trie_longest(a->names, s, n, &length) : -1;

    return length == n ? id : -1;
}

static dr_status read_one(tok_added *a, int64_t *id, const json_t *item, size_t index,
                          const char *where)
{
    const json_t *content = json_object_get(item, "content");
    dr_status st = DR_OK;

    if (!json_is_string(content))
        DR_FAIL(DR_EFORMAT, "%s: added_tokens[%zu]: no content", where, index);
    a->content_n = json_string_length(content);
    a->content = dr_strndup(json_string_value(content), a->content_n);
    DR_TRY(dr_json_int(item, "id", id, where));
    DR_TRY(dr_json_bool(item, "special", &a->special, where));
    DR_TRY(dr_json_bool(item, "lstrip", &a->lstrip, where));
    DR_TRY(dr_json_bool(item, "rstrip", &a->rstrip, where));
    DR_TRY(dr_json_bool(item, "single_word", &a->single_word, where));
    DR_TRY(dr_json_bool(item, "normalized", &a->normalized, where));
done:
    return st;
}

/* What decoding shows: the normalized form where that differs. */
static dr_status show(tok_added *a, const tok_tokenizer *t, tok_work *w, const char *where)
{
    tok_str text = {a->content, a->content_n};
    dr_status st = DR_OK;

    if (a->normalized)
        DR_TRYF(tok_normals_run(&t->normals, w, &text, NULL),
                "%s: normalizing the added token \"%s\"", where, a->content);
    if (text.n == 0)
        DR_FAIL(DR_EFORMAT, "%s: the added token \"%s\" normalizes to nothing", where,
                a->content);
    a->shown = dr_strndup(text.s, text.n);
    a->shown_n = text.n;
done:
    return st;
}

static void set_by_id(tok_addeds *a, int32_t id, uint32_t entry)
{
    if ((size_t)id >= a->size) {
        size_t size = (size_t)id + 1 + 64;
        a->by_id = dr_realloc(a->by_id, size, sizeof(uint32_t));
        memset(a->by_id + a->size, 0, (size - a->size) * sizeof(uint32_t));
        a->size = size;
    }
    a->by_id[id] = entry + 1;
}

static dr_status add(tok_tokenizer *t, tok_work *w, const json_t *item, int32_t *next,
                     const char *where)
{
    tok_addeds *a = &t->added;
    tok_added *x = &a->list[a->count];
    int64_t id = -1;
    dr_status st = DR_OK;

    *x = (tok_added){.id = -1};
    a->count++;
    DR_TRY(read_one(x, &id, item, a->count - 1, where));
    if (x->content_n == 0) {
        free(x->content);
        a->count--;
        return DR_OK;
    }
    x->id = tok_addeds_find(a, x->content, x->content_n);
    if (x->id < 0)
        x->id = tok_vocab_find(&t->model.vocab, x->content, x->content_n);
    if (x->id < 0)
        x->id = (*next)++;
    if (id != x->id)
        dr_log(DR_WARNING, "%s: added token \"%s\" has id %d, not %lld as the file says",
               where, x->content, (int)x->id, (long long)id);
    DR_TRY(show(x, t, w, where));
    DR_TRY(tok_trie_put(a->names, x->content, x->content_n, x->id));
    set_by_id(a, x->id, (uint32_t)(a->count - 1));
done:
    return st;
}

static bool shown_as_special(const tok_trie *specials, const tok_added *x)
{
    size_t length = 0;

    return tok_trie_longest(specials, x->shown, x->shown_n, &length) >= 0 &&
           length == x->shown_n;
}

/* The tries for matching, of the tokens that count (a later one of an id wins). */
static dr_status build(tok_addeds *a)
{
    tok_trie *specials = tok_trie_new();
    dr_status st = DR_OK;

    for (size_t i = 0; i < a->count; i++)
        if (a->list[i].special)
            DR_TRY(tok_trie_put(specials, a->list[i].content, a->list[i].content_n, 0));
    for (size_t i = 0; i < a->count; i++) {
        tok_added *x = &a->list[i];
        tok_trie **trie = x->normalized ? &a->normal : &a->raw;
        x->skipped = shown_as_special(specials, x);
        if (a->by_id[x->id] != i + 1)
            continue;
        if (*trie == NULL)
            *trie = tok_trie_new();
        DR_TRY(tok_trie_put(*trie, x->shown, x->shown_n, x->id));
    }
done:
    tok_trie_free(specials);
    return st;
}

dr_status tok_addeds_open(tok_tokenizer *t, const json_t *list, const char *where)
{
    int32_t next = (int32_t)t->model.vocab.count;
    tok_work *w = NULL;
    const json_t *item = NULL;
    size_t i = 0;
    dr_status st = DR_OK;

    t->added.names = tok_trie_new();
    if (list == NULL || json_is_null(list))
        return DR_OK;
    if (!json_is_array(list))
        DR_FAIL(DR_EFORMAT, "%s: added_tokens: expected an array, found %s", where,
                dr_json_type(list));
    if (json_array_size(list) >= TOK_ID_LIMIT)
        DR_FAIL(DR_EFORMAT, "%s: %zu added tokens", where, json_array_size(list));
    t->added.list = dr_calloc(json_array_size(list), sizeof(tok_added));
    w = tok_work_take(t);
    json_array_foreach(list, i, item) DR_TRY(add(t, w, item, &next, where));
    DR_TRY(build(&t->added));
done:
    if (w != NULL)
        tok_work_give(t, w);
    return st;
}

void tok_addeds_release(tok_addeds *a)
{
    for (size_t i = 0; i < a->count; i++) {
        free(a->list[i].content);
        free(a->list[i].shown);
    }
    free(a->list);
    free(a->by_id);
    tok_trie_free(a->names);
    tok_trie_free(a->raw);
    tok_trie_free(a->normal);
    *a = (tok_addeds){0};
}

const tok_added *tok_addeds_get(const tok_addeds *a, int32_t id)
{
    if (id < 0 || (size_t)id >= a->size || a->by_id[id] == 0)
        return NULL;
    return &a->list[a->by_id[id] - 1];
}

/* ---- matching ---- */

static bool beside_word(tok_str text, size_t start, size_t stop)
{
    uint32_t cp = 0;

    if (start > 0) {
        (void)tok_utf8_last(text.s, start, &cp);
        if (tok_is_word(cp))
            return true;
    }
    if (stop < text.n) {
        (void)tok_utf8_get(text.s + stop, text.n - stop, &cp);
        return tok_is_word(cp);
    }
    return false;
}

static size_t spaces_before(tok_str text, size_t start)
{
    uint32_t cp = 0;

    while (start > 0) {
        size_t n = tok_utf8_last(text.s, start, &cp);
        if (!tok_is_space(cp))
            break;
        start -= n;
    }
    return start;
}

static size_t spaces_after(tok_str text, size_t stop)
{
    uint32_t cp = 0;

    while (stop < text.n) {
        size_t n = tok_utf8_get(text.s + stop, text.n - stop, &cp);
        if (!tok_is_space(cp))
            break;
        stop += n;
    }
    return stop;
}

dr_status tok_addeds_cut(const tok_addeds *a, const tok_trie *trie, tok_str text,
                         tok_gap_fn fn, void *ctx)
{
    size_t at = 0, length = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; trie != NULL && i < text.n;) {
        int32_t id = tok_trie_starts(trie, text.s[i])
                         ? tok_trie_longest(trie, text.s + i, text.n - i, &length)
                         : -1;
        if (id < 0) {
            i++;
            continue;
        }
        const tok_added *x = tok_addeds_get(a, id);
        tok_gap gap = {i, i + length, id};
        i += length;
        if (x->single_word && beside_word(text, gap.start, gap.stop))
            continue;
        if (x->lstrip) {
            size_t start = spaces_before(text, gap.start);
            gap.start = start > at ? start : at;
        }
        if (x->rstrip)
            gap.stop = spaces_after(text, gap.stop);
        if (at < gap.start)
            DR_TRY(fn(ctx, &(tok_gap){at, gap.start, -1}));
        DR_TRY(fn(ctx, &gap));
        at = gap.stop;
    }
    if (at < text.n)
        DR_TRY(fn(ctx, &(tok_gap){at, text.n, -1}));
done:
    return st;
}
