/*
 * estimate_impl.h - sizes and times before the work, from a model's config alone.
 */
#ifndef DRUPE_PASS_ESTIMATE_IMPL_H
#define DRUPE_PASS_ESTIMATE_IMPL_H

#include "hf/hf.h"
#include "pass/pass.h"

/* Elements of one decoder layer's linears; of the embedding (the head's, where untied). */
uint64_t pass_layer_elements(const hf_config *c);
uint64_t pass_embed_elements(const hf_config *c);

/* Seconds for so many floating-point operations on the job's threads.  Rough: a few times
 * off either way, which is enough to tell minutes from hours. */
double pass_seconds(const pass_job *job, double flops);

#endif
