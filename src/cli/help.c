/*
 * help.c - --help, made from the tables.
 */
#include "cli/cli_impl.h"
#include "core/buf.h"

enum { HELP_MAX = 1 << 20 };

dr_status cli_help_main(void)
{
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, HELP_MAX);
    DR_TRY(dr_buf_addf(&b,
                       "drupe %s - optimises models for ONNX Runtime\n\n"
                       "usage: drupe COMMAND [options]\n\n"
                       "commands:\n",
                       drupe_version()));
    for (size_t i = 0; i < cli_verb_count; i++) {
        if (cli_verbs[i].verb != NULL)
            DR_TRY(
                dr_buf_addf(&b, "  %-20s %s\n", cli_verbs[i].name, cli_verbs[i].summary));
    }
    DR_TRY(dr_buf_adds(&b, "\n`drupe COMMAND --help` lists a command's options.\n"
                           "`drupe completion bash|zsh|fish` and `drupe man` print what a\n"
                           "shell and man(1) want of it.\n"
                           "`drupe --version` prints the version.\n"));
    DR_TRY(cli_write(b.data, b.len));
done:
    dr_buf_release(&b);
    return st;
}

dr_status cli_help_verb(const cli_verb_row *row)
{
    const cli_verb *v = row->verb;
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, HELP_MAX);
    DR_TRY(dr_buf_addf(&b, "drupe %s - %s\n\nusage: %s\n\noptions:\n", row->name,
                       row->summary, v->usage));
    DR_TRY(dr_params_help(&b, v->params, v->params_count));
    DR_TRY(cli_write(b.data, b.len));
done:
    dr_buf_release(&b);
    return st;
}
