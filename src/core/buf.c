/*
 * buf.c - a growing byte buffer with a maximum.
 */
#include "core/buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

static char empty[1];

void dr_buf_init(dr_buf *b, size_t max_bytes)
{
    *b = (dr_buf){.data = empty, .max = max_bytes};
}

void dr_buf_release(dr_buf *b)
{
    if (b->data != empty)
        free(b->data);
    *b = (dr_buf){.data = empty, .max = b->max};
}

void dr_buf_reset(dr_buf *b)
{
    b->len = 0;
    if (b->cap > 0)
        b->data[0] = '\0';
}

dr_status dr_buf_reserve(dr_buf *b, size_t n, char **where)
{
    if (n > b->max || b->len > b->max - n)
        return dr_fail(DR_EFORMAT, "more than %zu bytes of text", b->max);
    size_t want = b->len + n + 1;
    if (want == 0 || want > SIZE_MAX / 2)
        dr_oom(want);
    if (want > b->cap) {
        size_t cap = b->cap ? b->cap : 256;
        while (cap < want)
            cap *= 2;
        b->data = dr_realloc(b->data == empty ? NULL : b->data, cap, 1);
        b->cap = cap;
    }
    b->data[b->len + n] = '\0';
    *where = b->data + b->len;
    return DR_OK;
}

dr_status dr_buf_add(dr_buf *b, const void *data, size_t n)
{
    char *where = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_buf_reserve(b, n, &where));
    if (n > 0)
        memcpy(where, data, n);
    b->len += n;
done:
    return st;
}

dr_status dr_buf_adds(dr_buf *b, const char *s)
{
    return dr_buf_add(b, s, strlen(s));
}

dr_status dr_buf_addf(dr_buf *b, const char *fmt, ...)
{
    va_list va;
    char *where = NULL;
    dr_status st = DR_OK;

    va_start(va, fmt);
    int n = vsnprintf(NULL, 0, fmt, va);
    va_end(va);
    DR_BUG_IF(n < 0);
    DR_TRY(dr_buf_reserve(b, (size_t)n, &where));
    va_start(va, fmt);
    (void)vsnprintf(where, (size_t)n + 1, fmt, va);
    va_end(va);
    b->len += (size_t)n;
done:
    return st;
}
