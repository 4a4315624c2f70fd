/*
 * crew.c - a queue under one lock, threads that take from its head.
 *
 * After a failure nothing more is run.  Of several jobs that fail the one given first is
 * kept, so that which error is told does not depend on which thread was faster, as far as
 * those that were running at the time go.
 */
#include "core/crew.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "core/mem.h"

typedef struct job {
    struct job *next;
    dr_job_fn run;
    dr_drop_fn drop;
    void *ctx;
    size_t bytes, number;
} job;

struct dr_crew {
    pthread_t *ids; /* owned: `started` of them */
    int started;
    pthread_mutex_t lock;
    pthread_cond_t given, done;
    /* all guarded by lock */
    job *first, **end; /* owned; end: where the next one goes */
    size_t room, held; /* bytes; held: of jobs that are not done */
    size_t given_count, left;
    bool quit, failed;
    size_t failed_number;
    dr_trail trail;
};

static void note(dr_crew *c, const job *j, dr_status st)
{
    if (st == DR_OK || (c->failed && c->failed_number < j->number))
        return;
    c->failed = true;
    c->failed_number = j->number;
    c->trail = *dr_trail_get();
    c->trail.status = st;
}

static void *thread_main(void *arg)
{
    dr_crew *c = arg;

    (void)pthread_mutex_lock(&c->lock);
    for (;;) {
        while (c->first == NULL && !c->quit)
            (void)pthread_cond_wait(&c->given, &c->lock);
        job *j = c->first;
        if (j == NULL)
            break;
        bool skip = c->failed || c->quit;
        c->first = j->next;
        c->end = c->first == NULL ? &c->first : c->end;
        (void)pthread_mutex_unlock(&c->lock);
        dr_trail_clear();
        dr_status st = skip ? DR_OK : j->run(j->ctx);
        j->drop(j->ctx);
        (void)pthread_mutex_lock(&c->lock);
        note(c, j, st);
        c->held -= j->bytes;
        c->left--;
        free(j);
        (void)pthread_cond_broadcast(&c->done);
    }
    (void)pthread_mutex_unlock(&c->lock);
    return NULL;
}

dr_status dr_crew_open(dr_crew **out, int threads, size_t room)
{
    dr_crew *c = dr_calloc(1, sizeof(*c));

    *out = NULL;
    c->room = room;
    c->end = &c->first;
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_cond_init(&c->given, NULL);
    (void)pthread_cond_init(&c->done, NULL);
    c->ids = dr_calloc((size_t)threads, sizeof(*c->ids));
    for (; c->started < threads; c->started++) {
        if (pthread_create(&c->ids[c->started], NULL, thread_main, c) != 0) {
            dr_crew_close(c);
            return dr_fail(DR_EIO, "cannot start %d threads", threads);
        }
    }
    *out = c;
    return DR_OK;
}

void dr_crew_close(dr_crew *c)
{
    if (c == NULL)
        return;
    (void)pthread_mutex_lock(&c->lock);
    c->quit = true;
    (void)pthread_cond_broadcast(&c->given);
    (void)pthread_mutex_unlock(&c->lock);
    for (int i = 0; i < c->started; i++)
        (void)pthread_join(c->ids[i], NULL);
    (void)pthread_mutex_destroy(&c->lock);
    (void)pthread_cond_destroy(&c->given);
    (void)pthread_cond_destroy(&c->done);
    free(c->ids);
    free(c);
}

/* With the lock held, which is given back. */
static dr_status verdict(dr_crew *c)
{
    dr_status st = DR_OK;

    if (c->failed) {
        dr_trail_set(&c->trail);
        st = c->trail.status;
    }
    (void)pthread_mutex_unlock(&c->lock);
    return st;
}

dr_status dr_crew_give(dr_crew *c, dr_job_fn run, dr_drop_fn drop, void *ctx, size_t bytes)
{
    job *j = dr_calloc(1, sizeof(*j));

    *j = (job){.run = run, .drop = drop, .ctx = ctx, .bytes = bytes};
    (void)pthread_mutex_lock(&c->lock);
    while (!c->failed && c->left > 0 && (c->held > c->room || bytes > c->room - c->held))
        (void)pthread_cond_wait(&c->done, &c->lock);
    if (c->failed) {
        dr_status st = verdict(c);
        drop(ctx);
        free(j);
        return st;
    }
    j->number = c->given_count++;
    c->held += bytes;
    c->left++;
    *c->end = j;
    c->end = &j->next;
    (void)pthread_cond_signal(&c->given);
    (void)pthread_mutex_unlock(&c->lock);
    return DR_OK;
}

dr_status dr_crew_wait(dr_crew *c)
{
    (void)pthread_mutex_lock(&c->lock);
    while (c->left > 0)
        (void)pthread_cond_wait(&c->done, &c->lock);
    return verdict(c);
}
