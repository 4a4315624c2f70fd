/*
 * nsga2.c - NSGA-II (Deb et al. 2002): the best candidates so far, by fronts and then by
 * how lonely they are in theirs, are the parents of the next ones.
 *
 * Candidates that miss a limit are behind all that miss none, the nearer ones first (Deb's
 * constrained domination).  A child that was tried already is changed until it is new.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "search/search_impl.h"

enum { CHANGES = 32 };

/* Those that nobody beats are front 0; without them, those that nobody beats then are front
 * 1; and so on.  Deb's fast sort: every pair is compared twice. */
void search_fronts(const search *s, int *rank)
{
    const size_t n = s->told;
    size_t *beaten = dr_calloc(n + 1, sizeof(*beaten)); /* by how many that have no rank */
    size_t *list = dr_calloc(n + 1, sizeof(*list)), count = 0;

    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++)
            beaten[i] += search_compare(s, j, i, true) < 0;
        rank[i] = 0;
        if (beaten[i] == 0)
            list[count++] = i;
    }
    for (size_t at = 0; at < count; at++)
        for (size_t j = 0; j < n; j++)
            if (search_compare(s, list[at], j, true) < 0 && --beaten[j] == 0) {
                rank[j] = rank[list[at]] + 1;
                list[count++] = j;
            }
    free(beaten);
    free(list);
}

/* The gap between neighbours of candidate i in its front, over the front's width. */
static double gap(const search *s, const int *rank, size_t i, size_t k)
{
    const size_t m = s->figure_count;
    double own = s->values[i * m + k], low = -INFINITY, high = INFINITY;
    double least = own, most = own;

    for (size_t j = 0; j < s->told; j++) {
        double v = s->values[j * m + k];
        if (j == i || rank[j] != rank[i] || isnan(v))
            continue;
        least = v < least ? v : least;
        most = v > most ? v : most;
        if (v <= own && v > low)
            low = v;
        if (v >= own && v < high)
            high = v;
    }
    if (isinf(low) || isinf(high))
        return INFINITY;
    return most > least ? (high - low) / (most - least) : 0;
}

static double loneliness(const search *s, const int *rank, size_t i)
{
    double sum = 0;

    for (size_t k = 0; k < s->figure_count; k++)
        if (s->figures[k].priority >= 1 && !isnan(s->values[i * s->figure_count + k]))
            sum += gap(s, rank, i, k);
    return sum;
}

/* The parents: the best of all that was told. */
static size_t population(const search *s, size_t *rows)
{
    int *rank = dr_calloc(s->told + 1, sizeof(*rank));
    double *lonely = dr_calloc(s->told + 1, sizeof(*lonely));

    search_fronts(s, rank);
    for (size_t i = 0; i < s->told; i++) {
        size_t at = i;
        lonely[i] = loneliness(s, rank, i);
        for (; at > 0; at--) {
            size_t o = rows[at - 1];
            if (rank[o] < rank[i] || (rank[o] == rank[i] && lonely[o] >= lonely[i]))
                break;
            rows[at] = o;
        }
        rows[at] = i;
    }
    free(rank);
    free(lonely);
    return s->told < SEARCH_POPULATION ? s->told : (size_t)SEARCH_POPULATION;
}

/* The better one of two: rows are in order. */
static const int *parent(search *s, const size_t *rows, size_t n)
{
    size_t a = dr_rng_below(&s->rng, n), b = dr_rng_below(&s->rng, n);

    return &s->points[rows[a < b ? a : b] * s->space.count];
}

static void child(search *s, const int *a, const int *b, double change, int *x)
{
    for (size_t d = 0; d < s->space.count; d++) {
        const search_dim *dim = &s->space.dims[d];
        const int *from = dr_rng_uniform(&s->rng) < 0.5F ? a : b;
        if (!search_active(&s->space, x, d))
            x[d] = -1;
        else if (from[d] < 0 || (double)dr_rng_uniform(&s->rng) < change)
            x[d] = (int)dr_rng_below(&s->rng, (uint64_t)dim->count);
        else
            x[d] = from[d];
    }
}

bool search_next_nsga2(search *s, int *point)
{
    double change = 1 / (double)(s->space.count + 1);

    if (s->given_count >= s->size)
        return false;
    if (s->told < SEARCH_POPULATION)
        return search_draw_new(s, point);
    size_t *rows = dr_calloc(s->told, sizeof(*rows));
    size_t n = population(s, rows);
    bool found = false;
    for (int i = 0; i < CHANGES && !found; i++, change += 1.0 / CHANGES) {
        const int *a = parent(s, rows, n), *b = parent(s, rows, n);
        child(s, a, b, change, point);
        found = !search_was_given(s, point);
    }
    free(rows);
    return found || search_draw_new(s, point);
}
