/*
 * tok_decode.c - ids back to text, one id at a time.
 *
 * tokenizers runs each decoder over the whole list of pieces.  Here the decoders are a row
 * of stages; a piece is pushed into the first, and what a stage can already say goes on to
 * the next, the last one writing to the output.  Decoding is streaming with one end.
 *
 *   stage          holds back
 *   Replace, Metaspace, Join, WordPiece
 *                  nothing
 *   ByteFallback   the run of <0xNN> (all of it is U+FFFD when it is no UTF-8)
 *   ByteLevel      an incomplete character
 *   Strip          nothing; up to `stop` characters at the end of a fused text
 *
 * After Fuse or ByteLevel the rest of the row sees one piece that arrives in parts
 * (`fused`); there Strip and Metaspace work part by part, and other stages, which no known
 * file has there, keep everything to the end.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "tok/tok_impl.h"

typedef enum {
    STAGE_JOIN, /* no decoder: pieces with spaces between */
    STAGE_BYTE_LEVEL,
    STAGE_REPLACE,
    STAGE_BYTE_FALLBACK,
    STAGE_FUSE,
    STAGE_STRIP,
    STAGE_METASPACE,
    STAGE_WORDPIECE
} stage_kind;

struct tok_stage {
    stage_kind kind;
    bool fused; /* comes after Fuse or ByteLevel */
    tok_pattern pattern;
    char *text; /* owned: Replace's content */
    size_t text_n;
    char mark[5]; /* Strip's or Metaspace's character */
    tok_prepend prepend;
    size_t start, stop;
    bool cleanup; /* WordPiece, whose prefix is text */
};

typedef struct {
    dr_buf held, work;
    size_t seen; /* pieces; for a fused Strip, characters taken off; for Replace, bytes */
    bool whole;  /* the end has come: a fused stage treats `held` as one piece */
} stage_state;

struct tok_stream {
    const tok_tokenizer *t; /* borrowed */
    stage_state *states;    /* owned: one a stage */
    tok_matcher matcher;
    size_t bytes; /* of the pieces so far */
    bool skip_special;
};

/* ---- opening ---- */

static dr_status read_replace(tok_stage *x, const json_t *spec, const char *where)
{
    const json_t *content = json_object_get(spec, "content");
    dr_status st = DR_OK;

    DR_TRY(tok_pattern_open(&x->pattern, json_object_get(spec, "pattern"), where));
    if (!json_is_string(content))
        DR_FAIL(DR_EFORMAT, "%s: decoder: content: expected a string, found %s", where,
                dr_json_type(content));
    x->text_n = json_string_length(content);
    x->text = dr_strndup(json_string_value(content), x->text_n);
done:
    return st;
}

static dr_status read_strip(tok_stage *x, const json_t *spec, const char *where)
{
    const char *content = "";
    int64_t start = 0, stop = 0;
    uint32_t cp = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_json_str(spec, "content", &content, where));
    DR_TRY(dr_json_int(spec, "start", &start, where));
    DR_TRY(dr_json_int(spec, "stop", &stop, where));
    if (content[0] == '\0' ||
        tok_utf8_get(content, strlen(content), &cp) != strlen(content))
        DR_FAIL(DR_EFORMAT, "%s: decoder: Strip of \"%s\", which is not one character",
                where, content);
    if (start < 0 || start > TOK_ID_LIMIT || stop < 0 || stop > TOK_ID_LIMIT)
        DR_FAIL(DR_EFORMAT, "%s: decoder: Strip from %lld to %lld", where, (long long)start,
                (long long)stop);
    memcpy(x->mark, content, strlen(content) + 1);
    x->start = (size_t)start;
    x->stop = (size_t)stop;
done:
    return st;
}

static dr_status read_wordpiece(tok_stage *x, const json_t *spec, const char *where)
{
    const char *prefix = "##";
    dr_status st = DR_OK;

    x->cleanup = true;
    DR_TRY(dr_json_str(spec, "prefix", &prefix, where));
    DR_TRY(dr_json_bool(spec, "cleanup", &x->cleanup, where));
    x->text_n = strlen(prefix);
    x->text = dr_strdup(prefix);
done:
    return st;
}

static dr_status add(tok_stages *d, const json_t *spec, const char *type, const char *where)
{
    static const char *const names[] = {"",     "ByteLevel", "Replace",   "ByteFallback",
                                        "Fuse", "Strip",     "Metaspace", "WordPiece"};
    bool fused = false, split = false;
    size_t k = 1;
    dr_status st = DR_OK;

    while (k < DR_COUNT(names) && strcmp(names[k], type) != 0)
        k++;
    if (k == DR_COUNT(names))
        DR_FAIL(DR_EUNSUPPORTED, "%s: decoder of type \"%s\"", where, type);
    if (d->count == TOK_STEP_LIMIT)
        DR_FAIL(DR_EFORMAT, "%s: more than %d decoders", where, TOK_STEP_LIMIT);
    for (size_t i = 0; i < d->count; i++)
        fused =
            fused || d->list[i].kind == STAGE_FUSE || d->list[i].kind == STAGE_BYTE_LEVEL;
    d->list = dr_realloc(d->list, d->count + 1, sizeof(*d->list));
    tok_stage *x = &d->list[d->count++];
    *x = (tok_stage){.kind = (stage_kind)k, .fused = fused};
    if (x->kind == STAGE_REPLACE)
        DR_TRY(read_replace(x, spec, where));
    if (x->kind == STAGE_STRIP)
        DR_TRY(read_strip(x, spec, where));
    if (x->kind == STAGE_WORDPIECE)
        DR_TRY(read_wordpiece(x, spec, where));
    if (x->kind == STAGE_METASPACE)
        DR_TRY(tok_mark_open(x->mark, &x->prepend, &split, spec, where));
done:
    return st;
}

static dr_status add_all(tok_stages *d, const json_t *spec, const char *where)
{
    const char *type = "";
    const json_t *part = NULL;
    size_t i = 0;
    dr_status st = DR_OK;

    if (!json_is_object(spec))
        DR_FAIL(DR_EFORMAT, "%s: decoder: expected an object, found %s", where,
                dr_json_type(spec));
    DR_TRY(dr_json_str(spec, "type", &type, where));
    if (strcmp(type, "Sequence") != 0)
        return add(d, spec, type, where);
    const json_t *parts = json_object_get(spec, "decoders");
    if (!json_is_array(parts))
        DR_FAIL(DR_EFORMAT, "%s: decoders: expected an array, found %s", where,
                dr_json_type(parts));
    json_array_foreach(parts, i, part) DR_TRY(add_all(d, part, where));
done:
    return st;
}

dr_status tok_stages_open(tok_stages *d, const json_t *spec, const char *where)
{
    if (spec != NULL && !json_is_null(spec))
        return add_all(d, spec, where);
    d->list = dr_calloc(1, sizeof(*d->list));
    d->list[d->count++].kind = STAGE_JOIN;
    return DR_OK;
}

void tok_stages_release(tok_stages *d)
{
    for (size_t i = 0; i < d->count; i++) {
        tok_pattern_release(&d->list[i].pattern);
        free(d->list[i].text);
    }
    free(d->list);
    *d = (tok_stages){0};
}

/* ---- stages at work ---- */

static dr_status push(tok_stream *s, size_t i, tok_str piece, dr_buf *out);

/* Complete characters of the held bytes go on; an incomplete one stays, or, at the end,
 * becomes U+FFFD. */
static dr_status pass_bytes(tok_stream *s, size_t i, bool end, dr_buf *out)
{
    stage_state *state = &s->states[i];
    tok_utf8 kind = TOK_UTF8_OK;
    size_t n = state->held.len, at = 0, tail = n;
    dr_status st = DR_OK;

    /* the tail: at most three bytes that begin a character */
    for (size_t back = 1; !end && back <= 3 && back <= n; back++) {
        (void)tok_utf8_step(state->held.data + n - back, back, &kind);
        if (kind == TOK_UTF8_CUT)
            tail = n - back;
        if (((unsigned char)state->held.data[n - back] & 0xC0) != 0x80)
            break;
    }
    at = tail;
    dr_buf_reset(&state->work);
    DR_TRY(tok_utf8_lossy(&state->work, state->held.data, at));
    memmove(state->held.data, state->held.data + at, n - at);
    state->held.len = n - at;
    DR_TRY(push(s, i + 1, (tok_str){state->work.data, state->work.len}, out));
done:
    return st;
}

/* A piece whose characters all stand for bytes gives these, any other its own bytes. */
static dr_status byte_level(tok_stream *s, size_t i, tok_str piece, dr_buf *out)
{
    dr_buf *held = &s->states[i].held;
    const size_t had = held->len;
    uint32_t cp = 0;
    dr_status st = DR_OK;

    for (size_t at = 0; at < piece.n;) {
        at += tok_utf8_get(piece.s + at, piece.n - at, &cp);
        const int byte = tok_char_byte(cp);
        if (byte < 0) {
            held->len = had;
            DR_TRY(dr_buf_add(held, piece.s, piece.n));
            break;
        }
        DR_TRY(dr_buf_add(held, &(char){(char)byte}, 1));
    }
    DR_TRY(pass_bytes(s, i, false, out));
done:
    return st;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* <0xNN>; "+N" counts as a number there, because Rust's parser takes it. */
static int fallback_byte(tok_str piece)
{
    if (piece.n != 6 || memcmp(piece.s, "<0x", 3) != 0 || piece.s[5] != '>')
        return -1;
    const int high = piece.s[3] == '+' ? 0 : hex_value(piece.s[3]);
    const int low = hex_value(piece.s[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static dr_status flush_fallback(tok_stream *s, size_t i, dr_buf *out)
{
    dr_buf *held = &s->states[i].held;
    dr_status st = DR_OK;

    if (held->len == 0)
        return DR_OK;
    if (tok_utf8_valid(held->data, held->len))
        DR_TRY(push(s, i + 1, (tok_str){held->data, held->len}, out));
    else
        for (size_t k = 0; k < held->len; k++)
            DR_TRY(push(s, i + 1, (tok_str){"\xEF\xBF\xBD", 3}, out));
done:
    dr_buf_reset(held);
    return st;
}

static dr_status byte_fallback(tok_stream *s, size_t i, tok_str piece, dr_buf *out)
{
    const int byte = fallback_byte(piece);
    dr_status st = DR_OK;

    if (byte >= 0)
        return dr_buf_add(&s->states[i].held, &(char){(char)byte}, 1);
    DR_TRY(flush_fallback(s, i, out));
    DR_TRY(push(s, i + 1, piece, out));
done:
    return st;
}

static bool begins(tok_str text, const char *mark)
{
    size_t n = strlen(mark);

    return text.n >= n && memcmp(text.s, mark, n) == 0;
}

static bool ends(tok_str text, const char *mark)
{
    size_t n = strlen(mark);

    return text.n >= n && memcmp(text.s + text.n - n, mark, n) == 0;
}

/* Of a fused text that comes in parts: held is the run of marks that the end may take. */
static dr_status strip_fused(tok_stream *s, size_t i, tok_str part, dr_buf *out)
{
    const tok_stage *x = &s->t->stages.list[i];
    stage_state *state = &s->states[i];
    const size_t n = strlen(x->mark);
    dr_status st = DR_OK;

    while (state->seen < x->start && begins(part, x->mark)) {
        part = (tok_str){part.s + n, part.n - n};
        state->seen++;
    }
    if (part.n == 0)
        return DR_OK;
    state->seen = x->start;
    DR_TRY(dr_buf_add(&state->held, part.s, part.n));
    tok_str sure = {state->held.data, state->held.len};
    for (size_t k = 0; k < x->stop && ends(sure, x->mark); k++)
        sure.n -= n;
    DR_TRY(push(s, i + 1, sure, out));
    memmove(state->held.data, state->held.data + sure.n, state->held.len - sure.n);
    state->held.len -= sure.n;
done:
    return st;
}

static dr_status strip(tok_stream *s, size_t i, tok_str piece, dr_buf *out)
{
    const tok_stage *x = &s->t->stages.list[i];
    const size_t n = strlen(x->mark);

    if (x->fused)
        return strip_fused(s, i, piece, out);
    for (size_t k = 0; k < x->start && begins(piece, x->mark); k++)
        piece = (tok_str){piece.s + n, piece.n - n};
    for (size_t k = 0; k < x->stop && ends(piece, x->mark); k++)
        piece.n -= n;
    return push(s, i + 1, piece, out);
}

/* Marks become spaces; those of the first piece go. */
static dr_status metaspace(tok_stream *s, size_t i, tok_str piece, dr_buf *out)
{
    const tok_stage *x = &s->t->stages.list[i];
    stage_state *state = &s->states[i];
    const bool first = (x->fused || state->seen++ == 0) && x->prepend != TOK_PREPEND_NEVER;
    const size_t n = strlen(x->mark);
    dr_status st = DR_OK;

    dr_buf_reset(&state->work);
    while (piece.n > 0) {
        if (begins(piece, x->mark)) {
            DR_TRY(dr_buf_adds(&state->work, first ? "" : " "));
            piece = (tok_str){piece.s + n, piece.n - n};
        } else {
            DR_TRY(dr_buf_add(&state->work, piece.s, 1));
            piece = (tok_str){piece.s + 1, piece.n - 1};
        }
    }
    DR_TRY(push(s, i + 1, (tok_str){state->work.data, state->work.len}, out));
done:
    return st;
}

/* No other stage makes more than a few times of what it gets: Replace in a row could. */
static dr_status replace(tok_stream *s, size_t i, tok_str piece, dr_buf *out)
{
    const tok_stage *x = &s->t->stages.list[i];
    stage_state *state = &s->states[i];
    dr_buf *work = &state->work;
    dr_status st = DR_OK;

    dr_buf_reset(work);
    work->max = tok_growth_max(s->bytes) - state->seen;
    DR_TRYF(tok_pattern_replace(work, &x->pattern, &s->matcher, piece,
                                (tok_str){x->text, x->text_n}),
            "decoding %zu bytes of pieces", s->bytes);
    state->seen += work->len;
    DR_TRY(push(s, i + 1, (tok_str){work->data, work->len}, out));
done:
    return st;
}

/* In this order, each over all of the piece; none makes a piece longer. */
static void clean_up(dr_buf *b)
{
    static const char *const rows[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };

    for (size_t r = 0; r < DR_COUNT(rows); r++) {
        const size_t old = strlen(rows[r][0]), new = strlen(rows[r][1]);
        size_t to = 0;
        for (size_t i = 0; i < b->len;) {
            if (b->len - i >= old && memcmp(b->data + i, rows[r][0], old) == 0) {
                memcpy(b->data + to, rows[r][1], new);
                to += new;
                i += old;
            } else {
                b->data[to++] = b->data[i++];
            }
        }
        b->len = to;
    }
    b->data[b->len] = '\0';
}

/* A piece without the prefix begins a word, after a space. */
static dr_status wordpiece(tok_stream *s, size_t i, tok_str piece, dr_buf *out)
{
    const tok_stage *x = &s->t->stages.list[i];
    stage_state *state = &s->states[i];
    const bool later = state->seen++ > 0;
    dr_status st = DR_OK;

    dr_buf_reset(&state->work);
    if (later && begins(piece, x->text))
        piece = (tok_str){piece.s + x->text_n, piece.n - x->text_n};
    else if (later)
        DR_TRY(dr_buf_add(&state->work, " ", 1));
    DR_TRY(dr_buf_add(&state->work, piece.s, piece.n));
    if (x->cleanup && state->work.len > 0)
        clean_up(&state->work);
    DR_TRY(push(s, i + 1, (tok_str){state->work.data, state->work.len}, out));
done:
    return st;
}

static dr_status join(tok_stream *s, size_t i, tok_str piece, dr_buf *out)
{
    dr_status st = DR_OK;

    if (s->states[i].seen++ > 0)
        DR_TRY(push(s, i + 1, (tok_str){" ", 1}, out));
    DR_TRY(push(s, i + 1, piece, out));
done:
    return st;
}

static bool needs_whole(const tok_stage *x)
{
    return x->fused && (x->kind == STAGE_REPLACE || x->kind == STAGE_BYTE_FALLBACK ||
                        x->kind == STAGE_BYTE_LEVEL || x->kind == STAGE_WORDPIECE);
}

static dr_status push(tok_stream *s, size_t i, tok_str piece, dr_buf *out)
{
    if (i == s->t->stages.count)
        return dr_buf_add(out, piece.s, piece.n);
    const tok_stage *x = &s->t->stages.list[i];
    if (needs_whole(x) && !s->states[i].whole)
        return dr_buf_add(&s->states[i].held, piece.s, piece.n);
    switch (x->kind) {
    case STAGE_JOIN:
        return join(s, i, piece, out);
    case STAGE_BYTE_LEVEL:
        return byte_level(s, i, piece, out);
    case STAGE_REPLACE:
        return replace(s, i, piece, out);
    case STAGE_BYTE_FALLBACK:
        return byte_fallback(s, i, piece, out);
    case STAGE_STRIP:
        return strip(s, i, piece, out);
    case STAGE_METASPACE:
        return metaspace(s, i, piece, out);
    case STAGE_WORDPIECE:
        return wordpiece(s, i, piece, out);
    case STAGE_FUSE:
    default:
        return push(s, i + 1, piece, out);
    }
}

/* What stage i still holds goes on. */
static dr_status finish(tok_stream *s, size_t i, dr_buf *out)
{
    const tok_stage *x = &s->t->stages.list[i];
    stage_state *state = &s->states[i];
    dr_buf all;
    dr_status st = DR_OK;

    dr_buf_init(&all, TOK_TEXT_MAX);
    if (needs_whole(x)) {
        DR_TRY(dr_buf_add(&all, state->held.data, state->held.len));
        dr_buf_reset(&state->held);
        state->whole = true;
        DR_TRY(push(s, i, (tok_str){all.data, all.len}, out));
    }
    if (x->kind == STAGE_BYTE_LEVEL)
        DR_TRY(pass_bytes(s, i, true, out));
    if (x->kind == STAGE_BYTE_FALLBACK)
        DR_TRY(flush_fallback(s, i, out));
done:
    dr_buf_release(&all);
    return st;
}

/* ---- the door ---- */

dr_status tok_stream_open(tok_stream **out, const tok_tokenizer *t)
{
    tok_stream *s = dr_calloc(1, sizeof(*s));

    s->t = t;
    s->skip_special = true;
    s->states = dr_calloc(t->stages.count, sizeof(*s->states));
    for (size_t i = 0; i < t->stages.count; i++) {
        dr_buf_init(&s->states[i].held, TOK_TEXT_MAX);
        dr_buf_init(&s->states[i].work, TOK_TEXT_MAX);
    }
    *out = s;
    return DR_OK;
}

void tok_stream_close(tok_stream *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->t->stages.count; i++) {
        dr_buf_release(&s->states[i].held);
        dr_buf_release(&s->states[i].work);
    }
    free(s->states);
    tok_matcher_release(&s->matcher);
    free(s);
}

void tok_stream_skip_special(tok_stream *s, bool skip)
{
    s->skip_special = skip;
}

dr_status tok_stream_add(tok_stream *s, int32_t id, dr_buf *out)
{
    const tok_added *added = tok_addeds_get(&s->t->added, id);
    tok_str piece = {0};

    if (added != NULL)
        piece = (tok_str){added->shown, added->shown_n};
    else if (!tok_vocab_piece(&s->t->model.vocab, id, &piece))
        return DR_OK;
    if (s->skip_special && added != NULL && added->skipped)
        return DR_OK;
    s->bytes += piece.n;
    return push(s, 0, piece, out);
}

dr_status tok_stream_end(tok_stream *s, dr_buf *out)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < s->t->stages.count; i++)
        DR_TRY(finish(s, i, out));
done:
    return st;
}

dr_status tok_decode(const tok_tokenizer *t, dr_buf *out, const int32_t *ids, size_t count,
                     bool skip_special)
{
    tok_stream *s = NULL;
    dr_status st = DR_OK;

    DR_TRY(tok_stream_open(&s, t));
    s->skip_special = skip_special;
    for (size_t i = 0; i < count; i++)
        DR_TRY(tok_stream_add(s, ids[i], out));
    DR_TRY(tok_stream_end(s, out));
done:
    tok_stream_close(s);
    return st;
}
