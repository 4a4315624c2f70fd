/*
 * str_format.c - Python's str.format over named columns, as Olive uses it for
 * --text_template: {name}, {{ and }}.  Conversions, attributes, indexes and format
 * specifications are refused by name: no template in use has them.
 *
 * Olive's command line decodes backslash escapes as Python's unicode_escape does, but that
 * takes every byte beyond ASCII for a Latin-1 letter; here the template stays UTF-8.
 */
#include <stdint.h>
#include <string.h>

#include "core/mem.h"
#include "core/param.h"
#include "data/data.h"

enum { TEMPLATE_MAX = 1 << 20, NAME_MAX_BYTES = 256 };

/* ---- escapes ---- */

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *p = c != '\0' ? strchr(digits, c >= 'A' && c <= 'F' ? c + 32 : c) : NULL;

    return p != NULL ? (int)(p - digits) : -1;
}

static dr_status add_utf8(dr_buf *b, uint32_t c)
{
    char text[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

    if (n == 1) {
        text[0] = (char)c;
        return dr_buf_add(b, text, 1);
    }
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        text[i] = (char)(0x80 | (c & 0x3f));
    text[0] = (char)((0xf0u << (4 - n)) | c); /* 110..., 1110..., 11110... */
    return dr_buf_add(b, text, n);
}

/* \xHH, \uHHHH or \UHHHHHHHH at s, which points behind the letter. */
static dr_status add_code(dr_buf *b, const char *s, size_t digits)
{
    uint32_t c = 0;

    for (size_t i = 0; i < digits; i++) {
        int d = hex_digit(s[i]);
        if (d < 0)
            return dr_fail(DR_EUSAGE,
                           "text_template: \\%c needs %zu hexadecimal digits, "
                           "found \"%.8s\"",
                           s[-1], digits, s);
        c = c << 4 | (uint32_t)d;
    }
    if (c == 0 || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return dr_fail(DR_EUSAGE, "text_template: \\%c%.*s is no character of a text",
                       s[-1], (int)digits, s);
    return add_utf8(b, c);
}

/* The escape at s, which points behind the backslash; *used: its bytes, 0: none. */
static dr_status add_escape(dr_buf *b, const char *s, size_t *used)
{
    static const char from[] = "ntr\\'\"abfv", to[] = "\n\t\r\\'\"\a\b\f\v";
    const char *p = *s != '\0' ? strchr(from, *s) : NULL;
    size_t digits = *s == 'x' ? 2 : *s == 'u' ? 4 : *s == 'U' ? 8 : 0;

    if (p != NULL) {
        *used = 1;
        return dr_buf_add(b, &to[p - from], 1);
    }
    *used = digits > 0 ? 1 + digits : 0;
    if (digits > 0)
        return add_code(b, s + 1, digits);
    if (*s == 'N' || (*s >= '0' && *s <= '7'))
        return dr_fail(DR_EUNSUPPORTED,
                       "text_template: \\%c: write the character itself, or \\uHHHH", *s);
    return DR_OK;
}

static dr_status decode_escapes_to(dr_buf *b, const char *text)
{
    dr_status st = DR_OK;

    for (const char *s = text; *s;) {
        size_t plain = strcspn(s, "\\"), used = 0;
        DR_TRY(dr_buf_add(b, s, plain));
        s += plain;
        if (*s == '\0')
            break;
        DR_TRY(add_escape(b, s + 1, &used));
        if (used == 0)
            DR_TRY(dr_buf_add(b, s, 1));
        s += 1 + used;
    }
done:
    return st;
}

/* ---- fields ---- */

static dr_status no_column(const char *name, const char *const *names, size_t count)
{
    char list[256];
    size_t used = 0;

    list[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(names[i]);
        if (used + n + 3 > sizeof(list))
            break;
        memcpy(list + used, ", ", i > 0 ? 2 : 0);
        used += i > 0 ? 2 : 0;
        memcpy(list + used, names[i], n + 1);
        used += n;
    }
    dr_status st =
        dr_fail(DR_EFORMAT, "text_template: no column \"%s\"; columns: %s", name, list);
    const char *near = dr_nearest(name, names, count);
    if (near != NULL)
        dr_hint("did you mean {%s}?", near);
    return st;
}

/* The field between braces at s; *used is what was read, the closing brace included. */
static dr_status field(dr_buf *out, const char *s, size_t *used, const char *const *names,
                       const char *const *values, size_t count)
{
    char name[NAME_MAX_BYTES];
    size_t n = strcspn(s, "}");

    if (s[n] != '}')
        return dr_fail(DR_EFORMAT, "text_template: a { has no }: \"{%.40s\"", s);
    if (n == 0 || n >= sizeof(name))
        return dr_fail(DR_EFORMAT, "text_template: {%.40s} names no column", n ? s : "");
    memcpy(name, s, n);
    name[n] = '\0';
    *used = n + 1;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) != 0)
            continue;
        if (values[i] == NULL)
            return dr_fail(DR_EUNSUPPORTED,
                           "text_template: {%s} is a list or an object, not text", name);
        return dr_buf_adds(out, values[i]);
    }
    size_t plain = strcspn(name, "!:.[");
    if (name[plain] != '\0')
        return dr_fail(DR_EUNSUPPORTED,
                       "text_template: {%s}: only {column} is supported, not %c", name,
                       name[plain]);
    return no_column(name, names, count);
}

dr_status data_format(dr_buf *out, const char *template_text, bool decode_escapes,
                      const char *const *names, const char *const *values, size_t count)
{
    dr_buf decoded;
    dr_status st = DR_OK;

    dr_buf_init(&decoded, TEMPLATE_MAX);
    if (decode_escapes)
        DR_TRYF(decode_escapes_to(&decoded, template_text), "decoding text_template");
    else
        DR_TRY(dr_buf_adds(&decoded, template_text));

    for (const char *s = decoded.data; *s;) {
        size_t n = strcspn(s, "{}"), used = 0;
        DR_TRY(dr_buf_add(out, s, n));
        s += n;
        if (*s == '\0')
            break;
        if (s[0] == s[1]) { /* {{ or }} */
            DR_TRY(dr_buf_add(out, s, 1));
            s += 2;
        } else if (*s == '}') {
            DR_FAIL(DR_EFORMAT, "text_template: a single } at \"%.40s\"", s);
        } else {
            DR_TRY(field(out, s + 1, &used, names, values, count));
            s += 1 + used;
        }
    }
done:
    dr_buf_release(&decoded);
    return st;
}
