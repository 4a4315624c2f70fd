/*
 * tok_charsmap.c - SentencePiece's precompiled_charsmap: a table of texts and what each is
 * rewritten to.
 *
 *   4 bytes   n, little endian
 *   n bytes   a double-array trie (Darts), in units of 4 bytes
 *   rest      the results, each ended by a zero byte; the trie's values are offsets here
 *
 * A unit has bits 0-7: its label, 8: a value hangs below, 9: the offset is counted in 256,
 * 10-30: the offset; or, with bit 31, bits 0-30 are a value.  The child for a byte is at
 * (place ^ offset) ^ byte and has that byte for its label.
 *
 * What is asked: every grapheme of less than six bytes, then each of its characters; the
 * answer is what the shortest beginning of it maps to, the rest being dropped.  This is how
 * tokenizers applies the table, and models were trained with it.  Places outside the trie
 * end a search, so that a broken table does no harm.
 */
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "core/mem.h"
#include "tok/tok_impl.h"

enum { GRAPHEME_MAX = 6 };

struct tok_charsmap {
    unsigned char *data; /* owned: the whole table */
    size_t units;
    const char *results; /* in data; behind it is a zero byte */
    size_t results_n;
};

/* ---- opening ---- */

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* out has room for 3/4 of n; false: s is no base64. */
static bool base64_decode(unsigned char *out, size_t *out_n, const char *s, size_t n)
{
    uint32_t bits = 0;
    unsigned count = 0;

    *out_n = 0;
    while (n > 0 && s[n - 1] == '=')
        n--;
    for (size_t i = 0; i < n; i++) {
        const int v = base64_value(s[i]);
        if (v < 0)
            return false;
        bits = bits << 6 | (uint32_t)v;
        count += 6;
        if (count >= 8) {
            count -= 8;
            out[(*out_n)++] = (unsigned char)(bits >> count);
        }
    }
    return count < 6;
}

static uint32_t word_at(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24;
}

dr_status tok_charsmap_open(tok_charsmap **out, const json_t *spec, const char *where)
{
    const json_t *text = json_object_get(spec, "precompiled_charsmap");
    tok_charsmap *m = dr_calloc(1, sizeof(*m));
    size_t n = 0;
    dr_status st = DR_OK;

    if (!json_is_string(text))
        DR_FAIL(DR_EFORMAT, "%s: precompiled_charsmap: expected a string, found %s", where,
                dr_json_type(text));
    m->data = dr_calloc(json_string_length(text) + 1, 1);
    if (!base64_decode(m->data, &n, json_string_value(text), json_string_length(text)))
        DR_FAIL(DR_EFORMAT, "%s: precompiled_charsmap: not base64", where);
    const uint32_t bytes = n >= 4 ? word_at(m->data) : 0;
    if (n < 4 || bytes > n - 4 || bytes % 4 != 0)
        DR_FAIL(DR_EFORMAT, "%s: precompiled_charsmap: a trie of %u bytes in %zu", where,
                bytes, n);
    m->units = bytes / 4;
    m->results = (const char *)m->data + 4 + bytes;
    m->results_n = n - 4 - bytes;
    m->data[n] = '\0';
    if (!tok_utf8_valid(m->results, m->results_n))
        DR_FAIL(DR_EFORMAT, "%s: precompiled_charsmap: results that are not UTF-8", where);
    *out = m;
    m = NULL;
done:
    tok_charsmap_free(m);
    return st;
}

void tok_charsmap_free(tok_charsmap *m)
{
    if (m == NULL)
        return;
    free(m->data);
    free(m);
}

/* ---- asking ---- */

static bool unit_at(const tok_charsmap *m, size_t place, uint32_t *unit)
{
    if (place >= m->units)
        return false;
    *unit = word_at(m->data + 4 + 4 * place);
    return true;
}

static size_t offset_of(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
}

/* What the shortest beginning of s that is in the table maps to. */
static bool find(const tok_charsmap *m, const char *s, size_t n, tok_str *result)
{
    uint32_t unit = 0;
    size_t place = 0;

    if (!unit_at(m, 0, &unit))
        return false;
    place = offset_of(unit);
    for (size_t i = 0; i < n && s[i] != '\0'; i++) {
        const unsigned char byte = (unsigned char)s[i];
        place ^= byte;
        if (!unit_at(m, place, &unit) || (unit & (1u << 31 | 0xFF)) != byte)
            return false;
        place ^= offset_of(unit);
        if ((unit >> 8 & 1) == 0)
            continue;
        if (!unit_at(m, place, &unit))
            return false;
        const size_t at = unit & ((1u << 31) - 1);
        if (at > m->results_n || (at > 0 && m->results[at - 1] != '\0'))
            return false;
        *result = (tok_str){m->results + at, strlen(m->results + at)};
        return true;
    }
    return false;
}

/* The end of the grapheme that begins at `at`. */
static size_t grapheme_end(tok_str text, size_t at)
{
    utf8proc_int32_t state = 0;
    uint32_t cp = 0, next = 0;

    for (at += tok_utf8_get(text.s + at, text.n - at, &cp); at < text.n; cp = next) {
        const size_t n = tok_utf8_get(text.s + at, text.n - at, &next);
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)cp, (utf8proc_int32_t)next,
                                             &state))
            break;
        at += n;
    }
    return at;
}

/* Two ASCII characters are two graphemes, but for CR LF. */
static bool plain_next(tok_str text, size_t at)
{
    return (unsigned char)text.s[at] < 0x80 && text.s[at] != '\r' &&
           (at + 1 == text.n || (unsigned char)text.s[at + 1] < 0x80);
}

dr_status tok_charsmap_run(const tok_charsmap *m, dr_buf *out, tok_str text)
{
    tok_str result = {0};
    uint32_t cp = 0;
    dr_status st = DR_OK;

    for (size_t at = 0, end = 0; at < text.n; at = end) {
        end = plain_next(text, at) ? at + 1 : grapheme_end(text, at);
        if (end - at < GRAPHEME_MAX && find(m, text.s + at, end - at, &result)) {
            DR_TRY(dr_buf_add(out, result.s, result.n));
            continue;
        }
        for (size_t i = at, n = 0; i < end; i += n) {
            n = tok_utf8_get(text.s + i, end - i, &cp);
            if (!find(m, text.s + i, n, &result))
                result = (tok_str){text.s + i, n};
            DR_TRY(dr_buf_add(out, result.s, result.n));
        }
    }
done:
    return st;
}
