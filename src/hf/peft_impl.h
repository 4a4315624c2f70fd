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

/* A LoHa or LoKr adapter (out->kind) in dir, whose config is o, read from where. */
DR_MUST_USE dr_status hf_lycoris_open(hf_adapter *out, const json_t *o, const hf_model *m,
                                      const char *dir, const char *where);
/* w[n_in] += the row of a LoHa or LoKr module's dW. */
void hf_lycoris_add_row(float *w, const hf_lora_module *mod, size_t row);

/* One of the module's tensors; tail: what follows its name; cols 0: a vector. */
void hf_adapter_tensor(dr_tensor *t, dr_arena *a, const hf_lora_module *mod,
                       const char *tail, int64_t rows, int64_t cols, const float *values);
/* A LoHa or LoKr module's tensors, HF_FACTORS at most; how many. */
size_t hf_lycoris_tensors(dr_tensor *t, dr_arena *a, const hf_lora_module *mod,
                          hf_adapter_kind kind);
/* Such an adapter's config but for its patterns; targets is taken over; NULL: a name is not
 * UTF-8. */
json_t *hf_lycoris_config(const hf_adapter *a, const char *base_model, json_t *targets);
/* What LoKr has beside that, behind the patterns. */
void hf_lokr_keys(json_t *config, const hf_adapter *a);

#endif
