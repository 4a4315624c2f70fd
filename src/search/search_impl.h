/*
 * search_impl.h - what samplers share: what was handed out, what was told.
 */
#ifndef DRUPE_SEARCH_SEARCH_IMPL_H
#define DRUPE_SEARCH_SEARCH_IMPL_H

#include "core/rng.h"
#include "search/search.h"

/* Points that are counted one by one: past that, points are drawn. */
enum { SEARCH_COUNTABLE = 1 << 14 };

struct search {
    search_space space; /* dims owned */
    search_figure *figures;
    size_t figure_count;
    search_options o;
    dr_rng rng;
    size_t size;
    int *given; /* owned: [given_count][dims] all that was handed out */
    size_t given_count;
    int *points;    /* owned: [told][dims] */
    double *values; /* owned: [told][figure_count]; NAN: failed */
    double *past;   /* owned: [told] how far limits are missed; INFINITY: failed */
    size_t told;
};

bool search_same(const search *s, const int *a, const int *b);
bool search_was_given(const search *s, const int *point);
/* Dimension d is there, given the ones before it. */
bool search_active(const search_space *s, const int *point, size_t d);
/* A point drawn at random: uniform in each choice. */
void search_draw(search *s, int *point);
/* A random point that was not handed out; false: there is none. */
bool search_draw_new(search *s, int *point);

/* Points that are drawn at random first, whatever is told. */
size_t search_startup_tpe(const search *s);
enum { SEARCH_POPULATION = 16 }; /* of NSGA-II, the first one drawn */

bool search_next_tpe(search *s, int *point);
bool search_next_nsga2(search *s, int *point);
/* rank: [told], the front that a candidate is in, from 0. */
void search_fronts(const search *s, int *rank);

/* Row i of values, 0 or below where a is better: by limits missed, then as `pareto` says by
 * domination alone (0: neither), or by priorities. */
int search_compare(const search *s, size_t a, size_t b, bool pareto);

#endif
