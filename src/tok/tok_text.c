/*
 * tok_text.c - UTF-8, GPT-2's byte table, a hash.
 *
 * Ill-formed bytes become U+FFFD by maximal parts (Unicode 3.9, table 3-8), as Python's
 * bytes.decode(errors="replace") and Rust's from_utf8_lossy do.
 */
#include <string.h>

#include "tok/tok_impl.h"

/* The bytes that may follow a lead byte first: ranges of table 3-7. */
static void second_range(unsigned char lead, unsigned char *low, unsigned char *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (lead == 0xE0)
        *low = 0xA0;
    else if (lead == 0xED)
        *high = 0x9F;
    else if (lead == 0xF0)
        *low = 0x90;
    else if (lead == 0xF4)
        *high = 0x8F;
}

size_t tok_utf8_step(const char *s, size_t n, tok_utf8 *kind)
{
    const unsigned char *p = (const unsigned char *)s;
    unsigned char low = 0, high = 0;
    size_t want = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;

    *kind = TOK_UTF8_BAD;
    if (want == 0 || p[0] > 0xF4)
        return 1;
    second_range(p[0], &low, &high);
    for (size_t i = 1; i < want; i++) {
        if (i == n) {
            *kind = TOK_UTF8_CUT;
            return i;
        }
        if (p[i] < low || p[i] > high)
            return i;
        low = 0x80;
        high = 0xBF;
    }
    *kind = TOK_UTF8_OK;
    return want;
}

/* The number of leading bytes that are well-formed. */
static size_t valid_prefix(const char *s, size_t n)
{
    tok_utf8 kind = TOK_UTF8_OK;
    size_t i = 0;

    while (i < n) {
        uint64_t eight = 0;
        if (n - i >= sizeof(eight)) {
            memcpy(&eight, s + i, sizeof(eight));
            if ((eight & 0x8080808080808080u) == 0) {
                i += sizeof(eight);
                continue;
            }
        }
        size_t step = tok_utf8_step(s + i, n - i, &kind);
        if (kind != TOK_UTF8_OK)
            break;
        i += step;
    }
    return i;
}

bool tok_utf8_valid(const char *s, size_t n)
{
    return valid_prefix(s, n) == n;
}

dr_status tok_utf8_lossy(dr_buf *out, const char *s, size_t n)
{
    tok_utf8 kind = TOK_UTF8_OK;
    dr_status st = DR_OK;
    size_t i = 0;

    while (i < n) {
        size_t good = valid_prefix(s + i, n - i);
        DR_TRY(dr_buf_add(out, s + i, good));
        i += good;
        if (i < n) {
            DR_TRY(dr_buf_adds(out, "\xEF\xBF\xBD"));
            i += tok_utf8_step(s + i, n - i, &kind);
        }
    }
done:
    return st;
}

size_t tok_utf8_get(const char *s, size_t n, uint32_t *cp)
{
    const unsigned char *p = (const unsigned char *)s;

    if (p[0] < 0x80 || n < 2) {
        *cp = p[0];
        return 1;
    }
    if (p[0] < 0xE0 || n < 3) {
        *cp = (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
        return 2;
    }
    if (p[0] < 0xF0 || n < 4) {
        *cp = (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
        return 3;
    }
    *cp =
        (p[0] & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
    return 4;
}

size_t tok_utf8_last(const char *s, size_t n, uint32_t *cp)
{
    size_t i = n - 1;

    while (i > 0 && n - i < 4 && ((unsigned char)s[i] & 0xC0) == 0x80)
        i--;
    return tok_utf8_get(s + i, n - i, cp);
}

size_t tok_utf8_put(char out[4], uint32_t cp)
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

/* Printable Latin-1 stands for itself; the 68 others are U+0100 and up, in order. */
uint32_t tok_byte_char(unsigned char b)
{
    if (b < 0x21)
        return 0x100u + b;
    if (b <= 0x7E)
        return b;
    if (b <= 0xA0)
        return 0x100u + 0x21u + (b - 0x7Fu);
    return b == 0xAD ? 0x143 : b;
}

int tok_char_byte(uint32_t cp)
{
    if (cp >= 0x21 && cp <= 0xFF)
        return (cp >= 0x7F && cp <= 0xA0) || cp == 0xAD ? -1 : (int)cp;
    if (cp >= 0x100 && cp <= 0x120)
        return (int)(cp - 0x100);
    if (cp >= 0x121 && cp <= 0x142)
        return (int)(cp - 0x121 + 0x7F);
    return cp == 0x143 ? 0xAD : -1;
}

dr_status tok_bytes_map(dr_buf *out, const char *s, size_t n)
{
    dr_status st = DR_OK;
    char *to = NULL;

    if (n > TOK_TEXT_MAX / 2)
        DR_FAIL(DR_EFORMAT, "%zu bytes are too many for one text", n);
    DR_TRY(dr_buf_reserve(out, 2 * n, &to));
    for (size_t i = 0; i < n; i++) {
        uint32_t cp = tok_byte_char((unsigned char)s[i]);
        if (cp < 0x80) {
            *to++ = (char)cp;
        } else {
            *to++ = (char)(0xC0 | cp >> 6);
            *to++ = (char)(0x80 | (cp & 0x3F));
        }
    }
    out->len = (size_t)(to - out->data);
    out->data[out->len] = '\0';
done:
    return st;
}

uint64_t tok_hash(const char *s, size_t n)
{
    uint64_t h = n * 0x9E3779B97F4A7C15u, w = 0;

    for (; n >= sizeof(w); n -= sizeof(w), s += sizeof(w)) {
        memcpy(&w, s, sizeof(w));
        h = (h ^ w) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    w = 0;
    memcpy(&w, s, n);
    h = (h ^ w) * 0xD6E8FEB86659FD93u;
    h ^= h >> 29;
    h *= 0x9E3779B97F4A7C15u;
    return h ^ h >> 32;
}
