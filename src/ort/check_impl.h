/*
 * check_impl.h - the check's two halves: check.c minds a child process, check_child.c is
 * what the child does.
 */
#ifndef DRUPE_ORT_CHECK_IMPL_H
#define DRUPE_ORT_CHECK_IMPL_H

#include "ort/ort.h"

/*
 * Work for a child process: run(request) there; what it finds beyond a status lies in
 * memory that both share.  *runtime is false when it fails for want of a runtime.
 */
typedef struct {
    const char *what; /* the file or folder, for messages */
    dr_status (*run)(const void *request, bool *runtime);
    const void *request;
    double timeout_s; /* 0: 120 */
} check_job;
DR_MUST_USE dr_status check_in_child(ort_check_result *out, const check_job *job);

/* request: ort_check_request. */
DR_MUST_USE dr_status check_folder(const void *request, bool *runtime);

#endif
