/*
 * file_impl.h - what file.c, file_write.c and outdir.c share.
 *
 * Every call that touches the disk first asks dr_io_fault(), so that a test can fail the
 * n-th one or kill the process at it (DR_FAULT=io:n, kill:n).
 */
#ifndef DRUPE_CORE_FILE_IMPL_H
#define DRUPE_CORE_FILE_IMPL_H

#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"

/* Counts one operation; true, with errno set to EIO, when it must fail. */
bool dr_io_fault(void);
/* DR_EIO `path: cannot <verb>: <errno in words>`; a full disk gets a hint. */
dr_status dr_io_fail(const char *path, const char *verb);

/* open(2) with O_CLOEXEC, -1 with errno on failure.  mode counts for O_CREAT. */
int dr_io_open(const char *path, int flags, unsigned mode);
/* All n bytes at offset, whatever the system takes at once. */
DR_MUST_USE dr_status dr_io_write(int fd, const char *path, const void *data, size_t n,
                                  unsigned long long offset);
/* close(2) of a written file, whose errors count. */
DR_MUST_USE dr_status dr_io_close(int fd, const char *path);
DR_MUST_USE dr_status dr_io_sync(int fd, const char *path);
DR_MUST_USE dr_status dr_io_rename(const char *from, const char *to);
/* Makes the names in path's parent durable. */
DR_MUST_USE dr_status dr_io_sync_parent(const char *path);
/* The parent folder of a path without trailing slashes; heap, to be freed. */
char *dr_io_parent(const char *path);
/* fsync of everything under path and of path. */
DR_MUST_USE dr_status dr_io_sync_tree(const char *path);
/* Everything in the folder, but not the folder. */
DR_MUST_USE dr_status dr_io_clear_dir(const char *path);

/* What only some systems have (file_os.c): both return -1 with errno where it is absent. */
int dr_os_exchange(const char *a, const char *b); /* the two names change places */
int dr_os_clone(int to_fd, int from_fd);          /* shares the blocks (reflink) */

#endif
