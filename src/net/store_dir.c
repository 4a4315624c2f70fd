/*
 * store_dir.c - objects as files of a folder, perhaps one that several machines mount, or
 * that a web server hands out.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/fault.h"
#include "core/file.h"
#include "core/log.h"
#include "core/mem.h"
#include "net/store_impl.h"

enum { PIECE_BYTES = 1 << 20 };

static const char *path_of(dr_arena *a, const net_store *s, const char *name)
{
    return dr_path_join(a, s->dir, name);
}

dr_status store_dir_size(const net_store *s, bool *there, uint64_t *bytes, const char *name)
{
    dr_arena a = {0};
    const char *path = path_of(&a, s, name);
    dr_status st = DR_OK;

    *there = dr_is_file(path);
    if (*there)
        st = dr_file_size(bytes, path);
    dr_arena_release(&a);
    return st;
}

dr_status store_dir_read(const net_store *s, bool *there, dr_buf *body, const char *name)
{
    dr_arena a = {0};
    const char *path = path_of(&a, s, name);
    dr_status st = DR_OK;

    *there = dr_is_file(path);
    if (*there)
        st = dr_read_file(body, path);
    dr_arena_release(&a);
    return st;
}

/* All n bytes at their place. */
static dr_status put_at(net_file *f, const char *data, size_t n)
{
    while (n > 0) {
        const ssize_t put = dr_fault_hit(DR_FAULT_IO)
                                ? (errno = EIO, -1)
                                : pwrite(f->fd, data, n, (off_t)(f->base + f->have));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return dr_fail(DR_EIO, "cannot write: %s", strerror(errno));
        if (f->saw != NULL)
            f->saw(f->ctx, f->have, data, (size_t)put);
        data += put;
        n -= (size_t)put;
        f->have += (uint64_t)put;
    }
    return DR_OK;
}

dr_status store_dir_get(const net_store *s, bool *there, net_file *f, const char *name)
{
    dr_arena a = {0};
    const char *path = path_of(&a, s, name);
    char *piece = dr_calloc(PIECE_BYTES, 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    dr_status st = DR_OK;

    *there = fd >= 0;
    if (fd < 0 && errno != ENOENT)
        DR_FAIL(DR_EIO, "%s: cannot open: %s", path, strerror(errno));
    while (fd >= 0) {
        DR_TRY(dr_cancelled_check());
        const ssize_t got = pread(fd, piece, PIECE_BYTES, (off_t)f->have);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            DR_FAIL(DR_EIO, "%s: cannot read: %s", path, strerror(errno));
        if (got == 0)
            break;
        if ((uint64_t)got > f->size - f->have)
            DR_FAIL(DR_EFORMAT, "%s: it has more than the announced %llu bytes", path,
                    (unsigned long long)f->size);
        DR_TRY(put_at(f, piece, (size_t)got));
    }
    if (fd >= 0 && f->have < f->size)
        DR_FAIL(DR_EFORMAT, "%s: it has %llu of %llu bytes", path,
                (unsigned long long)f->have, (unsigned long long)f->size);
done:
    if (fd >= 0)
        (void)close(fd);
    free(piece);
    dr_arena_release(&a);
    return st;
}

static dr_status write_range(const char *tmp, const net_object *o)
{
    char *piece = dr_calloc(PIECE_BYTES, 1);
    dr_writer w = {.fd = -1};
    dr_status st = DR_OK;

    DR_TRY(dr_writer_open(&w, tmp));
    for (uint64_t at = 0; at < o->size;) {
        const uint64_t left = o->size - at;
        const ssize_t got =
            pread(o->fd, piece, left < PIECE_BYTES ? (size_t)left : PIECE_BYTES,
                  (off_t)(o->from + at));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            DR_FAIL(DR_EIO, "cannot read what is to be written: %s",
                    got < 0 ? strerror(errno) : "the file is shorter now");
        DR_TRY(dr_writer_add(&w, piece, (size_t)got));
        at += (uint64_t)got;
        if (o->sent != NULL)
            o->sent(o->ctx, at);
        DR_TRY(dr_cancelled_check());
    }
    DR_TRY(dr_writer_finish(&w));
done:
    dr_writer_close(&w);
    free(piece);
    return st;
}

dr_status store_dir_put(const net_store *s, const char *name, const net_object *o)
{
    dr_arena a = {0};
    const char *path = path_of(&a, s, name);
    const char *tmp = dr_arena_printf(&a, "%s.%ld.tmp", path, (long)getpid());
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(dr_path_dir(&a, path)));
    if (o->data != NULL) {
        DR_TRY(dr_write_file(path, o->data, (size_t)o->size));
        goto done;
    }
    st = write_range(tmp, o);
    if (st == DR_OK)
        st = dr_replace_file(path, tmp);
    if (st != DR_OK)
        (void)unlink(tmp);
done:
    dr_arena_release(&a);
    return st;
}

dr_status store_dir_delete(const net_store *s, const char *name)
{
    dr_arena a = {0};
    const char *path = path_of(&a, s, name);
    dr_status st = DR_OK;

    if (unlink(path) != 0 && errno != ENOENT)
        st = dr_fail(DR_EIO, "%s: cannot remove: %s", path, strerror(errno));
    dr_arena_release(&a);
    return st;
}

dr_status store_dir_list(const net_store *s, dr_arena *a, const char ***names,
                         size_t *count, const char *folder)
{
    const char *path = path_of(a, s, folder);
    char **found = NULL;
    dr_status st = DR_OK;

    *count = 0;
    *names = NULL;
    if (!dr_is_dir(path))
        goto done;
    DR_TRY(dr_list_dir(a, path, &found, count));
    *names = dr_arena_alloc(a, *count + 1, sizeof(**names));
    for (size_t i = 0; i < *count; i++)
        (*names)[i] = found[i];
done:
    return st;
}
