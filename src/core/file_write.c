/*
 * file_write.c - files written, replaced and placed.
 *
 * 1. Nothing is ever written into a file that exists: a name may be a hard link to a
 *    user's model (dr_place_file), so the old name is removed and a new file made.  Only
 *    dr_writer_reopen does, in what a killed run of drupe left for it in X.tmp/resume.
 * 2. A file that is replaced is whole, old or new, at any moment (temporary, rename).
 * 3. Errors of close() count: a network file system reports a full disk there.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/file_impl.h"
#include "core/mem.h"

enum { BLOCK_BYTES = 1 << 20 };

/* ---- the system's calls, with their errors ---- */

dr_status dr_io_write(int fd, const char *path, const void *data, size_t n,
                      unsigned long long offset)
{
    const unsigned char *p = data;

    while (n > 0) {
        ssize_t put = dr_io_fault() ? -1 : pwrite(fd, p, n, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0 && errno == ESPIPE) /* a device or pipe has no positions */
            put = write(fd, p, n);
        if (put < 0)
            return dr_io_fail(path, "write");
        p += put;
        n -= (size_t)put;
        offset += (unsigned long long)put;
    }
    return DR_OK;
}

dr_status dr_io_close(int fd, const char *path)
{
    bool fault = dr_io_fault();
    int failed = close(fd); /* also with a fault: the caller is rid of it */

    if (fault) {
        errno = EIO;
        failed = -1;
    }
    if (failed != 0 && errno != EINTR)
        return dr_io_fail(path, "close");
    return DR_OK;
}

dr_status dr_io_sync(int fd, const char *path)
{
    int failed = dr_io_fault() ? -1 : fsync(fd);

    if (failed != 0 && errno != EINVAL &&
        errno != EROFS) /* some have no fsync of folders */
        return dr_io_fail(path, "sync");
    return DR_OK;
}

dr_status dr_io_sync_parent(const char *path)
{
    char *parent = dr_io_parent(path);
    dr_status st = DR_OK;

    int fd = dr_io_open(parent, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) {
        /* A folder that may be written but not read: its names cannot be synced. */
        if (errno != EACCES)
            DR_TRY(dr_io_fail(parent, "open the folder"));
        goto done;
    }
    DR_TRY(dr_io_sync(fd, parent));
done:
    if (fd >= 0)
        (void)close(fd);
    free(parent);
    return st;
}

dr_status dr_io_rename(const char *from, const char *to)
{
    if (dr_io_fault() || rename(from, to) != 0)
        return dr_io_fail(to, "rename it into place");
    return DR_OK;
}

static dr_status remove_name(const char *path)
{
    int failed = dr_io_fault() ? -1 : unlink(path);

    if (failed != 0 && errno != ENOENT)
        return dr_io_fail(path, "replace");
    return DR_OK;
}

/* A new file at path, in place of one that is there (see 1 above). */
static dr_status create(int *fd, const char *path, unsigned mode)
{
    dr_status st = DR_OK;

    *fd = dr_io_open(path, O_WRONLY | O_CREAT | O_EXCL, mode);
    if (*fd < 0 && errno == EEXIST) {
        DR_TRY(remove_name(path));
        *fd = dr_io_open(path, O_WRONLY | O_CREAT | O_EXCL, mode);
    }
    if (*fd < 0)
        DR_TRY(dr_io_fail(path, "create"));
done:
    return st;
}

/* ---- whole files ---- */

/* A new file beside path, with a name that no other process makes. */
static dr_status create_beside(int *fd, char **tmp, const char *path, unsigned mode)
{
    for (int i = 0;; i++) {
        *tmp = dr_asprintf("%s.%ld-%d.tmp", path, (long)getpid(), i);
        *fd = dr_io_open(*tmp, O_WRONLY | O_CREAT | O_EXCL, mode);
        if (*fd >= 0)
            return DR_OK;
        if (errno != EEXIST)
            return dr_io_fail(path, "create");
        free(*tmp);
        *tmp = NULL;
    }
}

/* /dev/stdout and the like are written to, not replaced. */
static dr_status write_special(const char *path, const void *data, size_t n)
{
    dr_status st = DR_OK;

    int fd = dr_io_open(path, O_WRONLY, 0);
    if (fd < 0)
        return dr_io_fail(path, "open");
    st = dr_io_write(fd, path, data, n, 0);
    if (st == DR_OK)
        return dr_io_close(fd, path);
    (void)close(fd);
    return st;
}

dr_status dr_write_file(const char *path, const void *data, size_t n)
{
    struct stat sb;
    char *tmp = NULL;
    int fd = -1;
    dr_status st = DR_OK;

    bool there = stat(path, &sb) == 0;
    if (there && S_ISDIR(sb.st_mode))
        return dr_fail(DR_EIO, "%s: cannot write: is a folder", path);
    if (there && !S_ISREG(sb.st_mode))
        return write_special(path, data, n);

    char *real =
        there ? realpath(path, NULL) : NULL; /* a link stays, its file is replaced */
    const char *to = real ? real : path;
    DR_TRY(create_beside(&fd, &tmp, to, 0666));
    if (there)
        (void)fchmod(fd, sb.st_mode & 0777); /* keeps who may read; not worth an error */
    DR_TRY(dr_io_write(fd, path, data, n, 0));
    DR_TRY(dr_io_sync(fd, path));
    st = dr_io_close(fd, path);
    fd = -1;
    DR_TRY(st);
    DR_TRY(dr_io_rename(tmp, to));
    free(tmp);
    tmp = NULL;
    DR_TRY(dr_io_sync_parent(to));
done:
    if (fd >= 0)
        (void)close(fd);
    if (tmp != NULL)
        (void)unlink(tmp);
    free(tmp);
    free(real);
    return st;
}

dr_status dr_rename(const char *to, const char *from)
{
    return dr_io_rename(from, to);
}

dr_status dr_replace_file(const char *path, const char *tmp)
{
    char *real = dr_exists(path) ? realpath(path, NULL) : NULL;
    const char *to = real ? real : path;
    int fd = -1;
    dr_status st = DR_OK;

    fd = dr_io_open(tmp, O_RDONLY, 0);
    if (fd < 0)
        DR_TRY(dr_io_fail(tmp, "open"));
    DR_TRY(dr_io_sync(fd, tmp));
    DR_TRY(dr_io_rename(tmp, to));
    DR_TRY(dr_io_sync_parent(to));
done:
    if (fd >= 0)
        (void)close(fd);
    free(real);
    return st;
}

/* ---- front to back ---- */

dr_status dr_writer_open(dr_writer *w, const char *path)
{
    int fd = -1;
    dr_status st = DR_OK;

    *w = (dr_writer){.fd = -1};
    DR_TRY(create(&fd, path, 0666));
    w->fd = fd;
    w->path = dr_strdup(path);
    w->block = dr_calloc(BLOCK_BYTES, 1);
done:
    return st;
}

dr_status dr_writer_reopen(dr_writer *w, const char *path)
{
    *w = (dr_writer){.fd = -1};
    int fd = dr_io_open(path, O_WRONLY | O_NOFOLLOW, 0);
    if (fd < 0)
        return dr_io_fail(path, "open");
    w->fd = fd;
    w->path = dr_strdup(path);
    w->block = dr_calloc(BLOCK_BYTES, 1);
    return DR_OK;
}

dr_status dr_writer_put(const dr_writer *w, uint64_t at, const void *data, size_t n)
{
    dr_status st = dr_io_write(w->fd, w->path, data, n, at);

#ifdef SYNC_FILE_RANGE_WRITE /* else all of it waits for the sync at the end */
    if (st == DR_OK && n > 0)
        (void)sync_file_range(w->fd, (off_t)at, (off_t)n, SYNC_FILE_RANGE_WRITE);
#endif
    return st;
}

static dr_status flush(dr_writer *w)
{
    dr_status st = dr_writer_put(w, w->at, w->block, w->used);

    if (st == DR_OK) {
        w->at += w->used;
        w->used = 0;
    }
    return st;
}

dr_status dr_writer_add(dr_writer *w, const void *data, size_t n)
{
    const unsigned char *p = data;
    dr_status st = DR_OK;

    while (n > 0) {
        if (w->used == 0 && n >= BLOCK_BYTES) { /* whole tensors go without a copy */
            DR_TRY(dr_writer_put(w, w->at, p, n));
            w->at += n;
            break;
        }
        size_t part = BLOCK_BYTES - w->used < n ? BLOCK_BYTES - w->used : n;
        memcpy(w->block + w->used, p, part);
        w->used += part;
        p += part;
        n -= part;
        if (w->used == BLOCK_BYTES)
            DR_TRY(flush(w));
    }
done:
    return st;
}

dr_status dr_writer_align(dr_writer *w, size_t align)
{
    static const unsigned char zeros[4096];
    dr_status st = DR_OK;

    DR_BUG_IF(align == 0);
    size_t over = (size_t)(dr_writer_at(w) % align);
    for (size_t left = over ? align - over : 0; left > 0;) {
        size_t part = left < sizeof(zeros) ? left : sizeof(zeros);
        DR_TRY(dr_writer_add(w, zeros, part));
        left -= part;
    }
done:
    return st;
}

uint64_t dr_writer_at(const dr_writer *w)
{
    return w->at + w->used;
}

dr_status dr_writer_seek(dr_writer *w, uint64_t at)
{
    dr_status st = DR_OK;

    if (at != dr_writer_at(w)) {
        DR_TRY(flush(w));
        w->at = at;
    }
done:
    return st;
}

dr_status dr_writer_sync(dr_writer *w)
{
    dr_status st = DR_OK;

    DR_TRY(flush(w));
    DR_TRY(dr_io_sync(w->fd, w->path));
done:
    return st;
}

dr_status dr_writer_finish(dr_writer *w)
{
    dr_status st = DR_OK;

    DR_TRY(flush(w));
    int fd = w->fd;
    w->fd = -1;
    DR_TRY(dr_io_close(fd, w->path));
done:
    dr_writer_close(w);
    return st;
}

void dr_writer_close(dr_writer *w)
{
    if (w->path != NULL && w->fd >= 0)
        (void)close(w->fd);
    free(w->path);
    free(w->block);
    *w = (dr_writer){.fd = -1};
}

/* ---- placing ---- */

static dr_status copy_bytes(int to, const char *dst, int from, const char *src)
{
    unsigned char *block = dr_calloc(BLOCK_BYTES, 1);
    unsigned long long at = 0;
    dr_status st = DR_OK;

    for (;;) {
        ssize_t got = dr_io_fault() ? -1 : read(from, block, BLOCK_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            DR_TRY(dr_io_fail(src, "read"));
        if (got == 0)
            break;
        DR_TRY(dr_io_write(to, dst, block, (size_t)got, at));
        at += (unsigned long long)got;
    }
done:
    free(block);
    return st;
}

static dr_status copy_file(const char *dst, const char *src, dr_placed *how)
{
    struct stat sb;
    int to = -1;
    dr_status st = DR_OK;

    int from = dr_io_open(src, O_RDONLY, 0);
    if (from < 0 || fstat(from, &sb) != 0)
        DR_TRY(dr_io_fail(src, "open"));
    if (!S_ISREG(sb.st_mode))
        DR_FAIL(DR_EIO, "%s: cannot copy: not a file", src);
    DR_TRY(create(&to, dst, (sb.st_mode & 0777) | S_IWUSR));
    *how = DR_PLACED_REFLINK;
    if (dr_io_fault() || dr_os_clone(to, from) != 0) {
        *how = DR_PLACED_COPY;
        DR_TRY(copy_bytes(to, dst, from, src));
    }
    int fd = to;
    to = -1;
    DR_TRY(dr_io_close(fd, dst));
done:
    if (to >= 0)
        (void)close(to);
    if (from >= 0)
        (void)close(from);
    return st;
}

dr_status dr_copy_file(const char *dst, const char *src)
{
    dr_placed how;

    return copy_file(dst, src, &how);
}

/* Errors of link(2) that mean: not here, but a copy can be made. */
static bool cannot_link(int reason)
{
    return reason == EXDEV || reason == EPERM || reason == EACCES || reason == EMLINK ||
           reason == ENOSYS || reason == EOPNOTSUPP || reason == EINVAL;
}

dr_status dr_place_file(const char *dst, const char *src, dr_placed *how)
{
    struct stat from, to;
    dr_placed way = DR_PLACED_LINK;
    dr_status st = DR_OK;

    if (dr_io_fault() || stat(src, &from) != 0)
        DR_TRY(dr_io_fail(src, "open"));
    if (!S_ISREG(from.st_mode))
        DR_FAIL(DR_EIO, "%s: cannot place: not a file", src);
    if (stat(dst, &to) == 0 && to.st_dev == from.st_dev && to.st_ino == from.st_ino)
        goto done; /* in place already; removing the name could lose the file */
    if (lstat(dst, &to) == 0)
        DR_TRY(remove_name(dst));
    /* The cache of Hugging Face is links to blobs: the blob is linked, not the link. */
    int failed =
        dr_io_fault() ? -1 : linkat(AT_FDCWD, src, AT_FDCWD, dst, AT_SYMLINK_FOLLOW);
    if (failed != 0 && !cannot_link(errno))
        DR_TRY(dr_io_fail(dst, "link"));
    if (failed != 0)
        DR_TRY(copy_file(dst, src, &way));
done:
    if (st == DR_OK && how != NULL)
        *how = way;
    return st;
}

dr_status dr_place_tree(const char *dst, const char *src)
{
    char **names = NULL;
    size_t count = 0;
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(dst));
    DR_TRY(dr_list_dir(&a, src, &names, &count));
    for (size_t i = 0; i < count; i++) {
        const char *from = dr_path_join(&a, src, names[i]);
        const char *to = dr_path_join(&a, dst, names[i]);
        DR_TRY(dr_is_dir(from) ? dr_place_tree(to, from) : dr_place_file(to, from, NULL));
    }
done:
    dr_arena_release(&a);
    return st;
}
