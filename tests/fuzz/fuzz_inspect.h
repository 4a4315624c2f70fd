/*
 * fuzz_inspect.h - `drupe inspect` of a file or folder of a fuzz target.
 */
#ifndef DRUPE_TESTS_FUZZ_INSPECT_H
#define DRUPE_TESTS_FUZZ_INSPECT_H

#include "drupe/drupe.h"
#include "fuzz/fuzz.h"

static inline void fuzz_inspect(const char *path)
{
    drupe_result *r = NULL;

    if (drupe_inspect(&r, path) == DRUPE_OK)
        drupe_result_free(r);
}

#endif
