/*
 * outdir.c - output folders that are whole or absent.
 *
 *   open                        commit                          close
 *   mkdir X.tmp, lock it,       fsync all in X.tmp              remove X.tmp
 *   refuse or restore X,        remove X.tmp/resume             (new or old, whatever
 *   clear X.tmp (open_kept:     X absent:  X.tmp -> X           is there), unlock
 *   all but X.tmp/resume)       X there:   X.tmp <-> X
 *
 * The lock is an flock of the folder itself, so it dies with the process.  What must hold:
 *
 * 1. Only the holder of X.tmp's lock touches X, X.tmp and X.tmp.old.
 * 2. The lock belongs to a folder, not to a name.  It is taken, then the name is looked up
 *    again: another run may have renamed the folder away in between.
 * 3. Before the exchange the old X is locked as well: it becomes X.tmp, and until it is
 *    removed no other run may take that name for its own.
 * 4. Where the system cannot exchange, X is away for a moment, under the name X.tmp.old;
 *    open puts it back.  (Not X.old: that name is a user's for a backup.)
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/file.h"
#include "core/file_impl.h"
#include "core/log.h"
#include "core/mem.h"

struct dr_outdir {
    char *path; /* owned: X, without links and trailing slashes */
    char *tmp;  /* owned: X.tmp */
    char *old;  /* owned: X.tmp.old */
    char *kept; /* owned: X.tmp/resume */
    int fd;     /* the folder that X.tmp names, locked; -1: X.tmp is not ours */
};

enum { TRIES = 1000 };

static bool present(const char *path)
{
    struct stat sb;

    return lstat(path, &sb) == 0;
}

/* X as a name that can be renamed: links followed, no slashes at the end. */
static dr_status find_path(char **out, const char *path)
{
    struct stat sb;
    size_t n = strlen(path);

    while (n > 1 && path[n - 1] == '/')
        n--;
    char *p = dr_strndup(path, n);
    const char *base = dr_path_base(p);
    if (base[0] == '\0' || strcmp(base, ".") == 0 || strcmp(base, "..") == 0) {
        free(p);
        dr_status st = dr_fail(DR_EUSAGE, "output folder \"%s\": cannot be replaced", path);
        dr_hint("name a folder that drupe may make, such as out/model");
        return st;
    }
    if (lstat(p, &sb) == 0 && S_ISLNK(sb.st_mode)) {
        char *real = realpath(p, NULL);
        if (real == NULL) {
            dr_status st = dr_io_fail(p, "follow the link");
            free(p);
            return st;
        }
        free(p);
        p = real;
    }
    *out = p;
    return DR_OK;
}

/* DR_EUSAGE unless X is absent, empty, or made by drupe. */
static dr_status check_ours(const char *path)
{
    dr_arena a = {0};
    char **names = NULL;
    size_t count = 0;
    struct stat sb;
    dr_status st = DR_OK;

    if (lstat(path, &sb) != 0)
        return DR_OK;
    if (!S_ISDIR(sb.st_mode))
        return dr_fail(DR_EUSAGE, "output folder %s: is a file", path);
    if (dr_exists(dr_path_join(&a, path, "drupe.json")))
        goto done;
    st = dr_list_dir(&a, path, &names, &count);
    if (st != DR_OK && !present(path)) { /* not locked yet: another run moved it (see 4) */
        dr_trail_clear();
        st = DR_OK;
    }
    DR_TRY(st);
    if (count > 0) {
        st = dr_fail(DR_EUSAGE, "output folder %s: not made by drupe: it holds %s%s", path,
                     names[0], count > 1 ? " and more, and no drupe.json" : " only");
        dr_hint("choose another output folder, or remove this one");
    }
done:
    dr_arena_release(&a);
    return st;
}

/* flock of an open folder; *busy: another run has it. */
static dr_status lock_fd(bool *busy, int fd, const char *path)
{
    int failed = -1;

    *busy = false;
    do {
        failed = dr_io_fault() ? -1 : flock(fd, LOCK_EX | LOCK_NB);
    } while (failed != 0 && errno == EINTR);
    if (failed == 0)
        return DR_OK;
    if (errno == EWOULDBLOCK) {
        *busy = true;
        return DR_OK;
    }
    if (errno == EIO)
        return dr_io_fail(path, "lock");
    dr_log(DR_WARNING, "%s: this file system has no locks (%s); do not write to it twice",
           path, strerror(errno));
    return DR_OK;
}

static dr_status fail_busy(const dr_outdir *o)
{
    dr_status st = dr_fail(DR_EIO, "another run writes to %s", o->path);

    dr_hint("wait for it, or choose another output folder");
    return st;
}

/* Does this name still belong to the folder that fd has open? */
static bool names_fd(const char *path, int fd)
{
    struct stat by_name, by_fd;

    return lstat(path, &by_name) == 0 && fstat(fd, &by_fd) == 0 &&
           by_name.st_dev == by_fd.st_dev && by_name.st_ino == by_fd.st_ino;
}

/* Makes and locks X.tmp; on DR_OK o->fd is its folder. */
static dr_status take_tmp(dr_outdir *o)
{
    bool busy = false;
    dr_status st = DR_OK;

    for (int tries = 0; tries < TRIES; tries++) {
        if ((dr_io_fault() || mkdir(o->tmp, 0777) != 0) && errno != EEXIST)
            return dr_io_fail(o->tmp, "make the folder");
        int fd = dr_io_open(o->tmp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
        if (fd < 0 && errno == ENOENT)
            continue; /* its run ended and took it away */
        if (fd < 0)
            return dr_io_fail(o->tmp, "open the folder");
        st = lock_fd(&busy, fd, o->tmp);
        if (st == DR_OK && !busy && names_fd(o->tmp, fd)) {
            o->fd = fd;
            return DR_OK;
        }
        (void)close(fd);
        if (st != DR_OK)
            return st;
        if (busy)
            return fail_busy(o);
    }
    return fail_busy(o); /* others come and go without end */
}

/*
 * A run that died where the system cannot exchange (see commit_in_two) left X.tmp.old: the
 * old X.  With X absent it is put back; with X there, X is the new one and the old goes.
 */
static dr_status restore(dr_outdir *o)
{
    bool busy = false;
    dr_status st = DR_OK;

    if (!present(o->old))
        return DR_OK;
    int fd = dr_io_open(o->old, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0 && errno == ENOENT)
        return DR_OK; /* its run is alive and has just removed it */
    if (fd < 0)
        return dr_io_fail(o->old, "open the folder");
    DR_TRY(lock_fd(&busy, fd, o->old));
    if (busy) /* its run is alive and removes it just now */
        DR_TRY(fail_busy(o));
    if (present(o->path)) {
        DR_TRY(dr_remove_tree(o->old));
    } else {
        DR_TRY(dr_io_rename(o->old, o->path));
        DR_TRY(dr_io_sync_parent(o->path));
    }
done:
    (void)close(fd);
    return st;
}

/* Each thing in X.tmp but resume. */
static dr_status each_in_tmp(const dr_outdir *o, dr_status (*visit)(const char *path))
{
    dr_arena a = {0};
    char **names = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_list_dir(&a, o->tmp, &names, &count));
    for (size_t i = 0; i < count; i++) {
        const char *path = dr_path_join(&a, o->tmp, names[i]);
        if (strcmp(path, o->kept) != 0)
            DR_TRY(visit(path));
    }
done:
    dr_arena_release(&a);
    return st;
}

static dr_status open_dir(dr_outdir **out, const char *path, bool keep)
{
    dr_outdir *o = dr_calloc(1, sizeof(*o));
    char *parent = NULL;
    dr_status st = DR_OK;

    *out = NULL;
    o->fd = -1;
    DR_TRY(find_path(&o->path, path));
    o->tmp = dr_asprintf("%s.tmp", o->path);
    o->old = dr_asprintf("%s.tmp.old", o->path);
    o->kept = dr_asprintf("%s.tmp/resume", o->path);
    DR_TRY(check_ours(o->path)); /* before anything is made */
    parent = dr_io_parent(o->path);
    DR_TRY(dr_make_dirs(parent));
    DR_TRY(take_tmp(o));
    DR_TRY(restore(o));
    DR_TRY(check_ours(o->path)); /* a run that ended just now may have changed it */
    DR_TRY(keep ? each_in_tmp(o, dr_remove_tree) : dr_io_clear_dir(o->tmp));
    *out = o;
    o = NULL;
done:
    free(parent);
    if (o != NULL)
        dr_outdir_close(o);
    return st;
}

dr_status dr_outdir_open(dr_outdir **out, const char *path)
{
    return open_dir(out, path, false);
}

dr_status dr_outdir_open_kept(dr_outdir **out, const char *path)
{
    return open_dir(out, path, true);
}

const char *dr_outdir_tmp(const dr_outdir *o)
{
    return o->tmp;
}

const char *dr_outdir_resume(const dr_outdir *o)
{
    return o->kept;
}

/*
 * Removes what X.tmp names, when that is ours: the new folder before the commit, the old
 * one after it.  Failing leaves a folder that the next run clears, so it is no error; the
 * trail of an error that is being carried up stays.
 */
static void drop_tmp(dr_outdir *o, const char *path)
{
    const dr_trail before = *dr_trail_get();

    if (o->fd < 0)
        return;
    if (dr_remove_tree(path) != DR_OK) {
        dr_log(DR_WARNING, "%s is left over: %s", path, dr_trail_get()->frames[0].text);
        dr_trail_set(&before);
    }
    (void)close(o->fd);
    o->fd = -1;
}

/* The lock moves from the new folder, which is X now, to the old one. */
static void lock_old(dr_outdir *o, int old_fd)
{
    (void)close(o->fd);
    o->fd = old_fd;
}

/* Where the system cannot exchange: see 4 above. */
static dr_status commit_in_two(dr_outdir *o)
{
    dr_status st = DR_OK;

    DR_TRY(dr_io_rename(o->path, o->old));
    st = dr_io_rename(o->tmp, o->path);
    if (st != DR_OK)
        (void)rename(o->old, o->path); /* if that fails too, the next open does it */
done:
    return st;
}

/* X is there: it and X.tmp change places. */
static dr_status commit_exchange(dr_outdir *o)
{
    bool busy = false;
    const char *old_at = o->tmp;
    dr_status st = DR_OK;

    int old_fd = dr_io_open(o->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (old_fd < 0)
        DR_TRY(dr_io_fail(o->path, "open the folder"));
    DR_TRY(lock_fd(&busy, old_fd, o->path));
    if (busy)
        DR_TRY(fail_busy(o));
    int failed = dr_io_fault() ? -1 : dr_os_exchange(o->tmp, o->path);
    if (failed != 0 && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
        DR_TRY(dr_io_fail(o->path, "exchange it with the new folder"));
    if (failed != 0) {
        DR_TRY(commit_in_two(o));
        old_at = o->old;
    }
    lock_old(o, old_fd);
    old_fd = -1;
    st = dr_io_sync_parent(o->path); /* an error: the old one is kept, under another name */
    if (st == DR_OK)
        drop_tmp(o, old_at);
    else
        lock_old(o, -1);
done:
    if (old_fd >= 0)
        (void)close(old_fd);
    return st;
}

static dr_status commit_rename(dr_outdir *o)
{
    dr_status st = DR_OK;

    DR_TRY(dr_io_rename(o->tmp, o->path));
    lock_old(o, -1); /* there is none */
    DR_TRY(dr_io_sync_parent(o->path));
done:
    return st;
}

/* What a kill could still lose is removed when all of the result is on disk. */
static dr_status sync_result(dr_outdir *o)
{
    dr_status st = DR_OK;

    if (!present(o->kept))
        return dr_io_sync_tree(o->tmp);
    DR_TRY(each_in_tmp(o, dr_io_sync_tree));
    DR_TRY(dr_remove_tree(o->kept));
    DR_TRY(dr_io_sync(o->fd, o->tmp));
done:
    return st;
}

dr_status dr_outdir_commit(dr_outdir *o)
{
    dr_status st = DR_OK;

    DR_BUG_IF(o->fd < 0); /* committed before */
    DR_TRY(sync_result(o));
    if (!present(o->path)) {
        DR_TRY(commit_rename(o));
    } else {
        DR_TRY(check_ours(o->path)); /* it may have come while this run worked */
        DR_TRY(commit_exchange(o));
    }
done:
    if (st != DR_OK)
        dr_note_at(__FILE__, __LINE__, "putting %s into place", o->path);
    return st;
}

void dr_outdir_close(dr_outdir *o)
{
    if (o == NULL)
        return;
    drop_tmp(o, o->tmp);
    free(o->path);
    free(o->tmp);
    free(o->old);
    free(o->kept);
    free(o);
}
