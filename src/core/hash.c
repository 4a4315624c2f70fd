/*
 * hash.c - SHA-256 and HMAC, from nettle; a checksum.
 *
 * The checksum has eight lanes of 64 bits.  A step is a one-to-one map of its lane for a
 * given word and of the word for a given lane (an exclusive or, an odd factor, a rotation),
 * so that one changed word always changes its lane, and a changed lane the end.
 */
#include "core/hash.h"

#include <nettle/hmac.h>
#include <nettle/sha2.h>
#include <stdbool.h>
#include <stdio.h>
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

void dr_hmac(unsigned char mac[DR_HMAC_BYTES], const void *key, size_t key_bytes,
             const void *data, size_t n)
{
    struct hmac_sha256_ctx ctx;

    hmac_sha256_set_key(&ctx, key_bytes, key);
    hmac_sha256_update(&ctx, n, data);
    hmac_sha256_digest(&ctx, DR_HMAC_BYTES, mac);
}

void dr_hmac_sha256(char hex[DR_SHA256_HEX], const char *key, const char *text)
{
    uint8_t mac[DR_HMAC_BYTES];

    dr_hmac(mac, key, strlen(key), text, strlen(text));
    to_hex(hex, mac);
}

dr_status dr_secret(char hex[DR_SHA256_HEX])
{
    uint8_t bits[SHA256_DIGEST_SIZE];
    FILE *f = fopen("/dev/urandom", "re");
    const bool got = f != NULL && fread(bits, 1, sizeof(bits), f) == sizeof(bits);

    if (f != NULL)
        (void)fclose(f);
    if (!got)
        return dr_fail(DR_EIO, "/dev/urandom gives no random bits");
    to_hex(hex, bits);
    return DR_OK;
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

struct dr_hash {
    struct sha256_ctx ctx;
};

dr_hash *dr_hash_begin(void)
{
    dr_hash *h = dr_calloc(1, sizeof(*h));

    sha256_init(&h->ctx);
    return h;
}

void dr_hash_add(dr_hash *h, const void *data, size_t n)
{
    sha256_update(&h->ctx, n, data);
}

void dr_hash_end(char hex[DR_SHA256_HEX], dr_hash *h)
{
    uint8_t digest[SHA256_DIGEST_SIZE];

    sha256_digest(&h->ctx, sizeof(digest), digest);
    to_hex(hex, digest);
    free(h);
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
    dr_map file;
    size_t count;
    void *made; /* [count]: what a task makes of a part; owned */
} parts;

/* Its bytes in the file, and how many they are. */
static size_t part_at(const uint8_t **data, const parts *p, size_t i)
{
    const size_t left = p->file.size - i * PART_BYTES;

    *data = p->file.data + i * PART_BYTES;
    return left < PART_BYTES ? left : PART_BYTES;
}

static dr_status digest_part(void *ctx, size_t i, int worker)
{
    const parts *p = ctx;
    const uint8_t *data = NULL;
    const size_t n = part_at(&data, p, i);
    struct sha256_ctx c;

    (void)worker;
    sha256_init(&c);
    sha256_update(&c, n, data);
    sha256_digest(&c, SHA256_DIGEST_SIZE, (uint8_t *)p->made + i * SHA256_DIGEST_SIZE);
    return DR_OK;
}

static dr_status sum_part(void *ctx, size_t i, int worker)
{
    const parts *p = ctx;
    const uint8_t *data = NULL;
    const size_t n = part_at(&data, p, i);

    (void)worker;
    ((uint64_t *)p->made)[i] = dr_checksum(data, n);
    return DR_OK;
}

/* task makes `size` bytes of each part of a file. */
static dr_status each_part(parts *p, const char *path, size_t size, dr_task_fn task)
{
    dr_pool *pool = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_map_open(&p->file, path));
    p->count = (p->file.size + PART_BYTES - 1) / PART_BYTES;
    p->made = dr_calloc(p->count + 1, size);
    DR_TRY(dr_pool_open(&pool, p->count > 1 ? 0 : 1));
    DR_TRY(dr_pool_run(pool, p->count, task, p));
done:
    dr_pool_close(pool);
    dr_map_close(&p->file);
    return st;
}

dr_status dr_sha256_parts(char hex[DR_SHA256_HEX], const char *path)
{
    parts p = {0};
    dr_status st = each_part(&p, path, SHA256_DIGEST_SIZE, digest_part);

    if (st == DR_OK)
        dr_sha256(hex, p.made, p.count * SHA256_DIGEST_SIZE);
    free(p.made);
    return st;
}

dr_status dr_checksum_parts(uint64_t *sum, const char *path)
{
    parts p = {0};
    dr_status st = each_part(&p, path, sizeof(*sum), sum_part);

    if (st == DR_OK)
        *sum = dr_checksum(p.made, p.count * sizeof(*sum));
    free(p.made);
    return st;
}
