/*
 * cache.c - entries of the cache: found, checked, made, taken away.
 *
 * A kill at any moment leaves an entry whole or absent: its folder is exchanged as a whole,
 * its KEY.json is written after it and replaced as a whole.  An entry is trusted when every
 * file has the size and the time of its last change that were written down; results are
 * hard links of entries, and a change in place shows in the time.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "flow/cache_impl.h"

enum { LIST_BYTES = 16 << 20 };

static const char mark[] = "drupe-cache";

static const char *path_of(dr_arena *a, const flow_cache *c, const char *kind,
                           const char *key, const char *end)
{
    return dr_arena_printf(a, "%s/%s/%s%s", c->dir, kind, key, end);
}

const char *cache_folder(dr_arena *a, const flow_cache *c, const char *key)
{
    return path_of(a, c, "runs", key, "");
}

static const char *const folders[] = {"runs", "evaluations", "hashes", "locks"};
static const char *const shared_folders[] = {"incoming", "shared"};

/* What a cache's folder holds, also one that a kill left before it was marked. */
static bool is_ours(const char *name)
{
    for (size_t i = 0; i < DR_COUNT(folders); i++)
        if (strcmp(name, folders[i]) == 0)
            return true;
    for (size_t i = 0; i < DR_COUNT(shared_folders); i++)
        if (strcmp(name, shared_folders[i]) == 0)
            return true;
    return strncmp(name, mark, sizeof(mark) - 1) == 0;
}

dr_status cache_open(flow_cache *c, const char *dir)
{
    char **names = NULL;
    size_t count = 0;
    dr_arena a = {0};
    const char *sign = dr_path_join(&a, dir, mark);
    dr_status st = DR_OK;

    *c = (flow_cache){.dir = dir};
    if (dr_exists(dir) && !dr_is_file(sign)) {
        DR_TRY(dr_list_dir(&a, dir, &names, &count));
        size_t own = 0;
        while (own < count && is_ours(names[own]))
            own++;
        if (own < count) {
            st = dr_fail(DR_EUSAGE, "cache_dir %s: it holds files that are not a cache's",
                         dir);
            dr_hint("choose a folder that is empty or not there yet");
            goto done;
        }
    }
    for (size_t i = 0; i < DR_COUNT(folders); i++)
        DR_TRY(dr_make_dirs(dr_path_join(&a, dir, folders[i])));
    if (!dr_is_file(sign))
        DR_TRY(dr_write_file(sign, "1\n", 2));
done:
    dr_arena_release(&a);
    return st;
}

dr_status cache_lock(int *fd, const flow_cache *c, const char *key, bool wait)
{
    dr_arena a = {0};
    const char *path = path_of(&a, c, "locks", key, "");
    dr_status st = DR_OK;

    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0)
        DR_FAIL(DR_EIO, "%s: %s", path, strerror(errno));
    while (flock(*fd, wait ? LOCK_EX : LOCK_EX | LOCK_NB) != 0) {
        if (!wait && errno == EWOULDBLOCK) {
            (void)close(*fd);
            *fd = -1;
            break;
        }
        if (errno != EINTR)
            DR_FAIL(DR_EIO, "%s: %s", path, strerror(errno));
        DR_TRY(dr_cancelled_check());
    }
done:
    dr_arena_release(&a);
    return st;
}

/* ---- use ---- */

/* A lock of one byte in DIR/locks/in-use, which a run holds for each entry that it has
 * found: one descriptor for all of them.  Of two keys with the same byte one keeps the
 * other. */
static dr_status lock_byte(bool *busy, int fd, const char *path, const char *key,
                           short kind)
{
    struct flock l = {.l_type = kind, .l_whence = SEEK_SET, .l_len = 1};
    char digits[16] = "";

    memcpy(digits, key, sizeof(digits) - 1);
    l.l_start = (off_t)strtoll(digits, NULL, 16);
    *busy = false;
    if (fcntl(fd, F_OFD_SETLK, &l) == 0)
        return DR_OK;
    *busy = errno == EAGAIN || errno == EACCES;
    return *busy ? DR_OK : dr_fail(DR_EIO, "%s: %s", path, strerror(errno));
}

static dr_status open_in_use(int *fd, const char **path, dr_arena *a, const flow_cache *c)
{
    *path = path_of(a, c, "locks", "in-use", "");
    *fd = open(*path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    return *fd < 0 ? dr_fail(DR_EIO, "%s: %s", *path, strerror(errno)) : DR_OK;
}

dr_status cache_use(flow_cache *c, const char *key)
{
    dr_arena a = {0};
    const char *path = path_of(&a, c, "locks", "in-use", "");
    bool busy = false;
    dr_status st = DR_OK;

    if (c->in_use <= 0)
        DR_TRY(open_in_use(&c->in_use, &path, &a, c));
    DR_TRY(lock_byte(&busy, c->in_use, path, key, F_RDLCK));
    while (busy) { /* another key's byte, which is being taken away */
        (void)usleep(1000);
        DR_TRY(dr_cancelled_check());
        DR_TRY(lock_byte(&busy, c->in_use, path, key, F_RDLCK));
    }
done:
    dr_arena_release(&a);
    return st;
}

dr_status cache_is_used(bool *used, const flow_cache *c, const char *key)
{
    dr_arena a = {0};
    const char *path = NULL;
    int fd = -1;
    dr_status st = DR_OK;

    DR_TRY(open_in_use(&fd, &path, &a, c));
    DR_TRY(lock_byte(used, fd, path, key, F_WRLCK));
done:
    if (fd >= 0)
        (void)close(fd);
    dr_arena_release(&a);
    return st;
}

void cache_close(flow_cache *c)
{
    if (c->in_use > 0)
        (void)close(c->in_use);
    cache_share_end(c);
    *c = (flow_cache){0};
}

/* ---- contents ---- */

void cache_key(char key[DR_SHA256_HEX], const json_t *parts)
{
    DR_BUG_IF(!dr_json_sha256(key, parts));
}

/* An entry is of use now.  By the clock itself: the file system's own times stand still
 * for some milliseconds, in which a run finds several entries. */
static void mark_used(const char *says)
{
    struct timespec t[2];

    (void)clock_gettime(CLOCK_REALTIME, &t[0]);
    t[1] = t[0];
    (void)utimensat(AT_FDCWD, says, t, 0);
}

static int64_t nanoseconds(struct timespec t)
{
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* A file's SHA-256 in parts, remembered while its size and times are the same. */
static dr_status content(char hex[DR_SHA256_HEX], const flow_cache *c, const char *path)
{
    dr_arena a = {0};
    struct stat s;
    dr_buf old, now;
    dr_status st = DR_OK;

    dr_buf_init(&old, 4096);
    dr_buf_init(&now, 4096);
    if (c->dir == NULL) {
        st = dr_sha256_parts(hex, path);
        goto done;
    }
    if (stat(path, &s) != 0)
        DR_FAIL(DR_EIO, "%s: %s", path, strerror(errno));
    const char *memo = dr_arena_printf(&a, "%s/hashes/%ju-%ju", c->dir, (uintmax_t)s.st_dev,
                                       (uintmax_t)s.st_ino);
    DR_TRY(dr_buf_addf(&now, "%jd %jd %jd ", (intmax_t)s.st_size,
                       (intmax_t)nanoseconds(s.st_mtim), (intmax_t)nanoseconds(s.st_ctim)));
    if (dr_is_file(memo))
        DR_TRY(dr_read_file(&old, memo));
    if (old.len == now.len + DR_SHA256_HEX - 1 &&
        memcmp(old.data, now.data, now.len) == 0) {
        memcpy(hex, old.data + now.len, DR_SHA256_HEX);
        goto done;
    }
    DR_TRY(dr_sha256_parts(hex, path));
    DR_TRY(dr_buf_adds(&now, hex));
    DR_TRY(dr_write_file(memo, now.data, now.len));
done:
    dr_buf_release(&old);
    dr_buf_release(&now);
    dr_arena_release(&a);
    return st;
}

/* A file, or the files of a folder by name, into the list. */
static dr_status add_contents(dr_buf *b, const flow_cache *c, const char *path,
                              const char *label)
{
    char **names = NULL, hex[DR_SHA256_HEX];
    size_t count = 0;
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_buf_addf(b, "%s\n", label));
    if (!dr_is_dir(path)) {
        DR_TRY(content(hex, c, path));
        DR_TRY(dr_buf_addf(b, "%s\n", hex));
        goto done;
    }
    DR_TRY(dr_list_dir(&a, path, &names, &count));
    for (size_t i = 0; i < count; i++) {
        const char *file = dr_path_join(&a, path, names[i]);
        if (flow_no_model_file(names[i]) || !dr_is_file(file))
            continue;
        DR_TRY(content(hex, c, file));
        DR_TRY(dr_buf_addf(b, "%s %s\n", names[i], hex));
    }
done:
    dr_arena_release(&a);
    return st;
}

dr_status cache_model_id(char id[DR_SHA256_HEX], const flow_cache *c, const pass_model *m)
{
    dr_arena a = {0};
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, LIST_BYTES);
    DR_TRY(add_contents(&b, c, m->path, m->file != NULL ? m->file : "model"));
    if (m->attributes != NULL)
        DR_TRY(dr_buf_addf(&b, "attributes %s\n", m->attributes));
    for (size_t i = 0; i < m->adapter_count; i++)
        DR_TRYF(add_contents(&b, c, m->adapters[i].path,
                             m->adapters[i].name ? m->adapters[i].name : "adapter"),
                "reading the adapter");
    dr_sha256(id, b.data, b.len);
done:
    dr_buf_release(&b);
    dr_arena_release(&a);
    return st;
}

/* ---- entries ---- */

/* All files below dir, as {"name", "bytes", "mtime_ns", "checksum"}. */
static dr_status list_files(json_t *list, const char *dir, const char *below)
{
    char **names = NULL;
    size_t count = 0;
    uint64_t sum = 0;
    struct stat s;
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_list_dir(&a, dir, &names, &count));
    for (size_t i = 0; i < count; i++) {
        const char *path = dr_path_join(&a, dir, names[i]);
        const char *name = dr_arena_printf(&a, "%s%s", below, names[i]);
        if (dr_is_dir(path)) {
            DR_TRY(list_files(list, path, dr_arena_printf(&a, "%s/", name)));
            continue;
        }
        DR_TRY(dr_checksum_parts(&sum, path));
        if (stat(path, &s) != 0)
            DR_FAIL(DR_EIO, "%s: %s", path, strerror(errno));
        json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:I}", "name", name, "bytes",
                                              (json_int_t)s.st_size, "mtime_ns",
                                              (json_int_t)nanoseconds(s.st_mtim),
                                              "checksum", (json_int_t)sum));
    }
done:
    dr_arena_release(&a);
    return st;
}

dr_status cache_seal(const flow_cache *c, const char *key, const json_t *info)
{
    json_t *j = json_copy((json_t *)(uintptr_t)info), *files = json_array();
    dr_arena a = {0};
    dr_status st = DR_OK;

    json_object_set_new(j, "files", files);
    DR_TRY(list_files(files, cache_folder(&a, c, key), ""));
    const char *says = path_of(&a, c, "runs", key, ".json");
    DR_TRY(dr_json_write(says, j));
    mark_used(says);
done:
    json_decref(j);
    dr_arena_release(&a);
    return st;
}

/* A file is as it was written down. */
static bool as_written(dr_arena *a, const char *dir, const json_t *file)
{
    const char *name = json_string_value(json_object_get(file, "name"));
    struct stat s;

    return name != NULL && stat(dr_path_join(a, dir, name), &s) == 0 &&
           s.st_size == json_integer_value(json_object_get(file, "bytes")) &&
           nanoseconds(s.st_mtim) == json_integer_value(json_object_get(file, "mtime_ns"));
}

/* What is there is read as data: a broken KEY.json is no entry, and no error. */
static json_t *read_quietly(const char *path)
{
    return dr_is_file(path) ? json_load_file(path, 0, NULL) : NULL;
}

bool cache_has(const flow_cache *c, const char *key)
{
    dr_arena a = {0};
    const char *says = path_of(&a, c, "runs", key, ".json");
    const char *dir = cache_folder(&a, c, key);
    json_t *j = read_quietly(says), *file;
    const json_t *files = json_object_get(j, "files");
    bool good = json_array_size(files) > 0;
    size_t i;

    json_array_foreach((json_t *)(uintptr_t)files, i, file) good =
        good && as_written(&a, dir, file);
    if (good)
        mark_used(says);
    json_decref(j);
    dr_arena_release(&a);
    return good;
}

dr_status cache_figures(json_t **out, const flow_cache *c, const char *key)
{
    dr_arena a = {0};

    *out = read_quietly(path_of(&a, c, "evaluations", key, ".json"));
    dr_arena_release(&a);
    return DR_OK;
}

dr_status cache_keep_figures(const flow_cache *c, const char *key, const json_t *figures)
{
    dr_arena a = {0};
    dr_status st = dr_json_write(path_of(&a, c, "evaluations", key, ".json"), figures);

    dr_arena_release(&a);
    return st;
}
