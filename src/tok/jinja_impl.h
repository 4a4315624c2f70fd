/*
 * jinja_impl.h - a small Jinja for chat templates: lexer, parser, values, evaluator.
 *
 * The language is Jinja 3's as transformers sets it up (trim_blocks, lstrip_blocks, loop
 * controls, tojson without HTML escapes, raise_exception, strftime_now), less what no chat
 * template of a known model uses: inheritance, include, import, call blocks,
 * recursive loops, printf-like formatting.  Those are DR_EUNSUPPORTED, by name and line.
 *
 * It is a sandbox: values are JSON-like, nothing is changed in place but namespaces, and
 * there is no way from a value to anything of the process.  One rendering lives in one
 * arena and is bounded in steps, bytes of values, bytes of output and depth.
 */
#ifndef DRUPE_TOK_JINJA_IMPL_H
#define DRUPE_TOK_JINJA_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/json.h"
#include "core/status.h"

enum {
    JINJA_OUTPUT_MAX = 16 << 20,
    JINJA_BYTES_MAX = 256 << 20,
    JINJA_STEPS_MAX = 2000000,
    JINJA_INDENT_MAX = 64, /* of tojson */
    JINJA_DEPTH_MAX = 200  /* of the syntax tree, of values, of macro calls */
};

/* ---- values (jinja_value.c) ---- */

typedef enum {
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_STRING,
    JINJA_LIST,
    JINJA_TUPLE,
    JINJA_DICT,
    JINJA_NAMESPACE,
    JINJA_LOOP,
    JINJA_FUNCTION,
    JINJA_MACRO
} jinja_type;

typedef struct {
    const char *s; /* borrowed from the arena; valid UTF-8, no zero byte after it */
    size_t n;
} jinja_text;

typedef struct jinja_list jinja_list;
typedef struct jinja_dict jinja_dict;
typedef struct jinja_loop jinja_loop;
typedef struct jinja_node jinja_node;
typedef struct jinja_scope jinja_scope;
typedef struct jinja jinja;
typedef struct jinja_args jinja_args;

typedef struct {
    jinja_type type;
    union {
        bool truth;
        int64_t integer;
        double real;
        jinja_text text;  /* STRING; UNDEFINED and FUNCTION: the name */
        jinja_list *list; /* LIST, TUPLE */
        jinja_dict *dict; /* DICT, NAMESPACE */
        jinja_loop *loop;
        struct {
            const jinja_node *node;
            jinja_scope *scope; /* borrowed: where it was defined */
        } macro;
    } u;
} jinja_value;

struct jinja_list {
    jinja_value *v; /* arena */
    size_t count, cap;
    bool lazy;  /* what a filter makes one by one in Python: true, without length */
    bool spent; /* a lazy one that was walked: empty from then on */
    bool range; /* what range() makes, from a to b by step */
    int64_t a, b, step;
};

struct jinja_dict {
    jinja_value *keys, *values; /* arena */
    size_t count, cap;
};

struct jinja_loop {
    const jinja_list *items; /* borrowed */
    size_t at;
    const jinja_list *last; /* what loop.changed was asked before; NULL: nothing */
};

jinja_value jinja_undefined(jinja_text name);
jinja_value jinja_bool(bool b);
jinja_value jinja_int(int64_t i);
jinja_value jinja_real(double f);
jinja_value jinja_string(jinja_text t);   /* borrows */
jinja_value jinja_literal(const char *s); /* borrows */
bool jinja_is(jinja_text t, const char *s);
bool jinja_same_text(jinja_text a, jinja_text b);
size_t jinja_chars(jinja_text t);                  /* its length in code points */
bool jinja_space(uint32_t cp);                     /* Python's str.isspace */
const char *jinja_type_name(const jinja_value *v); /* Python's */
bool jinja_truth(const jinja_value *v);
bool jinja_is_number(const jinja_value *v); /* bool, int, float */
double jinja_number(const jinja_value *v);

/* Memory of the rendering: DR_EFORMAT when it asks for too much. */
DR_MUST_USE dr_status jinja_alloc(jinja *j, void *out, size_t count, size_t size);
DR_MUST_USE dr_status jinja_copy(jinja *j, jinja_text *out, const char *s, size_t n);
DR_MUST_USE dr_status jinja_list_new(jinja *j, jinja_list **out, size_t cap);
DR_MUST_USE dr_status jinja_list_add(jinja *j, jinja_list *l, jinja_value v);
DR_MUST_USE dr_status jinja_dict_new(jinja *j, jinja_dict **out);
DR_MUST_USE dr_status jinja_dict_set(jinja *j, jinja_dict *d, jinja_value key,
                                     jinja_value value);
DR_MUST_USE dr_status jinja_dict_find(jinja *j, const jinja_dict *d, const jinja_value *key,
                                      const jinja_value **out); /* *out NULL: no such key */
/* DR_EFORMAT: a list or dict, also in a tuple, is no key in Python. */
DR_MUST_USE dr_status jinja_check_key(const jinja *j, const jinja_value *key);
const jinja_value *jinja_dict_text(const jinja_dict *d, const char *key);
DR_MUST_USE dr_status jinja_from_json(jinja *j, jinja_value *out, const json_t *v,
                                      int depth);

DR_MUST_USE dr_status jinja_equal(jinja *j, bool *out, const jinja_value *a,
                                  const jinja_value *b, int depth);
/* -1, 0, 1; what has no order in Python is DR_EFORMAT. */
DR_MUST_USE dr_status jinja_order(jinja *j, int *out, const jinja_value *a,
                                  const jinja_value *b, int depth);
/* What a for loop or a list filter sees: items, keys, characters. */
DR_MUST_USE dr_status jinja_iterate(jinja *j, const jinja_list **out, const jinja_value *v);

/* ---- printing (jinja_print.c) ---- */

/* Appends str(v), or with repr, repr(v). */
DR_MUST_USE dr_status jinja_print(jinja *j, dr_buf *out, const jinja_value *v, bool repr,
                                  int depth);
DR_MUST_USE dr_status jinja_str(jinja *j, jinja_text *out, const jinja_value *v);
typedef struct {
    int indent; /* -1: on one line */
    bool sort_keys, ascii;
    jinja_text item, key; /* separators */
} jinja_json_style;
DR_MUST_USE dr_status jinja_json(jinja *j, dr_buf *out, const jinja_value *v,
                                 const jinja_json_style *style, int depth);

/* ---- tokens (jinja_lex.c) ---- */

typedef enum {
    JINJA_DATA,
    JINJA_PRINT_BEGIN,
    JINJA_PRINT_END,
    JINJA_BLOCK_BEGIN,
    JINJA_BLOCK_END,
    JINJA_NAME,
    JINJA_LITERAL, /* string, int, float */
    JINJA_OPERATOR,
    JINJA_END
} jinja_token_kind;

typedef struct {
    jinja_token_kind kind;
    int line;
    jinja_text text;
    jinja_value value;
} jinja_token;

typedef struct {
    jinja_token *v; /* arena */
    size_t count, cap;
} jinja_tokens;

DR_MUST_USE dr_status jinja_lex(jinja *j, jinja_tokens *out, const char *source, size_t n);

/* ---- syntax (jinja_parse.c, jinja_expr.c) ---- */

typedef enum {
    /* statements */
    JINJA_BLOCK,        /* list */
    JINJA_OUT,          /* value: text as it is */
    JINJA_PRINT,        /* a */
    JINJA_IF,           /* a then b else c */
    JINJA_FOR,          /* targets in list; a: iterable, b: body, c: else, d: condition */
    JINJA_SET,          /* targets in list; a: value, or b: block whose output it is,
                        through d: filters of HOLE, if any */
    JINJA_SET_ATTR,     /* list[0].name = a */
    JINJA_MACRO_DEF,    /* name; list: NAME or KEYWORD (with default); b: body */
    JINJA_WITH,         /* list: KEYWORD; b: body, with a scope of its own */
    JINJA_FILTER_BLOCK, /* b: body, d: filters of HOLE */
    JINJA_BREAK,
    JINJA_CONTINUE,
    /* expressions */
    JINJA_CONST,  /* value */
    JINJA_VAR,    /* name */
    JINJA_ATTR,   /* a.name */
    JINJA_ITEM,   /* a[b] */
    JINJA_SLICE,  /* a[b:c:d] */
    JINJA_CALL,   /* a(list) */
    JINJA_FILTER, /* a|name(list) */
    JINJA_TEST,   /* a is name(list) */
    JINJA_NOT,
    JINJA_NEGATE,
    JINJA_AND,
    JINJA_OR,
    JINJA_BINARY,       /* a name b: arithmetic */
    JINJA_COMPARE,      /* a, then list of COMPARE_WITH */
    JINJA_COMPARE_WITH, /* name a */
    JINJA_CHOICE,       /* b if a else c */
    JINJA_MAKE_LIST,
    JINJA_MAKE_TUPLE,
    JINJA_MAKE_DICT, /* list: key, value, key, value */
    JINJA_KEYWORD,   /* name=a among arguments */
    JINJA_HOLE       /* the text that a block has just made */
} jinja_kind;

struct jinja_node {
    jinja_kind kind;
    int line;
    jinja_text name;
    jinja_value value;
    jinja_node *a, *b, *c, *d; /* arena */
    jinja_node **list;         /* arena */
    size_t count, cap;
};

typedef struct {
    jinja *j;
    const jinja_token *at; /* borrowed; the last one is JINJA_END */
    int depth;
} jinja_parser;

DR_MUST_USE dr_status jinja_parse(jinja *j, jinja_node **out, const jinja_tokens *tokens);
DR_MUST_USE dr_status jinja_node_new(jinja_parser *p, jinja_node **out, jinja_kind kind);
DR_MUST_USE dr_status jinja_node_add(jinja_parser *p, jinja_node *n, jinja_node *item);
bool jinja_at_op(const jinja_parser *p, const char *op);
bool jinja_at_name(const jinja_parser *p, const char *name);
DR_MUST_USE dr_status jinja_expect_op(jinja_parser *p, const char *op);
/* One expression, or with tuples "a, b"; choices: "x if y else z" may stand outside. */
DR_MUST_USE dr_status jinja_expression(jinja_parser *p, jinja_node **out, bool tuples,
                                       bool choices);
/* "|filter|filter" behind a HOLE; bare: the first one has no "|". */
DR_MUST_USE dr_status jinja_block_filters(jinja_parser *p, jinja_node **out, bool bare);
/* Arguments after "(" up to and with ")". */
DR_MUST_USE dr_status jinja_arguments(jinja_parser *p, jinja_node *call);

/* ---- evaluation (jinja_eval.c, jinja_call.c, jinja_filter.c, ...) ---- */

typedef struct {
    jinja_text name;
    jinja_value value;
} jinja_var;

struct jinja_scope {
    jinja_scope *up; /* borrowed */
    jinja_var *vars; /* arena */
    size_t count, cap;
};

typedef enum { JINJA_ON, JINJA_BREAKS, JINJA_CONTINUES } jinja_flow;

/* One rendering. */
struct jinja {
    dr_arena *arena; /* borrowed */
    dr_buf *out;     /* borrowed: where output goes now */
    dr_buf scratch;  /* for printing; reset by its user */
    jinja_scope root, *scope;
    size_t bytes, steps;
    size_t held;     /* bytes of output that captures around this one have so far */
    jinja_text hole; /* of a block that is done */
    int line, depth, loops;
    jinja_flow flow;
};

struct jinja_args {
    jinja_value *v; /* positional */
    size_t count;
    jinja_text *names; /* keywords */
    jinja_value *named;
    size_t named_count;
};

DR_MUST_USE dr_status jinja_step(jinja *j, size_t count);
DR_MUST_USE dr_status jinja_run(jinja *j, const jinja_node *n);
DR_MUST_USE dr_status jinja_eval(jinja *j, jinja_value *out, const jinja_node *n);
DR_MUST_USE dr_status jinja_binary(jinja *j, jinja_value *out, jinja_text op,
                                   const jinja_value *a, const jinja_value *b);
DR_MUST_USE dr_status jinja_compare(jinja *j, bool *out, jinja_text op,
                                    const jinja_value *a, const jinja_value *b);
DR_MUST_USE dr_status jinja_attr(jinja *j, jinja_value *out, const jinja_value *v,
                                 jinja_text name);
DR_MUST_USE dr_status jinja_item(jinja *j, jinja_value *out, const jinja_value *v,
                                 const jinja_value *key);
DR_MUST_USE dr_status jinja_slice(jinja *j, jinja_value *out, const jinja_value *v,
                                  const jinja_value bounds[3]);
DR_MUST_USE dr_status jinja_set(jinja *j, jinja_scope *s, jinja_text name, jinja_value v);
/* What a name stands for; undefined when nothing is set. */
jinja_value jinja_get(jinja *j, jinja_text name);

/* Argument i or the keyword; NULL: not given. */
const jinja_value *jinja_arg(const jinja_args *a, size_t i, const char *name);
DR_MUST_USE dr_status jinja_arg_int(jinja *j, int64_t *out, const jinja_args *a, size_t i,
                                    const char *name);
DR_MUST_USE dr_status jinja_arg_text(jinja *j, jinja_text *out, const jinja_args *a,
                                     size_t i, const char *name);
DR_MUST_USE dr_status jinja_function(jinja *j, jinja_value *out, jinja_text name,
                                     const jinja_args *a);
bool jinja_function_known(jinja_text name);
DR_MUST_USE dr_status jinja_method(jinja *j, jinja_value *out, const jinja_value *v,
                                   jinja_text name, const jinja_args *a);
DR_MUST_USE dr_status jinja_filter(jinja *j, jinja_value *out, jinja_text name,
                                   const jinja_value *v, const jinja_args *a);
bool jinja_filter_known(jinja_text name);
DR_MUST_USE dr_status jinja_test(jinja *j, bool *out, jinja_text name, const jinja_value *v,
                                 const jinja_args *a);
bool jinja_test_known(jinja_text name);

/* Filters of lists (jinja_list_filter.c), for the table in jinja_filter.c. */
typedef dr_status jinja_filter_type(jinja *j, jinja_value *out, const jinja_value *v,
                                    const jinja_args *a);
typedef jinja_filter_type *jinja_filter_fn;
jinja_filter_type jinja_f_list, jinja_f_first, jinja_f_last, jinja_f_items, jinja_f_reverse,
    jinja_f_join, jinja_f_select, jinja_f_reject, jinja_f_selectattr, jinja_f_rejectattr,
    jinja_f_map, jinja_f_sort, jinja_f_dictsort, jinja_f_unique, jinja_f_sum, jinja_f_min,
    jinja_f_max;

/* Shared by filters and methods of strings (jinja_string.c). */
DR_MUST_USE dr_status jinja_strip(jinja *j, jinja_value *out, jinja_text t,
                                  const jinja_args *a, bool left, bool right);
DR_MUST_USE dr_status jinja_replace(jinja *j, jinja_value *out, jinja_text t,
                                    const jinja_args *a);
typedef enum {
    JINJA_UPPER,
    JINJA_LOWER,
    JINJA_CAPITALIZE,
    JINJA_TITLE,
    JINJA_WORDS
} jinja_case;
DR_MUST_USE dr_status jinja_recase(jinja *j, jinja_value *out, jinja_text t, jinja_case to);
DR_MUST_USE dr_status jinja_join(jinja *j, jinja_value *out, jinja_text by,
                                 const jinja_list *items);
DR_MUST_USE dr_status jinja_string_method(jinja *j, jinja_value *out, jinja_text t,
                                          jinja_text name, const jinja_args *a);

#endif
