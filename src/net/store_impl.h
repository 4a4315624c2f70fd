/*
 * store_impl.h - what the store files share.
 *
 * store.c       places by their URLs; tries, and what an answer means
 * store_ask.c   requests in each kind's form, with their signatures
 * store_dir.c   a folder
 * store_sign.c  Shared Key, Signature V4
 */
#ifndef DRUPE_NET_STORE_IMPL_H
#define DRUPE_NET_STORE_IMPL_H

#include "net/net_store.h"

typedef enum { STORE_DIR, STORE_WEB, STORE_AZURE, STORE_S3 } store_kind;

/* Strings are of the arena. */
struct net_store {
    store_kind kind;
    dr_arena arena;
    const char *name;   /* for people */
    const char *dir;    /* STORE_DIR */
    const char *base;   /* "https://user:password@host:port", as libcurl takes it */
    const char *host;   /* as the header Host has it */
    const char *root;   /* "/container" or "/bucket" or "", encoded: what is listed */
    const char *path;   /* "/container/prefix", encoded, no slash at the end */
    const char *within; /* "prefix/" or "", not encoded */
    const char *query;  /* behind the URL's ?: a SAS or the like; "" */
    const char *token;  /* STORE_WEB: Bearer; NULL: none */
    const char *account, *key;                  /* STORE_AZURE; key NULL: none */
    const char *id, *secret, *session, *region; /* STORE_S3; id NULL: no signature */
    int stall_s;
    net_client *client; /* owned; NULL: not yet */
    bool out;
};

/* One request to an object, or to the listing (name NULL). */
typedef struct {
    const char *method;
    const char *name;
    const char *const *query; /* of a listing: name, value, ..., NULL; sorted */
    const char *sha;          /* of what is sent; NULL: nothing is */
    uint64_t length;
    uint64_t have; /* bytes that are not asked for; 0: none */
} store_ask;

/* The URL, what of it may be shown, and the headers ("Name: value", NULL at the end). */
void store_request(net_request *q, dr_arena *a, const net_store *s, const store_ask *ask);

const char *store_escaped(dr_arena *a, const char *s, bool slash);

DR_MUST_USE dr_status store_dir_size(const net_store *s, bool *there, uint64_t *bytes,
                                     const char *name);
DR_MUST_USE dr_status store_dir_read(const net_store *s, bool *there, dr_buf *body,
                                     const char *name);
DR_MUST_USE dr_status store_dir_get(const net_store *s, bool *there, net_file *f,
                                    const char *name);
DR_MUST_USE dr_status store_dir_put(const net_store *s, const char *name,
                                    const net_object *o);
DR_MUST_USE dr_status store_dir_delete(const net_store *s, const char *name);
DR_MUST_USE dr_status store_dir_list(const net_store *s, dr_arena *a, const char ***names,
                                     size_t *count, const char *folder);

#endif
