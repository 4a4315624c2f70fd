/*
 * fold.c - divides what comes before a slot by the slot's scale, so that its weights can be
 * multiplied by it and the model stays the same.
 *
 * QKV and GATE_UP divide the norm before them, O the V rows (and bias), DOWN the up rows
 * (and bias).  A norm is stored in the model's own 8 or 11 bits of precision, so the folded
 * norm is rounded first and the scale becomes norm / rounded norm: the product is exact,
 * where rounding the norm alone would change every channel by up to 0.4 %.
 *
 * With grouped queries a V row serves several columns of O, which therefore share a scale.
 * A LayerNorm's bias is divided likewise, and rounded as the file holds it.
 *
 * Norms of q and k, norms behind a block, windows, rotations and multipliers change nothing
 * of this: attention is linear in V, a gated MLP in its up rows, whatever comes after.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/mem.h"
#include "quant/quant_impl.h"

bool quant_can_fold(const hf_config *c, hf_slot slot)
{
    switch (slot) {
    case HF_SLOT_QKV:
        return hf_norm_exists(c, HF_NORM_ATTN) && !c->parallel;
    case HF_SLOT_GATE_UP:
        return hf_norm_exists(c, HF_NORM_MLP) && !c->parallel;
    case HF_SLOT_DOWN:
        return c->gated;
    case HF_SLOT_O:
    case HF_SLOT_COUNT:
        break;
    }
    return true;
}

void quant_tell_unfolded(const hf_model *m)
{
    const hf_config *c = hf_model_config(m);
    const hf_linear *l = NULL;
    size_t n = hf_layer_linears(m, 0, &l);
    char list[256] = "";

    for (size_t i = 0; i < n; i++) {
        size_t used = strlen(list);
        if (!quant_can_fold(c, l[i].slot))
            (void)snprintf(list + used, sizeof(list) - used, "%s%s", used > 0 ? ", " : "",
                           l[i].leaf);
    }
    if (list[0] != '\0')
        dr_log(DR_INFO, "%s: no scales for %s: nothing before them can take their inverse",
               c->arch_name, list);
}

/* The norm as its file can hold it. */
static float stored(float v, dr_dtype type)
{
    return type == DR_DTYPE_F16 ? dr_f16_to_f32(dr_f32_to_f16(v))
                                : dr_bf16_to_f32(dr_f32_to_bf16(v));
}

/* A LayerNorm's bias divided by the scale. */
static dr_status fold_norm_bias(const quant_site *site, int layer, hf_norm which,
                                const float *scale)
{
    size_t d = (size_t)hf_model_config(site->in)->hidden;
    float *bias = dr_calloc(d, sizeof(*bias));
    dr_status st = DR_OK;

    DR_TRY(hf_norm_bias_read(site->in, which, layer, bias));
    for (size_t i = 0; i < d; i++)
        bias[i] /= scale[i];
    DR_TRY(hf_writer_norm_bias(site->out, which, layer, bias));
done:
    free(bias);
    return st;
}

static dr_status fold_norm(const quant_site *site, int layer, hf_norm which, float *scale,
                           bool write)
{
    const hf_config *c = hf_model_config(site->in);
    size_t d = (size_t)c->hidden;
    float offset = hf_norm_offset(c);
    float *norm = dr_calloc(d, sizeof(*norm));
    dr_status st = DR_OK;

    DR_TRY(hf_norm_read(site->in, which, layer, norm));
    for (size_t i = 0; i < d; i++) {
        float folded = stored(norm[i] / scale[i] - offset, c->dtype) + offset;
        if (folded != 0.0f && isfinite(folded)) {
            scale[i] = norm[i] / folded;
            norm[i] = folded;
        } else { /* a dead channel, or one that cannot be scaled */
            scale[i] = 1.0f;
        }
    }
    if (write)
        DR_TRY(hf_writer_norm(site->out, which, layer, norm));
    if (write && c->norm_kind == HF_NORM_KIND_LAYER)
        DR_TRY(fold_norm_bias(site, layer, which, scale));
done:
    free(norm);
    return st;
}

dr_status quant_fold_plan(const quant_site *site, int layer, hf_norm which, float *scale)
{
    return fold_norm(site, layer, which, scale, false);
}

dr_status quant_fold_norm(const quant_site *site, int layer, hf_norm which, float *scale)
{
    return fold_norm(site, layer, which, scale, true);
}

void quant_row_scale(float *row_scale, const hf_config *c, hf_slot slot, const float *after)
{
    size_t n = hf_slot_out(c, slot), hd = (size_t)c->head_dim;
    size_t share = (size_t)(c->heads / c->kv_heads);
    bool qkv = slot == HF_SLOT_QKV;
    size_t tail = qkv ? (size_t)c->kv_heads * hd : (size_t)c->intermediate;

    for (size_t i = 0; i < n - tail; i++)
        row_scale[i] = 1.0f;
    for (size_t i = 0; i < tail; i++)
        row_scale[n - tail + i] = after[qkv ? i / hd * share * hd + i % hd : i];
}

dr_status quant_fold_bias(const quant_site *site, int layer, hf_slot slot,
                          const float *row_scale, const float *more)
{
    size_t count = 0;
    const hf_linear *l = quant_slot_linears(site->in, layer, slot, &count);
    float *bias = dr_calloc(hf_slot_out(hf_model_config(site->in), slot), sizeof(*bias));
    dr_status st = DR_OK;

    for (size_t k = 0; k < count; k++) {
        bool changed = false;
        if (!l[k].has_bias)
            continue;
        DR_TRY(hf_linear_bias(site->in, &l[k], bias));
        for (size_t i = 0; i < l[k].n_out; i++) {
            size_t row = l[k].row0 + i;
            float add = more != NULL ? more[row] : 0.0f;
            bias[i] = (bias[i] + add) / row_scale[row];
            changed = changed || row_scale[row] != 1.0f || add != 0.0f;
        }
        if (changed)
            DR_TRY(hf_writer_bias(site->out, &l[k], bias));
    }
done:
    free(bias);
    return st;
}

void quant_fold_rows(dr_qtensor *q, const float *row_scale)
{
    size_t blocks = dr_qtensor_blocks(q);

    for (size_t r = 0; r < q->rows; r++) {
        for (size_t b = 0; b < blocks && row_scale[r] != 1.0f; b++)
            q->scales[r * blocks + b] =
                nn_grid_half(q->scales[r * blocks + b] / row_scale[r]);
    }
}

void quant_tie_heads(float *v, const hf_config *c)
{
    size_t hd = (size_t)c->head_dim, share = (size_t)(c->heads / c->kv_heads);

    for (size_t g = 0; g < (size_t)c->kv_heads; g++) {
        for (size_t d = 0; d < hd; d++) {
            float *first = v + g * share * hd + d, sum = 0.0f;
            for (size_t i = 0; i < share; i++)
                sum += first[i * hd];
            for (size_t i = 0; i < share; i++)
                first[i * hd] = sum / (float)share;
        }
    }
}
