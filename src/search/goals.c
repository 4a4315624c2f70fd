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

typedef struct {
    const double *values;
    const search_figure *figures;
    size_t m;
} table;

static bool whole(const table *t, size_t i)
{
    for (size_t k = 0; k < t->m; k++)
        if (isnan(t->values[i * t->m + k]))
            return false;
    return true;
}

static bool meets(const table *t, size_t i)
{
    for (size_t k = 0; k < t->m; k++)
        if (!search_limit_met(&t->figures[k], t->values[i * t->m + k]))
            return false;
    return whole(t, i);
}

/* Below 0: a is better in figure k. */
static int compare(const table *t, size_t k, size_t a, size_t b)
{
    double x = t->values[a * t->m + k], y = t->values[b * t->m + k];

    if (x == y)
        return 0;
    return (x > y) == t->figures[k].higher_is_better ? -1 : 1;
}

static bool dominates(const table *t, size_t a, size_t b)
{
    bool better = false;

    for (size_t k = 0; k < t->m; k++) {
        int c = t->figures[k].priority < 1 ? 0 : compare(t, k, a, b);
        if (c > 0)
            return false;
        better = better || c < 0;
    }
    return better;
}

void search_front(bool *front, const double *values, size_t n, const search_figure *figures,
                  size_t figure_count, bool only_met)
{
    const table t = {values, figures, figure_count};

    for (size_t i = 0; i < n; i++) {
        front[i] = only_met ? meets(&t, i) : whole(&t, i);
        for (size_t j = 0; j < n && front[i]; j++)
            if ((only_met ? meets(&t, j) : whole(&t, j)) && dominates(&t, j, i))
                front[i] = false;
    }
}

/* Below 0: a comes first, by the figures' priorities. */
static int by_priority(const table *t, size_t a, size_t b)
{
    int last = 0;

    for (;;) { /* the least priority above the last one */
        int next = 0;
        for (size_t k = 0; k < t->m; k++) {
            int p = t->figures[k].priority;
            if (p >= 1 && p > last && (next == 0 || p < next))
                next = p;
        }
        if (next == 0)
            return 0;
        for (size_t k = 0; k < t->m; k++) {
            int c = t->figures[k].priority == next ? compare(t, k, a, b) : 0;
            if (c != 0)
                return c;
        }
        last = next;
    }
}

void search_order(size_t *order, size_t *met, const double *values, size_t n,
                  const search_figure *figures, size_t figure_count)
{
    const table t = {values, figures, figure_count};
    bool *front = dr_calloc(n + 1, 1);
    int *rank = dr_calloc(n + 1, sizeof(int)); /* 0 front, 1 others, 2 misses, 3 failed */
    size_t good = 0;

    for (size_t i = 0; i < n; i++)
        good += meets(&t, i);
    search_front(front, values, n, figures, figure_count, good > 0);
    for (size_t i = 0; i < n; i++) {
        bool counts = good > 0 ? meets(&t, i) : whole(&t, i);
        rank[i] = !whole(&t, i) ? 3 : !counts ? 2 : front[i] ? 0 : 1;
        size_t at = i; /* insertion: stable, and n is small */
        while (at > 0 && (rank[order[at - 1]] > rank[i] ||
                          (rank[order[at - 1]] == rank[i] && rank[i] < 3 &&
                           by_priority(&t, i, order[at - 1]) < 0))) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
    if (met != NULL)
        *met = good;
    free(front);
    free(rank);
}
