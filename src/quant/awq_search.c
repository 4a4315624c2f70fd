/*
 * awq_search.c - the scales of one slot.
 *
 * A candidate is a ratio i/20: s = mean|x|^ratio / mean|w|^(1-ratio) (duo_scaling), or
 * without the divisor; normalised to sqrt(max * min) = 1.  Its loss is the mean squared
 * change of a module's output: self_attn for QKV, the MLP for GATE_UP, the linear itself
 * for O and DOWN.
 *
 * exact: all 20 are judged on all tokens, as AutoAWQ does (on a GPU by awq_exact.c), but
 * for those that a part of the tokens tells to be behind (awq_race.c).
 * Otherwise they and the identity are ranked by the change of the slot's own output, which
 * block-diagonal Gram matrices give without tokens, and the best JUDGED with the identity
 * are judged on a sample of sequences.  The identity competes always, so a slot is never
 * made worse than plain rounding on the sample.
 *
 * Ranking looks at 12 of the 21: the loss is smooth in the ratio, and in gptq on SmolLM2
 * the best was that of all in each of 120 slots.  (Ranking all by a sample of rows is as
 * fast, but a few rows hold much of the loss: a scale 5 % worse in one slot.)
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "quant/awq_impl.h"
#include "quant/tile_impl.h"

enum { L = QUANT_LANES, JUDGED = 3, LOSS_ROWS = 256, RATIO_STEP = 3 };

/* ---- candidates ---- */

typedef struct {
    float *w_mean;
    const float *w;
    size_t n, k, block;
} mean_job;

/* One group of columns: |w| over the row's greatest in the group, summed over rows. */
static dr_status mean_task(void *ctx, size_t task, int worker)
{
    const mean_job *job = ctx;
    size_t c0 = task * job->block;
    double *sum = dr_calloc(job->block, sizeof(*sum));

    (void)worker;
    for (size_t r = 0; r < job->n; r++) {
        const float *w = job->w + r * job->k + c0;
        float top = 0.0f;
        for (size_t c = 0; c < job->block; c++)
            top = fabsf(w[c]) > top ? fabsf(w[c]) : top;
        top += 1e-6f;
        for (size_t c = 0; c < job->block; c++)
            sum[c] += (double)(fabsf(w[c]) / top);
    }
    for (size_t c = 0; c < job->block; c++)
        job->w_mean[c0 + c] = (float)(sum[c] / (double)job->n);
    free(sum);
    return DR_OK;
}

dr_status awq_weight_mean(nn_device *dev, float *w_mean, const float *w, size_t n, size_t k,
                          size_t block)
{
    mean_job job = {w_mean, w, n, k, block};

    if (quant_there(dev) != NULL)
        return nn_weight_means(dev, w_mean, w, &(nn_groups){n, k, block, 0, k, k / block});
    return dr_pool_run(nn_device_pool(dev), k / block, mean_task, &job);
}

void awq_ratio_scales(float *scale, const float *x_mean, const float *w_mean, size_t k,
                      double ratio, bool duo)
{
    float most = 0.0f, least = INFINITY;

    for (size_t i = 0; i < k; i++) {
        float s = powf(x_mean[i], (float)ratio);
        if (duo)
            s /= powf(w_mean[i], (float)(1.0 - ratio)) + 1e-4f;
        scale[i] = s > 1e-4f ? s : 1e-4f;
        most = scale[i] > most ? scale[i] : most;
        least = scale[i] < least ? scale[i] : least;
    }
    float norm = sqrtf(most * least);
    for (size_t i = 0; i < k; i++) {
        scale[i] /= norm;
        if (!isfinite(scale[i]))
            scale[i] = 1.0f;
    }
}

/* ---- rounding as it would be, in floats ---- */

typedef struct {
    float *out;
    const float *w;
    size_t n, k, block;
    quant_rule rule;
    const float *scale;
    float *scratch; /* owned: per worker two tiles of a group */
} fake_job;

QUANT_CLONES
static void scale_columns(float *restrict to, const float *restrict from,
                          const float *restrict scale, size_t n)
{
    for (size_t c = 0; c < n; c++) {
        for (int l = 0; l < L; l++)
            to[c * L + l] = from[c * L + l] * scale[c];
    }
}

QUANT_CLONES
static void unscale_columns(float *restrict tile, const float *restrict scale, size_t n)
{
    for (size_t c = 0; c < n; c++) {
        for (int l = 0; l < L; l++)
            tile[c * L + l] /= scale[c];
    }
}

static dr_status fake_tile(void *ctx, size_t task, int worker)
{
    const fake_job *job = ctx;
    size_t row0 = task * L, rows = job->n - row0 < L ? job->n - row0 : L, b = job->block;
    float *tile = job->scratch + (size_t)worker * 2 * b * L, *codes = tile + b * L;
    float lo[L], hi[L];
    quant_lanes g = {{0}, {0}};

    for (size_t c = 0; c < job->k; c += b) {
        quant_tile_load(codes, job->w + row0 * job->k + c, job->k, rows, b);
        scale_columns(tile, codes, job->scale + c, b);
        (void)quant_tile_range(lo, hi, tile, b);
        quant_rule_fit(&g, &job->rule, lo, hi);
        quant_tile_codes(codes, &job->rule, &g, tile, b);
        quant_tile_values(codes, &g, codes, b);
        unscale_columns(codes, job->scale + c, b);
        quant_tile_unload(job->out + row0 * job->k + c, job->k, rows, codes, b);
    }
    return DR_OK;
}

dr_status awq_fake_quantize(nn_device *dev, float *out, const float *w, size_t n, size_t k,
                            size_t block, const quant_rule *rule, const float *scale)
{
    dr_pool *pool = nn_device_pool(dev);
    fake_job job = {out, w, n, k, block, *rule, scale, NULL};
    dr_status st = DR_OK;
    void *p = NULL;

    if (quant_there(dev) != NULL)
        return nn_round_scaled(dev, out, w, &(nn_groups){n, k, block, 0, k, k / block},
                               rule, scale);
    DR_TRY(dr_big_alloc(&p, (size_t)dr_pool_threads(pool), 2 * block * L * sizeof(float),
                        "rounding scratch"));
    job.scratch = p;
    DR_TRY(dr_pool_run(pool, (n + L - 1) / L, fake_tile, &job));
done:
    dr_big_free(p);
    return st;
}

/* ---- ranking by block-diagonal Gram matrices ---- */

typedef struct {
    const float *w;
    size_t n, k, block, gram, count;
    const bool *wanted; /* [count] */
    quant_rule rule;
    const float *scales; /* [count][K] */
    const float *grams;
    double *loss;   /* owned: [tiles][count] */
    float *scratch; /* owned: per worker four tiles of a group */
} rank_job;

/* err = what rounding a group at column c with candidate i's scales costs its weights. */
static void rank_error(const rank_job *job, float *err, float *scaled, const float *tile,
                       size_t i, size_t c)
{
    const float *scale = job->scales + i * job->k + c;
    size_t b = job->block;
    float lo[L], hi[L];
    quant_lanes g = {{0}, {0}};

    scale_columns(scaled, tile, scale, b);
    (void)quant_tile_range(lo, hi, scaled, b);
    quant_rule_fit(&g, &job->rule, lo, hi);
    quant_tile_error(err, &job->rule, &g, scaled, b);
    unscale_columns(err, scale, b);
}

/* Adds what the tile's rows lose with the candidates i and, unless it is count, k. */
static void rank_pair(const rank_job *job, size_t task, size_t c, float *tile, size_t i,
                      size_t k)
{
    size_t b = job->block, m = job->gram, left = job->n - task * L;
    double *sums = job->loss + task * job->count;
    float *scaled = tile + b * L, *err = scaled + b * L, loss[2 * L] = {0};
    bool both = k < job->count;

    rank_error(job, err, scaled, tile, i, c);
    if (both)
        rank_error(job, err + b * L, scaled, tile, k, c);
    for (size_t j = 0; j < b; j += m) {
        const float *at = err + j * L, *gram = job->grams + (c + j) * m;
        if (both)
            quant_tile_quad_pair(loss, at, at + b * L, gram, m, m);
        else
            quant_tile_quad(loss, at, gram, m, m);
    }
    for (size_t l = 0; l < L && l < left; l++) {
        sums[i] += (double)loss[l];
        if (both)
            sums[k] += (double)loss[L + l];
    }
}

/* The first wanted candidate from i on; count: there is none. */
static size_t next_wanted(const rank_job *job, size_t i)
{
    while (i < job->count && !job->wanted[i])
        i++;
    return i;
}

static dr_status rank_tile(void *ctx, size_t task, int worker)
{
    const rank_job *job = ctx;
    size_t row0 = task * L, rows = job->n - row0 < L ? job->n - row0 : L, b = job->block;
    float *tile = job->scratch + (size_t)worker * 4 * b * L;

    for (size_t c = 0; c < job->k; c += b) {
        quant_tile_load(tile, job->w + row0 * job->k + c, job->k, rows, b);
        for (size_t i = next_wanted(job, 0); i < job->count;) {
            size_t k = next_wanted(job, i + 1);
            rank_pair(job, task, c, tile, i, k);
            i = k < job->count ? next_wanted(job, k + 1) : k;
        }
    }
    return DR_OK;
}

dr_status awq_rank(nn_device *dev, double *loss, const float *w, size_t n, size_t k,
                   size_t block, const quant_rule *rule, const float *scales, size_t count,
                   const bool *wanted, const float *grams)
{
    dr_pool *pool = nn_device_pool(dev);
    size_t tiles = (n + L - 1) / L;
    rank_job job = {.w = w,
                    .n = n,
                    .k = k,
                    .block = block,
                    .gram = quant_gram_cols(block),
                    .count = count,
                    .wanted = wanted,
                    .rule = *rule,
                    .scales = scales,
                    .grams = grams};
    uint32_t bits = 0;
    dr_status st = DR_OK;
    void *p = NULL;

    if (quant_there(dev) != NULL) {
        const nn_groups g = {n, k, block, job.gram, k, k / block};
        for (size_t i = 0; i < count; i++)
            bits |= (uint32_t)wanted[i] << i;
        return nn_rank_scales(dev, loss, w, &g, rule, scales, count, bits, grams);
    }
    job.loss = dr_calloc(tiles * count, sizeof(*job.loss));
    DR_TRY(dr_big_alloc(&p, (size_t)dr_pool_threads(pool), 4 * block * L * sizeof(float),
                        "ranking scratch"));
    job.scratch = p;
    DR_TRY(dr_pool_run(pool, tiles, rank_tile, &job));
    for (size_t i = 0; i < count; i++) {
        if (!wanted[i])
            continue;
        loss[i] = 0;
        for (size_t t = 0; t < tiles; t++)
            loss[i] += job.loss[t * count + i];
    }
done:
    free(job.loss);
    dr_big_free(p);
    return st;
}

/* awq_rank of each rank's rows, if it has some: the losses of all. */
static dr_status rank_shared(nn_device *dev, double *loss, const float *w, size_t n,
                             size_t k, size_t block, const quant_rule *rule,
                             const float *scales, const bool *wanted, const float *grams,
                             dr_ranks *ranks)
{
    double own[AWQ_CANDIDATES] = {0};
    dr_status st = DR_OK;

    if (n > 0)
        DR_TRY(awq_rank(dev, own, w, n, k, block, rule, scales, AWQ_CANDIDATES, wanted,
                        grams));
    DR_TRY(dr_ranks_sum_doubles(ranks, own, AWQ_CANDIDATES, "losses"));
    for (size_t i = 0; i < AWQ_CANDIDATES; i++)
        loss[i] = wanted[i] ? own[i] : loss[i];
done:
    return st;
}

dr_status awq_rank_ratios(nn_device *dev, double *loss, const float *w, size_t n, size_t k,
                          size_t block, const quant_rule *rule, const float *scales,
                          const float *grams, dr_ranks *ranks)
{
    bool coarse[AWQ_CANDIDATES] = {true}, fine[AWQ_CANDIDATES] = {false};
    size_t best = 1;
    dr_status st = DR_OK;

    for (size_t i = 0; i < AWQ_CANDIDATES; i++)
        loss[i] = HUGE_VAL;
    for (size_t i = 1; i < AWQ_CANDIDATES; i += RATIO_STEP)
        coarse[i] = true;
    DR_TRY(rank_shared(dev, loss, w, n, k, block, rule, scales, coarse, grams, ranks));
    for (size_t i = 1; i < AWQ_CANDIDATES; i++)
        best = loss[i] < loss[best] ? i : best;
    for (size_t i = 1; i < AWQ_CANDIDATES; i++)
        fine[i] = !coarse[i] && i + RATIO_STEP > best && i < best + RATIO_STEP;
    DR_TRY(rank_shared(dev, loss, w, n, k, block, rule, scales, fine, grams, ranks));
done:
    return st;
}

/* ---- judging by module output ---- */

/* out[m][D] of the slot's module with weights w, for the sample's chunk at sequence i. */
static dr_status module_output(awq_run *r, hf_slot s, float *out, const nn_layer *w,
                               size_t i, size_t m)
{
    size_t t = r->s.calib.seq_len;
    const float *in = r->slot[s].sample + i * t * r->slot[s].k;

    if (s == HF_SLOT_QKV)
        return nn_attn_block(r->s.dec, out, in, w, m / t, t);
    if (s == HF_SLOT_GATE_UP)
        return nn_mlp_block(r->s.dec, out, in, w, m);
    return nn_layer_linear(r->s.dec, w, s, out, in, m, false);
}

typedef struct {
    const float *a, *b;
    size_t t, n;  /* tokens of a sequence, values of a token */
    size_t tasks; /* of a sequence */
    double *sum;  /* owned: [sequences][tasks] */
} loss_job;

static dr_status loss_task(void *ctx, size_t task, int worker)
{
    const loss_job *job = ctx;
    size_t first = task / job->tasks * job->t, from = task % job->tasks * LOSS_ROWS;
    size_t to = from + LOSS_ROWS < job->t ? from + LOSS_ROWS : job->t;

    (void)worker;
    for (size_t r = first + from; r < first + to; r++) {
        const float *a = job->a + r * job->n, *b = job->b + r * job->n;
        float row = 0.0f;
        for (size_t i = 0; i < job->n; i++)
            row += (a[i] - b[i]) * (a[i] - b[i]);
        job->sum[task] += (double)row;
    }
    return DR_OK;
}

/* sums[count] = squared differences of each of the sequences a and b. */
static dr_status add_losses(double *sums, nn_device *dev, const float *a, const float *b,
                            size_t count, size_t t, size_t n)
{
    loss_job job = {a, b, t, n, (t + LOSS_ROWS - 1) / LOSS_ROWS, NULL};
    dr_status st = DR_OK;

    if (quant_there(dev) != NULL)
        return nn_difference(dev, sums, a, b, count, t * n);
    job.sum = dr_calloc(count * job.tasks, sizeof(*job.sum));
    DR_TRY(dr_pool_run(nn_device_pool(dev), count * job.tasks, loss_task, &job));
    for (size_t i = 0; i < count * job.tasks; i++)
        sums[i / job.tasks] += job.sum[i];
done:
    free(job.sum);
    return st;
}

size_t awq_sample_chunk(const awq_run *r, size_t i, size_t to)
{
    size_t left = to - i;

    return left < r->s.step ? left : r->s.step;
}

/* The race's part of r->ref = the module's outputs with original weights: what its last
 * linear makes of its inputs in the sample, which came from original weights. */
static dr_status fill_ref(awq_run *r, hf_slot s, const awq_race *race)
{
    size_t t = r->s.calib.seq_len, d = (size_t)r->s.cfg->hidden;
    dr_status st = DR_OK;

    for (size_t i = race->from; i < race->to; i += r->s.step)
        DR_TRY(module_output(r, awq_last_of(s), r->ref + i * t * d, &r->layer, i,
                             awq_sample_chunk(r, i, race->to) * t));
done:
    return st;
}

/* Squared differences of the race's part from r->ref, of the module with weights w. */
static dr_status judge(awq_run *r, hf_slot s, const nn_layer *w, double *sums,
                       const awq_race *race)
{
    size_t t = r->s.calib.seq_len, d = (size_t)r->s.cfg->hidden;
    dr_status st = DR_OK;

    for (size_t i = race->from; i < race->to; i += r->s.step) {
        size_t count = awq_sample_chunk(r, i, race->to);
        DR_TRY(module_output(r, s, r->out, w, i, count * t));
        DR_TRY(
            add_losses(sums + i, r->s.site->dev, r->out, r->ref + i * t * d, count, t, d));
    }
done:
    return st;
}

static dr_status judge_scale(awq_run *r, hf_slot s, const float *scale, double *sums,
                             const awq_race *race)
{
    const awq_slot *slot = &r->slot[s];
    nn_device *dev = r->s.site->dev;
    nn_layer with = r->layer;
    dr_status st = DR_OK;

    DR_TRY(awq_fake_quantize(dev, r->fake, r->layer.w[s], slot->n, slot->k, slot->block,
                             &r->rule, scale));
    with.w[s] = r->fake;
    if (with.rough[s] != NULL) {
        DR_TRY(nn_rough_pack(dev, r->fake_packed, r->fake, slot->n, slot->k));
        with.rough[s] = r->fake_packed;
    }
    DR_TRY(judge(r, s, &with, sums, race));
done:
    return st;
}

/* ---- choosing ---- */

/* Which candidates are worth judging: all, or the JUDGED best ranked and the identity. */
static dr_status shortlist(awq_run *r, hf_slot s, bool *wanted, const float *scales,
                           double *ranked)
{
    const awq_slot *slot = &r->slot[s];
    dr_status st = DR_OK;

    for (size_t i = 0; i < AWQ_CANDIDATES; i++)
        wanted[i] = r->o->exact ? i > 0 : i == 0;
    if (r->o->exact)
        goto done;
    const quant_rows own = quant_own_rows(r->s.site, slot->n);
    DR_TRY(awq_rank_ratios(r->s.site->dev, ranked, r->layer.w[s] + own.from * slot->k,
                           own.count, slot->k, slot->block, &r->rule, scales, slot->grams,
                           quant_ranks(r->s.site)));
    for (int k = 0; k < JUDGED; k++) {
        size_t best = 0;
        for (size_t i = 1; i < AWQ_CANDIDATES; i++) {
            if (!wanted[i] && (best == 0 || ranked[i] < ranked[best]))
                best = i;
        }
        wanted[best] = true;
    }
done:
    return st;
}

/* AutoAWQ scales O through V only when their weights have one shape; a fused QKV's last
 * rows when there is one key/value head for each query head. */
static bool exact_skips(const awq_run *r, hf_slot s)
{
    const hf_config *c = r->s.cfg;

    if (!r->o->exact || s != HF_SLOT_O)
        return false;
    return c->kv_heads != c->heads || (!c->fused && c->heads * c->head_dim != c->hidden);
}

void awq_candidates(float *scales, const float *x_mean, const float *w_mean, size_t k,
                    bool duo)
{
    for (size_t i = 0; i < k; i++)
        scales[i] = 1.0f;
    for (int i = 0; i < AWQ_RATIOS; i++)
        awq_ratio_scales(scales + (size_t)(i + 1) * k, x_mean, w_mean, k,
                         (double)i / AWQ_RATIOS, duo);
}

dr_status awq_slot_candidates(awq_run *r, hf_slot s, float *scales)
{
    awq_slot *slot = &r->slot[s];
    float *w_mean = dr_calloc(slot->k, sizeof(*w_mean));
    dr_status st = DR_OK;

    DR_TRY(awq_weight_mean(r->s.site->dev, w_mean, r->layer.w[s], slot->n, slot->k,
                           slot->block));
    if (s == HF_SLOT_O && r->s.cfg->kv_heads != r->s.cfg->heads) {
        quant_tie_heads(w_mean, r->s.cfg);
        quant_tie_heads(slot->x_mean, r->s.cfg);
    }
    awq_candidates(scales, slot->x_mean, w_mean, slot->k, r->o->duo_scaling);
done:
    free(w_mean);
    return st;
}

void awq_use_rule(awq_run *r, hf_slot s)
{
    r->rule.bits = r->slot[s].grid.bits;
    r->rule.symmetric = r->slot[s].grid.symmetric;
}

static nn_rounding judge_rounding(const awq_run *r)
{
    if (!r->o->exact)
        return NN_ROUND_NONE;
    return awq_judges_rounded(r) ? NN_ROUND_BF16 : NN_ROUND_TWO_TERMS;
}

/* The race's part, by each candidate that is still in it. */
static dr_status judge_part(awq_run *r, hf_slot s, awq_race *race, const float *scales)
{
    const bool there = awq_judges_there(r);
    dr_status st = DR_OK;

    if (!there)
        DR_TRY(fill_ref(r, s, race));
    for (size_t i = 0; i < AWQ_CANDIDATES; i++) {
        if (!race->alive[i])
            continue;
        DR_TRY(dr_cancelled_check());
        DR_TRY(there ? awq_exact_part(r, s, i, race->from, race->to)
                     : judge_scale(r, s, scales + i * r->slot[s].k, awq_race_sums(race, i),
                                   race));
    }
    for (size_t i = 0; there && i < AWQ_CANDIDATES; i++) {
        if (race->alive[i])
            DR_TRY(awq_exact_sums(r, awq_race_sums(race, i), i));
    }
done:
    return st;
}

dr_status awq_judge(awq_run *r, hf_slot s, double *loss, const float *scales,
                    const bool *wanted)
{
    size_t values = r->s.calib.seq_len * (size_t)r->s.cfg->hidden;
    awq_race race = {0};
    dr_status st = DR_OK;

    awq_use_rule(r, s);
    nn_round_products(r->s.site->dev, judge_rounding(r));
    if (awq_judges_there(r) && awq_exact_by_gram(r, s)) {
        DR_TRY(awq_exact_gram(r, s, loss, scales));
        goto done;
    }
    if (awq_judges_there(r))
        DR_TRY(awq_exact_begin(r, s, scales));
    awq_race_open(&race, r, wanted);
    while (awq_race_next(&race)) {
        DR_TRY(judge_part(r, s, &race, scales));
        DR_TRY(awq_race_meet(&race, quant_ranks(r->s.site)));
    }
    for (size_t i = 0; i < AWQ_CANDIDATES; i++)
        loss[i] = wanted[i] ? awq_race_loss(&race, i, values) : loss[i];
done:
    awq_race_close(&race);
    nn_round_products(r->s.site->dev, NN_ROUND_NONE);
    return st;
}

dr_status awq_search_slot(awq_run *r, int layer, hf_slot s)
{
    awq_slot *slot = &r->slot[s];
    const char *path = quant_slot_linears(r->s.site->in, 0, s, NULL)->leaf;
    double least = HUGE_VAL, loss[AWQ_CANDIDATES] = {0}, ranked[AWQ_CANDIDATES] = {0};
    bool wanted[AWQ_CANDIDATES] = {false};
    float *scales = NULL;
    size_t best = 0;
    dr_status st = DR_OK;
    void *p = NULL;

    for (size_t i = 0; i < slot->k; i++)
        slot->scale[i] = 1.0f;
    if (exact_skips(r, s) || !quant_folds(r->s.site, layer, s))
        return DR_OK;
    awq_use_rule(r, s);
    DR_TRY(dr_big_alloc(&p, AWQ_CANDIDATES, slot->k * sizeof(float), "candidate scales"));
    scales = p;
    DR_TRY(awq_slot_candidates(r, s, scales));
    DR_TRY(shortlist(r, s, wanted, scales, ranked));
    DR_TRY(awq_judge(r, s, loss, scales, wanted));
    for (size_t i = 0; i < AWQ_CANDIDATES; i++) {
        if (!wanted[i])
            continue;
        dr_log(DR_DEBUG, "%s candidate %zu: rank %.6g loss %.6g", path, i, ranked[i],
               loss[i]);
        if (loss[i] < least) {
            least = loss[i];
            best = i;
        }
    }
    if (isinf(least))
        DR_FAIL(DR_EFORMAT, "%s: no scale gives a finite loss", path);
    memcpy(slot->scale, scales + best * slot->k, slot->k * sizeof(float));
    dr_log(DR_DEBUG, "%s: candidate %zu", path, best);
done:
    dr_big_free(p);
    return st;
}
