/*
 * roles_impl.h - the decoder's parts and the packed layouts, inside this room.
 */
#ifndef DRUPE_HF_ROLES_IMPL_H
#define DRUPE_HF_ROLES_IMPL_H

#include "hf/hf_impl.h"

enum { HF_NAME_MAX = 256 }; /* bytes of a module or tensor name that is made up here */

/* ---- roles.c ---- */

/* m->linears, parts and the rest of their group; sets c.dtype from the embedding when the
 * config did not say it.  Every part must be there and have the config's shape. */
DR_MUST_USE dr_status hf_roles_build(hf_model *m);
/* The parts of a linear of the model. */
const hf_parts *hf_linear_parts(const hf_model *m, const hf_linear *l);
/* "model.layers.3.input_layernorm.weight" into name; part: "weight" or "bias". */
void hf_norm_name(char name[HF_NAME_MAX], const hf_config *c, hf_norm which, int layer,
                  const char *part);

/* ---- experts.c ---- */

/* Are router, experts and sinks of the layer there, with the config's sizes?  Nothing is
 * looked for where the family has none. */
DR_MUST_USE dr_status hf_experts_check(const hf_model *m, int layer);

/* ---- quant_config.c ---- */

/* m->quant, gptq_v2 and bnb from quantization_config of config.json. */
DR_MUST_USE dr_status hf_quant_parse(hf_model *m);
/* The same for one module: Olive's overrides, GPTQ's dynamic and the config groups of
 * compressed-tensors honoured. */
DR_MUST_USE dr_status hf_quant_of_module(hf_quant *out, const hf_model *m,
                                         const char *module);
/* quantization_config of a folder written from m: base, and formats[i] of m->linears[i]
 * (method HF_QUANT_NONE: not packed).  A new reference. */
json_t *hf_quant_json(const hf_model *m, const hf_quant *base, const hf_quant *formats);
/* "bf16", "awq 4 bit group 64"; arena or static. */
const char *hf_quant_origin(hf_model *m);
/* Bits and group in range for the method; what: what asks for it, for messages. */
DR_MUST_USE dr_status hf_quant_check(const hf_quant *q, const char *what);

/* ---- adapter.c ---- */

/* The linear with this path; NULL: there is none. */
const hf_linear *hf_find_linear(const hf_model *m, const char *path);

/* w[count][n_in], rows row0.. of the base, += scale B A (merge.c). */
void hf_merge_delta(float *w, const hf_lora_module *mod, size_t row0, size_t count);
/* magnitude / |w| of an output of DoRA, w[n_in] being its row with the delta. */
DR_MUST_USE dr_status hf_merged_factor(float *factor, const float *w,
                                       const hf_lora_module *mod, size_t row);

/* ---- unpack.c ---- */

/* Is there a packed weight under this module?  Then fills p's packed entries, checked
 * against l's sizes, and sets l->packed; or p->rows, where its inputs are not in order. */
DR_MUST_USE dr_status hf_unpack_find(hf_model *m, hf_linear *l, hf_parts *p);
/* Rows row0 .. row0+count-1 in drupe's layout, by pool (NULL: this thread); released with
 * dr_qtensor_release. */
DR_MUST_USE dr_status hf_unpack_rows(const hf_model *m, const hf_linear *l, dr_qtensor *out,
                                     size_t row0, size_t count, dr_pool *pool);

/* ---- bnb.c ---- */

/* Is there a weight of bitsandbytes under this module?  Then fills p, rows and grid too. */
DR_MUST_USE dr_status hf_bnb_find(hf_model *m, const hf_linear *l, hf_parts *p);
/* "bitsandbytes nf4, double quantization"; NULL when no linear is of bitsandbytes. */
const char *hf_bnb_origin(hf_model *m);

/* ---- pack.c ---- */

enum { HF_PACKED_PARTS = 6 };

/* What a packed linear is in a file, before its data is there. */
typedef struct {
    dr_tensor part[HF_PACKED_PARTS]; /* name: arena; data NULL */
    size_t count;
} hf_packed;

/* The tensors of l in q's format.  DR_EUNSUPPORTED: its sizes do not divide as the format
 * wants. */
DR_MUST_USE dr_status hf_pack_plan(dr_arena *a, hf_packed *out, const hf_linear *l,
                                   const hf_quant *q);
/* Can w be written so?  DR_EUSAGE: bits, sizes, blocks or zero points do not fit. */
DR_MUST_USE dr_status hf_pack_check(const hf_linear *l, const hf_quant *q,
                                    const dr_qtensor *w);
/* The bytes of part i of the plan into dst, which is zeroed; w has been checked. */
void hf_pack_part(void *dst, const hf_packed *plan, size_t i, const hf_linear *l,
                  const hf_quant *q, const dr_qtensor *w);

#endif
