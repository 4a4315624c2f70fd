/*
 * child.h - another program as a child process: begun and no more.  Who begins it reads
 * what it prints, waits for it (waitpid) and judges its end.
 */
#ifndef DRUPE_CORE_CHILD_H
#define DRUPE_CORE_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

#include "core/arena.h"
#include "core/status.h"

typedef struct {
    const char *const *argv; /* NULL at its end; looked for in PATH where it has no '/' */
    const char *const *envp; /* NULL at its end; NULL: this process's */
    const char *dir;         /* where it runs; NULL: here */
    int in, out, err;        /* descriptors; -1: nothing to read, this process's output */
    int death;               /* the signal that it gets when this process ends; 0: none */
    bool group;              /* in a process group of its own, whose number is its own */
} dr_program;

/*
 * *pid: it runs.  Where it cannot be (no such file, not executable, no such folder) *pid is
 * 0 and *failed an errno, for the caller to say.  DR_EIO: no process, no pipe.
 */
DR_MUST_USE dr_status dr_program_begin(pid_t *pid, int *failed, const dr_program *p);

/* This process's environment with own[count] ("NAME=value"; NULLs are skipped) in place of
 * what has the same names; arena. */
const char *const *dr_environment(dr_arena *a, const char *const *own, size_t count);

#endif
