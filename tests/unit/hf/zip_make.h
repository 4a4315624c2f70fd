/*
 * zip_make.h - zip archives of stored entries, made up for a test, with what may be wrong.
 */
#ifndef DRUPE_TESTS_HF_ZIP_MAKE_H
#define DRUPE_TESTS_HF_ZIP_MAKE_H

#include "check.h"
#include "core/buf.h"

typedef struct {
    const char *name;
    const void *data;
    size_t size;
} zip_part;

/* What is not as it should be; {0}: a good archive. */
typedef struct {
    bool zip64; /* sizes, places and the end in their 64-bit forms */
    unsigned method, flags;
    unsigned long long more_size, more_at, more_count; /* added to what is true */
    const char *other_name;                            /* in the entries' own headers */
} zip_wrong;

static inline void zip_put(dr_buf *b, unsigned long long v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        CHECK_OK(dr_buf_add(b, &(char){(char)(i < 8 ? v >> 8 * i & 255 : 0)}, 1));
}

static inline void zip_row(dr_buf *b, const zip_part *p, unsigned long long at,
                           const zip_wrong *w)
{
    unsigned long long size = p->size + w->more_size, place = at + w->more_at;

    zip_put(b, 0x02014b50, 4);
    zip_put(b, 0, 4);
    zip_put(b, w->flags, 2);
    zip_put(b, w->method, 2);
    zip_put(b, 0, 8); /* time, date, checksum */
    zip_put(b, w->zip64 ? 0xffffffff : size, 4);
    zip_put(b, w->zip64 ? 0xffffffff : size, 4);
    zip_put(b, strlen(p->name), 2);
    zip_put(b, w->zip64 ? 28 + 6 : 0, 2);
    zip_put(b, 0, 10);
    zip_put(b, w->zip64 ? 0xffffffff : place, 4);
    CHECK_OK(dr_buf_adds(b, p->name));
    if (!w->zip64)
        return;
    zip_put(b, 0x4246, 2); /* another field first */
    zip_put(b, 2, 2);
    zip_put(b, 0, 2);
    zip_put(b, 1, 2);
    zip_put(b, 24, 2);
    zip_put(b, size, 8);
    zip_put(b, size, 8);
    zip_put(b, place, 8);
}

static inline void zip_make(dr_buf *b, const zip_part *parts, size_t n, const zip_wrong *w)
{
    unsigned long long at[64] = {0}, start, size;

    for (size_t i = 0; i < n; i++) {
        const char *name = w->other_name ? w->other_name : parts[i].name;
        at[i] = b->len;
        zip_put(b, 0x04034b50, 4);
        zip_put(b, 0, 22);
        zip_put(b, strlen(name), 2);
        zip_put(b, 3, 2);
        CHECK_OK(dr_buf_adds(b, name));
        zip_put(b, 0, 3);
        CHECK_OK(dr_buf_add(b, parts[i].data, parts[i].size));
    }
    start = b->len;
    for (size_t i = 0; i < n; i++)
        zip_row(b, &parts[i], at[i], w);
    size = b->len - start;
    if (w->zip64) {
        unsigned long long end64 = b->len;
        zip_put(b, 0x06064b50, 4);
        zip_put(b, 44, 8);
        zip_put(b, 0, 12);
        zip_put(b, n, 8);
        zip_put(b, n + w->more_count, 8);
        zip_put(b, size, 8);
        zip_put(b, start, 8);
        zip_put(b, 0x07064b50, 4);
        zip_put(b, 0, 4);
        zip_put(b, end64, 8);
        zip_put(b, 1, 4);
    }
    zip_put(b, 0x06054b50, 4);
    zip_put(b, 0, 4);
    zip_put(b, w->zip64 ? 0xffff : n, 2);
    zip_put(b, w->zip64 ? 0xffff : n + w->more_count, 2);
    zip_put(b, w->zip64 ? 0xffffffff : size, 4);
    zip_put(b, w->zip64 ? 0xffffffff : start, 4);
    zip_put(b, 7, 2);
    CHECK_OK(dr_buf_adds(b, "comment"));
}

#endif
