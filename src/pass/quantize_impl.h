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

/* ---- which modules, and the layout (modules.c) ---- */

/* What every quantizer has to set beside its grid. */
typedef struct {
    int format; /* of pass_layouts; -1: the quantizer's own */
    bool lm_head, embeds;
    const char *modules_to_not_convert; /* comma list; NULL: none */
    const char *overrides;              /* JSON object; NULL: none */
    int mixed;                          /* a quant_mix; -1: none */
    double ratio;                       /* of mixed; 0: its default */
    const char *max_size;               /* "90MB"; NULL: no budget */
    int distill_steps;                  /* 0: scales stay as they were chosen */
    double distill_learning_rate;       /* of a linear's mean scale */
} pass_modules;
extern const char *const pass_layouts[], *const pass_mixes[];

/* Rows for a struct with a pass_modules called modules. */
#define PASS_MODULES_ROW(s, member, kind, ...)                                             \
    {                                                                                      \
        .name = #member, .offset = offsetof(s, modules.member), .type = kind, __VA_ARGS__  \
    }
#define PASS_MODULES_ROWS(s, layout)                                                       \
    PASS_MODULES_ROW(s, format, DR_PARAM_CHOICE, .dflt = "null", .choices = pass_layouts,  \
                     .help = "layout of the checkpoint (default: " layout ")"),            \
        PASS_MODULES_ROW(s, lm_head, DR_PARAM_BOOL, .dflt = "false",                       \
                         .help = "the head too, where it is not the embedding"),           \
        PASS_MODULES_ROW(s, embeds, DR_PARAM_BOOL, .dflt = "false",                        \
                         .help = "the embedding too, with the head where they are one; "   \
                                 "in layout olive"),                                       \
        PASS_MODULES_ROW(                                                                  \
            s, modules_to_not_convert, DR_PARAM_STR, .dflt = "null", .listed = true,       \
            .help = "parts of names, or re:EXPRESSION, of modules that stay"),             \
        PASS_MODULES_ROW(s, overrides, DR_PARAM_STR, .dflt = "null", .json = true,         \
                         .help = "name or re:EXPRESSION to bits, group_size, symmetric"),  \
        PASS_MODULES_ROW(s, mixed, DR_PARAM_CHOICE, .dflt = "null", .choices = pass_mixes, \
                         .help = "which linears get 8 bits, as SelectiveMixedPrecision"),  \
        PASS_MODULES_ROW(s, ratio, DR_PARAM_FLOAT, .dflt = "0", .max = 1,                  \
                         .help = "share of weights that mixed leaves (snr, iqe: 0.8)"),    \
        PASS_MODULES_ROW(s, max_size, DR_PARAM_STR, .dflt = "null",                        \
                         .help = "bits and groups by measured error within these bytes"),  \
        PASS_MODULES_ROW(s, distill_steps, DR_PARAM_INT, .dflt = "0", .max = 100000,       \
                         .help = "steps of training all scales towards the original's "    \
                                 "logits"),                                                \
        PASS_MODULES_ROW(s, distill_learning_rate, DR_PARAM_FLOAT, .dflt = "0.002",        \
                         .min = 0, .max = 1,                                               \
                         .help = "a step of these, in mean scales of the linear")

/* What becomes of each linear. */
typedef struct {
    quant_choice *layers; /* quant_site.choices; NULL: all alike */
    bool head, embed;
    quant_grid head_grid, embed_grid;
} pass_choices;

bool pass_same_grid(const quant_grid *a, const quant_grid *b);
hf_quant_method pass_layout_of(const pass_modules *w, hf_quant_method own);
/* DR_EUSAGE: bits, or what the layout cannot hold; before there is a model. */
DR_MUST_USE dr_status pass_modules_check(const pass_modules *w, const quant_grid *grid,
                                         hf_quant_method own);
/* DR_EUSAGE: a name that no module has, a group that does not divide, a tied head. */
DR_MUST_USE dr_status pass_choose_modules(pass_choices *out, dr_arena *a, const hf_model *m,
                                          const quant_grid *base, const pass_modules *w);
/* Tells the writer. */
DR_MUST_USE dr_status pass_choices_formats(hf_writer *w, const pass_choices *c,
                                           const hf_model *m, hf_quant_method layout);

/* ---- bits by slot (mixing.c) ---- */

bool pass_mix_asked(const pass_modules *w);
/* DR_EUSAGE: what contradicts, or the layout cannot hold; before there is a model. */
DR_MUST_USE dr_status pass_mix_check(const pass_modules *w, const quant_grid *grid,
                                     hf_quant_method layout);
/* Fills c as mixed or max_size say; nothing when neither is given.  calib: for max_size.
 * DR_EUSAGE: max_size is too small, and what would do. */
DR_MUST_USE dr_status pass_mix(pass_choices *c, dr_arena *a, const quant_site *site,
                               const quant_grid *base, const pass_modules *w,
                               hf_quant_method layout, const quant_calib *calib);
/* How many linears have which grid. */
DR_MUST_USE dr_status pass_mix_tell(const pass_job *job, const pass_choices *c,
                                    const hf_model *m);

/* ---- scales trained afterwards (distilling.c) ---- */

/* The checkpoint in dir, packed in layout, gets trained scales. */
DR_MUST_USE dr_status pass_distill(const pass_job *job, const char *dir, nn_device *dev,
                                   const hf_model *original, const hf_quant *layout,
                                   const pass_choices *chosen, const pass_modules *w,
                                   const quant_calib *calib);
/* Memory and seconds of it; tokens: of calibration. */
void pass_distill_need(pass_need *need, const pass_job *job, const pass_modules *w,
                       const hf_config *c, uint64_t tokens, uint64_t seq_len);

/* ---- the frame ---- */

typedef struct pass_quant_plan {
    hf_quant_method layout; /* of the checkpoint, unless modules says another */
    const pass_modules *modules;
    quant_grid grid;      /* as asked; the group is fitted to the model */
    size_t calib_samples; /* when the user says nothing; 0: no text is read */
    size_t calib_seq_len; /* likewise */
    double forwards;      /* work, in forward passes over the calibration text */
    bool twice;           /* the original's text runs beside it */
    bool rotates; /* the stream is another, so that layers are not compared; the head is
                     untied */
    pass_quantizer quantize;
} pass_quant_plan;

/* run and estimate of every quantizer: by its quant_plan. */
DR_MUST_USE dr_status pass_quantize(const pass_job *job, pass_model *out,
                                    const pass_model *in);
DR_MUST_USE dr_status pass_quantize_estimate(const pass_job *job, const pass_model *in,
                                             pass_need *need);

/* What the user said about calibration text, and these sizes where nothing was said. */
data_options pass_calibration_options(const pass_job *job, const hf_model *m,
                                      size_t samples, size_t seq_len);
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
/* DR_EUSAGE unless it is -1 or a power of two from 16 to 1024, which is what MatMulNBits
 * and the checkpoints hold. */
DR_MUST_USE dr_status pass_check_group(const char *name, int group);

/* ---- the grid, as most quantizers have it ---- */

/* All that a pass without data has to set. */
typedef struct {
    int bits;
    int group_size;
    bool sym;
    pass_modules modules;
} pass_grid;

/* Rows for a struct that begins with a pass_grid; group: the default, as text. */
#define PASS_GRID_ROWS(group)                                                              \
    DR_INT(pass_grid, bits, .dflt = "4", .search = "[2, 4, 8]", .min = 2, .max = 8,        \
           .help = "bits per weight: 2, 3 (stored as 4), 4, 8"),                           \
        DR_INT(pass_grid, group_size, .dflt = group, .search = "[-1, 16, 32, 64, 128]",    \
               .min = -1, .max = 1024,                                                     \
               .help = "input channels that share a scale; -1: a whole row"),              \
        DR_BOOL(pass_grid, sym, .dflt = "false", .search = "[true, false]",                \
                .help = "symmetric grid"),                                                 \
        PASS_MODULES_ROWS(pass_grid, "gptq")

#define PASS_GRID_REFUSED                                                                  \
    DR_REFUSED("quantize_vision", "vision models come later", NULL),                       \
        DR_REFUSED("moe", "mixtures of experts come later", NULL)

/* validate of a pass whose config begins with a pass_grid. */
DR_MUST_USE dr_status pass_grid_validate(const void *config, const unsigned char *given);
/* The plan of such a pass: GPTQ's layout, no data unless the caller adds some. */
pass_quant_plan pass_grid_plan(const void *config, pass_quantizer quantize);

#endif
