/*
 * cache_tools.c - drupe cache: what a cache holds, whether it is what was written, and how
 * it is brought below a size.
 *
 * An entry is taken away under its lock: its KEY.json first, so that a kill leaves none.
 * One that another process makes or uses is left alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "flow/cache_impl.h"

typedef struct {
    char key[DR_SHA256_HEX];
    const char *pass, *config; /* arena */
    double bytes, seconds;
    struct timespec used;
    bool broken;
} entry;

/* Its files against the checksums that were written down. */
static bool is_sound(dr_arena *a, const char *dir, const json_t *files)
{
    uint64_t sum = 0;
    json_t *file;
    size_t i;

    json_array_foreach((json_t *)(uintptr_t)files, i, file)
    {
        const char *name = json_string_value(json_object_get(file, "name"));
        const json_t *want = json_object_get(file, "checksum");
        if (name == NULL || !json_is_integer(want) ||
            dr_checksum_parts(&sum, dr_path_join(a, dir, name)) != DR_OK ||
            sum != (uint64_t)json_integer_value(want)) {
            dr_trail_clear();
            return false;
        }
    }
    return json_array_size(files) > 0;
}

static void read_entry(entry *e, dr_arena *a, const flow_cache *c, const char *name,
                       bool verify)
{
    const char *path = dr_arena_printf(a, "%s/runs/%s", c->dir, name);
    json_t *j = json_load_file(path, 0, NULL), *file;
    const json_t *files = json_object_get(j, "files");
    const char *pass = json_string_value(json_object_get(j, "pass"));
    char *config = json_dumps(json_object_get(j, "config"), JSON_COMPACT);
    struct stat s = {0};
    size_t i;

    memcpy(e->key, name, DR_SHA256_HEX - 1);
    e->pass = dr_arena_strdup(a, pass != NULL ? pass : "?");
    e->config = dr_arena_strdup(a, config != NULL ? config : "");
    e->seconds = json_number_value(json_object_get(j, "seconds"));
    json_array_foreach((json_t *)(uintptr_t)files, i, file) e->bytes +=
        json_number_value(json_object_get(file, "bytes"));
    if (stat(path, &s) == 0)
        e->used = s.st_mtim;
    e->broken = json_array_size(files) == 0;
    if (verify && !e->broken)
        e->broken = !is_sound(a, cache_folder(a, c, e->key), files);
    free(config);
    json_decref(j);
}

static bool is_key(const char *name)
{
    return strspn(name, "0123456789abcdef") == DR_SHA256_HEX - 1;
}

/* Verified under its lock; one that another process makes or takes away is not. */
static dr_status read_one(entry *list, size_t *count, dr_arena *a, const flow_cache *c,
                          const char *name, bool verify)
{
    char key[DR_SHA256_HEX] = "";
    int fd = -1;
    dr_status st = DR_OK;

    memcpy(key, name, sizeof(key) - 1);
    if (verify)
        DR_TRY(cache_lock(&fd, c, key, false));
    list[*count] = (entry){0};
    read_entry(&list[*count], a, c, name, fd >= 0);
    if (dr_is_file(dr_arena_printf(a, "%s.json", cache_folder(a, c, key))))
        (*count)++; /* else it has just gone */
done:
    if (fd >= 0)
        (void)close(fd);
    return st;
}

static dr_status read_entries(entry **list, size_t *count, dr_arena *a, const flow_cache *c,
                              bool verify)
{
    char **names = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_list_dir(a, dr_path_join(a, c->dir, "runs"), &names, &n));
    *list = dr_arena_alloc(a, n + 1, sizeof(**list));
    for (size_t i = 0; i < n; i++)
        if (is_key(names[i]) && strcmp(names[i] + DR_SHA256_HEX - 1, ".json") == 0)
            DR_TRY(read_one(*list, count, a, c, names[i], verify));
done:
    return st;
}

/* *gone false: another process makes or uses it, or it is `broken` no more. */
static dr_status take_away(bool *gone, dr_arena *a, const flow_cache *c, const char *key,
                           bool broken)
{
    const char *dir = cache_folder(a, c, key);
    const char *says = dr_arena_printf(a, "%s.json", dir);
    entry now = {.broken = true};
    bool used = false;
    int fd = -1;
    dr_status st = DR_OK;

    *gone = false;
    DR_TRY(cache_lock(&fd, c, key, false));
    if (fd < 0)
        goto done;
    DR_TRY(cache_is_used(&used, c, key));
    if (broken) /* it may have been made anew since */
        read_entry(&now, a, c, dr_arena_printf(a, "%s.json", key), true);
    if (used || !now.broken)
        goto done;
    if (unlink(says) != 0 && errno != ENOENT)
        DR_FAIL(DR_EIO, "%s: %s", says, strerror(errno));
    DR_TRY(dr_remove_tree(dir));
    DR_TRY(dr_remove_tree(dr_arena_printf(a, "%s.tmp", dir)));
    DR_TRY(dr_remove_tree(dr_arena_printf(a, "%s/shared/%s", c->dir, key)));
    *gone = true;
done:
    if (fd >= 0)
        (void)close(fd);
    return st;
}

/* What half came from a shared cache, unless it is coming now. */
static dr_status drop_parts(size_t *count, dr_arena *a, const flow_cache *c)
{
    const char *dir = dr_path_join(a, c->dir, "incoming");
    char **names = NULL;
    size_t n = 0;
    int fd = -1;
    dr_status st = DR_OK;

    if (dr_is_dir(dir))
        DR_TRY(dr_list_dir(a, dir, &names, &n));
    for (size_t i = 0; i < n; i++) {
        const char *path = dr_path_join(a, dir, names[i]);
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            continue; /* it has come */
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            DR_TRY(dr_remove_tree(path));
            (*count)++;
        }
        (void)close(fd);
        fd = -1;
    }
done:
    if (fd >= 0)
        (void)close(fd);
    return st;
}

dr_status cache_clear(const flow_cache *c, bool results, bool figures)
{
    const char *runs = NULL, *kept = NULL;
    char **names = NULL, key[DR_SHA256_HEX] = "";
    size_t n = 0, parts = 0;
    bool gone = false;
    dr_arena a = {0};
    dr_status st = DR_OK;

    runs = dr_path_join(&a, c->dir, "runs");
    kept = dr_path_join(&a, c->dir, "evaluations");
    if (results)
        DR_TRY(dr_list_dir(&a, runs, &names, &n));
    for (size_t i = 0; i < n; i++) {
        if (!is_key(names[i]) || memcmp(key, names[i], sizeof(key) - 1) == 0)
            continue; /* KEY, KEY.json, KEY.tmp follow each other */
        memcpy(key, names[i], sizeof(key) - 1);
        DR_TRY(take_away(&gone, &a, c, key, false));
    }
    n = 0;
    if (results)
        DR_TRY(drop_parts(&parts, &a, c));
    if (figures)
        DR_TRY(dr_list_dir(&a, kept, &names, &n));
    for (size_t i = 0; i < n; i++) /* one by one: others may write there */
        DR_TRY(dr_remove_tree(dr_path_join(&a, kept, names[i])));
done:
    dr_arena_release(&a);
    return st;
}

static int by_use(const void *a, const void *b)
{
    const entry *x = a, *y = b;

    if (x->used.tv_sec != y->used.tv_sec)
        return x->used.tv_sec < y->used.tv_sec ? -1 : 1;
    if (x->used.tv_nsec != y->used.tv_nsec)
        return x->used.tv_nsec < y->used.tv_nsec ? -1 : 1;
    return strcmp(x->key, y->key);
}

/* Folders whose KEY.json is not there: what a kill left. */
static dr_status drop_halves(size_t *count, dr_arena *a, const flow_cache *c)
{
    char **names = NULL, key[DR_SHA256_HEX] = "";
    size_t n = 0;
    bool gone = false;
    dr_status st = DR_OK;

    DR_TRY(dr_list_dir(a, dr_path_join(a, c->dir, "runs"), &names, &n));
    for (size_t i = 0; i < n; i++) {
        const char *path = dr_arena_printf(a, "%s/runs/%s", c->dir, names[i]);
        if (!dr_is_dir(path) || !is_key(names[i]))
            continue;
        memcpy(key, names[i], DR_SHA256_HEX - 1);
        if (dr_is_file(dr_arena_printf(a, "%s.json", cache_folder(a, c, key))))
            continue;
        DR_TRY(take_away(&gone, a, c, key, true));
        *count += gone;
    }
done:
    return st;
}

static dr_status tell(flow_result *out, const entry *list, size_t count)
{
    json_t *all = json_array();
    double sum = 0;
    dr_status st = DR_OK;

    json_object_set_new(out->report, "entries", all);
    for (size_t i = 0; i < count; i++) {
        const entry *e = &list[i];
        sum += e->bytes;
        json_array_append_new(all,
                              json_pack("{s:s, s:s, s:s, s:f, s:f, s:I, s:b}", "key",
                                        e->key, "pass", e->pass, "config", e->config,
                                        "bytes", e->bytes, "seconds", e->seconds, "used",
                                        (json_int_t)e->used.tv_sec, "broken", e->broken));
        DR_TRY(dr_buf_addf(&out->text, "%.16s %12.0f bytes %9.3f s  %s %s%s\n", e->key,
                           e->bytes, e->seconds, e->pass, e->config,
                           e->broken ? "  BROKEN" : ""));
    }
    DR_TRY(dr_buf_addf(&out->text, "entries        %zu, %.0f bytes\n", count, sum));
    json_object_set_new(out->report, "bytes", json_real(sum));
done:
    return st;
}

/* Broken entries, and then those used longest ago, until the rest is small enough. */
static dr_status shrink(flow_result *out, const flow_cache *c, entry *list, size_t *count,
                        const flow_cache_options *o)
{
    double sum = 0;
    size_t kept = 0, gone_count = 0;
    dr_arena a = {0};
    dr_status st = DR_OK;

    for (size_t i = 0; i < *count; i++)
        sum += list[i].bytes;
    qsort(list, *count, sizeof(*list), by_use);
    if (o->max_bytes > 0) {
        DR_TRY(drop_halves(&gone_count, &a, c));
        DR_TRY(drop_parts(&gone_count, &a, c));
    }
    for (size_t i = 0; i < *count; i++) {
        bool gone = false;
        if (list[i].broken || (o->max_bytes > 0 && sum > (double)o->max_bytes))
            DR_TRY(take_away(&gone, &a, c, list[i].key, list[i].broken));
        if (!gone) {
            list[kept++] = list[i];
            continue;
        }
        sum -= list[i].bytes;
        gone_count++;
    }
    *count = kept;
    DR_TRY(dr_buf_addf(&out->text, "taken away     %zu\n", gone_count));
    json_object_set_new(out->report, "taken_away", json_integer((json_int_t)gone_count));
done:
    dr_arena_release(&a);
    return st;
}

dr_status flow_look_at_cache(flow_result *out, const flow_cache_options *o)
{
    flow_cache c = {0};
    entry *list = NULL;
    size_t count = 0, broken = 0;
    dr_arena a = {0};
    dr_status st = DR_OK;

    *out = (flow_result){.report = json_object()};
    dr_buf_init(&out->text, (size_t)64 << 20);
    if (!dr_is_dir(o->dir))
        DR_FAIL(DR_EUSAGE, "cache_dir %s: no such folder", o->dir);
    DR_TRY(cache_open(&c, o->dir));
    if (o->clear)
        DR_TRY(cache_clear(&c, true, true));
    DR_TRY(read_entries(&list, &count, &a, &c, o->verify));
    for (size_t i = 0; i < count; i++)
        broken += list[i].broken;
    if (o->verify) {
        DR_TRY(dr_buf_addf(&out->text, "verified       %zu, %zu broken\n", count, broken));
        json_object_set_new(out->report, "broken", json_integer((json_int_t)broken));
    }
    if (o->verify || o->max_bytes > 0)
        DR_TRY(shrink(out, &c, list, &count, o));
    DR_TRY(tell(out, list, count));
done:
    cache_close(&c);
    dr_arena_release(&a);
    return st;
}
