/*
 * workers.c - steps of several candidates at a time, each in a process of its own.
 *
 *     run             asks for the steps of a few candidates that do not depend on figures
 *     worker 1 .. n   makes them into the cache, as any other run that shares it would
 *     run             goes on by itself, and finds them there
 *
 * So a search with workers takes the same candidates and makes the same bytes: workers do
 * nothing but fill the cache earlier.  What a worker could not make the run tries itself,
 * and what then fails is the candidate's error.  What counts time is not measured
 * meanwhile: times are those of a machine with no other work of ours.
 *
 * A task whose worker died, or took longer than task_timeout, is handed to another one,
 * once.  After that the candidate has failed: the run does not put itself in the same
 * danger.  If no worker is left, what none has died of twice is tried by the run.
 *
 * Workers (worker.c) are forked before a runtime is loaded, and before any thread is there.
 * They end with the run, also if that is killed; a cache is whole at any moment.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
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
#include "core/pool.h"
#include "flow/workers_impl.h"

enum { AUTO_MAX = 8, POLL_MS = 100, TRIES = 2 };
static const double stop_s = 10; /* for a worker to say that it has ended a task */

typedef struct {
    bool live;
    pid_t pid; /* of its guard */
    int fd;    /* the run's end */
    int threads;
    bool judges;  /* there is memory for more than steps */
    bool busy;    /* with task `task` since `since_s` */
    bool stopped; /* it was told to end it */
    size_t task;
    double since_s;
    dr_buf said;
} worker;

struct run_workers {
    worker *list; /* owned */
    size_t count;
};

/* A task on its way. */
typedef struct {
    bool given, done, late;
    int losses;
    const char *why; /* of the last one; arena */
} task_state;

typedef struct {
    const json_t *tasks;
    task_state *of;
    size_t count;
} batch;

/* ---- begin and end ---- */

/* As many as the file says, or for half of the processors, within the memory there is. */
static dr_status count_workers(size_t *count, uint64_t *memory, uint64_t *need,
                               const run *r, int cores)
{
    uint64_t disk = 0;
    size_t fit = 0, wanted = r->w.num_workers;
    dr_status st = DR_OK;

    *count = wanted > 0 ? wanted : (size_t)cores / 2;
    if (wanted == 0 && *count > AUTO_MAX)
        *count = AUTO_MAX;
    if (*count < 2) /* one alone is of use where it has a limit */
        *count = r->w.task_timeout_s > 0;
    if (*count == 0)
        goto done;
    DR_TRY(run_most_memory(need, r));
    DR_TRY(flow_limits(memory, &disk, r->cache.dir));
    fit = *need > 0 && *memory > 0 ? (size_t)(*memory / *need) : *count;
    if (fit == 0)
        fit = r->w.task_timeout_s > 0;
    if (fit < *count) {
        if (wanted > 0)
            dr_log(DR_WARNING,
                   "num_workers %zu: a step takes %.0f MB and there are %.0f: %zu", *count,
                   (double)*need / 1e6, (double)*memory / 1e6, fit > 1 ? fit : 1);
        *count = fit > 1 || r->w.task_timeout_s > 0 ? fit : 0;
    }
done:
    return st;
}

static dr_status start(run *r, size_t i)
{
    worker *w = &r->workers->list[i];
    int ends[2] = {-1, -1};

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return dr_fail(DR_EIO, "no socket for a worker: %s", strerror(errno));
    w->pid = fork();
    if (w->pid == 0) {
#ifdef __linux__
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
        for (size_t k = 0; k < i; k++)
            (void)close(r->workers->list[k].fd);
        (void)close(ends[0]);
        r->workers = NULL;
        worker_guard(r, ends[1]);
        for (;;) /* without what a library arranged for the end of the run */
            (void)raise(SIGKILL);
    }
    (void)close(ends[1]);
    if (w->pid < 0) {
        (void)close(ends[0]);
        return dr_fail(DR_EIO, "no process for a worker: %s", strerror(errno));
    }
    w->live = true;
    w->fd = ends[0];
    dr_buf_init(&w->said, WORKER_LINE_BYTES);
    r->workers->count = i + 1;
    return DR_OK;
}

/* Whether n workers may judge models beside each other: two models and what they compute,
 * the input and another one. */
static dr_status may_judge(bool *yes, const run *r, uint64_t memory, size_t n)
{
    double bytes = 0;
    dr_status st = DR_OK;

    DR_TRY(run_bytes(&bytes, &r->input));
    *yes = memory == 0 || 3 * bytes * (double)n <= (double)memory;
done:
    return st;
}

dr_status run_workers_open(run *r)
{
    const int cores = r->o->threads > 0 ? r->o->threads : dr_cpu_count();
    uint64_t memory = 0, need = 0;
    size_t count = 0;
    bool judges = false;
    dr_status st = DR_OK;

    if (!r->w.search)
        goto done;
    DR_TRY(count_workers(&count, &memory, &need, r, cores));
    if (count == 0)
        goto done;
    DR_TRY(may_judge(&judges, r, memory, count));
    r->workers = dr_calloc(1, sizeof(*r->workers));
    r->workers->list = dr_calloc(count, sizeof(worker));
    r->ahead = json_object();
    r->figured = json_object();
    r->lost = json_object();
    json_array_append_new(r->owned, r->ahead);
    json_array_append_new(r->owned, r->figured);
    json_array_append_new(r->owned, r->lost);
    const int share = cores / (int)count;
    for (size_t i = 0; i < count; i++) {
        r->workers->list[i].threads = share > 1 ? share : 1;
        r->workers->list[i].judges = judges;
        DR_TRY(start(r, i));
    }
    dr_log(DR_INFO, "%zu worker%s", count, count == 1 ? "" : "s");
done:
    return st;
}

/* Its guard ends its process when nobody is there for it, and then itself; one that does
 * not is killed, and its process with it. */
static void end(worker *w)
{
    if (!w->live)
        return;
    (void)close(w->fd);
    for (int i = 0; i < 100 && w->pid > 0; i++) {
        if (waitpid(w->pid, NULL, WNOHANG) != 0)
            w->pid = 0;
        else
            (void)usleep(1000U * (i < 10 ? 1 : 10));
    }
    if (w->pid > 0) {
        (void)kill(w->pid, SIGKILL);
        while (waitpid(w->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    dr_buf_release(&w->said);
    *w = (worker){.fd = -1};
}

void run_workers_close(run *r)
{
    run_workers *all = r->workers;

    for (size_t i = 0; all != NULL && i < all->count; i++)
        if (all->list[i].live) /* all of them begin to end before one is waited for */
            (void)shutdown(all->list[i].fd, SHUT_RDWR);
    for (size_t i = 0; all != NULL && i < all->count; i++)
        end(&all->list[i]);
    if (all != NULL)
        free(all->list);
    free(all);
    r->workers = NULL;
}

size_t run_worker_count(const run *r)
{
    size_t n = 0;

    for (size_t i = 0; r->workers != NULL && i < r->workers->count; i++)
        n += r->workers->list[i].live;
    return n;
}

/* ---- tasks ---- */

/* Tasks of the same steps have the same; new. */
static char *task_name(const json_t *task)
{
    char *text = json_dumps(json_object_get(task, "steps"), JSON_COMPACT | JSON_SORT_KEYS);

    DR_BUG_IF(text == NULL);
    return text;
}

dr_status run_workers_lost(const run *r, const json_t *task)
{
    if (json_object_size(r->lost) == 0)
        return DR_OK;
    char *name = task_name(task);
    const char *why = json_string_value(json_object_get(r->lost, name));
    free(name);
    return why == NULL ? DR_OK : dr_fail(DR_EDEVICE, "%s", why);
}

/* What a worker made counts as made by the run. */
static void keep_step(run *r, json_t *step)
{
    const char *key = json_string_value(json_array_get(step, 0));

    if (key != NULL && json_object_get(r->ahead, key) == NULL)
        json_object_set(r->ahead, key, step);
}

static void lose(batch *b, worker *w, const char *why)
{
    task_state *t = &b->of[w->task];

    w->busy = false;
    t->losses++;
    t->why = why;
    t->given = false;
    t->done = t->losses >= TRIES;
    dr_log(DR_WARNING, "%s%s", why, t->done ? "" : "; its candidate is tried once more");
}

/* A candidate of that task fails. */
static void give_up(run *r, const json_t *task, const char *why)
{
    char *name = task_name(task);

    json_object_set_new(r->lost, name, json_string(why));
    free(name);
}

/* False: it is gone. */
static bool hand_to(worker *w, const batch *b, size_t i)
{
    json_t *task = json_copy((json_t *)(uintptr_t)json_array_get(b->tasks, i));

    if (!w->judges)
        json_object_set_new(task, "judge", json_false());
    json_object_set_new(task, "threads", json_integer(w->threads));
    w->busy = line_send(w->fd, task);
    json_decref(task);
    w->task = i;
    w->since_s = dr_now_s();
    b->of[i].given = w->busy;
    return w->busy;
}

/* Hands tasks to those that have none; false: nobody is at work. */
static bool hand_out(run_workers *all, batch *b)
{
    size_t next = 0;
    bool busy = false;

    for (size_t i = 0; i < all->count; i++) {
        worker *w = &all->list[i];
        while (next < b->count && (b->of[next].given || b->of[next].done))
            next++;
        if (w->live && !w->busy && !w->stopped && next < b->count && !hand_to(w, b, next))
            end(w);
        busy = busy || w->busy || w->stopped;
    }
    return busy;
}

static void take_answer(run *r, batch *b, worker *w, const json_t *line)
{
    const char *died = json_string_value(json_object_get(line, "died"));
    json_t *done = json_object_get(line, "done");

    keep_step(r, json_object_get(line, "made"));
    if (done != NULL && w->busy) {
        json_object_update(r->figured, done);
        b->of[w->task].done = true;
        w->busy = false;
    } else if (died != NULL && w->stopped) {
        b->of[w->task].late = w->busy;
        if (w->busy) /* else it was done just before it was told */
            lose(b, w,
                 dr_arena_printf(&r->arena, "a worker took longer than task_timeout, %g s",
                                 r->w.task_timeout_s));
        w->stopped = false;
    } else if (died != NULL && w->busy) {
        lose(b, w, dr_arena_printf(&r->arena, "a worker has died (%s)", died));
    }
}

static void listen_to(run *r, batch *b, worker *w)
{
    const bool here = line_receive(w->fd, &w->said);
    json_t *line = NULL;

    while (here && (line = line_take(&w->said)) != NULL) {
        take_answer(r, b, w, line);
        json_decref(line);
    }
    if (here)
        return;
    if (w->busy)
        lose(b, w, "a worker has died");
    else
        dr_log(DR_WARNING, "a worker has died");
    end(w);
}

/* Whoever takes too long is told to end it; who does not even do that is ended. */
static void watch(run *r, batch *b, worker *w)
{
    const double limit = r->w.task_timeout_s, took = dr_now_s() - w->since_s;

    if (limit > 0 && w->busy && !w->stopped && took > limit) {
        json_t *stop = json_pack("{s:b}", "stop", true);
        (void)line_send(w->fd, stop); /* one that is gone is found out by the answer */
        json_decref(stop);
        w->stopped = true;
    } else if (w->stopped && took > limit + stop_s) {
        if (w->busy)
            lose(b, w, "a worker took too long and did not end");
        end(w);
    }
}

static dr_status turn(run *r, batch *b, struct pollfd *p)
{
    run_workers *all = r->workers;
    dr_status st = DR_OK;

    for (size_t i = 0; i < all->count; i++)
        p[i] = (struct pollfd){all->list[i].live ? all->list[i].fd : -1, POLLIN, 0};
    (void)poll(p, all->count, POLL_MS);
    DR_TRY(dr_cancelled_check());
    for (size_t i = 0; i < all->count; i++) {
        if (p[i].fd >= 0 && p[i].revents != 0)
            listen_to(r, b, &all->list[i]);
        if (all->list[i].live)
            watch(r, b, &all->list[i]);
    }
done:
    return st;
}

dr_status run_workers_do(run *r, const json_t *tasks)
{
    run_workers *all = r->workers;
    struct pollfd *p = dr_calloc(all->count + 1, sizeof(*p));
    batch b = {tasks, NULL, json_array_size(tasks)};
    dr_status st = DR_OK;

    b.of = dr_calloc(b.count + 1, sizeof(*b.of));
    while (hand_out(all, &b))
        DR_TRY(turn(r, &b, p));
    for (size_t i = 0; i < b.count; i++)
        if (b.of[i].losses >= TRIES || (b.of[i].late && !b.of[i].done))
            give_up(r, json_array_get(tasks, i), b.of[i].why);
done:
    free(b.of);
    free(p);
    return st;
}
