/*
 * hf_gguf.h - the part of the door hf.h that writes GGUF files.
 */
#ifndef DRUPE_HF_HF_GGUF_H
#define DRUPE_HF_HF_GGUF_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

struct hf_model;

typedef enum {
    HF_GGUF_AUTO, /* packed: Q4_0, Q4_1 or Q8_0, whichever keeps the codes; else 16 bits */
    HF_GGUF_F32,
    HF_GGUF_F16,
    HF_GGUF_BF16,
    HF_GGUF_Q8_0,
    HF_GGUF_Q4_0,
    HF_GGUF_Q4_1,
    HF_GGUF_TYPES
} hf_gguf_type;

typedef struct {
    const char *type; /* static: "q4_0", the one chosen */
    size_t kept;      /* matrices whose packed codes went over as they are */
    size_t rounded;   /* matrices rounded to blocks from floats */
    uint64_t bytes;   /* of the file */
} hf_gguf_report;

/*
 * Writes m with its tokenizer as one file that llama.cpp runs; name: general.name.  A value
 * that the type cannot hold is a warning that names the first tensor with one.
 * DR_EUNSUPPORTED: a family or a tokenizer that llama.cpp has no name for, or something in
 * the model that it would compute otherwise: windows, biases, scales (gguf_out_keys.c).
 */
DR_MUST_USE dr_status hf_gguf_write(const char *path, const struct hf_model *m,
                                    hf_gguf_type type, const char *name,
                                    hf_gguf_report *report);

#endif
