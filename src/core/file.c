/*
 * file.c - files and folders read, named, made and removed.
 *
 * Writing is in file_write.c, output folders in outdir.c.  Trees are walked by open folder
 * and name (openat), never by joined path, so that a folder swapped for a link while it is
 * being removed does not lead out of the tree.
 */
#include "core/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/fault.h"
#include "core/file_impl.h"
#include "core/mem.h"

enum { READ_BYTES = 1 << 16 };

/* ---- shared ---- */

bool dr_io_fault(void)
{
    if (!dr_fault_hit(DR_FAULT_IO))
        return false;
    errno = EIO;
    return true;
}

dr_status dr_io_fail(const char *path, const char *verb)
{
    int reason = errno;
    dr_status st = dr_fail(DR_EIO, "%s: cannot %s: %s", path, verb, strerror(reason));

    if (reason == ENOSPC || reason == EDQUOT)
        dr_hint("%llu bytes are free there", (unsigned long long)dr_disk_free(path));
    return st;
}

int dr_io_open(const char *path, int flags, unsigned mode)
{
    int fd = -1;

    if (dr_io_fault())
        return -1;
    do {
        fd = open(path, flags | O_CLOEXEC, (mode_t)mode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

/* ---- reading ---- */

dr_status dr_map_open(dr_map *m, const char *path)
{
    static const unsigned char nothing[1];
    struct stat sb;
    dr_status st = DR_OK;

    *m = (dr_map){0};
    int fd = dr_io_open(path, O_RDONLY, 0);
    if (fd < 0 || fstat(fd, &sb) != 0)
        DR_TRY(dr_io_fail(path, "open"));
    if (!S_ISREG(sb.st_mode))
        DR_FAIL(DR_EIO, "%s: is %s, not a file", path,
                S_ISDIR(sb.st_mode) ? "a folder" : "a device or pipe");
    if (sb.st_size == 0) { /* mmap refuses length 0 */
        m->data = nothing;
        goto done;
    }
    if ((uintmax_t)sb.st_size > SIZE_MAX)
        DR_FAIL(DR_EIO, "%s: %jd bytes do not fit the address space", path,
                (intmax_t)sb.st_size);
    void *p = dr_io_fault() ? MAP_FAILED
                            : mmap(NULL, (size_t)sb.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        DR_TRY(dr_io_fail(path, "map"));
    *m = (dr_map){.data = p, .size = (size_t)sb.st_size, .mapped = true};
done:
    if (fd >= 0)
        (void)close(fd);
    return st;
}

void dr_map_close(dr_map *m)
{
    if (m->mapped) {
        void *p;
        memcpy(&p, &m->data, sizeof(p)); /* munmap wants it without const */
        (void)munmap(p, m->size);
    }
    *m = (dr_map){0};
}

static ssize_t read_some(int fd, void *to, size_t n)
{
    ssize_t got = -1;

    if (dr_io_fault())
        return -1;
    do {
        got = read(fd, to, n);
    } while (got < 0 && errno == EINTR);
    return got;
}

dr_status dr_read_file(dr_buf *b, const char *path)
{
    char probe, *where = NULL;
    dr_status st = DR_OK;

    int fd = dr_io_open(path, O_RDONLY, 0);
    if (fd < 0)
        DR_TRY(dr_io_fail(path, "open"));
    for (;;) {
        size_t room = b->max - b->len;
        size_t n = room < READ_BYTES ? room : READ_BYTES;
        if (n > 0)
            DR_TRY(dr_buf_reserve(b, n, &where));
        ssize_t got = read_some(fd, n > 0 ? where : &probe, n > 0 ? n : 1);
        if (got < 0)
            DR_TRY(dr_io_fail(path, "read"));
        if (got == 0)
            break;
        if (n == 0)
            DR_FAIL(DR_EFORMAT, "%s: more than %zu bytes", path, b->max);
        b->len += (size_t)got;
    }
done:
    if (b->cap > 0)
        b->data[b->len] = '\0';
    if (fd >= 0)
        (void)close(fd);
    return st;
}

/* ---- names ---- */

char *dr_path_join(dr_arena *a, const char *dir, const char *name)
{
    size_t n = strlen(dir);

    if (n == 0 || name[0] == '/')
        return dr_arena_strdup(a, name);
    return dr_arena_printf(a, dir[n - 1] == '/' ? "%s%s" : "%s/%s", dir, name);
}

const char *dr_path_base(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

const char *dr_path_dir(dr_arena *a, const char *path)
{
    size_t n = (size_t)(dr_path_base(path) - path);

    if (n == 0)
        return ".";
    return dr_arena_strndup(a, path, n > 1 ? n - 1 : 1);
}

bool dr_is_safe_path(const char *s)
{
    size_t part = 0;

    for (const char *p = s;; p++) {
        if (*p != '/' && *p != '\0') {
            if ((unsigned char)*p < ' ' || *p == '\\' || *p == 0x7f)
                return false;
            part++;
            continue;
        }
        if (part == 0 || (part == 1 && p[-1] == '.') ||
            (part == 2 && p[-1] == '.' && p[-2] == '.'))
            return false;
        if (*p == '\0')
            return p - s < 1024;
        part = 0;
    }
}

bool dr_exists(const char *path)
{
    struct stat sb;

    return stat(path, &sb) == 0;
}

bool dr_is_dir(const char *path)
{
    struct stat sb;

    return stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);
}

bool dr_is_file(const char *path)
{
    struct stat sb;

    return stat(path, &sb) == 0 && S_ISREG(sb.st_mode);
}

dr_status dr_file_size(uint64_t *bytes, const char *path)
{
    struct stat sb;

    *bytes = 0;
    if (dr_io_fault() || stat(path, &sb) != 0)
        return dr_io_fail(path, "look at it");
    *bytes = (uint64_t)sb.st_size;
    return DR_OK;
}

dr_status dr_file_time(int64_t *ns, const char *path)
{
    struct stat sb;

    *ns = 0;
    if (dr_io_fault() || stat(path, &sb) != 0)
        return dr_io_fail(path, "look at it");
    *ns = (int64_t)sb.st_mtim.tv_sec * 1000000000 + sb.st_mtim.tv_nsec;
    return DR_OK;
}

bool dr_file_is_single(const char *path)
{
    struct stat sb;

    return lstat(path, &sb) == 0 && S_ISREG(sb.st_mode) && sb.st_nlink == 1;
}

char *dr_io_parent(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL)
        return dr_strdup(".");
    while (slash > path && slash[-1] == '/')
        slash--;
    return slash == path ? dr_strdup("/") : dr_strndup(path, (size_t)(slash - path));
}

uint64_t dr_disk_free(const char *path)
{
    struct statvfs sv;
    char *p = dr_strdup(path[0] ? path : ".");
    uint64_t bytes = 0;

    while (statvfs(p, &sv) != 0 && errno == ENOENT && strcmp(p, ".") && strcmp(p, "/")) {
        size_t n = strlen(p);
        while (n > 1 && p[n - 1] == '/')
            p[--n] = '\0';
        char *up = dr_io_parent(p);
        free(p);
        p = up;
    }
    if (statvfs(p, &sv) == 0)
        bytes = (uint64_t)sv.f_bavail * sv.f_frsize;
    free(p);
    return bytes;
}

static bool is_dots(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The next name but . and .., NULL at the end or, with errno, on failure. */
static const char *next_name(DIR *d)
{
    struct dirent *e = NULL;

    do {
        errno = 0;
        e = readdir(d);
    } while (e != NULL && is_dots(e->d_name));
    return e ? e->d_name : NULL;
}

dr_status dr_list_dir(dr_arena *a, const char *dir, char ***names, size_t *count)
{
    char **list = NULL;
    size_t n = 0, cap = 0;
    const char *name = NULL;
    dr_status st = DR_OK;

    *names = NULL;
    *count = 0;
    DIR *d = dr_io_fault() ? NULL : opendir(dir);
    if (d == NULL)
        DR_TRY(dr_io_fail(dir, "list"));
    while ((name = next_name(d)) != NULL) {
        if (n == cap) {
            cap = cap ? cap * 2 : 16;
            list = dr_realloc(list, cap, sizeof(*list));
        }
        list[n++] = dr_arena_strdup(a, name);
    }
    if (errno != 0)
        DR_TRY(dr_io_fail(dir, "list"));
    *names = dr_arena_alloc(a, n + 1, sizeof(**names));
    if (n > 0) {
        qsort(list, n, sizeof(*list), by_bytes);
        memcpy(*names, list, n * sizeof(*list));
    }
    *count = n;
done:
    free(list);
    if (d != NULL)
        (void)closedir(d);
    return st;
}

/* ---- folders made, removed, synced ---- */

static dr_status make_dir(const char *path)
{
    int failed = 0;

    if (dr_is_dir(path))
        return DR_OK;
    failed = dr_io_fault() ? -1 : mkdir(path, 0777);
    if (failed != 0 && !(errno == EEXIST && dr_is_dir(path)))
        return dr_io_fail(path, "make the folder");
    return failed == 0 ? dr_io_sync_parent(path) : DR_OK; /* else another run made it */
}

dr_status dr_make_dirs(const char *path)
{
    char *p = dr_strdup(path);
    dr_status st = DR_OK;

    for (char *s = p; *s != '\0'; s++) {
        if (*s != '/' || s == p || s[-1] == '/')
            continue;
        *s = '\0';
        DR_TRY(make_dir(p));
        *s = '/';
    }
    size_t n = strlen(p);
    while (n > 1 && p[n - 1] == '/')
        p[--n] = '\0';
    DR_TRY(make_dir(p));
done:
    free(p);
    return st;
}

/* What is done at each thing in a tree: at a folder after all that it holds. */
typedef dr_status (*visit_fn)(int dir_fd, const char *name, const char *path, bool is_dir);

static dr_status walk_dir(int fd, const char *path, visit_fn visit);

static dr_status walk_one(int dir_fd, const char *name, const char *path, visit_fn visit)
{
    struct stat sb;
    dr_status st = DR_OK;

    if (fstatat(dir_fd, name, &sb, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? DR_OK : dr_io_fail(path, "look at it");
    if (S_ISDIR(sb.st_mode)) {
        int fd = dr_io_fault() ? -1
                               : openat(dir_fd, name,
                                        O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            return errno == ENOENT ? DR_OK : dr_io_fail(path, "open the folder");
        DR_TRY(walk_dir(fd, path, visit));
    }
    DR_TRY(visit(dir_fd, name, path, S_ISDIR(sb.st_mode)));
done:
    return st;
}

/* Takes fd over.  The names are read first: visiting may remove them. */
static dr_status walk_dir(int fd, const char *path, visit_fn visit)
{
    dr_arena a = {0};
    char **names = NULL;
    size_t n = 0, cap = 0;
    const char *name = NULL;
    dr_status st = DR_OK;

    DIR *d = fdopendir(fd);
    if (d == NULL) {
        st = dr_io_fail(path, "list");
        (void)close(fd);
        return st;
    }
    while ((name = next_name(d)) != NULL) {
        if (n == cap) {
            cap = cap ? cap * 2 : 16;
            names = dr_realloc(names, cap, sizeof(*names));
        }
        names[n++] = dr_arena_strdup(&a, name);
    }
    if (errno != 0)
        DR_TRY(dr_io_fail(path, "list"));
    for (size_t i = 0; i < n; i++)
        DR_TRY(walk_one(dirfd(d), names[i], dr_path_join(&a, path, names[i]), visit));
done:
    free(names);
    (void)closedir(d);
    dr_arena_release(&a);
    return st;
}

static dr_status remove_one(int dir_fd, const char *name, const char *path, bool is_dir)
{
    int failed = dr_io_fault() ? -1 : unlinkat(dir_fd, name, is_dir ? AT_REMOVEDIR : 0);

    if (failed != 0 && errno != ENOENT)
        return dr_io_fail(path, "remove");
    return DR_OK;
}

static dr_status sync_one(int dir_fd, const char *name, const char *path, bool is_dir)
{
    struct stat sb;
    dr_status st = DR_OK;

    if (!is_dir &&
        (fstatat(dir_fd, name, &sb, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(sb.st_mode)))
        return DR_OK; /* a link is part of its folder */
    int fd = dr_io_fault() ? -1 : openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return dr_io_fail(path, "open to sync");
    DR_TRY(dr_io_sync(fd, path));
done:
    (void)close(fd);
    return st;
}

/* rmdir of a name that ends in a slash fails on a link; the slash is not part of it. */
static char *without_slashes(const char *path)
{
    size_t n = strlen(path);

    while (n > 1 && path[n - 1] == '/')
        n--;
    return dr_strndup(path, n);
}

dr_status dr_remove_tree(const char *path)
{
    char *p = without_slashes(path);
    dr_status st = walk_one(AT_FDCWD, p, p, remove_one);

    free(p);
    return st;
}

dr_status dr_io_sync_tree(const char *path)
{
    return walk_one(AT_FDCWD, path, path, sync_one);
}

dr_status dr_io_clear_dir(const char *path)
{
    int fd = dr_io_open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);

    if (fd < 0)
        return dr_io_fail(path, "open the folder");
    return walk_dir(fd, path, remove_one);
}
