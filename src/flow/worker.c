/*
 * worker.c - a worker: makes the models of tasks into the cache, and judges them where that
 * needs no quiet machine.
 *
 *     the run <- lines -> guard <- lines -> the process that does tasks
 *
 * The guard holds nothing and loads nothing, so it lives when a task takes its process
 * with it, says so, and begins another one.  It ends when the run is gone, and takes that
 * process and what it has started along: they are a group of their own.  A guard that is
 * killed takes its process along, too (PR_SET_PDEATHSIG).
 *
 * What passes between them is whole in itself: names of the workflow's passes and values,
 * no addresses.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#    include <sys/prctl.h>
#endif

#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "flow/workers_impl.h"

/* ---- tasks ---- */

json_t *run_step_json(const run *r, const wf_alternative *alt, json_t *config)
{
    const workflow *w = &r->w;

    for (size_t f = 0; f < w->flow_count; f++)
        for (size_t i = 0; i < w->flows[f].count; i++) {
            const wf_pass *p = w->flows[f].passes[i];
            for (size_t k = 0; k < p->count; k++)
                if (&p->alternatives[k] == alt)
                    return json_pack("{s:s, s:i, s:O}", "pass", p->name, "alternative",
                                     (int)k, "config", config);
        }
    DR_BUG_IF(true);
}

/* NULL: the workflow has no such step. */
static const wf_alternative *alternative_of(const run *r, const json_t *step)
{
    const char *name = json_string_value(json_object_get(step, "pass"));
    const json_int_t k = json_integer_value(json_object_get(step, "alternative"));
    const workflow *w = &r->w;

    for (size_t f = 0; f < w->flow_count && name != NULL && k >= 0; f++)
        for (size_t i = 0; i < w->flows[f].count; i++) {
            const wf_pass *p = w->flows[f].passes[i];
            if (strcmp(p->name, name) == 0 && (size_t)k < p->count)
                return &p->alternatives[k];
        }
    return NULL;
}

/* Said at once, whatever becomes of the task. */
static void say_made(int fd, const run_model *m)
{
    json_t *line = json_pack("{s:[s, f, f]}", "made", m->id, m->start_s, m->end_s);

    (void)line_send(fd, line); /* a guard that is gone is found out by the next line */
    json_decref(line);
}

/* *out NULL: a step is not for workers. */
static dr_status do_steps(run *r, run_model **out, const json_t *steps, int fd)
{
    const run_model *at = &r->input;
    run_model *next = NULL;
    json_t *step;
    size_t i;
    dr_status st = DR_OK;

    *out = NULL;
    json_array_foreach((json_t *)(uintptr_t)steps, i, step)
    {
        const wf_alternative *alt = alternative_of(r, step);
        json_t *config = json_object_get(step, "config");
        if (alt == NULL || !json_is_object(config))
            DR_FAIL(DR_EFORMAT, "a task with a step that the workflow has not");
        if (alt->def->clocked) /* it counts time: nothing of ours may run beside it */
            goto done;
        json_array_append(r->owned, config);
        DR_TRY(run_step_cached(r, &next, at, alt, config));
        if (!next->cached && next->end_s > 0)
            say_made(fd, next);
        at = next;
    }
    *out = next;
done:
    return st;
}

/* Until something fails: the run will try it, and say why. */
static void do_task(run *r, json_t *figures, const json_t *task, int fd)
{
    run_model *model = NULL;

    dr_status st = do_steps(r, &model, json_object_get(task, "steps"), fd);
    if (st == DR_OK && model != NULL && json_is_true(json_object_get(task, "judge")))
        run_judge_ahead(r, figures, model);
    dr_trail_clear();
}

static _Noreturn void do_tasks(run *r, int fd)
{
    flow_workflow_options o = *r->o;
    json_t *task = NULL;
    dr_buf said;

    r->o = &o;
    dr_buf_init(&said, WORKER_LINE_BYTES);
    while (line_receive(fd, &said)) {
        while ((task = line_take(&said)) != NULL) {
            json_t *answer = json_object(), *figures = json_object();
            json_object_set_new(answer, "done", figures);
            o.threads = (int)json_integer_value(json_object_get(task, "threads"));
            do_task(r, figures, task, fd);
            (void)line_send(fd, answer);
            json_decref(answer);
            json_decref(task);
        }
    }
    for (;;) /* without what a library arranged for the end of the run */
        (void)raise(SIGKILL);
}

/* ---- the guard ---- */

typedef struct {
    pid_t pid; /* 0: none */
    int fd;
    dr_buf said;
} process;

static dr_status begin(process *p, run *r, int fd)
{
    int ends[2] = {-1, -1};

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return dr_fail(DR_EIO, "no socket for a worker: %s", strerror(errno));
    p->pid = fork();
    if (p->pid == 0) {
#ifdef __linux__ /* elsewhere it ends at the next answer, which nobody takes */
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
        (void)setpgid(0, 0);
        (void)close(fd);
        (void)close(ends[0]);
        do_tasks(r, ends[1]);
    }
    (void)close(ends[1]);
    if (p->pid < 0) {
        p->pid = 0;
        (void)close(ends[0]);
        return dr_fail(DR_EIO, "no process for a worker: %s", strerror(errno));
    }
    (void)setpgid(p->pid, p->pid); /* whoever is first */
    p->fd = ends[0];
    return DR_OK;
}

/* With all that it has started; *status: how it ended. */
static void end(process *p, int *status)
{
    if (p->pid == 0)
        return;
    (void)kill(-p->pid, SIGKILL);
    (void)kill(p->pid, SIGKILL);
    while (waitpid(p->pid, status, 0) < 0 && errno == EINTR)
        ;
    (void)close(p->fd);
    dr_buf_reset(&p->said);
    p->pid = 0;
    p->fd = -1;
}

/* False: the run is gone. */
static bool report_death(process *p, int fd)
{
    int status = 0;
    char text[32] = "";

    end(p, &status);
    (void)snprintf(text, sizeof(text), "%s %d", WIFSIGNALED(status) ? "signal" : "status",
                   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    json_t *j = json_pack("{s:s}", "died", text);
    const bool good = line_send(fd, j);
    json_decref(j);
    return good;
}

static bool obey(process *p, run *r, int fd, const json_t *line)
{
    if (json_object_get(line, "steps") == NULL) /* stop */
        return report_death(p, fd);
    if (p->pid == 0 && begin(p, r, fd) != DR_OK) {
        dr_trail_clear();
        return report_death(p, fd);
    }
    return line_send(p->fd, line) || report_death(p, fd);
}

/* Lines that have come on `from`, to whom they are for. */
static bool pass_on(process *p, run *r, int fd, dr_buf *asked, bool from_run)
{
    dr_buf *b = from_run ? asked : &p->said;
    json_t *line = NULL;
    bool good = true;

    if (!line_receive(from_run ? fd : p->fd, b))
        return !from_run && report_death(p, fd);
    while (good && (line = line_take(b)) != NULL) {
        good = from_run ? obey(p, r, fd, line) : line_send(fd, line);
        json_decref(line);
    }
    return good;
}

void worker_guard(run *r, int fd, dr_buf *said)
{
    process p = {.fd = -1};
    bool good = true;
    int status = 0;

    dr_buf_init(&p.said, WORKER_LINE_BYTES);
    while (good && dr_cancelled_check() == DR_OK) {
        struct pollfd both[2] = {{fd, POLLIN, 0}, {p.fd, POLLIN, 0}};
        if (poll(both, 2, -1) < 0)
            continue; /* a signal */
        if (both[1].revents != 0)
            good = pass_on(&p, r, fd, said, false);
        if (good && both[0].revents != 0)
            good = pass_on(&p, r, fd, said, true);
    }
    end(&p, &status);
    dr_trail_clear();
    dr_buf_release(&p.said);
}
