/*
 * tensor.h - a borrowed, read-only view of an array in memory or in a mapped file.
 */
#ifndef DRUPE_CORE_TENSOR_H
#define DRUPE_CORE_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include "core/dtype.h"

enum { DR_TENSOR_DIMS = 8 };

typedef struct {
    const char *name; /* borrowed */
    dr_dtype dtype;
    int ndim;
    int64_t dims[DR_TENSOR_DIMS]; /* row-major */
    const void *data;             /* borrowed; may be unaligned in a mapped file */
    size_t bytes;
} dr_tensor;

/* Number of elements; the view was checked for overflow when it was made. */
size_t dr_tensor_count(const dr_tensor *t);

#endif
