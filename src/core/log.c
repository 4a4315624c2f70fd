/*
 * log.c - stderr for people.
 */
#include "core/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static dr_level level_min = DR_ERROR;
static bool silent;
static atomic_int cancelled; /* lock-free: set in a signal handler, read by threads */

void dr_log_level(dr_level at_least)
{
    level_min = at_least;
}

bool dr_log_shows(dr_level level)
{
    return level >= level_min && !silent;
}

void dr_log_silence(void)
{
    silent = true;
}

static bool stderr_is_terminal(void)
{
    const char *term = getenv("TERM");

    return isatty(STDERR_FILENO) && !(term != NULL && strcmp(term, "dumb") == 0);
}

DR_PRINTF(2, 0) static void say(const char *prefix, const char *fmt, va_list va)
{
    char text[2048];

    if (silent)
        return;
    (void)vsnprintf(text, sizeof(text), fmt, va);
    if (stderr_is_terminal())
        (void)fputs("\r\033[K", stderr); /* a progress line may stand here */
    (void)fprintf(stderr, "drupe: %s%s\n", prefix, text);
}

void dr_log(dr_level level, const char *fmt, ...)
{
    static const char *const prefixes[] = {"debug: ", "",
                                           "warning: ", "error: ", "error: "};
    va_list va;

    if (!dr_log_shows(level))
        return;
    va_start(va, fmt);
    say(prefixes[level], fmt, va);
    va_end(va);
}

void dr_log_text(dr_level level, const char *text)
{
    if (dr_log_shows(level))
        (void)fputs(text, stderr);
}

void dr_warn_result(const char *fmt, ...)
{
    va_list va;

    va_start(va, fmt);
    say("warning: ", fmt, va);
    va_end(va);
}

void dr_tell(const char *fmt, ...)
{
    va_list va;

    va_start(va, fmt);
    say("", fmt, va);
    va_end(va);
}

double dr_now_s(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

void dr_progress_begin(dr_progress *p, const char *label, const char *unit, size_t total)
{
    bool terminal = stderr_is_terminal() && !silent;

    *p = (dr_progress){.label = label, .unit = unit, .total = total, .terminal = terminal};
    p->shown = terminal || dr_log_shows(DR_INFO);
    p->start_s = dr_now_s();
    p->drawn_s = p->start_s;
}

const char *dr_duration(char text[32], double seconds)
{
    if (seconds < 90)
        (void)snprintf(text, 32, "%.0f s", seconds);
    else if (seconds < 90 * 60)
        (void)snprintf(text, 32, "%.0f min", seconds / 60);
    else if (seconds < 48 * 3600)
        (void)snprintf(text, 32, "%.1f h", seconds / 3600);
    else
        (void)snprintf(text, 32, "%.1f days", seconds / 86400);
    return text;
}

void dr_progress_note(const dr_progress *p, const char *fmt, ...)
{
    va_list va;

    if (!p->shown)
        return;
    va_start(va, fmt);
    say("", fmt, va);
    va_end(va);
}

static void draw(dr_progress *p, const char *extra, double now)
{
    char text[32];
    double spent = now - p->start_s;
    double rate = spent > 0 ? (double)(p->done - p->from) / spent : 0;
    double left = rate > 0 ? (double)(p->total - p->done) / rate : 0;
    const char *start = p->terminal ? "\r\033[K" : "";
    const char *end = p->terminal ? "" : "\n";

    (void)fprintf(stderr, "%sdrupe: %s %zu/%zu %s, %.3g %s/s, %s left%s%s%s", start,
                  p->label, p->done, p->total, p->unit, rate, p->unit,
                  dr_duration(text, left), extra ? ", " : "", extra ? extra : "", end);
    p->drawn_s = now;
}

void dr_progress_step(dr_progress *p, size_t done, const char *extra)
{
    p->done = done < p->total ? done : p->total;
    if (!p->shown)
        return;
    double now = dr_now_s();
    if (now - p->drawn_s >= (p->terminal ? 0.1 : 10.0))
        draw(p, extra, now);
}

void dr_progress_end(dr_progress *p)
{
    if (!p->shown)
        return;
    if (p->terminal)
        (void)fputs("\r\033[K", stderr);
    (void)fprintf(stderr, "drupe: %s: %zu %s in %.1f s\n", p->label, p->done - p->from,
                  p->unit, dr_now_s() - p->start_s);
}

void dr_cancel(void)
{
    atomic_store(&cancelled, 1);
}

dr_status dr_cancelled_check(void)
{
    if (atomic_load(&cancelled))
        return dr_fail(DR_ECANCELLED, "interrupted");
    return DR_OK;
}
