/*
 * page_scatter.c - points over two figures, the front among them.
 *
 * Numbers stand at the first free place around their point: above, below, right, left.  A
 * place is free that touches no other number and lies inside the chart; where none is, the
 * number is left out, since an unreadable one says less.  The table beside has all.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "pass/page_impl.h"

enum {
    LEFT = 64,
    TOP = 26,
    TALL = 300,
    WIDE = PAGE_WIDTH - LEFT - 14,
    TICKS = 5,
    DIGIT = 8, /* more than a digit of 11 px is wide */
    LINE = 14
};

typedef struct {
    double low, high;
} range;

/* A little more than the values take. */
static range range_of(const page_point *p, size_t n, bool of_x)
{
    range r = {INFINITY, -INFINITY};

    for (size_t i = 0; i < n; i++) {
        r.low = fmin(r.low, of_x ? p[i].x : p[i].y);
        r.high = fmax(r.high, of_x ? p[i].x : p[i].y);
    }
    double margin = r.high > r.low ? 0.06 * (r.high - r.low) : fabs(r.low) * 0.1 + 1e-9;
    return (range){r.low - margin, r.high + margin};
}

static double place_x(const range *r, double v)
{
    return LEFT + WIDE * (v - r->low) / (r->high - r->low);
}

static double place_y(const range *r, double v)
{
    return TOP + TALL - TALL * (v - r->low) / (r->high - r->low);
}

/* 1, 2 or 5 times a power of ten, so that there are about TICKS. */
static double step_of(const range *r)
{
    double raw = (r->high - r->low) / TICKS, unit = pow(10, floor(log10(raw)));

    return raw <= unit       ? unit
           : raw <= 2 * unit ? 2 * unit
           : raw <= 5 * unit ? 5 * unit
                             : 10 * unit;
}

static dr_status grid(dr_buf *b, const range *x, const range *y)
{
    const double sx = step_of(x), sy = step_of(y);
    dr_status st = DR_OK;

    for (double k = ceil(x->low / sx); k * sx <= x->high; k++) {
        const double at = place_x(x, k * sx);
        DR_TRY(dr_buf_addf(b,
                           "<line class=\"g\" x1=\"%.2f\" y1=\"%d\" x2=\"%.2f\" "
                           "y2=\"%d\"/>\n<text x=\"%.2f\" y=\"%d\" "
                           "text-anchor=\"middle\">%.5g</text>\n",
                           at, (int)TOP, at, TOP + TALL, at, TOP + TALL + 15,
                           k == 0 ? 0 : k * sx));
    }
    for (double k = ceil(y->low / sy); k * sy <= y->high; k++) {
        const double at = place_y(y, k * sy);
        DR_TRY(dr_buf_addf(b,
                           "<line class=\"g\" x1=\"%d\" y1=\"%.2f\" x2=\"%d\" "
                           "y2=\"%.2f\"/>\n<text x=\"%d\" y=\"%.2f\" "
                           "text-anchor=\"end\">%.5g</text>\n",
                           (int)LEFT, at, LEFT + WIDE, at, LEFT - 5, at + 4,
                           k == 0 ? 0 : k * sy));
    }
done:
    return st;
}

typedef struct {
    double x, y, wide; /* left, base line */
} box;

static bool is_free(const box *b, const box *placed, size_t n)
{
    if (b->x < LEFT || b->x + b->wide > LEFT + WIDE || b->y - LINE < TOP ||
        b->y > TOP + TALL)
        return false;
    for (size_t i = 0; i < n; i++)
        if (b->x < placed[i].x + placed[i].wide && placed[i].x < b->x + b->wide &&
            fabs(b->y - placed[i].y) < LINE)
            return false;
    return true;
}

static dr_status numbers(dr_buf *b, const page_point *p, size_t n, const range *x,
                         const range *y)
{
    box *placed = dr_calloc(n + 1, sizeof(*placed));
    size_t count = 0;
    dr_status st = DR_OK;

    for (int best = 1; best >= 0; best--)
        for (size_t i = 0; i < n; i++) {
            if (p[i].best != (best == 1) || !(p[i].best || p[i].front))
                continue;
            const double cx = place_x(x, p[i].x), cy = place_y(y, p[i].y);
            char text[24];
            const double wide = DIGIT * snprintf(text, sizeof(text), "%zu", p[i].number);
            const box tries[] = {{cx - wide / 2, cy - 9, wide},
                                 {cx - wide / 2, cy + 19, wide},
                                 {cx + 9, cy + 4, wide},
                                 {cx - 9 - wide, cy + 4, wide}};
            for (size_t k = 0; k < DR_COUNT(tries); k++) {
                if (!is_free(&tries[k], placed, count))
                    continue;
                placed[count++] = tries[k];
                DR_TRY(page_label(b, tries[k].x, tries[k].y, "start", text));
                break;
            }
        }
done:
    free(placed);
    return st;
}

static int by_x(const void *a, const void *b)
{
    const page_point *p = *(const page_point *const *)a, *q = *(const page_point *const *)b;

    if (p->x != q->x)
        return p->x < q->x ? -1 : 1;
    return (p->y > q->y) - (p->y < q->y);
}

static dr_status front_line(dr_buf *b, const page_point *p, size_t n, const range *x,
                            const range *y)
{
    const page_point **list = dr_calloc(n + 1, sizeof(page_point *));
    size_t count = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i++)
        if (p[i].front)
            list[count++] = &p[i];
    qsort(list, count, sizeof(*list), by_x);
    DR_TRY(dr_buf_adds(b, "<polyline class=\"l s1\" points=\""));
    for (size_t i = 0; i < count; i++)
        DR_TRY(dr_buf_addf(b, "%s%.2f,%.2f", i ? " " : "", place_x(x, list[i]->x),
                           place_y(y, list[i]->y)));
    DR_TRY(dr_buf_adds(b, "\"/>\n"));
done:
    free(list);
    return st;
}

static dr_status one_point(dr_buf *b, const page_point *p, double cx, double cy)
{
    dr_status st = DR_OK;

    DR_TRY(dr_buf_addf(b,
                       "<circle class=\"c%d\" cx=\"%.2f\" cy=\"%.2f\" r=\"4\"><title>%zu: ",
                       p->front ? 1 : 5, cx, cy, p->number));
    DR_TRY(page_text(b, p->name));
    DR_TRY(dr_buf_adds(b, "</title></circle>\n"));
    if (p->best)
        DR_TRY(dr_buf_addf(
            b, "<circle class=\"r s0\" cx=\"%.2f\" cy=\"%.2f\" r=\"7.5\"/>\n", cx, cy));
done:
    return st;
}

dr_status page_scatter(dr_buf *b, const page_point *p, size_t n, const char *x_name,
                       const char *y_name)
{
    const range x = range_of(p, n, true), y = range_of(p, n, false);
    dr_status st = DR_OK;

    if (n == 0)
        return DR_OK;
    DR_TRY(page_svg_begin(b, TOP + TALL + 40, "candidates over two figures"));
    DR_TRY(grid(b, &x, &y));
    DR_TRY(page_label(b, 0, 12, "start", y_name));
    DR_TRY(page_label(b, LEFT + WIDE, TOP + TALL + 34, "end", x_name));
    DR_TRY(front_line(b, p, n, &x, &y));
    for (int front = 0; front < 2; front++)
        for (size_t i = 0; i < n; i++)
            if (p[i].front == (front == 1))
                DR_TRY(one_point(b, &p[i], place_x(&x, p[i].x), place_y(&y, p[i].y)));
    DR_TRY(numbers(b, p, n, &x, &y));
    DR_TRY(dr_buf_adds(b, "</svg>\n"));
done:
    return st;
}
