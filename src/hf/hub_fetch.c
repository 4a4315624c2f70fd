/*
 * hub_fetch.c - a model of the hub brought into the cache.
 *
 *   list       GET  /api/models/ID/revision/REV          commit and names (hub_list.c)
 *   look       HEAD /ID/resolve/COMMIT/NAME              ETag, size, where it lies
 *   room       what is missing must fit the disk, or nothing is begun
 *   get        GET  ... Range: bytes=N-                  into blobs/<etag>.incomplete
 *   check      size; SHA-256 when the ETag is one (large files)
 *   place      rename to blobs/<etag>, link from the snapshot; refs/REV at the very end
 *
 * A snapshot that is whole costs one request, a commit named by its hash none.  When the
 * hub cannot be reached, what the cache has of this revision is used, with a warning.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/hash.h"
#include "core/log.h"
#include "hf/hub_impl.h"

enum {
    TRIES = 3,                /* without progress */
    PROGRESS_BYTES = 1 << 20, /* what counts as progress */
    DISK_RESERVE_BYTES = 64 << 20,
    SHA256_HEX = 64,
};

/* One file that is wanted. */
typedef struct {
    const char *name;
    const char *etag; /* NULL: not looked at, since it is there */
    const char *url;
    uint64_t size;
} wanted;

typedef struct {
    const hub_env *env;
    const hub_ref *ref;
    hub_net *net;
    const char *commit;
    wanted *files; /* arena */
    size_t count;
    dr_progress progress;
    uint64_t before; /* bytes of finished files */
} fetch;

/* ---- look ---- */

/* An ETag without W/ and quotes, if it can be a file's name. */
static const char *clean_etag(dr_arena *a, const char *s)
{
    if (strncmp(s, "W/", 2) == 0)
        s += 2;
    s += *s == '"';
    size_t n = strcspn(s, "\"");
    const char *etag = dr_arena_strndup(a, s, n);

    if (n == 0 || n > 128 || !dr_is_safe_path(etag) || strchr(etag, '/') != NULL)
        return NULL;
    return etag;
}

static bool parse_size(uint64_t *out, const char *s)
{
    char *end = NULL;

    errno = 0;
    *out = strtoull(s, &end, 10);
    return isdigit((unsigned char)*s) && *end == '\0' && errno == 0 && *out < INT64_MAX;
}

static dr_status look(fetch *f, wanted *w)
{
    dr_arena *a = f->env->a;
    hub_reply r = {0};
    dr_status st = DR_OK;

    w->url = dr_arena_printf(a, "%s/%s/resolve/%s/%s", f->env->endpoint, f->ref->id,
                             f->commit, hub_escaped(a, w->name, true));
    DR_TRY(hub_net_head(f->net, &r, w->url));
    if (r.status != 200 && (r.status < 300 || r.status > 399))
        DR_TRY(hub_refused(f->env, f->ref, &r, w->name));
    if (r.commit[0] != '\0' && strcmp(r.commit, f->commit) != 0)
        DR_FAIL(DR_EFORMAT, "%s: commit %s was asked for, %s came", w->url, f->commit,
                r.commit);
    w->etag = clean_etag(a, r.linked_etag[0] ? r.linked_etag : r.etag);
    if (w->etag == NULL)
        DR_FAIL(DR_EFORMAT, "%s: the ETag names no content: \"%.100s\"", w->url, r.etag);
    if (!parse_size(&w->size, r.linked_size[0] ? r.linked_size : r.length))
        DR_FAIL(DR_EFORMAT, "%s: the size is not said", w->url);
    if (strncmp(r.location, "https://", 8) == 0 || strncmp(r.location, "http://", 7) == 0)
        w->url = dr_arena_strdup(a, r.location);
done:
    return st;
}

static uint64_t size_of(const char *path)
{
    struct stat sb;

    return stat(path, &sb) == 0 && S_ISREG(sb.st_mode) ? (uint64_t)sb.st_size : 0;
}

/* Looks at every file that the snapshot lacks; *bytes: what must still come. */
static dr_status look_all(fetch *f, uint64_t *bytes)
{
    const hub_env *env = f->env;
    const char *dir = hub_snapshot_dir(env, f->ref->id, f->commit);
    uint64_t total = 0;
    dr_status st = DR_OK;

    *bytes = 0;
    for (size_t i = 0; i < f->count; i++) {
        wanted *w = &f->files[i];

        if (dr_is_file(dr_path_join(env->a, dir, w->name)))
            continue;
        DR_TRYF(look(f, w), "looking for %s", w->name);
        if (dr_is_file(hub_blob_path(env, f->ref->id, w->etag, "")))
            continue;
        uint64_t part = size_of(hub_blob_path(env, f->ref->id, w->etag, ".incomplete"));
        *bytes += w->size - (part < w->size ? part : 0);
        total += w->size;
    }
    uint64_t room = dr_disk_free(env->cache);
    if (*bytes > 0 && (room < DISK_RESERVE_BYTES || room - DISK_RESERVE_BYTES < *bytes)) {
        st = dr_fail(DR_EIO, "%s: %llu MB are to come, %s has %llu MB free", f->ref->id,
                     (unsigned long long)(*bytes >> 20), env->cache,
                     (unsigned long long)(room >> 20));
        dr_hint("HF_HOME or HF_HUB_CACHE may name a folder on another disk");
        goto done;
    }
    *bytes = total;
done:
    return st;
}

/* ---- get ---- */

static void on_bytes(void *ctx, uint64_t at, const void *data, size_t n)
{
    fetch *f = ctx;

    (void)data;
    dr_progress_step(&f->progress, (size_t)(f->before + at + n), NULL);
}

/* Size and, where the ETag is one, SHA-256; what is wrong is removed. */
static dr_status check(const wanted *w, const char *path)
{
    char hex[DR_SHA256_HEX];
    uint64_t size = size_of(path);
    dr_status st = DR_OK;

    if (size != w->size)
        DR_FAIL(DR_EIO, "%s: %llu bytes came, %llu were announced", w->name,
                (unsigned long long)size, (unsigned long long)w->size);
    if (strlen(w->etag) == SHA256_HEX) {
        DR_TRY(dr_sha256_file(hex, path));
        if (strcmp(hex, w->etag) != 0)
            DR_FAIL(DR_EIO, "%s: the content has SHA-256 %s, the hub says %s", w->name, hex,
                    w->etag);
    }
done:
    if (st != DR_OK && unlink(path) == 0)
        dr_hint("the damaged download was removed; try again");
    return st;
}

/* GETs until the file is whole: three tries without progress are the end. */
static dr_status transfer(fetch *f, const wanted *w, int fd, uint64_t have)
{
    net_file file = {fd, 0, w->size, have, on_bytes, f};
    hub_reply r = {0};
    dr_status st = DR_OK;

    for (int tries = 0; file.have < w->size; tries++) {
        uint64_t from = file.have;

        if (tries > 0)
            DR_TRY(net_wait(tries - 1));
        st = hub_net_file(f->net, &r, w->url, &file);
        if (st == DR_OK && r.status != 200 && r.status != 206) {
            st = hub_refused(f->env, f->ref, &r, w->name);
            if (r.status < 500 && r.status != 429)
                goto done;
        } else if (st == DR_OK && file.have < w->size) {
            st = dr_fail(DR_EIO, "%s: %llu of %llu bytes came", w->url,
                         (unsigned long long)file.have, (unsigned long long)w->size);
        }
        if (st != DR_OK && st != DR_EIO)
            goto done;
        if (file.have > from + PROGRESS_BYTES)
            tries = 0;
        if (st != DR_OK && tries >= TRIES - 1)
            goto done;
        if (st != DR_OK)
            dr_log(DR_INFO, "%s: broken off at %llu of %llu bytes, trying again", w->name,
                   (unsigned long long)file.have, (unsigned long long)w->size);
    }
done:
    return st;
}

/* Into blobs/<etag>, under its lock. */
static dr_status get_blob(fetch *f, const wanted *w)
{
    const hub_env *env = f->env;
    const char *blob = hub_blob_path(env, f->ref->id, w->etag, "");
    const char *part = hub_blob_path(env, f->ref->id, w->etag, ".incomplete");
    int lock = -1, fd = -1;
    dr_status st = DR_OK;

    DR_TRY(hub_lock(env, f->ref->id, w->etag, &lock));
    if (dr_is_file(blob)) /* another program was faster */
        goto done;
    DR_TRY(
        dr_make_dirs(dr_arena_strndup(env->a, part, (size_t)(strrchr(part, '/') - part))));
    fd = open(part, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        DR_FAIL(DR_EIO, "%s: cannot create: %s", part, strerror(errno));
    uint64_t have = size_of(part);
    if (have > w->size && ftruncate(fd, 0) == 0)
        have = 0;
    DR_TRY(transfer(f, w, fd, have));
    if (fsync(fd) != 0)
        DR_FAIL(DR_EIO, "%s: cannot write to disk: %s", part, strerror(errno));
    DR_TRY(check(w, part));
    if (rename(part, blob) != 0)
        DR_FAIL(DR_EIO, "%s: cannot rename: %s", part, strerror(errno));
done:
    if (fd >= 0)
        (void)close(fd);
    if (lock >= 0)
        (void)close(lock);
    return st;
}

static dr_status get_all(fetch *f)
{
    const hub_env *env = f->env;
    uint64_t bytes = 0;
    dr_status st = DR_OK;

    DR_TRY(look_all(f, &bytes));
    dr_progress_begin(&f->progress, f->ref->id, "bytes", (size_t)bytes);
    for (size_t i = 0; i < f->count; i++) {
        wanted *w = &f->files[i];

        if (w->etag == NULL)
            continue;
        if (!dr_is_file(hub_blob_path(env, f->ref->id, w->etag, ""))) {
            DR_TRYF(get_blob(f, w), "downloading %s of %s", w->name, f->ref->id);
            f->before += w->size;
        }
        DR_TRY(hub_link(env, f->ref->id, f->commit, w->name, w->etag));
    }
    DR_TRY(hub_cache_commit(env, f->ref, f->commit));
done:
    if (f->progress.label != NULL)
        dr_progress_end(&f->progress);
    return st;
}

/* ---- the whole ---- */

static const char *result(const hub_env *env, const hub_ref *ref, const char *commit)
{
    const char *dir = hub_snapshot_dir(env, ref->id, commit);

    return ref->file ? dr_path_join(env->a, dir, ref->file) : dir;
}

/* A folder's repository may be one GGUF file, which the cache alone can tell too. */
static bool cached(const char **path, const hub_env *env, const hub_ref *ref,
                   const char *commit)
{
    char **names = NULL;
    size_t count = 0, ggufs = 0;
    hub_ref file = *ref;

    if (commit == NULL)
        return false;
    if (hub_snapshot_lacks(env, ref, commit) == NULL) {
        *path = result(env, ref, commit);
        return true;
    }
    const char *dir = hub_snapshot_dir(env, ref->id, commit);
    if (ref->file != NULL || !dr_is_dir(dir))
        return false;
    if (dr_list_dir(env->a, dir, &names, &count) != DR_OK) {
        dr_trail_clear();
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (hub_ends_with(names[i], ".gguf")) {
            file.file = names[i];
            ggufs++;
        }
    }
    if (ggufs != 1 || !dr_is_file(dr_path_join(env->a, dir, file.file)))
        return false;
    *path = result(env, &file, commit);
    return true;
}

static dr_status get_offline(const char **path, const hub_env *env, const hub_ref *ref,
                             const char *commit)
{
    if (cached(path, env, ref, commit))
        return DR_OK;
    if (commit != NULL)
        (void)dr_fail(DR_EIO, "%s: %s is not in the cache (%s), and HF_HUB_OFFLINE is set",
                      ref->id, hub_snapshot_lacks(env, ref, commit),
                      hub_repo_dir(env, ref->id));
    else
        (void)dr_fail(DR_EIO,
                      "%s: neither a folder here nor in the cache (%s), and "
                      "HF_HUB_OFFLINE is set",
                      ref->id, env->cache);
    dr_hint("unset HF_HUB_OFFLINE to download it");
    return DR_EIO;
}

/* Lists, chooses and gets; *reached: the hub answered, well or not. */
static dr_status get_online(fetch *f, const char **path, bool *reached)
{
    dr_arena *a = f->env->a;
    hub_listing l = {0};
    hub_ref file = {0};
    dr_status st = DR_OK;

    *reached = false;
    DR_TRY(hub_net_open(&f->net, f->env));
    DR_TRY(hub_list(&l, f->net, f->env, f->ref, reached));
    DR_TRY(hub_choose(&l, f->env, f->ref));
    if (l.file != NULL) {
        file = (hub_ref){f->ref->id, f->ref->revision, l.file};
        f->ref = &file;
    }
    f->commit = l.commit;
    f->count = l.wanted_count;
    f->files = dr_arena_alloc(a, f->count, sizeof(wanted));
    for (size_t i = 0; i < f->count; i++)
        f->files[i].name = l.wanted[i];
    DR_TRY(get_all(f));
    *path = result(f->env, f->ref, f->commit);
done:
    hub_net_close(f->net);
    return st;
}

dr_status hub_get(const char **path, const hub_env *env, const hub_ref *ref)
{
    fetch f = {.env = env, .ref = ref};
    const char *commit = hub_cached_commit(env, ref);
    bool reached = false;

    if (env->offline)
        return get_offline(path, env, ref, commit);
    if (hub_is_commit(ref->revision) && cached(path, env, ref, commit))
        return DR_OK; /* a commit does not change */
    dr_status st = get_online(&f, path, &reached);
    if (st == DR_OK || st == DR_ECANCELLED || reached)
        return st;
    const dr_trail why = *dr_trail_get(); /* looking into the cache may fail too */
    if (!cached(path, env, ref, commit)) {
        dr_trail_set(&why);
        dr_note_at(__FILE__, __LINE__, "%s is no local folder; asking the hub", ref->id);
        if (why.hint[0] == '\0')
            dr_hint("name a local folder, or set https_proxy or HF_ENDPOINT if the hub is "
                    "reached another way");
        return st;
    }
    dr_log(DR_WARNING, "%s: the hub cannot be reached, the copy in the cache is used: %s",
           ref->id, why.frames[0].text);
    dr_trail_clear();
    return DR_OK;
}
