/*
 * jinja_call.c - arguments, the functions a template may call, methods of values, tests.
 */
#include <string.h>
#include <time.h>

#include "tok/jinja_impl.h"
#include "tok/tok_impl.h"

/* ---- arguments ---- */

const jinja_value *jinja_arg(const jinja_args *a, size_t i, const char *name)
{
    if (i < a->count)
        return &a->v[i];
    for (size_t k = 0; k < a->named_count; k++)
        if (jinja_is(a->names[k], name))
            return &a->named[k];
    return NULL;
}

dr_status jinja_arg_int(jinja *j, int64_t *out, const jinja_args *a, size_t i,
                        const char *name)
{
    const jinja_value *v = jinja_arg(a, i, name);

    if (v == NULL || v->type == JINJA_NONE)
        return DR_OK;
    if (v->type != JINJA_INT && v->type != JINJA_BOOL)
        return dr_fail(DR_EFORMAT, "chat template line %d: %s: expected an int, found %s",
                       j->line, name, jinja_type_name(v));
    *out = v->type == JINJA_INT ? v->u.integer : v->u.truth;
    return DR_OK;
}

dr_status jinja_arg_text(jinja *j, jinja_text *out, const jinja_args *a, size_t i,
                         const char *name)
{
    const jinja_value *v = jinja_arg(a, i, name);

    if (v == NULL || v->type != JINJA_STRING)
        return dr_fail(DR_EFORMAT, "chat template line %d: %s: expected a string, found %s",
                       j->line, name, v == NULL ? "nothing" : jinja_type_name(v));
    *out = v->u.text;
    return DR_OK;
}

/* ---- functions ---- */

static dr_status call_range(jinja *j, jinja_value *out, const jinja_args *a)
{
    int64_t v[3] = {0, 0, 1};
    dr_status st = DR_OK;

    for (size_t i = 0; i < 3; i++)
        DR_TRY(jinja_arg_int(j, &v[i], a, i, "range"));
    if (a->count == 1) {
        v[1] = v[0];
        v[0] = 0;
    }
    if (a->count < 1 || a->count > 3 || v[2] == 0)
        DR_FAIL(DR_EFORMAT, "chat template line %d: range of %zu arguments or by 0",
                j->line, a->count);
    *out = (jinja_value){.type = JINJA_LIST};
    const double span = ((double)v[1] - (double)v[0]) / (double)v[2];
    DR_TRY(jinja_step(j, span > JINJA_STEPS_MAX ? JINJA_STEPS_MAX + 1
                         : span > 0             ? (size_t)span + 1
                                                : 0));
    DR_TRY(jinja_list_new(j, &out->u.list, span > 0 ? (size_t)span + 1 : 0));
    for (int64_t i = v[0]; v[2] > 0 ? i < v[1] : i > v[1];) {
        DR_TRY(jinja_list_add(j, out->u.list, jinja_int(i)));
        if (__builtin_add_overflow(i, v[2], &i))
            break;
    }
    out->u.list->range = true;
    out->u.list->a = v[0];
    out->u.list->b = v[1];
    out->u.list->step = v[2];
done:
    return st;
}

/* namespace(x=1) and dict(x=1); one positional argument is a dict to begin with. */
static dr_status call_namespace(jinja *j, jinja_value *out, const jinja_args *a)
{
    dr_status st = DR_OK;

    DR_TRY(jinja_dict_new(j, &out->u.dict));
    if (a->count > 1 || (a->count == 1 && a->v[0].type != JINJA_DICT))
        DR_FAIL(DR_EUNSUPPORTED, "chat template line %d: a namespace or dict of %s",
                j->line, jinja_type_name(&a->v[0]));
    for (size_t i = 0; a->count == 1 && i < a->v[0].u.dict->count; i++)
        DR_TRY(jinja_dict_set(j, out->u.dict, a->v[0].u.dict->keys[i],
                              a->v[0].u.dict->values[i]));
    for (size_t i = 0; i < a->named_count; i++)
        DR_TRY(jinja_dict_set(j, out->u.dict, jinja_string(a->names[i]), a->named[i]));
done:
    return st;
}

static dr_status call_raise(jinja *j, const jinja_args *a)
{
    jinja_text message = {"", 0};
    dr_status st = DR_OK;

    if (jinja_arg(a, 0, "message") != NULL)
        DR_TRY(jinja_str(j, &message, jinja_arg(a, 0, "message")));
    DR_FAIL(DR_EUSAGE, "the chat template refuses these messages: %.*s",
            (int)(message.n < 300 ? message.n : 300), message.s);
done:
    return st;
}

/* One conversion of strftime, in the C locale; not padded: as %-d has it. */
static dr_status time_part(jinja *j, dr_buf *b, const struct tm *now, char c, bool padded)
{
    static const char months[] = "January\0  February\0 March\0    April\0    May\0      "
                                 "June\0     July\0     August\0   September\0October\0  "
                                 "November\0 December\0";
    static const char days[] = "Sunday\0   Monday\0   Tuesday\0  Wednesday\0Thursday\0 "
                               "Friday\0   Saturday\0 ";
    const int hour12 = now->tm_hour % 12 == 0 ? 12 : now->tm_hour % 12;

    switch (c) {
    case 'e':
        return dr_buf_addf(b, padded ? "%2d" : "%d", now->tm_mday);
    case 'd':
        return dr_buf_addf(b, padded ? "%02d" : "%d", now->tm_mday);
    case 'm':
        return dr_buf_addf(b, padded ? "%02d" : "%d", now->tm_mon + 1);
    case 'Y':
        return dr_buf_addf(b, "%d", now->tm_year + 1900);
    case 'y':
        return dr_buf_addf(b, padded ? "%02d" : "%d", now->tm_year % 100);
    case 'B':
        return dr_buf_adds(b, months + 10 * now->tm_mon);
    case 'b':
        return dr_buf_add(b, months + 10 * now->tm_mon, 3);
    case 'A':
        return dr_buf_adds(b, days + 10 * now->tm_wday);
    case 'a':
        return dr_buf_add(b, days + 10 * now->tm_wday, 3);
    case 'H':
        return dr_buf_addf(b, padded ? "%02d" : "%d", now->tm_hour);
    case 'I':
        return dr_buf_addf(b, padded ? "%02d" : "%d", hour12);
    case 'M':
        return dr_buf_addf(b, padded ? "%02d" : "%d", now->tm_min);
    case 'S':
        return dr_buf_addf(b, padded ? "%02d" : "%d", now->tm_sec);
    case 'p':
        return dr_buf_adds(b, now->tm_hour < 12 ? "AM" : "PM");
    case 'j':
        return dr_buf_addf(b, padded ? "%03d" : "%d", now->tm_yday + 1);
    case '%':
        return dr_buf_adds(b, "%");
    default:
        return dr_fail(DR_EUNSUPPORTED, "chat template line %d: strftime_now of %%%c",
                       j->line, c);
    }
}

static dr_status call_strftime(jinja *j, jinja_value *out, const jinja_args *a)
{
    const time_t seconds = time(NULL);
    jinja_text format = {0};
    struct tm now = {0};
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, 1 << 16);
    DR_TRY(jinja_arg_text(j, &format, a, 0, "format"));
    if (localtime_r(&seconds, &now) == NULL)
        DR_FAIL(DR_EIO, "the system has no local time");
    for (size_t i = 0; i < format.n; i++) {
        const bool bare = format.n - i > 2 && format.s[i] == '%' && format.s[i + 1] == '-';
        i += bare;
        if ((bare || format.s[i] == '%') && i + 1 < format.n)
            DR_TRY(time_part(j, &b, &now, format.s[++i], !bare));
        else
            DR_TRY(dr_buf_add(&b, format.s + i, 1));
    }
    *out = (jinja_value){.type = JINJA_STRING};
    DR_TRY(jinja_copy(j, &out->u.text, b.data, b.len));
done:
    dr_buf_release(&b);
    return st;
}

static const char *const functions[] = {"range", "namespace", "dict", "raise_exception",
                                        "strftime_now"};

bool jinja_function_known(jinja_text name)
{
    for (size_t i = 0; i < DR_COUNT(functions); i++)
        if (jinja_is(name, functions[i]))
            return true;
    return false;
}

dr_status jinja_function(jinja *j, jinja_value *out, jinja_text name, const jinja_args *a)
{
    if (jinja_is(name, "range"))
        return call_range(j, out, a);
    if (jinja_is(name, "raise_exception"))
        return call_raise(j, a);
    if (jinja_is(name, "strftime_now"))
        return call_strftime(j, out, a);
    out->type = jinja_is(name, "namespace") ? JINJA_NAMESPACE : JINJA_DICT;
    return call_namespace(j, out, a);
}

/* ---- methods ---- */

static bool is_sequence(const jinja_value *v)
{
    return v->type == JINJA_LIST || v->type == JINJA_TUPLE;
}

/* items, keys, values of a dict, as a list. */
static dr_status dict_parts(jinja *j, jinja_value *out, const jinja_dict *d,
                            jinja_text name)
{
    const bool keys = jinja_is(name, "keys"), items = jinja_is(name, "items");
    dr_status st = DR_OK;

    *out = (jinja_value){.type = JINJA_LIST};
    DR_TRY(jinja_list_new(j, &out->u.list, d->count));
    for (size_t i = 0; i < d->count; i++) {
        jinja_value v = keys ? d->keys[i] : d->values[i];
        if (items) {
            v = (jinja_value){.type = JINJA_TUPLE};
            DR_TRY(jinja_list_new(j, &v.u.list, 2));
            DR_TRY(jinja_list_add(j, v.u.list, d->keys[i]));
            DR_TRY(jinja_list_add(j, v.u.list, d->values[i]));
        }
        DR_TRY(jinja_step(j, 1));
        DR_TRY(jinja_list_add(j, out->u.list, v));
    }
done:
    return st;
}

static dr_status dict_get(jinja *j, jinja_value *out, const jinja_dict *d,
                          const jinja_args *a)
{
    const jinja_value *key = jinja_arg(a, 0, "key"), *dflt = jinja_arg(a, 1, "default");
    const jinja_value *found = NULL;
    dr_status st = DR_OK;

    if (key == NULL)
        DR_FAIL(DR_EFORMAT, "chat template line %d: get of nothing", j->line);
    DR_TRY(jinja_check_key(j, key));
    DR_TRY(jinja_dict_find(j, d, key, &found));
    *out = (jinja_value){.type = JINJA_NONE};
    if (found != NULL)
        *out = *found;
    else if (dflt != NULL)
        *out = *dflt;
done:
    return st;
}

/* count and index of a list or tuple. */
static dr_status list_search(jinja *j, jinja_value *out, const jinja_list *l,
                             jinja_text name, const jinja_args *a)
{
    const bool index = jinja_is(name, "index");
    int64_t count = 0;
    bool same = false;
    dr_status st = DR_OK;

    if (a->count != 1)
        DR_FAIL(DR_EUNSUPPORTED, "chat template line %d: %.*s of a list with %zu arguments",
                j->line, (int)name.n, name.s, a->count);
    for (size_t i = 0; i < l->count; i++) {
        DR_TRY(jinja_equal(j, &same, &l->v[i], &a->v[0], 0));
        if (same && index) {
            *out = jinja_int((int64_t)i);
            return DR_OK;
        }
        count += same;
    }
    if (index)
        DR_FAIL(DR_EFORMAT, "chat template line %d: index of what is not in the list",
                j->line);
    *out = jinja_int(count);
done:
    return st;
}

/* loop.changed(x): whether it was asked something else before, or nothing. */
static dr_status loop_changed(jinja *j, jinja_value *out, jinja_loop *loop,
                              const jinja_args *a)
{
    jinja_list *now = NULL;
    bool same = false;
    dr_status st = DR_OK;

    DR_TRY(jinja_list_new(j, &now, a->count));
    for (size_t i = 0; i < a->count; i++)
        DR_TRY(jinja_list_add(j, now, a->v[i]));
    if (loop->last != NULL && loop->last->count == now->count) {
        same = true;
        for (size_t i = 0; i < now->count && same; i++)
            DR_TRY(jinja_equal(j, &same, &loop->last->v[i], &now->v[i], 0));
    }
    loop->last = now;
    *out = jinja_bool(!same);
done:
    return st;
}

/* loop.cycle('a', 'b'). */
static dr_status loop_cycle(jinja *j, jinja_value *out, const jinja_loop *loop,
                            const jinja_args *a)
{
    if (a->count == 0)
        return dr_fail(DR_EFORMAT, "chat template line %d: cycle of nothing", j->line);
    *out = a->v[loop->at % a->count];
    return DR_OK;
}

dr_status jinja_method(jinja *j, jinja_value *out, const jinja_value *v, jinja_text name,
                       const jinja_args *a)
{
    if (v->type == JINJA_STRING)
        return jinja_string_method(j, out, v->u.text, name, a);
    if (v->type == JINJA_DICT &&
        (jinja_is(name, "items") || jinja_is(name, "keys") || jinja_is(name, "values")))
        return dict_parts(j, out, v->u.dict, name);
    if (v->type == JINJA_DICT && jinja_is(name, "get"))
        return dict_get(j, out, v->u.dict, a);
    if (is_sequence(v) && !v->u.list->lazy &&
        (jinja_is(name, "count") || jinja_is(name, "index")))
        return list_search(j, out, v->u.list, name, a);
    if (v->type == JINJA_LOOP && jinja_is(name, "cycle"))
        return loop_cycle(j, out, v->u.loop, a);
    if (v->type == JINJA_LOOP && jinja_is(name, "changed"))
        return loop_changed(j, out, v->u.loop, a);
    if (v->type == JINJA_UNDEFINED)
        return dr_fail(DR_EFORMAT, "chat template line %d: \"%.*s\" is undefined", j->line,
                       (int)v->u.text.n, v->u.text.s);
    return dr_fail(DR_EUNSUPPORTED, "chat template line %d: the method \"%.*s\" of %s",
                   j->line, (int)name.n, name.s, jinja_type_name(v));
}

/* ---- tests ---- */

static const struct {
    const char *name, *op;
} comparisons[] = {
    {"eq", "=="}, {"equalto", "=="}, {"ne", "!="},         {"lt", "<"},  {"lessthan", "<"},
    {"le", "<="}, {"gt", ">"},       {"greaterthan", ">"}, {"ge", ">="}, {"in", "in"},
};

static const char *const kinds[] = {
    "defined", "undefined", "none",        "boolean",  "integer",  "float", "number",
    "string",  "mapping",   "iterable",    "sequence", "callable", "true",  "false",
    "odd",     "even",      "divisibleby", "sameas",   "upper",    "lower",
};

bool jinja_test_known(jinja_text name)
{
    for (size_t i = 0; i < DR_COUNT(kinds); i++)
        if (jinja_is(name, kinds[i]))
            return true;
    for (size_t i = 0; i < DR_COUNT(comparisons); i++)
        if (jinja_is(name, comparisons[i].name))
            return true;
    return false;
}

/* Tests of a value's kind; false: the name is none of them. */
static bool kind_test(bool *out, jinja_text name, const jinja_value *v)
{
    const bool text = v->type == JINJA_STRING, none = v->type == JINJA_UNDEFINED;
    const bool dict = v->type == JINJA_DICT, list = is_sequence(v);
    const struct {
        const char *name;
        bool holds;
    } tests[] = {
        {"defined", !none},
        {"undefined", none},
        {"none", v->type == JINJA_NONE},
        {"boolean", v->type == JINJA_BOOL},
        {"integer", v->type == JINJA_INT},
        {"float", v->type == JINJA_FLOAT},
        {"number", jinja_is_number(v)},
        {"string", text},
        {"mapping", dict},
        {"iterable", text || dict || list || none},
        {"sequence", text || dict || list || none},
        {"callable", none || v->type == JINJA_FUNCTION || v->type == JINJA_MACRO ||
                         v->type == JINJA_LOOP},
        {"true", v->type == JINJA_BOOL && v->u.truth},
        {"false", v->type == JINJA_BOOL && !v->u.truth},
    };

    for (size_t i = 0; i < DR_COUNT(tests); i++) {
        if (jinja_is(name, tests[i].name)) {
            *out = tests[i].holds;
            return true;
        }
    }
    return false;
}

static bool same_object(const jinja_value *a, const jinja_value *b)
{
    if (a->type != b->type)
        return false;
    if (a->type == JINJA_BOOL)
        return a->u.truth == b->u.truth;
    if (a->type == JINJA_INT)
        return a->u.integer == b->u.integer;
    if (a->type == JINJA_STRING)
        return jinja_same_text(a->u.text, b->u.text);
    return a->type == JINJA_NONE || (a->type != JINJA_FLOAT && a->u.dict == b->u.dict);
}

/* odd, even, divisibleby: by %. */
static dr_status remainder_test(jinja *j, bool *out, jinja_text name, const jinja_value *v,
                                const jinja_value *by)
{
    const jinja_value two = jinja_int(2), one = jinja_int(1), zero = jinja_int(0);
    jinja_value r = {0};
    dr_status st = DR_OK;

    if (!jinja_is(name, "divisibleby"))
        by = &two;
    if (by == NULL || !jinja_is_number(v))
        DR_FAIL(DR_EFORMAT, "chat template line %d: %.*s of %s", j->line, (int)name.n,
                name.s, jinja_type_name(v));
    DR_TRY(jinja_binary(j, &r, (jinja_text){"%", 1}, v, by));
    DR_TRY(jinja_equal(j, out, &r, jinja_is(name, "odd") ? &one : &zero, 0));
done:
    return st;
}

dr_status jinja_test(jinja *j, bool *out, jinja_text name, const jinja_value *v,
                     const jinja_args *a)
{
    const jinja_value *other = jinja_arg(a, 0, "other");
    jinja_value cased = {0};
    dr_status st = DR_OK;

    const bool asked = a->count + a->named_count > 0;
    if (a->count + a->named_count > 1)
        DR_FAIL(DR_EFORMAT, "chat template line %d: the test %.*s of %zu things", j->line,
                (int)name.n, name.s, a->count + a->named_count);
    if (asked &&
        (kind_test(out, name, v) || jinja_is(name, "odd") || jinja_is(name, "even") ||
         jinja_is(name, "upper") || jinja_is(name, "lower")))
        DR_FAIL(DR_EFORMAT, "chat template line %d: the test %.*s takes nothing", j->line,
                (int)name.n, name.s);
    if (kind_test(out, name, v))
        return DR_OK;
    if (jinja_is(name, "odd") || jinja_is(name, "even") || jinja_is(name, "divisibleby"))
        return remainder_test(j, out, name, v, other);
    if (jinja_is(name, "upper") || jinja_is(name, "lower")) {
        jinja_text t = {0};
        DR_TRY(jinja_str(j, &t, v));
        DR_TRY(jinja_string_method(j, &cased, t,
                                   jinja_is(name, "upper") ? (jinja_text){"isupper", 7}
                                                           : (jinja_text){"islower", 7},
                                   a));
        *out = cased.u.truth;
        return DR_OK;
    }
    if (other == NULL)
        DR_FAIL(DR_EFORMAT, "chat template line %d: the test %.*s of nothing", j->line,
                (int)name.n, name.s);
    if (jinja_is(name, "sameas")) {
        *out = same_object(v, other);
        return DR_OK;
    }
    for (size_t i = 0; i < DR_COUNT(comparisons); i++)
        if (jinja_is(name, comparisons[i].name))
            return jinja_compare(j, out,
                                 (jinja_text){comparisons[i].op, strlen(comparisons[i].op)},
                                 v, other);
    DR_FAIL(DR_EUNSUPPORTED, "chat template line %d: the test \"%.*s\"", j->line,
            (int)name.n, name.s);
done:
    return st;
}
