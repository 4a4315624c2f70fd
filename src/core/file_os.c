/*
 * file_os.c - the two file operations that POSIX does not have, each with a caller that
 * falls back where they are absent.
 */
#include <errno.h>
#include <stdio.h>

#include "core/file_impl.h"

#ifdef __linux__
#    include <fcntl.h>
#    include <linux/fs.h>
#    include <sys/ioctl.h>
#endif

int dr_os_exchange(const char *a, const char *b)
{
#if defined(__linux__) && defined(RENAME_EXCHANGE)
    return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
#else
    (void)a, (void)b;
    errno = ENOSYS;
    return -1;
#endif
}

int dr_os_clone(int to_fd, int from_fd)
{
#if defined(__linux__) && defined(FICLONE)
    return ioctl(to_fd, FICLONE, from_fd);
#else
    (void)to_fd, (void)from_fd;
    errno = ENOSYS;
    return -1;
#endif
}
