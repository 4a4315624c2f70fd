/*
 * awq.c - activation-aware scaling of a whole model: statistics, search, fold, output.
 *
 * As in AutoAWQ, every layer sees the activations of the original model, so one pass of the
 * text through it gives all statistics; scales are found on original weights and applied
 * together; then weights are clipped, rounded and written.
 *
 * On a device with quantizers' operations all of that lies in its memory; the host gets
 * codes and grids.  A GPU takes operands of exact's products as two terms of bf16 where the
 * text goes through, and as one where candidates are judged (AutoAWQ has float16 in both);
 * awq_exact.c judges them there.
 *
 * Peak memory: x of all tokens, one layer's weights, one slot's weight again, a chunk's
 * activations, the sample's slot inputs (all tokens' with `exact`, there with a Gram matrix
 * of O's or DOWN's).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "quant/awq_impl.h"
#include "quant/tile_impl.h"

enum { SAMPLE_TOKENS = 1024, CLIP_TOKENS = 512, SUM_COLS = 96, GRAM_COLS = 128 };

void awq_run_close(awq_run *r)
{
    float *all[] = {r->fake_packed, r->acts.x, r->fake, r->ref,
                    r->out,         r->picked, r->grids};

    for (int i = 0; i < HF_SLOT_COUNT; i++) {
        awq_slot *slot = &r->slot[i];
        nn_mem_free(r->mem, slot->abs_sum);
        dr_big_free(slot->x_mean);
        nn_mem_free(r->mem, slot->grams);
        nn_mem_free(r->mem, slot->sample);
        dr_big_free(slot->scale);
        nn_mem_free(r->mem, r->packed[i]);
    }
    for (size_t i = 0; i < DR_COUNT(all); i++)
        nn_mem_free(r->mem, all[i]);
    awq_exact_close(r);
    free(r->place);
    dr_big_free(r->row_scale);
    quant_stream_close(&r->s);
    *r = (awq_run){0};
}
/* The slot's grid in that layer. */
static dr_status slot_grid(awq_run *r, int layer, hf_slot s)
{
    awq_slot *slot = &r->slot[s];
    const quant_site *site = r->s.site;
    dr_status st = DR_OK;

    slot->plain = !quant_slot_grid(&slot->grid, site, layer, s, r->grid);
    DR_TRY(quant_grid_block(&slot->block, &slot->grid, slot->k,
                            quant_slot_linears(site->in, layer, s, NULL)->path));
done:
    return st;
}

/* The sample's sequences are spread evenly over all: the k-th is k * count / sample_all.
 * *at = its place in this rank's text; false: it is another's. */
static bool sampled(const awq_run *r, size_t k, size_t *at)
{
    size_t of_all = k * (r->s.tokens / r->s.calib.seq_len) / r->sample_all;

    *at = of_all - r->s.first;
    return of_all >= r->s.first && *at < r->s.calib.count;
}

/* exact drops candidates by a part of the sample, so its order is random. */
static void place_samples(awq_run *r)
{
    r->place = dr_calloc(r->sample_count, sizeof(*r->place));
    for (size_t i = 0; i < r->sample_count; i++)
        r->place[i] = i;
    if (r->o->exact)
        awq_race_order(r->place, r->sample_count);
}

static dr_status slot_init(awq_run *r, hf_slot s)
{
    awq_slot *slot = &r->slot[s];
    size_t rows = (r->sample_count > 0 ? r->sample_count : 1) * r->s.calib.seq_len;
    dr_status st = DR_OK;
    float *p = NULL;

    slot->n = hf_slot_out(r->s.cfg, s);
    slot->k = hf_slot_in(r->s.cfg, s);
    DR_TRY(slot_grid(r, 0, s));
    DR_TRY(quant_floats_at(r->mem, &p, slot->k, 2, "activation sums"));
    slot->abs_sum = (double *)(void *)p;
    DR_TRY(quant_floats(&slot->x_mean, slot->k, 1, "activation means"));
    DR_TRY(quant_floats(&slot->scale, slot->k, 1, "scales"));
    /* other layers may have wider groups */
    size_t gram = r->s.site->choices != NULL ? GRAM_COLS : quant_gram_cols(slot->block);
    DR_TRY(quant_floats_at(r->mem, &slot->grams, slot->k, gram, "Gram blocks"));
    DR_TRY(nn_mem_new(r->mem, &slot->sample, rows * slot->k,
                      awq_judges_rounded(r) ? NN_MEM_BF16 : NN_MEM_FLOAT,
                      "sampled activations"));
done:
    return st;
}

dr_status awq_run_open(awq_run *r, const quant_site *site, const quant_grid *grid,
                       const quant_calib *calib, const quant_awq_options *o, nn_device *mem)
{
    const hf_config *c = hf_model_config(site->in);
    size_t t = calib->seq_len, d = (size_t)c->hidden, packed = 0;
    const quant_widest widest = quant_widest_slot(c);
    dr_status st = DR_OK;

    *r = (awq_run){.grid = grid, .o = o, .rule = quant_rule_of(grid), .mem = mem};
    if (o->exact) {
        r->rule.forced_zero = false;
        r->rule.fp16_scales = false;
    }
    DR_TRY(quant_grid_check(grid));
    DR_TRY(quant_stream_open(&r->s, site, calib, mem));
    r->sample_all = r->o->exact ? calib->count : (SAMPLE_TOKENS + t - 1) / t;
    r->sample_all = r->sample_all < calib->count ? r->sample_all : calib->count;
    calib = &r->s.calib; /* this rank's */
    for (size_t k = 0, at = 0; k < r->sample_all; k++) {
        r->sample_count += sampled(r, k, &at);
        r->sample_first += r->sample_count == 0;
    }
    place_samples(r);
    for (int i = 0; i < HF_SLOT_COUNT; i++) {
        DR_TRY(slot_init(r, (hf_slot)i));
        size_t n = nn_rough_bytes(site->dev, r->slot[i].n, r->slot[i].k) / sizeof(float);
        packed = n > packed ? n : packed;
    }
    if (!o->exact)
        DR_TRY(quant_packed_slots(r->packed, site->dev, mem, c));
    size_t step = r->s.step < calib->count ? r->s.step : calib->count;
    DR_TRY(nn_acts_new_there(&r->acts, mem, c, step, t, 0));
    DR_TRY(quant_floats_at(mem, &r->fake, widest.weights, 1, "rounded weight"));
    if (!r->o->exact)
        DR_TRY(quant_floats_at(mem, &r->fake_packed, packed, 1, "rounded weight"));
    if (awq_judges_there(r)) {
        nn_decoder_floats(r->s.dec, false);
        DR_TRY(awq_exact_open(r));
    } else {
        DR_TRY(quant_floats_at(mem, &r->ref,
                               (r->sample_count > 0 ? r->sample_count : 1) * t, d,
                               "module outputs"));
        DR_TRY(quant_floats_at(mem, &r->out, step * t, d, "module outputs"));
    }
    if (r->o->exact && mem == NULL)
        DR_TRY(quant_floats(&r->picked, step * t, widest.in, "clip tokens"));
    DR_TRY(quant_floats(&r->row_scale, widest.out, 1, "scales"));
    if (mem != NULL)
        DR_TRY(quant_floats_at(mem, &r->grids, 3 * widest.weights / NN_GROUP_MIN, 1,
                               "grids of a slot"));
done:
    if (st != DR_OK)
        awq_run_close(r);
    return st;
}

/* ---- statistics ---- */

typedef struct {
    double *sum;
    const float *x;
    size_t m, k;
} sum_job;

QUANT_CLONES
static void add_magnitudes(float *restrict sum, const float *restrict x)
{
    for (size_t c = 0; c < SUM_COLS; c += QUANT_LANES) {
        for (size_t l = 0; l < QUANT_LANES; l++)
            sum[c + l] += fabsf(x[c + l]);
    }
}

static dr_status sum_task(void *ctx, size_t task, int worker)
{
    const sum_job *job = ctx;
    size_t c0 = task * SUM_COLS, n = job->k - c0 < SUM_COLS ? job->k - c0 : SUM_COLS;
    float sum[SUM_COLS] = {0};

    (void)worker;
    for (size_t r = 0; r < job->m; r++) {
        const float *x = job->x + r * job->k + c0;
        if (n == SUM_COLS)
            add_magnitudes(sum, x);
        for (size_t c = 0; n < SUM_COLS && c < n; c++)
            sum[c] += fabsf(x[c]);
    }
    for (size_t c = 0; c < n; c++)
        job->sum[c0 + c] += (double)sum[c];
    return DR_OK;
}

static dr_status add_sums(awq_run *r, awq_slot *slot, const float *x, size_t m, bool first)
{
    sum_job job = {slot->abs_sum, x, m, slot->k};

    if (r->mem != NULL)
        return nn_column_sums(r->mem, slot->abs_sum, x, m, slot->k, true, first);
    if (first)
        memset(slot->abs_sum, 0, slot->k * sizeof(double));
    return dr_pool_run(nn_device_pool(r->s.site->dev), (slot->k + SUM_COLS - 1) / SUM_COLS,
                       sum_task, &job);
}

static dr_status mean_inputs(awq_run *r, awq_slot *slot)
{
    double *sum = dr_calloc(slot->k, sizeof(*sum));
    dr_status st = DR_OK;

    DR_TRY(nn_copy(r->s.site->dev, sum, slot->abs_sum, slot->k * sizeof(*sum)));
    for (size_t c = 0; c < slot->k; c++)
        slot->x_mean[c] = (float)(sum[c] / (double)r->s.tokens);
done:
    free(sum);
    return st;
}

/* Rows of a chunk that AutoAWQ's clip search looks at: every step-th token of all. */
static size_t pick_rows(float *to, const float *x, size_t first, size_t m, size_t k,
                        size_t step)
{
    size_t count = 0;

    for (size_t i = (step - first % step) % step; i < m; i += step)
        memcpy(to + count++ * k, x + i * k, k * sizeof(*to));
    return count;
}

static bool has_grams(const awq_run *r)
{
    return !r->o->exact || r->o->clip;
}

static dr_status add_grams(awq_run *r, awq_slot *slot, const float *x, size_t i, size_t m)
{
    size_t t = r->s.calib.seq_len, tokens = r->s.tokens, at = (r->s.first + i) * t;
    size_t step = tokens / CLIP_TOKENS > 1 ? tokens / CLIP_TOKENS : 1;

    if (!has_grams(r))
        return DR_OK; /* nothing is ranked and nothing clipped */
    if (r->o->exact && r->mem != NULL) {
        size_t skip = (step - at % step) % step;
        return nn_gram_blocks(r->mem, slot->grams, x + skip * slot->k,
                              skip < m ? (m - skip - 1) / step + 1 : 0, slot->k,
                              step * slot->k, quant_gram_cols(slot->block), i == 0);
    }
    if (r->o->exact) {
        m = pick_rows(r->picked, x, at, m, slot->k, step);
        x = r->picked;
        if (i == 0 && m == 0)
            memset(slot->grams, 0,
                   slot->k * quant_gram_cols(slot->block) * sizeof(*slot->grams));
    }
    if (m == 0)
        return DR_OK;
    return quant_gram_blocks_add(r->s.site->dev, slot->grams, x, m, slot->k,
                                 quant_gram_cols(slot->block), i == 0);
}

static dr_status keep_sample(const awq_run *r, awq_slot *slot, const float *x, size_t i,
                             size_t m)
{
    size_t t = r->s.calib.seq_len, one = t * slot->k, kept = 0, at = 0;
    dr_status st = DR_OK;

    for (size_t k = 0; k < r->sample_all; k++) {
        if (!sampled(r, k, &at))
            continue;
        if (at >= i && at < i + m / t)
            DR_TRY(nn_copy(r->s.site->dev, slot->sample + r->place[kept] * one,
                           x + (at - i) * one, one * sizeof(float)));
        kept++;
    }
done:
    return st;
}

static dr_status slot_stats(awq_run *r, hf_slot s, const float *x, size_t i, size_t m)
{
    awq_slot *slot = &r->slot[s];
    dr_status st = DR_OK;

    DR_TRY(add_sums(r, slot, x, m, i == 0));
    DR_TRY(add_grams(r, slot, x, i, m));
    DR_TRY(keep_sample(r, slot, x, i, m));
done:
    return st;
}

/* The slot's sums become those of all ranks. */
static dr_status sum_ranks(awq_run *r, awq_slot *slot)
{
    const quant_site *site = r->s.site;
    dr_status st = DR_OK;

    DR_TRY(quant_sum_doubles(site, slot->abs_sum, slot->k, "sums of inputs"));
    if (has_grams(r))
        DR_TRY(quant_sum(site, slot->grams, slot->k * quant_gram_cols(slot->block),
                         "Gram blocks"));
done:
    return st;
}

/* The layer's weights, also packed unless the search is AutoAWQ's very own. */
static dr_status load_layer(awq_run *r, int layer)
{
    const nn_layer *w = NULL;
    dr_status st = DR_OK;

    DR_TRY(nn_decoder_layer(r->s.dec, layer, &w));
    r->layer = *w;
    if (!r->o->exact)
        DR_TRY(quant_pack_slots(&r->layer, r->packed, r->s.site->dev, r->s.cfg, w));
done:
    return st;
}

dr_status awq_run_layer(awq_run *r, int layer)
{
    size_t t = r->s.calib.seq_len, count = r->s.calib.count;
    double time = dr_now_s();
    dr_status st = DR_OK;

    DR_TRY(load_layer(r, layer));
    quant_tell_time(&time, "weights");
    nn_round_products(r->s.site->dev, r->o->exact ? NN_ROUND_TWO_TERMS : NN_ROUND_NONE);
    for (size_t i = 0; i < count; i += r->s.step) {
        size_t b = quant_stream_count(&r->s, i), m = b * t;
        DR_TRY(dr_cancelled_check());
        DR_TRY(nn_layer_forward(r->s.dec, &r->layer, b, t,
                                r->s.x + i * t * (size_t)r->s.cfg->hidden, &r->acts, NULL,
                                0));
        DR_TRY(slot_stats(r, HF_SLOT_QKV, r->acts.norm1, i, m));
        DR_TRY(slot_stats(r, HF_SLOT_O, r->acts.attn, i, m));
        DR_TRY(slot_stats(r, HF_SLOT_GATE_UP, r->acts.norm2, i, m));
        DR_TRY(slot_stats(r, HF_SLOT_DOWN, r->acts.act, i, m));
    }
    for (int s = 0; s < HF_SLOT_COUNT; s++) {
        DR_TRY(sum_ranks(r, &r->slot[s]));
        DR_TRY(mean_inputs(r, &r->slot[s]));
    }
done:
    nn_round_products(r->s.site->dev, NN_ROUND_NONE);
    return st;
}

/* ---- output ---- */

void awq_scale_grams(float *grams, const awq_slot *slot)
{
    size_t m = quant_gram_cols(slot->block);

    for (size_t i = 0; i < slot->k; i++) {
        const float *s = slot->scale + i / m * m;
        for (size_t j = 0; j < m; j++)
            grams[i * m + j] /= slot->scale[i] * s[j];
    }
}

/* The same where they are, block by block; by: room for the scales there. */
static dr_status scale_grams_there(nn_device *dev, const awq_slot *slot, float *by)
{
    size_t m = quant_gram_cols(slot->block);
    dr_status st = DR_OK;

    DR_TRY(nn_copy(dev, by, slot->scale, slot->k * sizeof(*by)));
    for (size_t i = 0; i < slot->k; i += m)
        DR_TRY(nn_scale_matrix(dev, slot->grams + i * m, slot->grams + i * m, m, m, by + i,
                               by + i, true));
done:
    return st;
}

/* Rows below this one get plain min and max: AutoAWQ leaves out Q and K, whose errors meet
 * in a product, but not those of a fused linear, which it does not know by name. */
static size_t first_searched(const awq_run *r, hf_slot s)
{
    const hf_config *c = r->s.cfg;

    if (!r->o->clip)
        return r->slot[s].n;
    if (!r->o->exact || s != HF_SLOT_QKV || c->fused)
        return 0;
    return (size_t)(c->heads + c->kv_heads) * (size_t)c->head_dim;
}

static dr_status round_slot(awq_run *r, int layer, hf_slot s)
{
    awq_slot *slot = &r->slot[s];
    nn_device *dev = r->s.site->dev;
    dr_qtensor q = {0};
    bool rows_scaled = s == HF_SLOT_QKV || s == HF_SLOT_GATE_UP;
    float *row_scale = r->row_scale;
    size_t from = first_searched(r, s);
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    awq_use_rule(r, s);
    DR_TRY(dr_qtensor_new(&q, quant_stored_bits(&slot->grid), (int)slot->block, slot->n,
                          slot->k, slot->grid.symmetric));
    awq_rounding job = {.q = &q,
                        .w = r->layer.w[s],
                        .scale = slot->scale,
                        .row_scale = rows_scaled ? row_scale : NULL,
                        .search = r->rule,
                        .final = r->rule,
                        .exact = r->o->exact,
                        .room = r->fake,
                        .grids = r->grids};
    job.final.fp16_scales = true;
    if (rows_scaled) {
        quant_row_scale(row_scale, r->s.cfg, s,
                        r->slot[s == HF_SLOT_QKV ? HF_SLOT_O : HF_SLOT_DOWN].scale);
        DR_TRY(quant_fold_bias(r->s.site, layer, s, row_scale, NULL));
    }
    const quant_rows own = quant_packing_rows(r->s.site, slot->n);
    size_t end = own.from + own.count, plain = from < end ? from : end;
    if (own.from < plain)
        DR_TRY(awq_round_rows(dev, &job, own.from, plain - own.from));
    plain = plain > own.from ? plain : own.from;
    if (plain < end) {
        if (r->mem != NULL)
            DR_TRY(scale_grams_there(r->mem, slot, r->fake));
        else
            awq_scale_grams(slot->grams, slot);
        job.grams = slot->grams;
        DR_TRY(awq_round_rows(dev, &job, plain, end - plain));
    }
    DR_TRY(quant_share_packing(r->s.site, &q));
    DR_TRY(quant_slot_write(r->s.site, layer, s, &q));
done:
    dr_qtensor_release(&q);
    return st;
}

static dr_status is_finite(bool *yes, nn_device *mem, const float *v, size_t count)
{
    double sum = 0;
    dr_status st = DR_OK;

    if (mem == NULL) {
        *yes = *yes && dr_all_finite(v, DR_DTYPE_F32, count);
        return DR_OK;
    }
    DR_TRY(nn_squares(mem, &sum, v, 1, count));
    *yes = *yes && isfinite(sum); /* squares of floats do not reach a double's end */
done:
    return st;
}

/* The search only sees that no loss is finite; here the weight still has its name. */
static dr_status check_finite(const awq_run *r, int layer)
{
    const hf_config *c = r->s.cfg;
    const hf_linear *l = NULL;
    size_t n = hf_layer_linears(r->s.site->in, layer, &l);
    bool finite = true;
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i++) {
        const float *w = r->layer.w[l[i].slot] + l[i].row0 * l[i].n_in;
        DR_TRY(is_finite(&finite, r->mem, w, l[i].n_out * l[i].n_in));
        if (!finite)
            DR_FAIL(DR_EFORMAT, "%s has a weight that is not finite", l[i].path);
    }
    for (hf_norm k = 0; k < HF_NORM_FINAL; k++) {
        size_t size = hf_norm_size(c, k);
        const float *w = r->layer.norm[k], *bias = r->layer.norm_bias[k];
        if (w != NULL)
            DR_TRY(is_finite(&finite, r->mem, w, size));
        if (bias != NULL)
            DR_TRY(is_finite(&finite, r->mem, bias, size));
        if (!finite)
            DR_FAIL(DR_EFORMAT, "a norm has a weight that is not finite");
    }
done:
    return st;
}

static dr_status quantize_layer(awq_run *r, int layer)
{
    double time = dr_now_s();
    dr_status st = DR_OK;

    for (int s = 0; s < HF_SLOT_COUNT; s++)
        DR_TRY(slot_grid(r, layer, (hf_slot)s));
    DR_TRY(awq_run_layer(r, layer));
    DR_TRY(check_finite(r, layer));
    quant_tell_time(&time, "weights and text");
    for (int s = 0; s < HF_SLOT_COUNT; s++)
        DR_TRY(awq_search_slot(r, layer, (hf_slot)s));
    quant_tell_time(&time, "search of scales");
    if (quant_folds(r->s.site, layer, HF_SLOT_QKV))
        DR_TRY(quant_fold_norm(r->s.site, layer, HF_NORM_ATTN, r->slot[HF_SLOT_QKV].scale));
    if (quant_folds(r->s.site, layer, HF_SLOT_GATE_UP))
        DR_TRY(
            quant_fold_norm(r->s.site, layer, HF_NORM_MLP, r->slot[HF_SLOT_GATE_UP].scale));
    for (int s = 0; s < HF_SLOT_COUNT; s++) {
        if (!r->slot[s].plain)
            DR_TRY(round_slot(r, layer, (hf_slot)s));
    }
    quant_tell_time(&time, "rounding and writing");
done:
    return st;
}

static dr_status one_layer(void *ctx, int layer)
{
    dr_status st = DR_OK;

    DR_TRYF(quantize_layer(ctx, layer), "layer %d", layer);
done:
    return st;
}

dr_status quant_awq(const quant_site *site, const quant_grid *grid,
                    const quant_calib *calib, const quant_awq_options *o)
{
    awq_run r = {0};
    dr_status st = DR_OK;

    nn_rough_take(site->dev, NN_ROUGH_COMMON); /* the same codes on all devices */
    DR_TRY(awq_run_open(&r, site, grid, calib, o, quant_there(site->dev)));
    quant_tell_unfolded(site->in);
    DR_TRY(quant_each_layer(site, r.s.x, quant_stream_floats(&r.s), one_layer, &r));
    DR_TRY(quant_round_head(site, quant_choose_kquant));
done:
    awq_run_close(&r);
    nn_rough_take(site->dev, NN_ROUGH_OWN);
    return st;
}
