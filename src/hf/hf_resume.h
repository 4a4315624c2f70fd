/*
 * hf_resume.h - a part of hf's door: a checkpoint whose writer may be killed.
 */
#ifndef DRUPE_HF_HF_RESUME_H
#define DRUPE_HF_HF_RESUME_H

#include <stdbool.h>
#include <stddef.h>

#include "core/buf.h"
#include "core/status.h"

struct hf_writer;

/* Before the first tensor: the files of weights are built in the folder keep, and at the
 * finish get their places by a link. */
void hf_writer_keep(struct hf_writer *w, const char *keep);
/* What is written so far, which is on disk then, into state. */
DR_MUST_USE dr_status hf_writer_save(struct hf_writer *w, dr_buf *state);
/* Before the first tensor, after hf_writer_keep: goes on in what a writer of the same
 * source and formats left there.  *taken false: the state is not of this plan, or the
 * files are not as it says; they are made anew. */
DR_MUST_USE dr_status hf_writer_resume(struct hf_writer *w, bool *taken, const void *state,
                                       size_t n);

#endif
