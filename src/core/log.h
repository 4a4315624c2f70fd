/*
 * log.h - messages for people, on stderr, and progress.
 *
 * Levels are Olive's numbers: 0 debug, 1 info, 2 warning, 3 error, 4 critical.  A result-
 * changing warning (dr_warn_result) is shown whatever the level.  The sink and the level
 * are the only mutable globals of drupe besides the thread's trail.
 */
#ifndef DRUPE_CORE_LOG_H
#define DRUPE_CORE_LOG_H

#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"

typedef enum { DR_DEBUG, DR_INFO, DR_WARNING, DR_ERROR, DR_CRITICAL } dr_level;

void dr_log_level(dr_level at_least); /* default DR_ERROR, as Olive's */
bool dr_log_shows(dr_level level);
/* From here on nothing is shown: of several processes one speaks (core/ranks.h). */
void dr_log_silence(void);
void dr_log(dr_level level, const char *fmt, ...) DR_PRINTF(2, 3);
/* Several lines as they are (a preview, a plan), at that level. */
void dr_log_text(dr_level level, const char *text);
/* A warning about something that changes the result (a group size adapted, say). */
void dr_warn_result(const char *fmt, ...) DR_PRINTF(1, 2);
/* What a run does that its command does not say (it resumes another, say): always shown. */
void dr_tell(const char *fmt, ...) DR_PRINTF(1, 2);

/*
 * Progress: begin, then step as often as liked; drawn at most 10 times a second on a
 * terminal (one line: label, done/total, rate, time left), plain lines every 10 seconds in
 * a log.  Shown at level info and below on a log, always on a terminal.
 */
typedef struct {
    const char *label; /* borrowed */
    const char *unit;  /* borrowed: "layers", "steps", "bytes" */
    size_t total;
    size_t done;
    size_t from; /* done before this process began; set behind begin */
    double start_s, drawn_s;
    bool terminal, shown;
} dr_progress;

void dr_progress_begin(dr_progress *p, const char *label, const char *unit, size_t total);
/* extra (may be NULL) is shown after the rate: "loss 1.234". */
void dr_progress_step(dr_progress *p, size_t done, const char *extra);
void dr_progress_end(dr_progress *p);
/* A line of its own, for whoever sees the progress. */
void dr_progress_note(const dr_progress *p, const char *fmt, ...) DR_PRINTF(2, 3);

/* "41 s", "12 min", "3.2 h", "4.1 days" */
const char *dr_duration(char text[32], double seconds);

double dr_now_s(void); /* monotonic seconds */

/*
 * Cancel: a signal handler calls dr_cancel(); long loops return dr_cancelled_check(),
 * which is DR_ECANCELLED after that.
 */
void dr_cancel(void);
DR_MUST_USE dr_status dr_cancelled_check(void);

#endif
