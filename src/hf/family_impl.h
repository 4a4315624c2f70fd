/*
 * family_impl.h - a row of arch.def: what a family's config class has for defaults, and how
 * its decoder differs from a Llama.  What is zero is as in a Llama.
 */
#ifndef DRUPE_HF_FAMILY_IMPL_H
#define DRUPE_HF_FAMILY_IMPL_H

#include "hf/hf.h"

/* Names of modules (roles.c). */
typedef enum {
    HF_LAYOUT_SPLIT, /* q_proj, k_proj, v_proj, o_proj; gate_proj, up_proj, down_proj */
    HF_LAYOUT_FUSED, /* qkv_proj, o_proj; gate_up_proj, down_proj */
    HF_LAYOUT_PHI,   /* q_proj, k_proj, v_proj, dense; fc1, fc2; final_layernorm */
    HF_LAYOUT_MOE,   /* q_proj, k_proj, v_proj, o_proj; experts (experts.c) */
    HF_LAYOUT_COUNT
} hf_layout;

/* Where norms stand. */
typedef enum {
    HF_NORMS_BEFORE, /* attention and MLP */
    HF_NORMS_AROUND, /* before and after both */
    HF_NORMS_AFTER
} hf_norms;

/* Which layers have a sliding window, when the config gives one. */
typedef enum {
    HF_WINDOWS_NONE,   /* whatever the config says */
    HF_WINDOWS_ALL,    /* sliding_window alone decides */
    HF_WINDOWS_SWITCH, /* use_sliding_window; from max_window_layers on, or layer_types */
    HF_WINDOWS_NOPE,   /* use_sliding_window; layers that are not rotated, or layer_types */
    HF_WINDOWS_PATTERN /* all but every n-th, or layer_types */
} hf_windows;

/* Keys that only this family has; c has all that the others have, too. */
typedef dr_status (*hf_family_fn)(hf_config *c, const json_t *config, const char *where);

typedef struct {
    const char *arch_name, *model_type, *genai_type;
    hf_layout layout;
    hf_norms norms;
    hf_norm_kind norm_kind;
    hf_qk_norm qk_norm;
    bool norm_offset; /* a file holds norm weights less 1 */
    bool not_gated, parallel, qkv_bias, o_bias, mlp_bias, head_bias, tied;
    const char *act_key; /* NULL: hidden_act */
    hf_act act;          /* when the config does not say */

    int64_t max_position;
    double eps;
    const char *eps_key; /* NULL: rms_norm_eps */
    int head_dim;        /* 0: hidden / heads */
    int bos, eos, pad;   /* -1: none */

    double theta;          /* 0: 10000 */
    double theta_local;    /* layers with a window rotate by themselves; 0: they do not */
    double partial_rotary; /* may be partial, and what it is when not said; 0: never */

    hf_windows windows;
    int64_t window;     /* when the config does not say */
    int window_pattern; /* HF_WINDOWS_PATTERN: n, when not said */
    hf_family_fn more;  /* NULL: none */
} hf_family;

const hf_family *hf_family_of(hf_arch arch);
/* The family of an architecture, or of a model_type; HF_ARCH_COUNT: none. */
hf_arch hf_family_find(const char *arch_name, const char *model_type);

#endif
