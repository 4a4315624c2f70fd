/*
 * hf.h - models as Hugging Face keeps them: folders, hub ids, GGUF files; read and written.
 *
 * An hf_model gives, whatever the source: a config (hf_config), a list of tensors by their
 * Hugging Face names, and the decoder's parts by role (hf_linear).  Weights stay mapped in
 * the file (safetensors, pytorch_model.bin, GGUF); they are converted when they are read.
 * Packed weights (AWQ, GPTQ, Olive's own, compressed-tensors) come out as dr_qtensor: only
 * this door knows those layouts.  Code in model folders and pickles is never run.
 */
#ifndef DRUPE_HF_H
#define DRUPE_HF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/json.h"
#include "core/pool.h"
#include "core/qtensor.h"
#include "core/status.h"
#include "core/tensor.h"
#include "hf/hf_adapter.h"
#include "hf/hf_bnb.h"
#include "hf/hf_config.h"
#include "hf/hf_gguf.h"
#include "hf/hf_resume.h"

/* ---- where a model comes from ---- */

/*
 * Turns what the user typed (a folder, a .gguf file, a hub id such as
 * HuggingFaceTB/SmolLM2-135M-Instruct, an https://huggingface.co/... link, a folder with
 * model_config.json made by drupe or Olive) into a local path, downloading what is missing
 * into the hub cache (HF_HOME, HF_HUB_CACHE; HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE).
 * DR_EUSAGE: neither a path nor an id; DR_EIO: network or disk, with what to do on 401/403;
 * DR_EUNSUPPORTED: azureml:// and the like, by name.
 */
DR_MUST_USE dr_status hf_resolve(dr_arena *a, const char **path, const char *name);

/* ---- an open model ---- */

typedef struct hf_model hf_model;

/* path: a folder or a .gguf file (see hf_resolve).  Every tensor's size is checked against
 * its file.  DR_EFORMAT, DR_EUNSUPPORTED (architecture: named, with the supported ones). */
DR_MUST_USE dr_status hf_model_open(hf_model **out, const char *path);
void hf_model_close(hf_model *m);
const hf_config *hf_model_config(const hf_model *m);
const char *hf_model_path(const hf_model *m);
/* config.json as read (or rebuilt from a GGUF); borrowed. */
const json_t *hf_model_config_json(const hf_model *m);
/* generation_config.json, NULL when there is none; borrowed. */
const json_t *hf_model_generation_json(const hf_model *m);
bool hf_model_is_gguf(const hf_model *m);
uint64_t hf_model_weight_bytes(const hf_model *m); /* bytes of all tensors in their files */
/* How the file says its weights came to be: "bf16", "gguf Q4_1", "awq 4 bit group 64". */
const char *hf_model_origin(const hf_model *m);

/* tokenizer.json and tokenizer_config.json as JSON (files, or rebuilt from a GGUF);
 * references that the caller must json_decref.  config may come back NULL; it has
 * chat_template from chat_template.jinja when that file is there, which wins. */
DR_MUST_USE dr_status hf_model_tokenizer(const hf_model *m, json_t **tokenizer,
                                         json_t **config);
/* Writes tokenizer.json, tokenizer_config.json, special tokens, chat template,
 * generation_config.json into dir: byte for byte from a folder, rebuilt from a GGUF. */
DR_MUST_USE dr_status hf_model_copy_side_files(const hf_model *m, const char *dir);

/* ---- tensors by name ---- */

size_t hf_tensor_count(const hf_model *m);
/* i-th tensor in file order, as stored: for GGUF block types dtype is DR_DTYPE_U8 over the
 * raw bytes and hf_tensor_type names the type. */
const dr_tensor *hf_tensor_at(const hf_model *m, size_t i);
const char *hf_tensor_type(const hf_model *m, size_t i); /* "BF16", "Q4_1", ... */
const dr_tensor *hf_tensor_find(const hf_model *m, const char *name); /* NULL: absent */

/* ---- the decoder by role ---- */

/*
 * The four matrix products of a decoder layer.  QKV and GATE_UP are concatenations: their
 * output is [q rows; k rows; v rows] and [gate rows; up rows], whether the file has one
 * fused module or several; hf_linear.row0 says where a module's rows begin.
 */
typedef enum {
    HF_SLOT_QKV,
    HF_SLOT_O,
    HF_SLOT_GATE_UP,
    HF_SLOT_DOWN,
    HF_SLOT_COUNT
} hf_slot;

typedef struct {
    const char *path; /* module: "model.layers.0.self_attn.q_proj"; model's arena */
    const char *leaf; /* "q_proj" */
    int layer;
    hf_slot slot;
    size_t row0; /* first output row within the slot */
    size_t n_out, n_in;
    bool has_bias;
    bool packed; /* hf_linear_packed gives it quantized, as it is stored */
} hf_linear;

/* Output rows of a slot in all, and its inputs.  GATE_UP has I rows when c is not gated. */
size_t hf_slot_out(const hf_config *c, hf_slot slot);
size_t hf_slot_in(const hf_config *c, hf_slot slot);

/* The modules of one layer in order of slot and row0 (7 for Llama, 4 for Phi-3). */
size_t hf_layer_linears(const hf_model *m, int layer, const hf_linear **out);
/* lm_head as a linear when untied, else NULL: the head is the embedding, [V][D] like it. */
const hf_linear *hf_head_linear(const hf_model *m);
const hf_linear *hf_embed_linear(const hf_model *m);

/* dst[count][n_in] = rows row0.. of a linear as floats; a packed one is dequantized. */
DR_MUST_USE dr_status hf_linear_read(const hf_model *m, const hf_linear *l, float *dst,
                                     size_t row0, size_t count);
/* Its rows as they are in the mapping, [n_out][n_in] of bf16, perhaps unaligned; NULL: they
 * are stored in another way. */
const void *hf_linear_bf16(const hf_model *m, const hf_linear *l);
/* dst[n_out]; zeros when there is no bias. */
DR_MUST_USE dr_status hf_linear_bias(const hf_model *m, const hf_linear *l, float *dst);
/* A packed linear in drupe's layout, by pool (NULL: by this thread); released with
 * dr_qtensor_release. */
DR_MUST_USE dr_status hf_linear_packed(const hf_model *m, const hf_linear *l,
                                       dr_qtensor *out, dr_pool *pool);

/* bits, block, rows and cols of what that gives, nothing else; symmetric: without zeros. */
void hf_linear_packed_shape(const hf_model *m, const hf_linear *l, dr_qtensor *out,
                            bool *symmetric);

/* dst[V]; zeros when c has no head_bias. */
DR_MUST_USE dr_status hf_head_bias(const hf_model *m, float *dst);

typedef enum {
    HF_NORM_ATTN,     /* of attention's input */
    HF_NORM_ATTN_OUT, /* of its output, before the residual is added */
    HF_NORM_MLP,
    HF_NORM_MLP_OUT,
    HF_NORM_Q, /* see hf_qk_norm */
    HF_NORM_K,
    HF_NORM_FINAL,
    HF_NORM_COUNT
} hf_norm;
bool hf_norm_exists(const hf_config *c, hf_norm which);
/* Its weights: D, but head_dim, H*head_dim or G*head_dim for Q and K. */
size_t hf_norm_size(const hf_config *c, hf_norm which);
/* A file holds the weight less this (Gemma: 1); hf_norm_read and hf_writer_norm take and
 * give the weight itself. */
float hf_norm_offset(const hf_config *c);
/* dst[hf_norm_size]; layer is ignored for HF_NORM_FINAL. */
DR_MUST_USE dr_status hf_norm_read(const hf_model *m, hf_norm which, int layer, float *dst);
/* Likewise; zeros for HF_NORM_KIND_RMS. */
DR_MUST_USE dr_status hf_norm_bias_read(const hf_model *m, hf_norm which, int layer,
                                        float *dst);
/* dst[count][D] = rows (tokens) row0.. of the embedding. */
DR_MUST_USE dr_status hf_embed_read(const hf_model *m, float *dst, size_t row0,
                                    size_t count);

/* ---- experts (hf_config.experts) ---- */

/* GATE_UP: 2I rows of D inputs an expert, gate and up rows in turn; DOWN: D rows of I. */
typedef enum { HF_EXPERT_GATE_UP, HF_EXPERT_DOWN } hf_expert_part;

size_t hf_expert_out(const hf_config *c, hf_expert_part part);
size_t hf_expert_in(const hf_config *c, hf_expert_part part);
/* dst[count][in] = rows of all experts of a layer, one expert after another: row0 counts
 * from the first row of expert 0. */
DR_MUST_USE dr_status hf_expert_read(const hf_model *m, int layer, hf_expert_part part,
                                     float *dst, size_t row0, size_t count);
/* dst[E][out]; zeros without bias. */
DR_MUST_USE dr_status hf_expert_bias(const hf_model *m, int layer, hf_expert_part part,
                                     float *dst);
/* dst[E][D]; dst[E], zeros without bias. */
DR_MUST_USE dr_status hf_router_read(const hf_model *m, int layer, float *dst);
DR_MUST_USE dr_status hf_router_bias(const hf_model *m, int layer, float *dst);
/* dst[H] with c->sinks. */
DR_MUST_USE dr_status hf_sinks_read(const hf_model *m, int layer, float *dst);

/* cos/sin tables [rows][rotary_dim/2] for positions 0..rows-1, in float as transformers
 * computes them; longrope: long_rope chooses the factor list.  Other kinds ignore it. */
void hf_rope_tables(const hf_rope *r, bool long_rope, size_t rows, float *cos_out,
                    float *sin_out);

/* ---- quantized checkpoints ---- */

typedef enum {
    HF_QUANT_NONE,
    HF_QUANT_AWQ,
    HF_QUANT_GPTQ,
    HF_QUANT_OLIVE,
    HF_QUANT_COMPRESSED /* compressed-tensors, pack-quantized */
} hf_quant_method;

typedef struct {
    hf_quant_method method;
    int bits;
    int group; /* -1: a whole row */
    bool symmetric;
} hf_quant;

/* What the checkpoint says; HF_QUANT_NONE for a plain one, and for bitsandbytes nf4 and
 * fp4, whose grids are not even: they are read as floats, the origin names them. */
hf_quant hf_model_quant(const hf_model *m);
/* Linears that are quantized in the file but not packed here, since their inputs are not in
 * the order of their groups (GPTQ's desc_act): they are read as floats. */
size_t hf_unordered_linears(const hf_model *m);

/* Does the regular expression match name from its start, and with whole up to its end?
 * One that does not compile is DR_EFORMAT, naming where it stands. */
DR_MUST_USE dr_status hf_pattern_match(bool *out, const char *pattern, bool whole,
                                       const char *name, const char *where);

/* ---- single files ---- */

/* Writes one file; tensors in the order given, header padded to 8 bytes. */
DR_MUST_USE dr_status hf_st_write(const char *path, const dr_tensor *tensors, size_t count);

/* The tensors that a file of torch.save lists; their data is not there to be read. */
DR_MUST_USE dr_status hf_torch_tensors(dr_arena *a, dr_tensor **tensors, size_t *count,
                                       const char *path);

#include "hf/hf_writer.h"

#endif
