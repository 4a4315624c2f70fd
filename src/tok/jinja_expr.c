/*
 * jinja_expr.c - expressions, by recursive descent, loosest binding first:
 *
 *   x if y else z | or | and | not | comparison chain | + - | ~ | * / // % | ** |
 *   unary - + | primary | .a [b] (c) | |filter, is test
 *
 * A filter or test binds to a whole unary expression, so -1|abs is (-1)|abs, as in Jinja.
 */
#include <string.h>

#include "tok/jinja_impl.h"

static dr_status unary(jinja_parser *p, jinja_node **out, bool filters);
static dr_status postfix(jinja_parser *p, jinja_node **node);

dr_status jinja_node_new(jinja_parser *p, jinja_node **out, jinja_kind kind)
{
    dr_status st = DR_OK;

    DR_TRY(jinja_alloc(p->j, out, 1, sizeof(**out)));
    (*out)->kind = kind;
    (*out)->line = p->at->line;
done:
    return st;
}

dr_status jinja_node_add(jinja_parser *p, jinja_node *n, jinja_node *item)
{
    jinja_node **grown = NULL;
    size_t cap = n->cap ? n->cap * 2 : 4;
    dr_status st = DR_OK;

    if (n->count == n->cap) {
        DR_TRY(jinja_alloc(p->j, &grown, cap, sizeof(*grown)));
        if (n->count > 0)
            memcpy(grown, n->list, n->count * sizeof(*grown));
        n->list = grown;
        n->cap = cap;
    }
    n->list[n->count++] = item;
done:
    return st;
}

bool jinja_at_op(const jinja_parser *p, const char *op)
{
    return p->at->kind == JINJA_OPERATOR && jinja_is(p->at->text, op);
}

bool jinja_at_name(const jinja_parser *p, const char *name)
{
    return p->at->kind == JINJA_NAME && jinja_is(p->at->text, name);
}

static dr_status unexpected(const jinja_parser *p, const char *wanted)
{
    const jinja_token *t = p->at;
    const int n = (int)(t->text.n < 60 ? t->text.n : 60);

    return dr_fail(DR_EFORMAT, "chat template line %d: expected %s, found \"%.*s\"",
                   t->line, wanted, n, t->text.s);
}

dr_status jinja_expect_op(jinja_parser *p, const char *op)
{
    if (!jinja_at_op(p, op))
        return unexpected(p, op);
    p->at++;
    return DR_OK;
}

static bool skip_op(jinja_parser *p, const char *op)
{
    const bool here = jinja_at_op(p, op);

    p->at += here;
    return here;
}

static bool skip_name(jinja_parser *p, const char *name)
{
    const bool here = jinja_at_name(p, name);

    p->at += here;
    return here;
}

/* ---- literals and brackets ---- */

/* 'a' 'b' is one string. */
static dr_status literal(jinja_parser *p, jinja_node **out)
{
    jinja_text joined = {0};
    dr_status st = DR_OK;

    DR_TRY(jinja_node_new(p, out, JINJA_CONST));
    (*out)->value = p->at++->value;
    while ((*out)->value.type == JINJA_STRING && p->at->kind == JINJA_LITERAL &&
           p->at->value.type == JINJA_STRING) {
        const jinja_text a = (*out)->value.u.text, b = p->at->value.u.text;
        char *s = NULL;
        DR_TRY(jinja_alloc(p->j, &s, a.n + b.n, 1));
        memcpy(s, a.s, a.n);
        memcpy(s + a.n, b.s, b.n);
        joined = (jinja_text){s, a.n + b.n};
        (*out)->value = jinja_string(joined);
        p->at++;
    }
done:
    return st;
}

static dr_status list_items(jinja_parser *p, jinja_node *list, const char *close)
{
    jinja_node *item = NULL;
    dr_status st = DR_OK;

    while (!jinja_at_op(p, close)) {
        DR_TRY(jinja_expression(p, &item, false, true));
        DR_TRY(jinja_node_add(p, list, item));
        if (!skip_op(p, ","))
            break;
    }
    DR_TRY(jinja_expect_op(p, close));
done:
    return st;
}

static dr_status dict(jinja_parser *p, jinja_node **out)
{
    jinja_node *item = NULL;
    dr_status st = DR_OK;

    DR_TRY(jinja_node_new(p, out, JINJA_MAKE_DICT));
    while (!jinja_at_op(p, "}")) {
        DR_TRY(jinja_expression(p, &item, false, true));
        DR_TRY(jinja_node_add(p, *out, item));
        DR_TRY(jinja_expect_op(p, ":"));
        DR_TRY(jinja_expression(p, &item, false, true));
        DR_TRY(jinja_node_add(p, *out, item));
        if (!skip_op(p, ","))
            break;
    }
    DR_TRY(jinja_expect_op(p, "}"));
done:
    return st;
}

/* (x) is x; (), (x,) and (x, y) are tuples. */
static dr_status parenthesis(jinja_parser *p, jinja_node **out)
{
    dr_status st = DR_OK;

    if (skip_op(p, ")"))
        return jinja_node_new(p, out, JINJA_MAKE_TUPLE);
    DR_TRY(jinja_expression(p, out, true, true));
    DR_TRY(jinja_expect_op(p, ")"));
done:
    return st;
}

static dr_status name(jinja_parser *p, jinja_node **out)
{
    const jinja_text t = p->at->text;
    const bool truth = jinja_is(t, "true") || jinja_is(t, "True");
    const bool falsity = jinja_is(t, "false") || jinja_is(t, "False");
    const bool none = jinja_is(t, "none") || jinja_is(t, "None");
    dr_status st = DR_OK;

    DR_TRY(jinja_node_new(p, out, truth || falsity || none ? JINJA_CONST : JINJA_VAR));
    (*out)->name = t;
    (*out)->value = none ? (jinja_value){.type = JINJA_NONE} : jinja_bool(truth);
    p->at++;
done:
    return st;
}

static dr_status primary(jinja_parser *p, jinja_node **out)
{
    dr_status st = DR_OK;

    if (p->at->kind == JINJA_NAME)
        return name(p, out);
    if (p->at->kind == JINJA_LITERAL)
        return literal(p, out);
    if (skip_op(p, "("))
        return parenthesis(p, out);
    if (skip_op(p, "{"))
        return dict(p, out);
    if (!skip_op(p, "["))
        return unexpected(p, "a value");
    DR_TRY(jinja_node_new(p, out, JINJA_MAKE_LIST));
    DR_TRY(list_items(p, *out, "]"));
done:
    return st;
}

/* ---- what follows a primary ---- */

dr_status jinja_arguments(jinja_parser *p, jinja_node *call)
{
    jinja_node *item = NULL;
    dr_status st = DR_OK;

    while (!jinja_at_op(p, ")")) {
        if (jinja_at_op(p, "*") || jinja_at_op(p, "**"))
            DR_FAIL(DR_EUNSUPPORTED, "chat template line %d: arguments from a list or dict",
                    p->at->line);
        if (p->at->kind == JINJA_NAME && p->at[1].kind == JINJA_OPERATOR &&
            jinja_is(p->at[1].text, "=")) {
            DR_TRY(jinja_node_new(p, &item, JINJA_KEYWORD));
            item->name = p->at->text;
            p->at += 2;
            DR_TRY(jinja_expression(p, &item->a, false, true));
        } else {
            DR_TRY(jinja_expression(p, &item, false, true));
        }
        DR_TRY(jinja_node_add(p, call, item));
        if (!skip_op(p, ","))
            break;
    }
    DR_TRY(jinja_expect_op(p, ")"));
done:
    return st;
}

/* After "[": an index, or a slice with up to three parts. */
static dr_status subscript(jinja_parser *p, jinja_node **node)
{
    jinja_node *n = NULL;
    dr_status st = DR_OK;

    DR_TRY(jinja_node_new(p, &n, JINJA_ITEM));
    n->a = *node;
    if (!jinja_at_op(p, ":"))
        DR_TRY(jinja_expression(p, &n->b, true, true));
    if (skip_op(p, ":")) {
        n->kind = JINJA_SLICE;
        if (!jinja_at_op(p, "]") && !jinja_at_op(p, ":"))
            DR_TRY(jinja_expression(p, &n->c, false, true));
        if (skip_op(p, ":") && !jinja_at_op(p, "]"))
            DR_TRY(jinja_expression(p, &n->d, false, true));
    }
    DR_TRY(jinja_expect_op(p, "]"));
    *node = n;
done:
    return st;
}

static dr_status attribute(jinja_parser *p, jinja_node **node)
{
    const jinja_token *t = p->at;
    jinja_node *n = NULL;
    const bool number = t->kind == JINJA_LITERAL && t->value.type == JINJA_INT;
    dr_status st = DR_OK;

    if (t->kind != JINJA_NAME && !number)
        return unexpected(p, "a name after the dot");
    DR_TRY(jinja_node_new(p, &n, number ? JINJA_ITEM : JINJA_ATTR));
    n->a = *node;
    n->name = t->text;
    if (number)
        DR_TRY(literal(p, &n->b));
    else
        p->at++;
    *node = n;
done:
    return st;
}

static dr_status call(jinja_parser *p, jinja_node **node)
{
    jinja_node *n = NULL;
    dr_status st = DR_OK;

    DR_TRY(jinja_node_new(p, &n, JINJA_CALL));
    n->a = *node;
    DR_TRY(jinja_arguments(p, n));
    *node = n;
done:
    return st;
}

static dr_status postfix(jinja_parser *p, jinja_node **node)
{
    dr_status st = DR_OK;

    for (;;) {
        if (skip_op(p, "."))
            DR_TRY(attribute(p, node));
        else if (skip_op(p, "["))
            DR_TRY(subscript(p, node));
        else if (skip_op(p, "("))
            DR_TRY(call(p, node));
        else
            break;
    }
done:
    return st;
}

/* Filters and tests may have dots in their names; one that is not known is an error when
 * it is asked, as it may stand in a branch that is never taken. */
static dr_status dotted_name(jinja_parser *p, jinja_text *name)
{
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, 1 << 16);
    *name = p->at++->text;
    if (!jinja_at_op(p, "."))
        goto done;
    DR_TRY(dr_buf_add(&b, name->s, name->n));
    while (skip_op(p, ".")) {
        if (p->at->kind != JINJA_NAME) {
            st = unexpected(p, "a name after the dot");
            goto done;
        }
        DR_TRY(dr_buf_adds(&b, "."));
        DR_TRY(dr_buf_add(&b, p->at->text.s, p->at->text.n));
        p->at++;
    }
    DR_TRY(jinja_copy(p->j, name, b.data, b.len));
done:
    dr_buf_release(&b);
    return st;
}

/* After "|". */
static dr_status filter(jinja_parser *p, jinja_node **node)
{
    jinja_node *n = NULL;
    dr_status st = DR_OK;

    if (p->at->kind != JINJA_NAME)
        return unexpected(p, "the name of a filter");
    DR_TRY(jinja_node_new(p, &n, JINJA_FILTER));
    n->a = *node;
    DR_TRY(dotted_name(p, &n->name));
    if (skip_op(p, "("))
        DR_TRY(jinja_arguments(p, n));
    *node = n;
done:
    return st;
}

dr_status jinja_block_filters(jinja_parser *p, jinja_node **out, bool bare)
{
    dr_status st = DR_OK;

    DR_TRY(jinja_node_new(p, out, JINJA_HOLE));
    if (bare)
        DR_TRY(filter(p, out));
    while (skip_op(p, "|"))
        DR_TRY(filter(p, out));
done:
    return st;
}

/* A test's one argument may stand without parentheses: "is divisibleby 3". */
static bool at_bare_argument(const jinja_parser *p)
{
    if (p->at->kind == JINJA_NAME)
        return !jinja_at_name(p, "else") && !jinja_at_name(p, "or") &&
               !jinja_at_name(p, "and");
    return p->at->kind == JINJA_LITERAL || jinja_at_op(p, "[") || jinja_at_op(p, "{");
}

/* After "is". */
static dr_status test(jinja_parser *p, jinja_node **node)
{
    const bool negated = skip_name(p, "not");
    jinja_node *n = NULL, *argument = NULL;
    dr_status st = DR_OK;

    if (p->at->kind != JINJA_NAME)
        return unexpected(p, "the name of a test");
    DR_TRY(jinja_node_new(p, &n, JINJA_TEST));
    n->a = *node;
    DR_TRY(dotted_name(p, &n->name));
    if (skip_op(p, "(")) {
        DR_TRY(jinja_arguments(p, n));
    } else if (jinja_at_name(p, "is")) {
        return unexpected(p, "the end of a test");
    } else if (at_bare_argument(p)) {
        DR_TRY(primary(p, &argument));
        DR_TRY(postfix(p, &argument));
        DR_TRY(jinja_node_add(p, n, argument));
    }
    *node = n;
    if (negated) {
        DR_TRY(jinja_node_new(p, node, JINJA_NOT));
        (*node)->a = n;
    }
done:
    return st;
}

static dr_status filters_and_tests(jinja_parser *p, jinja_node **node)
{
    dr_status st = DR_OK;

    for (;;) {
        if (skip_op(p, "|"))
            DR_TRY(filter(p, node));
        else if (skip_name(p, "is"))
            DR_TRY(test(p, node));
        else if (skip_op(p, "("))
            DR_TRY(call(p, node));
        else
            break;
    }
done:
    return st;
}

/* ---- operators ---- */

static dr_status unary(jinja_parser *p, jinja_node **out, bool filters)
{
    dr_status st = DR_OK;

    if (++p->depth > JINJA_DEPTH_MAX)
        DR_FAIL(DR_EFORMAT, "chat template line %d: nests deeper than %d", p->at->line,
                JINJA_DEPTH_MAX);
    if (jinja_at_op(p, "-") || jinja_at_op(p, "+")) {
        jinja_node *n = NULL;
        DR_TRY(jinja_node_new(p, &n, JINJA_NEGATE));
        n->name = p->at++->text;
        DR_TRY(unary(p, &n->a, false));
        *out = n;
    } else {
        DR_TRY(primary(p, out));
    }
    DR_TRY(postfix(p, out));
    if (filters)
        DR_TRY(filters_and_tests(p, out));
    p->depth--;
done:
    return st;
}

/* Left-associative binary operators, loosest first; a row ends with NULL. */
static const char *const levels[][5] = {{"+", "-"}, {"~"}, {"*", "/", "//", "%"}, {"**"}};

static bool at_level(const jinja_parser *p, size_t level)
{
    for (const char *const *op = levels[level]; *op != NULL; op++)
        if (jinja_at_op(p, *op))
            return true;
    return false;
}

static dr_status arithmetic(jinja_parser *p, jinja_node **out, size_t level)
{
    jinja_node *n = NULL;
    dr_status st = DR_OK;

    if (level == DR_COUNT(levels))
        return unary(p, out, true);
    DR_TRY(arithmetic(p, out, level + 1));
    while (at_level(p, level)) {
        DR_TRY(jinja_node_new(p, &n, JINJA_BINARY));
        n->name = p->at++->text;
        n->a = *out;
        DR_TRY(arithmetic(p, &n->b, level + 1));
        *out = n;
    }
done:
    return st;
}

/* ==, <, in, not in: *op is its text, behind which the parser then stands. */
static bool comparison_operator(jinja_parser *p, jinja_text *op)
{
    static const char *const ops[] = {"==", "!=", "<", "<=", ">", ">="};

    *op = p->at->text;
    for (size_t k = 0; k < DR_COUNT(ops); k++)
        if (skip_op(p, ops[k]))
            return true;
    if (skip_name(p, "in"))
        return true;
    if (jinja_at_name(p, "not") && p->at[1].kind == JINJA_NAME &&
        jinja_is(p->at[1].text, "in")) {
        p->at += 2;
        return true;
    }
    return false;
}

static dr_status comparison(jinja_parser *p, jinja_node **out)
{
    jinja_node *chain = NULL, *with = NULL;
    jinja_text op = {0};
    dr_status st = DR_OK;

    DR_TRY(arithmetic(p, out, 0));
    while (comparison_operator(p, &op)) {
        if (chain == NULL) {
            DR_TRY(jinja_node_new(p, &chain, JINJA_COMPARE));
            chain->a = *out;
            *out = chain;
        }
        DR_TRY(jinja_node_new(p, &with, JINJA_COMPARE_WITH));
        with->name = op;
        DR_TRY(arithmetic(p, &with->a, 0));
        DR_TRY(jinja_node_add(p, chain, with));
    }
done:
    return st;
}

static dr_status negation(jinja_parser *p, jinja_node **out)
{
    size_t count = 0;
    dr_status st = DR_OK;

    while (skip_name(p, "not"))
        count++;
    DR_TRY(comparison(p, out));
    for (size_t i = 0; i < (count > 0 ? 2 - count % 2 : 0); i++) {
        jinja_node *n = NULL;
        DR_TRY(jinja_node_new(p, &n, JINJA_NOT));
        n->a = *out;
        *out = n;
    }
done:
    return st;
}

static dr_status logic(jinja_parser *p, jinja_node **out, bool any)
{
    jinja_node *n = NULL;
    dr_status st = DR_OK;

    DR_TRY(any ? logic(p, out, false) : negation(p, out));
    while (skip_name(p, any ? "or" : "and")) {
        DR_TRY(jinja_node_new(p, &n, any ? JINJA_OR : JINJA_AND));
        n->a = *out;
        DR_TRY(any ? logic(p, &n->b, false) : negation(p, &n->b));
        *out = n;
    }
done:
    return st;
}

static dr_status choice(jinja_parser *p, jinja_node **out, bool choices)
{
    jinja_node *n = NULL;
    dr_status st = DR_OK;

    DR_TRY(logic(p, out, true));
    while (choices && skip_name(p, "if")) {
        DR_TRY(jinja_node_new(p, &n, JINJA_CHOICE));
        n->b = *out;
        DR_TRY(logic(p, &n->a, true));
        if (skip_name(p, "else")) {
            if (++p->depth > JINJA_DEPTH_MAX)
                DR_FAIL(DR_EFORMAT, "chat template line %d: nests deeper than %d",
                        p->at->line, JINJA_DEPTH_MAX);
            DR_TRY(choice(p, &n->c, true));
            p->depth--;
        }
        *out = n;
    }
done:
    return st;
}

static bool at_expression_end(const jinja_parser *p)
{
    return p->at->kind == JINJA_PRINT_END || p->at->kind == JINJA_BLOCK_END ||
           p->at->kind == JINJA_END || jinja_at_op(p, ")") || jinja_at_op(p, "]");
}

dr_status jinja_expression(jinja_parser *p, jinja_node **out, bool tuples, bool choices)
{
    jinja_node *tuple = NULL, *item = NULL;
    dr_status st = DR_OK;

    DR_TRY(choice(p, out, choices));
    if (!tuples || !jinja_at_op(p, ","))
        return DR_OK;
    DR_TRY(jinja_node_new(p, &tuple, JINJA_MAKE_TUPLE));
    DR_TRY(jinja_node_add(p, tuple, *out));
    while (skip_op(p, ",") && !at_expression_end(p)) {
        DR_TRY(choice(p, &item, choices));
        DR_TRY(jinja_node_add(p, tuple, item));
    }
    *out = tuple;
done:
    return st;
}
