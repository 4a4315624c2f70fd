/*
 * logits_child.c - texts through a decoder's graph, in the child of logits_stream.c.
 *
 * Each text is one run of batch 1 with an empty cache (text_inputs.c).
 */
#include <errno.h>
#include <string.h>

#include "core/mem.h"
#include "ort/api_impl.h"
#include "ort/logits_impl.h"
#include "ort/session_impl.h"
#include "ort/text_inputs_impl.h"

typedef struct {
    const logits_job *job;
    dr_arena arena;       /* as long as the session */
    ort_session *session; /* owned */
    text_inputs inputs;
    size_t slot;
} stream;

/* Rows to the parent, as many as the next slot takes; returns them. */
static size_t hand_over(stream *s, const ort_value *logits, size_t from, size_t rows)
{
    logits_shared *shared = s->job->shared;
    const size_t vocab = shared->vocab, fit = LOGITS_SLOT_FLOATS / vocab;
    const size_t n = rows < fit ? rows : fit;
    const char *data = logits->data;

    while (sem_wait(&shared->empty) != 0 && errno == EINTR)
        continue;
    dr_to_f32(shared->slots[s->slot], data + from * vocab * dr_dtype_bytes(logits->dtype),
              logits->dtype, n * vocab);
    shared->rows[s->slot] = n;
    s->slot = (s->slot + 1) % LOGITS_SLOTS;
    (void)sem_post(&shared->full);
    return n;
}

static dr_status check_logits(stream *s, const ort_value *v, size_t tokens)
{
    logits_shared *shared = s->job->shared;
    dr_status st = DR_OK;

    if (v->ndim != 3 || v->dims[0] != 1 || v->dims[2] < 1 || !dr_dtype_is_float(v->dtype))
        DR_FAIL(DR_EUNSUPPORTED, "%s: its logits are not floats of [batch, tokens, ids]",
                s->job->path);
    if (v->dims[1] != (int64_t)tokens) {
        st = dr_fail(DR_EUNSUPPORTED,
                     "%s: %zu tokens went in and logits of %lld came out: those of the "
                     "last token alone?",
                     s->job->path, tokens, (long long)v->dims[1]);
        dr_hint("export it without prune_lm_head");
        goto done;
    }
    if (v->dims[2] > LOGITS_SLOT_FLOATS)
        DR_FAIL(DR_EUNSUPPORTED, "%s: a vocabulary of %lld is too large", s->job->path,
                (long long)v->dims[2]);
    if (shared->vocab != 0 && shared->vocab != (size_t)v->dims[2])
        DR_FAIL(DR_EFORMAT, "%s: logits of %zu ids, then of %lld", s->job->path,
                shared->vocab, (long long)v->dims[2]);
    shared->vocab = (size_t)v->dims[2];
done:
    return st;
}

static dr_status one_text(stream *s, const ort_text *t)
{
    static const char *const names[] = {"logits"};
    ort_value out[1] = {{0}};
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(text_inputs_fill(&s->inputs, &a, t));
    DR_TRY(ort_session_run(s->session, s->inputs.list, s->inputs.count, names, out, 1));
    DR_TRY(check_logits(s, out, t->count));
    for (size_t i = t->from; i < t->count;)
        i += hand_over(s, out, i, t->count - i);
done:
    ort_values_release(out, 1);
    dr_arena_release(&a);
    return st;
}

static dr_status has_logits(const stream *s)
{
    for (size_t i = 0; i < ort_session_output_count(s->session); i++)
        if (strcmp(ort_session_output_name(s->session, i), "logits") == 0)
            return DR_OK;
    return dr_fail(DR_EUNSUPPORTED, "%s: it has no output called logits", s->job->path);
}

dr_status logits_run(const void *job, bool *runtime)
{
    stream s = {.job = job};
    ort_runtime ort = {0};
    dr_status st = DR_OK;

    *runtime = false;
    DR_TRY(ort_runtime_open(&ort));
    *runtime = true;
    DR_TRYF(ort_session_open(&s.session, s.job->path, s.job->threads, true),
            "loading the model");
    if (s.job->adapter != NULL)
        DR_TRY(ort_session_adapter(s.session, s.job->adapter));
    DR_TRY(has_logits(&s));
    DR_TRY(text_inputs_read(&s.inputs, &s.arena, s.session, s.job->path));
    for (size_t i = 0; i < s.job->count; i++)
        DR_TRYF(one_text(&s, &s.job->texts[i]), "text %zu of %zu", i + 1, s.job->count);
done:
    ort_session_close(s.session);
    ort_runtime_close(&ort);
    dr_arena_release(&s.arena);
    return st;
}
