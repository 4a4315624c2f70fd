/*
 * tok_pattern.c - literals and regular expressions, and the walk over their matches.
 *
 * PCRE2 compiles with its JIT where the system allows that; the interpreter gives the same
 * matches.  A match that runs into PCRE2's limits is an error, not a failure to match.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "tok/tok_impl.h"

enum { MATCH_LIMIT = 20000000, HEAP_LIMIT_KIB = 256 * 1024 };

static dr_status pcre_error(dr_status code, int err, const char *where)
{
    PCRE2_UCHAR text[160] = {0};

    (void)pcre2_get_error_message(err, text, sizeof(text));
    return dr_fail(code, "%s: regular expression: %s", where, (const char *)text);
}

dr_status tok_pattern_regex(tok_pattern *p, const char *regex, size_t n, const char *where)
{
    const uint32_t options =
        PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    pcre2_compile_context *context = NULL;
    PCRE2_SIZE at = 0;
    int err = 0;
    dr_buf out;
    dr_status st = DR_OK;

    dr_buf_init(&out, (size_t)1 << 20);
    DR_TRY(tok_regex_translate(&out, regex, n, where));
    context = pcre2_compile_context_create(NULL);
    if (context == NULL)
        dr_oom(sizeof(void *));
    (void)pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    p->code = pcre2_compile((PCRE2_SPTR)out.data, out.len, options, &err, &at, context);
    if (p->code == NULL) {
        st = pcre_error(DR_EUNSUPPORTED, err, where);
        dr_hint("the expression, rewritten for PCRE2: %.400s", out.data);
        goto done;
    }
    (void)pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE);
done:
    pcre2_compile_context_free(context);
    dr_buf_release(&out);
    return st;
}

dr_status tok_pattern_open(tok_pattern *p, const json_t *spec, const char *where)
{
    const json_t *s = json_object_get(spec, "String"),
                 *regex = json_object_get(spec, "Regex");

    if (json_is_string(regex))
        return tok_pattern_regex(p, json_string_value(regex), json_string_length(regex),
                                 where);
    if (!json_is_string(s))
        return dr_fail(DR_EFORMAT, "%s: pattern: expected a String or a Regex", where);
    if (json_string_length(s) == 0)
        return dr_fail(DR_EUNSUPPORTED, "%s: an empty pattern", where);
    p->n = json_string_length(s);
    p->text = dr_strndup(json_string_value(s), p->n);
    return DR_OK;
}

void tok_pattern_release(tok_pattern *p)
{
    pcre2_code_free(p->code);
    free(p->text);
    *p = (tok_pattern){0};
}

void tok_matcher_release(tok_matcher *m)
{
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    pcre2_jit_stack_free(m->stack);
    *m = (tok_matcher){0};
}

static void matcher_ready(tok_matcher *m)
{
    if (m->data != NULL)
        return;
    m->data = pcre2_match_data_create(1, NULL);
    m->context = pcre2_match_context_create(NULL);
    if (m->data == NULL || m->context == NULL)
        dr_oom(sizeof(void *));
    (void)pcre2_set_match_limit(m->context, MATCH_LIMIT);
    (void)pcre2_set_heap_limit(m->context, HEAP_LIMIT_KIB);
    m->stack = pcre2_jit_stack_create((size_t)32 << 10, (size_t)8 << 20, NULL);
    pcre2_jit_stack_assign(m->context, NULL, m->stack);
}

tok_scan tok_scan_begin(const tok_pattern *p, tok_matcher *m, tok_str text)
{
    return (tok_scan){.pattern = p, .matcher = m, .text = text};
}

static bool literal_next(const tok_scan *s, size_t *start)
{
    const tok_pattern *p = s->pattern;
    const char *from = s->text.s + s->at;
    const size_t left = s->text.n - s->at;
    const char *hit =
        p->n == 1 ? memchr(from, p->text[0], left) : memmem(from, left, p->text, p->n);

    if (hit == NULL)
        return false;
    *start = (size_t)(hit - s->text.s);
    return true;
}

static dr_status regex_next(tok_scan *s, size_t *start, size_t *end, bool *found)
{
    tok_matcher *m = s->matcher;
    PCRE2_SPTR text = (PCRE2_SPTR)s->text.s;

    int rc = pcre2_match(s->pattern->code, text, s->text.n, s->at, PCRE2_NO_UTF_CHECK,
                         m->data, m->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(s->pattern->code, text, s->text.n, s->at,
                         PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->data, m->context);
    *found = rc >= 0;
    if (rc < 0)
        return rc == PCRE2_ERROR_NOMATCH ? DR_OK
                                         : pcre_error(DR_EFORMAT, rc, "splitting text");
    *start = pcre2_get_ovector_pointer(m->data)[0];
    *end = pcre2_get_ovector_pointer(m->data)[1];
    return DR_OK;
}

/* An empty match right after the last match does not count. */
dr_status tok_scan_next(tok_scan *s, size_t *start, size_t *end, bool *found)
{
    uint32_t cp = 0;
    dr_status st = DR_OK;

    *found = false;
    if (s->at > s->text.n)
        return DR_OK;
    if (s->pattern->code == NULL) {
        *found = literal_next(s, start);
        *end = s->at = *found ? *start + s->pattern->n : s->text.n;
        return DR_OK;
    }
    matcher_ready(s->matcher);
    while (s->at <= s->text.n) {
        DR_TRY(regex_next(s, start, end, found));
        if (!*found)
            break;
        if (*start < *end || !s->any || *end != s->last_end) {
            s->any = true;
            s->last_end = s->at = *end;
            break;
        }
        *found = false;
        s->at +=
            s->at < s->text.n ? tok_utf8_get(s->text.s + s->at, s->text.n - s->at, &cp) : 1;
    }
done:
    return st;
}

dr_status tok_pattern_replace(dr_buf *out, const tok_pattern *p, tok_matcher *m,
                              tok_str text, tok_str with)
{
    tok_scan scan = tok_scan_begin(p, m, text);
    size_t at = 0, start = 0, end = 0;
    bool found = false;
    dr_status st = DR_OK;

    for (;;) {
        DR_TRY(tok_scan_next(&scan, &start, &end, &found));
        if (!found)
            break;
        DR_TRY(dr_buf_add(out, text.s + at, start - at));
        DR_TRY(dr_buf_add(out, with.s, with.n));
        at = end;
    }
    DR_TRY(dr_buf_add(out, text.s + at, text.n - at));
done:
    return st;
}
