/*
 * module_impl.h - what passes between nn and a backend that comes as a library.
 *
 * The library has one symbol, NN_MODULE_SYMBOL, an nn_module_fn.  It is given what it needs
 * of core, and gives its backends; both sides look at abi and backend_bytes first, so that
 * a library of another build is refused and not called.
 */
#ifndef DRUPE_NN_MODULE_IMPL_H
#define DRUPE_NN_MODULE_IMPL_H

#include "core/log.h"
#include "nn/nn_impl.h"

#define NN_MODULE_SYMBOL "drupe_cuda_module"

enum { NN_MODULE_ABI = 12 }; /* raise it when this file, nn_impl.h or a list changes */

/* Functions of core, as core's headers have them. */
typedef struct {
    int abi;
    size_t backend_bytes; /* sizeof(nn_backend) */
    dr_status (*fail_at)(const char *file, int line, dr_status st, const char *fmt, ...)
        DR_PRINTF(4, 5);
    void (*hint)(const char *fmt, ...) DR_PRINTF(1, 2);
    void (*note_at)(const char *file, int line, const char *fmt, ...) DR_PRINTF(3, 4);
    const dr_trail *(*trail_get)(void);
    void (*trail_set)(const dr_trail *trail);
    void (*log)(dr_level level, const char *fmt, ...) DR_PRINTF(2, 3);
    void (*bug_at)(const char *file, int line, const char *condition) DR_NORETURN;
    void *(*calloc_)(size_t count, size_t size);
    dr_status (*cancelled_check)(void);
    dr_status (*pool_run)(dr_pool *pool, size_t tasks, dr_task_fn fn, void *ctx);
    dr_status (*ranks_check)(const dr_ranks *r, const char *what);
    int (*pool_threads)(const dr_pool *pool);
} nn_module_host;

typedef struct {
    int abi;
    size_t backend_bytes;
    size_t count;
    const nn_backend *const *backends;
} nn_module;

/* NULL: the host's abi is another. */
typedef const nn_module *nn_module_fn(const nn_module_host *host);

/* The backend of that name from the library beside the program, loaded once.
 * DR_EUNSUPPORTED: it is not here, cannot be loaded, or is of another build. */
DR_MUST_USE dr_status nn_module_backend(const nn_backend **out, const char *kind);

#endif
