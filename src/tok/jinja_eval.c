/*
 * jinja_eval.c - running the syntax tree.
 *
 * Scopes: the template's, one for each turn of a loop, one for a macro call.  `if` has
 * none.  `set` writes to the innermost, so what a loop sets is gone with the turn; a
 * namespace is how a template carries something out.  A macro sees the scope that it was
 * defined in.
 */
#include <string.h>

#include "core/log.h"
#include "tok/jinja_impl.h"

enum { EVAL_DEPTH_MAX = 2000 };

dr_status jinja_step(jinja *j, size_t count)
{
    j->steps += count;
    if (j->steps > JINJA_STEPS_MAX)
        return dr_fail(DR_EFORMAT, "chat template line %d: more than %d steps", j->line,
                       JINJA_STEPS_MAX);
    return DR_OK;
}

/* ---- names ---- */

dr_status jinja_set(jinja *j, jinja_scope *s, jinja_text name, jinja_value v)
{
    jinja_var *grown = NULL;
    size_t cap = s->cap ? s->cap * 2 : 8;
    dr_status st = DR_OK;

    DR_TRY(jinja_step(j, s->count / 16));
    for (size_t i = 0; i < s->count; i++) {
        if (jinja_same_text(s->vars[i].name, name)) {
            s->vars[i].value = v;
            return DR_OK;
        }
    }
    if (s->count == s->cap) {
        DR_TRY(jinja_alloc(j, &grown, cap, sizeof(*grown)));
        if (s->count > 0)
            memcpy(grown, s->vars, s->count * sizeof(*grown));
        s->vars = grown;
        s->cap = cap;
    }
    s->vars[s->count++] = (jinja_var){name, v};
done:
    return st;
}

/* Steps are counted here and checked by the next jinja_step. */
jinja_value jinja_get(jinja *j, jinja_text name)
{
    for (const jinja_scope *s = j->scope; s != NULL; s = s->up, j->steps += 1)
        for (size_t i = 0; i < s->count; i++)
            if (jinja_same_text(s->vars[i].name, name))
                return s->vars[i].value;
    if (jinja_function_known(name))
        return (jinja_value){.type = JINJA_FUNCTION, .u.text = name};
    return jinja_undefined(name);
}

/* One name takes the value; several take its items. */
static dr_status assign(jinja *j, const jinja_node *n, const jinja_value *v)
{
    const jinja_list *items = NULL;
    dr_status st = DR_OK;

    if (n->count == 1)
        return jinja_set(j, j->scope, n->list[0]->name, *v);
    DR_TRY(jinja_iterate(j, &items, v));
    if (items->count != n->count)
        DR_FAIL(DR_EFORMAT, "chat template line %d: %zu values for %zu names", n->line,
                items->count, n->count);
    for (size_t i = 0; i < n->count; i++)
        DR_TRY(jinja_set(j, j->scope, n->list[i]->name, items->v[i]));
done:
    return st;
}

/* In the rendering's memory, as a macro that was defined in it may outlive it. */
static dr_status new_scope(jinja *j, jinja_scope **out, jinja_scope *up)
{
    dr_status st = DR_OK;

    DR_TRY(jinja_alloc(j, out, 1, sizeof(**out)));
    (*out)->up = up;
done:
    return st;
}

/* ---- statements ---- */

static dr_status run_set_attr(jinja *j, const jinja_node *n)
{
    const jinja_value target = jinja_get(j, n->list[0]->name);
    jinja_value v = {0};
    dr_status st = DR_OK;

    if (n->a == NULL)
        DR_FAIL(DR_EUNSUPPORTED, "chat template line %d: a set block of an attribute",
                n->line);
    DR_TRY(jinja_eval(j, &v, n->a));
    if (target.type != JINJA_NAMESPACE)
        DR_FAIL(DR_EFORMAT, "chat template line %d: \"%.*s\" is %s, not a namespace",
                n->line, (int)n->list[0]->name.n, n->list[0]->name.s,
                jinja_type_name(&target));
    DR_TRY(jinja_dict_set(j, target.u.dict, jinja_string(n->name), v));
done:
    return st;
}

/*
 * Output of the block as a string.  Macros that call each other hold as many unfinished
 * outputs as they are deep; all of them count as bytes of values.
 */
static dr_status capture(jinja *j, jinja_value *out, const jinja_node *body)
{
    dr_buf *outer = j->out;
    const size_t held = j->held;
    dr_buf text;
    dr_status st = DR_OK;

    j->held += outer->len;
    const size_t used = j->bytes + j->held;
    const size_t left = used < JINJA_BYTES_MAX ? JINJA_BYTES_MAX - used : 0;
    dr_buf_init(&text, left < JINJA_OUTPUT_MAX ? left : JINJA_OUTPUT_MAX);
    j->out = &text;
    DR_TRY(jinja_run(j, body));
    out->type = JINJA_STRING;
    DR_TRY(jinja_copy(j, &out->u.text, text.data, text.len));
done:
    j->out = outer;
    j->held = held;
    dr_buf_release(&text);
    return st;
}

/* The block's output, through its filters. */
static dr_status filtered(jinja *j, jinja_value *out, const jinja_node *n)
{
    dr_status st = DR_OK;

    DR_TRY(capture(j, out, n->b));
    if (n->d != NULL) {
        j->hole = out->u.text;
        DR_TRY(jinja_eval(j, out, n->d));
    }
done:
    return st;
}

static dr_status run_filter_block(jinja *j, const jinja_node *n)
{
    jinja_scope *outer = j->scope, *inner = NULL;
    jinja_value v = {0};
    dr_status st = DR_OK;

    DR_TRY(new_scope(j, &inner, outer));
    j->scope = inner;
    DR_TRY(filtered(j, &v, n));
    if (v.type != JINJA_STRING)
        DR_FAIL(DR_EFORMAT, "chat template line %d: a filter block that makes %s", n->line,
                jinja_type_name(&v));
    DR_TRY(jinja_print(j, j->out, &v, false, 0));
done:
    j->scope = outer;
    return st;
}

/* The values are those of the scope around. */
static dr_status run_with(jinja *j, const jinja_node *n)
{
    jinja_scope *outer = j->scope, *inner = NULL;
    jinja_value v = {0};
    dr_status st = DR_OK;

    DR_TRY(new_scope(j, &inner, outer));
    for (size_t i = 0; i < n->count; i++) {
        DR_TRY(jinja_eval(j, &v, n->list[i]->a));
        DR_TRY(jinja_set(j, inner, n->list[i]->name, v));
    }
    j->scope = inner;
    DR_TRY(jinja_run(j, n->b));
done:
    j->scope = outer;
    return st;
}

static dr_status run_set(jinja *j, const jinja_node *n)
{
    jinja_value v = {0};
    dr_status st = DR_OK;

    if (n->a != NULL)
        DR_TRY(jinja_eval(j, &v, n->a));
    else
        DR_TRY(filtered(j, &v, n));
    DR_TRY(assign(j, n, &v));
done:
    return st;
}

/* The items that the loop's condition lets through. */
static dr_status chosen(jinja *j, const jinja_list **items, const jinja_node *n)
{
    const jinja_list *all = *items;
    jinja_scope *outer = j->scope, *inner = NULL;
    jinja_list *kept = NULL;
    jinja_value v = {0};
    dr_status st = DR_OK;

    DR_TRY(jinja_list_new(j, &kept, all->count));
    DR_TRY(new_scope(j, &inner, outer));
    j->scope = inner;
    for (size_t i = 0; i < all->count; i++) {
        inner->count = 0;
        DR_TRY(assign(j, n, &all->v[i]));
        DR_TRY(jinja_eval(j, &v, n->d));
        if (jinja_truth(&v))
            DR_TRY(jinja_list_add(j, kept, all->v[i]));
    }
    *items = kept;
done:
    j->scope = outer;
    return st;
}

static dr_status run_turns(jinja *j, const jinja_node *n, jinja_loop *loop)
{
    jinja_scope *outer = j->scope, *inner = NULL;
    const jinja_value v = {.type = JINJA_LOOP, .u.loop = loop};
    dr_status st = DR_OK;

    DR_TRY(new_scope(j, &inner, outer));
    j->scope = inner;
    for (loop->at = 0; loop->at < loop->items->count; loop->at++) {
        inner->count = 0;
        DR_TRY(jinja_step(j, 1));
        DR_TRY(dr_cancelled_check());
        DR_TRY(jinja_set(j, inner, (jinja_text){"loop", 4}, v));
        DR_TRY(assign(j, n, &loop->items->v[loop->at]));
        DR_TRY(jinja_run(j, n->b));
        const jinja_flow flow = j->flow;
        j->flow = JINJA_ON;
        if (flow == JINJA_BREAKS)
            break;
    }
done:
    j->scope = outer;
    return st;
}

static dr_status run_for(jinja *j, const jinja_node *n)
{
    jinja_value v = {0};
    jinja_loop *loop = NULL;
    dr_status st = DR_OK;

    DR_TRY(jinja_alloc(j, &loop, 1, sizeof(*loop)));
    DR_TRY(jinja_eval(j, &v, n->a));
    j->line = n->line;
    DR_TRY(jinja_iterate(j, &loop->items, &v));
    if (n->d != NULL)
        DR_TRY(chosen(j, &loop->items, n));
    j->loops++;
    if (loop->items->count > 0)
        DR_TRY(run_turns(j, n, loop));
    j->loops--;
    if (loop->items->count == 0 && n->c != NULL)
        DR_TRY(jinja_run(j, n->c));
done:
    return st;
}

/* An elif is an IF in the place of else: no recursion, as there may be many. */
static dr_status run_if(jinja *j, const jinja_node *n)
{
    jinja_value v = {0};
    dr_status st = DR_OK;

    for (; n != NULL && n->kind == JINJA_IF; n = n->c) {
        DR_TRY(jinja_eval(j, &v, n->a));
        if (jinja_truth(&v))
            return jinja_run(j, n->b);
    }
    if (n != NULL)
        DR_TRY(jinja_run(j, n));
done:
    return st;
}

static dr_status run_block(jinja *j, const jinja_node *n)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < n->count && j->flow == JINJA_ON; i++)
        DR_TRY(jinja_run(j, n->list[i]));
done:
    return st;
}

static dr_status run_print(jinja *j, const jinja_node *n)
{
    jinja_value v = {0};
    dr_status st = DR_OK;

    if (n->kind == JINJA_OUT)
        return dr_buf_add(j->out, n->value.u.text.s, n->value.u.text.n);
    DR_TRY(jinja_eval(j, &v, n->a));
    DR_TRY(jinja_print(j, j->out, &v, false, 0));
done:
    return st;
}

static dr_status run_flow(jinja *j, const jinja_node *n)
{
    if (j->loops == 0)
        return dr_fail(DR_EFORMAT,
                       "chat template line %d: break or continue outside a loop", n->line);
    j->flow = n->kind == JINJA_BREAK ? JINJA_BREAKS : JINJA_CONTINUES;
    return DR_OK;
}

dr_status jinja_run(jinja *j, const jinja_node *n)
{
    dr_status st = DR_OK;

    DR_TRY(jinja_step(j, 1));
    j->line = n->line;
    if (++j->depth > EVAL_DEPTH_MAX)
        DR_FAIL(DR_EFORMAT, "chat template line %d: nests too deep", n->line);
    if (n->kind == JINJA_BLOCK)
        st = run_block(j, n);
    else if (n->kind == JINJA_OUT || n->kind == JINJA_PRINT)
        st = run_print(j, n);
    else if (n->kind == JINJA_IF)
        st = run_if(j, n);
    else if (n->kind == JINJA_FOR)
        st = run_for(j, n);
    else if (n->kind == JINJA_SET)
        st = run_set(j, n);
    else if (n->kind == JINJA_SET_ATTR)
        st = run_set_attr(j, n);
    else if (n->kind == JINJA_WITH)
        st = run_with(j, n);
    else if (n->kind == JINJA_FILTER_BLOCK)
        st = run_filter_block(j, n);
    else if (n->kind == JINJA_MACRO_DEF)
        st = jinja_set(j, j->scope, n->name,
                       (jinja_value){.type = JINJA_MACRO, .u.macro = {n, j->scope}});
    else
        st = run_flow(j, n);
    j->depth--;
done:
    return st;
}

/* ---- expressions ---- */

static dr_status eval_args(jinja *j, jinja_args *out, const jinja_node *n)
{
    dr_status st = DR_OK;

    *out = (jinja_args){0};
    DR_TRY(jinja_alloc(j, &out->v, n->count, sizeof(jinja_value)));
    DR_TRY(jinja_alloc(j, &out->names, n->count, sizeof(jinja_text)));
    DR_TRY(jinja_alloc(j, &out->named, n->count, sizeof(jinja_value)));
    for (size_t i = 0; i < n->count; i++) {
        const jinja_node *item = n->list[i];
        if (item->kind == JINJA_KEYWORD) {
            out->names[out->named_count] = item->name;
            DR_TRY(jinja_eval(j, &out->named[out->named_count++], item->a));
        } else {
            DR_TRY(jinja_eval(j, &out->v[out->count++], item));
        }
    }
done:
    return st;
}

static dr_status check_keywords(const jinja *j, const jinja_node *macro,
                                const jinja_args *args)
{
    for (size_t k = 0; k < args->named_count; k++) {
        bool known = false;
        for (size_t i = 0; i < macro->count && !known; i++)
            known = jinja_same_text(macro->list[i]->name, args->names[k]);
        if (!known)
            return dr_fail(DR_EFORMAT,
                           "chat template line %d: macro \"%.*s\" has no \"%.*s\"", j->line,
                           (int)macro->name.n, macro->name.s, (int)args->names[k].n,
                           args->names[k].s);
    }
    return DR_OK;
}

/* A macro's parameters from arguments and defaults, in a scope below its definition's. */
static dr_status call_macro(jinja *j, jinja_value *out, const jinja_value *callee,
                            const jinja_args *args)
{
    const jinja_node *macro = callee->u.macro.node;
    jinja_scope *outer = j->scope, *inner = NULL;
    const int loops = j->loops;
    dr_status st = DR_OK;

    if (args->count > macro->count)
        DR_FAIL(DR_EFORMAT, "chat template line %d: %zu arguments for macro \"%.*s\"",
                j->line, args->count, (int)macro->name.n, macro->name.s);
    DR_TRY(check_keywords(j, macro, args));
    DR_TRY(new_scope(j, &inner, callee->u.macro.scope));
    j->loops = 0;
    for (size_t i = 0; i < macro->count; i++) {
        const jinja_node *parameter = macro->list[i];
        jinja_value v = jinja_undefined(parameter->name);
        bool given = i < args->count;
        if (given)
            v = args->v[i];
        for (size_t k = 0; k < args->named_count; k++) {
            if (jinja_same_text(args->names[k], parameter->name)) {
                v = args->named[k];
                given = true;
            }
        }
        j->scope = inner;
        if (!given && parameter->kind == JINJA_KEYWORD)
            DR_TRY(jinja_eval(j, &v, parameter->a));
        DR_TRY(jinja_set(j, inner, parameter->name, v));
    }
    j->scope = inner;
    DR_TRY(capture(j, out, macro->b));
done:
    j->scope = outer;
    j->loops = loops;
    return st;
}

static dr_status eval_call(jinja *j, jinja_value *out, const jinja_node *n)
{
    const jinja_value *member = NULL;
    jinja_value callee = {0}, self = {0};
    jinja_args args;
    dr_status st = DR_OK;

    DR_TRY(eval_args(j, &args, n));
    if (n->a->kind == JINJA_ATTR) {
        DR_TRY(jinja_eval(j, &self, n->a->a));
        if (self.type == JINJA_NAMESPACE) {
            const jinja_value key = jinja_string(n->a->name);
            DR_TRY(jinja_dict_find(j, self.u.dict, &key, &member));
        }
        j->line = n->line;
        if (member == NULL)
            return jinja_method(j, out, &self, n->a->name, &args);
        callee = *member;
    } else {
        DR_TRY(jinja_eval(j, &callee, n->a));
    }
    j->line = n->line;
    if (callee.type == JINJA_MACRO)
        return call_macro(j, out, &callee, &args);
    if (callee.type == JINJA_FUNCTION)
        return jinja_function(j, out, callee.u.text, &args);
    if (callee.type == JINJA_UNDEFINED)
        DR_FAIL(DR_EUNSUPPORTED, "chat template line %d: the function \"%.*s\"", n->line,
                (int)callee.u.text.n, callee.u.text.s);
    DR_FAIL(DR_EFORMAT, "chat template line %d: %s is no function", n->line,
            jinja_type_name(&callee));
done:
    return st;
}

static dr_status eval_filter_or_test(jinja *j, jinja_value *out, const jinja_node *n)
{
    jinja_value v = {0};
    jinja_args args;
    bool truth = false;
    dr_status st = DR_OK;

    DR_TRY(jinja_eval(j, &v, n->a)); /* before the arguments: HOLE is fresh */
    DR_TRY(eval_args(j, &args, n));
    j->line = n->line;
    if (n->kind == JINJA_FILTER)
        return jinja_filter(j, out, n->name, &v, &args);
    DR_TRY(jinja_test(j, &truth, n->name, &v, &args));
    *out = jinja_bool(truth);
done:
    return st;
}

static dr_status eval_logic(jinja *j, jinja_value *out, const jinja_node *n)
{
    dr_status st = DR_OK;

    DR_TRY(jinja_eval(j, out, n->a));
    if (n->kind == JINJA_NOT)
        *out = jinja_bool(!jinja_truth(out));
    else if (n->kind == JINJA_CHOICE && jinja_truth(out))
        st = jinja_eval(j, out, n->b);
    else if (n->kind == JINJA_CHOICE && n->c != NULL)
        st = jinja_eval(j, out, n->c);
    else if (n->kind == JINJA_CHOICE)
        *out = jinja_undefined((jinja_text){"else", 4});
    else if (jinja_truth(out) == (n->kind == JINJA_AND))
        st = jinja_eval(j, out, n->b);
done:
    return st;
}

static dr_status eval_compare(jinja *j, jinja_value *out, const jinja_node *n)
{
    jinja_value left = {0}, right = {0};
    bool truth = true;
    dr_status st = DR_OK;

    DR_TRY(jinja_eval(j, &left, n->a));
    for (size_t i = 0; i < n->count && truth; i++) {
        DR_TRY(jinja_eval(j, &right, n->list[i]->a));
        j->line = n->line;
        DR_TRY(jinja_compare(j, &truth, n->list[i]->name, &left, &right));
        left = right;
    }
    *out = jinja_bool(truth);
done:
    return st;
}

static dr_status eval_make(jinja *j, jinja_value *out, const jinja_node *n)
{
    jinja_value key = {0}, v = {0};
    dr_status st = DR_OK;

    if (n->kind == JINJA_MAKE_DICT) {
        out->type = JINJA_DICT;
        DR_TRY(jinja_dict_new(j, &out->u.dict));
        for (size_t i = 0; i + 1 < n->count; i += 2) {
            DR_TRY(jinja_eval(j, &key, n->list[i]));
            DR_TRY(jinja_check_key(j, &key));
            DR_TRY(jinja_eval(j, &v, n->list[i + 1]));
            DR_TRY(jinja_dict_set(j, out->u.dict, key, v));
        }
        return DR_OK;
    }
    out->type = n->kind == JINJA_MAKE_LIST ? JINJA_LIST : JINJA_TUPLE;
    DR_TRY(jinja_list_new(j, &out->u.list, n->count));
    for (size_t i = 0; i < n->count; i++) {
        DR_TRY(jinja_eval(j, &v, n->list[i]));
        DR_TRY(jinja_list_add(j, out->u.list, v));
    }
done:
    return st;
}

static dr_status eval_place(jinja *j, jinja_value *out, const jinja_node *n)
{
    const jinja_node *const bounds[3] = {n->b, n->c, n->d};
    jinja_value v = {0}, key[3] = {{0}};
    dr_status st = DR_OK;

    DR_TRY(jinja_eval(j, &v, n->a));
    for (size_t i = 0; i < 3; i++) {
        key[i].type = JINJA_NONE;
        if (bounds[i] != NULL)
            DR_TRY(jinja_eval(j, &key[i], bounds[i]));
    }
    j->line = n->line;
    if (v.type == JINJA_UNDEFINED)
        DR_FAIL(DR_EFORMAT, "chat template line %d: \"%.*s\" is undefined", n->line,
                (int)v.u.text.n, v.u.text.s);
    if (n->kind == JINJA_ATTR)
        return jinja_attr(j, out, &v, n->name);
    if (n->kind == JINJA_ITEM)
        return jinja_item(j, out, &v, &key[0]);
    DR_TRY(jinja_slice(j, out, &v, key));
done:
    return st;
}

static dr_status eval_arithmetic(jinja *j, jinja_value *out, const jinja_node *n)
{
    jinja_value a = {0}, b = {0};
    dr_status st = DR_OK;

    DR_TRY(jinja_eval(j, &a, n->a));
    if (n->kind == JINJA_BINARY) {
        DR_TRY(jinja_eval(j, &b, n->b));
    } else { /* -x is 0 - x, also for floats, but for the sign of zero */
        if (!jinja_is_number(&a))
            DR_FAIL(DR_EFORMAT, "chat template line %d: the negative of %s", n->line,
                    jinja_type_name(&a));
        b = a;
        a = jinja_int(0);
        if (b.type == JINJA_FLOAT && jinja_is(n->name, "-")) {
            *out = jinja_real(-b.u.real);
            return DR_OK;
        }
    }
    j->line = n->line;
    DR_TRY(jinja_binary(j, out, n->name, &a, &b));
done:
    return st;
}

static dr_status eval_kind(jinja *j, jinja_value *out, const jinja_node *n)
{
    switch ((int)n->kind) {
    case JINJA_CONST:
        *out = n->value;
        return DR_OK;
    case JINJA_VAR:
        *out = jinja_get(j, n->name);
        return DR_OK;
    case JINJA_HOLE:
        *out = jinja_string(j->hole);
        return DR_OK;
    case JINJA_ATTR:
    case JINJA_ITEM:
    case JINJA_SLICE:
        return eval_place(j, out, n);
    case JINJA_CALL:
        return eval_call(j, out, n);
    case JINJA_FILTER:
    case JINJA_TEST:
        return eval_filter_or_test(j, out, n);
    case JINJA_NOT:
    case JINJA_AND:
    case JINJA_OR:
    case JINJA_CHOICE:
        return eval_logic(j, out, n);
    case JINJA_NEGATE:
    case JINJA_BINARY:
        return eval_arithmetic(j, out, n);
    case JINJA_COMPARE:
        return eval_compare(j, out, n);
    default:
        return eval_make(j, out, n);
    }
}

dr_status jinja_eval(jinja *j, jinja_value *out, const jinja_node *n)
{
    dr_status st = DR_OK;

    DR_TRY(jinja_step(j, 1));
    j->line = n->line;
    if (++j->depth > EVAL_DEPTH_MAX)
        DR_FAIL(DR_EFORMAT, "chat template line %d: nests too deep", n->line);
    DR_TRY(eval_kind(j, out, n));
    j->depth--;
done:
    return st;
}
