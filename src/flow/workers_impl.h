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
 *
 * A worker that a launcher has begun, on any host, comes to the run's port, and each of the
 * two shows the other one that it knows the run's secret, without saying it:
 *     to    {"drupe": VERSION, "nonce": A}
 *     from  {"nonce": B, "proof": HMAC(secret, "worker A B"), "drupe": VERSION,
 *            "isa": "avx512", "host": "n1", "cpus": "0f", "cpu_count": 4, "memory": bytes}
 *     to    {"proof": HMAC(secret, "run A B"), "job": {...}} or with "refused": "why", or
 *            with "over": true, from a run that has ended
 *     from  {"ready": true} or {"refused": "why"}
 */
#ifndef DRUPE_FLOW_WORKERS_IMPL_H
#define DRUPE_FLOW_WORKERS_IMPL_H

#include <sys/types.h>

#include "core/buf.h"
#include "flow/run_impl.h"

enum { WORKER_LINE_BYTES = 16 << 20, WORKER_CPU_BYTES = 128 };

/* ---- lines.c ---- */

/* False: the other side is gone. */
bool line_send(int fd, const json_t *j);
/* What has come is added to b.  False: the other side is gone, or sent too much. */
bool line_receive(int fd, dr_buf *b);
/* Of a connection: a host that is gone without a word is found out within half a minute. */
void line_keep_alive(int fd);
/* The first whole line, taken out of b; new.  NULL: none yet.  null: it was no JSON. */
json_t *line_take(dr_buf *b);

/* ---- worker.c ---- */

/*
 * Takes tasks from fd, of which `said` may have come already, and has them done by a
 * process of its own, which is begun anew when it dies; comes back when the other side is
 * gone.  No thread may be there, and no runtime.
 */
void worker_guard(run *r, int fd, dr_buf *said);

/* ---- what a run knows of its workers ---- */

typedef enum {
    WORKER_GONE,
    WORKER_NEW,   /* it has come, and has shown nothing */
    WORKER_ASKED, /* it has the job, and looks whether it can do it */
    WORKER_READY
} worker_state;

typedef struct {
    worker_state state;
    int fd;       /* the run's end */
    pid_t pid;    /* of the guard of a worker of this process; 0: a launcher's */
    int threads;  /* of such a one */
    bool judges;  /* there is memory for more than steps */
    bool busy;    /* with task `task` since `since_s` */
    bool stopped; /* it was told to end it */
    size_t task;
    double since_s; /* it has the task, or its state */
    dr_buf said;
    char *host; /* owned; NULL: of this process */
    char nonce[DR_SHA256_HEX];
    unsigned char cpus[WORKER_CPU_BYTES]; /* bit n: processor n of the host */
    int cpu_count;                        /* fewer where a container has a quota */
    uint64_t memory;                      /* 0: unknown */
} worker;

struct run_workers {
    worker *list; /* owned: [room], of which `count` were used */
    size_t count, room;
    uint64_t need;      /* bytes that a step may take */
    double input_bytes; /* of the model that goes in */
    /* of a launcher: */
    size_t expected, came;
    bool over; /* who comes is sent away */
    int port;  /* a socket that listens; -1: none */
    char secret[DR_SHA256_HEX];
    char *addresses; /* owned: of the port */
    char *mark;      /* owned: a file in the cache that holds HMAC(secret, "cache") */
    char *meeting;   /* owned: the file where ranks find the port; NULL: none */
    pid_t launcher;  /* 0: there is none, or it has ended */
    int launcher_status;
};

size_t workers_ready(const run_workers *all);
/* All that has happened to them, and to the launcher, within ms. */
DR_MUST_USE dr_status workers_turn(run *r, int ms);
/* The worker is let go. */
void workers_end(worker *w);

/* ---- workers_remote.c: the run's side of workers that come to its port ---- */

/* A port, a secret, and the mark in the cache; r->workers has room for `expected`. */
DR_MUST_USE dr_status remote_listen(run *r, size_t expected);
void remote_close(run_workers *all);
void remote_accept(run *r);
/* Before it is ready.  False: it is to be let go. */
bool remote_talk(run *r, worker *w, const json_t *line);
/* Its part of its host's processors. */
int remote_threads(const run *r, const worker *w);

/* ---- worker_remote.c: the worker's side ---- */

/*
 * Comes to one of "address:port,...", does what the run asks, comes back when that ends.
 * *met false: nobody was there within `wait_s`, or nobody who knows the secret.  That the
 * run does not take it, or that it cannot do the run's job, is no error here: the run says
 * so.
 */
DR_MUST_USE dr_status remote_work(bool *met, const char *addresses, const char *secret,
                                  double wait_s);
/* What each shows the other one: who is "worker" or "run". */
void remote_proof(char hex[DR_SHA256_HEX], const char *secret, const char *who,
                  const char *a, const char *b);
/* Whether two of those are the same, in a time that does not tell where they differ. */
bool remote_same(const char *a, const char *b);

/* ---- launcher.c ---- */

/* DR_EUSAGE: the file's launcher has no program here, or nothing says how many workers. */
DR_MUST_USE dr_status launcher_check(const run *r);
/* How many workers the file, or what is around the run, asks for. */
size_t launcher_workers(const run *r);
DR_MUST_USE dr_status launcher_start(run *r);
/* It has ended; *status is how. */
bool launcher_ended(run_workers *all);
void launcher_stop(run_workers *all);

/* ---- run_ranks.c ---- */

/* The file where the first one leaves its port for the others; new. */
char *ranks_meeting(const run_ranks *k, const char *cache);
/* Leaves it.  DR_EIO: it cannot. */
DR_MUST_USE dr_status ranks_announce(const run_workers *all);

#endif
