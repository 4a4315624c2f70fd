/*
 * cache_impl.h - results that are kept by what made them.
 *
 *     DIR/drupe-cache          says what the folder is
 *     DIR/runs/KEY/            a step's result, a folder like any other
 *     DIR/runs/KEY.json        its files with sizes, times and checksums: written when the
 *                              folder is whole, so that without it there is no entry
 *     DIR/evaluations/KEY.json figures of a model
 *     DIR/hashes/DEV-INODE     a file's SHA-256 in parts, while size and times are the same
 *     DIR/locks/KEY            held while the entry is made or taken away
 *     DIR/locks/in-use         byte KEY of it is held by every run that has found the entry
 *
 * A key is the SHA-256 of everything that decides the bytes: drupe's and the pass's
 * version, the canonical config, the input's contents or key, the data's contents, the
 * processor's kernels.  An entry whose files are not as they were written is made anew.
 */
#ifndef DRUPE_FLOW_CACHE_IMPL_H
#define DRUPE_FLOW_CACHE_IMPL_H

#include <jansson.h>

#include "core/hash.h"
#include "flow/flow_impl.h"

typedef struct cache_shared cache_shared;

typedef struct {
    const char *dir;      /* borrowed */
    int in_use;           /* a descriptor; below 1: none */
    cache_shared *shared; /* owned; NULL: it is not shared */
} flow_cache;

/* Makes the folder.  DR_EUSAGE: it is there, holds something and is no cache. */
DR_MUST_USE dr_status cache_open(flow_cache *c, const char *dir);
void cache_close(flow_cache *c);
/* Forgets all results, or all figures, but for entries that another process uses. */
DR_MUST_USE dr_status cache_clear(const flow_cache *c, bool results, bool figures);

/* Of a model's files and its adapters'; c->dir NULL: no hash is remembered. */
DR_MUST_USE dr_status cache_model_id(char id[DR_SHA256_HEX], const flow_cache *c,
                                     const pass_model *m);
/* Of an object that says everything. */
void cache_key(char key[DR_SHA256_HEX], const json_t *parts);

const char *cache_folder(dr_arena *a, const flow_cache *c, const char *key);
/* Held until the descriptor is closed.  Waits for another process, or does not, and *fd is
 * -1 then. */
DR_MUST_USE dr_status cache_lock(int *fd, const flow_cache *c, const char *key, bool wait);
/* The entry, whose lock is held, stays until cache_close: nobody takes it away. */
DR_MUST_USE dr_status cache_use(flow_cache *c, const char *key);
/* Whether another process uses the entry, whose lock is held. */
DR_MUST_USE dr_status cache_is_used(bool *used, const flow_cache *c, const char *key);
bool cache_has(const flow_cache *c, const char *key);
/* The folder is whole: from now on it is an entry.  info: what `drupe cache` shows. */
DR_MUST_USE dr_status cache_seal(const flow_cache *c, const char *key, const json_t *info);

/* *out NULL: there are none. */
DR_MUST_USE dr_status cache_figures(json_t **out, const flow_cache *c, const char *key);
DR_MUST_USE dr_status cache_keep_figures(const flow_cache *c, const char *key,
                                         const json_t *figures);

/* ---- shared_cache.c ---- */

/* From now on entries are fetched from there, and sent where `update` says so; no
 * request is made yet.  DR_EUSAGE: errors of net_store_open. */
DR_MUST_USE dr_status cache_share_with(flow_cache *c, const char *url, bool update);
void cache_share_end(flow_cache *c);
/*
 * The entry, whose lock is held, if it is there and as it should be; info: as of
 * cache_seal. What goes wrong is said in a line, and *got is false; an error is
 * DR_ECANCELLED alone.
 */
DR_MUST_USE dr_status cache_fetch(bool *got, flow_cache *c, const char *key, json_t *info);
/* The entry, which this process uses, is there for others from now on; likewise. */
DR_MUST_USE dr_status cache_send(flow_cache *c, const char *key);
/* Figures; *out NULL: there are none. */
DR_MUST_USE dr_status cache_fetch_figures(json_t **out, flow_cache *c, const char *key);
DR_MUST_USE dr_status cache_send_figures(flow_cache *c, const char *key,
                                         const json_t *figures);

#endif
