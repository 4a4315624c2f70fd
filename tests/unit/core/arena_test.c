/*
 * arena_test.c - alignment, zeroing, rewinding, and big blocks that fail as a status.
 */
#include "check.h"

#include "core/arena.h"

static bool all_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0)
            return false;
    return true;
}

static void test_sizes(void)
{
    static const size_t sizes[] = {0, 1, 63, 64, 65, 4096, 65535, 65536, 65537, 1000000};
    dr_arena a = {0};
    unsigned char *blocks[DR_COUNT(sizes)];

    for (size_t i = 0; i < DR_COUNT(sizes); i++) {
        blocks[i] = dr_arena_alloc(&a, sizes[i], 1);
        CHECK_EQ_INT((uintptr_t)blocks[i] % 64, 0);
        CHECK(all_zero(blocks[i], sizes[i]));
        memset(blocks[i], (int)i + 1, sizes[i]);
    }
    for (size_t i = 0; i < DR_COUNT(sizes); i++) /* none overlaps another */
        for (size_t j = 0; j < sizes[i]; j++)
            if (blocks[i][j] != i + 1) {
                CHECK(blocks[i][j] == i + 1);
                break;
            }
    dr_arena_release(&a);
    CHECK(a.head == NULL);
    CHECK(dr_arena_alloc(&a, 1, 1) != NULL); /* usable again */
    dr_arena_release(&a);
    dr_arena_release(&a);
}

static void test_rewind(void)
{
    dr_arena a = {0};

    dr_arena_mark empty = dr_arena_save(&a);
    char *keep = dr_arena_strdup(&a, "kept");
    dr_arena_mark mark = dr_arena_save(&a);
    char *first = dr_arena_alloc(&a, 100, 1);
    memset(first, 7, 100);
    for (int i = 0; i < 100; i++)
        (void)dr_arena_alloc(&a, 10000, 1);
    dr_arena_rewind(&a, mark);
    CHECK_STR(keep, "kept");
    char *again = dr_arena_alloc(&a, 100, 1);
    CHECK(again == first); /* the same place, zero again */
    CHECK(all_zero((unsigned char *)again, 100));
    dr_arena_rewind(&a, empty);
    CHECK(a.head == NULL);
    dr_arena_release(&a);
}

static void test_strings(void)
{
    dr_arena a = {0};

    CHECK_STR(dr_arena_strdup(&a, ""), "");
    CHECK_STR(dr_arena_strndup(&a, "abcdef", 3), "abc");
    CHECK_STR(dr_arena_printf(&a, "%s-%d", "layer", 12), "layer-12");
    CHECK_EQ_INT(strlen(dr_arena_printf(&a, "%100000d", 1)), 100000);
    dr_arena_release(&a);
}

static void test_big(void)
{
    dr_arena a = {0};
    void *p = NULL;

    CHECK_OK(dr_arena_big(&a, &p, 1000, 1000, "weights"));
    CHECK(p != NULL && all_zero(p, 1000000));
    CHECK_STATUS(dr_arena_big(&a, &p, SIZE_MAX / 2, 3, "weights"), DR_ENOMEM);
    CHECK(p == NULL);
    CHECK_TRAIL("weights");
    CHECK_STATUS(dr_arena_big(&a, &p, SIZE_MAX - 200, 1, "logits"), DR_ENOMEM);
    CHECK_TRAIL("logits");
    dr_arena_release(&a);
}

int main(void)
{
    test_sizes();
    test_rewind();
    test_strings();
    test_big();
    return check_done();
}
