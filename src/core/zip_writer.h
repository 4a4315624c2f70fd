/*
 * zip_writer.h - zip archives, written from front to back: entries are stored, not
 * compressed, so that they can be mapped where they lie.  Model weights do not shrink.
 *
 * The same entries give the same bytes: the date is zip's first day, 1980-01-01.  Fields
 * of zip64 are there past 4 GiB or 65534 entries, and nowhere else.
 */
#ifndef DRUPE_CORE_ZIP_WRITER_H
#define DRUPE_CORE_ZIP_WRITER_H

#include <stddef.h>

#include "core/status.h"

typedef struct dr_zip dr_zip;

typedef struct {
    const void *data;
    size_t bytes;
} dr_zip_part;

DR_MUST_USE dr_status dr_zip_open(dr_zip **out, const char *path);
/* An entry of these parts, one after the other. */
DR_MUST_USE dr_status dr_zip_add(dr_zip *z, const char *name, const dr_zip_part *parts,
                                 size_t count);
DR_MUST_USE dr_status dr_zip_add_text(dr_zip *z, const char *name, const char *text);
DR_MUST_USE dr_status dr_zip_add_file(dr_zip *z, const char *name, const char *path);
/* Every file below dir, by name, as under/... */
DR_MUST_USE dr_status dr_zip_add_tree(dr_zip *z, const char *under, const char *dir);
/* The directory; the data is on disk when the folder is committed (dr_outdir_commit).
 * DR_EUSAGE: two entries have one name. */
DR_MUST_USE dr_status dr_zip_finish(dr_zip *z);
void dr_zip_close(dr_zip *z); /* NULL is fine */

#endif
