/*
 * doc.c - JSON and YAML through libfyaml.
 *
 * What must hold:
 *   1. an alias costs what it stands for: values are counted as they are built, so that a
 *      small file cannot make a large tree, and depth is counted, so that an alias of
 *      what holds it ends;
 *   2. nothing of libfyaml's lives longer than the call.
 */
#include "core/doc.h"

#include <errno.h>
#include <libfyaml.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/file.h"
#include "core/mem.h"

enum { DEPTH_MAX = 64, VALUES_MAX = 100000, BYTES_MAX = 16 << 20 };

typedef struct {
    dr_doc *doc;
    size_t values;
    int depth;
    bool json;
} reader;

static dr_status bad(const reader *r, int line, int column, const char *what)
{
    return dr_fail(DR_EFORMAT, "%s:%d:%d: %s", r->doc->name, line, column, what);
}

/* Where a node begins, from 1; what has no token of its own is where its holder is. */
static void place(int *line, int *column, struct fy_node *n)
{
    struct fy_token *t = NULL;
    void *at = NULL;

    for (int i = 0; n != NULL && i < DEPTH_MAX; i++) {
        if (fy_node_is_scalar(n)) {
            t = fy_node_get_scalar_token(n);
            break;
        }
        if (fy_node_is_mapping(n)) {
            struct fy_node_pair *p = fy_node_mapping_iterate(n, &at);
            n = p != NULL ? fy_node_pair_key(p) : NULL;
        } else {
            n = fy_node_sequence_iterate(n, &at);
        }
        at = NULL;
    }
    const struct fy_mark *m = t != NULL ? fy_token_start_mark(t) : NULL;
    if (m != NULL) {
        enum fy_node_style style = fy_node_get_style(n); /* the mark is behind the quote */
        bool quoted = style == FYNS_SINGLE_QUOTED || style == FYNS_DOUBLE_QUOTED;
        *line = m->line + 1;
        *column = m->column + !quoted;
    }
}

/* ---- plain words ---- */

static bool one_of(const char *text, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(text, words[i]) == 0)
            return true;
    return false;
}

/* [-+]?digits, 0x.. and 0o..; past 63 bits it is a real. */
static json_t *integer_of(const char *text)
{
    const char *p = text + (*text == '-' || *text == '+');
    int base = 10;
    char *end = NULL;

    if (p == text && p[0] == '0' && (p[1] == 'x' || p[1] == 'o')) {
        base = p[1] == 'x' ? 16 : 8;
        text = p += 2;
    }
    if (*p == '\0' || p[strspn(p, base == 16  ? "0123456789abcdefABCDEF"
                                  : base == 8 ? "01234567"
                                              : "0123456789")] != '\0')
        return NULL;
    errno = 0;
    long long v = strtoll(text, &end, base);
    return errno == ERANGE ? json_real(strtod(text, NULL)) : json_integer(v);
}

static json_t *real_of(const char *text)
{
    const char *p = text + (*text == '-' || *text == '+');
    size_t whole = strspn(p, "0123456789"), part = 0;

    p += whole;
    if (*p == '.')
        part = strspn(++p, "0123456789");
    if (whole + part == 0)
        return NULL;
    p += part;
    if (*p == 'e' || *p == 'E') {
        p += 1 + (p[1] == '-' || p[1] == '+');
        if (strspn(p, "0123456789") == 0)
            return NULL;
        p += strspn(p, "0123456789");
    }
    double v = strtod(text, NULL);
    return *p == '\0' && isfinite(v) ? json_real(v) : NULL;
}

static dr_status plain(json_t **out, const reader *r, const char *text, const dr_node *n)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    static const char *const yes[] = {"true", "True", "TRUE", "yes", "Yes",
                                      "YES",  "on",   "On",   "ON"};
    static const char *const no[] = {"false", "False", "FALSE", "no", "No",
                                     "NO",    "off",   "Off",   "OFF"};
    static const char *const odd[] = {".inf",  ".Inf",  ".INF",  "-.inf",   "-.Inf",
                                      "-.INF", "+.inf", "+.Inf", "+.INF",   ".nan",
                                      ".NaN",  ".NAN",  "NaN",   "Infinity"};

    if (one_of(text, nulls, DR_COUNT(nulls)))
        *out = json_null();
    else if (one_of(text, yes, DR_COUNT(yes)))
        *out = json_true();
    else if (one_of(text, no, DR_COUNT(no)))
        *out = json_false();
    else if (one_of(text, odd, DR_COUNT(odd)))
        return bad(r, n->line, n->column, "a number that is not finite");
    else if ((*out = integer_of(text)) == NULL && (*out = real_of(text)) == NULL) {
        if (r->json)
            return bad(r, n->line, n->column, "a word without quotes");
        *out = json_string(text);
        if (*out == NULL)
            return bad(r, n->line, n->column, "a text that is not UTF-8");
    }
    return DR_OK;
}

/* ---- the tree ---- */

static dr_status build(reader *r, dr_node *n, struct fy_node *from);

static dr_status check_tag(const reader *r, bool *text, const dr_node *n,
                           struct fy_node *from)
{
    static const char *const known[] = {"tag:yaml.org,2002:str",   "tag:yaml.org,2002:int",
                                        "tag:yaml.org,2002:float", "tag:yaml.org,2002:seq",
                                        "tag:yaml.org,2002:bool",  "tag:yaml.org,2002:map",
                                        "tag:yaml.org,2002:null"};
    size_t len = 0;
    const char *tag = fy_node_get_tag(from, &len);
    char name[32] = "";

    *text = false;
    if (tag == NULL || len == 0)
        return DR_OK;
    if (len < sizeof(name))
        memcpy(name, tag, len);
    if (!one_of(name, known, DR_COUNT(known)))
        return bad(r, n->line, n->column, "a tag that is not one of YAML's own");
    *text = strcmp(name, known[0]) == 0;
    return DR_OK;
}

static dr_status build_scalar(reader *r, dr_node *n, struct fy_node *from)
{
    size_t len = 0;
    const char *text = fy_node_get_scalar(from, &len);
    enum fy_node_style style = fy_node_get_style(from);
    bool is_text = false;
    dr_status st = DR_OK;

    DR_TRY(check_tag(r, &is_text, n, from));
    char *copy = dr_arena_strndup(&r->doc->arena, text != NULL ? text : "", len);
    if (strlen(copy) != len)
        DR_TRY(bad(r, n->line, n->column, "a text with a zero character"));
    if (!is_text && (style == FYNS_PLAIN || style == FYNS_ANY || text == NULL)) {
        DR_TRY(plain(&n->value, r, copy, n));
    } else {
        n->value = json_string(copy);
        if (n->value == NULL)
            DR_TRY(bad(r, n->line, n->column, "a text that is not UTF-8"));
    }
done:
    return st;
}

/* A node at the end of what n holds. */
static dr_node *append(reader *r, dr_node *n, dr_node **last, const dr_node *one)
{
    dr_node *copy = dr_arena_alloc(&r->doc->arena, 1, sizeof(*copy));

    *copy = *one;
    if (*last == NULL)
        n->first = copy;
    else
        (*last)->next = copy;
    *last = copy;
    return copy;
}

static dr_status build_list(reader *r, dr_node *n, struct fy_node *from)
{
    struct fy_node *item;
    dr_node *last = NULL;
    void *at = NULL;
    dr_status st = DR_OK;

    n->value = json_array();
    while ((item = fy_node_sequence_iterate(from, &at)) != NULL) {
        const dr_node fresh = {.line = n->line, .column = n->column, .parent = n};
        dr_node *one = append(r, n, &last, &fresh);
        st = build(r, one, item);
        one->key_line = one->line;
        one->key_column = one->column;
        if (one->value != NULL)
            json_array_append_new(n->value, one->value);
        DR_TRY(st);
    }
done:
    return st;
}

static const dr_node *member(const dr_node *n, const char *key)
{
    for (const dr_node *i = n->first; i != NULL; i = i->next)
        if (i->key != NULL && strcmp(i->key, key) == 0)
            return i;
    return NULL;
}

static struct fy_node *followed(struct fy_node *n)
{
    return n != NULL && fy_node_is_alias(n) ? fy_node_resolve_alias(n) : n;
}

/* Counts a value, and goes a level down; up is r->depth--. */
static dr_status enter(reader *r, const dr_node *n)
{
    if (++r->values > VALUES_MAX)
        return bad(r, n->line, n->column, "more than 100000 values");
    if (++r->depth > DEPTH_MAX)
        return bad(r, n->line, n->column, "more than 64 levels");
    return DR_OK;
}

static dr_status build_members(reader *r, dr_node *n, dr_node **last, struct fy_node *from,
                               bool merging);

/* <<: a mapping, or a list of them; keys that are there already stay. */
static dr_status merge(reader *r, dr_node *n, dr_node **last, struct fy_node *from)
{
    struct fy_node *one = followed(from), *item;
    void *at = NULL;
    dr_status st = DR_OK;

    if (one == NULL || fy_node_is_scalar(one))
        return bad(r, n->line, n->column, "<<: expected an object, or a list of them");
    if (fy_node_is_mapping(one))
        return build_members(r, n, last, one, true);
    while ((item = fy_node_sequence_iterate(one, &at)) != NULL) {
        item = followed(item);
        if (item == NULL || !fy_node_is_mapping(item))
            DR_TRY(bad(r, n->line, n->column, "<<: expected a list of objects"));
        DR_TRY(build_members(r, n, last, item, true));
    }
done:
    return st;
}

static bool is_merge(struct fy_node *key)
{
    size_t len = 0;
    const char *text = fy_node_get_scalar(key, &len);

    return fy_node_get_style(key) == FYNS_PLAIN && len == 2 && memcmp(text, "<<", 2) == 0;
}

static dr_status add_member(reader *r, dr_node *n, dr_node **last,
                            struct fy_node_pair *pair, bool merging)
{
    struct fy_node *key = fy_node_pair_key(pair);
    dr_node one = {.key_line = n->line, .key_column = n->column, .parent = n};
    size_t len = 0;
    const char *text = NULL;
    dr_status st = DR_OK;

    if (key != NULL)
        place(&one.key_line, &one.key_column, key);
    key = followed(key);
    if (key != NULL && fy_node_is_scalar(key))
        text = fy_node_get_scalar(key, &len);
    if (text == NULL)
        DR_TRY(bad(r, one.key_line, one.key_column, "a key is a text"));
    one.key = dr_arena_strndup(&r->doc->arena, text, len);
    const dr_node *same = member(n, one.key);
    if (same != NULL && merging)
        goto done;
    if (same != NULL)
        DR_FAIL(DR_EFORMAT, "%s:%d:%d: the key \"%s\" is here twice; the first is at %d:%d",
                r->doc->name, one.key_line, one.key_column, one.key, same->key_line,
                same->key_column);
    one.line = one.key_line;
    one.column = one.key_column;
    dr_node *kept = append(r, n, last, &one);
    st = build(r, kept, fy_node_pair_value(pair));
    if (kept->value != NULL && json_object_set_new(n->value, one.key, kept->value) != 0)
        DR_TRY(bad(r, one.key_line, one.key_column, "a key that is not UTF-8"));
done:
    return st;
}

static dr_status build_members(reader *r, dr_node *n, dr_node **last, struct fy_node *from,
                               bool merging)
{
    struct fy_node_pair *pair;
    void *at = NULL;
    dr_status st = DR_OK;

    DR_TRY(enter(r, n));
    for (int merges = 0; merges < 2; merges++) { /* an object's own keys come first */
        at = NULL;
        while ((pair = fy_node_mapping_iterate(from, &at)) != NULL) {
            struct fy_node *key = fy_node_pair_key(pair);
            bool is = key != NULL && fy_node_is_scalar(key) && is_merge(key);
            if (is && merges == 1)
                DR_TRY(merge(r, n, last, fy_node_pair_value(pair)));
            else if (!is && merges == 0)
                DR_TRY(add_member(r, n, last, pair, merging));
        }
    }
    r->depth--;
done:
    return st;
}

static dr_status build(reader *r, dr_node *n, struct fy_node *from)
{
    dr_node *last = NULL;
    bool text = false;
    dr_status st = DR_OK;

    if (from == NULL) {
        n->value = json_null();
        return DR_OK;
    }
    place(&n->line, &n->column, from);
    if (fy_node_is_alias(from) && (from = fy_node_resolve_alias(from)) == NULL)
        return bad(r, n->line, n->column, "an alias of what is not there");
    DR_TRY(enter(r, n));
    if (fy_node_is_scalar(from)) {
        DR_TRY(build_scalar(r, n, from));
    } else {
        DR_TRY(check_tag(r, &text, n, from));
        if (fy_node_is_mapping(from)) {
            n->value = json_object();
            DR_TRY(build_members(r, n, &last, from, false));
        } else {
            DR_TRY(build_list(r, n, from));
        }
    }
    r->depth--;
done:
    return st;
}

/* ---- the file ---- */

static void no_output(struct fy_diag *diag, void *user, const char *text, size_t n)
{
    (void)diag, (void)user, (void)text, (void)n;
}

/* The first error that libfyaml collected. */
static dr_status syntax(const reader *r, struct fy_diag *diag)
{
    void *at = NULL;
    const struct fy_diag_error *e = fy_diag_errors_iterate(diag, &at);

    if (e == NULL)
        return dr_fail(DR_EFORMAT, "%s: neither JSON nor YAML", r->doc->name);
    return dr_fail(DR_EFORMAT, "%s:%d:%d: not %s: %s", r->doc->name,
                   e->line > 0 ? e->line : 1, e->column > 0 ? e->column : 1,
                   r->json ? "JSON" : "YAML", e->msg != NULL ? e->msg : "bad syntax");
}

static dr_status parse(reader *r, const char *text, size_t n, dr_node *top)
{
    struct fy_diag_cfg say;
    struct fy_diag *diag = NULL;
    struct fy_parser *p = NULL;
    struct fy_document *doc = NULL, *second = NULL;
    dr_status st = DR_OK;

    fy_diag_cfg_default(&say);
    say.fp = NULL;
    say.output_fn = no_output;
    diag = fy_diag_create(&say);
    if (diag == NULL)
        dr_oom(sizeof(say));
    fy_diag_set_collect_errors(diag, true);
    const struct fy_parse_cfg cfg = {.flags =
                                         FYPCF_ALLOW_DUPLICATE_KEYS |
                                         (r->json ? FYPCF_JSON_FORCE : FYPCF_JSON_NONE),
                                     .diag = diag};
    p = fy_parser_create(&cfg);
    if (p == NULL)
        dr_oom(sizeof(cfg));
    if (fy_parser_set_string(p, text, n) == 0)
        doc = fy_parse_load_document(p);
    if (doc == NULL && (r->json || fy_parser_get_stream_error(p)))
        DR_TRY(syntax(r, diag));
    second = fy_parse_load_document(p);
    if (second == NULL && fy_parser_get_stream_error(p))
        DR_TRY(syntax(r, diag));
    if (second != NULL)
        DR_FAIL(DR_EFORMAT, "%s: a second document in it", r->doc->name);
    DR_TRY(build(r, top, doc != NULL ? fy_document_root(doc) : NULL));
done:
    if (second != NULL)
        fy_parse_document_destroy(p, second);
    if (doc != NULL)
        fy_parse_document_destroy(p, doc);
    if (p != NULL)
        fy_parser_destroy(p);
    fy_diag_destroy(diag);
    return st;
}

/* ---- the outside ---- */

const dr_node *dr_node_get(const dr_node *node, const char *key)
{
    const dr_node *n = node != NULL ? member(node, key) : NULL;

    return n != NULL && !json_is_null(n->value) ? n : NULL;
}

const char *dr_node_path(dr_arena *a, const dr_node *node)
{
    size_t i = 0;

    if (node->parent == NULL)
        return "";
    const char *before = dr_node_path(a, node->parent);
    if (node->key != NULL)
        return dr_arena_printf(a, "%s%s%s", before, *before ? "." : "", node->key);
    for (const dr_node *n = node->parent->first; n != node; n = n->next)
        i++;
    return dr_arena_printf(a, "%s[%zu]", before, i);
}

static const char *place_at(dr_arena *a, const dr_doc *d, const dr_node *n, int line,
                            int column)
{
    const char *path = dr_node_path(a, n);

    return dr_arena_printf(a, "%s:%d:%d%s%s", d->name, line, column, *path ? ": " : "",
                           path);
}

const char *dr_node_place(dr_arena *a, const dr_doc *d, const dr_node *node)
{
    return place_at(a, d, node, node->key_line, node->key_column);
}

dr_status dr_node_fail(const dr_doc *d, const dr_node *node, const char *fmt, ...)
{
    char text[DR_TRAIL_TEXT];
    dr_arena a = {0};
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    dr_status st =
        dr_fail(DR_EUSAGE, "%s: %s", place_at(&a, d, node, node->line, node->column), text);
    dr_arena_release(&a);
    return st;
}

dr_status dr_doc_parse(dr_doc *out, const char *text, size_t n, const char *name)
{
    *out = (dr_doc){0};
    out->name = dr_arena_strdup(&out->arena, name);
    reader r = {.doc = out, .json = dr_ends_with(name, ".json")};
    dr_node *top = dr_arena_alloc(&out->arena, 1, sizeof(*top));
    dr_status st = DR_OK;

    *top = (dr_node){.key_line = 1, .key_column = 1, .line = 1, .column = 1};
    out->top = top;
    if (n > BYTES_MAX)
        DR_FAIL(DR_EFORMAT, "%s: %zu bytes; at most %d are read", name, n, BYTES_MAX);
    json_t *whole = json_stringn(text, n); /* libfyaml leaves out what is not UTF-8 */
    if (whole == NULL)
        DR_FAIL(DR_EFORMAT, "%s: not UTF-8", name);
    json_decref(whole);
    DR_TRY(parse(&r, text, n, top));
done:
    if (st != DR_OK)
        dr_doc_release(out);
    return st;
}

dr_status dr_doc_read(dr_doc *out, const char *path)
{
    dr_map map = {0};
    dr_status st = DR_OK;

    *out = (dr_doc){0};
    DR_TRY(dr_map_open(&map, path));
    DR_TRY(dr_doc_parse(out, (const char *)map.data, map.size, path));
done:
    dr_map_close(&map);
    return st;
}

void dr_doc_release(dr_doc *d)
{
    if (d->top != NULL)
        json_decref(d->top->value);
    dr_arena_release(&d->arena);
    *d = (dr_doc){0};
}
