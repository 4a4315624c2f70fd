/*
 * nn_sample.h - a decoder writes text: a part of nn's door.
 *
 * Sequences begin with one token and go on, token by token, drawn from the softmax of the
 * logits over the temperature (0: the likeliest).  Keys and values are kept.  Nothing ends
 * a sequence: behind an end of text the next text begins, as in training.
 *
 * The number that draws token i of sequence s is Philox(seed, s) at i, and sequences are
 * computed NN_SAMPLE_BATCH at a time: the same bytes for any number of threads.
 */
#ifndef DRUPE_NN_SAMPLE_H
#define DRUPE_NN_SAMPLE_H

#include "core/log.h"
#include "hf/hf.h"

typedef struct nn_decoder nn_decoder; /* as in nn.h */

enum { NN_SAMPLE_BATCH = 32 };

/* 1 to len tokens; borrowed. */
typedef struct {
    const int32_t *ids;
    size_t count;
} nn_prompt;

typedef struct {
    size_t count, len;  /* sequences, tokens in each with the first */
    double temperature; /* >= 0 */
    uint64_t seed;
    int32_t first;            /* of every sequence without a prompt */
    const nn_prompt *prompts; /* [count]: what they begin with; NULL: first alone */
} nn_sample_options;

/* ids[count][len].  d should keep its layers: they are read once a token.  progress may be
 * NULL; it counts tokens.  DR_ENOMEM: the keys and values, with the bytes. */
DR_MUST_USE dr_status nn_sample(nn_decoder *d, int32_t *ids, const nn_sample_options *o,
                                dr_progress *progress);

/* What it will take: products, weights read, and memory with the layers kept. */
typedef struct {
    double flops;
    uint64_t read_bytes, memory_bytes;
} nn_sample_cost;
nn_sample_cost nn_sample_costs(const hf_config *c, const nn_sample_options *o);

#endif
