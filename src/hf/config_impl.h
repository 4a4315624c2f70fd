/*
 * config_impl.h - what config.c, layer_kinds.c and rope.c share.
 */
#ifndef DRUPE_HF_CONFIG_IMPL_H
#define DRUPE_HF_CONFIG_IMPL_H

#include "hf/hf.h"

/* Limits of what a config may say; beyond them a file is taken for damaged. */
enum { HF_ROPE_HALF_MAX = 512, HF_HEAD_DIM_MAX = 2 * HF_ROPE_HALF_MAX };
#define HF_POSITION_MAX ((int64_t)1 << 30)

/* Fills c from config.json and generation_config.json (may be NULL); lists go to a.  dtype
 * is left at DR_DTYPE_COUNT when the config does not say it. */
DR_MUST_USE dr_status hf_config_parse(dr_arena *a, hf_config *c, const json_t *config,
                                      const json_t *generation, const char *where);

/* An integer of [min, max]; *out keeps its default when absent, unless that is below min,
 * which makes the key required. */
DR_MUST_USE dr_status hf_config_int(int *out, const json_t *o, const char *key, int min,
                                    int max, const char *where);

/* Bits of hf_config.layer_kinds. */
enum { HF_LAYER_WINDOW = 1, HF_LAYER_NO_ROPE = 2, HF_LAYER_LOCAL_ROPE = 4 };

/* c->sliding_window and layer_kinds; arch, layers and max_position are set already. */
DR_MUST_USE dr_status hf_layer_kinds_parse(dr_arena *a, hf_config *c, const json_t *config,
                                           const char *where);

/* c->rope and rope_local; arch, arch_name, head_dim and max_position are set already. */
DR_MUST_USE dr_status hf_rope_parse(dr_arena *a, hf_config *c, const json_t *config,
                                    const char *where);

#endif
