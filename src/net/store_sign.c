/*
 * store_sign.c - signatures of requests: Azure's Shared Key and Amazon's Signature V4.
 *
 * Both are an HMAC-SHA256 of the request in a canonical form; the secret itself is never
 * sent.  Azure: learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key (the
 * form from 2015-02-21 on, in which a length of 0 is empty).  Amazon:
 * docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html.
 */
#include <nettle/base64.h>
#include <string.h>

#include "core/mem.h"
#include "net/store_impl.h"

/* A to z, 0 to 9, - . _ ~ stay; slash: / too. */
const char *store_escaped(dr_arena *a, const char *s, bool slash)
{
    static const char digits[] = "0123456789ABCDEF";
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                "0123456789-._~";
    char *out = dr_arena_alloc(a, 3 * strlen(s) + 1, 1), *to = out;

    for (; *s != '\0'; s++) {
        const unsigned char c = (unsigned char)*s;
        if (strchr(plain, c) != NULL || (slash && c == '/')) {
            *to++ = (char)c;
            continue;
        }
        *to++ = '%';
        *to++ = digits[c >> 4];
        *to++ = digits[c & 15];
    }
    return out;
}

static const char *hex_of(dr_arena *a, const unsigned char *data, size_t n)
{
    char *out = dr_arena_alloc(a, 2 * n + 1, 1);

    for (size_t i = 0; i < n; i++) {
        out[2 * i] = "0123456789abcdef"[data[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[data[i] & 15];
    }
    return out;
}

/* ---- Signature V4 ---- */

static const char *v4_query(dr_arena *a, const net_to_sign *q)
{
    const char *text = "";

    for (size_t i = 0; q->query != NULL && q->query[i] != NULL; i += 2)
        text = dr_arena_printf(a, "%s%s%s=%s", text, i > 0 ? "&" : "",
                               store_escaped(a, q->query[i], false),
                               store_escaped(a, q->query[i + 1], false));
    return text;
}

const char *net_sign_v4(dr_arena *a, const net_to_sign *q, const char *id,
                        const char *secret, const char *region, const char *time)
{
    const char *scope = dr_arena_printf(a, "%.8s/%s/s3/aws4_request", time, region);
    const char *lines = "", *names = "";
    const char *const steps[] = {dr_arena_strndup(a, time, 8), region, "s3",
                                 "aws4_request"};
    char hex[DR_SHA256_HEX];
    unsigned char mac[DR_HMAC_BYTES];

    for (size_t i = 0; q->headers[i] != NULL; i += 2) {
        lines = dr_arena_printf(a, "%s%s:%s\n", lines, q->headers[i], q->headers[i + 1]);
        names = dr_arena_printf(a, "%s%s%s", names, i > 0 ? ";" : "", q->headers[i]);
    }
    const char *request = dr_arena_printf(a, "%s\n%s\n%s\n%s\n%s\n%s", q->method, q->path,
                                          v4_query(a, q), lines, names, q->sha);
    dr_sha256(hex, request, strlen(request));
    const char *text = dr_arena_printf(a, "AWS4-HMAC-SHA256\n%s\n%s\n%s", time, scope, hex);
    const char *first = dr_arena_printf(a, "AWS4%s", secret);
    dr_hmac(mac, first, strlen(first), steps[0], strlen(steps[0]));
    for (size_t i = 1; i < DR_COUNT(steps); i++) {
        unsigned char key[DR_HMAC_BYTES];
        memcpy(key, mac, sizeof(key));
        dr_hmac(mac, key, sizeof(key), steps[i], strlen(steps[i]));
    }
    unsigned char key[DR_HMAC_BYTES];
    memcpy(key, mac, sizeof(key));
    dr_hmac(mac, key, sizeof(key), text, strlen(text));
    return dr_arena_printf(a,
                           "AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=%s,"
                           "Signature=%s",
                           id, scope, names, hex_of(a, mac, sizeof(mac)));
}

/* ---- Shared Key ---- */

const char *net_sign_shared_key(dr_arena *a, const net_to_sign *q, const char *account,
                                const char *key)
{
    const size_t n = strlen(key);
    uint8_t *raw = dr_arena_alloc(a, BASE64_DECODE_LENGTH(n) + 1, 1);
    size_t raw_bytes = BASE64_DECODE_LENGTH(n);
    char *out = dr_arena_alloc(a, BASE64_ENCODE_RAW_LENGTH(DR_HMAC_BYTES) + 1, 1);
    struct base64_decode_ctx decode;
    unsigned char mac[DR_HMAC_BYTES];
    const char *length =
        q->length > 0 ? dr_arena_printf(a, "%llu", (unsigned long long)q->length) : "";

    base64_decode_init(&decode);
    if (n == 0 || base64_decode_update(&decode, &raw_bytes, raw, n, key) == 0 ||
        base64_decode_final(&decode) == 0)
        return NULL;
    /* encoding, language, length, MD5, type, date, four conditions, range */
    const char *text = dr_arena_printf(a, "%s\n\n\n%s\n\n\n\n\n\n\n\n%s\n", q->method,
                                       length, q->range != NULL ? q->range : "");
    for (size_t i = 0; q->headers[i] != NULL; i += 2)
        text = dr_arena_printf(a, "%s%s:%s\n", text, q->headers[i], q->headers[i + 1]);
    text = dr_arena_printf(a, "%s/%s%s", text, account, q->path);
    for (size_t i = 0; q->query != NULL && q->query[i] != NULL; i += 2)
        text = dr_arena_printf(a, "%s\n%s:%s", text, q->query[i], q->query[i + 1]);
    dr_hmac(mac, raw, raw_bytes, text, strlen(text));
    base64_encode_raw(out, DR_HMAC_BYTES, mac);
    return dr_arena_printf(a, "SharedKey %s:%s", account, out);
}
