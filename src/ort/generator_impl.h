/*
 * generator_impl.h - what the check uses of a generator beyond the door: the logits of
 * every step.
 */
#ifndef DRUPE_ORT_GENERATOR_IMPL_H
#define DRUPE_ORT_GENERATOR_IMPL_H

#include "ort/ort.h"

/*
 * The prompt and `steps` new tokens, greedy; DR_EDEVICE when any logit on the way is not
 * finite.
 */
DR_MUST_USE dr_status generator_try(ort_generator *g, const int32_t *prompt, size_t count,
                                    int steps);

#endif
