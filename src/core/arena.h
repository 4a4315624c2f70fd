/*
 * arena.h - memory by lifetime: everything in an arena goes at once.
 *
 * Named by lifetime and passed first to what returns memory: run > pass > scratch.
 * Small things only grow (dr_oom when the system has none); blocks sized by a model come
 * from dr_arena_big, which reports failure.
 */
#ifndef DRUPE_CORE_ARENA_H
#define DRUPE_CORE_ARENA_H

#include <stdarg.h>
#include <stddef.h>

#include "core/status.h"

typedef struct dr_arena_block dr_arena_block;

/* Embedded; {0} is a valid empty arena. */
typedef struct {
    dr_arena_block *head; /* owned: newest block first */
} dr_arena;

typedef struct {
    dr_arena_block *head; /* borrowed */
    size_t used;
} dr_arena_mark;

void dr_arena_release(dr_arena *a); /* frees all; the arena is empty and usable again */

/* Zeroed, 64-byte aligned; never NULL. */
void *dr_arena_alloc(dr_arena *a, size_t count, size_t size);
char *dr_arena_strdup(dr_arena *a, const char *s);
char *dr_arena_strndup(dr_arena *a, const char *s, size_t n);
char *dr_arena_printf(dr_arena *a, const char *fmt, ...) DR_PRINTF(2, 3);
char *dr_arena_vprintf(dr_arena *a, const char *fmt, va_list args) DR_PRINTF(2, 0);

/* The same for blocks sized by a model: DR_ENOMEM names `what` and the bytes. */
DR_MUST_USE dr_status dr_arena_big(dr_arena *a, void **out, size_t count, size_t size,
                                   const char *what);

/* Scratch: everything allocated after the mark goes at the rewind. */
dr_arena_mark dr_arena_save(const dr_arena *a);
void dr_arena_rewind(dr_arena *a, dr_arena_mark mark);

#endif
