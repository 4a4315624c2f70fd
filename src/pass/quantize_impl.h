/*
 * quantize_impl.h - what the quantizing passes share: opening the model and the text,
 * fitting the group size, writing the folder, judging the result.
 */
#ifndef DRUPE_PASS_QUANTIZE_IMPL_H
#define DRUPE_PASS_QUANTIZE_IMPL_H

#include "pass/pass.h"
#include "quant/quant.h"
#include "tok/tok.h"

/* Rounding itself: calib is empty for a pass that needs none. */
typedef dr_status (*pass_quantizer)(const quant_site *site, const quant_grid *grid,
                                    const quant_calib *calib, const void *config);

typedef struct pass_quant_plan {
    hf_quant_method layout; /* of the checkpoint */
    quant_grid grid;        /* as asked; the group is fitted to the model */
    size_t calib_samples;   /* when the user says nothing; 0: no text is read */
    size_t calib_seq_len;   /* likewise */
    double forwards;        /* work, in forward passes over the calibration text */
    pass_quantizer quantize;
} pass_quant_plan;

/* run and estimate of every quantizer: by its quant_plan. */
DR_MUST_USE dr_status pass_quantize(const pass_job *job, pass_model *out,
                                    const pass_model *in);
DR_MUST_USE dr_status pass_quantize_estimate(const pass_job *job, const pass_model *in,
                                             pass_need *need);

/*
 * The text that calibrates, by the job's data options (calibrate.c): from files, built in,
 * or written by the model.  options: max_seq_len and max_samples are set.  What is lost on
 * the way is said; job->report gets "calibration".
 */
DR_MUST_USE dr_status pass_calibration(data_blocks *out, const pass_job *job,
                                       const data_options *options, nn_device *dev,
                                       const hf_model *m, const tok_tokenizer *t);
/* Seconds and memory of what the model writes itself; nothing for other text. */
void pass_calibration_need(pass_need *need, const pass_job *job,
                           const data_options *options, const hf_config *c);
/* Blocks of texts, with a line of level info. */
DR_MUST_USE dr_status pass_text_blocks(data_blocks *out, data_texts *texts, dr_arena *a,
                                       const data_options *o, const tok_tokenizer *t);

/* DR_EUSAGE unless it is -1 or a power of two from 16 to 1024, which is what MatMulNBits
 * and the checkpoints hold. */
DR_MUST_USE dr_status pass_check_group(const char *name, int group);

/* ---- the grid, as most quantizers have it ---- */

/* All that a pass without data has to set. */
typedef struct {
    int bits;
    int group_size;
    bool sym;
} pass_grid;

/* Rows for a struct with the fields of pass_grid; group: the default, as text. */
#define PASS_GRID_ROWS(s, group)                                                           \
    DR_INT(s, bits, .dflt = "4", .min = 4, .max = 4, .help = "bits per weight"),           \
        DR_INT(s, group_size, .dflt = group, .search = "[-1, 16, 32, 64, 128]", .min = -1, \
               .max = 1024, .help = "input channels that share a scale; -1: a whole row"), \
        DR_BOOL(s, sym, .dflt = "false", .search = "[true, false]",                        \
                .help = "symmetric grid")

#define PASS_GRID_REFUSED                                                                  \
    DR_REFUSED("lm_head", "the head is quantized by the export", NULL),                    \
        DR_REFUSED("modules_to_not_convert", "choosing modules comes later", NULL),        \
        DR_REFUSED("overrides", "choosing modules comes later", NULL),                     \
        DR_REFUSED("quantize_vision", "vision models come later", NULL),                   \
        DR_REFUSED("moe", "mixtures of experts come later", NULL)

/* validate of a pass whose config is a pass_grid. */
DR_MUST_USE dr_status pass_grid_validate(const void *config, const unsigned char *given);
/* The plan of such a pass: no data, GPTQ's layout. */
pass_quant_plan pass_grid_plan(const void *config, pass_quantizer quantize);

#endif
