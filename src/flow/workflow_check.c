/*
 * workflow_check.c - a file held to the schema, and read access to one that holds.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/json.h"
#include "flow/workflow_impl.h"

enum { NAMES_MAX = 96 };

/* ---- access ---- */

const dr_node *wf_get(const dr_node *node, const char *key)
{
    const dr_node *n = dr_node_get(node, key);

    return n != NULL ? n : dr_node_get(dr_node_get(node, "config"), key);
}

const dr_node *wf_engine(const dr_doc *d, const char *key)
{
    const dr_node *n = dr_node_get(dr_node_get(d->top, "engine"), key);

    return n != NULL ? n : dr_node_get(d->top, key);
}

const char *wf_str(const dr_node *n)
{
    return n != NULL ? json_string_value(n->value) : NULL;
}

double wf_num(const dr_node *n, double dflt)
{
    return n != NULL && json_is_number(n->value) ? json_number_value(n->value) : dflt;
}

bool wf_bool(const dr_node *n, bool dflt)
{
    return n != NULL ? json_is_true(n->value) : dflt;
}

const char *wf_strs(dr_arena *a, const dr_node *n)
{
    const char *text = NULL;

    if (n == NULL || json_is_string(n->value))
        return wf_str(n);
    for (const dr_node *i = n->first; i != NULL; i = i->next)
        text = text != NULL ? dr_arena_printf(a, "%s,%s", text, wf_str(i)) : wf_str(i);
    return text;
}

/* ---- the check ---- */

dr_status wf_unknown(const dr_doc *d, const dr_node *n, const char *what, const char *found,
                     const char *const *names, size_t count)
{
    dr_arena a = {0};
    dr_status st = dr_fail(DR_EUSAGE, "%s: no %s is called \"%s\"", dr_node_place(&a, d, n),
                           what, found);
    const char *near = dr_nearest(found, names, count);

    if (near != NULL)
        dr_hint("did you mean \"%s\"?", near);
    dr_arena_release(&a);
    return st;
}

static const wf_row *row_of(const wf_object *o, const char *key)
{
    for (size_t i = 0; i < o->count; i++)
        if (strcmp(o->rows[i].key, key) == 0)
            return &o->rows[i];
    return NULL;
}

static dr_status unknown_key(const dr_doc *d, const dr_node *n, const wf_object *o)
{
    const char *names[NAMES_MAX];
    size_t count = 0;

    DR_BUG_IF(o->count > NAMES_MAX);
    for (size_t i = 0; i < o->count; i++)
        if (o->rows[i].kind != WF_REFUSED)
            names[count++] = o->rows[i].key;
    dr_arena a = {0};
    dr_status st =
        wf_unknown(d, n, dr_arena_printf(&a, "key of %s", o->name), n->key, names, count);
    dr_arena_release(&a);
    return st;
}

static dr_status expected(const dr_doc *d, const dr_node *n, const char *want)
{
    return dr_node_fail(d, n, "expected %s, found %s", want, dr_json_type(n->value));
}

static dr_status check_object(const dr_doc *d, const dr_node *n, const wf_object *o);

static dr_status check_number(const dr_doc *d, const dr_node *n, const wf_row *row)
{
    bool whole = row->kind == WF_INT;

    if (whole ? !json_is_integer(n->value) : !json_is_number(n->value))
        return expected(d, n, whole ? "an integer" : "a number");
    double v = json_number_value(n->value);
    if ((row->min != 0 || row->max != 0) && (v < row->min || v > row->max))
        return dr_node_fail(d, n, "expected %.10g to %.10g, found %.10g", row->min,
                            row->max, v);
    return DR_OK;
}

/* "key is not supported: why" */
static dr_status refuse(const dr_doc *d, const dr_node *n, const char *what,
                        const char *why)
{
    dr_arena a = {0};
    dr_status st = dr_fail(DR_EUSAGE, "%s: %s is not supported: %s",
                           dr_node_place(&a, d, n), what, why);

    dr_arena_release(&a);
    return st;
}

static dr_status check_word(const dr_doc *d, const dr_node *n, const wf_row *row)
{
    const char *found = json_string_value(n->value);
    char text[DR_TRAIL_TEXT / 2] = "";
    size_t count = 0, used = 0;

    if (found == NULL)
        return expected(d, n, "a string");
    for (const wf_refusal *r = row->refused; r != NULL && r->word != NULL; r++)
        if (strcasecmp(r->word, found) == 0)
            return refuse(d, n, r->word, r->why);
    for (; row->words[count] != NULL; count++) {
        if (strcasecmp(row->words[count], found) == 0)
            return DR_OK;
        int put = snprintf(text + used, sizeof(text) - used, "%s%s", count ? ", " : "",
                           row->words[count]);
        used += put > 0 && (size_t)put < sizeof(text) - used ? (size_t)put : 0;
    }
    dr_status st = dr_node_fail(d, n, "expected %s%s, found \"%s\"",
                                count > 1 ? "one of " : "", text, found);
    const char *near = dr_nearest(found, row->words, count);
    if (near != NULL)
        dr_hint("did you mean %s?", near);
    return st;
}

static dr_status check_strings(const dr_doc *d, const dr_node *n)
{
    dr_status st = DR_OK;

    if (json_is_string(n->value))
        return DR_OK;
    if (!json_is_array(n->value))
        return expected(d, n, "a string or a list of strings");
    for (const dr_node *i = n->first; i != NULL; i = i->next)
        if (!json_is_string(i->value))
            DR_TRY(expected(d, i, "a string"));
done:
    return st;
}

/* At least one item, each a list of names. */
static dr_status check_flows(const dr_doc *d, const dr_node *n)
{
    dr_status st = DR_OK;

    if (!json_is_array(n->value) || n->first == NULL)
        return expected(d, n, "a list of lists of passes");
    for (const dr_node *i = n->first; i != NULL; i = i->next) {
        if (!json_is_array(i->value) || i->first == NULL)
            DR_TRY(expected(d, i, "a list of passes"));
        DR_TRY(check_strings(d, i));
    }
done:
    return st;
}

/* Every item is an object of that kind; lists: or a list of them. */
static dr_status check_items(const dr_doc *d, const dr_node *n, const wf_object *o,
                             bool lists)
{
    dr_status st = DR_OK;

    for (const dr_node *i = n->first; i != NULL; i = i->next) {
        if (!lists || !json_is_array(i->value)) {
            DR_TRY(check_object(d, i, o));
            continue;
        }
        if (i->first == NULL)
            DR_TRY(dr_node_fail(d, i, "an empty list: one alternative at least"));
        for (const dr_node *k = i->first; k != NULL; k = k->next)
            DR_TRY(check_object(d, k, o));
    }
done:
    return st;
}

static dr_status check_value(const dr_doc *d, const dr_node *n, const wf_row *row)
{
    const json_t *v = n->value;

    if (json_is_null(v) && row->kind != WF_REFUSED)
        return row->required ? dr_node_fail(d, n, "a value is needed") : DR_OK;
    switch (row->kind) {
    case WF_STR:
        return json_is_string(v) ? DR_OK : expected(d, n, "a string");
    case WF_STRS:
        return check_strings(d, n);
    case WF_INT:
    case WF_NUM:
        return check_number(d, n, row);
    case WF_BOOL:
        return json_is_boolean(v) ? DR_OK : expected(d, n, "true or false");
    case WF_OFF:
        if (json_is_false(v))
            return DR_OK;
        if (!json_is_true(v))
            return expected(d, n, "false");
        break;
    case WF_WORD:
        return check_word(d, n, row);
    case WF_ANY:
        return DR_OK;
    case WF_OBJECT:
        return check_object(d, n, row->of);
    case WF_LIST:
        return json_is_array(v) ? check_items(d, n, row->of, false)
                                : expected(d, n, "a list");
    case WF_SOME:
        return json_is_array(v) ? check_items(d, n, row->of, false)
                                : check_object(d, n, row->of);
    case WF_MAP:
    case WF_MAPS:
        return json_is_object(v) ? check_items(d, n, row->of, row->kind == WF_MAPS)
                                 : expected(d, n, "an object of names");
    case WF_FLOWS:
        return check_flows(d, n);
    case WF_NAMED:
        return json_is_object(v) || json_is_array(v)
                   ? check_items(d, n, row->of, false)
                   : expected(d, n, "a list, or an object of names");
    case WF_REF:
        return json_is_string(v) ? DR_OK : check_object(d, n, row->of);
    case WF_SEARCH:
        return json_is_boolean(v) ? DR_OK : check_object(d, n, row->of);
    case WF_REFUSED:
        break;
    }
    return refuse(d, n, row->key, row->help);
}

static dr_status check_keys(const dr_doc *d, const dr_node *n, const wf_object *o)
{
    dr_status st = DR_OK;

    for (const dr_node *i = n->first; i != NULL; i = i->next) {
        const wf_row *row = row_of(o, i->key);
        if (row != NULL)
            DR_TRY(check_value(d, i, row));
        else if (o->nested && strcmp(i->key, "config") == 0 && json_is_object(i->value))
            DR_TRY(check_keys(d, i, o));
        else if (!o->open)
            DR_TRY(unknown_key(d, i, o));
    }
done:
    return st;
}

static dr_status check_object(const dr_doc *d, const dr_node *n, const wf_object *o)
{
    dr_status st = DR_OK;

    if (!json_is_object(n->value))
        return expected(d, n, "an object");
    DR_TRY(check_keys(d, n, o));
    for (size_t i = 0; i < o->count; i++) {
        const char *key = o->rows[i].key;
        if (o->rows[i].required && wf_get(n, key) == NULL)
            DR_TRY(dr_node_fail(d, n, "%s needs \"%s\"", o->name, key));
    }
done:
    return st;
}

dr_status wf_check(const dr_doc *d)
{
    return check_object(d, d->top, &wf_workflow);
}
