/*
 * bnb_impl.h - bitsandbytes' grids, for those who round to them and who write them.
 */
#ifndef DRUPE_HF_BNB_IMPL_H
#define DRUPE_HF_BNB_IMPL_H

#include <jansson.h>

#include "hf/hf_bnb.h"
#include "hf/roles_impl.h"

enum { HF_BNB_LEVELS = 16, HF_BNB_NESTED = 256, HF_BNB_BLOCK = 64 };

/* The numbers by code. */
const float *hf_bnb_levels(const hf_bnb *g);
/* Those of nested scales, rising; their blocks have as many, too. */
void hf_bnb_nested_levels(float out[HF_BNB_NESTED]);

/* The tensors of l in g (bnb_write.c). */
void hf_bnb_plan(dr_arena *a, hf_packed *out, const hf_linear *l, const hf_bnb *g);
/* The bytes of part i of the plan into dst, which is zeroed. */
void hf_bnb_part(void *dst, const hf_packed *plan, size_t i, const hf_linear *l,
                 const hf_bnb *g, const hf_bnb_packed *p);
/* quantization_config. */
json_t *hf_bnb_json(const hf_bnb *g);

#endif
