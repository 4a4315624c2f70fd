/*
 * builtin_impl.h - the text in the program: files of src/data/text, in order of name.  Even
 * numbers calibrate, odd ones judge; neighbours are of one kind.
 */
#ifndef DRUPE_DATA_BUILTIN_IMPL_H
#define DRUPE_DATA_BUILTIN_IMPL_H

#include "data/data.h"

typedef struct {
    const char *name; /* "00-narrative.txt" */
    const char *text;
    size_t bytes;
} data_builtin_text;

extern const data_builtin_text data_builtin_texts[];
extern const size_t data_builtin_count;

/* The calibrating half, or the half that judges, as one text a file. */
void data_load_builtin(dr_arena *a, data_texts *out, bool held_out);

#endif
