/*
 * jinja_print.c - values as text: Python's str and repr, and json.dumps.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "tok/jinja_impl.h"
#include "tok/tok_impl.h"

static dr_status too_deep(const jinja *j)
{
    return dr_fail(DR_EFORMAT, "chat template line %d: values nest deeper than %d", j->line,
                   JINJA_DEPTH_MAX);
}

/* The shortest digits that read back, laid out as Python does: 1e-05, 0.0001, 1e+16. */
static dr_status print_real(dr_buf *out, double f)
{
    char digits[40];
    int exponent = 0, precision = 0;

    if (isnan(f) || isinf(f))
        return dr_buf_adds(out, isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
    for (precision = 0; precision <= 16; precision++) {
        (void)snprintf(digits, sizeof(digits), "%.*e", precision, f);
        const double back = strtod(digits, NULL);
        if (memcmp(&back, &f, sizeof(f)) == 0)
            break;
    }
    exponent = (int)strtol(strchr(digits, 'e') + 1, NULL, 10);
    if (exponent < -4 || exponent >= 16) {
        *strchr(digits, 'e') = '\0';
        return dr_buf_addf(out, "%se%c%02d", digits, exponent < 0 ? '-' : '+',
                           abs(exponent));
    }
    const int decimals = precision - exponent > 1 ? precision - exponent : 1;
    return dr_buf_addf(out, "%.*f", decimals, f);
}

/* Python's str.isprintable for one character. */
static bool printable(uint32_t cp)
{
    const utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);

    return cp == ' ' || !(c == UTF8PROC_CATEGORY_CC || c == UTF8PROC_CATEGORY_CF ||
                          c == UTF8PROC_CATEGORY_CS || c == UTF8PROC_CATEGORY_CO ||
                          c == UTF8PROC_CATEGORY_CN || c == UTF8PROC_CATEGORY_ZL ||
                          c == UTF8PROC_CATEGORY_ZP || c == UTF8PROC_CATEGORY_ZS);
}

static dr_status print_repr(dr_buf *out, jinja_text t)
{
    static const char from[] = "\n\r\t\\", to[] = "nrt\\";
    const bool single = t.n > 0 && memchr(t.s, '\'', t.n) != NULL;
    const char quote = single && memchr(t.s, '"', t.n) == NULL ? '"' : '\'';
    uint32_t cp = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_buf_add(out, &quote, 1));
    for (size_t i = 0, n = 0; i < t.n; i += n) {
        n = tok_utf8_get(t.s + i, t.n - i, &cp);
        const char *hit = cp > 0 && cp < 0x80 ? strchr(from, (int)cp) : NULL;
        if (hit != NULL)
            DR_TRY(dr_buf_addf(out, "\\%c", to[hit - from]));
        else if (cp == (unsigned char)quote)
            DR_TRY(dr_buf_addf(out, "\\%c", quote));
        else if (printable(cp))
            DR_TRY(dr_buf_add(out, t.s + i, n));
        else
            DR_TRY(dr_buf_addf(out,
                               cp < 0x100     ? "\\x%02x"
                               : cp < 0x10000 ? "\\u%04x"
                                              : "\\U%08x",
                               cp));
    }
    DR_TRY(dr_buf_add(out, &quote, 1));
done:
    return st;
}

static dr_status print_list(jinja *j, dr_buf *out, const jinja_value *v, int depth)
{
    const bool tuple = v->type == JINJA_TUPLE;
    const jinja_list *l = v->u.list;
    dr_status st = DR_OK;

    if (l->lazy)
        DR_FAIL(DR_EUNSUPPORTED,
                "chat template line %d: printing a filter's items; |list it", j->line);
    if (l->range) {
        DR_TRY(dr_buf_addf(out, "range(%lld, %lld", (long long)l->a, (long long)l->b));
        if (l->step != 1)
            DR_TRY(dr_buf_addf(out, ", %lld", (long long)l->step));
        return dr_buf_adds(out, ")");
    }
    DR_TRY(dr_buf_adds(out, tuple ? "(" : "["));
    for (size_t i = 0; i < l->count; i++) {
        DR_TRY(dr_buf_adds(out, i > 0 ? ", " : ""));
        DR_TRY(jinja_print(j, out, &l->v[i], true, depth + 1));
    }
    DR_TRY(dr_buf_adds(out, !tuple ? "]" : l->count == 1 ? ",)" : ")"));
done:
    return st;
}

static dr_status print_dict(jinja *j, dr_buf *out, const jinja_dict *d, int depth)
{
    dr_status st = DR_OK;

    DR_TRY(dr_buf_adds(out, "{"));
    for (size_t i = 0; i < d->count; i++) {
        DR_TRY(dr_buf_adds(out, i > 0 ? ", " : ""));
        DR_TRY(jinja_print(j, out, &d->keys[i], true, depth + 1));
        DR_TRY(dr_buf_adds(out, ": "));
        DR_TRY(jinja_print(j, out, &d->values[i], true, depth + 1));
    }
    DR_TRY(dr_buf_adds(out, "}"));
done:
    return st;
}

dr_status jinja_print(jinja *j, dr_buf *out, const jinja_value *v, bool repr, int depth)
{
    dr_status st = DR_OK;

    DR_TRY(jinja_step(j, 1));
    if (depth > JINJA_DEPTH_MAX)
        return too_deep(j);
    switch (v->type) {
    case JINJA_UNDEFINED:
        return dr_buf_adds(out, repr ? "Undefined" : "");
    case JINJA_NONE:
        return dr_buf_adds(out, "None");
    case JINJA_BOOL:
        return dr_buf_adds(out, v->u.truth ? "True" : "False");
    case JINJA_INT:
        return dr_buf_addf(out, "%lld", (long long)v->u.integer);
    case JINJA_FLOAT:
        return print_real(out, v->u.real);
    case JINJA_STRING:
        return repr ? print_repr(out, v->u.text)
                    : dr_buf_add(out, v->u.text.s, v->u.text.n);
    case JINJA_LIST:
    case JINJA_TUPLE:
        return print_list(j, out, v, depth);
    case JINJA_DICT:
        return print_dict(j, out, v->u.dict, depth);
    case JINJA_NAMESPACE:
    case JINJA_LOOP:
    case JINJA_FUNCTION:
    case JINJA_MACRO:
    default:
        return dr_fail(DR_EUNSUPPORTED, "chat template line %d: printing %s", j->line,
                       jinja_type_name(v));
    }
done:
    return st;
}

dr_status jinja_str(jinja *j, jinja_text *out, const jinja_value *v)
{
    dr_status st = DR_OK;

    if (v->type == JINJA_STRING) {
        *out = v->u.text;
        return DR_OK;
    }
    dr_buf_reset(&j->scratch);
    DR_TRY(jinja_print(j, &j->scratch, v, false, 0));
    DR_TRY(jinja_copy(j, out, j->scratch.data, j->scratch.len));
done:
    return st;
}

/* ---- JSON ---- */

/* \uNNNN, or two of them. */
static dr_status json_escaped(dr_buf *out, uint32_t cp)
{
    if (cp < 0x10000)
        return dr_buf_addf(out, "\\u%04x", cp);
    cp -= 0x10000;
    return dr_buf_addf(out, "\\u%04x\\u%04x", 0xD800 + (cp >> 10), 0xDC00 + (cp & 0x3FF));
}

static dr_status json_text(dr_buf *out, jinja_text t, bool ascii)
{
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    uint32_t cp = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_buf_adds(out, "\""));
    for (size_t i = 0, n = 0; i < t.n; i += n) {
        n = tok_utf8_get(t.s + i, t.n - i, &cp);
        const char *hit = cp > 0 && cp < 0x80 ? strchr(from, (int)cp) : NULL;
        if (hit != NULL)
            DR_TRY(dr_buf_addf(out, "\\%c", to[hit - from]));
        else if (cp < 0x20 || (ascii && cp > 0x7E))
            DR_TRY(json_escaped(out, cp));
        else
            DR_TRY(dr_buf_add(out, t.s + i, n));
    }
    DR_TRY(dr_buf_adds(out, "\""));
done:
    return st;
}

static dr_status json_break(dr_buf *out, const jinja_json_style *style, int depth)
{
    dr_status st = DR_OK;

    if (style->indent < 0)
        return DR_OK;
    DR_TRY(dr_buf_adds(out, "\n"));
    for (int i = 0; i < depth * style->indent; i++)
        DR_TRY(dr_buf_adds(out, " "));
done:
    return st;
}

static dr_status json_list(jinja *j, dr_buf *out, const jinja_list *l,
                           const jinja_json_style *style, int depth)
{
    dr_status st = DR_OK;

    DR_TRY(dr_buf_adds(out, "["));
    for (size_t i = 0; i < l->count; i++) {
        if (i > 0)
            DR_TRY(dr_buf_add(out, style->item.s, style->item.n));
        DR_TRY(json_break(out, style, depth + 1));
        DR_TRY(jinja_json(j, out, &l->v[i], style, depth + 1));
    }
    if (l->count > 0)
        DR_TRY(json_break(out, style, depth));
    DR_TRY(dr_buf_adds(out, "]"));
done:
    return st;
}

static dr_status json_key(jinja *j, dr_buf *out, const jinja_value *key,
                          const jinja_json_style *style)
{
    const bool word = key->type == JINJA_NONE || jinja_is_number(key);
    dr_status st = DR_OK;

    if (key->type == JINJA_STRING)
        return json_text(out, key->u.text, style->ascii);
    if (!word)
        DR_FAIL(DR_EFORMAT, "chat template line %d: tojson: a key that is %s", j->line,
                jinja_type_name(key));
    DR_TRY(dr_buf_adds(out, "\""));
    DR_TRY(jinja_json(j, out, key, style, 0));
    DR_TRY(dr_buf_adds(out, "\""));
done:
    return st;
}

/* The positions of a dict's items by key: insertion sort, as dicts are small. */
static dr_status sorted(jinja *j, size_t **out, const jinja_dict *d)
{
    int order = 0;
    dr_status st = DR_OK;

    DR_TRY(jinja_alloc(j, out, d->count, sizeof(**out)));
    for (size_t i = 0; i < d->count; i++) {
        size_t k = i;
        for (; k > 0; k--) {
            DR_TRY(jinja_order(j, &order, &d->keys[(*out)[k - 1]], &d->keys[i], 0));
            if (order <= 0)
                break;
            (*out)[k] = (*out)[k - 1];
        }
        (*out)[k] = i;
    }
done:
    return st;
}

static dr_status json_dict(jinja *j, dr_buf *out, const jinja_dict *d,
                           const jinja_json_style *style, int depth)
{
    size_t *order = NULL;
    dr_status st = DR_OK;

    if (style->sort_keys)
        DR_TRY(sorted(j, &order, d));
    DR_TRY(dr_buf_adds(out, "{"));
    for (size_t i = 0; i < d->count; i++) {
        const size_t k = order != NULL ? order[i] : i;
        if (i > 0)
            DR_TRY(dr_buf_add(out, style->item.s, style->item.n));
        DR_TRY(json_break(out, style, depth + 1));
        DR_TRY(json_key(j, out, &d->keys[k], style));
        DR_TRY(dr_buf_add(out, style->key.s, style->key.n));
        DR_TRY(jinja_json(j, out, &d->values[k], style, depth + 1));
    }
    if (d->count > 0)
        DR_TRY(json_break(out, style, depth));
    DR_TRY(dr_buf_adds(out, "}"));
done:
    return st;
}

dr_status jinja_json(jinja *j, dr_buf *out, const jinja_value *v,
                     const jinja_json_style *style, int depth)
{
    dr_status st = DR_OK;

    DR_TRY(jinja_step(j, 1));
    if (depth > JINJA_DEPTH_MAX)
        return too_deep(j);
    if (v->type == JINJA_NONE)
        return dr_buf_adds(out, "null");
    if (v->type == JINJA_BOOL)
        return dr_buf_adds(out, v->u.truth ? "true" : "false");
    if (v->type == JINJA_FLOAT && (isnan(v->u.real) || isinf(v->u.real)))
        return dr_buf_adds(out, isnan(v->u.real) ? "NaN"
                                : v->u.real > 0  ? "Infinity"
                                                 : "-Infinity");
    if (v->type == JINJA_INT || v->type == JINJA_FLOAT)
        return jinja_print(j, out, v, false, 0);
    if (v->type == JINJA_STRING)
        return json_text(out, v->u.text, style->ascii);
    if ((v->type == JINJA_LIST || v->type == JINJA_TUPLE) && !v->u.list->lazy &&
        !v->u.list->range)
        return json_list(j, out, v->u.list, style, depth);
    if (v->type == JINJA_DICT)
        return json_dict(j, out, v->u.dict, style, depth);
    DR_FAIL(DR_EFORMAT, "chat template line %d: tojson of %s", j->line, jinja_type_name(v));
done:
    return st;
}
