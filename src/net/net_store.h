/*
 * net_store.h - a place for objects, by their names: a folder, a web server, Azure's blobs,
 * S3.  What it holds is a stranger's: callers check every byte.
 *
 *     DIR, file:///DIR             files, each replaced whole
 *     http://HOST/PATH, https://   GET, HEAD, PUT, DELETE; a user and password in it, or
 *                                  DRUPE_SHARED_CACHE_TOKEN (Bearer)
 *     https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX
 *     azure://ACCOUNT/CONTAINER/PREFIX
 *                                  a SAS behind the URL's question mark or in
 *                                  AZURE_STORAGE_SAS_TOKEN, or a Shared Key,
 *                                  AZURE_STORAGE_KEY; AZURE_STORAGE_SERVICE_ENDPOINT is
 *                                  another host for azure://
 *     s3://BUCKET/PREFIX           AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
 *                                  AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL
 *
 * Names are words of letters, digits, '-', '.' and '_' with slashes between.  Secrets
 * are in no message and in no file.  Requests are tried four times while that may help;
 * then it is DR_EIO with what the server said last.
 */
#ifndef DRUPE_NET_NET_STORE_H
#define DRUPE_NET_NET_STORE_H

#include "core/arena.h"
#include "core/hash.h"
#include "net/net.h"

typedef struct net_store net_store;

/* No request is made.  DR_EUSAGE: no such place can be, or a credential has a wrong
 * form. */
DR_MUST_USE dr_status net_store_open(net_store **out, const char *url);
void net_store_close(net_store *s);

/* For people, without secrets: "https://host/path". */
const char *net_store_name(const net_store *s);
/* Whether it can say what it has. */
bool net_store_lists(const net_store *s);
/* The last request found nobody, or was not let in: others will not fare better. */
bool net_store_is_out(const net_store *s);

/* *there false: it has no such object. */
DR_MUST_USE dr_status net_store_size(net_store *s, bool *there, uint64_t *bytes,
                                     const char *name);
/* A small one; the buffer's maximum is the limit. */
DR_MUST_USE dr_status net_store_read(net_store *s, bool *there, dr_buf *body,
                                     const char *name);
/* One of f->size bytes, from f->have on; DR_EIO: it has fewer. */
DR_MUST_USE dr_status net_store_get(net_store *s, bool *there, net_file *f,
                                    const char *name);

/* What is put: memory, or (data NULL) size bytes of fd from `from` on; sha: its SHA-256. */
typedef struct {
    const void *data;
    int fd;
    uint64_t from, size;
    const char *sha;
    void (*sent)(void *ctx, uint64_t bytes); /* may be NULL */
    void *ctx;
} net_object;
/* Whole or not at all, where the place keeps to that (all of the above do). */
DR_MUST_USE dr_status net_store_put(net_store *s, const char *name, const net_object *o);
/* Absent: fine. */
DR_MUST_USE dr_status net_store_delete(net_store *s, const char *name);
/* The names in a folder ("entries"), without it.  DR_EUNSUPPORTED: it cannot say. */
DR_MUST_USE dr_status net_store_list(net_store *s, dr_arena *a, const char ***names,
                                     size_t *count, const char *folder);

/* ---- signatures, for tests ---- */

/* A request that is to be signed. */
typedef struct {
    const char *method, *host;
    const char *path;         /* percent-encoded, from the first slash on */
    const char *const *query; /* "name", "value" (not encoded), ..., NULL; sorted by name */
    const char *const *headers; /* "name" (small letters), "value", ..., NULL; sorted */
    const char *sha;            /* of the body; of SigV4 */
    uint64_t length;            /* of the body; of Shared Key */
    const char *range;          /* "bytes=5-" or NULL; of Shared Key */
} net_to_sign;

/* AWS Signature Version 4 for S3: the value of Authorization.  time: "20130524T000000Z";
 * it and what else is signed stand in headers. */
const char *net_sign_v4(dr_arena *a, const net_to_sign *q, const char *id,
                        const char *secret, const char *region, const char *time);
/* Azure's Shared Key, likewise: headers begin with x-ms-.  key: base64; NULL: it is
 * none. */
const char *net_sign_shared_key(dr_arena *a, const net_to_sign *q, const char *account,
                                const char *key);

#endif
