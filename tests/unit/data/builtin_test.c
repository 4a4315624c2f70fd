/*
 * builtin_test.c - the text in the program: enough of it, in many kinds, two halves.
 */
#include "check.h"

#include "data/data.h"

static size_t bytes_of(const data_texts *t)
{
    size_t n = 0;

    for (size_t i = 0; i < t->count; i++)
        n += t->text_bytes[i];
    return n;
}

static bool holds(const data_texts *t, const char *text)
{
    for (size_t i = 0; i < t->count; i++)
        if (strstr(t->texts[i], text) != NULL)
            return true;
    return false;
}

int main(void)
{
    /* Letters of the eight languages besides English; each half has every one. */
    static const char *const letters[] = {"\xc3\x9f" /* de */,     "\xc3\xa8" /* fr */,
                                          "\xc3\xb1" /* es */,     "\xc3\xa3" /* pt */,
                                          "\xe7\x9a\x84" /* zh */, "\xe3\x81\xae" /* ja */,
                                          "\xd1\x8b" /* ru */,     "\xd8\xa7" /* ar */};
    dr_arena a = {0};
    data_texts half[2];

    for (int i = 0; i < 2; i++) {
        CHECK_OK(data_load(&a, &half[i], &(data_options){.held_out = i == 1}, NULL));
        CHECK(half[i].count >= 16);
        CHECK(bytes_of(&half[i]) >= 55 * 1024);
        CHECK_EQ_INT(half[i].column_count, 1);
        for (size_t j = 0; j < DR_COUNT(letters); j++)
            CHECK(holds(&half[i], letters[j]));
        CHECK(holds(&half[i], "#include") || holds(&half[i], "import "));
        CHECK(holds(&half[i], "SELECT"));
        CHECK(holds(&half[i], "| --") || holds(&half[i], "|--"));
    }
    CHECK(bytes_of(&half[0]) + bytes_of(&half[1]) >= 120 * 1024);
    CHECK_EQ_INT(half[0].count, half[1].count);
    for (size_t i = 0; i < half[0].count; i++)
        for (size_t j = 0; j < half[1].count; j++)
            CHECK(strcmp(half[0].texts[i], half[1].texts[j]) != 0);
    CHECK_STR(half[0].source, "built-in text");
    CHECK_STR(half[1].source, "built-in text (held out)");
    dr_arena_release(&a);
    return check_done();
}
