/*
 * choice.c - which linears are rounded, and to which grid: a site's table, by linear and by
 * slot.
 *
 * A linear that stays plain is copied by the writer from the source, so nothing may be
 * folded into it: neither its slot nor the one that would divide its rows has scales.
 */
#include "quant/quant_impl.h"

int quant_stored_bits(const quant_grid *grid)
{
    return grid->bits == 3 ? 4 : grid->bits;
}

static const quant_choice *choice_of(const quant_site *site, const hf_linear *l)
{
    const hf_linear *first = NULL;
    size_t n = hf_layer_linears(site->in, l->layer, &first);

    DR_BUG_IF(n > QUANT_LAYER_LINEARS);
    if (site->choices == NULL)
        return NULL;
    return &site->choices[(size_t)l->layer * QUANT_LAYER_LINEARS + (size_t)(l - first)];
}

static bool short_groups(const quant_grid *grid)
{
    return grid == NULL || (grid->group_size > 0 && grid->group_size <= NN_FACTOR_MAX);
}

nn_device *quant_solves_there(const quant_site *site, const quant_grid *grid)
{
    size_t linears = (size_t)hf_model_config(site->in)->layers * QUANT_LAYER_LINEARS;
    bool all = short_groups(grid) && short_groups(site->head) && short_groups(site->embed);

    for (size_t i = 0; site->choices != NULL && i < linears; i++)
        all = all && (site->choices[i].plain || short_groups(&site->choices[i].grid) ||
                      site->choices[i].grid.bits == 0);
    return all ? quant_there(site->dev) : NULL;
}

bool quant_is_plain(const quant_site *site, const hf_linear *l)
{
    const quant_choice *c = choice_of(site, l);

    return c != NULL && c->plain;
}

quant_grid quant_grid_of(const quant_site *site, const hf_linear *l, const quant_grid *base)
{
    const quant_choice *c = choice_of(site, l);

    return c != NULL && !c->plain ? c->grid : *base;
}

bool quant_slot_grid(quant_grid *grid, const quant_site *site, int layer, hf_slot slot,
                     const quant_grid *base)
{
    size_t count = 0;
    const hf_linear *l = quant_slot_linears(site->in, layer, slot, &count);

    *grid = *base;
    for (size_t i = 0; i < count; i++) {
        if (!quant_is_plain(site, &l[i])) {
            *grid = quant_grid_of(site, &l[i], base);
            return true;
        }
    }
    return false;
}

bool quant_folds(const quant_site *site, int layer, hf_slot slot)
{
    size_t count = 0;
    const hf_linear *l = quant_slot_linears(site->in, layer, slot, &count);

    if (!quant_can_fold(hf_model_config(site->in), slot))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (quant_is_plain(site, &l[i]))
            return false;
    }
    if (slot != HF_SLOT_O && slot != HF_SLOT_DOWN)
        return true;
    /* V's rows and the up rows are the last of their slots */
    l = quant_slot_linears(site->in, layer,
                           slot == HF_SLOT_O ? HF_SLOT_QKV : HF_SLOT_GATE_UP, &count);
    return !quant_is_plain(site, &l[count - 1]);
}

dr_status quant_round_head(const quant_site *site, quant_chooser choose)
{
    const hf_linear *head = hf_head_linear(site->in);
    dr_status st = DR_OK;

    DR_BUG_IF(site->head != NULL && head == NULL);
    if (site->head != NULL)
        DR_TRY(quant_round_linear(site, site->head, choose, head));
    if (site->embed != NULL)
        DR_TRY(quant_round_linear(site, site->embed, choose, hf_embed_linear(site->in)));
done:
    return st;
}
