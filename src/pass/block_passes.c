/*
 * block_passes.c - what passes that pack weights of an ONNX graph in blocks have in common.
 */
#include "pass/block_passes_impl.h"
#include "quant/quant.h"

dr_status pass_blocks_validate(const void *config, const unsigned char *given)
{
    const pass_blocks *c = config;

    if ((c->block_size & (c->block_size - 1)) != 0)
        return dr_fail(DR_EUSAGE,
                       "block_size: expected a power of two from 16 to 256, found %d",
                       c->block_size);
    if (c->axis != 0)
        return dr_fail(DR_EUNSUPPORTED, "axis 1: MatMulNBits has its blocks along a "
                                        "product's inputs; the nearest is 0");
    return pass_external_validate(config, given);
}

onnx_blocks_options pass_blocks_options(const pass_job *job)
{
    const pass_blocks *c = job->config;

    return (onnx_blocks_options){.bits = 4,
                                 .block = c->block_size,
                                 .rounding = ONNX_ROUND_DEFAULT,
                                 .accuracy_level = c->accuracy_level,
                                 .matmul = true,
                                 .exclude = pass_names(job->arena, c->nodes_to_exclude),
                                 .include = pass_names(job->arena, c->nodes_to_include)};
}

typedef struct {
    quant_grid grid;
    int threads;
} hqq;

static dr_status round_hqq(void *ctx, dr_qtensor *out, const float *rows, size_t count,
                           size_t cols)
{
    const hqq *h = ctx;
    dr_pool *pool = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_pool_open(&pool, h->threads));
    DR_TRY(quant_pack_hqq(out, pool, rows, count, cols, &h->grid, false));
done:
    dr_pool_close(pool);
    return st;
}

void pass_round_hqq(onnx_blocks_options *o, const pass_job *job)
{
    hqq *h = dr_arena_alloc(job->arena, 1, sizeof(*h));

    *h = (hqq){{o->bits, o->block, o->symmetric}, job->threads};
    o->round = round_hqq;
    o->ctx = h;
}
