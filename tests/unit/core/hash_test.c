/*
 * hash_test.c - SHA-256 against the examples of FIPS 180-4; a checksum that any change of
 * one word changes.
 */
#include "check.h"

#include "core/arena.h"
#include "core/file.h"
#include "core/hash.h"

static const char million_a[] =
    "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

static void checksums(void)
{
    enum { N = 300 };
    unsigned char block[N];
    uint64_t seen[N + 1];

    for (size_t i = 0; i < N; i++)
        block[i] = (unsigned char)(i * 37);
    for (size_t n = 0; n <= N; n++) { /* a byte more, even of zeros, is another block */
        seen[n] = dr_checksum(block, n);
        CHECK(n == 0 || seen[n] != seen[n - 1]);
        block[n < N ? n : 0] = 0;
    }
    for (size_t n = 1; n <= N; n += 23) {
        uint64_t sum = dr_checksum(block, n);
        for (size_t bit = 0; bit < 8 * n; bit++) {
            block[bit / 8] ^= (unsigned char)(1u << bit % 8);
            CHECK(dr_checksum(block, n) != sum);
            block[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
    }
    memset(block, 0, N); /* two words that change places */
    block[0] = 1;
    uint64_t first = dr_checksum(block, N);
    block[0] = 0;
    block[64] = 1;
    CHECK(dr_checksum(block, N) != first);
}

/* By hashlib: SHA-256 of the digests of all 4 MiB, of bytes (131 i + (i >> 12)) mod 256. */
static void in_parts(dr_arena *a)
{
    const size_t n = ((size_t)9 << 20) + 3;
    const char *path = dr_path_join(a, check_tmp(), "parts");
    unsigned char *data = malloc(n);
    char hex[DR_SHA256_HEX];
    uint64_t sum = 0, sums[3];

    for (size_t i = 0; i < n; i++)
        data[i] = (unsigned char)(i * 131 + (i >> 12));
    CHECK_OK(dr_write_file(path, data, n));
    CHECK_OK(dr_sha256_parts(hex, path));
    CHECK_STR(hex, "f1a5b0eededabb86252595c154d4b2063c59c858f95c4edd851c657f37598f39");
    CHECK_OK(dr_checksum_parts(&sum, path));
    for (size_t i = 0; i < 3; i++)
        sums[i] = dr_checksum(data + (i << 22), i < 2 ? 1 << 22 : n - ((size_t)2 << 22));
    CHECK(sum == dr_checksum(sums, sizeof(sums)));
    CHECK_OK(dr_write_file(path, "abc", 3));
    CHECK_OK(dr_sha256_parts(hex, path));
    CHECK_STR(hex, "4f8b42c22dd3729b519ba6f68d2da7cc5b2d606d05daed5ad5128cc03e6c6358");
    CHECK_OK(dr_write_file(path, "", 0));
    CHECK_OK(dr_sha256_parts(hex, path));
    CHECK_STR(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK_STATUS(dr_sha256_parts(hex, dr_path_join(a, check_tmp(), "none")), DR_EIO);
    CHECK_STATUS(dr_checksum_parts(&sum, dr_path_join(a, check_tmp(), "none")), DR_EIO);
    free(data);
}

int main(void)
{
    static const struct {
        const char *text, *hex;
    } rows[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    char hex[DR_SHA256_HEX];
    char *million = malloc(1000000);
    dr_arena a = {0};

    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        dr_sha256(hex, rows[i].text, strlen(rows[i].text));
        CHECK_STR(hex, rows[i].hex);
    }
    /* RFC 4231, cases 2 and 6: a key longer than a block */
    dr_hmac_sha256(hex, "Jefe", "what do ya want for nothing?");
    CHECK_STR(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    char key[132] = "", other[DR_SHA256_HEX];
    memset(key, '\xaa', 131);
    dr_hmac_sha256(hex, key, "Test Using Larger Than Block-Size Key - Hash Key First");
    CHECK_STR(hex, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    CHECK_OK(dr_secret(hex));
    CHECK_OK(dr_secret(other));
    CHECK(strlen(hex) == DR_SHA256_HEX - 1 && strcmp(hex, other) != 0);
    memset(million, 'a', 1000000);
    dr_sha256(hex, million, 1000000);
    CHECK_STR(hex, million_a);

    const char *path = dr_path_join(&a, check_tmp(), "million");
    CHECK_OK(dr_write_file(path, million, 1000000));
    memset(hex, 0, sizeof(hex));
    CHECK_OK(dr_sha256_file(hex, path));
    CHECK_STR(hex, million_a);
    CHECK_OK(dr_write_file(path, "", 0));
    CHECK_OK(dr_sha256_file(hex, path));
    CHECK_STR(hex, rows[0].hex);
    CHECK_STATUS(dr_sha256_file(hex, dr_path_join(&a, check_tmp(), "none")), DR_EIO);
    CHECK_TRAIL("none");
    free(million);
    checksums();
    in_parts(&a);
    dr_arena_release(&a);
    return check_done();
}
