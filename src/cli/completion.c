/*
 * completion.c - drupe completion bash|zsh|fish: completion for a shell, made from the
 * same tables as --help.  A choice completes to its values, a text to files, a number to
 * nothing; an option that is refused or hidden is not offered.
 */
#include <string.h>

#include "cli/cli_impl.h"
#include "core/buf.h"

enum { SCRIPT_MAX = 4 << 20 };

static bool offered(const dr_param *p)
{
    return p->type != DR_PARAM_REFUSED && !p->hidden;
}

/* Text within single quotes; special: characters that a backslash goes before. */
static dr_status quoted(dr_buf *b, const char *text, const char *special)
{
    dr_status st = DR_OK;

    for (const char *s = text; *s; s++) {
        if (*s == '\'')
            DR_TRY(dr_buf_adds(b, "'\\'"));
        else if (strchr(special, *s) != NULL)
            DR_TRY(dr_buf_adds(b, "\\"));
        DR_TRY(dr_buf_add(b, s, 1));
    }
done:
    return st;
}

static dr_status choices(dr_buf *b, const dr_param *p)
{
    static const char *const switches[] = {"true", "false", NULL};
    const char *const *list = p->type == DR_PARAM_BOOL ? switches : p->choices;
    dr_status st = DR_OK;

    for (size_t i = 0; list[i] != NULL; i++)
        DR_TRY(dr_buf_addf(b, "%s%s", i ? " " : "", list[i]));
done:
    return st;
}

/* The pattern `verb:--name|verb:-n)` of a case. */
static dr_status pattern(dr_buf *b, const char *verb, const dr_param *p)
{
    dr_status st = DR_OK;

    DR_TRY(dr_buf_addf(b, "    %s:--%s", verb, p->name));
    if (p->short_name != '\0')
        DR_TRY(dr_buf_addf(b, "|%s:-%c", verb, p->short_name));
    DR_TRY(dr_buf_adds(b, ") "));
done:
    return st;
}

/* What follows an option; the words in between are the shell's. */
typedef struct {
    const char *choice_start, *choice_end, *text, *number;
} value_words;

static dr_status values(dr_buf *b, const value_words *w)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < cli_verb_count; i++) {
        const cli_verb *v = cli_verbs[i].verb;
        for (size_t k = 0; v != NULL && k < v->params_count; k++) {
            const dr_param *p = &v->params[k];
            if (!offered(p) || p->type == DR_PARAM_BOOL)
                continue;
            DR_TRY(pattern(b, cli_verbs[i].name, p));
            if (p->type == DR_PARAM_CHOICE) {
                DR_TRY(dr_buf_adds(b, w->choice_start));
                DR_TRY(choices(b, p));
                DR_TRY(dr_buf_adds(b, w->choice_end));
            } else {
                DR_TRY(dr_buf_adds(b, p->type == DR_PARAM_STR ? w->text : w->number));
            }
        }
    }
done:
    return st;
}

/* ---- bash ---- */

static const char bash_head[] =
    "# bash completion for drupe, made by `drupe completion bash`\n"
    "_drupe()\n{\n"
    "    local cur=${COMP_WORDS[COMP_CWORD]} opt=${COMP_WORDS[COMP_CWORD-1]} words=\n"
    "    local verb=${COMP_WORDS[1]}\n"
    "    COMPREPLY=()\n"
    "    if [ \"$cur\" = = ]; then\n        cur=\n"
    "    elif [ \"$opt\" = = ]; then\n        opt=${COMP_WORDS[COMP_CWORD-2]}\n    fi\n"
    "    case $opt in --*) opt=${opt#--}; opt=--${opt//-/_} ;; esac\n"
    "    case $cur in --*) cur=${cur#--}; cur=--${cur//-/_} ;; esac\n"
    "    if [ \"$COMP_CWORD\" -gt 1 ]; then\n"
    "    case $verb:$opt in\n";

static dr_status bash_options(dr_buf *b, const cli_verb_row *row)
{
    dr_status st = DR_OK;

    DR_TRY(dr_buf_addf(b, "    %s) words=\"--help", row->name));
    for (size_t i = 0; i < row->verb->params_count; i++) {
        if (offered(&row->verb->params[i]))
            DR_TRY(dr_buf_addf(b, " --%s", row->verb->params[i].name));
    }
    DR_TRY(dr_buf_adds(b, "\" ;;\n"));
done:
    return st;
}

static dr_status verb_names(dr_buf *b)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < cli_verb_count; i++) {
        if (cli_verbs[i].verb != NULL)
            DR_TRY(dr_buf_addf(b, "%s ", cli_verbs[i].name));
    }
done:
    return st;
}

static dr_status bash(dr_buf *b)
{
    static const value_words words = {"words=\"", "\" ;;\n", "return ;;\n",
                                      "compopt +o default 2>/dev/null; return ;;\n"};
    dr_status st = DR_OK;

    DR_TRY(dr_buf_adds(b, bash_head));
    DR_TRY(values(b, &words));
    DR_TRY(dr_buf_adds(b, "    completion:completion) words=\"bash zsh fish\" ;;\n"
                          "    help:help) words=\""));
    DR_TRY(verb_names(b));
    DR_TRY(dr_buf_adds(b, "\" ;;\n    esac\n    fi\n"
                          "    if [ -z \"$words\" ]; then\n"
                          "    if [ \"$COMP_CWORD\" -eq 1 ]; then verb=; fi\n"
                          "    case $verb in\n    '') words=\""));
    DR_TRY(verb_names(b));
    DR_TRY(dr_buf_adds(b, "completion help man --help --version\" ;;\n"));
    for (size_t i = 0; i < cli_verb_count; i++) {
        if (cli_verbs[i].verb != NULL)
            DR_TRY(bash_options(b, &cli_verbs[i]));
    }
    DR_TRY(dr_buf_adds(b, "    esac\n    fi\n"
                          "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
                          "complete -o default -F _drupe drupe\n"));
done:
    return st;
}

/* ---- zsh ---- */

static dr_status zsh_options(dr_buf *b, const cli_verb_row *row)
{
    dr_status st = DR_OK;

    DR_TRY(dr_buf_addf(b, "    %s) list=('--help:this list'", row->name));
    for (size_t i = 0; i < row->verb->params_count; i++) {
        const dr_param *p = &row->verb->params[i];
        if (!offered(p))
            continue;
        DR_TRY(dr_buf_addf(b, "\n        '--%s:", p->name));
        DR_TRY(quoted(b, p->help, ":\\"));
        DR_TRY(dr_buf_adds(b, "'"));
    }
    DR_TRY(dr_buf_adds(b, ") ;;\n"));
done:
    return st;
}

static dr_status zsh(dr_buf *b)
{
    static const value_words words = {"compadd -- ", "; return ;;\n", "_files; return ;;\n",
                                      "return 1 ;;\n"};
    dr_status st = DR_OK;

    DR_TRY(dr_buf_adds(b, "#compdef drupe\n"
                          "# zsh completion for drupe, made by `drupe completion zsh`\n"
                          "_drupe()\n{\n    local -a list\n"
                          "    local verb=$words[2] opt=$words[CURRENT-1]\n"
                          "    if (( CURRENT == 2 )); then\n    list=("));
    for (size_t i = 0; i < cli_verb_count; i++) {
        if (cli_verbs[i].verb == NULL)
            continue;
        DR_TRY(dr_buf_addf(b, "\n        '%s:", cli_verbs[i].name));
        DR_TRY(quoted(b, cli_verbs[i].summary, ":\\"));
        DR_TRY(dr_buf_adds(b, "'"));
    }
    DR_TRY(dr_buf_adds(b, "\n        'completion:completion for a shell'\n"
                          "        'man:the manual page')\n"
                          "    _describe command list; return\n    fi\n"
                          "    case $verb:$opt in\n"));
    DR_TRY(values(b, &words));
    DR_TRY(dr_buf_adds(b, "    completion:completion) compadd bash zsh fish; return ;;\n"
                          "    esac\n    case $verb in\n"));
    for (size_t i = 0; i < cli_verb_count; i++) {
        if (cli_verbs[i].verb != NULL)
            DR_TRY(zsh_options(b, &cli_verbs[i]));
    }
    DR_TRY(dr_buf_adds(b, "    esac\n    _describe -o option list\n}\n"
                          "if [ \"$funcstack[1]\" = _drupe ]; then\n    _drupe \"$@\"\n"
                          "else\n    compdef _drupe drupe\nfi\n"));
done:
    return st;
}

/* ---- fish ---- */

static dr_status fish_option(dr_buf *b, const char *verb, const dr_param *p)
{
    dr_status st = DR_OK;

    DR_TRY(dr_buf_addf(b, "complete -c drupe -n '__fish_seen_subcommand_from %s' -l %s",
                       verb, p->name));
    if (p->short_name != '\0')
        DR_TRY(dr_buf_addf(b, " -s %c", p->short_name));
    if (p->type == DR_PARAM_CHOICE) {
        DR_TRY(dr_buf_adds(b, " -x -a '"));
        DR_TRY(choices(b, p));
        DR_TRY(dr_buf_adds(b, "'"));
    } else if (p->type != DR_PARAM_BOOL) {
        DR_TRY(dr_buf_adds(b, p->type == DR_PARAM_STR ? " -r -F" : " -x"));
    }
    DR_TRY(dr_buf_adds(b, " -d '"));
    DR_TRY(quoted(b, p->help, "\\"));
    DR_TRY(dr_buf_adds(b, "'\n"));
done:
    return st;
}

static dr_status fish(dr_buf *b)
{
    dr_status st = DR_OK;

    DR_TRY(dr_buf_adds(b, "# fish completion for drupe, made by `drupe completion fish`\n"
                          "complete -c drupe -f\n"
                          "complete -c drupe -n '__fish_seen_subcommand_from completion' "
                          "-a 'bash zsh fish'\n"
                          "complete -c drupe -n __fish_use_subcommand "
                          "-a 'completion help man'\n"));
    for (size_t i = 0; i < cli_verb_count; i++) {
        const cli_verb_row *row = &cli_verbs[i];
        if (row->verb == NULL)
            continue;
        DR_TRY(dr_buf_addf(b, "complete -c drupe -n __fish_use_subcommand -a %s -d '",
                           row->name));
        DR_TRY(quoted(b, row->summary, "\\"));
        DR_TRY(dr_buf_adds(b, "'\n"));
        for (size_t k = 0; k < row->verb->params_count; k++) {
            if (offered(&row->verb->params[k]))
                DR_TRY(fish_option(b, row->name, &row->verb->params[k]));
        }
    }
done:
    return st;
}

dr_status cli_completion(const char *shell)
{
    static const char *const names[] = {"bash", "zsh", "fish"};
    static dr_status (*const makers[])(dr_buf *) = {bash, zsh, fish};
    size_t i = 0;
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, SCRIPT_MAX);
    while (shell != NULL && i < DR_COUNT(names) && strcmp(shell, names[i]) != 0)
        i++;
    if (shell == NULL || i == DR_COUNT(names))
        DR_FAIL(DR_EUSAGE, "completion: expected bash, zsh or fish, found %s",
                shell != NULL ? shell : "nothing");
    DR_TRY(makers[i](&b));
    DR_TRY(cli_write(b.data, b.len));
done:
    dr_buf_release(&b);
    return st;
}
