/*
 * store_ask.c - a request to an object in the form of each kind of place.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/mem.h"
#include "net/store_impl.h"

enum { HEADERS = 8, TIME_TEXT = 40 };

static const char azure_version[] = "2021-12-02";
static const char nothing[] = /* SHA-256 of no bytes */
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/* Headers while they are put together: names and values by turns, for signatures. */
typedef struct {
    const char *pairs[2 * HEADERS + 1];
    size_t count;
} pairs;

static void add(pairs *p, const char *name, const char *value)
{
    p->pairs[p->count++] = name;
    p->pairs[p->count++] = value;
}

/* RFC 1123, whatever the locale. */
static const char *azure_date(dr_arena *a)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    const time_t now = time(NULL);
    struct tm t;

    (void)gmtime_r(&now, &t);
    return dr_arena_printf(a, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
                           days + 3 * t.tm_wday, t.tm_mday, months + 3 * t.tm_mon,
                           t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
}

/* The query as a URL has it. */
static const char *query_text(dr_arena *a, const net_store *s, const store_ask *ask)
{
    const char *text = "";

    for (size_t i = 0; ask->query != NULL && ask->query[i] != NULL; i += 2)
        text = dr_arena_printf(a, "%s%c%s=%s", text, i > 0 ? '&' : '?', ask->query[i],
                               store_escaped(a, ask->query[i + 1], false));
    if (*s->query != '\0')
        text = dr_arena_printf(a, "%s%c%s", text, *text != '\0' ? '&' : '?', s->query);
    return text;
}

static void sign_azure(pairs *out, dr_arena *a, const net_store *s, const store_ask *ask,
                       net_to_sign *q)
{
    pairs signed_ = {.count = 0};
    const bool puts = strcmp(ask->method, "PUT") == 0;

    if (puts)
        add(&signed_, "x-ms-blob-type", "BlockBlob");
    add(&signed_, "x-ms-date", azure_date(a));
    add(&signed_, "x-ms-version", azure_version);
    *out = signed_;
    if (s->key == NULL)
        return;
    q->headers = signed_.pairs;
    add(out, "Authorization", net_sign_shared_key(a, q, s->account, s->key));
}

static void sign_s3(pairs *out, dr_arena *a, const net_store *s, const store_ask *ask,
                    net_to_sign *q)
{
    pairs signed_ = {.count = 0};
    const time_t now = time(NULL);
    char when[TIME_TEXT];
    struct tm utc;

    if (s->id == NULL)
        return;
    (void)gmtime_r(&now, &utc);
    (void)strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", &utc);
    q->sha = ask->sha != NULL ? ask->sha : nothing;
    add(&signed_, "host", s->host);
    add(&signed_, "x-amz-content-sha256", q->sha);
    add(&signed_, "x-amz-date", dr_arena_strdup(a, when));
    if (s->session != NULL)
        add(&signed_, "x-amz-security-token", s->session);
    q->headers = signed_.pairs;
    for (size_t i = 2; i < signed_.count; i += 2) /* Host is libcurl's */
        add(out, signed_.pairs[i], signed_.pairs[i + 1]);
    add(out, "Authorization", net_sign_v4(a, q, s->id, s->secret, s->region, when));
}

void store_request(net_request *q, dr_arena *a, const net_store *s, const store_ask *ask)
{
    const char *path = ask->name != NULL  ? dr_arena_printf(a, "%s/%s", s->path, ask->name)
                       : *s->root != '\0' ? s->root
                                          : "/";
    const char *range =
        ask->have > 0 ? dr_arena_printf(a, "bytes=%llu-", (unsigned long long)ask->have)
                      : NULL;
    net_to_sign sign = {.method = ask->method,
                        .host = s->host,
                        .path = path,
                        .query = ask->query,
                        .length = ask->length,
                        .range = range};
    const char **lines = dr_arena_alloc(a, HEADERS + 1, sizeof(*lines));
    pairs headers = {.count = 0};

    if (s->kind == STORE_AZURE)
        sign_azure(&headers, a, s, ask, &sign);
    else if (s->kind == STORE_S3)
        sign_s3(&headers, a, s, ask, &sign);
    else if (s->token != NULL)
        add(&headers, "Authorization", dr_arena_printf(a, "Bearer %s", s->token));
    for (size_t i = 0; i < headers.count; i += 2)
        lines[i / 2] = dr_arena_printf(a, "%s: %s", headers.pairs[i], headers.pairs[i + 1]);
    q->method = strcmp(ask->method, "GET") == 0 ? NULL : ask->method;
    q->headers = lines;
    q->url = dr_arena_printf(a, "%s%s%s", s->base, path, query_text(a, s, ask));
    q->shown =
        ask->name != NULL ? dr_arena_printf(a, "%s/%s", s->name, ask->name) : s->name;
    q->follow = s->kind == STORE_WEB && q->method == NULL;
}
