/*
 * tpe.c - the tree-structured Parzen estimator (Bergstra et al. 2011), multivariate
 * (Falkner et al. 2018).
 *
 * Candidates that were tried are split into the best few and the rest; each part is a
 * density, a mixture of one kernel around each candidate and a uniform one; the next point
 * is the one whose density among the best, over that among the rest, is largest.  Where the
 * space is small that is found by looking at every point, else among draws.
 *
 * A dimension that a kernel's candidate does not have counts as uniform.  With `group` only
 * candidates count that made the same choices above all dimensions of the point.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "search/search_impl.h"

enum { STARTUP_MIN = 4, STARTUP_MAX = 10, DRAWS = 96, GOOD_MAX = 25 };

/* One part of the candidates. */
typedef struct {
    const size_t *rows;
    size_t count;
} part;

/* Of value x, around value at. */
static double kernel(const search_dim *d, int at, int x, size_t n)
{
    if (d->count == 1)
        return 1;
    if (!d->ordered) {
        double share = 1 / (1 + (double)n / 2); /* what goes to all values alike */
        return share / d->count + (x == at ? 1 - share : 0);
    }
    double width = (d->count - 1) / (2 + sqrt((double)n)), sum = 0, own = 0;
    width = width < 0.5 ? 0.5 : width;
    for (int v = 0; v < d->count; v++) {
        double z = (v - at) / width, k = exp(-0.5 * z * z);
        sum += k;
        own = v == x ? k : own;
    }
    return own / sum;
}

/* The choices that other dimensions hang on are the same in both. */
static bool same_choices(const search *s, const int *a, const int *b)
{
    for (size_t d = 0; d < s->space.count; d++) {
        int p = s->space.dims[d].parent;
        if (p >= 0 && a[p] != b[p])
            return false;
    }
    return true;
}

static double one_dim(const search *s, const part *p, size_t row, size_t d, const int *x)
{
    const search_dim *dim = &s->space.dims[d];
    int at = s->points[row * s->space.count + d];

    return at < 0 ? 1.0 / dim->count : kernel(dim, at, x[d], p->count);
}

/* The logarithm of a part's density at x. */
static double density(const search *s, const part *p, const int *x)
{
    double uniform = 1, sum = 0, logs = 0;
    size_t n = 1; /* the uniform kernel */

    for (size_t d = 0; d < s->space.count; d++)
        if (x[d] >= 0)
            uniform /= s->space.dims[d].count;
    if (s->o.multivariate) {
        sum = uniform;
        for (size_t i = 0; i < p->count; i++) {
            const int *at = &s->points[p->rows[i] * s->space.count];
            double k = 1;
            if (s->o.group && !same_choices(s, at, x))
                continue;
            for (size_t d = 0; d < s->space.count; d++)
                if (x[d] >= 0)
                    k *= one_dim(s, p, p->rows[i], d, x);
            sum += k;
            n++;
        }
        /* With groups: how often this one is chosen at all. */
        double share = s->o.group ? (double)n / (double)(p->count + 1) : 1;
        return log(sum / (double)n * share);
    }
    for (size_t d = 0; d < s->space.count; d++) {
        if (x[d] < 0)
            continue;
        sum = 1.0 / s->space.dims[d].count;
        for (size_t i = 0; i < p->count; i++)
            sum += one_dim(s, p, p->rows[i], d, x);
        logs += log(sum / (double)(p->count + 1));
    }
    return logs;
}

/* A point near one of the best, or anywhere. */
static void draw_near(search *s, const part *good, int *x)
{
    size_t i = dr_rng_below(&s->rng, good->count + 1);
    const int *at = i < good->count ? &s->points[good->rows[i] * s->space.count] : NULL;

    for (size_t d = 0; d < s->space.count; d++) {
        const search_dim *dim = &s->space.dims[d];
        if (!search_active(&s->space, x, d)) {
            x[d] = -1;
            continue;
        }
        double u = (double)dr_rng_uniform(&s->rng), sum = 0;
        x[d] = dim->count - 1;
        for (int v = 0; v < dim->count; v++) {
            sum += at != NULL && at[d] >= 0 ? kernel(dim, at[d], v, good->count)
                                            : 1.0 / dim->count;
            if (u < sum) {
                x[d] = v;
                break;
            }
        }
    }
}

static void consider(const search *s, const part *good, const part *rest, const int *x,
                     int *best, double *gain)
{
    if (search_was_given(s, x))
        return;
    double g = density(s, good, x) - density(s, rest, x);
    if (g <= *gain)
        return;
    *gain = g;
    memcpy(best, x, s->space.count * sizeof(int));
}

static bool choose(search *s, const part *good, const part *rest, int *point)
{
    int *x = dr_calloc(s->space.count + 1, sizeof(int));
    double gain = -INFINITY;

    if (s->size <= SEARCH_COUNTABLE) {
        search_first(&s->space, x);
        do {
            consider(s, good, rest, x, point, &gain);
        } while (search_following(&s->space, x));
    } else {
        for (int i = 0; i < DRAWS; i++) {
            draw_near(s, good, x);
            consider(s, good, rest, x, point, &gain);
        }
    }
    free(x);
    return isfinite(gain) || search_draw_new(s, point);
}

bool search_next_tpe(search *s, int *point)
{
    size_t startup = s->space.count + 2, n = s->told;

    startup = startup < STARTUP_MIN ? STARTUP_MIN : startup;
    startup = startup > STARTUP_MAX ? STARTUP_MAX : startup;
    if (s->given_count >= s->size)
        return false;
    if (n < startup)
        return search_draw_new(s, point);
    size_t *rows = dr_calloc(n, sizeof(*rows));
    for (size_t i = 0; i < n; i++) { /* insertion: stable */
        size_t at = i;
        for (; at > 0 && search_compare(s, i, rows[at - 1], false) < 0; at--)
            rows[at] = rows[at - 1];
        rows[at] = i;
    }
    size_t count = (size_t)ceil(0.2 * (double)n);
    count = count > GOOD_MAX ? (size_t)GOOD_MAX : count;
    const part good = {rows, count}, rest = {rows + count, n - count};
    bool found = choose(s, &good, &rest, point);
    free(rows);
    return found;
}
