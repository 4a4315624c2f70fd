/*
 * split.c - which rows: Hugging Face's slices of a split, "train[:90%]", as its datasets
 * library counts them.
 *
 * A bound is a row or a percentage of the rows, rounded to the nearest (halves to even);
 * a negative one counts from the end.  Files have one split, which is called train.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "data/row_impl.h"

/* One side of the colon; *text moves behind it. */
typedef struct {
    bool given, percent;
    double value;
} bound;

static bool read_bound(bound *out, const char **text)
{
    char *end = NULL;

    *out = (bound){0};
    if (**text == ':' || **text == ']')
        return true;
    out->value = (double)strtoll(*text, &end, 10);
    if (end == *text || end - *text > 12)
        return false;
    out->given = true;
    out->percent = *end == '%';
    *text = end + out->percent;
    return !out->percent || fabs(out->value) <= 100;
}

static size_t place(const bound *b, size_t rows, size_t otherwise)
{
    double at = b->value;

    if (!b->given)
        return otherwise;
    if (b->percent)
        at = nearbyint(at * (double)rows / 100);
    if (at < 0)
        at = at + (double)rows < 0 ? 0 : at + (double)rows;
    return at < (double)rows ? (size_t)at : rows;
}

dr_status data_split_rows(size_t *from, size_t *end, const char *split, size_t rows)
{
    static const char name[] = "train";
    size_t n = sizeof(name) - 1;
    bound low = {0}, high = {0};
    dr_status st = DR_OK;

    *from = 0;
    *end = rows;
    if (split == NULL || strcmp(split, name) == 0)
        return DR_OK;
    if (strncmp(split, name, n) != 0 || (split[n] != '[' && split[n] != '\0')) {
        st = dr_fail(DR_EUSAGE, "split \"%s\": files have one split, train", split);
        dr_hint("train[90%%:] is the last tenth of its rows, train[:90%%] the rest");
        return st;
    }
    const char *at = split + n + 1;
    bool ok = read_bound(&low, &at) && *at++ == ':' && read_bound(&high, &at) &&
              strcmp(at, "]") == 0;
    if (!ok) {
        st = dr_fail(DR_EUSAGE, "split \"%s\": expected rows such as train[:90%%]", split);
        dr_hint("train[FROM:TO], both in rows or in %%, from the end where negative");
        return st;
    }
    *from = place(&low, rows, 0);
    *end = place(&high, rows, rows);
    *end = *end < *from ? *from : *end;
    return DR_OK;
}
