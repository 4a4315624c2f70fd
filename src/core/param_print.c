/*
 * param_print.c - a parameter table as help and as JSON.
 */
#include <string.h>

#include "core/arena.h"
#include "core/param.h"

/* Help starts in the column after the longest option, but not further right than this. */
enum { LINE_COLUMNS = 80, HELP_COLUMN_MAX = 34 };

static bool shown(const dr_param *p)
{
    return !p->hidden && p->type != DR_PARAM_REFUSED;
}

/* `  -m, --name VALUE` */
static char *left_text(dr_arena *a, const dr_param *p)
{
    const char *value = p->type == DR_PARAM_BOOL ? "" : " VALUE";

    if (p->short_name != '\0')
        return dr_arena_printf(a, "  -%c, --%s%s", p->short_name, p->name, value);
    return dr_arena_printf(a, "  --%s%s", p->name, value);
}

/* `help: a, b or c (default: a)` */
static char *right_text(dr_arena *a, const dr_param *p)
{
    char *text = dr_arena_strdup(a, p->help ? p->help : "");

    for (size_t i = 0; p->type == DR_PARAM_CHOICE && p->choices[i] != NULL; i++) {
        const char *mark = i == 0 ? ": " : p->choices[i + 1] == NULL ? " or " : ", ";
        text = dr_arena_printf(a, "%s%s%s", text, mark, p->choices[i]);
    }
    if (p->required)
        return dr_arena_printf(a, "%s (required)", text);
    if (p->dflt == NULL || strcmp(p->dflt, "null") == 0)
        return text;
    return dr_arena_printf(a, "%s (default: %s)", text, p->dflt);
}

/* Words from column `at` on, broken at LINE_COLUMNS; a longer word stands whole. */
static dr_status add_wrapped(dr_buf *b, const char *text, size_t at, size_t column)
{
    dr_status st = DR_OK;

    while (*text != '\0') {
        size_t word = strcspn(text, " ");
        if (at > column && at + 1 + word > LINE_COLUMNS) {
            DR_TRY(dr_buf_adds(b, "\n"));
            at = 0;
        } else if (at > column) {
            DR_TRY(dr_buf_adds(b, " "));
            at++;
        }
        if (at < column) {
            DR_TRY(dr_buf_addf(b, "%*s", (int)(column - at), ""));
            at = column;
        }
        DR_TRY(dr_buf_add(b, text, word));
        at += word;
        text += word;
        text += strspn(text, " ");
    }
    DR_TRY(dr_buf_adds(b, "\n"));
done:
    return st;
}

dr_status dr_params_help(dr_buf *b, const dr_param *params, size_t n)
{
    dr_arena a = {0};
    size_t column = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i++) {
        size_t width = shown(&params[i]) ? strlen(left_text(&a, &params[i])) + 2 : 0;
        if (width > column && width <= HELP_COLUMN_MAX)
            column = width;
    }
    for (size_t i = 0; i < n; i++) {
        if (!shown(&params[i]))
            continue;
        const char *left = left_text(&a, &params[i]);
        size_t at = strlen(left);
        DR_TRY(dr_buf_adds(b, left));
        if (at + 2 > column) {
            DR_TRY(dr_buf_adds(b, "\n"));
            at = 0;
        }
        DR_TRY(add_wrapped(b, right_text(&a, &params[i]), at, column));
    }
done:
    dr_arena_release(&a);
    return st;
}

/* ---- JSON ---- */

static json_t *value_json(const dr_param *p, const void *cfg)
{
    const void *at = (const char *)cfg + p->offset;
    const char *text = NULL;

    switch (p->type) {
    case DR_PARAM_BOOL:
        return json_boolean(*(const bool *)at);
    case DR_PARAM_INT:
        return json_integer(*(const int *)at);
    case DR_PARAM_FLOAT:
        return json_real(*(const double *)at);
    case DR_PARAM_STR:
        text = *(const char *const *)at;
        break;
    case DR_PARAM_CHOICE:
        text = *(const int *)at >= 0 ? p->choices[*(const int *)at] : NULL;
        break;
    case DR_PARAM_REFUSED:
        return NULL;
    }
    json_t *parsed = p->json && text != NULL ? json_loads(text, 0, NULL) : NULL;
    if (parsed != NULL)
        return parsed;
    return text ? json_string(text) : json_null();
}

dr_status dr_params_json(json_t **out, const dr_param *params, size_t n, const void *cfg)
{
    json_t *o = json_object();
    dr_status st = DR_OK;

    *out = NULL;
    for (size_t i = 0; i < n; i++) {
        if (params[i].type == DR_PARAM_REFUSED)
            continue;
        json_t *v = value_json(&params[i], cfg);
        if (v == NULL) /* jansson refuses what is not UTF-8, NaN and infinity */
            DR_FAIL(DR_EUSAGE, "%s: the value cannot be written as JSON", params[i].name);
        if (json_object_set_new(o, params[i].name, v) != 0)
            dr_oom(0);
    }
    *out = o;
    o = NULL;
done:
    json_decref(o);
    return st;
}
