/*
 * peft_impl.h - what adapter.c and lycoris.c share: reading and writing PEFT's folders.
 */
#ifndef DRUPE_HF_PEFT_IMPL_H
#define DRUPE_HF_PEFT_IMPL_H

#include "hf/roles_impl.h"
#include "hf/st_impl.h"

#define HF_PEFT_PREFIX "base_model.model."

/* adapter_model.safetensors, else adapter_model.bin; data lives as long as map. */
DR_MUST_USE dr_status hf_adapter_tensors(dr_arena *a, dr_map *map, const char **path,
                                         dr_tensor **tensors, size_t *n, const char *dir);
/* The module of that name, made where it is not there yet. */
hf_lora_module *hf_adapter_module(hf_adapter *out, const char *name);
/* Modules in the order of layers. */
void hf_adapter_sort(hf_adapter *a);
/* The value of the first key of patterns (NULL: none) that matches the module's end. */
DR_MUST_USE dr_status hf_adapter_by_pattern(double *out, const json_t *patterns,
                                            const char *module, const char *where);
/* DR_EUNSUPPORTED: keys that change the result and are not known here. */
DR_MUST_USE dr_status hf_adapter_refuse_extras(const json_t *o, const char *where);
/* Whole numbers without a fraction, as PEFT writes them. */
json_t *hf_adapter_number(double v);

/* rank_pattern and alpha_pattern. */
void hf_adapter_put_patterns(json_t *config, const hf_adapter *a);

/* w[n_in] += the row of a LoHa or LoKr module's dW. */
void hf_lycoris_add_row(float *w, const hf_lora_module *mod, size_t row);

/* hf_adapter_write of LoHa and LoKr. */
DR_MUST_USE dr_status hf_lycoris_write(const hf_adapter *a, const char *dir,
                                       const char *base_model, const char *const *targets,
                                       size_t target_count);

#endif
