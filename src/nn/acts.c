/*
 * acts.c - room for what a layer computes on the way.
 */
#include "core/mem.h"
#include "nn/decoder_impl.h"

static size_t place(nn_acts *a, const hf_config *c, size_t b, size_t t, size_t lora_rank,
                    float *at)
{
    const nn_dims s = nn_dims_of(c);
    size_t m = b * t;
    const nn_part parts[] = {
        {&a->x, m * s.d},     {&a->norm1, m * s.d},
        {&a->qkv, m * s.qkv}, {&a->attn, m * s.hc},
        {&a->lse, m * s.h},   {&a->mid, m * s.d},
        {&a->norm2, m * s.d}, {&a->gate_up, m * 2 * s.i},
        {&a->act, m * s.i},   {&a->lora_u, m * lora_rank},
    };

    return nn_place(parts, DR_COUNT(parts), at);
}

size_t nn_acts_bytes(const hf_config *c, size_t b, size_t t, size_t lora_rank)
{
    nn_acts a = {0};

    return place(&a, c, b, t, lora_rank, NULL) * sizeof(float);
}

dr_status nn_acts_new(nn_acts *a, const hf_config *c, size_t b, size_t t, size_t lora_rank)
{
    dr_status st = DR_OK;
    void *p = NULL;

    DR_TRY(
        dr_big_alloc(&p, nn_acts_bytes(c, b, t, lora_rank), 1, "activations of a layer"));
    (void)place(a, c, b, t, lora_rank, p);
done:
    return st;
}
