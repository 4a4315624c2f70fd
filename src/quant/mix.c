/*
 * mix.c - which slots of a model get more bits: by rules that look at places or weights
 * alone, as Olive's SelectiveMixedPrecision has them, and by cost under a budget.
 *
 * The unit is a slot, since its linears share a grid: for signal to noise their squares are
 * added, for IQE the worst row of all counts, which is what Olive does with q, k and v.
 *
 * Under a budget: each slot's options, by bytes, have a lower convex hull; walking up the
 * hulls of all slots in order of what a byte saves is the Lagrangian's answer at every
 * size it passes, and between those sizes what still fits is added.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "quant/quant_impl.h"

/* ---- rules ---- */

static bool is_outer_layer(int i, int layers)
{
    return 8 * i < layers || 8 * i >= 7 * layers || (i - layers / 8) % 3 == 2;
}

typedef struct {
    double signal, noise; /* sums of squares */
    double worst;         /* of the rows' mean squares of noise */
} slot_noise;

static dr_status measure_noise(slot_noise *out, const quant_site *site, const float *w,
                               float *back, size_t rows, size_t cols,
                               const quant_grid *grid, const char *name)
{
    quant_grid whole = *grid;
    size_t block = 0;
    dr_qtensor q = {0};
    dr_status st = DR_OK;

    *out = (slot_noise){0};
    DR_TRY(quant_grid_block(&block, grid, cols, name));
    whole.group_size = (int)block;
    DR_TRYF(quant_pack_rtn(&q, nn_device_pool(site->dev), w, rows, cols, &whole, true),
            "rounding %s", name);
    dr_qtensor_to_f32(back, &q, 0, rows);
    for (size_t r = 0; r < rows; r++) {
        double noise = 0;
        for (size_t i = r * cols; i < (r + 1) * cols; i++) {
            double e = (double)back[i] - (double)w[i];
            noise += e * e;
            out->signal += (double)w[i] * (double)w[i];
        }
        out->noise += noise;
        out->worst = fmax(out->worst, noise / (double)cols);
    }
done:
    dr_qtensor_release(&q);
    return st;
}

/* The lower, the more it needs the better grid. */
static double score_of(quant_mix how, const slot_noise *n, const slot_noise *better)
{
    const double eps = 1e-12, tiny = eps * eps;

    switch (how) {
    case QUANT_MIX_SNR:
        return log10(fmax(n->signal, tiny) / fmax(n->noise, tiny));
    case QUANT_MIX_SNR_RELATIVE:
        return log10(fmax(better->noise, tiny) / fmax(n->noise, tiny));
    case QUANT_MIX_IQE:
        return 1 / (n->worst + eps);
    case QUANT_MIX_IQE_RELATIVE:
        return (better->worst + eps) / (n->worst + eps);
    case QUANT_MIX_K_QUANT_DOWN:
    case QUANT_MIX_K_QUANT_MIXED:
    case QUANT_MIX_K_QUANT_LAST:
        break;
    }
    DR_BUG_IF(true);
    return 0;
}

static dr_status score_slots(double *score, const quant_site *site, quant_mix how,
                             const quant_grid *base, const quant_grid *better)
{
    const hf_config *c = hf_model_config(site->in);
    float *w = NULL, *back = NULL;
    size_t most = quant_widest_slot(c).weights;
    dr_status st = DR_OK;

    DR_TRY(quant_floats(&w, most, 1, "a slot's weights"));
    DR_TRY(quant_floats(&back, most, 1, "a slot's weights"));
    for (int i = 0; i < c->layers * HF_SLOT_COUNT; i++) {
        hf_slot s = (hf_slot)(i % HF_SLOT_COUNT);
        size_t rows = hf_slot_out(c, s), cols = hf_slot_in(c, s);
        const char *name = quant_slot_linears(site->in, i / HF_SLOT_COUNT, s, NULL)->path;
        slot_noise low = {0}, high = {0};
        DR_TRY(dr_cancelled_check());
        DR_TRY(quant_slot_read(site, i / HF_SLOT_COUNT, s, w, NULL));
        DR_TRY(measure_noise(&low, site, w, back, rows, cols, base, name));
        DR_TRY(measure_noise(&high, site, w, back, rows, cols, better, name));
        score[i] = score_of(how, &low, &high);
    }
done:
    dr_big_free(w);
    dr_big_free(back);
    return st;
}

/* Lowest score first, until the weights that stay are no more than their share. */
static void take_lowest(bool *high, const double *score, const hf_config *c, double ratio)
{
    int count = c->layers * HF_SLOT_COUNT;
    double total = 0, taken = 0;

    for (int i = 0; i < count; i++)
        total += (double)hf_slot_out(c, (hf_slot)(i % HF_SLOT_COUNT)) *
                 (double)hf_slot_in(c, (hf_slot)(i % HF_SLOT_COUNT));
    for (int n = 0; n < count && (n == 0 || taken < total * (1 - ratio)); n++) {
        int best = -1;
        for (int i = 0; i < count; i++) {
            if (!high[i] && (best < 0 || score[i] < score[best]))
                best = i;
        }
        high[best] = true;
        taken += (double)hf_slot_out(c, (hf_slot)(best % HF_SLOT_COUNT)) *
                 (double)hf_slot_in(c, (hf_slot)(best % HF_SLOT_COUNT));
    }
}

dr_status quant_mix_rule(bool *high, const quant_site *site, quant_mix how,
                         const quant_grid *base, const quant_grid *better, double ratio)
{
    const hf_config *c = hf_model_config(site->in);
    size_t count = (size_t)c->layers * HF_SLOT_COUNT;
    double *score = dr_calloc(count, sizeof(*score));
    dr_status st = DR_OK;

    memset(high, 0, count * sizeof(*high));
    if (how >= QUANT_MIX_SNR) {
        DR_TRY(score_slots(score, site, how, base, better));
        take_lowest(high, score, c, ratio);
        goto done;
    }
    for (int i = 0; i < c->layers && how != QUANT_MIX_K_QUANT_LAST; i++) {
        bool *slot = high + (size_t)i * HF_SLOT_COUNT;
        slot[HF_SLOT_DOWN] = is_outer_layer(i, c->layers);
        slot[HF_SLOT_QKV] = slot[HF_SLOT_DOWN] && how == QUANT_MIX_K_QUANT_MIXED;
    }
done:
    free(score);
    return st;
}

/* ---- a budget ---- */

/* Among equal bytes the cheaper option, among equals the first. */
static int smallest(const double *cost, const uint64_t *bytes, size_t options)
{
    size_t best = 0;

    for (size_t k = 1; k < options; k++) {
        if (bytes[k] < bytes[best] || (bytes[k] == bytes[best] && cost[k] < cost[best]))
            best = k;
    }
    return (int)best;
}

/* The step from `from` that saves most for a byte, of those within `left`; -1: none. */
static int best_step(double *gain, const double *cost, const uint64_t *bytes,
                     size_t options, int from, uint64_t left)
{
    int best = -1;

    *gain = 0;
    for (size_t k = 0; k < options; k++) {
        if (bytes[k] <= bytes[from] || cost[k] >= cost[from] ||
            bytes[k] - bytes[from] > left)
            continue;
        double g = (cost[from] - cost[k]) / (double)(bytes[k] - bytes[from]);
        if (g > *gain) {
            *gain = g;
            best = (int)k;
        }
    }
    return best;
}

bool quant_mix_pick(int *pick, uint64_t *least, const double *cost, const uint64_t *bytes,
                    size_t units, size_t options, uint64_t budget)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < units; i++) {
        pick[i] = smallest(cost + i * options, bytes + i * options, options);
        sum += bytes[i * options + (size_t)pick[i]];
    }
    *least = sum;
    if (sum > budget)
        return false;
    for (;;) {
        size_t unit = units;
        double most = 0, gain = 0;
        int to = -1;
        for (size_t i = 0; i < units; i++) {
            int k = best_step(&gain, cost + i * options, bytes + i * options, options,
                              pick[i], budget - sum);
            if (k >= 0 && gain > most) {
                most = gain;
                unit = i;
                to = k;
            }
        }
        if (unit == units)
            return true;
        sum +=
            bytes[unit * options + (size_t)to] - bytes[unit * options + (size_t)pick[unit]];
        pick[unit] = to;
    }
}
