/*
 * child_test.c - programs as child processes: what they are given arrives, and what keeps
 * them from being run comes back.
 */
#include "core/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "core/file.h"

/* What it prints, and its status. */
static int output_of(dr_buf *out, dr_program *p)
{
    int ends[2], failed = -1, status = -1;
    char text[256];
    pid_t pid = 0;
    ssize_t n;

    CHECK_EQ_INT(pipe2(ends, O_CLOEXEC), 0);
    p->out = ends[1];
    CHECK_OK(dr_program_begin(&pid, &failed, p));
    (void)close(ends[1]);
    CHECK_EQ_INT(failed, 0);
    while ((n = read(ends[0], text, sizeof(text))) > 0)
        CHECK_OK(dr_buf_add(out, text, (size_t)n));
    (void)close(ends[0]);
    CHECK_EQ_INT(waitpid(pid, &status, 0), pid);
    return status;
}

/* Descriptors, folder and environment. */
static void test_given(void)
{
    static const char *const argv[] = {
        "sh", "-c", "read x; echo \"$x $DRUPE_A $DRUPE_B $(pwd)\"; echo no >&2; exit 3",
        NULL};
    static const char *const own[] = {"DRUPE_A=new", NULL, "DRUPE_B=b c"};
    dr_arena a = {0};
    int ends[2];
    dr_buf out;

    dr_buf_init(&out, 1024);
    CHECK_EQ_INT(setenv("DRUPE_A", "old", 1), 0);
    CHECK_EQ_INT(pipe2(ends, O_CLOEXEC), 0);
    CHECK_EQ_INT(write(ends[1], "in\n", 3), 3);
    (void)close(ends[1]);
    const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    dr_program p = {.argv = argv,
                    .envp = dr_environment(&a, own, DR_COUNT(own)),
                    .dir = "/",
                    .in = ends[0],
                    .err = null,
                    .death = SIGKILL};
    const int status = output_of(&out, &p);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3);
    CHECK_STR(out.data, "in new b c /\n");
    CHECK_STR(getenv("DRUPE_A"), "old");
    (void)close(ends[0]);
    (void)close(null);
    dr_buf_release(&out);
    dr_arena_release(&a);
}

/* Without an input there is nothing to read; a group has its own number. */
static void test_group(void)
{
    static const char *const argv[] = {"sh", "-c", "cat; kill -0 -$$ && echo own", NULL};
    dr_program p = {.argv = argv, .in = -1, .err = -1, .group = true};
    dr_buf out;

    dr_buf_init(&out, 1024);
    CHECK_EQ_INT(output_of(&out, &p), 0);
    CHECK_STR(out.data, "own\n");
    dr_buf_release(&out);
}

/* Nothing is left where it cannot be run. */
static void test_refused(void)
{
    static const char *const none[] = {"drupe-has-no-such-program", NULL};
    static const char *const folder[] = {"/", NULL}, *const sh[] = {"sh", NULL};
    dr_program p = {.argv = none, .in = -1, .out = -1, .err = -1};
    pid_t pid = 1;
    int failed = 0;

    CHECK_OK(dr_program_begin(&pid, &failed, &p));
    CHECK(pid == 0 && failed == ENOENT);
    p.argv = folder;
    CHECK_OK(dr_program_begin(&pid, &failed, &p));
    CHECK(pid == 0 && failed == EACCES);
    p.argv = sh;
    p.dir = "/drupe/has/no/such/folder";
    CHECK_OK(dr_program_begin(&pid, &failed, &p));
    CHECK(pid == 0 && failed == ENOENT);
    CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
}

int main(void)
{
    test_given();
    test_group();
    test_refused();
    return check_done();
}
