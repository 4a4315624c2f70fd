/*
 * hash.c - SHA-256, from nettle.
 */
#include "core/hash.h"

#include <nettle/sha2.h>

#include "core/file.h"

static void to_hex(char *hex, const uint8_t digest[SHA256_DIGEST_SIZE])
{
    static const char digits[] = "0123456789abcdef";

    for (int i = 0; i < SHA256_DIGEST_SIZE; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[2 * SHA256_DIGEST_SIZE] = '\0';
}

void dr_sha256(char hex[DR_SHA256_HEX], const void *data, size_t n)
{
    struct sha256_ctx ctx;
    uint8_t digest[SHA256_DIGEST_SIZE];

    sha256_init(&ctx);
    sha256_update(&ctx, n, data);
    sha256_digest(&ctx, sizeof(digest), digest);
    to_hex(hex, digest);
}

dr_status dr_sha256_file(char hex[DR_SHA256_HEX], const char *path)
{
    dr_map map = {0};
    dr_status st = DR_OK;

    DR_TRY(dr_map_open(&map, path));
    dr_sha256(hex, map.data, map.size);
done:
    dr_map_close(&map);
    return st;
}
