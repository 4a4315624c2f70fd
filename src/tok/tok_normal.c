/*
 * tok_normal.c - normalizers, in a row.  Unicode forms come from utf8proc; text that is in
 * the form for sure (ASCII; for NFC anything below U+0300) is left where it is.
 */
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "core/mem.h"
#include "tok/tok_impl.h"

static const struct {
    const char *name;
    tok_normal_kind kind;
} kinds[] = {
    {"Prepend", TOK_NORMAL_PREPEND},
    {"Replace", TOK_NORMAL_REPLACE},
    {"NFC", TOK_NORMAL_NFC},
    {"NFD", TOK_NORMAL_NFD},
    {"NFKC", TOK_NORMAL_NFKC},
    {"NFKD", TOK_NORMAL_NFKD},
    {"Lowercase", TOK_NORMAL_LOWERCASE},
    {"Strip", TOK_NORMAL_STRIP},
    {"BertNormalizer", TOK_NORMAL_BERT},
    {"StripAccents", TOK_NORMAL_STRIP_ACCENTS},
    {"Precompiled", TOK_NORMAL_PRECOMPILED},
};

static dr_status read_text(tok_normal *x, const json_t *spec, const char *key,
                           const char *where)
{
    const json_t *s = json_object_get(spec, key);

    if (!json_is_string(s))
        return dr_fail(DR_EFORMAT, "%s: normalizer: %s: expected a string, found %s", where,
                       key, dr_json_type(s));
    x->text_n = json_string_length(s);
    x->text = dr_strndup(json_string_value(s), x->text_n);
    return DR_OK;
}

static dr_status add(tok_normals *ns, const json_t *spec, const char *type,
                     const char *where)
{
    dr_status st = DR_OK;
    size_t k = 0;

    while (k < DR_COUNT(kinds) && strcmp(kinds[k].name, type) != 0)
        k++;
    if (k == DR_COUNT(kinds))
        DR_FAIL(DR_EUNSUPPORTED, "%s: normalizer of type \"%s\"", where, type);
    if (ns->count == TOK_STEP_LIMIT)
        DR_FAIL(DR_EFORMAT, "%s: more than %d normalizers", where, TOK_STEP_LIMIT);
    ns->list = dr_realloc(ns->list, ns->count + 1, sizeof(*ns->list));
    tok_normal *x = &ns->list[ns->count++];
    *x = (tok_normal){.kind = kinds[k].kind};
    if (x->kind == TOK_NORMAL_PREPEND)
        DR_TRY(read_text(x, spec, "prepend", where));
    if (x->kind == TOK_NORMAL_REPLACE) {
        DR_TRY(tok_pattern_open(&x->pattern, json_object_get(spec, "pattern"), where));
        DR_TRY(read_text(x, spec, "content", where));
    }
    if (x->kind == TOK_NORMAL_STRIP) {
        DR_TRY(dr_json_bool(spec, "strip_left", &x->left, where));
        DR_TRY(dr_json_bool(spec, "strip_right", &x->right, where));
    }
    if (x->kind == TOK_NORMAL_BERT)
        DR_TRY(tok_bert_open(&x->bert, spec, where));
    if (x->kind == TOK_NORMAL_PRECOMPILED)
        DR_TRY(tok_charsmap_open(&x->charsmap, spec, where));
done:
    return st;
}

dr_status tok_normals_open(tok_normals *ns, const json_t *spec, const char *where)
{
    const char *type = "";
    const json_t *part = NULL;
    size_t i = 0;
    dr_status st = DR_OK;

    if (spec == NULL || json_is_null(spec))
        return DR_OK;
    if (!json_is_object(spec))
        DR_FAIL(DR_EFORMAT, "%s: normalizer: expected an object, found %s", where,
                dr_json_type(spec));
    DR_TRY(dr_json_str(spec, "type", &type, where));
    if (strcmp(type, "Sequence") != 0)
        return add(ns, spec, type, where);
    const json_t *parts = json_object_get(spec, "normalizers");
    if (!json_is_array(parts))
        DR_FAIL(DR_EFORMAT, "%s: normalizers: expected an array, found %s", where,
                dr_json_type(parts));
    json_array_foreach(parts, i, part) DR_TRY(tok_normals_open(ns, part, where));
done:
    return st;
}

void tok_normals_release(tok_normals *ns)
{
    for (size_t i = 0; i < ns->count; i++) {
        tok_pattern_release(&ns->list[i].pattern);
        tok_charsmap_free(ns->list[i].charsmap);
        free(ns->list[i].text);
    }
    free(ns->list);
    *ns = (tok_normals){0};
}

/* ---- running ---- */

bool tok_is_ascii(tok_str text)
{
    for (size_t i = 0; i < text.n; i++)
        if ((unsigned char)text.s[i] >= 0x80)
            return false;
    return true;
}

static bool is_normal_already(tok_normal_kind kind, tok_str text)
{
    const unsigned char limit = kind == TOK_NORMAL_NFC ? 0xCC : 0x80; /* CC 80: U+0300 */

    for (size_t i = 0; i < text.n; i++)
        if ((unsigned char)text.s[i] >= limit)
            return false;
    return true;
}

static dr_status form_part(utf8proc_option_t options, dr_buf *out, tok_str text)
{
    utf8proc_uint8_t *formed = NULL;
    const utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text.s,
                                            (utf8proc_ssize_t)text.n, &formed, options);
    dr_status st = DR_OK;

    if (n < 0)
        DR_FAIL(DR_EFORMAT, "normalizing %zu bytes: %s", text.n, utf8proc_errmsg(n));
    DR_TRY(dr_buf_add(out, formed, (size_t)n));
done:
    free(formed);
    return st;
}

dr_status tok_unicode_form(tok_normal_kind kind, dr_buf *out, tok_str text)
{
    const bool compose = kind == TOK_NORMAL_NFC || kind == TOK_NORMAL_NFKC;
    const bool compat = kind == TOK_NORMAL_NFKC || kind == TOK_NORMAL_NFKD;
    const int options = UTF8PROC_STABLE |
                        (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                        (compat ? UTF8PROC_COMPAT : 0);
    size_t at = 0;
    uint32_t cp = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < text.n;) {
        const size_t n = tok_utf8_get(text.s + i, text.n - i, &cp);
        if (tok_is_newer_form(cp)) {
            DR_TRY(
                form_part((utf8proc_option_t)options, out, (tok_str){text.s + at, i - at}));
            DR_TRY(dr_buf_add(out, text.s + i, n));
            at = i + n;
        }
        i += n;
    }
    DR_TRY(form_part((utf8proc_option_t)options, out, (tok_str){text.s + at, text.n - at}));
done:
    return st;
}

dr_status tok_lowercase(dr_buf *out, tok_str text)
{
    uint32_t cp = 0;
    char *to = NULL;
    dr_status st = DR_OK;

    /* No lower-case form is longer than 3/2 of its character (U+023A: 2 bytes to 3). */
    DR_TRY(dr_buf_reserve(out, text.n + text.n / 2 + 4, &to));
    for (size_t i = 0; i < text.n;) {
        i += tok_utf8_get(text.s + i, text.n - i, &cp);
        if (cp == 0x130) { /* the one character whose lower case is two */
            memcpy(to, "i\xCC\x87", 3);
            to += 3;
        } else if (cp < 0x80) {
            *to++ = (char)(cp >= 'A' && cp <= 'Z' ? cp + 32 : cp);
        } else {
            to += tok_utf8_put(to, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
        }
    }
    out->len = (size_t)(to - out->data);
    out->data[out->len] = '\0';
done:
    return st;
}

/* Returns the bytes taken off the front. */
static size_t strip(const tok_normal *x, tok_str *text)
{
    const char *start = text->s;
    uint32_t cp = 0;

    while (x->left && text->n > 0) {
        size_t n = tok_utf8_get(text->s, text->n, &cp);
        if (!tok_is_space(cp))
            break;
        *text = (tok_str){text->s + n, text->n - n};
    }
    while (x->right && text->n > 0) {
        size_t n = tok_utf8_last(text->s, text->n, &cp);
        if (!tok_is_space(cp))
            break;
        text->n -= n;
    }
    return (size_t)(text->s - start);
}

/* *text becomes the normalizer's output, in out unless it stays where it is. */
static dr_status run_one(const tok_normal *x, tok_work *w, dr_buf *out, tok_str *text)
{
    bool moved = true;
    dr_status st = DR_OK;

    dr_buf_reset(out);
    switch (x->kind) {
    case TOK_NORMAL_PREPEND:
        DR_TRY(dr_buf_add(out, x->text, text->n > 0 ? x->text_n : 0));
        DR_TRY(dr_buf_add(out, text->s, text->n));
        break;
    case TOK_NORMAL_REPLACE:
        DR_TRY(tok_pattern_replace(out, &x->pattern, &w->matcher, *text,
                                   (tok_str){x->text, x->text_n}));
        break;
    case TOK_NORMAL_NFC:
    case TOK_NORMAL_NFD:
    case TOK_NORMAL_NFKC:
    case TOK_NORMAL_NFKD:
        moved = !is_normal_already(x->kind, *text);
        if (moved)
            DR_TRY(tok_unicode_form(x->kind, out, *text));
        break;
    case TOK_NORMAL_LOWERCASE:
        DR_TRY(tok_lowercase(out, *text));
        break;
    case TOK_NORMAL_STRIP:
        moved = false;
        (void)strip(x, text);
        break;
    case TOK_NORMAL_BERT:
        DR_TRY(tok_bert_run(&x->bert, out, *text));
        break;
    case TOK_NORMAL_STRIP_ACCENTS:
        moved = !tok_is_ascii(*text);
        if (moved)
            DR_TRY(tok_strip_accents(out, *text));
        break;
    case TOK_NORMAL_PRECOMPILED:
        DR_TRY(tok_charsmap_run(x->charsmap, out, *text));
        break;
    }
    if (moved)
        *text = (tok_str){out->data, out->len};
done:
    return st;
}

/* What a match becomes stems from its last character. */
static dr_status replace_head(const tok_normal *x, tok_work *w, tok_str text, size_t *head)
{
    tok_scan scan = tok_scan_begin(&x->pattern, &w->matcher, text);
    size_t at = 0, start = 0, end = 0, kept = 0;
    bool found = false;
    dr_status st = DR_OK;

    while (at < *head) {
        DR_TRY(tok_scan_next(&scan, &start, &end, &found));
        if (!found || start >= *head) {
            kept += *head - at;
            break;
        }
        kept += start - at;
        if (end > *head)
            break;
        kept += x->text_n;
        at = end;
    }
    *head = kept;
done:
    return st;
}

/*
 * The bytes that stem from the first character are followed through: the normalizer is run
 * over them alone.  As one of them may take a grapheme whole, the answer is made to end at
 * the end of a character of the normalized text by the caller.
 */
static dr_status follow_head(const tok_normal *x, tok_work *w, tok_str text, size_t *head)
{
    tok_str part = {text.s, *head};
    dr_status st = DR_OK;

    if (x->kind == TOK_NORMAL_STRIP) {
        const size_t taken = strip(x, &text);
        *head = taken < *head ? *head - taken : 0;
        return DR_OK;
    }
    if (x->kind == TOK_NORMAL_REPLACE)
        return replace_head(x, w, text, head);
    DR_TRY(run_one(x, w, &w->name, &part));
    *head = part.n;
done:
    return st;
}

/* Where Precompiled drops the first character, what comes next counts as the beginning:
 * tokenizers loses count. */
static size_t settle_head(const tok_normal *x, tok_str text, size_t head)
{
    uint32_t cp = 0;

    if (head == 0 && x->kind == TOK_NORMAL_PRECOMPILED && text.n > 0)
        return tok_utf8_get(text.s, text.n, &cp);
    while (head > 0 && head < text.n && ((unsigned char)text.s[head] & 0xC0) == 0x80)
        head++;
    return head < text.n ? head : text.n;
}

dr_status tok_normals_run(const tok_normals *ns, tok_work *w, tok_str *text, size_t *head)
{
    const size_t n = text->n;
    int turn = 0;
    dr_status st = DR_OK;

    w->normal[0].max = w->normal[1].max = w->name.max = tok_growth_max(n);
    for (size_t i = 0; i < ns->count; i++) {
        const tok_normal *x = &ns->list[i];
        dr_buf *out = &w->normal[turn];
        const bool follow = head != NULL && *head > 0;
        if (follow)
            DR_TRYF(follow_head(x, w, *text, head), "normalizing %zu bytes", n);
        DR_TRYF(run_one(x, w, out, text), "normalizing %zu bytes", n);
        if (follow)
            *head = settle_head(x, *text, *head);
        turn = text->s == out->data ? !turn : turn;
    }
done:
    w->name.max = TOK_TEXT_MAX;
    return st;
}
