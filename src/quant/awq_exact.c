/*
 * awq_exact.c - AutoAWQ's objective where the GPU has memory of its own: the loss of every
 * candidate on all tokens.
 *
 * A loss is of a difference: the module's output with rounded weights less that with the
 * original ones.  So the difference is what is computed, and nothing is kept of an original
 * output:
 *
 *     O, DOWN        X D^T, D = rounded - W; where that costs less as tr(D G D^T) with
 *                    G = X^T X of all tokens, summed once for all candidates
 *     QKV, GATE_UP   (A' - A) W^T of the linear behind: A' its input with rounded weights,
 *                    A the original's, which was kept; the bias drops out
 *
 * Where candidates are judged with operands in bf16 all of this is bf16, too, but for sums,
 * losses and the diagonal of G.  What rounds is then a difference, so it is as small as
 * that; and G's errors off the diagonal meet D^T D, which is next to nothing there.
 * awq_search.c has the same by tokens and in floats, for the cpu, which awq_exact_test.c
 * holds this to.
 *
 * Losses stay on the device until they are asked for: nothing waits for it before.
 */
#include <stdlib.h>

#include "core/mem.h"
#include "quant/awq_impl.h"

static bool is_last(hf_slot s)
{
    return awq_last_of(s) == s;
}

/* Multiply-adds by tokens and by G, of 20 candidates, a factor of K apart; the same answer
 * on all ranks. */
bool awq_exact_by_gram(const awq_run *r, hf_slot s)
{
    size_t ranks = dr_ranks_count(quant_ranks(r->s.site));
    double t = (double)(r->sample_all * r->s.calib.seq_len) / (double)ranks;
    double n = (double)r->slot[s].n, k = (double)r->slot[s].k;

    return is_last(s) && k * (t + AWQ_RATIOS * n) < AWQ_RATIOS * t * n;
}

/* Sums of one candidate: by sequence, or with G by row. */
static size_t sums_of(const awq_run *r, hf_slot s)
{
    return awq_exact_by_gram(r, s) ? r->slot[s].n : r->sample_count;
}

static dr_status gram_room(awq_run *r, size_t k, size_t n)
{
    awq_exact *e = &r->exact;
    dr_status st = DR_OK;

    if (k == 0)
        return DR_OK;
    DR_TRY(quant_floats_at(r->mem, &e->gram, k, k, "Gram matrix"));
    DR_TRY(quant_floats_at(r->mem, &e->product, n, k, "products of a Gram matrix"));
    DR_TRY(quant_floats_at(r->mem, &e->diagonal, k, 1, "diagonal of a Gram matrix"));
    if (awq_judges_rounded(r))
        DR_TRY(nn_mem_new(r->mem, &e->rounded, k * k, NN_MEM_BF16, "Gram matrix"));
done:
    return st;
}

dr_status awq_exact_open(awq_run *r)
{
    const nn_mem_kind kind = awq_judges_rounded(r) ? NN_MEM_BF16 : NN_MEM_FLOAT;
    const quant_widest most = quant_widest_slot(r->s.cfg);
    awq_exact *e = &r->exact;
    size_t step = r->s.step < r->sample_count ? r->s.step : r->sample_count;
    size_t m = step * r->s.calib.seq_len, sums = 1, last = 0, k = 0, n = 0;
    float *p = NULL;
    dr_status st = DR_OK;

    for (int i = 0; i < HF_SLOT_COUNT; i++) {
        const awq_slot *slot = &r->slot[i];
        size_t own = sums_of(r, (hf_slot)i);
        sums = own > sums ? own : sums;
        if (is_last((hf_slot)i))
            last = slot->n * slot->k > last ? slot->n * slot->k : last;
        if (awq_exact_by_gram(r, (hf_slot)i)) {
            k = slot->k > k ? slot->k : k;
            n = slot->n > n ? slot->n : n;
        }
    }
    DR_TRY(nn_mem_new(r->mem, &e->fake, most.weights, kind, "rounded weight"));
    DR_TRY(nn_mem_new(r->mem, &e->last, last, kind, "weights behind"));
    DR_TRY(nn_mem_new(r->mem, &e->wide, m * most.out, kind, "activations"));
    DR_TRY(nn_mem_new(r->mem, &e->inner, m * most.in, kind, "activations"));
    DR_TRY(nn_mem_new(r->mem, &e->out, m * (size_t)r->s.cfg->hidden, kind,
                      "changes of module outputs"));
    DR_TRY(quant_floats_at(r->mem, &e->scales, AWQ_RATIOS, most.in, "candidate scales"));
    DR_TRY(quant_floats_at(r->mem, &p, AWQ_RATIOS * sums, 2, "losses"));
    e->sums = (double *)(void *)p;
    DR_TRY(gram_room(r, k, n));
done:
    return st;
}

void awq_exact_close(awq_run *r)
{
    awq_exact *e = &r->exact;
    float *all[] = {e->fake,   e->last, e->wide,     e->inner,   e->out,
                    e->scales, e->gram, e->diagonal, e->rounded, e->product};

    for (size_t i = 0; i < DR_COUNT(all); i++)
        nn_mem_free(r->mem, all[i]);
    nn_mem_free(r->mem, e->sums);
    *e = (awq_exact){0};
}

/* ---- O and DOWN by G ---- */

/* G of the slot's inputs; where candidates are judged in bf16 also G rounded, and what that
 * leaves of its diagonal. */
static dr_status sum_gram(awq_run *r, const awq_slot *slot)
{
    nn_device *dev = r->s.site->dev;
    awq_exact *e = &r->exact;
    size_t t = r->s.calib.seq_len, k = slot->k;
    dr_status st = DR_OK;

    for (size_t i = 0; i < r->sample_count; i += r->s.step) {
        const float *x = slot->sample + i * t * k;
        DR_TRY(nn_matmul_tn(dev, e->gram, x, x, k, k,
                            awq_sample_chunk(r, i, r->sample_count) * t, k, k, i > 0));
    }
    if (!awq_judges_rounded(r)) {
        DR_TRY(nn_zero(dev, e->diagonal, k * sizeof(*e->diagonal)));
        goto done;
    }
    DR_TRY(nn_copy(dev, e->rounded, e->gram, k * k * sizeof(*e->gram)));
    DR_TRY(nn_subtract(dev, e->gram, e->gram, e->rounded, k * k, 1.0f));
    DR_TRY(nn_cut_blocks(dev, e->diagonal, e->gram, NULL, k, 1));
done:
    return st;
}

/* e->fake = the slot's errors, or where another linear is behind it rounded weights. */
static dr_status round_candidate(awq_run *r, hf_slot s, size_t candidate)
{
    const awq_slot *slot = &r->slot[s];
    const nn_groups g = {slot->n, slot->k, slot->block, 0, slot->k, slot->k / slot->block};
    nn_device *dev = r->s.site->dev;
    awq_exact *e = &r->exact;
    const float *scale = e->scales + (candidate - 1) * slot->k;

    if (is_last(s))
        return nn_scaled_errors(dev, e->fake, r->layer.w[s], &g, &r->rule, scale);
    return nn_round_scaled(dev, e->fake, r->layer.w[s], &g, &r->rule, scale);
}

static dr_status put_scales(awq_run *r, hf_slot s, const float *scales)
{
    size_t k = r->slot[s].k; /* the identity's are left out */

    return nn_copy(r->s.site->dev, r->exact.scales, scales + k,
                   AWQ_RATIOS * k * sizeof(*scales));
}

/* sums[N] = the rows' d^T G d for the errors D in e->fake. */
static dr_status judge_gram(awq_run *r, const awq_slot *slot, double *sums)
{
    nn_device *dev = r->s.site->dev;
    awq_exact *e = &r->exact;
    size_t n = slot->n, k = slot->k;
    dr_status st = DR_OK;

    DR_TRY(nn_matmul_nt(dev, e->product, e->fake,
                        awq_judges_rounded(r) ? e->rounded : e->gram, NULL, n, k, k, k,
                        false));
    DR_TRY(nn_row_quads(dev, sums, e->product, e->fake, e->diagonal, n, k));
done:
    return st;
}

dr_status awq_exact_gram(awq_run *r, hf_slot s, double *loss, const float *scales)
{
    const awq_slot *slot = &r->slot[s];
    nn_device *dev = r->s.site->dev;
    awq_exact *e = &r->exact;
    size_t n = slot->n, bytes = AWQ_RATIOS * n * sizeof(double);
    double *sums = dr_calloc(AWQ_RATIOS * n, sizeof(*sums)), own[AWQ_RATIOS] = {0};
    dr_status st = DR_OK;

    DR_TRY(put_scales(r, s, scales));
    DR_TRY(sum_gram(r, slot));
    for (size_t i = 0; i < AWQ_RATIOS; i++) {
        DR_TRY(dr_cancelled_check());
        DR_TRY(round_candidate(r, s, i + 1));
        DR_TRY(judge_gram(r, slot, e->sums + i * n));
    }
    DR_TRY(nn_copy(dev, sums, e->sums, bytes));
    for (size_t i = 0; i < AWQ_RATIOS; i++) {
        for (size_t j = 0; j < n; j++)
            own[i] += sums[i * n + j];
    }
    DR_TRY(dr_ranks_sum_doubles(quant_ranks(r->s.site), own, AWQ_RATIOS, "losses"));
    for (size_t i = 0; i < AWQ_RATIOS; i++)
        loss[i + 1] = own[i] / (double)(r->sample_all * r->s.calib.seq_len * n);
done:
    free(sums);
    return st;
}

/* ---- by tokens ---- */

/* e->inner = how the input of the linear behind changes, for m tokens from the i-th
 * sequence on. */
static dr_status change_inner(awq_run *r, hf_slot s, const nn_layer *w, size_t i, size_t m)
{
    const awq_slot *slot = &r->slot[s], *behind = &r->slot[awq_last_of(s)];
    nn_device *dev = r->s.site->dev;
    awq_exact *e = &r->exact;
    size_t t = r->s.calib.seq_len;
    const float *in = slot->sample + i * t * slot->k;
    const float *was = behind->sample + i * t * behind->k;
    dr_status st = DR_OK;

    DR_TRY(nn_layer_linear(r->s.dec, w, s, e->wide, in, m, false));
    const nn_act act = nn_layer_act(r->s.dec);
    if (s == HF_SLOT_QKV) {
        DR_TRY(nn_layer_attend(r->s.dec, w, e->inner, e->wide, m / t, t));
        DR_TRY(nn_subtract(dev, e->inner, e->inner, was, m * behind->k, 1.0f));
    } else {
        DR_TRY(nn_activate_change(dev, e->inner, e->wide, was, m, behind->k, (int)act.kind,
                                  act.gated));
    }
done:
    return st;
}

dr_status awq_exact_begin(awq_run *r, hf_slot s, const float *scales)
{
    const awq_slot *behind = &r->slot[awq_last_of(s)];
    nn_device *dev = r->s.site->dev;
    awq_exact *e = &r->exact;
    dr_status st = DR_OK;

    DR_TRY(put_scales(r, s, scales));
    DR_TRY(nn_zero(dev, e->sums, AWQ_RATIOS * r->sample_count * sizeof(*e->sums)));
    if (!is_last(s))
        DR_TRY(nn_copy(dev, e->last, r->layer.w[awq_last_of(s)],
                       behind->n * behind->k * sizeof(float)));
done:
    return st;
}

dr_status awq_exact_part(awq_run *r, hf_slot s, size_t candidate, size_t from, size_t to)
{
    const awq_slot *behind = &r->slot[awq_last_of(s)];
    nn_device *dev = r->s.site->dev;
    awq_exact *e = &r->exact;
    size_t t = r->s.calib.seq_len, d = (size_t)r->s.cfg->hidden;
    double *sums = e->sums + (candidate - 1) * r->sample_count;
    nn_layer with = r->layer;
    dr_status st = DR_OK;

    DR_TRY(round_candidate(r, s, candidate));
    with.w[s] = e->fake;
    for (size_t i = from; i < to; i += r->s.step) {
        size_t count = awq_sample_chunk(r, i, to), m = count * t;
        const float *in = behind->sample + i * t * behind->k, *w = e->fake;
        if (!is_last(s)) {
            DR_TRY(change_inner(r, s, &with, i, m));
            in = e->inner;
            w = e->last;
        }
        DR_TRY(nn_matmul_nt(dev, e->out, in, w, NULL, m, d, behind->k, d, false));
        DR_TRY(nn_squares(dev, sums + i, e->out, count, t * d));
    }
done:
    return st;
}

dr_status awq_exact_sums(const awq_run *r, double *sums, size_t candidate)
{
    return nn_copy(r->s.site->dev, sums, r->exact.sums + (candidate - 1) * r->sample_count,
                   r->sample_count * sizeof(*sums));
}
