/*
 * jinja_value.c - the values of templates: making, comparing, walking them.
 *
 * Truth, equality, order and iteration are Python's, for the types that a template can
 * have; integers are of 64 bits.  Memory is the rendering's arena and is counted, since a
 * template can double a string in a loop.
 */
#include <string.h>

#include "tok/jinja_impl.h"
#include "tok/tok_impl.h"

/* ---- making ---- */

jinja_value jinja_undefined(jinja_text name)
{
    return (jinja_value){.type = JINJA_UNDEFINED, .u.text = name};
}

jinja_value jinja_bool(bool b)
{
    return (jinja_value){.type = JINJA_BOOL, .u.truth = b};
}

jinja_value jinja_int(int64_t i)
{
    return (jinja_value){.type = JINJA_INT, .u.integer = i};
}

jinja_value jinja_real(double f)
{
    return (jinja_value){.type = JINJA_FLOAT, .u.real = f};
}

jinja_value jinja_string(jinja_text t)
{
    return (jinja_value){.type = JINJA_STRING, .u.text = t};
}

jinja_value jinja_literal(const char *s)
{
    return jinja_string((jinja_text){s, strlen(s)});
}

dr_status jinja_alloc(jinja *j, void *out, size_t count, size_t size)
{
    size_t bytes = count * size;
    void *p = NULL;

    if (bytes > JINJA_BYTES_MAX || j->bytes + bytes > JINJA_BYTES_MAX)
        return dr_fail(DR_EFORMAT, "chat template line %d: more than %d MiB of values",
                       j->line, JINJA_BYTES_MAX >> 20);
    j->bytes += bytes + 16;
    p = dr_arena_alloc(j->arena, count, size);
    memcpy(out, &p, sizeof(p));
    return DR_OK;
}

dr_status jinja_copy(jinja *j, jinja_text *out, const char *s, size_t n)
{
    char *p = NULL;
    dr_status st = DR_OK;

    DR_TRY(jinja_alloc(j, &p, n, 1));
    if (n > 0)
        memcpy(p, s, n);
    *out = (jinja_text){p, n};
done:
    return st;
}

dr_status jinja_list_new(jinja *j, jinja_list **out, size_t cap)
{
    dr_status st = DR_OK;

    DR_TRY(jinja_alloc(j, out, 1, sizeof(jinja_list)));
    DR_TRY(jinja_alloc(j, &(*out)->v, cap, sizeof(jinja_value)));
    (*out)->cap = cap;
done:
    return st;
}

dr_status jinja_list_add(jinja *j, jinja_list *l, jinja_value v)
{
    jinja_value *grown = NULL;
    size_t cap = l->cap ? l->cap * 2 : 8;
    dr_status st = DR_OK;

    if (l->count == l->cap) {
        DR_TRY(jinja_alloc(j, &grown, cap, sizeof(*grown)));
        if (l->count > 0)
            memcpy(grown, l->v, l->count * sizeof(*grown));
        l->v = grown;
        l->cap = cap;
    }
    l->v[l->count++] = v;
done:
    return st;
}

dr_status jinja_dict_new(jinja *j, jinja_dict **out)
{
    return jinja_alloc(j, out, 1, sizeof(jinja_dict));
}

dr_status jinja_dict_set(jinja *j, jinja_dict *d, jinja_value key, jinja_value value)
{
    const jinja_value *old = NULL;
    jinja_value *keys = NULL, *values = NULL;
    size_t cap = d->cap ? d->cap * 2 : 8;
    dr_status st = DR_OK;

    DR_TRY(jinja_dict_find(j, d, &key, &old));
    if (old != NULL) {
        d->values[old - d->values] = value;
        return DR_OK;
    }
    if (d->count == d->cap) {
        DR_TRY(jinja_alloc(j, &keys, cap, sizeof(*keys)));
        DR_TRY(jinja_alloc(j, &values, cap, sizeof(*values)));
        if (d->count > 0) {
            memcpy(keys, d->keys, d->count * sizeof(*keys));
            memcpy(values, d->values, d->count * sizeof(*values));
        }
        d->keys = keys;
        d->values = values;
        d->cap = cap;
    }
    d->keys[d->count] = key;
    d->values[d->count++] = value;
done:
    return st;
}

dr_status jinja_dict_find(jinja *j, const jinja_dict *d, const jinja_value *key,
                          const jinja_value **out)
{
    bool same = false;
    dr_status st = DR_OK;

    *out = NULL;
    for (size_t i = 0; i < d->count && *out == NULL; i++) {
        DR_TRY(jinja_equal(j, &same, &d->keys[i], key, 0));
        if (same)
            *out = &d->values[i];
    }
done:
    return st;
}

dr_status jinja_check_key(const jinja *j, const jinja_value *key)
{
    dr_status st = DR_OK;

    if (key->type == JINJA_DICT || (key->type == JINJA_LIST && !key->u.list->range))
        DR_FAIL(DR_EFORMAT, "chat template line %d: %s as a key", j->line,
                jinja_type_name(key));
    if (key->type == JINJA_TUPLE)
        for (size_t i = 0; i < key->u.list->count; i++)
            if (key->u.list->v[i].type != JINJA_TUPLE) /* tuples in tuples: not looked at */
                DR_TRY(jinja_check_key(j, &key->u.list->v[i]));
done:
    return st;
}

const jinja_value *jinja_dict_text(const jinja_dict *d, const char *key)
{
    for (size_t i = 0; i < d->count; i++)
        if (d->keys[i].type == JINJA_STRING && jinja_is(d->keys[i].u.text, key))
            return &d->values[i];
    return NULL;
}

static dr_status from_array(jinja *j, jinja_value *out, const json_t *v, int depth)
{
    const json_t *item = NULL;
    size_t i = 0;
    jinja_value x = {0};
    dr_status st = DR_OK;

    out->type = JINJA_LIST;
    DR_TRY(jinja_list_new(j, &out->u.list, json_array_size(v)));
    json_array_foreach(v, i, item)
    {
        DR_TRY(jinja_from_json(j, &x, item, depth + 1));
        DR_TRY(jinja_list_add(j, out->u.list, x));
    }
done:
    return st;
}

static dr_status from_object(jinja *j, jinja_value *out, const json_t *v, int depth)
{
    const char *key = NULL;
    json_t *item = NULL;
    jinja_text name = {0};
    jinja_value x = {0};
    dr_status st = DR_OK;

    out->type = JINJA_DICT;
    DR_TRY(jinja_dict_new(j, &out->u.dict));
    json_object_foreach((json_t *)(uintptr_t)v, key, item)
    {
        DR_TRY(jinja_copy(j, &name, key, strlen(key)));
        DR_TRY(jinja_from_json(j, &x, item, depth + 1));
        DR_TRY(jinja_dict_set(j, out->u.dict, jinja_string(name), x));
    }
done:
    return st;
}

dr_status jinja_from_json(jinja *j, jinja_value *out, const json_t *v, int depth)
{
    dr_status st = DR_OK;

    *out = (jinja_value){.type = JINJA_NONE};
    if (depth > JINJA_DEPTH_MAX)
        DR_FAIL(DR_EFORMAT, "chat messages nest deeper than %d", JINJA_DEPTH_MAX);
    if (json_is_object(v))
        return from_object(j, out, v, depth);
    if (json_is_array(v))
        return from_array(j, out, v, depth);
    if (json_is_string(v)) {
        out->type = JINJA_STRING;
        return jinja_copy(j, &out->u.text, json_string_value(v), json_string_length(v));
    }
    if (json_is_integer(v))
        *out = jinja_int((int64_t)json_integer_value(v));
    else if (json_is_real(v))
        *out = jinja_real(json_real_value(v));
    else if (json_is_boolean(v))
        *out = jinja_bool(json_is_true(v));
done:
    return st;
}

/* ---- asking ---- */

bool jinja_is(jinja_text t, const char *s)
{
    return strlen(s) == t.n && memcmp(t.s, s, t.n) == 0;
}

bool jinja_same_text(jinja_text a, jinja_text b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.s, b.s, a.n) == 0);
}

size_t jinja_chars(jinja_text t)
{
    size_t count = 0;

    for (size_t i = 0; i < t.n; i++)
        count += ((unsigned char)t.s[i] & 0xC0) != 0x80;
    return count;
}

bool jinja_space(uint32_t cp)
{
    return tok_is_space(cp) || (cp >= 0x1C && cp <= 0x1F);
}

const char *jinja_type_name(const jinja_value *v)
{
    static const char *const names[] = {
        [JINJA_UNDEFINED] = "an undefined value",
        [JINJA_NONE] = "None",
        [JINJA_BOOL] = "a bool",
        [JINJA_INT] = "an int",
        [JINJA_FLOAT] = "a float",
        [JINJA_STRING] = "a string",
        [JINJA_LIST] = "a list",
        [JINJA_TUPLE] = "a tuple",
        [JINJA_DICT] = "a dict",
        [JINJA_NAMESPACE] = "a namespace",
        [JINJA_LOOP] = "a loop",
        [JINJA_FUNCTION] = "a function",
        [JINJA_MACRO] = "a macro",
    };
    if (v->type == JINJA_LIST && v->u.list->range)
        return "a range";
    return names[v->type];
}

bool jinja_truth(const jinja_value *v)
{
    switch (v->type) {
    case JINJA_UNDEFINED:
    case JINJA_NONE:
        return false;
    case JINJA_BOOL:
        return v->u.truth;
    case JINJA_INT:
        return v->u.integer != 0;
    case JINJA_FLOAT:
        return v->u.real < 0.0 || v->u.real > 0.0 || v->u.real != v->u.real;
    case JINJA_STRING:
        return v->u.text.n > 0;
    case JINJA_LIST:
    case JINJA_TUPLE:
        return v->u.list->count > 0 || v->u.list->lazy;
    case JINJA_DICT:
        return v->u.dict->count > 0;
    case JINJA_NAMESPACE:
    case JINJA_LOOP:
    case JINJA_FUNCTION:
    case JINJA_MACRO:
    default:
        return true;
    }
}

bool jinja_is_number(const jinja_value *v)
{
    return v->type == JINJA_BOOL || v->type == JINJA_INT || v->type == JINJA_FLOAT;
}

double jinja_number(const jinja_value *v)
{
    return v->type == JINJA_FLOAT ? v->u.real
           : v->type == JINJA_INT ? (double)v->u.integer
                                  : (double)v->u.truth;
}

/* ---- comparing ---- */

static bool is_sequence(const jinja_value *v)
{
    return v->type == JINJA_LIST || v->type == JINJA_TUPLE;
}

/* -1, 0, 1; 2 when one is NaN.  Integers are compared as such. */
static int number_order(const jinja_value *a, const jinja_value *b)
{
    if (a->type != JINJA_FLOAT && b->type != JINJA_FLOAT) {
        const int64_t x = a->type == JINJA_INT ? a->u.integer : a->u.truth;
        const int64_t y = b->type == JINJA_INT ? b->u.integer : b->u.truth;
        return (x > y) - (x < y);
    }
    const double x = jinja_number(a), y = jinja_number(b);
    return x != x || y != y ? 2 : (x > y) - (x < y);
}

static dr_status equal_lists(jinja *j, bool *out, const jinja_list *a, const jinja_list *b,
                             int depth)
{
    dr_status st = DR_OK;

    *out = a->count == b->count && a->range == b->range;
    for (size_t i = 0; i < a->count && *out; i++)
        DR_TRY(jinja_equal(j, out, &a->v[i], &b->v[i], depth + 1));
done:
    return st;
}

static dr_status equal_dicts(jinja *j, bool *out, const jinja_dict *a, const jinja_dict *b,
                             int depth)
{
    const jinja_value *other = NULL;
    dr_status st = DR_OK;

    *out = a->count == b->count;
    for (size_t i = 0; i < a->count && *out; i++) {
        DR_TRY(jinja_dict_find(j, b, &a->keys[i], &other));
        *out = other != NULL;
        if (*out)
            DR_TRY(jinja_equal(j, out, &a->values[i], other, depth + 1));
    }
done:
    return st;
}

dr_status jinja_equal(jinja *j, bool *out, const jinja_value *a, const jinja_value *b,
                      int depth)
{
    dr_status st = DR_OK;

    *out = false;
    DR_TRY(jinja_step(j, 1));
    if (depth > JINJA_DEPTH_MAX)
        DR_FAIL(DR_EFORMAT, "chat template line %d: values nest deeper than %d", j->line,
                JINJA_DEPTH_MAX);
    if (jinja_is_number(a) && jinja_is_number(b)) {
        *out = number_order(a, b) == 0;
    } else if (is_sequence(a) && a->type == b->type) {
        st = equal_lists(j, out, a->u.list, b->u.list, depth);
    } else if (a->type != b->type) {
        *out = false;
    } else if (a->type == JINJA_STRING || a->type == JINJA_FUNCTION) {
        *out = jinja_same_text(a->u.text, b->u.text);
        st = jinja_step(j, a->u.text.n == b->u.text.n ? a->u.text.n / 256 : 0);
    } else if (a->type == JINJA_DICT) {
        st = equal_dicts(j, out, a->u.dict, b->u.dict, depth);
    } else if (a->type == JINJA_UNDEFINED || a->type == JINJA_NONE) {
        *out = true;
    } else {
        *out = a->u.dict == b->u.dict; /* one and the same */
    }
done:
    return st;
}

dr_status jinja_order(jinja *j, int *out, const jinja_value *a, const jinja_value *b,
                      int depth)
{
    bool same = false;
    dr_status st = DR_OK;

    DR_TRY(jinja_step(j, 1));
    if (depth > JINJA_DEPTH_MAX)
        DR_FAIL(DR_EFORMAT, "chat template line %d: values nest deeper than %d", j->line,
                JINJA_DEPTH_MAX);
    if (jinja_is_number(a) && jinja_is_number(b)) {
        *out = number_order(a, b);
    } else if (a->type == JINJA_STRING && b->type == JINJA_STRING) {
        const size_t n = a->u.text.n < b->u.text.n ? a->u.text.n : b->u.text.n;
        const int c = n > 0 ? memcmp(a->u.text.s, b->u.text.s, n) : 0;
        DR_TRY(jinja_step(j, n / 256));
        *out = c != 0 ? (c > 0) - (c < 0)
                      : (a->u.text.n > b->u.text.n) - (a->u.text.n < b->u.text.n);
    } else if (is_sequence(a) && a->type == b->type && !a->u.list->range &&
               !b->u.list->range) {
        const jinja_list *x = a->u.list, *y = b->u.list;
        for (size_t i = 0; i < x->count && i < y->count; i++) {
            DR_TRY(jinja_equal(j, &same, &x->v[i], &y->v[i], depth + 1));
            if (!same)
                return jinja_order(j, out, &x->v[i], &y->v[i], depth + 1);
        }
        *out = (x->count > y->count) - (x->count < y->count);
    } else {
        DR_FAIL(DR_EFORMAT, "chat template line %d: %s and %s have no order", j->line,
                jinja_type_name(a), jinja_type_name(b));
    }
done:
    return st;
}

/* ---- walking ---- */

static dr_status characters(jinja *j, jinja_list *l, jinja_text t)
{
    uint32_t cp = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < t.n;) {
        const size_t n = tok_utf8_get(t.s + i, t.n - i, &cp);
        DR_TRY(jinja_list_add(j, l, jinja_string((jinja_text){t.s + i, n})));
        i += n;
    }
done:
    return st;
}

dr_status jinja_iterate(jinja *j, const jinja_list **out, const jinja_value *v)
{
    jinja_list *l = NULL;
    dr_status st = DR_OK;

    if (is_sequence(v) && !v->u.list->spent) {
        v->u.list->spent = v->u.list->lazy;
        *out = v->u.list;
        return DR_OK;
    }
    DR_TRY(jinja_list_new(j, &l, v->type == JINJA_DICT ? v->u.dict->count : 0));
    if (v->type == JINJA_DICT)
        for (size_t i = 0; i < v->u.dict->count; i++)
            DR_TRY(jinja_list_add(j, l, v->u.dict->keys[i]));
    else if (v->type == JINJA_STRING)
        DR_TRY(characters(j, l, v->u.text));
    else if (v->type != JINJA_UNDEFINED && !is_sequence(v))
        DR_FAIL(DR_EFORMAT, "chat template line %d: %s is not iterable", j->line,
                jinja_type_name(v));
    DR_TRY(jinja_step(j, l->count));
    *out = l;
done:
    return st;
}
