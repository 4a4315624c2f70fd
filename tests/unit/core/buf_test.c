/*
 * buf_test.c - growing, the zero at the end, and the maximum.
 */
#include "check.h"

#include "core/buf.h"

static void test_grow(void)
{
    dr_buf b;

    dr_buf_init(&b, 1 << 20);
    CHECK_STR(b.data, "");
    for (int i = 0; i < 10000; i++)
        if (dr_buf_addf(&b, "%d,", i) != DR_OK)
            CHECK_EQ_INT(i, -1);
    CHECK_EQ_INT(b.len, 48890);
    CHECK_EQ_INT(strlen(b.data), b.len);
    CHECK(memcmp(b.data, "0,1,2,", 6) == 0);
    CHECK_STR(b.data + b.len - 5, "9999,");

    size_t cap = b.cap;
    dr_buf_reset(&b);
    CHECK_STR(b.data, "");
    CHECK_EQ_INT(b.cap, cap);
    CHECK_OK(dr_buf_add(&b, "a\0b", 3));
    CHECK_EQ_INT(b.len, 3);
    CHECK_MEM(b.data, "a\0b", 4);
    CHECK_OK(dr_buf_add(&b, NULL, 0));
    dr_buf_release(&b);
    CHECK_STR(b.data, "");
    CHECK_OK(dr_buf_adds(&b, "usable again"));
    dr_buf_release(&b);
    dr_buf_release(&b);
}

static void test_max(void)
{
    char *where = NULL;
    dr_buf b;

    dr_buf_init(&b, 8);
    CHECK_OK(dr_buf_adds(&b, "12345678"));
    CHECK_STATUS(dr_buf_adds(&b, "9"), DR_EFORMAT);
    CHECK_STATUS(dr_buf_addf(&b, "%d", 9), DR_EFORMAT);
    CHECK_STATUS(dr_buf_reserve(&b, SIZE_MAX, &where), DR_EFORMAT);
    CHECK_STR(b.data, "12345678"); /* what was there stays */
    CHECK_OK(dr_buf_adds(&b, ""));
    dr_buf_release(&b);
}

static void test_reserve(void)
{
    char *where = NULL;
    dr_buf b;

    dr_buf_init(&b, 100);
    CHECK_OK(dr_buf_adds(&b, "ab"));
    CHECK_OK(dr_buf_reserve(&b, 3, &where));
    memcpy(where, "cde", 3);
    b.len += 3;
    CHECK_STR(b.data, "abcde");
    dr_buf_release(&b);
}

int main(void)
{
    test_grow();
    test_max();
    test_reserve();
    return check_done();
}
