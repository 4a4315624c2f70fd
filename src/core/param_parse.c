/*
 * param_parse.c - argv and JSON objects against a parameter table.
 */
#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/json.h"
#include "core/mem.h"
#include "core/param.h"

/* ---- unknown and missing names ---- */

/* Refused rows are not offered: they would only be refused next. */
static const char *nearest_row(const dr_param *params, size_t n, const char *name)
{
    const char **names = dr_calloc(n, sizeof(*names));
    size_t count = 0;

    for (size_t i = 0; i < n; i++)
        if (params[i].type != DR_PARAM_REFUSED && !params[i].hidden)
            names[count++] = params[i].name;
    const char *near = dr_nearest(name, names, count);
    free(names);
    return near;
}

static dr_status check_required(const dr_param *params, size_t n, const unsigned char *seen,
                                const char *before)
{
    for (size_t i = 0; i < n; i++)
        if (params[i].required && !seen[i])
            return dr_fail(DR_EUSAGE, "%s%s is required", before, params[i].name);
    return DR_OK;
}

static void copy_given(unsigned char *given, const unsigned char *seen, size_t n)
{
    for (size_t i = 0; given != NULL && i < n; i++)
        given[i] = seen[i];
}

/* ---- argv ---- */

/* As argparse decides it: -1 and "- a list" are values, --x and -x are options. */
static bool looks_like_option(const char *s)
{
    return s[0] == '-' && s[1] != '\0' && !isdigit((unsigned char)s[1]) && s[1] != '.' &&
           strchr(s, ' ') == NULL;
}

static bool is_bool_word(const char *s)
{
    static const char *const words[] = {"false", "true", "0", "1", "no", "yes"};

    for (size_t i = 0; i < DR_COUNT(words); i++)
        if (strcasecmp(s, words[i]) == 0)
            return true;
    return false;
}

static dr_status find_option(const dr_param **out, const dr_param *params, size_t n,
                             const char *arg, const char *name)
{
    *out = NULL;
    if (arg[1] != '-') { /* -m */
        for (size_t i = 0; i < n && arg[2] == '\0'; i++)
            if (params[i].short_name == arg[1])
                *out = &params[i];
    } else {
        *out = dr_param_find(params, n, name);
    }
    if (*out != NULL)
        return DR_OK;
    dr_status st = dr_fail(DR_EUSAGE, "unknown option %.*s", (int)strcspn(arg, "="), arg);
    const char *near = nearest_row(params, n, name);
    if (near != NULL)
        dr_hint("did you mean --%s?", near);
    return st;
}

/* The values from argv[*at] up to the next option, commas between; *at is left behind. */
static char *join_words(int argc, char *const *argv, int *at)
{
    char *all = dr_strdup(argv[(*at)++]);

    while (*at < argc && !looks_like_option(argv[*at])) {
        char *more = dr_asprintf("%s,%s", all, argv[(*at)++]);
        free(all);
        all = more;
    }
    return all;
}

/* One option at argv[*at]; leaves *at behind its value. */
static dr_status parse_one(const dr_param **row, const dr_param *params, size_t n,
                           void *cfg, int argc, char *const *argv, int *at, dr_arena *a)
{
    const char *arg = argv[(*at)++];
    const char *next = *at < argc ? argv[*at] : NULL;
    dr_status st = DR_OK;

    if (arg[0] != '-' || arg[1] == '\0' || strcmp(arg, "--") == 0) {
        st = dr_fail(DR_EUSAGE, "unexpected argument \"%s\"", arg);
        dr_hint("options are written --name value");
        return st;
    }
    const char *equals = arg[1] == '-' ? strchr(arg, '=') : NULL;
    const char *name = arg + strspn(arg, "-");
    char *key = equals ? dr_strndup(name, (size_t)(equals - name)) : dr_strdup(name);
    char *label = NULL, *joined = NULL;

    DR_TRY(find_option(row, params, n, arg, key));
    label = dr_asprintf("--%s", (*row)->name);
    if (equals != NULL || (*row)->type == DR_PARAM_REFUSED) {
        DR_TRY(dr_param_set_text(*row, cfg, equals ? equals + 1 : "", label, a));
    } else if ((*row)->type == DR_PARAM_BOOL) {
        bool has = next != NULL && is_bool_word(next);
        *at += has;
        DR_TRY(dr_param_set_text(*row, cfg, has ? next : "true", label, a));
    } else if (next == NULL || looks_like_option(next)) {
        if (next == NULL)
            DR_FAIL(DR_EUSAGE, "%s: a value is missing", label);
        st = dr_fail(DR_EUSAGE, "%s: a value is missing before %s", label, next);
        dr_hint("a value that starts with - is written %s=VALUE", label);
    } else if ((*row)->words) {
        joined = join_words(argc, argv, at);
        DR_TRY(dr_param_set_text(*row, cfg, joined, label, a));
    } else {
        (*at)++;
        DR_TRY(dr_param_set_text(*row, cfg, next, label, a));
    }
done:
    free(joined);
    free(label);
    free(key);
    return st;
}

dr_status dr_params_parse_argv(const dr_param *params, size_t n, void *cfg, int argc,
                               char *const *argv, unsigned char *given, dr_arena *a)
{
    unsigned char *seen = dr_calloc(n, 1);
    const dr_param *row = NULL;
    dr_status st = DR_OK;

    for (int at = 0; at < argc;) {
        DR_TRY(parse_one(&row, params, n, cfg, argc, argv, &at, a));
        seen[row - params] = 1;
    }
    copy_given(given, seen, n);
    DR_TRY(check_required(params, n, seen, "--"));
done:
    free(seen);
    return st;
}

/* ---- JSON ---- */

static dr_status unknown_key(const dr_param *params, size_t n, const char *key,
                             const char *where)
{
    dr_status st = dr_fail(DR_EUSAGE, "%s: unknown key \"%s\"", where, key);
    const char *near = nearest_row(params, n, key);

    if (near != NULL)
        dr_hint("did you mean \"%s\"?", near);
    return st;
}

dr_status dr_params_from_json(const dr_param *params, size_t n, void *cfg,
                              const json_t *object, const char *where, unsigned char *given,
                              dr_arena *a)
{
    unsigned char *seen = dr_calloc(n, 1);
    char *label = NULL;
    const char *key;
    json_t *value;
    dr_status st = DR_OK;

    if (!json_is_object(object))
        DR_FAIL(DR_EUSAGE, "%s: expected an object of parameters, found %s", where,
                dr_json_type(object));
    /* jansson's iterators take the object without const, and leave it as it is. */
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        const dr_param *row = dr_param_find(params, n, key);
        if (row == NULL)
            DR_TRY(unknown_key(params, n, key, where));
        free(label);
        label = dr_asprintf("%s: %s", where, row->name);
        DR_TRY(dr_param_set_json(row, cfg, value, label, a));
        bool none = row->type != DR_PARAM_STR || (row->required && given != NULL);
        seen[row - params] = !json_is_null(value) || !none;
    }
    copy_given(given, seen, n);
    free(label);
    label = dr_asprintf("%s: ", where);
    DR_TRY(check_required(params, n, seen, label));
done:
    free(label);
    free(seen);
    return st;
}

dr_status dr_parse_size(uint64_t *out, const char *text, const char *label)
{
    char *end = NULL;
    int shift = 0;

    double v = strtod(text, &end);
    if (*end == 'K' || *end == 'k')
        shift = 10;
    else if (*end == 'M' || *end == 'm')
        shift = 20;
    else if (*end == 'G' || *end == 'g')
        shift = 30;
    const char *rest = end + (shift > 0);
    rest += shift > 0 && (*rest == 'B' || *rest == 'b');
    if (end == text || *rest != '\0' || !(v > 0) || v > 1e9 * (1 << (30 - shift)))
        return dr_fail(DR_EUSAGE, "%s: expected a size such as 4G, found \"%s\"", label,
                       text);
    *out = (uint64_t)(v * (double)(1ull << shift));
    return DR_OK;
}
