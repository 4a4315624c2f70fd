/*
 * fit.c - the group size that every linear of a model can have.
 */
#include "quant/quant_impl.h"

enum { GROUP_MIN = 16 };

static bool fits(const hf_config *c, int group)
{
    for (int s = 0; s < HF_SLOT_COUNT; s++) {
        if (hf_slot_in(c, (hf_slot)s) % (size_t)group != 0)
            return false;
    }
    return true;
}

dr_status quant_fit_group(int *group, const hf_model *m, int wanted)
{
    const hf_config *c = hf_model_config(m);
    int power = GROUP_MIN;

    if (wanted == -1) {
        *group = -1;
        return DR_OK;
    }
    while (power <= wanted / 2)
        power *= 2;
    for (int g = power; g >= GROUP_MIN && g <= wanted; g /= 2) {
        if (fits(c, g)) {
            *group = g;
            return DR_OK;
        }
    }
    dr_status st = dr_fail(
        DR_EUNSUPPORTED, "%s: no group size from %d to %d divides the widths %zu, %zu, %zu",
        hf_model_path(m), GROUP_MIN, wanted, hf_slot_in(c, HF_SLOT_QKV),
        hf_slot_in(c, HF_SLOT_O), hf_slot_in(c, HF_SLOT_DOWN));
    dr_hint("-1, a whole row, always fits");
    return st;
}
