/*
 * hub_cache.c - the hub's cache folder, shared with Python's huggingface_hub:
 *
 *   models--ORG--NAME/
 *     refs/main                     the commit that "main" meant last time
 *     blobs/<etag>                  file contents, by SHA-256 (large files) or git hash
 *     blobs/<etag>.incomplete       what has been downloaded so far
 *     snapshots/<commit>/<name>  -> ../../blobs/<etag>
 *   .locks/models--ORG--NAME/<etag>.lock
 *
 * What must hold: a name in blobs without .incomplete is whole and checked; a link in
 * snapshots is made after its blob; refs is written last, so that it never names a snapshot
 * that was not finished.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "hf/hub_impl.h"

enum { COMMIT_HEX = 40, LOCK_POLL_MS = 100 };

/* ---- names ---- */

bool hub_is_commit(const char *s)
{
    size_t n = 0;

    while (isxdigit((unsigned char)s[n]))
        n++;
    return n == COMMIT_HEX && s[n] == '\0';
}

const char *hub_repo_dir(const hub_env *env, const char *id)
{
    const char *slash = strchr(id, '/');

    return dr_arena_printf(env->a, "%s/models--%.*s--%s", env->cache, (int)(slash - id), id,
                           slash + 1);
}

const char *hub_snapshot_dir(const hub_env *env, const char *id, const char *commit)
{
    return dr_arena_printf(env->a, "%s/snapshots/%s", hub_repo_dir(env, id), commit);
}

const char *hub_blob_path(const hub_env *env, const char *id, const char *etag,
                          const char *suffix)
{
    return dr_arena_printf(env->a, "%s/blobs/%s%s", hub_repo_dir(env, id), etag, suffix);
}

/* ---- refs ---- */

static const char *ref_path(const hub_env *env, const hub_ref *ref)
{
    return dr_arena_printf(env->a, "%s/refs/%s", hub_repo_dir(env, ref->id), ref->revision);
}

const char *hub_cached_commit(const hub_env *env, const hub_ref *ref)
{
    const char *path = ref_path(env, ref), *commit = NULL;
    dr_buf b = {0};

    if (hub_is_commit(ref->revision))
        return ref->revision;
    if (!dr_is_file(path))
        return NULL;
    dr_buf_init(&b, 256);
    if (dr_read_file(&b, path) != DR_OK)
        dr_trail_clear(); /* unreadable is unknown */
    else if (b.len >= COMMIT_HEX)
        commit = dr_arena_strndup(env->a, b.data, COMMIT_HEX);
    dr_buf_release(&b);
    return commit != NULL && hub_is_commit(commit) ? commit : NULL;
}

dr_status hub_cache_commit(const hub_env *env, const hub_ref *ref, const char *commit)
{
    const char *path = ref_path(env, ref), *old = hub_cached_commit(env, ref);
    dr_status st = DR_OK;

    if (old != NULL && strcmp(old, commit) == 0)
        return DR_OK; /* a revision that is a commit ends here too */
    const char *dir = dr_arena_strndup(env->a, path, (size_t)(strrchr(path, '/') - path));
    DR_TRY(dr_make_dirs(dir));
    DR_TRY(dr_write_file(path, commit, strlen(commit)));
done:
    return st;
}

/* ---- snapshots ---- */

/* The first file of an index's weight_map that is not there; NULL: none. */
static const char *missing_shard(const hub_env *env, const char *dir, const char *index)
{
    const char *lacks = NULL, *key = NULL;
    json_t *o = NULL, *file = NULL;

    if (dr_json_read(&o, index) != DR_OK) {
        dr_trail_clear();
        return dr_path_base(index);
    }
    json_object_foreach(json_object_get(o, "weight_map"), key, file)
    {
        const char *name = json_string_value(file);

        if (name == NULL || !dr_is_safe_path(name))
            lacks = dr_path_base(index);
        else if (!dr_is_file(dr_path_join(env->a, dir, name)))
            lacks = dr_arena_strdup(env->a, name);
        if (lacks != NULL)
            break;
    }
    json_decref(o);
    return lacks;
}

static bool has_weights(const hub_env *env, const char *dir)
{
    char **names = NULL;
    size_t count = 0;

    if (dr_list_dir(env->a, dir, &names, &count) != DR_OK) {
        dr_trail_clear();
        return false;
    }
    for (size_t i = 0; i < count; i++)
        if ((hub_ends_with(names[i], ".safetensors") ||
             strcmp(names[i], "adapter_model.bin") == 0) &&
            dr_is_file(dr_path_join(env->a, dir, names[i])))
            return true;
    return false;
}

const char *hub_snapshot_lacks(const hub_env *env, const hub_ref *ref, const char *commit)
{
    static const char *const singles[] = {"model.safetensors", "pytorch_model.bin"};
    const char *dir = hub_snapshot_dir(env, ref->id, commit);

    if (ref->file != NULL)
        return dr_is_file(dr_path_join(env->a, dir, ref->file)) ? NULL : ref->file;
    if (!dr_is_file(dr_path_join(env->a, dir, "config.json")) &&
        !dr_is_file(dr_path_join(env->a, dir, "adapter_config.json")))
        return "config.json";
    for (size_t i = 0; i < DR_COUNT(singles); i++) {
        const char *single = dr_path_join(env->a, dir, singles[i]);
        const char *index = dr_arena_printf(env->a, "%s.index.json", single);

        if (dr_is_file(single))
            return NULL;
        if (dr_is_file(index))
            return missing_shard(env, dir, index);
    }
    return has_weights(env, dir) ? NULL : "model.safetensors";
}

dr_status hub_link(const hub_env *env, const char *id, const char *commit, const char *name,
                   const char *etag)
{
    const char *path = dr_path_join(env->a, hub_snapshot_dir(env, id, commit), name);
    const char *blob = hub_blob_path(env, id, etag, ""), *to = "../../blobs/";
    dr_status st = DR_OK;

    for (const char *p = name; (p = strchr(p, '/')) != NULL; p++)
        to = dr_arena_printf(env->a, "../%s", to);
    to = dr_arena_printf(env->a, "%s%s", to, etag);
    DR_TRY(
        dr_make_dirs(dr_arena_strndup(env->a, path, (size_t)(strrchr(path, '/') - path))));
    if (symlink(to, path) == 0)
        return DR_OK;
    if (errno == EEXIST) { /* a link to nothing, or to what this commit had before */
        if (unlink(path) != 0 && errno != ENOENT)
            DR_FAIL(DR_EIO, "%s: cannot replace: %s", path, strerror(errno));
        if (symlink(to, path) == 0)
            return DR_OK;
    }
    if (errno != EPERM && errno != ENOTSUP && errno != ENOSYS)
        DR_FAIL(DR_EIO, "%s: cannot link: %s", path, strerror(errno));
    DR_TRY(dr_place_file(path, blob, NULL)); /* a file system without links */
done:
    return st;
}

/* ---- locks ---- */

dr_status hub_lock(const hub_env *env, const char *id, const char *etag, int *fd)
{
    const char *base = dr_path_base(hub_repo_dir(env, id));
    const char *dir = dr_arena_printf(env->a, "%s/.locks/%s", env->cache, base);
    const char *path = dr_arena_printf(env->a, "%s/%s.lock", dir, etag);
    bool said = false;
    dr_status st = DR_OK;

    *fd = -1;
    DR_TRY(dr_make_dirs(dir));
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (*fd < 0)
        DR_FAIL(DR_EIO, "%s: cannot open: %s", path, strerror(errno));
    while (flock(*fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            DR_FAIL(DR_EIO, "%s: cannot lock: %s", path, strerror(errno));
        if (!said)
            dr_log(DR_INFO, "%s: another program is downloading this file", path);
        said = true;
        DR_TRY(dr_cancelled_check());
        (void)usleep(LOCK_POLL_MS * 1000);
    }
done:
    if (st != DR_OK && *fd >= 0) {
        (void)close(*fd);
        *fd = -1;
    }
    return st;
}
