/*
 * mem.c - heap allocation, with a fault to inject: DR_FAULT=big:n fails the n-th block
 * sized by a model.
 */
#include "core/mem.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/fault.h"

enum {
    IDLE_BYTES = 1 << 25, /* less is not worth its page faults */
    HUGE_PAGE = 1 << 21   /* x86-64's and AArch64's; a block of several is worth them */
};

bool dr_mul(size_t *out, size_t a, size_t b)
{
    return !__builtin_mul_overflow(a, b, out);
}

void *dr_calloc(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size ? size : 1);

    if (p == NULL)
        dr_oom(count * size);
    return p;
}

void *dr_realloc(void *p, size_t count, size_t size)
{
    size_t bytes = 0;

    if (!dr_mul(&bytes, count, size))
        dr_oom(SIZE_MAX);
    void *q = realloc(p, bytes ? bytes : 1);
    if (q == NULL)
        dr_oom(bytes);
    return q;
}

char *dr_strndup(const char *s, size_t n)
{
    char *p = dr_calloc(n + 1, 1);

    memcpy(p, s, n);
    return p;
}

char *dr_strdup(const char *s)
{
    return dr_strndup(s, strlen(s));
}

bool dr_ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);

    return n >= m && strcmp(text + n - m, end) == 0;
}

char *dr_asprintf(const char *fmt, ...)
{
    va_list va;
    char *p = NULL;

    va_start(va, fmt);
    int n = vasprintf(&p, fmt, va);
    va_end(va);
    if (n < 0)
        dr_oom(0);
    return p;
}

/* Huge pages fault 512 times less; the system may have none to give. */
static void *aligned(size_t align, size_t bytes)
{
    void *p = NULL;

    if (posix_memalign(&p, align, bytes) != 0)
        return NULL;
#ifdef MADV_HUGEPAGE
    if (align == HUGE_PAGE)
        (void)madvise(p, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#endif
    return p;
}

/* Where the system makes pages zero as they are touched, a large block has none before. */
static void zero_pages(void *p, size_t bytes)
{
#ifdef __linux__
    if (bytes >= IDLE_BYTES) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        size_t head = (page - (uintptr_t)p % page) % page;
        size_t tail = (bytes - head) % page;
        memset(p, 0, head);
        memset((char *)p + bytes - tail, 0, tail);
        if (madvise((char *)p + head, bytes - head - tail, MADV_DONTNEED) == 0)
            return;
    }
#endif
    memset(p, 0, bytes);
}

/* *bytes becomes what the block has. */
static dr_status big_block(void **out, size_t *bytes, size_t count, size_t size,
                           const char *what)
{
    void *p = NULL;

    *out = NULL;
    if (!dr_mul(bytes, count, size) || *bytes > SIZE_MAX - 64)
        return dr_fail(DR_ENOMEM, "%s: %zu x %zu bytes do not fit the address space", what,
                       count, size);
    size_t align = *bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : 64;
    *bytes = *bytes ? (*bytes + 63) / 64 * 64 : 64;
    if (!dr_fault_hit(DR_FAULT_BIG))
        p = aligned(align, *bytes);
    if (p == NULL)
        return dr_fail(DR_ENOMEM, "%s: cannot allocate %zu bytes", what, *bytes);
    *out = p;
    return DR_OK;
}

dr_status dr_big_room(void **out, size_t count, size_t size, const char *what)
{
    size_t bytes = 0;

    return big_block(out, &bytes, count, size, what);
}

dr_status dr_big_alloc(void **out, size_t count, size_t size, const char *what)
{
    size_t bytes = 0;
    dr_status st = big_block(out, &bytes, count, size, what);

    if (st == DR_OK)
        zero_pages(*out, bytes);
    return st;
}

void dr_big_free(void *p)
{
    free(p);
}

/* Whole pages: what lies beside the block may share its first and last one. */
void dr_big_idle(void *p, size_t bytes)
{
#ifdef MADV_DONTNEED
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t before = (page - (uintptr_t)p % page) % page;

    if (p != NULL && bytes >= IDLE_BYTES)
        (void)madvise((char *)p + before, (bytes - before) / page * page, MADV_DONTNEED);
#else
    (void)p;
    (void)bytes;
#endif
}
