/*
 * jinja_list_filter.c - filters of lists: picking, mapping, sorting, joining.  Their rows
 * are in jinja_filter.c.
 *
 * What is a generator in Python (map, select, unique, reverse, ...) is made at once here,
 * as a list marked lazy: true whatever is in it, of no length, walked once.
 */
#include <stdlib.h>
#include <string.h>

#include "tok/jinja_impl.h"

static dr_status make_list(jinja *j, jinja_value *out, const jinja_list *from)
{
    dr_status st = DR_OK;

    *out = (jinja_value){.type = JINJA_LIST};
    DR_TRY(jinja_list_new(j, &out->u.list, from->count));
    for (size_t i = 0; i < from->count; i++)
        DR_TRY(jinja_list_add(j, out->u.list, from->v[i]));
done:
    return st;
}

dr_status jinja_f_list(jinja *j, jinja_value *out, const jinja_value *v,
                       const jinja_args *a)
{
    const jinja_list *items = NULL;
    dr_status st = DR_OK;

    (void)a;
    DR_TRY(jinja_iterate(j, &items, v));
    DR_TRY(make_list(j, out, items));
done:
    return st;
}

static dr_status end_of(jinja *j, jinja_value *out, const jinja_value *v, bool last)
{
    const jinja_list *items = NULL;
    dr_status st = DR_OK;

    DR_TRY(jinja_iterate(j, &items, v));
    *out = items->count > 0 ? items->v[last ? items->count - 1 : 0]
                            : jinja_undefined((jinja_text){"an item of nothing", 18});
done:
    return st;
}

dr_status jinja_f_first(jinja *j, jinja_value *out, const jinja_value *v,
                        const jinja_args *a)
{
    (void)a;
    return end_of(j, out, v, false);
}

dr_status jinja_f_last(jinja *j, jinja_value *out, const jinja_value *v,
                       const jinja_args *a)
{
    (void)a;
    return end_of(j, out, v, true);
}

dr_status jinja_f_items(jinja *j, jinja_value *out, const jinja_value *v,
                        const jinja_args *a)
{
    dr_status st = DR_OK;

    *out = (jinja_value){.type = JINJA_LIST};
    if (v->type == JINJA_DICT)
        DR_TRY(jinja_method(j, out, v, (jinja_text){"items", 5}, a));
    else if (v->type == JINJA_UNDEFINED)
        DR_TRY(jinja_list_new(j, &out->u.list, 0));
    else
        DR_FAIL(DR_EFORMAT, "chat template line %d: items of %s", j->line,
                jinja_type_name(v));
    out->u.list->lazy = true;
done:
    return st;
}

dr_status jinja_f_reverse(jinja *j, jinja_value *out, const jinja_value *v,
                          const jinja_args *a)
{
    const jinja_list *items = NULL;
    jinja_list *l = NULL;
    dr_status st = DR_OK;

    (void)a;
    DR_TRY(jinja_iterate(j, &items, v));
    DR_TRY(jinja_list_new(j, &l, items->count));
    for (size_t i = items->count; i-- > 0;)
        DR_TRY(jinja_list_add(j, l, items->v[i]));
    l->lazy = v->type != JINJA_STRING && !(v->type == JINJA_LIST && v->u.list->lazy);
    *out = (jinja_value){.type = JINJA_LIST, .u.list = l};
    if (v->type == JINJA_STRING)
        st = jinja_join(j, out, (jinja_text){"", 0}, l);
done:
    return st;
}

/* a.b.0 of a value: the `attribute` of map, join, sort, ... */
static dr_status path(jinja *j, jinja_value *out, const jinja_value *v, jinja_text name)
{
    dr_status st = DR_OK;

    *out = *v;
    for (size_t at = 0; at <= name.n;) {
        const char *dot = at < name.n ? memchr(name.s + at, '.', name.n - at) : NULL;
        const jinja_text part = {name.s + at,
                                 dot != NULL ? (size_t)(dot - name.s) - at : name.n - at};
        const bool number =
            part.n > 0 && part.n < 10 && part.s[0] >= '0' && part.s[0] <= '9';
        const jinja_value from = *out;
        const jinja_value key =
            number ? jinja_int(strtol(part.s, NULL, 10)) : jinja_string(part);
        DR_TRY(jinja_step(j, 1));
        DR_TRY(jinja_item(j, out, &from, &key));
        at += part.n + 1;
    }
done:
    return st;
}

/* The attribute of v that a filter was given: a path, a number; none given: v itself. */
static dr_status by_attribute(jinja *j, jinja_value *out, const jinja_value *v,
                              const jinja_value *attribute)
{
    dr_status st = DR_OK;

    *out = *v;
    if (attribute == NULL || attribute->type == JINJA_NONE)
        return DR_OK;
    if (attribute->type == JINJA_INT)
        return jinja_item(j, out, v, attribute);
    if (attribute->type != JINJA_STRING)
        DR_FAIL(DR_EFORMAT, "chat template line %d: attribute: expected a string, found %s",
                j->line, jinja_type_name(attribute));
    if (memchr(attribute->u.text.s, ',', attribute->u.text.n) != NULL)
        DR_FAIL(DR_EUNSUPPORTED, "chat template line %d: attributes \"%.*s\"", j->line,
                (int)attribute->u.text.n, attribute->u.text.s);
    DR_TRY(path(j, out, v, attribute->u.text));
done:
    return st;
}

dr_status jinja_f_join(jinja *j, jinja_value *out, const jinja_value *v,
                       const jinja_args *a)
{
    const jinja_value *by = jinja_arg(a, 0, "d"), *attribute = jinja_arg(a, 1, "attribute");
    const jinja_list *items = NULL;
    jinja_value picked = {0}, x = {0};
    jinja_text separator = {"", 0};
    dr_status st = DR_OK;

    DR_TRY(jinja_iterate(j, &items, v));
    if (by != NULL)
        DR_TRY(jinja_str(j, &separator, by));
    if (attribute != NULL && attribute->type != JINJA_NONE) {
        DR_TRY(jinja_list_new(j, &picked.u.list, items->count));
        for (size_t i = 0; i < items->count; i++) {
            DR_TRY(by_attribute(j, &x, &items->v[i], attribute));
            DR_TRY(jinja_list_add(j, picked.u.list, x));
        }
        items = picked.u.list;
    }
    DR_TRY(jinja_join(j, out, separator, items));
done:
    return st;
}

/* The arguments behind the first `skip`. */
static jinja_args rest(const jinja_args *a, size_t skip)
{
    jinja_args r = *a;

    skip = skip < a->count ? skip : a->count;
    r.v += skip;
    r.count -= skip;
    return r;
}

/* select and reject test the items, selectattr and rejectattr an attribute of each. */
static dr_status pick(jinja *j, jinja_value *out, const jinja_value *v, const jinja_args *a,
                      bool attribute, bool wanted)
{
    const jinja_list *items = NULL;
    const size_t at = attribute ? 1 : 0;
    const jinja_args args = rest(a, at + 1);
    jinja_text name = {0}, test = {0};
    bool truth = false;
    dr_status st = DR_OK;

    if (attribute)
        DR_TRY(jinja_arg_text(j, &name, a, 0, "attribute"));
    if (a->count > at)
        DR_TRY(jinja_arg_text(j, &test, a, at, "test"));
    if (test.n > 0 && !jinja_test_known(test))
        DR_FAIL(DR_EUNSUPPORTED, "chat template line %d: the test \"%.*s\"", j->line,
                (int)test.n, test.s);
    DR_TRY(jinja_iterate(j, &items, v));
    *out = (jinja_value){.type = JINJA_LIST};
    DR_TRY(jinja_list_new(j, &out->u.list, 0));
    out->u.list->lazy = true;
    for (size_t i = 0; i < items->count; i++) {
        jinja_value x = items->v[i];
        if (attribute)
            DR_TRY(path(j, &x, &items->v[i], name));
        truth = jinja_truth(&x);
        if (test.n > 0)
            DR_TRY(jinja_test(j, &truth, test, &x, &args));
        DR_TRY(jinja_step(j, 1));
        if (truth == wanted)
            DR_TRY(jinja_list_add(j, out->u.list, items->v[i]));
    }
done:
    return st;
}

dr_status jinja_f_select(jinja *j, jinja_value *out, const jinja_value *v,
                         const jinja_args *a)
{
    return pick(j, out, v, a, false, true);
}

dr_status jinja_f_reject(jinja *j, jinja_value *out, const jinja_value *v,
                         const jinja_args *a)
{
    return pick(j, out, v, a, false, false);
}

dr_status jinja_f_selectattr(jinja *j, jinja_value *out, const jinja_value *v,
                             const jinja_args *a)
{
    return pick(j, out, v, a, true, true);
}

dr_status jinja_f_rejectattr(jinja *j, jinja_value *out, const jinja_value *v,
                             const jinja_args *a)
{
    return pick(j, out, v, a, true, false);
}

/* map(attribute="x", default=y), or map("filter", arguments). */
dr_status jinja_f_map(jinja *j, jinja_value *out, const jinja_value *v, const jinja_args *a)
{
    const jinja_value *dflt = jinja_arg(a, SIZE_MAX, "default");
    const jinja_list *items = NULL;
    const jinja_args args = rest(a, 1);
    const bool filter = a->count > 0;
    jinja_text name = {0};
    jinja_value x = {0};
    dr_status st = DR_OK;

    DR_TRY(jinja_arg_text(j, &name, a, filter ? 0 : SIZE_MAX, "attribute"));
    if (filter && !jinja_filter_known(name))
        DR_FAIL(DR_EUNSUPPORTED, "chat template line %d: the filter \"%.*s\"", j->line,
                (int)name.n, name.s);
    DR_TRY(jinja_iterate(j, &items, v));
    *out = (jinja_value){.type = JINJA_LIST};
    DR_TRY(jinja_list_new(j, &out->u.list, items->count));
    out->u.list->lazy = true;
    for (size_t i = 0; i < items->count; i++) {
        DR_TRY(jinja_step(j, 1));
        if (filter)
            DR_TRY(jinja_filter(j, &x, name, &items->v[i], &args));
        else
            DR_TRY(path(j, &x, &items->v[i], name));
        if (!filter && x.type == JINJA_UNDEFINED && dflt != NULL)
            x = *dflt;
        DR_TRY(jinja_list_add(j, out->u.list, x));
    }
done:
    return st;
}

/* Strings are compared without case unless case_sensitive. */
static dr_status sort_key(jinja *j, jinja_value *out, const jinja_value *v,
                          const jinja_value *attribute, bool sensitive)
{
    dr_status st = DR_OK;

    DR_TRY(by_attribute(j, out, v, attribute));
    if (out->type == JINJA_STRING && !sensitive) {
        const jinja_text t = out->u.text;
        DR_TRY(jinja_recase(j, out, t, JINJA_LOWER));
    }
done:
    return st;
}

/* Stable, by insertion: lists in templates are short, and steps are counted. */
static dr_status sort_by(jinja *j, jinja_list *l, jinja_value *keys, bool reverse)
{
    int order = 0;
    dr_status st = DR_OK;

    for (size_t i = 1; i < l->count; i++) {
        const jinja_value v = l->v[i], key = keys[i];
        size_t k = i;
        for (; k > 0; k--) {
            DR_TRY(jinja_order(j, &order, &keys[k - 1], &key, 0));
            if (reverse ? order >= 0 : order <= 0)
                break;
            l->v[k] = l->v[k - 1];
            keys[k] = keys[k - 1];
        }
        l->v[k] = v;
        keys[k] = key;
    }
done:
    return st;
}

static bool flag(const jinja_args *a, size_t i, const char *name)
{
    const jinja_value *v = jinja_arg(a, i, name);

    return v != NULL && jinja_truth(v);
}

dr_status jinja_f_sort(jinja *j, jinja_value *out, const jinja_value *v,
                       const jinja_args *a)
{
    const bool sensitive = flag(a, 1, "case_sensitive");
    const jinja_list *items = NULL;
    jinja_value *keys = NULL;
    dr_status st = DR_OK;

    DR_TRY(jinja_iterate(j, &items, v));
    DR_TRY(make_list(j, out, items));
    DR_TRY(jinja_alloc(j, &keys, items->count, sizeof(*keys)));
    for (size_t i = 0; i < items->count; i++)
        DR_TRY(
            sort_key(j, &keys[i], &items->v[i], jinja_arg(a, 2, "attribute"), sensitive));
    DR_TRY(sort_by(j, out->u.list, keys, flag(a, 0, "reverse")));
done:
    return st;
}

dr_status jinja_f_dictsort(jinja *j, jinja_value *out, const jinja_value *v,
                           const jinja_args *a)
{
    const jinja_value *by = jinja_arg(a, 1, "by");
    const bool values =
        by != NULL && by->type == JINJA_STRING && jinja_is(by->u.text, "value");
    jinja_value *keys = NULL;
    dr_status st = DR_OK;

    if (by != NULL && !values && !(by->type == JINJA_STRING && jinja_is(by->u.text, "key")))
        DR_FAIL(DR_EFORMAT, "chat template line %d: dictsort by neither key nor value",
                j->line);
    if (v->type != JINJA_DICT)
        DR_FAIL(DR_EFORMAT, "chat template line %d: dictsort of %s", j->line,
                jinja_type_name(v));
    DR_TRY(jinja_f_items(j, out, v, a));
    out->u.list->lazy = false;
    DR_TRY(jinja_alloc(j, &keys, out->u.list->count, sizeof(*keys)));
    for (size_t i = 0; i < out->u.list->count; i++)
        DR_TRY(sort_key(j, &keys[i], &out->u.list->v[i].u.list->v[values], NULL,
                        flag(a, 0, "case_sensitive")));
    DR_TRY(sort_by(j, out->u.list, keys, flag(a, 2, "reverse")));
done:
    return st;
}

dr_status jinja_f_unique(jinja *j, jinja_value *out, const jinja_value *v,
                         const jinja_args *a)
{
    const bool sensitive = flag(a, 0, "case_sensitive");
    const jinja_list *items = NULL;
    jinja_list *keys = NULL;
    jinja_value key = {0};
    dr_status st = DR_OK;

    DR_TRY(jinja_iterate(j, &items, v));
    *out = (jinja_value){.type = JINJA_LIST};
    DR_TRY(jinja_list_new(j, &out->u.list, 0));
    DR_TRY(jinja_list_new(j, &keys, 0));
    out->u.list->lazy = true;
    for (size_t i = 0; i < items->count; i++) {
        bool seen = false;
        DR_TRY(sort_key(j, &key, &items->v[i], jinja_arg(a, 1, "attribute"), sensitive));
        DR_TRY(jinja_check_key(j, &key));
        for (size_t k = 0; k < keys->count && !seen; k++)
            DR_TRY(jinja_equal(j, &seen, &keys->v[k], &key, 0));
        if (!seen) {
            DR_TRY(jinja_list_add(j, keys, key));
            DR_TRY(jinja_list_add(j, out->u.list, items->v[i]));
        }
    }
done:
    return st;
}

dr_status jinja_f_sum(jinja *j, jinja_value *out, const jinja_value *v, const jinja_args *a)
{
    const jinja_value *attribute = jinja_arg(a, 0, "attribute");
    const jinja_value *start = jinja_arg(a, 1, "start");
    const jinja_list *items = NULL;
    jinja_value x = {0};
    dr_status st = DR_OK;

    *out = start != NULL ? *start : jinja_int(0);
    DR_TRY(jinja_iterate(j, &items, v));
    for (size_t i = 0; i < items->count; i++) {
        const jinja_value so_far = *out;
        DR_TRY(sort_key(j, &x, &items->v[i], attribute, true));
        DR_TRY(jinja_binary(j, out, (jinja_text){"+", 1}, &so_far, &x));
    }
done:
    return st;
}

static dr_status extreme(jinja *j, jinja_value *out, const jinja_value *v,
                         const jinja_args *a, int sign)
{
    const jinja_list *items = NULL;
    jinja_value best = {0}, key = {0};
    int order = 0;
    dr_status st = DR_OK;

    *out = jinja_undefined((jinja_text){"an extreme of nothing", 21});
    DR_TRY(jinja_iterate(j, &items, v));
    for (size_t i = 0; i < items->count; i++) {
        DR_TRY(sort_key(j, &key, &items->v[i], jinja_arg(a, 1, "attribute"),
                        flag(a, 0, "case_sensitive")));
        if (i > 0)
            DR_TRY(jinja_order(j, &order, &key, &best, 0));
        if (i == 0 || order == sign) {
            best = key;
            *out = items->v[i];
        }
    }
done:
    return st;
}

dr_status jinja_f_min(jinja *j, jinja_value *out, const jinja_value *v, const jinja_args *a)
{
    return extreme(j, out, v, a, -1);
}

dr_status jinja_f_max(jinja *j, jinja_value *out, const jinja_value *v, const jinja_args *a)
{
    return extreme(j, out, v, a, 1);
}
