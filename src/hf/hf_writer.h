/*
 * hf_writer.h - the part of the door hf.h that writes Hugging Face folders.
 */
#ifndef DRUPE_HF_HF_WRITER_H
#define DRUPE_HF_HF_WRITER_H

#include "hf/hf.h"

/*
 * Writes <dir>/ as a Hugging Face folder: config.json (with quantization_config when quant
 * is not NULL), side files, model.safetensors (sharded above 5 GB with its index).  Tensors
 * may come in any order and are written at once; their order in the file is the source's.
 *
 * With quant the linears of the layers are packed, and must be given so; what is not given
 * is copied (a packed linear of a packed source too, converted to quant's format).  Without
 * quant all linears are plain: one that is packed in the source is dequantized.
 * A tensor given twice, or floats for a packed linear, is DR_EUSAGE.
 */
typedef struct hf_writer hf_writer;
DR_MUST_USE dr_status hf_writer_open(hf_writer **out, const char *dir,
                                     const hf_model *source, const hf_quant *quant);
/* Before the first tensor: this linear's own format (other bits or group, the method being
 * the writer's); NULL: plain.  DR_EUNSUPPORTED: the method has none (awq: only NULL;
 * embedding: all but olive). */
DR_MUST_USE dr_status hf_writer_format(hf_writer *w, const hf_linear *l, const hf_quant *q);
/* Before the first tensor: floats are written in this type (F32, F16, BF16), not in the
 * source's; config.json says so. */
void hf_writer_dtype(hf_writer *w, dr_dtype dtype);
/* Before the first tensor: another limit of a shard than 5 GB. */
void hf_writer_shard_bytes(hf_writer *w, uint64_t limit);
/* Before the first tensor: what hf_writer_rows gets is packed and written by so many
 * threads of the writer's own, and so is what is copied at the end.  An error in one of
 * them comes back from a later call.  DR_EIO: no threads. */
DR_MUST_USE dr_status hf_writer_behind(hf_writer *w, int threads);
/* Before the first tensor: nothing is written, whatever it is given (several processes,
 * of which one writes). */
void hf_writer_mute(hf_writer *w);
/* A packed linear (its bias is copied).  Scales are stored as F16: round to it before
 * choosing codes (dr_f32_to_f16).  DR_EUSAGE: not of the planned bits or groups. */
DR_MUST_USE dr_status hf_writer_packed(hf_writer *w, const hf_linear *l,
                                       const dr_qtensor *q);
/* The same of count linears, each the rows from row0 on of q, which is the writer's from
 * here, also after an error. */
DR_MUST_USE dr_status hf_writer_rows(hf_writer *w, const hf_linear *const *l, size_t count,
                                     dr_qtensor *q);
/* A plain linear in the source's dtype (scales folded, not quantized). */
DR_MUST_USE dr_status hf_writer_linear(hf_writer *w, const hf_linear *l, const float *rows);
/* A linear's bias, changed (scales folded into it). */
DR_MUST_USE dr_status hf_writer_bias(hf_writer *w, const hf_linear *l, const float *bias);
DR_MUST_USE dr_status hf_writer_norm(hf_writer *w, hf_norm which, int layer,
                                     const float *v);
/* Of HF_NORM_KIND_LAYER. */
DR_MUST_USE dr_status hf_writer_norm_bias(hf_writer *w, hf_norm which, int layer,
                                          const float *v);

/*
 * Before the first tensor: the head of a tied model becomes a tensor of its own,
 * lm_head.weight, and config.json says tie_word_embeddings: false.  It must then be given
 * by hf_writer_outer.  A model with a head of its own stays as it is.
 */
void hf_writer_untie(hf_writer *w);
/* Rows row0.. [count][D] of the embedding or of the head, in the source's dtype.  The rows
 * of each come in order and without holes, in as many pieces as the caller likes.
 * DR_EUSAGE: the head of a model that is tied, and was not untied. */
typedef enum { HF_OUTER_EMBED, HF_OUTER_HEAD } hf_outer;
DR_MUST_USE dr_status hf_writer_outer(hf_writer *w, hf_outer which, const float *rows,
                                      size_t row0, size_t count);
/* A plain linear that will not be given is copied now, or in hf_writer_behind's threads,
 * not at the end; nothing if it is there already (hf_writer_resume). */
DR_MUST_USE dr_status hf_writer_stays(hf_writer *w, const hf_linear *l);
/* Copies every tensor of the source that was not written yet, then closes the files.  A
 * value that is not finite as written is a warning that names the first tensor with one.
 * DR_EUSAGE: one was given in part, or is nowhere in the source and was not given. */
DR_MUST_USE dr_status hf_writer_finish(hf_writer *w);
void hf_writer_close(hf_writer *w); /* after an error; harmless after finish */
/* Bytes to be written: l in q's format (NULL: plain); l NULL: all but layers' linears. */
DR_MUST_USE dr_status hf_written_bytes(uint64_t *bytes, const hf_model *m,
                                       const hf_linear *l, const hf_quant *q);

/* model_config.json of Olive beside a result: type HfModel, model_path, adapter_path (may
 * be NULL); paths relative to dir are stored as given. */
DR_MUST_USE dr_status hf_write_model_config(const char *dir, const char *model_path,
                                            const char *adapter_path);

#endif
