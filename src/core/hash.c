/*
 * hash.c - SHA-256, from nettle; a checksum.
 *
 * The checksum has eight lanes of 64 bits.  A step is a one-to-one map of its lane for a
 * given word and of the word for a given lane (an exclusive or, an odd factor, a rotation),
 * so that one changed word always changes its lane, and a changed lane the end.
 */
#include "core/hash.h"

#include <nettle/sha2.h>
#include <string.h>

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

enum { LANES = 8 };

static uint64_t mix(uint64_t lane, uint64_t word)
{
    lane = (lane ^ word) * 0xd6e8feb86659fd93u;
    return lane << 29 | lane >> 35;
}

uint64_t dr_checksum(const void *data, size_t n)
{
    const unsigned char *p = data;
    uint64_t lane[LANES], word[LANES], sum = n;

    for (int i = 0; i < LANES; i++)
        lane[i] = (uint64_t)i;
    for (size_t left = n; left > 0;) {
        size_t part = left < sizeof(word) ? left : sizeof(word);
        if (part < sizeof(word))
            memset(word, 0, sizeof(word));
        memcpy(word, p, part);
        for (int i = 0; i < LANES; i++)
            lane[i] = mix(lane[i], word[i]);
        p += part;
        left -= part;
    }
    for (int i = 0; i < LANES; i++)
        sum = mix(sum, lane[i]);
    return sum ^ sum >> 32;
}
