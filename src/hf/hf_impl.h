/*
 * hf_impl.h - an open model inside this room, and what a source of weights must fill in.
 *
 * Two sources exist: a folder (folder.c: safetensors, PyTorch's files) and a GGUF file
 * (gguf.c).
 * A source is one function that fills an empty hf_model:
 *
 *     dr_status hf_gguf_load(hf_model *m, const char *path)
 *
 *   1. m->config: config.json as transformers would write it (GGUF: rebuilt from its
 *      metadata).  m->generation, m->tokenizer, m->tokenizer_config: likewise, NULL when
 *      there is none; a folder leaves the tokenizer NULL, since its files are read when
 *      asked for.  The model owns all four.
 *   2. m->maps through hf_model_add_map: the open mappings.
 *   3. m->entries through hf_model_add_entry: one per tensor, under its Hugging Face name
 *      ("model.layers.0.self_attn.q_proj.weight"), in the file's order, every extent
 *      checked against the mapping.  What Hugging Face does not have (rope_freqs) is left
 *      out.
 *   4. m->origin: how the weights came to be, for people ("gguf Q4_1").
 *
 * On failure it returns at once: hf_model_open releases whatever was filled in.  The common
 * code then sorts the names (a duplicate is DR_EFORMAT), parses config (config.c), finds
 * the decoder's parts and checks their shapes (roles.c).
 *
 * An open model is not changed any more: every reader may run on several threads at once,
 * so a read function keeps no state and no lazily filled cache.
 */
#ifndef DRUPE_HF_HF_IMPL_H
#define DRUPE_HF_HF_IMPL_H

#include "core/file.h"
#include "hf/hf.h"

typedef struct hf_entry hf_entry;

/*
 * dst[count][e->cols] = rows row0 .. row0+count-1 as floats.  The caller has checked that
 * they exist.  Thread-safe.  A GGUF undoes here the block format and the row order that its
 * converter gave to q_proj and k_proj of a Llama.
 */
typedef dr_status (*hf_read_fn)(const hf_model *m, const hf_entry *e, float *dst,
                                size_t row0, size_t count);

struct hf_entry {
    /* As hf_tensor_at gives it out: bytes in the mapping with count * dtype = bytes.  Plain
     * types have their Hugging Face shape here (rows first, as torch prints it); block
     * types (Q4_1, ...) are U8 of one dimension, [bytes].  t.name: arena. */
    dr_tensor t;
    const char *type; /* "BF16", "Q4_1"; static or arena */
    /* The Hugging Face shape, whatever the storage. */
    int ndim;
    int64_t dims[DR_TENSOR_DIMS];
    /* dims seen as a matrix: cols is the last dimension, rows the product of the others; a
     * vector is one row, so a norm is read by read(m, e, dst, 0, 1). */
    size_t rows, cols;
    hf_read_fn read; /* NULL: integers, which have no float reading */
    /* For the source alone: GGUF has its block type and the heads of the row order here. */
    int source_type;
    int source_heads;
    bool source_plus_one; /* a norm of Gemma: the file holds 1 more than Hugging Face's */
};

/* dst[count][n_in] = rows of a linear that is neither plain nor even; as hf_read_fn. */
typedef dr_status (*hf_rows_fn)(const hf_model *m, const hf_linear *l, float *dst,
                                size_t row0, size_t count);

enum { HF_OTHER_PARTS = 5 };

/* Where one linear's parts lie; parallel to hf_model.linears.  Entries: borrowed, NULL:
 * absent.  A plain linear has weight; a packed one qweight and scales; one with rows has
 * what that needs. */
typedef struct {
    const hf_entry *weight, *bias;
    const hf_entry *qweight, *scales, *qzeros, *g_idx;
    const hf_entry *others[HF_OTHER_PARTS]; /* what else belongs to it */
    hf_quant quant;                         /* of this linear: overrides honoured */
    hf_rows_fn rows;                        /* NULL: weight, or packed */
    const void *grid;                       /* arena; for rows alone */
} hf_parts;

struct hf_model {
    dr_arena arena;          /* strings, shapes, rope factors */
    const char *path;        /* arena: the folder or the .gguf file */
    const char *config_path; /* arena: named in messages about config (GGUF: the file) */
    bool gguf;
    const char *origin; /* arena or static */

    json_t *config;           /* owned */
    json_t *generation;       /* owned, may be NULL */
    json_t *tokenizer;        /* owned; GGUF only */
    json_t *tokenizer_config; /* owned; GGUF only, may be NULL */

    hf_config c;
    hf_quant quant;
    bool gptq_v2;     /* GPTQ zero points are stored as they are, not minus 1 */
    bool bnb;         /* bitsandbytes, 4 bits; quant says nothing */
    size_t unordered; /* linears whose inputs are not in order */

    dr_map *maps; /* owned */
    size_t map_count;
    hf_entry *entries; /* owned; file order; not moved after loading */
    size_t entry_count, entry_cap;
    const hf_entry **by_name; /* owned: entries sorted by name */

    /* L layers of linears_per_layer, then the head when it has its own weights, then the
     * embedding (read like a linear, never handed out). */
    hf_linear *linears;
    hf_parts *parts;
    size_t linear_count; /* all of them, the embedding included */
    size_t linears_per_layer;
    bool has_head;
};

/* ---- for sources ---- */

/* A zeroed entry at the end of the list; the pointer is good until the next call. */
hf_entry *hf_model_add_entry(hf_model *m);
/* Maps a file for the life of the model; *out is a copy of the mapping, to read from. */
DR_MUST_USE dr_status hf_model_add_map(hf_model *m, const char *path, dr_map *out);
/* Sets e's ndim, dims, rows and cols.  DR_EFORMAT names e->t.name, which must be set, when
 * a dimension is negative or their product does not fit; 1 <= ndim <= DR_TENSOR_DIMS. */
DR_MUST_USE dr_status hf_entry_shape(hf_entry *e, const int64_t *dims, int ndim,
                                     const char *where);
/* The read function of plain F32, F16, BF16 and F64 entries in row order. */
dr_status hf_read_plain(const hf_model *m, const hf_entry *e, float *dst, size_t row0,
                        size_t count);

/* The sources: see the head of this file. */
DR_MUST_USE dr_status hf_folder_load(hf_model *m, const char *path);
DR_MUST_USE dr_status hf_gguf_load(hf_model *m, const char *path);

/* ---- common code ---- */

/* By name; NULL: absent. */
const hf_entry *hf_entry_find(const hf_model *m, const char *name);
/* Rows as floats, the range checked; DR_EUNSUPPORTED for integers. */
DR_MUST_USE dr_status hf_entry_read(const hf_model *m, const hf_entry *e, float *dst,
                                    size_t row0, size_t count);

#endif
