/*
 * hub_net.c - HTTP GET and HEAD through libcurl, which is loaded when it is first needed:
 * only downloads need it, and TLS brings a tree of libraries that nothing else here wants.
 *
 * libcurl's C interface has been the same since 2000 (libcurl.so.4 since 2006), so the few
 * numbers used are written here instead of asking for its headers at build time.
 *
 * The token is sent to the endpoint's own host only: a HEAD that is redirected elsewhere
 * (the storage behind large files) gives the address back, and the GET to it is made
 * without.  From an https endpoint nothing is fetched over plain http.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "hf/hub_impl.h"

enum {
    /* CURLoption */
    OPT_WRITEDATA = 10001,
    OPT_URL = 10002,
    OPT_ERRORBUFFER = 10010,
    OPT_USERAGENT = 10018,
    OPT_HTTPHEADER = 10023,
    OPT_HEADERDATA = 10029,
    OPT_CAINFO = 10065,
    OPT_RANGE = 10007,
    OPT_WRITEFUNCTION = 20011,
    OPT_HEADERFUNCTION = 20079,
    OPT_LOW_SPEED_LIMIT = 19,
    OPT_LOW_SPEED_TIME = 20,
    OPT_NOBODY = 44,
    OPT_FOLLOWLOCATION = 52,
    OPT_MAXREDIRS = 68,
    OPT_CONNECTTIMEOUT = 78,
    OPT_NOSIGNAL = 99,
    OPT_PROTOCOLS = 181,
    OPT_REDIR_PROTOCOLS = 182,
    INFO_RESPONSE_CODE = 0x200002,
    PROTO_HTTP = 1,
    PROTO_HTTPS = 2,
    /* CURLcode */
    CODE_PEER_CERTIFICATE = 60,
    ERROR_BUFFER = 256,
    GLOBAL_ALL = 3,
    /* ours */
    TRIES = 3,
    REDIRECTS = 5,
    CONNECT_S = 10,
    STALL_S = 30,
    STALL_BYTES = 256,
    WAIT_MS = 500,
};

struct hub_net {
    const hub_env *env;       /* borrowed */
    void *lib;                /* stays loaded: see hub_net_close */
    void *curl;               /* owned: CURL */
    void *plain, *authorized; /* owned: curl_slist of headers */
    char error[ERROR_BUFFER];
    void *(*easy_init)(void);
    void (*easy_cleanup)(void *);
    void (*easy_reset)(void *);
    int (*easy_setopt)(void *, int, ...);
    int (*easy_perform)(void *);
    int (*easy_getinfo)(void *, int, ...);
    const char *(*easy_strerror)(int);
    void *(*slist_append)(void *, const char *);
    void (*slist_free_all)(void *);
    int (*global_init)(long);
};

/* Where a body goes: a buffer or a file. */
typedef struct {
    hub_reply *reply; /* borrowed */
    long status;      /* of the answer being read */
    dr_buf *body;     /* borrowed, or NULL */
    int fd;
    uint64_t at, size, *have; /* have: borrowed, with fd */
    bool placed;              /* the first byte's place is known */
    hub_tick tick;
    void *tick_ctx;
    dr_status st; /* why a callback stopped the transfer */
} sink;

/* ---- loading ---- */

static dr_status load(hub_net *n)
{
    const struct {
        const char *name;
        void *to;
    } symbols[] = {
        {"curl_easy_init", &n->easy_init},
        {"curl_easy_cleanup", &n->easy_cleanup},
        {"curl_easy_reset", &n->easy_reset},
        {"curl_easy_setopt", &n->easy_setopt},
        {"curl_easy_perform", &n->easy_perform},
        {"curl_easy_getinfo", &n->easy_getinfo},
        {"curl_easy_strerror", &n->easy_strerror},
        {"curl_slist_append", &n->slist_append},
        {"curl_slist_free_all", &n->slist_free_all},
        {"curl_global_init", &n->global_init},
    };
    dr_status st = DR_OK;

    n->lib = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    if (n->lib == NULL)
        n->lib = dlopen("libcurl-gnutls.so.4", RTLD_NOW | RTLD_LOCAL);
    if (n->lib == NULL) {
        st =
            dr_fail(DR_EUNSUPPORTED, "libcurl.so.4 is not installed, downloading needs it");
        dr_hint("install the Debian package libcurl4, or name a local folder");
        return st;
    }
    for (size_t i = 0; i < DR_COUNT(symbols); i++) {
        void *p = dlsym(n->lib, symbols[i].name);

        if (p == NULL)
            DR_FAIL(DR_EUNSUPPORTED, "libcurl.so.4 lacks %s", symbols[i].name);
        memcpy(symbols[i].to, &p, sizeof(p));
    }
done:
    return st;
}

dr_status hub_net_open(hub_net **out, const hub_env *env)
{
    hub_net *n = dr_calloc(1, sizeof(*n));
    dr_status st = DR_OK;

    *out = NULL;
    n->env = env;
    DR_TRY(load(n));
    if (n->global_init(GLOBAL_ALL) != 0 || (n->curl = n->easy_init()) == NULL)
        DR_FAIL(DR_EIO, "libcurl cannot be started");
    /* Sizes are of the file itself only when it comes uncompressed. */
    n->plain = n->slist_append(NULL, "Accept-Encoding: identity");
    n->authorized = n->slist_append(NULL, "Accept-Encoding: identity");
    if (env->token != NULL)
        n->authorized = n->slist_append(
            n->authorized, dr_arena_printf(env->a, "Authorization: Bearer %s", env->token));
    *out = n;
    n = NULL;
done:
    hub_net_close(n);
    return st;
}

/* The library stays: TLS libraries leave handlers behind that run when the process ends. */
void hub_net_close(hub_net *n)
{
    if (n == NULL)
        return;
    if (n->curl != NULL)
        n->easy_cleanup(n->curl);
    if (n->slist_free_all != NULL) {
        n->slist_free_all(n->plain);
        n->slist_free_all(n->authorized);
    }
    free(n);
}

/* ---- one transfer ---- */

/* "Name: value\r\n" into its place in the reply, if it has one. */
static void keep_header(hub_reply *r, const char *line, size_t n)
{
    const struct {
        const char *name;
        char *to;
    } rows[] = {
        {"etag", r->etag},
        {"x-linked-etag", r->linked_etag},
        {"content-length", r->length},
        {"x-linked-size", r->linked_size},
        {"content-range", r->range},
        {"x-repo-commit", r->commit},
        {"location", r->location},
        {"x-error-code", r->error_code},
    };
    const char *colon = memchr(line, ':', n);

    if (colon == NULL)
        return;
    size_t name = (size_t)(colon - line), from = name + 1;
    while (from < n && (line[from] == ' ' || line[from] == '\t'))
        from++;
    while (n > from && (unsigned char)line[n - 1] <= ' ')
        n--;
    for (size_t i = 0; i < DR_COUNT(rows); i++)
        if (strlen(rows[i].name) == name && strncasecmp(line, rows[i].name, name) == 0 &&
            n - from < HUB_HEADER_MAX) {
            memcpy(rows[i].to, line + from, n - from);
            rows[i].to[n - from] = '\0';
        }
}

/* Each answer starts with its status line; a redirect's headers give way to the next's. */
static size_t on_header(char *data, size_t size, size_t count, void *ctx)
{
    sink *s = ctx;
    size_t n = size * count;
    char line[64];

    if (n >= 5 && memcmp(data, "HTTP/", 5) == 0) {
        *s->reply = (hub_reply){0};
        (void)snprintf(line, sizeof(line), "%.*s", n < 63 ? (int)n : 63, data);
        const char *space = strchr(line, ' ');
        s->status = space ? strtol(space, NULL, 10) : 0;
    } else {
        keep_header(s->reply, data, n);
    }
    return n;
}

/* Where the body begins: 206 says it, 200 is the whole file. */
static bool place(sink *s)
{
    unsigned long long from = 0;

    if (s->status == 206) {
        if (sscanf(s->reply->range, "bytes %llu-", &from) != 1 || from != s->at) {
            s->st = dr_fail(DR_EIO, "asked for bytes from %llu, was sent \"%s\"",
                            (unsigned long long)s->at, s->reply->range);
            return false;
        }
    } else {
        s->at = 0;
        *s->have = 0;
        if (ftruncate(s->fd, 0) != 0) {
            s->st = dr_fail(DR_EIO, "cannot start the file again: %s", strerror(errno));
            return false;
        }
    }
    s->placed = true;
    return true;
}

static bool write_file(sink *s, const char *data, size_t n)
{
    if (!s->placed && !place(s))
        return false;
    if (n > s->size - s->at) {
        s->st = dr_fail(DR_EFORMAT, "more than the announced %llu bytes come",
                        (unsigned long long)s->size);
        return false;
    }
    while (n > 0) {
        ssize_t put = pwrite(s->fd, data, n, (off_t)s->at);

        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0) {
            s->st = dr_fail(DR_EIO, "cannot write: %s", strerror(errno));
            return false;
        }
        data += put;
        n -= (size_t)put;
        s->at += (uint64_t)put;
        *s->have = s->at;
    }
    if (s->tick != NULL)
        s->tick(s->tick_ctx, s->at);
    return true;
}

static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
    sink *s = ctx;
    size_t n = size * count;

    s->st = dr_cancelled_check();
    if (s->st != DR_OK)
        return 0;
    if (s->status != 200 && s->status != 206)
        return n; /* an error page or a redirect's: not what was asked for */
    if (s->body != NULL) {
        s->st = dr_buf_add(s->body, data, n);
        return s->st == DR_OK ? n : 0;
    }
    return s->fd < 0 || write_file(s, data, n) ? n : 0;
}

static bool at_endpoint(const hub_net *n, const char *url)
{
    size_t len = strlen(n->env->endpoint);

    return strncmp(url, n->env->endpoint, len) == 0 &&
           (url[len] == '/' || url[len] == '\0');
}

static void set_options(hub_net *n, const char *url, sink *s)
{
    bool tls = strncmp(n->env->endpoint, "https://", 8) == 0;
    long protocols = tls ? PROTO_HTTPS : PROTO_HTTP | PROTO_HTTPS;
    void *c = n->curl;

    n->easy_reset(c);
    n->error[0] = '\0';
    (void)n->easy_setopt(c, OPT_URL, url);
    (void)n->easy_setopt(c, OPT_ERRORBUFFER, n->error);
    (void)n->easy_setopt(c, OPT_USERAGENT, "drupe/" DRUPE_VERSION);
    (void)n->easy_setopt(c, OPT_HTTPHEADER, at_endpoint(n, url) ? n->authorized : n->plain);
    (void)n->easy_setopt(c, OPT_HEADERFUNCTION, on_header);
    (void)n->easy_setopt(c, OPT_HEADERDATA, s);
    (void)n->easy_setopt(c, OPT_WRITEFUNCTION, on_body);
    (void)n->easy_setopt(c, OPT_WRITEDATA, s);
    (void)n->easy_setopt(c, OPT_PROTOCOLS, protocols);
    (void)n->easy_setopt(c, OPT_REDIR_PROTOCOLS, protocols);
    (void)n->easy_setopt(c, OPT_NOSIGNAL, 1L);
    (void)n->easy_setopt(c, OPT_CONNECTTIMEOUT, (long)CONNECT_S);
    (void)n->easy_setopt(c, OPT_LOW_SPEED_LIMIT, (long)STALL_BYTES);
    (void)n->easy_setopt(c, OPT_LOW_SPEED_TIME, (long)STALL_S);
    if (n->env->ca_file != NULL)
        (void)n->easy_setopt(c, OPT_CAINFO, n->env->ca_file);
}

/* DR_OK: an answer came.  A body that was cut short is DR_EIO with the status set. */
static dr_status perform(hub_net *n, const char *url, sink *s)
{
    long status = 0;
    dr_status st = dr_cancelled_check();

    if (st != DR_OK)
        return st;
    *s->reply = (hub_reply){0};
    int code = n->easy_perform(n->curl);
    (void)n->easy_getinfo(n->curl, INFO_RESPONSE_CODE, &status);
    s->reply->status = status;
    if (s->st != DR_OK) {
        dr_note_at(__FILE__, __LINE__, "reading %.*s", (int)strcspn(url, "?"), url);
        return s->st;
    }
    if (code == 0)
        return DR_OK;
    /* Signed addresses go on for long after the question mark. */
    st = dr_fail(DR_EIO, "%.*s: %s", (int)strcspn(url, "?"), url,
                 n->error[0] ? n->error : n->easy_strerror(code));
    if (code == CODE_PEER_CERTIFICATE)
        dr_hint("REQUESTS_CA_BUNDLE may name a file with your network's certificates");
    return st;
}

/* ---- requests ---- */

dr_status hub_net_wait(int tries)
{
    for (int ms = 0; ms < WAIT_MS << tries; ms += 100) {
        dr_status st = dr_cancelled_check();

        if (st != DR_OK)
            return st;
        (void)usleep(100 * 1000);
    }
    return DR_OK;
}

/* No answer, or one that another try may better. */
static bool worth_again(dr_status st, const hub_reply *r)
{
    return (st == DR_EIO && (r->status == 0 || r->status == 200)) || r->status == 429 ||
           r->status >= 500;
}

dr_status hub_net_get(hub_net *n, hub_reply *r, const char *url, dr_buf *body)
{
    dr_status st = DR_OK;

    for (int i = 0; i < TRIES; i++) {
        sink s = {.reply = r, .body = body, .fd = -1};

        if (i > 0)
            DR_TRY(hub_net_wait(i - 1));
        dr_buf_reset(body);
        set_options(n, url, &s);
        /* Renamed repositories; curl keeps the token from other hosts. */
        (void)n->easy_setopt(n->curl, OPT_FOLLOWLOCATION, 1L);
        (void)n->easy_setopt(n->curl, OPT_MAXREDIRS, (long)REDIRECTS);
        st = perform(n, url, &s);
        if (!worth_again(st, r))
            break;
    }
done:
    return st;
}

/* The URL that a redirect within the endpoint leads to; NULL: it leads elsewhere. */
static const char *inner_location(const hub_net *n, const hub_reply *r)
{
    if (r->location[0] == '/' && r->location[1] != '/') {
        const char *host = strstr(n->env->endpoint, "://") + 3;
        size_t len = strcspn(host, "/") + (size_t)(host - n->env->endpoint);

        return dr_arena_printf(n->env->a, "%.*s%s", (int)len, n->env->endpoint,
                               r->location);
    }
    return at_endpoint(n, r->location) ? dr_arena_strdup(n->env->a, r->location) : NULL;
}

static dr_status head_once(hub_net *n, hub_reply *r, const char *url)
{
    dr_status st = DR_OK;

    for (int hop = 0; hop <= REDIRECTS; hop++) {
        sink s = {.reply = r, .fd = -1};

        set_options(n, url, &s);
        (void)n->easy_setopt(n->curl, OPT_NOBODY, 1L);
        DR_TRY(perform(n, url, &s));
        if (r->status < 300 || r->status > 399)
            goto done;
        const char *next = inner_location(n, r);
        /* A redirect to storage says all about the file, even within the host. */
        if (next == NULL || (r->linked_etag[0] != '\0' && r->linked_size[0] != '\0'))
            goto done;
        url = next;
    }
    DR_FAIL(DR_EIO, "%s: more than %d redirects", url, REDIRECTS);
done:
    return st;
}

dr_status hub_net_head(hub_net *n, hub_reply *r, const char *url)
{
    dr_status st = DR_OK;

    for (int i = 0; i < TRIES; i++) {
        if (i > 0)
            DR_TRY(hub_net_wait(i - 1));
        st = head_once(n, r, url);
        if (!worth_again(st, r))
            break;
    }
done:
    return st;
}

dr_status hub_net_file(hub_net *n, hub_reply *r, const char *url, int fd, uint64_t size,
                       uint64_t *have, hub_tick tick, void *ctx)
{
    sink s = {.reply = r, .fd = fd, .at = *have, .size = size, .have = have};
    char range[32];

    s.tick = tick;
    s.tick_ctx = ctx;
    set_options(n, url, &s);
    (void)n->easy_setopt(n->curl, OPT_FOLLOWLOCATION, 1L);
    (void)n->easy_setopt(n->curl, OPT_MAXREDIRS, (long)REDIRECTS);
    (void)snprintf(range, sizeof(range), "%llu-", (unsigned long long)*have);
    if (*have > 0)
        (void)n->easy_setopt(n->curl, OPT_RANGE, range);
    return perform(n, url, &s);
}
