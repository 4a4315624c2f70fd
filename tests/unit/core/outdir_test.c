/*
 * outdir_test.c - output folders are whole or absent, whatever fails and whenever the
 * process dies.
 *
 * The program starts itself: `outdir_test commit X t` builds a folder whose every byte is
 * the letter t and commits it to X.  The parent orders a fault at the 1st, 2nd, ... file
 * operation (DR_FAULT=kill:n, io:n) until the child gets through, and looks at X after
 * each.  `hold X t` stops before the commit until its stdin ends; `open X t` gives up.
 *
 * renameat2 is replaced below, so that file systems without an exchange are tried too.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "core/file.h"
#include "core/json.h"

enum { WEIGHT_BYTES = 3 << 19, EXIT_BUSY = 4, EXIT_FAILED = 3 };

static dr_arena arena;

#ifdef __linux__
int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    if (getenv("TEST_NO_EXCHANGE") != NULL) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
}
#endif

static const char *at(const char *name)
{
    return dr_path_join(&arena, check_tmp(), name);
}

/* ---- the child ---- */

static dr_status fill(const char *dir, char letter)
{
    unsigned char *weights = malloc(WEIGHT_BYTES);
    char tag[2] = {letter, '\0'};
    dr_writer w = {0};
    json_t *meta = json_pack("{s:s}", "tag", tag);
    dr_status st = DR_OK;

    memset(weights, letter, WEIGHT_BYTES);
    DR_TRY(dr_json_write(dr_path_join(&arena, dir, "drupe.json"), meta));
    DR_TRY(dr_make_dirs(dr_path_join(&arena, dir, "sub/deep")));
    DR_TRY(dr_writer_open(&w, dr_path_join(&arena, dir, "sub/weights.bin")));
    DR_TRY(dr_writer_add(&w, weights, WEIGHT_BYTES));
    DR_TRY(dr_writer_finish(&w));
    DR_TRY(dr_place_file(dr_path_join(&arena, dir, "sub/deep/linked"),
                         dr_path_join(&arena, dir, "sub/weights.bin"), NULL));
    DR_TRY(dr_copy_file(dr_path_join(&arena, dir, "copied"),
                        dr_path_join(&arena, dir, "drupe.json")));
done:
    dr_writer_close(&w);
    json_decref(meta);
    free(weights);
    return st;
}

static int child(const char *what, const char *path, char letter)
{
    dr_outdir *o = NULL;
    char c;
    dr_status st = DR_OK;

    DR_TRY(dr_outdir_open(&o, path));
    if (strcmp(what, "open") == 0)
        goto done;
    DR_TRY(fill(dr_outdir_tmp(o), letter));
    if (strcmp(what, "hold") == 0) {
        (void)!write(STDOUT_FILENO, "r", 1);
        (void)!read(STDIN_FILENO, &c, 1);
    }
    DR_TRY(dr_outdir_commit(o));
done:
    dr_outdir_close(o);
    dr_arena_release(&arena);
    if (st != DR_OK && strstr(dr_trail_get()->frames[0].text, "another run") != NULL)
        return EXIT_BUSY;
    return st == DR_OK ? 0 : EXIT_FAILED;
}

static pid_t start(const char *what, const char *path, const char *letter,
                   const char *fault, int in_fd, int out_fd)
{
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    if (fault != NULL)
        (void)setenv("DR_FAULT", fault, 1);
    if (in_fd >= 0)
        (void)dup2(in_fd, STDIN_FILENO);
    if (out_fd >= 0)
        (void)dup2(out_fd, STDOUT_FILENO);
    (void)execl("/proc/self/exe", "outdir_test", what, path, letter, (char *)NULL);
    _exit(127);
}

/* The exit code, or -1 when a signal ended it. */
static int finish(pid_t pid)
{
    int status = 0;

    if (waitpid(pid, &status, 0) != pid)
        return 126;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run(const char *what, const char *path, const char *letter, const char *fault)
{
    return finish(start(what, path, letter, fault, -1, -1));
}

/* ---- looking at X ---- */

static bool all_letter(const char *path, char letter)
{
    dr_map m = {0};
    bool same = dr_map_open(&m, path) == DR_OK && m.size == WEIGHT_BYTES;

    for (size_t i = 0; same && i < m.size; i++)
        same = m.data[i] == (unsigned char)letter;
    dr_map_close(&m);
    return same;
}

/* The letter of a whole folder, '-' when it is absent, '?' when it is anything else. */
static char state_of(const char *path)
{
    json_t *meta = NULL;
    const char *tag = "?";
    char **names = NULL;
    size_t count = 0;

    if (!dr_exists(path))
        return '-';
    if (dr_json_read(&meta, dr_path_join(&arena, path, "drupe.json")) != DR_OK ||
        dr_json_str(meta, "tag", &tag, "drupe.json") != DR_OK)
        tag = "?";
    char letter = tag[0];
    json_decref(meta);
    if (dr_list_dir(&arena, path, &names, &count) != DR_OK || count != 3 ||
        !all_letter(dr_path_join(&arena, path, "sub/weights.bin"), letter) ||
        !all_letter(dr_path_join(&arena, path, "sub/deep/linked"), letter) ||
        !dr_is_file(dr_path_join(&arena, path, "copied")))
        return '?';
    return letter;
}

/* Nothing but X (or not even that) is in its folder. */
static bool alone(const char *dir, size_t want)
{
    char **names = NULL;
    size_t count = 0;

    return dr_list_dir(&arena, dir, &names, &count) == DR_OK && count == want;
}

/* ---- tests ---- */

static void test_open(void)
{
    dr_outdir *o = NULL, *other = NULL;

    CHECK_OK(dr_outdir_open(&o, at("parents/are/made//")));
    CHECK_STR(dr_outdir_tmp(o), at("parents/are/made.tmp"));
    CHECK(dr_is_dir(dr_outdir_tmp(o)));
    CHECK_STATUS(dr_outdir_open(&other, at("parents/are/made")), DR_EIO);
    CHECK_TRAIL("another run writes to ");
    CHECK(other == NULL);
    CHECK_OK(fill(dr_outdir_tmp(o), 'a'));
    dr_outdir_close(o); /* discarded */
    CHECK(alone(at("parents/are"), 0));
    dr_outdir_close(NULL);

    CHECK_OK(dr_make_dirs(at("is-empty")));
    CHECK_OK(dr_outdir_open(&o, at("is-empty")));
    CHECK_OK(fill(dr_outdir_tmp(o), 'e'));
    CHECK_OK(dr_outdir_commit(o));
    dr_outdir_close(o);
    CHECK_EQ_INT(state_of(at("is-empty")), 'e');
}

static void refused(const char *path, const char *message)
{
    dr_outdir *o = NULL;

    CHECK_STATUS(dr_outdir_open(&o, path), DR_EUSAGE);
    CHECK_TRAIL(message);
    CHECK(o == NULL);
}

static void test_refused(void)
{
    dr_outdir *o = NULL;

    CHECK_OK(dr_make_dirs(at("foreign")));
    CHECK_OK(dr_write_file(at("foreign/thesis.tex"), "x", 1));
    refused(at("foreign"), "not made by drupe: it holds thesis.tex only");
    CHECK_TRAIL("choose another output folder");
    CHECK_OK(dr_write_file(at("foreign/more"), "x", 1));
    refused(at("foreign/"), "it holds more and more, and no drupe.json");
    CHECK(!dr_exists(at("foreign.tmp")));
    CHECK(dr_is_file(at("foreign/thesis.tex")));
    refused(at("foreign/more"), "is a file");
    refused(".", "cannot be replaced");
    refused(at(".."), "cannot be replaced");
    refused("/", "cannot be replaced");
    refused("", "cannot be replaced");

    /* X becomes a user's folder while the run works: it is not taken away. */
    CHECK_OK(dr_outdir_open(&o, at("late")));
    CHECK_OK(fill(dr_outdir_tmp(o), 'l'));
    CHECK_OK(dr_make_dirs(at("late")));
    CHECK_OK(dr_write_file(at("late/thesis.tex"), "x", 1));
    CHECK_STATUS(dr_outdir_commit(o), DR_EUSAGE);
    dr_outdir_close(o);
    CHECK(dr_is_file(at("late/thesis.tex")));

    CHECK_OK(dr_write_file(at("tmpfile.tmp"), "x", 1));
    CHECK_STATUS(dr_outdir_open(&o, at("tmpfile")), DR_EIO);
    CHECK_TRAIL("tmpfile.tmp: cannot open the folder");
}

static void test_link(void)
{
    struct stat sb;

    CHECK_OK(dr_make_dirs(at("real")));
    CHECK(symlink("real", at("named")) == 0);
    CHECK_EQ_INT(run("commit", at("named/"), "n", NULL), 0);
    CHECK(lstat(at("named"), &sb) == 0 && S_ISLNK(sb.st_mode));
    CHECK_EQ_INT(state_of(at("real")), 'n');
    CHECK(!dr_exists(at("real.tmp")) && !dr_exists(at("named.tmp")));
}

static void test_leftover(void)
{
    dr_outdir *o = NULL;

    CHECK_OK(dr_make_dirs(at("left/x.tmp/half")));
    CHECK_OK(dr_write_file(at("left/x.tmp/half/a"), "x", 1));
    CHECK_OK(dr_outdir_open(&o, at("left/x")));
    CHECK(alone(dr_outdir_tmp(o), 0));
    dr_outdir_close(o);
    CHECK(alone(at("left"), 0));
}

static void test_two(void)
{
    int to[2], from[2];
    char c = 0;
    dr_outdir *o = NULL;

    CHECK(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
    pid_t pid = start("hold", at("two/x"), "h", NULL, to[0], from[1]);
    CHECK(read(from[0], &c, 1) == 1);
    CHECK_EQ_INT(run("commit", at("two/x"), "b", NULL), EXIT_BUSY);
    CHECK_STATUS(dr_outdir_open(&o, at("two/x")), DR_EIO);
    CHECK_EQ_INT(state_of(at("two/x")), '-');
    (void)close(to[1]);
    CHECK_EQ_INT(finish(pid), 0);
    CHECK_EQ_INT(state_of(at("two/x")), 'h');
    CHECK_EQ_INT(run("commit", at("two/x"), "b", NULL), 0);
    CHECK_EQ_INT(state_of(at("two/x")), 'b');
    CHECK(alone(at("two"), 1));
    (void)close(to[0]);
    (void)close(from[0]);
    (void)close(from[1]);
}

/* Many runs at once: each commits or is told that another is busy. */
static void test_crowd(void)
{
    enum { RUNS = 6, TURNS = 8 };
    pid_t pids[RUNS];
    int done = 0, busy = 0, wrong = 0;

    for (int turn = 0; turn < TURNS; turn++) {
        for (int i = 0; i < RUNS; i++) {
            const char letter[2] = {(char)('a' + i), '\0'};
            pids[i] = start("commit", at("crowd/x"), letter, NULL, -1, -1);
        }
        for (int i = 0; i < RUNS; i++) {
            int code = finish(pids[i]);
            done += code == 0;
            busy += code == EXIT_BUSY;
            wrong += code != 0 && code != EXIT_BUSY;
        }
        char s = state_of(at("crowd/x"));
        CHECK(s >= 'a' && s < 'a' + RUNS);
        CHECK(alone(at("crowd"), 1));
    }
    CHECK_EQ_INT(wrong, 0);
    CHECK(done >= TURNS);
    CHECK_EQ_INT(done + busy, RUNS * TURNS);
}

/* What lies in the way of the run: nothing, or a folder committed before. */
static void prepare(bool old)
{
    CHECK_OK(dr_remove_tree(at("fault")));
    CHECK_OK(dr_make_dirs(at("fault")));
    if (old)
        CHECK_EQ_INT(run("commit", at("fault/x"), "o", NULL), 0);
}

static bool old_or_new(char state, bool old)
{
    return state == 'n' || state == (old ? 'o' : '-');
}

/* A kill at each operation; returns how many operations a run has. */
static int test_kill(bool old, bool exchange)
{
    int n = 1, code = -1, away_seen = 0;
    char fault[32];

    for (; n < 1000; n++) {
        prepare(old);
        (void)snprintf(fault, sizeof(fault), "kill:%d", n);
        code = run("commit", at("fault/x"), "n", fault);
        if (code == 0)
            break;
        CHECK_EQ_INT(code, -1);
        char s = state_of(at("fault/x"));
        bool away = !exchange && old && s == '-' && dr_exists(at("fault/x.tmp.old"));
        away_seen += away;
        if (!old_or_new(s, old) && !away) {
            (void)printf("killed at %d: %c\n", n, s);
            CHECK(old_or_new(s, old));
        }
        CHECK_EQ_INT(run("open", at("fault/x"), "-", NULL), 0); /* restores, clears away */
        char after = state_of(at("fault/x"));
        CHECK(away ? after == 'o' : after == s);
        CHECK(alone(at("fault"), after == '-' ? 0 : 1));
        CHECK_EQ_INT(run("commit", at("fault/x"), "m", NULL), 0);
        CHECK_EQ_INT(state_of(at("fault/x")), 'm');
        CHECK(alone(at("fault"), 1));
    }
    CHECK_EQ_INT(code, 0);
    CHECK_EQ_INT(state_of(at("fault/x")), 'n');
    CHECK(n > 30);                                 /* the operations are counted at all */
    CHECK_EQ_INT(away_seen > 0, !exchange && old); /* the second way was really gone */
    return n;
}

/* An error at each operation: the run says so or did without, and leaves no half folder. */
static void test_error(bool old, int count)
{
    char fault[32];
    int failed = 0;

    for (int n = 1; n <= count; n++) {
        prepare(old);
        (void)snprintf(fault, sizeof(fault), "io:%d", n);
        int code = run("commit", at("fault/x"), "n", fault);
        char s = state_of(at("fault/x"));
        failed += code == EXIT_FAILED;
        if ((code != 0 && code != EXIT_FAILED) || !old_or_new(s, old) ||
            (code == 0 && s != 'n')) {
            (void)printf("error at %d: exit %d, state %c\n", n, code, s);
            CHECK_EQ_INT(n, -1);
        }
        CHECK_EQ_INT(run("commit", at("fault/x"), "m", NULL), 0);
        CHECK_EQ_INT(state_of(at("fault/x")), 'm');
        CHECK(alone(at("fault"), 1));
    }
    CHECK(failed > count / 2);
}

int main(int argc, char **argv)
{
    if (argc == 4)
        return child(argv[1], argv[2], argv[3][0]);
    test_open();
    test_refused();
    test_link();
    test_leftover();
    test_two();
    test_crowd();
    test_error(false, test_kill(false, true));
    test_error(true, test_kill(true, true));
    (void)setenv("TEST_NO_EXCHANGE", "1", 1);
    test_crowd();
    test_error(true, test_kill(true, false));
    (void)unsetenv("TEST_NO_EXCHANGE");
    dr_arena_release(&arena);
    return check_done();
}
