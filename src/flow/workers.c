/*
 * workers.c - steps of several candidates at a time, each in a process of its own.
 *
 *     run             asks for the steps of a few candidates that do not depend on figures
 *     worker 1 .. n   makes them into the cache, as any other run that shares it would
 *     run             goes on by itself, and finds them there
 *
 * So a search with workers takes the same candidates and makes the same bytes: workers do
 * nothing but fill the cache earlier.  What a worker could not make, or died of, the run
 * tries itself, and what then fails is the candidate's error.  Nothing is judged meanwhile:
 * times are those of a machine with no other work of ours.
 *
 * Workers are forked before a runtime is loaded, and before any thread is there.  They end
 * with the run, by SIGKILL if it dies; a cache is whole at any moment.
 *
 * A task is a line of JSON, [[address of the alternative, config], ...] from the input on
 * (a worker's memory is a copy of the run's); the answer one of [[key, start, end], ...],
 * of the steps that were made.
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
#include "flow/run_impl.h"

enum { AUTO_MAX = 8, POLL_MS = 100, LINE_BYTES = 16 << 20 };

typedef struct {
    pid_t pid; /* 0: it is gone */
    int fd;    /* the run's end */
    bool busy;
    dr_buf said; /* of its answer, so far */
} worker;

struct run_workers {
    worker *list; /* owned */
    size_t count;
};

/* ---- a worker ---- */

/* False: the other side is gone. */
static bool send_line(int fd, const json_t *j)
{
    char *text = json_dumps(j, JSON_COMPACT), *at = text;
    size_t left = text != NULL ? strlen(text) + 1 : 0;
    bool good = text != NULL;

    if (good)
        text[left - 1] = '\n'; /* in place of the end */
    while (good && left > 0) {
        ssize_t n = send(fd, at, left, MSG_NOSIGNAL);
        good = n > 0 || (n < 0 && errno == EINTR);
        at += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
    }
    free(text);
    return good;
}

/* A line that ends in what has come, taken out of it; NULL: none yet. */
static json_t *take_line(dr_buf *b)
{
    char *end = b->len > 0 ? memchr(b->data, '\n', b->len) : NULL;
    json_t *j = NULL;

    if (end == NULL)
        return NULL;
    j = json_loadb(b->data, (size_t)(end - b->data), 0, NULL);
    b->len = 0; /* one line at a time is on its way */
    return j != NULL ? j : json_array();
}

/* False: the other side is gone. */
static bool receive(int fd, dr_buf *b)
{
    char part[4096];
    ssize_t n = recv(fd, part, sizeof(part), 0);

    if (n < 0 && errno == EINTR)
        return true;
    if (n <= 0 || dr_buf_add(b, part, (size_t)n) != DR_OK) {
        dr_trail_clear();
        return false;
    }
    return true;
}

/* Until a step fails: the run will try it, and say why. */
static void do_task(run *r, const json_t *task, json_t *made)
{
    const run_model *at = &r->input;
    run_model *next = NULL;
    json_t *step;
    size_t i;

    json_array_foreach((json_t *)(uintptr_t)task, i, step)
    {
        const wf_alternative *alt =
            (const void *)(uintptr_t)json_integer_value(json_array_get(step, 0));
        json_t *config = json_incref(json_array_get(step, 1));
        json_array_append_new(r->owned, config);
        if (run_step_cached(r, &next, at, alt, config) != DR_OK)
            break;
        if (!next->cached && next->end_s > 0)
            json_array_append_new(
                made, json_pack("[s, f, f]", next->id, next->start_s, next->end_s));
        at = next;
    }
    dr_trail_clear();
}

static _Noreturn void worker_main(run *r, int fd, int threads)
{
    flow_workflow_options o = *r->o;
    json_t *task = NULL;
    dr_buf said;

#ifdef __linux__ /* elsewhere it ends at the next answer, which nobody takes */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    o.threads = threads;
    r->o = &o;
    r->workers = NULL;
    dr_buf_init(&said, LINE_BYTES);
    while (receive(fd, &said)) {
        task = take_line(&said);
        if (task == NULL)
            continue;
        json_t *made = json_array();
        do_task(r, task, made);
        if (!send_line(fd, made))
            break;
        json_decref(made);
        json_decref(task);
    }
    for (;;) /* without what a library arranged for the end of the run */
        (void)raise(SIGKILL);
}

/* ---- the run ---- */

/* As many as the file says, or for half of the processors, within the memory there is. */
static dr_status count_workers(size_t *count, const run *r, int cores)
{
    uint64_t memory = 0, disk = 0, need = 0;
    size_t fit = 0;
    dr_status st = DR_OK;

    *count = r->w.num_workers > 0 ? r->w.num_workers : (size_t)cores / 2;
    if (r->w.num_workers == 0 && *count > AUTO_MAX)
        *count = AUTO_MAX;
    if (*count < 2)
        goto done;
    DR_TRY(run_most_memory(&need, r));
    DR_TRY(flow_limits(&memory, &disk, r->cache.dir));
    fit = need > 0 && memory > 0 ? (size_t)(memory / need) : *count;
    if (fit < *count) {
        if (r->w.num_workers > 0)
            dr_log(DR_WARNING,
                   "num_workers %zu: a step takes %.0f MB and there are %.0f: %zu", *count,
                   (double)need / 1e6, (double)memory / 1e6, fit > 1 ? fit : 1);
        *count = fit;
    }
done:
    return st;
}

static dr_status start(run *r, size_t i, int threads)
{
    worker *w = &r->workers->list[i];
    int ends[2] = {-1, -1};

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return dr_fail(DR_EIO, "no socket for a worker: %s", strerror(errno));
    w->pid = fork();
    if (w->pid == 0) {
        for (size_t k = 0; k < i; k++)
            (void)close(r->workers->list[k].fd);
        (void)close(ends[0]);
        worker_main(r, ends[1], threads);
    }
    (void)close(ends[1]);
    if (w->pid < 0) {
        w->pid = 0;
        (void)close(ends[0]);
        return dr_fail(DR_EIO, "no process for a worker: %s", strerror(errno));
    }
    w->fd = ends[0];
    dr_buf_init(&w->said, LINE_BYTES);
    r->workers->count = i + 1;
    return DR_OK;
}

dr_status run_workers_open(run *r)
{
    const int cores = r->o->threads > 0 ? r->o->threads : dr_cpu_count();
    size_t count = 0;
    dr_status st = DR_OK;

    if (!r->w.search)
        goto done;
    DR_TRY(count_workers(&count, r, cores));
    if (count < 2)
        goto done;
    r->workers = dr_calloc(1, sizeof(*r->workers));
    r->workers->list = dr_calloc(count, sizeof(worker));
    r->ahead = json_object();
    json_array_append_new(r->owned, r->ahead);
    const int share = cores / (int)count;
    for (size_t i = 0; i < count; i++)
        DR_TRY(start(r, i, share > 1 ? share : 1));
    dr_log(DR_INFO, "%zu workers", count);
done:
    return st;
}

static void end(worker *w)
{
    if (w->pid == 0)
        return;
    (void)kill(w->pid, SIGKILL);
    (void)close(w->fd);
    while (waitpid(w->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    dr_buf_release(&w->said);
    *w = (worker){.fd = -1};
}

void run_workers_close(run *r)
{
    run_workers *all = r->workers;

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
        n += r->workers->list[i].pid != 0;
    return n;
}

/* What a worker made counts as made by the run. */
static void keep_answer(run *r, const json_t *made)
{
    json_t *step;
    size_t i;

    json_array_foreach((json_t *)(uintptr_t)made, i, step)
    {
        const char *key = json_string_value(json_array_get(step, 0));
        if (key != NULL && json_object_get(r->ahead, key) == NULL)
            json_object_set(r->ahead, key, step);
    }
}

/* Hands tasks to those that have none; false: nobody is at work. */
static bool hand_out(run_workers *all, const json_t *tasks, size_t *next)
{
    bool busy = false;

    for (size_t i = 0; i < all->count; i++) {
        worker *w = &all->list[i];
        while (w->pid != 0 && !w->busy && *next < json_array_size(tasks)) {
            w->busy = send_line(w->fd, json_array_get(tasks, *next));
            *next += w->busy;
            if (!w->busy)
                end(w);
        }
        busy = busy || w->busy;
    }
    return busy;
}

dr_status run_workers_do(run *r, const json_t *tasks)
{
    run_workers *all = r->workers;
    struct pollfd *p = dr_calloc(all->count + 1, sizeof(*p));
    size_t next = 0;
    dr_status st = DR_OK;

    while (hand_out(all, tasks, &next)) {
        for (size_t i = 0; i < all->count; i++)
            p[i] = (struct pollfd){all->list[i].busy ? all->list[i].fd : -1, POLLIN, 0};
        (void)poll(p, all->count, POLL_MS);
        DR_TRY(dr_cancelled_check());
        for (size_t i = 0; i < all->count; i++) {
            worker *w = &all->list[i];
            if (p[i].fd < 0 || p[i].revents == 0)
                continue;
            if (!receive(w->fd, &w->said)) {
                dr_log(DR_WARNING, "a worker has died; its steps are made without it");
                end(w);
                continue;
            }
            json_t *made = take_line(&w->said);
            if (made == NULL)
                continue;
            w->busy = false;
            keep_answer(r, made);
            json_decref(made);
        }
    }
done:
    free(p);
    return st;
}
