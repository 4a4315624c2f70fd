/*
 * status_test.c - the trail: messages, context, hints, and what happens when it is full.
 */
#include "check.h"

#include "core/status.h"

static dr_status inner(int x)
{
    dr_status st = DR_OK;

    if (x < 0)
        DR_FAIL(DR_EFORMAT, "expected a size, found %d", x);
done:
    return st;
}

static dr_status outer(int x)
{
    dr_status st = DR_OK;

    DR_TRYF(inner(x), "reading tensor %d of %d", 41, 272);
done:
    return st;
}

static void test_trail(void)
{
    CHECK_OK(outer(1));
    CHECK_STATUS(outer(-3), DR_EFORMAT);
    const dr_trail *t = dr_trail_get();
    CHECK_EQ_INT(t->status, DR_EFORMAT);
    CHECK_EQ_INT(t->count, 2);
    CHECK_STR(t->frames[0].text, "expected a size, found -3");
    CHECK_STR(t->frames[1].text, "reading tensor 41 of 272");
    CHECK(strstr(t->frames[0].file, "status_test.c") != NULL);
    CHECK(t->frames[0].line < t->frames[1].line);
}

static void test_hint(void)
{
    CHECK_STATUS(dr_fail(DR_EUSAGE, "wrong"), DR_EUSAGE);
    dr_hint("first");
    dr_hint("see %s", "the manual");
    CHECK_STR(dr_trail_get()->hint, "see the manual");
    CHECK_TRAIL("the manual");
    CHECK_STATUS(dr_fail(DR_EIO, "another"), DR_EIO); /* a new error has no old advice */
    CHECK_STR(dr_trail_get()->hint, "");
    CHECK_EQ_INT(dr_trail_get()->count, 1);
}

static void test_full(void)
{
    char longer[2 * DR_TRAIL_TEXT];

    CHECK_STATUS(dr_fail(DR_EIO, "the cause"), DR_EIO);
    for (int i = 0; i < 3 * DR_TRAIL_FRAMES; i++)
        dr_note_at(__FILE__, __LINE__, "context %d", i);
    CHECK_EQ_INT(dr_trail_get()->count, DR_TRAIL_FRAMES);
    CHECK_STR(dr_trail_get()->frames[0].text, "the cause");
    CHECK_STR(dr_trail_get()->frames[DR_TRAIL_FRAMES - 1].text, "context 14");

    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    CHECK_STATUS(dr_fail(DR_EIO, "%s", longer), DR_EIO);
    CHECK_EQ_INT(strlen(dr_trail_get()->frames[0].text), DR_TRAIL_TEXT - 1);
}

static void test_save(void)
{
    CHECK_STATUS(outer(-1), DR_EFORMAT);
    const dr_trail saved = *dr_trail_get();
    dr_trail_clear();
    CHECK_EQ_INT(dr_trail_get()->status, DR_OK);
    CHECK_EQ_INT(dr_trail_get()->count, 0);
    dr_trail_set(&saved);
    CHECK_EQ_INT(dr_trail_get()->count, 2);
    CHECK_TRAIL("found -1");
}

static void test_texts(void)
{
    CHECK_STR(dr_status_text(DR_OK), "no error");
    for (int i = 0; i < DR_STATUS_COUNT; i++)
        CHECK(dr_status_text((dr_status)i)[0] != '\0');
    CHECK_STR(dr_status_text((dr_status)DR_STATUS_COUNT), "unknown status");
}

int main(void)
{
    test_trail();
    test_hint();
    test_full();
    test_save();
    test_texts();
    return check_done();
}
