/*
 * pattern.c - regular expressions over module names, as the Python libraries use them.
 * They come from a model's files: a match of more than MATCH_LIMIT steps is given up.
 */
#define PCRE2_CODE_UNIT_WIDTH 8

#include <pcre2.h>
#include <string.h>

#include "hf/roles_impl.h"

enum { MATCH_LIMIT = 100000, HEAP_LIMIT_KIB = 1024 };

dr_status hf_pattern_match(bool *out, const char *pattern, bool whole, const char *name,
                           const char *where)
{
    pcre2_code *code = NULL;
    pcre2_match_data *data = NULL;
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    int error = 0;
    size_t at = 0;
    dr_status st = DR_OK;

    *out = false;
    code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                      PCRE2_ANCHORED | (whole ? PCRE2_ENDANCHORED : 0), &error, &at, NULL);
    if (code == NULL)
        DR_FAIL(DR_EFORMAT, "%s: %s is no regular expression (at %zu)", where, pattern, at);
    data = pcre2_match_data_create_from_pattern(code, NULL);
    if (data == NULL || limits == NULL)
        dr_oom(sizeof(void *));
    (void)pcre2_set_match_limit(limits, MATCH_LIMIT);
    (void)pcre2_set_heap_limit(limits, HEAP_LIMIT_KIB);
    int rc = pcre2_match(code, (PCRE2_SPTR)name, strlen(name), 0, 0, data, limits);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        DR_FAIL(DR_EFORMAT, "%s: %s: matching gave up (%d)", where, pattern, rc);
    *out = rc >= 0;
done:
    pcre2_match_context_free(limits);
    pcre2_match_data_free(data);
    pcre2_code_free(code);
    return st;
}
