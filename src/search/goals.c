/*
 * goals.c - limits that goals set, the Pareto front, the order of candidates.
 */
#include <math.h>
#include <stdlib.h>

#include "core/mem.h"
#include "search/search.h"

bool search_goal_needs_baseline(search_goal g)
{
    return g.kind != SEARCH_NO_GOAL && g.kind != SEARCH_THRESHOLD;
}

double search_goal_limit(search_goal g, bool higher_is_better, double b)
{
    const double sign = higher_is_better ? 1 : -1;

    switch (g.kind) {
    case SEARCH_NO_GOAL:
    case SEARCH_THRESHOLD:
        break;
    case SEARCH_MIN_IMPROVEMENT:
        return b + sign * g.value;
    case SEARCH_PERCENT_MIN_IMPROVEMENT:
        return b * (1 + sign * g.value / 100);
    case SEARCH_MAX_DEGRADATION:
        return b - sign * g.value;
    case SEARCH_PERCENT_MAX_DEGRADATION:
        return b * (1 - sign * g.value / 100);
    }
    return g.value;
}

bool search_limit_met(const search_figure *f, double value)
{
    if (!f->limited)
        return true;
    return f->higher_is_better ? value >= f->limit : value <= f->limit;
}

static double at(const search_table *t, size_t i, size_t k)
{
    return t->values[i * t->figure_count + k];
}

static bool whole(const search_table *t, size_t i)
{
    for (size_t k = 0; k < t->figure_count; k++)
        if (isnan(at(t, i, k)))
            return false;
    return true;
}

static bool meets(const search_table *t, size_t i)
{
    for (size_t k = 0; k < t->figure_count; k++)
        if (!search_limit_met(&t->figures[k], at(t, i, k)))
            return false;
    return whole(t, i);
}

/* Below 0: a is better in figure k. */
static int compare(const search_table *t, size_t k, size_t a, size_t b)
{
    double x = at(t, a, k), y = at(t, b, k);

    if (x == y)
        return 0;
    return (x > y) == t->figures[k].higher_is_better ? -1 : 1;
}

static bool ties(const search_table *t, size_t k, size_t a, size_t b)
{
    const size_t m = t->figure_count;
    double apart = fabs(at(t, a, k) - at(t, b, k));

    return apart == 0 ||
           (t->slack != NULL && apart <= hypot(t->slack[a * m + k], t->slack[b * m + k]));
}

/* As good in every figure by the values alone: no three beat each other in turn. */
static bool dominates(const search_table *t, size_t a, size_t b)
{
    bool better = false;

    for (size_t k = 0; k < t->figure_count; k++) {
        int c = t->figures[k].priority < 1 ? 0 : compare(t, k, a, b);
        if (c > 0)
            return false;
        better = better || (c < 0 && !ties(t, k, a, b));
    }
    return better;
}

void search_front(bool *front, const search_table *t, bool only_met)
{
    for (size_t i = 0; i < t->n; i++) {
        front[i] = only_met ? meets(t, i) : whole(t, i);
        for (size_t j = 0; j < t->n && front[i]; j++)
            if ((only_met ? meets(t, j) : whole(t, j)) && dominates(t, j, i))
                front[i] = false;
    }
}

/* The figure with the least priority above `last`; figure_count: there is none. */
static size_t next_figure(const search_table *t, int last)
{
    size_t next = t->figure_count;

    for (size_t k = 0; k < t->figure_count; k++) {
        int p = t->figures[k].priority;
        if (p >= 1 && p > last &&
            (next == t->figure_count || p < t->figures[next].priority))
            next = k;
    }
    return next;
}

/* The best of list[n], which are in order, by priorities; list is used up. */
static size_t pick(const search_table *t, size_t *list, size_t n)
{
    int last = 0;

    for (size_t k = next_figure(t, last); k < t->figure_count; k = next_figure(t, last)) {
        size_t best = list[0], left = 0;
        for (size_t i = 1; i < n; i++)
            if (compare(t, k, list[i], best) < 0)
                best = list[i];
        for (size_t i = 0; i < n; i++)
            if (ties(t, k, list[i], best))
                list[left++] = list[i];
        n = left;
        last = t->figures[k].priority;
    }
    return list[0];
}

enum { RANK_FRONT, RANK_OTHER, RANK_MISSES, RANK_FAILED, RANK_COUNT };

void search_order(size_t *order, size_t *met, const search_table *t)
{
    bool *front = dr_calloc(t->n + 1, 1), *placed = dr_calloc(t->n + 1, 1);
    int *rank = dr_calloc(t->n + 1, sizeof(int));
    size_t *list = dr_calloc(t->n + 1, sizeof(*list)), good = 0, n = 0;

    for (size_t i = 0; i < t->n; i++)
        good += meets(t, i);
    search_front(front, t, good > 0);
    for (size_t i = 0; i < t->n; i++) {
        bool counts = good > 0 ? meets(t, i) : whole(t, i);
        rank[i] = !whole(t, i) ? RANK_FAILED
                  : !counts    ? RANK_MISSES
                  : front[i]   ? RANK_FRONT
                               : RANK_OTHER;
    }
    for (int r = 0; r < RANK_COUNT; r++) {
        for (;;) {
            size_t left = 0;
            for (size_t i = 0; i < t->n; i++)
                if (rank[i] == r && !placed[i])
                    list[left++] = i;
            if (left == 0)
                break;
            order[n] = r == RANK_FAILED ? list[0] : pick(t, list, left);
            placed[order[n++]] = true;
        }
    }
    if (met != NULL)
        *met = good;
    free(front);
    free(placed);
    free(rank);
    free(list);
}
