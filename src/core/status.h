/*
 * status.h - how calls fail: a code for the program, a trail for the person.
 *
 * A fallible function returns dr_status and is DR_MUST_USE.  dr_fail() records a message
 * and its place in the thread's trail (16 fixed frames, no malloc); DR_TRYF adds a line of
 * context on the way up.  Only cli/ prints the trail.  Messages are lower case without a
 * full stop; they name the thing and the value found; advice goes into dr_hint().
 *
 *     dr_status st = DR_OK;
 *     DR_TRY(first(a));
 *     DR_TRYF(second(b), "reading tensor %d of %d", i, n);
 *     if (x < 0)
 *         DR_FAIL(DR_EFORMAT, "%s: expected a size, found %d", path, x);
 * done:
 *     release(everything);
 *     return st;
 */
#ifndef DRUPE_CORE_STATUS_H
#define DRUPE_CORE_STATUS_H

#include <stddef.h>

#define DR_MUST_USE        __attribute__((warn_unused_result))
#define DR_PRINTF(fmt, va) __attribute__((format(printf, fmt, va)))
#define DR_NORETURN        __attribute__((noreturn))
#define DR_COUNT(array)    (sizeof(array) / sizeof((array)[0]))

typedef enum {
#define DR_STATUS(name, text) DR_##name,
#include "core/status.def"
#undef DR_STATUS
    DR_STATUS_COUNT
} dr_status;

enum { DR_TRAIL_FRAMES = 16, DR_TRAIL_TEXT = 512 };

typedef struct {
    const char *file; /* borrowed: __FILE__ */
    int line;
    char text[DR_TRAIL_TEXT];
} dr_frame;

/* The error of one thread, innermost frame first.  Plain data: a pool copies it home. */
typedef struct {
    dr_status status;
    int count;
    dr_frame frames[DR_TRAIL_FRAMES];
    char hint[DR_TRAIL_TEXT];
} dr_trail;

const char *dr_status_text(dr_status st);

/* Start a new trail with this message; returns st, so that it can be returned at once. */
dr_status dr_fail_at(const char *file, int line, dr_status st, const char *fmt, ...)
    DR_PRINTF(4, 5);
/* Add a line of context to the trail (dropped, never an error, when it is full). */
void dr_note_at(const char *file, int line, const char *fmt, ...) DR_PRINTF(3, 4);
/* Set the advice shown under the error; the last one set wins. */
void dr_hint(const char *fmt, ...) DR_PRINTF(1, 2);

const dr_trail *dr_trail_get(void);
void dr_trail_set(const dr_trail *trail);
void dr_trail_clear(void);

/* Our own mistake: print and abort, in release builds too. */
DR_NORETURN void dr_bug_at(const char *file, int line, const char *condition);
/* A small allocation failed: nothing sensible can go on. */
DR_NORETURN void dr_oom(size_t bytes);

#define dr_fail(st, ...) dr_fail_at(__FILE__, __LINE__, st, __VA_ARGS__)
#define DR_BUG_IF(cond)  ((cond) ? dr_bug_at(__FILE__, __LINE__, #cond) : (void)0)

/* The only macros that jump: they need `dr_status st` and one label `done`. */
#define DR_TRY(call)                                                                       \
    do {                                                                                   \
        st = (call);                                                                       \
        if (st != DR_OK)                                                                   \
            goto done;                                                                     \
    } while (0)

#define DR_TRYF(call, ...)                                                                 \
    do {                                                                                   \
        st = (call);                                                                       \
        if (st != DR_OK) {                                                                 \
            dr_note_at(__FILE__, __LINE__, __VA_ARGS__);                                   \
            goto done;                                                                     \
        }                                                                                  \
    } while (0)

#define DR_FAIL(code, ...)                                                                 \
    do {                                                                                   \
        st = dr_fail_at(__FILE__, __LINE__, code, __VA_ARGS__);                            \
        goto done;                                                                         \
    } while (0)

#endif
