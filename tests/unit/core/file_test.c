/*
 * file_test.c - mapping, reading, names, folders, writing and placing.
 */
#include "check.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "core/file.h"

static dr_arena arena;

static const char *at(const char *name)
{
    return dr_path_join(&arena, check_tmp(), name);
}

static void put(const char *name, const char *text)
{
    CHECK_OK(dr_write_file(at(name), text, strlen(text)));
}

/* The file's text, in arena memory; NULL when it cannot be read. */
static const char *text_of(const char *name)
{
    dr_buf b;
    const char *s = NULL;

    dr_buf_init(&b, 1 << 24);
    if (dr_read_file(&b, at(name)) == DR_OK)
        s = dr_arena_strndup(&arena, b.data, b.len);
    dr_buf_release(&b);
    return s;
}

static void test_map(void)
{
    dr_map m;

    put("three", "abc");
    CHECK_OK(dr_map_open(&m, at("three")));
    CHECK_EQ_INT(m.size, 3);
    CHECK_MEM(m.data, "abc", 3);
    dr_map_close(&m);
    dr_map_close(&m);
    put("empty", "");
    CHECK_OK(dr_map_open(&m, at("empty")));
    CHECK(m.data != NULL);
    CHECK_EQ_INT(m.size, 0);
    dr_map_close(&m);
    CHECK_STATUS(dr_map_open(&m, at("none")), DR_EIO);
    CHECK_TRAIL("none: cannot open: No such file");
    CHECK(m.data == NULL);
    dr_map_close(&m);
    CHECK_STATUS(dr_map_open(&m, check_tmp()), DR_EIO);
    CHECK_TRAIL("is a folder");
    CHECK_STATUS(dr_map_open(&m, "/dev/null"), DR_EIO);
    CHECK_TRAIL("is a device");
}

static void test_read(void)
{
    dr_buf b;
    char *big = malloc(200001);

    memset(big, 'x', 200000);
    big[200000] = '\0';
    put("big", big);
    dr_buf_init(&b, 200003);
    CHECK_OK(dr_buf_adds(&b, "abc"));
    CHECK_OK(dr_read_file(&b, at("big"))); /* behind what is there, up to the maximum */
    CHECK_EQ_INT(b.len, 200003);
    CHECK_EQ_INT(strlen(b.data), 200003);
    CHECK_MEM(b.data + 3, big, 200000);
    dr_buf_release(&b);
    dr_buf_init(&b, 199999);
    CHECK_STATUS(dr_read_file(&b, at("big")), DR_EFORMAT);
    CHECK_TRAIL("big: more than 199999 bytes");
    dr_buf_release(&b);
    CHECK_STATUS(dr_read_file(&b, at("none")), DR_EIO);
    CHECK_STATUS(dr_read_file(&b, check_tmp()), DR_EIO);
    dr_buf_release(&b);
    free(big);
}

static void test_names(void)
{
    uint64_t bytes = 0;

    CHECK_STR(dr_path_join(&arena, "a", "b"), "a/b");
    CHECK_STR(dr_path_join(&arena, "a/", "b"), "a/b");
    CHECK_STR(dr_path_join(&arena, "", "b"), "b");
    CHECK_STR(dr_path_join(&arena, "a", "/b"), "/b");
    CHECK_STR(dr_path_join(&arena, "/", "b"), "/b");
    CHECK_STR(dr_path_base("a/b/c.txt"), "c.txt");
    CHECK_STR(dr_path_base("c.txt"), "c.txt");
    put("five", "12345");
    CHECK(dr_exists(at("five")) && dr_is_file(at("five")) && !dr_is_dir(at("five")));
    CHECK(dr_is_dir(check_tmp()) && !dr_is_file(check_tmp()) && !dr_exists(at("none")));
    CHECK_OK(dr_file_size(&bytes, at("five")));
    CHECK_EQ_INT(bytes, 5);
    CHECK_STATUS(dr_file_size(&bytes, at("none")), DR_EIO);
    CHECK(dr_disk_free(at("none/of/these/")) > 0);
    CHECK(dr_disk_free("no-such-folder/x") > 0);
    CHECK(dr_disk_free("") > 0);
}

static void test_folders(void)
{
    char **names = NULL;
    size_t n = 0;

    CHECK_OK(dr_make_dirs(at("d/e//f/")));
    CHECK(dr_is_dir(at("d/e/f")));
    CHECK_OK(dr_make_dirs(at("d/e/f")));
    put("d/B", "1");
    put("d/a", "2");
    put("d/.hidden", "3");
    CHECK_OK(dr_list_dir(&arena, at("d"), &names, &n));
    CHECK_EQ_INT(n, 4);
    CHECK(n == 4 && strcmp(names[0], ".hidden") == 0 && strcmp(names[1], "B") == 0);
    CHECK(n == 4 && strcmp(names[2], "a") == 0 && strcmp(names[3], "e") == 0);
    CHECK_OK(dr_list_dir(&arena, at("d/e/f"), &names, &n));
    CHECK(n == 0 && names != NULL);
    CHECK_STATUS(dr_list_dir(&arena, at("none"), &names, &n), DR_EIO);
    CHECK_STATUS(dr_make_dirs(at("d/a/b")), DR_EIO); /* a is a file */
    CHECK_TRAIL("d/a: cannot make the folder");

    /* A link in a tree goes, what it names stays. */
    put("outside", "stays");
    CHECK_OK(dr_make_dirs(at("outdir")));
    put("outdir/x", "stays too");
    CHECK(symlink(at("outside"), at("d/link")) == 0);
    CHECK(symlink(at("outdir"), at("d/e/dirlink")) == 0);
    CHECK_OK(dr_remove_tree(at("d/")));
    CHECK(!dr_exists(at("d")));
    CHECK_STR(text_of("outside"), "stays");
    CHECK_STR(text_of("outdir/x"), "stays too");
    CHECK_OK(dr_remove_tree(at("d")));
    CHECK_OK(dr_remove_tree(at("outside")));
    CHECK(!dr_exists(at("outside")));
}

static void test_replace(void)
{
    struct stat sb;

    CHECK_OK(dr_make_dirs(at("r")));
    put("r/f", "old");
    put("r/tmp", "new");
    CHECK(link(at("r/f"), at("r/same")) == 0);
    CHECK(symlink("f", at("r/link")) == 0);
    CHECK_OK(dr_replace_file(at("r/link"), at("r/tmp")));
    CHECK_STR(text_of("r/f"), "new");
    CHECK_STR(text_of("r/same"), "old");
    CHECK(lstat(at("r/link"), &sb) == 0 && S_ISLNK(sb.st_mode));
    CHECK(!dr_exists(at("r/tmp")));
    put("r/tmp", "first");
    CHECK_OK(dr_replace_file(at("r/g"), at("r/tmp")));
    CHECK_STR(text_of("r/g"), "first");
    CHECK_STATUS(dr_replace_file(at("r/g"), at("r/none")), DR_EIO);
    CHECK_TRAIL("r/none");
}

static void test_write(void)
{
    struct stat sb;
    char **names = NULL;
    size_t n = 0;

    CHECK_OK(dr_make_dirs(at("w")));
    put("w/f", "old");
    CHECK(chmod(at("w/f"), 0640) == 0);
    CHECK(link(at("w/f"), at("w/same")) == 0);
    CHECK(symlink("f", at("w/link")) == 0);
    put("w/link", "new");
    CHECK_STR(text_of("w/f"), "new");
    CHECK_STR(text_of("w/same"), "old"); /* replaced, not overwritten */
    CHECK(lstat(at("w/link"), &sb) == 0 && S_ISLNK(sb.st_mode));
    CHECK(stat(at("w/f"), &sb) == 0 && (sb.st_mode & 0777) == 0640);
    CHECK_STATUS(dr_write_file(at("none/f"), "x", 1), DR_EIO);
    CHECK_TRAIL("none/f: cannot create");
    CHECK_STATUS(dr_write_file(at("w"), "x", 1), DR_EIO);
    CHECK_TRAIL("is a folder");
    CHECK_OK(dr_write_file("/dev/null", "x", 1));
    CHECK(stat("/dev/null", &sb) == 0 && S_ISCHR(sb.st_mode));
    CHECK_OK(dr_list_dir(&arena, at("w"), &names, &n));
    CHECK_EQ_INT(n, 3); /* no temporary is left */
    if (access("/dev/full", W_OK) == 0) {
        CHECK_STATUS(dr_write_file("/dev/full", "x", 1), DR_EIO);
        CHECK_TRAIL("/dev/full: cannot write: No space left");
        CHECK_TRAIL("bytes are free");
    } else {
        SKIP("no /dev/full");
    }
}

static void test_writer(void)
{
    enum { BIG = 3 << 20 };
    unsigned char *data = malloc(BIG);
    dr_writer w = {0};
    dr_map m = {0};

    dr_writer_close(&w); /* never opened */
    for (size_t i = 0; i < BIG; i++)
        data[i] = (unsigned char)(i * 2654435761u >> 13);
    put("w.bin", "what was there");
    CHECK(link(at("w.bin"), at("w.same")) == 0);
    CHECK_OK(dr_writer_open(&w, at("w.bin")));
    CHECK_OK(dr_writer_add(&w, "head", 4));
    CHECK_OK(dr_writer_align(&w, 64));
    CHECK_EQ_INT(dr_writer_at(&w), 64);
    CHECK_OK(dr_writer_align(&w, 64));
    CHECK_OK(dr_writer_add(&w, data, BIG)); /* across blocks */
    for (size_t i = 0; i < BIG; i += 77777)
        CHECK_OK(dr_writer_add(&w, data + i, i + 77777 < BIG ? 77777 : BIG - i));
    CHECK_OK(dr_writer_align(&w, 1 << 20));
    CHECK_OK(dr_writer_add(&w, data, BIG)); /* straight from the caller */
    CHECK_OK(dr_writer_add(&w, "", 0));
    CHECK_EQ_INT(dr_writer_at(&w), (7 << 20) + BIG);
    CHECK_OK(dr_writer_finish(&w));
    dr_writer_close(&w);

    CHECK_OK(dr_map_open(&m, at("w.bin")));
    if (CHECK_EQ_INT(m.size, (7 << 20) + BIG)) {
        CHECK_MEM(m.data, "head\0\0\0\0", 8);
        CHECK_MEM(m.data + 64, data, BIG);
        CHECK_MEM(m.data + 64 + BIG, data, BIG);
        CHECK_EQ_INT(m.data[(7 << 20) - 1], 0);
        CHECK_MEM(m.data + (7 << 20), data, BIG);
    }
    dr_map_close(&m);
    CHECK_STR(text_of("w.same"), "what was there"); /* 1 in file_write.c */
    CHECK_STATUS(dr_writer_open(&w, at("none/w")), DR_EIO);
    dr_writer_close(&w);
    CHECK_OK(dr_writer_open(&w, at("given-up")));
    dr_writer_close(&w);
    free(data);
}

static void test_place(void)
{
    struct stat a, b;
    dr_placed how = DR_PLACED_COPY;

    CHECK_OK(dr_make_dirs(at("blobs")));
    put("blobs/1", "weights");
    CHECK(symlink("blobs/1", at("snapshot")) == 0);
    put("placed", "in the way");
    CHECK_OK(dr_place_file(at("placed"), at("snapshot"), &how));
    CHECK_STR(text_of("placed"), "weights");
    CHECK(lstat(at("placed"), &a) == 0 && S_ISREG(a.st_mode)); /* the blob, not the link */
    if (how == DR_PLACED_LINK)
        CHECK(stat(at("blobs/1"), &b) == 0 && a.st_ino == b.st_ino);
    CHECK_OK(dr_place_file(at("placed"), at("blobs/1"), NULL)); /* placed already */
    CHECK_OK(dr_place_file(at("blobs/1"), at("blobs/1"), NULL));
    CHECK_STR(text_of("blobs/1"), "weights");

    CHECK_OK(dr_copy_file(at("copy"), at("snapshot")));
    CHECK_STR(text_of("copy"), "weights");
    CHECK(stat(at("copy"), &b) == 0 && a.st_ino != b.st_ino);
    put("blobs/2", "other");
    CHECK_OK(
        dr_copy_file(at("placed"), at("blobs/2"))); /* the blob behind it is not touched */
    CHECK_STR(text_of("placed"), "other");
    CHECK_STR(text_of("blobs/1"), "weights");

    CHECK_STATUS(dr_place_file(at("p"), at("none"), NULL), DR_EIO);
    CHECK_TRAIL("none");
    CHECK_STATUS(dr_place_file(at("p"), at("blobs"), NULL), DR_EIO);
    CHECK_STATUS(dr_copy_file(at("p"), at("none")), DR_EIO);
    CHECK_STATUS(dr_copy_file(at("none/p"), at("copy")), DR_EIO);
    if (dr_is_dir("/dev/shm") && access("/dev/shm", W_OK) == 0) {
        const char *shm =
            dr_arena_printf(&arena, "/dev/shm/drupe-test-%ld", (long)getpid());
        CHECK_OK(dr_place_file(shm, at("blobs/1"), &how)); /* another file system */
        CHECK(how != DR_PLACED_LINK || stat(shm, &a) != 0 || a.st_dev == b.st_dev);
        CHECK_OK(dr_remove_tree(shm));
    } else {
        SKIP("no second file system at /dev/shm");
    }
}

int main(void)
{
    test_map();
    test_read();
    test_names();
    test_folders();
    test_write();
    test_replace();
    test_writer();
    test_place();
    dr_arena_release(&arena);
    return check_done();
}
