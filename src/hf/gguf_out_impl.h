/*
 * gguf_out_impl.h - what the files that write GGUF share.
 *
 * gguf_out.c        hf_gguf_write: what is written how, and the container
 * gguf_out_keys.c   keys, and those that follow from the config
 * gguf_out_vocab.c  the tokenizer's keys
 * gguf_quantize.c   floats and packed weights to blocks
 */
#ifndef DRUPE_HF_GGUF_OUT_IMPL_H
#define DRUPE_HF_GGUF_OUT_IMPL_H

#include "core/buf.h"
#include "hf/gguf_impl.h"

/* Tensor types that are written, by their numbers in the file. */
enum {
    GGUF_OUT_F32 = 0,
    GGUF_OUT_F16 = 1,
    GGUF_OUT_Q4_0 = 2,
    GGUF_OUT_Q4_1 = 3,
    GGUF_OUT_Q8_0 = 8,
    GGUF_OUT_BF16 = 30
};

/* A file being made.  The first thing that goes wrong stays in st, and later calls do
 * nothing. */
typedef struct {
    const hf_model *m; /* borrowed */
    const char *arch;  /* "llama": the prefix of the config's keys */
    dr_arena *a;       /* borrowed */
    dr_buf keys;
    uint64_t key_count;
    dr_status st;
} gguf_out;

/* ---- keys (gguf_out_keys.c) ---- */

void gguf_out_u32(gguf_out *o, const char *key, int64_t v);
void gguf_out_f32(gguf_out *o, const char *key, double v);
void gguf_out_bool(gguf_out *o, const char *key, bool v);
void gguf_out_str(gguf_out *o, const char *key, const char *v);
/* An array begins; its count elements follow as raw values or texts. */
void gguf_out_array(gguf_out *o, const char *key, gguf_type type, size_t count);
void gguf_out_raw(gguf_out *o, uint64_t v, size_t bytes);
void gguf_out_text(gguf_out *o, const char *s, size_t n);
/* "llama.<name>"; arena. */
const char *gguf_out_arch_key(const gguf_out *o, const char *name);

/* A table of the rotary embedding that llama.cpp takes as a tensor. */
typedef struct {
    const char *name;
    const float *values; /* arena or the config's */
    size_t count;
} gguf_out_table;
enum { GGUF_OUT_TABLES = 2 };

/* general.* and <arch>.*; tables: those that belong to the rotary embedding. */
DR_MUST_USE dr_status gguf_out_config(gguf_out *o, const char *name, int file_type,
                                      gguf_out_table tables[GGUF_OUT_TABLES],
                                      size_t *table_count);

/* ---- tokenizer (gguf_out_vocab.c) ---- */

/* tokenizer.*.  DR_EUNSUPPORTED: a tokenizer that llama.cpp has no name for. */
DR_MUST_USE dr_status gguf_out_tokenizer(gguf_out *o);

/* ---- blocks (gguf_quantize.c) ---- */

/* Bytes of n elements, whole blocks. */
size_t gguf_out_bytes(int type, size_t n);
/* n elements, whole blocks, as ggml's reference quantizes them. */
void gguf_quantize(void *dst, const float *src, int type, size_t n);
/* Can the codes of q go into blocks of this type unchanged? */
bool gguf_keeps_codes(const dr_qtensor *q, int type);
/* One row of q, whose codes it keeps. */
void gguf_from_packed(void *dst, const dr_qtensor *q, int type, size_t row);

#endif
