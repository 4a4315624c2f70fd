/*
 * parts_impl.h - models in parts: several graphs in one folder, one after the other.
 */
#ifndef DRUPE_PASS_PARTS_IMPL_H
#define DRUPE_PASS_PARTS_IMPL_H

#include "pass/rewrite_impl.h"

/* External files of what was saved, from beside the graph that was opened. */
DR_MUST_USE dr_status pass_place_external(const pass_job *job, const char *dir,
                                          const char *graph, const onnx_edit *e);
/* The same for a graph that the runtime alone reads, and that goes again: by hard links. */
DR_MUST_USE dr_status pass_link_external(const pass_job *job, const char *dir,
                                         const char *graph, const onnx_edit *e);
/* The graphs (the list ends with NULL) loaded and run in the runtime, in order; parts NULL:
 * what GenAI runs, else model.onnx. */
DR_MUST_USE dr_status pass_check_parts(const pass_job *job, const char *dir,
                                       const char *const *parts);

#endif
