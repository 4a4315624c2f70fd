/*
 * logits_stream.c - the logits of an ONNX model over texts, from a child process that runs
 * it: a runtime that crashes does so there.
 *
 *     child:  run a text -> wait for an empty slot -> rows into it -> full -> ...
 *     parent: wait for a full slot (or the child's end) -> rows out of it -> empty -> ...
 *
 * The child is one run ahead at most, while the parent judges what it has; memory is two
 * slots and the runtime's own logits of one text.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "core/log.h"
#include "core/mem.h"
#include "ort/check_impl.h"
#include "ort/logits_impl.h"

enum { WAIT_NS = 50000000, TEXT_TIMEOUT_S = 1200, END_TIMEOUT_S = 60 };

struct ort_logits {
    check_job work;
    check_child child;
    logits_job job;
    logits_shared *shared; /* owned */
    char *path, *adapter;  /* owned */
    size_t slot, row;      /* the next row is this one of this slot */
    bool holds;            /* the slot is full and ours */
};

static dr_status share(ort_logits *s)
{
    void *p = mmap(NULL, sizeof(*s->shared), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return dr_fail(DR_ENOMEM, "no memory to share with a child process: %zu bytes: %s",
                       sizeof(*s->shared), strerror(errno));
    s->shared = p;
    if (sem_init(&s->shared->full, 1, 0) != 0 ||
        sem_init(&s->shared->empty, 1, LOGITS_SLOTS) != 0)
        return dr_fail(DR_EIO, "no semaphore to share with a child process: %s",
                       strerror(errno));
    return DR_OK;
}

/* The child is gone or will be soon: why. */
static dr_status why_ended(ort_logits *s)
{
    ort_check_result result;
    dr_status st = DR_OK;

    s->child.limit_s = dr_now_s() - s->child.start_s + (double)END_TIMEOUT_S;
    DR_TRY(check_finish(&result, &s->child, &s->work));
    if (!result.checked)
        DR_FAIL(DR_EDEVICE, "%s: running it needs a runtime: %s", s->path, result.why);
    DR_FAIL(DR_EDEVICE, "%s: it ended before its last logits", s->path);
done:
    return st;
}

static dr_status wait_full(ort_logits *s)
{
    const double deadline_s = dr_now_s() + (double)TEXT_TIMEOUT_S;

    for (;;) {
        struct timespec until;
        dr_status st = dr_cancelled_check();
        if (st != DR_OK)
            return st;
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += WAIT_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (sem_timedwait(&s->shared->full, &until) == 0)
            break;
        if (check_ended(&s->child) && sem_trywait(&s->shared->full) != 0)
            return why_ended(s);
        if (dr_now_s() > deadline_s)
            return dr_fail(DR_EDEVICE, "%s: no logits after %d s", s->path,
                           (int)TEXT_TIMEOUT_S);
    }
    s->holds = true;
    s->row = 0;
    return DR_OK;
}

dr_status ort_logits_open(ort_logits **out, const char *model_path, const char *adapter,
                          const ort_text *texts, size_t count, int threads)
{
    ort_logits *s = dr_calloc(1, sizeof(*s));
    dr_status st = DR_OK;

    *out = NULL;
    DR_BUG_IF(count == 0);
    s->path = dr_strdup(model_path);
    s->adapter = adapter != NULL ? dr_strdup(adapter) : NULL;
    DR_TRY(share(s));
    s->job = (logits_job){s->path, s->adapter, texts, count, threads, s->shared};
    s->work = (check_job){.what = s->path, .run = logits_run, .request = &s->job};
    DR_TRY(check_start(&s->child, &s->work));
    DR_TRY(wait_full(s));
    *out = s;
    s = NULL;
done:
    ort_logits_close(s);
    return st;
}

void ort_logits_close(ort_logits *s)
{
    if (s == NULL)
        return;
    check_kill(&s->child);
    if (s->shared != NULL) {
        (void)sem_destroy(&s->shared->full);
        (void)sem_destroy(&s->shared->empty);
        (void)munmap(s->shared, sizeof(*s->shared));
    }
    free(s->path);
    free(s->adapter);
    free(s);
}

size_t ort_logits_vocab(const ort_logits *s)
{
    return s->shared->vocab;
}

dr_status ort_logits_next(ort_logits *s, float *logits, size_t rows)
{
    const size_t vocab = s->shared->vocab;
    dr_status st = DR_OK;

    while (rows > 0) {
        if (!s->holds)
            DR_TRY(wait_full(s));
        size_t left = s->shared->rows[s->slot] - s->row, n = rows < left ? rows : left;
        memcpy(logits, s->shared->slots[s->slot] + s->row * vocab,
               n * vocab * sizeof(float));
        logits += n * vocab;
        rows -= n;
        s->row += n;
        if (s->row < s->shared->rows[s->slot])
            continue;
        s->slot = (s->slot + 1) % LOGITS_SLOTS;
        s->holds = false;
        (void)sem_post(&s->shared->empty);
    }
done:
    return st;
}
