/*
 * vendor_run.c - a vendor's program as a child: its words logged, its end judged.
 *
 *   run ---fork---> child: own process group, dies with its parent, exec
 *    |<----pipe---- what it prints, standard output and errors in one
 *    | cancelled: SIGTERM to the group, SIGKILL two seconds later
 *    v
 *   ended: status 0 and every output there, or an error with its last lines
 *
 * The group is killed once the program has ended: nothing that it left behind writes into
 * a folder that is about to be committed.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/child.h"
#include "core/file.h"
#include "core/log.h"
#include "core/mem.h"
#include "pass/shared_impl.h"
#include "pass/vendor_impl.h"

enum { LINE_BYTES = 4096, LAST_LINES = 6, LAST_BYTES = 240, POLL_MS = 50 };
static const double grace_s = 2;

/* ---- arguments ---- */

vendor_args vendor_args_new(dr_arena *a)
{
    enum { FIRST = 32 };

    return (vendor_args){
        .arena = a, .list = dr_arena_alloc(a, FIRST, sizeof(char *)), .room = FIRST};
}

void vendor_arg(vendor_args *args, const char *text)
{
    if (args->count + 2 > args->room) {
        const char **more = dr_arena_alloc(args->arena, 2 * args->room, sizeof(*more));
        memcpy(more, args->list, args->count * sizeof(*more));
        args->list = more;
        args->room *= 2;
    }
    args->list[args->count++] = dr_arena_strdup(args->arena, text);
    args->list[args->count] = NULL;
}

void vendor_argf(vendor_args *args, const char *fmt, ...)
{
    va_list list;

    va_start(list, fmt);
    vendor_arg(args, dr_arena_vprintf(args->arena, fmt, list));
    va_end(list);
}

/* One word from *at on, without its quotes, into word; false: a quote has no end. */
static bool next_word(char *word, const char **at)
{
    const char *p = *at;
    char quote = '\0';

    for (; *p != '\0' && (quote != '\0' || strchr(" \t\n\r", *p) == NULL); p++) {
        if (quote == '\0' && (*p == '\'' || *p == '"'))
            quote = *p;
        else if (*p == quote)
            quote = '\0';
        else if (*p == '\\' && quote != '\'' && p[1] != '\0')
            *word++ = *++p;
        else
            *word++ = *p;
    }
    *word = '\0';
    *at = p;
    return quote == '\0';
}

dr_status vendor_arg_words(vendor_args *args, const char *text, const char *label)
{
    const char *p = text != NULL ? text : "";
    char *word = dr_arena_alloc(args->arena, strlen(p) + 1, 1);

    for (;;) {
        p += strspn(p, " \t\n\r");
        if (*p == '\0')
            return DR_OK;
        if (!next_word(word, &p))
            return dr_fail(DR_EUSAGE, "%s: a quote has no end in %s", label, text);
        vendor_arg(args, word);
    }
}

dr_status vendor_check_words(const char *text, const char *label, const char *const *names)
{
    dr_arena a = {0};
    vendor_args words = vendor_args_new(&a);
    dr_status st = DR_OK;

    DR_TRY(vendor_arg_words(&words, text, label));
    for (size_t i = 0; i < words.count; i++)
        for (size_t k = 0; names[k] != NULL; k++) {
            const size_t n = strlen(names[k]);
            if (strncmp(words.list[i], names[k], n) == 0 &&
                (words.list[i][n] == '\0' || words.list[i][n] == '='))
                DR_FAIL(DR_EUSAGE, "%s: the pass gives %s itself", label, names[k]);
        }
done:
    dr_arena_release(&a);
    return st;
}

void vendor_arg_each(vendor_args *args, const char *option, const char *text)
{
    size_t count = 0;
    const char **list = pass_words(&count, args->arena, text != NULL ? text : "", ",");

    for (size_t i = 0; i < count; i++) {
        if (option != NULL)
            vendor_arg(args, option);
        vendor_arg(args, list[i]);
    }
}

/* ---- environment ---- */

/* NAME=FIRST, and what NAME had behind it. */
static const char *in_front(dr_arena *a, const char *name, const char *first)
{
    const char *had = getenv(name);

    return had != NULL && *had != '\0' ? dr_arena_printf(a, "%s=%s:%s", name, first, had)
                                       : dr_arena_printf(a, "%s=%s", name, first);
}

enum { OWN = 5 };

/* The caller's; a program of an SDK finds what belongs to it first. */
static const char *const *environment(dr_arena *a, const pass_program *p, const char *tmp)
{
    const char *own[OWN] = {NULL};

    if (tmp != NULL)
        own[0] = dr_arena_printf(a, "TMPDIR=%s", tmp);
    if (p->root != NULL) {
        const char *bin = dr_arena_printf(a, "%s/bin/%s", p->root, p->arch);
        const char *python = dr_arena_printf(a, "%s/olive-pyenv/bin", p->root);
        if (dr_is_dir(python))
            bin = dr_arena_printf(a, "%s:%s", python, bin);
        own[1] = in_front(a, "PATH", bin);
        own[2] = in_front(a, "LD_LIBRARY_PATH",
                          dr_arena_printf(a, "%s/lib/%s", p->root, p->arch));
        own[3] = in_front(a, "PYTHONPATH", dr_arena_printf(a, "%s/lib/python", p->root));
        own[4] = dr_arena_printf(a, "SDK_ROOT=%s", p->root);
    }
    return dr_environment(a, own, OWN);
}

/* ---- the child ---- */

typedef struct {
    const char *name, *dir;
    const char *const *argv, *const *envp;
    pid_t pid;
    int words;  /* -1: it has closed them */
    int status; /* of waitpid */
    bool ended;
    char line[LINE_BYTES];
    size_t used;
    char last[LAST_LINES][LAST_BYTES]; /* a ring */
    size_t lines;
} child;

static dr_status begin(child *c)
{
    int ends[2] = {-1, -1}, failed = 0;
    dr_status st = DR_OK;

    if (pipe2(ends, O_CLOEXEC) != 0)
        DR_FAIL(DR_EIO, "%s: no pipe: %s", c->name, strerror(errno));
    const dr_program program = {.argv = c->argv,
                                .envp = c->envp,
                                .dir = c->dir,
                                .in = -1,
                                .out = ends[1],
                                .err = ends[1],
                                .death = SIGKILL,
                                .group = true};
    DR_TRY(dr_program_begin(&c->pid, &failed, &program));
    if (failed != 0)
        DR_FAIL(DR_EDEVICE, "%s cannot be run: %s", c->argv[0], strerror(failed));
    c->words = ends[0];
    ends[0] = -1;
done:
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0)
            (void)close(ends[i]);
    return st;
}

static void end_line(child *c)
{
    size_t n = c->used;

    while (n > 0 && (c->line[n - 1] == '\r' || c->line[n - 1] == ' '))
        n--;
    c->line[n] = '\0';
    c->used = 0;
    if (n == 0)
        return;
    dr_log(DR_INFO, "%s: %s", c->name, c->line);
    (void)snprintf(c->last[c->lines++ % LAST_LINES], LAST_BYTES, "%.*s", LAST_BYTES - 1,
                   c->line);
}

/* A carriage return, too, ends a line: bars of progress are drawn with it. */
static void take_words(child *c, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\n' || text[i] == '\r' || c->used == LINE_BYTES - 1)
            end_line(c);
        if (text[i] != '\n' && text[i] != '\r')
            c->line[c->used++] = text[i] != '\0' ? text[i] : ' ';
    }
}

/* What there is to read now, or comes within some milliseconds; false: nothing. */
static bool read_words(child *c)
{
    struct pollfd p = {.fd = c->words, .events = POLLIN};
    char text[LINE_BYTES];
    bool some = poll(&p, 1, c->ended ? 0 : POLL_MS) > 0;
    const ssize_t n = some ? read(c->words, text, sizeof(text)) : 0;

    if (n > 0)
        take_words(c, text, (size_t)n);
    if (some && n <= 0 && !(n < 0 && errno == EINTR)) {
        (void)close(c->words);
        c->words = -1;
    }
    return some && n > 0;
}

static void look_after(child *c)
{
    if (!c->ended && waitpid(c->pid, &c->status, WNOHANG) == c->pid)
        c->ended = true;
}

/* Until it ends; what others that it started still print after that is not waited for. */
static dr_status follow(child *c)
{
    double killed_s = 0;
    dr_status st = DR_OK;

    while (!c->ended) {
        (void)read_words(c);
        look_after(c);
        if (st == DR_OK && (st = dr_cancelled_check()) != DR_OK) {
            (void)kill(-c->pid, SIGTERM);
            killed_s = dr_now_s();
        }
        if (st != DR_OK && dr_now_s() - killed_s > grace_s)
            (void)kill(-c->pid, SIGKILL);
    }
    (void)kill(-c->pid, SIGKILL);
    while (c->words >= 0 && read_words(c))
        continue;
    end_line(c);
    return st;
}

/* The lines it ended with, as context of the error. */
static void note_last(const child *c)
{
    const size_t n = c->lines < LAST_LINES ? c->lines : LAST_LINES;

    for (size_t i = c->lines - n; i < c->lines; i++)
        dr_note_at(__FILE__, __LINE__, "%s: %s", c->name, c->last[i % LAST_LINES]);
}

static dr_status judge(const child *c, const vendor_work *work)
{
    const char *dir = work->outputs_dir != NULL ? work->outputs_dir
                      : work->dir != NULL       ? work->dir
                                                : ".";
    dr_arena a = {0};
    uint64_t bytes = 0;
    dr_status st = DR_OK;

    if (WIFSIGNALED(c->status))
        DR_FAIL(DR_EDEVICE, "%s was killed by signal %d (%s)", c->name, WTERMSIG(c->status),
                strsignal(WTERMSIG(c->status)));
    if (WEXITSTATUS(c->status) != 0)
        DR_FAIL(DR_EDEVICE, "%s failed with status %d", c->name, WEXITSTATUS(c->status));
    for (size_t i = 0; work->outputs != NULL && work->outputs[i] != NULL; i++) {
        const char *name = work->outputs[i];
        const char *path = *name == '/' ? name : dr_path_join(&a, dir, name);
        if (!dr_is_file(path))
            DR_FAIL(DR_EDEVICE, "%s ended with status 0 and wrote no %s", c->name,
                    dr_path_base(name));
        DR_TRY(dr_file_size(&bytes, path));
        if (bytes == 0)
            DR_FAIL(DR_EDEVICE, "%s left %s empty", c->name, dr_path_base(name));
    }
done:
    if (st != DR_OK)
        note_last(c);
    dr_arena_release(&a);
    return st;
}

/* The command as a person would type it. */
static dr_status log_command(const vendor_args *args, const char *path)
{
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, 1 << 20);
    DR_TRY(dr_buf_adds(&b, path));
    for (size_t i = 0; i < args->count; i++)
        DR_TRY(dr_buf_addf(&b, strpbrk(args->list[i], " \"'\\") ? " '%s'" : " %s",
                           args->list[i]));
    dr_log(DR_INFO, "%s", b.data);
done:
    dr_buf_release(&b);
    return st;
}

dr_status vendor_run(const pass_job *job, const vendor_args *args, const vendor_work *work)
{
    pass_program p = {0};
    const char *path = NULL, *tmp = NULL;
    child *c = dr_calloc(1, sizeof(*c));
    dr_status st = DR_OK;

    c->words = -1;
    DR_TRY(pass_program_need(&p, job->arena, job->def, NULL));
    path = p.path;
    if (*path != '/')
        DR_TRY(vendor_absolute(&path, job->arena, path));
    const char **argv = dr_arena_alloc(job->arena, args->count + 2, sizeof(*argv));
    argv[0] = path;
    memcpy(argv + 1, args->list, args->count * sizeof(*argv));
    c->name = p.name;
    c->dir = work->dir;
    c->argv = argv;
    if (work->tmp != NULL) {
        DR_TRY(dr_make_dirs(work->tmp));
        DR_TRY(vendor_absolute(&tmp, job->arena, work->tmp));
    }
    c->envp = environment(job->arena, &p, tmp);
    DR_TRY(log_command(args, path));
    DR_TRY(begin(c));
    DR_TRYF(follow(c), "running %s", p.name);
    DR_TRY(judge(c, work));
    if (work->tmp != NULL)
        DR_TRY(dr_remove_tree(work->tmp));
done:
    if (c->words >= 0)
        (void)close(c->words);
    free(c);
    return st;
}
