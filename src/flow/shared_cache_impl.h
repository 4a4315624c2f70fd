/*
 * shared_cache_impl.h - entries of the cache at a place that others reach, too.
 *
 *     entries/KEY.json  the manifest: files with sizes, SHA-256 of their parts, exec bits;
 *                       sent last, so that an entry is there with all of its contents
 *     content/SHA       a part of a file, by its SHA-256: the same one is sent once
 *     figures/KEY.json  figures of a model
 *
 * What comes from there is a stranger's: paths, counts and sizes are checked before
 * they are used, each part is hashed while it comes, and an entry is in the local cache
 * when all of it was as its manifest says.
 *
 *     DIR/incoming/ID.part  a file that is coming; a later run goes on with it
 *     DIR/shared/KEY        which place is known to have the entry
 */
#ifndef DRUPE_FLOW_SHARED_CACHE_IMPL_H
#define DRUPE_FLOW_SHARED_CACHE_IMPL_H

#include "flow/cache_impl.h"
#include "net/net.h"

enum {
    SHARED_MANIFEST_BYTES = 16 << 20,
    SHARED_FIGURES_BYTES = 64 << 10,
    SHARED_FILES = 10000, /* of an entry */
    SHARED_PLACES_BYTES = 1 << 20,
};

typedef struct {
    const char *path; /* below the entry's folder */
    uint64_t bytes;
    bool executable;
    bool places;        /* it has ${entry} where the entry's folder is named */
    const char **parts; /* SHA-256 of each */
    size_t part_count;
    char id[DR_SHA256_HEX]; /* of its content: that of the list of parts */
} shared_file;

/* Arena memory. */
typedef struct {
    shared_file *files;
    size_t count;
    uint64_t part_bytes, bytes; /* of a whole part; of all files */
    double seconds;             /* that making it took */
    const char *pass;           /* as it says; NULL: nothing that can be shown */
} shared_manifest;

/* DR_EFORMAT: it is no manifest of this entry, or one with paths, counts or sizes that none
 * may have; `where` is in the message. */
DR_MUST_USE dr_status shared_parse(shared_manifest *out, dr_arena *a, const char *text,
                                   size_t n, const char *key, const char *where);
/* The same as text, and the SHA-256 of a list of parts. */
DR_MUST_USE dr_status shared_text(dr_buf *out, const shared_manifest *m, const char *key);
void shared_content_id(shared_file *f);
/* Bytes of part i. */
uint64_t shared_part_bytes(const shared_manifest *m, const shared_file *f, size_t i);

const char *shared_entry_name(dr_arena *a, const char *key);
const char *shared_content_name(dr_arena *a, const char *sha);

/* ---- shared_places.c ---- */

/* Whether a file may name the entry's folder. */
bool shared_has_places(const char *path);
/* Its text with ${entry} for that; *found false: it does not name it. */
DR_MUST_USE dr_status shared_place_out(dr_buf *out, bool *found, const char *path,
                                       const char *key);
/* The text of such a file with the folder's name. */
DR_MUST_USE dr_status shared_place_in(dr_buf *out, const char *path, const char *folder);

#endif
