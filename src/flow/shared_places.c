/*
 * shared_places.c - the one thing in an entry that is of its machine: an adapter's settings
 * name the model beside it by the entry's folder.  Where others have the entry it is
 *
 *     "base_model_name_or_path": "${entry}/model"
 *
 * and each machine that fetches it has its own folder's name there, as if it had made it.
 */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "flow/shared_cache_impl.h"

static const char entry[] = "${entry}";

bool shared_has_places(const char *path)
{
    const size_t n = strlen(path);

    return n > 5 && strcmp(path + n - 5, ".json") == 0;
}

/* Where a string of JSON begins that goes on to `at`; NULL: it is in none. */
static const char *string_before(const char *text, const char *at)
{
    while (at > text && at[-1] != '"' && at[-1] != '\n')
        at--;
    return at > text && at[-1] == '"' ? at : NULL;
}

dr_status shared_place_out(dr_buf *out, bool *found, const char *path, const char *key)
{
    dr_arena a = {0};
    const char *mark = dr_arena_printf(&a, "runs/%s", key), *at, *next;
    uint64_t bytes = 0;
    dr_buf b;
    dr_status st = DR_OK;

    *found = false;
    dr_buf_init(&b, SHARED_PLACES_BYTES);
    DR_TRY(dr_file_size(&bytes, path));
    if (bytes > SHARED_PLACES_BYTES)
        goto done;
    DR_TRY(dr_read_file(&b, path));
    at = b.data;
    while ((next = strstr(at, mark)) != NULL) {
        const char *from = string_before(at, next);
        const char *to = next + strlen(mark);
        DR_TRY(dr_buf_add(out, at, (size_t)((from != NULL ? from : to) - at)));
        if (from != NULL)
            DR_TRY(dr_buf_adds(out, entry));
        *found = *found || from != NULL;
        at = to;
    }
    DR_TRY(dr_buf_adds(out, at));
    *found = *found && strlen(b.data) == b.len;
done:
    dr_buf_release(&b);
    dr_arena_release(&a);
    return st;
}

dr_status shared_place_in(dr_buf *out, const char *path, const char *folder)
{
    json_t *name = json_string(folder);
    char *escaped = json_dumps(name, JSON_ENCODE_ANY);
    const char *at, *next;
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, SHARED_PLACES_BYTES);
    if (escaped == NULL)
        DR_FAIL(DR_EUSAGE, "cache_dir %s: it is not UTF-8", folder);
    DR_TRY(dr_read_file(&b, path));
    at = b.data;
    while ((next = strstr(at, entry)) != NULL) {
        DR_TRY(dr_buf_add(out, at, (size_t)(next - at)));
        DR_TRY(dr_buf_add(out, escaped + 1, strlen(escaped) - 2));
        at = next + strlen(entry);
    }
    DR_TRY(dr_buf_adds(out, at));
done:
    free(escaped);
    json_decref(name);
    dr_buf_release(&b);
    return st;
}
