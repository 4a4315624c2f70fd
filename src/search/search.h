/*
 * search.h - which of many candidates to try, and which of those that were tried is best.
 *
 * A space is a list of choices: some are there only where an earlier choice took a certain
 * value (the parameters of one of several passes).  A sampler hands out points of it that
 * it has not handed out yet, and is told what came of each.  Nothing here knows what a
 * point means.
 *
 * The same seed gives the same points, if it is told the same figures.
 */
#ifndef DRUPE_SEARCH_H
#define DRUPE_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

/* ---- spaces ---- */

typedef struct {
    int count;    /* of values: 1 or more */
    bool ordered; /* numbers in order: neighbours are alike */
    int parent; /* an earlier dimension that decides whether this one is there; -1: none */
    int value;  /* there where the parent has this value */
} search_dim;

/* dims are borrowed. */
typedef struct {
    const search_dim *dims;
    size_t count;
} search_space;

/* Points there are; SIZE_MAX: that many or more. */
size_t search_space_size(const search_space *s);
/* A point is int[count]: the value of each dimension, -1 where it is not there. */
void search_first(const search_space *s, int *point);
/* The next one, the last dimension fastest; false: point was the last. */
bool search_following(const search_space *s, int *point);

/* ---- figures and goals ---- */

typedef enum {
    SEARCH_NO_GOAL,
    SEARCH_THRESHOLD,
    SEARCH_MIN_IMPROVEMENT,
    SEARCH_PERCENT_MIN_IMPROVEMENT,
    SEARCH_MAX_DEGRADATION,
    SEARCH_PERCENT_MAX_DEGRADATION
} search_goal_kind;

typedef struct {
    search_goal_kind kind;
    double value;
} search_goal;

/* What a candidate is judged by. */
typedef struct {
    bool higher_is_better;
    int priority; /* 1 before 2; below 1: it takes no part in the choice */
    bool limited; /* limit holds */
    double limit;
} search_figure;

/* All goals but a threshold count from what the input model has. */
bool search_goal_needs_baseline(search_goal g);
/* With sign 1 where higher is better, else -1: b + sign v, b (1 + sign v/100), b - sign v,
 * b (1 - sign v/100). */
double search_goal_limit(search_goal g, bool higher_is_better, double baseline);
bool search_limit_met(const search_figure *f, double value);

/*
 * values: [n][figure_count], one row a candidate.  One without figures (failed) has a NAN
 * in its row, and is in no front and at the end of every order.
 * slack: [n][figure_count], half the width of what a value is known to, 0 where it is
 * exact; NULL: all are.  Two values tie that are no further apart than the root of the sum
 * of the squares of theirs.
 */
typedef struct {
    const double *values, *slack;
    size_t n;
    const search_figure *figures;
    size_t figure_count;
} search_table;

/*
 * front[i]: no candidate is better in one figure with a priority, by more than a tie, and
 * as good in the others.  With `only_met`, candidates that miss a limit do not count.
 */
void search_front(bool *front, const search_table *t, bool only_met);
/*
 * Best first: the front, and then the others, each by priority: of those that tie with the
 * best in the first figure, those that tie with the best of them in the second one, and so
 * on; of what is left the earliest.  Candidates that miss a limit come after all that miss
 * none, unless all do.  *met: how many miss none (may be NULL).
 */
void search_order(size_t *order, size_t *met, const search_table *t);

/* ---- samplers ---- */

typedef enum { SEARCH_SEQUENTIAL, SEARCH_RANDOM, SEARCH_TPE, SEARCH_NSGA2 } search_sampler;

typedef struct {
    search_sampler sampler;
    uint64_t seed;
    size_t max_samples; /* 0: all points */
    bool multivariate;  /* tpe: parameters together; else each by itself */
    bool group;         /* tpe: from candidates that made the same choices above */
} search_options;

typedef struct search search;
/* The space and the figures are copied. */
void search_open(search **out, const search_space *space, const search_figure *figures,
                 size_t figure_count, const search_options *o);
void search_close(search *s);
/* A point that was not handed out before; false: max_samples, or no point is left. */
bool search_next(search *s, int *point);
/* Up to `most` points that search_next will hand out next whatever it is told before:
 * [most][dims].  Returns how many; none, where the next one depends on figures. */
size_t search_ahead(const search *s, int *points, size_t most);
/* values: [figure_count], NAN where one was not measured since another misses a limit;
 * NULL: it failed. */
void search_tell(search *s, const int *point, const double *values);

#endif
