/*
 * jinja_parse.c - statements: {% if %}, for, set, macro, with, filter, break, continue,
 * generation.
 *
 * A block of statements ends before a tag whose name is in its list of ends; that tag is
 * the opener's to read.  {% generation %} (transformers' mark of what the assistant said)
 * is a block whose one effect is that it has a scope of its own.
 */
#include <string.h>

#include "tok/jinja_impl.h"

static dr_status block(jinja_parser *p, jinja_node **out, const char *const *ends);

static dr_status expect_end(jinja_parser *p)
{
    if (p->at->kind != JINJA_BLOCK_END)
        return dr_fail(DR_EFORMAT, "chat template line %d: unexpected \"%.*s\" in a tag",
                       p->at->line, (int)(p->at->text.n < 60 ? p->at->text.n : 60),
                       p->at->text.s);
    p->at++;
    return DR_OK;
}

/* {% name %}, nothing else. */
static dr_status closing(jinja_parser *p)
{
    p->at += 2;
    return expect_end(p);
}

static bool skip_name(jinja_parser *p, const char *name)
{
    const bool here = jinja_at_name(p, name);

    p->at += here;
    return here;
}

/* name, or name, name: into list; names.attribute into SET_ATTR. */
static dr_status targets(jinja_parser *p, jinja_node *n)
{
    jinja_node *var = NULL;
    const bool bracket = jinja_at_op(p, "(");
    dr_status st = DR_OK;

    p->at += bracket;
    do {
        if (p->at->kind != JINJA_NAME || jinja_at_name(p, "in"))
            DR_FAIL(
                DR_EFORMAT, "chat template line %d: expected a name to set, found \"%.*s\"",
                p->at->line, (int)(p->at->text.n < 60 ? p->at->text.n : 60), p->at->text.s);
        DR_TRY(jinja_node_new(p, &var, JINJA_VAR));
        var->name = p->at++->text;
        DR_TRY(jinja_node_add(p, n, var));
        if (!jinja_at_op(p, ","))
            break;
        p->at++;
    } while (p->at->kind == JINJA_NAME && !jinja_at_name(p, "in"));
    if (bracket)
        DR_TRY(jinja_expect_op(p, ")"));
    if (n->kind == JINJA_SET && n->count == 1 && jinja_at_op(p, ".")) {
        p->at++;
        if (p->at->kind != JINJA_NAME)
            DR_FAIL(DR_EFORMAT, "chat template line %d: expected an attribute",
                    p->at->line);
        n->kind = JINJA_SET_ATTR;
        n->name = p->at++->text;
    }
done:
    return st;
}

/* From behind "if" or "elif" to behind {% endif %}. */
static dr_status parse_if(jinja_parser *p, jinja_node **out)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    static const char *const last[] = {"endif", NULL};
    jinja_node **slot = out;
    dr_status st = DR_OK;

    for (;;) {
        jinja_node *n = NULL;
        DR_TRY(jinja_node_new(p, &n, JINJA_IF));
        *slot = n;
        DR_TRY(jinja_expression(p, &n->a, true, false));
        DR_TRY(expect_end(p));
        DR_TRY(block(p, &n->b, ends));
        slot = &n->c;
        if (!jinja_is(p->at[1].text, "elif"))
            break;
        p->at += 2;
    }
    if (jinja_is(p->at[1].text, "else")) {
        DR_TRY(closing(p));
        DR_TRY(block(p, slot, last));
    }
    DR_TRY(closing(p));
done:
    return st;
}

static dr_status parse_for(jinja_parser *p, jinja_node **out)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    static const char *const last[] = {"endfor", NULL};
    jinja_node *n = NULL;
    dr_status st = DR_OK;

    DR_TRY(jinja_node_new(p, &n, JINJA_FOR));
    DR_TRY(targets(p, n));
    if (!skip_name(p, "in"))
        DR_FAIL(DR_EFORMAT, "chat template line %d: a for without in", p->at->line);
    DR_TRY(jinja_expression(p, &n->a, true, false));
    if (skip_name(p, "if"))
        DR_TRY(jinja_expression(p, &n->d, false, true));
    if (jinja_at_name(p, "recursive"))
        DR_FAIL(DR_EUNSUPPORTED, "chat template line %d: a recursive for", p->at->line);
    DR_TRY(expect_end(p));
    DR_TRY(block(p, &n->b, ends));
    if (jinja_is(p->at[1].text, "else")) {
        DR_TRY(closing(p));
        DR_TRY(block(p, &n->c, last));
    }
    DR_TRY(closing(p));
    *out = n;
done:
    return st;
}

static dr_status parse_set(jinja_parser *p, jinja_node **out)
{
    static const char *const last[] = {"endset", NULL};
    jinja_node *n = NULL;
    dr_status st = DR_OK;

    DR_TRY(jinja_node_new(p, &n, JINJA_SET));
    DR_TRY(targets(p, n));
    if (jinja_at_op(p, "=")) {
        p->at++;
        DR_TRY(jinja_expression(p, &n->a, true, true));
        DR_TRY(expect_end(p));
    } else {
        if (jinja_at_op(p, "|"))
            DR_TRY(jinja_block_filters(p, &n->d, false));
        DR_TRY(expect_end(p));
        DR_TRY(block(p, &n->b, last));
        DR_TRY(closing(p));
    }
    *out = n;
done:
    return st;
}

static dr_status parse_macro(jinja_parser *p, jinja_node **out)
{
    static const char *const last[] = {"endmacro", NULL};
    jinja_node *n = NULL;
    dr_status st = DR_OK;

    DR_TRY(jinja_node_new(p, &n, JINJA_MACRO_DEF));
    if (p->at->kind != JINJA_NAME)
        DR_FAIL(DR_EFORMAT, "chat template line %d: a macro without name", p->at->line);
    n->name = p->at++->text;
    DR_TRY(jinja_expect_op(p, "("));
    DR_TRY(jinja_arguments(p, n));
    for (size_t i = 0; i < n->count; i++)
        if (n->list[i]->kind != JINJA_VAR && n->list[i]->kind != JINJA_KEYWORD)
            DR_FAIL(DR_EFORMAT, "chat template line %d: a macro's parameter is no name",
                    n->line);
    DR_TRY(expect_end(p));
    DR_TRY(block(p, &n->b, last));
    DR_TRY(closing(p));
    *out = n;
done:
    return st;
}

static dr_status parse_generation(jinja_parser *p, jinja_node **out)
{
    static const char *const last[] = {"endgeneration", NULL};
    dr_status st = DR_OK;

    DR_TRY(jinja_node_new(p, out, JINJA_WITH));
    DR_TRY(expect_end(p));
    DR_TRY(block(p, &(*out)->b, last));
    DR_TRY(closing(p));
done:
    return st;
}

/* {% with a = 1, b = 2 %} */
static dr_status parse_with(jinja_parser *p, jinja_node **out)
{
    static const char *const last[] = {"endwith", NULL};
    jinja_node *item = NULL;
    dr_status st = DR_OK;

    DR_TRY(jinja_node_new(p, out, JINJA_WITH));
    while (p->at->kind == JINJA_NAME) {
        DR_TRY(jinja_node_new(p, &item, JINJA_KEYWORD));
        item->name = p->at++->text;
        DR_TRY(jinja_expect_op(p, "="));
        DR_TRY(jinja_expression(p, &item->a, false, true));
        DR_TRY(jinja_node_add(p, *out, item));
        if (!jinja_at_op(p, ","))
            break;
        p->at++;
    }
    DR_TRY(expect_end(p));
    DR_TRY(block(p, &(*out)->b, last));
    DR_TRY(closing(p));
done:
    return st;
}

static dr_status parse_filter(jinja_parser *p, jinja_node **out)
{
    static const char *const last[] = {"endfilter", NULL};
    dr_status st = DR_OK;

    DR_TRY(jinja_node_new(p, out, JINJA_FILTER_BLOCK));
    DR_TRY(jinja_block_filters(p, &(*out)->d, true));
    DR_TRY(expect_end(p));
    DR_TRY(block(p, &(*out)->b, last));
    DR_TRY(closing(p));
done:
    return st;
}

static dr_status parse_break(jinja_parser *p, jinja_node **out)
{
    dr_status st = DR_OK;

    DR_TRY(jinja_node_new(p, out, JINJA_BREAK));
    DR_TRY(expect_end(p));
done:
    return st;
}

static dr_status parse_continue(jinja_parser *p, jinja_node **out)
{
    dr_status st = DR_OK;

    DR_TRY(jinja_node_new(p, out, JINJA_CONTINUE));
    DR_TRY(expect_end(p));
done:
    return st;
}

static const struct {
    const char *name;
    dr_status (*parse)(jinja_parser *p, jinja_node **out);
} statements[] = {
    {"if", parse_if},
    {"for", parse_for},
    {"set", parse_set},
    {"macro", parse_macro},
    {"break", parse_break},
    {"continue", parse_continue},
    {"generation", parse_generation},
    {"with", parse_with},
    {"filter", parse_filter},
};

/* At {% name: the statement that it opens. */
static dr_status statement(jinja_parser *p, jinja_node **out)
{
    const jinja_token *tag = p->at + 1;
    dr_status st = DR_OK;

    if (tag->kind != JINJA_NAME)
        DR_FAIL(DR_EFORMAT, "chat template line %d: a tag without name", tag->line);
    for (size_t i = 0; i < DR_COUNT(statements); i++) {
        if (jinja_is(tag->text, statements[i].name)) {
            p->at += 2;
            return statements[i].parse(p, out);
        }
    }
    if (tag->text.n > 3 && (memcmp(tag->text.s, "end", 3) == 0 ||
                            jinja_is(tag->text, "else") || jinja_is(tag->text, "elif")))
        DR_FAIL(DR_EFORMAT, "chat template line %d: {%% %.*s %%} closes nothing", tag->line,
                (int)tag->text.n, tag->text.s);
    DR_FAIL(DR_EUNSUPPORTED, "chat template line %d: {%% %.*s %%}", tag->line,
            (int)tag->text.n, tag->text.s);
done:
    return st;
}

static bool at_end_tag(const jinja_parser *p, const char *const *ends)
{
    if (p->at->kind != JINJA_BLOCK_BEGIN || p->at[1].kind != JINJA_NAME)
        return false;
    for (; *ends != NULL; ends++)
        if (jinja_is(p->at[1].text, *ends))
            return true;
    return false;
}

static dr_status print(jinja_parser *p, jinja_node **out)
{
    dr_status st = DR_OK;

    DR_TRY(jinja_node_new(p, out, JINJA_PRINT));
    p->at++;
    DR_TRY(jinja_expression(p, &(*out)->a, true, true));
    if (p->at->kind != JINJA_PRINT_END)
        DR_FAIL(DR_EFORMAT, "chat template line %d: unexpected \"%.*s\" in {{ }}",
                p->at->line, (int)(p->at->text.n < 60 ? p->at->text.n : 60), p->at->text.s);
    p->at++;
done:
    return st;
}

/* Statements up to a tag named in ends (which stays), or, with no names, to the end. */
static dr_status block(jinja_parser *p, jinja_node **out, const char *const *ends)
{
    jinja_node *n = NULL;
    dr_status st = DR_OK;

    if (++p->depth > JINJA_DEPTH_MAX)
        DR_FAIL(DR_EFORMAT, "chat template line %d: blocks nest deeper than %d",
                p->at->line, JINJA_DEPTH_MAX);
    DR_TRY(jinja_node_new(p, out, JINJA_BLOCK));
    while (!at_end_tag(p, ends)) {
        if (p->at->kind == JINJA_END) {
            if (ends[0] == NULL)
                break;
            while (ends[1] != NULL)
                ends++;
            DR_FAIL(DR_EFORMAT, "chat template line %d: a block without {%% %s %%}",
                    (*out)->line, ends[0]);
        }
        if (p->at->kind == JINJA_DATA) {
            DR_TRY(jinja_node_new(p, &n, JINJA_OUT));
            n->value = jinja_string(p->at++->text);
        } else if (p->at->kind == JINJA_PRINT_BEGIN) {
            DR_TRY(print(p, &n));
        } else {
            DR_TRY(statement(p, &n));
        }
        DR_TRY(jinja_node_add(p, *out, n));
    }
    p->depth--;
done:
    return st;
}

dr_status jinja_parse(jinja *j, jinja_node **out, const jinja_tokens *tokens)
{
    static const char *const none[] = {NULL};
    jinja_parser p = {.j = j, .at = tokens->v};

    return block(&p, out, none);
}
