/*
 * tok_merge.c - the merges of BPE as a hash table: a pair of ids to its rank and the id
 * that it becomes.
 *
 * A merge is "a b" or ["a", "b"]; a, b and ab (less b's continuing_subword_prefix) must be
 * pieces.  Of two lines for one pair the later one counts, as in tokenizers.
 */
#include <string.h>

#include "core/mem.h"
#include "tok/tok_impl.h"

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static size_t home(const tok_merges *m, uint64_t pair)
{
    uint64_t h = pair * 0x9E3779B97F4A7C15u;

    return (size_t)(h >> 24 ^ h >> 44) & m->mask;
}

const tok_merge *tok_merges_find(const tok_merges *m, int32_t left, int32_t right)
{
    const uint64_t pair = pair_of(left, right);

    for (size_t i = home(m, pair); m->slots[i].pair != TOK_NO_PAIR; i = (i + 1) & m->mask)
        if (m->slots[i].pair == pair)
            return &m->slots[i];
    return NULL;
}

static void put(tok_merges *m, tok_merge merge)
{
    size_t i = home(m, merge.pair);

    while (m->slots[i].pair != TOK_NO_PAIR && m->slots[i].pair != merge.pair)
        i = (i + 1) & m->mask;
    m->slots[i] = merge;
}

/* "a b": exactly one space. */
static bool halves_of_line(const char *line, size_t n, tok_str half[2])
{
    const char *space = memchr(line, ' ', n);

    if (space == NULL)
        return false;
    half[0] = (tok_str){line, (size_t)(space - line)};
    half[1] = (tok_str){space + 1, n - half[0].n - 1};
    return memchr(half[1].s, ' ', half[1].n) == NULL;
}

static bool halves(const json_t *merge, tok_str half[2])
{
    if (json_is_string(merge))
        return halves_of_line(json_string_value(merge), json_string_length(merge), half);
    if (!json_is_array(merge) || json_array_size(merge) != 2)
        return false;
    for (size_t i = 0; i < 2; i++) {
        const json_t *s = json_array_get(merge, i);
        if (!json_is_string(s))
            return false;
        half[i] = (tok_str){json_string_value(s), json_string_length(s)};
    }
    return true;
}

static dr_status add(tok_merges *m, const tok_vocab *v, const json_t *merge, uint32_t rank,
                     size_t prefix_bytes, dr_buf *joined, const char *where)
{
    tok_str half[2] = {{0}};
    int32_t id[3] = {-1, -1, -1};
    dr_status st = DR_OK;

    if (!halves(merge, half) || half[1].n < prefix_bytes)
        DR_FAIL(DR_EFORMAT, "%s: merges[%u]: expected a pair of pieces, found %s", where,
                rank, dr_json_type(merge));
    dr_buf_reset(joined);
    DR_TRY(dr_buf_add(joined, half[0].s, half[0].n));
    DR_TRY(dr_buf_add(joined, half[1].s + prefix_bytes, half[1].n - prefix_bytes));
    id[0] = tok_vocab_find(v, half[0].s, half[0].n);
    id[1] = tok_vocab_find(v, half[1].s, half[1].n);
    id[2] = tok_vocab_find(v, joined->data, joined->len);
    if (id[0] < 0 || id[1] < 0 || id[2] < 0)
        DR_FAIL(DR_EFORMAT,
                "%s: merges[%u]: \"%.*s\" + \"%.*s\": %s is not in the vocabulary", where,
                rank, (int)half[0].n, half[0].s, (int)half[1].n, half[1].s,
                id[0] < 0   ? "the first"
                : id[1] < 0 ? "the second"
                            : "the result");
    put(m, (tok_merge){pair_of(id[0], id[1]), rank, id[2]});
done:
    return st;
}

dr_status tok_merges_open(tok_merges *m, const json_t *merges, const tok_vocab *v,
                          size_t prefix_bytes, const char *where)
{
    size_t count = json_array_size(merges), size = 16, skipped = 0;
    dr_buf joined;
    dr_status st = DR_OK;

    dr_buf_init(&joined, TOK_TEXT_MAX);
    if (!json_is_array(merges))
        DR_FAIL(DR_EFORMAT, "%s: merges: expected an array, found %s", where,
                dr_json_type(merges));
    if (count >= TOK_ID_LIMIT)
        DR_FAIL(DR_EFORMAT, "%s: %zu merges are not below %d", where, count, TOK_ID_LIMIT);
    while (size < count * 2)
        size *= 2;
    m->mask = size - 1;
    DR_TRY(dr_big_alloc((void **)&m->slots, size, sizeof(tok_merge), "merges"));
    for (size_t i = 0; i < size; i++)
        m->slots[i].pair = TOK_NO_PAIR;
    for (size_t i = 0; i < count; i++) {
        const json_t *merge = json_array_get(merges, i);
        const char *line = json_string_value(merge);
        if (line != NULL && strncmp(line, "#version", 8) == 0)
            skipped++;
        else
            DR_TRY(add(m, v, merge, (uint32_t)(i - skipped), prefix_bytes, &joined, where));
    }
done:
    dr_buf_release(&joined);
    return st;
}

void tok_merges_release(tok_merges *m)
{
    dr_big_free(m->slots);
    *m = (tok_merges){0};
}
