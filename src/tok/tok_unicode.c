/*
 * tok_unicode.c - classes of characters, as the Rust code that tokenizers runs knows them.
 *
 * White_Space, \w (Alphabetic, M, Nd, Pc, Join_Control) and N* are of today's Unicode and
 * come from utf8proc.  Two of its crates have tables of Unicode 8 and 9: punctuation, marks
 * and control characters, and normal forms.  What changed since then, up to Unicode 15, is
 * listed here; it was found by asking tokenizers 0.23 about every code point, as
 * tools/oracle/tok_unicode.py does.
 */
#include <utf8proc.h>

#include "tok/tok_impl.h"

typedef struct {
    uint32_t first, last;
} range;

/* Marks with a combining class and characters with a decomposition or composition that
 * Unicode 9 had not: to the normal forms of tokenizers they are plain characters.  And
 * U+11A7, which is plain, but which utf8proc drops behind a Hangul syllable. */
static const range newer_forms[] = {
    /* clang-format off */
    {0x7FD, 0x7FD}, {0x898, 0x89F}, {0x8CA, 0x8D3}, {0x9FE, 0x9FE}, {0xC3C, 0xC3C},
    {0xD3B, 0xD3C}, {0xEBA, 0xEBA}, {0x11A7, 0x11A7}, {0x1715, 0x1715}, {0x1ABF, 0x1ACE},
    {0x1DF6, 0x1DFA}, {0x32FF, 0x32FF}, {0xA7F2, 0xA7F4}, {0xA82C, 0xA82C},
    {0xAB69, 0xAB69},
    {0x10781, 0x10785}, {0x10787, 0x107B0}, {0x107B2, 0x107BA}, {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
    {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99},
    {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42},
    {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE},
    {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9},
    /* clang-format on */
};

/* Punctuation since Unicode 8. */
static const range newer_punct[] = {
    /* clang-format off */
    {0x61D, 0x61D}, {0x9FD, 0x9FD}, {0xA76, 0xA76}, {0xC77, 0xC77}, {0xC84, 0xC84},
    {0x1B7D, 0x1B7E}, {0x2E43, 0x2E4F}, {0x2E52, 0x2E5D}, {0x10EAD, 0x10EAD},
    {0x10F55, 0x10F59}, {0x10F86, 0x10F89}, {0x1144B, 0x1144F}, {0x1145A, 0x1145B},
    {0x1145D, 0x1145D}, {0x11660, 0x1166C}, {0x116B9, 0x116B9}, {0x1183B, 0x1183B},
    {0x11944, 0x11946}, {0x119E2, 0x119E2}, {0x11A3F, 0x11A46}, {0x11A9A, 0x11A9C},
    {0x11A9E, 0x11AA2}, {0x11B00, 0x11B09}, {0x11C41, 0x11C45}, {0x11C70, 0x11C71},
    {0x11EF7, 0x11EF8}, {0x11F43, 0x11F4F}, {0x11FFF, 0x11FFF}, {0x12FF1, 0x12FF2},
    {0x16E97, 0x16E9A}, {0x16FE2, 0x16FE2}, {0x1E95E, 0x1E95F},
    /* clang-format on */
};

/* Marks of general category Mn since Unicode 8; between the ends of a range there is no
 * older one. */
static const range newer_nonspacing[] = {
    /* clang-format off */
    {0x7FD, 0x7FD}, {0x898, 0x8E1}, {0x9FE, 0x9FE}, {0xAFA, 0xAFF}, {0xB55, 0xB55},
    {0xC04, 0xC3C}, {0xD00, 0xD00}, {0xD3B, 0xD3C}, {0xD81, 0xD81}, {0xEBA, 0xEBA},
    {0x180F, 0x1886}, {0x1ABF, 0x1ACE}, {0x1DF6, 0x1DFB}, {0xA82C, 0xA82C},
    {0xA8C5, 0xA8C5}, {0xA8FF, 0xA8FF}, {0xA9BD, 0xA9BD}, {0x10D24, 0x10F85},
    {0x11070, 0x11074}, {0x110C2, 0x110C2}, {0x111C9, 0x111C9}, {0x111CF, 0x111CF},
    {0x1123E, 0x1123E}, {0x1133B, 0x1133B}, {0x11438, 0x1145E}, {0x1182F, 0x11EF4},
    {0x16F4F, 0x16F4F}, {0x16FE4, 0x16FE4}, {0x1CF00, 0x1CF46}, {0x1E000, 0x1E2EF},
    {0x1E944, 0x1E94A},
    /* clang-format on */
};

/* The same for all marks since Unicode 9. */
static const range newer_marks[] = {
    /* clang-format off */
    {0x7FD, 0x7FD}, {0x898, 0x8D3}, {0x9FE, 0x9FE}, {0xAFA, 0xAFF}, {0xB55, 0xB55},
    {0xC04, 0xC3C}, {0xD00, 0xD00}, {0xD3B, 0xD3C}, {0xD81, 0xD81}, {0xEBA, 0xEBA},
    {0x1715, 0x1715}, {0x180F, 0x180F}, {0x1ABF, 0x1ACE}, {0x1CF7, 0x1CF7},
    {0x1DF6, 0x1DFA}, {0xA82C, 0xA82C}, {0xA8FF, 0xA8FF}, {0x10D24, 0x10F85},
    {0x11070, 0x11074}, {0x110C2, 0x110C2}, {0x11145, 0x11146}, {0x111C9, 0x111C9},
    {0x111CE, 0x111CF}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x1182C, 0x11A99},
    {0x11D31, 0x11EF6}, {0x16F4F, 0x16F4F}, {0x16F7F, 0x16F87}, {0x16FE4, 0x16FF1},
    {0x1CF00, 0x1CF46}, {0x1E130, 0x1E2EF},
    /* clang-format on */
};

/* Format characters since Unicode 8. */
static const range newer_controls[] = {{0x890, 0x8E2}, {0x110CD, 0x13438}};

static bool listed(const range *list, size_t count, uint32_t cp)
{
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = (low + high) / 2;
        if (cp > list[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && cp >= list[low].first;
}

/* A set of categories as bits, from one to another in utf8proc's order. */
static uint32_t categories(utf8proc_category_t first, utf8proc_category_t last)
{
    return (2u << last) - (1u << first);
}

static bool in_categories(uint32_t cp, uint32_t set)
{
    return (set >> utf8proc_category((utf8proc_int32_t)cp) & 1u) != 0;
}

bool tok_is_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || cp == ' ' || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F ||
           cp == 0x205F || cp == 0x3000;
}

/* Alphabetic beyond L, M and Nl: circled and squared Latin letters. */
static bool is_letter_like(uint32_t cp)
{
    return (cp >= 0x24B6 && cp <= 0x24E9) || (cp >= 0x1F130 && cp <= 0x1F149) ||
           (cp >= 0x1F150 && cp <= 0x1F169) || (cp >= 0x1F170 && cp <= 0x1F189);
}

bool tok_is_word(uint32_t cp)
{
    const uint32_t set = categories(UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_NL) |
                         categories(UTF8PROC_CATEGORY_PC, UTF8PROC_CATEGORY_PC);

    return in_categories(cp, set) || is_letter_like(cp) || cp == 0x200C || cp == 0x200D;
}

bool tok_is_numeric(uint32_t cp)
{
    return in_categories(cp, categories(UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NO));
}

/* U+166D and U+111C9 were punctuation then. */
bool tok_is_punct(uint32_t cp)
{
    if (cp < 0x80)
        return (cp >= '!' && cp <= '/') || (cp >= ':' && cp <= '@') ||
               (cp >= '[' && cp <= '`') || (cp >= '{' && cp <= '~');
    if (cp == 0x166D || cp == 0x111C9)
        return true;
    return in_categories(cp, categories(UTF8PROC_CATEGORY_PC, UTF8PROC_CATEGORY_PO)) &&
           !listed(newer_punct, DR_COUNT(newer_punct), cp);
}

/* U+1734 was a nonspacing mark then. */
bool tok_is_nonspacing(uint32_t cp)
{
    if (cp == 0x1734)
        return true;
    return in_categories(cp, categories(UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_MN)) &&
           !listed(newer_nonspacing, DR_COUNT(newer_nonspacing), cp);
}

/* U+1CF2 and U+1CF3 were marks then. */
bool tok_is_mark(uint32_t cp)
{
    if (cp == 0x1CF2 || cp == 0x1CF3)
        return true;
    return in_categories(cp, categories(UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_ME)) &&
           !listed(newer_marks, DR_COUNT(newer_marks), cp);
}

bool tok_is_control(uint32_t cp)
{
    const uint32_t set = categories(UTF8PROC_CATEGORY_CC, UTF8PROC_CATEGORY_CF) |
                         categories(UTF8PROC_CATEGORY_CO, UTF8PROC_CATEGORY_CO);

    if (cp == '\t' || cp == '\n' || cp == '\r')
        return false;
    return in_categories(cp, set) && !listed(newer_controls, DR_COUNT(newer_controls), cp);
}

bool tok_is_newer_form(uint32_t cp)
{
    return cp >= newer_forms[0].first && listed(newer_forms, DR_COUNT(newer_forms), cp);
}
