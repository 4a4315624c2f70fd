/*
 * session_impl.h - what the check sees of a session beyond the door: the names of symbolic
 * dims, by which it chooses sizes for dummy inputs.
 */
#ifndef DRUPE_ORT_SESSION_IMPL_H
#define DRUPE_ORT_SESSION_IMPL_H

#include "ort/ort.h"

/* The symbol of dim d of input i; "" when it has none. */
const char *session_input_symbol(const ort_session *s, size_t i, int d);
/* What stands for a symbolic dim d of an input: a batch of 1, nothing in the cache, tokens
 * elsewhere. */
int64_t session_symbol_dim(const char *input, const char *symbol, int d, int64_t tokens);

/* dummy.c: what input i is fed where it does not matter; data in a. */
DR_MUST_USE dr_status session_dummy(dr_arena *a, ort_value *v, const ort_session *s,
                                    size_t i, int64_t tokens);

#endif
