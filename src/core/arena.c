/*
 * arena.c - a chain of blocks, bump-allocated; large requests get a block of their own.
 * Blocks come from aligned_alloc in ALIGN steps, so dr_big_free releases both kinds.
 * ASAN builds poison what is not handed out, so that overruns are seen.
 */
#include "core/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

#if defined(__has_feature)
#    if __has_feature(address_sanitizer)
#        define WITH_ASAN
#    endif
#elif defined(__SANITIZE_ADDRESS__)
#    define WITH_ASAN
#endif

#ifdef WITH_ASAN
#    include <sanitizer/asan_interface.h>
#    define POISON(p, n)   ASAN_POISON_MEMORY_REGION(p, n)
#    define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#    define POISON(p, n)   ((void)(p), (void)(n))
#    define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

enum { ALIGN = 64, BLOCK_BYTES = 1 << 16 };

struct dr_arena_block {
    dr_arena_block *next; /* owned: the block before */
    size_t used;
    size_t size;
    char pad[ALIGN - 3 * sizeof(size_t)];
    char data[];
};

/* what NULL: for small things, which do not count as blocks sized by a model. */
static dr_status block_new(dr_arena_block **out, size_t size, const char *what)
{
    void *p = NULL;
    dr_status st = DR_OK;

    if (what != NULL) {
        DR_TRY(dr_big_alloc(&p, 1, sizeof(dr_arena_block) + size, what));
    } else {
        p = aligned_alloc(ALIGN, sizeof(dr_arena_block) + size);
        if (p == NULL)
            dr_oom(size);
    }
    dr_arena_block *b = p;
    *b = (dr_arena_block){.size = size};
    POISON(b->data, size);
    *out = b;
done:
    return st;
}

static dr_status take(dr_arena *a, void **out, size_t count, size_t size, const char *what)
{
    size_t bytes = 0;
    dr_status st = DR_OK;

    if (!dr_mul(&bytes, count, size) || bytes > SIZE_MAX / 2)
        return dr_fail(DR_ENOMEM, "%s: %zu x %zu bytes do not fit the address space",
                       what ? what : "arena", count, size);
    size_t step = bytes / ALIGN * ALIGN + ALIGN; /* at least one byte of gap */
    if (a->head == NULL || a->head->size - a->head->used < step) {
        dr_arena_block *b = NULL;
        DR_TRY(block_new(&b, step > BLOCK_BYTES ? step : BLOCK_BYTES, what));
        b->next = a->head;
        a->head = b;
    }
    char *p = a->head->data + a->head->used;
    a->head->used += step;
    UNPOISON(p, bytes);
    memset(p, 0, bytes);
    *out = p;
done:
    return st;
}

void *dr_arena_alloc(dr_arena *a, size_t count, size_t size)
{
    void *p = NULL;

    if (take(a, &p, count, size, NULL) != DR_OK)
        dr_oom(count * size);
    return p;
}

dr_status dr_arena_big(dr_arena *a, void **out, size_t count, size_t size, const char *what)
{
    *out = NULL;
    return take(a, out, count, size, what);
}

char *dr_arena_strndup(dr_arena *a, const char *s, size_t n)
{
    char *p = dr_arena_alloc(a, n + 1, 1);

    memcpy(p, s, n);
    return p;
}

char *dr_arena_strdup(dr_arena *a, const char *s)
{
    return dr_arena_strndup(a, s, strlen(s));
}

char *dr_arena_vprintf(dr_arena *a, const char *fmt, va_list args)
{
    va_list again;

    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    DR_BUG_IF(n < 0);
    char *p = dr_arena_alloc(a, (size_t)n + 1, 1);
    (void)vsnprintf(p, (size_t)n + 1, fmt, args);
    return p;
}

char *dr_arena_printf(dr_arena *a, const char *fmt, ...)
{
    va_list va;

    va_start(va, fmt);
    char *p = dr_arena_vprintf(a, fmt, va);
    va_end(va);
    return p;
}

dr_arena_mark dr_arena_save(const dr_arena *a)
{
    return (dr_arena_mark){a->head, a->head ? a->head->used : 0};
}

void dr_arena_rewind(dr_arena *a, dr_arena_mark mark)
{
    while (a->head != mark.head) {
        dr_arena_block *b = a->head;
        a->head = b->next;
        UNPOISON(b->data, b->size);
        dr_big_free(b);
    }
    if (a->head != NULL) {
        a->head->used = mark.used;
        POISON(a->head->data + mark.used, a->head->size - mark.used);
    }
}

void dr_arena_release(dr_arena *a)
{
    dr_arena_rewind(a, (dr_arena_mark){NULL, 0});
}
