/*
 * resume_test.c - pieces of state: put in turn into two files, found by the same key, never
 * when they are not whole.
 */
#include "check.h"

#include "core/resume.h"

static const char key_a[DR_SHA256_HEX] =
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
static const char key_b[DR_SHA256_HEX] =
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab";
enum { BYTES = 1000, HEAD_BYTES = 192 };

static dr_arena arena;
static const char *dir;

static dr_resume *open_state(const char *key)
{
    dr_resume *r = NULL;

    CHECK_OK(dr_resume_open(&r, dir, key, "out"));
    return r;
}

/* A number and a block of bytes that follow from it. */
static void put(dr_resume *r, unsigned char n)
{
    unsigned char block[BYTES];
    memset(block, n, BYTES);
    const dr_part parts[2] = {{&n, 1}, {block, BYTES}};

    CHECK_OK(dr_resume_put(r, "piece", parts, 2));
}

/* The number, -1: there is none. */
static int get(const dr_resume *r)
{
    dr_map map = {0};
    dr_part parts[2];
    int n = -1;

    if (!dr_resume_get(r, "piece", &map, parts, 2))
        return -1;
    CHECK_EQ_INT(parts[0].bytes, 1);
    CHECK_EQ_INT(parts[1].bytes, BYTES);
    n = *(const unsigned char *)parts[0].data;
    for (size_t i = 0; i < BYTES; i++)
        CHECK(((const unsigned char *)parts[1].data)[i] == n);
    dr_map_close(&map);
    return n;
}

static const char *file(int which)
{
    return dr_path_join(&arena, dir, which == 0 ? "piece.0" : "piece.1");
}

/* The file with one bit changed, or cut to n bytes where bit is negative. */
static void spoil(int which, long bit, size_t n)
{
    dr_map map = {0};

    if (!CHECK_OK(dr_map_open(&map, file(which))))
        return;
    unsigned char *copy = malloc(map.size);
    size_t size = bit < 0 ? n : map.size;
    memcpy(copy, map.data, map.size);
    if (bit >= 0)
        copy[bit / 8] ^= (unsigned char)(1u << bit % 8);
    dr_map_close(&map);
    CHECK_OK(dr_write_file(file(which), copy, size));
    free(copy);
}

/* What the file has for the number, whole or not. */
static int number_in(int which)
{
    dr_map map = {0};
    int n = -1;

    if (CHECK_OK(dr_map_open(&map, file(which))))
        n = map.data[HEAD_BYTES];
    dr_map_close(&map);
    return n;
}

static void in_turn(void)
{
    dr_resume *r = open_state(key_a);

    CHECK_EQ_INT(get(r), -1);
    for (unsigned char n = 1; n <= 5; n++) {
        put(r, n);
        CHECK_EQ_INT(get(r), n);
    }
    dr_resume_close(r);
    r = open_state(key_a);
    CHECK_EQ_INT(get(r), 5);
    put(r, 6); /* over 4 */
    CHECK_EQ_INT(get(r), 6);
    dr_part one;
    dr_map map = {0};
    CHECK(!dr_resume_get(r, "piece", &map, &one, 1)); /* it has two parts */
    CHECK(!dr_resume_get(r, "other", &map, &one, 1));
    dr_resume_close(r);
}

/* Every bit of the head, and of some of the parts, counts; so does the length. */
static void not_whole(void)
{
    dr_map map = {0};
    size_t size = 0;

    if (CHECK_OK(dr_map_open(&map, file(0))))
        size = map.size;
    dr_map_close(&map);
    for (size_t bit = 0; bit < 8 * size; bit += bit < 8 * HEAD_BYTES ? 5 : 197) {
        dr_resume *r = open_state(key_a);
        put(r, 7);
        put(r, 8);
        dr_resume_close(r);
        int newest = number_in(0) == 8 ? 0 : 1;
        spoil(newest, (long)bit, 0);
        r = open_state(key_a);
        int found = get(r);
        CHECK(found == 7 || found == 8); /* 8: the gap between two parts means nothing */
        if (found == 7) {
            put(r, 9); /* not in the place of the only whole one */
            CHECK_EQ_INT(get(r), 9);
            CHECK_EQ_INT(number_in(newest), 9);
            CHECK_EQ_INT(number_in(1 - newest), 7);
        }
        dr_resume_close(r);
    }
    for (size_t n = 0; n < size; n += 97) {
        dr_resume *r = open_state(key_a);
        put(r, 1);
        put(r, 2);
        dr_resume_close(r);
        spoil(0, -1, n);
        spoil(1, -1, n);
        r = open_state(key_a);
        CHECK_EQ_INT(get(r), -1);
        CHECK(!dr_exists(file(0)) && !dr_exists(file(1)));
        dr_resume_close(r);
    }
}

static void other_key(void)
{
    dr_resume *r = open_state(key_a);

    put(r, 3);
    dr_resume_close(r);
    CHECK_OK(dr_write_file(dr_path_join(&arena, dir, "weights"), "x", 1));
    r = open_state(key_a); /* files beside whole pieces stay */
    CHECK(dr_exists(dr_path_join(&arena, dir, "weights")));
    dr_resume_close(r);
    r = open_state(key_b);
    CHECK_EQ_INT(get(r), -1);
    CHECK(!dr_exists(dr_path_join(&arena, dir, "weights")));
    dr_resume_close(r);
    r = open_state(key_a);
    CHECK_EQ_INT(get(r), -1);
    dr_resume_close(r);
}

/* A part may be empty, the last one too, whose place is behind the file's end. */
static void empty_part(void)
{
    dr_resume *r = open_state(key_a);
    dr_part parts[3] = {{"x", 1}, {NULL, 0}, {NULL, 0}};
    dr_map map = {0};

    CHECK_OK(dr_resume_put(r, "hollow", parts, 3));
    dr_resume_close(r);
    r = open_state(key_a);
    if (CHECK(dr_resume_get(r, "hollow", &map, parts, 3))) {
        CHECK_EQ_INT(parts[0].bytes, 1);
        CHECK_MEM(parts[0].data, "x", 1);
        CHECK_EQ_INT(parts[1].bytes, 0);
        CHECK_EQ_INT(parts[2].bytes, 0);
    }
    dr_map_close(&map);
    dr_resume_close(r);
}

int main(void)
{
    dir = dr_path_join(&arena, check_tmp(), "state");
    in_turn();
    not_whole();
    other_key();
    empty_part();
    dr_arena_release(&arena);
    return check_done();
}
