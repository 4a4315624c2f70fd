/*
 * curl.c - HTTP through libcurl, which is loaded when it is first needed: TLS brings a
 * tree of libraries that nothing else here wants.
 *
 * libcurl's C interface has been the same since 2000 (libcurl.so.4 since 2006), so the few
 * numbers used are written here instead of asking for its headers at build time.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "core/fault.h"
#include "core/log.h"
#include "core/mem.h"
#include "net/net.h"

enum {
    /* CURLoption */
    OPT_WRITEDATA = 10001,
    OPT_URL = 10002,
    OPT_RANGE = 10007,
    OPT_READDATA = 10009,
    OPT_ERRORBUFFER = 10010,
    OPT_USERAGENT = 10018,
    OPT_HTTPHEADER = 10023,
    OPT_HEADERDATA = 10029,
    OPT_CUSTOMREQUEST = 10036,
    OPT_CAINFO = 10065,
    OPT_SEEKDATA = 10168,
    OPT_WRITEFUNCTION = 20011,
    OPT_READFUNCTION = 20012,
    OPT_HEADERFUNCTION = 20079,
    OPT_SEEKFUNCTION = 20167,
    OPT_INFILESIZE_LARGE = 30115,
    OPT_LOW_SPEED_LIMIT = 19,
    OPT_LOW_SPEED_TIME = 20,
    OPT_NOBODY = 44,
    OPT_UPLOAD = 46,
    OPT_FOLLOWLOCATION = 52,
    OPT_MAXREDIRS = 68,
    OPT_CONNECTTIMEOUT = 78,
    OPT_NOSIGNAL = 99,
    OPT_PROTOCOLS = 181,
    OPT_REDIR_PROTOCOLS = 182,
    INFO_RESPONSE_CODE = 0x200002,
    PROTO_HTTP = 1,
    PROTO_HTTPS = 2,
    READ_ABORT = 0x10000000,
    /* CURLcode */
    CODE_PEER_CERTIFICATE = 60,
    ERROR_BUFFER = 256,
    GLOBAL_ALL = 3,
    /* ours */
    CONNECT_S = 10,
    STALL_S = 30,
    STALL_BYTES = 256,
    WAIT_MS = 500,
    NOT_IMPLEMENTED = 501, /* the method: another try is not better */
};

struct net_client {
    const char *ca_file; /* borrowed */
    int stall_s;
    void *lib;  /* stays loaded: see net_close */
    void *curl; /* owned: CURL */
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

/* A transfer that goes on. */
typedef struct {
    const net_request *q;
    net_reply *reply;
    long status;                /* of the answer being read */
    char range[NET_HEADER_MAX]; /* its Content-Range */
    bool placed;                /* the first byte's place is known */
    size_t error_len;
    uint64_t sent;
    dr_status st; /* why a callback stopped the transfer */
} transfer;

/* ---- loading ---- */

static dr_status load(net_client *c)
{
    const struct {
        const char *name;
        void *to;
    } symbols[] = {
        {"curl_easy_init", &c->easy_init},
        {"curl_easy_cleanup", &c->easy_cleanup},
        {"curl_easy_reset", &c->easy_reset},
        {"curl_easy_setopt", &c->easy_setopt},
        {"curl_easy_perform", &c->easy_perform},
        {"curl_easy_getinfo", &c->easy_getinfo},
        {"curl_easy_strerror", &c->easy_strerror},
        {"curl_slist_append", &c->slist_append},
        {"curl_slist_free_all", &c->slist_free_all},
        {"curl_global_init", &c->global_init},
    };
    dr_status st = DR_OK;

    c->lib = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    if (c->lib == NULL)
        c->lib = dlopen("libcurl-gnutls.so.4", RTLD_NOW | RTLD_LOCAL);
    if (c->lib == NULL) {
        st =
            dr_fail(DR_EUNSUPPORTED, "libcurl.so.4 is not installed, downloading needs it");
        dr_hint("install the Debian package libcurl4, or name a local folder");
        return st;
    }
    for (size_t i = 0; i < DR_COUNT(symbols); i++) {
        void *p = dlsym(c->lib, symbols[i].name);

        if (p == NULL)
            DR_FAIL(DR_EUNSUPPORTED, "libcurl.so.4 lacks %s", symbols[i].name);
        memcpy(symbols[i].to, &p, sizeof(p));
    }
done:
    return st;
}

dr_status net_open(net_client **out, const char *ca_file, int stall_s)
{
    net_client *c = dr_calloc(1, sizeof(*c));
    dr_status st = DR_OK;

    *out = NULL;
    c->ca_file = ca_file;
    c->stall_s = stall_s > 0 ? stall_s : STALL_S;
    DR_TRY(load(c));
    if (c->global_init(GLOBAL_ALL) != 0 || (c->curl = c->easy_init()) == NULL)
        DR_FAIL(DR_EIO, "libcurl cannot be started");
    *out = c;
    c = NULL;
done:
    net_close(c);
    return st;
}

/* The library stays: TLS libraries leave handlers behind that run when the process ends. */
void net_close(net_client *c)
{
    if (c == NULL)
        return;
    if (c->curl != NULL)
        c->easy_cleanup(c->curl);
    free(c);
}

const char *net_ca_file(void)
{
    static const char *const names[] = {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
                                        "SSL_CERT_FILE"};

    for (size_t i = 0; i < DR_COUNT(names); i++) {
        const char *v = getenv(names[i]);
        if (v != NULL && *v != '\0')
            return v;
    }
    return NULL;
}

/* ---- the answer's head ---- */

/* "Name: value\r\n" into its slot, if it has one. */
static void keep_header(transfer *t, const char *line, size_t n)
{
    const char *colon = memchr(line, ':', n);

    if (colon == NULL)
        return;
    size_t name = (size_t)(colon - line), from = name + 1;
    while (from < n && (line[from] == ' ' || line[from] == '\t'))
        from++;
    while (n > from && (unsigned char)line[n - 1] <= ' ')
        n--;
    for (size_t i = 0; i <= t->q->slot_count; i++) {
        const net_slot slot =
            i < t->q->slot_count ? t->q->slots[i] : (net_slot){"content-range", t->range};
        if (strlen(slot.name) == name && strncasecmp(line, slot.name, name) == 0 &&
            n - from < NET_HEADER_MAX) {
            memcpy(slot.to, line + from, n - from);
            slot.to[n - from] = '\0';
        }
    }
}

static void forget_answer(transfer *t)
{
    *t->reply = (net_reply){0};
    t->error_len = 0;
    t->range[0] = '\0';
    for (size_t i = 0; i < t->q->slot_count; i++)
        t->q->slots[i].to[0] = '\0';
}

/* Each answer starts with its status line; a redirect's headers give way to the next's. */
static size_t on_header(char *data, size_t size, size_t count, void *ctx)
{
    transfer *t = ctx;
    size_t n = size * count;
    char line[64];

    if (n >= 5 && memcmp(data, "HTTP/", 5) == 0) {
        forget_answer(t);
        (void)snprintf(line, sizeof(line), "%.*s", n < 63 ? (int)n : 63, data);
        const char *space = strchr(line, ' ');
        t->status = space ? strtol(space, NULL, 10) : 0;
    } else {
        keep_header(t, data, n);
    }
    return n;
}

/* ---- its body ---- */

/* Where the body begins: 206 says it, 200 is the whole of it. */
static bool place(transfer *t)
{
    net_file *f = t->q->file;
    unsigned long long from = 0;

    if (t->status == 206) {
        if (sscanf(t->range, "bytes %llu-", &from) != 1 || from != f->have) {
            t->st = dr_fail(DR_EIO, "asked for bytes from %llu, was sent \"%s\"",
                            (unsigned long long)f->have, t->range);
            return false;
        }
    } else {
        f->have = 0;
        if (ftruncate(f->fd, (off_t)f->base) != 0) {
            t->st = dr_fail(DR_EIO, "cannot start the file again: %s", strerror(errno));
            return false;
        }
    }
    t->placed = true;
    return true;
}

static bool write_file(transfer *t, const char *data, size_t n)
{
    net_file *f = t->q->file;

    if (!t->placed && !place(t))
        return false;
    if (n > f->size - f->have) {
        t->st = dr_fail(DR_EFORMAT, "more than the announced %llu bytes come",
                        (unsigned long long)f->size);
        return false;
    }
    while (n > 0) {
        ssize_t put = -1;

        if (dr_fault_hit(DR_FAULT_IO))
            errno = EIO;
        else
            put = pwrite(f->fd, data, n, (off_t)(f->base + f->have));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0) {
            t->st = dr_fail(DR_EIO, "cannot write: %s", strerror(errno));
            return false;
        }
        if (f->saw != NULL)
            f->saw(f->ctx, f->have, data, (size_t)put);
        data += put;
        n -= (size_t)put;
        f->have += (uint64_t)put;
    }
    return true;
}

static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
    transfer *t = ctx;
    size_t n = size * count;

    t->st = dr_cancelled_check();
    if (t->st != DR_OK)
        return 0;
    if (t->status != 200 && t->status != 206) { /* not what was asked for */
        const size_t left = sizeof(t->reply->error) - 1 - t->error_len;
        const size_t part = n < left ? n : left;
        memcpy(t->reply->error + t->error_len, data, part);
        t->error_len += part;
        return n;
    }
    if (t->q->body != NULL) {
        t->st = dr_buf_add(t->q->body, data, n);
        return t->st == DR_OK ? n : 0;
    }
    return t->q->file == NULL || write_file(t, data, n) ? n : 0;
}

/* ---- what is sent ---- */

static size_t on_read(char *to, size_t size, size_t count, void *ctx)
{
    transfer *t = ctx;
    const net_request *q = t->q;
    const uint64_t left = q->size - t->sent;
    size_t n = size * count < left ? size * count : (size_t)left;

    t->st = dr_cancelled_check();
    if (t->st != DR_OK)
        return READ_ABORT;
    if (q->data != NULL) {
        memcpy(to, (const char *)q->data + t->sent, n);
    } else if (n > 0) {
        const ssize_t got = pread(q->send_fd, to, n, (off_t)(q->from + t->sent));
        if (got <= 0) {
            t->st = dr_fail(DR_EIO, "cannot read what is to be sent: %s",
                            got < 0 ? strerror(errno) : "the file is shorter now");
            return READ_ABORT;
        }
        n = (size_t)got;
    }
    t->sent += n;
    if (q->sent != NULL)
        q->sent(q->sent_ctx, t->sent);
    return n;
}

/* libcurl begins again, where a connection that it kept was gone. */
static int on_seek(void *ctx, long long offset, int origin)
{
    transfer *t = ctx;

    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > t->q->size)
        return 1;
    t->sent = (uint64_t)offset;
    return 0;
}

/* ---- one request ---- */

static void set_options(net_client *c, transfer *t, void *headers, const char *range)
{
    const net_request *q = t->q;
    const bool tls = q->tls_only || strncmp(q->url, "https://", 8) == 0;
    const long protocols = tls ? PROTO_HTTPS : PROTO_HTTP | PROTO_HTTPS;
    void *h = c->curl;

    c->easy_reset(h);
    c->error[0] = '\0';
    (void)c->easy_setopt(h, OPT_URL, q->url);
    (void)c->easy_setopt(h, OPT_ERRORBUFFER, c->error);
    (void)c->easy_setopt(h, OPT_USERAGENT, "drupe/" DRUPE_VERSION);
    (void)c->easy_setopt(h, OPT_HTTPHEADER, headers);
    (void)c->easy_setopt(h, OPT_HEADERFUNCTION, on_header);
    (void)c->easy_setopt(h, OPT_HEADERDATA, t);
    (void)c->easy_setopt(h, OPT_WRITEFUNCTION, on_body);
    (void)c->easy_setopt(h, OPT_WRITEDATA, t);
    (void)c->easy_setopt(h, OPT_PROTOCOLS, protocols);
    (void)c->easy_setopt(h, OPT_REDIR_PROTOCOLS, protocols);
    (void)c->easy_setopt(h, OPT_NOSIGNAL, 1L);
    (void)c->easy_setopt(h, OPT_CONNECTTIMEOUT, (long)CONNECT_S);
    (void)c->easy_setopt(h, OPT_LOW_SPEED_LIMIT, (long)STALL_BYTES);
    (void)c->easy_setopt(h, OPT_LOW_SPEED_TIME, (long)c->stall_s);
    if (c->ca_file != NULL)
        (void)c->easy_setopt(h, OPT_CAINFO, c->ca_file);
    if (q->follow) { /* libcurl keeps Authorization from other hosts */
        (void)c->easy_setopt(h, OPT_FOLLOWLOCATION, 1L);
        (void)c->easy_setopt(h, OPT_MAXREDIRS, (long)NET_REDIRECTS);
    }
    if (q->send) {
        (void)c->easy_setopt(h, OPT_UPLOAD, 1L);
        (void)c->easy_setopt(h, OPT_READFUNCTION, on_read);
        (void)c->easy_setopt(h, OPT_READDATA, t);
        (void)c->easy_setopt(h, OPT_SEEKFUNCTION, on_seek);
        (void)c->easy_setopt(h, OPT_SEEKDATA, t);
        (void)c->easy_setopt(h, OPT_INFILESIZE_LARGE, (long long)q->size);
    }
    if (q->method != NULL && strcmp(q->method, "HEAD") == 0)
        (void)c->easy_setopt(h, OPT_NOBODY, 1L);
    else if (q->method != NULL)
        (void)c->easy_setopt(h, OPT_CUSTOMREQUEST, q->method);
    if (range != NULL)
        (void)c->easy_setopt(h, OPT_RANGE, range);
}

static dr_status perform(net_client *c, transfer *t)
{
    const net_request *q = t->q;
    const char *shown = q->shown != NULL ? q->shown : q->url;
    const int n = (int)strcspn(shown, "?"); /* signatures and the like follow */
    long status = 0;
    dr_status st = dr_cancelled_check();

    if (st != DR_OK)
        return st;
    forget_answer(t);
    const int code = c->easy_perform(c->curl);
    (void)c->easy_getinfo(c->curl, INFO_RESPONSE_CODE, &status);
    t->reply->status = status;
    if (t->st != DR_OK) {
        dr_note_at(__FILE__, __LINE__, "%s %.*s", q->send ? "sending" : "reading", n,
                   shown);
        return t->st;
    }
    if (code == 0)
        return DR_OK;
    st = dr_fail(DR_EIO, "%.*s: %s", n, shown,
                 c->error[0] ? c->error : c->easy_strerror(code));
    if (code == CODE_PEER_CERTIFICATE)
        dr_hint("REQUESTS_CA_BUNDLE may name a file with your network's certificates");
    return st;
}

dr_status net_do(net_client *c, net_reply *r, const net_request *q)
{
    transfer t = {.q = q, .reply = r};
    /* Sizes are of the file itself only when it comes uncompressed. */
    void *headers = c->slist_append(NULL, "Accept-Encoding: identity");
    char range[32] = "";
    const bool part = q->file != NULL && q->file->have > 0;

    if (q->send) /* no waiting for 100 Continue */
        headers = c->slist_append(headers, "Expect:");
    for (size_t i = 0; q->headers != NULL && q->headers[i] != NULL; i++)
        headers = c->slist_append(headers, q->headers[i]);
    if (part)
        (void)snprintf(range, sizeof(range), "%llu-", (unsigned long long)q->file->have);
    set_options(c, &t, headers, part ? range : NULL);
    dr_status st = perform(c, &t);
    (void)c->easy_setopt(c->curl, OPT_HTTPHEADER, NULL);
    c->slist_free_all(headers);
    return st;
}

/* ---- trying again ---- */

bool net_may_help(dr_status st, long status)
{
    return (st == DR_EIO && (status == 0 || status == 200 || status == 206)) ||
           status == 408 || status == 429 || (status >= 500 && status != NOT_IMPLEMENTED);
}

dr_status net_wait(int tries)
{
    for (int ms = 0; ms < WAIT_MS << tries; ms += 100) {
        dr_status st = dr_cancelled_check();

        if (st != DR_OK)
            return st;
        (void)usleep(100 * 1000);
    }
    return DR_OK;
}
