/*
 * rewrite_tidy.c - nodes that do nothing go, and nodes that do the same become one.
 *
 * Everything here keeps each output's bytes.  Rounds are repeated until none changes
 * anything: an Identity gone may leave two Casts next to each other.
 */
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "onnx.pb-c.h"
#include "onnx/edit_impl.h"
#include "onnx/graph_impl.h"

typedef struct {
    onnx_edit *e;
    const onnx_tidy_options *o;
    onnx_types types;
    bool changed;
} tidying;

static Onnx__NodeProto *maker_of(const tidying *t, const Onnx__NodeProto *n, size_t input)
{
    return n->n_input > input ? onnx_edit_maker(t->e, onnx_text(n->input[input])) : NULL;
}

/* ---- nodes of no effect ---- */

static size_t perm_of(const Onnx__NodeProto *n, int64_t perm[DR_TENSOR_DIMS])
{
    const Onnx__AttributeProto *a = onnx_edit_attr(n, "perm");

    if (a == NULL || a->n_ints > DR_TENSOR_DIMS)
        return 0;
    memcpy(perm, a->ints, a->n_ints * sizeof(*perm));
    return a->n_ints;
}

/* Two transposes: the first one's input if they undo each other. */
static const char *undone_transpose(const tidying *t, const Onnx__NodeProto *n)
{
    const Onnx__NodeProto *first = maker_of(t, n, 0);
    int64_t p[DR_TENSOR_DIMS], q[DR_TENSOR_DIMS];
    size_t rank = perm_of(n, p);

    if (first == NULL || !onnx_is(first, "Transpose") || rank == 0 ||
        perm_of(first, q) != rank)
        return NULL;
    for (size_t i = 0; i < rank; i++) {
        if (p[i] < 0 || (size_t)p[i] >= rank || q[p[i]] != (int64_t)i)
            return NULL;
    }
    return onnx_text(first->input[0]);
}

static bool same_perm(const Onnx__NodeProto *n)
{
    int64_t p[DR_TENSOR_DIMS];
    size_t rank = perm_of(n, p);

    for (size_t i = 0; i < rank; i++) {
        if (p[i] != (int64_t)i)
            return false;
    }
    return rank > 0;
}

/* float32 holds all of float16 and bfloat16, int64 of int32. */
static bool holds(int32_t wide, int32_t narrow)
{
    return (wide == ONNX_FLOAT && (narrow == ONNX_FLOAT16 || narrow == ONNX_BFLOAT16)) ||
           (wide == ONNX_INT64 && narrow == ONNX_INT32);
}

static const char *undone_cast(const tidying *t, const Onnx__NodeProto *n)
{
    const Onnx__NodeProto *first = maker_of(t, n, 0);
    int32_t to = (int32_t)onnx_edit_int(n, "to", 0), from, between;

    if (t->o->general && to != 0 && onnx_type_of(&t->types, n->input[0]) == to)
        return n->input[0];
    if (first == NULL || !onnx_is(first, "Cast"))
        return NULL;
    from = onnx_type_of(&t->types, first->input[0]);
    between = (int32_t)onnx_edit_int(first, "to", 0);
    if (from != to || from == 0 || (!t->o->casts && !holds(between, from)))
        return NULL;
    return onnx_text(first->input[0]);
}

/* What a node gives is that value; NULL: it does something. */
static const char *same_as(const tidying *t, const Onnx__NodeProto *n)
{
    if (n->n_output == 0 || n->n_input == 0 || onnx_text(n->domain)[0] != '\0')
        return NULL;
    if (onnx_is(n, "Cast"))
        return undone_cast(t, n);
    if (!t->o->general)
        return NULL;
    if (onnx_is(n, "Identity"))
        return n->input[0];
    if (onnx_is(n, "Dropout") && n->n_input == 1 &&
        (n->n_output == 1 || onnx_edit_readers(t->e, onnx_text(n->output[1])) == 0))
        return n->input[0];
    if (onnx_is(n, "Concat") && n->n_input == 1)
        return n->input[0];
    if (onnx_is(n, "Transpose") && same_perm(n))
        return n->input[0];
    return onnx_is(n, "Transpose") ? undone_transpose(t, n) : NULL;
}

static void drop_idle(tidying *t)
{
    size_t count = t->e->graph->n_node;
    Onnx__NodeProto **list = onnx_edit_list(&t->e->arena, t->e->graph->node, count);

    for (size_t i = 0; i < count; i++) {
        const char *by = same_as(t, list[i]);
        if (by == NULL || !onnx_edit_bypass(t->e, list[i], by))
            continue;
        t->e->changes++;
        t->changed = true;
    }
}

/* ---- reshapes ---- */

/* A constant shape without zeros, which would copy a size of what it is given. */
static bool whole_shape(tidying *t, const char *name)
{
    const Onnx__TensorProto *c = onnx_edit_constant(t->e, name);
    dr_tensor v = {0};

    if (c == NULL || c->data_type != ONNX_INT64)
        return false;
    if (onnx_edit_values(t->e, &v, c) != DR_OK) {
        dr_trail_clear();
        return false;
    }
    for (size_t i = 0; i < dr_tensor_count(&v); i++) {
        int64_t d;
        memcpy(&d, (const unsigned char *)v.data + i * sizeof(d), sizeof(d));
        if (d == 0)
            return false;
    }
    return true;
}

static void join_reshapes(tidying *t)
{
    for (size_t i = 0; i < t->e->graph->n_node; i++) {
        Onnx__NodeProto *n = t->e->graph->node[i];
        const Onnx__NodeProto *first = onnx_is(n, "Reshape") ? maker_of(t, n, 0) : NULL;
        if (first == NULL ||
            !(onnx_is(first, "Reshape") || onnx_is(first, "Flatten") ||
              onnx_is(first, "Squeeze") || onnx_is(first, "Unsqueeze")) ||
            n->n_input < 2 || !whole_shape(t, onnx_text(n->input[1])))
            continue;
        n->input[0] = first->input[0];
        t->e->changes++;
        t->changed = true;
    }
}

/* ---- the same twice ---- */

typedef struct {
    const char *key;
    size_t at;
} keyed;

static int by_key(const void *a, const void *b)
{
    const keyed *p = a, *q = b;
    int c = strcmp(p->key, q->key);

    return c != 0 ? c : (p->at > q->at) - (p->at < q->at);
}

static void add_hex(dr_arena *a, const char **key, const void *bytes, size_t n)
{
    char *hex = dr_arena_alloc(a, 2 * n + 1, 1);
    const unsigned char *p = bytes;

    for (size_t i = 0; i < n; i++) {
        hex[2 * i] = (char)('a' + (p[i] >> 4));
        hex[2 * i + 1] = (char)('a' + (p[i] & 15));
    }
    *key = dr_arena_printf(a, "%s|%s", *key, hex);
}

/* All that decides what a node gives; NULL: more than that does. */
static const char *key_of(dr_arena *a, const Onnx__NodeProto *n)
{
    const char *key = dr_arena_printf(a, "%s|%s|%zu", onnx_text(n->domain),
                                      onnx_text(n->op_type), n->n_output);

    if (strncmp(onnx_text(n->op_type), "Random", 6) == 0 || onnx_is(n, "Multinomial") ||
        onnx_is(n, "Bernoulli"))
        return NULL;
    for (size_t i = 0; i < n->n_input; i++)
        key = dr_arena_printf(a, "%s|%s", key, onnx_text(n->input[i]));
    for (size_t i = 0; i < n->n_attribute; i++) {
        const Onnx__AttributeProto *at = n->attribute[i];
        if (at->g != NULL || at->n_graphs > 0)
            return NULL;
        if (at->t != NULL && (at->t->has_data_location || at->t->n_string_data > 0))
            return NULL;
        size_t bytes = onnx__attribute_proto__get_packed_size(at);
        if (bytes > 4096)
            return NULL;
        unsigned char *packed = dr_arena_alloc(a, bytes + 1, 1);
        (void)onnx__attribute_proto__pack(at, packed);
        add_hex(a, &key, packed, bytes);
    }
    return key;
}

void onnx_edit_join_doubles(onnx_edit *e)
{
    bool again = true;

    while (again) {
        size_t count = e->graph->n_node, n = 0;
        dr_arena a = {0};
        Onnx__NodeProto **list = onnx_edit_list(&e->arena, e->graph->node, count);
        keyed *keys = dr_arena_alloc(&a, count + 1, sizeof(*keys));
        again = false;
        for (size_t i = 0; i < count; i++) {
            const char *key = list[i]->n_output > 0 ? key_of(&a, list[i]) : NULL;
            if (key != NULL)
                keys[n++] = (keyed){key, i};
        }
        qsort(keys, n, sizeof(*keys), by_key);
        for (size_t i = 1, first = 0; i < n; i++) {
            if (strcmp(keys[i].key, keys[first].key) != 0) {
                first = i;
                continue;
            }
            Onnx__NodeProto *same = list[keys[i].at], *kept = list[keys[first].at];
            bool output = false;
            for (size_t k = 0; k < same->n_output; k++)
                output = output || onnx_edit_is_output(e, onnx_text(same->output[k]));
            if (output)
                continue;
            for (size_t k = 1; k < same->n_output; k++)
                (void)onnx_edit_redirect(e, onnx_text(same->output[k]),
                                         onnx_text(kept->output[k]));
            if (onnx_edit_bypass(e, same, onnx_text(kept->output[0]))) {
                e->changes++;
                again = true;
            }
        }
        dr_arena_release(&a);
    }
}

dr_status onnx_tidy(onnx_edit *e, const onnx_tidy_options *o)
{
    tidying t = {.e = e, .o = o, .changed = true};
    dr_status st = DR_OK;

    while (t.changed) {
        t.changed = false;
        DR_TRY(onnx_edit_types(e, &t.types));
        drop_idle(&t);
        if (o->reshapes)
            join_reshapes(&t);
    }
    if (o->general) {
        size_t before = e->graph->n_node;
        onnx_edit_join_doubles(e);
        onnx_edit_drop_dead(e);
        e->changes += before > e->graph->n_node ? before - e->graph->n_node : 0;
    }
done:
    return st;
}
