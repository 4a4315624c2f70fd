/*
 * jinja_ops.c - operators, indexing and slices, with Python's rules for the types that
 * templates have.  Integers that leave 64 bits are an error.
 */
#include <math.h>
#include <string.h>

#include "tok/jinja_impl.h"
#include "tok/tok_impl.h"

static bool is_sequence(const jinja_value *v)
{
    return v->type == JINJA_LIST || v->type == JINJA_TUPLE;
}

/* A list or tuple, and not what range() or a filter makes. */
static bool is_plain(const jinja_value *v)
{
    return is_sequence(v) && !v->u.list->lazy && !v->u.list->range;
}

static bool is_whole(const jinja_value *v)
{
    return v->type == JINJA_INT || v->type == JINJA_BOOL;
}

static int64_t whole(const jinja_value *v)
{
    return v->type == JINJA_INT ? v->u.integer : v->u.truth;
}

/* ---- arithmetic ---- */

static dr_status mismatch(const jinja *j, jinja_text op, const jinja_value *a,
                          const jinja_value *b)
{
    const jinja_value *u = a->type == JINJA_UNDEFINED ? a : b;

    if (u->type == JINJA_UNDEFINED)
        return dr_fail(DR_EFORMAT, "chat template line %d: \"%.*s\" is undefined", j->line,
                       (int)u->u.text.n, u->u.text.s);
    return dr_fail(DR_EFORMAT, "chat template line %d: %s %.*s %s", j->line,
                   jinja_type_name(a), (int)op.n, op.s, jinja_type_name(b));
}

static dr_status concatenate(jinja *j, jinja_value *out, jinja_text a, jinja_text b)
{
    char *s = NULL;
    dr_status st = DR_OK;

    if (a.n + b.n > JINJA_OUTPUT_MAX)
        DR_FAIL(DR_EFORMAT, "chat template line %d: a string of %zu bytes", j->line,
                a.n + b.n);
    DR_TRY(jinja_alloc(j, &s, a.n + b.n, 1));
    if (a.n > 0)
        memcpy(s, a.s, a.n);
    if (b.n > 0)
        memcpy(s + a.n, b.s, b.n);
    *out = jinja_string((jinja_text){s, a.n + b.n});
done:
    return st;
}

static dr_status join_lists(jinja *j, jinja_value *out, const jinja_value *a,
                            const jinja_value *b)
{
    jinja_list *l = NULL;
    dr_status st = DR_OK;

    DR_TRY(jinja_list_new(j, &l, a->u.list->count + b->u.list->count));
    for (size_t i = 0; i < a->u.list->count; i++)
        DR_TRY(jinja_list_add(j, l, a->u.list->v[i]));
    for (size_t i = 0; i < b->u.list->count; i++)
        DR_TRY(jinja_list_add(j, l, b->u.list->v[i]));
    *out = (jinja_value){.type = a->type, .u.list = l};
done:
    return st;
}

/* "ab" * 3 and [x] * 3. */
static dr_status repeat(jinja *j, jinja_value *out, const jinja_value *v, int64_t times)
{
    const bool text = v->type == JINJA_STRING;
    const size_t count = times > 0 ? (size_t)times : 0;
    const size_t n = text ? v->u.text.n : v->u.list->count;
    size_t total = 0;
    char *s = NULL;
    dr_status st = DR_OK;

    if (__builtin_mul_overflow(n, count, &total) || total > JINJA_OUTPUT_MAX)
        DR_FAIL(DR_EFORMAT, "chat template line %d: %s times %lld", j->line,
                jinja_type_name(v), (long long)times);
    DR_TRY(jinja_step(j, n > 0 ? count : 0));
    if (text) {
        DR_TRY(jinja_alloc(j, &s, total, 1));
        for (size_t i = 0; n > 0 && i < count; i++)
            memcpy(s + i * n, v->u.text.s, n);
        *out = jinja_string((jinja_text){s, total});
        return DR_OK;
    }
    *out = (jinja_value){.type = v->type};
    DR_TRY(jinja_list_new(j, &out->u.list, total));
    for (size_t i = 0; i < total; i++)
        DR_TRY(jinja_list_add(j, out->u.list, v->u.list->v[i % n]));
done:
    return st;
}

/* Whole numbers under + - * // % **; false: the result does not fit. */
static bool whole_result(int64_t *out, jinja_text op, int64_t a, int64_t b)
{
    if (jinja_is(op, "+"))
        return !__builtin_add_overflow(a, b, out);
    if (jinja_is(op, "-"))
        return !__builtin_sub_overflow(a, b, out);
    if (jinja_is(op, "*"))
        return !__builtin_mul_overflow(a, b, out);
    if (jinja_is(op, "**")) {
        *out = 1;
        if (a >= -1 && a <= 1) {
            *out = b == 0 ? 1 : a == -1 && b % 2 == 0 ? 1 : a;
            return true;
        }
        for (int64_t i = 0; i < b; i++)
            if (__builtin_mul_overflow(*out, a, out))
                return false;
        return true;
    }
    if (a == INT64_MIN && b == -1) {
        *out = 0;
        return jinja_is(op, "%");
    }
    const int64_t quotient = a / b - (a % b != 0 && (a < 0) != (b < 0));
    *out = jinja_is(op, "//") ? quotient : a - quotient * b;
    return true;
}

/* The remainder has the divisor's sign, also when it is zero. */
static double python_mod(double a, double b)
{
    const double r = fmod(a, b);

    if (r < 0.0 || r > 0.0)
        return (r < 0.0) != (b < 0.0) ? r + b : r;
    return copysign(0.0, b);
}

static double python_floor_div(double a, double b)
{
    const double quotient = (a - python_mod(a, b)) / b, whole_part = floor(quotient);

    if (!(quotient < 0.0 || quotient > 0.0))
        return copysign(0.0, a / b);
    return quotient - whole_part > 0.5 ? whole_part + 1.0 : whole_part;
}

static dr_status real_result(const jinja *j, jinja_value *out, jinja_text op, double a,
                             double b)
{
    const char *const known[] = {"+", "-", "*", "/", "//", "%", "**"};
    size_t k = 0;
    double r = 0.0;

    while (k < DR_COUNT(known) && !jinja_is(op, known[k]))
        k++;
    if (k >= 3 && k <= 5 && !(b < 0.0 || b > 0.0))
        return dr_fail(DR_EFORMAT, "chat template line %d: division by zero", j->line);
    switch (k) {
    case 0:
        r = a + b;
        break;
    case 1:
        r = a - b;
        break;
    case 2:
        r = a * b;
        break;
    case 3:
        r = a / b;
        break;
    case 4:
        r = python_floor_div(a, b);
        break;
    case 5:
        r = python_mod(a, b);
        break;
    default:
        r = pow(a, b);
    }
    *out = jinja_real(r);
    return DR_OK;
}

static dr_status number_result(const jinja *j, jinja_value *out, jinja_text op,
                               const jinja_value *a, const jinja_value *b)
{
    const bool divides = jinja_is(op, "/");
    const bool power = jinja_is(op, "**") && is_whole(b) && whole(b) < 0;
    int64_t r = 0;

    if (!is_whole(a) || !is_whole(b) || divides || power)
        return real_result(j, out, op, jinja_number(a), jinja_number(b));
    if ((jinja_is(op, "//") || jinja_is(op, "%")) && whole(b) == 0)
        return dr_fail(DR_EFORMAT, "chat template line %d: division by zero", j->line);
    if (!whole_result(&r, op, whole(a), whole(b)))
        return dr_fail(DR_EUNSUPPORTED, "chat template line %d: an integer beyond 64 bits",
                       j->line);
    *out = jinja_int(r);
    return DR_OK;
}

dr_status jinja_binary(jinja *j, jinja_value *out, jinja_text op, const jinja_value *a,
                       const jinja_value *b)
{
    jinja_text x = {0}, y = {0};
    dr_status st = DR_OK;

    if (jinja_is(op, "~")) {
        DR_TRY(jinja_str(j, &x, a));
        DR_TRY(jinja_str(j, &y, b));
        return concatenate(j, out, x, y);
    }
    if (jinja_is_number(a) && jinja_is_number(b))
        return number_result(j, out, op, a, b);
    if (jinja_is(op, "+") && a->type == JINJA_STRING && b->type == JINJA_STRING)
        return concatenate(j, out, a->u.text, b->u.text);
    if (jinja_is(op, "+") && is_plain(a) && is_plain(b) && a->type == b->type)
        return join_lists(j, out, a, b);
    if (jinja_is(op, "*") && is_whole(b) && (is_plain(a) || a->type == JINJA_STRING))
        return repeat(j, out, a, whole(b));
    if (jinja_is(op, "*") && is_whole(a) && (is_plain(b) || b->type == JINJA_STRING))
        return repeat(j, out, b, whole(a));
    if (jinja_is(op, "%") && a->type == JINJA_STRING)
        DR_FAIL(DR_EUNSUPPORTED, "chat template line %d: formatting a string with %%",
                j->line);
    return mismatch(j, op, a, b);
done:
    return st;
}

/* ---- comparison ---- */

static dr_status contains(jinja *j, bool *out, const jinja_value *item,
                          const jinja_value *in)
{
    const jinja_value *found = NULL;
    const jinja_list *items = NULL;
    dr_status st = DR_OK;

    *out = false;
    if (in->type == JINJA_DICT) {
        DR_TRY(jinja_check_key(j, item));
        DR_TRY(jinja_dict_find(j, in->u.dict, item, &found));
        *out = found != NULL;
        return DR_OK;
    }
    if (in->type == JINJA_STRING) {
        if (item->type != JINJA_STRING)
            return mismatch(j, (jinja_text){"in", 2}, item, in);
        *out = item->u.text.n == 0 ||
               memmem(in->u.text.s, in->u.text.n, item->u.text.s, item->u.text.n) != NULL;
        return jinja_step(j, in->u.text.n / 256);
    }
    DR_TRY(jinja_iterate(j, &items, in));
    for (size_t i = 0; i < items->count && !*out; i++)
        DR_TRY(jinja_equal(j, out, &items->v[i], item, 0));
done:
    return st;
}

dr_status jinja_compare(jinja *j, bool *out, jinja_text op, const jinja_value *a,
                        const jinja_value *b)
{
    int order = 0;
    dr_status st = DR_OK;

    if (jinja_is(op, "in") || jinja_is(op, "not")) {
        DR_TRY(contains(j, out, a, b));
        *out = *out == jinja_is(op, "in");
    } else if (jinja_is(op, "==") || jinja_is(op, "!=")) {
        DR_TRY(jinja_equal(j, out, a, b, 0));
        *out = *out == jinja_is(op, "==");
    } else {
        DR_TRY(jinja_order(j, &order, a, b, 0));
        *out = order != 2 && ((op.s[0] == '<' && order < 0) ||
                              (op.s[0] == '>' && order > 0) || (op.n == 2 && order == 0));
    }
done:
    return st;
}

/* ---- places ---- */

static jinja_value item_or_undefined(const jinja_list *l, size_t i, const char *name)
{
    return i < l->count ? l->v[i] : jinja_undefined((jinja_text){name, strlen(name)});
}

/* d.items is Python's method, even where d has a key "items"; d['items'] is the key. */
static bool dict_method(jinja_text name)
{
    static const char *const names[] = {"items", "keys", "values", "get"};

    for (size_t i = 0; i < DR_COUNT(names); i++)
        if (jinja_is(name, names[i]))
            return true;
    return false;
}

static jinja_value loop_attr(const jinja_loop *loop, jinja_text name)
{
    const size_t at = loop->at, count = loop->items->count;
    const struct {
        const char *name;
        size_t value;
    } numbers[] = {
        {"index", at + 1},
        {"index0", at},
        {"length", count},
        {"revindex", count - at},
        {"revindex0", count - at - 1},
        {"depth", 1}, /* only recursive loops go deeper */
        {"depth0", 0},
    };

    for (size_t i = 0; i < DR_COUNT(numbers); i++)
        if (jinja_is(name, numbers[i].name))
            return jinja_int((int64_t)numbers[i].value);
    if (jinja_is(name, "first"))
        return jinja_bool(at == 0);
    if (jinja_is(name, "last"))
        return jinja_bool(at + 1 == count);
    if (jinja_is(name, "previtem"))
        return item_or_undefined(loop->items, at - 1, "there is no previous item");
    if (jinja_is(name, "nextitem"))
        return item_or_undefined(loop->items, at + 1, "there is no next item");
    return jinja_undefined(name);
}

dr_status jinja_attr(jinja *j, jinja_value *out, const jinja_value *v, jinja_text name)
{
    const jinja_value key = jinja_string(name);
    const jinja_value *found = NULL;
    dr_status st = DR_OK;

    *out = jinja_undefined(name);
    if (v->type == JINJA_LOOP) {
        *out = loop_attr(v->u.loop, name);
    } else if (v->type == JINJA_DICT && dict_method(name)) {
        *out = (jinja_value){.type = JINJA_FUNCTION, .u.text = name};
    } else if (v->type == JINJA_DICT || v->type == JINJA_NAMESPACE) {
        DR_TRY(jinja_dict_find(j, v->u.dict, &key, &found));
        if (found != NULL)
            *out = *found;
    }
done:
    return st;
}

/* Where the character lies that is `count` characters behind byte `at`. */
static size_t skip_chars(jinja_text t, size_t at, int64_t count)
{
    uint32_t cp = 0;

    for (; count > 0; count--)
        at += tok_utf8_get(t.s + at, t.n - at, &cp);
    return at;
}

dr_status jinja_item(jinja *j, jinja_value *out, const jinja_value *v,
                     const jinja_value *key)
{
    const jinja_text name = {"an item that is not there", 25};
    const jinja_value *found = NULL;
    dr_status st = DR_OK;

    *out = key->type == JINJA_STRING ? jinja_undefined(key->u.text) : jinja_undefined(name);
    if (v->type == JINJA_DICT) {
        DR_TRY(jinja_dict_find(j, v->u.dict, key, &found));
        if (found != NULL)
            *out = *found;
        return DR_OK;
    }
    if (key->type == JINJA_STRING)
        return jinja_attr(j, out, v, key->u.text);
    if (!is_whole(key) || !(is_sequence(v) || v->type == JINJA_STRING) ||
        (is_sequence(v) && v->u.list->lazy))
        return DR_OK;
    const int64_t count =
        (int64_t)(v->type == JINJA_STRING ? jinja_chars(v->u.text) : v->u.list->count);
    const int64_t i = whole(key) < 0 ? whole(key) + count : whole(key);
    if (i < 0 || i >= count)
        return DR_OK;
    if (v->type == JINJA_STRING) {
        DR_TRY(jinja_step(j, (size_t)count / 64));
        const size_t at = skip_chars(v->u.text, 0, i);
        *out =
            jinja_string((jinja_text){v->u.text.s + at, skip_chars(v->u.text, at, 1) - at});
    } else {
        *out = v->u.list->v[i];
    }
done:
    return st;
}

/* A bound as Python clamps it for `count` items and the direction. */
static int64_t bound(const jinja_value *v, int64_t dflt, int64_t count, bool back)
{
    const int64_t low = back ? -1 : 0, high = back ? count - 1 : count;

    if (v->type == JINJA_NONE)
        return dflt;
    int64_t i = whole(v);
    if (i < 0)
        i = i < -count ? low : i + count;
    return i < low ? low : i > high ? high : i;
}

/* A string in steps of one: a part of it. */
static dr_status slice_text(jinja *j, jinja_value *out, jinja_text t,
                            const jinja_value bounds[3])
{
    const int64_t count = (int64_t)jinja_chars(t);
    const int64_t from = bound(&bounds[0], 0, count, false);
    const int64_t to = bound(&bounds[1], count, count, false);
    dr_status st = DR_OK;

    DR_TRY(jinja_step(j, t.n / 64));
    const size_t start = skip_chars(t, 0, from);
    const size_t end = to > from ? skip_chars(t, start, to - from) : start;
    *out = jinja_string((jinja_text){t.s + start, end - start});
done:
    return st;
}

dr_status jinja_slice(jinja *j, jinja_value *out, const jinja_value *v,
                      const jinja_value bounds[3])
{
    const jinja_list *items = NULL;
    jinja_value picked = {.type = v->type == JINJA_STRING ? JINJA_LIST : v->type};
    const int64_t step = is_whole(&bounds[2]) ? whole(&bounds[2]) : 1;
    dr_status st = DR_OK;

    bool sliceable = v->type == JINJA_STRING || (is_sequence(v) && !v->u.list->lazy);
    for (size_t i = 0; i < 3; i++)
        sliceable = sliceable && (bounds[i].type == JINJA_NONE || is_whole(&bounds[i]));
    if (!sliceable)
        DR_FAIL(DR_EFORMAT, "chat template line %d: a slice of %s, from %s to %s", j->line,
                jinja_type_name(v), jinja_type_name(&bounds[0]),
                jinja_type_name(&bounds[1]));
    if (step == 0)
        DR_FAIL(DR_EFORMAT, "chat template line %d: a slice in steps of zero", j->line);
    if (v->type == JINJA_STRING && step == 1)
        return slice_text(j, out, v->u.text, bounds);
    DR_TRY(jinja_iterate(j, &items, v));
    const int64_t count = (int64_t)items->count;
    const int64_t from = bound(&bounds[0], step < 0 ? count - 1 : 0, count, step < 0);
    const int64_t to = bound(&bounds[1], step < 0 ? -1 : count, count, step < 0);
    DR_TRY(jinja_list_new(j, &picked.u.list, 0));
    for (int64_t i = from; step > 0 ? i < to : i > to;) {
        DR_TRY(jinja_list_add(j, picked.u.list, items->v[i]));
        DR_TRY(jinja_step(j, 1));
        if (__builtin_add_overflow(i, step, &i))
            break;
    }
    if (is_sequence(v) && v->u.list->range) {
        const jinja_list *r = v->u.list;
        picked.u.list->range = true;
        picked.u.list->a = r->a + from * r->step;
        picked.u.list->b = r->a + to * r->step;
        picked.u.list->step = r->step * step;
    }
    if (v->type != JINJA_STRING)
        *out = picked;
    else
        st = jinja_join(j, out, (jinja_text){"", 0}, picked.u.list);
done:
    return st;
}
