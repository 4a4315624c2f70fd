/*
 * tok_regex.c - regular expressions of tokenizer.json, written for Oniguruma (Ruby syntax,
 * Unicode), rewritten for PCRE2 with UTF, UCP and MULTILINE.
 *
 * Most of both syntaxes is one.  Rewritten is what would mean something else:
 *   \s \w \h \v \b  other sets of characters (PCRE2's \s has U+180E, its \w no marks)
 *   \p{Han}         \p{sc:Han}
 *   (?m:            dot matches newline: PCRE2's (?s:
 *   {,n}            {0,n}
 *   \uHHHH          \x{HHHH}
 * Refused by name is what cannot be rewritten in place: nested and intersected classes,
 * POSIX classes, possessive intervals, flags in mid-pattern, back references.
 */
#include <string.h>

#include "tok/tok_impl.h"

#define SPACES                                                                             \
    "\\x09-\\x0D\\x20\\x85\\xA0\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"    \
    "\\x{205F}\\x{3000}"
#define NOT_SPACES                                                                         \
    "\\x00-\\x08\\x0E-\\x1F\\x21-\\x84\\x86-\\x9F\\xA1-\\x{167F}\\x{1681}-\\x{1FFF}"       \
    "\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}"         \
    "\\x{3001}-\\x{10FFFF}"
/* Outside classes Oniguruma's \w has, of Latin-1, these digits too. */
#define WORD_OUTSIDE WORDS "\\xB2\\xB3\\xB9\\xBC-\\xBE"
#define WORDS                                                                              \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}"            \
    "\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}"

#define BEHIND     "(?<=[" WORD_OUTSIDE "])"
#define NOT_BEHIND "(?<![" WORD_OUTSIDE "])"

/* An escape by its letter: what stands for it outside and inside a class. */
typedef struct {
    char letter;
    const char *outside, *inside; /* NULL: refused there */
} escape;

static const escape escapes[] = {
    {'s', "[" SPACES "]", SPACES},
    {'S', "[^" SPACES "]", NOT_SPACES},
    {'w', "[" WORD_OUTSIDE "]", WORDS},
    {'W', "[^" WORD_OUTSIDE "]", NULL},
    {'h', "[0-9a-fA-F]", "0-9a-fA-F"},
    {'H', "[^0-9a-fA-F]", NULL},
    {'d', "\\p{Nd}", "\\p{Nd}"},
    {'D', "\\P{Nd}", "\\P{Nd}"},
    {'b', "(?:" BEHIND "(?![" WORD_OUTSIDE "])|" NOT_BEHIND "(?=[" WORD_OUTSIDE "]))",
     "\\x08"},
    {'B', "(?:" BEHIND "(?=[" WORD_OUTSIDE "])|" NOT_BEHIND "(?![" WORD_OUTSIDE "]))",
     NULL},
    {'v', "\\x0B", "\\x0B"},
    {'n', "\\n", "\\n"},
    {'r', "\\r", "\\r"},
    {'t', "\\t", "\\t"},
    {'f', "\\f", "\\f"},
    {'a', "\\x07", "\\x07"},
    {'e', "\\x1B", "\\x1B"},
    {'A', "\\A", NULL},
    {'z', "\\z", NULL},
    {'Z', "\\Z", NULL},
};

typedef struct {
    const char *s; /* borrowed */
    size_t n, i;
    const char *where; /* borrowed */
    dr_buf *out;       /* borrowed */
} source;

static bool next_is(const source *r, const char *text)
{
    size_t n = strlen(text);

    return r->n - r->i >= n && memcmp(r->s + r->i, text, n) == 0;
}

static dr_status refuse(const source *r, const char *what)
{
    return dr_fail(DR_EUNSUPPORTED, "%s: regular expression \"%.*s\": %s at byte %zu",
                   r->where, (int)(r->n < 200 ? r->n : 200), r->s, what, r->i);
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* After \x or \u: at `at`, `count` digits. */
static dr_status hex_escape(source *r, size_t at, size_t count)
{
    dr_status st = DR_OK;

    for (size_t k = 0; k < count; k++)
        if (at + k >= r->n || !is_hex(r->s[at + k]))
            DR_FAIL(DR_EFORMAT, "%s: regular expression: bad escape at byte %zu", r->where,
                    r->i);
    if (count == 2 && r->s[at] >= '8')
        DR_TRY(refuse(r, "a raw byte"));
    DR_TRY(dr_buf_addf(r->out, "\\x{%.*s}", (int)count, r->s + at));
    r->i = at + count;
done:
    return st;
}

/* \x{...} and categories as they are; any other \p{Name} is a script, which PCRE2 would
 * take for the extended one, or a property that it knows otherwise or not at all. */
static dr_status braced(source *r)
{
    const char *close = memchr(r->s + r->i, '}', r->n - r->i);
    const char *name = r->s + r->i + 3;
    dr_status st = DR_OK;

    if (close == NULL)
        DR_FAIL(DR_EFORMAT, "%s: regular expression: no } after byte %zu", r->where, r->i);
    const size_t n = (size_t)(close - name);
    const bool negated = n > 0 && name[0] == '^';
    DR_TRY(dr_buf_add(r->out, r->s + r->i, 3 + negated));
    if (r->s[r->i + 1] != 'x' && n - negated > 2)
        DR_TRY(dr_buf_adds(r->out, "sc:"));
    DR_TRY(dr_buf_add(r->out, name + negated, n - negated + 1));
    r->i = (size_t)(close + 1 - r->s);
done:
    return st;
}

static dr_status translate_escape(source *r, bool in_class)
{
    dr_status st = DR_OK;

    if (r->i + 1 >= r->n)
        return dr_fail(DR_EFORMAT, "%s: regular expression ends in a backslash", r->where);
    const char c = r->s[r->i + 1];
    const bool brace = r->i + 2 < r->n && r->s[r->i + 2] == '{';
    if ((c == 'p' || c == 'P' || c == 'x') && brace)
        return braced(r);
    if (c == 'x')
        return hex_escape(r, r->i + 2, 2);
    if (c == 'u')
        return hex_escape(r, r->i + 2, 4);
    for (size_t k = 0; k < DR_COUNT(escapes); k++) {
        const char *to = in_class ? escapes[k].inside : escapes[k].outside;
        if (escapes[k].letter != c)
            continue;
        if (to == NULL)
            return refuse(r, "an escape that cannot stand in a class");
        r->i += 2;
        return dr_buf_adds(r->out, to);
    }
    if (is_hex(c) || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'))
        return refuse(r, "an unknown escape");
    DR_TRY(dr_buf_add(r->out, r->s + r->i, 2)); /* a multi-byte character goes on after */
    r->i += 2;
done:
    return st;
}

static dr_status translate_class(source *r)
{
    dr_status st = DR_OK;
    size_t head = next_is(r, "[^") ? 2 : 1;

    DR_TRY(dr_buf_add(r->out, r->s + r->i, head));
    r->i += head;
    if (next_is(r, "]")) { /* first in a class it is a character */
        DR_TRY(dr_buf_adds(r->out, "\\]"));
        r->i++;
    }
    while (r->i < r->n && r->s[r->i] != ']') {
        if (r->s[r->i] == '[')
            DR_TRY(refuse(r, next_is(r, "[:") ? "a POSIX class" : "a class in a class"));
        if (next_is(r, "&&"))
            DR_TRY(refuse(r, "an intersection of classes"));
        if (r->s[r->i] == '\\')
            DR_TRY(translate_escape(r, true));
        else
            DR_TRY(dr_buf_add(r->out, r->s + r->i++, 1));
    }
    if (r->i == r->n)
        DR_FAIL(DR_EFORMAT, "%s: regular expression: a class without ]", r->where);
    DR_TRY(dr_buf_add(r->out, r->s + r->i++, 1));
done:
    return st;
}

/* At "(?" and one of the flags: (?i: or, at the start of the pattern only, (?i). */
static dr_status translate_flags(source *r)
{
    size_t end = r->i + 2;
    dr_status st = DR_OK;

    while (end < r->n && strchr("imx-", r->s[end]) != NULL && r->s[end] != '\0')
        end++;
    if (end == r->n || (r->s[end] != ':' && r->s[end] != ')'))
        DR_TRY(refuse(r, "an unknown group"));
    if (r->s[end] == ')' && r->i > 0)
        DR_TRY(refuse(r, "flags in mid-pattern"));
    for (; r->i <= end; r->i++)
        DR_TRY(dr_buf_addf(r->out, "%c", r->s[r->i] == 'm' ? 's' : r->s[r->i]));
done:
    return st;
}

static dr_status translate_group(source *r)
{
    static const char *const same[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
    dr_status st = DR_OK;

    if (next_is(r, "(*"))
        return refuse(r, "a verb");
    if (!next_is(r, "(?"))
        return dr_buf_add(r->out, r->s + r->i++, 1);
    for (size_t k = 0; k < DR_COUNT(same); k++) {
        if (next_is(r, same[k])) {
            DR_TRY(dr_buf_adds(r->out, same[k]));
            r->i += strlen(same[k]);
            goto done;
        }
    }
    DR_TRY(translate_flags(r));
done:
    return st;
}

/* {n}, {n,}, {n,m}, {,m}; any other brace is a character. */
static dr_status translate_brace(source *r)
{
    size_t digits = r->i + 1, comma = 0, end = 0;
    dr_status st = DR_OK;

    for (comma = digits; comma < r->n && r->s[comma] >= '0' && r->s[comma] <= '9';)
        comma++;
    for (end = comma + (comma < r->n && r->s[comma] == ','); end < r->n;) {
        if (r->s[end] < '0' || r->s[end] > '9')
            break;
        end++;
    }
    if (end >= r->n || r->s[end] != '}' || end == digits ||
        end == digits + (comma == digits)) {
        r->i++;
        return dr_buf_adds(r->out, "\\{");
    }
    if (end + 1 < r->n && r->s[end + 1] == '+')
        DR_TRY(refuse(r, "a possessive interval"));
    DR_TRY(dr_buf_adds(r->out, comma == digits ? "{0" : "{"));
    DR_TRY(dr_buf_add(r->out, r->s + digits, end + 1 - digits));
    r->i = end + 1;
done:
    return st;
}

dr_status tok_regex_translate(dr_buf *out, const char *regex, size_t n, const char *where)
{
    source r = {.s = regex, .n = n, .where = where, .out = out};
    dr_status st = DR_OK;

    while (r.i < n) {
        switch (regex[r.i]) {
        case '\\':
            DR_TRY(translate_escape(&r, false));
            break;
        case '[':
            DR_TRY(translate_class(&r));
            break;
        case '(':
            DR_TRY(translate_group(&r));
            break;
        case '{':
            DR_TRY(translate_brace(&r));
            break;
        default:
            DR_TRY(dr_buf_add(out, regex + r.i++, 1));
        }
    }
done:
    return st;
}
