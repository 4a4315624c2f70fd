/*
 * status.c - the thread's error trail.
 */
#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local dr_trail trail;

const char *dr_status_text(dr_status st)
{
    static const char *const texts[] = {
#define DR_STATUS(name, text) text,
#include "core/status.def"
#undef DR_STATUS
    };
    return (unsigned)st < DR_STATUS_COUNT ? texts[st] : "unknown status";
}

DR_PRINTF(3, 0) static void push(const char *file, int line, const char *fmt, va_list va)
{
    if (trail.count == DR_TRAIL_FRAMES)
        return;
    dr_frame *f = &trail.frames[trail.count++];
    f->file = file;
    f->line = line;
    (void)vsnprintf(f->text, sizeof(f->text), fmt, va);
}

dr_status dr_fail_at(const char *file, int line, dr_status st, const char *fmt, ...)
{
    va_list va;

    trail.status = st;
    trail.count = 0;
    trail.hint[0] = '\0';
    va_start(va, fmt);
    push(file, line, fmt, va);
    va_end(va);
    return st;
}

void dr_note_at(const char *file, int line, const char *fmt, ...)
{
    va_list va;

    va_start(va, fmt);
    push(file, line, fmt, va);
    va_end(va);
}

void dr_hint(const char *fmt, ...)
{
    va_list va;

    va_start(va, fmt);
    (void)vsnprintf(trail.hint, sizeof(trail.hint), fmt, va);
    va_end(va);
}

const dr_trail *dr_trail_get(void)
{
    return &trail;
}

void dr_trail_set(const dr_trail *t)
{
    trail = *t;
}

void dr_trail_clear(void)
{
    trail.status = DR_OK;
    trail.count = 0;
    trail.hint[0] = '\0';
}

void dr_bug_at(const char *file, int line, const char *condition)
{
    (void)fprintf(stderr, "drupe: bug at %s:%d: %s\n", file, line, condition);
    abort();
}

void dr_oom(size_t bytes)
{
    (void)fprintf(stderr, "drupe: out of memory (%zu bytes)\n", bytes);
    exit(1);
}
