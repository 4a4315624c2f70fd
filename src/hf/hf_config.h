/*
 * hf_config.h - what a model's config says: sizes, and how its family differs from a Llama.
 * A part of the door hf.h, which includes it.
 */
#ifndef DRUPE_HF_HF_CONFIG_H
#define DRUPE_HF_HF_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/dtype.h"

typedef enum {
#define HF_ARCH(id, ...) HF_ARCH_##id,
#include "hf/arch.def"
#undef HF_ARCH
    HF_ARCH_COUNT
} hf_arch;

typedef enum {
    HF_ROPE_DEFAULT,
    HF_ROPE_LINEAR,
    HF_ROPE_LLAMA3,
    HF_ROPE_YARN,
    HF_ROPE_LONGROPE
} hf_rope_kind;

typedef struct {
    hf_rope_kind kind;
    double theta;
    double factor;                            /* linear, llama3, yarn */
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow;              /* yarn: what the ramp was made from */
    double ramp_low, ramp_high; /* yarn: pairs up to low keep their frequency, from high
                                   on it is divided, and between it slides */
    int64_t original_max; /* llama3, yarn, longrope: original_max_position_embeddings */
    int rotary_dim;       /* even; head_dim unless partial */
    const float *short_factor,
        *long_factor;        /* longrope: rotary_dim/2 each; arena of the model */
    double attention_factor; /* cos and sin are multiplied by it (mscale) */
} hf_rope;

/* x / sqrt(mean(x^2) + eps) * w, or (x - mean(x)) / sqrt(var(x) + eps) * w + bias. */
typedef enum { HF_NORM_KIND_RMS, HF_NORM_KIND_LAYER } hf_norm_kind;
typedef enum { HF_ACT_SILU, HF_ACT_GELU_TANH, HF_ACT_GELU } hf_act;
/* Norms of q and k before they are rotated: none; each head by itself, with one weight of
 * head_dim for all; all heads of a token as one row. */
typedef enum { HF_QK_NORM_NONE, HF_QK_NORM_HEAD, HF_QK_NORM_ROW } hf_qk_norm;

enum { HF_EOS_MAX = 16 };

/*
 * Experts in place of the MLP.  The router's logits of a token choose `used` of them, with
 * the softmax over all as weights, divided by their sum when renormalize.  An expert is
 * down(a * sigmoid(alpha * a) * (b + beta)) with a = min(gate, limit) and b = up within
 * +-limit, unless that is 0.
 */
typedef struct {
    int count; /* E; 0: a plain MLP */
    int used;
    int inner; /* I of an expert */
    bool renormalize;
    bool bias; /* of the router and of the experts */
    double alpha, beta, limit;
} hf_experts;

/*
 * A layer, with r = residual_scale and norms that do not exist left out:
 *
 *     x += r * ATTN_OUT(attention(ATTN(x)))       parallel:  y = ATTN(x)
 *     x += r * MLP_OUT(mlp(MLP(x)))                          x += attention(y) + mlp(y)
 *
 * mlp: DOWN(act(gate) * up), or DOWN(act(up)) when it is not gated.  Before the first layer
 * the embedding is multiplied by embed_scale; behind the FINAL norm and the head (with
 * head_bias) logits are multiplied by logit_scale, then s * tanh(logit / s) with s =
 * logit_softcap.  Attention's scores are multiplied by attn_scale, then capped likewise.
 */
typedef struct {
    hf_arch arch;
    const char *arch_name;  /* "LlamaForCausalLM" */
    const char *model_type; /* "llama" */
    const char *genai_type; /* ORT GenAI's word for it */
    int layers;             /* L */
    int hidden;             /* D */
    int intermediate;       /* I */
    int heads, kv_heads;    /* H, G */
    int head_dim;
    int vocab; /* V */
    int64_t max_position;

    hf_norm_kind norm_kind;
    unsigned norms; /* bits 1 << hf_norm: see hf_norm_exists */
    double norm_eps;
    hf_qk_norm qk_norm;
    bool parallel;

    hf_act act;
    bool gated;
    hf_experts experts;
    bool sinks; /* a logit of each head that takes attention from all keys */

    double embed_scale, residual_scale, logit_scale; /* 1 */
    double attn_scale;                               /* 1 / sqrt(head_dim) */
    double attn_softcap, logit_softcap;              /* 0: none */

    /* What may differ from layer to layer: use hf_layer_window and hf_layer_rope. */
    int64_t sliding_window;     /* of the layers that have one; 0: none has */
    hf_rope rope;               /* of most layers */
    hf_rope rope_local;         /* Gemma 3: of the layers with a window */
    const uint8_t *layer_kinds; /* [L], arena of the model */

    bool tied;  /* lm_head shares the embedding */
    bool fused; /* qkv_proj and gate_up_proj are single linears (Phi-3) */
    bool qkv_bias, o_bias, mlp_bias, head_bias;
    int eos[HF_EOS_MAX];
    int eos_count;
    int bos, pad;   /* -1: none */
    dr_dtype dtype; /* torch_dtype of the file */
} hf_config;

/* Keys that a token of this layer sees, itself included; 0: all. */
int64_t hf_layer_window(const hf_config *c, int layer);
/* How this layer rotates q and k; NULL: not at all. */
const hf_rope *hf_layer_rope(const hf_config *c, int layer);

/* Weights of a layer's slots (hf.h); its experts are not counted. */
size_t hf_layer_weights(const hf_config *c);

#endif
