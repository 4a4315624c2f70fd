/*
 * main.c - the program: finds the verb, parses its options, runs it, prints errors.
 *
 * Exit status: 0 a result was made, 1 failed, 2 wrong usage, 130 interrupted.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli_impl.h"
#include "core/log.h"

#define VERB(symbol, name, summary) extern const cli_verb verb_##symbol;
#define LATER_VERB(name, reason)
#include "cli/verbs.def"
#undef VERB
#undef LATER_VERB

const cli_verb_row cli_verbs[] = {
#define VERB(symbol, name, summary) {name, summary, &verb_##symbol},
#define LATER_VERB(name, reason)    {name, reason, NULL},
#include "cli/verbs.def"
#undef VERB
#undef LATER_VERB
};
const size_t cli_verb_count = DR_COUNT(cli_verbs);

/* Those that several processes may run at once, each a share. */
static const cli_verb *const shared_verbs[] = {&verb_evaluate, &verb_finetune,
                                               &verb_quantize};

static void on_signal(int number)
{
    drupe_cancel();
    (void)signal(number, SIG_DFL); /* a second one ends the process at once */
}

static void print_error(const drupe_ranks *ranks)
{
    bool color = isatty(STDERR_FILENO) && getenv("NO_COLOR") == NULL;
    const dr_trail *t = dr_trail_get();
    char who[32] = "";

    if (drupe_ranks_id(ranks) > 0)
        (void)snprintf(who, sizeof(who), "rank %zu: ", drupe_ranks_id(ranks));
    (void)fprintf(stderr, "%sdrupe:%s %s%s\n", color ? "\033[31m" : "",
                  color ? "\033[0m" : "", who,
                  t->count > 0 ? t->frames[0].text : dr_status_text(t->status));
    for (int i = 1; i < t->count; i++)
        (void)fprintf(stderr, "  %s\n", t->frames[i].text);
    if (t->hint[0] != '\0')
        (void)fprintf(stderr, "  hint: %s\n", t->hint);
}

static bool is_help(const char *arg)
{
    return strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0;
}

static dr_status find_verb(const cli_verb_row **row, const char *name)
{
    const char *names[DR_COUNT(cli_verbs)];
    size_t count = 0;
    dr_status st;

    for (size_t i = 0; i < cli_verb_count; i++) {
        if (cli_verbs[i].verb != NULL)
            names[count++] = cli_verbs[i].name;
        if (strcmp(cli_verbs[i].name, name) != 0)
            continue;
        *row = &cli_verbs[i];
        if (cli_verbs[i].verb == NULL)
            return dr_fail(DR_EUSAGE, "%s is not supported yet: %s", name,
                           cli_verbs[i].summary);
        return DR_OK;
    }
    st = dr_fail(DR_EUSAGE, "no command is called %s", name);
    const char *near = dr_nearest(name, names, count);
    if (near != NULL)
        dr_hint("did you mean %s?", near);
    else
        dr_hint("drupe --help lists the commands");
    return st;
}

static bool is_shared(const cli_verb *v)
{
    for (size_t i = 0; i < DR_COUNT(shared_verbs); i++)
        if (shared_verbs[i] == v)
            return true;
    return false;
}

/* The other processes, if mpirun started some.  The first one speaks for all. */
static dr_status open_ranks(drupe_ranks **ranks, const cli_verb_row *row)
{
    dr_status st = DR_OK;

    if (row->verb == &verb_run) /* its processes share candidates, and need no MPI */
        return DR_OK;
    DR_TRY((dr_status)drupe_ranks_open(ranks));
    if (*ranks == NULL)
        return DR_OK;
    if (drupe_ranks_id(*ranks) > 0)
        dr_log_silence();
    if (!is_shared(row->verb)) {
        st = dr_fail(DR_EUSAGE, "%s runs in one process, and mpirun started several",
                     row->name);
        dr_hint("run it without mpirun");
    }
done:
    return st;
}

/*
 * After an error all of them end.  One that all have the same is told by the first: the
 * others give it time to do so, and are ended meanwhile.
 */
static void end_ranks(drupe_ranks *ranks, int status)
{
    const struct timespec second = {.tv_sec = 1};

    if (drupe_ranks_id(ranks) > 0)
        (void)nanosleep(&second, NULL);
    if (dr_cancelled_check() == DR_OK)
        print_error(ranks);
    drupe_ranks_abort(ranks, status);
}

static dr_status run_verb(drupe_ranks **ranks, const cli_verb_row *row, int argc,
                          char **argv)
{
    const cli_verb *v = row->verb;
    dr_arena arena = {0};
    dr_status st = DR_OK;

    for (int i = 0; i < argc; i++) {
        if (is_help(argv[i]))
            return cli_help_verb(row);
    }
    DR_TRY(open_ranks(ranks, row));
    cli_common *c = dr_arena_alloc(&arena, 1, v->config_size);
    unsigned char *given = dr_arena_alloc(&arena, v->params_count, 1);
    dr_params_defaults(v->params, v->params_count, c);
    st = dr_params_parse_argv(v->params, v->params_count, c, argc, argv, given, &arena);
    if (st != DR_OK && dr_trail_get()->hint[0] == '\0')
        dr_hint("drupe %s --help lists the options", row->name);
    DR_TRY(st);
    drupe_log_level(c->log_level);
    c->ranks = *ranks;
    DR_TRY(v->run(c, given));
done:
    dr_arena_release(&arena);
    return st;
}

static dr_status run_program(drupe_ranks **ranks, int argc, char **argv)
{
    static const char version[] = "drupe " DRUPE_VERSION "\n";
    const cli_verb_row *row = NULL;
    const char *word = argc > 1 ? argv[1] : NULL;
    dr_status st = DR_OK;

    if (word == NULL) {
        st = dr_fail(DR_EUSAGE, "which command?");
        dr_hint("drupe --help lists the commands");
    } else if (is_help(word) || (strcmp(word, "help") == 0 && argc == 2)) {
        st = cli_help_main();
    } else if (strcmp(word, "help") == 0) {
        DR_TRY(find_verb(&row, argv[2]));
        st = cli_help_verb(row);
    } else if (strcmp(word, "--version") == 0) {
        st = cli_write(version, sizeof(version) - 1);
    } else if (strcmp(word, "docs") == 0 && argc == 2) {
        st = cli_docs(); /* for `make docs`, not for people */
    } else if (strcmp(word, "docs") == 0 && argc == 3 && strcmp(argv[2], "passes") == 0) {
        st = cli_pass_docs();
    } else if (strcmp(word, "worker") == 0 && argc == 2) {
        st = (dr_status)drupe_run_worker(); /* for mpirun and srun, not for people */
    } else if (strcmp(word, "man") == 0 && argc == 2) {
        st = cli_man();
    } else if (strcmp(word, "completion") == 0 && argc <= 3) {
        st = cli_completion(argc == 3 ? argv[2] : NULL);
    } else {
        DR_TRY(find_verb(&row, word));
        st = run_verb(ranks, row, argc - 2, argv + 2);
    }
done:
    return st;
}

/*
 * A descriptor that is closed would be given to the first file opened: the result would be
 * written into a model.  stdin and stderr become /dev/null; without stdout nothing is run.
 */
static dr_status check_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) != -1 || errno != EBADF)
            continue;
        int null = open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY);
        if (fd == STDOUT_FILENO || null != fd)
            return dr_fail(DR_EIO, "standard output is closed; results are written to it");
    }
    return DR_OK;
}

int main(int argc, char **argv)
{
    (void)signal(SIGINT, on_signal);
    (void)signal(SIGTERM, on_signal);
    (void)signal(SIGPIPE, SIG_IGN);
    drupe_ranks *ranks = NULL;
    dr_status st = check_descriptors();
    if (st == DR_OK)
        st = run_program(&ranks, argc, argv);
    if (st == DR_OK) {
        drupe_ranks_close(ranks);
        return 0;
    }
    int status = st == DR_EUSAGE ? 2 : 1;
    bool stopped = st == DR_ECANCELLED || dr_cancelled_check() != DR_OK;
    if (ranks != NULL && !stopped)
        end_ranks(ranks, status);
    else if (st != DR_ECANCELLED)
        print_error(ranks);
    if (!stopped)
        return status;
    if (drupe_ranks_id(ranks) == 0)
        (void)fprintf(stderr, "drupe: interrupted\n");
    drupe_ranks_abort(ranks, 130);
    return 130;
}
