/*
 * launcher.c - programs that begin workers on other hosts: mpirun and srun.  Which hosts,
 * and how many processes on each, is theirs to say, by their own options and by what is
 * around them (an allocation, a host file).  drupe is no scheduler.
 *
 * The secret goes to the workers in their environment, which mpirun is told to hand on by
 * name (-x; MPICH's hands all on) and srun does by itself; nothing of it is in an argument.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/child.h"
#include "core/file.h"
#include "core/log.h"
#include "core/mem.h"
#include "flow/workers_impl.h"

enum { ARGS_MAX = 16, END_MS = 10000, TERM_MS = 5000, STEP_MS = 20 };

static const char variable[] = "DRUPE_WORKER";

static const char *program_of(const run *r)
{
    return r->w.launcher == WF_MPIRUN ? "mpirun" : "srun";
}

/* Whether PATH has it. */
static bool is_there(const char *program)
{
    const char *path = getenv("PATH");
    char *list = dr_strdup(path != NULL ? path : ""), *rest = NULL;
    dr_arena a = {0};
    bool there = false;

    for (char *dir = strtok_r(list, ":", &rest); dir != NULL && !there;
         dir = strtok_r(NULL, ":", &rest)) {
        const char *file = dr_path_join(&a, dir, program);
        there = dr_is_file(file) && access(file, X_OK) == 0;
    }
    dr_arena_release(&a);
    free(list);
    return there;
}

size_t launcher_workers(const run *r)
{
    const char *tasks = getenv("SLURM_NTASKS"), *job = getenv("SLURM_JOB_ID");

    if (r->w.num_workers > 0 || r->w.launcher != WF_SLURM || job == NULL || tasks == NULL)
        return r->w.num_workers;
    return (size_t)strtoul(tasks, NULL, 10);
}

dr_status launcher_check(const run *r)
{
    const char *program = program_of(r);
    const dr_node *n = r->w.launcher_node;
    dr_status st = DR_OK;

    if (!is_there(program)) {
        st = dr_node_fail(&r->w.doc, n, "no program %s is in PATH", program);
        dr_hint(r->w.launcher == WF_MPIRUN
                    ? "Open MPI or MPICH has it; without it there is the launcher local"
                    : "Slurm's login nodes and jobs have it; without it there is the "
                      "launcher local");
        return st;
    }
    if (launcher_workers(r) == 0)
        return dr_node_fail(&r->w.doc, n, "how many workers %s is to begin: num_workers",
                            program);
    return DR_OK;
}

/* MPICH's, and Intel's, whose arguments are others. */
static bool is_hydra(void)
{
    char text[4096] = "";
    FILE *f = popen("mpirun --version 2>&1 </dev/null", "r");
    const size_t n = f != NULL ? fread(text, 1, sizeof(text) - 1, f) : 0;

    if (f != NULL)
        (void)pclose(f);
    text[n] = '\0';
    return strstr(text, "HYDRA") != NULL || strstr(text, "Intel") != NULL;
}

/* [program, its own arguments, the file's, drupe, "worker", NULL]; arena. */
static const char **arguments(dr_arena *a, const run *r, size_t count)
{
    const char **args =
        dr_arena_alloc(a, ARGS_MAX + r->w.launcher_arg_count, sizeof(*args));
    size_t n = 0;

    args[n++] = program_of(r);
    if (r->w.launcher == WF_MPIRUN) {
        args[n++] = "-n";
        args[n++] = dr_arena_printf(a, "%zu", count);
        if (!is_hydra()) {
            args[n++] = "-x";
            args[n++] = variable;
        }
    } else {
        args[n++] = dr_arena_printf(a, "--ntasks=%zu", count);
        args[n++] = "--export=ALL";
        args[n++] = "--input=none";
        args[n++] = "--kill-on-bad-exit=0"; /* one that dies takes no others along */
        args[n++] = "--wait=0";
        if (getenv("SLURM_STEP_ID") != NULL) /* beside the step that this process is */
            args[n++] = "--overlap";
    }
    for (size_t i = 0; i < r->w.launcher_arg_count; i++)
        args[n++] = r->w.launcher_args[i];
    args[n++] = r->o->program != NULL ? r->o->program : "drupe";
    args[n++] = "worker";
    args[n] = NULL;
    return args;
}

static const char *unless_given(dr_arena *a, const char *name, const char *value)
{
    return getenv(name) != NULL ? NULL : dr_arena_printf(a, "%s=%s", name, value);
}

/* A group of its own: Ctrl-C is for the run, which lets its workers go, whereupon their
 * launcher ends. */
dr_status launcher_start(run *r)
{
    run_workers *all = r->workers;
    dr_arena a = {0};
    /* Open MPI: the others go on when one is killed */
    const char *own[] = {
        dr_arena_printf(&a, "%s=%s@%s", variable, all->secret, all->addresses),
        unless_given(&a, "OMPI_MCA_orte_enable_recovery", "1"),
        unless_given(&a, "OMPI_MCA_orte_abort_on_non_zero_status", "0")};
    const dr_program program = {.argv = arguments(&a, r, all->expected),
                                .envp = dr_environment(&a, own, DR_COUNT(own)),
                                .in = -1,
                                .out =
                                    STDERR_FILENO, /* results alone go to standard output */
                                .err = -1,
                                .death = SIGTERM,
                                .group = true};
    int failed = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_program_begin(&all->launcher, &failed, &program));
    if (failed != 0)
        DR_FAIL(DR_EIO, "%s cannot be run: %s", program.argv[0], strerror(failed));
    dr_log(DR_INFO, "%s is to begin %zu workers", program.argv[0], all->expected);
done:
    dr_arena_release(&a);
    return st;
}

bool launcher_ended(run_workers *all)
{
    if (all->launcher > 0 && waitpid(all->launcher, &all->launcher_status, WNOHANG) != 0)
        all->launcher = 0;
    return all->launcher == 0;
}

static void wait_for(run_workers *all, int ms)
{
    for (int i = 0; i < ms && !launcher_ended(all); i += STEP_MS)
        (void)usleep(STEP_MS * 1000);
}

/* Its workers are gone, so it ends by itself, or does not. */
void launcher_stop(run_workers *all)
{
    const pid_t group = all->launcher;

    if (group == 0)
        return;
    if (all->came == 0) /* it may wait for a place in a queue */
        (void)kill(-group, SIGTERM);
    wait_for(all, END_MS);
    if (all->launcher > 0)
        (void)kill(-group, SIGTERM);
    wait_for(all, TERM_MS);
    if (all->launcher == 0)
        return;
    (void)kill(-group, SIGKILL);
    while (waitpid(group, NULL, 0) < 0 && errno == EINTR)
        ;
    all->launcher = 0;
}
