/*
 * acts.c - room for what a layer computes on the way.
 */
#include "nn/decoder_impl.h"

/* Floats of what only some families have. */
static size_t only(bool has, size_t floats)
{
    return has ? floats : 0;
}

static size_t place(nn_acts *a, const hf_config *c, size_t b, size_t t, size_t lora_kept,
                    bool lse_apart, float *at)
{
    const nn_dims s = nn_dims_of(c);
    size_t m = b * t;
    bool norm1 = hf_norm_exists(c, HF_NORM_ATTN), norm2 = hf_norm_exists(c, HF_NORM_MLP);
    bool attn_out = hf_norm_exists(c, HF_NORM_ATTN_OUT),
         mlp_out = hf_norm_exists(c, HF_NORM_MLP_OUT), qk = hf_norm_exists(c, HF_NORM_Q);
    const nn_part parts[] = {
        {&a->x, m * s.d},
        {&a->norm1, only(norm1, m * s.d)},
        {&a->qkv, m * s.qkv},
        {&a->attn, m * s.hc},
        {&a->lse, only(!lse_apart, m * s.h)},
        {&a->mid, m * s.d},
        {&a->norm2, only(norm2, m * s.d)},
        {&a->gate_up, m * s.gu},
        {&a->act, m * s.i},
        {&a->lora_u, m * lora_kept},
        {&a->q_raw, only(qk, m * s.hc)},
        {&a->k_raw, only(qk, m * s.g * s.c)},
        {&a->attn_raw, only(attn_out, m * s.d)},
        {&a->mlp_raw, only(mlp_out, m * s.d)},
    };
    size_t floats = nn_place(parts, DR_COUNT(parts), at);

    if (!qk)
        a->q_raw = a->k_raw = NULL;
    if (!attn_out)
        a->attn_raw = NULL;
    if (!mlp_out)
        a->mlp_raw = NULL;
    if (!norm1)
        a->norm1 = a->x;
    if (!norm2)
        a->norm2 = c->parallel ? a->norm1 : a->mid;
    return floats;
}

size_t nn_acts_bytes(const hf_config *c, size_t b, size_t t, size_t lora_kept)
{
    nn_acts a = {0};

    return place(&a, c, b, t, lora_kept, false, NULL) * sizeof(float);
}

size_t nn_acts_rounded_bytes(const nn_device *dev, const hf_config *c, size_t b, size_t t,
                             size_t lora_kept)
{
    size_t lse = b * t * (size_t)c->heads * sizeof(float);
    nn_acts a = {0};

    if (!nn_device_rounds(dev))
        return nn_acts_bytes(c, b, t, lora_kept);
    return place(&a, c, b, t, lora_kept, true, NULL) * sizeof(uint16_t) + lse;
}

dr_status nn_acts_new_there(nn_acts *a, nn_device *dev, const hf_config *c, size_t b,
                            size_t t, size_t lora_kept)
{
    float *p = NULL;
    dr_status st = DR_OK;

    DR_TRY(nn_mem_new(dev, &p, place(a, c, b, t, lora_kept, false, NULL), NN_MEM_FLOAT,
                      "activations of a layer"));
    (void)place(a, c, b, t, lora_kept, false, p);
    a->lse_block = NULL;
done:
    return st;
}

dr_status nn_acts_new_rounded(nn_acts *a, nn_device *dev, const hf_config *c, size_t b,
                              size_t t, size_t lora_kept)
{
    float *p = NULL;
    dr_status st = DR_OK;

    if (!nn_device_rounds(dev))
        return nn_acts_new_there(a, dev, c, b, t, lora_kept);
    DR_TRY(nn_mem_new(dev, &p, place(a, c, b, t, lora_kept, true, NULL), NN_MEM_BF16,
                      "activations of a layer"));
    (void)place(a, c, b, t, lora_kept, true, p);
    DR_TRY(nn_mem_new(dev, &a->lse_block, b * t * (size_t)c->heads, NN_MEM_FLOAT,
                      "activations of a layer"));
    a->lse = a->lse_block;
done:
    return st;
}

void nn_acts_free(nn_acts *a, nn_device *dev)
{
    nn_mem_free(dev, a->lse_block);
    nn_mem_free(dev, a->x);
    *a = (nn_acts){0};
}

dr_status nn_acts_new(nn_acts *a, const hf_config *c, size_t b, size_t t, size_t lora_kept)
{
    return nn_acts_new_there(a, NULL, c, b, t, lora_kept);
}
