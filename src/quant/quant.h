/*
 * quant.h - weight quantizers: a model goes in layer by layer, packed weights come out.
 *
 * All quantizers have one shape: read weights from an open hf_model, perhaps run
 * calibration text through it to see activations, hand each finished layer to an
 * hf_writer.  One decoder layer is in memory at a time, so the peak is a layer with its
 * activations, not the model.  Norms stay as they are (awq folds its scales into them and
 * into the linear before), and so do embedding and head unless the site asks for them: gptq
 * and best then round head (and tied table) for the text's last hidden states, awq by least
 * squares.
 *
 * The same seed gives the same bytes on one device, whatever the number of threads.
 */
#ifndef DRUPE_QUANT_H
#define DRUPE_QUANT_H

#include <stdbool.h>

#include "core/arena.h"
#include "core/log.h"
#include "core/qtensor.h"
#include "core/resume.h"
#include "core/status.h"
#include "hf/hf.h"
#include "nn/nn.h"

/* The grid that weights are rounded to. */
typedef struct {
    int bits;       /* 2, 3 (stored as 4, with zero points), 4 or 8 */
    int group_size; /* input channels that share one scale; -1: a whole row */
    bool symmetric; /* no zero points */
} quant_grid;

/* Bits of a packed weight on this grid. */
int quant_stored_bits(const quant_grid *grid);

/* What one linear becomes. */
typedef struct {
    quant_grid grid;
    bool plain; /* it stays as it is, and nothing is folded into it */
} quant_choice;

enum { QUANT_LAYER_LINEARS = 8 }; /* places for the linears of a layer */

/* Calibration ids [count][seq_len]; borrowed. */
typedef struct {
    const int32_t *ids;
    size_t count, seq_len;
} quant_calib;

/* Where a quantizer works.  Every member is borrowed for the call. */
typedef struct {
    nn_device *dev;
    const hf_model *in;
    hf_writer *out;
    dr_progress *progress; /* may be NULL; stepped once a layer */
    /* [layers][QUANT_LAYER_LINEARS], as hf_layer_linears has them; those of a slot that are
     * not plain have one grid.  NULL: all have the grid that is asked for. */
    const quant_choice *choices;
    const quant_grid *head;  /* of an untied head; NULL: it stays as it is */
    const quant_grid *embed; /* of the embedding, in a tied model the head, too; NULL */
    bool outer_stays;        /* head and embedding are copied, from the beginning */
    const dr_qtensor *table; /* for quantizers: the embedding as rounded; NULL: not yet */
    bool shared; /* gptq, best and awq: by the ranks of dev, each with a share of text and
                    rows (share.c); else all that they do is done by each */
    dr_resume *resume; /* where the work so far is kept for the case of a kill, and found
                               after it (with out's hf_writer_keep); NULL: it is not */
} quant_site;

/*
 * The group size that fits every linear of the model: `wanted` when it divides all widths,
 * else the largest power of two below it, 16 or more, that does.  DR_EUNSUPPORTED: none.
 * The caller tells the user when it differs.
 */
DR_MUST_USE dr_status quant_fit_group(int *group, const hf_model *m, int wanted);

/* Round to nearest: no data, one pass over the weights.  Min and max include 0 (as Olive's
 * Rtn); scales are rounded to fp16, which the checkpoint stores. */
DR_MUST_USE dr_status quant_rtn(const quant_site *site, const quant_grid *grid);

/* Half-quadratic quantization (Badri and Shaji 2023), no data: from the grid of min and
 * max, zero points that make most errors small at the price of a few large ones.  They are
 * whole numbers here, so scales move with them. */
DR_MUST_USE dr_status quant_hqq(const quant_site *site, const quant_grid *grid);

/* Weighted least squares in each group, no data: as the exports' k_quant (core/k_quant.h),
 * errors weighted by rms(w) + |w|; symmetric: 19 scales, each refitted. */
DR_MUST_USE dr_status quant_kquant(const quant_site *site, const quant_grid *grid);

/*
 * Activation-aware scaling (Lin et al. 2023, as AutoAWQ 0.2.9 computes it), then rounding.
 *
 * For each group of linears that share an input, tries 20 exponents a in [0, 1) for
 * scales s = mean|x|^a, keeps the one with the least output error, and folds 1/s into the
 * operator before the group; then searches a clipping of each row's groups.
 * duo_scaling also divides by the weights' own magnitude; clip as AutoAWQ's apply_clip.
 *
 * DR_ENOMEM: one layer's activations do not fit.
 */
typedef struct {
    bool duo_scaling; /* AutoAWQ's default: true */
    bool clip;        /* AutoAWQ's default: true */
    bool exact;       /* AutoAWQ's very search (no identity in the grid, Q and K of a fused
                           qkv clipped too); false: the better default */
} quant_awq_options;
DR_MUST_USE dr_status quant_awq(const quant_site *site, const quant_grid *grid,
                                const quant_calib *calib, const quant_awq_options *o);

/*
 * GPTQ (Frantar et al. 2023): columns are rounded one by one, the error of each spread over
 * the rest by the inverse Hessian X^T X + damp * mean(diag) * I.  Inputs come from the
 * already quantized layers.
 * DR_EFORMAT: a Hessian that is not positive definite after raised damping, by module name.
 */
typedef struct {
    double damp_percent; /* 0.01 */
    bool desc_act;       /* columns by descending diagonal within and across groups, so that
                            no g_idx is needed */
    bool static_groups;  /* all grids from the original weights */
    bool prescale;       /* AWQ's scaling first, folded into norms and V and up rows */
    bool minmax;         /* grids from min and max, as GPTQ's; false: from the range that
                            costs the group least, by its block of the Hessian */
    bool bias;       /* the mean of a linear's error goes into its bias, if it has one */
    double upstream; /* 0 to 1: the share of what the layers before have done to a linear's
                        inputs and residual that it takes back (upstream.c) */
    int sweeps;      /* of descent over codes, scales and zero points; 0: none */
} quant_gptq_options;
DR_MUST_USE dr_status quant_gptq(const quant_site *site, const quant_grid *grid,
                                 const quant_calib *calib, const quant_gptq_options *o);

/*
 * The whole chain, with everything that a checkpoint can hold as it is: GPTQ on inputs from
 * the layers already quantized, grids by the cost of their group, o->sweeps of descent
 * over codes, scales and zero points.  Scaling as AWQ's is tried for every slot and kept
 * where it lowers the slot's loss; each row keeps the best of the chain, of GPTQ alone and
 * of rounding to nearest.  o->prescale and minmax are not looked at.
 */
DR_MUST_USE dr_status quant_best(const quant_site *site, const quant_grid *grid,
                                 const quant_calib *calib, const quant_gptq_options *o);

/*
 * SparseGPT (Frantar and Alistarh 2023): weights that cost their linear least become zero,
 * the others move to make up for them, on inputs from the layers already pruned.  Floats go
 * to the writer.  Layers from min_layer to below max_layer; plain ones of site->choices
 * stay.
 */
enum { QUANT_PRUNE_BLOCK = 1024 };
typedef struct {
    double sparsity; /* share of zeros in each block of columns */
    int n, m;        /* instead: n zeros of each m columns; m 0: not so */
    int blocksize;   /* columns, up to QUANT_PRUNE_BLOCK, that are chosen from together */
    double damp_percent;
    int min_layer, max_layer; /* max -1: all */
} quant_prune_options;
DR_MUST_USE dr_status quant_prune(const quant_site *site, const quant_calib *calib,
                                  const quant_prune_options *o);

/* Clips weights of O, GATE_UP and DOWN for a grid, as AWQ does after its scaling, without
 * one: floats go to the writer. */
typedef struct {
    int n_grid;        /* steps from a whole range to nothing */
    double max_shrink; /* share of a range that may go */
} quant_clip_options;
DR_MUST_USE dr_status quant_clip(const quant_site *site, const quant_grid *grid,
                                 const quant_calib *calib, const quant_clip_options *o);

/* rows x cols floats to a packed weight by rounding to nearest on `grid` (scales rounded to
 * fp16 when fp16_scales).  group -1 must be resolved by the caller (block = cols). */
DR_MUST_USE dr_status quant_pack_rtn(dr_qtensor *out, dr_pool *pool, const float *w,
                                     size_t rows, size_t cols, const quant_grid *grid,
                                     bool fp16_scales);
/* The same by half-quadratic rounding. */
DR_MUST_USE dr_status quant_pack_hqq(dr_qtensor *out, dr_pool *pool, const float *w,
                                     size_t rows, size_t cols, const quant_grid *grid,
                                     bool fp16_scales);

/* ---- how close is it ---- */

/* Ids that are run from position 0 on; the logits at positions `from` and later are wanted.
 * from is less than count. */
typedef struct {
    const int32_t *ids; /* borrowed */
    size_t count, from;
} quant_text;

/* The blocks as texts, whole; released with free(). */
quant_text *quant_texts_of(const quant_calib *text);

/* The logits of a model over texts, in order; dev, m and texts are borrowed.  Layers are
 * streamed; texts of about one length should stand together. */
typedef struct quant_logits quant_logits;
DR_MUST_USE dr_status quant_logits_open(quant_logits **out, nn_device *dev,
                                        const hf_model *m, const quant_text *texts,
                                        size_t count);
void quant_logits_close(quant_logits *s);
/* logits[rows][V] of the next wanted positions, of which there must be so many. */
DR_MUST_USE dr_status quant_logits_next(quant_logits *s, float *logits, size_t rows);

/* A mean over blocks or rows.  error: its standard error; half: half the width of the 95 %
 * interval (Student's t).  Both are NaN for fewer than two. */
typedef struct {
    double mean, error, half;
} quant_mean;
quant_mean quant_mean_of(const double *values, size_t count, size_t stride);
/* The factor: the quantile 0.975 of Student's t. */
double quant_student(size_t degrees);

typedef struct {
    size_t tokens, blocks; /* judged */
    bool both;             /* a model and its original; false: after alone */
    double ppl_before, ppl_after;
    double kl;        /* mean KL(before || after), nats a token */
    double top1;      /* share of positions with the same most likely token */
    double kl_stderr; /* over blocks; 0 for one */
    /* The same and the losses, nats a token, with their errors over blocks; loss_more:
     * after less before, block by block */
    quant_mean kl_mean, same, loss_before, loss_after, loss_more;
} quant_quality;

/*
 * The judge is handed logits, whoever computed them: as long as it wants rows, put so many
 * into quant_judge_logits of each side, then quant_judge_take them.  there: the logits lie
 * in dev's memory, where it has some, for nn to write.
 * DR_EUSAGE: no text; DR_EFORMAT: a token outside of the vocabulary, a logit that is not
 * finite.
 */
typedef struct quant_judge quant_judge;
typedef enum { QUANT_BEFORE, QUANT_AFTER } quant_side;
enum { QUANT_JUDGE_ROWS = 128 };
DR_MUST_USE dr_status quant_judge_open(quant_judge **out, nn_device *dev, size_t vocab,
                                       bool both, bool there, const quant_calib *text);
void quant_judge_close(quant_judge *j);
size_t quant_judge_wants(const quant_judge *j);             /* 0: all is judged */
float *quant_judge_logits(quant_judge *j, quant_side side); /* [QUANT_JUDGE_ROWS][V] */
DR_MUST_USE dr_status quant_judge_take(quant_judge *j);
void quant_judge_result(const quant_judge *j, quant_quality *out);

/* After each rank has judged its own share of the blocks: the
 * figures of all of them; ranks NULL: nothing changes. */
DR_MUST_USE dr_status quant_judge_gather(quant_judge *j, dr_ranks *ranks);
/* Rank's share of the blocks; NULL: all.  DR_EUSAGE: fewer blocks than ranks. */
DR_MUST_USE dr_status quant_judge_share(quant_calib *own, const quant_calib *text,
                                        const dr_ranks *ranks);

/* Both models over the blocks (layers streamed, never both whole in memory). */
DR_MUST_USE dr_status quant_compare(quant_quality *out, nn_device *dev,
                                    const hf_model *before, const hf_model *after,
                                    const quant_calib *text);

/*
 * Relative errors of a layer on one text, sqrt(sum (after - before)^2 / sum before^2): of
 * each slot's output on the original's own input, and of the residual stream behind the
 * layer, where all errors so far have added up.
 */
typedef struct {
    double slot[HF_SLOT_COUNT], stream;
} quant_layer_error;
/* quant_compare by ranks (NULL: alone), each a share of the blocks: all have the figures of
 * all.  Then errors[layers] on text's first block (NULL: none). */
DR_MUST_USE dr_status quant_compare_layers(quant_quality *out, quant_layer_error *errors,
                                           nn_device *dev, const hf_model *before,
                                           const hf_model *after, const quant_calib *text,
                                           dr_ranks *ranks);

#include "quant/quant_distill.h"
#include "quant/quant_mix.h"
#include "quant/quant_recover.h"
#include "quant/quant_rotate.h"

#endif
