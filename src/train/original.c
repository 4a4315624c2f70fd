/*
 * original.c - what the model that a base was made from loses on the text that a training
 * evaluates: beside it stands what rounding cost and what the adapter wins back.
 */
#include <stdlib.h>

#include "core/mem.h"
#include "train/train_impl.h"

/* The mean over the block's labels; NaN: it has none. */
static dr_status judge(double *loss, nn_decoder *d, float *x, int32_t *targets,
                       const train_blocks *b, size_t block)
{
    const uint32_t *starts = b->starts != NULL ? b->starts + block * b->seq_len : NULL;
    size_t n = b->lengths[block], labels = 0;
    double sum = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    nn_decoder_documents(d, starts, train_longest(starts, n));
    DR_TRY(nn_decoder_hidden(d, x, b->ids + block * b->seq_len, 1, n));
    DR_TRY(train_block_loss(loss, &sum, &labels, d, x, targets, b, block));
done:
    return st;
}

dr_status train_original(double *losses, nn_device *dev, const hf_model *m,
                         const train_blocks *b, size_t keep_bytes)
{
    const hf_config *c = hf_model_config(m);
    dr_ranks *ranks = nn_device_ranks(dev);
    nn_device *mem = nn_mem_apart(dev) ? dev : NULL;
    size_t keep = mem != NULL ? nn_mem_room(dev) / 2 : keep_bytes;
    int32_t *targets = dr_calloc(b->seq_len, sizeof(*targets));
    nn_decoder *d = NULL;
    float *x = NULL;
    dr_status st = DR_OK;

    DR_TRY(nn_decoder_open_there(&d, dev, m, keep));
    DR_TRY(
        nn_mem_new(mem, &x, b->seq_len * (size_t)c->hidden, NN_MEM_FLOAT, "hidden states"));
    for (size_t i = dr_ranks_id(ranks); i < b->count; i += dr_ranks_count(ranks))
        DR_TRYF(judge(&losses[i], d, x, targets, b, i), "evaluating %s", hf_model_path(m));
    DR_TRY(train_share_blocks(ranks, losses, 1, b->count));
done:
    nn_mem_free(mem, x);
    nn_decoder_close(d);
    free(targets);
    return st;
}
