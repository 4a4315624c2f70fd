/*
 * ranks_check.h - several processes for a test, without MPI: forked, joined by a socket.
 */
#ifndef DRUPE_TESTS_RANKS_CHECK_H
#define DRUPE_TESTS_RANKS_CHECK_H

#include <sys/wait.h>

#include "check.h"
#include "core/ranks.h"

typedef void ranks_body(dr_ranks *r, void *ctx);

static inline void ranks_child(size_t id, size_t count, ranks_body *body, void *ctx)
{
    char text[4200];
    dr_ranks *r = NULL;

    (void)snprintf(text, sizeof(text), "%zu/%zu/%s/ranks", id, count, check_tmp());
    (void)setenv("DRUPE_RANKS", text, 1);
    check_passed = check_failed = 0;
    if (CHECK_OK(dr_ranks_open(&r)))
        body(r, ctx);
    dr_ranks_close(r);
    (void)fflush(stdout);
    _exit(check_failed > 0);
}

/* body in count processes; what fails in one counts here.  It ends by returning, or by
 * _exit: the status of each is in ended[count] (may be NULL; then each must be 0). */
static inline void ranks_run(size_t count, ranks_body *body, void *ctx, int *ended)
{
    pid_t children[16];

    (void)check_tmp();
    (void)fflush(stdout);
    for (size_t i = 0; i < count; i++) {
        children[i] = fork();
        if (children[i] == 0)
            ranks_child(i, count, body, ctx);
    }
    for (size_t i = 0; i < count; i++) {
        int status = -1;
        CHECK(children[i] > 0 && waitpid(children[i], &status, 0) == children[i]);
        status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        if (ended != NULL)
            ended[i] = status;
        else
            CHECK_EQ_INT(status, 0);
    }
}

#endif
