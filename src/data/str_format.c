/*
 * str_format.c - Python's str.format over named columns, as Olive uses it for
 * --text_template: {name}, {{ and }}.  Conversions, attributes, indexes and format
 * specifications are refused by name: no template in use has them.
 */
#include <string.h>

#include "core/mem.h"
#include "core/param.h"
#include "data/data.h"

/* One backslash escape at s (which points behind the backslash); returns its length. */
static size_t escape(char *out, const char *s)
{
    static const char from[] = "ntr\\'\"", to[] = "\n\t\r\\'\"";
    const char *p = *s ? strchr(from, *s) : NULL;

    if (p == NULL)
        return 0;
    *out = to[p - from];
    return 1;
}

static dr_status decode_escapes_to(dr_buf *b, const char *text)
{
    dr_status st = DR_OK;

    for (const char *s = text; *s; s++) {
        char c = *s;
        if (c == '\\')
            s += escape(&c, s + 1);
        DR_TRY(dr_buf_add(b, &c, 1));
    }
done:
    return st;
}

static dr_status no_column(const char *name, const char *const *names, size_t count)
{
    char list[256] = "";

    for (size_t i = 0; i < count; i++) {
        size_t used = strlen(list);
        if (used + strlen(names[i]) + 3 > sizeof(list))
            break;
        (void)memcpy(list + used, i ? ", " : "", i ? 3 : 1);
        used = strlen(list);
        (void)memcpy(list + used, names[i], strlen(names[i]) + 1);
    }
    dr_status st = dr_fail(DR_EFORMAT, "text_template: no column \"%s\"; columns: %s", name,
                           list);
    const char *near = dr_nearest(name, names, count);
    if (near != NULL)
        dr_hint("did you mean {%s}?", near);
    return st;
}

/* The field between braces at s; *used is what was read, the closing brace included. */
static dr_status field(dr_buf *out, const char *s, size_t *used, const char *const *names,
                       const char *const *values, size_t count)
{
    char name[256];
    size_t n = strcspn(s, "}");

    if (s[n] != '}')
        return dr_fail(DR_EFORMAT, "text_template: a { has no }: \"{%.40s\"", s);
    if (n == 0 || n >= sizeof(name))
        return dr_fail(DR_EFORMAT, "text_template: {%.40s} names no column", n ? s : "");
    memcpy(name, s, n);
    name[n] = '\0';
    *used = n + 1;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0)
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

    dr_buf_init(&decoded, (size_t)1 << 20);
    if (decode_escapes)
        DR_TRYF(decode_escapes_to(&decoded, template_text), "decoding text_template");
    else
        DR_TRY(dr_buf_adds(&decoded, template_text));

    for (const char *s = decoded.data; *s;) {
        size_t n = strcspn(s, "{}");
        DR_TRY(dr_buf_add(out, s, n));
        s += n;
        if (*s == '\0')
            break;
        if (s[0] == s[1]) { /* {{ or }} */
            DR_TRY(dr_buf_add(out, s, 1));
            s += 2;
        } else if (*s == '}') {
            DR_FAIL(DR_EFORMAT, "text_template: a single } near \"%.40s\"", s);
        } else {
            size_t used = 0;
            DR_TRY(field(out, s + 1, &used, names, values, count));
            s += 1 + used;
        }
    }
done:
    dr_buf_release(&decoded);
    return st;
}
