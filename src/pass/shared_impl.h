/*
 * shared_impl.h - what passes share: sizes and times before the work, from a model's config
 * alone; the tokenizer of a model.
 */
#ifndef DRUPE_PASS_SHARED_IMPL_H
#define DRUPE_PASS_SHARED_IMPL_H

#include "hf/hf.h"
#include "nn/nn.h"
#include "pass/pass.h"
#include "tok/tok.h"

/* Bytes a second that weights are read at, once a token: of two shared memory channels. */
#define PASS_READ_RATE 8e9

/* Elements of one decoder layer's linears; of the embedding (the head's, where untied). */
uint64_t pass_layer_elements(const hf_config *c);
uint64_t pass_embed_elements(const hf_config *c);

/* Seconds for so many floating-point operations where the job computes.  Rough: a few times
 * off either way, which is enough to tell minutes from hours. */
double pass_seconds(const pass_job *job, double flops);

/* The model that reference_model names: folder, GGUF file or hub id. */
DR_MUST_USE dr_status pass_open_reference(hf_model **out, dr_arena *a, const char *name);
/* *dev: the run's, borrowed.  Errors of nn_device_open. */
DR_MUST_USE dr_status pass_open_device(nn_device **dev, pass_device *where);

/* DR_EUSAGE: a rank has read another text. */
DR_MUST_USE dr_status pass_same_text(struct dr_ranks *r, const data_blocks *b);

/* tokens, or the model's context where that is shorter. */
size_t pass_at_most_context(size_t tokens, const hf_model *m);

/* The model's tokenizer, from its folder or its GGUF file; advice is the hint when it has
 * none. */
DR_MUST_USE dr_status pass_open_tokenizer(tok_tokenizer **out, const hf_model *m,
                                          const char *advice);

/* Blocks of texts, with a line of level info. */
DR_MUST_USE dr_status pass_text_blocks(data_blocks *out, data_texts *texts, dr_arena *a,
                                       const data_options *o, const tok_tokenizer *t);

/* What is lost of a text is warned of (short_rows: what becomes of rows that do not fill
 * their block, or NULL), and so are fewer blocks than were asked for. */
DR_MUST_USE dr_status pass_say_losses(const data_texts *texts, const data_blocks *b,
                                      const char *short_rows, size_t wanted);
/* The same, and its size, for programs. */
json_t *pass_text_json(const char *source, const data_texts *texts, const data_blocks *b);

/* The words of a list (NULL: none), cut at any of these characters, without blanks around
 * them. */
const char **pass_words(size_t *count, dr_arena *a, const char *text, const char *cuts);

#endif
