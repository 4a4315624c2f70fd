/*
 * sampler.c - points one by one: in order, at random, or as tpe.c and nsga2.c see fit.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "search/search_impl.h"

enum { TRIES = 64 };

void search_open(search **out, const search_space *space, const search_figure *figures,
                 size_t figure_count, const search_options *o)
{
    search *s = dr_calloc(1, sizeof(*s));
    search_dim *dims = dr_calloc(space->count + 1, sizeof(*dims));

    if (space->count > 0)
        memcpy(dims, space->dims, space->count * sizeof(*dims));
    s->space = (search_space){dims, space->count};
    s->figures = dr_calloc(figure_count + 1, sizeof(*s->figures));
    if (figure_count > 0)
        memcpy(s->figures, figures, figure_count * sizeof(*figures));
    s->figure_count = figure_count;
    s->o = *o;
    s->size = search_space_size(space);
    dr_rng_init(&s->rng, o->seed, 0);
    *out = s;
}

void search_close(search *s)
{
    if (s == NULL)
        return;
    free((void *)(uintptr_t)s->space.dims);
    free(s->figures);
    free(s->given);
    free(s->points);
    free(s->values);
    free(s->past);
    free(s);
}

bool search_same(const search *s, const int *a, const int *b)
{
    return memcmp(a, b, s->space.count * sizeof(int)) == 0;
}

bool search_was_given(const search *s, const int *point)
{
    for (size_t i = 0; i < s->given_count; i++)
        if (search_same(s, &s->given[i * s->space.count], point))
            return true;
    return false;
}

void search_draw(search *s, int *point)
{
    for (size_t d = 0; d < s->space.count; d++)
        point[d] = search_active(&s->space, point, d)
                       ? (int)dr_rng_below(&s->rng, (uint64_t)s->space.dims[d].count)
                       : -1;
}

/* The n-th point, in order, of those that were not handed out. */
static bool nth_new(const search *s, int *point, size_t n)
{
    search_first(&s->space, point);
    do {
        if (!search_was_given(s, point) && n-- == 0)
            return true;
    } while (search_following(&s->space, point));
    return false;
}

bool search_draw_new(search *s, int *point)
{
    if (s->given_count >= s->size)
        return false;
    if (s->size <= SEARCH_COUNTABLE)
        return nth_new(s, point, dr_rng_below(&s->rng, s->size - s->given_count));
    for (int i = 0; i < TRIES; i++) {
        search_draw(s, point);
        if (!search_was_given(s, point))
            return true;
    }
    return nth_new(s, point, 0);
}

static bool next_in_order(const search *s, int *point)
{
    if (s->given_count == 0) {
        search_first(&s->space, point);
        return true;
    }
    if (s->space.count == 0)
        return false;
    memcpy(point, &s->given[(s->given_count - 1) * s->space.count],
           s->space.count * sizeof(int));
    return search_following(&s->space, point);
}

bool search_next(search *s, int *point)
{
    bool found = false;

    if (s->o.max_samples > 0 && s->given_count >= s->o.max_samples)
        return false;
    switch (s->o.sampler) {
    case SEARCH_SEQUENTIAL:
        found = next_in_order(s, point);
        break;
    case SEARCH_RANDOM:
        found = search_draw_new(s, point);
        break;
    case SEARCH_TPE:
        found = search_next_tpe(s, point);
        break;
    case SEARCH_NSGA2:
        found = search_next_nsga2(s, point);
        break;
    }
    if (!found)
        return false;
    s->given =
        dr_realloc(s->given, (s->given_count + 1) * (s->space.count + 1), sizeof(int));
    memcpy(&s->given[s->given_count * s->space.count], point, s->space.count * sizeof(int));
    s->given_count++;
    return true;
}

/* The next point does not depend on figures. */
static bool is_settled(const search *s)
{
    switch (s->o.sampler) {
    case SEARCH_SEQUENTIAL:
    case SEARCH_RANDOM:
        break;
    case SEARCH_TPE:
        return s->given_count < search_startup_tpe(s);
    case SEARCH_NSGA2:
        return s->given_count < SEARCH_POPULATION;
    }
    return true;
}

size_t search_ahead(const search *s, int *points, size_t most)
{
    const size_t dims = s->space.count;
    search copy = *s;
    size_t n = 0;

    copy.given = dr_calloc((s->given_count + 1) * (dims + 1), sizeof(int));
    if (s->given_count > 0)
        memcpy(copy.given, s->given, s->given_count * dims * sizeof(int));
    while (n < most && is_settled(&copy) && search_next(&copy, &points[n * dims]))
        n++;
    free(copy.given);
    return n;
}

/* How far a candidate is past its limits, each in parts of the limit, as far as it was
 * measured; failed, or whole in no figure that a limit is missed by: infinite. */
static double past_limits(const search *s, size_t i)
{
    bool whole = true;
    double sum = 0;

    for (size_t k = 0; k < s->figure_count; k++) {
        const search_figure *f = &s->figures[k];
        double v = s->values[i * s->figure_count + k];
        whole = whole && !isnan(v);
        if (!isnan(v) && !search_limit_met(f, v))
            sum += fabs(v - f->limit) / (fabs(f->limit) + 1e-12) + 1e-12;
    }
    return whole || sum > 0 ? sum : (double)INFINITY;
}

void search_tell(search *s, const int *point, const double *values)
{
    const size_t dims = s->space.count, m = s->figure_count;

    s->points = dr_realloc(s->points, (s->told + 1) * (dims + 1), sizeof(int));
    s->values = dr_realloc(s->values, (s->told + 1) * (m + 1), sizeof(double));
    memcpy(&s->points[s->told * dims], point, dims * sizeof(int));
    for (size_t k = 0; k < m; k++)
        s->values[s->told * m + k] = values != NULL ? values[k] : (double)NAN;
    s->past = dr_realloc(s->past, s->told + 1, sizeof(double));
    s->past[s->told] = past_limits(s, s->told);
    s->told++;
}

int search_compare(const search *s, size_t a, size_t b, bool pareto)
{
    double x = s->past[a], y = s->past[b];
    int better = 0, worse = 0, least = 0, first = 0;

    if (x != y)
        return x < y ? -1 : 1;
    if (isinf(x))
        return 0;
    for (size_t k = 0; k < s->figure_count; k++) {
        const search_figure *f = &s->figures[k];
        double v = s->values[a * s->figure_count + k];
        double w = s->values[b * s->figure_count + k];
        if (f->priority < 1 || v == w)
            continue;
        int c = (v > w) == f->higher_is_better ? -1 : 1;
        better += c < 0;
        worse += c > 0;
        if (least == 0 || f->priority < least) {
            least = f->priority;
            first = c;
        }
    }
    if (pareto)
        return better > 0 && worse == 0 ? -1 : worse > 0 && better == 0 ? 1 : 0;
    return first;
}
