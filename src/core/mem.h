/*
 * mem.h - heap allocation in two kinds: small things that must succeed, and blocks sized
 * by a model, whose failure is reported with the bytes wanted.
 */
#ifndef DRUPE_CORE_MEM_H
#define DRUPE_CORE_MEM_H

#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"

/* a * b into *out; false when it does not fit size_t. */
DR_MUST_USE bool dr_mul(size_t *out, size_t a, size_t b);

/* Small allocations: never NULL (dr_oom).  Zeroed. */
void *dr_calloc(size_t count, size_t size);
void *dr_realloc(void *p, size_t count, size_t size);
char *dr_strdup(const char *s);
char *dr_strndup(const char *s, size_t n);
bool dr_ends_with(const char *text, const char *end);
char *dr_asprintf(const char *fmt, ...) DR_PRINTF(1, 2);

/*
 * A block sized by a model: 64-byte aligned, zeroed, released with dr_big_free.
 * DR_ENOMEM names `what` and the bytes wanted.  count or size 0 gives a valid block.
 */
DR_MUST_USE dr_status dr_big_alloc(void **out, size_t count, size_t size, const char *what);
/* The same, not zeroed: for what is written before it is read. */
DR_MUST_USE dr_status dr_big_room(void **out, size_t count, size_t size, const char *what);
void dr_big_free(void *p);
/* The block's memory, where it is much, may go back to the system until it is written
 * again: what it holds is lost. */
void dr_big_idle(void *p, size_t bytes);

#endif
