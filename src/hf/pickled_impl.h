/*
 * pickled_impl.h - PyTorch's own files inside this room: a zip archive that holds a pickle
 * and the bytes of its tensors.
 *
 * zip.c         the archive: its entries, where they lie
 * pickle.c      the pickle: a list of steps that build values, of which few are allowed
 * torch_file.c  what the values mean: names, tensors, storages
 *
 * Nothing of a file is ever run: a pickle names functions, and only those that rebuild
 * tensors are known here, as words.
 */
#ifndef DRUPE_HF_PICKLED_IMPL_H
#define DRUPE_HF_PICKLED_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/file.h"
#include "core/tensor.h"

/* ---- zip.c ---- */

/* One stored entry. */
typedef struct {
    const char *name;          /* arena */
    const unsigned char *data; /* borrowed: in the mapping */
    size_t size;
} hf_zip_entry;

typedef struct {
    hf_zip_entry *entries; /* arena, sorted by name */
    size_t count;
} hf_zip;

/* All entries of a mapped archive, every extent checked.  DR_EFORMAT: damaged, or a name
 * twice; DR_EUNSUPPORTED: compressed or encrypted entries, several disks - by name. */
DR_MUST_USE dr_status hf_zip_read(dr_arena *a, hf_zip *out, const dr_map *map,
                                  const char *where);
/* NULL when absent. */
const hf_zip_entry *hf_zip_find(const hf_zip *z, const char *name);

/* ---- pickle.c ---- */

typedef enum {
    HF_PK_NONE,
    HF_PK_BOOL,
    HF_PK_INT,
    HF_PK_FLOAT,
    HF_PK_TEXT,
    HF_PK_TUPLE,
    HF_PK_LIST,
    HF_PK_DICT,   /* an OrderedDict too */
    HF_PK_GLOBAL, /* "torch FloatStorage" */
    HF_PK_CALL,   /* what a global would have made of its arguments */
    HF_PK_PERSISTENT,
    HF_PK_KINDS
} hf_pk_kind;

typedef struct hf_pk hf_pk;

struct hf_pk {
    hf_pk_kind kind;
    int64_t number;   /* BOOL, INT */
    const char *text; /* arena: TEXT; GLOBAL: module, a space, name.  Ends with a zero */
    size_t length;    /* bytes of text, which may hold zeros */
    /* TUPLE, LIST; DICT: key, value, key, ...; CALL: global, arguments; PERSISTENT: id */
    const hf_pk **items; /* arena */
    size_t count, cap;
};

/*
 * The value that the pickle leaves.  globals: the names that may stand in it; values may
 * contain themselves.  DR_EUNSUPPORTED: another protocol than 2, any other step or global,
 * by name; DR_EFORMAT: damaged.
 */
DR_MUST_USE dr_status hf_pickle_read(dr_arena *a, const hf_pk **out,
                                     const unsigned char *data, size_t size,
                                     const char *const *globals, size_t global_count,
                                     const char *where);
/* "a tuple", "text", ... */
const char *hf_pk_name(const hf_pk *v);

/* ---- torch_file.c ---- */

/*
 * The tensors of a mapped file of torch.save in the order of its dictionary; names and list
 * in a, data in the mapping, but for tensors that are not in row order (transposed), which
 * are copied into a.  Same promises as hf_st_parse.
 */
DR_MUST_USE dr_status hf_torch_parse(dr_arena *a, dr_tensor **tensors, size_t *count,
                                     const dr_map *map, const char *where);

#endif
