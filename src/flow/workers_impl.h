/*
 * workers_impl.h - processes that make models and figures for a run: what passes between
 * them and the run, as lines of JSON over a socket.
 *
 * To a worker:
 *     {"steps": [{"pass": "q", "alternative": 0, "config": {...}}, ...], "judge": bool,
 *      "threads": n}                a task: steps from the input on
 *     {"stop": true}               end the task
 * From it:
 *     {"made": [key, start, end]}  a step is in the cache, made by it
 *     {"done": {"METRIC KEY": {figure: value}}}
 *                                  the task has ended, somehow; figures of commands
 *     {"died": "signal 9"}         the process that was at the task has ended
 */
#ifndef DRUPE_FLOW_WORKERS_IMPL_H
#define DRUPE_FLOW_WORKERS_IMPL_H

#include "core/buf.h"
#include "flow/run_impl.h"

enum { WORKER_LINE_BYTES = 16 << 20 };

/* ---- lines.c ---- */

/* False: the other side is gone. */
bool line_send(int fd, const json_t *j);
/* What has come is added to b.  False: the other side is gone, or sent too much. */
bool line_receive(int fd, dr_buf *b);
/* The first whole line, taken out of b; new.  NULL: none yet.  null: it was no JSON. */
json_t *line_take(dr_buf *b);

/* ---- worker.c ---- */

/*
 * Takes tasks from fd and has them done by a process of its own, which is begun anew when
 * it dies; comes back when the other side is gone.  No thread may be there, and no runtime.
 */
void worker_guard(run *r, int fd);

#endif
