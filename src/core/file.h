/*
 * file.h - files and folders: mapped reading, checked writing, and output folders that are
 * either whole or absent.
 */
#ifndef DRUPE_CORE_FILE_H
#define DRUPE_CORE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/status.h"

/* ---- reading ---- */

typedef struct {
    const unsigned char *data; /* owned mapping; never NULL when open */
    size_t size;
    bool mapped;
} dr_map;

/* Maps a file read-only.  DR_EIO names the path and the system's reason. */
DR_MUST_USE dr_status dr_map_open(dr_map *m, const char *path);
void dr_map_close(dr_map *m);

/* A whole small file into b (after what it holds); b's maximum is the limit. */
DR_MUST_USE dr_status dr_read_file(dr_buf *b, const char *path);

/* ---- names ---- */

char *dr_path_join(dr_arena *a, const char *dir, const char *name);
const char *dr_path_base(const char *path); /* the part after the last slash */
/* The part before it: "/" and "." where there is nothing else. */
const char *dr_path_dir(dr_arena *a, const char *path);
/* A relative path whose parts are plain names: nothing empty, no "..", no control bytes:
 * one from a stranger that stays below the folder that it is joined to. */
bool dr_is_safe_path(const char *s);
bool dr_exists(const char *path);
bool dr_is_dir(const char *path);
bool dr_is_file(const char *path);
DR_MUST_USE dr_status dr_file_size(uint64_t *bytes, const char *path);
/* When its content changed last, in nanoseconds. */
DR_MUST_USE dr_status dr_file_time(int64_t *ns, const char *path);
/* Whether it has but one name. */
bool dr_file_is_single(const char *path);
/* Bytes free for the file system that holds path or its nearest existing parent. */
uint64_t dr_disk_free(const char *path);

/* Names in a folder except . and .., sorted by byte; arena memory. */
DR_MUST_USE dr_status dr_list_dir(dr_arena *a, const char *dir, char ***names,
                                  size_t *count);

/* ---- writing ---- */

DR_MUST_USE dr_status dr_make_dirs(const char *path);   /* with its parents */
DR_MUST_USE dr_status dr_remove_tree(const char *path); /* absent: fine */
/* Replaces path whole: temporary file beside it, fsync, rename. */
DR_MUST_USE dr_status dr_write_file(const char *path, const void *data, size_t n);

/* From becomes to, which does not exist, on the same file system. */
DR_MUST_USE dr_status dr_rename(const char *to, const char *from);

/* tmp, beside path, is synced and takes path's place (a link's file, not the link). */
DR_MUST_USE dr_status dr_replace_file(const char *path, const char *tmp);

/* A file written from front to back, or piece by piece with dr_writer_seek; gaps read as
 * zeros. */
typedef struct {
    int fd;
    char *path;           /* owned */
    unsigned char *block; /* owned */
    size_t used;
    uint64_t at; /* file position of the block's first byte */
} dr_writer;

DR_MUST_USE dr_status dr_writer_open(dr_writer *w, const char *path);
DR_MUST_USE dr_status dr_writer_add(dr_writer *w, const void *data, size_t n);
/* Goes on in a file that a writer of a run before this one made (core/resume.h). */
DR_MUST_USE dr_status dr_writer_reopen(dr_writer *w, const char *path);
/* What was added is on disk. */
DR_MUST_USE dr_status dr_writer_sync(dr_writer *w);
/* Zeros up to the next multiple of align. */
DR_MUST_USE dr_status dr_writer_align(dr_writer *w, size_t align);
uint64_t dr_writer_at(const dr_writer *w);
/* At once to this place, past what is added, and the disk begins with it; from any
 * thread. */
DR_MUST_USE dr_status dr_writer_put(const dr_writer *w, uint64_t at, const void *data,
                                    size_t n);
/* The next bytes go to this place of the file, which may lie before or after the others. */
DR_MUST_USE dr_status dr_writer_seek(dr_writer *w, uint64_t at);
/* Flush and close; the data is on disk when the folder is committed (dr_outdir_commit). */
DR_MUST_USE dr_status dr_writer_finish(dr_writer *w);
void dr_writer_close(dr_writer *w); /* after an error; harmless after finish */

/* How a file came to be at its new place. */
typedef enum { DR_PLACED_LINK, DR_PLACED_REFLINK, DR_PLACED_COPY } dr_placed;
/* Hard link, else reflink, else copy; *how (may be NULL) says which. */
DR_MUST_USE dr_status dr_place_file(const char *dst, const char *src, dr_placed *how);
/* Every file below src, placed below dst; folders are made. */
DR_MUST_USE dr_status dr_place_tree(const char *dst, const char *src);
/* Always a copy (reflink where the file system can). */
DR_MUST_USE dr_status dr_copy_file(const char *dst, const char *src);

/* ---- output folders ---- */

/*
 * An output folder X is built in X.tmp, which is locked by its run, and exchanged with X at
 * the commit.  X that exists must hold drupe.json (drupe made it), or be empty; anything
 * else is refused.  A kill at any moment leaves X whole (old or new) and at most an X.tmp
 * that the next run clears away.
 *
 * dr_outdir_open_kept leaves X.tmp/resume there, if a run that was killed left one: what
 * it had done (core/resume.h).  It is no part of X: the commit removes it, once all else is
 * on disk.
 *
 * DR_EUSAGE: X is not drupe's.  DR_EIO: another run writes to X.
 */
typedef struct dr_outdir dr_outdir;
DR_MUST_USE dr_status dr_outdir_open(dr_outdir **out, const char *path);
DR_MUST_USE dr_status dr_outdir_open_kept(dr_outdir **out, const char *path);
const char *dr_outdir_tmp(const dr_outdir *o); /* write here; borrowed */
/* X.tmp/resume, which may not be there; borrowed. */
const char *dr_outdir_resume(const dr_outdir *o);
/* fsync of every file and folder, then the exchange. */
DR_MUST_USE dr_status dr_outdir_commit(dr_outdir *o);
void dr_outdir_close(dr_outdir *o); /* discards what was not committed */

#endif
