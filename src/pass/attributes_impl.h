/*
 * attributes_impl.h - what passes say of a model for later ones: members of Olive's
 * model_attributes.
 */
#ifndef DRUPE_PASS_ATTRIBUTES_IMPL_H
#define DRUPE_PASS_ATTRIBUTES_IMPL_H

#include <jansson.h>

#include "pass/pass.h"

/* The attributes (JSON, or NULL) with one more member; value is borrowed. */
DR_MUST_USE dr_status pass_add_attribute(const char **out, dr_arena *a,
                                         const char *attributes, const char *key,
                                         const json_t *value);
/* That member, new; *out is NULL where there is none. */
DR_MUST_USE dr_status pass_read_attribute(json_t **out, const char *attributes,
                                          const char *key);

/* A Hugging Face model's files as they are, in job->out_dir/model: links, where the file
 * system has them.  DR_EUSAGE: it has an adapter. */
DR_MUST_USE dr_status pass_same_model(const pass_job *job, pass_model *out,
                                      const pass_model *in);

#endif
