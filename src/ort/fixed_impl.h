/*
 * fixed_impl.h - what parent and child agree on about models of fixed shapes.
 */
#ifndef DRUPE_ORT_FIXED_IMPL_H
#define DRUPE_ORT_FIXED_IMPL_H

#include "ort/ort.h"

/* What the child is to do; the members after the names point into shared memory. */
typedef struct {
    const ort_fixed_request *request;
    const ort_fixed_model *other; /* NULL: ranges */
    const char *const *names;
    size_t name_count;
    float *least, *largest;   /* [name_count] */
    ort_fixed_result *result; /* compare */
} fixed_job;

/* job: fixed_job. */
DR_MUST_USE dr_status fixed_run(const void *job, bool *runtime);

#endif
