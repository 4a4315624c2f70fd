/*
 * space.c - points of a space, one after the other.
 */
#include <stdint.h>
#include <string.h>

#include "search/search_impl.h"

bool search_active(const search_space *s, const int *point, size_t d)
{
    const search_dim *dim = &s->dims[d];

    return dim->parent < 0 || point[dim->parent] == dim->value;
}

/* The first values of all dimensions from d on. */
static void fill(const search_space *s, int *point, size_t d)
{
    for (; d < s->count; d++)
        point[d] = search_active(s, point, d) ? 0 : -1;
}

void search_first(const search_space *s, int *point)
{
    fill(s, point, 0);
}

bool search_following(const search_space *s, int *point)
{
    for (size_t d = s->count; d-- > 0;) {
        if (point[d] < 0 || point[d] + 1 >= s->dims[d].count)
            continue;
        point[d]++;
        fill(s, point, d + 1);
        return true;
    }
    return false;
}

static size_t times(size_t a, size_t b)
{
    return b != 0 && a > SIZE_MAX / b ? SIZE_MAX : a * b;
}

static size_t plus(size_t a, size_t b)
{
    return a > SIZE_MAX - b ? SIZE_MAX : a + b;
}

/* Choices of dimension d with all that hang on it. */
static size_t size_of(const search_space *s, size_t d)
{
    size_t sum = 0;

    for (int v = 0; v < s->dims[d].count; v++) {
        size_t n = 1;
        for (size_t k = d + 1; k < s->count; k++)
            if (s->dims[k].parent == (int)d && s->dims[k].value == v)
                n = times(n, size_of(s, k));
        sum = plus(sum, n);
    }
    return sum;
}

size_t search_space_size(const search_space *s)
{
    size_t n = 1;

    for (size_t d = 0; d < s->count; d++)
        if (s->dims[d].parent < 0)
            n = times(n, size_of(s, d));
    return n;
}
