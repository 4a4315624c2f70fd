/*
 * gguf_impl.h - what the gguf files share: a GGUF file taken apart, its keys by name, its
 * block types.
 *
 * gguf.c            hf_gguf_load: fills the hf_model; Hugging Face's tensor names
 * gguf_file.c       the container: header, keys, tensor list
 * gguf_dequant.c    block types: sizes, names, blocks to floats, the row order of q and k
 * gguf_config.c     config.json and generation_config.json rebuilt from the keys, with
 * gguf_family.c     the families that are read and written, and what only some of them have
 * gguf_tokenizer.c  tokenizer.json and tokenizer_config.json likewise, with
 * gguf_merges.c     their merges, and
 * gguf_pretok.c     the way text is cut
 *
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3,
 * little-endian.
 */
#ifndef DRUPE_HF_GGUF_IMPL_H
#define DRUPE_HF_GGUF_IMPL_H

#include "hf/hf_impl.h"

/* Types of keys, by their numbers in the file. */
typedef enum {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPE_COUNT
} gguf_type;

/* One key; extents were checked when it was read. */
typedef struct {
    const char *key; /* arena */
    gguf_type type;  /* of the value, or of an array's elements */
    bool array;
    size_t count;            /* elements; 1 for a plain value */
    const unsigned char *at; /* borrowed: the first element in the mapping */
} gguf_key;

/* One tensor as the file lists it. */
typedef struct {
    const char *name; /* arena: GGUF's name */
    int type;
    int ndim;
    int64_t dims[4];           /* GGUF's order: the fastest first */
    const unsigned char *data; /* borrowed */
    size_t bytes;
} gguf_tensor;

typedef struct {
    hf_model *m;      /* borrowed: arena, and what is filled in */
    const char *path; /* borrowed: named in messages */
    const char *arch; /* general.architecture: the keys' prefix */
    hf_arch family;
    bool turned;    /* q and k are: see gguf_family */
    dr_map map;     /* a copy; the model owns the mapping */
    gguf_key *keys; /* arena, sorted by name */
    size_t key_count;
    gguf_tensor *tensors; /* arena, in file order */
    size_t tensor_count;
} gguf_file;

/* A position in the file that never passes its end. */
typedef struct {
    const unsigned char *at, *end;
} gguf_cursor;

/* A string in the file: not ended by a zero, may hold anything. */
typedef struct {
    const char *text; /* borrowed */
    size_t len;
} gguf_text;

/* ---- the container (gguf_file.c) ---- */

/* Fills keys and tensors from g->map; m, path and map are set. */
DR_MUST_USE dr_status gguf_file_read(gguf_file *g);

/* NULL when absent. */
const gguf_key *gguf_find(const gguf_file *g, const char *key);
/* A key of the architecture: "block_count" is "llama.block_count". */
const char *gguf_arch_key(const gguf_file *g, const char *name);

/* An absent key leaves *out alone; another type is DR_EFORMAT naming file and key. */
DR_MUST_USE dr_status gguf_int(const gguf_file *g, const char *key, int64_t *out);
DR_MUST_USE dr_status gguf_real(const gguf_file *g, const char *key, double *out);
DR_MUST_USE dr_status gguf_bool(const gguf_file *g, const char *key, bool *out);
/* *out: arena, UTF-8 without zero bytes. */
DR_MUST_USE dr_status gguf_str(const gguf_file *g, const char *key, const char **out);
/* An array of this element type; *out is NULL when the key is absent. */
DR_MUST_USE dr_status gguf_array(const gguf_file *g, const char *key, gguf_type type,
                                 const gguf_key **out);

/* i-th number of an array of a fixed-size type that gguf_array checked. */
int32_t gguf_i32_at(const gguf_key *k, size_t i);
float gguf_f32_at(const gguf_key *k, size_t i);
/* An array of strings is walked: start, then next for each of its count elements. */
gguf_cursor gguf_strings(const gguf_file *g, const gguf_key *k);
gguf_text gguf_next_string(gguf_cursor *c);

/* NULL when absent. */
const gguf_tensor *gguf_find_tensor(const gguf_file *g, const char *name);

/* ---- block types (gguf_dequant.c) ---- */

typedef struct {
    const char *name; /* NULL: no such number */
    int block;        /* elements in a block; 0: known by name, not read */
    int bytes;        /* of a block */
    dr_dtype dtype;   /* plain types; DR_DTYPE_COUNT for blocks */
} gguf_block;

/* Type numbers are below this. */
enum { GGUF_TENSOR_TYPES = 42 };

/* What a type number means; name NULL when nobody knows it. */
gguf_block gguf_block_of(int type);
/* n elements, whole blocks, of a type that is read. */
void gguf_dequant(float *dst, const unsigned char *src, int type, size_t n);
/* hf_entry.read of every GGUF tensor: source_type, source_heads when not 0, and
 * source_plus_one. */
dr_status gguf_read(const hf_model *m, const hf_entry *e, float *dst, size_t row0,
                    size_t count);

/* ---- families (gguf_family.c) ---- */

typedef struct {
    const char *name; /* general.architecture */
    hf_arch family;
    bool turned; /* rows of q and k go from halves of a head to pairs */
} gguf_family;

/* By its name in the file; of a family that is written.  NULL: there is none. */
const gguf_family *gguf_family_named(const char *name);
const gguf_family *gguf_family_of(hf_arch family);
/* All names, for a message; arena. */
const char *gguf_family_names(dr_arena *a);

/* SmolLM3 does not rotate in every so many layers. */
enum { GGUF_SMOLLM3_NO_ROPE = 4 };
/* The key of the norms' epsilon, and what attention's scores are multiplied by where no key
 * says it. */
const char *gguf_eps_key(hf_arch family);
double gguf_attention_scale(hf_arch family, int64_t layers, int64_t hidden, int64_t heads,
                            int64_t head_dim);

/* What the keys of <arch>.* say; 0: not said. */
typedef struct {
    int64_t layers, hidden, intermediate, heads, kv_heads, head_dim, vocab;
    int64_t context, rope_dim, window, original_context, pattern;
    double eps, theta, theta_local, factor, attn_factor, attn_softcap, logit_softcap;
    double attn_scale, embed_scale, residual_scale, logit_scale;
    const char *scaling; /* "none", "linear", ...; NULL: not said */
} gguf_numbers;

/* Optional keys: absent leaves *out.  A size is 0 to INT32_MAX, a real not negative. */
DR_MUST_USE dr_status gguf_may(const gguf_file *g, const char *name, int64_t *out);
DR_MUST_USE dr_status gguf_may_real(const gguf_file *g, const char *name, double *out);
/* A single-precision value as the shortest decimal that means it. */
json_t *gguf_short_real(double v);
/* The family's own keys into k, and out of it into a config.json. */
DR_MUST_USE dr_status gguf_family_keys(const gguf_file *g, gguf_numbers *k);
void gguf_family_put(const gguf_file *g, json_t *c, const gguf_numbers *k);

/* ---- what is rebuilt ---- */

/* The type of most weights (gguf.c). */
int gguf_main_type(const gguf_file *g);

/* o[key] = value, whose reference is taken. */
void gguf_put(json_t *o, const char *key, json_t *value);
/* tokenizer.ggml.<name>: -1 when the file names none; one that is not below count is
 * DR_EFORMAT. */
DR_MUST_USE dr_status gguf_token_id(const gguf_file *g, const char *name, int64_t count,
                                    int64_t *out);
/* What Llama 3 divides the i-th frequency by, in float as llama.cpp's converter does. */
float gguf_llama3_factor(const hf_rope *r, size_t i);
/* m->config and m->generation. */
DR_MUST_USE dr_status gguf_make_config(gguf_file *g);
/* m->tokenizer and m->tokenizer_config. */
DR_MUST_USE dr_status gguf_make_tokenizer(gguf_file *g);

/* Merges as tokenizer.json has them, appended to a list (gguf_merges.c).  Stored ones are
 * strings, "left right"; halves and wholes must be in vocab, or it is DR_EFORMAT. */
DR_MUST_USE dr_status gguf_stored_merges(const gguf_file *g, const gguf_key *k,
                                         const json_t *vocab, json_t *merges);

/* A piece that merging may make. */
typedef struct {
    gguf_text text;
    uint32_t id;
    float score;
} gguf_scored;

/* Pairs, [left, right], derived from the pieces' scores. */
DR_MUST_USE dr_status gguf_scored_merges(const gguf_file *g, const gguf_scored *pieces,
                                         size_t count, const json_t *vocab, json_t *merges);

/* How text is cut before byte-level BPE, for a tokenizer.ggml.pre. */
typedef struct {
    const char *name;
    const char *class_name; /* tokenizer_class */
    const char *split;      /* regex; NULL: GPT-2's own, inside ByteLevel */
    bool digits;            /* each digit alone first */
    bool nfc;
    bool ignore_merges; /* a piece that is a token is not merged up */
    bool add_bos;       /* unless tokenizer.ggml.add_bos_token says */
} gguf_pretok;

/* NULL: unknown. */
const gguf_pretok *gguf_pretok_find(const char *pre);
/* The first row that cuts text as a tokenizer.json does; NULL: none.  ignore_merges: of its
 * model.  why: the first thing there that no row has; static or arena. */
const gguf_pretok *gguf_pretok_match(dr_arena *a, const json_t *tokenizer,
                                     bool ignore_merges, const char **why);
/* All known names, for a message; arena. */
const char *gguf_pretok_names(dr_arena *a);
/* normalizer, pre_tokenizer and decoder of byte-level BPE into a tokenizer.json. */
void gguf_pretok_put(json_t *tokenizer, const gguf_pretok *pre);
/* The same for SentencePiece BPE. */
void gguf_metaspace_put(json_t *tokenizer, bool add_space_prefix);

#endif
