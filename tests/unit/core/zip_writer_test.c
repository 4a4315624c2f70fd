/*
 * zip_writer_test.c - archives byte by byte as Python's zipfile writes them
 * (tools/oracle/zip_hashes.py).
 */
#include "check.h"
#include "core/file.h"
#include "core/hash.h"
#include "core/zip_writer.h"

static dr_arena arena;

static void hash_is(const char *path, const char *want)
{
    char hex[DR_SHA256_HEX] = "";

    if (CHECK_OK(dr_sha256_file(hex, path)))
        CHECK_STR(hex, want);
}

/* Parts that follow each other, text, a file; a name that is not ASCII. */
static void test_few(void)
{
    const char *tmp = check_tmp(), *path = dr_path_join(&arena, tmp, "few.zip");
    const char *dir = dr_path_join(&arena, tmp, "tree");
    unsigned char bytes[256 * 3];
    dr_zip *z = NULL;

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)i;
    const dr_zip_part parts[] = {
        {bytes, 1}, {bytes + 1, 0}, {bytes + 1, sizeof(bytes) - 1}};
    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(dr_write_file(dr_path_join(&arena, dir, "b.txt"), "hello", 5));
    if (!CHECK_OK(dr_zip_open(&z, path)))
        return;
    CHECK_OK(dr_zip_add_tree(z, "a", dir));
    CHECK_OK(dr_zip_add_text(z, "empty", ""));
    CHECK_OK(dr_zip_add(z, "größe", parts, DR_COUNT(parts)));
    CHECK_OK(dr_zip_finish(z));
    dr_zip_close(z);
    hash_is(path, "7b23774c1eae0522f03041aa1666e1aa6f9a29392f99181df331f2bbb0ae4ba9");
}

/* More than an end without zip64 can count. */
static void test_many(void)
{
    const char *path = dr_path_join(&arena, check_tmp(), "many.zip");
    char name[16];
    dr_zip *z = NULL;

    if (!CHECK_OK(dr_zip_open(&z, path)))
        return;
    for (int i = 0; i < 70000; i++) {
        (void)snprintf(name, sizeof(name), "n/%d", i);
        if (dr_zip_add_text(z, name, "") != DR_OK)
            CHECK(false);
    }
    CHECK_OK(dr_zip_finish(z));
    dr_zip_close(z);
    hash_is(path, "7327e723a5c9037f08a4b47b9dbe00e9ede710df31115ac737c42dc5cd6adc7f");
}

static void test_errors(void)
{
    const char *tmp = check_tmp();
    dr_zip *z = NULL;

    if (CHECK_OK(dr_zip_open(&z, dr_path_join(&arena, tmp, "twice.zip")))) {
        CHECK_STATUS(dr_zip_add_text(z, "", "x"), DR_EUSAGE);
        CHECK_STATUS(dr_zip_add_file(z, "x", dr_path_join(&arena, tmp, "none")), DR_EIO);
        CHECK_OK(dr_zip_add_text(z, "x", "1"));
        CHECK_OK(dr_zip_add_text(z, "y", "2"));
        CHECK_OK(dr_zip_add_text(z, "x", "3"));
        CHECK_STATUS(dr_zip_finish(z), DR_EUSAGE);
        CHECK_TRAIL("two entries are called x");
    }
    dr_zip_close(z);
    CHECK_STATUS(dr_zip_open(&z, dr_path_join(&arena, tmp, "no/folder.zip")), DR_EIO);
    CHECK(z == NULL);
}

int main(void)
{
    test_few();
    test_many();
    test_errors();
    dr_arena_release(&arena);
    return check_done();
}
