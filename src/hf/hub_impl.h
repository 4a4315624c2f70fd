/*
 * hub_impl.h - what the hub files share.
 *
 * hub.c        hf_resolve: what the user typed becomes a local path
 * hub_env.c    the environment: cache folder, endpoint, token
 * hub_cache.c  the cache folder, laid out as Python's huggingface_hub has it
 * hub_net.c    requests to it, by the net room
 * hub_list.c   what a repository has, and which of it is the model
 * hub_fetch.c  what of that is missing, and getting it
 */
#ifndef DRUPE_HF_HUB_IMPL_H
#define DRUPE_HF_HUB_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/status.h"
#include "net/net.h"

/* ---- environment ---- */

typedef struct {
    dr_arena *a;          /* borrowed: all strings */
    const char *cache;    /* folder that holds models--ORG--NAME */
    const char *endpoint; /* "https://huggingface.co", no slash at the end */
    const char *token;    /* NULL: none */
    const char *ca_file;  /* certificates to trust; NULL: the system's */
    bool offline;
} hub_env;

DR_MUST_USE dr_status hub_env_read(hub_env *env, dr_arena *a);

/* ---- names ---- */

/* What is wanted of the hub. */
typedef struct {
    const char *id;       /* "ORG/NAME" */
    const char *revision; /* "main", a branch, a tag, a commit */
    const char *file;     /* one file, "Q4/model.gguf"; NULL: the model */
} hub_ref;

/* 40 hex digits. */
bool hub_is_commit(const char *s);
bool hub_ends_with(const char *s, const char *end);

/* ---- cache ---- */

/* <cache>/models--ORG--NAME */
const char *hub_repo_dir(const hub_env *env, const char *id);
/* The commit that a revision meant last time; NULL: not known here. */
const char *hub_cached_commit(const hub_env *env, const hub_ref *ref);
DR_MUST_USE dr_status hub_cache_commit(const hub_env *env, const hub_ref *ref,
                                       const char *commit);
/* <repo>/snapshots/<commit>, which need not exist. */
const char *hub_snapshot_dir(const hub_env *env, const char *id, const char *commit);
/* NULL when the snapshot has all that a model needs (or ref->file), else the name of what
 * is missing.  Arena. */
const char *hub_snapshot_lacks(const hub_env *env, const hub_ref *ref, const char *commit);
/* <repo>/blobs/<etag><suffix> */
const char *hub_blob_path(const hub_env *env, const char *id, const char *etag,
                          const char *suffix);
/* Makes snapshots/<commit>/<name> stand for the blob. */
DR_MUST_USE dr_status hub_link(const hub_env *env, const char *id, const char *commit,
                               const char *name, const char *etag);
/* huggingface_hub's lock of one blob, waited for; *fd is closed to release it. */
DR_MUST_USE dr_status hub_lock(const hub_env *env, const char *id, const char *etag,
                               int *fd);

/* ---- HTTP ---- */

typedef struct hub_net hub_net;

/* The answer's status and the headers that matter here; "" when absent. */
typedef struct {
    long status; /* 0: no answer came */
    char etag[NET_HEADER_MAX], linked_etag[NET_HEADER_MAX];
    char length[NET_HEADER_MAX], linked_size[NET_HEADER_MAX], range[NET_HEADER_MAX];
    char commit[NET_HEADER_MAX], location[NET_HEADER_MAX];
    char error_code[NET_HEADER_MAX];
} hub_reply;

/* DR_EUNSUPPORTED names the package when there is no libcurl. */
DR_MUST_USE dr_status hub_net_open(hub_net **out, const hub_env *env);
void hub_net_close(hub_net *n);

/*
 * DR_OK when an answer came, whatever its status; DR_EIO names the URL and what libcurl
 * says.  get and head try three times when no answer comes or the server is at fault (5xx,
 * 429).  The token goes to the endpoint's host only.
 */
DR_MUST_USE dr_status hub_net_get(hub_net *n, hub_reply *r, const char *url, dr_buf *body);
/* Follows redirects within the endpoint; one that leads elsewhere is in r->location. */
DR_MUST_USE dr_status hub_net_head(hub_net *n, hub_reply *r, const char *url);
/* One try, redirects and all. */
DR_MUST_USE dr_status hub_net_file(hub_net *n, hub_reply *r, const char *url,
                                   net_file *file);

/* ---- listing ---- */

/* What a revision of a repository has.  Arena. */
typedef struct {
    const char *commit;
    const char **names; /* all files */
    size_t name_count;
    const char **wanted; /* those that are to be had here */
    size_t wanted_count;
    const char *file; /* the model is this one file, a GGUF; NULL: a folder */
} hub_listing;

/* Asks the hub.  *reached: it answered, well or not. */
DR_MUST_USE dr_status hub_list(hub_listing *l, hub_net *net, const hub_env *env,
                               const hub_ref *ref, bool *reached);
/* Fills wanted: config, tokenizer, safetensors, without those PyTorch's files; without
 * either a single GGUF file. */
DR_MUST_USE dr_status hub_choose(hub_listing *l, const hub_env *env, const hub_ref *ref);
/* A status that is not what was hoped for, in words; returns it. */
dr_status hub_refused(const hub_env *env, const hub_ref *ref, const hub_reply *r,
                      const char *what);
/* A path or revision as part of a URL; slashes are kept or escaped. */
const char *hub_escaped(dr_arena *a, const char *s, bool keep_slash);

/* ---- getting ---- */

/* A snapshot folder, or a file in one; downloads what is missing. */
DR_MUST_USE dr_status hub_get(const char **path, const hub_env *env, const hub_ref *ref);

#endif
