/*
 * tpe.c - the tree-structured Parzen estimator (Bergstra et al. 2011), multivariate
 * (Falkner et al. 2018).
 *
 * Candidates that were tried are split into the best few and the rest; each part is a
 * density, a mixture of one kernel around each candidate and a uniform one; the next point
 * is the one whose density among the best, over that among the rest, is largest.  Where the
 * space is small that is found by looking at every point, else among draws.
 *
 * With `group` (Optuna's group decomposed space) dimensions that are there together are a
 * group: those that always are, those of the first alternative, and so on.  The density is
 * the product of the groups', each from all candidates that have it: what is learned of a
 * choice that all alternatives share counts for all of them.  Without it a dimension that
 * a kernel's candidate does not have counts as uniform.
 *
 * The first points are drawn at random, far from each other, fewer of them where few are
 * asked for.  Of points that promise the same one is taken at random: the first in order
 * would always have the first algorithm.  Constants are those that found most optima of the
 * 60 candidates of tests/unit/search/smollm2_search_test.c under six goals.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "search/search_impl.h"

enum { STARTUP_MIN = 4, STARTUP_MAX = 10, DRAWS = 96, GOOD_MAX = 25, FAR = 16 };

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
        double share = 1 / (1 + (double)n / 4); /* what goes to all values alike */
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

/* Of x in dimension d, around a candidate that is one of n. */
static double one_dim(const search *s, size_t row, size_t d, const int *x, size_t n)
{
    const search_dim *dim = &s->space.dims[d];
    int at = s->points[row * s->space.count + d];

    return at < 0 ? 1.0 / dim->count : kernel(dim, at, x[d], n);
}

/* Dimensions that are there together: d with d itself where there are no groups. */
static bool together(const search *s, size_t d, size_t e)
{
    const search_dim *a = &s->space.dims[d], *b = &s->space.dims[e];

    if (!s->o.multivariate)
        return d == e;
    if (!s->o.group)
        return true;
    return a->parent == b->parent && (a->parent < 0 || a->value == b->value);
}

/* The logarithm of a part's density at x in the dimensions of the group that d begins. */
static double of_group(const search *s, const part *p, const int *x, size_t d)
{
    const size_t dims = s->space.count;
    const bool all = !s->o.multivariate || !s->o.group; /* candidates count */
    double sum = 1;
    size_t n = 0;

    for (size_t e = d; e < dims; e++)
        if (x[e] >= 0 && together(s, d, e))
            sum /= s->space.dims[e].count; /* the uniform kernel */
    for (size_t i = 0; i < p->count; i++)
        n += all || s->points[p->rows[i] * dims + d] >= 0;
    for (size_t i = 0; i < p->count; i++) {
        double k = 1;
        if (!all && s->points[p->rows[i] * dims + d] < 0)
            continue;
        for (size_t e = d; e < dims; e++)
            if (x[e] >= 0 && together(s, d, e))
                k *= one_dim(s, p->rows[i], e, x, n);
        sum += k;
    }
    return log(sum / (double)(n + 1));
}

/* The logarithm of a part's density at x. */
static double density(const search *s, const part *p, const int *x)
{
    double logs = 0;

    for (size_t d = 0; d < s->space.count; d++) {
        bool first = x[d] >= 0;
        for (size_t e = 0; e < d && first; e++)
            first = x[e] < 0 || !together(s, e, d);
        if (first)
            logs += of_group(s, p, x, d);
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

static void consider(search *s, const part *good, const part *rest, const int *x, int *best,
                     double *gain)
{
    if (search_was_given(s, x))
        return;
    double tie = 1e-6 * (double)dr_rng_uniform(&s->rng);
    double g = density(s, good, x) - density(s, rest, x) + tie;
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

/* Dimensions that differ. */
static size_t distance(const search *s, const int *a, const int *b)
{
    size_t n = 0;

    for (size_t d = 0; d < s->space.count; d++)
        n += a[d] != b[d];
    return n;
}

/* Of a few new points at random the one farthest from all that were handed out. */
static bool draw_far(search *s, int *point)
{
    const size_t dims = s->space.count;
    int *x = dr_calloc(dims + 1, sizeof(int));
    size_t far = 0;
    bool found = false;

    for (int i = 0; i < FAR && search_draw_new(s, x); i++) {
        size_t least = dims;
        for (size_t k = 0; k < s->given_count; k++) {
            size_t n = distance(s, x, &s->given[k * dims]);
            least = n < least ? n : least;
        }
        if (found && least <= far)
            continue;
        memcpy(point, x, dims * sizeof(int));
        far = least;
        found = true;
    }
    free(x);
    return found;
}

size_t search_startup_tpe(const search *s)
{
    size_t n = s->space.count + 2, share = s->o.max_samples / 4;

    n = n > STARTUP_MAX ? STARTUP_MAX : n;
    n = share > 0 && n > share ? share : n;
    return n < STARTUP_MIN ? STARTUP_MIN : n;
}

bool search_next_tpe(search *s, int *point)
{
    const size_t n = s->told;

    if (s->given_count >= s->size)
        return false;
    if (n < search_startup_tpe(s))
        return draw_far(s, point);
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
