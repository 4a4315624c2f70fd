/*
 * tok_vocab.c - the pieces of a vocabulary: text to id by an open hash table, id to text by
 * an array.  All text lies in one block.
 *
 * Two pieces may share an id (both are found; the id shows the later one); an id may be
 * missing.  The highest id is bounded, because arrays are sized by it.
 */
#include <string.h>

#include "core/mem.h"
#include "tok/tok_impl.h"

static size_t table_size(size_t count)
{
    size_t size = 16;

    while (size < count * 2)
        size *= 2;
    return size;
}

/* Counts and checks, before anything is sized by the file. */
static dr_status survey(const json_t *pieces, size_t *bytes, size_t *size,
                        const char *where)
{
    const char *piece = NULL;
    json_t *id = NULL;

    json_object_foreach((json_t *)(uintptr_t)pieces, piece, id)
    {
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id))
            return dr_fail(DR_EFORMAT, "%s: vocab: \"%s\": expected an id, found %s", where,
                           piece, dr_json_type(id));
        if (value < 0 || value >= TOK_ID_LIMIT)
            return dr_fail(DR_EFORMAT, "%s: vocab: \"%s\": id %lld is not below %d", where,
                           piece, (long long)value, TOK_ID_LIMIT);
        *bytes += strlen(piece) + 1;
        if ((size_t)value >= *size)
            *size = (size_t)value + 1;
    }
    return *bytes <= UINT32_MAX ? DR_OK
                                : dr_fail(DR_EFORMAT, "%s: vocab: 4 GiB of text", where);
}

static void insert(tok_vocab *v, uint32_t entry)
{
    const tok_entry *e = &v->entries[entry];
    size_t i = tok_hash(v->text + e->at, e->n) & v->mask;

    while (v->slots[i] != 0)
        i = (i + 1) & v->mask;
    v->slots[i] = entry + 1;
    v->by_id[e->id] = entry + 1;
}

dr_status tok_vocab_open(tok_vocab *v, const json_t *pieces, const char *where)
{
    size_t bytes = 0, at = 0;
    const char *piece = NULL;
    json_t *id = NULL;
    dr_status st = DR_OK;

    if (!json_is_object(pieces))
        DR_FAIL(DR_EFORMAT, "%s: vocab: expected an object, found %s", where,
                dr_json_type(pieces));
    DR_TRY(survey(pieces, &bytes, &v->size, where));
    v->mask = table_size(json_object_size(pieces)) - 1;
    DR_TRY(dr_big_alloc((void **)&v->text, bytes, 1, "vocabulary text"));
    DR_TRY(dr_big_alloc((void **)&v->entries, json_object_size(pieces), sizeof(tok_entry),
                        "vocabulary"));
    DR_TRY(dr_big_alloc((void **)&v->by_id, v->size, sizeof(uint32_t), "vocabulary ids"));
    DR_TRY(dr_big_alloc((void **)&v->slots, v->mask + 1, sizeof(uint32_t),
                        "vocabulary table"));
    json_object_foreach((json_t *)(uintptr_t)pieces, piece, id)
    {
        size_t n = strlen(piece);
        memcpy(v->text + at, piece, n + 1);
        v->entries[v->count] =
            (tok_entry){(uint32_t)at, (uint32_t)n, (int32_t)json_integer_value(id)};
        insert(v, (uint32_t)v->count++);
        at += n + 1;
    }
done:
    return st;
}

void tok_vocab_release(tok_vocab *v)
{
    dr_big_free(v->text);
    dr_big_free(v->entries);
    dr_big_free(v->by_id);
    dr_big_free(v->slots);
    *v = (tok_vocab){0};
}

int32_t tok_vocab_find(const tok_vocab *v, const char *s, size_t n)
{
    for (size_t i = tok_hash(s, n) & v->mask; v->slots[i] != 0; i = (i + 1) & v->mask) {
        const tok_entry *e = &v->entries[v->slots[i] - 1];
        if (e->n == n && memcmp(v->text + e->at, s, n) == 0)
            return e->id;
    }
    return -1;
}

bool tok_vocab_piece(const tok_vocab *v, int32_t id, tok_str *piece)
{
    if (id < 0 || (size_t)id >= v->size || v->by_id[id] == 0)
        return false;
    const tok_entry *e = &v->entries[v->by_id[id] - 1];
    *piece = (tok_str){v->text + e->at, e->n};
    return true;
}
