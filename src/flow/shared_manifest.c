/*
 * shared_manifest.c - what an entry at a shared place consists of, written and read.
 *
 *     {"drupe_cache_entry": 1, "key": KEY, "pass": "Rtn", "seconds": 1.5,
 *      "part_bytes": 268435456,
 *      "files": [{"path": "model/config.json", "bytes": 650, "sha256": [SHA, ...]}, ...]}
 */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "flow/shared_cache_impl.h"

enum { FORMAT = 1, PASS_BYTES = 64 };

static const uint64_t most_bytes = (uint64_t)1 << 50;

const char *shared_entry_name(dr_arena *a, const char *key)
{
    return dr_arena_printf(a, "entries/%s.json", key);
}

const char *shared_content_name(dr_arena *a, const char *sha)
{
    return dr_arena_printf(a, "content/%s", sha);
}

uint64_t shared_part_bytes(const shared_manifest *m, const shared_file *f, size_t i)
{
    const uint64_t left = f->bytes - i * m->part_bytes;

    return left < m->part_bytes ? left : m->part_bytes;
}

void shared_content_id(shared_file *f)
{
    dr_hash *h = dr_hash_begin();

    for (size_t i = 0; i < f->part_count; i++)
        dr_hash_add(h, f->parts[i], DR_SHA256_HEX - 1);
    dr_hash_end(f->id, h);
}

static bool is_sha(const char *s)
{
    return s != NULL && strspn(s, "0123456789abcdef") == DR_SHA256_HEX - 1 &&
           s[DR_SHA256_HEX - 1] == '\0';
}

/* A whole number from 0 to most; false: none. */
static bool whole(uint64_t *out, const json_t *o, const char *key, uint64_t most)
{
    const json_t *v = json_object_get(o, key);

    if (!json_is_integer(v) || json_integer_value(v) < 0 ||
        (uint64_t)json_integer_value(v) > most)
        return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

/* A path that stays in the entry's folder.  resume is what an output folder loses. */
static bool is_path(const char *s, size_t n)
{
    return s != NULL && strlen(s) == n && dr_is_safe_path(s) && strcmp(s, "resume") != 0 &&
           strncmp(s, "resume/", 7) != 0;
}

static dr_status parse_file(shared_file *f, dr_arena *a, const shared_manifest *m,
                            const json_t *j, const char *where)
{
    const json_t *path = json_object_get(j, "path"), *list = json_object_get(j, "sha256");

    *f = (shared_file){.executable = json_is_true(json_object_get(j, "executable")),
                       .places = json_is_true(json_object_get(j, "places"))};
    if (!is_path(json_string_value(path), json_string_length(path)))
        return dr_fail(DR_EFORMAT, "%s: a file's path is none that may be written", where);
    f->path = dr_arena_strdup(a, json_string_value(path));
    if (!whole(&f->bytes, j, "bytes", most_bytes))
        return dr_fail(DR_EFORMAT, "%s: %s: no size", where, f->path);
    if (f->places && (f->bytes > SHARED_PLACES_BYTES || !shared_has_places(f->path)))
        return dr_fail(DR_EFORMAT, "%s: %s: no file that names its folder", where, f->path);
    f->part_count = json_array_size(list);
    if (f->part_count != f->bytes / m->part_bytes + (f->bytes % m->part_bytes != 0))
        return dr_fail(DR_EFORMAT, "%s: %s: %zu parts cannot be %llu bytes", where, f->path,
                       f->part_count, (unsigned long long)f->bytes);
    f->parts = dr_arena_alloc(a, f->part_count + 1, sizeof(*f->parts));
    for (size_t i = 0; i < f->part_count; i++) {
        const char *sha = json_string_value(json_array_get(list, i));
        if (!is_sha(sha))
            return dr_fail(DR_EFORMAT, "%s: %s: part %zu has no SHA-256", where, f->path,
                           i);
        f->parts[i] = dr_arena_strdup(a, sha);
    }
    shared_content_id(f);
    return DR_OK;
}

static int by_path(const void *a, const void *b)
{
    const shared_file *const *x = a, *const *y = b;

    return strcmp((*x)->path, (*y)->path);
}

/* No name twice, and none that is another one's folder.  A folder's name is before all that
 * is in it, but "a-" is before "a/": so each folder of a path is looked up. */
static dr_status check_names(dr_arena *a, const shared_manifest *m, const char *where)
{
    const shared_file **sorted = dr_arena_alloc(a, m->count + 1, sizeof(*sorted));

    for (size_t i = 0; i < m->count; i++)
        sorted[i] = &m->files[i];
    qsort(sorted, m->count, sizeof(*sorted), by_path);
    for (size_t i = 0; i < m->count; i++) {
        if (i > 0 && strcmp(sorted[i]->path, sorted[i - 1]->path) == 0)
            return dr_fail(DR_EFORMAT, "%s: %s is there twice", where, sorted[i]->path);
        for (const char *p = strchr(sorted[i]->path, '/'); p != NULL;
             p = strchr(p + 1, '/')) {
            const shared_file folder = {
                .path =
                    dr_arena_strndup(a, sorted[i]->path, (size_t)(p - sorted[i]->path))};
            const shared_file *find = &folder;
            if (bsearch(&find, sorted, m->count, sizeof(*sorted), by_path) != NULL)
                return dr_fail(DR_EFORMAT, "%s: %s is a file and a folder", where,
                               folder.path);
        }
    }
    return DR_OK;
}

/* A word that can be shown. */
static const char *shown_pass(dr_arena *a, const json_t *j)
{
    const char *s = json_string_value(json_object_get(j, "pass"));
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                "0123456789_";

    return s != NULL && strspn(s, plain) == strlen(s) && strlen(s) < PASS_BYTES
               ? dr_arena_strdup(a, s)
               : NULL;
}

dr_status shared_parse(shared_manifest *out, dr_arena *a, const char *text, size_t n,
                       const char *key, const char *where)
{
    const json_t *list = NULL;
    const char *says = NULL;
    uint64_t format = 0;
    bool footprint = false;
    json_t *j = NULL;
    dr_status st = DR_OK;

    *out = (shared_manifest){.count = 0};
    DR_TRY(dr_json_parse(&j, text, n, where));
    says = json_string_value(json_object_get(j, "key"));
    list = json_object_get(j, "files");
    if (!whole(&format, j, "drupe_cache_entry", 1000))
        DR_FAIL(DR_EFORMAT, "%s: no manifest of a cache's entry", where);
    if (format != FORMAT)
        DR_FAIL(DR_EFORMAT, "%s: a manifest of form %llu, and %d is known", where,
                (unsigned long long)format, FORMAT);
    if (says == NULL || strcmp(says, key) != 0)
        DR_FAIL(DR_EFORMAT, "%s: a manifest of another entry", where);
    if (!whole(&out->part_bytes, j, "part_bytes", most_bytes) || out->part_bytes == 0)
        DR_FAIL(DR_EFORMAT, "%s: no part_bytes", where);
    if (!json_is_array(list) || json_array_size(list) == 0 ||
        json_array_size(list) > SHARED_FILES)
        DR_FAIL(DR_EFORMAT, "%s: expected 1 to %d files, found %zu", where, SHARED_FILES,
                json_array_size(list));
    out->seconds = json_number_value(json_object_get(j, "seconds"));
    out->pass = shown_pass(a, j);
    out->files = dr_arena_alloc(a, json_array_size(list), sizeof(*out->files));
    for (; out->count < json_array_size(list); out->count++) {
        shared_file *f = &out->files[out->count];
        DR_TRY(parse_file(f, a, out, json_array_get(list, out->count), where));
        out->bytes += f->bytes;
        if (out->bytes > most_bytes)
            DR_FAIL(DR_EFORMAT, "%s: its files are too large", where);
        footprint = footprint || strcmp(f->path, "drupe.json") == 0;
    }
    if (!footprint)
        DR_FAIL(DR_EFORMAT, "%s: no drupe.json is in it", where);
    DR_TRY(check_names(a, out, where));
done:
    json_decref(j);
    return st;
}

dr_status shared_text(dr_buf *out, const shared_manifest *m, const char *key)
{
    json_t *list = json_array();
    json_t *j =
        json_pack("{s:i, s:s, s:s, s:f, s:I, s:O}", "drupe_cache_entry", FORMAT, "key", key,
                  "pass", m->pass != NULL ? m->pass : "", "seconds", m->seconds,
                  "part_bytes", (json_int_t)m->part_bytes, "files", list);
    char *text = NULL;
    dr_status st = DR_OK;

    for (size_t i = 0; i < m->count; i++) {
        const shared_file *f = &m->files[i];
        json_t *parts = json_array();
        json_t *one = json_pack("{s:s, s:I, s:o}", "path", f->path, "bytes",
                                (json_int_t)f->bytes, "sha256", parts);
        for (size_t k = 0; k < f->part_count; k++)
            json_array_append_new(parts, json_string(f->parts[k]));
        if (f->executable)
            json_object_set_new(one, "executable", json_true());
        if (f->places)
            json_object_set_new(one, "places", json_true());
        json_array_append_new(list, one);
    }
    text = json_dumps(j, JSON_INDENT(1));
    if (text == NULL)
        DR_FAIL(DR_EUSAGE, "a file's name that is not UTF-8 cannot be shared");
    DR_TRY(dr_buf_addf(out, "%s\n", text));
done:
    free(text);
    json_decref(list);
    json_decref(j);
    return st;
}
