/*
 * page.c - HTML and SVG by hand; see pass_page.h.
 *
 * Charts are drawn in units of a viewBox and as wide as the page; colours are CSS
 * variables, so that one drawing serves light and dark.  A bar's value is its <title>,
 * which browsers show under the pointer.
 */
#include "pass/page_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"

enum {
    WIDTH = PAGE_WIDTH,
    PANEL = 350,
    TALL = 120,
    LINE_TALL = 200,
    LEFT = 46,
    COLOURS = 6
};

static const char style[] =
    ":root{color-scheme:light dark;--paper:#fff;--ink:#1a1c20;--soft:#5d636e;"
    "--grid:#dde0e5;--c0:#2563a8;--c1:#c2570c;--c2:#2c7a4b;--c3:#8a3f9e;--c4:#a8324a;"
    "--c5:#5d636e}\n"
    "@media(prefers-color-scheme:dark){:root{--paper:#15171b;--ink:#e6e8ec;"
    "--soft:#a0a7b3;--grid:#333841;--c0:#6fa8e6;--c1:#f0975a;--c2:#6cc08b;--c3:#c78bd8;"
    "--c4:#ef8a9d;--c5:#a0a7b3}}\n"
    "body{background:var(--paper);color:var(--ink);font:15px/1.45 system-ui,sans-serif;"
    "max-width:760px;margin:2em auto;padding:0 1em}\n"
    "h1{font-size:1.5em}h2{font-size:1.1em;margin:2em 0 .3em}p{color:var(--soft);"
    "margin:.2em 0 .8em}\n"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}"
    "th,td{text-align:right;padding:.25em .5em;border-bottom:1px solid var(--grid)}"
    "th:first-child,td:first-child{text-align:left}th{font-weight:600}\n"
    "svg{width:100%;height:auto;display:block}text{fill:var(--soft);font-size:11px}"
    ".t{fill:var(--ink);font-size:12px}.g{stroke:var(--grid)}"
    ".l{fill:none;stroke-width:2}.r{fill:none;stroke-width:1.5}"
    "pre{overflow-x:auto;border:1px solid var(--grid);padding:.6em;font-size:13px}"
    ".w{overflow-x:auto}\n"
    ".c0{fill:var(--c0)}.c1{fill:var(--c1)}.c2{fill:var(--c2)}.c3{fill:var(--c3)}"
    ".c4{fill:var(--c4)}.c5{fill:var(--c5)}"
    ".s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}.s3{stroke:var(--c3)}"
    ".s4{stroke:var(--c4)}.s5{stroke:var(--c5)}\n";

/* ---- text ---- */

dr_status page_text(dr_buf *b, const char *text)
{
    dr_status st = DR_OK;

    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '&')
            DR_TRY(dr_buf_adds(b, "&amp;"));
        else if (c == '<')
            DR_TRY(dr_buf_adds(b, "&lt;"));
        else if (c == '>')
            DR_TRY(dr_buf_adds(b, "&gt;"));
        else if (c == '"')
            DR_TRY(dr_buf_adds(b, "&quot;"));
        else if (c < 0x20 && c != '\n')
            DR_TRY(dr_buf_adds(b, " ")); /* no control character may stand in it */
        else
            DR_TRY(dr_buf_add(b, text, 1));
    }
done:
    return st;
}

/* <name attributes>text</name> and a line's end. */
static dr_status element(dr_buf *b, const char *name, const char *attributes,
                         const char *text)
{
    dr_status st = DR_OK;

    DR_TRY(dr_buf_addf(b, "<%s%s%s>", name, *attributes != '\0' ? " " : "", attributes));
    DR_TRY(page_text(b, text));
    DR_TRY(dr_buf_addf(b, "</%s>\n", name));
done:
    return st;
}

dr_status page_begin(dr_buf *b, const char *title)
{
    dr_status st = DR_OK;

    DR_TRY(dr_buf_adds(b, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n"
                          "<meta charset=\"utf-8\"/>\n"
                          "<meta name=\"viewport\" content=\"width=device-width\"/>\n"));
    DR_TRY(element(b, "title", "", title));
    DR_TRY(dr_buf_addf(b, "<style>\n%s</style>\n</head>\n<body>\n", style));
    DR_TRY(element(b, "h1", "", title));
done:
    return st;
}

dr_status page_end(dr_buf *b)
{
    return dr_buf_adds(b, "</body>\n</html>\n");
}

dr_status page_write(dr_buf *b, const pass_job *job)
{
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_TRY(page_end(b));
    DR_TRY(dr_write_file(dr_path_join(&a, job->out_dir, "report.html"), b->data, b->len));
done:
    dr_arena_release(&a);
    return st;
}

dr_status page_section(dr_buf *b, const char *title, const char *text)
{
    dr_status st = DR_OK;

    DR_TRY(element(b, "h2", "", title));
    if (text != NULL)
        DR_TRY(element(b, "p", "", text));
done:
    return st;
}

dr_status page_table(dr_buf *b, const char *const *cells, size_t rows, size_t columns)
{
    dr_status st = DR_OK;

    DR_TRY(dr_buf_adds(b, "<table>\n"));
    for (size_t r = 0; r < rows; r++) {
        DR_TRY(dr_buf_adds(b, "<tr>\n"));
        for (size_t c = 0; c < columns; c++) {
            const char *text = cells[r * columns + c];
            DR_TRY(element(b, r == 0 ? "th" : "td", "", text != NULL ? text : ""));
        }
        DR_TRY(dr_buf_adds(b, "</tr>\n"));
    }
    DR_TRY(dr_buf_adds(b, "</table>\n"));
done:
    return st;
}

dr_status page_settings(dr_buf *b, dr_arena *a, const char **cells, size_t n,
                        const pass_job *job)
{
    const char *key;
    json_t *config = NULL, *v;
    dr_status st = DR_OK;

    DR_TRY(dr_params_json(&config, job->def->params, job->def->params_count, job->config));
    json_object_foreach(config, key, v)
    {
        char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
        DR_BUG_IF(n == PAGE_SETTINGS_MAX);
        cells[2 * n] = dr_arena_strdup(a, key);
        cells[2 * n++ + 1] = dr_arena_strdup(a, text != NULL ? text : "");
        free(text);
    }
    DR_TRY(page_section(b, "Settings", NULL));
    DR_TRY(page_table(b, cells, n, 2));
done:
    json_decref(config);
    return st;
}

/* ---- charts ---- */

static double value(const page_series *s, size_t i)
{
    return s->values[i * s->stride];
}

/* The least 1, 2 or 5 times a power of ten that no value is above; 1 for nothing. */
static double scale_top(const page_series *series, size_t count)
{
    static const double steps[] = {1, 2, 5, 10};
    double most = 0;

    for (size_t k = 0; k < count; k++)
        for (size_t i = 0; i < series[k].count; i++)
            if (isfinite(value(&series[k], i)))
                most = fmax(most, value(&series[k], i));
    if (most <= 0)
        return 1;
    double unit = pow(10, floor(log10(most)));
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        if (steps[i] * unit >= most)
            return steps[i] * unit;
    return 10 * unit;
}

dr_status page_label(dr_buf *b, double x, double y, const char *anchor, const char *text)
{
    dr_status st = DR_OK;

    DR_TRY(dr_buf_addf(b, "<text x=\"%.2f\" y=\"%.2f\" text-anchor=\"%s\">", x, y, anchor));
    DR_TRY(page_text(b, text));
    DR_TRY(dr_buf_adds(b, "</text>\n"));
done:
    return st;
}

dr_status page_svg_begin(dr_buf *b, double height, const char *what)
{
    dr_status st = DR_OK;

    DR_TRY(dr_buf_addf(b, "<svg viewBox=\"0 0 %d %.0f\" role=\"img\" aria-label=\"",
                       (int)WIDTH, height));
    DR_TRY(page_text(b, what));
    DR_TRY(dr_buf_adds(b, "\">\n"));
done:
    return st;
}

/* Lines at 0, half and the top of the scale, and the first and last place on x. */
static dr_status axes(dr_buf *b, double x, double y, double width, double height,
                      double top, size_t count, const char *what)
{
    dr_status st = DR_OK;

    for (int i = 0; i <= 2; i++) {
        double at = y + height - height * i / 2;
        DR_TRY(dr_buf_addf(b,
                           "<line class=\"g\" x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" "
                           "y2=\"%.2f\"/>\n",
                           x, at, x + width, at));
        DR_TRY(dr_buf_addf(b,
                           "<text x=\"%.2f\" y=\"%.2f\" text-anchor=\"end\">%.4g</text>\n",
                           x - 4, at + 4, top * i / 2));
    }
    DR_TRY(dr_buf_addf(b, "<text x=\"%.2f\" y=\"%.2f\">", x, y + height + 14));
    DR_TRY(page_text(b, what));
    DR_TRY(dr_buf_addf(b,
                       " 0</text>\n<text x=\"%.2f\" y=\"%.2f\" text-anchor=\"end\">"
                       "%zu</text>\n",
                       x + width, y + height + 14, count > 0 ? count - 1 : 0));
done:
    return st;
}

static dr_status panel(dr_buf *b, const page_series *s, double x, double y, double top,
                       size_t colour, const char *what)
{
    const double width = PANEL - LEFT, step = width / (double)(s->count > 0 ? s->count : 1);
    dr_status st = DR_OK;

    DR_TRY(dr_buf_addf(b, "<text class=\"t\" x=\"%.2f\" y=\"%.2f\">", x, y - 6));
    DR_TRY(page_text(b, s->name));
    DR_TRY(dr_buf_adds(b, "</text>\n"));
    DR_TRY(axes(b, x, y, width, TALL, top, s->count, what));
    for (size_t i = 0; i < s->count; i++) {
        double v = value(s, i), tall = TALL * v / top;
        if (!isfinite(v) || v < 0)
            continue;
        DR_TRY(dr_buf_addf(b,
                           "<rect class=\"c%zu\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" "
                           "height=\"%.2f\"><title>",
                           colour % COLOURS, x + (double)i * step + step * 0.1,
                           y + TALL - tall, step * 0.8, tall));
        DR_TRY(page_text(b, what));
        DR_TRY(dr_buf_addf(b, " %zu: %.4g</title></rect>\n", i, v));
    }
done:
    return st;
}

dr_status page_bars(dr_buf *b, const page_series *series, size_t count, const char *x)
{
    const double top = scale_top(series, count), row = TALL + 50;
    dr_status st = DR_OK;

    DR_TRY(page_svg_begin(b, row * (double)((count + 1) / 2),
                          "bars, one panel for each name"));
    for (size_t i = 0; i < count; i++)
        DR_TRY(panel(b, &series[i], (double)(i % 2) * (WIDTH - PANEL) + LEFT,
                     (double)(i / 2) * row + 22, top, i, x));
    DR_TRY(dr_buf_adds(b, "</svg>\n"));
done:
    return st;
}

/* One line, in pieces where a value is missing. */
static dr_status polyline(dr_buf *b, const page_series *s, size_t longest, double top,
                          size_t colour)
{
    const double step = (double)(WIDTH - LEFT) / (double)(longest > 1 ? longest - 1 : 1);
    bool open = false;
    dr_status st = DR_OK;

    for (size_t i = 0; i <= s->count; i++) {
        bool here = i < s->count && isfinite(value(s, i));
        if (open && !here)
            DR_TRY(dr_buf_adds(b, "\"/>\n"));
        if (!open && here)
            DR_TRY(
                dr_buf_addf(b, "<polyline class=\"l s%zu\" points=\"", colour % COLOURS));
        if (here)
            DR_TRY(dr_buf_addf(b, "%s%.2f,%.2f", open ? " " : "", LEFT + (double)i * step,
                               22 + LINE_TALL - LINE_TALL * value(s, i) / top));
        open = here;
    }
done:
    return st;
}

dr_status page_lines(dr_buf *b, const page_series *series, size_t count, const char *x)
{
    const double top = scale_top(series, count);
    size_t longest = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++)
        longest = series[i].count > longest ? series[i].count : longest;
    DR_TRY(
        page_svg_begin(b, LINE_TALL + 44 + 16 * (double)count, "lines over their number"));
    DR_TRY(axes(b, LEFT, 22, WIDTH - LEFT, LINE_TALL, top, longest, x));
    for (size_t i = 0; i < count; i++) {
        double y = LINE_TALL + 52 + 16 * (double)i;
        DR_TRY(polyline(b, &series[i], longest, top, i));
        DR_TRY(dr_buf_addf(b,
                           "<rect class=\"c%zu\" x=\"%d\" y=\"%.2f\" width=\"10\" "
                           "height=\"10\"/>\n",
                           i % COLOURS, (int)LEFT, y - 9));
        DR_TRY(page_label(b, LEFT + 16, y, "start", series[i].name));
    }
    DR_TRY(dr_buf_adds(b, "</svg>\n"));
done:
    return st;
}

dr_status page_pairs(dr_buf *b, const page_pair *pairs, size_t count,
                     const char *const names[2], const char *unit)
{
    enum { NAME = 130, NUMBER = 110, ROW = 34 };
    double most = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++)
        most = fmax(most, fmax(pairs[i].values[0], pairs[i].values[1]));
    most = most > 0 ? most : 1;
    DR_TRY(page_svg_begin(b, ROW * (double)count + 24, "bars, two for each name"));
    for (size_t i = 0; i < 2; i++) {
        DR_TRY(dr_buf_addf(b,
                           "<rect class=\"c%zu\" x=\"%zu\" y=\"2\" width=\"10\" "
                           "height=\"10\"/>\n",
                           i == 0 ? (size_t)5 : 0, NAME + i * 90));
        DR_TRY(page_label(b, (double)NAME + 14 + 90 * (double)i, 11, "start", names[i]));
    }
    for (size_t i = 0; i < count; i++) {
        double y = 22 + ROW * (double)i;
        DR_TRY(page_label(b, NAME - 6, y + 16, "end", pairs[i].name));
        for (size_t k = 0; k < 2; k++) {
            double wide = (WIDTH - NAME - NUMBER) * pairs[i].values[k] / most;
            DR_TRY(dr_buf_addf(b,
                               "<rect class=\"c%zu\" x=\"%d\" y=\"%.2f\" "
                               "width=\"%.2f\" height=\"11\"/>\n",
                               k == 0 ? (size_t)5 : 0, (int)NAME, y + 13 * (double)k,
                               wide));
            DR_TRY(dr_buf_addf(b, "<text x=\"%.2f\" y=\"%.2f\">%.4g", NAME + wide + 5,
                               y + 10 + 13 * (double)k, pairs[i].values[k]));
            DR_TRY(page_text(b, unit));
            DR_TRY(dr_buf_adds(b, "</text>\n"));
        }
    }
    DR_TRY(dr_buf_adds(b, "</svg>\n"));
done:
    return st;
}
