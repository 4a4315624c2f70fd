/*
 * mixing.c - bits by slot: Olive's SelectiveMixedPrecision by name (mixed), or what costs
 * least within a size (max_size).  The choice goes into the same table that overrides fill.
 *
 * max_size is of all tensors of the checkpoint, those that stay included, and is kept to
 * the byte.  Its grids are 4 and 8 bits with every group that fits, none coarser than the
 * one asked for.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "pass/quantize_impl.h"

enum { GROUP_LEAST = 16, OPTIONS_MAX = 16, HIGH_BITS = 8, LOW_BITS = 4 };
#define RATIO 0.8 /* of snr and iqe, when the user says nothing */

const char *const pass_mixes[] = {"k_quant_down", "k_quant_mixed", "k_quant_last", "snr",
                                  "snr_relative", "iqe",           "iqe_relative", NULL};

bool pass_mix_asked(const pass_modules *w)
{
    return w->mixed >= 0 || w->max_size != NULL;
}

/* "90MB", "1.5 GB", "94371840". */
static dr_status parse_size(uint64_t *bytes, const char *text)
{
    static const char *const units[] = {"", "B", "KB", "MB", "GB", "KiB", "MiB", "GiB"};
    static const double sizes[] = {1, 1, 1e3, 1e6, 1e9, 1024, 1048576, 1073741824};
    char *end = NULL;
    double n = strtod(text, &end);
    dr_status st = DR_OK;

    while (*end == ' ')
        end++;
    for (size_t i = 0; end != text && i < DR_COUNT(units); i++) {
        if (strcmp(end, units[i]) != 0 || !(n > 0) || !(n * sizes[i] < 1e18))
            continue;
        *bytes = (uint64_t)(n * sizes[i]);
        return DR_OK;
    }
    st = dr_fail(DR_EUSAGE, "max_size: expected bytes, found \"%s\"", text);
    dr_hint("such as 90MB or 85MiB");
    return st;
}

dr_status pass_mix_check(const pass_modules *w, const quant_grid *grid,
                         hf_quant_method layout)
{
    const char *what = w->max_size != NULL ? "max_size" : "mixed";
    bool scored = w->mixed >= QUANT_MIX_SNR;
    uint64_t bytes = 0;

    if (w->ratio != 0 && !scored)
        return dr_fail(DR_EUSAGE, "ratio belongs to mixed snr and iqe, not to %s",
                       w->mixed >= 0 ? pass_mixes[w->mixed] : "one grid for all");
    if (!pass_mix_asked(w))
        return DR_OK;
    if (w->mixed >= 0 && w->max_size != NULL)
        return dr_fail(DR_EUSAGE, "mixed and max_size both choose the bits: give one");
    if (w->overrides != NULL)
        return dr_fail(DR_EUSAGE, "%s and overrides both choose the bits: give one", what);
    if (layout == HF_QUANT_AWQ) {
        dr_status st =
            dr_fail(DR_EUSAGE, "%s: the awq layout has one setting for all modules", what);
        dr_hint("the nearest is format gptq (or olive, compressed-tensors)");
        return st;
    }
    if (w->max_size == NULL && grid->bits >= HIGH_BITS)
        return dr_fail(DR_EUSAGE, "mixed: %d bits leave nothing to mix with", grid->bits);
    if (w->max_size != NULL && grid->bits != LOW_BITS)
        return dr_fail(DR_EUSAGE, "max_size chooses among 4 and 8 bits, found bits %d",
                       grid->bits);
    return w->max_size != NULL ? parse_size(&bytes, w->max_size) : DR_OK;
}

/* ---- the table ---- */

/* One entry for each linear on the base grid, where the user named no modules. */
static void fill_table(pass_choices *c, dr_arena *a, const hf_model *m,
                       const quant_grid *base)
{
    size_t n = (size_t)hf_model_config(m)->layers * QUANT_LAYER_LINEARS;

    if (c->layers != NULL)
        return;
    c->layers = dr_arena_alloc(a, n, sizeof(*c->layers));
    for (size_t i = 0; i < n; i++)
        c->layers[i].grid = *base;
}

static void set_slot(pass_choices *c, const hf_model *m, size_t unit,
                     const quant_grid *grid)
{
    size_t layer = unit / HF_SLOT_COUNT;
    const hf_linear *l = NULL;
    size_t n = hf_layer_linears(m, (int)layer, &l);

    for (size_t i = 0; i < n; i++) {
        if ((size_t)l[i].slot == unit % HF_SLOT_COUNT)
            c->layers[layer * QUANT_LAYER_LINEARS + i].grid = *grid;
    }
}

/* ---- by a rule ---- */

/* The k_quant rules have the head in 8 bits; where it is the embedding, if that is
 * rounded. */
static dr_status mix_head(pass_choices *c, const hf_model *m, const pass_modules *w,
                          const quant_grid *better)
{
    dr_status st = DR_OK;

    if (w->mixed >= QUANT_MIX_SNR)
        return DR_OK;
    if (hf_head_linear(m) == NULL && c->embed) {
        c->embed_grid = *better;
        return DR_OK;
    }
    if (hf_head_linear(m) != NULL) {
        c->head = true;
        c->head_grid = *better;
        return DR_OK;
    }
    if (w->mixed != QUANT_MIX_K_QUANT_LAST)
        return DR_OK;
    st = dr_fail(DR_EUSAGE, "k_quant_last: the head of %s is its embedding, which stays",
                 hf_model_path(m));
    dr_hint("--embeds rounds both, or auto-opt --int4_algo_config k_quant_last");
    return st;
}

static dr_status mix_by_rule(pass_choices *c, const quant_site *site,
                             const quant_grid *base, const pass_modules *w)
{
    size_t units = (size_t)hf_model_config(site->in)->layers * HF_SLOT_COUNT;
    const quant_grid better = {HIGH_BITS, base->group_size, base->symmetric};
    bool *high = dr_calloc(units, sizeof(*high));
    dr_status st = DR_OK;

    DR_TRY(mix_head(c, site->in, w, &better));
    DR_TRY(quant_mix_rule(high, site, (quant_mix)w->mixed, base, &better,
                          w->ratio > 0 ? w->ratio : RATIO));
    for (size_t i = 0; i < units; i++) {
        if (high[i])
            set_slot(c, site->in, i, &better);
    }
done:
    free(high);
    return st;
}

/* ---- within a size ---- */

static size_t list_grids(quant_grid *grids, const hf_model *m, const quant_grid *base)
{
    size_t n = 0;

    for (int bits = LOW_BITS; bits <= HIGH_BITS; bits *= 2) {
        int group = base->group_size;
        if (group == -1)
            grids[n++] = (quant_grid){bits, -1, base->symmetric};
        if (group == -1 && quant_fit_group(&group, m, 128) != DR_OK) {
            dr_trail_clear();
            continue;
        }
        for (; group >= GROUP_LEAST; group /= 2)
            grids[n++] = (quant_grid){bits, group, base->symmetric};
    }
    return n;
}

/* Bytes of a slot on each grid. */
static dr_status slot_bytes(uint64_t *bytes, const pass_choices *c, const hf_model *m,
                            size_t unit, const quant_grid *grids, size_t count,
                            hf_quant_method layout)
{
    size_t layer = unit / HF_SLOT_COUNT;
    const hf_linear *l = NULL;
    size_t n = hf_layer_linears(m, (int)layer, &l);
    uint64_t one = 0;
    dr_status st = DR_OK;

    memset(bytes, 0, count * sizeof(*bytes));
    for (size_t i = 0; i < n; i++) {
        bool plain = c->layers[layer * QUANT_LAYER_LINEARS + i].plain;
        if ((size_t)l[i].slot != unit % HF_SLOT_COUNT)
            continue;
        for (size_t g = 0; g < count; g++) {
            const hf_quant q = {layout, grids[g].bits, grids[g].group_size,
                                grids[g].symmetric};
            DR_TRY(hf_written_bytes(&one, m, &l[i], plain ? NULL : &q));
            bytes[g] += one;
        }
    }
done:
    return st;
}

/* bytes with l packed in place of l as it is. */
static dr_status instead(uint64_t *bytes, const hf_model *m, const hf_linear *l,
                         const quant_grid *grid, hf_quant_method layout)
{
    const hf_quant q = {layout, quant_stored_bits(grid), grid->group_size, grid->symmetric};
    uint64_t packed = 0, plain = 0;
    dr_status st = DR_OK;

    DR_TRY(hf_written_bytes(&plain, m, l, NULL));
    DR_TRY(hf_written_bytes(&packed, m, l, &q));
    *bytes = *bytes - plain + packed;
done:
    return st;
}

/* What does not depend on the choice. */
static dr_status fixed_bytes(uint64_t *bytes, const pass_choices *c, const hf_model *m,
                             hf_quant_method layout)
{
    dr_status st = DR_OK;

    DR_TRY(hf_written_bytes(bytes, m, NULL, NULL));
    if (c->head)
        DR_TRY(instead(bytes, m, hf_head_linear(m), &c->head_grid, layout));
    if (c->embed)
        DR_TRY(instead(bytes, m, hf_embed_linear(m), &c->embed_grid, layout));
done:
    return st;
}

static dr_status refuse_budget(uint64_t budget, uint64_t least, uint64_t fixed)
{
    dr_status st = dr_fail(DR_EUSAGE,
                           "max_size: %llu bytes are too few: %llu is the least, %llu of "
                           "it in tensors that stay",
                           (unsigned long long)budget, (unsigned long long)least,
                           (unsigned long long)fixed);

    dr_hint("a coarser --group_size, or --embeds, or --lm_head for a head of its own, "
            "needs less");
    return st;
}

/* quant_mix_costs, or what a run that was killed since had found. */
static dr_status find_costs(double *cost, const quant_site *site, const quant_grid *grids,
                            size_t count, const quant_calib *calib)
{
    const size_t units = (size_t)hf_model_config(site->in)->layers * HF_SLOT_COUNT;
    const dr_part part = {cost, units * count * sizeof(*cost)};
    dr_status st = DR_OK;

    if (dr_resume_take(site->resume, "costs", cost, part.bytes))
        goto done;
    DR_TRY(quant_mix_costs(cost, site, grids, count, calib));
    if (site->resume != NULL)
        (void)dr_resume_keep(site->resume, "costs", &part, 1);
done:
    return st;
}

static dr_status mix_by_size(pass_choices *c, const quant_site *site,
                             const quant_grid *base, const pass_modules *w,
                             hf_quant_method layout, const quant_calib *calib)
{
    const hf_model *m = site->in;
    size_t units = (size_t)hf_model_config(m)->layers * HF_SLOT_COUNT;
    quant_grid grids[OPTIONS_MAX];
    size_t count = list_grids(grids, m, base);
    double *cost = dr_calloc(units * count, sizeof(*cost));
    uint64_t *bytes = dr_calloc(units * count, sizeof(*bytes));
    int *pick = dr_calloc(units, sizeof(*pick));
    uint64_t budget = 0, fixed = 0, least = 0;
    dr_status st = DR_OK;

    DR_TRY(parse_size(&budget, w->max_size));
    DR_TRY(fixed_bytes(&fixed, c, m, layout));
    for (size_t i = 0; i < units; i++)
        DR_TRY(slot_bytes(bytes + i * count, c, m, i, grids, count, layout));
    if (!quant_mix_pick(pick, &least, cost, bytes, units, count,
                        budget > fixed ? budget - fixed : 0)) {
        st = refuse_budget(budget, fixed + least, fixed);
        goto done;
    }
    DR_TRY(find_costs(cost, site, grids, count, calib));
    DR_BUG_IF(!quant_mix_pick(pick, &least, cost, bytes, units, count, budget - fixed));
    for (size_t i = 0; i < units; i++)
        set_slot(c, m, i, &grids[pick[i]]);
done:
    free(cost);
    free(bytes);
    free(pick);
    return st;
}

dr_status pass_mix(pass_choices *c, dr_arena *a, const quant_site *site,
                   const quant_grid *base, const pass_modules *w, hf_quant_method layout,
                   const quant_calib *calib)
{
    dr_status st = DR_OK;

    if (!pass_mix_asked(w))
        return DR_OK;
    fill_table(c, a, site->in, base);
    if (w->max_size == NULL)
        DR_TRY(mix_by_rule(c, site, base, w));
    else
        DR_TRYF(mix_by_size(c, site, base, w, layout, calib), "choosing bits");
done:
    return st;
}

/* ---- the result ---- */

dr_status pass_mix_tell(const pass_job *job, const pass_choices *c, const hf_model *m)
{
    int layers = hf_model_config(m)->layers;
    quant_grid grids[2 * OPTIONS_MAX];
    size_t used[2 * OPTIONS_MAX] = {0}, kinds = 0;
    json_t *list = json_array();
    dr_status st = DR_OK;

    for (int i = 0; i < layers; i++) {
        const hf_linear *l = NULL;
        size_t n = hf_layer_linears(m, i, &l);
        for (size_t k = 0; k < n; k++) {
            const quant_choice *one = &c->layers[(size_t)i * QUANT_LAYER_LINEARS + k];
            size_t g = 0;
            while (g < kinds && !pass_same_grid(&grids[g], &one->grid))
                g++;
            if (one->plain)
                continue;
            if (g == kinds)
                grids[kinds++] = one->grid;
            used[g]++;
        }
    }
    for (size_t g = 0; g < kinds; g++) {
        DR_TRY(dr_buf_addf(job->text, "%-14s %zu linears of %d bits, group %d\n",
                           g == 0 ? "mixed" : "", used[g], grids[g].bits,
                           grids[g].group_size));
        json_array_append_new(list, json_pack("{s:i, s:i, s:I}", "bits", grids[g].bits,
                                              "group_size", grids[g].group_size, "linears",
                                              (json_int_t)used[g]));
    }
    json_object_set(job->report, "mixed", list);
done:
    json_decref(list);
    return st;
}
