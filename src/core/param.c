/*
 * param.c - rows of a parameter table: found by name, set from text and JSON.
 *
 * Text and JSON end in the same store_* functions, so a range holds whoever sets it.
 */
#include "core/param.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/json.h"

enum { WORD_MAX = 64 };

/* ---- names ---- */

static int fold(char c)
{
    return c == '-' ? '_' : tolower((unsigned char)c);
}

static bool starts_with(const char *s, const char *head)
{
    while (*head != '\0' && fold(*s) == fold(*head)) {
        s++;
        head++;
    }
    return *head == '\0';
}

static int min_of(int a, int b)
{
    return a < b ? a : b;
}

/* Insertions, deletions, replacements and swaps of neighbours that turn a into b. */
static int distance(const char *a, size_t na, const char *b, size_t nb)
{
    int d[3][WORD_MAX + 1]; /* rows i-2, i-1 and i, by turns */

    for (size_t j = 0; j <= nb; j++)
        d[0][j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        int *row = d[i % 3], *up = d[(i + 2) % 3], *up2 = d[(i + 1) % 3];
        row[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            bool same = fold(a[i - 1]) == fold(b[j - 1]);
            row[j] = min_of(min_of(up[j], row[j - 1]) + 1, up[j - 1] + !same);
            if (i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) &&
                fold(a[i - 2]) == fold(b[j - 1]))
                row[j] = min_of(row[j], up2[j - 2] + 1);
        }
    }
    return d[na % 3][nb];
}

const char *dr_nearest(const char *word, const char *const *list, size_t n)
{
    const char *best = NULL;
    size_t len = strlen(word), best_cost = SIZE_MAX;

    if (len == 0 || len > WORD_MAX)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        size_t m = strlen(list[i]);
        if (m > WORD_MAX)
            continue;
        /* One wrong letter in three is a slip; the beginning of a longer word also is. */
        size_t cost = (size_t)distance(word, len, list[i], m) * 1000 + m;
        bool slip = cost / 1000 * 3 <= (len > m ? len : m);
        bool begins = len >= 3 && starts_with(list[i], word);
        if (begins && !slip)
            cost = 1000 * (size_t)WORD_MAX + m; /* after all slips, the shortest first */
        if ((slip || begins) && cost < best_cost) {
            best_cost = cost;
            best = list[i];
        }
    }
    return best;
}

const dr_param *dr_param_find(const dr_param *params, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        const char *a = params[i].name, *b = name;
        while (*a != '\0' && *a == (*b == '-' ? '_' : *b)) {
            a++;
            b++;
        }
        if (*a == '\0' && *b == '\0')
            return &params[i];
    }
    return NULL;
}

bool dr_param_given(const dr_param *params, size_t n, const unsigned char *given,
                    const char *name)
{
    const dr_param *p = dr_param_find(params, n, name);

    return given != NULL && p != NULL && given[p - params] != 0;
}

/* ---- values ---- */

static void *field(const dr_param *p, void *cfg)
{
    return (char *)cfg + p->offset;
}

static dr_status check_range(const dr_param *p, double v, const char *label)
{
    if ((p->min == 0 && p->max == 0) || (v >= p->min && v <= p->max))
        return DR_OK;
    if (p->min == p->max)
        return dr_fail(DR_EUSAGE, "%s: expected %.10g, found %.10g", label, p->min, v);
    if (p->max >= INT_MAX)
        return dr_fail(DR_EUSAGE, "%s: expected at least %.10g, found %.10g", label, p->min,
                       v);
    return dr_fail(DR_EUSAGE, "%s: expected %.10g to %.10g, found %.10g", label, p->min,
                   p->max, v);
}

static dr_status store_int(const dr_param *p, void *cfg, long long v, const char *label)
{
    dr_status st = DR_OK;

    if (v < INT_MIN || v > INT_MAX)
        DR_FAIL(DR_EUSAGE, "%s: %lld does not fit 32 bits", label, v);
    DR_TRY(check_range(p, (double)v, label));
    *(int *)field(p, cfg) = (int)v;
done:
    return st;
}

static dr_status store_float(const dr_param *p, void *cfg, double v, const char *label)
{
    dr_status st = DR_OK;

    if (!isfinite(v))
        DR_FAIL(DR_EUSAGE, "%s: expected a finite number, found %g", label, v);
    DR_TRY(check_range(p, v, label));
    *(double *)field(p, cfg) = v;
done:
    return st;
}

/* "a, b or c" into text. */
static void list_words(char *text, size_t size, const char *const *words)
{
    size_t n = 0, used = 0;

    while (words[n] != NULL)
        n++;
    for (size_t i = 0; i < n && used < size; i++) {
        const char *mark = i == 0 ? "" : i + 1 == n ? " or " : ", ";
        int put = snprintf(text + used, size - used, "%s%s", mark, words[i]);
        used += put > 0 ? (size_t)put : 0;
    }
}

static dr_status store_choice(const dr_param *p, void *cfg, const char *text,
                              const char *label)
{
    char words[DR_TRAIL_TEXT / 2] = "";
    size_t n = 0;

    for (; p->choices[n] != NULL; n++) {
        if (strcmp(p->choices[n], text) == 0) {
            *(int *)field(p, cfg) = (int)n;
            return DR_OK;
        }
    }
    list_words(words, sizeof(words), p->choices);
    dr_status st = dr_fail(DR_EUSAGE, "%s: expected %s, found \"%s\"", label, words, text);
    const char *near = dr_nearest(text, p->choices, n);
    if (near != NULL)
        dr_hint("did you mean %s?", near);
    return st;
}

static dr_status refuse(const dr_param *p, const char *label)
{
    dr_status st = dr_fail(DR_EUSAGE, "%s is not supported yet: %s", label, p->refused);

    if (p->nearest != NULL)
        dr_hint("the nearest is %.*s%s", (int)strspn(label, "-"), "--", p->nearest);
    return st;
}

/* A bool in a user's words; false when text is none of them. */
static bool read_bool(bool *out, const char *text)
{
    static const char *const words[] = {"false", "true", "0", "1", "no", "yes"};

    for (size_t i = 0; i < DR_COUNT(words); i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *out = i % 2 == 1;
            return true;
        }
    }
    return false;
}

static dr_status set_int_text(const dr_param *p, void *cfg, const char *text,
                              const char *label)
{
    char *end = NULL;

    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || isspace((unsigned char)text[0]))
        return dr_fail(DR_EUSAGE, "%s: expected an integer, found \"%s\"", label, text);
    if (errno == ERANGE)
        return dr_fail(DR_EUSAGE, "%s: %s does not fit 32 bits", label, text);
    return store_int(p, cfg, v, label);
}

static dr_status set_float_text(const dr_param *p, void *cfg, const char *text,
                                const char *label)
{
    char *end = NULL;
    double v = strtod(text, &end);

    if (end == text || *end != '\0' || isspace((unsigned char)text[0]))
        return dr_fail(DR_EUSAGE, "%s: expected a number, found \"%s\"", label, text);
    return store_float(p, cfg, v, label);
}

dr_status dr_param_set_text(const dr_param *p, void *cfg, const char *text,
                            const char *label, dr_arena *a)
{
    switch (p->type) {
    case DR_PARAM_BOOL:
        if (!read_bool(field(p, cfg), text))
            return dr_fail(DR_EUSAGE, "%s: expected true or false, found \"%s\"", label,
                           text);
        return DR_OK;
    case DR_PARAM_INT:
        return set_int_text(p, cfg, text, label);
    case DR_PARAM_FLOAT:
        return set_float_text(p, cfg, text, label);
    case DR_PARAM_STR:
        *(const char **)field(p, cfg) = dr_arena_strdup(a, text);
        return DR_OK;
    case DR_PARAM_CHOICE:
        return store_choice(p, cfg, text, label);
    case DR_PARAM_REFUSED:
        break;
    }
    return refuse(p, label);
}

static dr_status wrong_type(const char *label, const char *want, const json_t *found)
{
    return dr_fail(DR_EUSAGE, "%s: expected %s, found %s", label, want,
                   dr_json_type(found));
}

/* One member of a list or object as text; NULL: it is neither text, number nor bool. */
static const char *item_text(dr_arena *a, const json_t *value)
{
    if (json_is_string(value) &&
        strlen(json_string_value(value)) == json_string_length(value))
        return json_string_value(value);
    if (json_is_boolean(value))
        return json_is_true(value) ? "true" : "false";
    if (json_is_integer(value))
        return dr_arena_printf(a, "%lld", (long long)json_integer_value(value));
    return json_is_real(value) ? dr_arena_printf(a, "%.17g", json_real_value(value)) : NULL;
}

/* "a,b" of a list, "k=v,k=v" of an object. */
static dr_status set_listed(const dr_param *p, void *cfg, const json_t *value,
                            const char *label, dr_arena *a)
{
    const char *text = NULL, *key;
    json_t *item;
    size_t i;

    json_array_foreach(value, i, item)
    {
        const char *one = item_text(a, item);
        if (one == NULL)
            return wrong_type(label, "a list of strings", item);
        text = text != NULL ? dr_arena_printf(a, "%s,%s", text, one) : one;
    }
    /* jansson's iterators take the object without const, and leave it as it is. */
    json_object_foreach((json_t *)(uintptr_t)value, key, item)
    {
        const char *one = item_text(a, item);
        if (one == NULL)
            return wrong_type(label, "an object of plain values", item);
        text = text != NULL ? dr_arena_printf(a, "%s,%s=%s", text, key, one)
                            : dr_arena_printf(a, "%s=%s", key, one);
    }
    *(const char **)field(p, cfg) = text != NULL ? dr_arena_strdup(a, text) : NULL;
    return DR_OK;
}

dr_status dr_param_set_json(const dr_param *p, void *cfg, const json_t *value,
                            const char *label, dr_arena *a)
{
    if (p->type == DR_PARAM_REFUSED)
        return refuse(p, label);
    if (p->json && (json_is_object(value) || (p->listed && json_is_array(value)))) {
        char *text = json_dumps(value, JSON_COMPACT);
        DR_BUG_IF(text == NULL);
        *(const char **)field(p, cfg) = dr_arena_strdup(a, text);
        free(text);
        return DR_OK;
    }
    if (p->listed && (json_is_array(value) || json_is_object(value)))
        return set_listed(p, cfg, value, label, a);
    if (p->listed && json_is_number(value)) {
        *(const char **)field(p, cfg) = item_text(a, value);
        return DR_OK;
    }
    if (json_is_null(value)) {
        if (p->type == DR_PARAM_STR)
            *(const char **)field(p, cfg) = NULL;
        return DR_OK;
    }
    if (p->type == DR_PARAM_BOOL) {
        if (!json_is_boolean(value))
            return wrong_type(label, "true or false", value);
        *(bool *)field(p, cfg) = json_is_true(value);
        return DR_OK;
    }
    if (p->type == DR_PARAM_INT) {
        if (!json_is_integer(value))
            return wrong_type(label, "an integer", value);
        return store_int(p, cfg, json_integer_value(value), label);
    }
    if (p->type == DR_PARAM_FLOAT) {
        if (!json_is_number(value))
            return wrong_type(label, "a number", value);
        return store_float(p, cfg, json_number_value(value), label);
    }
    if (!json_is_string(value))
        return wrong_type(label, "a string", value);
    if (strlen(json_string_value(value)) != json_string_length(value))
        return dr_fail(DR_EUSAGE, "%s: the string has a zero character", label);
    return dr_param_set_text(p, cfg, json_string_value(value), label, a);
}

/* ---- defaults ---- */

static void set_default(const dr_param *p, void *cfg)
{
    dr_status st = DR_OK;

    switch (p->type) {
    case DR_PARAM_STR: /* borrowed from the table: no arena */
        *(const char **)field(p, cfg) =
            p->dflt != NULL && strcmp(p->dflt, "null") != 0 ? p->dflt : NULL;
        return;
    case DR_PARAM_CHOICE:
        *(int *)field(p, cfg) = -1;
        if (p->dflt == NULL || strcmp(p->dflt, "null") == 0)
            return;
        break;
    case DR_PARAM_BOOL:
        *(bool *)field(p, cfg) = false;
        break;
    case DR_PARAM_INT:
        *(int *)field(p, cfg) = 0;
        break;
    case DR_PARAM_FLOAT:
        *(double *)field(p, cfg) = 0;
        break;
    case DR_PARAM_REFUSED:
        return;
    }
    DR_BUG_IF(p->min > p->max); /* the row has one of the two */
    if (p->dflt != NULL)
        st = dr_param_set_text(p, cfg, p->dflt, p->name, NULL);
    DR_BUG_IF(st != DR_OK); /* the row's own default is wrong */
}

void dr_params_defaults(const dr_param *params, size_t n, void *cfg)
{
    for (size_t i = 0; i < n; i++)
        set_default(&params[i], cfg);
}
