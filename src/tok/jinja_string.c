/*
 * jinja_string.c - Python's string methods, as far as templates use them.
 *
 * Case mapping is one character to one (utf8proc) but for U+00DF, whose upper case is SS,
 * and U+0130, whose lower case is two characters.
 */
#include <string.h>

#include <utf8proc.h>

#include "tok/jinja_impl.h"
#include "tok/tok_impl.h"

/* ---- strip, replace, join ---- */

static bool in_set(uint32_t cp, const jinja_text *set)
{
    uint32_t c = 0;

    if (set == NULL)
        return jinja_space(cp);
    for (size_t i = 0; i < set->n;) {
        i += tok_utf8_get(set->s + i, set->n - i, &c);
        if (c == cp)
            return true;
    }
    return false;
}

dr_status jinja_strip(jinja *j, jinja_value *out, jinja_text t, const jinja_args *a,
                      bool left, bool right)
{
    const jinja_value *chars = jinja_arg(a, 0, "chars");
    const bool given = chars != NULL && chars->type != JINJA_NONE;
    jinja_text set = {0};
    uint32_t cp = 0;
    dr_status st = DR_OK;

    DR_TRY(jinja_step(j, t.n / 64));
    if (given)
        DR_TRY(jinja_arg_text(j, &set, a, 0, "chars"));
    while (left && t.n > 0) {
        const size_t n = tok_utf8_get(t.s, t.n, &cp);
        DR_TRY(jinja_step(j, set.n / 64));
        if (!in_set(cp, given ? &set : NULL))
            break;
        t = (jinja_text){t.s + n, t.n - n};
    }
    while (right && t.n > 0) {
        const size_t n = tok_utf8_last(t.s, t.n, &cp);
        DR_TRY(jinja_step(j, set.n / 64));
        if (!in_set(cp, given ? &set : NULL))
            break;
        t.n -= n;
    }
    *out = jinja_string(t);
done:
    return st;
}

/* The buffer's text becomes a value. */
static dr_status take(jinja *j, jinja_value *out, const dr_buf *b)
{
    *out = (jinja_value){.type = JINJA_STRING};
    return jinja_copy(j, &out->u.text, b->data, b->len);
}

dr_status jinja_replace(jinja *j, jinja_value *out, jinja_text t, const jinja_args *a)
{
    jinja_text old = {0}, with = {0};
    int64_t count = -1;
    uint32_t cp = 0;
    size_t at = 0;
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, JINJA_OUTPUT_MAX);
    DR_TRY(jinja_arg_text(j, &old, a, 0, "old"));
    DR_TRY(jinja_arg_text(j, &with, a, 1, "new"));
    DR_TRY(jinja_arg_int(j, &count, a, 2, "count"));
    DR_TRY(jinja_step(j, t.n / 64));
    for (; count != 0 && (old.n > 0 || at < t.n); count -= count > 0) {
        const char *hit = old.n > 0 ? memmem(t.s + at, t.n - at, old.s, old.n) : t.s + at;
        if (hit == NULL)
            break;
        DR_TRY(dr_buf_add(&b, t.s + at, (size_t)(hit - t.s) - at));
        DR_TRY(dr_buf_add(&b, with.s, with.n));
        at = (size_t)(hit - t.s) + old.n;
        if (old.n == 0) { /* one before each character, and one at the end */
            const size_t n = tok_utf8_get(t.s + at, t.n - at, &cp);
            DR_TRY(dr_buf_add(&b, t.s + at, n));
            at += n;
        }
    }
    if (old.n == 0 && count != 0)
        DR_TRY(dr_buf_add(&b, with.s, with.n));
    DR_TRY(dr_buf_add(&b, t.s + at, t.n - at));
    DR_TRY(take(j, out, &b));
done:
    dr_buf_release(&b);
    return st;
}

dr_status jinja_join(jinja *j, jinja_value *out, jinja_text by, const jinja_list *items)
{
    jinja_text t = {0};
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, JINJA_OUTPUT_MAX);
    for (size_t i = 0; i < items->count; i++) {
        DR_TRY(jinja_step(j, 1));
        DR_TRY(jinja_str(j, &t, &items->v[i]));
        if (i > 0)
            DR_TRY(dr_buf_add(&b, by.s, by.n));
        DR_TRY(dr_buf_add(&b, t.s, t.n));
    }
    DR_TRY(take(j, out, &b));
done:
    dr_buf_release(&b);
    return st;
}

/* ---- case ---- */

static bool is_cased(uint32_t cp)
{
    const utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);

    return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL ||
           c == UTF8PROC_CATEGORY_LT;
}

static dr_status add_cased(dr_buf *b, uint32_t cp, bool upper, bool title)
{
    char s[4];

    if (upper && cp == 0xDF)
        return dr_buf_adds(b, title ? "Ss" : "SS");
    if (!upper && cp == 0x130)
        return dr_buf_adds(b, "i\xCC\x87");
    const utf8proc_int32_t c = (utf8proc_int32_t)cp;
    const utf8proc_int32_t mapped = !upper  ? utf8proc_tolower(c)
                                    : title ? utf8proc_totitle(c)
                                            : utf8proc_toupper(c);
    return dr_buf_add(b, s, tok_utf8_put(s, (uint32_t)mapped));
}

/* A word starts for TITLE after what has no case, for WORDS (the filter) after "- ({[<". */
dr_status jinja_recase(jinja *j, jinja_value *out, jinja_text t, jinja_case to)
{
    bool start = true;
    uint32_t cp = 0;
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, JINJA_OUTPUT_MAX);
    DR_TRY(jinja_step(j, t.n / 8));
    for (size_t i = 0; i < t.n;) {
        i += tok_utf8_get(t.s + i, t.n - i, &cp);
        const bool first = to != JINJA_LOWER && to != JINJA_UPPER && start;
        DR_TRY(add_cased(&b, cp, to == JINJA_UPPER || first, first && to != JINJA_WORDS));
        start = to == JINJA_TITLE   ? !is_cased(cp)
                : to == JINJA_WORDS ? jinja_space(cp) || (cp < 0x80 && cp > 0 &&
                                                          strchr("-({[<", (int)cp) != NULL)
                                    : false;
    }
    DR_TRY(take(j, out, &b));
done:
    dr_buf_release(&b);
    return st;
}

/* ---- splitting ---- */

static dr_status add_part(jinja *j, jinja_list *l, const char *s, size_t n)
{
    dr_status st = DR_OK;

    DR_TRY(jinja_step(j, 1));
    DR_TRY(jinja_list_add(j, l, jinja_string((jinja_text){s, n})));
done:
    return st;
}

/* At white space; none of the parts is empty. */
static dr_status split_words(jinja *j, jinja_list *l, jinja_text t, int64_t most)
{
    uint32_t cp = 0;
    size_t i = 0, n = 0;
    dr_status st = DR_OK;

    for (;; most -= most > 0) {
        for (; i < t.n; i += n) {
            n = tok_utf8_get(t.s + i, t.n - i, &cp);
            if (!jinja_space(cp))
                break;
        }
        const size_t start = i;
        for (; i < t.n; i += n) {
            n = tok_utf8_get(t.s + i, t.n - i, &cp);
            if (most != 0 && jinja_space(cp))
                break;
        }
        if (start == t.n)
            break;
        DR_TRY(add_part(j, l, t.s + start, i - start));
        if (most == 0)
            break;
    }
done:
    return st;
}

static dr_status split_at(jinja *j, jinja_list *l, jinja_text t, jinja_text by,
                          int64_t most)
{
    size_t at = 0;
    dr_status st = DR_OK;

    for (; most != 0; most -= most > 0) {
        const char *hit = memmem(t.s + at, t.n - at, by.s, by.n);
        if (hit == NULL)
            break;
        DR_TRY(add_part(j, l, t.s + at, (size_t)(hit - t.s) - at));
        at = (size_t)(hit - t.s) + by.n;
    }
    DR_TRY(add_part(j, l, t.s + at, t.n - at));
done:
    return st;
}

/* The place of the last `by` in t; NULL: none.  What is compared counts as steps. */
static dr_status last_hit(jinja *j, const char **hit, jinja_text t, jinja_text by)
{
    size_t work = 0;
    dr_status st = DR_OK;

    *hit = NULL;
    for (size_t i = t.n < by.n ? 0 : t.n - by.n + 1; i-- > 0 && *hit == NULL;) {
        size_t n = 0;
        while (n < by.n && t.s[i + n] == by.s[n])
            n++;
        work += n + 1;
        if (n == by.n)
            *hit = t.s + i;
        if (work >= 4096 || *hit != NULL || i == 0) {
            DR_TRY(jinja_step(j, work / 64));
            work = 0;
        }
    }
done:
    return st;
}

/* From the right; the parts are then turned round. */
static dr_status split_right(jinja *j, jinja_list *l, jinja_text t, jinja_text by,
                             int64_t most)
{
    dr_status st = DR_OK;

    for (; most != 0; most -= most > 0) {
        const char *hit = NULL;
        DR_TRY(last_hit(j, &hit, t, by));
        if (hit == NULL)
            break;
        const size_t at = (size_t)(hit - t.s) + by.n;
        DR_TRY(add_part(j, l, t.s + at, t.n - at));
        t.n = (size_t)(hit - t.s);
    }
    DR_TRY(add_part(j, l, t.s, t.n));
    for (size_t i = 0; i < l->count / 2; i++) {
        const jinja_value v = l->v[i];
        l->v[i] = l->v[l->count - 1 - i];
        l->v[l->count - 1 - i] = v;
    }
done:
    return st;
}

static dr_status split(jinja *j, jinja_value *out, jinja_text t, const jinja_args *a,
                       bool right)
{
    const jinja_value *sep = jinja_arg(a, 0, "sep");
    jinja_text by = {0};
    int64_t most = -1;
    dr_status st = DR_OK;

    *out = (jinja_value){.type = JINJA_LIST};
    DR_TRY(jinja_step(j, t.n / 64));
    DR_TRY(jinja_list_new(j, &out->u.list, 4));
    DR_TRY(jinja_arg_int(j, &most, a, 1, "maxsplit"));
    if (sep == NULL || sep->type == JINJA_NONE) {
        if (right && most >= 0)
            DR_FAIL(DR_EUNSUPPORTED, "chat template line %d: rsplit at white space",
                    j->line);
        return split_words(j, out->u.list, t, most < 0 ? -1 : most);
    }
    DR_TRY(jinja_arg_text(j, &by, a, 0, "sep"));
    if (by.n == 0)
        DR_FAIL(DR_EFORMAT, "chat template line %d: split at the empty string", j->line);
    DR_TRY((right ? split_right : split_at)(j, out->u.list, t, by, most < 0 ? -1 : most));
done:
    return st;
}

static dr_status split_lines(jinja *j, jinja_value *out, jinja_text t)
{
    dr_status st = DR_OK;

    *out = (jinja_value){.type = JINJA_LIST};
    DR_TRY(jinja_list_new(j, &out->u.list, 4));
    for (size_t at = 0; at < t.n;) {
        size_t end = at;
        while (end < t.n && t.s[end] != '\n' && t.s[end] != '\r')
            end++;
        DR_TRY(add_part(j, out->u.list, t.s + at, end - at));
        at = end + (end + 1 < t.n && t.s[end] == '\r' && t.s[end + 1] == '\n' ? 2 : 1);
    }
done:
    return st;
}

/* ---- asking ---- */

static bool has_end(jinja_text t, jinja_text part, bool front)
{
    return t.n >= part.n &&
           (part.n == 0 || memcmp(front ? t.s : t.s + t.n - part.n, part.s, part.n) == 0);
}

/* startswith and endswith: a string or a tuple of strings. */
static dr_status end_test(jinja *j, jinja_value *out, jinja_text t, const jinja_args *a,
                          bool front)
{
    const jinja_value *v = jinja_arg(a, 0, "prefix");
    const bool many = v != NULL && v->type == JINJA_TUPLE;
    bool found = false;
    dr_status st = DR_OK;

    if (v == NULL || (v->type != JINJA_STRING && !many) || a->count > 1)
        DR_FAIL(DR_EFORMAT, "chat template line %d: startswith or endswith of %s", j->line,
                v == NULL ? "nothing" : jinja_type_name(v));
    const jinja_value *parts = many ? v->u.list->v : v;
    for (size_t i = 0; i < (many ? v->u.list->count : 1) && !found; i++) {
        if (parts[i].type == JINJA_STRING)
            DR_TRY(jinja_step(j, 1 + parts[i].u.text.n / 256));
        found = parts[i].type == JINJA_STRING && has_end(t, parts[i].u.text, front);
    }
    *out = jinja_bool(found);
done:
    return st;
}

static dr_status remove_end(jinja *j, jinja_value *out, jinja_text t, const jinja_args *a,
                            bool front)
{
    jinja_text part = {0};
    dr_status st = DR_OK;

    DR_TRY(jinja_arg_text(j, &part, a, 0, front ? "prefix" : "suffix"));
    DR_TRY(jinja_step(j, part.n / 256));
    if (has_end(t, part, front))
        t = (jinja_text){front ? t.s + part.n : t.s, t.n - part.n};
    *out = jinja_string(t);
done:
    return st;
}

/* find, rfind: an index in characters, -1 for none; count. */
static dr_status search(jinja *j, jinja_value *out, jinja_text t, const jinja_args *a,
                        jinja_text name)
{
    jinja_text part = {0};
    int64_t count = 0;
    dr_status st = DR_OK;

    DR_TRY(jinja_arg_text(j, &part, a, 0, "sub"));
    DR_TRY(jinja_step(j, t.n / 16));
    if (a->count > 1)
        DR_FAIL(DR_EUNSUPPORTED, "chat template line %d: %.*s from a place on", j->line,
                (int)name.n, name.s);
    if (jinja_is(name, "count")) {
        for (size_t at = 0; part.n > 0 && at <= t.n; count++) {
            const char *hit = memmem(t.s + at, t.n - at, part.s, part.n);
            if (hit == NULL)
                break;
            at = (size_t)(hit - t.s) + part.n;
        }
        *out = jinja_int(part.n > 0 ? count : (int64_t)jinja_chars(t) + 1);
        return DR_OK;
    }
    const char *hit = memmem(t.s, t.n, part.s, part.n);
    if (hit != NULL && jinja_is(name, "rfind"))
        DR_TRY(last_hit(j, &hit, t, part));
    *out = jinja_int(
        hit == NULL ? -1 : (int64_t)jinja_chars((jinja_text){t.s, (size_t)(hit - t.s)}));
done:
    return st;
}

/* isdigit, isspace, isalpha, isupper, islower: of all characters, of at least one. */
static dr_status class_test(jinja *j, jinja_value *out, jinja_text t, jinja_text name)
{
    bool all = t.n > 0, any = false;
    uint32_t cp = 0;
    dr_status st = DR_OK;

    DR_TRY(jinja_step(j, t.n / 64));
    for (size_t i = 0; i < t.n && all;) {
        i += tok_utf8_get(t.s + i, t.n - i, &cp);
        const utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
        const bool letter = c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
        if (jinja_is(name, "isdigit"))
            all = c == UTF8PROC_CATEGORY_ND;
        else if (jinja_is(name, "isspace"))
            all = jinja_space(cp);
        else if (jinja_is(name, "isalpha"))
            all = letter;
        else if (jinja_is(name, "isalnum"))
            all = letter || tok_is_numeric(cp);
        else
            all = !is_cased(cp) || (c == UTF8PROC_CATEGORY_LU) == jinja_is(name, "isupper");
        any = any || is_cased(cp);
    }
    if (jinja_is(name, "isupper") || jinja_is(name, "islower"))
        all = all && any;
    *out = jinja_bool(all);
done:
    return st;
}

static dr_status method_join(jinja *j, jinja_value *out, jinja_text t, const jinja_args *a)
{
    const jinja_value *v = jinja_arg(a, 0, "iterable");
    const jinja_list *items = NULL;
    dr_status st = DR_OK;

    if (v == NULL)
        DR_FAIL(DR_EFORMAT, "chat template line %d: join of nothing", j->line);
    DR_TRY(jinja_iterate(j, &items, v));
    for (size_t i = 0; i < items->count; i++)
        if (items->v[i].type != JINJA_STRING)
            DR_FAIL(DR_EFORMAT, "chat template line %d: join of %s", j->line,
                    jinja_type_name(&items->v[i]));
    DR_TRY(jinja_join(j, out, t, items));
done:
    return st;
}

dr_status jinja_string_method(jinja *j, jinja_value *out, jinja_text t, jinja_text name,
                              const jinja_args *a)
{
    static const char *const cases[] = {"upper", "lower", "capitalize", "title"};
    static const char *const classes[] = {"isdigit", "isspace", "isalpha",
                                          "isalnum", "isupper", "islower"};

    for (size_t i = 0; i < DR_COUNT(cases); i++)
        if (jinja_is(name, cases[i]))
            return jinja_recase(j, out, t, (jinja_case)i);
    for (size_t i = 0; i < DR_COUNT(classes); i++)
        if (jinja_is(name, classes[i]))
            return class_test(j, out, t, name);
    if (jinja_is(name, "strip") || jinja_is(name, "lstrip") || jinja_is(name, "rstrip"))
        return jinja_strip(j, out, t, a, name.s[0] != 'r', name.s[0] != 'l');
    if (jinja_is(name, "split") || jinja_is(name, "rsplit"))
        return split(j, out, t, a, name.s[0] == 'r');
    if (jinja_is(name, "splitlines"))
        return split_lines(j, out, t);
    if (jinja_is(name, "startswith") || jinja_is(name, "endswith"))
        return end_test(j, out, t, a, name.s[0] == 's');
    if (jinja_is(name, "removeprefix") || jinja_is(name, "removesuffix"))
        return remove_end(j, out, t, a, jinja_is(name, "removeprefix"));
    if (jinja_is(name, "find") || jinja_is(name, "rfind") || jinja_is(name, "count"))
        return search(j, out, t, a, name);
    if (jinja_is(name, "replace"))
        return jinja_replace(j, out, t, a);
    if (jinja_is(name, "join"))
        return method_join(j, out, t, a);
    return dr_fail(DR_EUNSUPPORTED, "chat template line %d: the string method \"%.*s\"",
                   j->line, (int)name.n, name.s);
}
