/*
 * pickle.c - a pickle read as data: the steps that torch.save needs, and no others.
 *
 * A pickle is a program for a stack machine: steps push values, collect them into tuples,
 * lists and dictionaries, keep them in a numbered memo and call functions that they name.
 * Here a call makes a HF_PK_CALL of the function's name and its arguments, for names that
 * the reader of the file allows; any other name, and any step that is not in the table
 * below, is refused.  Protocol 2, as torch.save writes it.  Source: CPython, pickletools.
 *
 * What must hold:
 *   1. every step reads within the pickle, and takes from the stack only what is there;
 *   2. memory is in proportion to the pickle's size: a step makes at most one value, and an
 *      item is in one container for each step that put it there.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "hf/pickled_impl.h"

enum {
    VALUES_MAX = 1 << 20, /* a checkpoint of 1,000 tensors has 20,000 */
    GLOBAL_MAX = 256,
};

/* ---- the machine ---- */

struct machine {
    dr_arena *a;
    const unsigned char *p, *end;
    const char *where;
    const char *const *globals;
    size_t global_count;
    hf_pk **stack; /* owned; NULL: a mark */
    size_t depth, cap;
    hf_pk **memo; /* owned; NULL: not set */
    size_t memo_count;
    size_t made;
    bool stopped;
};

static dr_status damaged(const struct machine *m, const char *what)
{
    return dr_fail(DR_EFORMAT, "%s: pickle: %s", m->where, what);
}

static dr_status take(struct machine *m, const unsigned char **out, size_t n)
{
    if ((size_t)(m->end - m->p) < n)
        return damaged(m, "cut short");
    *out = m->p;
    m->p += n;
    return DR_OK;
}

static dr_status take_number(struct machine *m, uint64_t *out, int n)
{
    const unsigned char *p = NULL;
    dr_status st = take(m, &p, (size_t)n);

    *out = 0;
    while (st == DR_OK && n-- > 0)
        *out = *out << 8 | p[n];
    return st;
}

static dr_status push(struct machine *m, hf_pk *v)
{
    if (m->depth == m->cap) {
        m->cap = m->cap ? 2 * m->cap : 256;
        m->stack = dr_realloc(m->stack, m->cap, sizeof(*m->stack));
    }
    m->stack[m->depth++] = v;
    return DR_OK;
}

static dr_status push_new(struct machine *m, hf_pk **out, hf_pk_kind kind)
{
    if (++m->made > VALUES_MAX)
        return dr_fail(DR_EUNSUPPORTED, "%s: pickle: more than %d values", m->where,
                       VALUES_MAX);
    hf_pk *v = dr_arena_alloc(m->a, 1, sizeof(*v));
    v->kind = kind;
    *out = v;
    return push(m, v);
}

static dr_status push_number(struct machine *m, hf_pk_kind kind, int64_t number)
{
    hf_pk *v = NULL;
    dr_status st = push_new(m, &v, kind);

    if (st == DR_OK)
        v->number = number;
    return st;
}

static dr_status pop(struct machine *m, hf_pk **out)
{
    if (m->depth == 0 || m->stack[m->depth - 1] == NULL)
        return damaged(m, "a step takes a value where there is none");
    *out = m->stack[--m->depth];
    return DR_OK;
}

/* Appends to v's items; the list it grows out of stays in the arena. */
static void add_item(struct machine *m, hf_pk *v, const hf_pk *item)
{
    if (v->count == v->cap) {
        size_t cap = v->cap ? 2 * v->cap : 8;
        const hf_pk **items = dr_arena_alloc(m->a, cap, sizeof(hf_pk *));
        if (v->count > 0)
            memcpy(items, v->items, v->count * sizeof(hf_pk *));
        v->items = items;
        v->cap = cap;
    }
    v->items[v->count++] = item;
}

/* The values above the last mark go to v, in their order; the mark goes too. */
static void collect(struct machine *m, hf_pk *v, size_t from)
{
    for (size_t i = from; i < m->depth; i++)
        add_item(m, v, m->stack[i]);
    m->depth = from - 1;
}

/* *from: the place after the last mark. */
static dr_status find_mark(struct machine *m, size_t *from)
{
    size_t i = m->depth;

    while (i > 0 && m->stack[i - 1] != NULL)
        i--;
    *from = i;
    return i > 0 ? DR_OK : damaged(m, "a step takes values from a mark that is not there");
}

/* ---- steps ---- */

static dr_status step_proto(struct machine *m, int arg)
{
    uint64_t version = 0;
    dr_status st = take_number(m, &version, 1);

    (void)arg;
    if (st == DR_OK && version != 2)
        return dr_fail(DR_EUNSUPPORTED,
                       "%s: pickle: protocol %llu is not supported, only 2", m->where,
                       (unsigned long long)version);
    return st;
}

static dr_status step_stop(struct machine *m, int arg)
{
    (void)arg;
    m->stopped = true;
    return DR_OK;
}

static dr_status step_mark(struct machine *m, int arg)
{
    (void)arg;
    return push(m, NULL);
}

/* kind: of a value that is all said by its step; NEWTRUE has 1 << 8 beside it. */
static dr_status step_plain(struct machine *m, int arg)
{
    return push_number(m, (hf_pk_kind)(arg & 255), arg >> 8);
}

/* An unsigned number of 1 or 2 bytes, a signed one of 4. */
static dr_status step_int(struct machine *m, int bytes)
{
    uint64_t v = 0;
    dr_status st = take_number(m, &v, bytes);

    if (st != DR_OK)
        return st;
    return push_number(m, HF_PK_INT, bytes == 4 ? (int32_t)(uint32_t)v : (int64_t)v);
}

/* LONG1: a length in a byte, then two's complement. */
static dr_status step_long(struct machine *m, int arg)
{
    uint64_t n = 0, v = 0;
    dr_status st = take_number(m, &n, 1);

    (void)arg;
    if (st == DR_OK && n > 8)
        return dr_fail(DR_EUNSUPPORTED, "%s: pickle: a number of %llu bytes", m->where,
                       (unsigned long long)n);
    if (st == DR_OK)
        st = take_number(m, &v, (int)n);
    if (st != DR_OK)
        return st;
    if (n > 0 && n < 8 && (v >> (8 * n - 1)) != 0)
        v |= UINT64_MAX << 8 * n;
    return push_number(m, HF_PK_INT, (int64_t)v);
}

/* BINFLOAT: no value of a checkpoint is one, so its bits are not kept. */
static dr_status step_float(struct machine *m, int bytes)
{
    const unsigned char *p = NULL;
    dr_status st = take(m, &p, (size_t)bytes);

    return st == DR_OK ? push_number(m, HF_PK_FLOAT, 0) : st;
}

/* Text or bytes; its length stands in so many bytes before it. */
static dr_status step_text(struct machine *m, int length_bytes)
{
    const unsigned char *p = NULL;
    uint64_t n = 0;
    hf_pk *v = NULL;
    dr_status st = DR_OK;

    DR_TRY(take_number(m, &n, length_bytes));
    if (n > (uint64_t)(m->end - m->p))
        DR_FAIL(DR_EFORMAT, "%s: pickle: text of %llu bytes passes its end", m->where,
                (unsigned long long)n);
    DR_TRY(take(m, &p, (size_t)n));
    DR_TRY(push_new(m, &v, HF_PK_TEXT));
    v->text = dr_arena_strndup(m->a, (const char *)p, (size_t)n);
    v->length = (size_t)n;
done:
    return st;
}

/* A tuple of so many values; -1: of those above the mark. */
static dr_status step_tuple(struct machine *m, int count)
{
    hf_pk *v = NULL;
    size_t from = 0;
    dr_status st = DR_OK;

    if (count >= 0) {
        hf_pk *part[3] = {0};
        for (int i = count; i-- > 0;)
            DR_TRY(pop(m, &part[i]));
        DR_TRY(push_new(m, &v, HF_PK_TUPLE));
        for (int i = 0; i < count; i++)
            add_item(m, v, part[i]);
        goto done;
    }
    DR_TRY(find_mark(m, &from));
    DR_TRY(push_new(m, &v, HF_PK_TUPLE));
    m->depth--;
    collect(m, v, from);
    DR_TRY(push(m, v));
done:
    return st;
}

/* The container below the mark (or the last arg values) takes what is above. */
static dr_status step_fill(struct machine *m, int arg)
{
    hf_pk_kind kind = (hf_pk_kind)(arg & 255);
    size_t from = 0;
    dr_status st = DR_OK;

    if (arg >> 8 == 0) {
        DR_TRY(find_mark(m, &from));
    } else {
        hf_pk *part[2] = {0};
        for (int i = arg >> 8; i-- > 0;)
            DR_TRY(pop(m, &part[i]));
        DR_TRY(push(m, NULL));
        from = m->depth;
        for (int i = 0; i < arg >> 8; i++)
            DR_TRY(push(m, part[i]));
    }
    hf_pk *v = from >= 2 ? m->stack[from - 2] : NULL;
    if (v == NULL || v->kind != kind || (m->depth - from) % (kind == HF_PK_DICT ? 2 : 1))
        DR_FAIL(DR_EFORMAT, "%s: pickle: items for %s", m->where,
                v ? hf_pk_name(v) : "nothing");
    collect(m, v, from);
done:
    return st;
}

static dr_status memo_put(struct machine *m, uint64_t i)
{
    size_t most = (size_t)VALUES_MAX;

    if (m->depth == 0 || m->stack[m->depth - 1] == NULL)
        return damaged(m, "a step keeps a value where there is none");
    if (i >= most)
        return dr_fail(DR_EUNSUPPORTED, "%s: pickle: memo %llu, more than %zu", m->where,
                       (unsigned long long)i, most);
    if (i >= m->memo_count) {
        size_t n = m->memo_count ? m->memo_count : 256;
        while (n <= i)
            n *= 2;
        m->memo = dr_realloc(m->memo, n, sizeof(*m->memo));
        memset(m->memo + m->memo_count, 0, (n - m->memo_count) * sizeof(*m->memo));
        m->memo_count = n;
    }
    m->memo[i] = m->stack[m->depth - 1];
    return DR_OK;
}

static dr_status step_put(struct machine *m, int bytes)
{
    uint64_t i = 0;
    dr_status st = take_number(m, &i, bytes);

    return st == DR_OK ? memo_put(m, i) : st;
}

static dr_status step_get(struct machine *m, int bytes)
{
    uint64_t i = 0;
    dr_status st = take_number(m, &i, bytes);

    if (st != DR_OK)
        return st;
    if (i >= m->memo_count || m->memo[i] == NULL)
        return dr_fail(DR_EFORMAT, "%s: pickle: memo %llu was never set", m->where,
                       (unsigned long long)i);
    return push(m, m->memo[i]);
}

/* GLOBAL: two lines, module and name. */
static dr_status step_global(struct machine *m, int arg)
{
    char name[GLOBAL_MAX];
    size_t n = 0;
    int lines = 0;
    hf_pk *v = NULL;
    dr_status st = DR_OK;

    (void)arg;
    while (lines < 2) {
        const unsigned char *p = NULL;
        DR_TRY(take(m, &p, 1));
        lines += *p == '\n';
        if (n + 1 == sizeof(name) || (*p < 0x20 && *p != '\n') || *p > 0x7e)
            DR_FAIL(DR_EUNSUPPORTED, "%s: pickle: a global with an odd name", m->where);
        name[n++] = (char)*p;
    }
    name[n - 1] = '\0';
    *strchr(name, '\n') = ' ';
    for (size_t i = 0; i < m->global_count; i++) {
        if (strcmp(name, m->globals[i]) != 0)
            continue;
        DR_TRY(push_new(m, &v, HF_PK_GLOBAL));
        v->text = m->globals[i];
        v->length = strlen(v->text);
        goto done;
    }
    *strchr(name, ' ') = '.';
    st = dr_fail(DR_EUNSUPPORTED, "%s: pickle: global %s is not allowed", m->where, name);
    dr_hint("only tensors are read, and nothing is run; save the model's state_dict alone, "
            "or as safetensors");
done:
    return st;
}

static dr_status step_persistent(struct machine *m, int arg)
{
    hf_pk *id = NULL, *v = NULL;
    dr_status st = DR_OK;

    (void)arg;
    DR_TRY(pop(m, &id));
    DR_TRY(push_new(m, &v, HF_PK_PERSISTENT));
    add_item(m, v, id);
done:
    return st;
}

/* REDUCE: global, arguments. */
static dr_status step_call(struct machine *m, int arg)
{
    hf_pk *args = NULL, *global = NULL, *v = NULL;
    dr_status st = DR_OK;

    (void)arg;
    DR_TRY(pop(m, &args));
    DR_TRY(pop(m, &global));
    if (global->kind != HF_PK_GLOBAL || args->kind != HF_PK_TUPLE)
        DR_FAIL(DR_EFORMAT, "%s: pickle: %s called with %s", m->where, hf_pk_name(global),
                hf_pk_name(args));
    if (strcmp(global->text, "collections OrderedDict") == 0) {
        if (args->count > 0)
            DR_FAIL(DR_EUNSUPPORTED, "%s: pickle: an OrderedDict made of arguments",
                    m->where);
        DR_TRY(push_new(m, &v, HF_PK_DICT));
        goto done;
    }
    DR_TRY(push_new(m, &v, HF_PK_CALL));
    add_item(m, v, global);
    add_item(m, v, args);
done:
    return st;
}

/* BUILD: attributes of an object; a state_dict has its _metadata there. */
static dr_status step_build(struct machine *m, int arg)
{
    hf_pk *state = NULL, *v = NULL;
    dr_status st = DR_OK;

    (void)arg;
    DR_TRY(pop(m, &state));
    DR_TRY(pop(m, &v));
    if (v->kind != HF_PK_DICT || state->kind != HF_PK_DICT)
        DR_FAIL(DR_EUNSUPPORTED, "%s: pickle: attributes of %s are not supported", m->where,
                hf_pk_name(v));
    DR_TRY(push(m, v));
done:
    return st;
}

/* ---- the table ---- */

#define PAIRS (HF_PK_DICT | 2 << 8)
#define ONE   (HF_PK_LIST | 1 << 8)

/* All steps that there are, so that those not taken can be named. */
static const struct {
    const char *name;
    dr_status (*run)(struct machine *m, int arg);
    int arg;
} steps[256] = {
    ['('] = {"MARK", step_mark, 0},
    ['.'] = {"STOP", step_stop, 0},
    ['0'] = {"POP", NULL, 0},
    ['1'] = {"POP_MARK", NULL, 0},
    ['2'] = {"DUP", NULL, 0},
    ['F'] = {"FLOAT", NULL, 0},
    ['I'] = {"INT", NULL, 0},
    ['J'] = {"BININT", step_int, 4},
    ['K'] = {"BININT1", step_int, 1},
    ['L'] = {"LONG", NULL, 0},
    ['M'] = {"BININT2", step_int, 2},
    ['N'] = {"NONE", step_plain, HF_PK_NONE},
    ['P'] = {"PERSID", NULL, 0},
    ['Q'] = {"BINPERSID", step_persistent, 0},
    ['R'] = {"REDUCE", step_call, 0},
    ['S'] = {"STRING", NULL, 0},
    ['T'] = {"BINSTRING", step_text, 4},
    ['U'] = {"SHORT_BINSTRING", step_text, 1},
    ['V'] = {"UNICODE", NULL, 0},
    ['X'] = {"BINUNICODE", step_text, 4},
    ['a'] = {"APPEND", step_fill, ONE},
    ['b'] = {"BUILD", step_build, 0},
    ['c'] = {"GLOBAL", step_global, 0},
    ['d'] = {"DICT", NULL, 0},
    ['}'] = {"EMPTY_DICT", step_plain, HF_PK_DICT},
    ['e'] = {"APPENDS", step_fill, HF_PK_LIST},
    ['g'] = {"GET", NULL, 0},
    ['h'] = {"BINGET", step_get, 1},
    ['i'] = {"INST", NULL, 0},
    ['j'] = {"LONG_BINGET", step_get, 4},
    ['l'] = {"LIST", NULL, 0},
    [']'] = {"EMPTY_LIST", step_plain, HF_PK_LIST},
    ['o'] = {"OBJ", NULL, 0},
    ['p'] = {"PUT", NULL, 0},
    ['q'] = {"BINPUT", step_put, 1},
    ['r'] = {"LONG_BINPUT", step_put, 4},
    ['s'] = {"SETITEM", step_fill, PAIRS},
    ['t'] = {"TUPLE", step_tuple, -1},
    [')'] = {"EMPTY_TUPLE", step_tuple, 0},
    ['u'] = {"SETITEMS", step_fill, HF_PK_DICT},
    ['G'] = {"BINFLOAT", step_float, 8},
    [0x80] = {"PROTO", step_proto, 0},
    [0x81] = {"NEWOBJ", NULL, 0},
    [0x82] = {"EXT1", NULL, 0},
    [0x83] = {"EXT2", NULL, 0},
    [0x84] = {"EXT4", NULL, 0},
    [0x85] = {"TUPLE1", step_tuple, 1},
    [0x86] = {"TUPLE2", step_tuple, 2},
    [0x87] = {"TUPLE3", step_tuple, 3},
    [0x88] = {"NEWTRUE", step_plain, HF_PK_BOOL | 1 << 8},
    [0x89] = {"NEWFALSE", step_plain, HF_PK_BOOL},
    [0x8a] = {"LONG1", step_long, 0},
    [0x8b] = {"LONG4", NULL, 0},
};

static dr_status run(struct machine *m)
{
    dr_status st = DR_OK;

    while (!m->stopped) {
        const unsigned char *p = NULL;
        DR_TRY(take(m, &p, 1));
        if (steps[*p].name == NULL)
            DR_FAIL(DR_EUNSUPPORTED, "%s: pickle: step 0x%02x is not allowed", m->where,
                    *p);
        if (steps[*p].run == NULL)
            DR_FAIL(DR_EUNSUPPORTED, "%s: pickle: step %s is not allowed", m->where,
                    steps[*p].name);
        DR_TRY(steps[*p].run(m, steps[*p].arg));
    }
done:
    return st;
}

dr_status hf_pickle_read(dr_arena *a, const hf_pk **out, const unsigned char *data,
                         size_t size, const char *const *globals, size_t global_count,
                         const char *where)
{
    struct machine m = {.a = a,
                        .p = data,
                        .end = data + size,
                        .where = where,
                        .globals = globals,
                        .global_count = global_count};
    hf_pk *v = NULL;
    dr_status st = DR_OK;

    *out = NULL;
    DR_TRY(run(&m));
    DR_TRY(pop(&m, &v));
    if (m.depth > 0)
        DR_TRY(damaged(&m, "more than one value is left"));
    if (m.p != m.end)
        DR_FAIL(DR_EFORMAT, "%s: pickle: %zu bytes after its end", where,
                (size_t)(m.end - m.p));
    *out = v;
done:
    free(m.stack);
    free(m.memo);
    return st;
}

const char *hf_pk_name(const hf_pk *v)
{
    static const char *const names[HF_PK_KINDS] = {
        [HF_PK_NONE] = "none",
        [HF_PK_BOOL] = "a truth value",
        [HF_PK_INT] = "a number",
        [HF_PK_FLOAT] = "a real number",
        [HF_PK_TEXT] = "text",
        [HF_PK_TUPLE] = "a tuple",
        [HF_PK_LIST] = "a list",
        [HF_PK_DICT] = "a dictionary",
        [HF_PK_GLOBAL] = "a global",
        [HF_PK_CALL] = "an object",
        [HF_PK_PERSISTENT] = "a storage",
    };

    return names[v->kind];
}
