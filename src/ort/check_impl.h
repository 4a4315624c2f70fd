/*
 * check_impl.h - the check's two halves: check.c minds a child process, check_child.c is
 * what the child does.
 */
#ifndef DRUPE_ORT_CHECK_IMPL_H
#define DRUPE_ORT_CHECK_IMPL_H

#include "ort/ort.h"

/* *runtime is false when the failure is that there is no runtime to check with. */
DR_MUST_USE dr_status check_folder(const ort_check_request *request, bool *runtime);

#endif
