/*
 * quant_impl.h - what the quantizers share: the tile, the rule, the solvers under the door.
 *
 * The tile.  All searches look at QUANT_LANES rows of a weight at once, turned so that the
 * rows lie side by side: tile[col][lane].  Every step (range, codes, error, quadratic form)
 * is then the same arithmetic on 16 neighbouring floats, which compilers turn into vectors
 * without being allowed to reorder a sum; the bytes do not depend on the vector width nor
 * on the number of threads.
 */
#ifndef DRUPE_QUANT_IMPL_H
#define DRUPE_QUANT_IMPL_H

#include "quant/quant.h"

enum { QUANT_LANES = 16 };

/* a * b zeroed floats (dr_big_alloc). */
DR_MUST_USE dr_status quant_floats(float **out, size_t a, size_t b, const char *what);
/* The same, not zeroed: for what is written before it is read. */
DR_MUST_USE dr_status quant_room(float **out, size_t a, size_t b, const char *what);

/*
 * Where a quantizer's values lie: mem is the device when it has the operations of
 * nn_quant.h, in whose memory they then are and by which they are computed; NULL: the
 * host's memory, and the tiles below.  quant_there: that for a device.
 */
nn_device *quant_there(nn_device *dev);
/* For GPTQ and what comes after it: groups are of at most NN_FACTOR_MAX columns, too. */
nn_device *quant_solves_there(const quant_site *site, const quant_grid *grid);
/* The same of mem's, freed with nn_mem_free(mem, ...). */
DR_MUST_USE dr_status quant_floats_at(nn_device *mem, float **out, size_t a, size_t b,
                                      const char *what);
/* Likewise for activations between rough products, which a device may keep in fewer bytes
 * each (nn_rough_kind). */
DR_MUST_USE dr_status quant_acts_at(nn_device *mem, float **out, size_t a, size_t b,
                                    const char *what);
size_t quant_act_bytes(const nn_device *mem);

/* ---- what several processes share (share.c) ---- */

/* NULL: nothing is shared. */
dr_ranks *quant_ranks(const quant_site *site);
/* Of `all` things: where rank k's begin; of the number of ranks: all. */
size_t quant_edge(const dr_ranks *r, size_t k, size_t all);
/* This rank's rows of a weight. */
typedef struct {
    size_t from, count;
} quant_rows;
quant_rows quant_own_rows(const quant_site *site, size_t rows);
/* The same where nothing but packing is left to do: on GPUs the first rank has all. */
quant_rows quant_packing_rows(const quant_site *site, size_t rows);
/* Sums over all ranks; v: p[count] doubles of dev's memory. */
DR_MUST_USE dr_status quant_sum(const quant_site *site, float *p, size_t count,
                                const char *what);
DR_MUST_USE dr_status quant_sum_doubles(const quant_site *site, double *p, size_t count,
                                        const char *what);
/* Each rank's own rows of w[rows][cols] go to all; those of a packed weight to the first
 * one, others' rows are left as they are. */
DR_MUST_USE dr_status quant_share_rows(const quant_site *site, float *w, size_t rows,
                                       size_t cols);
DR_MUST_USE dr_status quant_share_packed(const quant_site *site, dr_qtensor *q);
/* The same of packing_rows. */
DR_MUST_USE dr_status quant_share_packing(const quant_site *site, dr_qtensor *q);

/*
 * A weight that is solved in two ways, by half of the ranks each (quant_ways is 2), or by
 * all ranks in one way after the other (1).  The way that GPTQ alone brings nearer is
 * taken: the descent behind it changes that order by a tenth of a percent (gptq.c), so the
 * other way is left before it, where it comes second.  solve_own: quant_gptq_solve, or with
 * best quant_chain_solve, of this rank's rows among those of its way.  share_solved: q and
 * w of that way go where share_packed and share_rows send them.
 */
enum { QUANT_WAYS = 2 };
typedef struct {
    size_t way, ways;
} quant_way;
typedef struct {
    const quant_site *site;
    size_t way;              /* that is solved; the others' figures are kept */
    bool met[QUANT_WAYS];    /* is this known: */
    double gptq[QUANT_WAYS]; /* what GPTQ alone loses, of all rows */
    double loss[QUANT_WAYS]; /* and in the end; infinite: it was left */
} quant_contest;
size_t quant_ways(const quant_site *site);
quant_way quant_own_way(const quant_site *site);
/* Of GPTQ by itself; ways 0: every rank solves all rows, and nothing is shared. */
quant_way quant_gptq_way(const quant_site *site);
/* own[rows]: GPTQ's losses of this rank's rows.  Every rank calls it; NULL: there is no
 * other way, and nothing is done. */
DR_MUST_USE dr_status quant_contest_meet(quant_contest *c, const double *own, size_t rows);
/* Has the way that is solved lost to the other?  NULL: there is none. */
bool quant_contest_lost(const quant_contest *c);
DR_MUST_USE dr_status quant_solve_own(dr_qtensor *q, quant_contest *c,
                                      const quant_site *site, quant_way by, bool best,
                                      float *w, const float *h, size_t rows, size_t cols,
                                      const quant_grid *grid, const quant_gptq_options *o,
                                      const char *name);
DR_MUST_USE dr_status quant_share_solved(const quant_site *site, quant_way by,
                                         dr_qtensor *q, float *w);

/* ---- rules: from a range of weights to a grid (rule.c) ---- */

/* How a group's grid comes from its least and greatest weight (nn_grid.h). */
typedef nn_rule quant_rule;

/* One group's grid for each lane; zero is a code, kept as a float. */
typedef struct {
    float scale[QUANT_LANES], zero[QUANT_LANES];
} quant_lanes;

quant_rule quant_rule_of(const quant_grid *grid); /* Olive's range, fp16 scales */
/* DR_EUSAGE: bits or group size that no packed weight can have. */
DR_MUST_USE dr_status quant_grid_check(const quant_grid *grid);
/* Columns of a group; DR_EUNSUPPORTED: it does not divide cols (`what` is named). */
DR_MUST_USE dr_status quant_grid_block(size_t *block, const quant_grid *grid, size_t cols,
                                       const char *what);
void quant_rule_fit(quant_lanes *out, const quant_rule *rule, const float *lo,
                    const float *hi);

/* ---- tiles (tile.c, quad.c); n columns each ---- */

/* tile[n][lane] = w[lane][n], lanes at and above rows are zero; ld: stride of w's rows. */
void quant_tile_load(float *tile, const float *w, size_t ld, size_t rows, size_t n);
/* dst[lane][n] = tile for lanes below rows. */
void quant_tile_unload(float *dst, size_t ld, size_t rows, const float *tile, size_t n);
/* Least and greatest of each lane.  false: a value is not finite. */
bool quant_tile_range(float *lo, float *hi, const float *tile, size_t n);
/* codes[n][lane], whole numbers in [0, 2^bits). */
void quant_tile_codes(float *codes, const quant_rule *rule, const quant_lanes *g,
                      const float *tile, size_t n);
/* values = (codes - zero) * scale; may be in place. */
void quant_tile_values(float *values, const quant_lanes *g, const float *codes, size_t n);
/* err = round(tile) - tile on the grid g. */
void quant_tile_error(float *err, const quant_rule *rule, const quant_lanes *g,
                      const float *tile, size_t n);
/* loss[lane] += e^T G e for a symmetric G[n][n] with row stride ld, of which the lower
 * triangle is read. */
void quant_tile_quad(float *loss, const float *e, const float *gram, size_t ld, size_t n);
/* The same for two errors: loss[2][lane] += e^T G e, f^T G f. */
void quant_tile_quad_pair(float *loss, const float *e, const float *f, const float *gram,
                          size_t ld, size_t n);
/* Codes and grid of block b into rows row0.. of a packed weight; a short block is
 * padded. */
void quant_tile_pack(dr_qtensor *q, size_t row0, size_t rows, size_t b, const float *codes,
                     size_t n, const quant_lanes *g);

/* ---- grids without data (rtn.c, hqq.c, kquant.c) ---- */

/* Improves g, which has the grids of min and max, for the finite weights of a group;
 * scratch: QUANT_CHOOSER_TILES tiles. */
typedef void (*quant_chooser)(quant_lanes *g, const quant_rule *rule, const float *tile,
                              size_t n, float *scratch);
enum { QUANT_CHOOSER_TILES = 2 };
void quant_choose_hqq(quant_lanes *g, const quant_rule *rule, const float *tile, size_t n,
                      float *scratch);
void quant_choose_kquant(quant_lanes *g, const quant_rule *rule, const float *tile,
                         size_t n, float *scratch);
/* One linear into a new weight, or to the writer; choose NULL: min and max. */
DR_MUST_USE dr_status quant_round_rows(dr_qtensor *q, const quant_site *site,
                                       const quant_grid *grid, quant_chooser choose,
                                       const hf_linear *l);
DR_MUST_USE dr_status quant_round_linear(const quant_site *site, const quant_grid *grid,
                                         quant_chooser choose, const hf_linear *l);
/* Every linear by itself, and head and embedding. */
DR_MUST_USE dr_status quant_round_model(const quant_site *site, const quant_grid *grid,
                                        quant_chooser choose);

/* ---- which linears (choice.c) ---- */

bool quant_is_plain(const quant_site *site, const hf_linear *l);
/* The linear's grid: its own, or base. */
quant_grid quant_grid_of(const quant_site *site, const hf_linear *l,
                         const quant_grid *base);
/* The grid of a slot's linears; false: all of them are plain. */
bool quant_slot_grid(quant_grid *grid, const quant_site *site, int layer, hf_slot slot,
                     const quant_grid *base);
/* quant_can_fold, and no plain linear would have to change. */
bool quant_folds(const quant_site *site, int layer, hf_slot slot);
/* Head and embedding on their grids, where the site asks for it. */
DR_MUST_USE dr_status quant_round_head(const quant_site *site, quant_chooser choose);

/* ---- group searches (shrink.c) ---- */

/* For each lane the grid of one group with the least e^T G e among shrunken ranges. */
typedef nn_shrink quant_shrink;

/* gram[n][m]: the diagonal blocks m x m of the group's Gram matrix, one below the other; m
 * divides n.  limit (may be NULL) receives max|w| that the best candidate left.
 * scratch: 2 n lanes. */
void quant_shrink_search(quant_lanes *best, float *limit, const quant_rule *rule,
                         const quant_shrink *shrink, const float *tile, size_t n,
                         const float *gram, size_t m, float *scratch);
/* m for a group: the group itself up to 128 columns, else a power of two that divides
 * it. */
size_t quant_gram_cols(size_t block);
/* w[rows][cols] clipped for the rule, by the Gram blocks of its groups (autoclip.c). */
DR_MUST_USE dr_status quant_clip_weight(nn_device *dev, float *w, const float *grams,
                                        size_t rows, size_t cols, size_t block,
                                        const quant_rule *rule,
                                        const quant_clip_options *o);
/* tile = clamp(tile, -limit, limit) by lane. */
void quant_tile_clamp(float *tile, const float *limit, size_t n);

/* ---- scales folded into what comes before (fold.c) ---- */

/*
 * Can the slot's scale be folded into what is before it?  Not without a norm there, nor
 * where one norm is before two slots (parallel), nor through an activation (DOWN of an MLP
 * without a gate): such a slot keeps scales of 1.
 */
bool quant_can_fold(const hf_config *c, hf_slot slot);
/* Says at level info which slots have no scales. */
void quant_tell_unfolded(const hf_model *m);
/* Makes scale what the stored norm will really be divided by; quant_fold_norm does so too,
 * and then leaves such a scale as it is. */
DR_MUST_USE dr_status quant_fold_plan(const quant_site *site, int layer, hf_norm which,
                                      float *scale);
/* Writes norm / scale, and makes scale what the stored norm was really divided by. */
DR_MUST_USE dr_status quant_fold_norm(const quant_site *site, int layer, hf_norm which,
                                      float *scale);
/* row_scale[N] of QKV or GATE_UP: what its rows are divided by when the slot after it has
 * the scale `after`. */
void quant_row_scale(float *row_scale, const hf_config *c, hf_slot slot,
                     const float *after);
/* Writes the biases of a slot's linears that change: (bias + more) / row_scale.  more[N]:
 * NULL: nothing. */
DR_MUST_USE dr_status quant_fold_bias(const quant_site *site, int layer, hf_slot slot,
                                      const float *row_scale, const float *more);
/* Divides the rows of a packed weight. */
void quant_fold_rows(dr_qtensor *q, const float *row_scale);
/* v[H*C]: query heads of one key/value head get their mean, since they share V's rows. */
void quant_tie_heads(float *v, const hf_config *c);

/* ---- Gram matrices (gram.c); x[m][n]: a chunk of inputs; first: set, do not add ---- */

/* The most that any slot of a layer has. */
typedef struct {
    size_t weights, in, out;
} quant_widest;
quant_widest quant_widest_slot(const hf_config *c);

/* h[n][n] of nn_i8_gram's strips, what is off the diagonal times rest. */
DR_MUST_USE dr_status quant_gram_expand(nn_device *dev, float *h, const float *strips,
                                        size_t n, float rest);
/* A decoder of the model with its layers in mem, as floats. */
DR_MUST_USE dr_status quant_decoder_open(nn_decoder **out, nn_device *dev, nn_device *mem,
                                         const hf_model *m);
/* grams[n][block]: the diagonal blocks, one below the other. */
DR_MUST_USE dr_status quant_gram_blocks_add(nn_device *dev, float *grams, const float *x,
                                            size_t m, size_t n, size_t block, bool first);

/* ---- biases (bias.c) ---- */

/* sum[K] (set where first) += x[M][K], in the order of its rows. */
DR_MUST_USE dr_status quant_inputs_add(dr_pool *pool, double *sum, const float *x, size_t m,
                                       size_t k, bool first);
/* out[N] = sign * W[N][K] sum / count, added to what is there where sign is -1. */
DR_MUST_USE dr_status quant_mean_output(dr_pool *pool, float *out, const float *w,
                                        const double *sum, size_t n, size_t k, size_t count,
                                        int sign);

/* q's rows row0 .. get the grids of as many rows of scales and zeros, dev's. */
DR_MUST_USE dr_status quant_read_grids(nn_device *dev, dr_qtensor *q, size_t row0,
                                       size_t rows, const float *scales,
                                       const float *zeros);

/* ---- GPTQ's solver (chol.c, gptq_solve.c, gptq_sweep.c) ---- */

/* a[n][n], of which the lower triangle is read, becomes its lower Cholesky factor (the
 * upper triangle is left alone).  *definite false: it has none, and a is spoilt. */
DR_MUST_USE dr_status quant_cholesky(nn_device *dev, float *a, size_t n, bool *definite);
/* factor[n][n] = that of h with damp times its mean diagonal added to it, or ten times as
 * much, three times over.  *found false: none has one, or h is 0. */
DR_MUST_USE dr_status quant_damped_factor(float *factor, bool *found, nn_device *dev,
                                          const float *h, size_t n, double damp);

enum { QUANT_SWEEP = 128 }; /* columns between two updates of all later ones */

/*
 * w[rows][cols] is rounded into q (made here) and replaced by the rounded values.
 * h[cols][cols]: X^T X of the inputs, symmetric.  name is for messages.  *loss (may be
 * NULL) receives the sum over rows of (w - q) (H + damping) (w - q)^T.
 */
DR_MUST_USE dr_status quant_gptq_solve(dr_qtensor *q, double *loss, nn_device *dev,
                                       float *w, const float *h, size_t rows, size_t cols,
                                       const quant_grid *grid, const quant_gptq_options *o,
                                       const char *name);

/*
 * Its parts.  order[n]: columns by descending diagonal (elements `step` apart) within their
 * group, groups by their greatest; groups stay whole, so the packed weight needs no g_idx.
 * mean: of the diagonal over columns that see an input, 1 when none does.  raise: attempts
 * with damp, and ten times as much while there is no factor.
 */
typedef dr_status (*quant_factor_try)(void *ctx, double damp, bool *definite);
void quant_gptq_order(size_t *order, const float *diagonal, size_t step, size_t n,
                      size_t block, bool desc_act);
double quant_gptq_mean(const float *diagonal, size_t step, size_t n);
DR_MUST_USE dr_status quant_gptq_raise(double damp, const char *name,
                                       quant_factor_try attempt, void *ctx);
/* quant_gptq_solve and quant_chain_solve on a device with quantizers' operations, w and h
 * its own, groups of at most NN_FACTOR_MAX columns (solve_there.c). */
DR_MUST_USE dr_status quant_gptq_there(dr_qtensor *q, double *loss, nn_device *dev,
                                       float *w, const float *h, size_t rows, size_t cols,
                                       const quant_grid *grid, const quant_gptq_options *o,
                                       const char *name);
DR_MUST_USE dr_status quant_chain_there(dr_qtensor *q, double *loss, quant_contest *c,
                                        nn_device *dev, float *w, const float *h,
                                        size_t rows, size_t cols, const quant_grid *grid,
                                        const quant_gptq_options *o, const char *name);

/* Rows of a weight that are worked on at once, so that no search has copies of all. */
size_t quant_slice_rows(size_t rows, size_t cols);

/* factor[n][n]: of h damped, the lower triangle read backwards (see gptq_solve.c). */
DR_MUST_USE dr_status quant_gptq_factor(float *factor, nn_device *dev, const float *h,
                                        size_t n, double damp_percent, const char *name);
/*
 * What a sweep needs of that factor A for the nb columns at p0: within[nb][nb] A_ik / A_kk,
 * k > i, else 0; pivot[nb] A_kk; spread[n - p0 - nb][nb] A_ik / A_kk of the columns after
 * the block, turned as a matrix product wants it.
 */
DR_MUST_USE dr_status quant_gptq_cut(dr_pool *pool, float *within, float *pivot,
                                     float *spread, const float *factor, size_t n,
                                     size_t p0, size_t nb);
/* w[rows][n] made sparse for h, by SparseGPT (prune.c). */
DR_MUST_USE dr_status quant_prune_solve(nn_device *dev, float *w, const float *h,
                                        size_t rows, size_t n, const quant_prune_options *o,
                                        const char *name);

/* Scaling before it (gptq_scale.c).  scale[K]: the best of AWQ's candidates for w[N][K] and
 * the Hessian h; tied: of O, whose query heads share V's rows, else NULL. */
DR_MUST_USE dr_status quant_gptq_scale(float *scale, nn_device *dev, const float *w,
                                       const float *h, size_t n, size_t k,
                                       const quant_grid *grid, const hf_config *tied);
/* w = w * scale, h = h / (scale scale^T); and w = w / scale. */
DR_MUST_USE dr_status quant_gptq_apply(nn_device *dev, float *w, float *h, size_t n,
                                       size_t k, const float *scale);
DR_MUST_USE dr_status quant_gptq_unapply(nn_device *dev, float *w, size_t n, size_t k,
                                         const float *scale);

/* ---- after it (descend.c, chain.c) ---- */

/* loss[rows]: e H e^T of each row, e = values - orig. */
DR_MUST_USE dr_status quant_row_losses(double *loss, nn_device *dev, const float *values,
                                       const float *orig, const float *h, size_t rows,
                                       size_t cols);
/* Lowers each row's e (H + damp I) e^T: q and values, which it holds, change.  loss[rows]:
 * e H e^T in the end. */
DR_MUST_USE dr_status quant_descend(dr_qtensor *q, double *loss, float *values,
                                    nn_device *dev, const float *orig, const float *h,
                                    const quant_grid *grid, double damp, int sweeps);
/* As quant_gptq_solve, then o->sweeps of descent; rows never worse than GPTQ's and rounding
 * to nearest.  *loss: the sum over rows of e H e^T, without damping.  c may be NULL; where
 * it is lost behind GPTQ *loss is infinite, q empty and w of no use. */
DR_MUST_USE dr_status quant_chain_solve(dr_qtensor *q, double *loss, quant_contest *c,
                                        nn_device *dev, float *w, const float *h,
                                        size_t rows, size_t cols, const quant_grid *grid,
                                        const quant_gptq_options *o, const char *name);

/* One block of columns p0 .. p0+n of the sweep, in processing order; what is set once for
 * the whole weight first. */
typedef struct {
    dr_qtensor *q;
    quant_rule rule;
    const size_t *order; /* [cols]: natural column of each processed one; borrowed */
    const float *orig;   /* [rows][cols] in processing order */
    float *adj;          /* [rows][cols] the same, with the errors so far spread over it */
    float *values;       /* [rows][cols] natural order: rounded weights (may be orig) */
    const float *grams;  /* [cols][gram]: the diagonal blocks; NULL: plain min and max */
    size_t gram;         /* columns of one: quant_gram_cols of the group */
    bool static_groups;  /* grids from orig, not from adj */
    quant_lanes *grids;  /* [tiles]: of the group that is open */
    double *loss;        /* [tiles] */
    float *scratch;      /* per worker: quant_sweep_floats() */
    size_t p0, n;
    const float *spread;       /* [n][n]: A_ik / A_kk, zero for k <= i */
    const float *group_spread; /* [group][group]: the same for a group wider than a block */
    const float *pivot;        /* [n]: A_kk */
    float *delta;              /* [rows][n]: orig - rounded, for the later columns */
} quant_sweep;
size_t quant_sweep_floats(size_t group);
/* ctx: a quant_sweep; task: a tile of rows. */
DR_MUST_USE dr_status quant_sweep_tile(void *ctx, size_t task, int worker);

/* ---- calibration text through the model, layer by layer (stream.c) ---- */

typedef struct {
    const quant_site *site;
    quant_calib calib;    /* this rank's share; ids borrowed */
    size_t tokens, first; /* of all ranks; blocks of those before this one */
    const hf_config *cfg; /* borrowed from the model */
    nn_device *mem;       /* where x and the layers lie */
    nn_decoder *dec;      /* owned */
    float *x;             /* owned: [count*seq_len][D], the layer's inputs */
    size_t step;          /* sequences in a chunk: about QUANT_CHUNK tokens */
} quant_stream;
enum { QUANT_CHUNK = 1024, QUANT_CHUNK_THERE = 8192 };

/* Room for nn_rough_pack of a layer's slots; and a layer with them in place of w's weights,
 * which are packed into it. */
DR_MUST_USE dr_status quant_packed_slots(float *packed[HF_SLOT_COUNT], nn_device *dev,
                                         nn_device *mem, const hf_config *c);
DR_MUST_USE dr_status quant_pack_slots(nn_layer *out, float *const packed[HF_SLOT_COUNT],
                                       nn_device *dev, const hf_config *c,
                                       const nn_layer *w);

/* Embeds this rank's text, by site->table where there is one.  DR_EUSAGE: there is none, or
 * less than a block for each rank. */
DR_MUST_USE dr_status quant_stream_open(quant_stream *s, const quant_site *site,
                                        const quant_calib *calib, nn_device *mem);
void quant_stream_close(quant_stream *s);
/* x = the text by the embedding of dec's model. */
DR_MUST_USE dr_status quant_stream_embed(const quant_stream *s, nn_decoder *dec, float *x);
/* Sequences in the chunk that begins at sequence i. */
size_t quant_stream_count(const quant_stream *s, size_t i);

/* ---- the layers in turn, also after a kill (layers.c) ---- */

/* Says at level debug how long it is since *since, which becomes now. */
void quant_tell_time(double *since, const char *what);

/*
 * Calls layer for each of the model's, steps the progress, and keeps what is done where
 * the site has a place for it.  x[floats] (NULL: none) is all that goes from one layer to
 * the next beside what the writer has got.  A run after a kill begins behind the last
 * layer that was kept, with its x.
 */
DR_MUST_USE dr_status quant_each_layer(const quant_site *site, float *x, size_t floats,
                                       dr_status (*layer)(void *ctx, int layer), void *ctx);
/* The stream's x. */
size_t quant_stream_floats(const quant_stream *s);

/* w[N][K] = a slot's weights, bias[N] (NULL: not wanted) = its biases or zeros. */
DR_MUST_USE dr_status quant_slot_read(const quant_site *site, int layer, hf_slot slot,
                                      float *w, float *bias);
/* The same into w of the device's memory; stage[N][K]: the host's; NULL: w is the
 * host's. */
DR_MUST_USE dr_status quant_slot_load(const quant_site *site, int layer, hf_slot slot,
                                      float *w, float *stage, float *bias);
/* The rows of its plain linears into w again, as they are in the source; by way of
 * stage[N][K] unless that is NULL. */
DR_MUST_USE dr_status quant_slot_restore(const quant_site *site, int layer, hf_slot slot,
                                         float *w, float *stage);
/* The head on the site's grid, by GPTQ or the whole chain, for s->x, the last layer's
 * outputs (gptq_head.c). */
DR_MUST_USE dr_status quant_gptq_head(const quant_stream *s, const quant_gptq_options *o,
                                      bool best);
/* q = the embedding on site->embed, before any text comes in by it: of a tied model as the
 * head, for the original's outputs, else by kquant's grids; nothing when embed is NULL. */
DR_MUST_USE dr_status quant_gptq_table(dr_qtensor *q, const quant_site *site,
                                       const quant_calib *calib,
                                       const quant_gptq_options *o, bool best);
/* First linear of a slot; *count (may be NULL): how many it has. */
const hf_linear *quant_slot_linears(const hf_model *m, int layer, hf_slot slot,
                                    size_t *count);
/* Hands q to the writer, whose it is from here, linear by linear; plain ones are left
 * out. */
DR_MUST_USE dr_status quant_slot_write(const quant_site *site, int layer, hf_slot slot,
                                       dr_qtensor *q);

/* ---- layer_error.c ---- */

/* out[layers] of two models in memory, on one text. */
DR_MUST_USE dr_status quant_layer_errors(quant_layer_error *out, nn_decoder *before,
                                         nn_decoder *after, const int32_t *ids,
                                         size_t count);
/* The decoder that makes the logits (text_logits.c). */
nn_decoder *quant_logits_decoder(quant_logits *s);

#endif
