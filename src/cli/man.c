/*
 * man.c - drupe man: the manual page drupe(1), made from the same tables as --help.
 */
#include <string.h>

#include "cli/cli_impl.h"
#include "core/buf.h"

enum { MAN_MAX = 4 << 20 };

static const char head[] =
    ".SH NAME\ndrupe \\- optimises models for ONNX Runtime\n"
    ".SH SYNOPSIS\n.B drupe\n.I COMMAND\n[options]\n"
    ".SH DESCRIPTION\n"
    "Options are written \\-\\-name value or \\-\\-name=value; \\-\\-some\\-name is the\n"
    "same as \\-\\-some_name.\nGiven twice, the last one counts.\n"
    "Results go to standard output, everything for people to standard error.\n"
    ".SH COMMANDS\n";

static const char tail[] = ".SH EXIT STATUS\n"
                           ".TP\n.B 0\nthe result was made\n"
                           ".TP\n.B 1\nfailed: the message says what\n"
                           ".TP\n.B 2\nwrong usage; nothing was done\n"
                           ".TP\n.B 130\ninterrupted; nothing half\\-made is left\n";

/* Text that roff takes as it is; a line never begins with a control character. */
static dr_status plain(dr_buf *b, const char *text)
{
    dr_status st = DR_OK;

    if (*text == '.' || *text == '\'')
        DR_TRY(dr_buf_adds(b, "\\&"));
    for (const char *s = text; *s; s++) {
        if (*s == '\\')
            DR_TRY(dr_buf_adds(b, "\\e"));
        else if (*s == '-')
            DR_TRY(dr_buf_adds(b, "\\-"));
        else if (*s == '\'')
            DR_TRY(dr_buf_adds(b, "\\(aq"));
        else
            DR_TRY(dr_buf_add(b, s, 1));
    }
done:
    return st;
}

static dr_status line(dr_buf *b, const char *before, const char *text)
{
    dr_status st = DR_OK;

    DR_TRY(dr_buf_adds(b, before));
    DR_TRY(plain(b, text));
    DR_TRY(dr_buf_adds(b, "\n"));
done:
    return st;
}

static dr_status option(dr_buf *b, const dr_param *p)
{
    bool has_default = p->dflt != NULL && strcmp(p->dflt, "null") != 0;
    dr_status st = DR_OK;

    DR_TRY(dr_buf_adds(b, ".TP\n\\fB"));
    if (p->short_name != '\0')
        DR_TRY(dr_buf_addf(b, "\\-%c\\fR, \\fB", p->short_name));
    DR_TRY(line(b, "\\-\\-", p->name));
    DR_TRY(line(b, "\\fR", p->type == DR_PARAM_REFUSED ? p->refused : p->help));
    for (size_t i = 0; p->choices != NULL && p->choices[i] != NULL; i++)
        DR_TRY(line(b, i == 0 ? ".br\nvalues: " : "", p->choices[i]));
    if (p->required)
        DR_TRY(dr_buf_adds(b, ".br\nrequired\n"));
    else if (has_default)
        DR_TRY(line(b, ".br\ndefault: ", p->dflt));
    if (p->nearest != NULL)
        DR_TRY(line(b, ".br\ninstead: \\-\\-", p->nearest));
done:
    return st;
}

static dr_status options(dr_buf *b, const cli_verb *v, bool refused)
{
    bool any = false;
    dr_status st = DR_OK;

    for (size_t i = 0; i < v->params_count; i++) {
        if ((v->params[i].type == DR_PARAM_REFUSED) != refused)
            continue;
        if (refused && !any)
            DR_TRY(dr_buf_adds(b, ".PP\nRefused, with the reason:\n"));
        any = true;
        DR_TRY(option(b, &v->params[i]));
    }
done:
    return st;
}

dr_status cli_man(void)
{
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, MAN_MAX);
    DR_TRY(dr_buf_addf(&b, ".TH DRUPE 1 \"\" \"drupe %s\" \"User Commands\"\n%s",
                       drupe_version(), head));
    for (size_t i = 0; i < cli_verb_count; i++) {
        const cli_verb_row *row = &cli_verbs[i];
        if (row->verb == NULL)
            continue;
        DR_TRY(line(&b, ".SS ", row->name));
        DR_TRY(line(&b, "", row->summary));
        DR_TRY(line(&b, ".PP\n", row->verb->usage));
        DR_TRY(options(&b, row->verb, false));
        DR_TRY(options(&b, row->verb, true));
    }
    DR_TRY(dr_buf_adds(&b, ".SH REFUSED COMMANDS\n"));
    for (size_t i = 0; i < cli_verb_count; i++) {
        if (cli_verbs[i].verb != NULL)
            continue;
        DR_TRY(line(&b, ".TP\n.B ", cli_verbs[i].name));
        DR_TRY(line(&b, "", cli_verbs[i].summary));
    }
    DR_TRY(dr_buf_adds(&b, tail));
    DR_TRY(cli_write(b.data, b.len));
done:
    dr_buf_release(&b);
    return st;
}
