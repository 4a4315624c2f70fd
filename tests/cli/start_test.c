/*
 * start_test.c - `drupe --help` and a verb's help, from outside: at most 10 ms and 10 MB.
 * The best of 20 runs counts, so that a busy machine does not fail it.
 */
#include "check.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "core/file.h"
#include "core/log.h"

static void run_once(char *const *argv, double *seconds, long *kilobytes)
{
    struct rusage use = {0};
    int status = -1;

    double start = dr_now_s();
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        (void)dup2(null, STDOUT_FILENO);
        (void)execv(argv[0], argv);
        _exit(127);
    }
    CHECK(pid > 0 && wait4(pid, &status, 0, &use) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    *seconds = dr_now_s() - start;
    *kilobytes = use.ru_maxrss;
}

static void measure(char *const *argv)
{
    double best = 1e9, seconds = 0;
    long least = 1L << 40, kilobytes = 0;

    for (int i = 0; i < 20; i++) {
        run_once(argv, &seconds, &kilobytes);
        best = seconds < best ? seconds : best;
        least = kilobytes < least ? kilobytes : least;
    }
    (void)printf("%s %s: %.1f ms, %.1f MB\n", dr_path_base(argv[0]), argv[1], best * 1e3,
                 (double)least / 1024);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CHECK(best <= 0.010);
    CHECK(least <= 10 * 1024);
#endif
}

int main(void)
{
    char program[] = DRUPE_PROGRAM, help[] = "--help", verb[] = "finetune";
    char *const whole[] = {program, help, NULL}, *const one[] = {program, verb, help, NULL};

    measure(whole);
    measure(one);
    return check_done();
}
