/*
 * timing.c - how long a model takes, beside another one.
 *
 * A machine has slow seconds, and slow minutes.  So the model that is timed and one that
 * all others are timed beside take turns, run by run, each first every second time; what
 * counts is the ratio of the two, and how far it may be off follows from the spread of the
 * pairs (the percentile bootstrap, Efron 1979).  Candidates too near each other tie, and
 * a tie is not decided by noise (search/goals.c).
 *
 * min, max and high percentiles of few runs are known to little: their intervals say so.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/rng.h"
#include "flow/run_impl.h"
#include "ort/ort.h"

enum { DRAWS = 1000, DRAW_SEED = 1 };

typedef struct {
    ort_generator *g;
    int32_t *prompt; /* owned */
} runner;

static dr_status make_prompt(int32_t **ids, ort_generator *g, size_t count)
{
    static const char text[] =
        "The history of computing is longer than that of computers. ";
    int32_t *one = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    DR_TRY(ort_generator_encode(g, text, &one, &n));
    if (n == 0)
        DR_FAIL(DR_EUNSUPPORTED, "the tokenizer has no tokens for plain words");
    *ids = dr_calloc(count, sizeof(**ids));
    for (size_t i = 0; i < count; i++)
        (*ids)[i] = one[i % n];
done:
    free(one);
    return st;
}

static dr_status open_runner(runner *u, const char *folder, const timing_plan *p)
{
    const ort_generate_options o = {.max_length = p->prompt_tokens +
                                                  (p->new_tokens > 0 ? p->new_tokens : 1),
                                    .seed = -1,
                                    .share_buffer = -1,
                                    .threads = p->threads};
    dr_status st = DR_OK;

    DR_TRYF(ort_generator_open(&u->g, folder, &o), "loading %s", folder);
    DR_TRY(make_prompt(&u->prompt, u->g, (size_t)p->prompt_tokens));
done:
    return st;
}

static dr_status one_run(double *first, double *later, runner *u, const timing_plan *p)
{
    ort_generate_stats s = {0};
    dr_status st = DR_OK;

    DR_TRY(ort_generate(u->g, u->prompt, (size_t)p->prompt_tokens, NULL, NULL, NULL, NULL,
                        &s));
    DR_TRY(dr_cancelled_check());
    if (p->sleep_s > 0)
        (void)usleep((useconds_t)(p->sleep_s * 1e6));
    *first = s.prefill_s;
    *later = s.new_tokens > 1 ? s.decode_s / (double)(s.new_tokens - 1) : (double)NAN;
done:
    return st;
}

dr_status timing_take(timing *out, const timing_plan *p)
{
    const int sides = p->beside != NULL ? 2 : 1;
    runner u[2] = {{NULL, NULL}, {NULL, NULL}};
    dr_status st = DR_OK;

    *out = (timing){.count = (size_t)p->repeats};
    for (int side = 0; side < sides; side++) {
        out->first[side] = dr_calloc(out->count + 1, sizeof(double));
        out->later[side] = dr_calloc(out->count + 1, sizeof(double));
        DR_TRY(open_runner(&u[side], side == 0 ? p->model : p->beside, p));
    }
    for (int i = -p->warmup; i < p->repeats; i++)
        for (int k = 0; k < sides; k++) {
            int side = (i & 1) != 0 ? sides - 1 - k : k;
            size_t at = i < 0 ? out->count : (size_t)i;
            DR_TRY(one_run(&out->first[side][at], &out->later[side][at], &u[side], p));
        }
    for (int side = 0; side < sides; side++)
        if (p->new_tokens > 0 && isnan(out->later[side][0]))
            DR_FAIL(DR_EUNSUPPORTED, "%s ends after one token: nothing to time",
                    side == 0 ? p->model : p->beside);
done:
    for (int side = 0; side < 2; side++) {
        ort_generator_close(u[side].g);
        free(u[side].prompt);
    }
    return st;
}

void timing_release(timing *t)
{
    for (int side = 0; side < 2; side++) {
        free(t->first[side]);
        free(t->later[side]);
    }
    *t = (timing){.count = 0};
}

/* ---- statistics ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Of sorted values, between neighbours as numpy has it. */
static double quantile(const double *sorted, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t i = (size_t)at;

    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i])
                     : sorted[i];
}

double timing_statistic(const char *name, double *values, size_t n)
{
    double sum = 0;

    qsort(values, n, sizeof(*values), by_value);
    for (size_t i = 0; i < n; i++)
        sum += values[i];
    if (strcmp(name, "avg") == 0)
        return sum / (double)n;
    if (strcmp(name, "min") == 0)
        return values[0];
    if (strcmp(name, "max") == 0)
        return values[n - 1];
    double digits = strtod(name + 1, NULL); /* p50, p999 */
    return quantile(values, n, digits > 99 ? digits / 1000 : digits / 100);
}

/* Of the runs that pick names; NULL: of each once. */
static double drawn(const char *name, const double *values, double *room,
                    const size_t *picked, size_t n)
{
    for (size_t i = 0; i < n; i++)
        room[i] = values[picked != NULL ? picked[i] : i];
    return timing_statistic(name, room, n);
}

run_value timing_figure(const char *name, const double *model, const double *beside,
                        size_t n, double own)
{
    double *room = dr_calloc(n, sizeof(*room));
    double *made = dr_calloc(DRAWS, sizeof(*made));
    size_t *picked = dr_calloc(n, sizeof(*picked));
    run_value v = {drawn(name, model, room, NULL, n), 0, 0};
    dr_rng rng;

    dr_rng_init(&rng, DRAW_SEED, 0);
    if (beside != NULL)
        v.value *= own / drawn(name, beside, room, NULL, n);
    for (int d = 0; d < DRAWS; d++) {
        for (size_t i = 0; i < n; i++)
            picked[i] = dr_rng_below(&rng, n);
        made[d] = drawn(name, model, room, picked, n);
        if (beside != NULL)
            made[d] *= own / drawn(name, beside, room, picked, n);
    }
    qsort(made, DRAWS, sizeof(*made), by_value);
    v.low = quantile(made, DRAWS, 0.025);
    v.high = quantile(made, DRAWS, 0.975);
    free(room);
    free(made);
    free(picked);
    return v;
}
