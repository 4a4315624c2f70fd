/*
 * optimized_impl.h - passes that begin with the runtime's graph optimizations.
 */
#ifndef DRUPE_PASS_OPTIMIZED_IMPL_H
#define DRUPE_PASS_OPTIMIZED_IMPL_H

#include "ort/ort.h"
#include "pass/rewrite_impl.h"

/* pass_rewrite on what the runtime makes of the graph at a level of ort.h; -1: as it is. */
DR_MUST_USE dr_status pass_optimized(const pass_job *job, pass_model *out,
                                     const pass_model *in, int level,
                                     pass_rewrite_fn change);

#endif
