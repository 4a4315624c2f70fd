/*
 * replay.c - FOLDER: gives every file of a corpus to a fuzz target once, without a fuzzer,
 * so that what once crashed is tried by plain ctest.
 *
 * Each file has a process of its own: a crash is a failed check that names the file, and
 * the others are still tried.  fuzz_begin's time and 1 GiB are the limits.
 */
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "check.h"
#include "fuzz/fuzz.h"

enum { CORPUS_MIN = 8 };
static const long memory_max_kb = 1L << 20;

static void run_one(const char *path)
{
    dr_buf b;

    dr_buf_init(&b, (size_t)16 << 20);
    if (dr_read_file(&b, path) != DR_OK)
        exit(2);
    (void)LLVMFuzzerTestOneInput((const uint8_t *)b.data, b.len);
    dr_buf_release(&b);
    exit(0);
}

static void replay(const char *path)
{
    struct rusage used = {0};
    int status = 0;

    (void)fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        (void)alarm(300);
        run_one(path);
    }
    if (!CHECK(child > 0 && wait4(child, &status, 0, &used) == child))
        return;
    bool ok = CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    ok = CHECK(used.ru_maxrss < memory_max_kb) && ok;
    if (!ok)
        (void)printf("  %s: status %d, %ld.%06ld s, %ld kB\n", path, status,
                     (long)used.ru_utime.tv_sec, (long)used.ru_utime.tv_usec,
                     used.ru_maxrss);
}

int main(int argc, char **argv)
{
    dr_arena a = {0};
    char **names = NULL;
    size_t n = 0;

    if (argc != 2) {
        (void)fprintf(stderr, "usage: replay FOLDER\n");
        return 2;
    }
    CHECK_OK(dr_list_dir(&a, argv[1], &names, &n));
    CHECK(n >= CORPUS_MIN);
    for (size_t i = 0; i < n; i++)
        replay(dr_path_join(&a, argv[1], names[i]));
    dr_arena_release(&a);
    return check_done();
}
