/*
 * child.c - fork and exec.
 *
 * Between the two the child calls nothing that takes a lock: other threads, which held
 * some, do not exist in it.  What keeps the program from being run comes back through a
 * pipe that exec closes.
 */
#include "core/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#ifdef __linux__
#    include <sys/prctl.h>
#endif
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static char **writable(const char *const *list)
{
    return (char **)(uintptr_t)list;
}

/* Descriptors of the three that are given, standard ones in their places. */
static bool place_ends(const dr_program *p)
{
    const int null = p->in < 0 ? open("/dev/null", O_RDONLY) : -1;

    if (p->in >= 0 && dup2(p->in, STDIN_FILENO) < 0)
        return false;
    if (null >= 0)
        (void)dup2(null, STDIN_FILENO);
    return (p->out < 0 || dup2(p->out, STDOUT_FILENO) >= 0) &&
           (p->err < 0 || dup2(p->err, STDERR_FILENO) >= 0);
}

static DR_NORETURN void become(const dr_program *p, int why, pid_t parent)
{
    int failed = ECHILD;

    if (p->group)
        (void)setpgid(0, 0);
#ifdef __linux__ /* elsewhere it lives until its own end */
    if (p->death != 0)
        (void)prctl(PR_SET_PDEATHSIG, p->death);
#endif
    if (p->death == 0 || getppid() == parent) {
        if (p->envp != NULL)
            environ = writable(p->envp);
        if (place_ends(p) && (p->dir == NULL || chdir(p->dir) == 0))
            (void)execvp(p->argv[0], writable(p->argv));
        failed = errno;
    }
    (void)!write(why, &failed, sizeof(failed));
    for (;;) /* without what a library arranged for the end of this process */
        (void)raise(SIGKILL);
}

/* No handler of ours runs in the child. */
static pid_t fork_child(const dr_program *p, int why)
{
    const pid_t parent = getpid();
    sigset_t all, had;

    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, &had);
    const pid_t pid = fork();
    if (pid == 0) {
        (void)signal(SIGINT, SIG_DFL);
        (void)signal(SIGTERM, SIG_DFL);
        (void)signal(SIGPIPE, SIG_DFL);
        (void)sigprocmask(SIG_SETMASK, &had, NULL);
        become(p, why, parent);
    }
    (void)sigprocmask(SIG_SETMASK, &had, NULL);
    return pid;
}

static void wait_for(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
}

dr_status dr_program_begin(pid_t *pid, int *failed, const dr_program *p)
{
    int why[2] = {-1, -1};
    dr_status st = DR_OK;

    *pid = 0;
    *failed = 0;
    if (pipe2(why, O_CLOEXEC) != 0)
        DR_FAIL(DR_EIO, "%s: no pipe: %s", p->argv[0], strerror(errno));
    *pid = fork_child(p, why[1]);
    if (*pid < 0) {
        *pid = 0;
        DR_FAIL(DR_EIO, "%s: no process: %s", p->argv[0], strerror(errno));
    }
    if (p->group)
        (void)setpgid(*pid, *pid); /* both sides: whoever comes first */
    (void)close(why[1]);
    why[1] = -1;
    ssize_t n;
    while ((n = read(why[0], failed, sizeof(*failed))) < 0 && errno == EINTR)
        continue;
    if (n == (ssize_t)sizeof(*failed)) {
        wait_for(*pid);
        *pid = 0;
    }
done:
    for (int i = 0; i < 2; i++)
        if (why[i] >= 0)
            (void)close(why[i]);
    return st;
}

static bool same_name(const char *entry, const char *own)
{
    const size_t n = strcspn(own, "=");

    return strncmp(entry, own, n) == 0 && entry[n] == '=';
}

const char *const *dr_environment(dr_arena *a, const char *const *own, size_t count)
{
    size_t had = 0, n = 0;

    while (environ[had] != NULL)
        had++;
    const char **all = dr_arena_alloc(a, had + count + 1, sizeof(*all));
    for (size_t i = 0; i < had; i++) {
        bool replaced = false;
        for (size_t k = 0; k < count; k++)
            replaced = replaced || (own[k] != NULL && same_name(environ[i], own[k]));
        if (!replaced)
            all[n++] = environ[i];
    }
    for (size_t k = 0; k < count; k++)
        if (own[k] != NULL)
            all[n++] = own[k];
    all[n] = NULL;
    return all;
}
