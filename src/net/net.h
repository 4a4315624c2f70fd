/*
 * net.h - HTTP: one request and its answer, through libcurl, which is loaded when it is
 * first needed.  Bodies stream from and to files: memory does not depend on their size.
 *
 * A request comes back DR_OK when an answer came, whatever its status; what that means is
 * the caller's to say, and so is trying again (net_may_help, net_wait).
 */
#ifndef DRUPE_NET_NET_H
#define DRUPE_NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/status.h"

typedef struct net_client net_client;

/*
 * ca_file: certificates to trust; NULL: the system's.  stall_s: seconds with next to no
 * bytes after which a transfer is given up; 0: 30.
 * DR_EUNSUPPORTED names the package when there is no libcurl.
 */
DR_MUST_USE dr_status net_open(net_client **out, const char *ca_file, int stall_s);
void net_close(net_client *c);
/* The file that REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or SSL_CERT_FILE name; NULL: none. */
const char *net_ca_file(void);

enum { NET_HEADER_MAX = 2048, NET_REDIRECTS = 5 };

/* A header of the answer that is wanted: its name in small letters, and where its value
 * goes, NET_HEADER_MAX bytes; "" when it is absent or longer. */
typedef struct {
    const char *name;
    char *to;
} net_slot;

/* Where a body goes that is part of a file, at its place. */
typedef struct {
    int fd;
    uint64_t base; /* the body's first byte in the file */
    uint64_t size; /* bytes that the body has; more are refused with DR_EFORMAT */
    /* Bytes of the body that the file has: they are not asked for again.  A server that
     * begins at 0 all the same makes it 0, and cuts the file off at base. */
    uint64_t have;
    /* May be NULL: n bytes of the body came, which begin at `at`; 0 is always the first. */
    void (*saw)(void *ctx, uint64_t at, const void *data, size_t n);
    void *ctx;
} net_file;

/* All pointers are borrowed for the call. */
typedef struct {
    const char *method;         /* NULL: GET */
    const char *url;            /* in messages without what follows a question mark */
    const char *shown;          /* in messages instead of the URL; NULL: that */
    const char *const *headers; /* "Name: value", ends with NULL; NULL: none */
    const net_slot *slots;
    size_t slot_count;
    bool follow;   /* redirects, at most NET_REDIRECTS; not from https to http */
    bool tls_only; /* nothing but https */
    /* Of PUT and POST: memory, or (send_fd of send, data NULL) size bytes of a file from
     * `from` on. */
    bool send;
    const void *data;
    int send_fd;
    uint64_t from, size;
    void (*sent)(void *ctx, uint64_t bytes); /* may be NULL: so much of it is on its way */
    void *sent_ctx;
    /* Where a body with status 200 or 206 goes; both NULL: nowhere. */
    dr_buf *body;
    net_file *file;
} net_request;

typedef struct {
    long status;     /* 0: no answer came */
    char error[512]; /* how the body of another status begins */
} net_reply;

/*
 * DR_EIO: no answer, with what libcurl says, or a body that broke off (status is set);
 * DR_EFORMAT: more bytes than net_file has room for; DR_ECANCELLED; errors of writing.
 */
DR_MUST_USE dr_status net_do(net_client *c, net_reply *r, const net_request *q);

/* No answer, half of one, or a server that is at fault or busy (5xx, 429, 408). */
bool net_may_help(dr_status st, long status);
/* Half a second before the second try (0), then twice as long; DR_ECANCELLED. */
DR_MUST_USE dr_status net_wait(int tries);

#include "net/net_store.h" /* a part of the door: places for objects */

#endif
