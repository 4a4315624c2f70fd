/*
 * check_impl.h - the check's two halves: check.c minds a child process, check_child.c is
 * what the child does.
 */
#ifndef DRUPE_ORT_CHECK_IMPL_H
#define DRUPE_ORT_CHECK_IMPL_H

#include <sys/types.h>

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

/* Memory that parent and child share. */
DR_MUST_USE dr_status check_share(void **out, size_t bytes);
void check_unshare(void *p, size_t bytes); /* NULL is fine */

/* The same in two steps, for a child that hands over what it finds as it goes. */
typedef struct {
    pid_t pid; /* 0: it is gone */
    int report_fd, words_fd;
    double start_s, limit_s;
} check_child;
DR_MUST_USE dr_status check_start(check_child *c, const check_job *job);
/* Whether it has reported or is gone: check_finish will not wait long. */
bool check_ended(const check_child *c);
/* Waits for its end, at most till start_s + limit_s.  Once. */
DR_MUST_USE dr_status check_finish(ort_check_result *out, check_child *c,
                                   const check_job *job);
void check_kill(check_child *c); /* harmless after check_finish */

/* request: ort_check_request. */
DR_MUST_USE dr_status check_folder(const void *request, bool *runtime);

#endif
