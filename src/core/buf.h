/*
 * buf.h - a growing byte buffer with a maximum set at birth.  data is never NULL and is
 * always followed by a zero byte, so text can be read as a C string.
 */
#ifndef DRUPE_CORE_BUF_H
#define DRUPE_CORE_BUF_H

#include <stddef.h>

#include "core/status.h"

typedef struct {
    char *data; /* owned; points at a static empty string while nothing is stored */
    size_t len;
    size_t cap;
    size_t max;
} dr_buf;

void dr_buf_init(dr_buf *b, size_t max_bytes);
void dr_buf_release(dr_buf *b);
void dr_buf_reset(dr_buf *b); /* empty, keeps capacity */

/* Appending past the maximum is DR_EFORMAT: the input asked for too much. */
DR_MUST_USE dr_status dr_buf_add(dr_buf *b, const void *data, size_t n);
DR_MUST_USE dr_status dr_buf_adds(dr_buf *b, const char *s);
DR_MUST_USE dr_status dr_buf_addf(dr_buf *b, const char *fmt, ...) DR_PRINTF(2, 3);
/* Make room for n more bytes and return where they go; the caller then adds to len. */
DR_MUST_USE dr_status dr_buf_reserve(dr_buf *b, size_t n, char **where);

#endif
