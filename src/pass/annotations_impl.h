/*
 * annotations_impl.h - what CaptureLayerAnnotations said, written into a graph.
 */
#ifndef DRUPE_PASS_ANNOTATIONS_IMPL_H
#define DRUPE_PASS_ANNOTATIONS_IMPL_H

#include "onnx/onnx.h"
#include "pass/pass.h"

#define PASS_ANNOTATIONS "layer_annotations" /* the member of model_attributes */

/* Into dir/model.onnx, where the attributes (or NULL) have some. */
DR_MUST_USE dr_status pass_annotate(const pass_job *job, const char *dir,
                                    const char *attributes);

#endif
