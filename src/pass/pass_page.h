/*
 * pass_page.h - a page for people: one HTML file with tables and charts in it, for a
 * browser and nothing else; a part of pass's door.  No script, no font, no picture from
 * elsewhere; light or dark as the reader's system is.  Every element is closed, so that it
 * is XML as well.
 *
 * Text is escaped; the same calls give the same bytes.
 */
#ifndef DRUPE_PASS_PASS_PAGE_H
#define DRUPE_PASS_PASS_PAGE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/buf.h"
#include "core/status.h"

DR_MUST_USE dr_status page_begin(dr_buf *b, const char *title);
DR_MUST_USE dr_status page_end(dr_buf *b);
DR_MUST_USE dr_status page_text(dr_buf *b, const char *text);
/* A heading, with a sentence below it (NULL: none). */
DR_MUST_USE dr_status page_section(dr_buf *b, const char *title, const char *text);
/* cells[rows][columns], the first row being the head; NULL is an empty cell. */
DR_MUST_USE dr_status page_table(dr_buf *b, const char *const *cells, size_t rows,
                                 size_t columns);

/* Values over 0, 1, 2, ...; stride in doubles.  What is not finite leaves a gap. */
typedef struct {
    const char *name;
    const double *values; /* borrowed */
    size_t count, stride;
} page_series;

/* A panel of bars for each series, all of one scale; x: what is counted ("layer"). */
DR_MUST_USE dr_status page_bars(dr_buf *b, const page_series *series, size_t count,
                                const char *x);
/* One chart with a line for each series (6 at most have a colour of their own). */
DR_MUST_USE dr_status page_lines(dr_buf *b, const page_series *series, size_t count,
                                 const char *x);

/* Bars from the left, two to a label; unit is behind the numbers. */
typedef struct {
    const char *name;
    double values[2];
} page_pair;
DR_MUST_USE dr_status page_pairs(dr_buf *b, const page_pair *pairs, size_t count,
                                 const char *const names[2], const char *unit);

/* A chart of points: y over x.  The best has a ring, those of the front a line through
 * them and their number beside, where there is room for it. */
typedef struct {
    double x, y;
    size_t number;
    const char *name; /* shown under the pointer */
    bool front, best;
} page_point;
DR_MUST_USE dr_status page_scatter(dr_buf *b, const page_point *points, size_t count,
                                   const char *x, const char *y);

#endif
