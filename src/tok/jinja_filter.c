/*
 * jinja_filter.c - filters: value|name(arguments).
 *
 * TO ADD: a function and its row in `filters`.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tok/jinja_impl.h"
#include "tok/tok_impl.h"

enum { DIGITS_MAX = 400 };

/* ---- strings ---- */

static dr_status f_trim(jinja *j, jinja_value *out, const jinja_value *v,
                        const jinja_args *a)
{
    jinja_text t = {0};
    dr_status st = DR_OK;

    DR_TRY(jinja_str(j, &t, v));
    DR_TRY(jinja_strip(j, out, t, a, true, true));
done:
    return st;
}

static dr_status recase(jinja *j, jinja_value *out, const jinja_value *v, jinja_case to)
{
    jinja_text t = {0};
    dr_status st = DR_OK;

    DR_TRY(jinja_str(j, &t, v));
    DR_TRY(jinja_recase(j, out, t, to));
done:
    return st;
}

static dr_status f_upper(jinja *j, jinja_value *out, const jinja_value *v,
                         const jinja_args *a)
{
    (void)a;
    return recase(j, out, v, JINJA_UPPER);
}

static dr_status f_lower(jinja *j, jinja_value *out, const jinja_value *v,
                         const jinja_args *a)
{
    (void)a;
    return recase(j, out, v, JINJA_LOWER);
}

static dr_status f_capitalize(jinja *j, jinja_value *out, const jinja_value *v,
                              const jinja_args *a)
{
    (void)a;
    return recase(j, out, v, JINJA_CAPITALIZE);
}

static dr_status f_title(jinja *j, jinja_value *out, const jinja_value *v,
                         const jinja_args *a)
{
    (void)a;
    return recase(j, out, v, JINJA_WORDS);
}

static dr_status f_string(jinja *j, jinja_value *out, const jinja_value *v,
                          const jinja_args *a)
{
    (void)a;
    *out = (jinja_value){.type = JINJA_STRING};
    return jinja_str(j, &out->u.text, v);
}

static dr_status f_replace(jinja *j, jinja_value *out, const jinja_value *v,
                           const jinja_args *a)
{
    jinja_text t = {0};
    dr_status st = DR_OK;

    DR_TRY(jinja_str(j, &t, v));
    DR_TRY(jinja_replace(j, out, t, a));
done:
    return st;
}

/* Lines after the first get `width` blanks; with first=true that one too, empty ones only
 * with blank=true. */
static dr_status f_indent(jinja *j, jinja_value *out, const jinja_value *v,
                          const jinja_args *a)
{
    const jinja_value *first = jinja_arg(a, 1, "first"), *blank = jinja_arg(a, 2, "blank");
    int64_t width = 4;
    jinja_text t = {0};
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, JINJA_OUTPUT_MAX);
    if (v->type != JINJA_STRING)
        DR_FAIL(DR_EFORMAT, "chat template line %d: indent of %s", j->line,
                jinja_type_name(v));
    t = v->u.text;
    DR_TRY(jinja_arg_int(j, &width, a, 0, "width"));
    for (size_t at = 0, line = 0; at <= t.n; line++) {
        const char *newline = at < t.n ? memchr(t.s + at, '\n', t.n - at) : NULL;
        const size_t n = newline != NULL ? (size_t)(newline - t.s) - at : t.n - at;
        const bool wanted = line == 0 ? first != NULL && jinja_truth(first)
                                      : n > 0 || (blank != NULL && jinja_truth(blank));
        DR_TRY(jinja_step(j, 1));
        for (int64_t i = 0; wanted && i < width; i++)
            DR_TRY(dr_buf_adds(&b, " "));
        DR_TRY(dr_buf_add(&b, t.s + at, n + (newline != NULL)));
        at += n + 1;
    }
    *out = (jinja_value){.type = JINJA_STRING};
    DR_TRY(jinja_copy(j, &out->u.text, b.data, b.len));
done:
    dr_buf_release(&b);
    return st;
}

static dr_status f_tojson(jinja *j, jinja_value *out, const jinja_value *v,
                          const jinja_args *a)
{
    const jinja_value *indent = jinja_arg(a, 1, "indent"),
                      *seps = jinja_arg(a, 2, "separators");
    const jinja_value *sort = jinja_arg(a, 3, "sort_keys");
    const jinja_value *ascii = jinja_arg(a, 0, "ensure_ascii");
    const bool lines = indent != NULL && indent->type != JINJA_NONE;
    jinja_json_style style = {.indent = -1, .item = {", ", 2}, .key = {": ", 2}};
    int64_t width = 0;
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, JINJA_OUTPUT_MAX);
    DR_TRY(jinja_arg_int(j, &width, a, 1, "indent"));
    if (lines) {
        if (width > JINJA_INDENT_MAX)
            DR_FAIL(DR_EFORMAT,
                    "chat template line %d: tojson: an indent of %lld; %d is "
                    "the most",
                    j->line, (long long)width, JINJA_INDENT_MAX);
        style.indent = width < 0 ? 0 : (int)width;
        style.item = (jinja_text){",", 1};
    }
    style.sort_keys = sort != NULL && jinja_truth(sort);
    style.ascii = ascii != NULL && jinja_truth(ascii);
    if (seps != NULL && (seps->type == JINJA_TUPLE || seps->type == JINJA_LIST) &&
        seps->u.list->count == 2) {
        DR_TRY(jinja_str(j, &style.item, &seps->u.list->v[0]));
        DR_TRY(jinja_str(j, &style.key, &seps->u.list->v[1]));
    }
    DR_TRY(jinja_json(j, &b, v, &style, 0));
    *out = (jinja_value){.type = JINJA_STRING};
    DR_TRY(jinja_copy(j, &out->u.text, b.data, b.len));
done:
    dr_buf_release(&b);
    return st;
}

/* ---- numbers ---- */

static dr_status defined(const jinja *j, const jinja_value *v)
{
    if (v->type != JINJA_UNDEFINED)
        return DR_OK;
    return dr_fail(DR_EFORMAT, "chat template line %d: \"%.*s\" is undefined", j->line,
                   (int)v->u.text.n, v->u.text.s);
}

/* Text as Python's int and float take it, for strtoll and strtod, which take more: no
 * hexadecimal and nothing in brackets; white space goes.  false: it is no number. */
static bool digits_of(char digits[DIGITS_MAX], jinja_text t)
{
    uint32_t cp = 0;

    while (t.n > 0 && (tok_utf8_get(t.s, t.n, &cp), jinja_space(cp)))
        t = (jinja_text){t.s + tok_utf8_get(t.s, t.n, &cp),
                         t.n - tok_utf8_get(t.s, t.n, &cp)};
    while (t.n > 0 && (tok_utf8_last(t.s, t.n, &cp), jinja_space(cp)))
        t.n -= tok_utf8_last(t.s, t.n, &cp);
    if (t.n == 0 || t.n >= DIGITS_MAX)
        return false;
    memcpy(digits, t.s, t.n);
    digits[t.n] = '\0';
    return strpbrk(digits, "xXpP(") == NULL;
}

static dr_status f_int(jinja *j, jinja_value *out, const jinja_value *v,
                       const jinja_args *a)
{
    const jinja_value *dflt = jinja_arg(a, 0, "default");
    int64_t base = 10;
    char digits[DIGITS_MAX], *end = digits;
    dr_status st = DR_OK;

    DR_TRY(jinja_arg_int(j, &base, a, 1, "base"));
    if (base < 2 || base > 36)
        DR_FAIL(DR_EUNSUPPORTED, "chat template line %d: int with base %lld", j->line,
                (long long)base);
    DR_TRY(defined(j, v));
    *out = dflt != NULL ? *dflt : jinja_int(0);
    if (v->type == JINJA_INT || v->type == JINJA_BOOL)
        *out = v->type == JINJA_INT ? *v : jinja_int(v->u.truth);
    if (v->type == JINJA_FLOAT && fabs(v->u.real) < 9e18)
        *out = jinja_int((int64_t)v->u.real);
    if (v->type != JINJA_STRING || !digits_of(digits, v->u.text))
        return DR_OK;
    errno = 0;
    const int64_t i = strtoll(digits, &end, (int)base);
    if (*end == '\0' && errno == ERANGE)
        DR_FAIL(DR_EUNSUPPORTED, "chat template line %d: an integer beyond 64 bits",
                j->line);
    if (*end == '\0') {
        *out = jinja_int(i);
        return DR_OK;
    }
    const double f = strtod(digits, &end);
    if (*end == '\0' && fabs(f) < 9e18)
        *out = jinja_int((int64_t)f);
done:
    return st;
}

static dr_status f_float(jinja *j, jinja_value *out, const jinja_value *v,
                         const jinja_args *a)
{
    const jinja_value *dflt = jinja_arg(a, 0, "default");
    char digits[DIGITS_MAX], *end = digits;
    dr_status st = DR_OK;

    DR_TRY(defined(j, v));
    *out = dflt != NULL ? *dflt : jinja_real(0.0);
    if (jinja_is_number(v)) {
        *out = jinja_real(jinja_number(v));
    } else if (v->type == JINJA_STRING && digits_of(digits, v->u.text)) {
        const double f = strtod(digits, &end);
        if (*end == '\0')
            *out = jinja_real(f);
    }
done:
    return st;
}

static dr_status f_abs(jinja *j, jinja_value *out, const jinja_value *v,
                       const jinja_args *a)
{
    const jinja_value zero = jinja_int(0);

    (void)a;
    *out = v->type == JINJA_BOOL ? jinja_int(v->u.truth) : *v;
    if (!jinja_is_number(v))
        return dr_fail(DR_EFORMAT, "chat template line %d: abs of %s", j->line,
                       jinja_type_name(v));
    return jinja_number(v) < 0.0 ? jinja_binary(j, out, (jinja_text){"-", 1}, &zero, v)
                                 : DR_OK;
}

/* ---- anything ---- */

static dr_status f_default(jinja *j, jinja_value *out, const jinja_value *v,
                           const jinja_args *a)
{
    const jinja_value *dflt = jinja_arg(a, 0, "default_value");
    const jinja_value *boolean = jinja_arg(a, 1, "boolean");

    (void)j;
    *out = *v;
    if (v->type == JINJA_UNDEFINED ||
        (boolean != NULL && jinja_truth(boolean) && !jinja_truth(v)))
        *out = dflt != NULL ? *dflt : jinja_string((jinja_text){"", 0});
    return DR_OK;
}

static dr_status f_safe(jinja *j, jinja_value *out, const jinja_value *v,
                        const jinja_args *a)
{
    (void)j, (void)a;
    *out = *v;
    return DR_OK;
}

static dr_status f_length(jinja *j, jinja_value *out, const jinja_value *v,
                          const jinja_args *a)
{
    const jinja_list *items = NULL;
    dr_status st = DR_OK;

    (void)a;
    if (v->type == JINJA_STRING) {
        *out = jinja_int((int64_t)jinja_chars(v->u.text));
        return jinja_step(j, v->u.text.n / 64);
    }
    if (v->type == JINJA_LIST && v->u.list->lazy)
        DR_FAIL(DR_EFORMAT, "chat template line %d: the length of a filter's items",
                j->line);
    DR_TRY(jinja_iterate(j, &items, v));
    *out = jinja_int((int64_t)items->count);
done:
    return st;
}

/* ---- the list ---- */

static const struct {
    const char *name;
    jinja_filter_fn run;
    const char *params; /* in order; NULL: what a test or filter wants */
} filters[] = {
    {"abs", f_abs, ""},
    {"capitalize", f_capitalize, ""},
    {"count", f_length, ""},
    {"d", f_default, "default_value boolean"},
    {"default", f_default, "default_value boolean"},
    {"dictsort", jinja_f_dictsort, "case_sensitive by reverse"},
    {"first", jinja_f_first, ""},
    {"float", f_float, "default"},
    {"indent", f_indent, "width first blank"},
    {"int", f_int, "default base"},
    {"items", jinja_f_items, ""},
    {"join", jinja_f_join, "d attribute"},
    {"last", jinja_f_last, ""},
    {"length", f_length, ""},
    {"list", jinja_f_list, ""},
    {"lower", f_lower, ""},
    {"map", jinja_f_map, NULL},
    {"max", jinja_f_max, "case_sensitive attribute"},
    {"min", jinja_f_min, "case_sensitive attribute"},
    {"reject", jinja_f_reject, NULL},
    {"rejectattr", jinja_f_rejectattr, NULL},
    {"replace", f_replace, "old new count"},
    {"reverse", jinja_f_reverse, ""},
    {"safe", f_safe, ""},
    {"select", jinja_f_select, NULL},
    {"selectattr", jinja_f_selectattr, NULL},
    {"sort", jinja_f_sort, "reverse case_sensitive attribute"},
    {"string", f_string, ""},
    {"sum", jinja_f_sum, "attribute start"},
    {"title", f_title, ""},
    {"tojson", f_tojson, "ensure_ascii indent separators sort_keys"},
    {"trim", f_trim, "chars"},
    {"unique", jinja_f_unique, "case_sensitive attribute"},
    {"upper", f_upper, ""},
};

/* The i-th name of a list of words, NULL behind the last. */
static const char *word_at(const char *words, size_t i, size_t *n)
{
    for (;; i--) {
        *n = strcspn(words, " ");
        if (*n == 0 || i == 0)
            return *n > 0 ? words : NULL;
        words += *n + (words[*n] == ' ');
    }
}

/* An argument that the filter would not look at is an error. */
static dr_status check_args(const jinja *j, jinja_text name, const char *params,
                            const jinja_args *a)
{
    size_t n = 0;

    if (a->count > 0 && word_at(params, a->count - 1, &n) == NULL)
        return dr_fail(DR_EFORMAT,
                       "chat template line %d: the filter \"%.*s\" with %zu "
                       "arguments",
                       j->line, (int)name.n, name.s, a->count);
    for (size_t k = 0; k < a->named_count; k++) {
        const char *word = NULL;
        for (size_t i = 0; (word = word_at(params, i, &n)) != NULL; i++)
            if (a->names[k].n == n && memcmp(a->names[k].s, word, n) == 0)
                break;
        if (word == NULL)
            return dr_fail(DR_EFORMAT,
                           "chat template line %d: the filter \"%.*s\" has no \"%.*s\"",
                           j->line, (int)name.n, name.s, (int)a->names[k].n, a->names[k].s);
    }
    return DR_OK;
}

bool jinja_filter_known(jinja_text name)
{
    for (size_t i = 0; i < DR_COUNT(filters); i++)
        if (jinja_is(name, filters[i].name))
            return true;
    return false;
}

dr_status jinja_filter(jinja *j, jinja_value *out, jinja_text name, const jinja_value *v,
                       const jinja_args *a)
{
    dr_status st = DR_OK;

    if (++j->depth > JINJA_DEPTH_MAX * 10)
        DR_FAIL(DR_EFORMAT, "chat template line %d: nests too deep", j->line);
    for (size_t i = 0; i < DR_COUNT(filters); i++) {
        if (jinja_is(name, filters[i].name)) {
            if (filters[i].params != NULL)
                DR_TRY(check_args(j, name, filters[i].params, a));
            DR_TRY(filters[i].run(j, out, v, a));
            j->depth--;
            goto done;
        }
    }
    DR_FAIL(DR_EUNSUPPORTED, "chat template line %d: the filter \"%.*s\"", j->line,
            (int)name.n, name.s);
done:
    return st;
}
