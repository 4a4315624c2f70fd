/*
 * tok_split.c - pre-tokenizers, as a row of five simple operations on a list of spans:
 *
 *   ByteLevel    -> SPACE (add_prefix_space), PATTERN (GPT-2's, use_regex), BYTES
 *   Metaspace    -> MARK
 *   Split        -> PATTERN
 *   Whitespace   -> PATTERN, inverted, separators removed
 *   Digits, Punctuation -> CLASS
 *   WhitespaceSplit     -> CLASS, separators removed
 *   BertPreTokenizer    -> WhitespaceSplit, Punctuation
 *   CharDelimiterSplit  -> PATTERN, separators removed
 *
 * PATTERN and CLASS only cut; SPACE, MARK and BYTES write the text anew.  A BYTES that
 * comes last is taken off the row by tok.c and done word by word behind the cache.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "tok/tok_impl.h"

static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+|"
                           " ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
/* \w+|[^\w\s]+ in the regex crate, whose \w has the joiners. */
static const char rust_words[] = "[\\w\\x{200C}\\x{200D}]+|[^\\w\\x{200C}\\x{200D}\\s]+";

static const char *const cuts[] = {
    [TOK_CUT_REMOVED] = "Removed",          [TOK_CUT_ISOLATED] = "Isolated",
    [TOK_CUT_CONTIGUOUS] = "Contiguous",    [TOK_CUT_WITH_PREVIOUS] = "MergedWithPrevious",
    [TOK_CUT_WITH_NEXT] = "MergedWithNext",
};

/* ---- opening ---- */

static dr_status new_op(tok_ops *ops, tok_op **out, tok_op_kind kind, const char *where)
{
    if (ops->count == TOK_STEP_LIMIT)
        return dr_fail(DR_EFORMAT, "%s: more than %d pre-tokenizer steps", where,
                       TOK_STEP_LIMIT);
    ops->list = dr_realloc(ops->list, ops->count + 1, sizeof(*ops->list));
    *out = &ops->list[ops->count++];
    **out = (tok_op){.kind = kind, .cut = TOK_CUT_ISOLATED};
    return DR_OK;
}

static dr_status read_cut(tok_op *op, const json_t *spec, const char *where)
{
    const char *name = cuts[TOK_CUT_ISOLATED];
    dr_status st = DR_OK;

    DR_TRY(dr_json_str(spec, "behavior", &name, where));
    for (size_t i = 0; i < DR_COUNT(cuts); i++) {
        if (strcmp(cuts[i], name) == 0) {
            op->cut = (tok_cut)i;
            return DR_OK;
        }
    }
    DR_FAIL(DR_EUNSUPPORTED, "%s: behavior \"%s\" of a pre-tokenizer", where, name);
done:
    return st;
}

static dr_status add_byte_level(tok_ops *ops, const json_t *spec, const char *where)
{
    bool space = true, regex = true;
    tok_op *op = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_json_bool(spec, "add_prefix_space", &space, where));
    DR_TRY(dr_json_bool(spec, "use_regex", &regex, where));
    if (space)
        DR_TRY(new_op(ops, &op, TOK_OP_SPACE, where));
    if (regex) {
        DR_TRY(new_op(ops, &op, TOK_OP_PATTERN, where));
        DR_TRY(tok_pattern_regex(&op->pattern, gpt2, sizeof(gpt2) - 1, where));
    }
    DR_TRY(new_op(ops, &op, TOK_OP_BYTES, where));
done:
    return st;
}

static dr_status add_split(tok_ops *ops, const json_t *spec, const char *where)
{
    tok_op *op = NULL;
    dr_status st = DR_OK;

    DR_TRY(new_op(ops, &op, TOK_OP_PATTERN, where));
    DR_TRY(tok_pattern_open(&op->pattern, json_object_get(spec, "pattern"), where));
    DR_TRY(dr_json_bool(spec, "invert", &op->invert, where));
    DR_TRY(read_cut(op, spec, where));
done:
    return st;
}

static dr_status add_whitespace(tok_ops *ops, const json_t *spec, const char *where)
{
    tok_op *op = NULL;
    dr_status st = DR_OK;

    (void)spec;
    DR_TRY(new_op(ops, &op, TOK_OP_PATTERN, where));
    DR_TRY(tok_pattern_regex(&op->pattern, rust_words, sizeof(rust_words) - 1, where));
    op->invert = true;
    op->cut = TOK_CUT_REMOVED;
done:
    return st;
}

static dr_status add_digits(tok_ops *ops, const json_t *spec, const char *where)
{
    bool single = false;
    tok_op *op = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_json_bool(spec, "individual_digits", &single, where));
    DR_TRY(new_op(ops, &op, TOK_OP_CLASS, where));
    op->is = tok_is_numeric;
    op->cut = single ? TOK_CUT_ISOLATED : TOK_CUT_CONTIGUOUS;
done:
    return st;
}

static dr_status add_punctuation(tok_ops *ops, const json_t *spec, const char *where)
{
    tok_op *op = NULL;
    dr_status st = DR_OK;

    DR_TRY(new_op(ops, &op, TOK_OP_CLASS, where));
    op->is = tok_is_punct;
    DR_TRY(read_cut(op, spec, where));
done:
    return st;
}

static dr_status add_space_split(tok_ops *ops, const json_t *spec, const char *where)
{
    tok_op *op = NULL;
    dr_status st = DR_OK;

    (void)spec;
    DR_TRY(new_op(ops, &op, TOK_OP_CLASS, where));
    op->is = tok_is_space;
    op->cut = TOK_CUT_REMOVED;
done:
    return st;
}

static dr_status add_bert(tok_ops *ops, const json_t *spec, const char *where)
{
    tok_op *op = NULL;
    dr_status st = DR_OK;

    DR_TRY(add_space_split(ops, spec, where));
    DR_TRY(new_op(ops, &op, TOK_OP_CLASS, where));
    op->is = tok_is_punct;
done:
    return st;
}

static dr_status add_delimiter(tok_ops *ops, const json_t *spec, const char *where)
{
    const char *text = "";
    uint32_t cp = 0;
    tok_op *op = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_json_str(spec, "delimiter", &text, where));
    if (text[0] == '\0' || tok_utf8_get(text, strlen(text), &cp) != strlen(text))
        DR_FAIL(DR_EFORMAT, "%s: CharDelimiterSplit: delimiter \"%s\" is not one character",
                where, text);
    DR_TRY(new_op(ops, &op, TOK_OP_PATTERN, where));
    op->pattern.n = strlen(text);
    op->pattern.text = dr_strndup(text, op->pattern.n);
    op->cut = TOK_CUT_REMOVED;
done:
    return st;
}

dr_status tok_mark_open(char mark[5], tok_prepend *prepend, bool *split, const json_t *spec,
                        const char *where)
{
    static const char *const schemes[] = {"first", "never", "always"};
    const char *text = TOK_MARK, *scheme = "always";
    bool space = true;
    uint32_t cp = 0;
    size_t i = 0;
    dr_status st = DR_OK;

    *split = true;
    DR_TRY(dr_json_str(spec, "replacement", &text, where));
    DR_TRY(dr_json_str(spec, "prepend_scheme", &scheme, where));
    DR_TRY(dr_json_bool(spec, "add_prefix_space", &space, where));
    DR_TRY(dr_json_bool(spec, "split", split, where));
    if (text[0] == '\0' || tok_utf8_get(text, strlen(text), &cp) != strlen(text))
        DR_FAIL(DR_EFORMAT, "%s: Metaspace: replacement \"%s\" is not one character", where,
                text);
    memcpy(mark, text, strlen(text) + 1);
    while (i < DR_COUNT(schemes) && strcmp(schemes[i], scheme) != 0)
        i++;
    if (i == DR_COUNT(schemes))
        DR_FAIL(DR_EFORMAT, "%s: Metaspace: prepend_scheme \"%s\"", where, scheme);
    *prepend = space ? (tok_prepend)i : TOK_PREPEND_NEVER;
done:
    return st;
}

static dr_status add_metaspace(tok_ops *ops, const json_t *spec, const char *where)
{
    tok_op *op = NULL;
    dr_status st = DR_OK;

    DR_TRY(new_op(ops, &op, TOK_OP_MARK, where));
    DR_TRY(tok_mark_open(op->mark, &op->prepend, &op->split, spec, where));
    op->pattern.n = strlen(op->mark);
    op->pattern.text = dr_strndup(op->mark, op->pattern.n);
    op->cut = TOK_CUT_WITH_NEXT;
done:
    return st;
}

static const struct {
    const char *name;
    dr_status (*add)(tok_ops *ops, const json_t *spec, const char *where);
} types[] = {
    {"ByteLevel", add_byte_level},         {"Split", add_split},
    {"Metaspace", add_metaspace},          {"Digits", add_digits},
    {"Whitespace", add_whitespace},        {"Punctuation", add_punctuation},
    {"WhitespaceSplit", add_space_split},  {"BertPreTokenizer", add_bert},
    {"CharDelimiterSplit", add_delimiter},
};

dr_status tok_ops_open(tok_ops *ops, const json_t *spec, const char *where)
{
    const char *type = "";
    const json_t *part = NULL;
    size_t i = 0;
    dr_status st = DR_OK;

    if (spec == NULL || json_is_null(spec))
        return DR_OK;
    if (!json_is_object(spec))
        DR_FAIL(DR_EFORMAT, "%s: pre_tokenizer: expected an object, found %s", where,
                dr_json_type(spec));
    DR_TRY(dr_json_str(spec, "type", &type, where));
    for (i = 0; i < DR_COUNT(types); i++)
        if (strcmp(types[i].name, type) == 0)
            return types[i].add(ops, spec, where);
    if (strcmp(type, "Sequence") != 0)
        DR_FAIL(DR_EUNSUPPORTED, "%s: pre-tokenizer of type \"%s\"", where, type);
    const json_t *parts = json_object_get(spec, "pretokenizers");
    if (!json_is_array(parts))
        DR_FAIL(DR_EFORMAT, "%s: pretokenizers: expected an array, found %s", where,
                dr_json_type(parts));
    json_array_foreach(parts, i, part) DR_TRY(tok_ops_open(ops, part, where));
done:
    return st;
}

bool tok_ops_want_head(const tok_ops *ops)
{
    for (size_t i = 0; i < ops->count; i++)
        if (ops->list[i].kind == TOK_OP_MARK && ops->list[i].prepend == TOK_PREPEND_FIRST)
            return true;
    return false;
}

void tok_ops_release(tok_ops *ops)
{
    for (size_t i = 0; i < ops->count; i++)
        tok_pattern_release(&ops->list[i].pattern);
    free(ops->list);
    *ops = (tok_ops){0};
}

/* ---- cutting one span ---- */

size_t tok_head_of(size_t head, size_t at, size_t n)
{
    const size_t left = head > at ? head - at : 0;

    return left < n ? left : n;
}

/*
 * Parts arrive in order and cover the text; `head` of a part holds "is a match" until
 * keep() decides.  Joining looks at the part before, so it needs no second list, except
 * that MergedWithNext reads a run of matches from its end.
 */
static void part(tok_spans *out, size_t at, size_t n, bool match, tok_cut cut)
{
    tok_span *last = out->count > 0 ? &out->v[out->count - 1] : NULL;

    if (cut == TOK_CUT_CONTIGUOUS && last != NULL && last->head == match) {
        last->n += n;
        return;
    }
    tok_spans_add(out, at, n, match);
}

/* A match goes to the part before it, unless that was a match too. */
static void join_previous(tok_spans *s)
{
    size_t kept = 0;
    bool previous = false;

    for (size_t i = 0; i < s->count; i++) {
        const tok_span x = s->v[i];
        if (x.head && !previous && kept > 0)
            s->v[kept - 1].n += x.n;
        else
            s->v[kept++] = x;
        previous = x.head;
    }
    s->count = kept;
}

static void join_next(tok_spans *s)
{
    size_t kept = s->count;
    bool previous = false;

    for (size_t i = s->count; i-- > 0;) {
        const tok_span x = s->v[i];
        if (x.head && !previous && kept < s->count) {
            s->v[kept].at = x.at;
            s->v[kept].n += x.n;
        } else {
            s->v[--kept] = x;
        }
        previous = x.head;
    }
    s->count -= kept;
    memmove(s->v, s->v + kept, s->count * sizeof(tok_span));
}

/* The parts in cuts become spans of out. */
static void keep(tok_spans *out, tok_spans *parts, tok_cut cut, const tok_span *whole)
{
    if (cut == TOK_CUT_WITH_PREVIOUS)
        join_previous(parts);
    else if (cut == TOK_CUT_WITH_NEXT)
        join_next(parts);
    for (size_t i = 0; i < parts->count; i++) {
        const tok_span *x = &parts->v[i];
        if (x->n > 0 && !(cut == TOK_CUT_REMOVED && x->head))
            tok_spans_add(out, x->at, x->n,
                          tok_head_of(whole->head, x->at - whole->at, x->n));
    }
}

static dr_status cut_pattern(const tok_op *op, tok_work *w, const char *base,
                             const tok_span *whole, tok_spans *out)
{
    tok_scan scan =
        tok_scan_begin(&op->pattern, &w->matcher, (tok_str){base + whole->at, whole->n});
    size_t at = 0, start = 0, end = 0;
    bool found = false;
    dr_status st = DR_OK;

    w->cuts.count = 0;
    for (;;) {
        DR_TRY(tok_scan_next(&scan, &start, &end, &found));
        if (!found)
            break;
        if (start > at)
            part(&w->cuts, whole->at + at, start - at, op->invert, op->cut);
        part(&w->cuts, whole->at + start, end - start, !op->invert, op->cut);
        at = end;
    }
    if (at < whole->n)
        part(&w->cuts, whole->at + at, whole->n - at, op->invert, op->cut);
    keep(out, &w->cuts, op->cut, whole);
done:
    return st;
}

static void cut_class(const tok_op *op, tok_work *w, const char *base,
                      const tok_span *whole, tok_spans *out)
{
    size_t at = 0, i = 0;
    uint32_t cp = 0;

    w->cuts.count = 0;
    while (i < whole->n) {
        size_t n = tok_utf8_get(base + whole->at + i, whole->n - i, &cp);
        if (op->is(cp)) {
            if (i > at)
                part(&w->cuts, whole->at + at, i - at, false, op->cut);
            part(&w->cuts, whole->at + i, n, true, op->cut);
            at = i + n;
        }
        i += n;
    }
    if (whole->n > at)
        part(&w->cuts, whole->at + at, whole->n - at, false, op->cut);
    keep(out, &w->cuts, op->cut, whole);
}

/* ---- writing one span anew ---- */

static bool starts_with(tok_str text, const char *with)
{
    size_t n = strlen(with);

    return text.n >= n && memcmp(text.s, with, n) == 0;
}

/* What goes before the span's text. */
static dr_status lead(const tok_op *op, tok_str text, bool first, dr_buf *to)
{
    if (op->kind == TOK_OP_SPACE)
        return dr_buf_adds(to, starts_with(text, " ") ? "" : " ");
    if (op->kind == TOK_OP_MARK &&
        (op->prepend == TOK_PREPEND_ALWAYS ||
         (op->prepend == TOK_PREPEND_FIRST && first)) &&
        !starts_with(text, op->mark) && !starts_with(text, " "))
        return dr_buf_adds(to, op->mark);
    return DR_OK;
}

static dr_status rewrite(const tok_op *op, tok_str text, dr_buf *to)
{
    dr_status st = DR_OK;

    if (op->kind == TOK_OP_BYTES)
        return tok_bytes_map(to, text.s, text.n);
    if (op->kind == TOK_OP_SPACE)
        return dr_buf_add(to, text.s, text.n);
    for (size_t i = 0; i < text.n;) {
        const char *space = memchr(text.s + i, ' ', text.n - i);
        size_t n = space != NULL ? (size_t)(space - text.s) - i : text.n - i;
        DR_TRY(dr_buf_add(to, text.s + i, n));
        i += n;
        if (space != NULL) {
            DR_TRY(dr_buf_adds(to, op->mark));
            i++;
        }
    }
done:
    return st;
}

/* The span's head and what follows it, each by itself: its length is then known. */
static dr_status rewrite_span(const tok_op *op, tok_str text, tok_span *x, dr_buf *to)
{
    const size_t head = x->head < text.n ? x->head : text.n;
    dr_status st = DR_OK;

    x->at = to->len;
    DR_TRY(lead(op, text, head > 0, to));
    if (head > 0) {
        DR_TRY(rewrite(op, (tok_str){text.s, head}, to));
        x->head = to->len - x->at;
    }
    DR_TRY(rewrite(op, (tok_str){text.s + head, text.n - head}, to));
    x->n = to->len - x->at;
done:
    return st;
}

/* ---- running ---- */

/* base and in become the operation's output: to (when it writes) and out. */
static dr_status run_op(const tok_op *op, tok_work *w, const char **base,
                        const tok_spans *in, tok_spans *out, dr_buf *to)
{
    const bool writes = op->kind != TOK_OP_PATTERN && op->kind != TOK_OP_CLASS;
    dr_status st = DR_OK;

    dr_buf_reset(to);
    out->count = 0;
    for (size_t i = 0; i < in->count; i++) {
        tok_span x = in->v[i];
        if (writes) {
            const tok_str text = {*base + x.at, x.n};
            DR_TRY(rewrite_span(op, text, &x, to));
        }
        if (op->kind == TOK_OP_CLASS)
            cut_class(op, w, *base, &x, out);
        else if (op->kind == TOK_OP_PATTERN || (op->kind == TOK_OP_MARK && op->split))
            DR_TRY(cut_pattern(op, w, writes ? to->data : *base, &x, out));
        else
            tok_spans_add(out, x.at, x.n, x.head);
    }
    if (writes)
        *base = to->data;
done:
    return st;
}

dr_status tok_ops_run(const tok_ops *ops, tok_work *w, tok_str text, size_t head,
                      const char **base, const tok_spans **words)
{
    int turn = 0, page = 0;
    dr_status st = DR_OK;

    w->op[0].max = w->op[1].max = tok_growth_max(text.n);
    *base = text.s;
    w->spans[turn].count = 0;
    if (text.n > 0)
        tok_spans_add(&w->spans[turn], 0, text.n, head);
    for (size_t i = 0; i < ops->count; i++) {
        const char *was = *base;
        DR_TRYF(
            run_op(&ops->list[i], w, base, &w->spans[turn], &w->spans[!turn], &w->op[page]),
            "splitting %zu bytes", text.n);
        turn = !turn;
        page = *base != was ? !page : page;
    }
    *words = &w->spans[turn];
done:
    return st;
}
