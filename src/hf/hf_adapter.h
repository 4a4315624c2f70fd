/*
 * hf_adapter.h - adapters as PEFT keeps them: a part of hf's door.
 */
#ifndef DRUPE_HF_ADAPTER_H
#define DRUPE_HF_ADAPTER_H

#include <stdbool.h>
#include <stddef.h>

#include "core/arena.h"
#include "core/pool.h"
#include "core/status.h"

typedef struct hf_model hf_model; /* as in hf.h */
typedef struct hf_writer hf_writer;

typedef enum { HF_ADAPTER_LORA, HF_ADAPTER_LOHA, HF_ADAPTER_LOKR } hf_adapter_kind;

/* A matrix of a LoHa or LoKr module; rows 0: there is none. */
typedef struct {
    const float *data; /* [rows][cols] */
    size_t rows, cols;
} hf_factor;

enum { HF_FACTORS = 4 };

typedef struct {
    const char *module; /* "model.layers.0.self_attn.q_proj" */
    int r;
    float scale; /* alpha/r, or alpha/sqrt(r) with use_rslora; patterns honoured */
    size_t n_in, n_out;
    const float *a; /* [r][n_in]  */
    const float *b; /* [n_out][r] */
    /* DoRA, else NULL: y = factor * (W x + scale B A x) + bias, the factor of an output
     * being magnitude / |row of W + scale B A| */
    const float *magnitude; /* [n_out] */
    const float *factor;    /* [n_out]; by hf_adapter_factors */
    size_t magnitude_count; /* as the file has them; n_out once it is open */
    /* LoHa: w1_a, w1_b, w2_a, w2_b, and dW = scale (w1_a w1_b) o (w2_a w2_b).  LoKr: the
     * same or w1 and none, w2 and none, and dW = scale w1 (x) w2. */
    hf_factor f[HF_FACTORS];
    hf_adapter_kind kind; /* its adapter's */
} hf_lora_module;

typedef struct {
    char *path; /* owned: folder */
    int r;
    double alpha;
    double dropout;
    bool rslora, dora;
    hf_adapter_kind kind;
    int decompose_factor; /* LoKr's: -1, or what w1 should be near */
    bool decompose_both, rank_dropout_scale;
    double module_dropout;   /* of LoHa and LoKr, whose rank_dropout is in dropout */
    hf_lora_module *modules; /* owned, in order of layer, then of the layer's linears */
    size_t count;
    dr_arena arena; /* holds names and float values */
} hf_adapter;

/* A PEFT LoRA folder (adapter_config.json, adapter_model.safetensors or the older .bin).
 * m (may be NULL) is what it must fit: every module checked by name and shape.
 * DR_EUNSUPPORTED: other kinds, bias, modules_to_save - by name. */
DR_MUST_USE dr_status hf_adapter_open(hf_adapter *out, const char *dir, const hf_model *m);
/* LoHa and LoKr as well. */
DR_MUST_USE dr_status hf_adapter_open_any(hf_adapter *out, const char *dir,
                                          const hf_model *m);
/* Shapes of a module of a's kind and settings, from its sizes and rank; without data. */
void hf_lycoris_shapes(hf_lora_module *mod, const hf_adapter *a);
/* Values in its factors. */
size_t hf_factor_count(const hf_lora_module *mod);
void hf_adapter_release(hf_adapter *a);
/* The factors of a DoRA adapter over its base m, which it was opened with; nothing for
 * LoRA. The same bytes for any number of threads. */
DR_MUST_USE dr_status hf_adapter_factors(hf_adapter *a, const hf_model *m, dr_pool *pool);
/* Writes adapter_config.json and adapter_model.safetensors (fp32, PEFT's names). */
DR_MUST_USE dr_status hf_adapter_write(const hf_adapter *a, const char *dir,
                                       const char *base_model, const char *const *targets,
                                       size_t target_count);

/* ---- folded into the weights of their base (merge.c) ---- */

/*
 * w[count][n_in], the base's rows row0.. of a module, becomes those of the merged weight:
 * W + scale B A, and with DoRA each row times its magnitude over its length.  Every kind of
 * adapter has its delta here and nowhere else.
 * DR_EFORMAT: DoRA on a row whose length is 0 or not finite.
 */
DR_MUST_USE dr_status hf_merge_rows(float *w, const hf_lora_module *mod, size_t row0,
                                    size_t count);
/*
 * Gives the writer, which copies the rest of m, every module of an adapter that was opened
 * with m: merged, in the writer's type.  The writer is a plain one, whatever m is: packed
 * weights are dequantized.  One linear is in memory at a time; the same bytes for any
 * number of threads.
 */
DR_MUST_USE dr_status hf_merge_adapter(hf_writer *w, const hf_adapter *a, const hf_model *m,
                                       dr_pool *pool);

#endif
