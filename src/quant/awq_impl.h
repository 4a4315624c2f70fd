/*
 * awq_impl.h - what the parts of AWQ share: one layer's statistics, its search, its output.
 *
 *     awq.c         text through the layer, statistics, fold, writer
 *     awq_search.c  scales of each slot: candidates, ranking, judging by module output
 *     awq_race.c    which of them are judged on how much
 *     awq_exact.c   AutoAWQ's objective on a device with memory of its own
 *     awq_clip.c    clip search, rounding, bytes
 */
#ifndef DRUPE_QUANT_AWQ_IMPL_H
#define DRUPE_QUANT_AWQ_IMPL_H

#include "quant/quant_impl.h"

enum { AWQ_RATIOS = 20, AWQ_CANDIDATES = AWQ_RATIOS + 1 };

/* One slot of the layer at hand. */
typedef struct {
    size_t n, k, block; /* outputs, inputs, columns of a group */
    quant_grid grid;    /* the layer's */
    bool plain;         /* nothing of it is rounded */
    double *abs_sum;    /* owned, mem's: [K] sum over all tokens of |x| */
    float *x_mean;      /* owned: [K] its mean */
    float *grams;  /* owned, mem's: [K][quant_gram_cols(block)] to rank and to clip by */
    float *sample; /* owned, mem's: [rows][K] inputs of the sampled sequences */
    float *scale;  /* owned: [K] chosen; the input is divided by it */
} awq_slot;

/* What awq_exact.c has there: owned, bf16 where candidates are judged so, else floats. */
typedef struct {
    float *fake;     /* a candidate's weight, or its errors */
    float *last;     /* the weight behind the one that is judged */
    float *wide;     /* [chunk rows][max N] */
    float *inner;    /* [chunk rows][max K] */
    float *out;      /* [chunk rows][D] */
    float *gram;     /* floats: [K][K] of O or DOWN */
    float *rounded;  /* bf16: that, where candidates are judged so */
    float *diagonal; /* floats: [K] what it leaves of gram's */
    float *product;  /* floats: [N][K] errors times gram */
    float *scales;   /* floats: [AWQ_RATIOS][K] */
    double *sums;    /* [AWQ_RATIOS][sequences, or N] */
} awq_exact;

typedef struct {
    quant_stream s;
    nn_device *mem; /* s.mem; what is owned below lies there, but for row_scale */
    const quant_grid *grid;
    const quant_awq_options *o;
    quant_rule rule;              /* of the fake quantizer in searches; bits and symmetric:
                                     of the slot at hand */
    nn_layer layer;               /* original weights, borrowed from the decoder */
    float *packed[HF_SLOT_COUNT]; /* owned: the same for rough products; not with exact */
    float *fake_packed;           /* owned: of fake, likewise */
    awq_slot slot[HF_SLOT_COUNT];
    nn_acts acts;        /* owned: a chunk's */
    size_t sample_count; /* sequences judged, of this rank's text */
    size_t sample_all;   /* of all ranks' */
    size_t sample_first; /* of the ranks' before */
    size_t *place;     /* owned: [sample_count] of each of them among the slots' samples */
    bool judge_to_end; /* no candidate is dropped (tests) */
    float *fake;       /* owned: a slot's weight with a candidate's rounding */
    float *ref;        /* owned: [rows][D] module outputs with original weights; not where
                            awq_exact.c judges */
    float *out;        /* owned: [chunk rows][D], likewise */
    awq_exact exact;   /* owned */
    float *picked;     /* owned: [chunk rows][max K] clip tokens of a chunk */
    float *row_scale;  /* owned: [max N] */
    float *grids;      /* owned: with mem, scales, zeros and limits of a slot's groups */
} awq_run;

/* mem: quant_there, or NULL. */
DR_MUST_USE dr_status awq_run_open(awq_run *r, const quant_site *site,
                                   const quant_grid *grid, const quant_calib *calib,
                                   const quant_awq_options *o, nn_device *mem);
void awq_run_close(awq_run *r);
/* Loads the layer and runs all text through it: its statistics are known, r->s.x holds the
 * next layer's inputs. */
DR_MUST_USE dr_status awq_run_layer(awq_run *r, int layer);
/* Sequences in the sample's chunk that begins at its i-th, of those before `to`. */
size_t awq_sample_chunk(const awq_run *r, size_t i, size_t to);
/* Finds slot[s].scale; all ones where the slot cannot be scaled. */
DR_MUST_USE dr_status awq_search_slot(awq_run *r, int layer, hf_slot s);
/* The candidates of a layer's slot that has been run: scales[AWQ_CANDIDATES][K]. */
DR_MUST_USE dr_status awq_slot_candidates(awq_run *r, hf_slot s, float *scales);
/* loss[c]: mean squared changes of the module's output in the sample, of all ranks, for
 * each candidate that is wanted, or infinite, where it fell behind; others are left
 * alone. */
DR_MUST_USE dr_status awq_judge(awq_run *r, hf_slot s, double *loss, const float *scales,
                                const bool *wanted);
/* Does awq_exact.c judge?  Its room. */
static inline bool awq_judges_there(const awq_run *r)
{
    return r->mem != NULL && r->o->exact;
}
DR_MUST_USE dr_status awq_exact_open(awq_run *r);
void awq_exact_close(awq_run *r);
/* Is the slot judged by a Gram matrix, all candidates at once?  Their losses, but for the
 * identity's. */
bool awq_exact_by_gram(const awq_run *r, hf_slot s);
DR_MUST_USE dr_status awq_exact_gram(awq_run *r, hf_slot s, double *loss,
                                     const float *scales);
/* Otherwise, once for a slot and its candidates' scales; the squared changes by one of them
 * in the sequences from `from` to `to`; and all of a candidate's, zero where it was not
 * judged: sums[sample_count]. */
DR_MUST_USE dr_status awq_exact_begin(awq_run *r, hf_slot s, const float *scales);
DR_MUST_USE dr_status awq_exact_part(awq_run *r, hf_slot s, size_t candidate, size_t from,
                                     size_t to);
DR_MUST_USE dr_status awq_exact_sums(const awq_run *r, double *sums, size_t candidate);

/* Judging by parts of the sample. */
typedef struct {
    double *sums; /* owned: [AWQ_CANDIDATES][all] squares of this rank's sequences */
    double *seen; /* the same of all ranks' */
    size_t all, own, first; /* sequences; of this rank, and before it */
    size_t done;            /* of all, judged */
    size_t from, to;        /* this rank's part */
    bool alive[AWQ_CANDIDATES];
    bool to_end; /* none is dropped */
} awq_race;

/* place[count]: a random order, always the same. */
void awq_race_order(size_t *place, size_t count);
void awq_race_open(awq_race *race, const awq_run *r, const bool *wanted);
void awq_race_close(awq_race *race);
/* The next part, [from, to) of this rank's sequences, for which those alive are judged;
 * false: there is nothing left to find out. */
bool awq_race_next(awq_race *race);
/* This rank's squares by a candidate: [own]. */
double *awq_race_sums(awq_race *race, size_t candidate);
/* What the ranks have judged is gathered; who is behind is dropped. */
DR_MUST_USE dr_status awq_race_meet(awq_race *race, dr_ranks *ranks);
/* By its rule, from sums[AWQ_CANDIDATES][all], which are zero for those not judged. */
void awq_race_drop(bool alive[AWQ_CANDIDATES], const double *sums, size_t all, size_t done);
/* Mean square of a sequence's values; infinite for who was dropped. */
double awq_race_loss(const awq_race *race, size_t candidate, size_t values);
/* The linear whose output is that of the slot's module: for O and DOWN itself. */
static inline hf_slot awq_last_of(hf_slot s)
{
    return s == HF_SLOT_QKV ? HF_SLOT_O : s == HF_SLOT_GATE_UP ? HF_SLOT_DOWN : s;
}
/* Are candidates of every slot judged with operands in bf16 (where the device can)?  Its
 * rounding changes an output by a hundredth of what 4 bits do, but by as much as 8 bits. */
static inline bool awq_judges_rounded(const awq_run *r)
{
    return awq_judges_there(r) && r->grid->bits <= 4 && r->s.site->choices == NULL;
}
/* r->rule on the slot's grid. */
void awq_use_rule(awq_run *r, hf_slot s);

/* What the whole search rests on, for tests. */
DR_MUST_USE dr_status awq_weight_mean(nn_device *dev, float *w_mean, const float *w,
                                      size_t n, size_t k, size_t block);
void awq_ratio_scales(float *scale, const float *x_mean, const float *w_mean, size_t k,
                      double ratio, bool duo);
/* out = round(w * scale) / scale. */
DR_MUST_USE dr_status awq_fake_quantize(nn_device *dev, float *out, const float *w,
                                        size_t n, size_t k, size_t block,
                                        const quant_rule *rule, const float *scale);
/* scales[AWQ_CANDIDATES][K]: the identity, then awq_ratio_scales of each ratio. */
void awq_candidates(float *scales, const float *x_mean, const float *w_mean, size_t k,
                    bool duo);
/* loss[c] = sum over rows and groups of e^T G e for scales[c][K], c < count, where
 * wanted[c]; others are left alone. */
DR_MUST_USE dr_status awq_rank(nn_device *dev, double *loss, const float *w, size_t n,
                               size_t k, size_t block, const quant_rule *rule,
                               const float *scales, size_t count, const bool *wanted,
                               const float *grams);
/* The same for the identity and 20 ratios, which the loss follows smoothly: every third,
 * then the two on either side of the best; infinite for the rest.  ranks: w has a share of
 * the rows (none: n 0), the losses are all ranks'; NULL: it has all. */
DR_MUST_USE dr_status awq_rank_ratios(nn_device *dev, double *loss, const float *w,
                                      size_t n, size_t k, size_t block,
                                      const quant_rule *rule, const float *scales,
                                      const float *grams, dr_ranks *ranks);

/*
 * Rows row0 .. row0+rows of w * scale / row_scale (NULL: ones) rounded into the same rows
 * of q.  With grams (of the scaled inputs) each group is clipped first: search is the
 * rule of AutoAWQ's clip search, final the one that the packed weight gets.  limits (may
 * be NULL) [rows][K/block] receives the clipping, for tests.  On a device with quantizers'
 * operations w and grams are its own, and it needs room[N][K] and grids[3][N][K/block].
 */
typedef struct {
    dr_qtensor *q;
    const float *w;         /* [N][K] */
    const float *scale;     /* [K] */
    const float *row_scale; /* [N] or NULL */
    const float *grams;     /* [K][gram] or NULL: no clipping */
    quant_rule search, final;
    bool exact;
    float *limits;
    float *room, *grids;
} awq_rounding;
DR_MUST_USE dr_status awq_round_rows(nn_device *dev, const awq_rounding *job, size_t row0,
                                     size_t rows);
/* grams become those of the scaled inputs: G_ij / (s_i s_j). */
void awq_scale_grams(float *grams, const awq_slot *slot);
#endif
