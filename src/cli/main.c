/*
 * main.c - the program: finds the verb, parses its options, runs it, prints errors.
 *
 * Exit status: 0 a result was made, 1 failed, 2 wrong usage, 130 interrupted.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli_impl.h"
#include "core/log.h"

#define VERB(symbol, name, summary) extern const cli_verb verb_##symbol;
#define LATER_VERB(name, reason)
#include "cli/verbs.def"
#undef VERB
#undef LATER_VERB

static const struct {
    const char *name, *summary;
    const cli_verb *verb;
} verbs[] = {
#define VERB(symbol, name, summary) {name, summary, &verb_##symbol},
#define LATER_VERB(name, reason)    {name, reason, NULL},
#include "cli/verbs.def"
#undef VERB
#undef LATER_VERB
};

static void on_signal(int number)
{
    drupe_cancel();
    (void)signal(number, SIG_DFL); /* a second one ends the process at once */
}

static void print_error(dr_status st)
{
    bool color = isatty(STDERR_FILENO) && getenv("NO_COLOR") == NULL;
    const dr_trail *t = dr_trail_get();

    if (t->count == 0) {
        (void)fprintf(stderr, "drupe: %s\n", dr_status_text(st));
        return;
    }
    (void)fprintf(stderr, "%sdrupe:%s %s\n", color ? "\033[31m" : "", color ? "\033[0m" : "",
                  t->frames[0].text);
    for (int i = 1; i < t->count; i++)
        (void)fprintf(stderr, "  %s\n", t->frames[i].text);
    if (t->hint[0] != '\0')
        (void)fprintf(stderr, "  hint: %s\n", t->hint);
}

static bool is_help(const char *arg)
{
    return strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0 || strcmp(arg, "help") == 0;
}

static dr_status find_verb(size_t *index, const char *name)
{
    const char *names[DR_COUNT(verbs)];
    dr_status st;

    for (size_t i = 0; i < DR_COUNT(verbs); i++) {
        names[i] = verbs[i].name;
        if (strcmp(verbs[i].name, name) != 0)
            continue;
        *index = i;
        if (verbs[i].verb == NULL)
            return dr_fail(DR_EUSAGE, "%s is not supported yet: %s", name, verbs[i].summary);
        return DR_OK;
    }
    st = dr_fail(DR_EUSAGE, "no command is called %s", name);
    const char *near = dr_nearest(name, names, DR_COUNT(verbs));
    if (near != NULL)
        dr_hint("did you mean %s?", near);
    else
        dr_hint("drupe --help lists the commands");
    return st;
}

static dr_status check_required(const cli_verb *v, const unsigned char *given)
{
    for (size_t i = 0; i < v->params_count; i++) {
        if (v->params[i].required && !given[i])
            return dr_fail(DR_EUSAGE, "--%s must be given", v->params[i].name);
    }
    return DR_OK;
}

static dr_status run_verb(size_t index, int argc, char **argv)
{
    const cli_verb *v = verbs[index].verb;
    dr_arena arena = {0};
    dr_status st = DR_OK;

    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return cli_help_verb(v, verbs[index].name, verbs[index].summary);
    }
    void *config = dr_arena_alloc(&arena, 1, v->config_size);
    unsigned char *given = dr_arena_alloc(&arena, v->params_count, 1);
    dr_params_defaults(v->params, v->params_count, config);
    DR_TRY(dr_params_parse_argv(v->params, v->params_count, config, argc, argv, given,
                                &arena));
    DR_TRY(check_required(v, given));
    const cli_common *c = config;
    drupe_log_level(c->log_level);
    DR_TRY(v->run(config, given, &arena));
done:
    dr_arena_release(&arena);
    return st;
}

static dr_status run_program(int argc, char **argv)
{
    size_t index = 0;
    dr_status st = DR_OK;

    if (argc < 2) {
        st = dr_fail(DR_EUSAGE, "which command?");
        dr_hint("drupe --help lists the commands");
        goto done;
    }
    if (is_help(argv[1])) {
        DR_TRY(cli_help_main());
    } else if (strcmp(argv[1], "--version") == 0) {
        DR_TRY(cli_write("drupe " DRUPE_VERSION "\n", sizeof("drupe " DRUPE_VERSION)));
    } else {
        DR_TRY(find_verb(&index, argv[1]));
        DR_TRY(run_verb(index, argc - 2, argv + 2));
    }
done:
    return st;
}

int main(int argc, char **argv)
{
    (void)signal(SIGINT, on_signal);
    (void)signal(SIGTERM, on_signal);
    (void)signal(SIGPIPE, SIG_IGN);
    dr_status st = run_program(argc, argv);
    if (st == DR_OK)
        return 0;
    if (st == DR_ECANCELLED) {
        (void)fprintf(stderr, "drupe: interrupted\n");
        return 130;
    }
    print_error(st);
    return st == DR_EUSAGE ? 2 : 1;
}
