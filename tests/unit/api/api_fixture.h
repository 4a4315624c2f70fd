/*
 * api_fixture.h - what tests of the public header share: the tiny model, checks of public
 * status codes, results as JSON.
 */
#ifndef DRUPE_TESTS_API_FIXTURE_H
#define DRUPE_TESTS_API_FIXTURE_H

#include "check.h"
#include "core/file.h"
#include "core/json.h"
#include "drupe/drupe.h"

#define TINY    DRUPE_SOURCE_DIR "/tests/golden/tiny/llama"
#define ADAPTER DRUPE_SOURCE_DIR "/tests/golden/train/end"

#define CHECK_DRUPE(call, want) CHECK_STATUS((dr_status)(call), (dr_status)(want))
/* The public message, its context or its hint contains this text. */
#define CHECK_ERROR(text) check_that(error_has(text), __FILE__, __LINE__, text)

static inline bool error_has(const char *text)
{
    bool found = strstr(drupe_error_message(), text) != NULL ||
                 strstr(drupe_error_hint(), text) != NULL;

    for (size_t i = 0; i < drupe_error_context_count(); i++)
        found = found || strstr(drupe_error_context(i), text) != NULL;
    if (!found)
        (void)printf("  message: %s\n  hint: %s\n", drupe_error_message(),
                     drupe_error_hint());
    return found;
}

static inline char *in_tmp(dr_arena *a, const char *name)
{
    return dr_path_join(a, check_tmp(), name);
}

/* The result's JSON; NULL results give NULL.  Released with json_decref. */
static inline json_t *report_of(const drupe_result *r)
{
    json_t *j = NULL;

    if (r != NULL) {
        const char *text = drupe_result_json(r);
        CHECK_OK(dr_json_parse(&j, text, strlen(text), "report"));
    }
    return j;
}

static inline const char *text_at(const json_t *j, const char *key)
{
    return json_string_value(json_object_get(j, key));
}

static inline long long int_at(const json_t *j, const char *key)
{
    const json_t *v = json_object_get(j, key);

    return json_is_integer(v) ? (long long)json_integer_value(v) : -1;
}

#endif
