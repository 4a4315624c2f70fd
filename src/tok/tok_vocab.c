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

static size_t count_pieces(const json_t *pieces)
{
    return json_is_array(pieces) ? json_array_size(pieces) : json_object_size(pieces);
}

/* Counts and checks, before anything is sized by the file. */
static dr_status survey_one(const char *piece, size_t n, json_int_t id, size_t *bytes,
                            size_t *size, const char *where)
{
    if (id < 0 || id >= TOK_ID_LIMIT)
        return dr_fail(DR_EFORMAT, "%s: vocab: \"%s\": id %lld is not below %d", where,
                       piece, (long long)id, TOK_ID_LIMIT);
    *bytes += n + 1;
    if ((size_t)id >= *size)
        *size = (size_t)id + 1;
    return DR_OK;
}

static dr_status survey(const json_t *pieces, size_t *bytes, size_t *size,
                        const char *where)
{
    const char *piece = NULL;
    json_t *item = NULL;
    size_t i = 0;
    dr_status st = DR_OK;

    json_object_foreach((json_t *)(uintptr_t)pieces, piece, item)
    {
        if (!json_is_integer(item))
            DR_FAIL(DR_EFORMAT, "%s: vocab: \"%s\": expected an id, found %s", where, piece,
                    dr_json_type(item));
        DR_TRY(
            survey_one(piece, strlen(piece), json_integer_value(item), bytes, size, where));
    }
    json_array_foreach(pieces, i, item)
    {
        const json_t *text = json_array_get(item, 0);
        if (!json_is_string(text))
            DR_FAIL(DR_EFORMAT, "%s: vocab[%zu]: expected a piece with its score, found %s",
                    where, i, dr_json_type(item));
        DR_TRY(survey_one(json_string_value(text), json_string_length(text), (json_int_t)i,
                          bytes, size, where));
    }
    if (*bytes > UINT32_MAX)
        DR_FAIL(DR_EFORMAT, "%s: vocab: 4 GiB of text", where);
done:
    return st;
}

/* A piece that is there twice (in an array) is the later one. */
static void insert(tok_vocab *v, const char *piece, size_t n, int32_t id)
{
    const uint32_t at =
        v->count > 0 ? v->entries[v->count - 1].at + v->entries[v->count - 1].n + 1 : 0;
    const uint32_t entry = (uint32_t)v->count++;
    size_t i = tok_hash(piece, n) & v->mask;

    memcpy(v->text + at, piece, n + 1);
    v->entries[entry] = (tok_entry){at, (uint32_t)n, id};
    for (; v->slots[i] != 0; i = (i + 1) & v->mask) {
        const tok_entry *e = &v->entries[v->slots[i] - 1];
        if (e->n == n && memcmp(v->text + e->at, piece, n) == 0)
            break;
    }
    v->slots[i] = entry + 1;
    v->by_id[id] = entry + 1;
    v->longest = n > v->longest ? n : v->longest;
}

static dr_status open_any(tok_vocab *v, const json_t *pieces, const char *where)
{
    const size_t count = count_pieces(pieces);
    size_t bytes = 0, i = 0;
    const char *piece = NULL;
    json_t *item = NULL;
    dr_status st = DR_OK;

    DR_TRY(survey(pieces, &bytes, &v->size, where));
    v->mask = table_size(count) - 1;
    DR_TRY(dr_big_alloc((void **)&v->text, bytes, 1, "vocabulary text"));
    DR_TRY(dr_big_alloc((void **)&v->entries, count, sizeof(tok_entry), "vocabulary"));
    DR_TRY(dr_big_alloc((void **)&v->by_id, v->size, sizeof(uint32_t), "vocabulary ids"));
    DR_TRY(dr_big_alloc((void **)&v->slots, v->mask + 1, sizeof(uint32_t),
                        "vocabulary table"));
    json_object_foreach((json_t *)(uintptr_t)pieces, piece, item)
        insert(v, piece, strlen(piece), (int32_t)json_integer_value(item));
    json_array_foreach(pieces, i, item)
    {
        const json_t *text = json_array_get(item, 0);
        insert(v, json_string_value(text), json_string_length(text), (int32_t)i);
    }
done:
    return st;
}

dr_status tok_vocab_open(tok_vocab *v, const json_t *pieces, const char *where)
{
    if (!json_is_object(pieces))
        return dr_fail(DR_EFORMAT, "%s: vocab: expected an object, found %s", where,
                       dr_json_type(pieces));
    return open_any(v, pieces, where);
}

dr_status tok_vocab_open_list(tok_vocab *v, const json_t *pieces, const char *where)
{
    if (!json_is_array(pieces))
        return dr_fail(DR_EFORMAT,
                       "%s: vocab: expected an array of pieces with scores, found %s",
                       where, dr_json_type(pieces));
    return open_any(v, pieces, where);
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
