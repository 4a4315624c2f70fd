/*
 * option_lines.h - what a test of all options of some passes knows of each of them, and
 * that it has a line for each option and an option for each line.
 */
#ifndef DRUPE_TESTS_OPTION_LINES_H
#define DRUPE_TESTS_OPTION_LINES_H

#include "flow_fixture.h"

/* What is added to a config, without and with the option. */
typedef struct {
    const char *pass; /* NULL: any that has the option */
    const char *name, *without, *with;
    bool seen;
} line;

/* NULL, and a failure: no line says what the option changes. */
static inline line *line_of(line *lines, size_t count, const pass_def *d, const char *name)
{
    line *found = NULL;

    for (size_t i = 0; i < count && found == NULL; i++) {
        if (strcmp(lines[i].name, name) == 0 &&
            (lines[i].pass == NULL || strcmp(lines[i].pass, d->name) == 0))
            found = &lines[i];
    }
    if (!CHECK(found != NULL))
        (void)fprintf(stderr, "%s.%s: no line says what it changes\n", d->name, name);
    return found;
}

static inline void check_all_seen(const line *lines, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!CHECK(lines[i].seen))
            (void)fprintf(stderr, "no pass has %s\n", lines[i].name);
    }
}

#endif
