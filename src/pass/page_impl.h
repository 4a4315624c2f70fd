/*
 * page_impl.h - a pass's own page, and what the charts' files share; pages are in
 * pass_page.h.
 */
#ifndef DRUPE_PASS_PAGE_IMPL_H
#define DRUPE_PASS_PAGE_IMPL_H

#include "pass/pass.h"

/* The end, and the page as report.html beside the job's result. */
DR_MUST_USE dr_status page_write(dr_buf *b, const pass_job *job);

/* The section of what was asked for: n rows of two cells that are there already, then the
 * pass's parameters; cells has room for PAGE_SETTINGS_MAX rows. */
enum { PAGE_SETTINGS_MAX = 96 };
DR_MUST_USE dr_status page_settings(dr_buf *b, dr_arena *a, const char **cells, size_t n,
                                    const pass_job *job);

enum { PAGE_WIDTH = 720 };
DR_MUST_USE dr_status page_svg_begin(dr_buf *b, double height, const char *what);
DR_MUST_USE dr_status page_label(dr_buf *b, double x, double y, const char *anchor,
                                 const char *text);

#endif
