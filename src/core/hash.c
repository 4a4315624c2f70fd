/*
 * hash.c - SHA-256, from nettle; a checksum.
 *
 * The checksum has eight lanes of 64 bits.  A step is a one-to-one map of its lane for a
 * given word and of the word for a given lane (an exclusive or, an odd factor, a rotation),
 * so that one changed word always changes its lane, and a changed lane the end.
 */
#include "core/hash.h"

#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/mem.h"
#include "core/pool.h"

enum { PART_BYTES = 4 << 20 };

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

/* ---- a checksum ---- */

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

/* ---- in parts ---- */

typedef struct {
    const dr_map *file;
    uint8_t *digests; /* [parts][SHA256_DIGEST_SIZE]; NULL: sums */
    uint64_t *sums;   /* [parts] */
} parts;

static dr_status one_part(void *ctx, size_t i, int worker)
{
    const parts *p = ctx;
    const uint8_t *data = p->file->data + i * PART_BYTES;
    const size_t left = p->file->size - i * PART_BYTES;
    const size_t n = left < PART_BYTES ? left : PART_BYTES;
    struct sha256_ctx c;

    (void)worker;
    if (p->digests == NULL) {
        p->sums[i] = dr_checksum(data, n);
        return DR_OK;
    }
    sha256_init(&c);
    sha256_update(&c, n, data);
    sha256_digest(&c, SHA256_DIGEST_SIZE, p->digests + i * SHA256_DIGEST_SIZE);
    return DR_OK;
}

static size_t part_count(const dr_map *file)
{
    return (file->size + PART_BYTES - 1) / PART_BYTES;
}

static dr_status each_part(parts *p)
{
    const size_t count = part_count(p->file);
    dr_pool *pool = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_pool_open(&pool, count > 1 ? 0 : 1));
    DR_TRY(dr_pool_run(pool, count, one_part, p));
done:
    dr_pool_close(pool);
    return st;
}

dr_status dr_sha256_parts(char hex[DR_SHA256_HEX], const char *path)
{
    dr_map map = {0};
    parts p = {&map, NULL, NULL};
    dr_status st = DR_OK;

    DR_TRY(dr_map_open(&map, path));
    p.digests = dr_calloc(part_count(&map) + 1, SHA256_DIGEST_SIZE);
    DR_TRY(each_part(&p));
    dr_sha256(hex, p.digests, part_count(&map) * SHA256_DIGEST_SIZE);
done:
    free(p.digests);
    dr_map_close(&map);
    return st;
}

dr_status dr_checksum_parts(uint64_t *sum, const char *path)
{
    dr_map map = {0};
    parts p = {&map, NULL, NULL};
    dr_status st = DR_OK;

    DR_TRY(dr_map_open(&map, path));
    p.sums = dr_calloc(part_count(&map) + 1, sizeof(*p.sums));
    DR_TRY(each_part(&p));
    *sum = dr_checksum(p.sums, part_count(&map) * sizeof(*p.sums));
done:
    free(p.sums);
    dr_map_close(&map);
    return st;
}
