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
 * danger.  Where guards were lost and not their processes alone, with a host or a launcher,
 * it was not the task: after two of them, or with no worker left, the run tries it itself.
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
static const double stop_s = 10;     /* for a worker to say that it has ended a task */
static const double stranger_s = 20; /* for one that comes to show what it is */
static const double ask_s = 600;     /* to read the workflow and what it names */
static const double gather_s = 60;   /* for ranks to come, which are begun with the run */
static const double more_s = 15;     /* for the next one of a launcher's */

/* A task on its way. */
typedef struct {
    bool given, done, late;
    int losses, own; /* own: by what the task did */
    const char *why; /* of the last one of those; arena */
} task_state;

/* Tasks at hand; of workers_turn without any: none. */
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
    dr_buf said;

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
        dr_buf_init(&said, WORKER_LINE_BYTES);
        worker_guard(r, ends[1], &said);
        for (;;) /* without what a library arranged for the end of the run */
            (void)raise(SIGKILL);
    }
    (void)close(ends[1]);
    if (w->pid < 0) {
        (void)close(ends[0]);
        return dr_fail(DR_EIO, "no process for a worker: %s", strerror(errno));
    }
    w->state = WORKER_READY;
    w->fd = ends[0];
    dr_buf_init(&w->said, WORKER_LINE_BYTES);
    r->workers->count = i + 1;
    return DR_OK;
}

/* Of this process. */
static dr_status open_local(run *r)
{
    const int cores = r->o->threads > 0 ? r->o->threads : dr_cpu_count();
    uint64_t memory = 0, need = 0;
    size_t count = 0;
    double bytes = 0;
    dr_status st = DR_OK;

    DR_TRY(count_workers(&count, &memory, &need, r, cores));
    if (count == 0)
        goto done;
    DR_TRY(run_bytes(&bytes, &r->input));
    r->workers = dr_calloc(1, sizeof(*r->workers));
    r->workers->port = -1;
    r->workers->room = count;
    r->workers->list = dr_calloc(count, sizeof(worker));
    const int share = cores / (int)count;
    for (size_t i = 0; i < count; i++) {
        r->workers->list[i].threads = share > 1 ? share : 1;
        r->workers->list[i].judges =
            memory == 0 || 3 * bytes * (double)count <= (double)memory;
        DR_TRY(start(r, i));
    }
    dr_log(DR_INFO, "%zu worker%s", count, count == 1 ? "" : "s");
done:
    return st;
}

dr_status run_workers_check(const run *r)
{
    return r->w.search && r->w.launcher != WF_LOCAL && r->ranks.size == 0
               ? launcher_check(r)
               : DR_OK;
}

dr_status run_workers_announce(run *r)
{
    dr_status st = DR_OK;

    if (r->ranks.size > 0) {
        DR_TRY(remote_listen(r, (size_t)r->ranks.size - 1));
        r->workers->meeting = ranks_meeting(&r->ranks, r->cache.dir);
        DR_TRY(ranks_announce(r->workers));
    } else if (r->w.search && r->w.launcher != WF_LOCAL) {
        DR_TRY(remote_listen(r, launcher_workers(r)));
    }
done:
    return st;
}

static bool is_pending(const run_workers *all)
{
    for (size_t i = 0; i < all->count; i++)
        if (all->list[i].state == WORKER_NEW || all->list[i].state == WORKER_ASKED)
            return true;
    return false;
}

/* Until all have come, or nobody comes any more.  A launcher may wait for a place in a
 * queue; the run waits with it. */
static dr_status gather(run *r)
{
    run_workers *all = r->workers;
    const bool launched = r->ranks.size == 0;
    double since = dr_now_s(), told = since;
    size_t came = 0;
    dr_status st = DR_OK;

    while (workers_ready(all) < all->expected) {
        DR_TRY(workers_turn(r, POLL_MS));
        if (all->came > came)
            since = dr_now_s();
        came = all->came;
        if ((launched && launcher_ended(all)) ||
            (came >= all->expected && !is_pending(all))) /* some were not taken */
            break;
        if (dr_now_s() - since > (launched ? more_s : gather_s) && (came > 0 || !launched))
            break;
        if (dr_now_s() - told > gather_s) {
            dr_tell("waiting for workers; none of %zu has come", all->expected);
            told = dr_now_s();
        }
    }
    const size_t n = workers_ready(all);
    if (launched && n == 0 && came > 0)
        DR_FAIL(DR_EDEVICE, "none of %zu workers can do the work of this run", came);
    if (launched && n == 0)
        DR_FAIL(DR_EDEVICE, "%s has ended with status %d, and no worker is there",
                r->w.launcher == WF_MPIRUN ? "mpirun" : "srun",
                WIFEXITED(all->launcher_status) ? WEXITSTATUS(all->launcher_status)
                                                : 128 + WTERMSIG(all->launcher_status));
    if (n < all->expected)
        dr_tell("%zu of %zu workers are there; the run goes on", n, all->expected);
    dr_log(DR_INFO, "%zu worker%s", n, n == 1 ? "" : "s");
done:
    return st;
}

static dr_status open_remote(run *r)
{
    dr_status st = DR_OK;

    DR_TRY(run_most_memory(&r->workers->need, r));
    DR_TRY(run_bytes(&r->workers->input_bytes, &r->input));
    if (r->ranks.size == 0)
        DR_TRY(launcher_start(r));
    else if (r->w.launcher != WF_LOCAL)
        dr_log(DR_INFO, "the ranks are the workers; no launcher is begun");
    DR_TRY(gather(r));
done:
    return st;
}

dr_status run_workers_open(run *r)
{
    if (!r->w.search)
        return DR_OK;
    r->ahead = json_object();
    r->figured = json_object();
    r->lost = json_object();
    json_array_append_new(r->owned, r->ahead);
    json_array_append_new(r->owned, r->figured);
    json_array_append_new(r->owned, r->lost);
    return r->workers != NULL ? open_remote(r) : open_local(r);
}

/* Its guard ends its process when nobody is there for it, and then itself; one of this
 * process that does not is killed, and its process with it. */
void workers_end(worker *w)
{
    if (w->state == WORKER_GONE)
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
    free(w->host);
    *w = (worker){.fd = -1};
}

/* Ranks that have not come yet come to nothing: each is told so, or would wait. */
static void send_away(run *r)
{
    const double began = dr_now_s();
    dr_trail kept = *dr_trail_get();

    r->workers->over = true;
    while (r->workers->came < r->workers->expected && dr_now_s() - began < gather_s)
        if (workers_turn(r, POLL_MS) != DR_OK)
            break;
    dr_trail_set(&kept);
}

void run_workers_close(run *r)
{
    run_workers *all = r->workers;

    if (all == NULL)
        return;
    if (all->meeting != NULL)
        send_away(r);
    for (size_t i = 0; i < all->count; i++)
        if (all->list[i].state !=
            WORKER_GONE) /* all begin to end before one is waited for */
            (void)shutdown(all->list[i].fd, SHUT_RDWR);
    for (size_t i = 0; i < all->count; i++)
        workers_end(&all->list[i]);
    remote_close(all);
    launcher_stop(all);
    free(all->list);
    free(all);
    r->workers = NULL;
}

size_t workers_ready(const run_workers *all)
{
    size_t n = 0;

    for (size_t i = 0; i < all->count; i++)
        n += all->list[i].state == WORKER_READY;
    return n;
}

dr_status run_workers_look(size_t *count, run *r)
{
    dr_status st = DR_OK;

    *count = 0;
    if (r->workers == NULL)
        goto done;
    DR_TRY(workers_turn(r, 0));
    *count = workers_ready(r->workers);
done:
    return st;
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

static void lose(batch *b, worker *w, const char *why, bool own)
{
    task_state *t = &b->of[w->task];

    w->busy = false;
    t->losses++;
    t->own += own;
    t->why = own ? why : t->why;
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
static bool hand_to(const run *r, worker *w, const batch *b, size_t i)
{
    const int threads = w->host != NULL ? remote_threads(r, w) : w->threads;
    json_t *task = json_copy((json_t *)(uintptr_t)json_array_get(b->tasks, i));

    if (!w->judges)
        json_object_set_new(task, "judge", json_false());
    json_object_set_new(task, "threads", json_integer(threads));
    w->busy = line_send(w->fd, task);
    json_decref(task);
    w->task = i;
    w->since_s = dr_now_s();
    b->of[i].given = w->busy;
    return w->busy;
}

/* Hands tasks to those that have none; false: nobody is at work. */
static bool hand_out(const run *r, batch *b)
{
    run_workers *all = r->workers;
    size_t next = 0;
    bool busy = false;

    for (size_t i = 0; i < all->count; i++) {
        worker *w = &all->list[i];
        while (next < b->count && (b->of[next].given || b->of[next].done))
            next++;
        if (w->state == WORKER_READY && !w->busy && !w->stopped && next < b->count &&
            !hand_to(r, w, b, next))
            workers_end(w);
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
                                 r->w.task_timeout_s),
                 true);
        w->stopped = false;
    } else if (died != NULL && w->busy) {
        lose(b, w, dr_arena_printf(&r->arena, "a worker has died (%s)", died), true);
    }
}

static void listen_to(run *r, batch *b, worker *w)
{
    const bool here = line_receive(w->fd, &w->said);
    bool good = here;
    json_t *line = NULL;

    while (good && (line = line_take(&w->said)) != NULL) {
        if (w->state == WORKER_READY)
            take_answer(r, b, w, line);
        else
            good = remote_talk(r, w, line);
        json_decref(line);
    }
    if (good)
        return;
    if (!here && w->busy)
        lose(b, w, "a worker is gone", false);
    else if (!here && w->state == WORKER_READY)
        dr_log(DR_WARNING, "a worker is gone");
    workers_end(w);
}

/* Whoever takes too long is told to end it; who does not even do that is ended. */
static void watch(run *r, batch *b, worker *w)
{
    const double limit = r->w.task_timeout_s, took = dr_now_s() - w->since_s;

    if ((w->state == WORKER_NEW && took > stranger_s) ||
        (w->state == WORKER_ASKED && took > ask_s)) {
        workers_end(w);
    } else if (limit > 0 && w->busy && !w->stopped && took > limit) {
        json_t *stop = json_pack("{s:b}", "stop", true);
        (void)line_send(w->fd, stop); /* one that is gone is found out by the answer */
        json_decref(stop);
        w->stopped = true;
    } else if (w->stopped && took > limit + stop_s) {
        if (w->busy) {
            b->of[w->task].late = true;
            lose(b, w, "a worker took longer than task_timeout and did not end", true);
        }
        workers_end(w);
    }
}

static dr_status turn(run *r, batch *b, int ms)
{
    run_workers *all = r->workers;
    const size_t n = all->count;
    struct pollfd *p = dr_calloc(n + 1, sizeof(*p));
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i++)
        p[i] = (struct pollfd){all->list[i].state != WORKER_GONE ? all->list[i].fd : -1,
                               POLLIN, 0};
    p[n] = (struct pollfd){all->port, POLLIN, 0};
    (void)poll(p, n + 1, ms);
    DR_TRY(dr_cancelled_check());
    for (size_t i = 0; i < n; i++) {
        if (p[i].fd >= 0 && p[i].revents != 0)
            listen_to(r, b, &all->list[i]);
        if (all->list[i].state != WORKER_GONE)
            watch(r, b, &all->list[i]);
    }
    if (p[n].revents != 0)
        remote_accept(r);
    if (all->launcher > 0 && launcher_ended(all) && workers_ready(all) == 0)
        dr_tell("the launcher has ended, and no worker is left; the run goes on by itself");
done:
    free(p);
    return st;
}

dr_status workers_turn(run *r, int ms)
{
    batch none = {0};

    return turn(r, &none, ms);
}

dr_status run_workers_do(run *r, const json_t *tasks)
{
    batch b = {tasks, NULL, json_array_size(tasks)};
    dr_status st = DR_OK;

    b.of = dr_calloc(b.count + 1, sizeof(*b.of));
    while (hand_out(r, &b))
        DR_TRY(turn(r, &b, POLL_MS));
    for (size_t i = 0; i < b.count; i++)
        if (b.of[i].own >= TRIES || (b.of[i].late && (!b.of[i].done || b.of[i].losses > 1)))
            give_up(r, json_array_get(tasks, i), b.of[i].why);
done:
    free(b.of);
    return st;
}
