/*
 * check.h - what a test program is written with.
 *
 *     #include "check.h"
 *     int main(void)
 *     {
 *         CHECK_OK(dr_map_open(&m, path));
 *         CHECK_EQ_INT(m.size, 3);
 *         return check_done();
 *     }
 *
 * A check that fails prints its place and goes on; each yields a bool, so that a test can
 * stop where going on makes no sense.  check_done() prints the last line, `N passed, N
 * failed[, N skipped]`, and is 0 only when nothing failed.  SKIP counts what could not be
 * tried here.  Checks are made from one thread.
 */
#ifndef DRUPE_TESTS_CHECK_H
#define DRUPE_TESTS_CHECK_H

#include <ftw.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/status.h"

static size_t check_passed, check_failed, check_skipped;
static char check_tmp_path[4096]; /* empty until check_tmp() */

#define CHECK(cond)         check_that((cond), __FILE__, __LINE__, #cond)
#define CHECK_EQ_INT(a, b)  check_int((intmax_t)(a), (intmax_t)(b), __FILE__, __LINE__, #a)
#define CHECK_STR(a, b)     check_str((a), (b), __FILE__, __LINE__, #a)
#define CHECK_NEAR(a, b, t) check_near((a), (b), (t), __FILE__, __LINE__, #a)
#define CHECK_MEM(a, b, n)  check_mem((a), (b), (n), __FILE__, __LINE__, #a)
/* The call must come back with DR_OK; the trail is printed when it does not. */
#define CHECK_OK(call) check_status((call), DR_OK, __FILE__, __LINE__, #call)
/* The call must fail with this status. */
#define CHECK_STATUS(call, want) check_status((call), (want), __FILE__, __LINE__, #call)
/* The message, hint or a line of context in the thread's trail contains this text. */
#define CHECK_TRAIL(text) check_trail((text), __FILE__, __LINE__)
#define SKIP(reason)      check_skip((reason), __FILE__, __LINE__)

static inline bool check_that(bool ok, const char *file, int line, const char *what)
{
    if (ok) {
        check_passed++;
        return true;
    }
    check_failed++;
    (void)printf("%s:%d: failed: %s\n", file, line, what);
    return false;
}

static inline bool check_int(intmax_t a, intmax_t b, const char *file, int line,
                             const char *what)
{
    if (check_that(a == b, file, line, what))
        return true;
    (void)printf("  found %" PRIdMAX ", expected %" PRIdMAX "\n", a, b);
    return false;
}

static inline bool check_str(const char *a, const char *b, const char *file, int line,
                             const char *what)
{
    bool same = a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);

    if (check_that(same, file, line, what))
        return true;
    (void)printf("  found    \"%s\"\n  expected \"%s\"\n", a ? a : "(null)",
                 b ? b : "(null)");
    return false;
}

/* Equal infinities are near, a NaN is near nothing. */
static inline bool check_near(double a, double b, double tol, const char *file, int line,
                              const char *what)
{
    bool near = isinf(a) || isinf(b) ? a == b : fabs(a - b) <= tol;

    if (check_that(near, file, line, what))
        return true;
    (void)printf("  found %.9g, expected %.9g within %.3g\n", a, b, tol);
    return false;
}

static inline bool check_mem(const void *a, const void *b, size_t n, const char *file,
                             int line, const char *what)
{
    const unsigned char *p = a, *q = b;
    size_t i = 0;

    while (i < n && p[i] == q[i])
        i++;
    if (check_that(i == n, file, line, what))
        return true;
    (void)printf("  byte %zu of %zu: found %02x, expected %02x\n", i, n, p[i], q[i]);
    return false;
}

static inline void check_print_trail(void)
{
    const dr_trail *t = dr_trail_get();

    for (int i = 0; i < t->count; i++)
        (void)printf("  %s:%d: %s\n", t->frames[i].file, t->frames[i].line,
                     t->frames[i].text);
    if (t->hint[0] != '\0')
        (void)printf("  hint: %s\n", t->hint);
}

static inline bool check_status(dr_status st, dr_status want, const char *file, int line,
                                const char *what)
{
    if (check_that(st == want, file, line, what))
        return true;
    (void)printf("  found status %d (%s), expected %d (%s)\n", (int)st, dr_status_text(st),
                 (int)want, dr_status_text(want));
    if (st != DR_OK)
        check_print_trail();
    return false;
}

static inline bool check_trail(const char *text, const char *file, int line)
{
    const dr_trail *t = dr_trail_get();
    bool found = strstr(t->hint, text) != NULL;

    for (int i = 0; i < t->count && !found; i++)
        found = strstr(t->frames[i].text, text) != NULL;
    if (check_that(found, file, line, text))
        return true;
    (void)printf("  is not in this trail:\n");
    check_print_trail();
    return false;
}

static inline void check_skip(const char *reason, const char *file, int line)
{
    check_skipped++;
    (void)printf("%s:%d: skipped: %s\n", file, line, reason);
}

/* A fresh folder of this program, removed by check_done() when nothing failed. */
static inline const char *check_tmp(void)
{
    const char *base = getenv("TMPDIR");

    if (check_tmp_path[0] != '\0')
        return check_tmp_path;
    (void)snprintf(check_tmp_path, sizeof(check_tmp_path), "%s/drupe-test-XXXXXX",
                   base != NULL && base[0] != '\0' ? base : "/tmp");
    if (mkdtemp(check_tmp_path) == NULL) {
        perror(check_tmp_path);
        exit(2);
    }
    return check_tmp_path;
}

static inline int check_unlink(const char *path, const struct stat *st, int type,
                               struct FTW *walk)
{
    (void)st, (void)type, (void)walk;
    return remove(path);
}

static inline int check_done(void)
{
    if (check_tmp_path[0] != '\0' && check_failed == 0)
        (void)nftw(check_tmp_path, check_unlink, 16, FTW_DEPTH | FTW_PHYS);
    else if (check_tmp_path[0] != '\0')
        (void)printf("kept for a look: %s\n", check_tmp_path);
    (void)printf("%zu passed, %zu failed", check_passed, check_failed);
    if (check_skipped > 0)
        (void)printf(", %zu skipped", check_skipped);
    (void)printf("\n");
    return check_failed == 0 ? 0 : 1;
}

#endif
