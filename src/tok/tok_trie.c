/*
 * tok_trie.c - strings to ids, byte by byte: added tokens, and the pieces of a Unigram
 * model.  The edges, (node, byte) -> node, are in one open hash table.
 */
#include <stdlib.h>

#include "core/mem.h"
#include "tok/tok_impl.h"

typedef struct {
    uint32_t key; /* node << 8 | byte, plus 1; 0: free */
    uint32_t node;
} edge;

enum { NODE_LIMIT = 1 << 23 };

struct tok_trie {
    edge *edges;  /* owned */
    int32_t *ids; /* owned: by node; -1: no token ends here */
    size_t mask, nodes, cap;
    bool starts[256]; /* bytes that tokens begin with */
};

tok_trie *tok_trie_new(void)
{
    tok_trie *t = dr_calloc(1, sizeof(*t));

    t->mask = 63;
    t->edges = dr_calloc(t->mask + 1, sizeof(edge));
    t->cap = 32;
    t->ids = dr_calloc(t->cap, sizeof(int32_t));
    t->ids[0] = -1;
    t->nodes = 1;
    return t;
}

void tok_trie_free(tok_trie *t)
{
    if (t == NULL)
        return;
    free(t->edges);
    free(t->ids);
    free(t);
}

/* The slot that holds the key, or the free one where it belongs. */
static edge *slot_of(const tok_trie *t, uint32_t key)
{
    size_t i = (key * 0x9E3779B1u >> 8) & t->mask;

    while (t->edges[i].key != 0 && t->edges[i].key != key)
        i = (i + 1) & t->mask;
    return &t->edges[i];
}

static void trie_grow(tok_trie *t)
{
    const tok_trie old = *t;

    if (t->nodes == t->cap) {
        t->cap *= 2;
        t->ids = dr_realloc(t->ids, t->cap, sizeof(int32_t));
    }
    if (t->nodes * 2 <= t->mask)
        return;
    t->mask = t->mask * 2 + 1;
    t->edges = dr_calloc(t->mask + 1, sizeof(edge));
    for (size_t i = 0; i <= old.mask; i++)
        if (old.edges[i].key != 0)
            *slot_of(t, old.edges[i].key) = old.edges[i];
    free(old.edges);
}

static uint32_t edge_key(uint32_t node, char byte)
{
    return (node << 8 | (unsigned char)byte) + 1;
}

dr_status tok_trie_put(tok_trie *t, const char *s, size_t n, int32_t id)
{
    uint32_t node = 0;

    t->starts[(unsigned char)s[0]] = true;
    for (size_t i = 0; i < n; i++) {
        edge *e = slot_of(t, edge_key(node, s[i]));
        if (e->key == 0) {
            if (t->nodes == NODE_LIMIT)
                return dr_fail(DR_EFORMAT, "tokens of more than %d bytes", NODE_LIMIT);
            trie_grow(t);
            e = slot_of(t, edge_key(node, s[i]));
            *e = (edge){edge_key(node, s[i]), (uint32_t)t->nodes};
            t->ids[t->nodes++] = -1;
        }
        node = e->node;
    }
    t->ids[node] = id;
    return DR_OK;
}

int32_t tok_trie_longest(const tok_trie *t, const char *s, size_t n, size_t *length)
{
    uint32_t node = 0;
    int32_t best = -1;

    for (size_t i = 0; i < n; i++) {
        const edge *e = slot_of(t, edge_key(node, s[i]));
        if (e->key == 0)
            break;
        node = e->node;
        if (t->ids[node] >= 0) {
            best = t->ids[node];
            *length = i + 1;
        }
    }
    return best;
}

bool tok_trie_starts(const tok_trie *t, char byte)
{
    return t->starts[(unsigned char)byte];
}

bool tok_trie_step(const tok_trie *t, uint32_t *node, char byte, int32_t *id)
{
    const edge *e = slot_of(t, edge_key(*node, byte));

    if (e->key == 0)
        return false;
    *node = e->node;
    *id = t->ids[e->node];
    return true;
}
