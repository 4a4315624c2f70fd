/*
 * writer_impl.h - the writer's plan, for writer.c, and for writer_state.c, which saves
 * what is written of it and takes it up again.
 */
#ifndef DRUPE_HF_WRITER_IMPL_H
#define DRUPE_HF_WRITER_IMPL_H

#include <stdatomic.h>

#include "core/crew.h"
#include "hf/bnb_impl.h"
#include "hf/hf_impl.h"
#include "hf/roles_impl.h"
#include "hf/st_impl.h"

enum { HF_SHARD_NAME = 64, HF_CHUNK_FLOATS = 1 << 20 };

/* One tensor of the output. */
struct slot {
    dr_tensor t;             /* name: arena or the source's; data NULL */
    const hf_entry *source;  /* borrowed; NULL: a linear that the source has otherwise */
    const hf_linear *linear; /* borrowed; NULL: not a linear's weight; both NULL: nowhere
                                in the source */
    size_t part;             /* of the linear's plan */
    size_t file;
    uint64_t at; /* place in the file */
    size_t rows; /* of hf_writer_outer so far */
    bool written;
    atomic_bool unfit; /* a piece that was copied is not finite */
    bool summed;       /* sum is that of its bytes in the file */
    uint64_t sum;
};

struct shard {
    char name[HF_SHARD_NAME];
    dr_buf header; /* owned: until the file is open */
    dr_writer w;
    bool open;
    bool saved;          /* its header is on disk */
    size_t first, count; /* slots */
};

struct hf_writer {
    dr_arena arena;
    const hf_model *m; /* borrowed */
    const char *dir;   /* arena */
    const char *keep;  /* arena: files are built there; NULL: in dir */
    hf_quant quant;    /* method HF_QUANT_NONE: plain */
    bool bnb;          /* the layers' linears in bnb_grid */
    hf_bnb bnb_grid;
    hf_quant *formats; /* owned; by linear */
    hf_packed *plans;  /* owned; by linear; count 0: plain */
    size_t *first;     /* owned; by linear: its first slot */
    uint64_t shard_bytes;
    dr_dtype dtype;    /* of all floats; DR_DTYPE_COUNT: the source's */
    const char *unfit; /* the first tensor with a value that is not finite in its type */
    bool untied;       /* a tied model gets a head */
    size_t head_slot;  /* of that head */
    bool mute; /* nothing is written */
    bool planned;
    struct slot *slots; /* owned */
    size_t slot_count;
    size_t *slot_of;      /* owned; by entry of the source; SIZE_MAX: part of a linear */
    struct shard *shards; /* owned */
    size_t shard_count;
    void *chunk;   /* owned; HF_CHUNK_FLOATS */
    dr_crew *crew; /* owned; NULL: the caller's thread does all */
};

/* Where a linear is in the lists by linear. */
size_t hf_writer_index(const hf_writer *w, const hf_linear *l);
/* Every tensor gets its place, every file its header. */
DR_MUST_USE dr_status hf_writer_plan(hf_writer *w);
/* The files are made, or with kept gone on in. */
DR_MUST_USE dr_status hf_writer_open_files(hf_writer *w, bool kept);
/* Everything that was given is in the files. */
DR_MUST_USE dr_status hf_writer_wait(hf_writer *w);
/* Where a file is built; arena. */
const char *hf_writer_shard_path(hf_writer *w, const struct shard *f);

#endif
