/*
 * splits_impl.h - how a model is split: what CaptureSplitInfo says to exports and to
 * SplitModel, as a member of Olive's model_attributes and as metadata of a graph.
 */
#ifndef DRUPE_PASS_SPLITS_IMPL_H
#define DRUPE_PASS_SPLITS_IMPL_H

#include "core/arena.h"
#include "core/status.h"

/* "NAME=0;NAME2=1" of {"NAME": 0, "NAME2": 1}; what: whose, for messages. */
DR_MUST_USE dr_status pass_splits_text(const char **out, dr_arena *a, const char *json,
                                       const char *what);
/* That of a model's attributes; *out stays NULL where there is none. */
DR_MUST_USE dr_status pass_read_splits(const char **out, dr_arena *a,
                                       const char *attributes);

#endif
