/*
 * convert_impl.h - what the two passes that write a model in another form share.
 */
#ifndef DRUPE_PASS_CONVERT_IMPL_H
#define DRUPE_PASS_CONVERT_IMPL_H

#include "hf/hf.h"
#include "pass/pass.h"

/* Opens the model; DR_EUSAGE when it has an adapter, which would be left behind. */
DR_MUST_USE dr_status pass_convert_open(hf_model **out, const pass_model *in);
/* Elements of all weights, roughly. */
uint64_t pass_model_elements(const hf_config *c);
/* The lines that both results have. */
DR_MUST_USE dr_status pass_convert_tell(const pass_job *job, const hf_model *m,
                                        const char *type, uint64_t bytes);

#endif
