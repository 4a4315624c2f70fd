/*
 * store_server.h - a web server of a folder on 127.0.0.1, in a thread, for tests of shared
 * caches: GET with ranges, HEAD, PUT, DELETE, MKCOL; as Azure's blobs or as S3 with their
 * listings, and with signatures of what really came.  One request a connection, one at a
 * time.  What goes wrong is set in `wrong`.
 *
 * Whether the signatures themselves are right is tested by published ones (sign_test.c);
 * here that the request is the one that was signed.
 */
#ifndef DRUPE_TESTS_STORE_SERVER_H
#define DRUPE_TESTS_STORE_SERVER_H

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/file.h"
#include "core/hash.h"
#include "net/net_store.h"

#define STORE_ACCOUNT "devstoreaccount1"
/* The one that Azure's emulator and its documentation have. */
#define STORE_KEY                                                                          \
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGM" \
    "Gw=="
#define STORE_ID     "AKIAIOSFODNN7EXAMPLE"
#define STORE_SECRET "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

typedef enum { SERVE_WEB, SERVE_AZURE, SERVE_S3 } serve_kind;

enum { SERVED_LINES = 4096, SERVED_HEADERS = 64, PAGE_NAMES = 2 };

static struct {
    const char *root;
    serve_kind kind;
    int fd, port;
    pthread_t thread;
    char lines[SERVED_LINES][256]; /* "GET /path 0", one a request */
    atomic_int requests, gets, puts, heads;
    atomic_long sent, received; /* bytes of bodies */
    atomic_int refused;         /* requests with a wrong signature */
    char said[1024];            /* why the last one was */
    char authorization[256];    /* of the last request */
    struct {
        atomic_int status;   /* of the next .. */
        atomic_int failures; /* .. so many requests, */
        const char *only;    /* .. of this method (NULL: all), */
        const char *retry_after;
        atomic_int cuts;       /* so many GETs break off .. */
        atomic_int cut_at;     /* .. after so many bytes */
        atomic_int flips;      /* so many GETs' last byte is another one */
        atomic_int stalls;     /* so many GETs stop half way */
        atomic_int longer;     /* so many GETs have a byte more than they say elsewhere */
        atomic_bool no_range;  /* Range is not understood */
        atomic_bool no_puts;   /* 405 */
        atomic_bool folders;   /* PUT into a folder that is not there: 409 */
        atomic_int put_drops;  /* so many PUTs are broken off half way .. */
        atomic_bool half_puts; /* .. and what came stays */
    } wrong;
} shop;

/* A request, taken apart. */
typedef struct {
    char head[16384], method[16], target[4096], *body;
    const char *names[SERVED_HEADERS], *values[SERVED_HEADERS];
    size_t header_count, length, got;
    dr_arena a;
    const char *path, *query; /* of target */
} shop_request;

static inline void shop_send(int fd, const void *data, size_t n)
{
    const char *p = data;

    while (n > 0) {
        ssize_t put = send(fd, p, n, MSG_NOSIGNAL);
        if (put <= 0)
            return;
        p += put;
        n -= (size_t)put;
    }
}

static inline void shop_head(int fd, int status, const char *headers, size_t length)
{
    char text[4096];
    int n = snprintf(text, sizeof(text),
                     "HTTP/1.1 %d Whatever\r\nConnection: close\r\n%sContent-Length: "
                     "%zu\r\n\r\n",
                     status, headers, length);

    shop_send(fd, text, (size_t)n);
}

static inline const char *shop_header(const shop_request *q, const char *name)
{
    for (size_t i = 0; i < q->header_count; i++)
        if (strcasecmp(q->names[i], name) == 0)
            return q->values[i];
    return NULL;
}

/* ---- signatures ---- */

static inline char *shop_decoded(dr_arena *a, const char *s, size_t n)
{
    char *out = dr_arena_strndup(a, s, n), *to = out;

    for (size_t i = 0; i < n; i++) {
        unsigned c = 0;
        if (s[i] == '%' && i + 2 < n && sscanf(s + i + 1, "%2x", &c) == 1) {
            *to++ = (char)c;
            i += 2;
        } else {
            *to++ = s[i];
        }
    }
    *to = '\0';
    return out;
}

static inline int shop_by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* name, value, ..., NULL, sorted */
static inline const char *const *shop_query(shop_request *q)
{
    const char **list = dr_arena_alloc(&q->a, 2 * SERVED_HEADERS + 1, sizeof(*list));
    size_t n = 0;

    for (const char *p = q->query; *p != '\0' && n < 2 * SERVED_HEADERS;) {
        const size_t all = strcspn(p, "&"), name = strcspn(p, "=&");
        list[n++] = shop_decoded(&q->a, p, name);
        list[n++] = name < all ? shop_decoded(&q->a, p + name + 1, all - name - 1) : "";
        p += all + (p[all] == '&');
    }
    qsort(list, n / 2, 2 * sizeof(*list), shop_by_name);
    return list;
}

/* The headers whose names begin so, or are "host", in small letters. */
static inline const char *const *shop_signed(shop_request *q, const char *begin, bool host)
{
    const char **list = dr_arena_alloc(&q->a, 2 * SERVED_HEADERS + 1, sizeof(*list));
    size_t n = 0;

    for (size_t i = 0; i < q->header_count; i++) {
        char *name = dr_arena_strdup(&q->a, q->names[i]);
        for (char *p = name; *p != '\0'; p++)
            *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
        if (strncmp(name, begin, strlen(begin)) != 0 &&
            !(host && strcmp(name, "host") == 0))
            continue;
        list[n++] = name;
        list[n++] = q->values[i];
    }
    qsort(list, n / 2, 2 * sizeof(*list), shop_by_name);
    return list;
}

static inline bool shop_let_in(shop_request *q)
{
    const char *given = shop_header(q, "authorization"), *want = NULL;
    char sha[DR_SHA256_HEX];
    net_to_sign sign = {.method = q->method,
                        .path = q->path,
                        .query = shop_query(q),
                        .length = q->length,
                        .range = shop_header(q, "range"),
                        .sha = sha};

    dr_sha256(sha, q->body, q->got);
    if (shop.kind == SERVE_WEB)
        return true;
    if (shop.kind == SERVE_AZURE) {
        const char *sig = strstr(q->query, "sig=");
        if (strcmp(q->method, "PUT") == 0 &&
            (shop_header(q, "x-ms-blob-type") == NULL ||
             strcmp(shop_header(q, "x-ms-blob-type"), "BlockBlob") != 0))
            return false;
        if (sig != NULL)
            return strncmp(sig, "sig=s%2Becret", 13) == 0 && given == NULL;
        sign.headers = shop_signed(q, "x-ms-", false);
        want = net_sign_shared_key(&q->a, &sign, STORE_ACCOUNT, STORE_KEY);
    } else {
        const char *time = shop_header(q, "x-amz-date");
        const char *says = shop_header(q, "x-amz-content-sha256");
        const char *session = shop_header(q, "x-amz-security-token");
        if (time == NULL || says == NULL || strcmp(says, sha) != 0 || session == NULL ||
            strcmp(session, "session") != 0)
            return false;
        sign.headers = shop_signed(q, "x-amz-", true);
        want = net_sign_v4(&q->a, &sign, STORE_ID, STORE_SECRET, "eu-north-1", time);
    }
    if (given != NULL && want != NULL && strcmp(given, want) == 0)
        return true;
    (void)snprintf(shop.said, sizeof(shop.said), "%s\n%s", given ? given : "none",
                   want ? want : "none");
    return false;
}

/* ---- answers ---- */

/* A page of PAGE_NAMES names that begin with the prefix, from the marker on. */
static inline void shop_list(int fd, shop_request *q)
{
    const bool s3 = shop.kind == SERVE_S3;
    const char *const *p = shop_query(q);
    const char *prefix = "", *marker = "", *next = NULL;
    char **names = NULL, page[65536];
    size_t count = 0, n = 0, shown = 0;

    for (; *p != NULL; p += 2) {
        if (strcmp(p[0], "prefix") == 0)
            prefix = p[1];
        if (strcmp(p[0], s3 ? "continuation-token" : "marker") == 0)
            marker = p[1];
    }
    const char *at = dr_arena_printf(&q->a, "%s%s/%s", shop.root, q->path, prefix);
    const char *dir = dr_arena_strndup(&q->a, at, (size_t)(strrchr(at, '/') - at));
    if (dr_is_dir(dir) && dr_list_dir(&q->a, dir, &names, &count) != DR_OK)
        count = 0;
    n = (size_t)snprintf(page, sizeof(page), "<?xml version=\"1.0\"?>\n<List>");
    for (size_t i = 0; i < count && next == NULL; i++) {
        if (strcmp(names[i], marker) < 0)
            continue;
        if (shown++ == PAGE_NAMES) {
            next = names[i];
            break;
        }
        n += (size_t)snprintf(page + n, sizeof(page) - n,
                              s3 ? "<Contents><Key>%s%s</Key></Contents>"
                                 : "<Blob><Name>%s%s</Name></Blob>",
                              prefix, names[i]);
    }
    if (next != NULL)
        n += (size_t)snprintf(page + n, sizeof(page) - n,
                              s3 ? "<NextContinuationToken>%s</NextContinuationToken>"
                                 : "<NextMarker>%s</NextMarker>",
                              next);
    n += (size_t)snprintf(page + n, sizeof(page) - n, "</List>");
    shop_head(fd, 200, "", n);
    shop_send(fd, page, n);
}

/* One less of them; false: none was left. */
static inline bool shop_take(atomic_int *n)
{
    if (*n <= 0)
        return false;
    (*n)--;
    return true;
}

static inline void shop_content(int fd, const shop_request *q, const char *file, bool head)
{
    const char *range = shop_header(q, "range");
    size_t from = range != NULL && !shop.wrong.no_range ? strtoul(range + 6, NULL, 10) : 0;
    char headers[256] = "";
    dr_map m = {0};

    if (!dr_is_file(file) || dr_map_open(&m, file) != DR_OK) {
        shop_head(fd, 404, "", 0);
        return;
    }
    if (from > 0 && from >= m.size) {
        shop_head(fd, 416, "", 0);
        dr_map_close(&m);
        return;
    }
    if (from > 0)
        (void)snprintf(headers, sizeof(headers), "Content-Range: bytes %zu-%zu/%zu\r\n",
                       from, m.size - 1, m.size);
    const bool more = !head && shop_take(&shop.wrong.longer);
    shop_head(fd, from > 0 ? 206 : 200, headers, m.size - from + more);
    size_t n = m.size - from;
    bool stall = false;
    if (head)
        n = 0;
    else if (shop.wrong.cuts > 0 && n > (size_t)shop.wrong.cut_at &&
             shop_take(&shop.wrong.cuts))
        n = (size_t)shop.wrong.cut_at;
    else if (n > 1 && (stall = shop_take(&shop.wrong.stalls)))
        n /= 2;
    else if (n > 0 && shop_take(&shop.wrong.flips)) {
        const unsigned char last = m.data[from + n - 1] ^ 1;
        shop_send(fd, m.data + from, n - 1);
        shop_send(fd, &last, 1);
        shop.sent += (long)n;
        n = 0;
    }
    shop_send(fd, m.data + from, n);
    if (more)
        shop_send(fd, "x", 1);
    shop.sent += (long)n;
    char c;
    if (stall) /* till the other side goes */
        (void)recv(fd, &c, 1, 0);
    dr_map_close(&m);
}

static inline void shop_put(int fd, const shop_request *q, const char *file)
{
    dr_arena a = {0};
    const char *dir = dr_path_dir(&a, file);

    if (shop.wrong.no_puts)
        shop_head(fd, 405, "", 0);
    else if (shop.wrong.folders && !dr_is_dir(dir))
        shop_head(fd, 409, "", 0);
    else if ((q->got == q->length || shop.wrong.half_puts) && dr_make_dirs(dir) == DR_OK &&
             dr_write_file(file, q->body, q->got) == DR_OK && q->got == q->length)
        shop_head(fd, 201, "", 0);
    dr_arena_release(&a);
}

static inline void shop_answer(int fd, shop_request *q)
{
    const char *name = q->path[0] == '/' ? q->path + 1 : q->path;
    const bool head = strcmp(q->method, "HEAD") == 0, get = strcmp(q->method, "GET") == 0;
    const bool put = strcmp(q->method, "PUT") == 0;
    char headers[128] = "";

    const char *file =
        dr_arena_printf(&q->a, "%s/%s", shop.root, shop_decoded(&q->a, name, strlen(name)));
    const char *range = shop_header(q, "range"), *auth = shop_header(q, "authorization");
    (void)snprintf(shop.authorization, sizeof(shop.authorization), "%s", auth ? auth : "");
    if (shop.requests < SERVED_LINES)
        (void)snprintf(shop.lines[shop.requests], sizeof(shop.lines[0]), "%s %s %lu",
                       q->method, q->path,
                       range != NULL ? strtoul(range + 6, NULL, 10) : 0);
    shop.gets += get;
    shop.puts += put;
    shop.heads += head;
    shop.received += (long)q->got;
    shop.requests++;
    if (shop.wrong.failures > 0 &&
        (shop.wrong.only == NULL || strcmp(shop.wrong.only, q->method) == 0)) {
        shop.wrong.failures--;
        if (shop.wrong.retry_after != NULL)
            (void)snprintf(headers, sizeof(headers), "Retry-After: %s\r\n",
                           shop.wrong.retry_after);
        shop_head(fd, shop.wrong.status, headers, 4);
        shop_send(fd, "oops", head ? 0 : 4);
    } else if (!shop_let_in(q)) {
        static const char why[] = "<Error><Code>AuthenticationFailed</Code></Error>";
        shop.refused++;
        shop_head(fd, 403, "", sizeof(why) - 1);
        shop_send(fd, why, head ? 0 : sizeof(why) - 1);
    } else if (get && (strstr(q->query, "comp=list") || strstr(q->query, "list-type=2"))) {
        shop_list(fd, q);
    } else if (get || head) {
        shop_content(fd, q, file, head);
    } else if (put) {
        shop_put(fd, q, file);
    } else if (strcmp(q->method, "DELETE") == 0) {
        shop_head(fd, unlink(file) == 0 ? 204 : 404, "", 0);
    } else if (strcmp(q->method, "MKCOL") == 0) {
        shop_head(fd, mkdir(file, 0777) == 0 ? 201 : 405, "", 0);
    } else {
        shop_head(fd, 501, "", 0);
    }
}

/* ---- requests ---- */

static inline bool shop_parse(shop_request *q, char *end)
{
    char *line = strstr(q->head, "\r\n");

    *end = '\0';
    if (line == NULL || sscanf(q->head, "%15s %4095s", q->method, q->target) != 2)
        return false;
    while (line != NULL && line[2] != '\0') {
        char *next = strstr(line + 2, "\r\n"), *colon = strchr(line + 2, ':');
        if (next != NULL)
            *next = '\0';
        if (colon != NULL && q->header_count < SERVED_HEADERS) {
            *colon = '\0';
            q->names[q->header_count] = line + 2;
            q->values[q->header_count++] = colon + 1 + strspn(colon + 1, " ");
        }
        line = next;
    }
    char *mark = strchr(q->target, '?');
    q->query = mark != NULL ? mark + 1 : "";
    if (mark != NULL)
        *mark = '\0';
    q->path = q->target;
    const char *length = shop_header(q, "content-length");
    q->length = length != NULL ? strtoul(length, NULL, 10) : 0;
    return q->length < (size_t)1 << 30;
}

static inline bool shop_receive(int fd, shop_request *q)
{
    size_t n = 0;
    char *end = NULL;

    while (end == NULL && n < sizeof(q->head) - 1) {
        const ssize_t got = recv(fd, q->head + n, sizeof(q->head) - 1 - n, 0);
        if (got <= 0)
            return false;
        n += (size_t)got;
        q->head[n] = '\0';
        end = strstr(q->head, "\r\n\r\n");
    }
    if (end == NULL)
        return false;
    const size_t head = (size_t)(end + 4 - q->head), more = n - head;
    char *rest = malloc(more + 1);
    if (rest == NULL)
        return false;
    memcpy(rest, end + 4, more);
    if (!shop_parse(q, end) || (q->body = malloc(q->length + 1)) == NULL) {
        free(rest);
        return false;
    }
    q->got = more < q->length ? more : q->length;
    memcpy(q->body, rest, q->got);
    free(rest);
    size_t want = q->length;
    if (strcmp(q->method, "PUT") == 0 && want > 1 && shop_take(&shop.wrong.put_drops))
        want /= 2;
    while (q->got < want) {
        const ssize_t got = recv(fd, q->body + q->got, want - q->got, 0);
        if (got <= 0)
            break;
        q->got += (size_t)got;
    }
    if (want < q->length && q->got > want)
        q->got = want;
    return true;
}

static inline void *shop_serve(void *unused)
{
    (void)unused;
    for (;;) {
        const int fd = accept(shop.fd, NULL, NULL);
        const struct timeval limit = {.tv_sec = 20};
        shop_request *q = calloc(1, sizeof(*q));

        if (fd < 0 || q == NULL) {
            free(q);
            return NULL; /* shut down */
        }
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
        if (shop_receive(fd, q))
            shop_answer(fd, q);
        (void)shutdown(fd, SHUT_RDWR);
        (void)close(fd);
        dr_arena_release(&q->a);
        free(q->body);
        free(q);
    }
}

/* root: a folder, absolute. */
static inline bool shop_start(const char *root, serve_kind kind)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t n = sizeof(at);

    shop.root = root;
    shop.kind = kind;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    shop.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (shop.fd < 0 || bind(shop.fd, (struct sockaddr *)&at, n) != 0 ||
        listen(shop.fd, 64) != 0 || getsockname(shop.fd, (struct sockaddr *)&at, &n) != 0)
        return false;
    shop.port = ntohs(at.sin_port);
    return pthread_create(&shop.thread, NULL, shop_serve, NULL) == 0;
}

/* Whether anything of this can be tried here; proxies are none of it. */
static inline bool shop_can_be_reached(void)
{
    static const char *const proxies[] = {"http_proxy", "https_proxy", "all_proxy",
                                          "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"};

    for (size_t i = 0; i < sizeof(proxies) / sizeof(proxies[0]); i++)
        (void)unsetenv(proxies[i]);
    return dlopen("libcurl.so.4", RTLD_NOW) != NULL ||
           dlopen("libcurl-gnutls.so.4", RTLD_NOW) != NULL;
}

static inline void shop_stop(void)
{
    (void)shutdown(shop.fd, SHUT_RDWR);
    (void)pthread_join(shop.thread, NULL);
    (void)close(shop.fd);
}

#endif
