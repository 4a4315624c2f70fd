/*
 * tune.c - how long runs of a graph take under other settings of its session.
 *
 * A machine has slow seconds: the defaults and a setting take turns, run by run, each first
 * every second time, and what counts are the pairs.  Two sessions are open at once.
 */
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "ort/api_impl.h"
#include "ort/check_impl.h"
#include "ort/session_impl.h"

enum { PAUSE_US = 2000, LIMIT_S = 3600 }; /* the pause: for threads that still spin */

typedef struct {
    ort_session *s;
    ort_value *inputs, *outputs;
    const char **names;
    size_t input_count, output_count;
} timed;

static dr_status open_timed(timed *t, dr_arena *a, const ort_tune_request *q,
                            const ort_settings *set)
{
    ort_value declared = {0};
    bool optional = false;
    dr_status st = DR_OK;

    *t = (timed){0};
    DR_TRY(ort_session_open_set(&t->s, q->model_path, set));
    t->inputs = dr_arena_alloc(a, ort_session_input_count(t->s) + 1, sizeof(*t->inputs));
    for (size_t i = 0; i < ort_session_input_count(t->s); i++) {
        DR_TRY(ort_session_input(t->s, i, &declared, &optional));
        if (!optional)
            DR_TRY(session_dummy(a, &t->inputs[t->input_count++], t->s, i, q->tokens));
    }
    t->output_count = ort_session_output_count(t->s);
    t->outputs = dr_arena_alloc(a, t->output_count + 1, sizeof(*t->outputs));
    t->names = dr_arena_alloc(a, t->output_count + 1, sizeof(*t->names));
    for (size_t i = 0; i < t->output_count; i++)
        t->names[i] = ort_session_output_name(t->s, i);
done:
    return st;
}

static dr_status run_timed(double *seconds, timed *t)
{
    const double start = dr_now_s();
    dr_status st = ort_session_run(t->s, t->inputs, t->input_count, t->names, t->outputs,
                                   t->output_count);

    *seconds = dr_now_s() - start;
    if (st == DR_OK)
        ort_values_release(t->outputs, t->output_count);
    (void)usleep(PAUSE_US);
    return st;
}

typedef struct {
    const ort_tune_request *q;
    double *seconds; /* shared */
} tune_job;

/* The other session has the same inputs and outputs, one run after the other. */
static dr_status tune_one(double *seconds, timed *base, const ort_tune_request *q, size_t i)
{
    timed own = *base, *const sides[] = {base, &own};
    double any = 0;
    dr_status st = DR_OK;

    own.s = NULL;
    DR_TRYF(ort_session_open_set(&own.s, q->model_path, &q->list[i]), "setting %zu", i + 1);
    for (int k = -q->warmup; k < q->repeats; k++)
        for (int turn = 0; turn < 2; turn++) {
            int side = (k & 1) != 0 ? 1 - turn : turn;
            double *to = k < 0 ? &any : &seconds[side * q->repeats + k];
            DR_TRYF(run_timed(to, sides[side]), "setting %zu", i + 1);
        }
done:
    ort_session_close(own.s);
    return st;
}

static dr_status tune_all(const void *request, bool *runtime)
{
    const tune_job *job = request;
    const ort_tune_request *q = job->q;
    const ort_settings plain = ORT_SETTINGS_DEFAULTS;
    ort_runtime rt = {0};
    timed base = {0};
    dr_arena a = {0};
    dr_status st = DR_OK;

    *runtime = false;
    DR_TRY(ort_runtime_open(&rt));
    *runtime = true;
    DR_TRY(open_timed(&base, &a, q, &plain));
    for (size_t i = 0; i < q->count; i++)
        DR_TRY(tune_one(job->seconds + i * 2 * (size_t)q->repeats, &base, q, i));
done:
    ort_session_close(base.s);
    ort_runtime_close(&rt);
    dr_arena_release(&a);
    return st;
}

dr_status ort_tune(double *seconds, const ort_tune_request *q)
{
    const size_t count = q->count * 2 * (size_t)q->repeats;
    ort_check_result result = {0};
    void *shared = NULL;
    dr_status st = DR_OK;

    DR_TRY(check_share(&shared, count * sizeof(double) + 1));
    const tune_job job = {q, shared};
    const check_job child = {
        .what = q->model_path, .run = tune_all, .request = &job, .timeout_s = LIMIT_S};
    DR_TRY(check_in_child(&result, &child));
    if (!result.checked)
        DR_FAIL(DR_EDEVICE, "timing sessions needs a runtime: %s", result.why);
    for (size_t i = 0; i < count; i++)
        seconds[i] = job.seconds[i];
done:
    check_unshare(shared, count * sizeof(double) + 1);
    return st;
}
