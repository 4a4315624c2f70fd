/*
 * text_inputs_impl.h - what a graph over text is given: ids, a mask, positions, an empty
 * cache.
 */
#ifndef DRUPE_ORT_TEXT_INPUTS_IMPL_H
#define DRUPE_ORT_TEXT_INPUTS_IMPL_H

#include "ort/ort.h"

typedef struct {
    const char *path; /* of the model, for messages */
    ort_value *list;  /* arena */
    size_t count;
} text_inputs;

/* DR_EUNSUPPORTED: an input of another kind or of a fixed shape, by name. */
DR_MUST_USE dr_status text_inputs_read(text_inputs *t, dr_arena *a, const ort_session *s,
                                       const char *path);
/* For one run of this text; data in a. */
DR_MUST_USE dr_status text_inputs_fill(text_inputs *t, dr_arena *a, const ort_text *text);

#endif
