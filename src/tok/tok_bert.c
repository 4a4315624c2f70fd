/*
 * tok_bert.c - what BERT does to text before it is cut: control characters go and white
 * space becomes a space (clean_text), Chinese characters get spaces around them, marks go
 * (strip_accents; unsaid, as lowercase says), letters become small.  Also StripAccents,
 * which drops marks of every kind and does not decompose anything first.
 */
#include <string.h>

#include "tok/tok_impl.h"

dr_status tok_strip_accents(dr_buf *out, tok_str text)
{
    uint32_t cp = 0;
    dr_status st = DR_OK;

    for (size_t i = 0, n = 0; i < text.n; i += n) {
        n = tok_utf8_get(text.s + i, text.n - i, &cp);
        if (cp < 0x300 || !tok_is_mark(cp))
            DR_TRY(dr_buf_add(out, text.s + i, n));
    }
done:
    return st;
}

dr_status tok_bert_open(tok_bert *b, const json_t *spec, const char *where)
{
    const json_t *strip = json_object_get(spec, "strip_accents");
    dr_status st = DR_OK;

    *b = (tok_bert){.clean = true, .chinese = true, .lowercase = true};
    DR_TRY(dr_json_bool(spec, "clean_text", &b->clean, where));
    DR_TRY(dr_json_bool(spec, "handle_chinese_chars", &b->chinese, where));
    DR_TRY(dr_json_bool(spec, "lowercase", &b->lowercase, where));
    b->strip = b->lowercase;
    if (strip != NULL)
        DR_TRY(dr_json_bool(spec, "strip_accents", &b->strip, where));
done:
    return st;
}

/* U+2B820 to U+2B91F are left out there, by an oversight that models were trained with. */
static bool is_chinese(uint32_t cp)
{
    return (cp >= 0x4E00 && cp <= 0x9FFF) || (cp >= 0x3400 && cp <= 0x4DBF) ||
           (cp >= 0x20000 && cp <= 0x2A6DF) || (cp >= 0x2A700 && cp <= 0x2B81F) ||
           (cp >= 0x2B920 && cp <= 0x2CEAF) || (cp >= 0xF900 && cp <= 0xFAFF) ||
           (cp >= 0x2F800 && cp <= 0x2FA1F);
}

static dr_status put_clean(const tok_bert *b, dr_buf *out, const char *s, size_t n,
                           uint32_t cp)
{
    const bool spaced = b->chinese && is_chinese(cp);
    dr_status st = DR_OK;

    if (b->clean && (cp == 0 || cp == 0xFFFD || tok_is_control(cp)))
        return DR_OK;
    if (b->clean && tok_is_space(cp))
        return dr_buf_add(out, " ", 1);
    if (spaced)
        DR_TRY(dr_buf_add(out, " ", 1));
    DR_TRY(dr_buf_add(out, s, n));
    if (spaced)
        DR_TRY(dr_buf_add(out, " ", 1));
done:
    return st;
}

static dr_status clean(const tok_bert *b, dr_buf *out, tok_str text)
{
    uint32_t cp = 0;
    char *to = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_buf_reserve(out, text.n, &to));
    for (size_t i = 0, n = 0; i < text.n; i += n) {
        n = tok_utf8_get(text.s + i, text.n - i, &cp);
        DR_TRY(put_clean(b, out, text.s + i, n, cp));
    }
done:
    return st;
}

static dr_status drop_nonspacing(dr_buf *out, tok_str text)
{
    uint32_t cp = 0;
    dr_status st = DR_OK;

    for (size_t i = 0, n = 0; i < text.n; i += n) {
        n = tok_utf8_get(text.s + i, text.n - i, &cp);
        if (cp < 0x300 || !tok_is_nonspacing(cp))
            DR_TRY(dr_buf_add(out, text.s + i, n));
    }
done:
    return st;
}

/* Each step reads one buffer and writes the other. */
dr_status tok_bert_run(const tok_bert *b, dr_buf *out, tok_str text)
{
    dr_buf other;
    dr_status st = DR_OK;

    dr_buf_init(&other, TOK_TEXT_MAX);
    DR_TRY(clean(b, out, text));
    if (b->strip && !tok_is_ascii((tok_str){out->data, out->len})) {
        DR_TRY(tok_unicode_form(TOK_NORMAL_NFD, &other, (tok_str){out->data, out->len}));
        dr_buf_reset(out);
        DR_TRY(drop_nonspacing(out, (tok_str){other.data, other.len}));
    }
    if (b->lowercase) {
        dr_buf_reset(&other);
        DR_TRY(dr_buf_add(&other, out->data, out->len));
        dr_buf_reset(out);
        DR_TRY(tok_lowercase(out, (tok_str){other.data, other.len}));
    }
done:
    dr_buf_release(&other);
    return st;
}
