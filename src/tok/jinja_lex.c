/*
 * jinja_lex.c - a template's source as tokens, white space controlled as Jinja does it.
 *
 *   {%- {{- {#-   take white space before them away
 *   {%  {#        take blanks away that are all the line has before them (lstrip_blocks)
 *   -%} -}} -#}   take white space after them away
 *   %} #}         take one newline after them away (trim_blocks)
 *   + instead of - switches both off.
 * Newlines are \n whatever they were, and one at the end of the source does not count.
 * Unknown names of blocks are the parser's matter.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "tok/jinja_impl.h"
#include "tok/tok_impl.h"

enum { NESTING_MAX = 256 };

typedef struct {
    jinja *j;
    jinja_tokens *out;
    const char *s; /* arena */
    size_t n, i;
    int line;
    bool line_starting; /* the last tag took a newline along, or nothing came yet */
} lexer;

static dr_status add(lexer *x, jinja_token_kind kind, const char *s, size_t n)
{
    jinja_tokens *t = x->out;
    dr_status st = DR_OK;

    if (t->count == t->cap) {
        jinja_token *v = NULL;
        size_t cap = t->cap ? t->cap * 2 : 64;
        DR_TRY(jinja_alloc(x->j, &v, cap, sizeof(*v)));
        if (t->count > 0)
            memcpy(v, t->v, t->count * sizeof(*v));
        t->v = v;
        t->cap = cap;
    }
    t->v[t->count++] = (jinja_token){.kind = kind, .line = x->line, .text = {s, n}};
done:
    return st;
}

static void advance(lexer *x, size_t to)
{
    for (; x->i < to; x->i++)
        x->line += x->s[x->i] == '\n';
}

static bool here(const lexer *x, const char *text)
{
    size_t n = strlen(text);

    return x->n - x->i >= n && memcmp(x->s + x->i, text, n) == 0;
}

/* The end of white space from i on, and its start before i. */
static size_t after_space(const char *s, size_t n, size_t i)
{
    uint32_t cp = 0;

    while (i < n) {
        size_t step = tok_utf8_get(s + i, n - i, &cp);
        if (!jinja_space(cp))
            break;
        i += step;
    }
    return i;
}

static size_t before_space(const char *s, size_t from, size_t i)
{
    uint32_t cp = 0;

    while (i > from) {
        size_t step = tok_utf8_last(s + from, i - from, &cp);
        if (!jinja_space(cp))
            break;
        i -= step;
    }
    return i;
}

/* Text up to a tag, less what the tag takes away. */
static dr_status add_data(lexer *x, size_t from, size_t tag, bool print)
{
    const char sign = tag + 2 < x->n ? x->s[tag + 2] : '\0';
    size_t end = tag;
    dr_status st = DR_OK;

    if (sign == '-') {
        end = before_space(x->s, from, tag);
    } else if (sign != '+' && !print && tag < x->n) {
        const char *newline = tag > from ? memrchr(x->s + from, '\n', tag - from) : NULL;
        size_t start = newline != NULL ? (size_t)(newline - x->s) + 1 : from;
        if ((newline != NULL || x->line_starting) &&
            before_space(x->s, start, tag) == start)
            end = start;
    }
    if (end > from)
        DR_TRY(add(x, JINJA_DATA, x->s + from, end - from));
    advance(x, tag);
done:
    return st;
}

/* At the end of a tag, "-%}" and the like: past it and past what it takes along. */
static bool tag_end(lexer *x, const char *close, bool trims)
{
    const bool minus = x->i < x->n && x->s[x->i] == '-';
    const bool plus = trims && x->i < x->n && x->s[x->i] == '+';
    size_t i = x->i + (minus || plus);

    if (x->n < i + 2 || memcmp(x->s + i, close, 2) != 0)
        return false;
    i += 2;
    if (minus)
        i = after_space(x->s, x->n, i);
    else if (!plus && trims && i < x->n && x->s[i] == '\n')
        i++;
    advance(x, i);
    x->line_starting = x->s[i - 1] == '\n';
    return true;
}

static dr_status skip_comment(lexer *x)
{
    const char *end = memmem(x->s + x->i, x->n - x->i, "#}", 2);

    if (end == NULL)
        return dr_fail(DR_EFORMAT, "chat template line %d: a comment without end", x->line);
    size_t at = (size_t)(end - x->s);
    if (at > x->i && (x->s[at - 1] == '-' || x->s[at - 1] == '+'))
        at--;
    advance(x, at);
    (void)tag_end(x, "#}", true);
    return DR_OK;
}

/* ---- inside tags ---- */

static bool is_name(char c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (!first && c >= '0' && c <= '9');
}

static int digit(char c, int base)
{
    int v = c >= '0' && c <= '9'   ? c - '0'
            : c >= 'a' && c <= 'f' ? c - 'a' + 10
            : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                   : 99;
    return v < base ? v : -1;
}

/* \xHH, \uHHHH, \UHHHHHHHH, \o, \oo, \ooo after the backslash at *i. */
static bool code_escape(const char *s, size_t n, size_t *i, uint32_t *cp)
{
    const char c = s[*i];
    const bool octal = digit(c, 8) >= 0;
    const size_t most = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : octal ? 3 : 0;
    size_t at = *i + (octal ? 0 : 1), k = 0;

    *cp = 0;
    for (; k < most && at + k < n && digit(s[at + k], octal ? 8 : 16) >= 0; k++)
        *cp = *cp * (octal ? 8 : 16) + (uint32_t)digit(s[at + k], octal ? 8 : 16);
    if (most == 0 || (!octal && k < most))
        return false;
    if (*cp > 0x10FFFF || (*cp >= 0xD800 && *cp < 0xE000))
        *cp = 0xFFFD;
    *i = at + k;
    return true;
}

/* Python's escapes; an unknown one stays, with its backslash. */
static dr_status unescape(lexer *x, jinja_text *out, const char *s, size_t n)
{
    static const char from[] = "nrtabfv\\'\"", to[] = "\n\r\t\a\b\f\v\\'\"";
    char *p = NULL;
    size_t k = 0;
    uint32_t cp = 0;
    dr_status st = DR_OK;

    DR_TRY(jinja_alloc(x->j, &p, n + 1, 1)); /* no escape is shorter than its character */
    for (size_t i = 0; i < n;) {
        if (s[i] != '\\' || i + 1 == n) {
            p[k++] = s[i++];
            continue;
        }
        i++;
        const char *hit = strchr(from, s[i]);
        if (hit != NULL && s[i] != '\0') {
            p[k++] = to[hit - from];
            i++;
        } else if (s[i] == '\n') {
            i++;
        } else if (code_escape(s, n, &i, &cp)) {
            k += tok_utf8_put(p + k, cp);
        } else {
            p[k++] = '\\';
        }
    }
    *out = (jinja_text){p, k};
done:
    return st;
}

static dr_status lex_string(lexer *x)
{
    const char quote = x->s[x->i];
    size_t end = x->i + 1;
    jinja_text text = {0};
    dr_status st = DR_OK;

    while (end < x->n && x->s[end] != quote)
        end += x->s[end] == '\\' && end + 1 < x->n ? 2 : 1;
    if (end >= x->n)
        DR_FAIL(DR_EFORMAT, "chat template line %d: a string without end", x->line);
    DR_TRY(unescape(x, &text, x->s + x->i + 1, end - x->i - 1));
    DR_TRY(add(x, JINJA_LITERAL, x->s + x->i, end + 1 - x->i));
    x->out->v[x->out->count - 1].value = jinja_string(text);
    advance(x, end + 1);
done:
    return st;
}

/* Decimal integers and floats; digits may be grouped by underscores. */
static dr_status lex_number(lexer *x)
{
    char digits[64];
    size_t end = x->i, k = 0;
    bool real = false;
    char *stop = NULL;
    dr_status st = DR_OK;

    for (; end < x->n; end++) {
        const char c = x->s[end];
        const char next = end + 1 < x->n ? x->s[end + 1] : '\0';
        const bool exponent =
            (c == 'e' || c == 'E') && (digit(next, 10) >= 0 || next == '-' || next == '+');
        if (!(digit(c, 10) >= 0 || c == '_' ||
              (c == '.' && !real && digit(next, 10) >= 0) || exponent))
            break;
        real = real || c == '.' || exponent;
        if (k + 2 >= sizeof(digits))
            DR_FAIL(DR_EFORMAT, "chat template line %d: a number of %zu digits", x->line,
                    k);
        if (c != '_')
            digits[k++] = c;
        if (exponent && (next == '-' || next == '+'))
            digits[k++] = x->s[++end];
    }
    digits[k] = '\0';
    DR_TRY(add(x, JINJA_LITERAL, x->s + x->i, end - x->i));
    jinja_value *v = &x->out->v[x->out->count - 1].value;
    if (real) {
        *v = jinja_real(strtod(digits, &stop));
    } else {
        if (k > 18)
            DR_FAIL(DR_EUNSUPPORTED, "chat template line %d: the integer %s", x->line,
                    digits);
        *v = jinja_int(strtoll(digits, &stop, 10));
    }
    advance(x, end);
done:
    return st;
}

static dr_status lex_operator(lexer *x, char *stack, size_t *depth)
{
    static const char *const twos[] = {"==", "!=", "<=", ">=", "//", "**"};
    static const char ones[] = "+-*/%~|.,:=<>()[]{}";
    const char c = x->s[x->i];
    size_t n = 1;

    for (size_t k = 0; k < DR_COUNT(twos); k++)
        if (here(x, twos[k]))
            n = 2;
    if (n == 1 && (c == '\0' || strchr(ones, c) == NULL))
        return dr_fail(DR_EFORMAT, "chat template line %d: unexpected \"%c\"", x->line, c);
    if (n == 1 && strchr("([{", c) != NULL) {
        if (*depth == NESTING_MAX)
            return dr_fail(DR_EFORMAT, "chat template line %d: brackets nest too deep",
                           x->line);
        stack[(*depth)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (n == 1 && strchr(")]}", c) != NULL) {
        if (*depth == 0 || stack[--*depth] != c)
            return dr_fail(DR_EFORMAT, "chat template line %d: unexpected \"%c\"", x->line,
                           c);
    }
    const size_t at = x->i;
    advance(x, at + n);
    return add(x, JINJA_OPERATOR, x->s + at, n);
}

/* From behind the opening of a tag to behind its end. */
static dr_status lex_tag(lexer *x, bool print)
{
    char stack[NESTING_MAX];
    size_t depth = 0, end = 0;
    dr_status st = DR_OK;

    for (;;) {
        advance(x, after_space(x->s, x->n, x->i));
        if (x->i >= x->n)
            DR_FAIL(DR_EFORMAT, "chat template line %d: a tag without end", x->line);
        const char c = x->s[x->i];
        if (depth == 0 && tag_end(x, print ? "}}" : "%}", !print))
            break;
        if (is_name(c, true)) {
            for (end = x->i; end < x->n && is_name(x->s[end], false);)
                end++;
            DR_TRY(add(x, JINJA_NAME, x->s + x->i, end - x->i));
            advance(x, end);
        } else if (digit(c, 10) >= 0) {
            DR_TRY(lex_number(x));
        } else if (c == '"' || c == '\'') {
            DR_TRY(lex_string(x));
        } else {
            DR_TRY(lex_operator(x, stack, &depth));
        }
    }
    DR_TRY(add(x, print ? JINJA_PRINT_END : JINJA_BLOCK_END, x->s + x->i, 0));
done:
    return st;
}

/* ---- raw blocks and the whole ---- */

/* At "{%": whether this is {% word %}; *inside is then the place behind the word. */
static bool block_named(const lexer *x, size_t at, const char *word, size_t *inside)
{
    const size_t n = strlen(word);
    size_t i = at + 2;

    if (x->n - at < 2 || memcmp(x->s + at, "{%", 2) != 0)
        return false;
    i += i < x->n && (x->s[i] == '-' || x->s[i] == '+');
    i = after_space(x->s, x->n, i);
    if (x->n - i < n || memcmp(x->s + i, word, n) != 0)
        return false;
    *inside = after_space(x->s, x->n, i + n);
    return *inside < x->n && !is_name(x->s[*inside], false);
}

static dr_status lex_raw(lexer *x, size_t inside)
{
    size_t at = 0, end = 0;
    dr_status st = DR_OK;

    advance(x, inside);
    if (!tag_end(x, "%}", false))
        DR_FAIL(DR_EFORMAT, "chat template line %d: a raw block that does not open",
                x->line);
    for (at = x->i; at < x->n && !block_named(x, at, "endraw", &end);)
        at++;
    if (at == x->n)
        DR_FAIL(DR_EFORMAT, "chat template line %d: a raw block without end", x->line);
    DR_TRY(add_data(x, x->i, at, false));
    advance(x, end);
    if (!tag_end(x, "%}", true))
        DR_FAIL(DR_EFORMAT, "chat template line %d: a raw block that does not end",
                x->line);
done:
    return st;
}

/* The next "{{", "{%" or "{#" from i on, or the end. */
static size_t next_tag(const lexer *x)
{
    size_t i = x->i;

    while (i + 1 < x->n) {
        const char *p = memchr(x->s + i, '{', x->n - i - 1);
        if (p == NULL)
            return x->n;
        i = (size_t)(p - x->s);
        if (p[1] == '{' || p[1] == '%' || p[1] == '#')
            return i;
        i++;
    }
    return x->n;
}

/* \r\n and \r are \n; the newline at the end goes. */
static dr_status clean_source(lexer *x, const char *source, size_t n)
{
    char *p = NULL;
    dr_status st = DR_OK;

    DR_TRY(jinja_alloc(x->j, &p, n + 1, 1));
    for (size_t i = 0; i < n; i++) {
        if (source[i] == '\r' && i + 1 < n && source[i + 1] == '\n')
            continue;
        p[x->n++] = source[i] == '\r' ? '\n' : source[i];
    }
    if (x->n > 0 && p[x->n - 1] == '\n')
        x->n--;
    x->s = p;
done:
    return st;
}

dr_status jinja_lex(jinja *j, jinja_tokens *out, const char *source, size_t n)
{
    lexer x = {.j = j, .out = out, .line = 1, .line_starting = true};
    size_t inside = 0;
    dr_status st = DR_OK;

    DR_TRY(clean_source(&x, source, n));
    while (x.i < x.n) {
        const size_t tag = next_tag(&x);
        const char kind = tag < x.n ? x.s[tag + 1] : '\0';
        DR_TRY(add_data(&x, x.i, tag, kind == '{'));
        if (tag == x.n)
            break;
        if (kind == '%' && block_named(&x, tag, "raw", &inside)) {
            DR_TRY(lex_raw(&x, inside));
            continue;
        }
        const bool sign = tag + 2 < x.n && (x.s[tag + 2] == '-' || x.s[tag + 2] == '+');
        advance(&x, tag + 2 + sign);
        if (kind == '#') {
            DR_TRY(skip_comment(&x));
            continue;
        }
        DR_TRY(add(&x, kind == '{' ? JINJA_PRINT_BEGIN : JINJA_BLOCK_BEGIN, x.s + tag, 2));
        DR_TRY(lex_tag(&x, kind == '{'));
    }
    DR_TRY(add(&x, JINJA_END, x.s + x.n, 0));
done:
    return st;
}
