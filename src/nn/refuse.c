/*
 * refuse.c - what a family has that the forward here does not compute yet.  Such a model is
 * refused by name before anything is computed, since its numbers would be wrong.
 */
#include <math.h>

#include "nn/decoder_impl.h"

static bool layers_differ(const hf_config *c)
{
    for (int i = 0; i < c->layers; i++) {
        if (hf_layer_window(c, i) != c->sliding_window)
            return true;
    }
    return false;
}

static bool ropes_differ(const hf_config *c)
{
    for (int i = 0; i < c->layers; i++) {
        if (hf_layer_rope(c, i) != &c->rope)
            return true;
    }
    return false;
}

dr_status nn_refuse(const hf_config *c)
{
    const struct {
        bool has;
        const char *what;
    } parts[] = {
        {c->experts.count > 0, "mixture of experts"},
        {c->sinks, "attention sinks"},
        {c->norm_kind != HF_NORM_KIND_RMS, "LayerNorm"},
        {c->act != HF_ACT_SILU, "gelu"},
        {!c->gated, "MLP without a gate"},
        {c->qk_norm != HF_QK_NORM_NONE, "norm of queries and keys"},
        {c->parallel, "parallel attention and MLP"},
        {hf_norm_exists(c, HF_NORM_ATTN_OUT), "norm after attention"},
        {!hf_norm_exists(c, HF_NORM_ATTN), "attention without a norm before it"},
        {c->embed_scale != 1, "embedding multiplier"},
        {c->residual_scale != 1, "residual multiplier"},
        {c->logit_scale != 1, "logit multiplier"},
        {c->attn_scale != 1 / sqrt((double)c->head_dim), "attention multiplier"},
        {c->attn_softcap != 0, "cap on attention"},
        {c->logit_softcap != 0, "cap on logits"},
        {c->head_bias, "bias of the head"},
        {layers_differ(c), "window of some layers"},
        {ropes_differ(c), "rotation that differs from layer to layer"},
    };

    for (size_t i = 0; i < DR_COUNT(parts); i++) {
        if (!parts[i].has)
            continue;
        dr_status st =
            dr_fail(DR_EUNSUPPORTED, "quantize/finetune: %s's %s is not supported yet",
                    c->arch_name, parts[i].what);
        dr_hint("capture-onnx-graph and quantize --algorithm rtn --no_evaluate take it");
        return st;
    }
    return DR_OK;
}
