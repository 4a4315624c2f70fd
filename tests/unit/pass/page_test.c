/*
 * page_test.c - pages are well-formed, escape what they are given, draw to scale.
 */
#include "check.h"

#include "pass/page_impl.h"

/* Every element that is opened is closed in its order, every attribute is quoted, and < and
 * & stand for themselves nowhere.  The text behind the first error; NULL: none. */
static const char *malformed(const char *p)
{
    char open[32][16];
    int depth = 0;

    for (; *p != '\0'; p++) {
        const char *tag = p;
        if (*p == '&' && strncmp(p, "&amp;", 5) != 0 && strncmp(p, "&lt;", 4) != 0 &&
            strncmp(p, "&gt;", 4) != 0 && strncmp(p, "&quot;", 6) != 0)
            return p;
        if (*p == '>')
            return p;
        if (*p != '<' || strncmp(p, "<!DOCTYPE html>", 15) == 0) {
            p += *p == '<' ? 14 : 0;
            continue;
        }
        bool close = p[1] == '/', quoted = false;
        size_t n = strspn(p + 1 + close, "abcdefghijklmnopqrstuvwxyz0123456789");
        if (n == 0 || n > 15)
            return tag;
        for (p += 1 + close + (int)n; *p != '\0' && (quoted || *p != '>'); p++) {
            if (*p == '<')
                return tag;
            quoted = *p == '"' ? !quoted : quoted;
        }
        if (*p == '\0' || (p[-1] != '"' && p[-1] != '/' && strchr("=", p[-1])))
            return tag;
        if (p[-1] == '/')
            continue;
        if (!close) {
            if (depth == 32)
                return tag;
            (void)snprintf(open[depth++], 16, "%.*s", (int)n, tag + 1);
        } else if (depth == 0 || strlen(open[depth - 1]) != n ||
                   strncmp(open[--depth], tag + 2, n) != 0) {
            return tag;
        }
    }
    return depth == 0 ? NULL : p;
}

static dr_status whole(dr_buf *b)
{
    static const double v[] = {1, 3, (double)INFINITY, 0, 2.5, 4};
    const page_series series[] = {{"a & b", v, 6, 1}, {"<c>", v, 3, 2}, {"none", v, 0, 1}};
    const page_pair pairs[] = {{"one", {50, 25}}, {"\"two\"", {0, 0}}};
    const char *cells[] = {"", "x<y", "row", NULL, "\x01", "caf\xc3\xa9"};
    dr_status st = DR_OK;

    DR_TRY(page_begin(b, "T & <t>"));
    DR_TRY(page_section(b, "One", "a > b"));
    DR_TRY(page_table(b, cells, 3, 2));
    DR_TRY(page_bars(b, series, 3, "layer"));
    DR_TRY(page_lines(b, series, 3, "step"));
    DR_TRY(page_pairs(b, pairs, 2, (const char *const[2]){"before", "after"}, " MB"));
    DR_TRY(page_end(b));
done:
    return st;
}

static size_t count(const char *text, const char *part)
{
    size_t n = 0;

    for (; (text = strstr(text, part)) != NULL; text += strlen(part))
        n++;
    return n;
}

int main(void)
{
    dr_buf b, again;

    /* the checker itself can say no */
    CHECK(malformed("<p>a</b>") != NULL);
    CHECK(malformed("<p>a") != NULL);
    CHECK(malformed("<p>a & b</p>") != NULL);
    CHECK(malformed("<p x=\"1>a</p>") != NULL);
    CHECK(malformed("<p x=\"1\">a<br/></p>") == NULL);

    dr_buf_init(&b, 1 << 20);
    dr_buf_init(&again, 1 << 20);
    CHECK_OK(whole(&b));
    CHECK_OK(whole(&again));
    CHECK_STR(b.data, again.data);
    const char *bad = malformed(b.data);
    if (!CHECK(bad == NULL))
        (void)printf("  at: %.80s\n", bad);
    CHECK(strstr(b.data, "<h1>T &amp; &lt;t&gt;</h1>") != NULL);
    CHECK(strstr(b.data, "<th>x&lt;y</th>") != NULL);
    CHECK(strstr(b.data, "<td></td>") != NULL);
    CHECK(strstr(b.data, "<td> </td>") != NULL);
    CHECK(strstr(b.data, "caf\xc3\xa9") != NULL);
    CHECK(strstr(b.data, "<script") == NULL && strstr(b.data, "://") == NULL);
    CHECK(strstr(b.data, "prefers-color-scheme:dark") != NULL);
    /* the greatest value is 4, so the scale ends at 5: 96 of 120 units, from y 24 down */
    CHECK(strstr(b.data,
                 "y=\"46.00\" width=\"40.53\" height=\"96.00\"><title>layer 5: 4") != NULL);
    CHECK_EQ_INT(count(b.data, "<title>layer"), 5 + 2); /* without the infinite one */
    /* the line is in pieces: 1 3, gap, 0 2.5 4; of the second 1, gap, 2.5 */
    CHECK_EQ_INT(count(b.data, "<polyline"), 4);
    CHECK(strstr(b.data, "50 MB") != NULL && strstr(b.data, "25 MB") != NULL);
    dr_buf_release(&b);
    dr_buf_release(&again);
    return check_done();
}
