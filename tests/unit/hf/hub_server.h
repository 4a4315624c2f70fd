/*
 * hub_server.h - a hub of one repository on 127.0.0.1, in a thread: the API's listing, HEAD
 * and GET of files, large ones behind a redirect to another host name (localhost), which
 * must not see the token.  One request a connection.  What goes wrong is set in `wrong`.
 */
#ifndef DRUPE_TESTS_HUB_SERVER_H
#define DRUPE_TESTS_HUB_SERVER_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "check.h"
#include "core/hash.h"

#define COMMIT "0123456789abcdef0123456789abcdef01234567"

enum { SERVED_FILES = 12, LOGGED = 256 };

typedef struct {
    const char *name;
    const char *data;
    size_t size;
    bool large; /* SHA-256 as its ETag, behind a redirect */
    char etag[DR_SHA256_HEX];
} served;

static struct {
    served files[SERVED_FILES];
    int file_count;
    int fd, port;
    pthread_t thread;
    atomic_int requests, file_gets, cdn_gets;
    atomic_bool token_at_endpoint, token_at_cdn;
    char lines[LOGGED][512]; /* "GET /path" and the Range, one a request */
    struct {
        atomic_int status;      /* this instead of the listing */
        atomic_int failures;    /* 503 for so many requests first */
        atomic_int cuts;        /* so many large GETs break off .. */
        atomic_int cut_at;      /* .. after so many bytes */
        atomic_bool bytes;      /* large files' contents are not what was said */
        atomic_bool no_range;   /* Range is not understood */
        atomic_bool huge;       /* large files claim 2^55 bytes */
        const char *error_code; /* X-Error-Code with status */
        const char *sibling;    /* one more name in the listing */
        const char *etag;       /* instead of a large file's */
    } wrong;
} hub;

static inline void hub_set(served *f, const char *name, const char *data, size_t size,
                           bool large)
{
    *f = (served){.name = name, .data = data, .size = size, .large = large};
    dr_sha256(f->etag, data, size);
    if (!large)
        f->etag[40] = '\0'; /* as long as git's */
}

static inline void hub_add(const char *name, const char *data, size_t size, bool large)
{
    hub_set(&hub.files[hub.file_count++], name, data, size, large);
}

static inline served *hub_file(const char *name)
{
    for (int i = 0; i < hub.file_count; i++)
        if (strcmp(hub.files[i].name, name) == 0)
            return &hub.files[i];
    return NULL;
}

static inline void hub_send(int fd, const void *data, size_t n)
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

static inline void hub_head(int fd, int status, const char *headers, size_t length)
{
    char text[4096];
    int n = snprintf(text, sizeof(text),
                     "HTTP/1.1 %d Whatever\r\nConnection: close\r\nX-Repo-Commit: " COMMIT
                     "\r\n%sContent-Length: %zu\r\n\r\n",
                     status, headers, length);

    hub_send(fd, text, (size_t)n);
}

static inline void hub_listing_page(int fd)
{
    char body[8192], extra[256] = "";
    size_t n = 0;

    if (hub.wrong.status != 0) {
        if (hub.wrong.error_code != NULL)
            (void)snprintf(extra, sizeof(extra), "X-Error-Code: %s\r\n",
                           hub.wrong.error_code);
        hub_head(fd, hub.wrong.status, extra, 4);
        hub_send(fd, "oops", 4);
        return;
    }
    n = (size_t)snprintf(body, sizeof(body), "{\"sha\": \"" COMMIT "\", \"siblings\": [");
    for (int i = 0; i < hub.file_count; i++)
        n += (size_t)snprintf(body + n, sizeof(body) - n, "%s{\"rfilename\": \"%s\"}",
                              i ? ", " : "", hub.files[i].name);
    if (hub.wrong.sibling != NULL)
        n += (size_t)snprintf(body + n, sizeof(body) - n, ", {\"rfilename\": \"%s\"}",
                              hub.wrong.sibling);
    n += (size_t)snprintf(body + n, sizeof(body) - n, "]}");
    hub_head(fd, 200, "Content-Type: application/json\r\n", n);
    hub_send(fd, body, n);
}

/* The bytes from `from` on, perhaps broken off, perhaps wrong. */
static inline void hub_content(int fd, const served *f, size_t from)
{
    size_t n = f->size - from;
    char range[128] = "";
    char *copy = malloc(n + 1);

    if (copy == NULL)
        return;
    memcpy(copy, f->data + from, n);
    if (hub.wrong.bytes && f->large)
        copy[n - 1] ^= 1;
    if (from > 0)
        (void)snprintf(range, sizeof(range), "Content-Range: bytes %zu-%zu/%zu\r\n", from,
                       f->size - 1, f->size);
    hub_head(fd, from > 0 ? 206 : 200, range, n);
    if (f->large && hub.wrong.cuts > 0 && n > (size_t)hub.wrong.cut_at) {
        hub.wrong.cuts--;
        n = (size_t)hub.wrong.cut_at;
    }
    hub_send(fd, copy, n);
    free(copy);
}

static inline void hub_resolve_page(int fd, const served *f, bool head)
{
    char headers[1024];

    if (f == NULL) {
        hub_head(fd, 404, "X-Error-Code: EntryNotFound\r\n", 0);
    } else if (f->large) {
        (void)snprintf(headers, sizeof(headers),
                       "Location: http://localhost:%d/cdn/%s?signature=x\r\n"
                       "X-Linked-Etag: \"%s\"\r\nX-Linked-Size: %zu\r\n",
                       hub.port, f->name, hub.wrong.etag ? hub.wrong.etag : f->etag,
                       hub.wrong.huge ? (size_t)1 << 55 : f->size);
        hub_head(fd, 302, headers, 0);
    } else if (head) {
        (void)snprintf(headers, sizeof(headers), "ETag: W/\"%s\"\r\n", f->etag);
        hub_head(fd, 200, headers, f->size);
    } else {
        hub.file_gets++;
        hub_content(fd, f, 0);
    }
}

static inline void hub_answer(int fd, const char *request)
{
    bool head = strncmp(request, "HEAD ", 5) == 0;
    bool token = strstr(request, "Authorization: Bearer secret\r\n") != NULL;
    const char *range = strstr(request, "Range: bytes=");
    char path[256] = "", name[256] = "";
    size_t from = 0;

    (void)sscanf(request, "%*s %255s", path);
    if (range != NULL)
        from = strtoul(range + 13, NULL, 10);
    if (hub.requests < LOGGED)
        (void)snprintf(hub.lines[hub.requests], sizeof(hub.lines[0]), "%s %s %zu",
                       head ? "HEAD" : "GET", path, from);
    hub.requests++;
    if (hub.wrong.failures > 0) {
        hub.wrong.failures--;
        hub_head(fd, 503, "", 0);
    } else if (strncmp(path, "/api/models/org/tiny/revision/", 30) == 0) {
        hub.token_at_endpoint = token;
        hub_listing_page(fd);
    } else if (sscanf(path, "/org/tiny/resolve/" COMMIT "/%255s", name) == 1) {
        hub_resolve_page(fd, hub_file(name), head);
    } else if (sscanf(path, "/cdn/%255[^?]", name) == 1 && hub_file(name) != NULL) {
        hub.token_at_cdn = hub.token_at_cdn || token;
        hub.cdn_gets++;
        hub_content(fd, hub_file(name), hub.wrong.no_range ? 0 : from);
    } else {
        hub_head(fd, 404, "X-Error-Code: RepoNotFound\r\n", 0);
    }
}

static inline void *hub_serve(void *unused)
{
    (void)unused;
    for (;;) {
        char request[8192];
        size_t n = 0;
        int fd = accept(hub.fd, NULL, NULL);

        if (fd < 0)
            return NULL; /* shut down */
        while (n < sizeof(request) - 1) {
            ssize_t got = recv(fd, request + n, sizeof(request) - 1 - n, 0);
            if (got <= 0)
                break;
            n += (size_t)got;
            request[n] = '\0';
            if (strstr(request, "\r\n\r\n") != NULL)
                break;
        }
        if (n > 0)
            hub_answer(fd, request);
        (void)shutdown(fd, SHUT_RDWR);
        (void)close(fd);
    }
}

static inline bool hub_start(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t n = sizeof(at);

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    hub.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (hub.fd < 0 || bind(hub.fd, (struct sockaddr *)&at, n) != 0 ||
        listen(hub.fd, 16) != 0 || getsockname(hub.fd, (struct sockaddr *)&at, &n) != 0)
        return false;
    hub.port = ntohs(at.sin_port);
    return pthread_create(&hub.thread, NULL, hub_serve, NULL) == 0;
}

static inline void hub_stop(void)
{
    (void)shutdown(hub.fd, SHUT_RDWR);
    (void)pthread_join(hub.thread, NULL);
    (void)close(hub.fd);
}

#endif
