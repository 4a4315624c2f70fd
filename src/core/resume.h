/*
 * resume.h - what a run that was killed had done, for the run that is started again.
 *
 * A state is a folder with pieces, each under a name: small ones (which layer comes next)
 * and large ones (the text's hidden states).  A piece that is put is on disk when that
 * returns, and the piece before it stays whole until then; a kill at any moment, or a power
 * cut, leaves one of the two.  Each piece has a checksum, and the key of its run: a hash of
 * all that its bytes follow from.  Other files in the folder are the user's own
 * (hf_writer_keep puts those of a checkpoint there).
 */
#ifndef DRUPE_CORE_RESUME_H
#define DRUPE_CORE_RESUME_H

#include "core/file.h"
#include "core/hash.h"
#include "core/status.h"

typedef struct dr_resume dr_resume;

/*
 * Opens the folder, which is made if need be.  One that has no whole piece of this key is
 * cleared; if it has pieces of another key, or only broken ones, a line says so and names
 * `what`, the output.
 */
DR_MUST_USE dr_status dr_resume_open(dr_resume **out, const char *dir,
                                     const char key[DR_SHA256_HEX], const char *what);
void dr_resume_close(dr_resume *r); /* the files stay */
const char *dr_resume_dir(const dr_resume *r);
/* Says that what is there is of no use. */
void dr_resume_tell_broken(const dr_resume *r);

typedef struct {
    const void *data; /* borrowed */
    size_t bytes;
} dr_part;
enum { DR_RESUME_PARTS = 4 }; /* at most; each begins at a multiple of 64 in its file */

/* The piece becomes these parts, one behind the other.  name: static, a file's. */
DR_MUST_USE dr_status dr_resume_put(dr_resume *r, const char *name, const dr_part *parts,
                                    size_t count);
/* The same, where failing is no error: a warning says so, and false is returned. */
bool dr_resume_keep(dr_resume *r, const char *name, const dr_part *parts, size_t count);
/* The last whole one: a mapping, and its parts, which must be so many.  false: there is
 * none, and nothing is open. */
bool dr_resume_get(const dr_resume *r, const char *name, dr_map *map, dr_part *parts,
                   size_t count);
/* The only part of a piece, if it has so many bytes, into dst; r NULL: false. */
bool dr_resume_take(const dr_resume *r, const char *name, void *dst, size_t bytes);

#endif
