/*
 * split_test.c - slices of rows, as datasets.load_dataset(split=...) takes them.
 */
#include "check.h"

#include "core/file.h"
#include "data/row_impl.h"

static void rows(const char *split, size_t all, size_t from, size_t end)
{
    size_t a = 7, b = 7;

    CHECK_OK(data_split_rows(&a, &b, split, all));
    CHECK_EQ_INT(a, from);
    CHECK_EQ_INT(b, end);
}

static void refused(const char *split, const char *text)
{
    size_t a = 0, b = 0;

    dr_trail_clear();
    CHECK_STATUS(data_split_rows(&a, &b, split, 10), DR_EUSAGE);
    CHECK_TRAIL(text);
}

static void test_slices(void)
{
    rows(NULL, 10, 0, 10);
    rows("train", 10, 0, 10);
    rows("train[:]", 10, 0, 10);
    rows("train[2:5]", 10, 2, 5);
    rows("train[:-3]", 10, 0, 7);
    rows("train[-3:]", 10, 7, 10);
    rows("train[8:200]", 10, 8, 10);
    rows("train[-200:4]", 10, 0, 4);
    rows("train[5:2]", 10, 5, 5);
    rows("train[:90%]", 289, 0, 260); /* 260.1 */
    rows("train[90%:]", 289, 260, 289);
    rows("train[:50%]", 5, 0, 2);        /* 2.5: to even */
    rows("train[:50%]", 7, 0, 4);        /* 3.5 */
    rows("train[-10%:]", 289, 260, 289); /* 28.9: the last 29 */
    rows("train[33%:66%]", 100, 33, 66);
    rows("train[1:50%]", 8, 1, 4);
}

static void test_refused(void)
{
    refused("validation", "one split, train");
    refused("trained[:3]", "one split, train");
    refused("train[3]", "train[:90%]");
    refused("train[:101%]", "train[:90%]");
    refused("train[:3]+train[5:]", "train[:90%]");
    refused("train[:3%", "train[:90%]");
    refused("train[a:]", "train[:90%]");
    refused("train[:3.5]", "train[:90%]");
}

/* Rows count as they stand in the files, empty ones too. */
static void test_load(void)
{
    static const char text[] =
        "{\"p\": \"a\"}\n{\"p\": \"\"}\n{\"p\": \"b\"}\n{\"p\": \"c\"}\n";
    dr_arena a = {0};
    data_texts t = {0};
    data_options o = {.data_name = "json",
                      .data_files = dr_path_join(&a, check_tmp(), "x.jsonl"),
                      .text_field = "p",
                      .split = "train[1:3]"};

    CHECK_OK(dr_write_file(o.data_files, text, sizeof(text) - 1));
    CHECK_OK(data_load(&a, &t, &o, NULL));
    CHECK_EQ_INT(t.count, 1);
    CHECK_STR(t.texts[0], "b");
    CHECK_EQ_INT(t.empty_rows, 1);
    CHECK_EQ_INT(t.rows, 4);
    CHECK_EQ_INT(t.from_row, 1);
    CHECK_EQ_INT(t.end_row, 3);
    o.split = "train[1:2]";
    CHECK_STATUS(data_load(&a, &t, &o, NULL), DR_EFORMAT);
    CHECK_TRAIL("no text in train[1:2] of its 4 rows");
    dr_arena_release(&a);
}

int main(void)
{
    test_slices();
    test_refused();
    test_load();
    return check_done();
}
